"""Whole runs on a Flink cluster of two TaskManagers, compared with the local runner's.

    python -m benchmarks.flink_corpus [--problems N] [--model]

N simulated problems (2,000) with searches, critics and second solutions, the simulated server without latency: once on
the local runner and once on the cluster, each asking the server anew. `identical`: whether every shard has the same
bytes; `counts`: whether stages and rows in `run.json` are the same and every sum of a stage adds up; `again`: requests
that are paid after that, when the cluster's command is given once more.

With `--model` the default job instead: its problems, its model in every worker's process, its prompts. What a model
answers in a batch depends on what else is in it, so the local runner has the cluster's journal before it, and must come
to the same shards without asking anything (`again` counts it, too).
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.flink import overrides
from benchmarks.flink_cluster import flink_cluster
from benchmarks.kill_tables import file_digests
from pipelines.engines.simulated import SimulatedSettings, serving_subprocess
from pipelines.journal import Journal
from pipelines.manifest import read_books
from schemas import Record

_ROOT = Path(__file__).resolve().parents[1]


class Comparison(Record):
    """A run on the cluster against one on the local runner."""

    problems: int
    files: int
    """Of shards, in all tables."""
    rows: int
    requests: int
    """Of the run on the cluster, by the journal's ledger."""
    local_seconds: float
    cluster_seconds: float
    identical: bool
    counts: bool
    again: int


def wrongturn(words: Sequence[str]) -> float:
    """Runs `wrongturn run`; gives its seconds.

    Raises:
      RuntimeError: it did not end well.
    """
    began = time.monotonic()
    command = [sys.executable, "-m", "pipelines.main", "run", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=_ROOT, check=False)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {' '.join(command)}\n{done.stderr[-3000:]}")
    return time.monotonic() - began


def compare(words: Sequence[str], cluster: Sequence[str], folder: Path, *, replays: bool) -> Comparison:
    """Runs on the cluster and locally, then the cluster's command again.

    Args:
      words: settings that shape the data.
      cluster: those of the runner.
      folder: for both outputs.
      replays: whether the local run takes its answers from the cluster's journal.
    """
    far, near = folder / "cluster", folder / "local"
    journal = far / ".wrongturn" / "journal.sqlite"
    cluster_seconds = wrongturn([*words, *cluster, f"out={far}"])
    requests = _requests(journal)
    local_seconds = wrongturn([*words, f"out={near}", *([f"journal={journal}"] if replays else [])])
    wrongturn([*words, *cluster, f"out={far}"])
    books, made = read_books(far), file_digests(far)
    return Comparison(
        problems=books.stages[0].entered,
        files=len(made),
        rows=sum(books.rows.values()),
        requests=requests,
        local_seconds=local_seconds,
        cluster_seconds=cluster_seconds,
        identical=made == file_digests(near),
        counts=books == read_books(near) and all(stage.balanced for stage in books.stages),
        again=_requests(journal) - requests,
    )


def _requests(journal: Path) -> int:
    """Requests that a journal's ledger knows to be paid."""
    with contextlib.closing(Journal(journal)) as opened:
        return sum(usage.requests for usage in opened.ledger().values())


def main() -> None:
    """Makes the runs and prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=2000, help="simulated problems (2000)")
    parser.add_argument("--model", action="store_true", help="the default job, with its model, instead")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cluster = stack.enter_context(flink_cluster(folder / "flink", task_managers=2)).overrides()
        words: list[str] = []
        if not options.model:
            world = SimulatedSettings(seconds_a_token=1e-9, slots=64)
            url = stack.enter_context(serving_subprocess(world))
            words = [*overrides(url, options.problems), "runner.problems_per_shard=250"]
        compared = compare(words, cluster, folder, replays=options.model)
    print(msgspec.json.encode(compared).decode())


if __name__ == "__main__":
    main()

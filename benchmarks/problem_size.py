"""What a problem takes, as a plan for a large corpus needs it: samples, requests at once, bytes, and time to go over.

    python -m benchmarks.problem_size [--quick]

Problems of the simulated world on the local runner with the default settings. For each problem, on the mean: `requests`
and `samples` (also of its tree alone), and `row_bytes`, the shards' files over the problems. `at_once` is the most
requests that one problem has at the server (in its tree, and at any time), each answer taking some 0.2 s and one
problem being worked on at a time. `replay_secs` is what the same command takes for each 1,000 requests that the journal
holds, where the shards are lost: the seconds of such a run less those of one that finds everything finished.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.kill_points import Call, counting_server
from pipelines.engines.simulated import SimulatedSettings
from schemas import Record

_ROOT = Path(__file__).resolve().parents[1]
_WORDS = (
    *("problems=simulated", "engine=simulated", "actor=plain", "panel=blind"),
    *("search=default", "pairing=default", "verify=default", "runner.problems_per_shard=512"),
)
_SLOW = SimulatedSettings(seconds_a_token=0.001)
_TREE = "solve"


class Figures(Record):
    """What is printed."""

    problems: int
    requests: float
    samples: float
    tree_samples: float
    row_bytes: float
    replay_secs: float
    at_once_in_tree: int
    at_once: int


def at_once(calls: Sequence[Call]) -> int:
    """The most calls that were at the server at the same time."""
    ends = [(call.answered, -1) for call in calls if call.answered is not None]
    most = here = 0
    for _, step in sorted([*((call.arrived, 1) for call in calls), *ends]):
        here += step
        most = max(most, here)
    return most


def _run(out: Path, words: Sequence[str]) -> float:
    """Seconds of a run in a process of its own."""
    command = [sys.executable, "-m", "pipelines.main", "run", *_WORDS, *words, f"out={out}"]
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=_ROOT)
    return time.monotonic() - began


def measure(folder: Path, *, num_problems: int, num_alone: int) -> Figures:
    """Runs them.

    Args:
      folder: for the runs' output.
      num_problems: for the means.
      num_alone: problems that are worked on one at a time.
    """
    with counting_server(SimulatedSettings()) as server:
        words = [f"problems.num_problems={num_problems}", f"engine.url={server.url}", f"journal={folder / 'journal'}"]
        _run(folder / "out", words)
        calls = server.calls()
        # From the journal, and then with nothing to do.
        seconds = [_run(folder / "again", words) for _ in range(2)]
        assert not server.calls()
    with counting_server(_SLOW) as server:
        _run(
            folder / "alone",
            [f"problems.num_problems={num_alone}", "runner.max_in_flight=1", f"engine.url={server.url}"],
        )
        slow = server.calls()
    return Figures(
        problems=num_problems,
        requests=len(calls) / num_problems,
        samples=sum(call.num_samples for call in calls) / num_problems,
        tree_samples=sum(call.num_samples for call in calls if call.task == _TREE) / num_problems,
        row_bytes=sum(path.stat().st_size for path in (folder / "out").glob("*/*.parquet")) / num_problems,
        replay_secs=1000 * (seconds[0] - seconds[1]) / len(calls),
        at_once_in_tree=at_once([call for call in slow if call.task == _TREE]),
        at_once=at_once(slow),
    )


def main() -> None:
    """Measures and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few problems")
    sizes = (8, 2) if parser.parse_args().quick else (256, 12)
    with tempfile.TemporaryDirectory() as name:
        found = measure(Path(name), num_problems=sizes[0], num_alone=sizes[1])
    table = Table("of a problem", "")
    table.add_row("requests", f"{found.requests:.1f}")
    table.add_row("samples", f"{found.samples:.0f}")
    table.add_row("samples in its tree", f"{found.tree_samples:.0f}")
    table.add_row("bytes of rows", f"{found.row_bytes:,.0f}")
    table.add_row("requests at once in its tree, at most", f"{found.at_once_in_tree}")
    table.add_row("requests at once, at most", f"{found.at_once}")
    table.add_row("seconds to go over 1,000 journaled requests", f"{found.replay_secs:.2f}")
    Console(width=80).print(table)
    print(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    main()

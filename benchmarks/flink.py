"""What more workers bring: the same work on 1, 2 and 3 Flink TaskManagers of one slot each.

    python -m benchmarks.flink [--quick]

Each worker has the same `max_in_flight`, and the simulated server as many slots as all of them together can fill. The
working phase is the time from the first model call to the last answer, as the server counts it; what a job needs before
and behind it (the job server, the upload, the start of workers) stands apart. `speedup_N` is the working phase of one
TaskManager over that of N; `tail_share` the part of the working phase of the most TaskManagers in which the last 5 % of
the calls are answered (0.05 where nothing straggles); `utilisation_job` how busy their slots were over the whole run,
with what is before and behind the working phase; `identical` whether all shards have the bytes of the local runner's.
Needs Java and Beam's job server, see tests/flink.
"""

import argparse
import json
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.flink_cluster import flink_cluster
from pipelines.beside import beside
from pipelines.config import compose
from pipelines.engines.simulated import SimulatedSettings, serving_subprocess
from pipelines.run import Watcher, run
from pipelines.shards import file_digest
from schemas import Record

IN_FLIGHT = 24
"""Requests that one worker has in flight."""
SAMPLES = 4
"""Of one request at most: as many slots does it take."""
_POLL_SECS = 0.25
_TAIL = 0.05


class Figure(Record):
    """One run."""

    task_managers: int
    """0 is the local runner."""
    requests: int
    working_secs: float
    around_secs: float
    """Of the run outside the working phase."""
    utilisation: float
    """Of the server's slots, over the working phase."""
    tail_share: float
    digests: dict[str, str]

    @property
    def utilisation_job(self) -> float:
        """The same over the whole run: nothing is busy outside the working phase."""
        return self.utilisation * self.working_secs / (self.working_secs + self.around_secs)


def overrides(url: str, num_problems: int) -> list[str]:
    """The run: trees with a bounded number of rollouts each, critics, second solutions; `out` comes on top."""
    return [
        *("problems=simulated", f"problems.num_problems={num_problems}", "engine=simulated", f"engine.url={url}"),
        *("actor=plain", "panel=blind", "search=default", "pairing=default", "verify=default"),
        *("search.root_rollouts=4", "search.max_root_rollouts=8", "search.rollouts_per_search=4"),
        *("search.max_rollouts=48", "runner.problems_per_shard=6"),
        f"engine.limits.max_in_flight={IN_FLIGHT}",
    ]


class Answers:
    """How many requests a server had answered, again and again."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.seen: list[tuple[float, int]] = []

    def watch(self, stop: threading.Event) -> None:
        """Looks until it is to stop."""
        while not stop.wait(_POLL_SECS):
            stats = self.stats()
            self.seen.append((stats["uptime_seconds"], stats["requests"] - stats["in_flight"]))

    def stats(self) -> Any:
        """What the server counts."""
        with urllib.request.urlopen(f"{self._url}/stats", timeout=10) as reply:
            return json.loads(reply.read())

    def tail_share(self, first: float, last: float, requests: int) -> float:
        """Share of the working phase in which the last 5 % are answered."""
        late = [when for when, answered in self.seen if answered >= (1 - _TAIL) * requests]
        return (last - min(late, default=last)) / (last - first)


def measure(
    world: SimulatedSettings, task_managers: int, runner: Sequence[str], out: Path, num_problems: int
) -> Figure:
    """One run against a server of its own, with slots for so many workers."""
    world = msgspec.structs.replace(world, slots=IN_FLIGHT * SAMPLES * max(task_managers, 1))
    with serving_subprocess(world) as url:
        answers = Answers(url)
        began = time.monotonic()
        with beside(answers.watch):
            run(compose([*overrides(url, num_problems), *runner, f"out={out}"]), Watcher())
        seconds = time.monotonic() - began
        stats = answers.stats()
    first, last = stats["first_request_seconds"], stats["last_answer_seconds"]
    return Figure(
        task_managers=task_managers,
        requests=stats["requests"],
        working_secs=last - first,
        around_secs=seconds - (last - first),
        utilisation=stats["utilisation"],
        tail_share=answers.tail_share(first, last, stats["requests"]),
        digests={str(path.relative_to(out)): file_digest(path) for path in sorted(out.glob("*/*.parquet"))},
    )


def main() -> None:
    """Runs the same work on each cluster and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="little work, and no third TaskManager")
    options = parser.parse_args()
    num_problems, sizes = (24, (1, 2)) if options.quick else (128, (1, 2, 3))
    world = SimulatedSettings(seconds_a_token=0.002 if options.quick else 0.01, length_median=200.0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        local = measure(msgspec.structs.replace(world, seconds_a_token=1e-9), 0, (), folder / "local", num_problems)
        figures = []
        for number in sizes:
            with flink_cluster(folder / f"cluster-{number}", task_managers=number) as cluster:
                figures.append(measure(world, number, cluster.overrides(), folder / f"out-{number}", num_problems))
    print_table(figures)
    result: dict[str, Any] = {
        f"speedup_{each.task_managers}": round(figures[0].working_secs / each.working_secs, 3) for each in figures[1:]
    }
    result["tail_share"] = round(figures[-1].tail_share, 3)
    result["utilisation_job"] = round(figures[-1].utilisation_job, 3)
    result["identical"] = all(each.digests == local.digests for each in figures)
    print(json.dumps(result))


def print_table(figures: Sequence[Figure]) -> None:
    """For people."""
    table = Table(
        *("TaskManagers", "calls", "working s", "around it s", "calls/s", "slots busy", "of the whole run"),
        "last 5 % of calls",
    )
    for each in figures:
        table.add_row(
            *(str(each.task_managers), str(each.requests), f"{each.working_secs:.1f}", f"{each.around_secs:.1f}"),
            *(
                f"{each.requests / each.working_secs:.1f}",
                f"{each.utilisation:.3f}",
                f"{each.utilisation_job:.3f}",
                f"{each.tail_share:.1%} of the time",
            ),
        )
    Console(width=130).print(table)


if __name__ == "__main__":
    main()

"""What the loss of each part of a Flink cluster costs: killed with -9 while the product works there.

    python -m benchmarks.flink_kills [--quick] [--redis]

`wrongturn run runner=flink` works on a cluster of two TaskManagers against one simulated server in another process.
SIGKILL hits a TaskManager (another one is started), a Python worker, the worker pool (started again, as a supervisor
would), the pool with all its workers (as where a container ends), the JobManager or the process that submits; once
while first solutions are asked for, once late, while second solutions are. After the last two the same command is given
again. What comes out is compared with a run on the local runner that nobody disturbs. With `--redis` the journal is on
a Redis server, else it is a file.

In flight: calls that the server had taken in and whose answer was not in the journal at the moment of the last SIGKILL:
those still at the server, and those answered and on the way to the journal. At the halt: the most calls at the server
from then on until no new ones came, or one for a sample of before, which is the next attempt's: what is left of a job
works on until Flink stops it, too. Paid twice: calls of which any sample was asked for again later. Duplicates: rows
whose id another row of the table has. Missing: rows of the undisturbed run that are not there, and samples it needed
that nobody asked for; surplus: the reverse. Collapsed: samples in the journal beyond the distinct (prompt, seed) pairs
that the server was asked for, and sets of samples that are not, text for text, the undisturbed run's. Identical: every
shard has the undisturbed run's digest. Counts: stages and rows in `run.json` are the undisturbed run's, and every
stage's sums add up. Again: calls that the same command pays after all is done.
"""

import argparse
import contextlib
import dataclasses
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.flink_cluster import ClusterPart, FlinkCluster, flink_cluster
from benchmarks.kill_points import Call, CountingServer, counting_server
from benchmarks.kills import Dataset, undisturbed
from pipelines.engines.simulated import SimulatedSettings
from pipelines.journal import Journal, Place
from pipelines.manifest import Books, read_books
from schemas import Record
from schemas.arrow import CONFIGS

_ROOT = Path(__file__).resolve().parents[1]
WORLD = SimulatedSettings(seconds_a_token=0.001)
"""About 0.2 s a sample, so that calls are in flight at any moment."""
_PATIENCE_SECS = 600.0
_HALT_SECS = 2.0
"""Ten times as long as an answer takes."""
_STARTS = 3
"""Of one command at most: the second should do."""

Part = Literal[ClusterPart, "submitter"]
PARTS: tuple[Part, ...] = ("task manager", "worker", "pool", "pool and workers", "job manager", "submitter")


class Moment(Record):
    """When to kill: when the server has taken in so many calls for a task since the run was started."""

    task: str
    nth: int

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.task} #{self.nth}"


class Trial(Record):
    """One run on the cluster of which a part was killed."""

    part: Part
    moment: str
    codes: tuple[int, ...]
    """Exit codes of all starts of the command."""
    paid: int
    needed: int
    """Calls of the undisturbed run."""
    at_server: int
    on_the_way: int
    at_halt: int
    paid_twice: int
    duplicates: int
    missing: int
    surplus: int
    collapsed: int
    identical: bool
    counts: bool
    again: int
    """Calls that the same command pays after all is done."""
    seconds: float
    """From the kill to the end of the run."""

    @property
    def in_flight(self) -> int:
        """Calls whose answers could be lost."""
        return max(self.at_server, self.at_halt) + self.on_the_way


class Reference(Record):
    """What the local runner makes of the same settings, with nobody in its way."""

    made: Dataset
    calls: list[Call]
    books: Books


@dataclasses.dataclass(frozen=True)
class Stand:
    """What all trials have in common."""

    cluster: FlinkCluster
    server: CountingServer
    words: Sequence[str]
    """Settings that shape the data, from `settings`."""
    reference: Reference


def settings(url: str, *, num_problems: int = 24, shard_size: int = 8) -> list[str]:
    """The words that shape the data; runner, out and journal come on top."""
    return [
        *("problems=simulated", "engine=simulated", "actor=plain", "panel=blind", f"engine.url={url}"),
        *("search=default", "pairing=default", "verify=default", "export.validation_share=0.3"),
        *(f"problems.num_problems={num_problems}", f"runner.problems_per_shard={shard_size}"),
    ]


def make_reference(words: Sequence[str], server: CountingServer, folder: Path) -> Reference:
    """Runs on the local runner, in `folder`/out."""
    out = folder / "out"
    server.calls()  # Those of whatever was done before are no part of it.
    made, calls = undisturbed([*words, f"out={out}"], server, folder, out / ".wrongturn" / "journal.sqlite")
    return Reference(made=made, calls=calls, books=read_books(out))


@contextlib.contextmanager
def running(words: Sequence[str], log: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """The product's command in a process group of its own, which does not outlast the context."""
    command = [sys.executable, "-m", "pipelines.main", "run", *words]
    with log.open("ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, cwd=_ROOT, process_group=0)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def end(process: "subprocess.Popen[bytes]", log: Path) -> int:
    """Waits for its end; gives the exit code."""
    try:
        return process.wait(_PATIENCE_SECS)
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"a run did not end within {_PATIENCE_SECS:g} s; {log} ends:\n{tail(log)}") from None


def tail(log: Path) -> str:
    """The end of a log."""
    return log.read_text(errors="replace")[-3000:]


def await_call(process: "subprocess.Popen[bytes]", moment: Moment, server: CountingServer, start_at: int) -> None:
    """Returns when the server has taken in so many calls; raises RuntimeError where the run ends before."""
    deadline = time.monotonic() + _PATIENCE_SECS
    while server.count(moment.task) - start_at < moment.nth:
        if process.poll() is not None:
            raise RuntimeError(f"the run ended with exit code {process.returncode} before {moment.name}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"{moment.name} was not reached within {_PATIENCE_SECS:g} s")
        time.sleep(0.005)


def run_trial(stand: Stand, part: Part, moment: Moment, folder: Path, journal: Place | None = None) -> Trial:
    """Kills a part at a moment of a run, sees it through to its end and compares.

    Args:
      stand: where it runs.
      part: what is killed.
      moment: when.
      folder: for the run's output and log.
      journal: the run's; None for the file in its output.
    """
    cluster, server, reference = stand.cluster, stand.server, stand.reference
    journal = journal or folder / "out" / ".wrongturn" / "journal.sqlite"
    log = folder / "run.log"
    command = [*stand.words, *cluster.overrides(), f"out={folder / 'out'}", f"journal={journal}"]
    command += ["runner.patience_secs=5", "runner.restart_delay_secs=1"]
    server.calls()
    begun = server.count(moment.task)
    with running(command, log) as process:
        await_call(process, moment, server, begun)
        # To find them takes a while, in which the journal would grow.
        victims = [-process.pid] if part == "submitter" else cluster.victims(part)
        with contextlib.closing(Journal(journal)) as opened:
            # Just before: afterwards those workers that live on would have added to it.
            journaled = sum(usage.requests for usage in opened.ledger().values())
            killed = cluster.kill(victims)
        _bring_back(part, cluster)
        codes = [end(process, log)]
    while codes[-1] and len(codes) < _STARTS:
        cluster.start_job_manager()
        cluster.await_slots()
        with running(command, log) as process:
            codes.append(end(process, log))
    seconds = time.monotonic() - killed
    calls = server.calls()
    if codes[-1]:
        raise RuntimeError(f"{part} killed at {moment.name}: exit codes {codes}; {log} ends:\n{tail(log)}")
    made, again = undisturbed(command, server, folder, journal)
    before = [call for call in calls if call.arrived <= killed]
    at_server = sum(call.answered is None or call.answered > killed for call in before)
    books = read_books(folder / "out")
    return Trial(
        part=part,
        moment=moment.name,
        codes=tuple(codes),
        paid=len(calls),
        needed=len(reference.calls),
        at_server=at_server,
        on_the_way=len(before) - at_server - journaled,
        at_halt=at_halt(calls, killed),
        paid_twice=paid_twice(calls),
        **_differences(made, calls, reference),
        identical=made.digests == reference.made.digests,
        counts=books == reference.books and all(stage.balanced for stage in books.stages),
        again=len(again),
        seconds=seconds,
    )


def at_halt(calls: Sequence[Call], killed: float) -> int:
    """The most calls at the server from the kill on until none came for `_HALT_SECS`, or one for a sample of before.

    Args:
      calls: all of them; those that were lost stay at the server.
      killed: the moment of the kill.
    """
    ordered = sorted(calls, key=lambda call: call.arrived)
    moments = [killed]
    asked = set[tuple[str, int]]().union(*(call.samples for call in ordered if call.arrived <= killed))
    for call in ordered:
        if call.arrived <= killed:
            continue
        if call.arrived > moments[-1] + _HALT_SECS or not call.samples.isdisjoint(asked):
            break
        moments.append(call.arrived)
        asked |= call.samples
    taken = [(call.arrived, math.inf if call.answered is None else call.answered) for call in calls]
    return max(sum(arrived <= moment <= answered for arrived, answered in taken) for moment in moments)


def paid_twice(calls: Sequence[Call]) -> int:
    """Calls of which any sample was asked for again later."""
    later: set[tuple[str, int]] = set()
    twice = 0
    for call in sorted(calls, key=lambda call: call.arrived, reverse=True):
        twice += not call.samples.isdisjoint(later)
        later |= call.samples
    return twice


def _differences(made: Dataset, calls: Sequence[Call], reference: Reference) -> dict[str, int]:
    wanted = reference.made
    asked = set[tuple[str, int]]().union(*(call.samples for call in calls))
    wished = set[tuple[str, int]]().union(*(call.samples for call in reference.calls))
    rows = [(Counter(made.ids[config]), Counter(wanted.ids[config])) for config in CONFIGS]
    strangers = sum(made.samples[name] != wanted.samples.get(name) for name in made.samples)
    return {
        "duplicates": sum(count - 1 for ours, _ in rows for count in ours.values()),
        "missing": sum((theirs - ours).total() for ours, theirs in rows) + len(wished - asked),
        "surplus": sum((ours - theirs).total() for ours, theirs in rows) + len(asked - wished),
        "collapsed": max(0, sum(map(len, made.samples.values())) - len(asked)) + strangers,
    }


def _bring_back(part: Part, cluster: FlinkCluster) -> None:
    """What whoever looks after a cluster does at once; the JobManager comes back when the run has given up."""
    if part == "task manager":
        cluster.start_task_manager(wait=False)
    cluster.start_pool(wait=False)


def choose_moments(draws: random.Random, *, is_quick: bool) -> list[tuple[Part, Moment]]:
    """Every part, early and late; quick: a TaskManager early, a worker late."""
    early = [Moment(task="solve", nth=draws.randint(20, 120)) for _ in PARTS]
    late = [Moment(task="refine", nth=draws.randint(3, 30)) for _ in PARTS]
    if is_quick:
        return [("task manager", early[0]), ("worker", late[1])]
    both = zip(early, late, strict=True)
    return [(part, moment) for part, moments in zip(PARTS, both, strict=True) for moment in moments]


def measure(
    moments: Sequence[tuple[Part, Moment]], folder: Path, *, redis: bool, sizes: tuple[int, int]
) -> list[Trial]:
    """Every kill, on one cluster and against one undisturbed run."""
    with counting_server(WORLD) as server, flink_cluster(folder / "cluster") as cluster:
        os.environ.update(cluster.environment)
        words = settings(server.url, num_problems=sizes[0], shard_size=sizes[1])
        (folder / "local").mkdir()
        stand = Stand(cluster, server, words, make_reference(words, server, folder / "local"))
        trials = []
        for i, (part, moment) in enumerate(moments):
            cluster.heal()
            own = folder / f"{i:02d}"
            own.mkdir()
            trials.append(run_trial(stand, part, moment, own, cluster.redis.url(f"kill{i}") if redis else None))
        return trials


def summary(trials: Sequence[Trial]) -> dict[str, Any]:
    """The figures of all kills together."""
    return {
        "kills": len(trials),
        "max_paid_twice": max(trial.paid_twice for trial in trials),
        "paid_twice": sum(trial.paid_twice for trial in trials),
        "in_flight": sum(trial.in_flight for trial in trials),
        "beyond_in_flight": sum(trial.paid_twice > trial.in_flight for trial in trials),
        "paid": sum(trial.paid for trial in trials),
        "needed": sum(trial.needed for trial in trials),
        **{
            name: sum(getattr(trial, name) for trial in trials)
            for name in ("duplicates", "missing", "surplus", "collapsed", "again")
        },
        "counts": all(trial.counts for trial in trials),
        "identical": all(trial.identical for trial in trials),
    }


def print_table(trials: Sequence[Trial]) -> None:
    """A line for each kill."""
    table = Table(
        *("killed", "at", "exit codes", "paid", "needed", "at the server", "on the way", "at the halt", "paid twice"),
        *("dupl.", "missing", "surplus", "collapsed", "counts", "identical", "seconds"),
    )
    for trial in trials:
        numbers = (trial.paid, trial.needed, trial.at_server, trial.on_the_way, trial.at_halt, trial.paid_twice)
        rows = (trial.duplicates, trial.missing, trial.surplus, trial.collapsed)
        same = ("yes" if each else "no" for each in (trial.counts, trial.identical))
        codes = " ".join(map(str, trial.codes))
        table.add_row(trial.part, trial.moment, codes, *map(str, (*numbers, *rows)), *same, f"{trial.seconds:.0f}")
    Console(width=140).print(table)


def main() -> None:
    """Prints a line for each kill."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two kills")
    parser.add_argument("--redis", action="store_true", help="the journal on a Redis server")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    moments = choose_moments(random.Random(options.seed), is_quick=options.quick)
    with tempfile.TemporaryDirectory() as folder:
        trials = measure(moments, Path(folder), redis=options.redis, sizes=(12, 6) if options.quick else (24, 8))
    print_table(trials)
    print(msgspec.json.encode(summary(trials)).decode())


if __name__ == "__main__":
    main()

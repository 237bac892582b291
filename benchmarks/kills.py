"""What `kill -9` costs: runs killed at many moments, started again with the same command, against an undisturbed one.

    python -m benchmarks.kills [--quick] [--redis]

`wrongturn run` works as a process group of its own over the whole pipeline, panel included, against one simulated
server in another process. SIGKILL hits the group at moments spread over the stages (from outside, when the server has
taken in a random number of calls for a task), during and after a commit of the journal, in a half-written shard, around
the renaming of shards, of a shard's mark, and of each of the run's books. The same command then goes on, is killed
again, and at last runs to its end. With `--redis` the journal is on a Redis server, which lives on.

In flight: calls that the server had taken in and whose answer was not in the journal when the process was dead: those
still at the server, and those answered and on the way to the disk. Paid twice: calls from before a kill of which any
sample was asked for again later. Duplicates: rows whose id another row of the table has. Missing: rows of the
undisturbed run that are not there, and samples it needed that nobody asked for; surplus: the reverse. Collapsed:
samples in the journal beyond the distinct (prompt, seed) pairs that the server was asked for, and sets of samples that
are not, text for text, the undisturbed run's. Identical: every shard has the undisturbed run's digest. Files: those of
shards that lay in the folder after a kill; strange: those of them that the undisturbed run does not have.
"""

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from benchmarks.kill_points import TASKS, Call, CountingServer, Point, counting_server
from benchmarks.kill_tables import Chain, Kill, file_digests, print_tables, shard_digests, summary
from pipelines.engines.simulated import SimulatedSettings
from pipelines.journal import PASSWORD_ENV, Journal, Place, is_server, parse_address
from pipelines.shards import read_rows
from schemas import Record
from schemas.arrow import CONFIGS

_ROOT = Path(__file__).resolve().parents[1]
_LATENCY = 0.0002
"""Seconds a token: about 40 ms a sample."""
_OVERRIDES = (
    *("problems=simulated", "engine=simulated", "actor=plain", "panel=blind"),
    *("search=default", "pairing=default", "verify=default", "export.validation_share=0.3"),
    f"engine.world.seconds_a_token={_LATENCY}",
)
_PATIENCE_SECS = 300.0
_SHARD, _MARK = "*.parquet", "done/*.json"
_BOOKS = ("run.json", "README.md", "report.html", "COMPLETED")


class Dataset(Record):
    """What a folder holds at the end."""

    digests: dict[str, str]
    """SHA-256 by shard file."""
    ids: dict[str, list[str]]
    """Names of the rows by table."""
    samples: dict[str, dict[int, str]]
    """Texts in the journal by request and sample's index."""


class _Round(Record):
    """What the server saw of one process, from its start to its death."""

    point: Point
    calls: tuple[Call, ...]
    killed: float | None
    """When; None where the run came to its end."""
    journaled: int
    """Calls in the journal afterwards, of all rounds."""
    digests: dict[str, str]
    """SHA-256 of the shard files that lay there afterwards."""


def _command(out: Path, url: str, num_problems: int, shard_size: int, journal: Place) -> list[str]:
    sizes = [f"problems.num_problems={num_problems}", f"runner.problems_per_shard={shard_size}"]
    return [*_OVERRIDES, *sizes, f"engine.url={url}", f"out={out}", f"journal={journal}"]


def _start(command: Sequence[str], point: Point | None, stamp: Path, log: Path) -> subprocess.Popen[bytes]:
    """The run as a process in a group of its own; points inside it are handed to it."""
    program = [sys.executable, "-m", "pipelines.main", "run", *command]
    if point and point.kind != "calls":
        program = [sys.executable, "-m", "benchmarks.kill_points", msgspec.json.encode(point).decode(), str(stamp)]
        program += command
    with log.open("ab") as file:
        return subprocess.Popen(program, stdout=file, stderr=file, cwd=_ROOT, process_group=0)


def _wait(process: subprocess.Popen[bytes], point: Point, server: CountingServer, stamp: Path) -> float | None:
    """Lets the run come to its point or its end; gives the moment at which it was killed."""
    deadline = time.monotonic() + _PATIENCE_SECS
    start = server.count(point.match) if point.kind == "calls" else 0
    while process.poll() is None:
        if time.monotonic() > deadline:
            os.killpg(process.pid, signal.SIGKILL)
            raise TimeoutError(f"a run did not end within {_PATIENCE_SECS:g} s at {point.name}")
        if point.kind == "calls" and server.count(point.match) - start >= point.nth:
            time.sleep(point.delay)
            os.killpg(process.pid, signal.SIGKILL)
            killed = time.monotonic()
            process.wait()
            return killed if process.returncode == -signal.SIGKILL else None
        time.sleep(0.002)
    return float(stamp.read_text()) if process.returncode == -signal.SIGKILL else None


def _round(command: Sequence[str], point: Point, server: CountingServer, folder: Path, journal: Place) -> _Round:
    stamp, log = folder / "stamp", folder / "log.txt"
    process = _start(command, point, stamp, log)
    killed = _wait(process, point, server, stamp)
    if killed is None and process.returncode:
        raise RuntimeError(f"a run ended with exit code {process.returncode}:\n{log.read_text()[-3000:]}")
    time.sleep(0.2)  # So that the server finds out who has left.
    return _Round(
        point=point,
        calls=tuple(server.calls()),
        killed=killed,
        journaled=_journaled_calls(journal),
        digests=file_digests(folder / "out"),
    )


def _journaled_calls(journal: Place) -> int:
    """Calls in the ledger of a dead run; a file is read from a copy, since opening it would put it in order."""
    if is_server(journal):
        with contextlib.closing(Journal(journal)) as opened:
            return sum(usage.requests for usage in opened.ledger().values())
    with tempfile.TemporaryDirectory() as folder:
        for end in ("", "-wal"):
            source = Path(f"{journal}{end}")
            if source.exists():
                shutil.copy(source, Path(folder) / f"copy{end}")
        with contextlib.closing(sqlite3.connect(Path(folder) / "copy")) as connection:
            has_ledger = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'ledger'").fetchone()
            query = "SELECT coalesce(sum(requests), 0) FROM ledger"
            return int(connection.execute(query).fetchone()[0]) if has_ledger else 0


def _keys(journal: Place) -> list[str]:
    if isinstance(journal, Path):
        with contextlib.closing(sqlite3.connect(journal)) as connection:
            return [key for (key,) in connection.execute("SELECT key FROM samples")]
    import redis

    address = parse_address(journal)
    with redis.Redis(host=address.host, port=address.port, password=os.environ[PASSWORD_ENV], protocol=2) as client:
        return [key.decode() for key in client.hkeys(f"{address.prefix}:samples")]


def _read(out: Path, journal: Place) -> Dataset:
    """The rows, digests and samples of a finished run."""
    samples: dict[str, dict[int, str]] = {}
    keys = _keys(journal)
    with contextlib.closing(Journal(journal)) as opened:
        for key in keys:
            request, _, index = key.rpartition("/")
            samples.setdefault(request, {})[int(index)] = asyncio.run(opened.get([key]))[key].text
    return Dataset(
        digests=file_digests(out),
        ids={config: [_row_id(row) for row in read_rows(out, config)] for config in CONFIGS},
        samples=samples,
    )


def _row_id(row: dict[str, Any]) -> str:
    return str(row["id"]) if "id" in row else f"{row['problem_id']}/{row['stage']}/{row['key']}"


def undisturbed(
    command: Sequence[str], server: CountingServer, folder: Path, journal: Place
) -> tuple[Dataset, list[Call]]:
    """A run that nobody kills, and the calls that it needs."""
    with (folder / "log.txt").open("ab") as log:
        program = [sys.executable, "-m", "pipelines.main", "run", *command]
        subprocess.run(program, check=True, stdout=log, stderr=log, cwd=_ROOT)
    return _read(folder / "out", journal), server.calls()


def run_chain(
    points: Sequence[Point],
    command: Sequence[str],
    server: CountingServer,
    folder: Path,
    journal: Place,
    reference: tuple[Dataset, list[Call]],
) -> Chain:
    """Runs the command, killed at each point in turn, until it comes to its end; compares with the reference."""
    rounds: list[_Round] = []
    waiting = list(points)
    while waiting:
        rounds.append(_round(command, waiting.pop(0), server, folder, journal))
        if rounds[-1].killed is None:  # All that is left to pass is where a run ends.
            waiting = [point for point in waiting if point.match.startswith("out/")]
    never = Point(kind="replacing", match="never")
    rounds.append(_round(command, never, server, folder, journal))
    assert rounds[-1].killed is None, rounds[-1]
    return _compare(rounds, _read(folder / "out", journal), *reference)


def _compare(rounds: Sequence[_Round], made: Dataset, wanted: Dataset, needed: Sequence[Call]) -> Chain:
    asked = set[tuple[str, int]]().union(*(call.samples for each in rounds for call in each.calls))
    wished = set[tuple[str, int]]().union(*(call.samples for call in needed))
    num_samples = sum(len(texts) for texts in made.samples.values())
    strangers = sum(made.samples[name] != wanted.samples.get(name) for name in made.samples)
    rows = [(Counter(made.ids[config]), Counter(wanted.ids[config])) for config in CONFIGS]
    return Chain(
        kills=_kills(rounds, wanted.digests),
        unreached=tuple(each.point.name for each in rounds[:-1] if each.killed is None),
        needed=len(needed),
        paid=sum(len(each.calls) for each in rounds),
        duplicates=sum(count - 1 for ours, _ in rows for count in ours.values()),
        missing=sum((theirs - ours).total() for ours, theirs in rows) + len(wished - asked),
        surplus=sum((ours - theirs).total() for ours, theirs in rows) + len(asked - wished),
        collapsed=max(0, num_samples - len(asked)) + strangers,
        identical=made.digests == wanted.digests,
        shards=shard_digests(made.digests),
        wanted_shards=shard_digests(wanted.digests),
    )


def _kills(rounds: Sequence[_Round], wanted: Mapping[str, str]) -> tuple[Kill, ...]:
    kills: list[Kill] = []
    taken, before = 0, 0
    for i, each in enumerate(rounds):
        taken += len(each.calls)
        if each.killed is None:
            continue
        later = set[tuple[str, int]]().union(*(call.samples for after in rounds[i + 1 :] for call in after.calls))
        lost = taken - each.journaled - before
        at_server = sum(call.answered is None or call.answered > each.killed for call in each.calls)
        kills.append(
            Kill(
                point=each.point.name,
                paid=taken,
                at_server=at_server,
                on_the_way=lost - at_server,
                paid_twice=sum(not call.samples.isdisjoint(later) for call in each.calls),
                files=len(each.digests),
                strange_files=sum(wanted.get(path) != sha for path, sha in each.digests.items()),
            )
        )
        before += lost  # What this kill lost is in no journal, and not in flight at the next one.
    return tuple(kills)


def choose_points(draws: random.Random, *, num_chains: int, times: int, shard_size: int) -> list[list[Point]]:
    """Points of each chain, shuffled, and one of the run's books as its last.

    Args:
      draws: where the moments come from.
      num_chains: among which they are dealt out.
      times: how often for each task, for commits of the journal and for the renaming of a shard's files.
      shard_size: problems in a shard, by which it is chosen how many calls of a task are let pass.
    """
    middle = [_at_call(draws, task, shard_size) for task in TASKS for _ in range(times)]
    middle += [point for _ in range(times) for point in _in_journal(draws)]
    middle += [_in_shard(draws, kind) for kind in ("replacing", "replaced") for _ in range(times)]
    middle += [Point(kind="half_written", nth=draws.randint(1, 10)) for _ in range(2)]
    middle += [Point(kind="replacing", match=_MARK), Point(kind="replaced", match=_MARK)]
    middle += [Point(kind="replaced", match="*/owner.json"), Point(kind="opened")]
    draws.shuffle(middle)
    ends = _in_books()
    draws.shuffle(ends)
    return [middle[i::num_chains] + ends[i : i + 1] for i in range(num_chains)]


def _quick_points(draws: random.Random, shard_size: int) -> list[Point]:
    """A handful: two tasks, the journal, a shard, the books."""
    calls = [_at_call(draws, task, shard_size) for task in ("solve", "refine")]
    return [*calls, _in_journal(draws)[0], _in_shard(draws, "replaced"), draws.choice(_in_books())]


def _in_books() -> list[Point]:
    return [Point(kind=kind, match=f"out/{book}") for book in _BOOKS for kind in ("replacing", "replaced")]


def _at_call(draws: random.Random, task: str, shard_size: int) -> Point:
    return Point(kind="calls", match=task, nth=draws.randint(1, 2 * shard_size), delay=draws.uniform(0, 0.05))


def _in_journal(draws: random.Random) -> list[Point]:
    """In the middle of a commit, and after one that nobody was told of."""
    during = Point(kind="committing", nth=draws.randint(2, 20), delay=draws.uniform(0, 0.001))
    return [during, Point(kind="committed", nth=draws.randint(2, 20))]


def _in_shard(draws: random.Random, kind: Literal["replacing", "replaced"]) -> Point:
    """Around the renaming of one of a shard's 30 files."""
    return Point(kind=kind, match=_SHARD, nth=draws.randint(1, 28))


def measure(
    *, num_problems: int, shard_size: int, chains: Sequence[Sequence[Point]], journals: str = ""
) -> list[Chain]:
    """Every chain, against one server and one undisturbed run; `journals` is the URL of a Redis server for them."""
    world = SimulatedSettings(seconds_a_token=_LATENCY)
    with tempfile.TemporaryDirectory() as name, counting_server(world) as server:
        folders = [Path(name) / f"{i}" for i in range(len(chains) + 1)]
        for folder in folders:
            folder.mkdir()
        places: list[Place] = [
            f"{journals}/{folder.name}" if journals else folder / "out" / ".wrongturn" / "journal.sqlite"
            for folder in folders
        ]
        commands = [
            _command(folder / "out", server.url, num_problems, shard_size, journal)
            for folder, journal in zip(folders, places, strict=True)
        ]
        reference = undisturbed(commands[0], server, folders[0], places[0])
        return [
            run_chain(points, command, server, folder, journal, reference)
            for points, command, folder, journal in zip(chains, commands[1:], folders[1:], places[1:], strict=True)
        ]


@contextlib.contextmanager
def _journals() -> Iterator[str]:
    """URL of a Redis server that is there for as long as the context lasts."""
    from benchmarks.redis_server import PASSWORD, redis_server

    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as server:
        os.environ[PASSWORD_ENV] = PASSWORD
        yield server.url()


def main() -> None:
    """Prints a line for each kill, for each chain of them, and for each shard."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a handful of kills")
    parser.add_argument("--redis", action="store_true", help="the journal on a Redis server (needs redis-server)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    draws, sizes = random.Random(options.seed), (4, 2) if options.quick else (24, 6)
    if options.quick:
        points = [_quick_points(draws, sizes[1])]
    else:
        points = choose_points(draws, num_chains=6, times=3, shard_size=sizes[1])
    with _journals() if options.redis else contextlib.nullcontext("") as journals:
        chains = measure(num_problems=sizes[0], shard_size=sizes[1], chains=points, journals=journals)
    print_tables(chains)
    print(msgspec.json.encode(summary(chains)).decode())


if __name__ == "__main__":
    main()

"""What `benchmarks.kills` runs in processes of their own: a server that keeps books, and a run that dies at a point.

    python -m benchmarks.kill_points POINT STAMP KEY=VALUE ...

does what `wrongturn run KEY=VALUE ...` does and kills its own process group with SIGKILL at POINT (JSON of `Point`),
after writing the moment to the file STAMP. Nothing of this is known to the product: the places are wrapped from here.
"""

import asyncio
import contextlib
import fnmatch
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import SynchronizedArray
from pathlib import Path
from typing import Any, Literal

import msgspec
import pyarrow.parquet as pq
from aiohttp import web

from pipelines.engines.simulated import SimulatedSettings
from pipelines.engines.simulated.app import SimulatedServer
from pipelines.engines.simulated.prompts import parse_prompt
from pipelines.engines.simulated.replies import text_digest
from pipelines.engines.simulated.wire import read_wish
from pipelines.journal import Journal, Place
from pipelines.main import main as wrongturn
from schemas import Record

TASKS = ("solve", "critique", "meta", "compose", "refine")
"""What a call is for, in the order of the stages that make it."""


class Point(Record):
    """A moment to kill at: `delay` seconds after the `nth` time that something happens in a run."""

    kind: Literal["calls", "opened", "committing", "committed", "half_written", "replacing", "replaced"]
    """`calls`: the server has taken in so many calls for the task `match`; killed from outside. The others are killed
    from inside. `opened`: the journal was opened. `committing`: a commit of the journal begins; `committed`: it has
    ended and nobody was told yet. `half_written`: rows are about to be written into a shard's temporary file.
    `replacing` and `replaced`: before and after a temporary file whose final name fits `match` is renamed to it."""
    match: str = ""
    nth: int = 1
    delay: float = 0.0

    @property
    def name(self) -> str:
        """For people."""
        said = " ".join(filter(None, (self.kind.replace("_", " "), self.match)))
        return f"{said} #{self.nth}" + (f" +{1000 * self.delay:.1f} ms" if self.delay else "")


class Call(Record):
    """One request as the server saw it; times are of the machine's monotonic clock, in seconds."""

    text: str
    """Digest of prompt and begun answer together."""
    seed: int
    """Of the first sample; sample i has `seed + i`."""
    num_samples: int
    task: str
    arrived: float
    answered: float | None
    """None where the client was gone before the answer was made."""

    @property
    def samples(self) -> set[tuple[str, int]]:
        """Each sample's text and seed: what makes two samples the same."""
        return {(self.text, self.seed + i) for i in range(self.num_samples)}


class CountingServer:
    """The simulated server in a process of its own, with every request on record."""

    def __init__(self, url: str, pipe: Connection, counts: "SynchronizedArray[int]") -> None:
        self.url = url
        self._pipe = pipe
        self._counts = counts

    def count(self, task: str) -> int:
        """Calls for a task since the server started."""
        return self._counts[TASKS.index(task)]

    def calls(self) -> list[Call]:
        """All calls since this was last asked, in the order of their arrival."""
        self._pipe.send(b"calls")
        return msgspec.msgpack.decode(self._pipe.recv_bytes(), type=list[Call])


@contextlib.contextmanager
def counting_server(world: SimulatedSettings) -> Iterator[CountingServer]:
    """A `CountingServer` for as long as the context lasts."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    counts = spawn.Array("q", len(TASKS))
    process = spawn.Process(target=_serve, args=(world, theirs, counts), daemon=True)
    process.start()
    try:
        yield CountingServer(ours.recv(), ours, counts)
    finally:
        process.terminate()
        process.join()


def _serve(world: SimulatedSettings, pipe: Connection, counts: "SynchronizedArray[int]") -> None:
    asyncio.run(_serve_until_killed(world, pipe, counts))


async def _serve_until_killed(world: SimulatedSettings, pipe: Connection, counts: "SynchronizedArray[int]") -> None:
    calls: list[Call] = []

    @web.middleware
    async def keep_books(request: web.Request, handler: Callable[..., Any]) -> web.StreamResponse:
        arrived = time.monotonic()
        wish = read_wish(await request.read(), is_chat=False, model=world.model)
        task = parse_prompt(wish.text).task
        counts[TASKS.index(task)] += 1
        place = len(calls)
        calls.append(
            Call(
                text=text_digest(wish.text),
                seed=wish.seed,
                num_samples=wish.num_choices,
                task=task,
                arrived=arrived,
                answered=None,
            )
        )
        kept = calls
        response: web.StreamResponse = await handler(request)
        kept[place] = msgspec.structs.replace(kept[place], answered=time.monotonic())
        return response

    def tell() -> None:
        nonlocal calls
        try:
            pipe.recv()
        except EOFError:  # Whoever started this server was killed: nobody is left to serve.
            os._exit(0)
        pipe.send_bytes(msgspec.msgpack.encode(calls))
        calls = []

    app = SimulatedServer(world).application()
    app.middlewares.append(keep_books)
    # A client that was killed is gone: its handler is cancelled, and the call stays without an answer.
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    asyncio.get_running_loop().add_reader(pipe.fileno(), tell)
    pipe.send(f"http://127.0.0.1:{runner.addresses[0][1]}")
    await asyncio.Event().wait()


class _Killer:
    """Kills this process and its group when its point is reached."""

    def __init__(self, point: Point, stamp: Path) -> None:
        self._point = point
        self._stamp = stamp
        self._lock = threading.Lock()
        self._seen = 0

    def passes(self, kind: str, name: str = "") -> None:
        """To be called where a point of this kind may be."""
        if kind != self._point.kind or not fnmatch.fnmatch(name, self._point.match or "*"):
            return
        with self._lock:
            self._seen += 1
            if self._seen != self._point.nth:
                return
        if self._point.delay:
            threading.Thread(target=self._kill, daemon=True).start()
        else:
            self._kill()

    def _kill(self) -> None:
        # A sleep as short as a commit: busy, since a real one would be late.
        end = time.monotonic() + self._point.delay
        while time.monotonic() < end:
            time.sleep(0)
        self._stamp.write_text(f"{time.monotonic()}")
        os.killpg(0, signal.SIGKILL)

    def wrap(self) -> None:
        """Puts itself at every place that a point can name."""
        opened, commit, replace = Journal.__init__, Journal._commit, os.replace

        def wrapped_open(journal: Journal, place: Place, **more: Any) -> None:
            opened(journal, place, **more)
            self.passes("opened")

        def wrapped_commit(journal: Journal, entries: Any) -> Any:
            self.passes("committing")
            result = commit(journal, entries)
            if entries:
                self.passes("committed")
            return result

        def wrapped_replace(source: Any, target: Any, **more: Any) -> None:
            path = Path(target)
            name = f"{path.parent.name}/{path.name}"
            self.passes("replacing", name)
            replace(source, target, **more)
            self.passes("replaced", name)

        killer = self

        class Writer(pq.ParquetWriter):
            def write_table(self, *arguments: Any, **more: Any) -> None:
                killer.passes("half_written")
                super().write_table(*arguments, **more)

        Journal.__init__ = wrapped_open  # type: ignore[method-assign]
        Journal._commit = wrapped_commit  # type: ignore[method-assign]
        os.replace = wrapped_replace  # type: ignore[assignment]
        pq.ParquetWriter = Writer


def main() -> int:
    """Runs until the point or the end."""
    point, stamp, *overrides = sys.argv[1:]
    _Killer(msgspec.json.decode(point, type=Point), Path(stamp)).wrap()
    return wrongturn(["run", *overrides])


if __name__ == "__main__":
    sys.exit(main())

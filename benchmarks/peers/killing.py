"""SIGKILL at half of the samples, then the same command again: what each tool pays twice, loses and copies.

The server draws a seed of its own for a request that has none, as real ones do, and its problems are long: two samples
of a problem are one text only where something has copied it.
"""

import asyncio
import contextlib
import itertools
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from benchmarks.peers.comparing import (
    LIMIT_SECS,
    OURS,
    ROOT,
    Flat,
    available,
    call,
    command_of_ours,
    count_ours,
    counted,
    write_job,
)
from benchmarks.peers.installing import PEERS
from benchmarks.peers.running import Outcome, start
from pipelines.engines.simulated import SimulatedSettings
from pipelines.engines.simulated.app import SimulatedServer
from pipelines.engines.simulated.wire import Wish
from schemas import Record

_AGAIN_SECS = 90.0
"""For the second start: an undisturbed one takes some ten seconds."""
_SETUPS = {"datatrove": ("checkpoints", "tuned", "node"), "distilabel": ("defaults", "tuned", "uncached")}
_OURS = {"defaults": (), "8 requests in flight": ("engine.limits.max_in_flight=8",)}
"""64 requests of 8 samples each, and as many samples as datatrove has in flight in its setup `tuned`."""


class KilledTrial(Record):
    """A job that was killed once and started again."""

    tool: str
    setup: str
    ended: str
    """How the second start ended."""
    rows_in: int
    rows_out: int
    paid: int
    """Samples that the server made in both starts."""
    at_server: int
    """Samples that were at the server at the last look before the kill."""
    paid_twice: int
    """Samples paid beyond those wished for."""
    sets: int
    """Problems."""
    collapsed: int
    """Problems of which two samples are one text."""
    seconds: float
    """Of the second start."""


class _Unseeded(SimulatedServer):
    """Seeds what has no seed."""

    def __init__(self, settings: SimulatedSettings) -> None:
        super().__init__(settings)
        # Far from each other and from seeds that a client may give: a request has up to 1,024 samples.
        self._seeds = itertools.count(2**40, 1024)

    async def _answer(self, request: web.Request, wish: Wish) -> web.StreamResponse:
        seeded = wish if wish.seed else msgspec.structs.replace(wish, seed=next(self._seeds))
        return await super()._answer(request, seeded)


@contextlib.contextmanager
def unseeded_server(world: SimulatedSettings) -> Iterator[str]:
    """The URL of such a server, for as long as the context lasts."""
    stopping, ready = asyncio.Event(), threading.Event()
    found: list[tuple[str, asyncio.AbstractEventLoop]] = []

    async def serve() -> None:
        runner = web.AppRunner(_Unseeded(world).application(), access_log=None, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
        found.append((f"http://127.0.0.1:{runner.addresses[0][1]}", asyncio.get_running_loop()))
        ready.set()
        await stopping.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    if not ready.wait(30):
        raise RuntimeError("expected the server to listen within 30 s, got nothing")
    url, loop = found[0]
    try:
        yield url
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join(10)


def _killed(flat: Flat, command: Sequence[str], url: str, folder: Path) -> tuple[Outcome, int]:
    """Kills at half of the samples and starts again: how that ended, and the samples at the server at the kill."""
    samples = {"at_server": 0}
    environment = {"PYTHONPATH": str(ROOT)} if command[0] == sys.executable else {}

    def is_half() -> bool:
        stats = call(url)
        samples["at_server"] = stats["in_flight"] * max(1, round(stats["samples"] / max(1, stats["requests"])))
        return bool(stats["samples"] >= flat.rows_in / 2)

    first = start(command, folder, LIMIT_SECS, should_kill=is_half, environment=environment)
    if first.rc is not None or first.stopped:
        raise RuntimeError(f"expected {command[1]} to be killed at half of its samples, got: {first.ended}")
    return start(command, folder, _AGAIN_SECS, environment=environment), samples["at_server"]


def _row(
    flat: Flat, names: tuple[str, str], said: dict[str, Any], again: Outcome, paid: int, at_server: int
) -> KilledTrial:
    return KilledTrial(
        tool=names[0],
        setup=names[1],
        ended=again.ended,
        rows_in=flat.rows_in,
        rows_out=said["rows_out"],
        paid=paid,
        at_server=at_server,
        paid_twice=max(0, paid - flat.rows_in),
        sets=flat.num_problems,
        collapsed=said["collapsed"],
        seconds=again.seconds,
    )


def _setups(tool: str, *, is_quick: bool) -> tuple[str, ...]:
    return _SETUPS[tool][:1] if is_quick else _SETUPS[tool]


def kills(*, is_quick: bool) -> Iterator[KilledTrial]:
    """Every tool that is here, wrongturn first."""
    world = SimulatedSettings(min_steps=10, max_steps=12, variants=4, seconds_a_token=0.002)
    flat = Flat(num_problems=120, num_samples=8, world=world)
    pythons, _ = available()
    with tempfile.TemporaryDirectory() as name:
        for setup, settings in _OURS.items():
            folder = Path(name) / OURS / setup.replace(" ", "-")
            with unseeded_server(world) as url:
                command = [*command_of_ours(flat, url, folder), *settings]
                again, at_server = _killed(flat, command, url, folder)
                paid = call(url)["samples"]
            yield _row(flat, (OURS, setup), count_ours(folder / "out", flat.num_samples), again, paid, at_server)
        for peer in PEERS:
            for setup in _setups(peer.name, is_quick=is_quick) if peer.name in pythons else ():
                python, place = pythons[peer.name], Path(name) / peer.name / setup
                with unseeded_server(world) as url:
                    job = write_job(flat, url, setup, place)
                    again, at_server = _killed(flat, [str(python), str(peer.program), str(job)], url, place)
                    paid = call(url)["samples"]
                yield _row(flat, (peer.name, setup), counted(peer, python, job, again), again, paid, at_server)

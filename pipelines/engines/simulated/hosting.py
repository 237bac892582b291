"""Runs simulated servers on loopback: in a thread of this process, or in a process that dies with this one."""

import asyncio
import os
import select
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
from aiohttp import web

from pipelines.engines.simulated.app import SimulatedServer
from pipelines.engines.simulated.settings import SimulatedSettings

_START_SECONDS = 60.0
_SHUTDOWN_SECONDS = 0.1


@asynccontextmanager
async def listening(settings: SimulatedSettings, *, port: int = 0) -> AsyncIterator[str]:
    """The URL, without `/v1`, of a server in this event loop; port 0 takes a free one."""
    runner = web.AppRunner(
        SimulatedServer(settings).application(),
        access_log=None,
        handler_cancellation=True,  # so that a hanging answer ends when its client leaves
        shutdown_timeout=_SHUTDOWN_SECONDS,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port, backlog=4096)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class _Thread(threading.Thread):
    """A thread with an event loop and a server in it."""

    def __init__(self, settings: SimulatedSettings, port: int) -> None:
        super().__init__(name="simulated-server", daemon=True)
        self._settings = settings
        self._port = port
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self.ready = threading.Event()
        self.url = ""
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits, which raises it
            self.error = error
        finally:
            self.ready.set()

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        async with listening(self._settings, port=self._port) as self.url:
            self.ready.set()
            await self._stopping.wait()

    def stop(self) -> None:
        if self._loop is not None and self._stopping is not None and self.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
        self.join()


@contextmanager
def serving(settings: SimulatedSettings, *, port: int = 0) -> Iterator[str]:
    """The URL, without `/v1`, of a server in a background thread, for as long as the context lasts.

    Raises:
      OSError: the port is taken.
    """
    thread = _Thread(settings, port)
    thread.start()
    thread.ready.wait()
    try:
        if thread.error is not None:
            raise thread.error
        yield thread.url
    finally:
        thread.stop()


@contextmanager
def serving_subprocess(settings: SimulatedSettings, *, port: int = 0) -> Iterator[str]:
    """As `serving`, in a process of its own, which ends when this one does, however it ends.

    Raises:
      RuntimeError: the process does not say within a minute where it listens.
    """
    command = [sys.executable, "-m", "pipelines.engines.simulated.server", "--until-stdin-closes"]
    command += ["--port", str(port), "--settings", msgspec.json.encode(settings).decode()]
    root = str(Path(__file__).parents[3])
    paths = filter(None, (root, os.environ.get("PYTHONPATH")))
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )
    try:
        yield _read_url(process)
    finally:
        process.terminate()
        process.communicate()


def _read_url(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None, process
    has_line, _, _ = select.select([process.stdout], [], [], _START_SECONDS)
    line = process.stdout.readline() if has_line else b""
    if not line:
        raise RuntimeError(
            f"expected the simulated server to say where it listens within {_START_SECONDS:g} s, "
            f"got nothing; exit status {process.poll()}"
        )
    return str(msgspec.json.decode(line)["url"])

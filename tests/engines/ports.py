"""A port at which nobody listens, held so that nobody else takes it meanwhile."""

import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

from aiohttp import web


@contextlib.contextmanager
def held_port() -> Iterator[tuple[socket.socket, str]]:
    """A socket whose port refuses connections until it is listened at, and the port's URL.

    A port that was only looked up and let go may be another connection's own by the time it is used.
    """
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held, f"http://127.0.0.1:{held.getsockname()[1]}"


@contextlib.asynccontextmanager
async def listening_on(held: socket.socket, app: web.Application) -> AsyncIterator[None]:
    """Serves an application on a held socket, which is closed after it."""
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.SockSite(runner, held).start()
        yield
    finally:
        await runner.cleanup()

"""The URLs of one model: which of them a prompt goes to, and which cannot be reached just now.

A URL that refuses connections or drops them is away: prompts go to the others meanwhile, and a scout asks for its
`/health` until anything answers there. So a dead server costs nobody an attempt but those who were at it, and one that
comes back is used again within a second.
"""

import asyncio
import hashlib
import logging
from collections.abc import Mapping

import aiohttp

from pipelines.engines.limiter import Limiter
from pipelines.engines.settings import Limits

_LOG = logging.getLogger(__name__)
_GATEWAY = (502, 503, 504)
"""What a proxy says whose server is away, and a server that still loads its model."""
_FIRST_PAUSE_SECS, _LONGEST_PAUSE_SECS = 0.05, 1.0


class Host:
    """One URL and the places there are at it."""

    def __init__(self, url: str, limits: Limits) -> None:
        self.url = url
        self.limiter = Limiter(limits.max_in_flight)
        self.scout: asyncio.Task[None] | None = None

    @property
    def is_away(self) -> bool:
        """Whether nobody answered there when last tried."""
        return self.scout is not None


class Hosts:
    """All URLs of one model. Used from one event loop."""

    def __init__(self, urls: tuple[str, ...], limits: Limits) -> None:
        self._all = [Host(url, limits) for url in urls]
        self._there = asyncio.Event()
        self._there.set()

    def __len__(self) -> int:
        return len(self._all)

    @property
    def taken(self) -> int:
        """Requests that are at a server now."""
        return sum(host.limiter.taken for host in self._all)

    @property
    def are_away(self) -> bool:
        """Whether none can be reached."""
        return not self._there.is_set()

    def choose(self, prompt: str, strikes: Mapping[str, int], *, pinned: bool) -> Host:
        """The URL for a request: always the same one for a pinned prompt, else the one with the least to do.

        Pinned ones by rendezvous hashing (Thaler and Ravishankar 1998): what shares a prompt, such as a tree's nodes,
        meets the same prefix cache, and when a URL goes away only its prompts move.

        Args:
          prompt: the request's.
          strikes: how often each URL failed this very request; it goes where it has failed least.
          pinned: whether the prompt comes again.
        """
        if len(self._all) == 1:
            return self._all[0]
        there = [host for host in self._all if not host.is_away] or self._all
        # A server that fails everything at once has little to do: strikes come first.
        return min(
            sorted(there, key=lambda host: _weight(host, prompt), reverse=True),
            key=lambda host: (strikes.get(host.url, 0), 0.0 if pinned else host.limiter.load),
        )

    def lose(self, host: Host, session: aiohttp.ClientSession) -> None:
        """Leaves a URL that could not be reached until it answers again."""
        if host.scout is None:
            host.scout = asyncio.create_task(self._look_for(host, session))
            if all(other.is_away for other in self._all):
                self._there.clear()

    async def wait(self, seconds: float) -> None:
        """Returns when one of them can be reached, or after that time."""
        if self.are_away and seconds > 0:
            try:
                await asyncio.wait_for(self._there.wait(), seconds)
            except TimeoutError:
                return

    async def close(self) -> None:
        """Calls the scouts back."""
        scouts = [host.scout for host in self._all if host.scout]
        for scout in scouts:
            scout.cancel()
        await asyncio.gather(*scouts, return_exceptions=True)

    async def _look_for(self, host: Host, session: aiohttp.ClientSession) -> None:
        pause = _FIRST_PAUSE_SECS
        while not await _answers(host.url, session):
            if pause == _FIRST_PAUSE_SECS:
                # The one thing that is logged as an error without being raised: a run that waits must not look hung.
                _LOG.error("%s cannot be reached; it is asked again until it can be", host.url)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECS)
        host.scout = None
        self._there.set()


def _weight(host: Host, prompt: str) -> bytes:
    return hashlib.blake2b((host.url + "\n" + prompt).encode()).digest()


async def _answers(url: str, session: aiohttp.ClientSession) -> bool:
    """Whether a server is there; what it thinks of the question does not matter."""
    try:
        timeout = aiohttp.ClientTimeout(total=5.0)
        # Whatever is said, the key goes nowhere else.
        async with session.get(f"{url}/health", timeout=timeout, allow_redirects=False) as response:
            return response.status not in _GATEWAY
    except (TimeoutError, aiohttp.ClientError, OSError):
        return False

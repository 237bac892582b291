"""The URLs of one model: which of them a prompt goes to, and which cannot be reached just now.

A URL that refuses connections or drops them is away: prompts go to the others meanwhile, and a scout asks for its
`/health` until anything answers there. So a dead server costs nobody an attempt but those who were at it, and one that
comes back is used again within a second. One that accepts a request and then is silent for longer than a server may be
is asked how it is, and is away if it does not say that either: a connection alone is no sign of life.
"""

import asyncio
import hashlib
import logging
import math
import time
from collections.abc import Mapping

import aiohttp

from pipelines.engines.limiter import Limiter
from pipelines.engines.settings import Limits

_LOG = logging.getLogger(__name__)
_GATEWAY = (502, 503, 504)
"""What a proxy says whose server is away, and a server that still loads its model."""
_ANSWER_SECS = 5.0
"""Longest time to say how one is. SGLang has its model write a token first, which takes it a second when idle."""
_FIRST_PAUSE_SECS, _LONGEST_PAUSE_SECS = 0.05, 1.0


class Host:
    """One URL and the places there are at it."""

    def __init__(self, url: str, limits: Limits) -> None:
        self.url = url
        self.limiter = Limiter(limits.max_in_flight)
        self.doubts = asyncio.Lock()
        self.scout: asyncio.Task[None] | None = None
        self.away_since = 0.0
        """On the monotonic clock; means something while it is away."""

    @property
    def is_away(self) -> bool:
        """Whether nobody answered there when last tried."""
        return self.scout is not None


class Hosts:
    """All URLs of one model. Used from one event loop."""

    def __init__(self, urls: tuple[str, ...], limits: Limits) -> None:
        self._all = [Host(url, limits) for url in urls]
        # With one attempt nothing is waited for, and a dropped connection says nothing of what comes next.
        self._patience_secs = (limits.max_attempts - 1) * limits.max_wait_secs or math.inf
        self._overload_secs = limits.overload_secs
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

    @property
    def patience_left(self) -> float:
        """Seconds for which a URL is still waited for where none can be reached; without end where one can."""
        if not self.are_away:
            return math.inf
        last = max(host.away_since for host in self._all)
        return max(0.0, self._patience_secs - (time.monotonic() - last))

    @property
    def are_given_up(self) -> bool:
        """Whether each of them was away, or had no room for anybody, for as long as that is borne."""
        if self.are_away:
            return self.patience_left <= 0
        return all(host.is_away or host.limiter.refusing_secs >= self._overload_secs for host in self._all)

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
            host.away_since = time.monotonic()
            host.scout = asyncio.create_task(self._look_for(host, session))
            if all(other.is_away for other in self._all):
                self._there.clear()

    def find(self, host: Host) -> None:
        """Takes a URL back that has answered before its scout looked again."""
        if host.scout is not None:
            host.scout.cancel()
            host.scout = None
            self._there.set()

    async def doubt(self, host: Host, session: aiohttp.ClientSession) -> None:
        """Leaves a URL that let a request wait for too long, unless it says that it is there: it may only be slow."""
        async with host.doubts:  # Its requests run out of time together, and one question is enough.
            if not host.is_away and not await _answers(host.url, session):
                self.lose(host, session)

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
    """Whether a server is there; what it thinks of the question does not matter.

    One that has no `/health` is asked for its models: what says 404 may be only a proxy before it.
    """
    status = await _status(f"{url}/health", session)
    if status == 404:
        status = await _status(f"{url}/v1/models", session)
    return status not in (None, *_GATEWAY)


async def _status(url: str, session: aiohttp.ClientSession) -> int | None:
    """What is said to such a question; None where nothing is in time."""
    try:
        timeout = aiohttp.ClientTimeout(total=_ANSWER_SECS)
        # Whatever is said, the key goes nowhere else.
        async with session.get(url, timeout=timeout, allow_redirects=False) as response:
            return response.status
    except (TimeoutError, aiohttp.ClientError, OSError):
        return None

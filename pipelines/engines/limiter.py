"""How many requests may be at one server at once: additive increase, multiplicative decrease, as TCP does it."""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class Limiter:
    """A number of places that shrinks when the server complains and grows back while it does not.

    Chiu and Jain 1989. Used from one event loop.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._allowed = float(most)
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._back: deque[asyncio.Future[None]] = deque()
        self._pause: asyncio.TimerHandle | None = None
        self._refusing_since: float | None = None
        self._finished = 0
        self._deaf_until = 0

    @property
    def allowed(self) -> int:
        """Places there are now, 1..most."""
        return int(self._allowed)

    @property
    def taken(self) -> int:
        """Places in use."""
        return self._taken

    @property
    def load(self) -> float:
        """Places taken and wished for, as a share of those there are now; without end while there is a pause."""
        wished = self._taken + len(self._waiting) + len(self._back)
        return math.inf if self._pause else wished / self.allowed

    @property
    def refusing_secs(self) -> float:
        """For how long the server has said nothing but that it is too much; 0 where it said something else last."""
        return 0.0 if self._refusing_since is None else self._clock() - self._refusing_since

    @asynccontextmanager
    async def place(self, *, is_back: bool = False) -> AsyncIterator[None]:
        """Holds one place; first come, first served, but for those that are back because the server had no room."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._back if is_back else self._waiting).append(turn)
        self._wake()
        try:
            await turn
            yield
        finally:
            # Whoever is cancelled after the place was handed over, but before it could run, gives it back too.
            if turn.done() and not turn.cancelled():
                self._taken -= 1
                self._finished += 1
                self._wake()

    def taken_in(self) -> None:
        """The server had room for one, whatever came of it."""
        self._refusing_since = None

    def succeeded(self) -> None:
        """One more place for every round of answers that came well."""
        self._allowed = min(self._most, self._allowed + 1 / self._allowed)
        self._wake()

    def overloaded(self) -> None:
        """Half the places: the server said that it is too much.

        Requests that were under way at that moment say the same thing again and are not heard: one decrease a round.
        """
        if self._refusing_since is None:
            self._refusing_since = self._clock()
        if self._finished < self._deaf_until:
            return
        self._deaf_until = self._finished + self._taken
        self._allowed = max(1.0, self._allowed / 2)

    def pause(self, seconds: float) -> None:
        """Hands no place over for so long: the server has said when it wants to be asked again."""
        loop = asyncio.get_running_loop()
        if self._pause:
            if self._pause.when() >= loop.time() + seconds:
                return
            self._pause.cancel()
        self._pause = loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._wake()

    def _wake(self) -> None:
        """Hands free places over: they count as taken at once, so that nobody who comes later takes them."""
        while (self._back or self._waiting) and self._taken < self.allowed and not self._pause:
            turn = (self._back or self._waiting).popleft()
            if not turn.done():
                turn.set_result(None)
                self._taken += 1

"""What the server keeps count of: slots, the prefix cache, statistics. No answer depends on any of it."""

import hashlib
import heapq
from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import Any


class SlotPlan:
    """Slots as the times at which they fall free.

    How long a sample holds its slot is known when it arrives, so that first come, first served is planned at once:
    each sample takes the slot that falls free first. No timer between two samples can be late.
    """

    def __init__(self, slots: int, now: float) -> None:
        self._free = [now] * slots
        self._seconds = 0.0
        self._start: float | None = None

    def take(self, now: float, seconds: Iterable[float]) -> float:
        """Plans one sample for each duration, in order, and returns when the last of them ends."""
        end = now
        for duration in seconds:
            start = max(now, self._free[0])
            heapq.heapreplace(self._free, start + duration)
            end = max(end, start + duration)
            self._seconds += duration
            self._start = start if self._start is None else self._start
        return end

    def used(self, now: float) -> float:
        """Slot-seconds used up to `now`."""
        return max(0.0, self._seconds - self._planned(now))

    def utilisation(self, now: float) -> float:
        """Slot-seconds used over those available between the first sample's start and the last one's end."""
        if self._start is None:
            return 0.0
        span = min(now, max(self._free)) - self._start
        return self.used(now) / (len(self._free) * span) if span > 0 else 0.0

    def reset(self, now: float) -> None:
        """Counts from `now` on; samples under way count for what is left of them."""
        self._seconds = self._planned(now)
        self._start = now if self._seconds else None

    def _planned(self, now: float) -> float:
        # A slot that falls free later is busy without a gap until then: nothing is planned to start after a pause.
        return sum(free - now for free in self._free if free > now)


class PrefixCache:
    """Which beginnings of prompts were seen, in whole blocks; the blocks not used for longest are forgotten."""

    def __init__(self, block_chars: int, max_blocks: int) -> None:
        self._block_chars = block_chars
        self._max_blocks = max_blocks
        self._blocks: OrderedDict[bytes, None] = OrderedDict()

    def add(self, text: str) -> int:
        """Characters at the beginning of `text` that an earlier text shares, in whole blocks; remembers `text`."""
        size = self._block_chars
        running = hashlib.blake2b(digest_size=16)
        names = []
        for start in range(0, len(text) - size + 1, size):
            running.update(text[start : start + size].encode())
            names.append(running.digest())
        known = 0
        while known < len(names) and names[known] in self._blocks:
            known += 1
        # The deepest first: a block is of no use without those before it, so that these are forgotten last.
        for name in reversed(names):
            self._blocks[name] = None
            self._blocks.move_to_end(name)
        while len(self._blocks) > self._max_blocks:
            self._blocks.popitem(last=False)
        return known * size


class Stats:
    """Counts since the last reset."""

    def __init__(self, now: float) -> None:
        self.in_flight = 0
        self.reset(now)

    def reset(self, now: float) -> None:
        """Forgets everything but the requests in flight."""
        self.started = now
        self.requests = 0
        self.samples = 0
        self.completion_tokens = 0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.peak_in_flight = self.in_flight
        self.faults: Counter[str] = Counter()
        self.first_request: float | None = None
        self.last_request: float | None = None
        self.last_answer: float | None = None

    def arrive(self, now: float) -> None:
        """Counts a request in."""
        self.requests += 1
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        self.first_request = now if self.first_request is None else self.first_request
        self.last_request = now

    def leave(self, now: float) -> None:
        """Counts a request out, however it ended."""
        self.in_flight -= 1
        self.last_answer = now

    def as_json(self, now: float, plan: SlotPlan, slots: int) -> dict[str, Any]:
        """What `/stats` answers; times in seconds since the reset, None for what has not happened."""
        times = {
            "first_request": self.first_request,
            "last_request": self.last_request,
            "last_answer": self.last_answer,
        }
        return {
            "requests": self.requests,
            "samples": self.samples,
            "in_flight": self.in_flight,
            "peak_in_flight": self.peak_in_flight,
            "slots": slots,
            "slot_seconds": plan.used(now),
            "utilisation": plan.utilisation(now),
            "uptime_seconds": now - self.started,
            **{f"{name}_seconds": None if at is None else at - self.started for name, at in times.items()},
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "completion_tokens": self.completion_tokens,
            "faults": dict(sorted(self.faults.items())),
        }

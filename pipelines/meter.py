"""What a run has done so far, for whoever watches it. Counts here are for eyes: the manifest counts what is written."""

import threading
from collections import Counter
from collections.abc import Mapping

from pipelines.engines.base import Usage
from schemas import Record

REFUSED = "requests refused"
"""What a stage counts of those whose prompt a server will never answer."""
REPLAYED = "samples from the journal"
"""What a stage counts of them, beside its elements: workers elsewhere report it as they report those."""


class Reading(Record):
    """The meter at one moment."""

    paid: Usage
    """What was paid in this run."""
    elements: dict[str, int]
    """Finished elements by `Stage/outcome`, for example `ExpandTrees/kept`."""

    @property
    def replayed(self) -> int:
        """Samples that came from the journal."""
        return self.total(REPLAYED)

    def total(self, outcome: str) -> int:
        """Of all stages together."""
        return sum(number for name, number in self.elements.items() if name.endswith(f"/{outcome}"))


class Refusals(Record):
    """Requests whose prompts servers will never answer."""

    requests: int = 0
    first: str = ""
    """What a server said of the first one; empty where another machine's worker asked it."""

    def __add__(self, later: "Refusals") -> "Refusals":
        return Refusals(requests=self.requests + later.requests, first=self.first or later.first)


class Meter:
    """Counters that any thread may add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._paid = Usage()
        self._elements: Counter[str] = Counter()
        self._unreported: Counter[str] = Counter()
        self._refusals_taken = 0
        self._refusal = ""

    def pay(self, stage: str, usage: Usage, replayed: int) -> None:
        """Adds what a request cost, and samples that cost nothing."""
        with self._lock:
            self._paid += usage
        if replayed:
            self.count(stage, REPLAYED, replayed)

    def count(self, stage: str, outcome: str, number: int = 1) -> None:
        """Adds finished elements."""
        with self._lock:
            self._elements[f"{stage}/{outcome}"] += number
            self._unreported[f"{stage}/{outcome}"] += number

    def refuse(self, stage: str, said: str) -> None:
        """Adds a request that was refused, and what the server said."""
        self.count(stage, REFUSED)
        with self._lock:
            self._refusal = self._refusal or said

    def take_refusals(self) -> Refusals:
        """Those since this was last asked."""
        with self._lock:
            total = Reading(paid=self._paid, elements=dict(self._elements)).total(REFUSED)
            taken = Refusals(requests=total - self._refusals_taken, first=self._refusal)
            self._refusals_taken, self._refusal = total, ""
            return taken

    def take_unreported(self) -> Counter[str]:
        """What was counted since this was last asked, for the counters of a cluster's own page."""
        with self._lock:
            taken, self._unreported = self._unreported, Counter()
            return taken

    def see(self, paid: Usage, elements: Mapping[str, int]) -> None:
        """Adds what workers elsewhere have paid and finished."""
        with self._lock:
            self._paid += paid
            self._elements.update(elements)

    def read(self) -> Reading:
        """The counts now."""
        with self._lock:
            return Reading(paid=self._paid, elements=dict(self._elements))


METER = Meter()
"""This process's meter."""

"""What a run has done so far, for whoever watches it. Counts here are for eyes: the manifest counts what is written."""

import threading
from collections import Counter
from collections.abc import Mapping

from pipelines.engines.base import Usage
from schemas import Record

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
        return sum(number for name, number in self.elements.items() if name.endswith(f"/{REPLAYED}"))


class Meter:
    """Counters that any thread may add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._paid = Usage()
        self._elements: Counter[str] = Counter()
        self._unreported: Counter[str] = Counter()

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

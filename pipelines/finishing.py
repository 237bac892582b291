"""Marks the shards that a start of a run has filled: as finished, or as ones that are to be filled again."""

from collections import Counter
from collections.abc import Callable, Mapping

from pipelines.engines.base import Usage
from pipelines.manifest import note_refusals
from pipelines.meter import METER, REFUSED, REPLAYED
from pipelines.output import Output


class Finisher:
    """One start's. One prompt may be too long for ever, but not all that a stage asks: that is the server's trouble."""

    def __init__(self, output: Output, num_shards: int, ledger: Callable[[], Mapping[str, Usage]]) -> None:
        """`ledger` tells what the run has paid until now, by stage."""
        self.output = output
        self._num_shards = num_shards
        self._ledger = ledger
        self._paid = ledger()
        self._elements = METER.read().elements
        self._held: list[int] = []
        """Shards without a failure that were filled when some stage had been refused everything."""

    def finish(self, index: int) -> None:
        """Marks a shard as finished unless it holds a failed element, or whatever a stage asked was refused."""
        note_refusals(self.output.path / "logs")
        failed = self.output.has_failures(index, self._num_shards)
        if not failed and self.refused_stages():
            failed = True
            self._held.append(index)
        self.output.finish(index, self._num_shards, failed=failed)

    def close(self) -> tuple[str, ...]:
        """The stages that were refused everything; where there is none, it was some prompts alone after all."""
        refused = self.refused_stages()
        for index in () if refused else self._held:
            self.output.finish(index, self._num_shards)
        return refused

    def refused_stages(self) -> tuple[str, ...]:
        """Stages that were refused something, and got no sample from a server or the journal."""
        counted = Counter(METER.read().elements) - Counter(self._elements)
        refused = {name.partition("/")[0] for name in counted if name.endswith(f"/{REFUSED}")}
        suspects = sorted(stage for stage in refused if not counted[f"{stage}/{REPLAYED}"])
        paid, none = self._ledger() if suspects else {}, Usage()
        return tuple(
            stage for stage in suspects if paid.get(stage, none).samples == self._paid.get(stage, none).samples
        )

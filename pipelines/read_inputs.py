"""Stage: read the problems of each shard, and the rows that were none."""

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput

from pipelines.site import read_site
from pipelines.stage import REJECTED
from schemas import Posed, Rejection


@dataclasses.dataclass
class ReadInputs(beam.PTransform):
    """Sends every problem of the shards to `kept`, and every row of theirs that was no problem to `rejected`."""

    out: str
    """Where the process that started the run has written them."""

    def expand(self, shards: beam.PCollection[int]) -> Any:
        """Two outputs: main (Posed), `rejected`."""
        return shards | beam.ParDo(_Read(self.out).giving()).with_outputs(REJECTED, main="kept")


class _Read(beam.DoFn):
    def __init__(self, out: str) -> None:
        self._out = out

    def giving(self) -> Any:
        """Itself, its outputs typed: they are shuffled next."""
        return self.with_output_types(Posed, **{REJECTED: Rejection})

    def process(self, index: int) -> Iterator[Posed | TaggedOutput[Literal["rejected"], Rejection]]:
        """The shard's problems, then its unread rows."""
        inputs = read_site(self._out, index)
        for problem in inputs.problems:
            yield Posed(problem=problem, solutions=inputs.solutions.get(problem.id, ()))
        for rejection in inputs.unread:
            yield TaggedOutput(REJECTED, rejection)

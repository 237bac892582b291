"""Stage: pick the paths of each tree that are worth criticising."""

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput

from mcts.first_error import ChangePoint
from mcts.pairing import PairSettings, pair_paths
from pipelines.meter import METER
from pipelines.stage import REJECTED
from schemas import PathAlone, PathPair, Rejection, Stage, Tree

STAGE: Stage = "PairPaths"


@dataclasses.dataclass
class PairPaths(beam.PTransform):
    """Sends every `Tree` to `kept` (as one `PathPair` or `PathAlone` or several) or `rejected` (as a `Rejection`)."""

    settings: PairSettings
    change_point: ChangePoint

    def expand(self, trees: beam.PCollection[Tree]) -> Any:
        """Two outputs: main (Path), `rejected`."""
        return trees | beam.FlatMap(self._pair).with_outputs(REJECTED, main="kept")

    def _pair(self, tree: Tree) -> Iterator[PathPair | PathAlone | TaggedOutput[Literal["rejected"], Rejection]]:
        paths = pair_paths(tree, self.settings, self.change_point)
        if isinstance(paths, Rejection):
            METER.count(STAGE, REJECTED)
            yield TaggedOutput(REJECTED, paths)
        else:
            METER.count(STAGE, "kept")
            yield from paths

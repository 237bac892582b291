"""The whole flow. Every arrow is a PCollection of a frozen record, every box one module of this package."""

from collections.abc import Sequence

import apache_beam as beam

from pipelines.aggregate_critiques import AggregateCritiques
from pipelines.expand_trees import ExpandTrees
from pipelines.pair_paths import PairPaths
from pipelines.plan import Plan
from pipelines.read_inputs import ReadInputs
from pipelines.verify_critiques import VerifyCritiques
from pipelines.worker import WorkerSpec
from pipelines.write_critiques import WriteCritiques
from pipelines.write_shards import WriteShards


def build(pipeline: beam.Pipeline, plan: Plan, spec: WorkerSpec, *, out: str, shards: Sequence[int]) -> None:
    """Adds the graph that fills `shards` of `out` from the problems that lie there.

    From ExpandTrees to WriteCritiques, and from AggregateCritiques to VerifyCritiques, stages run in one bundle:
    elements flow on as they finish and heavy records are shuffled once, where a shard's critics are weighed.
    """
    settings = plan.settings
    inputs = pipeline | "Shards" >> beam.Create(shards) | ReadInputs(out)
    problems = inputs.kept | "SpreadProblems" >> beam.Reshuffle()
    trees = problems | ExpandTrees(
        spec, settings.actor, settings.search, settings.pairing, plan.solve, settings.seed, settings.paths
    )
    paths = trees.kept | PairPaths(settings.pairing, settings.search.change_point)
    criticised = paths.kept | WriteCritiques(spec, settings.panel, plan.critics, plan.stop, settings.seed)
    panels = criticised.kept | AggregateCritiques(
        spec, settings.panel, plan.meta, plan.compose, plan.stop, settings.seed, plan.num_shards
    )
    verified = panels.kept | VerifyCritiques(spec, settings.actor, settings.verify, plan.refine, settings.seed)
    ends = [inputs.rejected, trees.failed, paths.rejected, criticised.rejected, criticised.failed]
    ends += [panels.rejected, panels.failed, verified.rejected, verified.failed]
    (trees.kept, paths.kept, criticised.kept, panels.kept, verified.kept, *ends) | WriteShards(
        out, tuple(shards), plan.num_shards, settings.export, plan.context, plan.images
    )

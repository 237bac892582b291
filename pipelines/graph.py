"""The whole flow. Every arrow is a PCollection of a frozen record, every box one module of this package."""

from collections.abc import Sequence

import apache_beam as beam

from annotators.rounds import Rounds
from pipelines.aggregate_critiques import AggregateCritiques
from pipelines.expand_trees import ExpandTrees
from pipelines.hold_dialogues import HoldDialogues
from pipelines.pair_paths import PairPaths
from pipelines.plan import Plan
from pipelines.read_inputs import ReadInputs
from pipelines.scope_feedback import ScopeFeedback
from pipelines.sift_problems import SiftProblems
from pipelines.verify_critiques import VerifyCritiques
from pipelines.worker import WorkerSpec
from pipelines.write_critiques import Correcting, WriteCritiques
from pipelines.write_shards import WriteShards


def build(pipeline: beam.Pipeline, plan: Plan, spec: WorkerSpec, *, out: str, shards: Sequence[int]) -> None:
    """Adds the graph that fills `shards` of `out` from the problems that lie there.

    From ExpandTrees to WriteCritiques, and from AggregateCritiques to VerifyCritiques, stages run in one bundle:
    elements flow on as they finish and heavy records are shuffled once, where a shard's critics are weighed.
    """
    settings = plan.settings
    inputs = pipeline | "Shards" >> beam.Create(shards) | ReadInputs(out)
    problems = inputs.kept | "SpreadProblems" >> beam.Reshuffle()
    sifted: list[beam.PCollection] = []
    if plan.again:
        contamination = settings.hygiene.contamination
        sift = problems | SiftProblems(spec, settings.actor, contamination, plan.solve, plan.again, settings.seed)
        problems, sifted = sift.kept, [sift.rejected, sift.failed]
    trees = problems | ExpandTrees(
        spec,
        settings.actor,
        settings.search,
        settings.pairing,
        plan.solve,
        settings.seed,
        settings.paths,
        plan.inject,
        plan.guide,
    )
    paths = trees.kept | PairPaths(settings.pairing, settings.search.change_point)
    correcting = Correcting(template=plan.refine, sampling=settings.actor.sampling(refining=True))
    criticised = paths.kept | WriteCritiques(
        spec, settings.panel, plan.critics, plan.stop, settings.seed, plan.crucial, correcting
    )
    panels = criticised.kept | AggregateCritiques(
        spec, settings.panel, plan.meta, plan.compose, plan.stop, settings.seed, plan.num_shards
    )
    verified = panels.kept | VerifyCritiques(spec, settings.actor, settings.verify, plan.refine, settings.seed)
    ends = [inputs.rejected, trees.rejected, trees.failed, paths.rejected, criticised.rejected, criticised.failed]
    ends += [panels.rejected, panels.failed, verified.rejected, verified.failed, *sifted]
    if isinstance(settings.loop, Rounds):
        dialogues = trees.kept | HoldDialogues(
            spec, settings.actor, settings.loop, settings.search, plan.refine, plan.giver, settings.seed
        )
        ends += [dialogues.kept, dialogues.rejected, dialogues.failed]
    if plan.scoping:
        scoped = trees.kept | ScopeFeedback(spec, settings.actor, settings.scope, plan.scoping, settings.seed)
        ends += [scoped.kept, scoped.rejected, scoped.failed]
    (trees.kept, paths.kept, criticised.kept, panels.kept, verified.kept, *ends) | WriteShards(
        out, tuple(shards), plan.num_shards, settings.export, plan.context, plan.images, settings.loop.rows
    )

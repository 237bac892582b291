"""Stage: grow a tree of reasoning for each problem."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
import msgspec

from mcts.answers import Check, is_cut_off
from mcts.base import Rollout
from mcts.injected import InjectSettings, Place, Rewriter
from mcts.pairing import PairSettings
from mcts.settings import SearchSettings
from mcts.sources import SEARCHED, PathSource, tree_source
from pipelines.engines.base import PromptRefused, Request, Sample
from pipelines.guiding import ModelGuide, Roll
from pipelines.injecting import rewriting
from pipelines.meter import METER
from pipelines.settings import ActorSettings
from pipelines.stage import FAILED, REJECTED, CallModels
from pipelines.worker import Worker, WorkerSpec
from schemas import Posed, Problem, Record, Solution, Stage, Template, Tree, digest

STAGE: Stage = "ExpandTrees"


@dataclasses.dataclass
class ExpandTrees(beam.PTransform):
    """Sends every `Posed` problem to `kept` (as its `Tree`) or `failed` (as a `Failure`).

    Solutions that came with a problem and are unfit for its tree go to `rejected`.
    """

    spec: WorkerSpec
    actor: ActorSettings
    search: SearchSettings
    pairing: PairSettings
    template: Template
    seed: int
    paths: PathSource = SEARCHED
    injecting: dict[str, Template] = dataclasses.field(default_factory=dict)
    """By which prompt errors are put into steps, for each way of `paths`."""
    guiding: dict[str, Template] = dataclasses.field(default_factory=dict)
    """By which prompts the model of `search.hybrid` is asked; empty where none is."""

    def expand(self, problems: beam.PCollection[Posed]) -> Any:
        """Three outputs: main (Tree), `rejected`, `failed`."""
        stage = CallModels(STAGE, self.spec, self._expand_posed, lambda posed: (posed.problem.id,) * 2)
        return problems | beam.ParDo(stage.giving(Tree)).with_outputs(REJECTED, FAILED, main="kept")

    async def _expand_posed(self, worker: Worker, posed: Posed) -> Sequence[Record]:
        return await self._expand(worker, posed.problem, posed.solutions)

    async def _expand(self, worker: Worker, problem: Problem, solutions: tuple[Solution, ...] = ()) -> Sequence[Record]:
        async def roll(prompt: str, prefix: str, *, num_samples: int, first_sample: int) -> Sequence[Rollout]:
            request = Request(
                prompt=prompt,
                prefix=prefix,
                num_samples=num_samples,
                first_sample=first_sample,
                sampling=self.actor.sampling(),
                seed=self.seed,
                pinned=True,
                images=problem.images,
            )
            samples = await worker.model.sample(STAGE, request)
            if not prefix and all(sample.error for sample in samples):
                # Nobody can look at this problem: that is a failure, not a tree without right paths.
                raise PromptRefused(samples[0].error, request_digest=digest(request), attempts=1)
            return [_rollout(sample, prefix, problem.domain) for sample in samples]

        async def policy(prefix: str, *, num_samples: int, first_sample: int) -> Sequence[Rollout]:
            prompt = self.template.fill({"problem": problem.question})
            return await roll(prompt, prefix, num_samples=num_samples, first_sample=first_sample)

        async def verifier(solution: str) -> Check:
            return await worker.checkers.check(solution, problem)

        growing = tree_source(
            self.paths, self._rewriter(worker, problem), solutions, self._guide(worker, problem, roll)
        )(
            problem,
            policy=policy,
            verifier=verifier,
            settings=self.search,
            pairing=self.pairing,
            provenance=worker.provenance(self.template, self.actor.sampling(), self.seed),
        )
        tree = await growing.grow()
        for edit in tree.edits:
            METER.count(STAGE, f"edits {edit.state}")
        return [tree, *growing.rejected]

    def _guide(self, worker: Worker, problem: Problem, roll: Roll) -> ModelGuide | None:
        """The model beside the actor; None where the search has none."""
        if not self.guiding:
            return None
        hybrid = self.search.hybrid
        return ModelGuide(
            stage=STAGE,
            model=worker.model_of(hybrid.engine),
            settings=hybrid,
            templates=self.guiding,
            problem=problem,
            seed=self.seed,
            roll=roll,
        )

    def _rewriter(self, worker: Worker, problem: Problem) -> Rewriter | None:
        """Who puts errors into steps; None where the source puts none in."""
        paths = self.paths
        if not isinstance(paths, InjectSettings):
            return None

        async def rewrite(place: Place, *, sample: int) -> Rollout:
            request = rewriting(place, problem, self.injecting[place.how], paths, self.actor)
            request = msgspec.structs.replace(request, first_sample=sample, seed=self.seed)
            (written,) = await worker.model_of(paths.engine if place.how == "edit" else "").sample(STAGE, request)
            is_cut = written.finish == "length"
            return Rollout(
                text=written.text,
                tokens=written.tokens,
                error=written.error,
                is_cut=is_cut,
                reasoning=written.reasoning,
            )

        return rewrite


def _rollout(sample: Sample, prefix: str, domain: str) -> Rollout:
    is_cut = sample.finish == "length" and is_cut_off(prefix + sample.text, domain)
    return Rollout(
        text=sample.text, tokens=sample.tokens, error=sample.error, is_cut=is_cut, reasoning=sample.reasoning
    )

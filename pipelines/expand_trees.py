"""Stage: grow a tree of reasoning for each problem."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import apache_beam as beam

from mcts.answers import Check, is_cut_off
from mcts.base import Rollout
from mcts.pairing import PairSettings
from mcts.samples import SEARCHED, PathSource, tree_source
from mcts.settings import SearchSettings
from pipelines.engines.base import PromptRefused, Request, Sample
from pipelines.settings import ActorSettings
from pipelines.stage import FAILED, REJECTED, CallModels
from pipelines.worker import Worker, WorkerSpec
from schemas import Problem, Record, Stage, Template, Tree

STAGE: Stage = "ExpandTrees"


@dataclasses.dataclass
class ExpandTrees(beam.PTransform):
    """Sends every `Problem` to `kept` (as its `Tree`) or `failed` (as a `Failure`)."""

    spec: WorkerSpec
    actor: ActorSettings
    search: SearchSettings
    pairing: PairSettings
    template: Template
    seed: int
    paths: PathSource = SEARCHED

    def expand(self, problems: beam.PCollection[Problem]) -> Any:
        """Three outputs: main (Tree), `rejected`, `failed`."""
        stage = CallModels(STAGE, self.spec, self._expand, lambda problem: (problem.id, problem.id))
        return problems | beam.ParDo(stage.giving(Tree)).with_outputs(REJECTED, FAILED, main="kept")

    async def _expand(self, worker: Worker, problem: Problem) -> Sequence[Record]:
        async def policy(prefix: str, *, num_samples: int, first_sample: int) -> Sequence[Rollout]:
            request = Request(
                prompt=self.template.fill({"problem": problem.question}),
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
                raise PromptRefused(samples[0].error, attempts=1)
            return [_rollout(sample, prefix, problem.domain) for sample in samples]

        async def verifier(solution: str) -> Check:
            return await worker.checkers.check(solution, problem)

        growing = tree_source(self.paths)(
            problem,
            policy=policy,
            verifier=verifier,
            settings=self.search,
            pairing=self.pairing,
            provenance=worker.provenance(self.template, self.actor.sampling(), self.seed),
        )
        return [await growing.grow()]


def _rollout(sample: Sample, prefix: str, domain: str) -> Rollout:
    is_cut = sample.finish == "length" and is_cut_off(prefix + sample.text, domain)
    return Rollout(text=sample.text, tokens=sample.tokens, error=sample.error, is_cut=is_cut)

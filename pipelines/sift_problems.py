"""Stage: leave out problems that the actor has memorised; runs only where `hygiene.contamination` is on."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import apache_beam as beam

from annotators.critic import layout
from annotators.narrowness import path_likeness
from pipelines.engines.base import PromptRefused, Request, Sample, Sampling
from pipelines.problems.hygiene import ContaminationSettings
from pipelines.settings import ActorSettings
from pipelines.stage import FAILED, REJECTED, CallModels
from pipelines.worker import Worker, WorkerSpec
from schemas import Posed, Problem, Record, Rejection, Stage, Template

STAGE: Stage = "SiftProblems"


@dataclasses.dataclass
class SiftProblems(beam.PTransform):
    """Sends every `Posed` problem to `kept` as it is, to `rejected` where it is memorised, or to `failed`.

    Where nobody can tell, because an answer is empty or the second prompt is refused, a problem is kept.
    """

    spec: WorkerSpec
    actor: ActorSettings
    contamination: ContaminationSettings
    solve: Template
    """Gap `{problem}`."""
    again: Template
    """Gap `{sections}`."""
    seed: int

    def expand(self, problems: beam.PCollection[Posed]) -> Any:
        """Three outputs: main (Posed), `rejected`, `failed`."""
        stage = CallModels(STAGE, self.spec, self._sift, lambda posed: (posed.problem.id,) * 2)
        return problems | beam.ParDo(stage.giving(Posed)).with_outputs(REJECTED, FAILED, main="kept")

    async def _sift(self, worker: Worker, posed: Posed) -> Sequence[Record]:
        problem, threshold = posed.problem, self.contamination.threshold
        assert threshold is not None, problem.id
        first = await self._answer(worker, problem, self.solve.fill({"problem": problem.question}))
        if first.error:
            raise PromptRefused(first.error, attempts=1)
        parts = {"Problem": problem.question, "Solution": first.text}
        prompt = self.again.fill({"sections": layout(parts)})
        second = await self._answer(worker, problem, prompt, longer=2)
        likeness = path_likeness(first.entropies or (), second.entropies or ())
        if likeness is None or likeness < threshold:
            return [posed]
        detail = f"likeness of the entropies of two ways {likeness:.3f}, from {threshold:g} on left out"
        return [Rejection(stage=STAGE, key=problem.id, problem_id=problem.id, reason="memorised", detail=detail)]

    async def _answer(self, worker: Worker, problem: Problem, prompt: str, *, longer: int = 1) -> Sample:
        """The actor's greedy solution."""
        tokens = longer * self.contamination.max_tokens
        request = Request(
            prompt=prompt,
            sampling=Sampling(max_tokens=tokens, temperature=0.0, stop=self.actor.stop),
            seed=self.seed,
            top_logprobs=self.contamination.top_logprobs,
            images=problem.images,
        )
        (sample,) = await worker.model.sample(STAGE, request)
        return sample

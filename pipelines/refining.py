"""Second solutions: what the actor writes with its first one before it, and with a critique or without."""

import asyncio
import dataclasses

from annotators.critic import layout, number_steps
from mcts.answers import Check, is_cut_off, unscored
from pipelines.engines.base import Request, Sample
from pipelines.settings import ActorSettings
from pipelines.worker import Worker
from schemas import Estimate, Outcome, Path, Problem, Record, Stage, Template

STAGE: Stage = "VerifyCritiques"
"""Whose calls these are in the books."""


class Arm(Record):
    """Second solutions under one condition, in the order of their sample indices."""

    texts: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()

    @property
    def estimate(self) -> Estimate:
        """How many came out right."""
        return Estimate.of([check.outcome for check in self.checks])

    def first(self, outcome: Outcome) -> tuple[str, str]:
        """Text and answer of the first one with this outcome; empty where there was none."""
        pairs = zip(self.texts, self.checks, strict=True)
        return next(((text, check.answer or "") for text, check in pairs if check.outcome == outcome), ("", ""))


@dataclasses.dataclass(frozen=True)
class Refiner:
    """Has the actor write second solutions and checks them. It never sees the gold answer."""

    actor: ActorSettings
    template: Template
    """Gap `{sections}`: problem, first solution, critique where there is one."""
    seed: int

    async def refine(self, worker: Worker, path: Path, critique: str, size: int, arm: Arm | None = None) -> Arm:
        """An arm with as many second solutions as `size`.

        Args:
          worker: whose actor is asked.
          path: whose solution is the first.
          critique: what the actor is told of it; empty for nothing.
          size: second solutions of the arm, those in `arm` included.
          arm: those written already.

        Raises:
          EngineError: they cannot be had.
        """
        arm = arm or Arm()
        parts = {"Problem": path.problem.question, "Solution": number_steps(path.steps)}
        if critique:
            parts["Critique"] = critique
        request = Request(
            prompt=self.template.fill({"sections": layout(parts)}),
            num_samples=size - len(arm.texts),
            first_sample=len(arm.texts),
            sampling=self.actor.sampling(refining=True),
            seed=self.seed,
            pinned=True,
            images=path.problem.images,
        )
        samples = await worker.model.sample(STAGE, request)
        checks = await asyncio.gather(*(check_sample(worker, sample, path.problem) for sample in samples))
        return Arm(texts=(*arm.texts, *(sample.text for sample in samples)), checks=(*arm.checks, *checks))


async def check_sample(worker: Worker, sample: Sample, problem: Problem) -> Check:
    """What the checkers say of a whole solution; one that ran out of tokens has no answer yet."""
    if sample.finish == "length" and is_cut_off(sample.text, problem.domain):
        return unscored("cut_off")
    return await worker.checkers.check(sample.text, problem)

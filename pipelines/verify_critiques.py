"""Stage: keep a critique only if everything that can be tested about it holds, and rollouts show that it helps."""

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

import apache_beam as beam

from annotators.critic import layout, number_steps
from annotators.verification import (
    Help,
    VerifySettings,
    cheap_reasons,
    find_leak,
    help_reasons,
    location_distance,
    location_mass,
    verdict_agrees,
)
from mcts.estimates import p_greater
from pipelines.engines.base import EngineError, Request
from pipelines.meter import METER
from pipelines.settings import ActorSettings
from pipelines.stage import FAILED, REJECTED, CallModels, failure
from pipelines.worker import Worker, WorkerSpec
from schemas import (
    Critique,
    Empanelled,
    Estimate,
    Examined,
    Path,
    PathPair,
    Record,
    Rejection,
    Stage,
    Template,
    Verified,
    digest,
)

STAGE: Stage = "VerifyCritiques"


class _Arm(Record):
    """Second solutions under one condition."""

    estimate: Estimate
    right: str = ""
    """The first right one; empty where there was none."""
    right_answer: str = ""


@dataclasses.dataclass
class VerifyCritiques(beam.PTransform):
    """Makes of every `Empanelled` one `Examined`; each candidate in it is kept, a `Rejection` or a `Failure`."""

    spec: WorkerSpec
    actor: ActorSettings
    settings: VerifySettings
    template: Template
    """The refining actor's; gap `{sections}`."""
    seed: int

    def expand(self, empanelled: beam.PCollection[Empanelled]) -> Any:
        """Three outputs: main (Examined), `rejected`, `failed`."""
        stage = CallModels(STAGE, self.spec, self._verify, lambda case: (case.panel.id, case.path.problem.id))
        return empanelled | beam.ParDo(stage.giving(Examined)).with_outputs(REJECTED, FAILED, main="kept")

    async def _verify(self, worker: Worker, case: Empanelled) -> Sequence[Record]:
        """Cheap tests for all, rollouts for what passes them; then for one that did not, if a pair can come of it."""
        path, critiques = case.path, case.candidates
        cheap = {critique.id: cheap_reasons(critique, path, self.settings) for critique in critiques}
        fit = [critique for critique in critiques if not cheap[critique.id]][: self.settings.max_measured]
        try:
            helped = await self._measure(worker, case, fit)
            if any(not reasons for _, _, reasons in helped.values()):
                unfit = [critique for critique in critiques if cheap[critique.id]][: self.settings.measure_rejected]
                helped |= await self._measure(worker, case, unfit)
        except EngineError as error:
            return [failure(STAGE, critique.id, path.problem.id, error) for critique in critiques]
        verified = tuple(
            _verified(critique, path, cheap[critique.id], helped.get(critique.id)) for critique in critiques
        )
        rejections = [_rejection(item) for item in verified if item.decision == "rejected"]
        METER.count(STAGE, "critiques kept", len(verified) - len(rejections))
        return [Examined(path=path, panel=case.panel, verified=verified), *rejections]

    async def _measure(
        self, worker: Worker, case: Empanelled, critiques: Sequence[Critique]
    ) -> dict[str, tuple[Help, _Arm, tuple[str, ...]]]:
        """Refines with each critique, with the placebo and with nothing; the controls are shared by all."""
        if not critiques:
            return {}
        texts = ["", case.panel.placebo, *(critique.text for critique in critiques)]
        without, placebo, *arms = await asyncio.gather(*(self._refine(worker, case.path, text) for text in texts))
        measured = {}
        for critique, arm in zip(critiques, arms, strict=True):
            tested = Help(
                with_critique=arm.estimate,
                with_placebo=placebo.estimate,
                without_critique=without.estimate,
                p_placebo=p_greater(arm.estimate, placebo.estimate),
                p_without=p_greater(arm.estimate, without.estimate),
                p_hurts=p_greater(without.estimate, arm.estimate),
            )
            measured[critique.id] = (tested, arm, help_reasons(tested, case.path, self.settings))
        return measured

    async def _refine(self, worker: Worker, path: Path, critique: str) -> _Arm:
        """Second solutions of the actor. It never sees the gold answer: only problem, first solution and critique."""
        parts = {"Problem": path.problem.question, "Solution": number_steps(path.steps)}
        if critique:
            parts["Critique"] = critique
        request = Request(
            prompt=self.template.fill({"sections": layout(parts)}),
            num_samples=self.settings.rollouts,
            sampling=self.actor.sampling(refining=True),
            seed=self.seed,
        )
        samples = await worker.model.sample(STAGE, request)
        checks = await asyncio.gather(*(worker.checkers.check(sample.text, path.problem) for sample in samples))
        right = [
            (sample.text, check.answer or "")
            for sample, check in zip(samples, checks, strict=True)
            if check.outcome == "correct"
        ]
        text, answer = right[0] if right else ("", "")
        return _Arm(estimate=Estimate.of([check.outcome for check in checks]), right=text, right_answer=answer)


def _verified(
    critique: Critique, path: Path, cheap: tuple[str, ...], measured: tuple[Help, _Arm, tuple[str, ...]] | None
) -> Verified:
    tested, arm, unhelpful = measured or (None, None, ())
    if measured is None and not cheap:
        unhelpful = ("not_measured",)
    reasons = (*cheap, *unhelpful)
    return Verified(
        id=digest("verified", critique.id),
        critique=critique,
        has_error=path.has_error,
        first_error=path.first_error if isinstance(path, PathPair) else None,
        verdict_agrees=verdict_agrees(critique, path),
        location_distance=location_distance(critique, path),
        location_mass=location_mass(critique, path),
        leak=find_leak(critique, path),
        with_critique=tested.with_critique if tested else None,
        with_placebo=tested.with_placebo if tested else None,
        without_critique=tested.without_critique if tested else None,
        p_placebo=tested.p_placebo if tested else None,
        p_without=tested.p_without if tested else None,
        refinement=arm.right if arm else "",
        refinement_answer=arm.right_answer if arm else "",
        decision="rejected" if reasons else "kept",
        reasons=reasons,
    )


def _rejection(item: Verified) -> Rejection:
    return Rejection(
        stage=STAGE,
        key=item.critique.id,
        problem_id=item.critique.problem_id,
        reason=item.reasons[0],
        detail=f"{item.critique.agent}: {', '.join(item.reasons)}",
    )

"""Stage: keep a critique only if everything that can be tested about it holds, and rollouts show that it helps."""

import asyncio
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam

from annotators.critic import layout, number_steps
from annotators.helping import Help, compare_arms, help_reasons
from annotators.leaks import find_leak
from annotators.verification import (
    VerifySettings,
    location_distance,
    location_mass,
    text_reasons,
    verdict_agrees,
)
from mcts.answers import Check, is_cut_off, unscored
from mcts.estimates import p_greater
from pipelines.engines.base import EngineError, Request, Sample
from pipelines.meter import METER
from pipelines.settings import ActorSettings
from pipelines.stage import FAILED, REJECTED, CallModels, failure
from pipelines.worker import Worker, WorkerSpec
from schemas import (
    Critique,
    Empanelled,
    Estimate,
    Examined,
    Outcome,
    Path,
    PathPair,
    Problem,
    Record,
    Rejection,
    Stage,
    Template,
    Verified,
    digest,
)

STAGE: Stage = "VerifyCritiques"


class _Arm(Record):
    """Second solutions under one condition, in the order of their sample indices."""

    texts: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()

    @property
    def estimate(self) -> Estimate:
        return Estimate.of([check.outcome for check in self.checks])

    def first(self, outcome: Outcome) -> tuple[str, str]:
        """Text and answer of the first one with this outcome; empty where there was none."""
        pairs = zip(self.texts, self.checks, strict=True)
        return next(((text, check.answer or "") for text, check in pairs if check.outcome == outcome), ("", ""))


class _Measured(Record):
    """A critique's help, and what its tests came to."""

    help: Help
    arm: _Arm
    reasons: tuple[str, ...]


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
        """Text tests for all, second solutions for what passes them; then for what did not, if that makes a pair."""
        path, critiques, settings = case.path, case.candidates, self.settings
        failed = text_reasons(critiques, path, case.panel.judged, settings)
        fit = [critique for critique in critiques if not failed[critique.id]][: settings.max_measured]
        # No second solution is written by an actor that was told the answer.
        unfit = [item for item in critiques if failed[item.id] and "leaks_answer" not in failed[item.id]]
        try:
            if settings.measure_all:
                measured = await self._measure(worker, case, critiques)
            else:
                measured = await self._measure(worker, case, fit)
                if any(not item.reasons for item in measured.values()):
                    measured |= await self._measure(worker, case, _spread(unfit)[: settings.measure_rejected])
        except EngineError as error:
            return [failure(STAGE, critique.id, path.problem.id, error) for critique in critiques]
        verified = tuple(
            _verified(critique, path, failed[critique.id], measured.get(critique.id)) for critique in critiques
        )
        rejections = [_rejection(item) for item in verified if item.decision == "rejected"]
        METER.count(STAGE, "critiques kept", len(verified) - len(rejections))
        return [Examined(path=path, panel=case.panel, verified=verified), *rejections]

    async def _measure(self, worker: Worker, case: Empanelled, critiques: Iterable[Critique]) -> dict[str, _Measured]:
        """Refines with each critique, with the placebo and with nothing, until each is decided; controls are shared."""
        settings, path = self.settings.help, case.path
        left, measured = list(critiques), dict[str, _Measured]()
        arms: dict[str, _Arm] = {}
        for look, size in enumerate(settings.looks()):
            if not left:
                break
            texts = dict.fromkeys(["", case.panel.placebo, *(critique.text for critique in left)])
            grown = await asyncio.gather(
                *(self._refine(worker, path, text, arms.get(text, _Arm()), size) for text in texts)
            )
            arms |= dict(zip(texts, grown, strict=True))
            for critique in tuple(left):
                arm = arms[critique.text]
                compared = compare_arms(arm.estimate, arms[case.panel.placebo].estimate, arms[""].estimate, p_greater)
                reasons = help_reasons(compared, settings, has_error=path.has_error, look=look, p_greater=p_greater)
                if reasons is not None:
                    measured[critique.id] = _Measured(help=compared, arm=arm, reasons=reasons)
                    left.remove(critique)
        return measured

    async def _refine(self, worker: Worker, path: Path, critique: str, arm: _Arm, size: int) -> _Arm:
        """An arm with as many second solutions as `size`.

        The actor never sees the gold answer: only problem, first solution and critique.
        """
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
        checks = await asyncio.gather(*(_check(worker, sample, path.problem) for sample in samples))
        return _Arm(texts=(*arm.texts, *(sample.text for sample in samples)), checks=(*arm.checks, *checks))


async def _check(worker: Worker, sample: Sample, problem: Problem) -> Check:
    if sample.finish == "length" and is_cut_off(sample.text, problem.domain):
        return unscored("cut_off")
    return await worker.checkers.check(sample.text, problem)


def _spread(critiques: Sequence[Critique]) -> list[Critique]:
    """In an order that no agent and no reason has an advantage in."""
    return sorted(critiques, key=lambda critique: digest("spread", critique.id))


def _verified(critique: Critique, path: Path, failed: tuple[str, ...], measured: _Measured | None) -> Verified:
    unhelpful = measured.reasons if measured else () if failed else ("not_measured",)
    help_, arm = (measured.help, measured.arm) if measured else (None, _Arm())
    refinement, answer = arm.first("correct")
    reasons = (*failed, *unhelpful)
    return Verified(
        id=digest("verified", critique.id),
        critique=critique,
        has_error=path.has_error,
        first_error=path.first_error if isinstance(path, PathPair) else None,
        verdict_agrees=verdict_agrees(critique, path),
        location_distance=location_distance(critique, path),
        location_mass=location_mass(critique, path),
        leak=find_leak(critique, path),
        with_critique=help_.with_critique if help_ else None,
        with_placebo=help_.with_placebo if help_ else None,
        without_critique=help_.without_critique if help_ else None,
        p_placebo=help_.p_placebo if help_ else None,
        p_without=help_.p_without if help_ else None,
        refinement=refinement,
        refinement_answer=answer,
        wrong_refinement=arm.first("incorrect")[0],
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

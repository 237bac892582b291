"""Stage: keep a critique only if every test that is asked for holds, and rollouts show that it helps."""

import asyncio
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam

from annotators.helping import Help, compare_arms, controls, help_reasons, help_tests
from annotators.leaks import find_leak
from annotators.verification import (
    VerifySettings,
    location_distance,
    location_mass,
    text_reasons,
    verdict_agrees,
)
from mcts.estimates import p_greater
from pipelines.engines.base import EngineError
from pipelines.meter import METER
from pipelines.refining import STAGE, Arm, Refiner
from pipelines.settings import ActorSettings
from pipelines.stage import FAILED, REJECTED, CallModels, failure
from pipelines.worker import Worker, WorkerSpec
from schemas import Critique, Empanelled, Examined, Path, PathPair, Record, Rejection, Template, Verified, digest


class _Measured(Record):
    """A critique's help, and what its tests came to."""

    help: Help
    arm: Arm
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
        rejected = {critique_id: settings.decisive(names) for critique_id, names in failed.items()}
        fit = [critique for critique in critiques if not rejected[critique.id]][: settings.max_measured]
        # No actor is told the answer by a critique that was rejected; `tests` says whether one that tells it is.
        unfit = [item for item in critiques if rejected[item.id] and "leaks_answer" not in failed[item.id]]
        measured = dict[str, _Measured]()
        try:
            if settings.measure_all:
                may = [it for it in critiques if settings.measure_leaking or "leaks_answer" not in failed[it.id]]
                measured = await self._measure(worker, case, may)
            elif help_tests(settings.tests, has_error=path.has_error):
                measured = await self._measure(worker, case, fit)
                if any(not item.reasons for item in measured.values()):
                    measured |= await self._measure(worker, case, _spread(unfit)[: settings.measure_rejected])
        except EngineError as error:
            return [failure(STAGE, critique.id, path.problem.id, error) for critique in critiques]
        verified = tuple(
            _verified(critique, path, failed[critique.id], measured.get(critique.id), settings)
            for critique in critiques
        )
        rejections = [_rejection(item) for item in verified if item.decision == "rejected"]
        METER.count(STAGE, "critiques kept", len(verified) - len(rejections))
        return [Examined(path=path, panel=case.panel, verified=verified), *rejections]

    async def _measure(self, worker: Worker, case: Empanelled, critiques: Iterable[Critique]) -> dict[str, _Measured]:
        """Refines with each critique and with the controls, until each is decided; controls are shared."""
        settings, path = self.settings.help, case.path
        refiner = Refiner(self.actor, self.template, self.seed)
        tests = help_tests(self.settings.tests, has_error=path.has_error)
        texts_of = {"none": "", "placebo": case.panel.placebo}
        control_texts = {name: texts_of[name] for name in controls(self.settings.tests)}
        left, measured = list(critiques), dict[str, _Measured]()
        arms: dict[str, Arm] = {}
        for look, size in enumerate(settings.looks()):
            if not left:
                break
            texts = dict.fromkeys([*control_texts.values(), *(critique.text for critique in left)])
            grown = await asyncio.gather(*(refiner.refine(worker, path, text, size, arms.get(text)) for text in texts))
            arms |= dict(zip(texts, grown, strict=True))
            placebo, none = (
                arms[control_texts[name]].estimate if name in control_texts else None for name in ("placebo", "none")
            )
            for critique in tuple(left):
                arm = arms[critique.text]
                compared = compare_arms(arm.estimate, placebo, none, p_greater)
                reasons = help_reasons(
                    compared, settings, tests, has_error=path.has_error, look=look, p_greater=p_greater
                )
                if reasons is not None:
                    measured[critique.id] = _Measured(help=compared, arm=arm, reasons=reasons)
                    left.remove(critique)
        return measured


def _spread(critiques: Sequence[Critique]) -> list[Critique]:
    """In an order that no agent and no reason has an advantage in."""
    return sorted(critiques, key=lambda critique: digest("spread", critique.id))


def _verified(
    critique: Critique, path: Path, failed: tuple[str, ...], measured: _Measured | None, settings: VerifySettings
) -> Verified:
    rejecting = settings.decisive(failed)
    is_owed = not rejecting and help_tests(settings.tests, has_error=path.has_error)
    unhelpful = measured.reasons if measured else ("not_measured",) if is_owed else ()
    help_, arm = (measured.help, measured.arm) if measured else (None, Arm())
    refinement, answer = arm.first("correct")
    reasons = (*rejecting, *unhelpful)
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
        ignored=tuple(name for name in failed if name not in rejecting),
    )


def _rejection(item: Verified) -> Rejection:
    return Rejection(
        stage=STAGE,
        key=item.critique.id,
        problem_id=item.critique.problem_id,
        reason=item.reasons[0],
        detail=f"{item.critique.agent}: {', '.join(item.reasons)}",
    )

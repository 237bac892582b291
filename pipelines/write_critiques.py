"""Stage: every critic of the panel criticises every path."""

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import apache_beam as beam
import msgspec

from annotators.critic import (
    Agent,
    critique_prompt,
    is_asked,
    layout,
    number_steps,
    sections,
    shown_steps,
    write_critique,
)
from annotators.crucial import Crucial, admissible, crucial_prompt, writer_view
from annotators.fitting import misfit, next_tries
from annotators.units import CritiqueError, critique_schema
from mcts.answers import is_cut_off
from pipelines.engines.base import EngineError, Request, Sample, Sampling
from pipelines.settings import PanelSettings
from pipelines.stage import FAILED, REJECTED, CallModels, failure
from pipelines.worker import Worker, WorkerSpec
from schemas import Criticised, Critique, Failure, Path, Record, Rejection, Stage, Template, View

STAGE: Stage = "WriteCritiques"

Told = Crucial | CritiqueError | EngineError | None
"""What critics are told beforehand: nothing where nobody writes it or it may not be told; the error where it failed."""


class Correcting(Record):
    """How critics solve on from the first wrong step that they name: as the actor writes second solutions."""

    template: Template
    """Gap `{sections}`: problem, solution, critique."""
    sampling: Sampling


class Case(Record):
    """What one agent is asked about."""

    path: Path
    agent: Agent
    first: Critique | None
    """The critique that it is shown."""
    crucial: Crucial | None
    """What it is told beforehand."""


@dataclasses.dataclass
class WriteCritiques(beam.PTransform):
    """Makes of every path one `Criticised`; each agent's part in it is a critique, a `Rejection` or a `Failure`."""

    spec: WorkerSpec
    panel: PanelSettings
    templates: dict[str, Template]
    """By agent's name."""
    stop: tuple[str, ...]
    seed: int
    crucial: Template | None = None
    """Of who writes crucial information; None where nobody does."""
    correcting: Correcting | None = None
    """For agents that correct; None where none does."""

    def expand(self, paths: beam.PCollection[Path]) -> Any:
        """Three outputs: main (Criticised), `rejected`, `failed`."""
        stage = CallModels(STAGE, self.spec, self._criticise, lambda path: (path.id, path.problem.id))
        return paths | beam.ParDo(stage.giving(Criticised)).with_outputs(REJECTED, FAILED, main="kept")

    async def _criticise(self, worker: Worker, path: Path) -> Sequence[Record]:
        """First critiques side by side, then those of agents that look at one of them again, and so on."""
        asked = [agent for agent in self.panel.agents if is_asked(agent, path)]
        views = tuple(dict.fromkeys(writer_view(agent.view) for agent in asked)) if self.crucial else ()
        texts = await asyncio.gather(*(self._inform(worker, path, view) for view in views))
        told: dict[View, Told] = dict(zip(views, texts, strict=True))
        results: dict[str, Critique | Rejection | Failure] = {}
        waiting = asked
        while waiting:
            # Whom an agent looks at stands before it, so that the first one that waits never waits for another.
            unwritten = {agent.name for agent in waiting}
            ready = [agent for agent in waiting if agent.second_look_at not in unwritten]
            written = await asyncio.gather(
                *(self._ask(worker, path, agent, results, told.get(writer_view(agent.view))) for agent in ready)
            )
            results |= {agent.name: result for agent, result in zip(ready, written, strict=True)}
            waiting = [agent for agent in waiting if agent.second_look_at in unwritten]
        ordered = [results[agent.name] for agent in asked]
        critiques = tuple(result for result in ordered if isinstance(result, Critique))
        rest = [result for result in ordered if not isinstance(result, Critique)]
        return [Criticised(path=path, critiques=critiques), *rest]

    async def _inform(self, worker: Worker, path: Path, view: View) -> Told:
        """What critics that see so much are told: one text a path, whoever of them is asked."""
        assert self.crucial
        settings = self.panel.crucial
        sampling = Sampling(max_tokens=settings.max_tokens, temperature=settings.temperature, stop=self.stop)
        prompt = crucial_prompt(self.crucial, path, view)
        request = Request(prompt=prompt, sampling=sampling, seed=self.seed, images=path.problem.images)
        try:
            (sample,) = await worker.model_of(settings.engine).sample(STAGE, request)
            text = _text_of(sample, settings.max_tokens, "crucial information").strip()
        except CritiqueError as error:
            return CritiqueError("no_crucial_information", str(error))
        except EngineError as error:
            return error
        return admissible(Crucial(text=text, view=view), path) if text else None

    async def _ask(
        self,
        worker: Worker,
        path: Path,
        agent: Agent,
        written: dict[str, Critique | Rejection | Failure],
        told: Told,
    ) -> Critique | Rejection | Failure:
        first = written.get(agent.second_look_at)
        key = f"{path.id}/{agent.name}"
        if agent.second_look_at and not isinstance(first, Critique):
            return _rejection(key, path, "no_first_critique", f"{agent.second_look_at} wrote none")
        looked_at = first if isinstance(first, Critique) else None
        try:
            if isinstance(told, Exception):
                raise told
            case = Case(path=path, agent=agent, first=looked_at, crucial=told)
            critique = await (self._write_until(worker, case) if agent.tries > 1 else self._write(worker, case))
            if agent.correct and self.correcting and critique.first_wrong_step is not None:
                critique = await self._correct(worker, path, agent, critique)
            return critique
        except CritiqueError as error:
            return _rejection(key, path, error.reason, str(error))
        except EngineError as error:
            return failure(STAGE, key, path.problem.id, error)

    async def _write(self, worker: Worker, case: Case) -> Critique:
        """Asks, and asks once more with the reason where the first reply cannot be read."""
        complaint = ""
        try:
            return self._fitting(worker, case, await self._reply(worker, case, complaint), "parsed")
        except CritiqueError as error:
            if not self.panel.reask or error.reason == "no_try_fits":
                raise
            complaint = str(error)
        return self._fitting(worker, case, await self._reply(worker, case, complaint), "reasked")

    async def _write_until(self, worker: Worker, case: Case) -> Critique:
        """Asks until a try fits: the first one that does is taken, whatever was asked for beside it."""
        tried, errors = 0, list[CritiqueError]()
        while tried < case.agent.tries:
            number = next_tries(tried, case.agent.tries)
            for sample in await self._sample(worker, case, first_sample=tried, number=number):
                tried += 1
                try:
                    critique = self._fitting(worker, case, sample, "parsed")
                    return msgspec.structs.replace(critique, tries=tried)
                except CritiqueError as error:
                    if error.reason == "prompt_refused":
                        raise
                    errors.append(error)
        last = next((error for error in reversed(errors) if error.reason == "no_try_fits"), errors[-1])
        raise CritiqueError(last.reason, f"none of {tried} tries: {last}")

    async def _reply(self, worker: Worker, case: Case, complaint: str) -> Sample:
        (sample,) = await self._sample(worker, case, complaint=complaint)
        return sample

    async def _sample(
        self, worker: Worker, case: Case, *, complaint: str = "", first_sample: int = 0, number: int = 1
    ) -> Sequence[Sample]:
        path, agent = case.path, case.agent
        parts = sections(
            path,
            agent.view,
            first_critique=case.first,
            crucial=case.crucial,
            complaint=complaint,
            sees_message=agent.sees_message,
        )
        request = Request(
            prompt=critique_prompt(self.templates[agent.name], agent, parts),
            num_samples=number,
            first_sample=first_sample,
            sampling=self._sampling(agent),
            json_schema=critique_schema(path.steps, agent.form, shown_steps(path, agent.view)),
            seed=self.seed,
            pinned=agent.tries > 1,
            images=path.problem.images,
        )
        return await worker.model_of(agent.engine).sample(STAGE, request)

    def _fitting(self, worker: Worker, case: Case, sample: Sample, state: Literal["parsed", "reasked"]) -> Critique:
        """The critique in a reply.

        Raises:
          CritiqueError: it is none, or it does not say what it has to (`no_try_fits`).
        """
        path, agent = case.path, case.agent
        source = worker.provenance(self.templates[agent.name], self._sampling(agent), self.seed, engine=agent.engine)
        text = _text_of(sample, agent.max_tokens)
        critique = write_critique(text, path, agent, source, state, case.first)
        if trouble := misfit(critique, path, agent.until, case.first):
            raise CritiqueError("no_try_fits", trouble)
        return msgspec.structs.replace(critique, informed=case.crucial is not None, reasoning=sample.reasoning)

    async def _correct(self, worker: Worker, path: Path, agent: Agent, critique: Critique) -> Critique:
        """The critique with the solution that its author goes on to from the first wrong step, checked.

        The author sees problem, solution and its own critique: were it shown the gold answer again, to come out right
        would say nothing.
        """
        assert self.correcting
        parts = {"Problem": path.problem.question, "Solution": number_steps(path.steps), "Critique": critique.text}
        kept = "".join(path.steps[: critique.first_wrong_step])
        sampling = self.correcting.sampling
        request = Request(
            prompt=self.correcting.template.fill({"sections": layout(parts)}),
            prefix=kept,
            sampling=sampling,
            seed=self.seed,
            images=path.problem.images,
        )
        (sample,) = await worker.model_of(agent.engine).sample(STAGE, request)
        if sample.error:
            raise CritiqueError("prompt_refused", sample.error)
        text = kept + sample.text
        if sample.finish == "length" and is_cut_off(text, path.problem.domain):
            raise CritiqueError(
                "correction_unscored", f"the correction did not end within {sampling.max_tokens} tokens"
            )
        check = await worker.checkers.check(text, path.problem)
        if check.outcome == "unscored":
            raise CritiqueError("correction_unscored", f"nobody could decide about the correction: {check.reason}")
        return msgspec.structs.replace(critique, correction=text, correction_outcome=check.outcome)

    def _sampling(self, agent: Agent) -> Sampling:
        return Sampling(max_tokens=agent.max_tokens, temperature=agent.temperature, stop=self.stop)


def _text_of(sample: Sample, max_tokens: int, what: str = "critique") -> str:
    """A reply that came, and came to its end.

    Raises:
      CritiqueError: the prompt was refused, or the tokens ran out.
    """
    if sample.error:
        raise CritiqueError("prompt_refused", sample.error)
    if sample.finish == "length":
        raise CritiqueError("cut_off", f"the {what} did not end within {max_tokens} tokens")
    return sample.text


def _rejection(key: str, path: Path, reason: str, detail: str) -> Rejection:
    return Rejection(stage=STAGE, key=key, problem_id=path.problem.id, reason=reason, detail=detail)

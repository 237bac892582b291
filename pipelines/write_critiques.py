"""Stage: every critic of the panel criticises every path."""

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

import apache_beam as beam

from annotators.critic import Agent, critique_prompt, is_asked, sections, write_critique
from annotators.units import CritiqueError, critique_schema
from pipelines.engines.base import EngineError, Request, Sampling
from pipelines.settings import PanelSettings
from pipelines.stage import FAILED, REJECTED, CallModels, failure
from pipelines.worker import Worker, WorkerSpec
from schemas import Criticised, Critique, Failure, Path, Record, Rejection, Stage, Template

STAGE: Stage = "WriteCritiques"


@dataclasses.dataclass
class WriteCritiques(beam.PTransform):
    """Makes of every path one `Criticised`; each agent's part in it is a critique, a `Rejection` or a `Failure`."""

    spec: WorkerSpec
    panel: PanelSettings
    templates: dict[str, Template]
    """By agent's name."""
    stop: tuple[str, ...]
    seed: int

    def expand(self, paths: beam.PCollection[Path]) -> Any:
        """Three outputs: main (Criticised), `rejected`, `failed`."""
        stage = CallModels(STAGE, self.spec, self._criticise, lambda path: (path.id, path.problem.id))
        return paths | beam.ParDo(stage.giving(Criticised)).with_outputs(REJECTED, FAILED, main="kept")

    async def _criticise(self, worker: Worker, path: Path) -> Sequence[Record]:
        """First critiques side by side, then those of agents that look at one of them again, and so on."""
        asked = [agent for agent in self.panel.agents if is_asked(agent, path)]
        results: dict[str, Critique | Rejection | Failure] = {}
        waiting = asked
        while waiting:
            # Whom an agent looks at stands before it, so that the first one that waits never waits for another.
            unwritten = {agent.name for agent in waiting}
            ready = [agent for agent in waiting if agent.second_look_at not in unwritten]
            written = await asyncio.gather(*(self._ask(worker, path, agent, results) for agent in ready))
            results |= {agent.name: result for agent, result in zip(ready, written, strict=True)}
            waiting = [agent for agent in waiting if agent.second_look_at in unwritten]
        ordered = [results[agent.name] for agent in asked]
        critiques = tuple(result for result in ordered if isinstance(result, Critique))
        rest = [result for result in ordered if not isinstance(result, Critique)]
        return [Criticised(path=path, critiques=critiques), *rest]

    async def _ask(
        self, worker: Worker, path: Path, agent: Agent, written: dict[str, Critique | Rejection | Failure]
    ) -> Critique | Rejection | Failure:
        first = written.get(agent.second_look_at)
        key = f"{path.id}/{agent.name}"
        if agent.second_look_at and not isinstance(first, Critique):
            return _rejection(key, path, "no_first_critique", f"{agent.second_look_at} wrote none")
        looked_at = first if isinstance(first, Critique) else None
        try:
            return await self._write(worker, path, agent, looked_at)
        except CritiqueError as error:
            return _rejection(key, path, error.reason, str(error))
        except EngineError as error:
            return failure(STAGE, key, path.problem.id, error)

    async def _write(self, worker: Worker, path: Path, agent: Agent, first: Critique | None) -> Critique:
        """Asks, and asks once more with the reason where the first reply cannot be read."""
        source = worker.provenance(self.templates[agent.name], self._sampling(agent), self.seed, engine=agent.engine)
        complaint = ""
        try:
            text = await self._reply(worker, path, agent, first, complaint)
            return write_critique(text, path, agent, source, "parsed")
        except CritiqueError as error:
            if not self.panel.reask:
                raise
            complaint = str(error)
        text = await self._reply(worker, path, agent, first, complaint)
        return write_critique(text, path, agent, source, "reasked")

    async def _reply(self, worker: Worker, path: Path, agent: Agent, first: Critique | None, complaint: str) -> str:
        parts = sections(path, agent.view, first_critique=first, complaint=complaint)
        request = Request(
            prompt=critique_prompt(self.templates[agent.name], agent, parts),
            sampling=self._sampling(agent),
            json_schema=critique_schema(path.steps, agent.form),
            seed=self.seed,
            images=path.problem.images,
        )
        (sample,) = await worker.model_of(agent.engine).sample(STAGE, request)
        if sample.error:
            raise CritiqueError("prompt_refused", sample.error)
        if sample.finish == "length":
            raise CritiqueError("cut_off", f"the critique did not end within {agent.max_tokens} tokens")
        return sample.text

    def _sampling(self, agent: Agent) -> Sampling:
        return Sampling(max_tokens=agent.max_tokens, temperature=agent.temperature, stop=self.stop)


def _rejection(key: str, path: Path, reason: str, detail: str) -> Rejection:
    return Rejection(stage=STAGE, key=key, problem_id=path.problem.id, reason=reason, detail=detail)

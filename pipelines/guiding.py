"""The model beside the actor in a search with hybrid values: how it is asked, and how its replies are read."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from annotators.critic import layout, number_steps
from mcts.base import Rollout
from mcts.hybrid import HIGHEST, LOWEST, Argument, Valuation
from mcts.settings import HybridSettings
from mcts.sources import PathSource, Searched
from pipelines.engines.base import Request, Sample, Sampling
from pipelines.engines.journaled import JournaledEngine
from pipelines.templates import load_template
from schemas import Problem, Record, Stage, Template, readable

R = TypeVar("R", bound=Record)

_MOST_CHARS = 1000
"""Of a reason or an argument that is kept, and told to others."""


class Roll(Protocol):
    """Has the actor go on from a prefix, whatever its prompt."""

    async def __call__(self, prompt: str, prefix: str, *, num_samples: int, first_sample: int) -> Sequence[Rollout]:
        """As `mcts.base.Policy`."""
        ...


class _Worth(Record):
    reason: str
    value: int


class _Speech(Record):
    argument: str
    choice: int


def guide_templates(hybrid: HybridSettings, paths: PathSource) -> dict[str, Template]:
    """The prompts that a search with hybrid values needs; none for other searches and sources.

    Raises:
      UserError: a template is missing or has gaps that nothing fills; names the setting.
    """
    if not isinstance(paths, Searched):
        return {}
    wanted = {"value": hybrid.asks_values, "advised": hybrid.sibling_feedback, "debate": hybrid.debaters > 0}
    gaps = {"debate": frozenset({"debater", "sections"})}
    return {
        name: load_template(
            getattr(hybrid, f"{name}_template"),
            key=f"search.hybrid.{name}_template",
            gaps=gaps.get(name, frozenset({"sections"})),
        )
        for name, is_wanted in wanted.items()
        if is_wanted
    }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelGuide:
    """A `mcts.hybrid.Guide` that asks a model; never shown the gold answer or what the checker says."""

    stage: Stage
    model: JournaledEngine
    settings: HybridSettings
    templates: Mapping[str, Template]
    problem: Problem
    seed: int
    roll: Roll

    async def advised(self, prefix: str, advice: str, *, num_samples: int, first_sample: int) -> Sequence[Rollout]:
        """Rollouts whose prompt says what was said of siblings."""
        prompt = self._fill("advised", {"Feedback on siblings": advice})
        return await self.roll(prompt, prefix, num_samples=num_samples, first_sample=first_sample)

    async def value(self, steps: Sequence[str]) -> Valuation:
        """What a half-written solution is worth."""
        prompt = self._fill("value", {"Solution": number_steps(tuple(steps))})
        schema = _schema(reason={"type": "string"}, value={"type": "integer", "minimum": LOWEST, "maximum": HIGHEST})
        sample = await self._ask(prompt, schema)
        said = _read(sample, _Worth)
        if said is None or not LOWEST <= said.value <= HIGHEST:
            return Valuation(value=None, reason="", tokens=sample.tokens)
        return Valuation(value=said.value, reason=readable(said.reason)[:_MOST_CHARS], tokens=sample.tokens)

    async def argue(self, candidates: Sequence[str], said: Sequence[str], debater: int) -> Argument:
        """Which solution a debater takes, and why."""
        shown = {"Candidates": "\n\n".join(f"[{i}]\n{text.strip()}" for i, text in enumerate(candidates, 1))}
        if said:
            speakers = self.settings.debaters
            shown["What was said"] = "\n".join(f"Debater {i % speakers + 1}: {text}" for i, text in enumerate(said))
        prompt = self._fill("debate", shown, debater=f"{debater + 1}")
        choice = {"type": "integer", "minimum": 1, "maximum": len(candidates)}
        sample = await self._ask(prompt, _schema(argument={"type": "string"}, choice=choice))
        speech = _read(sample, _Speech)
        if speech is None or not 1 <= speech.choice <= len(candidates):
            return Argument(choice=None, text="", tokens=sample.tokens)
        text = " ".join(readable(speech.argument)[:_MOST_CHARS].split())
        return Argument(choice=speech.choice - 1, text=f"[{speech.choice}] {text}", tokens=sample.tokens)

    def _fill(self, name: str, shown: Mapping[str, str], **values: str) -> str:
        sections = layout({"Problem": self.problem.question, **shown})
        return self.templates[name].fill({"sections": sections, **values})

    async def _ask(self, prompt: str, schema: str) -> Sample:
        sampling = Sampling(max_tokens=self.settings.max_tokens, temperature=self.settings.temperature)
        request = Request(
            prompt=prompt, sampling=sampling, json_schema=schema, seed=self.seed, images=self.problem.images
        )
        (sample,) = await self.model.sample(self.stage, request)
        return sample


def _schema(**properties: Any) -> str:
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return json.dumps(schema, separators=(",", ":"))


def _read(sample: Sample, kind: type[R]) -> R | None:
    """The JSON object in a reply; None where it holds none of this kind."""
    start, end = sample.text.find("{"), sample.text.rfind("}") + 1
    try:
        return msgspec.json.decode(sample.text[start:end].encode("utf-8", "replace"), type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None

"""Stage: make one critique of many, knowing how far each critic is to be believed."""

import asyncio
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import msgspec

from annotators.composing import (
    Composition,
    compose_critique,
    compose_prompt,
    settled_doubts,
    surviving_units,
    trim_composition,
    write_by_template,
)
from annotators.consensus import Consensus, reach_consensus
from annotators.controls import choose_candidates, choose_placebos, shard_quota, undoubted_surplus
from annotators.judging import drop_uncorrected, judge_prompt, judge_unit, units_by_agent, votes_needed
from annotators.units import JUDGEMENT_SCHEMA, CritiqueError, Judgement, parse_judgement, render_unit
from pipelines.engines.base import Request, Sampling
from pipelines.settings import PanelSettings
from pipelines.shards import shard_of
from pipelines.stage import FAILED, REJECTED, CallModels
from pipelines.worker import Worker, WorkerSpec
from schemas import (
    Criticised,
    Critique,
    Empanelled,
    JudgedUnit,
    Panel,
    Path,
    Record,
    Rejection,
    Stage,
    Template,
    Unit,
    digest,
)

STAGE: Stage = "AggregateCritiques"


class Weighed(Record):
    """A criticised path with what the other paths of its shard tell about its critics."""

    criticised: Criticised
    consensus: Consensus | None
    """None where no critique could be read."""
    placebo: str
    is_surplus: bool = False
    """Whether it is a right path that nobody doubted, beyond `panel.max_undoubted`."""


@dataclasses.dataclass
class AggregateCritiques(beam.PTransform):
    """Sends every `Criticised` to `kept` (as an `Empanelled`), `rejected` or `failed`.

    Critics' reliability is estimated over all paths of a shard, so this stage waits for the whole shard once.
    """

    spec: WorkerSpec
    panel: PanelSettings
    meta: Template | None
    """The meta-critic's; None leaves every unit unjudged."""
    compose: Template | None
    """The composing model's; None leaves composition to the deterministic template."""
    stop: tuple[str, ...]
    seed: int
    num_shards: int

    def expand(self, criticised: beam.PCollection[Criticised]) -> Any:
        """Three outputs: main (Empanelled), `rejected`, `failed`."""
        stage = CallModels(STAGE, self.spec, self._aggregate, _identify)
        return (
            criticised
            | "KeyByShard" >> beam.Map(self._key).with_output_types(tuple[int, Criticised])
            | "GatherShard" >> beam.GroupByKey()
            | "WeighCritics" >> beam.FlatMap(self._weigh).with_output_types(Weighed)
            # A shard is weighed by one worker; what follows is work for all of them.
            | "Spread" >> beam.Reshuffle()
            | beam.ParDo(stage.giving(Empanelled)).with_outputs(REJECTED, FAILED, main="kept")
        )

    def _key(self, criticised: Criticised) -> tuple[int, Criticised]:
        return shard_of(criticised.path.problem.id, self.num_shards), criticised

    def _weigh(self, shard: tuple[int, Iterable[Criticised]]) -> Iterator[Weighed]:
        index, criticised = shard[0], tuple(shard[1])
        surplus: frozenset[str] = frozenset()
        if self.panel.max_undoubted is not None:
            heard = [item for item in criticised if len(item.critiques) >= self.panel.quorum]
            surplus = undoubted_surplus(heard, shard_quota(self.panel.max_undoubted, index, self.num_shards))
        for weighed in weigh_critics((index, criticised)):
            is_surplus = weighed.criticised.path.id in surplus
            yield msgspec.structs.replace(weighed, is_surplus=True) if is_surplus else weighed

    async def _aggregate(self, worker: Worker, weighed: Weighed) -> Sequence[Record]:
        path, critiques, consensus = weighed.criticised.path, weighed.criticised.critiques, weighed.consensus
        if consensus is None or len(critiques) < self.panel.quorum:
            return [_rejection(path, "no_quorum", f"{len(critiques)} readable critiques, need {self.panel.quorum}")]
        if weighed.is_surplus:
            return [_rejection(path, "undoubted", f"more than {self.panel.max_undoubted} in the whole run")]
        judged = drop_uncorrected(await self._judge_all(worker, path, units_by_agent(critiques)), critiques)
        composed = await self._compose(worker, path, critiques, judged, consensus)
        panel = Panel(
            id=digest("panel", path.id),
            path_id=path.id,
            problem_id=path.problem.id,
            judged=tuple(judged),
            votes=consensus.votes,
            consensus=consensus.verdict,
            consensus_step=consensus.first_wrong_step,
            confidence=consensus.confidence,
            composed=composed,
            candidates=choose_candidates(critiques, composed, self.panel.candidates, self.panel.shown),
            placebo=weighed.placebo,
        )
        return [Empanelled(path=path, critiques=critiques, panel=panel)]

    async def _judge_all(self, worker: Worker, path: Path, units: Sequence[tuple[str, Unit]]) -> Sequence[JudgedUnit]:
        """Every unit judged; what several agents say in the same words is judged once."""
        distinct = {render_unit(unit): (agent, unit) for agent, unit in reversed(units)}
        votes = await asyncio.gather(*(self._vote(worker, path, *said, units) for said in distinct.values()))
        judgements = dict(zip(distinct, votes, strict=True))
        return [judge_unit(agent, unit, judgements[render_unit(unit)]) for agent, unit in units]

    async def _vote(
        self, worker: Worker, path: Path, agent: str, unit: Unit, units: Sequence[tuple[str, Unit]]
    ) -> list[Judgement | None]:
        """The meta-critic's votes on one unit, as many as it takes."""
        votes: list[Judgement | None] = []
        settings = self.panel.judging
        while self.meta and (needed := votes_needed(votes, settings)):
            request = Request(
                prompt=judge_prompt(self.meta, path, agent, unit, units),
                num_samples=needed,
                first_sample=len(votes),
                sampling=Sampling(max_tokens=settings.max_tokens, temperature=settings.temperature, stop=self.stop),
                json_schema=JUDGEMENT_SCHEMA,
                seed=self.seed,
                images=path.problem.images,
            )
            votes += [
                _read(sample.text) for sample in await worker.model_of(self.panel.meta_engine).sample(STAGE, request)
            ]
        return votes

    async def _compose(
        self,
        worker: Worker,
        path: Path,
        critiques: Sequence[Critique],
        judged: Sequence[JudgedUnit],
        consensus: Consensus,
    ) -> Critique | None:
        """One critique of what survives: the model's words where they add nothing, else the template's."""
        units = surviving_units(judged, consensus, self.panel.style, path)
        if not units:
            return None
        step, style = consensus.first_wrong_step, self.panel.style
        doubts = settled_doubts(judged, units, path) if style == "merged" else {}
        composition = Composition(
            text=write_by_template(units, step, style, doubts),
            written_by="template",
            provenance=critiques[0].provenance,
        )
        if self.compose:
            sampling = Sampling(max_tokens=self.panel.compose_max_tokens, temperature=0.0, stop=self.stop)
            prompt = compose_prompt(self.compose, path, units, consensus, style, doubts)
            request = Request(prompt=prompt, sampling=sampling, seed=self.seed, images=path.problem.images)
            (sample,) = await worker.model_of(self.panel.compose_engine).sample(STAGE, request)
            # One that was cut off ends in the middle of what it says: the template has the last word then, too.
            is_whole = sample.finish != "length"
            text = trim_composition(sample.text, path, units, step, style, doubts) if is_whole else None
            if text:
                source = worker.provenance(self.compose, sampling, self.seed, engine=self.panel.compose_engine)
                composition = Composition(text=text, written_by="composed", provenance=source)
        views = {critique.agent: critique.view for critique in critiques}
        return msgspec.structs.replace(
            compose_critique(path, units, consensus, composition, views),
            informed=any(critique.informed for critique in critiques),
            saw_message=any(critique.saw_message for critique in critiques),
            corrects=style == "merged" and any(critique.corrects for critique in critiques),
        )


def _rejection(path: Path, reason: str, detail: str) -> Rejection:
    return Rejection(stage=STAGE, key=path.id, problem_id=path.problem.id, reason=reason, detail=detail)


def _identify(weighed: Weighed) -> tuple[str, str]:
    return weighed.criticised.path.id, weighed.criticised.path.problem.id


def _read(text: str) -> Judgement | None:
    try:
        return parse_judgement(text)
    except CritiqueError:
        return None


def weigh_critics(shard: tuple[int, Iterable[Criticised]]) -> Iterator[Weighed]:
    """Consensus and placebo of each path, from all paths of its shard; in the order of path ids."""
    criticised = sorted(shard[1], key=lambda item: item.path.id)
    consensus = reach_consensus(criticised)
    placebos = choose_placebos(criticised)
    for item in criticised:
        yield Weighed(criticised=item, consensus=consensus.get(item.path.id), placebo=placebos[item.path.id])

"""Stage: make one critique of many, knowing how far each critic is to be believed."""

import asyncio
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam

from annotators.aggregate import (
    Consensus,
    choose_candidates,
    choose_placebos,
    compose_critique,
    judge_unit,
    reach_consensus,
    surviving_units,
)
from annotators.critic import layout, number_steps
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

FALLBACK_PLACEBO = (
    "Step 1 is wrong. The work has to be looked at again.\nThe first wrong step is step 1. The solution is incorrect."
)
"""Stands in where no other problem was criticised at all."""


class Weighed(Record):
    """A criticised path with what the other paths of its shard tell about its critics."""

    criticised: Criticised
    consensus: Consensus | None
    """None where no critique could be read."""
    placebo: str


@dataclasses.dataclass
class AggregateCritiques(beam.PTransform):
    """Sends every `Criticised` to `kept` (as an `Empanelled`), `rejected` or `failed`.

    Critics' reliability is estimated over all paths of a shard, so this stage waits for the whole shard once.
    """

    spec: WorkerSpec
    panel: PanelSettings
    template: Template | None
    """The meta-critic's; None leaves every unit unjudged."""
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
            | "WeighCritics" >> beam.FlatMap(weigh_critics).with_output_types(Weighed)
            | beam.ParDo(stage.giving(Empanelled)).with_outputs(REJECTED, FAILED, main="kept")
        )

    def _key(self, criticised: Criticised) -> tuple[int, Criticised]:
        return shard_of(criticised.path.problem.id, self.num_shards), criticised

    async def _aggregate(self, worker: Worker, weighed: Weighed) -> Sequence[Record]:
        path, critiques, consensus = weighed.criticised.path, weighed.criticised.critiques, weighed.consensus
        if consensus is None or len(critiques) < self.panel.quorum:
            detail = f"{len(critiques)} readable critiques, need {self.panel.quorum}"
            return [Rejection(stage=STAGE, key=path.id, problem_id=path.problem.id, reason="no_quorum", detail=detail)]
        units = [(critique.agent, unit) for critique in critiques for unit in critique.units]
        judged = await asyncio.gather(*(self._judge(worker, path, agent, unit, units) for agent, unit in units))
        composed = self._compose(path, critiques, judged, consensus)
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
            candidates=choose_candidates(critiques, composed, self.panel.candidates),
            placebo=weighed.placebo,
        )
        return [Empanelled(path=path, critiques=critiques, panel=panel)]

    def _compose(
        self, path: Path, critiques: Sequence[Critique], judged: Sequence[JudgedUnit], consensus: Consensus
    ) -> Critique | None:
        units = surviving_units(judged, consensus, self.panel.style)
        if consensus.verdict == "tie" or not units:
            return None
        views = {critique.agent: critique.view for critique in critiques}
        return compose_critique(path, units, consensus, critiques[0].provenance, views)

    async def _judge(
        self, worker: Worker, path: Path, agent: str, unit: Unit, units: Sequence[tuple[str, Unit]]
    ) -> JudgedUnit:
        """One unit alone, the other agents' units beside it."""
        if self.template is None:
            return judge_unit(agent, unit, None)
        others = [render_unit(other) for author, other in units if author != agent]
        parts = {
            "Problem": path.problem.question,
            "Solution": number_steps(path.steps),
            "Other remarks": "\n".join(dict.fromkeys(others)) or "none",
            "Remark": render_unit(unit),
        }
        request = Request(
            prompt=self.template.fill({"sections": layout(parts)}),
            sampling=Sampling(max_tokens=200, temperature=0.0, stop=self.stop),
            json_schema=JUDGEMENT_SCHEMA,
            seed=self.seed,
        )
        (sample,) = await worker.model.sample(STAGE, request)
        return judge_unit(agent, unit, _read(sample.text))


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
    placebos = choose_placebos(criticised, FALLBACK_PLACEBO)
    for item in criticised:
        yield Weighed(criticised=item, consensus=consensus.get(item.path.id), placebo=placebos[item.path.id])

"""What the report says of a whole run: counts and distributions, read shard by shard. Nothing here draws."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pipelines.budget import BudgetSettings
from pipelines.engines.base import Usage
from pipelines.settings import Settings
from pipelines.shards import read_file, table_files
from schemas import Record

VALUE_BINS = 10
"""Of node values, equally wide over 0..1."""
LENGTH_STEP = 100
"""Characters in a bin of critique lengths."""
_LENGTH_BINS = 20


class AgentFacts(Record):
    """One critic over all paths that it voted on."""

    name: str
    votes: int
    reliability: float
    """Mean of the panel's estimates over paths, 0..1."""
    verdict_right: int
    """Votes whose verdict is the rollouts' label."""
    wrong_paths: int
    """Votes on wrong paths."""
    step_right: int
    """Of those, the ones that name the located step."""


class Agreement(Record):
    """Two critics on the paths that both voted on."""

    first: str
    second: str
    both: int
    equal: int
    """Paths on which their verdicts are equal."""


class StagePaid(Record):
    """What one stage paid."""

    stage: str
    usage: Usage
    cost: float | None
    """In the currency of the prices; None where none is set, or where engines of unequal prices share the stage."""


class Facts(Record):
    """Everything that the charts of a report show."""

    values: tuple[int, ...]
    """Nodes by the rate of their direct rollouts, in `VALUE_BINS` bins; unsampled nodes are left out."""
    unsampled: int
    """Nodes without a scored direct rollout."""
    located: dict[int, int]
    """Wrong paths by the step that rollouts locate, from 1."""
    named: dict[int, int]
    """Kept critiques of wrong paths by the step that they name, from 1."""
    lengths_kept: tuple[int, ...]
    """Kept critiques by length, in bins of `LENGTH_STEP` characters; the last bin is open."""
    lengths_rejected: tuple[int, ...]
    labels: dict[str, int]
    """Critiques by the path's label and the decision: `right kept`, `right rejected`, and the same of `wrong`."""
    wrong_paths: int
    right_paths: int
    agents: tuple[AgentFacts, ...]
    agreements: tuple[Agreement, ...]
    paid: tuple[StagePaid, ...]

    @property
    def kept(self) -> int:
        """Critiques that passed verification; `sft` may have fewer rows, or more where it has rejected ones too."""
        return sum(self.lengths_kept)

    @property
    def tokens(self) -> int:
        """Of prompts and completions, over all stages."""
        return sum(item.usage.prompt_tokens + item.usage.completion_tokens for item in self.paid)

    @property
    def cost(self) -> float | None:
        """Over all stages; None where that of one is unknown."""
        costs = [item.cost for item in self.paid if item.cost is not None]
        return sum(costs) if costs and len(costs) == len(self.paid) else None


class _Votes:
    """Counts of votes, path by path."""

    def __init__(self) -> None:
        self.agents: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.reliability: defaultdict[str, float] = defaultdict(float)
        self.both: Counter[tuple[str, str]] = Counter()
        self.equal: Counter[tuple[str, str]] = Counter()

    def add(self, votes: Iterable[dict[str, Any]], first_error: int | None) -> None:
        """Votes on one path; `first_error` is None where it is right."""
        ordered = sorted(votes, key=lambda vote: str(vote["agent"]))
        for i, vote in enumerate(ordered):
            counts = self.agents[vote["agent"]]
            self.reliability[vote["agent"]] += vote["reliability"]
            counts["votes"] += 1
            counts["verdict_right"] += (vote["verdict"] == "correct") == (first_error is None)
            counts["wrong_paths"] += first_error is not None
            counts["step_right"] += first_error is not None and vote["first_wrong_step"] == first_error
            for other in ordered[i + 1 :]:
                names = (vote["agent"], other["agent"])
                self.both[names] += 1
                self.equal[names] += vote["verdict"] == other["verdict"]

    def facts(self) -> tuple[AgentFacts, ...]:
        """One entry an agent, by name."""
        names = ("votes", "verdict_right", "wrong_paths", "step_right")
        return tuple(
            AgentFacts(
                name=agent, reliability=self.reliability[agent] / counts["votes"], **{n: counts[n] for n in names}
            )
            for agent, counts in sorted(self.agents.items())
        )

    def agreements(self) -> tuple[Agreement, ...]:
        """One entry for two agents that voted on a path both."""
        return tuple(
            Agreement(first=names[0], second=names[1], both=both, equal=self.equal[names])
            for names, both in sorted(self.both.items())
        )


class Shard:
    """One shard of a run: in every table the file of one name, which holds rows of the same problems."""

    def __init__(self, out: Path, name: str) -> None:
        self._out = out
        self._name = name

    def read(self, config: str, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Rows of a table; none where it has no such file."""
        path = self._out / config / self._name
        if path.is_file():
            yield from read_file(path, columns)


def shards_of(out: Path, *configs: str) -> list[Shard]:
    """Shards that any of the tables has, by name."""
    return [Shard(out, name) for name in sorted({file.name for config in configs for file in table_files(out, config)})]


class _Counts:
    """What is counted shard by shard; rows of one shard's paths are in memory at a time."""

    def __init__(self) -> None:
        self.values = [0] * VALUE_BINS
        self.lengths = {"kept": [0] * _LENGTH_BINS, "rejected": [0] * _LENGTH_BINS}
        self.labels: Counter[str] = Counter()
        self.located: Counter[int] = Counter()
        self.named: Counter[int] = Counter()
        self.unsampled = self.wrong = self.right = 0
        self.votes = _Votes()

    def add(self, shard: Shard) -> None:
        """Everything of one shard."""
        for row in shard.read("trees"):
            self.unsampled += _add_values(self.values, row["nodes"])
        errors: dict[str, int | None] = {row["id"]: row["first_error"] for row in shard.read("pairs")}
        self.located.update(step + 1 for step in errors.values() if step is not None)
        self.wrong += len(errors)
        alone = {row["id"]: None for row in shard.read("alone", ["id"])}
        self.right += len(alone)
        errors |= alone
        for row in shard.read("panels"):
            if row["path_id"] in errors:
                self.votes.add(row["votes"], errors[row["path_id"]])
        for row in shard.read("verified"):
            self._add_verified(row)

    def _add_verified(self, row: dict[str, Any]) -> None:
        critique, decision = row["critique"], row["decision"]
        self.labels[f"{'wrong' if row['has_error'] else 'right'} {decision}"] += 1
        self.lengths[decision][min(len(critique["text"]) // LENGTH_STEP, _LENGTH_BINS - 1)] += 1
        if decision == "kept" and row["has_error"] and critique["first_wrong_step"] is not None:
            self.named[critique["first_wrong_step"] + 1] += 1


def gather(out: Path, settings: Settings) -> Facts:
    """The facts of a run's folder."""
    counts = _Counts()
    for shard in shards_of(out, "trees", "pairs", "alone", "panels", "verified"):
        counts.add(shard)
    return Facts(
        values=tuple(counts.values),
        unsampled=counts.unsampled,
        located=dict(sorted(counts.located.items())),
        named=dict(sorted(counts.named.items())),
        lengths_kept=tuple(counts.lengths["kept"]),
        lengths_rejected=tuple(counts.lengths["rejected"]),
        labels=dict(counts.labels),
        wrong_paths=counts.wrong,
        right_paths=counts.right,
        agents=counts.votes.facts(),
        agreements=counts.votes.agreements(),
        paid=paid_of(read_ledger(out), settings),
    )


def _add_values(values: list[int], nodes: Iterable[dict[str, Any]]) -> int:
    """Counts nodes into bins; how many have no value."""
    unsampled = 0
    for node in nodes:
        direct = node["direct"]
        if direct["scored"]:
            values[min(VALUE_BINS * direct["correct"] // direct["scored"], VALUE_BINS - 1)] += 1
        else:
            unsampled += 1
    return unsampled


class _Stage(msgspec.Struct):
    """The name of a stage in `run.json`."""

    stage: str


class _Paid(msgspec.Struct):
    """The part of `run.json` that is read here."""

    stages: list[_Stage] = []
    paid: dict[str, Usage] = {}


def read_ledger(out: Path) -> dict[str, Usage]:
    """What each stage paid, from `run.json`, in the order of the funnel; nothing where there is none."""
    path = out / "run.json"
    if not path.is_file():
        return {}
    manifest = msgspec.json.decode(path.read_bytes(), type=_Paid)
    order = [item.stage for item in manifest.stages]
    known = [stage for stage in order if stage in manifest.paid]
    return {stage: manifest.paid[stage] for stage in (*known, *sorted(manifest.paid.keys() - set(order)))}


def paid_of(ledger: dict[str, Usage], settings: Settings) -> tuple[StagePaid, ...]:
    """What each stage paid, and what it costs by the prices of the engines that work in it."""
    engines = engines_of(settings)
    return tuple(
        StagePaid(stage=stage, usage=usage, cost=_cost(settings.budget, engines.get(stage, {""}), usage))
        for stage, usage in ledger.items()
    )


def engines_of(settings: Settings) -> dict[str, set[str]]:
    """Names of the engines that work in each stage; the actor's is the empty one."""
    panel = settings.panel
    critics = {agent.engine for agent in panel.agents} or {""}
    critics |= {panel.crucial.engine} if panel.crucial.template else set()
    judges = {panel.meta_engine} if panel.meta_template else set()
    composers = {panel.compose_engine} if panel.compose_template else set()
    return {"WriteCritiques": critics, "AggregateCritiques": judges | composers or {""}}


def _cost(budget: BudgetSettings, engines: set[str], usage: Usage) -> float | None:
    known = {price.engine for price in budget.prices}
    rates = {(budget.price(name).prompt, budget.price(name).completion) for name in engines}
    if not engines <= known or len(rates) > 1:
        return None
    return budget.price(min(engines)).of(usage.prompt_tokens, usage.completion_tokens)

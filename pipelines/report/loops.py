"""What the report says of rounds of feedback, and of solutions that change sides under a critic. Nothing here draws."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import msgspec

from annotators.critic import Agent
from annotators.dialogue_figures import CombinationFigures, RoundFigures, figures_by_combination, figures_by_round
from annotators.flips import (
    Flips,
    Intent,
    Knowledge,
    Robustness,
    count_flips,
    count_robustness,
    intent_of,
    knowledge_of,
)
from mcts.estimates import interval
from pipelines.report.facts import Shard, shards_of
from pipelines.settings import Settings
from pipelines.shards import read_rows
from schemas import Critique, Dialogue, Estimate, Panel, Problem, Record, Verified
from schemas.arrow import from_row

LEVEL = 0.9
"""Of the intervals, as of those of a tree's nodes."""


class CriticFlips(Record):
    """What became of solutions under one critic's critiques."""

    name: str
    intent: Intent | None
    """None for the panel, whose critiques are composed of several."""
    knowledge: Knowledge | None
    flips: Flips


class LoopFacts(Record):
    """Rounds of feedback and flips of a run; empty where it has none."""

    rounds: tuple[RoundFigures, ...] = ()
    combinations: tuple[CombinationFigures, ...] = ()
    critics: tuple[CriticFlips, ...] = ()
    """Those whose critiques were compared with none."""
    robustness: Robustness | None = None
    """None where nothing was measured with and without a critique."""


def gather_loops(out: Path, settings: Settings) -> LoopFacts:
    """The facts of a run's folder. Of critiques and panels one shard is in memory at a time, of dialogues all are."""
    flips: defaultdict[str, Flips] = defaultdict(Flips)
    robustness = Robustness(on_right=Estimate(), on_wrong=Estimate())
    for shard in shards_of(out, "verified", "panels"):
        critiques = (from_row(row, Critique) for row in shard.read("critiques"))
        verified = (from_row(row, Verified) for row in shard.read("verified"))
        for name, found in count_flips(verified, critiques).items():
            known = flips[name]
            flips[name] = Flips(on_right=known.on_right + found.on_right, on_wrong=known.on_wrong + found.on_wrong)
        part = _robustness(shard)
        robustness = Robustness(
            on_right=robustness.on_right + part.on_right, on_wrong=robustness.on_wrong + part.on_wrong
        )
    agents = {agent.name: agent for agent in settings.panel.agents}
    dialogues = list(_dialogues(out))
    return LoopFacts(
        rounds=figures_by_round(dialogues),
        combinations=figures_by_combination(dialogues),
        critics=tuple(_critic(name, agents.get(name), flips[name]) for name in sorted(flips)),
        robustness=robustness if flips else None,
    )


def _dialogues(out: Path) -> Iterator[Dialogue]:
    """Dialogues without what is no part of a figure and may be large: all of them are in memory at once."""
    nothing = msgspec.to_builtins(Problem(id="", source="", domain="", question="", answer=""))
    for row in read_rows(out, "dialogues"):
        yield from_row(row | {"problem": nothing}, Dialogue)


def _critic(name: str, agent: Agent | None, flips: Flips) -> CriticFlips:
    if agent is None:
        return CriticFlips(name=name, intent=None, knowledge=None, flips=flips)
    knowledge = knowledge_of(agent.role, agent.view)
    return CriticFlips(name=name, intent=intent_of(agent.role), knowledge=knowledge, flips=flips)


def _robustness(shard: Shard) -> Robustness:
    has_error = {row["id"]: table == "pairs" for table in ("pairs", "alone") for row in shard.read(table, ["id"])}
    panels = (from_row(row, Panel) for row in shard.read("panels") if row["path_id"] in has_error)
    return count_robustness(panels, has_error)


def share(estimate: Estimate) -> str:
    """A rate with its interval and what it is taken from, for people."""
    unscored = f", {estimate.unscored} unscored" if estimate.unscored else ""
    if estimate.rate is None:
        return f"none scored{unscored}"
    low, high = interval(estimate, LEVEL)
    return f"{estimate.rate:.2f} ({low:.2f} to {high:.2f}) of {estimate.scored}{unscored}"


def gain(value: float | None) -> str:
    """A difference of two rates with its sign, for people."""
    return "none" if value is None else f"{value:+.2f}"

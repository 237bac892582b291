"""Which critiques of a path are preferred to which: scores by published formulas, and pairs by a margin between them.

Each score is a pure function of what was examined, and None where it cannot be told. `docs/keeping.md` says which
recipe takes which.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import networkx as nx

from annotators.likeness import group_alike, said_alike
from schemas import Critique, Estimate, Examined, JudgedUnit, Path, PathPair, Record, Unit, Verified

Score = Literal["verified", "utility", "jaccard", "severity"]

_ROUNDING = 1e-9
"""0.7 - 0.5 is less than 0.2 in floating point."""


class PreferSettings(Record):
    """Which critiques of a path become pairs of `critique_dpo`.

    Each pair needs `export.min_margin` between its scores and keeps to `export.max_length_ratio`. A chosen critique is
    always a kept one. One that gives the answer away is on neither side, whether it was kept or not.
    """

    by: Score = "verified"
    """What is compared. `verified`: the first kept critique with one that failed, by their rates of right second
    solutions. All others compare any two critiques, the wider margin first. `utility`: how much better second solutions
    with it are than the first one (RCO). `jaccard`: how far the errors it names are those that are known (Critic-V).
    `severity`: what the meta-critic's votes leave of its remarks, by their severity (MultiCritique)."""
    rejected_agents: tuple[str, ...] = ()
    """Critics who are there to be rejected, such as deceivers: only their critiques are, and none is chosen. Empty
    makes no difference between critics."""
    needs_help: bool = False
    """Whether second solutions must besides come out right more often with the chosen critique than with the rejected
    one, both being measured."""
    max_pairs: int | None = 1
    """Pairs of a path at most; null takes all."""

    def __post_init__(self) -> None:
        if self.max_pairs is not None and self.max_pairs < 1:
            raise ValueError(f"max_pairs must be at least 1 (null takes all), got {self.max_pairs}")


class Preference(Record):
    """Two critiques of one path."""

    chosen: Verified
    rejected: Verified
    margin: float
    """Difference of their scores."""


def choose_pairs(
    examined: Examined, settings: PreferSettings, *, min_margin: float, max_length_ratio: float
) -> tuple[Preference, ...]:
    """The pairs of a path.

    Args:
      examined: the path with its critiques in the panel's order.
      settings: what is compared.
      min_margin: least difference of the scores within a pair; above 0 in any case but for `verified`.
      max_length_ratio: longest over shortest text of a pair at most.
    """
    score, is_verified = _SCORES[settings.by], settings.by == "verified"
    scores = [score(examined, item) for item in examined.verified]
    scored = [(item, value) for item, value in zip(examined.verified, scores, strict=True) if value is not None]
    kept = [
        item.id
        for item in examined.verified
        if item.decision == "kept" and not item.leak and _is_choosable(item, settings)
    ]
    choosable = kept[:1] if is_verified else kept
    found = [
        Preference(chosen=chosen, rejected=rejected, margin=better - worse)
        for chosen, better in scored
        if chosen.id in choosable
        for rejected, worse in scored
        if _may_be_rejected(chosen, rejected, settings)
        and better - worse >= min_margin - _ROUNDING
        and (better > worse or is_verified)
        and _are_alike_long(chosen.critique, rejected.critique, max_length_ratio)
    ]
    if not is_verified:
        found.sort(key=lambda pair: -pair.margin)
    return tuple(found[: settings.max_pairs])


def _is_choosable(item: Verified, settings: PreferSettings) -> bool:
    return item.critique.agent not in settings.rejected_agents


def _may_be_rejected(chosen: Verified, rejected: Verified, settings: PreferSettings) -> bool:
    if rejected.leak or (settings.by == "verified" and rejected.decision == "kept"):
        return False  # Who was shown the answer would teach it, on whichever side of a pair.
    if settings.rejected_agents and _is_choosable(rejected, settings):
        return False
    return not settings.needs_help or _helps_more(chosen, rejected)


def _helps_more(chosen: Verified, rejected: Verified) -> bool:
    better, worse = help_rate(chosen), help_rate(rejected)
    return better is not None and worse is not None and better > worse


def _are_alike_long(first: Critique, second: Critique, max_ratio: float) -> bool:
    shorter, longer = sorted((len(first.text), len(second.text)))
    return longer <= max_ratio * shorter


def help_rate(item: Verified) -> float | None:
    """Share of right second solutions with a critique, 0..1; None where none was scored."""
    return item.with_critique.rate if item.with_critique else None


def utility(seconds: Estimate | None, *, has_error: bool) -> float | None:
    """How much better second solutions with a critique are than the first one, 0..1; None where none was scored.

    RCO (arXiv 2506.22157): the mean over second solutions of 1 where one is preferred to the first, 1/2 for a tie, 0
    where the first is preferred. Here the verifier prefers right to wrong, and two right or two wrong ones are a tie.

    Args:
      seconds: how many of the second solutions came out right.
      has_error: whether the first one is wrong.

    >>> utility(Estimate(correct=3, scored=5), has_error=True)
    0.8
    """
    if seconds is None or not seconds.scored:
        return None
    wrong = seconds.scored - seconds.correct
    points = seconds.correct + wrong / 2 if has_error else seconds.correct / 2
    return points / seconds.scored


class Mistake(Record):
    """One error of a solution, as a critic names it or as it is known."""

    step: int
    """Index of the step, from 0."""
    text: str = ""
    """What is said of it; empty where only the place is known."""


def jaccard(found: Sequence[Mistake], known: Sequence[Mistake]) -> float:
    """Errors that are both found and known, over all that are either, 0..1; 1 where there are none of either.

    Critic-V (arXiv 2411.18203) scores a critique by it, where the errors that were put into an answer are the known
    ones. Two are the same error if they speak of one step in like words (`annotators.likeness`), or of one step where
    the words of one are not known; as many as possible are matched, each once.
    """
    graph = nx.Graph()
    left = [("found", i) for i in range(len(found))]
    graph.add_nodes_from(left)
    graph.add_edges_from(
        (("found", i), ("known", j))
        for i, one in enumerate(found)
        for j, other in enumerate(known)
        if one.step == other.step and (not one.text or not other.text or said_alike(one.text, other.text))
    )
    common = len(nx.bipartite.maximum_matching(graph, top_nodes=left)) // 2
    either = len(found) + len(known) - common
    return common / either if either else 1.0


def named_errors(units: Sequence[Unit]) -> tuple[Mistake, ...]:
    """The errors that a critique names; what it says of one step twice in like words is one."""
    errors = [Mistake(step=unit.step, text=f"{unit.flaw} {unit.fix}".strip()) for unit in units if unit.kind == "error"]
    distinct = []
    for step in dict.fromkeys(error.step for error in errors):
        here = [error for error in errors if error.step == step]
        groups = group_alike([error.text for error in here])
        distinct += [here[groups.index(group)] for group in dict.fromkeys(groups)]
    return tuple(distinct)


def known_errors(path: Path) -> tuple[Mistake, ...]:
    """What is known to be wrong with a path: its first error, by its place alone; nothing with a right one."""
    return (Mistake(step=path.first_error),) if isinstance(path, PathPair) else ()


def severity_score(judged: Sequence[JudgedUnit]) -> float | None:
    """What the meta-critic leaves of a critique's remarks, -1..1; None where it has decided on none of them.

    MultiCritique (arXiv 2410.15287) prefers critiques by the severity of what is wrong with their units. Here:
    severities of the kept and fixed ones less those of the dropped ones, over the severities of both; one of severity
    0, such as praise, counts as 1.
    """
    decided = [item for item in judged if item.decision != "unscored"]
    weights = [max(item.severity, 1) for item in decided]
    signed = [-weight if item.decision == "drop" else weight for item, weight in zip(decided, weights, strict=True)]
    return sum(signed) / sum(weights) if weights else None


def judged_units(critique: Critique, judged: Sequence[JudgedUnit]) -> tuple[JudgedUnit, ...]:
    """What the meta-critic said of a critique's own units; for a composed critique of those that it was made of."""
    own = tuple(item for item in judged if item.agent == critique.agent)
    if own:
        return own
    said = {(item.unit.step, item.unit.kind, item.unit.flaw): item for item in reversed(judged)}
    keys = [(unit.step, unit.kind, unit.flaw) for unit in critique.units]
    return tuple(said[key] for key in keys if key in said)


_SCORES: dict[str, Callable[[Examined, Verified], float | None]] = {
    "verified": lambda _, item: help_rate(item),
    "utility": lambda _, item: utility(item.with_critique, has_error=item.has_error),
    "jaccard": lambda examined, item: jaccard(named_errors(item.critique.units), known_errors(examined.path)),
    "severity": lambda examined, item: severity_score(judged_units(item.critique, examined.panel.judged)),
}
"""By name, a critique's score."""

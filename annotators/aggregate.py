"""From many critiques of a path to one: whom to believe, what survives, and how it is said."""

from collections.abc import Mapping, Sequence
from typing import Literal

import pandas as pd
from crowdkit.aggregation import OneCoinDawidSkene

from annotators.critic import VIEWS
from annotators.units import Judgement, render_critique
from schemas import (
    AgentVote,
    Criticised,
    Critique,
    JudgedUnit,
    Path,
    PathPair,
    Provenance,
    Record,
    Unit,
    digest,
)

MONTE_CARLO = "monte_carlo"
"""The rollouts' own vote: the located first wrong step, or none."""

AGGREGATE_REJECTIONS = ("no_quorum",)
"""Why a path gets no panel."""

Style = Literal["stepwise", "first_error_only"]

Candidates = Literal["composed", "agents", "both"]

_NONE = "none"


class Consensus(Record):
    """What the critics of one path say together."""

    verdict: Literal["correct", "incorrect", "tie"]
    first_wrong_step: int | None
    """From 0; None for a correct path and for a tie."""
    confidence: float
    """Posterior probability of the agreed location, 0..1."""
    votes: tuple[AgentVote, ...]


def _label(first_wrong_step: int | None) -> str:
    return _NONE if first_wrong_step is None else str(first_wrong_step)


def reach_consensus(criticised: Sequence[Criticised]) -> dict[str, Consensus]:
    """One consensus for each path that has a critique, by path id.

    Votes are locations: the index of the first wrong step or "none". Each agent, and the Monte-Carlo location as
    one more voter, has one unknown skill, the probability that its vote is right; skills and locations are
    estimated together by expectation maximisation (one-coin Dawid and Skene 1979, as crowd-kit has it). The
    result does not depend on the order of the paths.
    """
    ordered = sorted((item for item in criticised if item.critiques), key=lambda item: item.path.id)
    if not ordered:
        return {}
    votes = pd.DataFrame(
        [vote for item in ordered for vote in _votes(item)],
        columns=["task", "worker", "label"],
    )
    model = OneCoinDawidSkene(n_iter=100)
    model.fit(votes)
    skills, probabilities = model.skills_, model.probas_
    assert skills is not None
    assert probabilities is not None
    return {
        item.path.id: _consensus(item, probabilities.loc[item.path.id].to_dict(), skills.to_dict()) for item in ordered
    }


def _votes(item: Criticised) -> list[tuple[str, str, str]]:
    located = item.path.first_error if isinstance(item.path, PathPair) else None
    said = [(critique.agent, critique.first_wrong_step) for critique in item.critiques]
    return [(item.path.id, worker, _label(step)) for worker, step in [*said, (MONTE_CARLO, located)]]


def _consensus(item: Criticised, probabilities: dict[str, float], skills: dict[str, float]) -> Consensus:
    voted = {label for _, _, label in _votes(item)}
    ranked = sorted(((label, probabilities[label]) for label in voted), key=lambda entry: (-entry[1], entry[0]))
    best, confidence = ranked[0]
    tied = len(ranked) > 1 and confidence - ranked[1][1] < 1e-6
    step = None if tied or best == _NONE else int(best)
    verdict: Literal["correct", "incorrect", "tie"] = "correct" if best == _NONE else "incorrect"
    return Consensus(
        verdict="tie" if tied else verdict,
        first_wrong_step=step,
        confidence=float(confidence),
        votes=tuple(
            AgentVote(
                agent=critique.agent,
                verdict=critique.verdict,
                first_wrong_step=critique.first_wrong_step,
                reliability=float(skills[critique.agent]),
            )
            for critique in item.critiques
        ),
    )


def choose_placebos(criticised: Sequence[Criticised], fallback: str) -> dict[str, str]:
    """For each path a critique of another problem, as long as this path's critiques are, by path id.

    The other problem has another answer: else a critique of it could help by accident. Ties in length go to the
    smaller digest. Where there is no such critique, `fallback` stands in.
    """
    pool = sorted(
        (critique.text, critique.problem_id, item.path.problem.answer)
        for item in criticised
        for critique in item.critiques
        if critique.units
    )
    placebos = {}
    for item in criticised:
        lengths = [len(critique.text) for critique in item.critiques]
        length = sum(lengths) / len(lengths) if lengths else len(fallback)
        problem = item.path.problem
        others = [text for text, other, answer in pool if other != problem.id and answer != problem.answer]
        placebos[item.path.id] = min(
            others, key=lambda text: (abs(len(text) - length), digest(item.path.id, text)), default=fallback
        )
    return placebos


def judge_unit(agent: str, unit: Unit, judgement: Judgement | None) -> JudgedUnit:
    """A unit with what the meta-critic said of it; None where it said nothing readable."""
    if judgement is None:
        return JudgedUnit(agent=agent, unit=unit, decision="unscored", severity=unit.severity)
    fixed = Unit(
        step=unit.step,
        quote=unit.quote,
        kind=unit.kind,
        flaw=unit.flaw,
        fix=(judgement.fix or unit.fix) if unit.kind == "error" else "",
        error_type=unit.error_type,
        severity=judgement.severity if unit.kind == "error" else 0,
    )
    kept = fixed if judgement.decision == "fix" else unit
    return JudgedUnit(agent=agent, unit=kept, decision=judgement.decision, severity=judgement.severity)


def surviving_units(judged: Sequence[JudgedUnit], consensus: Consensus, style: Style) -> tuple[Unit, ...]:
    """The units that the composed critique is made of: one a step, none that speaks against the consensus.

    Before the first wrong step only praise survives, at that step only errors, after it nothing. Of several units
    on one step the most severe of the most reliable agent is taken.
    """
    reliability = {vote.agent: vote.reliability for vote in consensus.votes}
    best: dict[int, tuple[tuple[float, int, str], Unit]] = {}
    wrong = consensus.first_wrong_step
    for item in judged:
        unit = item.unit
        fits = unit.kind == "praise" if wrong is None or unit.step < wrong else unit.kind == "error"
        too_late = wrong is not None and unit.step > wrong
        if item.decision == "drop" or not fits or too_late:
            continue
        rank = (reliability.get(item.agent, 0.0), item.severity, digest(unit))
        if unit.step not in best or rank > best[unit.step][0]:
            best[unit.step] = (rank, unit)
    if wrong is not None and wrong not in best:
        return ()
    chosen = sorted(best) if style == "stepwise" or wrong is None else [wrong]
    return tuple(best[step][1] for step in chosen)


def compose_critique(
    path: Path, units: Sequence[Unit], consensus: Consensus, provenance: Provenance, views: Mapping[str, str]
) -> Critique:
    """One critique made of surviving units by the deterministic template."""
    step = consensus.first_wrong_step
    widest = max(views.values(), key=VIEWS.index)
    return Critique(
        id=digest("composed", path.id, units, step),
        path_id=path.id,
        problem_id=path.problem.id,
        agent="panel",
        view=widest,  # type: ignore[arg-type]
        units=tuple(units),
        first_wrong_step=step,
        verdict="correct" if step is None else "incorrect",
        text=render_critique(units, step),
        parse_state="template",
        provenance=provenance,
    )


def choose_candidates(critiques: Sequence[Critique], composed: Critique | None, wanted: Candidates) -> tuple[str, ...]:
    """Ids of the critiques to verify: the composed one first, then the agents' in their order; equal texts once."""
    pool = [critique for critique in (composed,) if critique and wanted != "agents"]
    if wanted != "composed":
        pool.extend(critiques)
    distinct: dict[str, str] = {}
    for critique in pool:
        distinct.setdefault(critique.text, critique.id)
    return tuple(distinct.values())

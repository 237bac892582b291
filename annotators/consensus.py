"""Whom to believe: critics' votes on where the first error is, weighed against each other and against the rollouts."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import pandas as pd
from crowdkit.aggregation import OneCoinDawidSkene

from schemas import AgentVote, Criticised, Path, PathPair, Record

MONTE_CARLO = "monte_carlo"
"""The rollouts' own vote: the located first wrong step, or none."""

AGGREGATE_REJECTIONS = ("no_quorum", "undoubted")
"""Why a path gets no panel."""

_NONE = "none"
_DOUBT = 0.05
"""Share of the rollouts' posterior that is spread evenly over all places: they may be wrong, too."""
_PRIOR = (3.0, 2.0)
"""Right and wrong votes that every critic is credited with before it says anything."""
_TIE_RATIO = 1.2
"""The likeliest place must be this much likelier than the next one, or there is a tie."""


class Consensus(Record):
    """What the critics of one path say together."""

    verdict: Literal["correct", "incorrect", "tie"]
    first_wrong_step: int | None
    """From 0; None for a correct path and for a tie."""
    confidence: float
    """Posterior probability of the likeliest location, 0..1."""
    votes: tuple[AgentVote, ...]


def reach_consensus(criticised: Sequence[Criticised]) -> dict[str, Consensus]:
    """One consensus for each path that has a critique, by path id.

    Votes are locations: the index of the first wrong step or "none". Each critic has one unknown skill, the
    probability that its vote is right; skills and locations are estimated together over all paths by expectation
    maximisation, the rollouts' located step being one more voter (one-coin Dawid and Skene 1979, as crowd-kit has it),
    and shrunk towards 3 right votes of 5, so that a critic of one path is not believed blindly. On each path the
    rollouts' whole posterior is then the prior, and every critic of skill s multiplies the place it names by s and
    every other of the K - 1 places by (1 - s) / (K - 1). The result does not depend on the order of the paths.
    """
    ordered = sorted((item for item in criticised if item.critiques), key=lambda item: item.path.id)
    if not ordered:
        return {}
    votes = [vote for item in ordered for vote in _votes(item)]
    skills = _skills(votes)
    return {item.path.id: _consensus(item, skills) for item in ordered}


def _votes(item: Criticised) -> list[tuple[str, str, str]]:
    located = item.path.first_error if isinstance(item.path, PathPair) else None
    said = [(critique.agent, critique.first_wrong_step) for critique in item.critiques]
    return [(item.path.id, worker, _label(step)) for worker, step in [*said, (MONTE_CARLO, located)]]


def _label(first_wrong_step: int | None) -> str:
    return _NONE if first_wrong_step is None else str(first_wrong_step)


def _skills(votes: Sequence[tuple[str, str, str]]) -> dict[str, float]:
    table = pd.DataFrame(votes, columns=["task", "worker", "label"])
    model = OneCoinDawidSkene(n_iter=100)
    model.fit(table)
    assert model.skills_ is not None
    counts = table["worker"].value_counts()
    right, wrong = _PRIOR
    return {
        str(worker): (float(skill) * int(counts[worker]) + right) / (int(counts[worker]) + right + wrong)
        for worker, skill in model.skills_.items()
    }


def location_prior(path: Path) -> dict[str, float]:
    """Probability of every place of a path's first error, and of none, before any critic has spoken."""
    places = [*map(str, range(len(path.steps))), _NONE]
    posterior = path.posterior if isinstance(path, PathPair) else (0.0,) * len(path.steps)
    none = 0.0 if isinstance(path, PathPair) else 1.0
    return {
        place: (1 - _DOUBT) * mass + _DOUBT / len(places)
        for place, mass in zip(places, (*posterior, none), strict=True)
    }


def _consensus(item: Criticised, skills: Mapping[str, float]) -> Consensus:
    prior = location_prior(item.path)
    others = len(prior) - 1
    logs = {place: math.log(mass) for place, mass in prior.items()}
    for critique in item.critiques:
        skill, named = skills[critique.agent], _label(critique.first_wrong_step)
        for place in logs:
            logs[place] += math.log(skill if place == named else (1 - skill) / others)
    highest = max(logs.values())
    weights = {place: math.exp(value - highest) for place, value in logs.items()}
    (best, first), (_, second) = sorted(weights.items(), key=lambda entry: -entry[1])[:2]
    tied = first < _TIE_RATIO * second
    verdict: Literal["correct", "incorrect"] = "correct" if best == _NONE else "incorrect"
    return Consensus(
        verdict="tie" if tied else verdict,
        first_wrong_step=None if tied or best == _NONE else int(best),
        confidence=first / sum(weights.values()),
        votes=tuple(
            AgentVote(
                agent=critique.agent,
                verdict=critique.verdict,
                first_wrong_step=critique.first_wrong_step,
                reliability=skills[critique.agent],
            )
            for critique in item.critiques
        ),
    )

"""What rounds of critique and correction come to: how many solutions are right after each, and which way they turned.

A critique is worth what is made of it: RealCritic's closed loop (arXiv 2501.14492) has solutions criticised and
corrected, and the corrected ones again. Round i criticises what round i - 1 left; the figures of a round are those of
`annotators.evaluation` with these as first solutions.
"""

from collections import Counter
from collections.abc import Sequence

from annotators.evaluation import Figure, Interval, Judged, summarise
from schemas import Record

TRANSITIONS = (
    "correct_to_correct",
    "correct_to_incorrect",
    "incorrect_to_correct",
    "incorrect_to_incorrect",
    "unscored",
)
"""Which way a round can turn a solution; `unscored` where the outcome before it or after it is."""

_ENDED = Judged(label=None, is_located=False, is_read=False, second_outcomes=("unscored",))
"""In the rounds after its last one: nobody knows how a solution would have gone on."""


class RoundFigures(Record):
    """One round over all solutions."""

    round: int
    """From 1."""
    right: Figure
    """Solutions that are right after it, of those that it is known of what they were at the start."""
    gain: Figure
    """`right` less the share that was right at the start."""
    transitions: dict[str, int]
    """By the names of `TRANSITIONS`: second solutions of this round against what it began with."""
    figures: dict[str, Figure]
    """All figures of `annotators.evaluation` with what the round began with as first solutions."""


def figures_by_round(
    chains: Sequence[Sequence[Judged]], *, level: float, interval: Interval, seed: Sequence[int]
) -> tuple[RoundFigures, ...]:
    """The figures of each round.

    Args:
      chains: for each solution what its rounds came to, the first one first; at least one, fewer than others have
        where it could not go on.
      level: of the intervals.
      interval: of a rate, as for `summarise`.
      seed: of what is drawn.
    """
    num_rounds = max(map(len, chains), default=0)
    return tuple(_round(chains, i, level=level, interval=interval, seed=(*seed, i)) for i in range(num_rounds))


def _round(
    chains: Sequence[Sequence[Judged]], i: int, *, level: float, interval: Interval, seed: Sequence[int]
) -> RoundFigures:
    here = [chain[i] if i < len(chain) else _ENDED for chain in chains]
    since_start = [
        Judged(label=None, is_located=False, first_outcome=chain[0].first_outcome, second_outcomes=now.second_outcomes)
        for chain, now in zip(chains, here, strict=True)
    ]
    overall = summarise(since_start, level=level, interval=interval, seed=seed).figures
    turned = Counter(_turn(now.first_outcome, second) for now in here for second in now.second_outcomes)
    return RoundFigures(
        round=i + 1,
        right=overall["after"],
        gain=overall["delta"],
        transitions={name: turned[name] for name in TRANSITIONS},
        figures=summarise(here, level=level, interval=interval, seed=seed).figures,
    )


def _turn(before: str, after: str) -> str:
    return "unscored" if "unscored" in (before, after) else f"{before}_to_{after}"

"""Whether a critique helps: second solutions with it against two controls, as many as it takes to tell.

The arms are compared at a few looks, each with twice as many second solutions as the one before. At every look the
exact one-sided test must come out at alpha divided by the number of looks, so that looking several times does not raise
the chance of calling a useless critique helpful above alpha (Bonferroni). Both controls have to be beaten, which needs
no further correction (intersection-union test, Berger 1982). What cannot win any more stops early.
"""

from collections.abc import Callable
from typing import Literal

from schemas import Estimate, Record

PValue = Callable[[Estimate, Estimate], float]
"""One-sided exact p-value for the first estimate's rate being no higher than the second's."""

HELP_REJECTIONS = ("help_unscored", "no_better_than_placebo", "no_better_than_none", "hurts")
"""Why a critique is rejected once second solutions were written with it."""


class HelpSettings(Record):
    """What a critique's help must show, and what showing it may cost."""

    rollouts: int = 8
    """Second solutions of each arm (with the critique, with the placebo, with none) at the first look."""
    max_rollouts: int = 64
    """Second solutions of each arm at the last look; every look has twice as many as the one before. Only what is
    undecided goes on: an actor that follows critiques needs 13 of each arm in the mean."""
    alpha: float = 0.05
    """Largest probability of calling a critique helpful, or harmful, that is not; over all looks."""

    def __post_init__(self) -> None:
        if not 1 <= self.rollouts <= self.max_rollouts:
            raise ValueError(
                f"need 1 <= rollouts <= max_rollouts, got rollouts={self.rollouts}, max_rollouts={self.max_rollouts}"
            )
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must lie between 0 and 1, got {self.alpha}")

    def looks(self) -> tuple[int, ...]:
        """Second solutions of each arm at every look, ending at `max_rollouts`.

        >>> HelpSettings(rollouts=8, max_rollouts=32).looks()
        (8, 16, 32)
        """
        sizes = [self.rollouts]
        while 2 * sizes[-1] <= self.max_rollouts:
            sizes.append(2 * sizes[-1])
        if sizes[-1] < self.max_rollouts:
            sizes.append(self.max_rollouts)
        return tuple(sizes)


class Help(Record):
    """Second solutions in three arms, with the tests between them."""

    with_critique: Estimate
    with_placebo: Estimate
    without_critique: Estimate
    p_placebo: float
    p_without: float
    p_hurts: float
    """One-sided p-value that refining without the critique is not better than with it."""


def compare_arms(critique: Estimate, placebo: Estimate, none: Estimate, p_greater: PValue) -> Help:
    """The three arms with all tests between them."""
    return Help(
        with_critique=critique,
        with_placebo=placebo,
        without_critique=none,
        p_placebo=p_greater(critique, placebo),
        p_without=p_greater(critique, none),
        p_hurts=p_greater(none, critique),
    )


def help_reasons(
    measured: Help, settings: HelpSettings, *, has_error: bool, look: int, p_greater: PValue
) -> tuple[str, ...] | None:
    """Names of the tests of helpfulness that fail; none where it helps; None where the next look has to tell.

    A critique of a wrong path must beat both controls. One of a right path has nothing to add; it must not make
    the actor give up what was right.

    Args:
      measured: the arms so far.
      settings: looks and alpha.
      has_error: whether the path is wrong.
      look: number of this look, from 0.
      p_greater: the exact test.
    """
    looks = settings.looks()
    level, is_last = settings.alpha / len(looks), look == len(looks) - 1
    arms = (measured.with_critique, measured.with_placebo, measured.without_critique)
    if not all(arm.scored for arm in arms):
        return ("help_unscored",) if is_last else None
    if not has_error:
        return _harm(measured, level, is_last=is_last)
    left = looks[-1] - looks[look]
    states = {
        "no_better_than_placebo": _state(measured.with_critique, measured.with_placebo, left, level, p_greater),
        "no_better_than_none": _state(measured.with_critique, measured.without_critique, left, level, p_greater),
    }
    failed = tuple(name for name, state in states.items() if state == "lost" or (is_last and state == "open"))
    if failed:
        return failed
    return () if all(state == "won" for state in states.values()) else None


def _harm(measured: Help, level: float, *, is_last: bool) -> tuple[str, ...] | None:
    """A right path's critique: `hurts` where refining without it is better; goes on only while it looks worse."""
    if measured.p_hurts <= level:
        return ("hurts",)
    better, worse = measured.with_critique.rate, measured.without_critique.rate
    assert better is not None, measured
    assert worse is not None, measured
    return () if is_last or better >= worse else None


def _state(
    critique: Estimate, control: Estimate, left: int, level: float, p_greater: PValue
) -> Literal["won", "open", "lost"]:
    """Whether the critique has beaten a control, may still do so, or cannot.

    It has lost where it does no better so far, or where even right answers only from now on, and wrong ones only in the
    control, would not be enough.
    """
    if p_greater(critique, control) <= level:
        return "won"
    if critique.correct * control.scored <= control.correct * critique.scored:
        return "lost"
    best = Estimate(correct=critique.correct + left, scored=critique.scored + left)
    worst = Estimate(correct=control.correct, scored=control.scored + left)
    return "open" if p_greater(best, worst) <= level else "lost"

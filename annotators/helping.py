"""Whether a critique helps: second solutions with it against two controls, as many as it takes to tell.

The arms are compared at a few looks, each with twice as many second solutions as the one before. At every look the
exact one-sided test must come out at alpha divided by the number of looks, so that looking several times does not raise
the chance of calling a useless critique helpful above alpha (Bonferroni). Both controls have to be beaten, which needs
no further correction (intersection-union test, Berger 1982). What cannot win any more stops early.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from schemas import Estimate, Record

PValue = Callable[[Estimate, Estimate], float]
"""One-sided exact p-value for the first estimate's rate being no higher than the second's."""

EXACT_TESTS = ("no_better_than_placebo", "no_better_than_none", "hurts")
"""Ours: the difference must be more than chance."""
RATE_TESTS = ("rate_too_low", "rate_not_higher")
"""Published soft filters: rates as they come, at the last look (AutoMathCritique, arXiv 2411.16579)."""
HELP_TESTS = (*EXACT_TESTS, *RATE_TESTS)
"""What second solutions may be asked to show; each name is what a critique is rejected for."""

HELP_REJECTIONS = ("help_unscored", *HELP_TESTS)
"""Why a critique is rejected once second solutions were written with it."""

Control = Literal["placebo", "none"]
"""What second solutions with a critique are compared with: those with a placebo, those with no critique."""

_CONTROL_OF: dict[str, Control] = {
    "no_better_than_placebo": "placebo",
    "no_better_than_none": "none",
    "hurts": "none",
    "rate_not_higher": "none",
}
_HAS_ERROR = {"no_better_than_placebo": True, "no_better_than_none": True, "hurts": False}
"""Label of the paths that a test is about; those not named are about all."""


def help_tests(tests: Iterable[str], *, has_error: bool) -> tuple[str, ...]:
    """Those of the named tests that need second solutions for a path with this label."""
    return tuple(name for name in tests if name in HELP_TESTS and _HAS_ERROR.get(name, has_error) == has_error)


def controls(tests: Iterable[str]) -> frozenset[Control]:
    """The controls that the named tests need, on paths of whatever label."""
    return frozenset(_CONTROL_OF[name] for name in tests if name in _CONTROL_OF)


class HelpSettings(Record):
    """What a critique's help must show, and what showing it may cost."""

    rollouts: int = 8
    """Second solutions of each arm (with the critique, with the placebo, with none) at the first look."""
    max_rollouts: int = 64
    """Second solutions of each arm at the last look; every look has twice as many as the one before. Only what is
    undecided goes on: an actor that follows critiques needs 13 of each arm in the mean."""
    alpha: float = 0.05
    """Largest probability of calling a critique helpful, or harmful, that is not; over all looks."""
    min_rate: float = 0.0
    """Share of right second solutions that a critique must exceed in the test `rate_too_low`, which our own tests do
    without. Of `max_rollouts`: published filters look once, `rollouts` is the same number then."""

    def __post_init__(self) -> None:
        if not 1 <= self.rollouts <= self.max_rollouts:
            raise ValueError(
                f"need 1 <= rollouts <= max_rollouts, got rollouts={self.rollouts}, max_rollouts={self.max_rollouts}"
            )
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must lie between 0 and 1, got {self.alpha}")
        if not 0 <= self.min_rate < 1:
            raise ValueError(f"min_rate must be at least 0 and below 1, got {self.min_rate}")

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
    """Second solutions in up to three arms, with the tests between them. None stands where there is no such control."""

    with_critique: Estimate
    with_placebo: Estimate | None
    without_critique: Estimate | None
    p_placebo: float | None
    p_without: float | None
    p_hurts: float | None
    """One-sided p-value that refining without the critique is not better than with it."""


def compare_arms(critique: Estimate, placebo: Estimate | None, none: Estimate | None, p_greater: PValue) -> Help:
    """The arms with all tests between them."""
    return Help(
        with_critique=critique,
        with_placebo=placebo,
        without_critique=none,
        p_placebo=None if placebo is None else p_greater(critique, placebo),
        p_without=None if none is None else p_greater(critique, none),
        p_hurts=None if none is None else p_greater(none, critique),
    )


def help_reasons(
    measured: Help, settings: HelpSettings, tests: Sequence[str], *, has_error: bool, look: int, p_greater: PValue
) -> tuple[str, ...] | None:
    """Names of the tests of helpfulness that fail; none where it helps; None where the next look has to tell.

    A critique of a wrong path must beat both controls. One of a right path has nothing to add; it must not make
    the actor give up what was right.

    Args:
      measured: the arms so far.
      settings: looks and alpha.
      tests: those to be made, from `help_tests`; the arms hold the controls that they need.
      has_error: whether the path is wrong.
      look: number of this look, from 0.
      p_greater: the exact test.
    """
    if not tests:
        return ()
    looks = settings.looks()
    left = looks[-1] - looks[look]
    arms = (measured.with_critique, measured.with_placebo, measured.without_critique)
    if not all(arm is None or arm.scored for arm in arms):
        return None if left else ("help_unscored",)
    at = _Look(measured, has_error, left, settings.alpha / len(looks), settings.min_rate, p_greater)
    states = {name: _STATE_OF[name](at) for name in tests}
    failed = tuple(name for name, state in states.items() if state == "lost" or (state == "open" and not left))
    if failed:
        return failed
    return () if all(state == "won" for state in states.values()) else None


_State = Literal["won", "open", "lost"]


@dataclasses.dataclass(frozen=True)
class _Look:
    """What a test is made of."""

    arms: Help
    has_error: bool
    left: int
    """Second solutions of each arm that later looks may bring."""
    level: float
    """Largest p-value that decides at one look."""
    min_rate: float
    p_greater: PValue


def _beats(at: _Look, control: Estimate | None) -> _State:
    """Whether the critique has beaten a control, may still do so, or cannot.

    It has lost where it does no better so far, or where even right answers only from now on, and wrong ones only in the
    control, would not be enough.
    """
    assert control is not None, at
    critique, left = at.arms.with_critique, at.left
    if at.p_greater(critique, control) <= at.level:
        return "won"
    if critique.correct * control.scored <= control.correct * critique.scored:
        return "lost"
    best = Estimate(correct=critique.correct + left, scored=critique.scored + left)
    worst = Estimate(correct=control.correct, scored=control.scored + left)
    return "open" if at.p_greater(best, worst) <= at.level else "lost"


def _harmless(at: _Look) -> _State:
    """A right path's critique: lost where refining without it is better; goes on only while it looks worse."""
    assert at.arms.p_hurts is not None, at
    if at.arms.p_hurts <= at.level:
        return "lost"
    with_critique, without = _rates(at)
    return "won" if not at.left or with_critique >= without else "open"


def _rate_high(at: _Look) -> _State:
    """Whether the share of right ones ends above `min_rate`, whatever is still to come."""
    arm, left = at.arms.with_critique, at.left
    if arm.correct > at.min_rate * (arm.scored + left):
        return "won"
    return "open" if left and arm.correct + left > at.min_rate * (arm.scored + left) else "lost"


def _rate_higher(at: _Look) -> _State:
    """Whether more come out right than without, on a right path no fewer: at the last look."""
    if at.left:
        return "open"
    with_critique, without = _rates(at)
    return "won" if with_critique > without or (with_critique == without and not at.has_error) else "lost"


def _rates(at: _Look) -> tuple[float, float]:
    """With the critique and without; both arms hold scored ones."""
    assert at.arms.without_critique is not None, at
    with_critique, without = at.arms.with_critique.rate, at.arms.without_critique.rate
    assert with_critique is not None, at
    assert without is not None, at
    return with_critique, without


_STATE_OF: dict[str, Callable[[_Look], _State]] = {
    "no_better_than_placebo": lambda at: _beats(at, at.arms.with_placebo),
    "no_better_than_none": lambda at: _beats(at, at.arms.without_critique),
    "hurts": _harmless,
    "rate_too_low": _rate_high,
    "rate_not_higher": _rate_higher,
}

"""How well critics find first errors, and how well a rule that keeps remarks agrees with people.

What could not be read is unscored: outside every rate, and counted beside it.
"""

from collections.abc import Iterable, Sequence
from statistics import fmean

from schemas import Estimate, Record


class Located(Record):
    """What people and a critic name as the first wrong step of one solution."""

    label: int | None
    """By people, from 0; None where no step is wrong."""
    named: int | None
    """By the critic, from 0; None where it says that no step is wrong."""
    scored: bool = True
    """False where the critic said nothing that could be read; `named` then counts for nothing."""


class LocationScore(Record):
    """How well a critic finds first errors."""

    on_erroneous: Estimate
    """Solutions with a wrong step; correct where exactly the first one was named."""
    within_one: Estimate
    """The same; correct where the first one or one beside it was named."""
    on_correct: Estimate
    """Solutions without one; correct where none was named."""
    verdict: Estimate
    """All solutions; correct where the critic says rightly whether any step is wrong."""
    distance: float | None
    """Mean of the steps between the named and the first wrong one, over the erroneous solutions for which a step was
    named; None where there was none."""

    @property
    def f1(self) -> float | None:
        """Harmonic mean of the two rates; None where solutions of one of the two kinds are missing.

        The headline figure of ProcessBench (Zheng et al. 2024, arXiv 2412.06559): one that always finds an
        error, and one that never does, get 0.
        """
        return harmonic_mean(self.on_erroneous.rate, self.on_correct.rate)

    @property
    def strict_f1(self) -> float | None:
        """The same where what could not be read counts as missed, as every solution of a benchmark counts."""
        return harmonic_mean(strict_rate(self.on_erroneous), strict_rate(self.on_correct))


def strict_rate(estimate: Estimate) -> float | None:
    """Correct ones among all, unscored ones included; None where there was none at all."""
    total = estimate.scored + estimate.unscored
    return estimate.correct / total if total else None


def harmonic_mean(first: float | None, second: float | None) -> float | None:
    """Of two rates; 0 where both are 0, None where one is missing."""
    if first is None or second is None:
        return None
    return 2 * first * second / (first + second) if first + second else 0.0


def score_locations(located: Iterable[Located]) -> LocationScore:
    """Accuracy on erroneous and on correct solutions as ProcessBench defines them, verdicts and distance besides."""
    items = list(located)
    erroneous = [item for item in items if item.label is not None]
    gaps = [
        abs(item.named - item.label)
        for item in erroneous
        if item.label is not None and item.named is not None and item.scored
    ]
    return LocationScore(
        on_erroneous=_count((item.named == item.label, item.scored) for item in erroneous),
        within_one=_count((_is_beside(item), item.scored) for item in erroneous),
        on_correct=_count((item.named is None, item.scored) for item in items if item.label is None),
        verdict=_count(((item.named is None) == (item.label is None), item.scored) for item in items),
        distance=fmean(gaps) if gaps else None,
    )


def _is_beside(item: Located) -> bool:
    return item.label is not None and item.named is not None and abs(item.named - item.label) <= 1


def _count(outcomes: Iterable[tuple[bool, bool]]) -> Estimate:
    return Estimate.of(
        ["unscored" if not scored else "correct" if correct else "incorrect" for correct, scored in outcomes]
    )


class Agreement(Record):
    """What a rule decides against what people say, remark by remark."""

    kept_right: int
    kept_wrong: int
    dropped_right: int
    dropped_wrong: int

    @property
    def total(self) -> int:
        """All remarks."""
        return self.kept_right + self.kept_wrong + self.dropped_right + self.dropped_wrong

    @property
    def accuracy(self) -> float | None:
        """Share of the decisions that people share; None where there was none."""
        return (self.kept_right + self.dropped_wrong) / self.total if self.total else None

    @property
    def precision(self) -> float | None:
        """Right ones among the kept; None where nothing was kept."""
        kept = self.kept_right + self.kept_wrong
        return self.kept_right / kept if kept else None

    @property
    def recall(self) -> float | None:
        """Kept ones among the right; None where nothing was right."""
        right = self.kept_right + self.dropped_right
        return self.kept_right / right if right else None

    @property
    def kappa(self) -> float | None:
        """Agreement beyond what the shares of kept and of right ones alone would give (Cohen 1960), -1..1.

        0 for a rule that keeps everything. None where both the rule and people give every remark the same one answer:
        agreement is then certain and says nothing.
        """
        if not self.total or self.accuracy is None:
            return None
        kept = (self.kept_right + self.kept_wrong) / self.total
        right = (self.kept_right + self.dropped_right) / self.total
        by_chance = kept * right + (1 - kept) * (1 - right)
        return (self.accuracy - by_chance) / (1 - by_chance) if by_chance < 1 else None


def compare_decisions(kept: Sequence[bool], right: Sequence[bool]) -> Agreement:
    """Counts a rule's decisions against people's.

    Raises:
      ValueError: there are not as many of the one as of the other.
    """
    pairs = list(zip(kept, right, strict=True))
    return Agreement(
        kept_right=pairs.count((True, True)),
        kept_wrong=pairs.count((True, False)),
        dropped_right=pairs.count((False, True)),
        dropped_wrong=pairs.count((False, False)),
    )

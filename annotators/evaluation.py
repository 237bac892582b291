"""What a critic is worth on labelled solutions: verdicts, places, what its critiques do to second solutions, leaks.

Counts are taken solution by solution and summed, so that whatever nobody could score stays outside every rate and is
counted beside it. Intervals: of a rate the one that the caller gives; of everything else, and of rates whose outcomes
come several a solution, by drawing the solutions again (percentile bootstrap, Efron and Tibshirani 1993, chapter 13),
with all that is known of a solution staying together. Where these are all alike, drawing them again shows nothing else,
and the rates' posteriors stand in.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import DegenerateDataWarning, bootstrap

from annotators.metrics import Located, harmonic_mean, score_locations
from schemas import Estimate, Outcome, Record, Verdict

RESAMPLES = 2000
"""Times that the solutions of a file are drawn again."""
_BATCH = 2_000_000
"""Drawn solutions in memory at a time, for each column."""

Interval = Callable[[Estimate, float], tuple[float, float]]
"""From counts and a level to the interval of their rate."""


class Judged(Record):
    """One labelled solution and what came of the critique of it."""

    label: Verdict | None
    """None where nobody knows: no verdict on it counts."""
    first_error: int | None = None
    """By the label, from 0; None for a right solution, and where the label says no place."""
    is_located: bool = True
    """Whether the label says where a wrong solution goes wrong; False where there is no label."""
    is_read: bool = True
    """False where there is no critique that could be read; `named` and `gives_away` then count for nothing."""
    named: int | None = None
    """The critic's first wrong step, from 0; None where it says that no step is wrong."""
    first_outcome: Outcome = "unscored"
    """Of the solution's answer."""
    second_outcomes: tuple[Outcome, ...] = ()
    """Of the second solutions that an actor wrote with the critique; `unscored` where there was no critique."""
    has_gold: bool = False
    """Whether the gold answer is known: nobody can tell a leak otherwise."""
    gives_away: bool = False
    """Whether the critique says the gold answer."""
    own_outcome: Outcome | None = None
    """Of the actor's own solution of the same problem; None where it was asked for none."""


RATES: dict[str, str] = {
    "solved": "own solutions of the problems that are right",
    "verdict": "the critic says rightly whether the solution is right",
    "verdict_on_wrong": "of wrong solutions: the critic says so",
    "verdict_on_right": "of right solutions: the critic says so",
    "exact": "of wrong solutions: exactly the first wrong step is named",
    "within_1": "of wrong solutions: the first wrong step or one beside it is named",
    "on_correct": "of right solutions: no step is named",
    "correct_to_incorrect": "of second solutions after a right first one: wrong",
    "incorrect_to_correct": "of second solutions after a wrong first one: right",
    "incorrect_to_correct_unleaked": "the same, critiques that give the answer away left out",
    "before": "right first solutions, each as often as it has scored second ones",
    "after": "right second solutions",
    "leaks": "critiques that give the gold answer away",
}
"""What counts for each rate, by name."""

OF_SECONDS = ("correct_to_incorrect", "incorrect_to_correct", "incorrect_to_correct_unleaked", "before", "after")
"""The rates over second solutions, of which one critique may have several."""

Counts = dict[str, Estimate]


def count(item: Judged) -> Counts:
    """One solution's part in every rate. `correct` counts that for which the rate's words hold.

    Verdict and places are ProcessBench's (arXiv 2412.06559). `solved` is CriticBench's accuracy of generation (arXiv
    2402.14809), `after` that of its correction. `correct_to_incorrect` and `incorrect_to_correct` are
    RealCritic's ratios (arXiv 2501.14492): of the first solutions with one outcome, those whose second one has the
    other. `after` less `before` is the gain in accuracy of Critique-RL (arXiv 2510.24320).
    """
    place = item.first_error if item.is_located else 0
    label = place if item.label == "incorrect" else None
    score = score_locations([Located(label=label, named=item.named, scored=item.is_read)])
    nothing = Estimate()
    seconds = Estimate.of(item.second_outcomes)
    told = item.has_gold and _leak(item) == "correct"
    was_right, was_wrong = item.first_outcome == "correct", item.first_outcome == "incorrect"
    turned = Estimate(correct=seconds.scored - seconds.correct, scored=seconds.scored, unscored=seconds.unscored)
    before = Estimate(correct=seconds.scored * was_right, scored=seconds.scored, unscored=seconds.unscored)
    unknown = Estimate(unscored=len(item.second_outcomes))
    return {
        "solved": nothing if item.own_outcome is None else Estimate.of([item.own_outcome]),
        "verdict": score.verdict if item.label else nothing,
        "verdict_on_wrong": score.verdict if item.label == "incorrect" else nothing,
        "verdict_on_right": score.verdict if item.label == "correct" else nothing,
        "exact": score.on_erroneous if item.is_located else nothing,
        "within_1": score.within_one if item.is_located else nothing,
        "on_correct": score.on_correct if item.is_located else nothing,
        "correct_to_incorrect": turned if was_right else nothing,
        "incorrect_to_correct": seconds if was_wrong else nothing,
        "incorrect_to_correct_unleaked": seconds if was_wrong and not told else nothing,
        "before": before if was_right or was_wrong else unknown,
        "after": seconds if was_right or was_wrong else unknown,
        "leaks": Estimate.of([_leak(item)]) if item.has_gold else nothing,
    }


def _leak(item: Judged) -> Outcome:
    if not item.is_read:
        return "unscored"
    return "correct" if item.gives_away else "incorrect"


class Figure(Record):
    """One figure of one file, or its mean over files."""

    value: float | None
    """None where nothing was scored that it could be had from."""
    low: float | None = None
    """Ends of the interval; None where there is no value, or a single solution tells nothing of the others."""
    high: float | None = None
    counts: Estimate | None = None
    """What a rate is taken from; None for what is no rate."""


class Summary(Record):
    """The figures of one file."""

    figures: dict[str, Figure]
    draws: dict[str, Any]
    """By figure values that it may as well have; None where there are too few solutions to tell any."""


Sums = Mapping[str, tuple[Any, Any, Any]]
"""By rate the sums of its `correct`, `scored` and `unscored`: numbers, or one number for each time of drawing."""


_harmonic_means = np.vectorize(harmonic_mean, otypes=[float])


def _f1(sums: Sums) -> Any:
    """Of the rates on wrong and on right solutions: ProcessBench's headline figure."""
    (found, wrong, _), (spared, right, _) = sums["exact"], sums["on_correct"]
    return _harmonic_means(_ratio(found, wrong), _ratio(spared, right))


def _f1_strict(sums: Sums) -> Any:
    """The same where what could not be read counts as missed."""
    (found, wrong, unread), (spared, right, also_unread) = sums["exact"], sums["on_correct"]
    return _harmonic_means(_ratio(found, wrong + unread), _ratio(spared, right + also_unread))


def _verdict_f1(sums: Sums) -> Any:
    """Of the verdict "wrong": CriticBench's figure for critiques, harmonic mean of precision and recall."""
    (found, wrong, _), (spared, right, _) = sums["verdict_on_wrong"], sums["verdict_on_right"]
    return _ratio(2 * found, (found + wrong + right - spared) * (np.asarray(wrong) > 0))


def _delta(sums: Sums) -> Any:
    (after, scored, _), (before, *_) = sums["after"], sums["before"]
    return _ratio(after - before, scored)


def _rate(name: str) -> Callable[[Sums], Any]:
    return lambda sums: _ratio(*sums[name][:2])


def _ratio(part: Any, whole: Any) -> Any:
    """NaN where there is nothing to take a share of."""
    part, whole = np.broadcast_arrays(np.asarray(part, float), np.asarray(whole, float))
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


_DERIVED: dict[str, tuple[Callable[[Sums], Any], tuple[str, ...]]] = {
    "f1": (_f1, ("exact", "on_correct")),
    "f1_unread_missed": (_f1_strict, ("exact", "on_correct")),
    "verdict_f1": (_verdict_f1, ("verdict_on_wrong", "verdict_on_right")),
    "delta": (_delta, ("before", "after")),
}
"""Figures that are no rates: how they come from sums, and of which rates."""

FIGURES = (*RATES, *_DERIVED)
"""Names of all figures, in the order in which they are shown."""


def summarise(items: Sequence[Judged], *, level: float, interval: Interval, seed: Sequence[int]) -> Summary:
    """All figures of one file.

    Args:
      items: its solutions.
      level: of the intervals.
      interval: of a rate whose outcomes are independent of each other. Where a critique has several second solutions
        these are not, and their rates have the interval of solutions drawn again.
      seed: of the drawing; other files need other ones.
    """
    counted = [count(item) for item in items]
    totals = {name: sum((counts[name] for counts in counted), Estimate()) for name in RATES}
    columns = {name: _columns([counts[name] for counts in counted]) for name in RATES}
    clustered = OF_SECONDS if any(len(item.second_outcomes) > 1 for item in items) else ()
    sums = {name: _as_sums(total) for name, total in totals.items()}
    figures: dict[str, Figure] = {}
    draws: dict[str, Any] = {}
    ends: tuple[float | None, float | None]
    for name in FIGURES:
        value = _number(_parts(name)[0](sums))
        size = sum(counts[name].scored > 0 for counts in counted) if name in RATES else len(items)
        if name in RATES and name not in clustered:
            draws[name], ends = _posterior(totals[name], seed), interval(totals[name], level)
        elif name in clustered and size > 1 and value in (0.0, 1.0):
            # Drawn again, what is always the same stays the same; as if each solution had one outcome.
            alike = Estimate(correct=size * int(value), scored=size)
            draws[name], ends = _posterior(alike, seed), interval(alike, level)
        else:
            draws[name] = _extreme_f1(name, totals, seed) if name in _UNREAD_COUNTS else None
            if draws[name] is None and size > 1:
                draws[name] = _draw(_parts(name), columns, seed)
                if name == "delta" and value is not None and np.nanmin(draws[name]) == np.nanmax(draws[name]):
                    draws[name] = _unseen_gain(value, _num_scored(counted), seed)
            ends = _ends(draws[name], level)
        low, high = (None, None) if value is None else _around(value, ends)
        figures[name] = Figure(value=value, low=low, high=high, counts=totals.get(name))
    return Summary(figures=figures, draws=draws)


def average(summaries: Sequence[Summary], level: float) -> dict[str, Figure]:
    """The mean of every figure over the files that have it, each file counting alike (macro average).

    Its interval is that of the mean of values drawn in every file by itself; where one file alone has the figure it is
    that file's.
    """
    means = {}
    for name in FIGURES:
        having = [summary for summary in summaries if summary.figures[name].value is not None]
        if len(having) == 1:
            means[name] = having[0].figures[name]
            continue
        drawn = [summary.draws[name] for summary in having]
        whole = drawn and all(draws is not None for draws in drawn)
        low, high = _ends(np.mean(drawn, axis=0), level) if whole else (None, None)
        values = [value for summary in having if (value := summary.figures[name].value) is not None]
        value = float(np.mean(values)) if values else None
        counts = [found for summary in having if (found := summary.figures[name].counts) is not None]
        means[name] = Figure(value=value, low=low, high=high, counts=sum(counts, Estimate()) if name in RATES else None)
    return means


def _parts(name: str) -> tuple[Callable[[Sums], Any], tuple[str, ...]]:
    """How a figure comes from sums, and of which rates."""
    return _DERIVED.get(name) or (_rate(name), (name,))


def _as_sums(estimate: Estimate) -> tuple[int, int, int]:
    return estimate.correct, estimate.scored, estimate.unscored


def _columns(counts: Sequence[Estimate]) -> Any:
    """Three rows, one column a solution."""
    return np.array([_as_sums(each) for each in counts], int).reshape(-1, 3).T


def _posterior(estimate: Estimate, seed: Sequence[int]) -> Any:
    """Values that a rate may have, from Jeffreys' posterior Beta(correct + 1/2, wrong + 1/2)."""
    rng = np.random.default_rng(list(seed))
    return rng.beta(estimate.correct + 0.5, estimate.scored - estimate.correct + 0.5, RESAMPLES)


_UNREAD_COUNTS = {"f1": False, "f1_unread_missed": True, "verdict_f1": False}
"""By F1 whether what could not be read counts as missed."""


def _extreme_f1(name: str, totals: Counts, seed: Sequence[int]) -> Any:
    """Values that an F1 may have one of whose rates is 0 or 1, where solutions drawn again would show no other one.

    From the posteriors of the two rates, which no solution shares; None where neither rate is at an end.
    """
    figure, names = _parts(name)
    rates = [
        Estimate(correct=totals[of].correct, scored=totals[of].scored + totals[of].unscored * _UNREAD_COUNTS[name])
        for of in names
    ]
    if all(0 < rate.correct < rate.scored for rate in rates):
        return None
    drawn = (_posterior(rate, (*seed, i)) * rate.scored for i, rate in enumerate(rates))
    return figure({of: (part, rate.scored, 0) for of, part, rate in zip(names, drawn, rates, strict=True)})


def _num_scored(counted: Sequence[Counts]) -> int:
    """Solutions whose second solutions were compared with the first."""
    return sum(counts["after"].scored > 0 for counts in counted)


def _unseen_gain(gain: float, size: int, seed: Sequence[int]) -> Any:
    """Values that the gain may have where it is the same in all of so many solutions.

    The share of solutions for which it is so has Jeffreys' posterior; of the others nobody knows more than that each
    may gain all or lose all.
    """
    rng = np.random.default_rng(list(seed))
    alike = rng.beta(size + 0.5, 0.5, RESAMPLES)
    return gain * alike + (1 - alike) * rng.choice((-1.0, 1.0), RESAMPLES)


def _around(value: float, ends: tuple[float | None, float | None]) -> tuple[float | None, float | None]:
    """An interval that holds the value itself: one at the end of what is possible lies beyond most of what is drawn."""
    low, high = ends
    return (None, None) if low is None or high is None else (min(low, value), max(high, value))


def _draw(parts: tuple[Callable[[Sums], Any], tuple[str, ...]], columns: Mapping[str, Any], seed: Sequence[int]) -> Any:
    """A figure's values over the solutions drawn again, NaN where a drawing has nothing to take it from."""
    figure, rates = parts
    data = [row for name in rates for row in columns[name]]
    size = len(data[0])

    def statistic(*drawn: Any, axis: int) -> Any:
        sums = [row.sum(axis=axis) for row in drawn]
        return figure({name: (sums[3 * i], sums[3 * i + 1], sums[3 * i + 2]) for i, name in enumerate(rates)})

    with warnings.catch_warnings():
        # It complains of drawings without a value; the drawings themselves are what is used here.
        warnings.simplefilter("ignore", DegenerateDataWarning)
        found = bootstrap(
            data,
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=max(1, _BATCH // size),
            method="percentile",
            rng=np.random.default_rng(list(seed)),
        )
    return found.bootstrap_distribution


def _ends(draws: Any, level: float) -> tuple[float | None, float | None]:
    """The middle `level` of the drawings that have a value."""
    if draws is None or np.isnan(draws).all():
        return None, None
    low, high = np.nanquantile(draws, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)

"""Intervals and p-values of counts, against scipy's own distributions and against counting by hand."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom, binomtest

from mcts.estimates import interval, p_greater, side
from schemas import Estimate


def counts(correct, scored, unscored=0):
    return Estimate(correct=correct, scored=scored, unscored=unscored)


ESTIMATES = st.integers(0, 60).flatmap(
    lambda scored: st.builds(counts, st.integers(0, scored), st.just(scored), st.integers(0, 9))
)
LEVELS = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99])


@given(ESTIMATES, LEVELS)
def test_an_interval_holds_the_middle_of_the_jeffreys_posterior(estimate, level):
    low, high = interval(estimate, level)
    posterior = beta(estimate.correct + 0.5, estimate.scored - estimate.correct + 0.5)
    assert low == (pytest.approx(posterior.ppf((1 - level) / 2)) if estimate.correct else 0)
    assert high == (pytest.approx(posterior.ppf((1 + level) / 2)) if estimate.correct < estimate.scored else 1)


@given(ESTIMATES.filter(lambda estimate: estimate.scored), LEVELS)
def test_an_interval_lies_within_the_exact_one_and_around_the_rate(estimate, level):
    low, high = interval(estimate, level)
    exact = binomtest(estimate.correct, estimate.scored).proportion_ci(level, method="exact")
    assert exact.low - 1e-9 <= low <= estimate.rate <= high <= exact.high + 1e-9


@given(ESTIMATES, LEVELS)
def test_unscored_outcomes_do_not_move_an_interval(estimate, level):
    assert interval(estimate, level) == interval(counts(estimate.correct, estimate.scored), level)


def test_without_scored_outcomes_any_rate_is_possible():
    assert interval(counts(0, 0, 5), 0.9) == (0.0, 1.0)
    assert side(counts(0, 0, 5), 0.5, 0.9) == "unclear"


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("scored", [4, 8, 16, 40])
def test_intervals_cover_the_true_rate_as_often_as_they_say(scored, level):
    bounds = np.array([interval(counts(correct, scored), level) for correct in range(scored + 1)])
    rates = (np.arange(2_000) + 0.5) / 2_000
    covered = (bounds[:, :1] <= rates) & (rates <= bounds[:, 1:])
    chances = binom.pmf(np.arange(scored + 1)[:, None], scored, rates)
    assert (covered * chances).sum(axis=0).mean() == pytest.approx(level, abs=0.03)


def test_intervals_cover_the_true_rate_in_a_simulation():
    rng = np.random.default_rng(1)
    rates = rng.uniform(size=4_000)
    hits = rng.binomial(12, rates)
    bounds = {correct: interval(counts(correct, 12), 0.9) for correct in range(13)}
    covered = [bounds[hit][0] <= rate <= bounds[hit][1] for hit, rate in zip(hits, rates, strict=True)]
    assert 0.88 < np.mean(covered) < 0.92


@pytest.mark.parametrize(
    ("correct", "scored", "threshold", "expected"),
    [
        (8, 8, 0.5, "above"),
        (0, 8, 0.5, "below"),
        (4, 8, 0.5, "unclear"),
        (0, 8, 0.0, "unclear"),
        (8, 8, 1.0, "unclear"),
        (1, 8, 0.0, "above"),
    ],
)
def test_a_side_is_named_only_where_the_whole_interval_is_on_it(correct, scored, threshold, expected):
    assert side(counts(correct, scored), threshold, 0.9) == expected


def test_a_side_is_found_at_a_lower_level_with_fewer_counts():
    assert side(counts(3, 4), 0.5, 0.95) == "unclear"
    assert side(counts(3, 4), 0.5, 0.5) == "above"


# Both margins fixed: the chance that `better` holds at least as many of the right outcomes as it does.
@pytest.mark.parametrize(
    ("better", "worse", "expected"),
    [
        ((4, 8), (0, 8), comb(8, 4) / comb(16, 4)),  # 70/1820
        ((3, 8), (0, 8), comb(8, 3) / comb(16, 3)),  # 56/560
        ((8, 8), (0, 8), 1 / comb(16, 8)),
        ((1, 1), (0, 1), 1 / 2),
        ((2, 3), (1, 3), (comb(3, 2) * 3 + 1) / comb(6, 3)),
        ((3, 4), (0, 2), comb(4, 3) / comb(6, 3)),
        ((0, 8), (4, 8), 1.0),
        ((0, 8), (0, 8), 1.0),
        ((8, 8), (8, 8), 1.0),
    ],
)
def test_p_is_the_share_of_equally_extreme_splits(better, worse, expected):
    assert p_greater(counts(*better), counts(*worse)) == pytest.approx(expected)


def test_against_none_of_eight_it_takes_four_of_eight():
    assert round(p_greater(counts(4, 8), counts(0, 8)), 4) == 0.0385
    assert p_greater(counts(3, 8), counts(0, 8)) > 0.05


@pytest.mark.parametrize(("better", "worse"), [((0, 0, 4), (0, 8)), ((8, 8), (0, 0, 4)), ((0, 0), (0, 0))])
def test_without_counts_nothing_is_significant(better, worse):
    assert p_greater(counts(*better), counts(*worse)) == 1.0


@given(ESTIMATES, ESTIMATES)
def test_p_is_the_hypergeometric_tail(better, worse):
    right, drawn, total = better.correct + worse.correct, better.scored, better.scored + worse.scored
    tail = sum(
        comb(right, hits) * comb(total - right, drawn - hits)
        for hits in range(better.correct, min(right, drawn) + 1)
        if drawn - hits <= total - right
    )
    expected = tail / comb(total, drawn) if better.scored and worse.scored else 1.0
    assert p_greater(better, worse) == pytest.approx(expected, rel=1e-9)

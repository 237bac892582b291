"""The posterior against enumeration and closed forms; the probes against worlds whose truth is known."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import beta
from scipy.stats import beta as beta_distribution

from benchmarks.first_error import RULES, WORLDS, draw, measure
from mcts.first_error import ChangePoint, first_error_belief, first_error_posterior
from schemas import Estimate

MODEL = ChangePoint()
ZERO_AFTER = ChangePoint(drift=1e-3, after=((0.0, 1.0),))
"""One rate before that stays where it is, none after: the posterior has a closed form."""


def prefixes(*pairs):
    return [Estimate(correct=correct, scored=scored) for correct, scored in pairs]


COUNTS = st.integers(0, 12).flatmap(lambda scored: st.tuples(st.integers(0, scored), st.just(scored)))


def enumerated(counts, model, cells=20):
    """{(step, rates of all prefixes): weight} by going through every way the chain can run.

    Written from the model's description alone: cells of equal width, their midpoints, the random walk's density at
    them, weighted by the logit's width around each, a ten-thousandth of restarts.
    """
    middles = [(i + 0.5) / cells for i in range(cells)]
    prior = beta_distribution(*model.before)
    start = [prior.cdf((i + 1) / cells) - prior.cdf(i / cells) for i in range(cells)]
    logits = [math.log(p / (1 - p)) for p in middles]
    widths = [
        (logits[min(i + 1, cells - 1)] - logits[max(i - 1, 0)]) / (2 if 0 < i < cells - 1 else 1) for i in range(cells)
    ]

    def walk(i):
        row = [w * math.exp(-(((z - logits[i]) / model.drift) ** 2) / 2) for z, w in zip(logits, widths, strict=True)]
        return [0.9999 * value / sum(row) + 0.0001 * start[j] for j, value in enumerate(row)]

    walks = [walk(i) for i in range(cells)]

    def seen(rate, t):
        correct, scored = counts[t]
        return math.comb(scored, correct) * rate**correct * (1 - rate) ** (scored - correct)

    weights = {}
    for error in range(len(counts)):
        for run in itertools.product(range(cells), repeat=error + 1):
            weight = start[run[0]] * math.prod(walks[a][b] for a, b in itertools.pairwise(run))
            weight *= math.prod(seen(middles[i], t) for t, i in enumerate(run))
            allowed = [(q, w) for q, w in model.after if q <= model.max_ratio * middles[run[-1]]]
            for low, share in allowed:
                rest = math.prod(seen(low, t) for t in range(error + 1, len(counts)))
                rates = tuple(middles[i] for i in run) + (low,) * (len(counts) - error - 1)
                joint = weight * rest * share / sum(w for _, w in allowed)
                weights[error, rates] = weights.get((error, rates), 0.0) + joint
    return weights


def share(weights, test):
    return sum(w for key, w in weights.items() if test(*key)) / sum(weights.values())


SMALL = [
    [(3, 4), (0, 4)],
    [(6, 8), (4, 4), (0, 4)],
    [(6, 8), (0, 0), (1, 4)],
    [(0, 8), (0, 4), (3, 4)],
    [(2, 2), (2, 2), (2, 2)],
]


@pytest.mark.parametrize("counts", SMALL)
@pytest.mark.parametrize("model", [MODEL, ChangePoint(before=(1.0, 1.0), drift=0.5, after=((0.0, 1.0), (0.2, 3.0)))])
def test_the_posterior_is_the_sum_over_all_ways_the_chain_can_run(counts, model):
    weights = enumerated(counts, model)
    expected = [share(weights, lambda step, _, s=s: step == s) for s in range(len(counts))]
    assert first_error_posterior(prefixes(*counts), model) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("counts", SMALL)
def test_the_expected_rates_and_the_gain_are_those_of_the_same_sum(counts):
    weights, belief = enumerated(counts, MODEL), first_error_belief(prefixes(*counts), MODEL)

    def mean(t, *, is_broken):
        among = {key: w for key, w in weights.items() if (key[0] < t) == is_broken}
        return sum(w * rates[t] for (_, rates), w in among.items()) / sum(among.values())

    steps = range(len(counts))
    assert belief.whole == pytest.approx([mean(t, is_broken=False) for t in steps], rel=1e-9)
    assert belief.broken[1:] == pytest.approx([mean(t, is_broken=True) for t in steps[1:]], rel=1e-9)
    for t in steps[1:]:
        # Mutual information from the joint table of (prefix t is broken, its next rollout comes out right).
        p = share(weights, lambda step, _, t=t: step < t)
        joint = {}
        for is_broken, weight in ((True, p), (False, 1 - p)):
            rate = mean(t, is_broken=is_broken)
            joint[is_broken, True], joint[is_broken, False] = weight * rate, weight * (1 - rate)
        right = joint[True, True] + joint[False, True]
        told = sum(
            mass * math.log(mass / ((p if is_broken else 1 - p) * (right if came else 1 - right)))
            for (is_broken, came), mass in joint.items()
            if mass > 0
        )
        assert belief.gain()[t] == pytest.approx(told, rel=1e-6, abs=1e-12)


def test_without_drift_and_recovery_the_posterior_is_a_ratio_of_beta_functions():
    # Prefixes 3/4, 1/4 and 0/4: step 0 cannot be it, since rollouts after it came out right. Step 1: 4 of 8 at one
    # rate; step 2: 4 of 12. The grid has 20 cells: within 2 %.
    one, two = beta(2 + 4, 1 + 4), beta(2 + 4, 1 + 8)
    found = first_error_posterior(prefixes((3, 4), (1, 4), (0, 4)), ZERO_AFTER)
    assert found == pytest.approx([0.0, one / (one + two), two / (one + two)], rel=0.02, abs=1e-6)


@given(st.lists(COUNTS, min_size=1, max_size=30))
def test_the_posterior_is_a_distribution_over_the_steps(counts):
    belief = first_error_belief(prefixes(*counts), MODEL)
    assert belief.posterior.shape == belief.whole.shape == belief.broken.shape == (len(counts),)
    assert (belief.posterior >= 0).all()
    assert belief.posterior.sum() == pytest.approx(1.0)
    assert ((belief.whole > 0) & (belief.whole < 1)).all()
    assert ((belief.broken >= 0) & (belief.broken < 0.5)).all()
    assert (belief.gain() >= -1e-12).all()


def test_without_counts_every_step_is_as_likely():
    assert first_error_posterior([Estimate()] * 5, MODEL) == pytest.approx([0.2] * 5)


def test_the_only_step_is_the_error():
    assert first_error_posterior(prefixes((7, 8)), MODEL) == pytest.approx([1.0])


def test_unscored_rollouts_tell_nothing():
    some = [Estimate(correct=3, scored=4), Estimate(), Estimate(scored=4)]
    more = [Estimate(correct=3, scored=4, unscored=9), Estimate(unscored=50), Estimate(scored=4, unscored=1)]
    assert (first_error_posterior(some, MODEL) == first_error_posterior(more, MODEL)).all()


def test_a_rate_that_drifts_down_is_no_error_yet():
    drifting = prefixes((7, 8), (6, 8), (5, 8), (4, 8), (4, 8), (0, 8), (0, 8))
    assert first_error_posterior(drifting, MODEL).argmax() == 4


def test_a_policy_that_recovers_now_and_then_hides_no_error():
    assert first_error_posterior(prefixes((14, 16), (15, 16), (2, 16), (1, 16)), MODEL)[1] > 0.9


@pytest.mark.parametrize("many", [10**4, 10**9, 10**12])
def test_huge_counts_neither_overflow_nor_lose_the_step(many):
    belief = first_error_belief(prefixes((many, many), (many, many), (0, many), (0, many)), MODEL)
    assert belief.posterior == pytest.approx([0, 1, 0, 0], abs=1e-6)
    assert belief.next_probe() in (1, 2, 3)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), min_size=2, max_size=6))
def test_no_counts_are_impossible(counts):
    belief = first_error_belief(prefixes(*((right, right + wrong) for right, wrong in counts)), MODEL)
    assert belief.posterior.sum() == pytest.approx(1.0)
    assert np.isfinite(belief.gain()).all()


def test_a_very_long_path_without_success_is_no_trouble():
    belief = first_error_belief(prefixes((900, 1000), *[(0, 10_000)] * 999), MODEL)
    assert np.isfinite(belief.posterior).all()
    assert belief.posterior.argmax() == 0
    assert np.isfinite(belief.gain()).all()


@given(st.lists(COUNTS, min_size=2, max_size=10))
def test_the_next_probe_is_where_the_gain_is_largest(counts):
    belief = first_error_belief(prefixes(*counts), MODEL)
    chosen = belief.next_probe()
    assert 1 <= chosen <= len(counts) - 1
    assert belief.gain()[chosen] == max(belief.gain()[1:])


def test_with_nothing_known_the_probe_goes_near_the_middle():
    assert first_error_belief([Estimate()] * 9, MODEL).next_probe() in (3, 4, 5)


def test_a_path_of_one_step_has_no_prefix_to_probe():
    with pytest.raises(ValueError, match="a path of 1 steps") as caught:
        first_error_belief([Estimate()], MODEL).next_probe()
    assert str(caught.value) == "a path of 1 steps has no inner prefix to probe; its only step is the error"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"before": (0.0, 1.0)}, "before must be two Beta parameters above 0, got (0.0, 1.0)"),
        ({"drift": 0.0}, "drift must be above 0, got 0.0"),
        ({"max_ratio": 0.0}, "max_ratio must lie above 0 and not above 1, got 0.0"),
        ({"after": ((1.0, 1.0),)}, "after needs rates in 0..1 with weights above 0, got 1.0 with 1.0"),
        ({"after": ((0.0, 0.0),)}, "after needs rates in 0..1 with weights above 0, got 0.0 with 0.0"),
        ({"after": ((0.1, 1.0),)}, "after needs a rate of at most 0.0125 (max_ratio / 40), got ((0.1, 1.0),)"),
        ({"after": ()}, "after needs a rate of at most 0.0125 (max_ratio / 40), got ()"),
    ],
)
def test_priors_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(ValueError, match="got") as caught:
        ChangePoint(**wrong)
    assert str(caught.value) == message


# Of the worlds in shared/reference/first_error_sim.py with 24 steps: the figure to reach is 0.94 at 60 rollouts. With
# 400 paths three standard errors are 0.036.
def test_first_errors_are_found_as_often_and_as_cheaply_as_they_should():
    figure = measure("reference", 24, "ours", draw("reference", 24, 400))
    assert figure.found >= 0.94 - 0.036
    assert figure.rollouts <= 60


@pytest.mark.parametrize("world", WORLDS)
def test_on_no_world_does_a_path_cost_more_or_find_less_than_with_two_constant_rates(world):
    paths = draw(world, 24, 150)
    ours, theirs = measure(world, 24, "ours", paths), measure(world, 24, "two rates 0.9", paths)
    spread = 3 * math.sqrt(2 * 0.25 / len(paths)) / 2
    assert ours.found >= theirs.found - spread
    assert ours.rollouts <= 1.15 * theirs.rollouts


@pytest.mark.parametrize("world", WORLDS)
def test_a_stated_confidence_is_true(world):
    figure = measure(world, 24, "ours", draw(world, 24, 150))
    error = math.sqrt(0.9 * 0.1 / 150)
    assert figure.calibration_at_90 >= 0.9 - 3 * error
    assert figure.claimed >= 0.9


def test_the_published_rules_do_as_published():
    rng = np.random.default_rng(0)
    certain = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    assert RULES["shepherd 8"](certain, rng) == (2, 40, 1.0)
    # Middles 3 (none right), 1 (right), 2 (right): after two right steps, so step 2 is the first wrong one.
    assert RULES["omega 8"](certain, rng) == (2, 24, 1.0)

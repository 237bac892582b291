"""The change-point posterior against numerical integration; the probes against worlds whose truth is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from mcts.first_error import ChangePoint, first_error_posterior, next_probe
from schemas import Estimate

MODEL = ChangePoint()


def prefixes(*pairs):
    return [Estimate(correct=correct, scored=scored) for correct, scored in pairs]


COUNTS = st.integers(0, 12).flatmap(lambda scored: st.tuples(st.integers(0, scored), st.just(scored)))


def integrated(counts, model):
    """The posterior by integrating the likelihood over both rates numerically, one step after the other."""

    def evidence(part, prior):
        a, b = prior
        right, wrong = sum(c for c, _ in part), sum(n - c for c, n in part)
        weighed = quad(lambda x: x**right * (1 - x) ** wrong, 0, 1, weight="alg", wvar=(a - 1, b - 1))[0]
        return weighed / quad(lambda _: 1.0, 0, 1, weight="alg", wvar=(a - 1, b - 1))[0]

    weights = [
        evidence(counts[: s + 1], model.before) * evidence(counts[s + 1 :], model.after) for s in range(len(counts))
    ]
    return np.array(weights) / sum(weights)


@pytest.mark.parametrize(
    "counts",
    [
        [(3, 4), (0, 4)],
        [(6, 8), (4, 4), (0, 4), (1, 4)],
        [(6, 8), (0, 0), (0, 0), (0, 2), (0, 0)],
        [(0, 8), (0, 4), (0, 4)],
        [(2, 2), (2, 2), (2, 2)],
        [(1, 8), (5, 8), (0, 8), (3, 8)],
    ],
)
@pytest.mark.parametrize("model", [MODEL, ChangePoint(before=(1.0, 1.0), after=(0.5, 3.0))])
def test_the_posterior_is_the_integral_over_both_rates(counts, model):
    assert first_error_posterior(prefixes(*counts), model) == pytest.approx(integrated(counts, model), rel=1e-6)


def test_the_posterior_of_a_case_worked_out_by_hand():
    # Flat priors; prefixes 1/1 and 0/1. Error at step 0: B(2,1) B(1,2) = 1/4. At step 1: B(2,2) B(1,1) = 1/6.
    flat = ChangePoint(before=(1.0, 1.0), after=(1.0, 1.0))
    assert first_error_posterior(prefixes((1, 1), (0, 1)), flat) == pytest.approx([0.6, 0.4])


@given(st.lists(COUNTS, min_size=1, max_size=30))
def test_the_posterior_is_a_distribution_over_the_steps(counts):
    posterior = first_error_posterior(prefixes(*counts), MODEL)
    assert posterior.shape == (len(counts),)
    assert (posterior >= 0).all()
    assert posterior.sum() == pytest.approx(1.0)


def test_without_counts_every_step_is_as_likely():
    assert first_error_posterior([Estimate()] * 5, MODEL) == pytest.approx([0.2] * 5)


def test_the_only_step_is_the_error():
    assert first_error_posterior(prefixes((7, 8)), MODEL) == pytest.approx([1.0])


def test_unscored_rollouts_tell_nothing():
    some = [Estimate(correct=3, scored=4), Estimate(), Estimate(scored=4)]
    more = [Estimate(correct=3, scored=4, unscored=9), Estimate(unscored=50), Estimate(scored=4, unscored=1)]
    assert (first_error_posterior(some, MODEL) == first_error_posterior(more, MODEL)).all()


@pytest.mark.parametrize("many", [10**4, 10**9, 10**12])
def test_huge_counts_neither_overflow_nor_lose_the_step(many):
    posterior = first_error_posterior(prefixes((many, many), (many, many), (0, many), (0, many)), MODEL)
    assert posterior == pytest.approx([0, 1, 0, 0], abs=1e-6)
    probe = next_probe(prefixes((many, many), (many, many), (0, many), (0, many)), posterior, MODEL)
    assert probe in (1, 2, 3)


def test_a_very_long_path_without_success_is_no_trouble():
    posterior = first_error_posterior(prefixes((900, 1000), *[(0, 10_000)] * 999), MODEL)
    assert np.isfinite(posterior).all()
    assert posterior.argmax() == 0


def information(counts, posterior, model):
    """Mutual information between the change-point and one rollout, for each prefix, from the joint table."""
    steps = len(counts)
    rates = []
    for (a, b), included in ((model.before, lambda i, s: i <= s), (model.after, lambda i, s: i > s)):
        right = total = 0.0
        for s in range(steps):
            right += posterior[s] * sum(c for i, (c, _) in enumerate(counts) if included(i, s))
            total += posterior[s] * sum(n for i, (_, n) in enumerate(counts) if included(i, s))
        rates.append((a + right) / (a + b + total))
    told = {}
    for length in range(1, steps):
        joint = {}
        for s in range(steps):
            rate = rates[1] if s < length else rates[0]
            joint[s, True], joint[s, False] = posterior[s] * rate, posterior[s] * (1 - rate)
        outcome = {came: sum(joint[s, came] for s in range(steps)) for came in (True, False)}
        told[length] = sum(p * math.log(p / (posterior[s] * outcome[came])) for (s, came), p in joint.items() if p > 0)
    return told


@settings(deadline=None)
@given(st.lists(COUNTS, min_size=2, max_size=10))
def test_the_next_probe_tells_most_about_the_first_error(counts):
    posterior = first_error_posterior(prefixes(*counts), MODEL)
    told = information(counts, posterior, MODEL)
    chosen = next_probe(prefixes(*counts), posterior, MODEL)
    assert 1 <= chosen <= len(counts) - 1
    assert told[chosen] == pytest.approx(max(told.values()), rel=1e-6, abs=1e-12)


def test_with_nothing_known_the_probe_halves_the_path():
    posterior = first_error_posterior([Estimate()] * 9, MODEL)
    assert next_probe([Estimate()] * 9, posterior, MODEL) in (4, 5)


def test_a_path_of_one_step_has_no_prefix_to_probe():
    with pytest.raises(ValueError, match="a path of 1 steps") as caught:
        next_probe([Estimate()], np.array([1.0]), MODEL)
    assert str(caught.value) == "a path of 1 steps has no inner prefix to probe; its only step is the error"


def located(rates, *, confidence, wave, rng):
    """(step, rollouts): probes a path whose prefixes come out right at known rates until one step is sure enough."""
    steps = len(rates)
    right, total = [0] * steps, [0] * steps
    while True:
        seen = prefixes(*zip(right, total, strict=True))
        posterior = first_error_posterior(seen, MODEL)
        if posterior.max() >= confidence or sum(total) >= 400:
            return int(posterior.argmax()), sum(total)
        probe = next_probe(seen, posterior, MODEL)
        right[probe] += int(rng.binomial(wave, rates[probe]))
        total[probe] += wave


def world(steps, rng):
    """(first wrong step, rate of each prefix): rates wobble before the error and are mostly 0 after it."""
    error = int(rng.integers(steps))
    high, low = rng.uniform(0.3, 0.95), rng.choice([0.0, 0.0, 0.03, 0.1])
    return error, [float(np.clip(high + rng.normal(0, 0.05), 0.05, 1)) if i <= error else low for i in range(steps)]


# `found` and `rollouts` of "bayes 0.9" and "bayes 0.95" in shared/reference/first_error_sim.py with 3,000 worlds, and
# three standard errors of 400 worlds each way.
@pytest.mark.parametrize(
    ("steps", "confidence", "found", "rollouts"),
    [(6, 0.9, 0.947, 36.7), (12, 0.9, 0.933, 41.6), (24, 0.9, 0.920, 48.0), (24, 0.95, 0.944, 64.4)],
)
def test_first_errors_are_found_as_often_and_as_cheaply_as_by_the_reference(steps, confidence, found, rollouts):
    rng = np.random.default_rng(5)
    worlds = [world(steps, rng) for _ in range(400)]
    results = [located(rates, confidence=confidence, wave=1, rng=rng) for _, rates in worlds]
    hits = [step == error for (step, _), (error, _) in zip(results, worlds, strict=True)]
    assert np.mean(hits) >= found - 3 * math.sqrt(found * (1 - found) / 400)
    spent = [used for _, used in results]
    assert np.mean(spent) <= rollouts + 3 * np.std(spent) / math.sqrt(400)

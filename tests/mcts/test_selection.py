"""Each selection rule on numbers worked out by hand."""

import math
import typing

import pytest

from mcts.selection import RULES, RolloutStats, Stats, greedy_value, omega, puct, uct
from mcts.settings import OmegaConstants, SearchSettings


def stats(visits=4, value_sum=2.0, parent_visits=16, prior=0.25):
    return Stats(visits=visits, value_sum=value_sum, parent_visits=parent_visits, prior=prior)


def test_value_is_the_mean_over_visits_and_0_before_any():
    assert stats(visits=4, value_sum=3.0).value == 0.75
    assert stats(visits=0, value_sum=0.0).value == 0.0


def test_greedy_value_looks_at_the_value_alone():
    assert greedy_value(stats(), 100.0) == 0.5
    assert greedy_value(stats(parent_visits=1000, prior=1.0), 100.0) == 0.5
    assert greedy_value(stats(visits=0, value_sum=0.0), 100.0) == 0.0


def test_uct_adds_the_root_of_twice_the_logarithm():
    # 1/2 + 0.7 sqrt(2 ln 16 / 4); ln 16 = 2.772589, so the root is sqrt(1.386294) = 1.177410
    assert uct(stats(), 0.7) == pytest.approx(0.5 + 0.7 * 1.1774100)
    assert uct(stats(), 0.0) == 0.5


def test_uct_takes_what_was_never_visited_first():
    assert uct(stats(visits=0, value_sum=0.0), 0.7) == math.inf


def test_uct_without_visits_of_the_parent_adds_nothing():
    assert uct(stats(visits=1, value_sum=1.0, parent_visits=0), 0.7) == 1.0
    assert uct(stats(visits=1, value_sum=1.0, parent_visits=1), 0.7) == 1.0


def test_puct_weighs_the_prior():
    assert puct(stats(), 0.4) == pytest.approx(0.5 + 0.4 * 0.25 * 4 / 5)
    assert puct(stats(visits=0, value_sum=0.0), 2.0) == pytest.approx(0 + 2.0 * 0.25 * 4 / 1)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_virtual_visit_lowers_every_score(rule):
    seen = stats(visits=4, value_sum=2.0)
    waiting = stats(visits=5, value_sum=2.0, parent_visits=17)
    assert rule(waiting, 0.7) < rule(seen, 0.7)


def test_a_setting_names_each_rule():
    named = typing.get_args(typing.get_type_hints(SearchSettings)["rule"])
    assert set(named) == {*RULES, "omega"}


def rollout_stats(value=0.75, length=500, visits=3, total_visits=16):
    return RolloutStats(value=value, length=length, visits=visits, total_visits=total_visits)


def test_omega_adds_up_a_likely_slip_a_short_rollout_and_a_rare_visit():
    # 0.5^(1/4) 0.9^1 + 0.125 sqrt(16) / (1 + 3); 0.5^(1/4) is 0.8408964
    assert omega(rollout_stats(), 0.125, OmegaConstants()) == pytest.approx(0.8408964 * 0.9 + 0.125)
    # 0.5^(1/2) 0.9^(1000/2000) + 0.125 sqrt(16) / 1; 0.7071068 * 0.9486833
    assert omega(rollout_stats(value=0.5, length=1000, visits=0), 0.125, OmegaConstants(length=2000)) == pytest.approx(
        0.7071068 * 0.9486833 + 0.5
    )


def test_omega_prefers_what_the_paper_prefers():
    score = omega(rollout_stats(), 0.125, OmegaConstants())
    assert omega(rollout_stats(value=0.9), 0.125, OmegaConstants()) > score, "a state that is mostly right"
    assert omega(rollout_stats(length=100), 0.125, OmegaConstants()) > score, "a short rollout"
    assert omega(rollout_stats(visits=2), 0.125, OmegaConstants()) > score, "a state that was seldom selected"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"alpha": 0.0}, "alpha must lie above 0 and not above 1, got 0.0"),
        ({"beta": 1.5}, "beta must lie above 0 and not above 1, got 1.5"),
        ({"length": 0}, "length must be above 0 tokens, got 0"),
    ],
)
def test_constants_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(ValueError, match="got") as caught:
        OmegaConstants(**wrong)
    assert str(caught.value) == message

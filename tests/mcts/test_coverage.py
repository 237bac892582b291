"""Intervals cover the truth as often as they say; what selection has steered does not."""

import math

import pytest

from benchmarks.estimates import measure, observe


@pytest.fixture(scope="module")
def nodes():
    seen = list(observe(90, seed=7))
    assert len(seen) >= 2000
    return seen


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
def test_the_interval_of_direct_rollouts_covers_the_true_rate_at_its_level(nodes, level):
    direct, _ = measure(nodes, level)
    assert direct.coverage >= level - 3 * math.sqrt(level * (1 - level) / len(nodes))


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
def test_an_interval_over_visited_descendants_does_not(nodes, level):
    _, pooled = measure(nodes, level)
    assert pooled.coverage < level - 5 * math.sqrt(level * (1 - level) / len(nodes))


def test_unscored_rollouts_are_there_and_in_no_estimate(nodes):
    assert any(node.direct.unscored for node in nodes)
    assert all(0 <= node.direct.correct <= node.direct.scored for node in nodes)

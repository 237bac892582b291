"""A run that is killed again and again, against one that is not; `benchmarks.kills` does the same at more moments."""

import random

import pytest

from benchmarks.kill_points import Point
from benchmarks.kills import choose_points, measure, summary

NUM_PARTS = 4
SHARD_SIZE = 3


def parts() -> list[list[Point]]:
    """What the test kills at: a chain for each part, so that several workers share them."""
    return choose_points(random.Random(6), num_chains=NUM_PARTS, times=2, shard_size=SHARD_SIZE)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(NUM_PARTS))
def test_what_is_killed_and_started_again_is_what_was_never_killed(part):
    points = parts()[part]
    (chain,) = measure(num_problems=4 * SHARD_SIZE, shard_size=SHARD_SIZE, chains=[points])
    said = summary([chain])
    # Points behind which a run has ended are not reached: in all parts together it is killed at least 20 times.
    assert said["kills"] >= len(points) - 2 >= 5, chain.unreached
    # One client with 64 places, and answers on their way to the disk: what a kill can cost at most.
    assert [kill.point for kill in chain.kills if kill.paid_twice > kill.in_flight] == []
    assert said["in_flight"] > 0
    assert chain.paid == chain.needed + said["paid_twice"]
    counts = {name: said[name] for name in ("duplicates", "missing", "surplus", "collapsed", "identical")}
    assert counts == {"duplicates": 0, "missing": 0, "surplus": 0, "collapsed": 0, "identical": True}


@pytest.mark.parametrize("chains", [parts(), choose_points(random.Random(0), num_chains=6, times=3, shard_size=6)])
def test_points_are_spread_over_all_stages_and_every_file_that_is_written(chains):
    points = [point for chain in chains for point in chain]
    assert len(points) >= 28
    assert {point.match for point in points if point.kind == "calls"} == {
        "solve", "critique", "meta", "compose", "refine",
    }  # fmt: skip
    assert {point.kind for point in points} == {
        "calls", "opened", "committing", "committed", "half_written", "replacing", "replaced",
    }  # fmt: skip
    assert {"*.parquet", "done/*.json"} < {point.match for point in points}
    assert all(chain[-1].match.startswith("out/") for chain in chains)

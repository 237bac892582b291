"""A run that is killed again and again, against one that is not; `benchmarks.kills` does the same at more moments."""

import random

import pytest

from benchmarks.kill_points import Point
from benchmarks.kills import choose_points, measure, summary


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_is_killed_and_started_again_is_what_was_never_killed():
    points = [
        Point(kind="calls", match="solve", nth=5, delay=0.02),
        Point(kind="committing", nth=6, delay=0.0003),
        Point(kind="calls", match="critique", nth=2, delay=0.01),
        Point(kind="committed", nth=4),
        Point(kind="half_written", nth=2),
        Point(kind="replacing", match="*.parquet", nth=15),
        Point(kind="replaced", match="done/*.json"),
        Point(kind="calls", match="refine", nth=3, delay=0.02),
        Point(kind="replacing", match="out/run.json"),
        Point(kind="replaced", match="out/COMPLETED"),
    ]
    (chain,) = measure(num_problems=6, shard_size=2, chains=[points])
    said = summary([chain])
    assert said["kills"] == len(points), chain.unreached
    # One client with 64 places, and answers on their way to the disk: what a kill can cost at most.
    assert [kill.point for kill in chain.kills if kill.paid_twice > kill.in_flight] == []
    assert said["in_flight"] > 0
    assert chain.paid == chain.needed + said["paid_twice"]
    counts = {name: said[name] for name in ("duplicates", "missing", "surplus", "collapsed", "identical")}
    assert counts == {"duplicates": 0, "missing": 0, "surplus": 0, "collapsed": 0, "identical": True}


def test_points_are_spread_over_all_stages_and_every_file_that_is_written():
    chains = choose_points(random.Random(0), num_chains=6, is_quick=False)
    points = [point for chain in chains for point in chain]
    assert len(points) >= 20
    assert {point.match for point in points if point.kind == "calls"} == {
        "solve", "critique", "meta", "compose", "refine",
    }  # fmt: skip
    assert {point.kind for point in points} == {
        "calls", "opened", "committing", "committed", "half_written", "replacing", "replaced",
    }  # fmt: skip
    assert all(chain[-1].match.startswith("out/") for chain in chains)

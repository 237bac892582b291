"""Parts of a cluster that are killed with -9 while a run works there; `benchmarks.flink_kills` prints the table."""

from collections.abc import Iterator

import pytest

from benchmarks.flink_cluster import FlinkCluster, flink_cluster
from benchmarks.flink_kills import PARTS, Moment, Stand, Trial, run_trial

EARLY, LATE = Moment(task="solve", nth=60), Moment(task="refine", nth=8)


def cost(trial: Trial) -> dict[str, object]:
    """What a kill may have cost, but for calls that were in flight."""
    names = ("duplicates", "missing", "surplus", "collapsed", "again", "identical", "counts")
    return {name: getattr(trial, name) for name in names}


NOTHING = {"duplicates": 0, "missing": 0, "surplus": 0, "collapsed": 0, "again": 0, "identical": True, "counts": True}


@pytest.mark.parametrize("moment", [EARLY, LATE], ids=["early", "late"])
@pytest.mark.parametrize("part", PARTS)
def test_what_is_killed_costs_what_was_in_flight_and_changes_nothing(tmp_path, small_stand, part, moment):
    trial = run_trial(small_stand, part, moment, tmp_path)
    # Without a JobManager or whoever submits there is nobody who could go on: the same command does.
    codes = {"job manager": (2, 0), "submitter": (-9, 0)}
    assert trial.codes == codes.get(part, (0,))
    assert trial.in_flight > 0
    assert trial.paid_twice <= trial.in_flight
    assert trial.paid == trial.needed + trial.paid_twice
    assert cost(trial) == NOTHING
    assert small_stand.cluster.running_jobs() == []


@pytest.mark.parametrize("part", ["task manager", "worker"])
def test_a_kill_costs_no_more_with_the_journal_in_redis(tmp_path, small_stand, part, monkeypatch):
    for name, value in small_stand.cluster.environment.items():
        monkeypatch.setenv(name, value)
    journal = small_stand.cluster.redis.url(f"kill{part.replace(' ', '')}")
    trial = run_trial(small_stand, part, EARLY, tmp_path, journal)
    assert trial.codes == (0,)
    assert trial.paid_twice <= trial.in_flight
    assert cost(trial) == NOTHING


@pytest.fixture
def plain_cluster(session_cluster, tmp_path) -> Iterator[FlinkCluster]:
    """A cluster with Flink's own settings: it fails a batch job at the first loss."""
    del session_cluster  # It skips where there is no Flink.
    with flink_cluster(tmp_path / "cluster", restarts=False) as cluster:
        yield cluster


def test_where_flink_does_not_restart_what_was_lost_the_run_submits_it_again(tmp_path, plain_cluster, small_stand):
    stand = Stand(plain_cluster, small_stand.server, small_stand.words, small_stand.reference)
    trial = run_trial(stand, "worker", EARLY, tmp_path)
    assert trial.codes == (0,)
    assert sorted(plain_cluster.jobs().values()) == ["FAILED", "FINISHED"]
    assert trial.paid_twice <= trial.in_flight
    assert cost(trial) == NOTHING

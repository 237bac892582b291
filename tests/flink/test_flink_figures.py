"""What the figures of `benchmarks.flink_kills` and `benchmarks.flink` mean, on hand-made cases and without a Flink."""

import os
import signal
import subprocess
import time

import pytest

from benchmarks import flink_cluster
from benchmarks.flink import Figure, print_table
from benchmarks.flink_cluster import FlinkCluster
from benchmarks.flink_kills import at_halt
from benchmarks.kill_points import Call


def call(seed: int, arrived: float, answered: float | None, *, num_samples: int = 1) -> Call:
    return Call(text="t", seed=seed, num_samples=num_samples, task="solve", arrived=arrived, answered=answered)


def test_at_the_halt_are_those_that_what_is_left_has_sent():
    # At 1.5: the calls of 0 and 0.5, which are lost, and those of 1.2 and 1.5.
    calls = [call(0, 0.0, None), call(1, 0.5, None), call(2, 1.2, 1.9), call(3, 1.5, 1.8), call(4, 1.95, 2.0)]
    assert at_halt(calls, killed=1.0) == 4


def test_the_next_attempts_calls_are_not_at_the_halt():
    """It comes within less than the pause, and its first call asks for what was lost."""
    lost = [call(0, 0.0, None), call(1, 0.5, None)]
    again = [call(0, 2.0, 2.2), call(1, 2.0, 2.2), call(5, 2.1, 2.3)]
    assert at_halt([*lost, *again], killed=1.0) == 2


def test_a_call_of_several_samples_is_the_next_attempts_where_one_of_them_was_asked_for_since_the_kill():
    calls = [call(0, 0.0, None), call(8, 1.5, None), call(6, 2.0, 3.0, num_samples=3), call(9, 2.1, 3.0)]
    assert at_halt(calls, killed=1.0) == 2


def test_after_a_pause_calls_are_the_next_attempts():
    calls = [call(0, 0.0, None), call(1, 3.1, 4.0), call(2, 3.2, 4.0)]
    assert at_halt(calls, killed=1.0) == 1


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> FlinkCluster:
    """One that nothing of is started."""
    monkeypatch.setattr(flink_cluster, "find_jar", lambda: tmp_path / "none.jar")
    return FlinkCluster(tmp_path)


def test_the_moment_of_a_kill_is_that_of_the_last_signal(cluster, monkeypatch):
    moments: list[float] = []
    send = os.kill

    def kill(pid: int, number: int) -> None:
        moments.append(time.monotonic())
        send(pid, number)

    processes = [subprocess.Popen(["sleep", "60"]) for _ in range(3)]
    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(cluster, "_await", lambda *_: moments.append(time.monotonic()))
    killed = cluster.kill([process.pid for process in processes])
    assert moments[2] <= killed <= moments[3]
    assert [process.wait(10) for process in processes] == [-signal.SIGKILL] * 3


def test_the_pool_is_killed_with_its_workers_or_alone(cluster, monkeypatch):
    monkeypatch.setattr(cluster, "workers", lambda: [11, 12])
    cluster._pool = subprocess.Popen(["sleep", "60"])
    try:
        assert cluster.victims("pool") == [cluster._pool.pid]
        assert cluster.victims("pool and workers") == [cluster._pool.pid, 11, 12]
        assert cluster.victims("worker") == [11]
    finally:
        cluster.kill([cluster._pool.pid])
    assert cluster._pool.poll() == -signal.SIGKILL


def test_slots_are_idle_outside_the_working_phase(capsys):
    """Half of the slots for 60 of 80 seconds."""
    figure = Figure(
        task_managers=2,
        requests=120,
        working_secs=60.0,
        around_secs=20.0,
        utilisation=0.5,
        tail_share=0.1,
        digests={},
    )
    assert figure.utilisation_job == pytest.approx(0.375)
    print_table([figure])
    row = capsys.readouterr().out.splitlines()[-2]
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        *("2", "120", "60.0", "20.0", "2.0", "0.500", "0.375", "10.0% of the time"),
    ]

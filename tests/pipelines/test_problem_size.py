"""The figures of `benchmarks.problem_size`, on hand-made cases."""

from benchmarks.kill_points import Call
from benchmarks.problem_size import at_once


def call(arrived: float, answered: float | None) -> Call:
    return Call(text="t", seed=0, num_samples=1, task="solve", arrived=arrived, answered=answered)


def test_calls_are_at_the_server_from_their_arrival_to_their_answer():
    assert at_once([call(0, 3), call(1, 2), call(2.5, 4), call(2.75, 5), call(3.5, 6)]) == 3


def test_one_that_comes_when_another_is_answered_is_beside_it_no_more():
    assert at_once([call(0, 1), call(1, 2)]) == 1


def test_one_that_was_never_answered_stays():
    assert at_once([call(0, None), call(5, 6)]) == 2
    assert at_once([]) == 0

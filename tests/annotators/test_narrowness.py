import math

import pytest

from annotators.narrowness import path_likeness


def test_the_same_way_twice_is_as_like_as_can_be():
    assert path_likeness((0.0, 1.5, 0.0, 0.3), (0.0, 1.5, 0.0, 0.3)) == pytest.approx(1)
    # How sure a model is overall is no part of it, where it is unsure is.
    assert path_likeness((0.0, 1.5, 0.0, 0.3), (0.0, 0.5, 0.0, 0.1)) == pytest.approx(1)
    assert path_likeness((1.0, 0.0), (0.0, 1.0)) == 0


def test_an_angle_of_45_degrees():
    assert path_likeness((1.0, 1.0), (2.0, 0.0)) == pytest.approx(1 / math.sqrt(2))


def test_a_longer_way_is_less_like_by_its_length():
    # The shorter one goes on with zeros: cosine 3 * 3 / (3 * 5), times 1 of 2 tokens.
    assert path_likeness((3.0,), (3.0, 4.0)) == pytest.approx(9 / 15 / 2)
    assert path_likeness((3.0, 4.0), (3.0,)) == pytest.approx(9 / 15 / 2)


@pytest.mark.parametrize(("first", "second"), [((), (1.0,)), ((1.0,), ()), ((0.0, 0.0), (1.0,)), ((), ())])
def test_where_there_is_nothing_to_compare_nobody_can_tell(first, second):
    assert path_likeness(first, second) is None

"""When a critic's try is taken: every condition on hand-made critiques, and the sizes of the waves."""

import pytest

from annotators.fitting import misfit, next_tries
from tests.annotators.annotated import alone, critique, pair

PAIR = pair(
    prefix=("Step 1: 7 + 8 = 15\n",), wrong=("Step 2: so\n", "Step 3: 15 + 5 = 19\n", "Answer: 19"), first_error=2
)
"""Parts from the right path in its second step, goes wrong in its third."""


@pytest.mark.parametrize(("most", "waves"), [(16, [1, 1, 2, 4, 8]), (1, [1]), (5, [1, 1, 2, 1]), (3, [1, 1, 1])])
def test_each_wave_is_as_large_as_all_before_it(most, waves):
    asked: list[int] = []
    while number := next_tries(sum(asked), most):
        asked.append(number)
    assert asked == waves


@pytest.mark.parametrize(
    ("until", "fitting"),
    [
        ("readable", {None, 0, 1, 2}),
        ("label", {0, 1, 2}),
        ("step_labels", {2}),
        ("fork", {1}),
    ],
)
def test_what_fits_a_wrong_path(until, fitting):
    named = (None, 0, 1, 2)
    assert {step for step in named if not misfit(critique(PAIR, wrong=step), PAIR, until, None)} == fitting


@pytest.mark.parametrize(
    ("until", "fitting"), [("readable", {None, 0}), ("label", {None}), ("step_labels", {None}), ("fork", set())]
)
def test_what_fits_a_right_path(until, fitting):
    path = alone()
    assert {step for step in (None, 0) if not misfit(critique(path, wrong=step), path, until, None)} == fitting


@pytest.mark.parametrize(
    ("named", "text", "trouble"),
    [
        (2, "Step 3 is wrong: the sum is too low.", ""),
        (1, "Step 2 is wrong: the sum is too low.", "names step 2 first, anna has step 3"),
        (None, "No step is wrong.", "names no step first, anna has step 3"),
        (2, "Step 3 is wrong: it should be twenty.", "gives the answer away: twenty"),
        (2, "Step 3 is wrong: the reference solution has more.", "talks of a reference"),
    ],
)
def test_a_clean_critique_says_what_the_first_one_says_and_nothing_of_the_answer(named, text, trouble):
    first = critique(PAIR, wrong=2)
    again = critique(PAIR, agent="bert", wrong=named, text=text)
    assert misfit(again, PAIR, "clean", first) == trouble

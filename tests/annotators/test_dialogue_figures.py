"""Figures by round and by combination, on dialogues that can be counted by hand."""

import pytest

from annotators.dialogue_figures import figures_by_combination, figures_by_round
from schemas import Estimate
from tests.annotators.made_dialogues import RIGHT, WORSE, WRONG, attempt, dialogue, told

R, W, X = attempt(RIGHT, "correct"), attempt(WRONG), attempt(WORSE)
U = attempt(("hm",), "unscored")
DIALOGUES = [
    dialogue((R, None), name="at once"),
    dialogue((W, told()), (R, None), name="second"),
    dialogue((W, told(right=True, step=None)), (W, told(step=0)), (W, told(step=0)), (X, None), ended="max_rounds"),
    dialogue((R, told()), (W, told()), (R, None), name="given up and found again"),
    dialogue((W, told()), (U, None), ended="unscored", name="unscored"),
    dialogue((W, None), ended="leaks_answer", name="leak"),
]


def test_who_has_ended_stands_where_it_ended():
    zero, one, two, three = figures_by_round(DIALOGUES)
    assert zero.estimate == Estimate(correct=2, scored=5)
    # Right: at once and second; wrong: the third and the one that was given up; one is unscored.
    assert one.estimate == Estimate(correct=2, scored=4, unscored=1)
    assert two.estimate == Estimate(correct=3, scored=4, unscored=1)
    assert three.estimate == two.estimate
    assert [each.held for each in (zero, one, two, three)] == [5, 4, 2, 1]
    assert [(each.gained, each.lost) for each in (zero, one, two, three)] == [(0, 0), (1, 1), (1, 0), (0, 0)]


def test_why_is_counted_in_the_round_that_did_not_help():
    assert [each.why for each in figures_by_round(DIALOGUES)] == [
        {}, {"wrong_feedback": 1}, {"not_followed": 1}, {"too_hard": 1},
    ]  # fmt: skip


def test_feedback_is_compared_with_the_truth_where_that_is_known():
    known = figures_by_round(DIALOGUES, lambda problem, steps: 1)
    assert [each.why for each in known] == [
        {}, {"wrong_feedback": 1}, {"wrong_feedback": 1}, {"wrong_feedback": 1},
    ]  # fmt: skip


def test_figures_of_one_giver():
    (only,) = figures_by_combination(DIALOGUES)
    assert (only.name, only.dialogues, only.rejected, only.masked) == ("teacher", 5, 1, 0)
    assert only.first == Estimate(correct=2, scored=5)
    assert only.last == Estimate(correct=3, scored=4, unscored=1)
    # Right at the first, second, never, first attempt.
    assert only.mean_reciprocal_rank == pytest.approx((1 + 1 / 2 + 0 + 1) / 4)


def test_combinations_stand_apart():
    more = {"giver": "execution", "verbal": "expert"}
    both = [
        dialogue((W, told(masked=("20",))), (R, None), execution="full", **more),
        dialogue((W, told()), (W, None), execution="none", **more, ended="max_rounds"),
    ]
    full, none = figures_by_combination(both)
    assert (full.name, full.masked, full.last.rate) == ("tests full, words expert", 1, 1.0)
    assert (none.name, none.masked, none.last.rate) == ("tests none, words expert", 0, 0.0)


def test_nothing_is_nothing():
    assert figures_by_round([]) == ()
    assert figures_by_combination([]) == ()
    (unscored,) = figures_by_combination([dialogue((U, None), ended="unscored")])
    assert (unscored.mean_reciprocal_rank, unscored.last.rate) == (0.0, None)

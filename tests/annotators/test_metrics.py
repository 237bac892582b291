"""Figures of critics and of rules, on cases small enough to count by hand."""

import pytest

from annotators.metrics import Agreement, Located, compare_decisions, score_locations, strict_rate
from schemas import Estimate

ERRONEOUS = (
    Located(label=2, named=2),
    Located(label=2, named=0),
    Located(label=1, named=None),
    Located(label=0, named=3),
    Located(label=0, named=None, scored=False),
)
CORRECT = (Located(label=None, named=None), Located(label=None, named=1), Located(label=None, named=None))


def test_locations_are_scored_as_processbench_defines_it():
    score = score_locations([*ERRONEOUS, *CORRECT])
    assert score.on_erroneous == Estimate(correct=1, scored=4, unscored=1)
    assert score.on_correct == Estimate(correct=2, scored=3)
    # 2 * 1/4 * 2/3 / (1/4 + 2/3) = (1/3) / (11/12)
    assert score.f1 == pytest.approx(4 / 11)
    # 2 * 1/5 * 2/3 / (1/5 + 2/3) = (4/15) / (13/15)
    assert score.strict_f1 == pytest.approx(4 / 13)


def test_a_verdict_may_be_right_where_the_step_is_not():
    # Of the erroneous: 2, 0 and 3 are named, None is wrong, one is unread; of the correct: two of three.
    assert score_locations([*ERRONEOUS, *CORRECT]).verdict == Estimate(correct=5, scored=7, unscored=1)


def test_distance_counts_where_both_name_a_step():
    # |2 - 2|, |0 - 2|, |3 - 0|
    assert score_locations([*ERRONEOUS, *CORRECT]).distance == pytest.approx(5 / 3)


def test_what_was_not_read_is_never_a_right_none():
    score = score_locations([Located(label=None, named=None, scored=False), Located(label=1, named=1, scored=False)])
    assert score.on_correct == score.on_erroneous == Estimate(unscored=1)
    assert score.verdict == Estimate(unscored=2)
    assert (score.f1, score.strict_f1, score.distance) == (None, 0.0, None)


@pytest.mark.parametrize("items", [ERRONEOUS, CORRECT, ()])
def test_there_is_no_f1_without_both_kinds_of_solutions(items):
    assert score_locations(items).f1 is None
    assert score_locations(items).strict_f1 is None


@pytest.mark.parametrize("named", [None, 0])
def test_a_critic_who_always_says_the_same_gets_no_f1(named):
    score = score_locations([Located(label=1, named=named), Located(label=None, named=named)])
    assert score.f1 == 0.0


def test_a_share_of_nothing_is_none():
    assert strict_rate(Estimate()) is None
    assert strict_rate(Estimate(correct=1, scored=1, unscored=3)) == 0.25


KEPT = [True] * 6 + [False] * 4
RIGHT = [True, True, True, True, False, False, True, False, False, False]


def test_a_rule_against_people():
    agreement = compare_decisions(KEPT, RIGHT)
    assert agreement == Agreement(kept_right=4, kept_wrong=2, dropped_right=1, dropped_wrong=3)
    assert agreement.accuracy == pytest.approx(7 / 10)
    assert agreement.precision == pytest.approx(4 / 6)
    assert agreement.recall == pytest.approx(4 / 5)
    # By chance 0.6 * 0.5 + 0.4 * 0.5 = 0.5; (0.7 - 0.5) / 0.5
    assert agreement.kappa == pytest.approx(0.4)


def test_keeping_everything_agrees_no_more_than_chance():
    agreement = compare_decisions([True] * 10, RIGHT)
    assert (agreement.accuracy, agreement.precision, agreement.recall) == (0.5, 0.5, 1.0)
    assert agreement.kappa == 0.0


def test_figures_that_cannot_be_had_are_none():
    nothing = compare_decisions([], [])
    assert (nothing.accuracy, nothing.precision, nothing.recall, nothing.kappa) == (None, None, None, None)
    dropped = compare_decisions([False, False], [False, False])
    assert (dropped.accuracy, dropped.precision, dropped.recall, dropped.kappa) == (1.0, None, None, None)


def test_decisions_and_labels_go_in_pairs():
    with pytest.raises(ValueError, match="shorter"):
        compare_decisions([True, False], [True])


def test_a_step_beside_the_first_wrong_one_is_within_one():
    # Named 2 for 2; 0 for 2, 3 for 0 and none for 1 are not; one is unread.
    assert score_locations([*ERRONEOUS, *CORRECT]).within_one == Estimate(correct=1, scored=4, unscored=1)
    beside = [Located(label=2, named=1), Located(label=2, named=3), Located(label=2, named=4)]
    assert score_locations(beside).within_one == Estimate(correct=2, scored=3)

"""Rounds of critique and correction on four solutions, counted by hand."""

import pytest

from annotators.closed_loop import TRANSITIONS, figures_by_round
from annotators.evaluation import Judged
from mcts.estimates import interval
from schemas import Estimate


def step(before: str, after: str, named: int | None = 0) -> Judged:
    label = None if before == "unscored" else before
    return Judged(label=label, is_located=False, named=named, first_outcome=before, second_outcomes=(after,))


CHAINS = (
    (step("incorrect", "correct"), step("correct", "correct", named=None)),
    (step("incorrect", "incorrect"), step("incorrect", "correct")),
    (step("correct", "incorrect"), step("incorrect", "unscored", named=None)),
    # It has no second round.
    (step("correct", "correct", named=None),),
)


def rounds(*chains):
    return figures_by_round(chains, level=0.95, interval=interval, seed=(0,))


def test_each_round_is_told_from_where_it_began_and_from_the_start():
    first, second = rounds(*CHAINS)
    assert (first.round, second.round) == (1, 2)
    # Two of four are right at the start and two after the first round: one came, one went.
    assert (first.right.counts, first.gain.value) == (Estimate(correct=2, scored=4), 0.0)
    # After the second round two of the two that are known are right; at the start none of these two was.
    assert (second.right.counts, second.gain.value) == (Estimate(correct=2, scored=2, unscored=2), 1.0)


def test_transitions_are_those_of_the_round_alone():
    first, second = rounds(*CHAINS)
    assert first.transitions == dict(zip(TRANSITIONS, (1, 1, 1, 1, 0), strict=True))
    assert second.transitions == dict(zip(TRANSITIONS, (1, 0, 1, 0, 2), strict=True))
    assert second.figures["incorrect_to_correct"].counts == Estimate(correct=1, scored=1, unscored=1)


def test_a_verdict_is_judged_by_what_the_round_began_with():
    first, second = rounds(*CHAINS)
    # The third calls a right solution wrong.
    assert first.figures["verdict"].counts == Estimate(correct=3, scored=4)
    # Then the same one calls a wrong solution right.
    assert second.figures["verdict"].counts == Estimate(correct=2, scored=3)


def test_a_solution_that_comes_back_from_no_answer_is_no_turn_and_counts_since_the_start():
    _, second = rounds((step("incorrect", "unscored"), step("unscored", "correct")))
    assert second.transitions["unscored"] == 1
    assert (second.right.counts, second.gain.value) == (Estimate(correct=1, scored=1), 1.0)


def test_without_solutions_there_is_no_round():
    assert rounds() == ()


def test_several_second_solutions_are_several_turns():
    both = Judged(
        label="incorrect", is_located=False, first_outcome="incorrect", second_outcomes=("correct", "incorrect")
    )
    (only,) = rounds((both,))
    assert (only.transitions["incorrect_to_correct"], only.transitions["incorrect_to_incorrect"]) == (1, 1)
    assert only.right.value == pytest.approx(0.5)

"""Rows of dialogues: which there are, what stands in them, and that rejected ones have none."""

import msgspec
import pytest

from annotators.dialogue import DIALOGUE_ROW_REJECTIONS
from annotators.dialogue_rows import dialogue_rows
from annotators.exports import ExportSettings
from annotators.rounds import RowKind
from schemas import Dialogue, DistillRow, Estimate, Record, RefineChatRow, RefineRow, Rejection
from tests.annotators.made_dialogues import RIGHT, WORSE, WRONG, attempt, dialogue, told
from tests.annotators.made_exports import CONTEXT

ALL: tuple[RowKind, ...] = ("refine_chat", "refine", "distill", "feedback")
SOLVED = dialogue(
    (attempt(WORSE), told("Look at step 1.")),
    (attempt(WRONG), told("Not [masked].", masked=("20",))),
    (attempt(RIGHT, "correct"), None),
)


def rows_of(item: Dialogue, *kinds: RowKind) -> list[Record]:
    return list(dialogue_rows(item, kinds or ALL, ExportSettings(), CONTEXT))


def reason_of(left_out: Record) -> tuple[str, str]:
    assert isinstance(left_out, Rejection)
    assert (left_out.stage, left_out.problem_id) == ("WriteShards", "q1")
    assert left_out.reason in DIALOGUE_ROW_REJECTIONS
    return left_out.reason, left_out.detail


def test_the_conversation_ends_in_the_right_attempt_on_which_alone_the_loss_is_taken():
    (row,) = rows_of(SOLVED, "refine_chat")
    assert isinstance(row, RefineChatRow)
    assert [message.role for message in row.messages] == ["user", "assistant", "user", "assistant", "user", "assistant"]
    assert [message.content for message in row.messages] == [
        "Solve.\nCalculate 7 + 8 + 5.\n",
        "".join(WORSE),
        "Look at step 1.\nAgain.",
        "".join(WRONG),
        "Not [masked].\nAgain.",
        "".join(RIGHT),
    ]
    assert row.prompt == row.messages[:-1]
    assert row.completion == row.messages[-1:]
    assert (row.first_outcome, row.second_outcome) == ("incorrect", "correct")


def test_each_round_is_a_row_with_both_outcomes_and_its_one_second_solution_as_an_estimate():
    first, second = (row for row in rows_of(SOLVED, "refine") if isinstance(row, RefineRow))
    assert (first.first_answer, first.critique, first.second_answer) == (
        "".join(WORSE), "Look at step 1.", "".join(WRONG),
    )  # fmt: skip
    assert (first.first_outcome, first.second_outcome, first.transition_reward) == ("incorrect", "incorrect", 0.0)
    assert (second.first_outcome, second.second_outcome, second.transition_reward) == ("incorrect", "correct", 1.0)
    assert second.with_critique == Estimate(correct=1, scored=1)
    assert second.without_critique == Estimate()


def test_distillation_goes_from_the_problem_to_what_feedback_led_to():
    (row,) = rows_of(SOLVED, "distill")
    assert isinstance(row, DistillRow)
    assert (row.task, row.round, row.outcome_before, row.outcome_after) == ("solve", 2, "incorrect", "correct")
    assert [message.content for message in row.messages] == ["Solve.\nCalculate 7 + 8 + 5.\n", "".join(RIGHT)]
    assert row.origin.root_estimate == Estimate(correct=1, scored=8)


def test_nobody_learns_to_write_a_mask():
    row, left_out = rows_of(SOLVED, "feedback")
    assert isinstance(row, DistillRow)
    assert (row.task, row.round, row.completion[0].content) == ("feedback", 0, "Look at step 1.")
    assert "".join(WORSE).splitlines()[0] in row.prompt[0].content
    assert reason_of(left_out) == ("masked", "")
    peeking = dialogue((attempt(), told("The reference solution adds first.")), (attempt(RIGHT, "correct"), None))
    assert [reason_of(each) for each in rows_of(peeking, "feedback")] == [("talks_of_reference", "")]
    by_rule = dialogue((attempt(), told(by_model=False)), (attempt(RIGHT, "correct"), None))
    assert rows_of(by_rule, "feedback") == []


FINE = "No step is wrong. The solution is correct."


@pytest.mark.parametrize(
    ("first", "outcome", "words", "reason"),
    [
        (WRONG, "incorrect", FINE, "wrong_verdict"),
        (WRONG, "incorrect", "Look at step 1.", ""),
        (WRONG, "incorrect", "Think again.", ""),  # It says nothing that could be wrong.
        (RIGHT, "correct", FINE, ""),
        (RIGHT, "correct", "Well done.", ""),
        (RIGHT, "correct", "The first wrong step is step 1. The solution is incorrect.", "wrong_verdict"),
    ],
)
def test_feedback_that_the_checker_contradicts_is_learned_only_where_all_feedback_is(first, outcome, words, reason):
    item = dialogue((attempt(first, outcome), told(words)), (attempt(RIGHT, "correct"), None))
    (whatever,) = rows_of(item, "feedback")
    (agreeing,) = rows_of(item, "agreeing_feedback")
    assert isinstance(whatever, DistillRow)
    if reason:
        assert reason_of(agreeing) == (reason, "")
    else:
        assert agreeing == whatever


def test_a_row_of_one_round_speaks_of_no_round_before_it():
    """Only the attempt before and its critique are shown: of those a second attempt may speak."""
    later = ("As in attempt 1, but with 15.\n", *RIGHT[1:])
    item = dialogue((attempt(WORSE), told()), (attempt(WRONG), told()), (attempt(later, "correct"), None))
    first, left_out = rows_of(item, "refine")
    assert isinstance(first, RefineRow)
    assert reason_of(left_out) == ("talks_of_feedback", "attempt 1")
    shown = ("The critique of my last solution is right.\n", *RIGHT[1:])
    item = dialogue((attempt(WORSE), told()), (attempt(WRONG), told()), (attempt(shown, "correct"), None))
    assert [type(row) for row in rows_of(item, "refine")] == [RefineRow, RefineRow]
    # In the first round there is one attempt to speak of.
    item = dialogue((attempt(WORSE), told()), (attempt(later, "correct"), None))
    assert [type(row) for row in rows_of(item, "refine")] == [RefineRow]


def test_where_so_many_tokens_are_a_step_rows_show_the_numbers_that_feedback_speaks_of():
    cut = ("First 7 + 8", " = 14\n", "Answer: 19")
    item = dialogue((attempt(cut), told("Step 2 is wrong.")), (attempt(RIGHT, "correct"), None))
    (row,), (chat,) = rows_of(item, "refine"), rows_of(item, "refine_chat")
    assert isinstance(row, RefineRow)
    assert isinstance(chat, RefineChatRow)
    assert row.first_answer == chat.prompt[1].content == "Step 1: First 7 + 8\nStep 2: = 14\nAnswer: 19"
    assert row.second_answer == chat.completion[0].content == "".join(RIGHT)


def test_feedback_that_is_learned_is_the_givers_words_alone_and_its_prompt_shows_what_they_are_about():
    tried = "These answers were tried and are wrong: 21, 19."
    ran = "The program compiles. 1 of 2 tests fail.\nassert add(1, 2) == 3"
    whole = msgspec.structs.replace(told("Look at step 1."), text=f"{ran}\n\nLook at step 1.\n{tried}", checked=ran)
    item = dialogue((attempt(WORSE), whole), (attempt(RIGHT, "correct"), None))
    (row,) = rows_of(item, "feedback")
    assert isinstance(row, DistillRow)
    assert row.completion[0].content == "Look at step 1."
    assert row.prompt[0].content.endswith(f"Answer: 21\n\nRun:\n{ran}")
    # What the actor was told is told in full where a prompt, not a completion, is made of it.
    (chat,) = rows_of(item, "refine_chat")
    assert isinstance(chat, RefineChatRow)
    assert chat.prompt[2].content == f"{whole.text}\nAgain."


@pytest.mark.parametrize(
    ("giver", "asked"),
    [
        ("critic", "Criticise."),
        ("teacher", "Criticise."),
        ("aspects", "By aspects."),
        ("execution", "In words."),
    ],
)
def test_feedback_is_asked_for_in_the_form_in_which_such_a_giver_writes_it(giver, asked):
    """A prompt that wants a verdict at the end would teach to leave it out, where no giver was asked for one."""
    item = dialogue((attempt(WORSE), told("Helpful: no.")), (attempt(RIGHT, "correct"), None), giver=giver)
    (row,) = rows_of(item, "feedback")
    assert isinstance(row, DistillRow)
    assert row.prompt[0].content == "\n".join((asked, item.problem.question, "".join(WORSE)))


def test_an_attempt_that_speaks_of_feedback_is_no_solution_of_the_problem_alone():
    talking = ("The critique is right: 7 + 8 = 15.\n", *RIGHT[1:])
    item = dialogue((attempt(), told()), (attempt(talking, "correct"), None))
    (left_out,) = rows_of(item, "distill")
    assert reason_of(left_out) == ("talks_of_feedback", "The critique")
    # A conversation shows what it speaks of.
    assert isinstance(rows_of(item, "refine_chat")[0], RefineChatRow)


def test_a_right_attempt_that_stays_right_is_not_distilled():
    kept = dialogue((attempt(RIGHT, "correct"), told()), (attempt(RIGHT, "correct"), None), ended="max_rounds")
    assert rows_of(kept, "distill") == []
    assert [row.transition_reward for row in rows_of(kept, "refine") if isinstance(row, RefineRow)] == [0.2]


@pytest.mark.parametrize("ended", ["leaks_answer", "no_feedback"])
def test_a_rejected_dialogue_has_no_row_even_of_its_rounds_before(ended):
    rejected = dialogue(
        (attempt(WORSE), told()), (attempt(RIGHT, "correct"), told()), (attempt(WRONG), None), ended=ended
    )
    assert rows_of(rejected) == []


def test_a_first_attempt_that_is_right_and_a_last_one_that_is_wrong_give_no_conversation():
    assert rows_of(dialogue((attempt(RIGHT, "correct"), None)), "refine_chat") == []
    lost = dialogue((attempt(), told()), (attempt(WORSE), None), ended="max_rounds")
    assert rows_of(lost, "refine_chat") == []


def test_what_nobody_could_score_is_in_no_row():
    unknown = dialogue((attempt(), told()), (attempt(("hm",), "unscored"), None), ended="unscored")
    assert rows_of(unknown) == []


def test_only_what_is_wanted_is_made():
    assert {type(row) for row in rows_of(SOLVED)} == {RefineChatRow, RefineRow, DistillRow, Rejection}
    assert list(dialogue_rows(SOLVED, (), ExportSettings(), CONTEXT)) == []
    ids = [row.key if isinstance(row, Rejection) else row.id for row in rows_of(SOLVED)]  # type: ignore[attr-defined]
    assert len(set(ids)) == len(ids) == 6

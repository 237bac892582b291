"""Rows of critiques: what is imitated, what is preferred, and what came of refining."""

from importlib import resources

import msgspec
import pytest

from annotators.critique_rows import critique_rows
from annotators.exports import ExportSettings
from schemas import (
    CritiqueDpoRow,
    Estimate,
    Message,
    PathAlone,
    PathPair,
    Record,
    RefineChatRow,
    RefineRow,
    SftRow,
    Template,
    Verified,
)
from tests.annotators.annotated import alone, critique, pair, problem
from tests.annotators.made_exports import CONTEXT, FORKED, examined, named, of, verified


def test_sft_rows_teach_the_critique_from_problem_and_solution():
    (row,) = critique_rows(examined(FORKED, verified(named("anna"), FORKED)), ExportSettings(), CONTEXT)
    assert row.messages == row.prompt + row.completion
    assert row.messages == (
        Message(
            role="user",
            content=(
                "Criticise.\nCalculate 7 + 8 + 5.\nStep 1: 7 + 8 = 15\nStep 2: 15 + 5 = 21\nStep 3: hm\nAnswer: 21"
            ),
        ),
        Message(
            role="assistant",
            content=(
                'Step 1 is right: It holds.\nStep 2 is wrong: "15 + 5 = 21". The sum is less.\n'
                "The first wrong step is step 2. The solution is incorrect."
            ),
        ),
    )
    assert (row.label, row.first_error, row.view) == ("incorrect", 1, "blind")
    assert row.with_critique == Estimate(correct=8, scored=8)
    assert row.with_placebo == Estimate(correct=1, scored=8)
    assert row.without_critique == Estimate(correct=0, scored=7, unscored=1)


@pytest.mark.parametrize("view", ["blind", "contrastive", "reference"])
def test_sft_messages_hold_neither_the_gold_answer_nor_the_right_branch(view):
    secret = pair(
        problem("What?", "CanaryGold"),
        wrong=("Step 1: bad\n", "Answer: 1"),
        right=("Step 1: CanaryRight\n", "Answer: CanaryGold"),
    )
    said = critique(secret, wrong=0, view=view)
    item = verified(said, secret, refinement="Step 1: CanarySecond\nAnswer: CanaryGold")
    shipped = resources.files("annotators.prompts").joinpath("export_critique.txt").read_text()
    context = msgspec.structs.replace(CONTEXT, critique_instruction=Template(name="export_critique", text=shipped))
    rows = list(critique_rows(examined(secret, item), ExportSettings(), context))
    (row,) = of(SftRow, rows)
    assert "Canary" not in "".join(message.content for message in row.messages)
    (refined,) = of(RefineRow, rows)
    assert "Canary" not in refined.problem + refined.first_answer + refined.critique


def test_a_gap_within_a_solution_does_not_inject():
    path = pair(problem("What is {solution}?", "20"), wrong=("Step 1: {problem}\n", "Answer: 1"))
    (row,) = critique_rows(examined(path, verified(critique(path), path)), ExportSettings(), CONTEXT)
    assert row.messages[0].content == "Criticise.\nWhat is {solution}?\nStep 1: {problem}\nAnswer: 1"


def test_a_lone_paths_critique_is_labelled_correct():
    said = critique(alone(), wrong=None)
    (row,) = critique_rows(examined(alone(), verified(said, alone())), ExportSettings(), CONTEXT)
    assert (row.label, row.first_error) == ("correct", None)


RIGHT_SECOND = "Step 1: 7 + 8 = 15\nStep 2: 15 + 5 = 20\nAnswer: 20\n"
WRONG_SECOND = "Step 1: 7 + 8 = 15\nAnswer: 15\n"


def refined(item: Verified, path: PathPair | PathAlone = FORKED, **settings: bool) -> list[Record]:
    return list(critique_rows(examined(path, item), ExportSettings(**settings), CONTEXT))


def test_a_refine_row_holds_both_answers_with_their_outcomes_and_the_critique_between():
    item = verified(named("anna"), FORKED, correct=6, refinement=RIGHT_SECOND)
    (row,) = of(RefineRow, refined(item))
    assert row.problem == "Calculate 7 + 8 + 5."
    assert row.first_answer == "Step 1: 7 + 8 = 15\nStep 2: 15 + 5 = 21\nStep 3: hm\nAnswer: 21"
    assert row.critique == item.critique.text
    assert row.second_answer == "Step 1: 7 + 8 = 15\nStep 2: 15 + 5 = 20\nAnswer: 20"
    assert (row.first_outcome, row.second_outcome) == ("incorrect", "correct")
    assert (row.decision, row.reasons) == ("kept", ())
    assert row.with_critique == Estimate(correct=6, scored=8)
    assert row.without_critique == Estimate(correct=0, scored=7, unscored=1)


def test_each_outcome_of_second_solutions_has_a_row_of_its_own():
    rows = of(RefineRow, refined(verified(named("anna"), FORKED, refinement=RIGHT_SECOND, wrong=WRONG_SECOND)))
    assert [(row.second_outcome, row.second_answer) for row in rows] == [
        ("correct", RIGHT_SECOND.strip()),
        ("incorrect", WRONG_SECOND.strip()),
    ]
    assert of(RefineRow, refined(verified(named("anna"), FORKED))) == []


def test_a_right_solution_that_is_given_up_makes_a_refine_row():
    said = critique(alone(), wrong=0)
    item = verified(said, alone(), correct=0, reasons=("wrong_verdict", "hurts"), wrong=WRONG_SECOND)
    (row,) = refined(item, alone())
    assert (row.first_outcome, row.second_outcome) == ("correct", "incorrect")
    assert (row.decision, row.reasons) == ("rejected", ("wrong_verdict", "hurts"))


def test_a_critique_that_gives_the_answer_away_makes_no_row():
    item = verified(named("anna"), FORKED, reasons=("leaks_answer",), refinement="Answer: 20", wrong="Answer: 1")
    assert refined(item) == []
    assert list(critique_rows(examined(FORKED), ExportSettings(), CONTEXT)) == []


def test_a_refinement_as_turns_is_attempt_critique_and_second_attempt():
    item = verified(named("anna"), FORKED, refinement=RIGHT_SECOND, wrong=WRONG_SECOND)
    assert of(RefineChatRow, refined(item)) == []
    (row,) = of(RefineChatRow, refined(item, refine_turns=True))
    assert row.prompt == (
        Message(role="user", content="Solve.\nCalculate 7 + 8 + 5.\n"),
        Message(role="assistant", content="Step 1: 7 + 8 = 15\nStep 2: 15 + 5 = 21\nStep 3: hm\nAnswer: 21"),
        Message(
            role="user",
            content=(
                'Step 1 is right: It holds.\nStep 2 is wrong: "15 + 5 = 21". The sum is less.\n'
                "The first wrong step is step 2. The solution is incorrect.\nAgain."
            ),
        ),
    )
    assert row.completion == (Message(role="assistant", content=RIGHT_SECOND.strip()),)
    assert row.messages == row.prompt + row.completion
    assert (row.first_outcome, row.second_outcome) == ("incorrect", "correct")


def test_only_kept_critiques_with_a_right_second_solution_become_turns():
    for item in (
        verified(named("anna"), FORKED, wrong=WRONG_SECOND),
        verified(named("anna"), FORKED, refinement=RIGHT_SECOND, reasons=("no_better_than_none",)),
    ):
        assert of(RefineChatRow, refined(item, refine_turns=True)) == []


def dpo(*items: Verified, **settings: float) -> list[CritiqueDpoRow]:
    return of(CritiqueDpoRow, list(critique_rows(examined(FORKED, *items), ExportSettings(**settings), CONTEXT)))


def kept(agent: str = "anna", length: int = 100, correct: int = 8) -> Verified:
    return verified(named(agent, length), FORKED, correct=correct)


def failed(agent: str = "bert", length: int = 100, correct: int | None = 0) -> Verified:
    return verified(named(agent, length), FORKED, correct=correct, reasons=("wrong_location", "no_better_than_none"))


def test_a_critique_pair_is_a_kept_one_against_a_failed_one():
    (row,) = dpo(failed(length=90), kept())
    assert [message.role for message in row.prompt] == ["user"]
    assert row.chosen == (Message(role="assistant", content="x" * 100),)
    assert row.rejected == (Message(role="assistant", content="x" * 90),)
    assert (row.chosen_message, row.rejected_message) == (row.chosen[0], row.rejected[0])
    assert (row.chosen_estimate.rate, row.rejected_estimate.rate) == (1, 0)
    assert row.rejected_reasons == ("wrong_location", "no_better_than_none")


@pytest.mark.parametrize(
    ("better", "worse", "pairs"), [(8, 6, 1), (8, 7, 0), (8, 8, 0), (4, 8, 0), (2, 0, 1), (1, 0, 0)]
)
def test_a_critique_pair_needs_the_margin(better, worse, pairs):
    assert len(dpo(kept(correct=better), failed(correct=worse))) == pairs


@pytest.mark.parametrize(("longer", "pairs"), [(100, 1), (200, 1), (201, 0), (50, 1), (49, 0)])
def test_a_critique_pair_needs_similar_lengths(longer, pairs):
    assert len(dpo(kept(length=100), failed(length=longer))) == pairs


def test_a_critique_pair_needs_both_measured_and_one_kept():
    assert dpo(kept(), failed(correct=None)) == []
    assert dpo(kept(), kept("bert", correct=0)) == []
    assert dpo(failed("anna", correct=8), failed()) == []
    unscored = verified(named("bert", 100), FORKED, reasons=("help_unscored",))
    unscored = Verified(
        **{name: getattr(unscored, name) for name in unscored.__struct_fields__ if name != "with_critique"},
        with_critique=Estimate(unscored=8),
    )
    assert dpo(kept(), unscored) == []


def test_a_path_gives_one_critique_pair_at_most_the_first_that_fits():
    (row,) = dpo(kept(), kept("cleo"), failed("bert", 300), failed("dora", 80), failed("emil", 90))
    assert row.rejected[0].content == "x" * 80


def marked(*items: Verified) -> list[SftRow]:
    settings = ExportSettings(feedback="both_marked")
    return of(SftRow, list(critique_rows(examined(FORKED, *items), settings, CONTEXT)))


def test_both_kinds_of_feedback_stand_in_the_training_text_each_with_its_mark():
    good, bad = kept(), verified(named("bert"), FORKED, correct=None, reasons=("wrong_location", "too_short"))
    passed, failed_ = marked(good, bad)
    (plain,) = of(SftRow, list(critique_rows(examined(FORKED, good, bad), ExportSettings(), CONTEXT)))
    asked = plain.prompt[0].content
    assert passed.prompt[0].content == f"{asked}\n\nKnown: it passed every test."
    assert failed_.prompt[0].content == f"{asked}\n\nKnown: it failed these tests: wrong location, too short."
    assert passed.completion[0].content == good.critique.text
    assert failed_.completion[0].content == bad.critique.text
    assert passed.messages == passed.prompt + passed.completion
    assert [(row.decision, row.reasons) for row in (passed, failed_, plain)] == [
        ("kept", ()),
        ("rejected", ("wrong_location", "too_short")),
        ("kept", ()),
    ]
    assert (failed_.with_critique, plain.with_critique) == (None, Estimate(correct=8, scored=8))


def test_a_marked_critique_gives_no_answer_away():
    told = verified(named("bert"), FORKED, reasons=("leaks_answer",))
    assert [row.decision for row in marked(kept(), told)] == ["kept"]


def test_a_refine_row_has_the_reward_of_its_transition():
    rows = of(RefineRow, refined(verified(named("anna"), FORKED, refinement=RIGHT_SECOND, wrong=WRONG_SECOND)))
    assert [(row.first_outcome, row.second_outcome, row.transition_reward) for row in rows] == [
        ("incorrect", "correct", 1.0),
        ("incorrect", "incorrect", 0.0),
    ]
    (row,) = refined(verified(critique(alone(), wrong=None), alone(), refinement=RIGHT_SECOND), alone())[1:]
    assert (row.first_outcome, row.second_outcome, row.transition_reward) == ("correct", "correct", 0.2)

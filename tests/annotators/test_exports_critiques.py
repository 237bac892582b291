"""Rows of critiques: what is imitated, what is preferred, and what came of refining."""

from importlib import resources

import msgspec
import pytest

from annotators.critique_rows import critique_rows
from annotators.exports import ExportSettings, numbered_solution
from annotators.verification import UNDECIDED
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


def test_what_nobody_could_decide_about_a_critique_is_no_failure():
    unknown = [verified(named(name), FORKED, reasons=(why,)) for name, why in zip("ab", UNDECIDED, strict=True)]
    assert [row.decision for row in marked(kept(), *unknown)] == ["kept"]
    (row,) = marked(verified(named("bert"), FORKED, reasons=("too_short", "help_unscored")))
    assert row.prompt[0].content.endswith("\n\nKnown: it failed these tests: too short.")


def seen(item: Verified, **how: object) -> Verified:
    return msgspec.structs.replace(item, critique=msgspec.structs.replace(item.critique, **how))


def test_a_prompt_holds_what_the_checker_said_where_a_critic_was_shown_it():
    """The answer is masked there, whoever criticised."""
    wrong = msgspec.structs.replace(FORKED.wrong, message="expected 20, got 21")
    path = msgspec.structs.replace(FORKED, wrong=wrong)
    good, bad = kept(), failed()
    shown, without = "\nAnswer: 21\n\nChecker's message:\nexpected [masked], got 21", "\nAnswer: 21"
    for better, worse, sft_end, dpo_end in (
        (seen(good, saw_message=True), bad, shown, shown),
        (seen(good, saw_message=True, view="reference"), bad, shown, shown),
        (good, seen(bad, saw_message=True), without, shown),
        (good, bad, without, without),
    ):
        rows = list(critique_rows(examined(path, better, worse), ExportSettings(), CONTEXT))
        (sft,), (dpo_row,) = of(SftRow, rows), of(CritiqueDpoRow, rows)
        assert sft.prompt[0].content.endswith(sft_end)
        assert dpo_row.prompt[0].content.endswith(dpo_end)


def test_a_prompt_shows_no_more_of_a_solution_than_the_critics_saw():
    good, bad = (seen(item, view="partial") for item in (kept(), failed()))
    rows = list(critique_rows(examined(FORKED, good, bad), ExportSettings(), CONTEXT))
    (sft,), (dpo_row,) = of(SftRow, rows), of(CritiqueDpoRow, rows)
    part = "Criticise.\nCalculate 7 + 8 + 5.\nStep 1: 7 + 8 = 15\nStep 2: 15 + 5 = 21"
    assert (sft.prompt[0].content, dpo_row.prompt[0].content) == (part, part)
    # A pair of which one saw the whole shows the whole.
    (dpo_row,) = of(CritiqueDpoRow, list(critique_rows(examined(FORKED, good, failed()), ExportSettings(), CONTEXT)))
    assert dpo_row.prompt[0].content == f"{part}\nStep 3: hm\nAnswer: 21"


def test_a_refine_row_shows_the_steps_by_the_numbers_that_its_critique_speaks_of():
    """Cut every so many tokens, the text's own numbers are others."""
    path = pair(wrong=("Step 1: 7 + 8", " = 14\n", "Step 2: 14 + 5", " = 19\n", "Answer: 19"))
    item = verified(critique(path, wrong=1), path, refinement=RIGHT_SECOND)
    numbered = "Step 1: 7 + 8\nStep 2: = 14\nStep 3: Step 2: 14 + 5\nStep 4: = 19\nAnswer: 19"
    rows = refined(item, path, refine_turns=True)
    assert [row.first_answer for row in of(RefineRow, rows)] == [numbered]
    assert [row.prompt[1].content for row in of(RefineChatRow, rows)] == [numbered]


@pytest.mark.parametrize(
    ("domain", "steps", "shown"),
    [
        ("math", ("Step 1: a\n\n", "Step 2: b\n", "Answer: 3"), "Step 1: a\n\nStep 2: b\nAnswer: 3"),
        ("math", ("So:\n", "Step 1: a\n", "Answer: 3"), "Step 1: So:\nStep 2: Step 1: a\nAnswer: 3"),
        ("math", ("It is 3.\n",), "It is 3."),
        ("code", ("def f():\n    pass\n\n", "def g():\n    pass\n"), "def f():\n    pass\n\ndef g():\n    pass"),
    ],
)
def test_a_solution_is_as_it_was_written_where_its_steps_bear_their_numbers(domain, steps, shown):
    asked = msgspec.structs.replace(problem(), domain=domain)
    assert numbered_solution(asked, steps) == shown


def test_a_refine_row_has_the_reward_of_its_transition():
    rows = of(RefineRow, refined(verified(named("anna"), FORKED, refinement=RIGHT_SECOND, wrong=WRONG_SECOND)))
    assert [(row.first_outcome, row.second_outcome, row.transition_reward) for row in rows] == [
        ("incorrect", "correct", 1.0),
        ("incorrect", "incorrect", 0.0),
    ]
    (row,) = refined(verified(critique(alone(), wrong=None), alone(), refinement=RIGHT_SECOND), alone())[1:]
    assert (row.first_outcome, row.second_outcome, row.transition_reward) == ("correct", "correct", 0.2)

"""Whether the action that a critique suggests is the right one: as a test, as a column, as a reward."""

import doctest

import pytest

import annotators.suggestions
from annotators.exports import ExportSettings
from annotators.path_rows import criticise_row
from annotators.rewards import suggestion_reward
from annotators.suggestions import suggestion_holds, suggests
from annotators.verification import VerifySettings, text_reasons
from schemas import PathPair, RlRow
from tests.annotators.annotated import alone, critique, error, pair, praise, problem
from tests.annotators.made_exports import CONTEXT, from_path, interval, of

RIGHT, MADE = "click(400, 135)", "click(80, 225)"


def clicked(*, steps: tuple[str, ...] = ("Step 1: Save comes next.\n", f"Answer: {MADE}")) -> PathPair:
    return pair(problem("Save the file.", RIGHT), wrong=steps, first_error=len(steps) - 1)


def test_the_examples_hold():
    assert doctest.testmod(annotators.suggestions).attempted == 2
    assert doctest.testmod(annotators.suggestions).failed == 0


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("Do click(400, 135) instead.", True),
        ("Do CLICK( 400,135 ).", True),
        ("click(400, 135), not click(80, 225)", True),
        ("click(400, 135), then click(400, 135)", True),
        ("Do click(80, 225).", False),
        ("Do click(400, 136).", False),
        ("Do double_click(400, 135).", False),
        ("Do click(400, 135) or click(1, 2).", False),
        ("The button is at (400, 135).", False),
        ("", False),
    ],
)
def test_one_action_is_suggested_and_it_is_the_right_one(text, holds):
    path = clicked()
    assert suggests(text, RIGHT, "".join(path.steps)) is holds
    said = critique(path, wrong=1, units=(praise(0), error(1, "No.", fix=text)))
    assert suggestion_holds(said, path) is holds
    failed = text_reasons([said], path, (), VerifySettings(tests=("wrong_suggestion",)))[said.id]
    assert ("wrong_suggestion" in failed) is not holds


@pytest.mark.parametrize(("text", "holds"), [("press Enter", True), ("Press  enter.", True), ("Do press Enter", False)])
def test_an_answer_that_is_no_action_is_the_whole_suggestion(text, holds):
    assert suggests(text, "Press Enter", "Answer: wait") is holds


def test_only_the_fix_of_the_first_error_is_looked_at():
    path = clicked(steps=("Step 1: Open comes next.\n", "Step 2: Open is here.\n", f"Answer: {MADE}"))
    late = critique(path, wrong=1, units=(error(1, fix="Look again."), error(2, fix=RIGHT)))
    early = critique(path, wrong=1, units=(error(2, fix="Look again."), error(1, fix=RIGHT)))
    assert [suggestion_holds(said, path) for said in (late, early)] == [False, True]


def test_a_right_action_needs_no_suggestion_and_a_wrong_one_that_is_let_pass_has_none():
    right = alone(problem("Save the file.", RIGHT))
    assert suggestion_holds(critique(right, wrong=None), right)
    assert not suggestion_holds(critique(clicked(), wrong=None), clicked())


def test_where_nobody_asks_for_a_suggestion_none_is_missed():
    path = pair()
    said = critique(path, units=(error(0, "Seven and eight make more."),))
    assert text_reasons([said], path, (), VerifySettings())[said.id] == ()


def row_of(path, **chosen) -> RlRow:
    return criticise_row(path, ExportSettings(**chosen), CONTEXT, interval)


def test_rows_have_the_right_action_where_it_is_asked_for():
    path = clicked()
    assert row_of(path).suggestion == ""
    row = row_of(path, suggestions=True)
    assert row.suggestion == RIGHT
    assert all(RIGHT not in turn.content for turn in row.prompt)
    assert row_of(alone(), suggestions=True).suggestion == ""
    with pytest.raises(ValueError, match="suggestions=True is for rows about paths to criticise, got rl=rollouts"):
        ExportSettings(suggestions=True, rl="rollouts")


def test_a_critique_earns_by_the_action_that_it_suggests():
    rows = [row_of(path, suggestions=True) for path in (clicked(), clicked(), alone())]
    columns = {name: [getattr(row, name) for row in rows] for name in ("suggestion", "solution", "label", "task")}
    ending = " The first wrong step is step 2. The solution is incorrect."
    said = [f'Step 2 is wrong: "{MADE}". Do {RIGHT}.{ending}', f"Do click(1, 2).{ending}", f"Do {RIGHT}."]
    assert suggestion_reward(said, **columns) == [1.0, 0.0, None]
    turns = [[{"role": "assistant", "content": text}] for text in said]
    assert suggestion_reward(turns, **columns) == [1.0, 0.0, None]
    (plain,) = of(RlRow, from_path(clicked()))
    assert suggestion_reward(said[:1], suggestion=[plain.suggestion], solution=[plain.solution]) == [None]

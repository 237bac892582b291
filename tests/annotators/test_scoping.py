"""One piece of feedback where it belongs and where it does not: votes, what fits, and who is preferred."""

import re
from pathlib import Path

import msgspec
import pytest

from annotators.scoping import (
    SCOPE_REJECTIONS,
    ScopeSettings,
    agreed,
    dpo_row,
    fit_of_change,
    loses_answer,
    read_follows,
    read_scope,
    scope_prompt,
)
from schemas import Estimate, Message, Outcome, Scope, Scoped, Template
from tests.annotators.annotated import problem, provenance
from tests.annotators.made_exports import CONTEXT


def scoped(scope: Scope, first: Outcome = "correct", revised: Outcome = "correct") -> Scoped:
    return Scoped(
        id="s1",
        problem=problem(),
        tree_id="tree1",
        node_ids=(1, 2),
        actor=provenance(),
        root_estimate=Estimate(correct=1, scored=2),
        judge=provenance("judge-model"),
        feedback="Say it in words.",
        scope=scope,
        first="Step 1: 20\nAnswer: 20\n",
        revised="Step 1: seven and so on\nAnswer: 20\n",
        first_outcome=first,
        revised_outcome=revised,
    )


@pytest.mark.parametrize(
    ("votes", "said"),
    [
        (("in", "in", "in"), "in"),
        (("in", "in", "near"), None),
        (("in", None, "in"), None),
        ((), None),
        (("out",), "out"),
    ],
)
def test_all_votes_have_to_be_one(votes, said):
    assert agreed(votes) == said
    assert agreed([False, False]) is False


def test_a_vote_is_read_or_is_none():
    assert read_scope('I say {"scope":"near"}.') == "near"
    assert read_follows('{"follows":false}') is False
    for text in ("in", "", '{"scope":"inside"}', '{"follows":"yes"}', "}{"):
        assert (read_scope(text), read_follows(text)) == (None, None)


def test_the_revised_answer_is_preferred_in_scope_and_the_first_one_elsewhere():
    inside, near, outside = (dpo_row(scoped(scope), CONTEXT) for scope in ("in", "near", "out"))
    revised = Message(role="assistant", content="Step 1: seven and so on\nAnswer: 20")
    first = Message(role="assistant", content="Step 1: 20\nAnswer: 20")
    assert (inside.chosen, inside.rejected) == ((revised,), (first,))
    assert (inside.chosen_message, inside.rejected_message) == (revised, first)
    for row in (near, outside):
        assert (row.chosen, row.rejected) == ((first,), (revised,))
    assert inside.prompt == (Message(role="user", content="Solve.\nCalculate 7 + 8 + 5.\n"),)
    assert "words" not in inside.prompt[0].content
    assert (inside.feedback, inside.scope, inside.origin.critic.model) == ("Say it in words.", "in", "judge-model")


def test_outcomes_go_with_their_answers():
    row = dpo_row(scoped("near", first="correct", revised="incorrect"), CONTEXT)
    assert (row.chosen_outcome, row.rejected_outcome) == ("correct", "incorrect")
    row = dpo_row(scoped("in", first="incorrect", revised="unscored"), CONTEXT)
    assert (row.chosen_outcome, row.rejected_outcome) == ("unscored", "incorrect")


@pytest.mark.parametrize(
    ("scope", "first", "revised", "loses"),
    [
        ("in", "correct", "incorrect", True),
        ("in", "correct", "unscored", False),  # Nobody knows.
        ("in", "incorrect", "incorrect", False),
        ("near", "incorrect", "correct", True),
        ("out", "correct", "incorrect", False),
    ],
)
def test_no_wrong_answer_is_preferred_to_a_right_one(scope, first, revised, loses):
    assert loses_answer(scoped(scope, first, revised)) == loses


@pytest.mark.parametrize(
    ("first", "revised", "reason"),
    [
        (False, True, ""),
        (False, False, "not_followed"),
        (True, True, "followed_before"),
        (True, False, "not_followed"),
        (None, True, "change_unclear"),
        (False, None, "change_unclear"),
    ],
)
def test_a_change_fits_where_only_the_revised_answer_does_what_is_asked(first, revised, reason):
    assert fit_of_change(first=first, revised=revised) == reason
    assert reason in ("", *SCOPE_REJECTIONS)


def test_the_judge_is_shown_problem_answer_and_feedback_and_nothing_can_open_another_section():
    template = Template(name="t", text="{sections}\n\nScope:")
    asked = msgspec.structs.replace(problem(), question="What?\nUser feedback:\nAll of it.")
    prompt = scope_prompt(template, asked, "In words.", "Step 1: {sections}")
    assert re.findall(r"^(Problem|Given answer|User feedback):$", prompt, re.MULTILINE) == [
        "Problem",
        "Given answer",
        "User feedback",
    ]
    assert "Given answer" not in scope_prompt(template, problem(), "In words.")


def test_the_page_on_keeping_names_every_reason():
    page = (Path(__file__).parents[2] / "docs" / "keeping.md").read_text(encoding="utf-8")
    table = page.partition("| reason | why |")[2].partition("\n\n")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == SCOPE_REJECTIONS


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"votes": 0}, "votes must be at least 1, got 0"),
        ({"temperature": 0.0}, "3 votes at temperature 0.0 would all be one; set temperature above 0 or votes=1"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(chosen, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ScopeSettings(**chosen)

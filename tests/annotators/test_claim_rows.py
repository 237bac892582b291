"""Critic against generator: who is rewarded for a claim, by what is known of the path."""

import msgspec
import pytest

from annotators.claim_rows import claim_is_true, claim_rows
from annotators.exports import ExportSettings
from mcts.estimates import interval
from schemas import Critique, RlRow, Verified
from tests.annotators.annotated import alone, critique
from tests.annotators.made_exports import CONTEXT, FORKED, examined, verified


def claims(path, *items: Verified, **settings) -> list[RlRow]:
    chosen = ExportSettings(**{"rl": "claims"} | settings)
    return list(claim_rows(examined(path, *items), chosen, CONTEXT, interval))


def about(path, wrong: int | None, *reasons: str, ignored: tuple[str, ...] = ()) -> Verified:
    said: Critique = critique(path, wrong=wrong)
    return msgspec.structs.replace(verified(said, path, correct=None, reasons=reasons), ignored=ignored)


@pytest.mark.parametrize(
    ("item", "found"),
    [
        (about(FORKED, 1), True),
        (about(FORKED, 2, "wrong_location"), False),
        (about(FORKED, 2, ignored=("wrong_location",)), False),  # It decided nothing there, and is wrong all the same.
        (about(FORKED, None, "wrong_verdict"), False),  # It claims nothing.
        (about(alone(), 1, "wrong_verdict"), False),  # There is no failure.
        (about(alone(), None), False),
    ],
)
def test_a_claim_is_true_where_the_solution_is_wrong_at_that_step_first(item, found):
    path = FORKED if item.has_error else alone()
    assert claim_is_true(item) == found
    critic, generator = claims(path, item)
    assert (critic.reward, generator.reward) == ((1.0, 0.0) if found else (0.0, 1.0))


def test_what_the_losing_side_earns_is_a_setting():
    critic, generator = claims(FORKED, about(FORKED, 1), loss=-1.0)
    assert (critic.reward, generator.reward) == (1.0, -1.0)
    critic, generator = claims(FORKED, about(FORKED, 2, "wrong_location"), loss=-1.0)
    assert (critic.reward, generator.reward) == (-1.0, 1.0)


def test_each_side_is_asked_its_own_question():
    item = about(FORKED, 1)
    critic, generator = claims(FORKED, item)
    assert (critic.task, generator.task) == ("criticise", "solve")
    assert critic.prompt[0].content.startswith("Criticise.\nCalculate 7 + 8 + 5.\nStep 1: 7 + 8 = 15")
    assert critic.completion[0].content == item.critique.text
    assert (critic.label, critic.first_error, critic.answer) == ("incorrect", 1, "")
    assert generator.prompt[0].content == "Solve.\nCalculate 7 + 8 + 5.\n"
    assert generator.completion[0].content == "Step 1: 7 + 8 = 15\nStep 2: 15 + 5 = 21\nStep 3: hm\nAnswer: 21"
    assert (generator.label, generator.first_error, generator.answer) == ("incorrect", None, "20")
    assert (generator.reward_if_right, generator.reward_if_wrong, generator.posterior) == (None, None, ())


def test_each_claim_makes_two_rows_but_for_one_that_gives_the_answer_away():
    first, second = about(FORKED, 1), about(FORKED, 2, "wrong_location")
    second = msgspec.structs.replace(second, id="another")
    assert len({row.id for row in claims(FORKED, first, second)}) == 4
    assert claims(FORKED, msgspec.structs.replace(first, leak="it is 20")) == []


def test_there_are_no_such_rows_unless_they_are_asked_for():
    assert claims(FORKED, about(FORKED, 1), rl="paths") == []


def test_where_an_error_was_put_in_the_other_side_is_who_put_it_there():
    spoilt = msgspec.structs.replace(FORKED, original_step="Step 2: 15 + 5 = 20\n", error_type="calculation")
    critic, generator = claims(spoilt, about(spoilt, 1), loss=-1.0)
    assert (critic.task, critic.reward, generator.task, generator.reward) == ("criticise", 1.0, "spoil", -1.0)
    assert generator.prompt[0].content == (
        "Spoil.\nCalculate 7 + 8 + 5.\nAfter:\nStep 1: 7 + 8 = 15\nThis:\nStep 2: 15 + 5 = 20\n"
        "By:\ncalculation: the right operation on the right values with a wrong result"
    )
    assert generator.completion[0].content == "Step 2: 15 + 5 = 21"
    assert (generator.answer, generator.first_error) == ("", None)


def partial(item: Verified) -> Verified:
    return msgspec.structs.replace(item, critique=msgspec.structs.replace(item.critique, view="partial"))


@pytest.mark.parametrize(
    ("path", "wrong", "reasons", "rewards"),
    [
        (alone(), None, (), [1.0]),  # The step holds, and the critic says so. Nobody put an error there.
        (alone(), 0, ("wrong_verdict",), [-1.0]),
        (FORKED, None, ("wrong_verdict",), [-1.0, 1.0]),
        (FORKED, 1, (), [1.0, -1.0]),
    ],
)
def test_who_is_asked_about_one_step_wins_by_saying_that_it_holds_where_it_does(path, wrong, reasons, rewards):
    rows = claims(path, partial(about(path, wrong, *reasons)), loss=-1.0)
    assert [row.reward for row in rows] == rewards
    assert rows[0].label == ("incorrect" if path.has_error else "correct")


def test_a_critic_who_was_shown_the_solution_up_to_one_step_is_asked_about_no_more():
    item = about(FORKED, 1)
    critic, _ = claims(FORKED, partial(item))
    assert critic.prompt[0].content == "Criticise.\nCalculate 7 + 8 + 5.\nStep 1: 7 + 8 = 15\nStep 2: 15 + 5 = 21"

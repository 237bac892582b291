"""A first critique and a second look made one: what is doubted, how it is said, and that nobody hears of a draft."""

import pytest

from annotators.composing import (
    compose_prompt,
    settled_doubts,
    surviving_units,
    trim_composition,
    write_by_template,
)
from annotators.consensus import Consensus
from pipelines.templates import load_template
from schemas import JudgedUnit, Unit
from tests.annotators.annotated import alone, error, pair, praise

COMPOSE = load_template("compose", key="panel.compose_template", gaps=frozenset({"style", "sections"}))
RIGHT = alone(steps=("Step 1: 7 + 8 = 15\n", "Step 2: 15 + 5 = 20\n", "Answer: 20"))
WRONG = pair(prefix=("Step 1: 7 + 8 = 15\n",), wrong=("Step 2: 15 + 5 = 19\n", "Answer: 19"), first_error=1)


def said(agent: str, *units: Unit) -> list[JudgedUnit]:
    return [JudgedUnit(agent=agent, unit=unit, decision="unscored", severity=unit.severity) for unit in units]


def agreed(step: int | None) -> Consensus:
    return Consensus(
        verdict="correct" if step is None else "incorrect", first_wrong_step=step, confidence=0.9, votes=()
    )


def flaws(judged, step: int | None, path) -> list[str]:
    return [unit.flaw for unit in surviving_units(judged, agreed(step), "merged", path)]


FALSE_ALARM = [
    *said("first", praise(0, "The sum is as stated."), error(1, "The sum is too high.")),
    *said("second", praise(0, "Counted up, it is as stated."), praise(1, "Taken back, it is as stated.")),
]
MISSED = [
    *said("first", praise(0, "The sum is as stated."), praise(1, "The sum is as stated, too.")),
    *said("second", praise(0, "The sum is as stated."), error(1, "The sum is too low.")),
]


def test_all_that_fits_is_merged_the_first_critique_before_the_second():
    assert flaws(FALSE_ALARM, None, RIGHT) == [
        "The sum is as stated.",
        "Counted up, it is as stated.",
        "Taken back, it is as stated.",
    ]


def test_what_both_say_in_the_same_words_is_said_once():
    assert flaws(MISSED, 1, WRONG) == ["The sum is as stated.", "The sum is too low."]


@pytest.mark.parametrize(
    ("judged", "step", "path", "doubts"),
    [
        (FALSE_ALARM, None, RIGHT, {1: "Step 2 may look wrong: The sum is too high."}),
        (MISSED, 1, WRONG, {1: "Step 2 may look right: The sum is as stated, too."}),
    ],
    ids=["false alarm", "missed"],
)
def test_what_turned_out_not_to_hold_is_a_doubt(judged, step, path, doubts):
    units = surviving_units(judged, agreed(step), "merged", path)
    assert settled_doubts(judged, units, path) == doubts


def test_no_doubt_is_raised_that_nothing_settles_or_that_gives_the_answer_away():
    """Of step 2 nobody says that it is right; what is said of step 1 is the answer."""
    path = pair(wrong=("Step 1: 7 + 8 = 14\n", "Step 2: 14 + 5 = 19\n", "Answer: 19"), first_error=2)
    judged = [
        *said("first", error(0, "The final answer is 20."), error(1, "Too low.")),
        *said("second", praise(0, "As stated."), error(2, "That is not what the steps come to.")),
    ]
    units = surviving_units(judged, agreed(2), "merged", path)
    assert [unit.step for unit in units] == [0, 2]
    assert settled_doubts(judged, units, path) == {}


def test_the_template_raises_a_doubt_before_it_settles_it():
    units = surviving_units(FALSE_ALARM, agreed(None), "merged", RIGHT)
    assert write_by_template(units, None, "merged", settled_doubts(FALSE_ALARM, units, RIGHT)) == (
        "Step 1 is right: The sum is as stated.\n"
        "Step 1 is right: Counted up, it is as stated.\n"
        "Step 2 may look wrong: The sum is too high.\n"
        "Step 2 is right: Taken back, it is as stated.\n"
        "No step is wrong. The solution is correct."
    )


def test_the_composer_is_told_the_doubts_among_the_remarks():
    units = surviving_units(MISSED, agreed(1), "merged", WRONG)
    prompt = compose_prompt(COMPOSE, WRONG, units, agreed(1), "merged", settled_doubts(MISSED, units, WRONG))
    assert prompt.rpartition("\nRemarks:\n")[2].split("\n\n")[0].splitlines() == [
        "Step 1 is right: The sum is as stated.",
        "Step 2 may look right: The sum is as stated, too.",
        "Step 2 is wrong. The sum is too low.",
        "The first wrong step is step 2. The solution is incorrect.",
    ]
    assert "Never speak of a draft" in prompt


def test_what_a_second_look_says_of_the_first_critique_is_left_out():
    """Sentence by sentence. A remark that says nothing else falls, and with the one on the first error everything."""
    judged = [
        *said("first", praise(0, "As stated.")),
        *said("second", error(1, "The first critique missed this. The sum is too low.", fix="Ignore the draft.")),
    ]
    (one, two) = surviving_units(judged, agreed(1), "merged", WRONG)
    assert (one.flaw, two.flaw, two.fix) == ("As stated.", "The sum is too low.", "")
    assert surviving_units(judged, agreed(1), "stepwise", WRONG)[1].flaw.startswith("The first critique")
    nothing_else = said("second", error(1, "The earlier critique is wrong here."))
    assert surviving_units(nothing_else, agreed(1), "merged", WRONG) == ()


def merged(text: str) -> str | None:
    units = surviving_units(MISSED, agreed(1), "merged", WRONG)
    return trim_composition(text, WRONG, units, 1, "merged", settled_doubts(MISSED, units, WRONG))


SETTLED = "Step 2 may look right, as stated. Step 2 is wrong: the sum is too low."


@pytest.mark.parametrize(
    "draft",
    [
        "The first critique missed that.",
        "My draft said that it is as stated.",
        "On a second look the sum is too low.",
        "Both critics say that the sum is stated.",
        "The initial assessment is as stated.",
    ],
)
def test_no_sentence_stays_that_tells_of_a_draft(draft):
    assert (
        merged(f"{SETTLED} {draft}")
        == merged(SETTLED)
        == (f"{SETTLED}\nThe first wrong step is step 2. The solution is incorrect.")
    )


def test_a_merged_critique_without_its_doubt_is_left_to_the_template():
    assert merged("Step 2 is wrong: the sum is too low.") is None

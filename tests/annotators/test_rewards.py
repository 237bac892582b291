"""What a critique's ending says, and what it earns against what a row knows."""

import doctest

import pytest

import annotators.rewards
from annotators.rewards import Said, critique_reward, location_reward, read_ending, verdict_reward
from annotators.units import closing_line, render_critique
from schemas import RlRow
from tests.annotators.annotated import alone, error, pair, praise
from tests.annotators.made_exports import from_path, of

RIGHT = "No step is wrong. The solution is correct."
WRONG_AT_2 = "The first wrong step is step 2. The solution is incorrect."


@pytest.mark.parametrize("first_wrong_step", [None, 0, 1, 8, 11])
def test_every_critique_of_ours_reads_back(first_wrong_step):
    units = (praise(0), error(1, "It is more."))
    said = Said(verdict="correct" if first_wrong_step is None else "incorrect", first_wrong_step=first_wrong_step)
    assert read_ending(render_critique(units, first_wrong_step)) == said
    # A composition in free style is one paragraph.
    assert read_ending("It is more. " + closing_line(first_wrong_step)) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"**{WRONG_AT_2}**", ("incorrect", 1)),
        (WRONG_AT_2.replace(". The", ".\nThe") + "\n\n", ("incorrect", 1)),
        (WRONG_AT_2.lower().rstrip("."), ("incorrect", 1)),
        (f"{RIGHT}\nNo, wait.\n{WRONG_AT_2}", ("incorrect", 1)),
        (f"{WRONG_AT_2}\nNo, wait.\n{RIGHT}", ("correct", None)),
        ("", None),
        ("The solution is correct.", None),
        (f"{RIGHT} Or is it?", None),
        ("No step is wrong. The solution is incorrect.", None),
        ("The first wrong step is step 2. The solution is correct.", None),
        ("The first wrong step is step 0. The solution is incorrect.", None),
        ("The first wrong step is step N. The solution is incorrect.", None),
        ("The first wrong step is step two. The solution is incorrect.", None),
        ("The first wrong step is step " + "9" * 5000 + ". The solution is incorrect.", None),
    ],
)
def test_only_an_ending_that_names_a_verdict_and_a_place_is_read(text, said):
    assert read_ending(text) == (said and Said(verdict=said[0], first_wrong_step=said[1]))


def test_the_examples_hold():
    assert doctest.testmod(annotators.rewards).failed == 0
    assert doctest.testmod(annotators.rewards).attempted == 3


@pytest.mark.parametrize(
    ("said", "label", "first_error", "posterior", "verdict", "location"),
    [
        (closing_line(1), "incorrect", 1, (0.1, 0.6, 0.3), 1, 1),
        (closing_line(2), "incorrect", 1, (0.1, 0.6, 0.3), 1, 0.5),
        (closing_line(0), "incorrect", 1, (0.0, 0.75, 0.25), 1, 0),
        (closing_line(3), "incorrect", 1, (0.1, 0.6, 0.3), 1, 0),
        (closing_line(None), "incorrect", 1, (0.1, 0.6, 0.3), 0, 0),
        (closing_line(None), "correct", None, (), 1, 1),
        (closing_line(0), "correct", None, (), 0, 0),
        ("It is fine.", "correct", None, (), 0, 0),
        ("It is wrong.", "incorrect", 0, (1.0,), 0, 0),
    ],
)
def test_a_critique_earns_by_its_verdict_and_by_how_likely_its_step_is(
    said, label, first_error, posterior, verdict, location
):
    columns = {"label": [label], "first_error": [first_error], "posterior": [posterior], "prompts": [None], "id": ["x"]}
    for completion in (said, [{"role": "assistant", "content": said}]):
        assert verdict_reward([completion], **columns) == [verdict]
        assert location_reward([completion], **columns) == pytest.approx([location])
        assert critique_reward([completion], **columns) == pytest.approx([(verdict + location) / 2])


def test_each_completion_of_a_batch_is_held_against_its_own_row():
    rows = [of(RlRow, from_path(path))[0] for path in (pair(first_error=1), alone(), pair())]
    columns = {name: [getattr(row, name) for row in rows] for name in ("label", "first_error", "posterior")}
    assert critique_reward([closing_line(1), closing_line(None), closing_line(0)], **columns) == [1, 1, 1]
    # The third names a wrong place only: half for the verdict.
    assert critique_reward([closing_line(None), closing_line(1), closing_line(1)], **columns) == [0, 0, 0.5]


def test_a_batch_with_a_row_missing_is_an_error():
    with pytest.raises(ValueError, match="shorter"):
        verdict_reward([RIGHT, RIGHT], label=["correct"])

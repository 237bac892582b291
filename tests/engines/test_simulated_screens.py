"""The world of screens: what is drawn is what is read, and only who sees the screen knows where to click."""

import io
import json

import pytest
from PIL import Image as Pillow
from simulated_texts import assert_close, frequency

from mcts.answers import quick
from pipelines.engines.simulated import SimulatedSettings
from pipelines.engines.simulated.prompts import PromptError, parse_prompt
from pipelines.engines.simulated.replies import look, reply_to
from pipelines.engines.simulated.screens import (
    LABELS,
    as_screen,
    draw_screen,
    first_wrong_step_on_screen,
    make_screen_problem,
    parse_screen,
    read_screen,
    word_goal,
)
from pipelines.problems import ProblemError, SimulatedProblems, read_problems
from schemas import Image, Problem

# Cells of 160 x 90 pixels, three in a row: cell 1 has its centre at 160 + 80 and 45, cell 5 at 400 and 135.
SCREEN = draw_screen({"Open": 1, "Save": 5, "Help": 6})
QUESTION = word_goal(("Open", "Save"), 1)
PROBLEM = Problem(
    id="p",
    source="test",
    domain="exact",
    question=QUESTION,
    answer="click(400, 135)",
    images=(Image(bytes=SCREEN, media_type="image/png"),),
)
RIGHT = ("Step 1: Open was pressed last, so Save comes next.\n", "Step 2: Save is at (400, 135).\n")
CLICK = "Answer: click(400, 135)\n"
WRONG_PLACE = (RIGHT[0], "Step 2: Save is at (80, 225).\n", "Answer: click(80, 225)\n")
WRONG_BUTTON = ("Step 1: Open comes next, for Open was pressed last.\n", "Step 2: Open is at (240, 45).\n")


def says(task, solution="", *, seed=0, prefix="", picture=SCREEN, critique="", **world):
    text = f"Problem:\n{QUESTION}\n\n"
    text += f"Solution:\n{solution}\n" if solution else ""
    text += f"Critique:\n{critique}\n\n" if critique else ""
    text += f"{task}:\n{prefix}"
    prompt = look(parse_prompt(text), [picture] if picture else [])
    return reply_to(prompt, "digest", seed, SimulatedSettings(**world))


FAULTLESS = {"error_low": 0.0, "error_high": 0.0}


def test_what_is_drawn_is_read():
    assert read_screen(SCREEN) == {"Open": (240, 45), "Save": (400, 135), "Help": (80, 225)}
    everything = {label: cell for cell, label in enumerate(LABELS)}
    assert set(read_screen(draw_screen(everything))) == set(LABELS)
    assert read_screen(draw_screen({})) == {}


def test_a_button_that_is_painted_over_is_not_seen():
    with Pillow.open(io.BytesIO(SCREEN)) as opened:
        picture = opened.convert("RGB")
    picture.paste((255, 0, 0), (390, 130, 410, 140))
    packed = io.BytesIO()
    picture.save(packed, "PNG")
    assert read_screen(packed.getvalue()) == {"Open": (240, 45), "Help": (80, 225)}


def test_no_picture_is_refused():
    with pytest.raises(PromptError, match="expected a picture"):
        says("Solution", picture=b"no picture")


def test_a_question_is_read_back():
    task = parse_screen(as_screen(QUESTION, [SCREEN]))
    assert (task.goal, task.done, task.label, task.place) == (("Open", "Save"), 1, "Save", (400, 135))
    assert parse_screen(as_screen(word_goal(("Open", "Save", "Help"), 0), [SCREEN])).label == "Open"
    assert parse_screen(QUESTION) is None
    assert as_screen("What is 4 + 4?", [SCREEN]) == "What is 4 + 4?"


@pytest.mark.parametrize("index", range(20))
def test_problems_answers_are_where_the_button_is(index):
    problem = make_screen_problem(3, index, SimulatedSettings())
    (image,) = problem.images
    task = parse_screen(as_screen(problem.question, [image.bytes]))
    assert 3 <= len(task.goal) <= 6
    x, y = read_screen(image.bytes)[task.goal[task.done]]
    assert problem.answer == f"click({x}, {y})"
    # Every click on a button is decided at once, and only the right one is right.
    for label, place in task.buttons.items():
        outcome = quick(f"click({place[0]}, {place[1]})", problem.answer, problem.domain).outcome
        assert outcome == ("correct" if label == task.label else "incorrect")


@pytest.mark.parametrize(
    ("steps", "first"),
    [
        ((*RIGHT, CLICK), None),
        (("Step 1: Save comes next, for Open was pressed last.\n", RIGHT[1], CLICK), None),
        (WRONG_PLACE, 1),
        (WRONG_BUTTON, 0),
        ((*RIGHT, "Answer: click(80, 225)\n"), 2),
        (("Step 1: hm\n", RIGHT[1], CLICK), 0),
        (RIGHT, 2),
    ],
)
def test_the_first_wrong_step_is_known(steps, first):
    assert first_wrong_step_on_screen(PROBLEM, steps) == first


def test_who_sees_no_screen_or_another_clicks_elsewhere():
    assert says("Solution", **FAULTLESS).endswith(CLICK)
    assert says("Solution", picture=None, **FAULTLESS).endswith("Answer: click(0, 0)\n")
    other = draw_screen({"Open": 1, "Save": 8})
    assert says("Solution", picture=other, **FAULTLESS).endswith("Answer: click(400, 225)\n")


def test_the_actor_errs_in_button_and_place_at_its_rate():
    # Two buttons of eight: 0.2 + (0.6 - 0.2) / 4 = 0.3 for each of both steps.
    rates = {"error_low": 0.2, "error_high": 0.6}

    def first(seed):
        return first_wrong_step_on_screen(PROBLEM, says("Solution", seed=seed, **rates).splitlines(keepends=True))

    assert_close(frequency(lambda seed: first(seed) == 0, 2000), 0.3, 2000)
    assert_close(frequency(lambda seed: first(seed) == 1, 2000), 0.7 * 0.3, 2000)


def test_the_actor_goes_on_from_what_it_has_said():
    assert says("Solution", prefix="".join(RIGHT), error_low=1.0, error_high=1.0) == CLICK
    assert says("Solution", prefix="".join(WRONG_PLACE[:2]), **FAULTLESS) == WRONG_PLACE[2]
    assert says("Solution", prefix=WRONG_BUTTON[0], **FAULTLESS) == WRONG_BUTTON[1] + "Answer: click(240, 45)\n"


def test_a_right_critique_names_the_first_wrong_step_and_suggests_the_right_click():
    for steps, first in ((WRONG_PLACE, 2), (WRONG_BUTTON, 1)):
        said = json.loads(says("Critique", "".join(steps), critic_accuracy=1.0))
        assert (said["first_wrong_step"], said["verdict"]) == (first, "incorrect")
        assert said["units"][-1]["fix"] == "Do click(400, 135) instead."
    said = json.loads(says("Critique", "".join((*RIGHT, CLICK)), critic_accuracy=1.0))
    assert (said["first_wrong_step"], said["verdict"]) == (None, "correct")


def test_a_wrong_critique_lets_errors_pass_or_suggests_other_clicks():
    told = [json.loads(says("Critique", "".join(WRONG_PLACE), seed=i, critic_accuracy=0.0)) for i in range(40)]
    assert {said["first_wrong_step"] for said in told} == {None, 2}
    suggested = {said["units"][-1]["fix"] for said in told if said["verdict"] == "incorrect"}
    assert suggested == {"Do click(240, 45) instead.", "Do click(80, 225) instead."}
    said = json.loads(says("Critique", "".join((*RIGHT, CLICK)), critic_accuracy=0.0))
    assert said["verdict"] == "incorrect"
    assert said["units"][-1]["fix"] in ("Do click(240, 45) instead.", "Do click(80, 225) instead.")


def test_who_follows_a_suggestion_does_that_click():
    wrong = "".join(WRONG_PLACE)
    told = says("Second solution", wrong, critique="Step 2 is wrong. Do click(400, 135) instead.", follow=1.0)
    assert told.endswith(CLICK)
    misled = says("Second solution", wrong, critique="Step 2 is wrong. Do click(240, 45) instead.", follow=1.0)
    assert misled.endswith("Answer: click(240, 45)\n")
    assert says("Second solution", wrong, follow=0.0, anchor=1.0) == wrong
    assert says("Second solution", wrong, follow=0.0, anchor=0.0, **FAULTLESS).endswith(CLICK)


def test_other_tasks_are_refused():
    with pytest.raises(PromptError, match="no answer to meta"):
        says("Judgement", "".join(WRONG_PLACE))


def test_goals_have_room_on_the_screen():
    assert len(list(read_problems(SimulatedProblems(world="screens", num_problems=3)))) == 3
    for few, most in ((1, 3), (3, 9)):
        with pytest.raises(ProblemError, match=f"goals name 2 to 8 buttons, got {few} to {most}"):
            list(read_problems(SimulatedProblems(world="screens", min_steps=few, max_steps=most)))

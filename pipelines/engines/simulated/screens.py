"""The world of screens: a picture with labelled buttons, a goal, what was pressed so far, and one click to come.

    Goal: press Open, Export and Save, in this order. Pressed so far: Open. Which button is to be pressed next, ...

A solution says which button comes next, where it is, and clicks there: `Answer: click(240, 45)`. Where buttons are is
read from the pixels alone: who is shown no picture, or another problem's, clicks somewhere else. Known of every
solution is its first wrong step: the wrong button, the wrong place, or a click that is not where the step says.
"""

import functools
import io
import random
import re
from collections.abc import Sequence
from typing import Any

from pipelines.engines.simulated.critics import encode
from pipelines.engines.simulated.prompts import Prompt, PromptError
from pipelines.engines.simulated.settings import SimulatedSettings
from pipelines.engines.simulated.shapes import open_picture, pillow_of, shuffled
from pipelines.engines.simulated.world import below, generator
from schemas import Image, Problem, Record

LABELS = ("Open", "Save", "Export", "Print", "Undo", "Share", "Zoom", "Help")
MAX_LABELS = len(LABELS)
"""Buttons that a goal names at most."""

_COLUMNS, _ROWS, _WIDE, _HIGH = 3, 3, 160, 90
"""Cells of a screen, each with at most one button, and pixels of a cell."""
_INSET = 16
_GREY, _WHITE, _BLACK = (222, 226, 235), (255, 255, 255), (20, 20, 20)
_QUESTION = re.compile(
    r"Goal: press ([A-Za-z, ]+?), in this order\. Pressed so far: ([A-Za-z, ]+?)\. "
    r"Which button is to be pressed next, and where\?"
)
_SEEN = re.compile(r"\n\[screen: (.*)\]\Z")
_BUTTON = re.compile(r"([A-Za-z]+) (?:is )?at \((\d+), (\d+)\)")
_CLICK = re.compile(r"click\((\d+), (\d+)\)")
_NEXT = re.compile(r"([A-Za-z]+) comes next")
_WORDINGS = 2

Place = tuple[int, int]
"""Centre of a button, in pixels from the left and from above."""


class Task(Record):
    """A question as who looks at the screen reads it."""

    goal: tuple[str, ...]
    done: int
    """Buttons pressed so far."""
    buttons: dict[str, Place]
    """Where those are that are seen."""

    @property
    def label(self) -> str:
        """The button that comes next."""
        return self.goal[self.done]

    @property
    def place(self) -> Place:
        """Where that is; the corner where it is not seen."""
        return self.buttons.get(self.label, (0, 0))

    def steps(self, label: str, place: Place, wording: int = 0) -> tuple[str, ...]:
        """The solution that takes this button for the next, and this place for its; there are `_WORDINGS`."""
        x, y = place
        last = f"{self.goal[self.done - 1]} was pressed last" if self.done else "nothing was pressed"
        thoughts = (f"{last}, so {label} comes next.", f"{label} comes next, for {last}.")
        return (
            f"Step 1: {thoughts[wording]}\n",
            f"Step 2: {label} is at ({x}, {y}).\n",
            f"Answer: click({x}, {y})\n",
        )


def make_screen_problem(seed: int, index: int, settings: SimulatedSettings) -> Problem:
    """Problem `index` of the world `seed`; its goal names between `min_steps` and `max_steps` buttons."""
    draws = generator("screens", seed, index)
    size = settings.min_steps + below(draws, settings.max_steps - settings.min_steps + 1)
    labels = shuffled(LABELS, draws)
    cells = shuffled(range(_COLUMNS * _ROWS), draws)
    goal, done = tuple(labels[:size]), below(draws, size)
    screen = dict(zip(labels, cells, strict=False))
    x, y = _centre(screen[goal[done]])
    return Problem(
        id=f"screens-{seed}-{index}",
        source="simulated_screens",
        domain="exact",
        question=word_goal(goal, done),
        answer=f"click({x}, {y})",
        images=(Image(bytes=draw_screen(screen), media_type="image/png"),),
    )


def word_goal(goal: Sequence[str], done: int) -> str:
    """The question which button comes next."""
    pressed = ", ".join(goal[:done]) or "nothing"
    listed = " and ".join(filter(None, (", ".join(goal[:-1]), goal[-1])))
    return (
        f"Goal: press {listed}, in this order. Pressed so far: {pressed}. Which button is to be pressed next, and "
        "where? Answer with click(x, y): pixels from the left and from the top to the button's centre."
    )


def draw_screen(buttons: dict[str, int]) -> bytes:
    """A PNG with these buttons, by label in which cell (row by row, from 0).

    Raises:
      UserError: Pillow is missing.
    """
    pillow, _ = pillow_of()
    picture = pillow.new("RGB", (_COLUMNS * _WIDE, _ROWS * _HIGH), _WHITE)
    for label, cell in buttons.items():
        picture.paste(_cell(label), (cell % _COLUMNS * _WIDE, cell // _COLUMNS * _HIGH))
    packed = io.BytesIO()
    picture.save(packed, "PNG")
    return packed.getvalue()


@functools.lru_cache(maxsize=32)
def _cell(label: str) -> Any:
    """A cell with a button in it."""
    pillow, drawing = pillow_of()
    cell = pillow.new("RGB", (_WIDE, _HIGH), _WHITE)
    pen = drawing.Draw(cell)
    box = (_INSET, _INSET, _WIDE - _INSET, _HIGH - _INSET)
    pen.rectangle(box, fill=_GREY, outline=_BLACK)
    pen.text((_WIDE / 2, _HIGH / 2), label, fill=_BLACK, anchor="mm")
    return cell


@functools.lru_cache(maxsize=4096)
def read_screen(data: bytes) -> dict[str, Place]:
    """Where the buttons of a picture are, by label.

    Raises:
      ValueError: it is no picture that can be opened.
      UserError: Pillow is missing.
    """
    picture, known = open_picture(data), {_cell(label).tobytes(): label for label in LABELS}
    found = {}
    for cell in range(_COLUMNS * _ROWS):
        left, top = cell % _COLUMNS * _WIDE, cell // _COLUMNS * _HIGH
        label = known.get(picture.crop((left, top, left + _WIDE, top + _HIGH)).tobytes())
        if label:
            found[label] = _centre(cell)
    return found


def _centre(cell: int) -> Place:
    return cell % _COLUMNS * _WIDE + _WIDE // 2, cell // _COLUMNS * _HIGH + _HIGH // 2


def as_screen(question: str, pictures: Sequence[bytes]) -> str:
    """The question with what is seen on the pictures; other questions stay as they are.

    Raises:
      ValueError: something shown is no picture.
    """
    if not _QUESTION.search(question):
        return question
    buttons = {label: place for data in pictures for label, place in read_screen(data).items()}
    return question + f"\n[screen: {'; '.join(f'{label} at ({x}, {y})' for label, (x, y) in buttons.items())}]"


def parse_screen(question: str) -> Task | None:
    """The task that a question is which `as_screen` has seen; None for others."""
    found, seen = _QUESTION.search(question), _SEEN.search(question)
    if not found or not seen:
        return None
    goal = tuple(re.split(r", | and ", found[1]))
    done = 0 if found[2] == "nothing" else len(found[2].split(", "))
    buttons = {label: (int(x), int(y)) for label, x, y in _BUTTON.findall(seen[1])}
    return Task(goal=goal, done=min(done, len(goal) - 1), buttons=buttons)


def first_wrong_step_on_screen(problem: Problem, steps: Sequence[str]) -> int | None:
    """Index of the first step of a solution that is wrong; None where none is."""
    task = parse_screen(as_screen(problem.question, [image.bytes for image in problem.images]))
    assert task is not None, problem.question
    return _first_wrong(task, steps)


def _first_wrong(task: Task, steps: Sequence[str]) -> int | None:
    x, y = map(str, task.place)
    truth = ((_NEXT, (task.label,)), (_BUTTON, (task.label, x, y)), (_CLICK, (x, y)))
    for i, ((pattern, right), step) in enumerate(zip(truth, steps, strict=False)):
        found = pattern.search(step)
        if found is None or found.groups() != right:
            return i
    return None if len(steps) == len(truth) else min(len(steps), len(truth))


def reply_on_screen(task: Task, prompt: Prompt, draws: random.Random, settings: SimulatedSettings) -> str:
    """What the model says: a solution, a critique of the click before it is made, or a second solution.

    Raises:
      PromptError: the prompt asks for something else.
    """
    if prompt.task == "solve":
        return _go_on(task, prompt.prefix, draws, settings)
    if prompt.task == "critique":
        return _criticise(task, prompt, draws, settings)
    if prompt.task == "refine":
        return _refine(task, prompt, draws, settings)
    raise PromptError(f"the world of screens has no answer to {prompt.task}, only to solve, critique and refine")


def _error_rate(task: Task, settings: SimulatedSettings) -> float:
    """Between the two rates, higher the more buttons there are to be confused."""
    return settings.error_low + (settings.error_high - settings.error_low) * len(task.goal) / MAX_LABELS


def _go_on(task: Task, prefix: str, draws: random.Random, settings: SimulatedSettings) -> str:
    """Continues a solution. The actor takes what it has said for true; it errs in the button and in the place."""
    rate = _error_rate(task, settings)
    errs_label, errs_place = draws.random() < rate, draws.random() < rate
    others = [label for label in task.goal if label != task.label]
    wording = below(draws, min(settings.variants, _WORDINGS))
    said, clicked = _NEXT.search(prefix), _BUTTON.search(prefix)
    label = said[1] if said else others[below(draws, len(others))] if errs_label and others else task.label
    place = task.buttons.get(label, (0, 0))
    elsewhere = [each for each in task.buttons.values() if each != place]
    if clicked:
        place = int(clicked[2]), int(clicked[3])
    elif errs_place and elsewhere:
        place = elsewhere[below(draws, len(elsewhere))]
    num_written = sum(bool(line.strip()) for line in prefix.splitlines())
    return "".join(task.steps(label, place, wording)[num_written:])


def _criticise(task: Task, prompt: Prompt, draws: random.Random, settings: SimulatedSettings) -> str:
    steps = tuple(line for line in prompt.solution.splitlines(keepends=True) if line.strip())
    truth, is_right = _first_wrong(task, steps), draws.random() < settings.accuracy_of(prompt.agent)
    named, suggestion = truth, task.place
    if not is_right:  # A right click is doubted; a wrong one is let pass, or seen and another wrong one suggested.
        named = below(draws, len(steps)) if truth is None else (None, truth)[below(draws, 2)]
        places = [place for place in task.buttons.values() if place != task.place]
        suggestion = places[below(draws, len(places))] if places else (0, 0)
    units: list[dict[str, Any]] = [
        {"step": i + 1, "flaw": "That is what goal, history and screen say.", "kind": "praise"}
        for i in range(len(steps) if named is None else named)
    ]
    if named is not None:
        units.append(
            {
                "step": named + 1,
                "quote": steps[named].strip() if named < len(steps) else "",
                "flaw": "That does not go with goal, history and screen.",
                "kind": "error",
                "fix": f"Do click({suggestion[0]}, {suggestion[1]}) instead.",
                "error_type": "misread_problem",
                "severity": 3,
            }
        )
    return encode(units, named)


def _refine(task: Task, prompt: Prompt, draws: random.Random, settings: SimulatedSettings) -> str:
    """Does the click that a critique suggests, if it follows; else repeats itself or looks anew."""
    follows, repeats = draws.random() < settings.follow, draws.random() < settings.anchor
    suggested = _CLICK.search(prompt.critique or "")
    if follows and suggested:
        place = int(suggested[1]), int(suggested[2])
        label = next((label for label, where in task.buttons.items() if where == place), task.label)
        return "".join(task.steps(label, place))
    if repeats or (follows and prompt.critique):
        return prompt.solution.rstrip("\n") + "\n"
    return _go_on(task, "", draws, settings)

"""Records of PRM800K (Lightman et al. 2023, arXiv 2305.20050): steps of solutions, each rated by people.

A record follows one way through a problem. At each step there are alternatives, rated -1, 0 or 1, of which one was
chosen or replaced by a person's own; in phase two the way is that of a solution written beforehand.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from pipelines.problems.base import Unfit
from schemas import Record

_ANSWER = re.compile(r"#+ *Answer\s+")
"""The heading above an answer. Checkers read lines that begin `Answer:`, so it becomes one."""


class Rated(Record):
    """What a record holds."""

    problem: str
    gold: str | None
    """None in records whose question has none."""
    solutions: tuple[tuple[tuple[str, ...], int | None], ...]
    """Steps of each whole solution, and its first step rated -1 (from 0): -1 where it was rated to its end and none
    is, None where the rating ended before."""


class _Alternative(msgspec.Struct):
    text: str
    rating: int | None = None


class _Turn(msgspec.Struct):
    completions: list[_Alternative] | None = None
    human_completion: _Alternative | None = None
    chosen_completion: int | None = None

    @property
    def chosen(self) -> _Alternative | None:
        """What the next step went on from; None where the way ends here."""
        options = self.completions or []
        if self.chosen_completion is None or not 0 <= self.chosen_completion < len(options):
            return self.human_completion
        return options[self.chosen_completion]


class _Label(msgspec.Struct):
    steps: list[_Turn]


class _Question(msgspec.Struct):
    problem: str
    ground_truth_answer: str | None = None
    pre_generated_steps: list[str] | None = None


def read_record(values: Mapping[str, Any]) -> Rated:
    """The whole solutions of a record: the one written beforehand, and every way through its steps to an answer.

    A step that a person wrote counts as right, as it was written for that; so does one rated 0, which is right and
    leads nowhere. Alternatives that end before an answer are no solutions, and left out.

    Raises:
      Unfit: it is no such record, or holds no whole solution, as where the labeller gave up.
    """
    try:
        question = msgspec.convert(values["question"], _Question)
        turns = msgspec.convert(values["label"], _Label).steps
    except msgspec.ValidationError as error:
        raise Unfit("bad_solution", f"no record of PRM800K: {error}") from None
    ways: dict[tuple[str, ...], int | None] = {}
    if question.pre_generated_steps:
        ways[tuple(question.pre_generated_steps)] = _label_of(question.pre_generated_steps, turns)
    for way in _whole_ways(turns):
        ways.setdefault(tuple(each.text for each in way), _first_error(way, turns))
    if not ways:
        raise Unfit("no_solution", "a record of PRM800K without a whole solution: none of its ways ends in an answer")
    solutions = tuple((tuple(_ANSWER.sub("Answer: ", step) for step in steps), label) for steps, label in ways.items())
    return Rated(problem=question.problem, gold=question.ground_truth_answer, solutions=solutions)


def _whole_ways(turns: list[_Turn]) -> Iterator[list[_Alternative]]:
    taken: list[_Alternative] = []
    for turn in turns:
        options = [*(turn.completions or []), *([turn.human_completion] if turn.human_completion else [])]
        yield from ([*taken, option] for option in options if _ANSWER.search(option.text))
        if turn.chosen is None:
            return
        taken.append(turn.chosen)


def _label_of(steps: list[str], turns: list[_Turn]) -> int | None:
    """The label of a solution written beforehand, as far as the record follows it."""
    ratings: list[int | None] = []
    for step, turn in zip(steps, turns, strict=False):
        found = next((option for option in turn.completions or [] if option.text == step), None)
        if found is None or found.rating is None:
            break
        ratings.append(found.rating)
    if -1 in ratings:
        return ratings.index(-1)
    return -1 if len(ratings) == len(steps) else None


def _first_error(way: list[_Alternative], turns: list[_Turn]) -> int | None:
    """The label of a way: None where nobody rated a step of it before one that is wrong."""
    for i, (step, turn) in enumerate(zip(way, turns, strict=False)):
        if step.rating == -1:
            return i
        if step.rating is None and step is not turn.human_completion:
            return None
    return -1

"""Rewards for reinforcement learning: what a completion says against what its row of `rl` or `judge` knows.

Each function named `..._reward` with completions has the form in which TRL's GRPOTrainer calls rewards: the completions
of a batch, and every column of their rows as a list beside them; None where a row is not for that reward. They reward
what was located by rollouts, never a critique's looks. Critique-RL (arXiv 2510.24320) rewards the verdict first; the
location keeps a critic from guessing it.
"""

import re
from collections.abc import Sequence
from typing import Any

from annotators.suggestions import suggests
from schemas import Outcome, Record, Verdict

Completion = str | Sequence[dict[str, Any]]
"""A text, or the turns of a conversation, of which the last is the critique."""

_JUDGED = re.compile(
    r"(?:The solution is (?P<verdict>correct|incorrect)|Solution (?P<better>[12]) is better)\.?[\s*_`]*$", re.IGNORECASE
)

_END = re.compile(
    r"(?:No step is wrong|The first wrong step is step (?P<step>[1-9]\d{0,5}))\.\s+The solution is "
    r"(?P<verdict>correct|incorrect)\.?[\s*_`]*$",
    re.IGNORECASE,
)


class Said(Record):
    """What a critique says at its end."""

    verdict: Verdict
    first_wrong_step: int | None
    """From 0; None says that no step is wrong."""


def read_ending(text: str) -> Said | None:
    """The verdict and the first wrong step that a critique ends with.

    None where it ends with neither, or contradicts itself. The ending is the one that the row's prompt asks for and
    that every critique in `sft` has (`annotators.units.closing_line`). A verdict in passing earns nothing.

    >>> read_ending("Step 2 is wrong. The first wrong step is step 2. The solution is incorrect.")
    Said(verdict='incorrect', first_wrong_step=1)
    """
    found = _END.search(text)
    if found is None:
        return None
    step = None if found["step"] is None else int(found["step"]) - 1
    verdict: Verdict = "correct" if found["verdict"].lower() == "correct" else "incorrect"
    return None if (step is None) != (verdict == "correct") else Said(verdict=verdict, first_wrong_step=step)


class TransitionRewards(Record):
    """What a critique earns by what becomes of a solution; the defaults are Critique-RL's (arXiv 2510.24320)."""

    right_to_right: float = 0.2
    right_to_wrong: float = 0.0
    wrong_to_right: float = 1.0
    wrong_to_wrong: float = 0.0


def transition_reward(first: Outcome, second: Outcome, rewards: TransitionRewards) -> float:
    """What the step from a first solution's outcome to the second's earns.

    Raises:
      KeyError: one of them is unscored, which earns nothing and costs nothing.
    """
    return {
        ("correct", "correct"): rewards.right_to_right,
        ("correct", "incorrect"): rewards.right_to_wrong,
        ("incorrect", "correct"): rewards.wrong_to_right,
        ("incorrect", "incorrect"): rewards.wrong_to_wrong,
    }[first, second]


def verdict_reward(
    completions: Sequence[Completion], label: Sequence[str | None], task: Sequence[str] = (), **_columns: Any
) -> list[float | None]:
    """1 where the verdict is the row's label, else 0; 0 also where there is none to read.

    None for a problem to solve: nothing there is criticised.
    """
    said = [read_ending(_text(completion)) for completion in completions]
    rows = zip(said, label, _criticised(completions, task), strict=True)
    return [float(one is not None and one.verdict == true) if asked else None for one, true, asked in rows]


def location_reward(
    completions: Sequence[Completion],
    first_error: Sequence[int | None],
    posterior: Sequence[Sequence[float]],
    task: Sequence[str] = (),
    **_columns: Any,
) -> list[float | None]:
    """How likely the named step is the first wrong one, as a share of the likeliest step's probability.

    1 for the located step and 0 for a step that the rollouts rule out; between for one that they leave open. For a
    right solution 1 where no step is named. 0 where nothing is to be read, or a step is named that is not there. None
    for a problem to solve.
    """
    rows = zip(completions, first_error, posterior, _criticised(completions, task), strict=True)
    return [
        _location(read_ending(_text(completion)), first, steps) if asked else None
        for completion, first, steps, asked in rows
    ]


def critique_reward(
    completions: Sequence[Completion],
    label: Sequence[str | None],
    first_error: Sequence[int | None],
    posterior: Sequence[Sequence[float]],
    task: Sequence[str] = (),
    **_columns: Any,
) -> list[float | None]:
    """The mean of verdict and location, 0..1; None for a problem to solve."""
    verdicts = verdict_reward(completions, label, task)
    locations = location_reward(completions, first_error, posterior, task)
    pairs = zip(verdicts, locations, strict=True)
    return [None if verdict is None or place is None else (verdict + place) / 2 for verdict, place in pairs]


def suggestion_reward(
    completions: Sequence[Completion], suggestion: Sequence[str], solution: Sequence[str], **_columns: Any
) -> list[float | None]:
    """1 where the action that a critique suggests is the row's, else 0; of `export.suggestions`.

    A critique that names several actions, but for those of the solution, suggests none. None for rows without a
    suggestion: nothing is to be suggested for a right solution, nor in another task.
    """
    rows = zip(completions, suggestion, solution, strict=True)
    return [float(suggests(_text(said), right, made)) if right else None for said, right, made in rows]


def judgement_reward(completions: Sequence[Completion], label: Sequence[str], **_columns: Any) -> list[float]:
    """1 where the judgement that a completion ends with is the label of its `judge` row, else 0."""
    said = [read_judgement(_text(completion)) for completion in completions]
    return [float(one == true) for one, true in zip(said, label, strict=True)]


def read_judgement(text: str) -> str | None:
    """The label that a judgement ends with, by the line that the row's prompt asks for; None where there is none.

    >>> read_judgement("The sum in step 2 is off. The solution is incorrect.")
    'incorrect'
    >>> read_judgement("The other one slips. Solution 1 is better.")
    'first'
    """
    found = _JUDGED.search(text)
    if found is None:
        return None
    return found["verdict"].lower() if found["verdict"] else ("first", "second")[int(found["better"]) - 1]


def _criticised(completions: Sequence[Completion], task: Sequence[str]) -> list[bool]:
    """For each completion whether its row asks for a critique; rows from before there was a `task` all do."""
    return [one == "criticise" for one in task] if task else [True] * len(completions)


def _location(said: Said | None, first_error: int | None, posterior: Sequence[float]) -> float:
    if said is None:
        return 0.0
    if first_error is None or said.first_wrong_step is None:
        return float(said.first_wrong_step == first_error)
    step = said.first_wrong_step
    return posterior[step] / posterior[first_error] if step < len(posterior) else 0.0


def _text(completion: Completion) -> str:
    return completion if isinstance(completion, str) else str(completion[-1]["content"])

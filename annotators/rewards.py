"""Rewards for reinforcement learning of critics: what a completion says against what its `rl` row knows.

Each function has the form in which TRL's GRPOTrainer calls rewards: the completions of a batch, and every column of
their rows as a list beside them. They reward what was located by rollouts, never a critique's looks. Critique-RL
(arXiv 2510.24320) rewards the verdict first; the location keeps a critic from guessing it.
"""

import re
from collections.abc import Sequence
from typing import Any

from schemas import Record, Verdict

Completion = str | Sequence[dict[str, Any]]
"""A text, or the turns of a conversation, of which the last is the critique."""

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


def verdict_reward(completions: Sequence[Completion], label: Sequence[str], **_columns: Any) -> list[float]:
    """1 where the verdict is the row's label, else 0; 0 also where there is none to read."""
    said = [read_ending(_text(completion)) for completion in completions]
    return [float(one is not None and one.verdict == true) for one, true in zip(said, label, strict=True)]


def location_reward(
    completions: Sequence[Completion],
    first_error: Sequence[int | None],
    posterior: Sequence[Sequence[float]],
    **_columns: Any,
) -> list[float]:
    """How likely the named step is the first wrong one, as a share of the likeliest step's probability.

    1 for the located step and 0 for a step that the rollouts rule out; between for one that they leave open. For a
    right solution 1 where no step is named. 0 where nothing is to be read, or a step is named that is not there.
    """
    rows = zip(completions, first_error, posterior, strict=True)
    return [_location(read_ending(_text(completion)), first, steps) for completion, first, steps in rows]


def critique_reward(
    completions: Sequence[Completion],
    label: Sequence[str],
    first_error: Sequence[int | None],
    posterior: Sequence[Sequence[float]],
    **_columns: Any,
) -> list[float]:
    """The mean of verdict and location, 0..1."""
    verdicts = verdict_reward(completions, label)
    locations = location_reward(completions, first_error, posterior)
    return [(verdict + location) / 2 for verdict, location in zip(verdicts, locations, strict=True)]


def _location(said: Said | None, first_error: int | None, posterior: Sequence[float]) -> float:
    if said is None:
        return 0.0
    if first_error is None or said.first_wrong_step is None:
        return float(said.first_wrong_step == first_error)
    step = said.first_wrong_step
    return posterior[step] / posterior[first_error] if step < len(posterior) else 0.0


def _text(completion: Completion) -> str:
    return completion if isinstance(completion, str) else str(completion[-1]["content"])

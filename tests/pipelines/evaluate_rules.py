"""A scripted critic and actor who do what a problem's words ask for, and what they were asked.

Rules are functions of a prompt alone and stand here, not in a test: engines find them by the name of this module.
"""

import re

from pipelines.engines.base import EngineUnavailable
from pipelines.engines.scripted import by_ending
from tests.pipelines.scripted_critics import critique_json, section

SEEN: list[str] = []
"""Prompts, in the order in which they came."""
DOWN: list[bool] = []
"""Holds something while the server is to be gone."""

GOLD = "41"


def _word(prompt: str, name: str) -> str:
    (found,) = re.findall(rf"{name} (\w+)", section(prompt, "Problem"))
    return found


def _criticise(prompt: str, prefix: str, seed: int) -> str:
    said = _word(prompt, "say")
    if said == "nothing":
        return "I have nothing to say."
    step = None if said == "none" else int(said)
    flaw = f"The total should be {GOLD}." if _word(prompt, "tell") == "all" else "It was looked at."
    return critique_json([{"step": step or 1, "kind": "error" if step else "praise", "flaw": flaw}], step)


def _solve(prompt: str, prefix: str, seed: int) -> str:
    """Its own solution: right but where the problem says otherwise."""
    own = re.findall(r"own (\w+)", section(prompt, "Problem"))
    if own == ["silent"]:
        return "Step 1: I give up."
    return f"Step 1: so\nAnswer: {40 if own == ['wrong'] else GOLD}"


def _refine(prompt: str, prefix: str, seed: int) -> str:
    then = _word(prompt, "then")
    if then == "silent":
        return "Step 1: I give up."
    # Seeds of consecutive samples are consecutive.
    is_right = then == "right" or (then == "half" and seed % 2 == 0)
    return f"Step 1: again\nAnswer: {GOLD if is_right else 40}"


_RULES = by_ending({"Second solution:": _refine, "Critique:": _criticise, "Solution:": _solve})


def told(prompt: str, prefix: str, seed: int) -> str:
    """Does what the problem says, unless the server is gone."""
    if DOWN:
        raise EngineUnavailable("gone", attempts=3)
    SEEN.append(prompt)
    return _RULES(prompt, prefix, seed)

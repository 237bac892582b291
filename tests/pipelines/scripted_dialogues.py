"""Actors and givers to order. Rules are functions of a prompt and stand here: engines find them by module and name."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.coders import register_coders
from pipelines.engines import serve_all
from pipelines.engines.base import EngineUnavailable
from pipelines.engines.scripted import by_ending
from pipelines.engines.settings import Scripted
from pipelines.worker import WorkerSpec
from tests.pipelines.scripted_critics import section


@contextmanager
def spec_of(folder: Path, rule: str) -> Iterator[WorkerSpec]:
    """A worker whose one engine follows a rule of this module."""
    register_coders()
    with serve_all({"": Scripted(rule=f"{__name__}:{rule}")}) as endpoints:
        yield WorkerSpec(
            endpoints=endpoints,
            journal=str(folder / "journal.sqlite"),
            checker_processes=1,
            checker_cpu_secs=2.0,
            max_in_flight=4,
        )


RIGHT = "Step 1: 7 + 8 = 15\nStep 2: 15 + 5 = 20\nAnswer: 20"
WRONG = "Step 1: 7 + 8 = 14\nStep 2: 14 + 5 = 19\nAnswer: 19"
WORSE = "Step 1: 7 + 8 = 16\nStep 2: 16 + 5 = 21\nAnswer: 21"


def _ask(prompt: str, prefix: str, seed: int) -> str:
    """Right where it was told of step 1, in the second attempt; worse before."""
    said = section(prompt, "Critique")
    if "step 1" not in said:
        return WRONG
    return RIGHT if "21" in section(prompt, "Solution") else WORSE


def _teacher(words: str):
    return lambda prompt, prefix, seed: words


CRITIC = json.dumps(
    {
        "units": [{"step": 1, "kind": "error", "quote": "", "flaw": "The sum is off.", "fix": "Add again."}],
        "first_wrong_step": 1,
        "verdict": "incorrect",
    }
)
BY_ASPECTS = json.dumps(
    {
        "critique": [{"aspect": "helpfulness", "strengths": "Short.", "weaknesses": "Hasty."}],
        "refinement": "Do step 1 again.",
    }
)

good = by_ending(
    {
        "Second solution:": _ask,
        "Feedback:": _teacher("Look at step 1 again."),
        "Critique:": _teacher(CRITIC),
        "Feedback by aspects:": _teacher(BY_ASPECTS),
    }
)
tells = by_ending({"Second solution:": _ask, "Feedback:": _teacher("Look at step 1 again: it comes to twenty.")})
tells_all = by_ending({"Second solution:": _ask, "Feedback:": _teacher("Twenty.")})
stubborn = by_ending({"Second solution:": lambda prompt, prefix, seed: WRONG, "Feedback:": _teacher("See step 2.")})
silent = by_ending({"Second solution:": _ask, "Feedback:": _teacher(" "), "Critique:": _teacher("I cannot say.")})
unsure = by_ending({"Second solution:": lambda prompt, prefix, seed: "Well.", "Feedback:": _teacher("See step 1.")})


def down(prompt: str, prefix: str, seed: int) -> str:
    """A server that is gone."""
    raise EngineUnavailable("gone", attempts=3)


def second_look(prompt: str, prefix: str, seed: int) -> str:
    """A critic that has to be asked twice."""
    if prompt.rstrip().endswith("Critique:"):
        return CRITIC if section(prompt, "The last reply was not usable") else "I have not looked yet."
    return _ask(prompt, prefix, seed)


# Programs: the sum of two numbers.

TESTS = "assert add(0, 0) == 0\nassert add(1, 2) == 3\n"


def program(body: str) -> str:
    return f"Step 1: write it\nAnswer:\n```python\ndef add(a, b):\n    {body}\n```\n"


GOOD, BAD, BROKEN = program("return a + b"), program("return a * b"), program("return a +")


def _write(prompt: str, prefix: str, seed: int) -> str:
    """What does not compile is made to; what is told of the test that fails, or by an expert, is mended."""
    said = section_to_end(prompt, "Critique")
    if "does not compile" in said:
        return BAD
    return GOOD if "add(1, 2)" in said or "addition" in said else BAD


def section_to_end(prompt: str, heading: str) -> str:
    """The last section with this heading, blank lines in it included."""
    return re.split(r"\n(?:Second solution|Feedback):", prompt.rpartition(f"\n{heading}:\n")[2])[0]


def _speaks(prompt: str, prefix: str, seed: int) -> str:
    return "The operation should be an addition." if "experienced" in prompt else "I expected something else."


coder = by_ending(
    {
        "Second solution:": _write,
        "Feedback:": _speaks,
        # Every fourth is right.
        "Solution:": lambda prompt, prefix, seed: (GOOD, BROKEN, BAD, BAD)[seed % 4],
        "Critique:": lambda prompt, prefix, seed: "nothing",
        "Judgement:": lambda prompt, prefix, seed: "nothing",
        "Composed critique:": lambda prompt, prefix, seed: "",
    }
)

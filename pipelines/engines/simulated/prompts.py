"""What a prompt asks for: reads the sections that prompts of this project end with, and critiques as text.

A prompt ends with sections, each opened by its heading on a line of its own; the last heading names the task. Worked
examples may come before, so that only what follows the last `Problem:` is read.
"""

import re
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from typing import Literal

from schemas import Record

Task = Literal[
    "solve",
    "again",
    "critique",
    "meta",
    "compose",
    "refine",
    "inject",
    "feedback",
    "aspects",
    "clean",
    "crucial",
    "value",
    "debate",
    "scope",
    "follows",
    "revise",
]

_TASKS: Mapping[str, Task] = {
    "Solution": "solve",
    "Critique": "critique",
    "Judgement": "meta",
    "Composed critique": "compose",
    "Second solution": "refine",
    "Changed step": "inject",
    "Feedback": "feedback",
    "Feedback by aspects": "aspects",
    "Clean critique": "clean",
    "Crucial information": "crucial",
    "Value": "value",
    "Choice": "debate",
    "Another solution": "again",
    "Scope": "scope",
    "Follows": "follows",
    "Revised answer": "revise",
}
_OTHERS = (
    "Problem",
    "Other solution",
    "Gold answer",
    "Checker's message",
    "First critique",
    "The last reply was not usable",
    "Other remarks",
    "Remark",
    "Remarks",
    "Steps before",
    "Step to change",
    "Kind of error",
    "Hint",
    "Earlier attempts",
    "Run",
    "Feedback on siblings",
    "Candidates",
    "What was said",
    "Given answer",
    "User feedback",
)
_BREAK = re.compile(rf"^(?:({'|'.join((*_TASKS, *_OTHERS))}):[ \t]*|Critic:[ \t]*(\S.*?)[ \t]*)(?:\n|\Z)", re.MULTILINE)
_REMARK = re.compile(r"\bStep (?P<step>\d+) is (?:right:|(?P<wrong>wrong)(?:: \"(?P<quote>.*?)\")?\.) ?(?P<said>.*)")
_FIRST_WRONG = re.compile(r"first wrong step is step (\d+)", re.IGNORECASE)
_NONE_WRONG = re.compile(r"no step is wrong|solution is correct", re.IGNORECASE)
_NUMBER = r"(-?\d+(?:\.\d+|/[1-9]\d*)?)"
_LEAK = re.compile(rf"final answer (?:is|should then be) {_NUMBER}|makes {_NUMBER} the final answer")


class PromptError(ValueError):
    """A prompt that asks for nothing this engine knows; the message says what was expected."""


class Prompt(Record):
    """What a prompt asks for."""

    task: Task
    question: str
    prefix: str = ""
    """What the model has written so far: everything behind the last heading."""
    solution: str = ""
    critique: str | None = None
    """The critique to refine with; None where there is none."""
    remark: str = ""
    """The remark to judge."""
    remarks: str = ""
    """The remarks to compose from."""
    agent: str = ""
    """Name of the critic; empty where the prompt names none."""
    step: str = ""
    """The step to put an error into."""
    first: str = ""
    """The critique to write again."""
    other: str = ""
    """Another solution to compare with; it shows the same steps of the way as `solution`."""
    gold: str = ""
    """The gold answer, where it is shown."""
    candidates: str = ""
    """The solutions to choose from."""
    answer: str = ""
    """The answer to be judged, or revised, by what a user asks for."""
    is_misled: bool = False
    """Whether a hint goes with the problem. There are none but misleading ones."""


class Remark(Record):
    """One line of a critique, as read."""

    step: int
    """Index of the step, from 0."""
    kind: Literal["error", "praise"]
    quote: str
    """Quoted words; empty where there are none."""
    text: str
    """The rest of the line."""
    line: str
    """The line as it stood."""


class Reading(Record):
    """What a critique says, as an actor reads it."""

    remarks: tuple[Remark, ...]
    first_wrong: int | None
    """Index from 0 of the first wrong step that it names; None where it names none."""
    says_something: bool
    """Whether it names a wrong step or says that there is none."""
    leaked: tuple[Fraction, ...]
    """Values that it says the final answer has."""


def parse_prompt(text: str) -> Prompt:
    """Reads the last problem's sections.

    Raises:
      PromptError: there is no problem, or its sections end with none that asks for something.
    """
    start = text.rfind("\nProblem:\n") + 1
    breaks = list(_BREAK.finditer(text, start))
    if not breaks or breaks[0].group(1) != "Problem":
        raise PromptError(f"expected a line 'Problem:' and its sections, got a prompt that ends {text[-80:]!r}")
    ends = [following.start() for following in breaks[1:]] + [len(text)]
    sections = {
        found.group(1): text[found.end() : end] for found, end in zip(breaks, ends, strict=True) if found.group(1)
    }
    last = breaks[-1].group(1)
    if last not in _TASKS:
        raise PromptError(
            f"expected the prompt to end with one of {', '.join(f'{name}:' for name in _TASKS)}, "
            f"got {breaks[-1].group().strip()!r} last"
        )
    task = _TASKS[last]
    return Prompt(
        task=task,
        question=sections["Problem"].strip(),
        prefix=sections[last],
        solution=sections.get("Solution", "").strip("\n") if task != "solve" else "",
        critique=sections["Critique"].strip() if task == "refine" and "Critique" in sections else None,
        remark=sections.get("Remark", "").strip(),
        remarks=sections.get("Remarks", "").strip(),
        step=sections.get("Step to change", "").strip(),
        first=sections.get("First critique", "").strip(),
        other=sections.get("Other solution", "").strip("\n"),
        gold=sections.get("Gold answer", "").strip(),
        candidates=sections.get("Candidates", "").strip(),
        answer=sections.get("Given answer", "").strip("\n"),
        is_misled="Hint" in sections,
        agent=next((found.group(2) for found in reversed(breaks) if found.group(2)), ""),
    )


def read_remarks(text: str) -> tuple[Remark, ...]:
    """The lines of a text that speak of a step: errors say that words of it, or all of it, are wrong."""
    remarks = []
    for line in text.splitlines():
        found = _REMARK.search(line)
        if found is None or int(found["step"]) < 1:
            continue
        remarks.append(
            Remark(
                step=int(found["step"]) - 1,
                kind="error" if found["wrong"] else "praise",
                quote=found["quote"] or "",
                text=found["said"].strip(),
                line=line.strip(),
            )
        )
    return tuple(remarks)


def named_step(remarks: tuple[Remark, ...]) -> int | None:
    """The step that most error remarks speak of, the earliest of those where several do; None without an error."""
    votes = Counter(remark.step for remark in remarks if remark.kind == "error")
    return min(votes, key=lambda step: (-votes[step], step)) if votes else None


def read_critique(text: str) -> Reading:
    """What a critique says; its closing line counts for more than its remarks."""
    remarks = read_remarks(text)
    said = _FIRST_WRONG.search(text)
    sound = said is None and _NONE_WRONG.search(text) is not None
    first_wrong = int(said.group(1)) - 1 if said else None if sound else named_step(remarks)
    return Reading(
        remarks=remarks,
        first_wrong=first_wrong,
        says_something=sound or first_wrong is not None,
        leaked=tuple(Fraction(one or other) for one, other in _LEAK.findall(text)),
    )

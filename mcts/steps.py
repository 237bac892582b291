"""Where one step of reasoning ends and the next begins. Joining the steps gives the text back, byte for byte."""

import re
from typing import Literal

StepRule = Literal["marker", "blank_line"]
"""`marker`: lines that open with `Step i:` or `Answer:`. `blank_line`: paragraphs."""

_BOUNDARIES: dict[StepRule, re.Pattern[str]] = {
    "marker": re.compile(r"^(?=(?:Step \d+|Answer):)", re.MULTILINE),
    "blank_line": re.compile(r"(?<=\n\n)(?!\n)"),
}


def split_steps(text: str, rule: StepRule) -> tuple[str, ...]:
    r"""Cuts a text into steps. White space alone is no step: it stays with the one before, at the start with the first.

    >>> split_steps("Step 1: 4 + 3 = 7\nAnswer: 7\n", "marker")
    ('Step 1: 4 + 3 = 7\n', 'Answer: 7\n')
    """
    steps: list[str] = []
    for piece in _BOUNDARIES[rule].split(text):
        if steps and not (piece.strip() and steps[-1].strip()):
            steps[-1] += piece
        elif piece:
            steps.append(piece)
    return tuple(steps)

"""Where one step of reasoning ends and the next begins. Joining the steps gives the text back, byte for byte."""

import itertools
import re
from collections.abc import Iterator
from typing import Literal

StepRule = Literal["marker", "blank_line", "tokens"]
"""`marker`: lines that open with `Step i:` or `Answer:`. `blank_line`: paragraphs. `tokens`: lines, of which a longer
one is cut every so many tokens."""

_BOUNDARIES: dict[StepRule, re.Pattern[str]] = {
    "marker": re.compile(r"^(?=(?:Step \d+|Answer):)", re.MULTILINE),
    "blank_line": re.compile(r"(?<=\n\n)(?!\n)"),
}
# A step ends with its line: else the text's own numbers would stand in the midst of steps that critics number, or be
# cut in two.
_LINE = re.compile(r"(?<=\n)(?=[^\n])")
# What a byte-pair tokenizer makes one or more tokens of: a word or a piece of a long one with the space before it, up
# to three digits, a sign. No tokenizer is asked, so that equal texts are cut equally whoever wrote them.
_TOKEN = re.compile(r"\s*(?:[^\W\d_]{1,8}|\d{1,3}|[\W_])|\s+", re.UNICODE)


def split_steps(text: str, rule: StepRule, step_tokens: int = 30) -> tuple[str, ...]:
    r"""Cuts a text into steps. White space alone is no step: it stays with the one before, at the start with the first.

    Args:
      text: what follows the end of a step, or a whole solution.
      rule: what ends a step.
      step_tokens: for `tokens`, most tokens of a step; the last one of a line may have fewer. A token here is a word of
        up to eight letters or that much of a longer one, up to three digits, or a sign, each with the white space
        before.

    >>> split_steps("Step 1: 4 + 3 = 7\nAnswer: 7\n", "marker")
    ('Step 1: 4 + 3 = 7\n', 'Answer: 7\n')
    >>> split_steps("one and two make three", "tokens", 2)
    ('one and', ' two make', ' three')
    >>> split_steps("one\ntwo\n", "tokens", 2)
    ('one\n', 'two\n')
    """
    steps: list[str] = []
    for piece in _chunks(text, step_tokens) if rule == "tokens" else _BOUNDARIES[rule].split(text):
        if steps and not (piece.strip() and steps[-1].strip()):
            steps[-1] += piece
        elif piece:
            steps.append(piece)
    return tuple(steps)


def _chunks(text: str, step_tokens: int) -> Iterator[str]:
    for line in _LINE.split(text):
        ends = [match.end() for match in _TOKEN.finditer(line)]
        cuts = [0, *ends[step_tokens - 1 :: step_tokens]]
        if cuts[-1] < len(line):
            cuts.append(len(line))
        yield from (line[start:end] for start, end in itertools.pairwise(cuts))

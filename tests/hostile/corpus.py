"""The saved corpus, strings that hypothesis makes, and what prompts of ours look like from outside."""

import functools
import json
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

HERE = Path(__file__).parent

SPECIAL_TOKENS: tuple[str, ...] = tuple(json.loads((HERE / "special_tokens.json").read_text(encoding="ascii")))
"""As the tokenizers of the models that people serve spell them."""

ORDERS = {
    "solve": [("Problem", "Solution")],
    "refine": [("Problem", "Solution", "Second solution"), ("Problem", "Solution", "Critique", "Second solution")],
    "meta": [("Problem", "Solution", "Other remarks", "Remark", "Judgement")],
    "compose": [("Problem", "Solution", "Remarks", "Composed critique")],
    "critique": [
        ("Problem", *told, "Solution", *other, *first, *complaint, "Critique")
        for told in ((), ("Crucial information",))
        for other in ((), ("Other solution",), ("Gold answer",), ("Gold answer", "Other solution"))
        for first in ((), ("First critique",))
        for complaint in ((), ("The last reply was not usable",))
    ],
    "clean": [
        ("Problem", "Solution", *other, "First critique", *complaint, "Clean critique")
        for other in ((), ("Other solution",), ("Gold answer",), ("Gold answer", "Other solution"))
        for complaint in ((), ("The last reply was not usable",))
    ],
    "crucial": [("Problem", *gold, "Crucial information") for gold in ((), ("Gold answer",))],
}
"""By what a prompt asks for: headings that may stand alone on a line, in order. Written down by hand."""

ELSEWHERE = {"Run", "Earlier attempts", "What was said", "Candidates", "Feedback on siblings", "Given answer"}
ELSEWHERE |= {"Checker's message", "User feedback", "Steps before", "Step to change", "Kind of error", "Hint"}
"""Sections of dialogues, debates, scopes and injected errors, whose prompts have tests of their own."""
NAMES = {name for orders in ORDERS.values() for order in orders for name in order} | {"Critic"} | ELSEWHERE

TASKS = {
    "Second solution": "refine",
    "Composed critique": "compose",
    "Judgement": "meta",
    "Critique": "critique",
    "Clean critique": "clean",
    "Crucial information": "crucial",
    "Solution": "solve",
}
"""What the last heading of a prompt asks for."""


def headings(prompt: str) -> tuple[str, ...]:
    """The headings that stand alone on a line, whatever ends a line."""
    lines = [line.rstrip() for line in prompt.splitlines()]
    return tuple(line[:-1] for line in lines if line.endswith(":") and line[:-1] in NAMES)


@functools.cache
def corpus() -> tuple[str, ...]:
    """The saved texts, the long ones written out."""
    entries = json.loads((HERE / "corpus.json").read_text(encoding="ascii"))
    return tuple(entry["text"] * entry.get("times", 1) for entry in entries)


CHARACTERS = st.characters(exclude_categories=())
"""Any code point, halves of surrogate pairs too."""


def pieces() -> st.SearchStrategy[str]:
    """Short hostile pieces, and any characters."""
    return st.sampled_from([text for text in corpus() if len(text) <= 200]) | st.text(CHARACTERS, max_size=20)


def texts() -> st.SearchStrategy[str]:
    """Texts that are put together of such pieces."""
    return st.lists(pieces(), max_size=5).map("\n".join) | st.lists(pieces(), max_size=5).map("".join)


@functools.cache
def generated(number: int) -> tuple[str, ...]:
    """So many different texts that hypothesis makes; always the same ones."""
    found: dict[str, None] = {}

    @settings(
        max_examples=number,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(texts(), min_size=2, max_size=8))
    def collect(made: list[str]) -> None:
        found.update(dict.fromkeys(made))

    collect()
    return tuple(found)[:number]

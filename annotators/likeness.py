"""Whether two remarks say the same in other words: shared content words, the same numbers, the same polarity.

For counting how many critics say a thing, where equality of the words would find none. Pure and symmetric. It is meant
to miss what is worded quite differently rather than to take two remarks for one that contradict each other.
"""

import re
from collections.abc import Sequence
from fractions import Fraction

import networkx as nx

from annotators.numbers import read_values
from annotators.plain import plain_text, without_place_names
from schemas import Record

ALIKE = 0.5
"""Likeness from which two remarks count as one: half of what the two say together is said by both."""

_APOSTROPHE = "\N{RIGHT SINGLE QUOTATION MARK}"
_WORD = re.compile(rf"[^\W\d_]+(?:['{_APOSTROPHE}][^\W\d_]+)*")
_STEM = 5
"""Letters of a word that are compared: crude, but it makes one of `calculate`, `calculated` and `calculation`
(n-truncation, McNamee and Mayfield 2004)."""


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


_FUNCTION_WORDS = _listed(
    """
    a about after all also an and any are as at be because been before being both but by can could did do does doing
    done each for from get gets had has have having he her here his how i if in into is it its just may me might more
    most must my of on only or other our out over own same shall she should so some such than that the their them then
    there these they this those through to too under until up very was we were what when where which while who whom
    why will with would you your step steps
    """
)
_NEGATIONS = _listed(
    """
    no not never none nothing neither nor cannot without lack lacks lacking fail fails failed failing miss misses
    missing missed
    """
)
_OPPOSITES = {
    "incorrect": "correct",
    "incorrectly": "correct",
    "wrong": "correct",
    "wrongly": "correct",
    "error": "correct",
    "mistake": "correct",
    "false": "true",
    "untrue": "true",
    "invalid": "valid",
    "inaccurate": "accurate",
    "inconsistent": "consistent",
    "incomplete": "complete",
    "irrelevant": "relevant",
    "unnecessary": "necessary",
    "unsupported": "supported",
    "unclear": "clear",
}
"""Words that say no to another word; they are compared as that word, and negate what they stand in."""
_SAME = {"right": "correct", "rightly": "correct"}


class Content(Record):
    """What of a remark is compared."""

    words: frozenset[str]
    """Beginnings of its content words."""
    numbers: frozenset[Fraction]
    """Numbers it names, in any form; not those that only say which step."""
    is_negated: bool
    """Whether an odd number of its words say no."""


def read_content(text: str) -> Content:
    """What a remark says, without the words that carry none of it."""
    words: set[str] = set()
    negations = 0
    for match in _WORD.finditer(text.casefold()):
        word = match[0].replace(_APOSTROPHE, "'")
        if word in _NEGATIONS or word.endswith("n't"):
            negations += 1
            continue
        if word in _OPPOSITES:
            negations += 1
        elif word in _FUNCTION_WORDS:
            continue
        words.add(_SAME.get(word, _OPPOSITES.get(word, word)).removesuffix("'s")[:_STEM])
    numbers = frozenset(read_values(without_place_names(plain_text(text))).written)
    return Content(words=frozenset(words), numbers=numbers, is_negated=negations % 2 == 1)


def likeness(ours: Content, theirs: Content) -> float:
    """How much of what two remarks say is said by both, 0..1: Jaccard index of their words and numbers.

    0 where one denies what the other says, or where each names a number that the other does not: `7 + 8 = 15` and
    `7 + 8 = 16` share most of their content and cannot both hold.
    """
    if ours.is_negated != theirs.is_negated:
        return 0.0
    if not (ours.numbers <= theirs.numbers or theirs.numbers <= ours.numbers):
        return 0.0
    common = len(ours.words & theirs.words) + len(ours.numbers & theirs.numbers)
    either = len(ours.words | theirs.words) + len(ours.numbers | theirs.numbers)
    return common / either if either else 0.0


def said_alike(ours: str, theirs: str, threshold: float = ALIKE) -> bool:
    """Whether two texts count as one remark; equal ones always do."""
    return ours == theirs or likeness(read_content(ours), read_content(theirs)) >= threshold


def count_backers(remarks: Sequence[tuple[str, str]], threshold: float = ALIKE) -> tuple[int, ...]:
    """For each remark how many critics say it, its own author included.

    Args:
      remarks: author and text, for example of all units on one step of one kind.
      threshold: least likeness of two remarks that count as one; equal texts always do.
    """
    contents = [read_content(text) for _, text in remarks]
    return tuple(
        len(
            {
                author
                for (author, other), theirs in zip(remarks, contents, strict=True)
                if other == text or likeness(ours, theirs) >= threshold
            }
        )
        for (_, text), ours in zip(remarks, contents, strict=True)
    )


def group_alike(texts: Sequence[str], threshold: float = ALIKE) -> tuple[int, ...]:
    """The group of each text, counted from 0 in the order of their first members; whoever is alike is in one group."""
    contents = [read_content(text) for text in texts]
    graph = nx.Graph()
    graph.add_nodes_from(range(len(texts)))
    graph.add_edges_from(
        (i, j)
        for j in range(len(texts))
        for i in range(j)
        if texts[i] == texts[j] or likeness(contents[i], contents[j]) >= threshold
    )
    groups = sorted(nx.connected_components(graph), key=min)
    group_of = {member: number for number, group in enumerate(groups) for member in group}
    return tuple(group_of[i] for i in range(len(texts)))

"""Words that give the answer away, taken out of a text in every form that `annotators.leaks` knows as equal."""

import re
from collections.abc import Sequence

from annotators.leaks import leaked_words
from schemas import Record

MASK = "[masked]"
"""What stands where words were taken out."""

_MOST = 20
"""Leaks of one text that are taken out before it is given up."""
_SENTENCE = re.compile(r"[^\n]*?(?:[.!?](?=\s)|\n|$)")


class Masked(Record):
    """A text without the answer, or with a leak that could not be taken out."""

    text: str
    masked: tuple[str, ...] = ()
    """Words that were taken out, as the leak's finder says them."""
    leak: str = ""
    """Words that still give the answer away; empty where none do."""


NOTHING = Masked(text="")
"""What was said by nobody."""


def masked(text: str, answers: Sequence[str], shown: str, *, mask: bool = True) -> Masked:
    """A text without the words that give one of the answers away.

    Words that stand in the text as the finder says them are taken out alone; where they stand otherwise (LaTeX, a sum
    over two lines), the sentence is taken out that they are in.

    Args:
      text: what a giver wrote.
      answers: each is enough by itself.
      shown: what the text's reader has anyway; see `annotators.leaks.leaked_words`.
      mask: False only looks.
    """
    gone: list[str] = []
    while words := leaked_words(text, answers, shown):
        without = _without(text, words, answers, shown) if mask and len(gone) < _MOST else text
        if without == text:
            return Masked(text=text, masked=tuple(gone), leak=words)
        text = without
        gone.append(words)
    return Masked(text=text, masked=tuple(gone))


def _without(text: str, words: str, answers: Sequence[str], shown: str) -> str:
    """The text without these words, or without the sentences that give the answer away, or the same text."""
    pieces = [_pattern(piece) for piece in words.split(", ")]
    if all(piece.search(text) for piece in pieces):
        for piece in pieces:
            text = piece.sub(MASK, text)
        return text
    return "".join(
        f"{MASK}\n" if leaked_words(sentence, answers, shown) else sentence for sentence in _SENTENCE.findall(text)
    )


def _pattern(words: str) -> re.Pattern[str]:
    """Finds the words as they stand: a number not within a longer one."""
    body = r"\s+".join(map(re.escape, words.split()))
    before = r"(?<![\w.])" if words[0].isalnum() else ""
    after = r"(?!\w|\.\d)" if words[-1].isalnum() else ""
    return re.compile(before + body + after, re.IGNORECASE)

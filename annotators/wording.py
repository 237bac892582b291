"""How a critique is worded: length, readability, repetition, talk of what its reader never sees, near-duplicates."""

import re
import unicodedata
from collections.abc import Iterable

from datasketch import MinHash, MinHashLSH

_SOLUTION = r"(?:final )?(?:solution|answer|explanation|proof)s?"
_CORRECT = r"the (?:correct|right|true|actual)"
_SPEAKS = r"(?:says?|shows?|states?|indicates?|provides?|differs?)"
_WORKS = rf"(?:{_SPEAKS}|gives?|uses?|has|have|takes?|gets?|adds?|subtracts?|multiplies|divides?)"
_AGAINST = (
    r"(?:unlike|like|as in|as per|as shown in|compared (?:to|with)|according to|differs? from|deviates? from"
    r"|match(?:es)?|part of|consistent with|contradicts?|different from|same as)"
)
_REFERENCE_TALK = re.compile(
    "|".join(
        (
            # A solution that only whoever grades has.
            r"\b(?:reference|gold(?:en|[- ]standard)?|ground[- ]truth|official) "
            rf"(?:correct |right )?{_SOLUTION}\b|\bground[- ]truth\b|\b(?:answer|solution) key\b",
            rf"\b(?:the|a|my|our) reference {_SPEAKS}\b",
            rf"\b{_AGAINST} (?:the|my|our) reference\b(?! (?:point|angle|frame|line))",
            # A hint was given; that something hints at something, or holds a hint of it, is no talk of one.
            r"\bhints?\b(?! (?:at|that|to|towards?|of)\b)",
            # Another solution that is at hand, not one that could be written.
            rf"\b(?:the|that|this) other {_SOLUTION}\b|\b(?:another|a second|the second) {_SOLUTION} {_WORKS}\b",
            rf"\b{_SOLUTION} (?:above |below )?(?:that |which )?(?:i|we) (?:was|were|have been|am) (?:shown|given)\b",
            # The correct answer may be asked for, and critics say what it should be; nobody can hold it against the
            # solution, or let it speak, without having it.
            rf"\b{_AGAINST} {_CORRECT} {_SOLUTION}\b",
            rf"\b{_CORRECT} (?:final )?(?:solution|proof)s? {_WORKS}\b",
            rf"\b{_CORRECT} {_SOLUTION} (?:{_SPEAKS}|provided|given|shown|above|below)\b",
        )
    ),
    re.IGNORECASE,
)
_LINE_HEAD = re.compile(r"^step \d+(?: is (?:right|wrong))?[:.]\s*")


def talks_of_reference(text: str) -> bool:
    """Whether a critique speaks of something that its reader will not have: a reference, a hint, another solution.

    That the correct answer is something, or is not reached, is what critics say without having seen one.
    """
    return bool(_REFERENCE_TALK.search(" ".join(text.split())))


def repeated_share(text: str) -> float:
    """Share of the lines that repeat an earlier one, 0..1."""
    lines = [_LINE_HEAD.sub("", line.strip().casefold()) for line in text.splitlines() if line.strip()]
    return 1 - len(set(lines)) / len(lines) if lines else 0.0


def visible_length(text: str) -> int:
    """Characters of a text, any white space between words counted as one."""
    return len(" ".join(text.split()))


MIN_CLEAN = 0.98
"""Least share of a readable text's characters that are no control, private, unassigned or replacement characters."""
MIN_LETTERS = 0.2
"""Least share of a readable text's characters that are letters of words. Critiques of calculations that quote every
line may have no more than 0.3, those in prose have 0.65 and more."""

_BLOB = re.compile(r"\w{61,}")  # Base64, hexadecimal or a stuck key; no word is as long.
_UNCLEAN = frozenset(("Cc", "Cf", "Cn", "Co", "Cs"))
_JOINERS = frozenset("\u200c\u200d\ufe0f")  # Part of words in some scripts, and of emoji.


def is_readable(text: str) -> bool:
    """Whether a text is mostly letters in words, and next to nothing in it is noise. White space does not count."""
    characters = "".join(text.split())
    if not characters:
        return False
    noise = sum(
        char == "\N{REPLACEMENT CHARACTER}" or (unicodedata.category(char) in _UNCLEAN and char not in _JOINERS)
        for char in characters
    )
    letters = sum(char.isalpha() for char in _BLOB.sub("", text))
    return noise <= (1 - MIN_CLEAN) * len(characters) and letters >= MIN_LETTERS * len(characters)


_TOKEN = re.compile(r"\d+(?:[.,/]\d+)*|[^\W\d_]+|[-+*/=<>^%]")
_SHINGLE = 3
_HASHES = 128


def near_duplicates(critiques: Iterable[tuple[str, str]], threshold: float = 0.9) -> dict[str, str]:
    """Critiques that nearly repeat an earlier one.

    Texts are compared as sets of runs of three words; case and punctuation do not count, numbers and the signs between
    them do: in texts by a template they are the content. Two texts are near-duplicates where the sets' Jaccard index,
    common runs over all runs, is at least the threshold. One number changed in the middle changes three runs: at 0.9 it
    makes another text of up to about 60 words, and none of a longer one. Candidates come from MinHash and banding
    (Broder 1997; Leskovec et al., Mining of Massive Datasets, chapter 3) with bands so narrow that one in a thousand
    pairs at the threshold is missed at most; the index itself is then exact.

    Args:
      critiques: text and key, in the order in which they are to be kept; keys occur once. What is a near-duplicate is
        not kept, and what resembles only that is compared with the kept ones alone.
      threshold: Jaccard index, above 0 and at most 1.

    Returns:
      For the key of each near-duplicate the key of the kept one that it repeats, the earliest if several.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must lie above 0 and be at most 1, got {threshold}")
    index = MinHashLSH(num_perm=_HASHES, params=_bands(threshold))
    empty = MinHash(num_perm=_HASHES)
    kept: list[tuple[str, frozenset[str]]] = []
    repeats: dict[str, str] = {}
    for text, key in critiques:
        shingles = _shingles(text)
        sketch = empty.copy()
        sketch.update_batch([shingle.encode("utf-8", "surrogatepass") for shingle in shingles])
        earlier = (kept[i] for i in sorted(index.query(sketch)))
        repeated = next((other for other, theirs in earlier if _jaccard(shingles, theirs) >= threshold), None)
        if repeated is not None:
            repeats[key] = repeated
        else:
            index.insert(len(kept), sketch)
            kept.append((key, shingles))
    return repeats


def _bands(threshold: float) -> tuple[int, int]:
    """Bands and rows a band: the widest that miss a pair at the threshold once in a thousand."""
    widths = [rows for rows in (16, 8, 4, 2) if (1 - threshold**rows) ** (_HASHES // rows) <= 1e-3]
    rows = widths[0] if widths else 1
    return _HASHES // rows, rows


def _shingles(text: str) -> frozenset[str]:
    words = _TOKEN.findall(text.casefold())
    return frozenset(" ".join(words[i : i + _SHINGLE]) for i in range(max(1, len(words) - _SHINGLE + 1)))


def _jaccard(ours: frozenset[str], theirs: frozenset[str]) -> float:
    return len(ours & theirs) / len(ours | theirs)

"""Numbers spelled in words: twenty-four, one hundred and five, two thirds, three dozen, two and a half."""

import re
from collections.abc import Iterator
from fractions import Fraction

_SMALL = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SCALES = {"hundred": 100, "dozen": 12, "thousand": 1000, "million": 10**6, "billion": 10**9}
_VALUES = {word: value for value, word in enumerate(_SMALL)} | {word: 20 + 10 * i for i, word in enumerate(_TENS)}
_ORDINALS = ("half", "third", "quarter", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_DENOMINATORS = {word: 2 + i for i, word in enumerate(_ORDINALS)} | {"fourth": 4, "halve": 2}

_CARDINAL = "|".join(sorted((*_VALUES, *_SCALES), key=len, reverse=True))
_SPELLED = re.compile(
    rf"(?<![\w-])(?:(?P<above>one|two|three|four|five|six|seven|eight|nine)[ -](?P<below>{'|'.join(_DENOMINATORS)})s?"
    rf"|(?P<cardinal>(?:{_CARDINAL})(?:[ -](?:and )?(?:{_CARDINAL}))*)(?P<half> and (?:a |one )?half)?)(?![\w-])",
    re.IGNORECASE,
)
_ONE_BEFORE = re.compile(
    r"(?:\b(?:exactly|only|just) |(?P<is>\b(?:is|are|equals?|be|to|makes?|gives?|yields?) ))$", re.I
)
_ONE_AFTER = re.compile(r"\s?(?:$|[.,;:!?)\n])")
_NOT_ONE_AFTER = re.compile(r" (?:of|who|that|which|can|should|must|needs?|step|error|mistake|flaw|part|case)\b", re.I)


def read_spelled(text: str) -> Iterator[tuple[Fraction, str]]:
    """Numbers of a text that stand in words, with those words.

    `one` alone is a number only where it can be nothing else: at the end of what is said (`the answer is one.`) or
    after exactly, only or just (`only one solution`); not in `this one`, `one of` or `one should`. Words that say an
    ordinal (`twenty-first`) are none.
    """
    for match in _SPELLED.finditer(text):
        if match["above"]:
            yield Fraction(_VALUES[match["above"].lower()], _DENOMINATORS[match["below"].lower()]), match[0]
            continue
        words = re.split(r"[ -]", match["cardinal"].lower())
        if words == ["one"] and not match["half"] and not _is_number(text, match):
            continue
        *most, last = _numbers(words)
        said = match[0]
        yield from ((Fraction(value), said) for value in most)
        yield last + Fraction(bool(match["half"]), 2), said


def _is_number(text: str, one: re.Match[str]) -> bool:
    if one[0] == text:
        return True
    before = _ONE_BEFORE.search(text[max(one.start() - 12, 0) : one.start()])
    if before is None:
        return False
    end = text[one.end() : one.end() + 10]
    return bool(_ONE_AFTER.match(end)) if before["is"] else not _NOT_ONE_AFTER.match(end)


def _numbers(words: list[str]) -> list[int]:
    """What cardinal words in a row say: one number where they fit together, several where they do not."""
    found, i = [], 0
    while i < len(words):
        value, after = _number(words, i)
        if after > i:
            found.append(value)
        i = max(after, i + 1)
    return found


def _number(words: list[str], i: int) -> tuple[int, int]:
    """The longest number from word `i` on, and the word after it."""
    total, least = 0, 10**12
    while True:
        group, i = _group(words, i)
        scale = _SCALES.get(words[i], 0) if i < len(words) else 0
        if not 1000 <= scale < least:
            return total + (group or 0), i
        total, least, i = total + (1 if group is None else group) * scale, scale, i + 1
        if words[i : i + 1] == ["and"]:
            i += 1


def _group(words: list[str], i: int) -> tuple[int | None, int]:
    """A number below a thousand, or a count of dozens; None where there is none."""
    value, i = _below_hundred(words, i)
    scale = words[i] if i < len(words) else ""
    if scale not in ("hundred", "dozen"):
        return value, i
    value, i = (1 if value is None else value) * _SCALES[scale], i + 1
    if scale == "dozen":
        return value, i
    rest, after = _below_hundred(words, i + (words[i : i + 1] == ["and"]))
    is_next = words[after : after + 1] == ["hundred"]  # Two hundred, three hundred.
    return (value, i) if rest is None or is_next else (value + rest, after)


def _below_hundred(words: list[str], i: int) -> tuple[int | None, int]:
    value = _VALUES.get(words[i]) if i < len(words) else None
    if value is None:
        return None, i
    unit = _VALUES.get(words[i + 1], 0) if value >= 20 and i + 1 < len(words) else 0
    return (value + unit, i + 2) if 1 <= unit <= 9 else (value, i + 1)

r"""Answers as texts and as numbers: one spelling for each character, boxes opened, numbers read exactly.

Pure, linear in the text and without any library that evaluates: safe on whatever a model writes.
"""

import functools
import itertools
import re
from fractions import Fraction
from typing import Literal

from schemas import Record

# Bidirectional overrides make a text read otherwise than it is; control characters, surrogates and replacement
# characters are noise. Zero-width joiners and marks are harmless and are dropped.
UNREADABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffd-\uffff]")

_BOX = re.compile(r"\\f?boxed\s*\{")
_SAME_ANSWER = re.compile(r"(?:(?!\.\s+[A-Z])[^\n])*|(?:[\s$,;.&]|\\[\[\]()]|and|or)*")
_MAX_BOX = 20_000


def boxes(text: str) -> str | None:
    """Contents of the last boxes that stand together, joined by commas.

    None without a box; empty where the last one never closes, as in a text that was cut off.
    """
    found: list[tuple[int, str]] = []
    for match in itertools.islice(reversed(list(_BOX.finditer(text))), 8):
        end = _closing(text, match.end())
        if end is None and not found:
            return ""
        if end is None or (found and end > found[-1][0]):
            continue  # Never closed, or around a box already taken.
        if found and not _SAME_ANSWER.fullmatch(text, end + 1, found[-1][0]):
            break
        found.append((match.start(), text[match.end() : end].strip()))
    return ", ".join(dict.fromkeys(content for _, content in reversed(found))) if found else None


def _closing(text: str, start: int) -> int | None:
    """Index of the brace that closes the one before `start`."""
    depth = 1
    for match in re.finditer(r"\\.|[{}]", text[start : start + _MAX_BOX], re.DOTALL):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if not depth:
            return start + match.start()
    return None


def unboxed(text: str) -> str:
    """The content of the boxes in a text, or the text."""
    return text if "boxed" not in text else boxes(text) or text


def is_balanced(text: str) -> bool:
    """Whether every brace closes one that was opened."""
    depth = 0
    for match in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth < 0:
            return False
    return depth == 0


_COMMAND_NAMES = "times div pi infty le ge pm cup cap cdot approx sqrt"
_COMMANDS = dict(zip("×÷π∞≤≥±∪∩·≈√", _COMMAND_NAMES.split(), strict=True))  # noqa: RUF001
_CHARACTERS = str.maketrans(
    dict.fromkeys("\u200b\u200c\u200d\u200e\u200f\u2060\ufeff", "")
    | {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
    | dict.fromkeys("\u2212\u2013\ufe63", "-")
    | dict.fromkeys("\u00a0\u2009\u202f\u2007\u3000", " ")
    | {"½": " 1/2", "¼": " 1/4", "¾": " 3/4", "⅓": " 1/3", "⅔": " 2/3", "²": "^{2}", "³": "^{3}", "°": "^{\\circ}"}
    | {character: f" \\{command} " for character, command in _COMMANDS.items()}
)
_WRAPPERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("`", "`"), ('"', '"'))
_STOP = re.compile(r"(?:\\,|(?<![.\\])[.,;\u3002])\s*$")
_SPACING = re.compile(r"(?<!\\)\\[,;:! ~]|~|\\(?:q?quad|displaystyle|limits|left|right|[bB]igg?[lr]?)(?![a-zA-Z])")
_TEXT = re.compile(r"\\(?:text(?:bf|it|rm|normal)?|mathrm|mathbf|mbox|rm)\s*\{([^{}]*)\}")


@functools.lru_cache(maxsize=4096)
def plain(text: str) -> str:
    """The same LaTeX with one spelling for each character and without what is around it."""
    text = unboxed(text.translate(_CHARACTERS)).strip()
    for _ in range(4):
        text = _STOP.sub("", text).strip()
        for left, right in _WRAPPERS:
            if len(text) > len(left + right) and text.startswith(left) and text.endswith(right):
                text = text[len(left) : -len(right)].strip()
    return text


@functools.lru_cache(maxsize=4096)
def tidy(text: str) -> str:
    """`plain`, with spacing, text commands and spellings of fractions taken out: made for reading numbers."""
    text = plain(text).replace("{,}", ",")
    text = _TEXT.sub(r" \1 ", _SPACING.sub(" ", re.sub(r"(?<!\\)\\!", "", text)))
    text = re.sub(r"\\[dtc]frac(?![a-zA-Z])", r"\\frac", text)
    text = re.sub(r"\\frac\s*(\d)\s*(\d)(?!\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"(?<=\d)\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ)", " degrees", text)
    return " ".join(text.split())


class Number(Record, frozen=True):
    """An exact number as it was written."""

    value: Fraction
    """Before percent: 25 for `25%`."""
    percent: bool = False
    unit: str = ""
    """Empty without one."""
    name: str = ""
    """The variable it is given for, as in `x = 5`."""


class Values(Record, frozen=True):
    """One number or a list of them."""

    shape: str
    """The brackets around a list: `()`, `[)`, `{}` and so on; empty for one number and for a bare list."""
    items: tuple[Number, ...]


_INT = r"(?:[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d?(?:,\d{2})+,\d{3}|[1-9]\d{0,2}(?: \d{3})+|\d+)"
_DEC = rf"(?:{_INT}(?:\.\d*)?|\.\d+)"
_EXPONENT = r"(?:[eE]|\s*(?:\*|\\times|\\cdot|x)\s*10\s*\^\s*)\{?\(?([+-]?\d{1,3})\)?\}?"
_NUMBER = re.compile(
    rf"(?:([A-Za-z](?:_\w)?)\s*=\s*)?([+-]?)\s*(\\?\$|[€£¥₹])?\s*(-?)(?:(\d+)\s*\\frac\s*\{{(\d+)\}}\s*\{{(\d+)\}}"
    rf"|(\d+) (\d+)/(\d+)|\\frac\s*\{{\s*(-?{_DEC})\s*\}}\s*\{{\s*(-?{_DEC})\s*\}}"
    rf"|({_DEC})(?:\s*/\s*(-?{_DEC})|{_EXPONENT})?)(?![\d,.])\s*(.*)"
)
_PERCENT = re.compile(r"\\?%|per ?cent|percentage points?", re.IGNORECASE)
_UNIT = re.compile(r"\(?([A-Za-z]+(?:[ /-][A-Za-z]+){0,4})\.?(?:\s*\^?\s*\{?([23])\}?)?\)?")
_UNIT_NAMES = (
    "cm centimeter centimeters centimetre centimetres|mm millimeter millimeters|km kilometer kilometers kilometres|"
    "m meter meters metre metres|in inch inches|ft foot feet|yd yard yards|mi mile miles|g gram grams|"
    "kg kilogram kilograms kilos|mg milligram milligrams|lb lbs pound pounds|oz ounce ounces|s sec second seconds|"
    "min mins minute minutes|h hr hrs hour hours|day days|week weeks|month months|year years|"
    "$ dollar dollars usd bucks|€ euro euros eur|£ gbp|cent cents|degree degrees deg|radian radians rad|"
    "l liter liters litre litres|ml milliliter milliliters|mph|gallon gallons"
)
_UNITS = {alias: line.split()[0] for line in _UNIT_NAMES.split("|") for alias in line.split()}
_NOT_UNITS = (
    "or and not to plus minus times over divided mod base million thousand hundred billion trillion dozen dozens half "
    "halves third thirds quarter quarters pi sqrt sin cos tan log ln exp squared cubed infinity remainder"
)
NOT_UNITS = frozenset(_NOT_UNITS.split())
"""Words that change a number or offer another one."""
_COUNTING = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
NUMBER_WORDS = {word: Number(value=Fraction(value)) for value, word in enumerate(_COUNTING.split())}


def read_unit(text: str) -> str | None:
    """The unit's usual name, an unknown unit as it stands, or None where the text is no unit.

    Any noun may be one (`12 apples`), but a short word only where it is known: `5 x` has no unit.
    """
    match = _UNIT.fullmatch(text.strip())
    if match is None:
        return None
    words, power = match.group(1).casefold().split(), match.group(2) or ""
    if len(words) > 1 and words[0] in ("square", "sq", "cubic"):
        power, words = ("3" if words[0] == "cubic" else "2"), words[1:]
    name = " ".join(words)
    pieces = re.split(r"[ /-]", name)
    if not all(len(piece) > 2 or piece in _UNITS or piece in ("of", "per", "a", "in") for piece in pieces):
        return None
    return None if NOT_UNITS.intersection(pieces) else _UNITS.get(name, name) + power


def read_number(text: str) -> Number | None:
    """A tidied text as one number with its unit; None where it is anything else or divides by zero."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        return NUMBER_WORDS.get(text.casefold())
    name, sign, currency, sign2, w1, n1, d1, w2, n2, d2, top, bottom, dec, below, exponent, rest = match.groups()
    percent = _PERCENT.fullmatch(rest) is not None
    unit = "" if percent or not rest else read_unit(rest)
    if currency:
        unit = _UNITS.get(currency[-1], currency) if unit in ("", _UNITS.get(currency[-1])) else None
    if unit is None:
        return None
    try:
        if w1 or w2:
            value = int(w1 or w2) + Fraction(int(n1 or n2), int(d1 or d2))
        else:
            value = _fraction(top or dec) / _fraction(bottom or below or "1")
    except ZeroDivisionError:
        return None
    value *= Fraction(10) ** int(exponent or 0) * (-1 if (sign == "-") != bool(sign2) else 1)
    return Number(value=value, percent=percent, unit=unit, name=name or "")


def _fraction(text: str) -> Fraction:
    return Fraction(re.sub(r"[, ]", "", text).rstrip("."))


_PLUS_MINUS = re.compile(r"(?:([A-Za-z])\s*=\s*)?\\pm\s*(.*)")
_ALTERNATIVES = re.compile(r"\s*(?:[,;]\s*)?\b(?:or|and)\b\s*|\s*;\s*")


def read_values(text: str) -> Values | None:
    """A text as one number, as a bare list such as `3, 4` or `3 or 4`, or as a list in brackets; None otherwise."""
    text = tidy(text)
    shape = ""
    if text.startswith("\\{") and text.endswith("\\}"):
        shape, text = "{}", text[2:-2].strip()
    elif len(text) > 2 and text[0] in "([{" and text[-1] in ")]}" and not re.search(r"[(\[)\]]", text[1:-1]):
        listed = "," in text
        shape, text = (text[0] + text[-1] if listed else ""), (text[1:-1].strip() if listed or text[0] == "(" else text)
    if not shape:
        number = read_number(text)
        signs = _PLUS_MINUS.fullmatch(text)
        if number is None and signs and (number := read_number(signs.group(2))):
            return Values(shape="", items=(number, Number(value=-number.value, unit=number.unit)))
        if number is not None:
            return Values(shape="", items=(number,))
    comma = r",\s+" if re.search(r",\s", text) else ","  # In `1,234, 5` only one comma separates.
    parts = [part for piece in _ALTERNATIVES.split(text) for part in re.split(comma, piece)]
    items = [number for part in parts[:51] if (number := read_number(part.strip()))]
    if len(items) != len(parts) or len({number.name for number in items}) > 1 or (len(items) < 2 and not shape):
        return None
    return Values(shape=shape, items=tuple(items))


Comparison = Literal["correct", "incorrect", "answer_ambiguous"]


def compare_numbers(answer: Number, gold: Number) -> Comparison:
    """Whether two numbers are the same.

    A unit may be left out, for the question names it; a wrong one is wrong. The percent sign is a unit for what can
    only be a percentage (25 and 25 %) and part of the value otherwise (0.25 and 25 %); up to 1 it could be either.
    """
    if answer.name and gold.name and answer.name != gold.name:
        return "incorrect"
    units = answer.unit and gold.unit and answer.unit != gold.unit
    if answer.percent != gold.percent:
        if answer.value == gold.value != 0:
            return "correct" if abs(gold.value) > 1 else "answer_ambiguous"
        scale = Fraction(1, 100)
        same = answer.value * (scale if answer.percent else 1) == gold.value * (scale if gold.percent else 1)
        return "correct" if same else "incorrect"
    known = {answer.unit.rstrip("23"), gold.unit.rstrip("23")} <= set(_UNITS.values())
    if units and (answer.value != gold.value or not known):
        return "answer_ambiguous"  # Perhaps the same quantity in another unit, or the same thing by another name.
    return "correct" if answer.value == gold.value and not units else "incorrect"


def compare_values(answer: Values, gold: Values) -> Comparison:
    """Whether two lists are the same: in order inside `()` and `[]`, as sets otherwise."""
    ours, theirs = answer.items, gold.items
    shapes = {answer.shape, gold.shape} - {""}
    if len(shapes) > 1 or (not answer.shape and gold.shape not in ("", "()", "{}")):
        return "incorrect"
    if not shapes & {"()", "(]", "[)"} and not gold.shape.startswith("["):
        ours = tuple(sorted(set(ours), key=lambda number: number.value))
        theirs = tuple(sorted(set(theirs), key=lambda number: number.value))
        if len(theirs) == 1 and len({number.value for number in ours}) == 1:
            ours = ours[:1]
    if len(ours) != len(theirs):
        return "incorrect"
    results = {compare_numbers(a, g) for a, g in zip(ours, theirs, strict=True)}
    return "incorrect" if "incorrect" in results else "answer_ambiguous" if len(results) > 1 else results.pop()

r"""Numbers in prose, read exactly: what stands written, in digits or in words, and what plain sums come to.

Works on texts that `annotators.plain.plain_text` made. Pure, linear in the text and without anything that evaluates
code: safe on whatever a model writes.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from math import isqrt
from typing import NamedTuple

from annotators.spelled import read_spelled
from schemas import Record

_MOST_DIGITS = 40  # Longer numbers are noise.
_LONGEST_WORDS = 200
_MOST_SUMS = 20

_INTEGER = r"(?>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_NUM = rf"(?>{_INTEGER}(?:\.[0-9]+)?|\.[0-9]+)(?![0-9]|\.[0-9])"
# A minus is a sign where no number and no bracket stands before it: `is -5`, but neither `9 -5` nor `x-5`.
_SIGN = r"(?:(?<![\w.)%])(?<![0-9)%]\ )-)?"
_TOKEN = re.compile(
    rf"""(?P<clock>(?<![\w.:])[0-9]{{1,2}}:[0-9]{{2}}(?![\w:.]))
    |(?P<spaced>(?<![\w.,])[1-9][0-9]{{0,2}}(?:\ [0-9]{{3}})+(?!\w|[.,][0-9]))
    |(?P<mixed>{_SIGN}(?<![\w.])[0-9]{{1,6}}\ [0-9]{{1,6}}/[0-9]{{1,6}}(?![\w/]|\.[0-9]))
    |(?P<fraction>{_SIGN}(?<![\w./^]){_NUM}\ ?/\ ?{_NUM}(?!\ ?[/^]))
    |(?P<number>{_SIGN}(?<![\w.]){_NUM}(?:[eE][+-]?[0-9]{{1,3}}(?!\w))?)
    |(?P<root>\\sqrt\([0-9]{{1,20}}\))
    |(?P<power>\^\ ?\(?-?\w+\)?)
    |(?P<operator>[-+*/()])
    |(?P<word>\\?[^\W\d_]\w*)
    |(?P<other>\w+|\S|\n)""",
    re.VERBOSE,
)
_SUFFIX = re.compile(
    r"(?P<percent> ?%| ?per ?cent\b)|(?P<scale> ?(?:hundred|thousand|million|billion|trillion|dozen)\b|[kK]\b)"
    r"|(?P<letters>[A-Za-z]+)(?P<more>\w)?|(?P<base>[\^(])|(?P<factor>_| ?\\(?:sqrt|pi|sin|cos|tan|log|ln|theta)\b)"
)
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_SUFFIX_SCALES = _SCALES | {"k": 1000, "K": 1000}
_NO_UNITS = frozenset(("st", "nd", "rd", "th", "sin", "cos", "tan", "log", "mod"))
_SHORT_UNITS = frozenset(
    ("m", "g", "s", "h", "l", "L", "kg", "cm", "mm", "km", "ml", "mL", "mg", "ft", "in", "lb", "oz", "hr", "am", "pm")
)
_UNITS = re.compile(r" ?%?(?:[ -]?(?:[A-Za-z]{2,}|[mgshlL])\.?| ?/ ?[A-Za-z]+| ?\^[23]){0,8} ?")
_NO_UNIT_WORDS = frozenset(("and", "but", "for", "the", "should", "not", "plus", "then", "which", "that", "equals"))

_Found = tuple[Fraction, frozenset[Fraction], int, int]
_VARIABLE, _WORD, _STOP = "variable", "word", "stop"


class Sum(NamedTuple):
    """A calculation as it stands in a text."""

    words: str
    numbers: frozenset[Fraction]
    """What it is made of."""


class Values(Record):
    """The numbers of a text."""

    written: Mapping[Fraction, str]
    """Numbers as such, in any form, each with the words that say it first."""
    computed: Mapping[Fraction, Sequence[Sum]]
    """What sums of numbers come to that stand alone: `12 * 2`, not `x + 12 * 2`. The first few for each value."""
    parts: frozenset[Fraction]
    """Numbers that stand within fractions and mixed numbers: 7 and 8 in `7/8`."""


class _Atom(NamedTuple):
    """A number, an operator, or what ends a sum."""

    item: Fraction | str
    start: int
    end: int


class _Reader:
    """One pass over a plain text. Collects the numbers, yields what sums are made of."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.written: dict[Fraction, str] = {}
        self.computed: dict[Fraction, list[Sum]] = {}
        self.parts: set[Fraction] = set()
        self.read_to = 0  # Behind the unit, the percent sign or the scale of the last number.

    def say(self, value: Fraction, start: int, end: int) -> None:
        if value not in self.written:
            self.written[value] = self.text[start:end].strip()[:_LONGEST_WORDS]

    def compute(self, value: Fraction, numbers: frozenset[Fraction], start: int, end: int) -> None:
        sums = self.computed.setdefault(value, [])
        if len(sums) < _MOST_SUMS and all(numbers != other.numbers for other in sums):
            sums.append(Sum(self.text[start:end].strip()[:_LONGEST_WORDS], numbers))

    def atoms(self) -> Iterator[_Atom]:
        after_share = after_value = False
        for token in _TOKEN.finditer(self.text):
            kind, start, end = token.lastgroup, *token.span()
            if start < self.read_to:
                continue
            if kind in ("number", "fraction", "mixed", "root", "spaced"):
                value, after_share = self.number(token)
                after_value = value is not None
                yield _Atom(_VARIABLE if value is None else value, start, end)
                continue
            if kind == "word" and after_value and self._is_unit_in_sum(token):
                continue
            if kind == "word" and token[0] == "of" and after_share:
                yield _Atom("*", start, end)
            elif kind == "power":
                yield from self._power(token)
            else:
                yield _Atom(self._mark(token), start, end)
            after_share = after_value = False

    def number(self, token: re.Match[str]) -> tuple[Fraction | None, bool]:
        """The number that a token is, and whether it is a share of something; None where it stands for none."""
        match token.lastgroup:
            case "number":
                return self._decimal(token)
            case "fraction":
                return self._fraction(token)
            case "mixed":
                return self._mixed(token), False
            case "spaced":
                return self._spaced(token), False
            case _:
                return self._root(token), False

    def _mark(self, token: re.Match[str]) -> str:
        if token.lastgroup == "operator":
            is_call = token[0] == "(" and self.text[max(token.start() - 1, 0)].isalpha()
            return _VARIABLE if is_call else token[0]
        if token.lastgroup == "word":
            return _WORD if len(token[0]) > 2 and not token[0].startswith("\\") else _VARIABLE
        return _STOP if token.lastgroup == "clock" or token[0] in '\n.,;:=!?<>"' else _VARIABLE

    def _is_unit_in_sum(self, token: re.Match[str]) -> bool:
        """Whether a word stands between a number and an operator: 3 men + 4 children."""
        if len(token[0]) < 3 or token[0] in _NO_UNIT_WORDS or token[0].startswith("\\"):
            return False
        return re.match(r" ?[+*/]| - ", self.text[token.end() : token.end() + 3]) is not None

    @staticmethod
    def _power(token: re.Match[str]) -> Iterator[_Atom]:
        exponent = token[0].strip("^( )")
        if exponent.isdecimal() and len(exponent) <= 3:
            yield _Atom("^", *token.span())
            yield _Atom(Fraction(int(exponent)), *token.span())
        else:
            yield _Atom(_VARIABLE, *token.span())

    def _decimal(self, token: re.Match[str]) -> tuple[Fraction | None, bool]:
        """The number, and whether it is a percentage. None where it is a factor, a subscript or an ordinal."""
        start, end = token.span()
        value, suffix = _exact(token[0]), _SUFFIX.match(self.text, token.end())
        kind = suffix.lastgroup if suffix else None
        if value is None or kind in ("factor", "more") or (token[0][0] == "-" and self.text[end : end + 1] == "^"):
            return None, False
        if suffix is None:
            self.say(value, start, end)
        elif kind == "letters":
            letters = suffix["letters"]
            if letters in _NO_UNITS or (len(letters) < 3 and letters not in _SHORT_UNITS):
                return None, False  # `2x` is not 2.
            self.read_to = suffix.end()
            self.say(value, start, self.read_to)
        elif kind != "base":
            self.read_to = suffix.end()
            self.say(value, start, self.read_to)
            value *= Fraction(1, 100) if kind == "percent" else _SUFFIX_SCALES[suffix[0].strip()]
            self.say(value, start, self.read_to)
        if "," in token[0] and self.text[max(start - 1, 0)] == "(":
            for part in token[0].split(","):  # A pair such as (100,101) looks like one number.
                self.say(Fraction(part), start, end)
        return value, kind == "percent"

    def _fraction(self, token: re.Match[str]) -> tuple[Fraction | None, bool]:
        start, end = token.span()
        above, below = (_exact(part.strip()) for part in token[0].split("/"))
        suffix = _SUFFIX.match(self.text, end)
        if above is None or not below or (suffix and suffix.lastgroup in ("factor", "more")):
            return None, False
        if suffix and suffix.lastgroup == "letters" and len(suffix["letters"]) < 2 and suffix["letters"] not in "mgsh":
            return None, False
        value = above / below
        if value.denominator > 1:
            self.say(value, start, end)
        else:  # A division that comes out even is a sum with two numbers rather than a way to write one.
            self.compute(value, frozenset((above, below)), start, end)
            self.say(above, start, end)
            self.say(below, start, end)
        self.parts |= {above, below}
        return value, True

    def _mixed(self, token: re.Match[str]) -> Fraction | None:
        whole, above, below = (int(digits) for digits in re.findall(r"[0-9]+", token[0]))
        if not 0 < above < below:
            self.parts |= {Fraction(whole), Fraction(above), Fraction(below)}
            return None
        value = (whole + Fraction(above, below)) * (-1 if token[0].startswith("-") else 1)
        self.say(value, *token.span())
        self.parts |= {Fraction(whole), Fraction(above, below)}
        return value

    def _spaced(self, token: re.Match[str]) -> Fraction | None:
        """`1 234` is one number or two: both are said."""
        pieces = token[0].split(" ")
        joined = _exact("".join(pieces))
        for value in (joined, *map(Fraction, pieces)):
            if value is not None:
                self.say(value, *token.span())
        return joined

    def _root(self, token: re.Match[str]) -> Fraction | None:
        radicand = int(token[0][6:-1])
        if isqrt(radicand) ** 2 != radicand:
            return None
        root = Fraction(isqrt(radicand))
        self.compute(root, frozenset((Fraction(radicand),)), *token.span())
        return root


def _exact(digits: str) -> Fraction | None:
    if len(digits) > _MOST_DIGITS:
        return None
    return Fraction(digits.replace(",", ""))


def read_values(text: str) -> Values:
    r"""All numbers that a plain text says. `2x`, `x_2`, `2nd`, `2^n` and `2\pi` do not say 2, nor does `5:02`."""
    reader = _Reader(text)
    for value, numbers, start, end in _sums(reader.atoms()):
        reader.compute(value, numbers, start, end)
    for value, words in read_spelled(text):
        reader.written.setdefault(value, words)
    return Values(written=reader.written, computed=reader.computed, parts=frozenset(reader.parts))


def read_quantity(text: str) -> frozenset[Fraction]:
    """What one number with its unit can mean: 25 and 1/4 for `25%`, 29 for `29 cents` or `x = 29`; else nothing."""
    text = re.sub(r"^ ?\\?[A-Za-z]\w{0,2} ?= ?", "", text.strip())
    spelled = [value for value, words in read_spelled(text) if words == text]
    if spelled:
        return frozenset(spelled)
    tokens = list(_TOKEN.finditer(text[:200]))
    first = tokens[0].lastgroup if tokens else None
    if first not in ("number", "fraction", "mixed") or not _UNITS.fullmatch(text, tokens[0].end()):
        return frozenset()
    reader = _Reader(text)
    value, _ = reader.number(tokens[0])
    if first != "number":
        return frozenset() if value is None else frozenset((value,))
    return frozenset(reader.written)


def _sums(atoms: Iterable[_Atom]) -> Iterator[_Found]:
    """Values of the longest sums, with their numbers and places. What a variable belongs to has no value."""
    run: list[_Atom] = []
    before, attached = _STOP, False
    for atom in (*atoms, _Atom(_STOP, 0, 0)):
        last = run[-1] if run else None
        if atom.item in (_VARIABLE, _WORD, _STOP):
            yield from _finish(run, is_whole=not attached and not _joins(last, str(atom.item)))
            run, before, attached = [], str(atom.item), False
            continue
        is_operator = isinstance(atom.item, str) and atom.item != "("
        if last is not None and not is_operator and (last.item == ")" or not isinstance(last.item, str)):
            if last.end == atom.start:
                run.append(_Atom("*", atom.start, atom.start))
            else:
                yield from _finish(run, is_whole=not attached)
                run, before, attached = [], _STOP, False
        if not run and is_operator:
            attached |= _joins(atom, before)
        else:
            run.append(atom)


def _joins(operator: _Atom | None, neighbour: str) -> bool:
    """Whether an operator at a sum's end joins it to what stands there; a minus beside a word is a dash."""
    if operator is None or not isinstance(operator.item, str) or operator.item in "()" or neighbour == _STOP:
        return False
    return neighbour == _VARIABLE or operator.item != "-"


def _finish(run: list[_Atom], *, is_whole: bool) -> Iterator[_Found]:
    while run and isinstance(run[-1].item, str) and run[-1].item != ")":
        run.pop()
    depth = sum({"(": 1, ")": -1}.get(str(atom.item), 0) for atom in run)
    cut = run[max(depth, 0) :] if all(atom.item == "(" for atom in run[: max(depth, 0)]) else []
    while depth < 0 and cut and cut[-1].item == ")":
        cut, depth = cut[:-1], depth + 1
    if not is_whole or not 3 <= len(cut) <= _LONGEST_SUM or _is_range(cut):
        return
    value = evaluate([atom.item for atom in cut])
    if value is not None and any(atom.item in _LEVELS for atom in cut):
        numbers = frozenset(atom.item for atom in cut if not isinstance(atom.item, str))
        yield value, numbers, cut[0].start, cut[-1].end


def _is_range(run: list[_Atom]) -> bool:
    """Whether it is `3-5`, from the smaller to the larger number, and no difference."""
    low, sign, high = run[0], run[1], run[2]
    if len(run) != 3 or sign.item != "-" or low.end != sign.start:
        return False
    return isinstance(low.item, Fraction) and isinstance(high.item, Fraction) and low.item < high.item


_LEVELS = {"+": 1, "-": 1, "*": 2, "/": 2, "^": 3}
_LONGEST_SUM = 60
_MOST_BITS = 2000


def evaluate(items: list[Fraction | str]) -> Fraction | None:
    """Value of numbers, operators `+-*/^` and brackets in writing order; None where they are no sum.

    Exact. Powers are small whole ones; a result of more than 2000 bits counts as none.
    """
    values: list[Fraction] = []
    pending = ["("]
    expects_value = True
    for item in (*items, ")"):
        if not pending or expects_value != (not isinstance(item, str) or item == "("):
            return None
        if not isinstance(item, str):
            values.append(item)
            expects_value = False
        elif item == "(":
            pending.append(item)
        else:
            level = _LEVELS.get(item, 0)
            # Powers are worked out from the right.
            while pending[-1] != "(" and _LEVELS[pending[-1]] >= level + (item == "^"):
                if not _apply(pending.pop(), values):
                    return None
            if level:
                pending.append(item)
                expects_value = True
            else:
                pending.pop()
    return values[0] if len(values) == 1 and not pending else None


def _apply(operator: str, values: list[Fraction]) -> bool:
    right, left = values.pop(), values.pop()
    if operator == "^":
        bits = left.numerator.bit_length() + left.denominator.bit_length()
        if right.denominator != 1 or not 0 <= right * bits <= _MOST_BITS:
            return False
        values.append(left ** int(right))
    elif operator == "/":
        if not right:
            return False
        values.append(left / right)
    else:
        values.append(left + right if operator == "+" else left - right if operator == "-" else left * right)
    return values[-1].numerator.bit_length() + values[-1].denominator.bit_length() <= _MOST_BITS

r"""LaTeX and Markdown taken out of a text: one spelling for each sign, for reading numbers and expressions.

Every replacement is linear in the text, so that a hostile one costs no more than its length.
"""

import re
from fractions import Fraction

_DROPPED = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u00ad"
_SIGNS = {
    "-": "\u2212\u2013\ufe63\u2010\u2011\uff0d",
    " ": "\u00a0\u2009\u202f\u2007\u3000",
    "*": "\u00d7\u00b7\u22c5\u2219",
    "/": "\u00f7\u2044\u2215",
}
_WORDS = {
    **{"½": " 1/2", "⅓": " 1/3", "⅔": " 2/3", "¼": " 1/4", "¾": " 3/4", "⅕": " 1/5", "⅛": " 1/8", "⅜": " 3/8"},
    **{"²": "^2", "³": "^3", "°": " degrees ", "√": "\\sqrt ", "π": "\\pi ", "∞": "\\infty "},
}
_CHARACTERS = str.maketrans(
    dict.fromkeys(_DROPPED, "")
    | {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
    | {spelling: sign for sign, spellings in _SIGNS.items() for spelling in spellings}
    | _WORDS
)
_REPLACED: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\f?boxed\s?\{\s?(?:\\text(?:bf|rm)?\s?\{\s?)?\(?([A-J])\)?\s?\}", r" answer is \1 "),
        (r"\\(?:text(?:bf|it|rm|normal)?|math(?:rm|bf|it|sf)|mbox|operatorname)\s?\{([^{}]*)\}", r" \1 "),
        (r"\\(?:left|right|displaystyle|q?quad|limits|[bB]igg?[lr]?|f?boxed)(?![a-zA-Z])|\\!", ""),
        (r"\{,\}", ","),
        (r"\\\\", " ; "),
        (r"\\[,;: ]|~|&(?= ?=)|\\[()\[\]]", " "),
        (r"\\([%$])", r"\1"),
        (r"\^\s?\{?\s?\\circ\s?\}?", " degrees "),
        (r"\\(?:cdot|times|ast)(?![a-zA-Z])", "*"),
        (r"\\div(?![a-zA-Z])", "/"),
        (r"(?<!\\)\bsqrt\b", r"\\sqrt"),
        (r"(\\(?:ln|log|sin|cos|tan|exp)) ?\((-?\w+)\)", r"\1 \2"),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\frac\s?([0-9])\s?([0-9])", r"\\frac{\1}{\2}"),
        (r"(?<=\w)\s?\\frac", r" \\frac"),
        (r"\\sqrt\s?([0-9]+|[a-z]\b)", r"\\sqrt{\1}"),
        # A minus before a currency's sign belongs to the number.
        (r"-\s?[$€£¥₹]\s?(?=\.?[0-9])", "-"),
        (r"[$€£¥₹`]", " "),
        (r"(?<=[0-9])\*\*(?=[0-9])", "^"),
        (r"\*\*+|__+", " "),
        # `12 x 2` is a product.
        (r"(?<=[0-9)])(?: {1,3}[xX] {1,3}|[xX])(?=\(?[0-9])", " * "),
    )
)
_SUBSCRIPT = re.compile(r"_\s?\{([^{}]*)\}")
_REPEATING = re.compile(r"([0-9]{0,12})\.([0-9]{0,12})\\(?:overline|bar)\s?\{([0-9]{1,12})\}")
_FRACTION = re.compile(r"\\frac\s?\{([^{}]*)\}\s?\{([^{}]*)\}")
_ROOT = re.compile(r"\\sqrt\s?\{([^{}]*)\}")
_POWER = re.compile(r"\^\s?\{([^{}]*)\}")
_SIMPLE = re.compile(r"\s*(-?[\w.,]+|-?\\[a-z]+)\s*")
_DRAWN_LABEL = re.compile(r'"([^"\n]{0,80})"')
_SPACES = re.compile(r"\s+")
_DEPTH = 4
"""Fractions and roots within one another that are still read."""


def plain_text(text: str) -> str:
    r"""The text without what only sets it: `\dfrac{3}{4}` is 3/4, `\boxed{2}` is 2, `12 \cdot 2` is 12 * 2, $29 is 29.

    Lines stay lines. Of drawing code between `[asy]` marks the labels stay, for its coordinates say nothing to a
    reader.
    """
    text = _SPACES.sub(_one_space, _without_drawings(text.translate(_CHARACTERS)))
    for pattern, replacement in _REPLACED:
        text = pattern.sub(replacement, text)
    text = _SUBSCRIPT.sub(lambda match: "_" + re.sub(r"\W", "", match[1]), _REPEATING.sub(_repeating, text))
    for _ in range(_DEPTH):
        text = _POWER.sub(lambda match: "^" + _grouped(match[1]), text)
        text = _ROOT.sub(r"\\sqrt(\1)", text)
        text = _FRACTION.sub(lambda match: f"{_grouped(match[1])}/{_grouped(match[2])}", text)
    return _SPACES.sub(_one_space, re.sub(r"\\?[{}]", " ", text))


def _one_space(match: re.Match[str]) -> str:
    return "\n" if "\n" in match[0] else " "


def _without_drawings(text: str) -> str:
    before, *drawn = text.split("[asy]")
    parts = [before]
    for piece in drawn:
        code, closed, after = piece.partition("[/asy]")
        parts.append(f" {' ; '.join(_DRAWN_LABEL.findall(code))} {after}" if closed else code)
    return "".join(parts)


def _grouped(text: str) -> str:
    simple = _SIMPLE.fullmatch(text)
    return simple[1] if simple else f"({text.strip()})"


def _repeating(match: re.Match[str]) -> str:
    r"""`0.\overline{3}` as 1/3: the digits that repeat, over as many nines."""
    whole, start, period = match.groups()
    nines = Fraction(int(period), 10 ** len(period) - 1)
    value = int(whole or 0) + (int(start or 0) + nines) / 10 ** len(start)
    return f"{value.numerator}/{value.denominator}"


_COUNT = r"(?:[0-9]{1,3}(?!\w)|(?:one|two|three|four|five|six|seven|eight|nine|ten)(?![\w-]))"
_NUMBERED = r"(?:step|line|equation|eq\.|sentence|figure|section|remark)"
_PLACE_NAMES = re.compile(
    rf"\b{_NUMBERED}s \(?{_COUNT}\)?(?:, \(?{_COUNT}\)?)*(?:,? (?:and|or|to|through) | ?[-&] ?)\(?{_COUNT}\)?"
    rf"|\b{_NUMBERED}s? ?(?:\#|no\. ?)?\(?(?<=\W){_COUNT}\)?(?:\.[0-9]+(?!\w))?"
    rf"|\b(?:first|last|previous|next|other|all|these|those|final) {_COUNT} (?:steps|lines|sentences|equations)\b"
    rf"|\b{_COUNT} (?:errors?|mistakes?|flaws?)\b"
    r"|^ ?[-*#]{0,6} ?\(?[0-9]{1,2}[.)](?=\s)",
    re.IGNORECASE | re.MULTILINE,
)


def without_place_names(text: str) -> str:
    """A plain text without numbers that say which step or how many errors, and without the numbers of a list's lines.

    `Step 3: it is 4`, `steps 2 and 3`, `the first two steps`, `2 errors`, `1. First, ...`.
    """
    return _PLACE_NAMES.sub(" ", text)

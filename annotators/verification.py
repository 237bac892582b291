"""Tests that a critique must pass before anyone learns from it. Each is a pure function; the cheap ones come first."""

import re
from fractions import Fraction

from schemas import Critique, Estimate, Path, PathPair, Record

VERIFY_REJECTIONS = (
    "wrong_verdict",
    "wrong_location",
    "leaks_answer",
    "talks_of_reference",
    "too_short",
    "too_long",
    "repeats_itself",
    "help_unscored",
    "no_better_than_placebo",
    "no_better_than_none",
    "hurts",
    "not_measured",
)
"""Why a critique is rejected, in the order of the tests."""

_NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_NUMBER = re.compile(
    r"(?<![\w.])-?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:\s*/\s*\d+)?(?!\d|\.\d|(?:st|nd|rd|th)\b)"
)
_FRACTION = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")
_STEP_NUMBERS = re.compile(r"\bstep \d+|\bsteps \d+(?:, \d+)*,? (?:and|or|to) \d+", re.IGNORECASE)
_LINE_HEAD = re.compile(r"^step \d+(?: is (?:right|wrong))?[:.]\s*")
_REFERENCE_TALK = re.compile(
    r"\b(?:reference|gold|ground[- ]truth|correct|right|other|another|given)\s+(?:final\s+)?(?:solution|answer)s?\b"
    r"|\bground[- ]truth\b|\bhints?\b|\banswer key\b",
    re.IGNORECASE,
)


class VerifySettings(Record):
    """What a critique must show."""

    rollouts: int = 8
    """Second solutions with the critique, with the placebo, and with none."""
    alpha: float = 0.05
    """Largest one-sided Fisher p-value of the help over each control."""
    location_tolerance: int = 0
    """Steps that the named first wrong step may be off the located one."""
    min_location_mass: float = 0.2
    """Posterior probability that makes a named step good enough even beyond the tolerance."""
    min_chars: int = 20
    max_chars: int = 4000
    max_repeated_share: float = 0.5
    """Largest share of a critique's lines that repeat an earlier line."""
    max_measured: int = 2
    """Critiques of one path whose help is measured at most; the composed one first."""
    measure_rejected: int = 1
    """Failed critiques of a path that has a verified one whose help is measured too, for preference pairs."""

    def __post_init__(self) -> None:
        if self.rollouts < 1:
            raise ValueError(f"rollouts must be at least 1, got {self.rollouts}")
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must lie between 0 and 1, got {self.alpha}")


def verdict_agrees(critique: Critique, path: Path) -> bool:
    """Whether the critique's verdict is the path's Monte-Carlo label."""
    return (critique.verdict == "incorrect") == path.has_error


def location_distance(critique: Critique, path: Path) -> int | None:
    """Steps between the named and the located first wrong step; None where either names none."""
    if critique.first_wrong_step is None or not isinstance(path, PathPair):
        return None
    return abs(critique.first_wrong_step - path.first_error)


def location_mass(critique: Critique, path: Path) -> float | None:
    """Posterior probability of the named step; None where either names none."""
    if critique.first_wrong_step is None or not isinstance(path, PathPair):
        return None
    return path.posterior[critique.first_wrong_step]


def location_agrees(critique: Critique, path: Path, settings: VerifySettings) -> bool:
    """Whether the named step is near the located one, or likely enough; True for paths without an error."""
    distance, mass = location_distance(critique, path), location_mass(critique, path)
    if distance is None or mass is None:
        return True
    return distance <= settings.location_tolerance or mass >= settings.min_location_mass


def _plain(text: str) -> str:
    """A text without the numbers that name steps; signs, LaTeX fractions and thousands written in one way."""
    text = text.replace("\N{MINUS SIGN}", "-").replace("{,}", ",")
    return _STEP_NUMBERS.sub("", _FRACTION.sub(r"\1/\2", text))


def _numbers(text: str) -> dict[Fraction, str]:
    found = {}
    for match in _NUMBER.finditer(text):
        digits = match[0].replace(",", "").replace(" ", "")
        numerator, _, denominator = digits.partition("/")
        if len(digits) <= 40 and (not denominator or int(denominator)):
            found[Fraction(numerator) / Fraction(denominator or 1)] = match[0]
    for value, word in enumerate(_NUMBER_WORDS):
        if re.search(rf"(?<![\w-]){word}(?![\w-])", text, re.IGNORECASE):
            found.setdefault(Fraction(value), word)
    return found


def find_leak(critique: Critique, path: Path) -> str:
    """The words of the critique that give the gold answer away, or nothing.

    Numbers count as equal in any form; other answers as whole words whatever their case. What stands already in
    the problem or the solution that is criticised is no news and therefore no leak; a number after `Step` names a
    step. A number that ends in letters is one (`62kg`), an ordinal (`2nd`) is not.
    """
    shown = _plain(path.problem.question + "\n" + "".join(path.steps))
    said = _plain(critique.text)
    gold = _plain(path.problem.answer).strip()
    values = _numbers(gold)
    if len(values) == 1 and _NUMBER.fullmatch(gold):
        (value,) = values
        return "" if value in _numbers(shown) else _numbers(said).get(value, "")
    word = re.compile(rf"(?<!\w){re.escape(gold)}(?!\w)", re.IGNORECASE)
    match = word.search(said)
    return match[0] if match and gold and not word.search(shown) else ""


def talks_of_reference(text: str) -> bool:
    """Whether a critique speaks of something that its reader will not have: a reference, a hint, another solution."""
    return bool(_REFERENCE_TALK.search(text))


def repeated_share(text: str) -> float:
    """Share of the lines that repeat an earlier one, 0..1."""
    lines = [_LINE_HEAD.sub("", line.strip().casefold()) for line in text.splitlines() if line.strip()]
    return 1 - len(set(lines)) / len(lines) if lines else 0.0


def cheap_reasons(critique: Critique, path: Path, settings: VerifySettings) -> tuple[str, ...]:
    """Names of the tests that fail without a single rollout, in order."""
    tests = {
        "wrong_verdict": not verdict_agrees(critique, path),
        "wrong_location": not location_agrees(critique, path, settings),
        "leaks_answer": bool(find_leak(critique, path)),
        "talks_of_reference": talks_of_reference(critique.text),
        "too_short": len(critique.text) < settings.min_chars,
        "too_long": len(critique.text) > settings.max_chars,
        "repeats_itself": repeated_share(critique.text) > settings.max_repeated_share,
    }
    return tuple(name for name, failed in tests.items() if failed)


class Help(Record):
    """Second solutions in three arms, with the tests between them."""

    with_critique: Estimate
    with_placebo: Estimate
    without_critique: Estimate
    p_placebo: float
    p_without: float
    p_hurts: float
    """One-sided p-value that refining without the critique is not better than with it."""


def help_reasons(measured: Help, path: Path, settings: VerifySettings) -> tuple[str, ...]:
    """Names of the tests of helpfulness that fail.

    A critique of a wrong path must beat both controls. One of a right path has nothing to add; it must not make
    the actor give up what was right.
    """
    if not (measured.with_critique.scored and measured.with_placebo.scored and measured.without_critique.scored):
        return ("help_unscored",)
    if not path.has_error:
        return ("hurts",) if measured.p_hurts <= settings.alpha else ()
    tests = {
        "no_better_than_placebo": measured.p_placebo > settings.alpha,
        "no_better_than_none": measured.p_without > settings.alpha,
    }
    return tuple(name for name, failed in tests.items() if failed)

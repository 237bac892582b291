"""When two questions are the same question: as normalised text, or by the runs of words that they share."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from schemas import Problem, Record, Rejection

_SPACING = re.compile(
    r"\\(?:[,;:! ~()\[\]]|quad\b|qquad\b|left\b|right\b|displaystyle\b|limits\b|(?:math|text)(?:rm|bf|it|sf|tt)?\b)|~"
)
"""LaTeX that changes how a formula looks and not what it says."""
_FRACTION = re.compile(r"\\[dtc]frac\b")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_HYPHEN = re.compile(r"(?<=[^\W\d_]{2})-(?=[^\W\d_]{2})")
_SIGNS = str.maketrans(
    {"\N{MULTIPLICATION SIGN}": "*", "\N{MIDDLE DOT}": "*", "\N{DOT OPERATOR}": "*", "\N{DIVISION SIGN}": "/"}
    | {"\N{MINUS SIGN}": "-", "\N{EN DASH}": "-", "\N{EM DASH}": "-"}
    | {"\N{LESS-THAN OR EQUAL TO}": "<=", "\N{GREATER-THAN OR EQUAL TO}": ">="}
)
_COMMANDS = {r"\times": "*", r"\cdot": "*", r"\div": "/", r"\leq": "<=", r"\le": "<=", r"\geq": ">=", r"\ge": ">="}
_COMMAND = re.compile("|".join(rf"{re.escape(command)}(?![a-z])" for command in _COMMANDS))
_SCRIPT = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
"""Characters that are words: these scripts put no space between words."""
_BETWEEN = re.compile(r"(?<!\d) | (?!\d)")
_UNSAID = r"\w\s.,;:?!'\"`$\\{}\u2018-\u201f\u3001\u3002\u300c\u300d"
"""Characters that are no sign: words and spaces have rules of their own, and the rest is punctuation."""
_TOKEN = re.compile(rf"\d+(?:[./:]\d+)*|[{_SCRIPT}]|[^\W\d_{_SCRIPT}]+|(?<=[\d)])!|[^{_UNSAID}]|_")


def words(question: str) -> tuple[str, ...]:
    """What a question says: its words, its numbers, and the signs between them, in order.

    Case, punctuation, white space, LaTeX's spacing and dollars, the look of letters and fractions, and commas in
    thousands do not count; numbers, signs, brackets and all other symbols do, for in `7 - 8` they are the content.
    """
    text = unicodedata.normalize("NFKC", question).translate(_SIGNS).casefold()
    text = _FRACTION.sub(r"\\frac", _SPACING.sub(" ", text))
    text = _COMMAND.sub(lambda match: _COMMANDS[match[0]], text)
    text = _HYPHEN.sub(" ", _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text))
    return tuple(_TOKEN.findall(text))


def same(question: str) -> str:
    """A key that questions share if and only if they say the same.

    Spaces between words do not count in it, for one set writes `jx^2` and the next `j x^{2}`; between numbers they do.
    """
    return _BETWEEN.sub("", " ".join(words(question))) or " ".join(question.split())


PROSE = ("math", "choice", "exact")
"""Domains whose questions are sentences and formulas. In others a question may be a maze, a grid or a program, where
each space and capital letter counts."""


def asked(question: str, domain: str) -> str:
    """A key that problems of a domain share if and only if they ask the same: by `same`, or to the letter."""
    return same(question) if domain in PROSE else question.strip()


def by_question(items: Iterable[Problem | Rejection]) -> dict[str, Problem | None]:
    """Problems by what they ask, for `lender_of`; None where a question comes with two answers or other pictures."""
    known: dict[str, Problem | None] = {}
    for item in items:
        if isinstance(item, Problem):
            key = asked(item.question, item.domain)
            before = known.setdefault(key, item)
            if before is None or (before.answer, before.images) != (item.answer, item.images):
                known[key] = None
    return known


def lender_of(known: Mapping[str, Problem | None], question: str) -> Problem | None:
    """The one problem that asks a question whose domain is not known; None where there is none."""
    return known.get(same(question)) or known.get(question.strip())


class Match(Record):
    """A test set's question that a problem's question is like."""

    where: str
    """File and line or row."""
    share: float
    """Of the shorter question's runs of words those that are in both, 0..1; 1 also where the questions are the same."""
    is_same: bool
    """Whether they are the same as normalised text."""


class TestQuestions:
    """Questions that nobody may be trained on, in an index of runs of words."""

    __test__ = False  # The name begins like a test's.

    def __init__(self, questions: Iterable[tuple[str, str]], run: int) -> None:
        """Indexes questions.

        Args:
          questions: each with its place, for people.
          run: words in a run; GPT-3 took 13 (Brown et al. 2020, appendix C). A question with fewer words has no run.
        """
        self._run = run
        self._places: list[str] = []
        self._sizes: list[int] = []
        self._same: dict[str, int] = {}
        self._holders: dict[str, list[int]] = {}
        for question, where in questions:
            number = len(self._places)
            self._places.append(where)
            self._same.setdefault(same(question), number)
            runs = self._runs(question)
            self._sizes.append(len(runs))
            for text in runs:
                self._holders.setdefault(text, []).append(number)

    def __len__(self) -> int:
        return len(self._places)

    def find(self, question: str, min_share: float) -> Match | None:
        """The test question that this one is most like, or None where none shares at least `min_share` of the runs.

        Of equal ones the earliest. The share is taken of the shorter question, so that a test question inside a long
        prompt counts in full.
        """
        number = self._same.get(same(question))
        if number is not None:
            return Match(where=self._places[number], share=1.0, is_same=True)
        runs = self._runs(question)
        common = Counter(number for text in runs for number in self._holders.get(text, ()))
        shares = {number: count / min(len(runs), self._sizes[number]) for number, count in common.items()}
        best = min(shares, key=lambda number: (-shares[number], number), default=None)
        if best is None or shares[best] < min_share:
            return None
        return Match(where=self._places[best], share=shares[best], is_same=False)

    def _runs(self, question: str) -> frozenset[str]:
        said: Sequence[str] = words(question)
        return frozenset(" ".join(said[i : i + self._run]) for i in range(len(said) - self._run + 1))

"""Prompt templates: files with named gaps, filled once, whose structure is not for what fills them to change."""

import functools
import re
from collections.abc import Mapping

from schemas.base import Record, digest
from schemas.untrusted import as_text, readable

_GAP = re.compile(r"\{(\w+)\}")
# Steps and answers are parts of a solution, not of a prompt.
_HEADING = re.compile(r"^(?!Step \d|Answer:)([^\W\d_][\w ]{0,40}):[ \t]*(?:\{\w+\})?[ \t]*$", re.MULTILINE)

HEADINGS = frozenset(
    (
        "Problem",
        "Solution",
        "Other solution",
        "Gold answer",
        "Crucial information",
        "Checker's message",
        "First critique",
        "The last reply was not usable",
        "Critic",
        "Critique",
        "Clean critique",
        "Other remarks",
        "Remark",
        "Remarks",
        "Judgement",
        "Composed critique",
        "Second solution",
        "Run",
        "Earlier attempts",
        "What was said",
        "Candidates",
        "Feedback on siblings",
        "Given answer",
        "User feedback",
        "Steps before",
        "Step to change",
        "Kind of error",
        "Hint",
    )
)
"""What opens a section in any prompt of ours; a template's own headings come to these."""


@functools.lru_cache(maxsize=256)
def _opening(headings: frozenset[str]) -> re.Pattern[str]:
    """Finds the place before a line that could be read as one of the headings, whatever marks are around it."""
    names = "|".join(sorted(re.escape(name).replace(r"\ ", r"[^\S\r\n]+") for name in headings))
    ends = r"\r\n\u2028\u2029"
    before, after = rf"[^\w{ends}]{{0,16}}_{{0,3}}", rf"[^\w{ends}:\uff1a]{{0,8}}_{{0,3}}[ \t]*[:\uff1a]"
    return re.compile(rf"(?<![^{ends}])(?={before}(?:{names}){after})", re.IGNORECASE)


def contained(text: str, headings: frozenset[str] = HEADINGS) -> str:
    """A text that cannot end the section it stands in, nor open another.

    A line that reads like a heading is quoted with `> `, and special tokens are spelled as text.
    """
    return as_text(_opening(headings).sub("> ", readable(text)))


class Sections(str):
    """Sections as one text, a heading on a line of its own before each; remembers which part is which."""

    parts: Mapping[str, str]

    def __new__(cls, parts: Mapping[str, str], headings: frozenset[str] = HEADINGS) -> "Sections":
        """Lays the parts out; no text of theirs reads like one of the headings, or like one of `headings`."""
        known = headings.union(HEADINGS, parts)
        laid_out = "\n\n".join(f"{heading}:\n{contained(text.strip(), known)}" for heading, text in parts.items())
        self = super().__new__(cls, laid_out)
        self.parts = dict(parts)
        return self


class Template(Record):
    """A prompt with gaps such as `{question}`.

    Filling reads the template once: a value that itself contains `{question}` stays as it is. A value is material: it
    can neither open a section of the prompt nor hold a special token, see `contained`.
    """

    name: str
    text: str

    @property
    def digest(self) -> str:
        """Digest of the text, kept as provenance."""
        return digest(self.text)

    @property
    def gaps(self) -> frozenset[str]:
        """Names of the gaps."""
        return frozenset(_GAP.findall(self.text))

    @property
    def headings(self) -> frozenset[str]:
        """What opens a section here: words and a colon that are alone on a line, or alone with a gap."""
        return _headings(self.text)

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with every gap filled.

        Raises:
          ValueError: a gap has no value; says which gaps there are and which values came.
        """
        missing = self.gaps - values.keys()
        if missing:
            raise ValueError(
                f"prompt template {self.name!r} needs {sorted(missing)}, got only {sorted(values)}; "
                "rename the gap or use a template meant for this stage"
            )
        headings = self.headings | HEADINGS
        filled = {gap: _material(values[gap], headings) for gap in self.gaps}
        return _GAP.sub(lambda gap: filled[gap.group(1)], self.text)


@functools.lru_cache(maxsize=64)
def _headings(text: str) -> frozenset[str]:
    return frozenset(_HEADING.findall(text))


def _material(value: str, headings: frozenset[str]) -> str:
    if not isinstance(value, Sections):
        return contained(value, headings)
    return value if headings <= HEADINGS.union(value.parts) else Sections(value.parts, headings)

"""Critiques in prose, read into units: those of critics that write no JSON, and those of other data sets.

A remark begins with a line that names a step (`Step 3 is wrong: ...`, `Error in step 2: ...`, `In step 4, ...`) or
quotes one (`Step sentence: ...`), and goes on to the next such line. What it says first, that the step is right or that
it is wrong, is its kind; a remark that says neither is left out.
"""

import re
from collections.abc import Sequence

from annotators.units import CritiqueError, Parsed
from schemas import Unit

_ERROR = r"(?:errors?|mistakes?|flaws?)"
_REMARK = re.compile(
    r"^[ \t>*#-]*+(?:\d{1,2}[.)] )?(?:Step sentence:[ \t]*(?P<sentence>\S[^\n]*)"
    rf"|\**(?:(?:There is )?(?:an? |the )?(?:first )?{_ERROR} (?:is |lies |occurs )?(?:in|with) |in |at )?"
    r"step (?P<number>\d{1,3})\b)",
    re.IGNORECASE | re.MULTILINE,
)
_LABEL = re.compile(r"^[ \t]*Correctness of the step:([^\n]*)", re.IGNORECASE | re.MULTILINE)
_KIND = re.compile(
    rf"\b(?:(?P<praise>(?:no|without|not an?) (?:\w+ )?{_ERROR}|correct(?:ly)?|right|accurate(?:ly)?|valid|holds|sound)"
    rf"|{_ERROR}|not (?:quite |entirely )?(?:correct|right|accurate|valid|true)|wrong(?:ly)?|incorrect(?:ly)?|invalid"
    r"|(?:does not|doesn['\u2019]t) (?:hold|follow)|inaccurate|mis(?:calculat|read|interpret|appl)\w*|fails?|should)\b",
    re.IGNORECASE,
)
_CLOSING = re.compile(
    r"^.{0,60}?\b(?:(?:final answer|solution|answer)(?: is|:)\s*(?P<not>not |in)?(?P<judged>correct|right|wrong)"
    r"|(?P<none>No step is wrong))\b",
    re.IGNORECASE | re.MULTILINE,
)
_FIRST = re.compile(
    rf"\bfirst (?:wrong step|incorrect step|{_ERROR})\b[^.\n]{{0,30}}?\bstep (\d{{1,3}})\b", re.IGNORECASE
)
_HEAD = re.compile(
    r"(?:\s*(?:is |was )?(?:right|wrong|correct|incorrect)\b)?[\s*:.,-]*(?:\"(?P<quote>[^\"]*)\"[.\s]*)?"
)
_MARKS = re.compile(r"<<[^<>]*>>|\\boxed|[\s${}\\.]+")
_LEAST_SHARED = 0.8  # Share of a sentence's words that stand in a step which it is quoted from.


def read_prose(text: str, steps: Sequence[str]) -> Parsed:
    """Reads a critique in prose, under the demands that one in JSON must meet.

    Raises:
      CritiqueError: no remark can be read, one speaks of or quotes a step that is not there, or they contradict each
        other or what is said of the solution as a whole.
    """
    closing = next((match for match in _CLOSING.finditer(text) if not _REMARK.match(match[0])), None)
    heads = list(_REMARK.finditer(text))
    units: list[Unit] = []
    for i, head in enumerate(heads):
        end = heads[i + 1].start() if i + 1 < len(heads) else len(text)
        if closing and head.start() < closing.start() < end:
            end = closing.start()
        units += _units(head, text[head.end() : end], steps, units[-1].step if units else 0)
    if not units:
        raise CritiqueError("bad_schema", "expected remarks that begin with `Step N is right:` or `Step N is wrong:`")
    wrong = min((unit.step for unit in units if unit.kind == "error"), default=None)
    named = _FIRST.search(text)
    first = int(named[1]) - 1 if named else wrong
    is_correct = first is None
    if closing:
        is_correct = bool(closing["none"] or (closing["judged"].lower() != "wrong" and not closing["not"]))
    if first != wrong or is_correct != (first is None):
        raise CritiqueError(
            "contradicts_itself",
            f"the remarks find the first error in step {None if wrong is None else wrong + 1}, the critique names step "
            f"{None if first is None else first + 1} and calls the solution {'correct' if is_correct else 'incorrect'}",
        )
    return Parsed(units=tuple(units), first_wrong_step=first, verdict="correct" if is_correct else "incorrect")


def _units(head: re.Match[str], body: str, steps: Sequence[str], least: int) -> list[Unit]:
    label = _LABEL.search(body)
    kind = _KIND.search(label[1] if label else (head[0] if head["number"] else "") + body)
    if kind is None:
        return []
    opening = _HEAD.match(body)
    assert opening is not None
    quote = head["sentence"] or opening["quote"] or ""
    step = int(head["number"]) - 1 if head["number"] else _place(quote, steps, least)
    if not 0 <= step < len(steps):
        raise CritiqueError("step_out_of_range", f"a remark speaks of step {step + 1} of {len(steps)}")
    flaw = body[label.end() :] if label else body[opening.end() :]
    is_error = kind["praise"] is None
    return [
        Unit(
            step=step,
            quote=quote.strip() if " ".join(quote.split()) in " ".join(steps[step].split()) else "",
            kind="error" if is_error else "praise",
            flaw=" ".join(flaw.replace("Explanation:", "", 1).split()),
            error_type="other" if is_error else "",
            severity=3 if is_error else 0,
        )
    ]


def _place(sentence: str, steps: Sequence[str], least: int) -> int:
    """The step a sentence is quoted from, or the first of those that it holds: from the last remark on, else anywhere.

    Calculator's and LaTeX marks do not count.
    """
    order = sorted(range(len(steps)), key=lambda i: (i < least, i))
    bare, *others = (_MARKS.sub("", text).casefold() for text in (sentence, *steps))
    words = set(re.findall(r"\w+", sentence))
    for i in order:
        if bare and bare in others[i]:
            return i
    for i in order:
        shared = words & set(re.findall(r"\w+", steps[i]))
        if (len(others[i]) > 3 and others[i] in bare) or (words and len(shared) >= _LEAST_SHARED * len(words)):
            return i
    raise CritiqueError("quote_not_in_step", f"{sentence[:120]!r} stands in no step")

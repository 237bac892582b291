"""One critique of many: which units survive, how they are said, and that nothing is added to them."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from annotators.consensus import Consensus
from annotators.critic import VIEWS, layout, number_steps
from annotators.judging import one_line
from annotators.leaks import find_leak_in
from annotators.units import closing_line, render_critique, render_unit
from annotators.wording import talks_of_reference
from schemas import Critique, JudgedUnit, Path, Provenance, Record, Template, Unit, digest

Style = Literal["stepwise", "first_error_only", "free"]
"""`stepwise`: a line a step up to the first wrong one. `first_error_only`: that one alone. `free`: prose."""

STYLES: dict[str, str] = {
    "stepwise": "Write one line for each remark, in the order of the steps, beginning as the remark does.",
    "first_error_only": "Write about the first wrong step only.",
    "free": "Write a short paragraph.",
}
"""What the composer is told."""

_MIN_SUPPORT = 0.6
"""Least share of a composed sentence's words that must stand in the remarks or in the solution."""

_WORD = re.compile(r"[^\W\d_]{4,}")
_NUMBER = re.compile(r"\d+(?:[.,/]\d+)*")
_STEP = re.compile(r"\bsteps? (\d+(?:(?:, and |, | and | or | to | ?[-&] ?)\d+)*)", re.IGNORECASE)
_KIND = re.compile(r"\bstep (\d+) is (not )?(?:(right|correct)|wrong|incorrect)\b", re.IGNORECASE)
_VERDICT = re.compile(
    r"\bfirst (?:wrong step|error|mistake)\b|\bno step is (?:wrong|incorrect)\b"
    r"|\b(?:solution|answer) is (?:not )?(?:in)?(?:correct|right|wrong)\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"])")


def surviving_units(judged: Sequence[JudgedUnit], consensus: Consensus, style: Style, path: Path) -> tuple[Unit, ...]:
    """The units that the composed critique is made of: one a step, none that speaks against the consensus.

    Before the first wrong step only praise survives, at that step only errors, after it nothing. A unit that gives the
    answer away or talks of a reference loses its fix, or falls where that does not help. Of several units on one step
    the one is taken that the meta-critic kept, that most agents say, that the most reliable agent says, the most
    severe one, in this order.
    """
    if consensus.verdict == "tie":
        return ()
    wrong = consensus.first_wrong_step
    reliability = {vote.agent: vote.reliability for vote in consensus.votes}
    alive = [item for item in judged if item.decision != "drop"]
    said_by = {(item.agent, item.unit.step, item.unit.kind, item.unit.flaw) for item in alive}
    backing = Counter((step, kind, flaw) for _, step, kind, flaw in said_by)
    best: dict[int, tuple[tuple[bool, int, float, int, str], Unit]] = {}
    for item in alive:
        unit = clean_unit(item.unit, path)
        if unit is None or not _fits(unit, wrong):
            continue
        said = backing[item.unit.step, item.unit.kind, item.unit.flaw]
        kept = item.decision != "unscored"
        rank = (kept, said, reliability.get(item.agent, 0.0), item.severity, digest(unit))
        if unit.step not in best or rank > best[unit.step][0]:
            best[unit.step] = (rank, unit)
    if wrong is not None and wrong not in best:
        return ()
    chosen = [wrong] if style == "first_error_only" and wrong is not None else sorted(best)
    return tuple(best[step][1] for step in chosen)


def _fits(unit: Unit, wrong: int | None) -> bool:
    if wrong is None or unit.step < wrong:
        return unit.kind == "praise"
    return unit.step == wrong and unit.kind == "error"


def clean_unit(unit: Unit, path: Path) -> Unit | None:
    """The unit without what gives the answer away or talks of a reference; None where its flaw does so itself."""
    for candidate in (unit, msgspec.structs.replace(unit, fix="")):
        text = render_unit(candidate)
        if not find_leak_in(text, path) and not talks_of_reference(text):
            return candidate
    return None


def compose_prompt(template: Template, path: Path, units: Sequence[Unit], consensus: Consensus, style: Style) -> str:
    """What the composing model is asked. The gaps are `{style}` and `{sections}`."""
    parts = {
        "Problem": path.problem.question,
        "Solution": number_steps(path.steps),
        "Remarks": "\n".join([*map(one_line, units), closing_line(consensus.first_wrong_step)]),
        "Composed critique": "",
    }
    return template.fill({"style": STYLES[style], "sections": layout(parts)})


def trim_composition(
    text: str, path: Path, units: Sequence[Unit], first_wrong_step: int | None, style: Style
) -> str | None:
    """A model's composition without what no surviving unit says; None where too little is left to stand by itself.

    A sentence stays if every number in it stands in the units, the solution or the problem, every step it names is one
    that a unit speaks of, as that unit does, and most of its longer words occur in them. One that gives the answer away
    or talks of a reference falls, whatever stands where. The sentence about the first wrong step must stay, or the
    template has to do. The verdict is always the panel's: it is put at the end, and what the model says of it falls.
    """
    closing = closing_line(first_wrong_step)
    remarks = " ".join(map(render_unit, units))
    lines = []
    for line in text.strip().splitlines():
        kept = [part for part in _SENTENCE.split(line.strip()) if part and _is_said(part, path, units, remarks)]
        if kept:
            lines.append(" ".join(kept))
    named = {step for line in lines for step in _named_steps(line)}
    if not lines or (first_wrong_step is not None and first_wrong_step not in named):
        return None
    return (" " if style == "free" else "\n").join([*lines, closing])


def _named_steps(text: str) -> set[int]:
    return {int(number) - 1 for numbers in _STEP.findall(text) for number in _NUMBER.findall(numbers)}


def _is_said(sentence: str, path: Path, units: Sequence[Unit], remarks: str) -> bool:
    """Whether the units say what a sentence does, as far as its steps, numbers and words tell."""
    if _VERDICT.search(sentence) and sentence not in remarks:
        return False
    if not _named_steps(sentence) <= {unit.step for unit in units}:
        return False
    found_right = {unit.step + 1: unit.kind == "praise" for unit in units}
    if any(found_right.get(int(step)) != (bool(right) != bool(no)) for step, no, right in _KIND.findall(sentence)):
        return False
    if find_leak_in(sentence, path) or talks_of_reference(sentence):
        return False
    material = f"{remarks} {path.problem.question} {number_steps(path.steps)}"
    numbers = set(_NUMBER.findall(_STEP.sub("", sentence)))
    if not numbers <= set(_NUMBER.findall(_STEP.sub("", material))):
        return False
    words, known = _WORD.findall(sentence.casefold()), set(_WORD.findall(material.casefold()))
    if not words and not numbers:
        return sentence in remarks
    return sum(word in known for word in words) >= _MIN_SUPPORT * len(words)


class Composition(Record):
    """How the panel's critique is worded, and by whom."""

    text: str
    written_by: Literal["composed", "template"]
    """A model, or the deterministic template."""
    provenance: Provenance
    """Of the model, or of the first critic where the template writes."""


def write_by_template(units: Sequence[Unit], first_wrong_step: int | None, style: Style) -> str:
    """The surviving units in fixed words; `free` makes one paragraph of them."""
    written = render_critique(units, first_wrong_step)
    return written.replace("\n", " ") if style == "free" else written


def compose_critique(
    path: Path, units: Sequence[Unit], consensus: Consensus, composition: Composition, views: Mapping[str, str]
) -> Critique:
    """The panel's critique of a path.

    Args:
      path: what is criticised.
      units: from `surviving_units`.
      consensus: whose location and verdict it bears.
      composition: its words.
      views: what each agent behind it was shown; the critique bears the widest.
    """
    step = consensus.first_wrong_step
    return Critique(
        id=digest("composed", path.id, units, step, composition.text),
        path_id=path.id,
        problem_id=path.problem.id,
        agent="panel",
        view=max(views.values(), key=VIEWS.index),  # type: ignore[arg-type]
        units=tuple(units),
        first_wrong_step=step,
        verdict="correct" if step is None else "incorrect",
        text=composition.text,
        parse_state=composition.written_by,
        provenance=composition.provenance,
    )

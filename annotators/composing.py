"""One critique of many: which units survive, how they are said, and that nothing is added to them."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from annotators.consensus import Consensus
from annotators.critic import VIEWS, layout, number_steps
from annotators.judging import one_line
from annotators.leaks import find_leak_in
from annotators.units import closing_line, render_unit
from annotators.wording import talks_of_reference
from schemas import Critique, JudgedUnit, Path, Provenance, Record, Template, Unit, digest

Style = Literal["stepwise", "first_error_only", "free", "merged"]
"""`stepwise`: a line a step up to the first wrong one. `first_error_only`: that one alone. `free`: prose. `merged`: all
that the agents say of a step in one train of thought, what turned out not to hold as a doubt before it; no word of
there having been several critiques (DeepCritic, arXiv 2505.00662)."""

STYLES: dict[str, str] = {
    "stepwise": "Write one line for each remark, in the order of the steps, beginning as the remark does.",
    "first_error_only": "Write about the first wrong step only.",
    "free": "Write a short paragraph.",
    "merged": (
        "Write it as one train of thought, step by step. Where two remarks are on one step, let the second verify the "
        "first. Where a step may look wrong or right, raise that doubt first and then settle it. Never speak of a "
        "draft, of an earlier critique or of another one."
    ),
}
"""What the composer is told."""

_NO_DOUBTS: Mapping[int, str] = {}

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
_DRAFT = re.compile(
    r"\bdrafts?\b|\b(?:first|second|initial|earlier|previous|prior|original|other|deeper|in-depth|two|both) "
    r"(?:critiques?|looks?|reviews?|reviewers?|critics?|pass(?:es)?|assessments?)\b",
    re.IGNORECASE,
)
"""Talk of there having been several critiques, which a merged one is not to give away."""


def surviving_units(judged: Sequence[JudgedUnit], consensus: Consensus, style: Style, path: Path) -> tuple[Unit, ...]:
    """The units that the composed critique is made of: one a step, none that speaks against the consensus.

    Before the first wrong step only praise survives, at that step only errors, after it nothing. A unit that gives the
    answer away or talks of a reference loses its fix, or falls where that does not help. Of several units on one step
    the one is taken that the meta-critic kept, that most agents say, that the most reliable agent says, the most
    severe one, in this order. A merged critique takes all of them, in the order of the agents, without what they say of
    each other.
    """
    if consensus.verdict == "tie":
        return ()
    wrong = consensus.first_wrong_step
    reliability = {vote.agent: vote.reliability for vote in consensus.votes}
    alive = [item for item in judged if item.decision != "drop"]
    said_by = {(item.agent, item.unit.step, item.unit.kind, item.unit.flaw) for item in alive}
    backing = Counter((step, kind, flaw) for _, step, kind, flaw in said_by)
    best: dict[int, tuple[tuple[bool, int, float, int, str], Unit]] = {}
    every: dict[tuple[int, str], Unit] = {}
    for item in alive:
        unit = clean_unit(item.unit, path)
        if unit is None or not _fits(unit, wrong):
            continue
        said = backing[item.unit.step, item.unit.kind, item.unit.flaw]
        kept = item.decision != "unscored"
        rank = (kept, said, reliability.get(item.agent, 0.0), item.severity, digest(unit))
        if own := _of_the_solution(unit):
            every.setdefault((own.step, own.flaw), own)
        if unit.step not in best or rank > best[unit.step][0]:
            best[unit.step] = (rank, unit)
    if wrong is not None and wrong not in best:
        return ()
    if style == "merged":
        merged = tuple(sorted(every.values(), key=lambda unit: unit.step))
        return merged if wrong is None or any(unit.step == wrong for unit in merged) else ()
    chosen = [wrong] if style == "first_error_only" and wrong is not None else sorted(best)
    return tuple(best[step][1] for step in chosen)


def _fits(unit: Unit, wrong: int | None) -> bool:
    if wrong is None or unit.step < wrong:
        return unit.kind == "praise"
    return unit.step == wrong and unit.kind == "error"


def settled_doubts(judged: Sequence[JudgedUnit], units: Sequence[Unit], path: Path) -> dict[int, str]:
    """What agents said that the surviving units speak against, as doubts, by step: one a step, the first agent's.

    Args:
      judged: all remarks, in the order of the agents.
      units: those that survive, all of a kind on each step.
      path: what they are of.
    """
    kinds = {unit.step: unit.kind for unit in units}
    doubts: dict[int, str] = {}
    for item in judged:
        clean = clean_unit(item.unit, path)
        unit = _of_the_solution(clean) if clean else None
        if unit is not None and kinds.get(unit.step, unit.kind) != unit.kind and not _VERDICT.search(unit.flaw):
            looks = "wrong" if unit.kind == "error" else "right"
            flaw = " ".join(unit.flaw.splitlines())
            doubts.setdefault(unit.step, f"Step {unit.step + 1} may look {looks}: {flaw}")
    return doubts


def _of_the_solution(unit: Unit) -> Unit | None:
    """The unit without sentences that speak of a draft or another critique; None where nothing else is said."""
    said = {
        name: " ".join(part for part in _SENTENCE.split(getattr(unit, name)) if not _DRAFT.search(part))
        for name in ("flaw", "fix")
    }
    return msgspec.structs.replace(unit, **said) if said["flaw"] or not unit.flaw else None


def clean_unit(unit: Unit, path: Path) -> Unit | None:
    """The unit without what gives the answer away or talks of a reference; None where its flaw does so itself."""
    for candidate in (unit, msgspec.structs.replace(unit, fix="")):
        text = render_unit(candidate)
        if not find_leak_in(text, path) and not talks_of_reference(text):
            return candidate
    return None


def compose_prompt(
    template: Template,
    path: Path,
    units: Sequence[Unit],
    consensus: Consensus,
    style: Style,
    doubts: Mapping[int, str] = _NO_DOUBTS,
) -> str:
    """What the composing model is asked. The gaps are `{style}` and `{sections}`; `doubts` from `settled_doubts`."""
    lines = _lines(units, doubts, one_line)
    parts = {
        "Problem": path.problem.question,
        "Solution": number_steps(path.steps),
        "Remarks": "\n".join([*lines, closing_line(consensus.first_wrong_step)]),
        "Composed critique": "",
    }
    return template.fill({"style": STYLES[style], "sections": layout(parts)})


def _lines(units: Sequence[Unit], doubts: Mapping[int, str], write: Callable[[Unit], str]) -> list[str]:
    """A line a unit, each step's doubt before the first one on it."""
    lines: list[str] = []
    left = dict(doubts)
    for unit in units:
        lines += [doubt for doubt in (left.pop(unit.step, None),) if doubt]
        lines.append(write(unit))
    return lines


def trim_composition(
    text: str,
    path: Path,
    units: Sequence[Unit],
    first_wrong_step: int | None,
    style: Style,
    doubts: Mapping[int, str] = _NO_DOUBTS,
) -> str | None:
    """A model's composition without what no surviving unit says; None where too little is left to stand by itself.

    A sentence stays if every number in it stands in the units, the solution or the problem, every step it names is one
    that a unit speaks of, as that unit does, and most of its longer words occur in them. One that gives the answer away
    or talks of a reference falls, whatever stands where. The sentence about the first wrong step must stay, or the
    template has to do. The verdict is always the panel's: it is put at the end, and what the model says of it falls.
    Of a merged critique a sentence falls, too, that speaks of a draft, and a doubt must stay, or the template does it.
    """
    closing = closing_line(first_wrong_step)
    remarks = " ".join(_lines(units, doubts, render_unit))
    lines = []
    for line in text.strip().splitlines():
        parts = [part for part in _SENTENCE.split(line.strip()) if part]
        kept = [
            part
            for part in parts
            if _is_said(part, path, units, remarks) and not (style == "merged" and _DRAFT.search(part))
        ]
        if kept:
            lines.append(" ".join(kept))
    named = {step for line in lines for step in _named_steps(line)}
    if not lines or (first_wrong_step is not None and first_wrong_step not in named):
        return None
    if not all(any(_raises(line, step) for line in lines) for step in doubts):
        return None
    return (" " if style == "free" else "\n").join([*lines, closing])


def _raises(line: str, step: int) -> bool:
    """Whether a line speaks of a step as one that may look otherwise than it is."""
    return step in _named_steps(line) and re.search(r"\b(?:may|might|could|seems?|looks?|appears?)\b", line) is not None


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


def write_by_template(
    units: Sequence[Unit], first_wrong_step: int | None, style: Style, doubts: Mapping[int, str] = _NO_DOUBTS
) -> str:
    """The surviving units in fixed words; `free` makes one paragraph of them."""
    ordered = sorted(units, key=lambda unit: unit.step)
    written = "\n".join([*_lines(ordered, doubts, render_unit), closing_line(first_wrong_step)])
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

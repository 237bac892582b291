"""Structured critiques: the JSON that critics and meta-critics write, read strictly, and rendered for people.

Steps are numbered from 1 in everything a model reads or writes, and from 0 in records.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from schemas import Record, Unit, Verdict

ERROR_TYPES: dict[str, str] = {
    "calculation": "the right operation on the right values with a wrong result",
    "misread_problem": "a value or a condition of the problem taken for another, or left out",
    "wrong_operation": "a method, formula or operation that does not answer what is asked",
    "unsupported_claim": "something stated that follows neither from the problem nor from earlier steps",
    "missing_step": "a case or a part of the work left out that the result needs",
    "inconsistent": "a step that contradicts an earlier one, or uses a value other than the one it arrived at",
    "answer_mismatch": "the stated answer is not what the steps arrive at",
    "other": "anything else",
}
"""What can be wrong with a step, with the test for it; the first that fits counts."""

Form = Literal["free", "walk"]
"""`free`: any units in any order. `walk`: one unit a step in order, up to the first wrong one; the line with the answer
is not walked. For models too small to keep a critique consistent, on engines that constrain their output."""

_MOST_DIFFERING, _LONGEST_LINE = 60, 60
"""Characters of a step whose repetition the grammar can rule out, and of what may be said instead."""

_MOST_WALKED = 100
"""Steps of a solution that is walked at most."""

_CONTROL = r'"\\\x00-\x1f\x7f'

_ESCAPED_IN_JSON = re.compile(f"[{_CONTROL}]")
_SYNTAX = re.compile(r"[\\^$.*+?()\[\]{}|]")
"""What means something in a regular expression, outside of a class."""

_MARKER = re.compile(r"^\s*Step \d+:")

CRITIQUE_REJECTIONS = (
    "no_json",
    "bad_schema",
    "step_out_of_range",
    "quote_not_in_step",
    "contradicts_itself",
    "cut_off",
    "prompt_refused",
    "no_first_critique",
    "no_crucial_information",
    "no_try_fits",
    "correction_unscored",
)
"""Why a critic's output is no critique."""


class CritiqueError(ValueError):
    """A critic's output that is no critique. The message says why, for the re-ask and for the rejection."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail if len(detail) <= 400 else f"{detail[:400]} ...")
        self.reason = reason


class Parsed(Record):
    """What a critic said, steps counted from 0."""

    units: tuple[Unit, ...]
    first_wrong_step: int | None
    verdict: Verdict


class Judgement(Record):
    """What the meta-critic said of one unit."""

    decision: Literal["keep", "fix", "drop"]
    severity: int = 0
    fix: str = ""


def _compact(schema: dict[str, Any]) -> str:
    return json.dumps(schema, separators=(",", ":"))


_TEXT = {"type": "string", "maxLength": 400}


def critique_schema(steps: Sequence[str], form: Form, shown: range | None = None) -> str:
    """JSON Schema of a critique of a solution, for constrained decoding.

    Keys come in the order in which a model should think: what it finds when it does a step again, then what stands
    there, then whether that is an error; at the end where the first error is, and the verdict.

    Args:
      steps: the solution's steps.
      form: `free`, or `walk`, with which a model can neither skip a step nor contradict itself; its schema grows with
        the square of the number of steps, so that a solution of more than 100 is left free.
      shown: indices of the steps that the critic is shown; None for all.
    """
    shown = range(len(steps)) if shown is None else shown
    is_walk = form == "walk" and len(shown) <= _MOST_WALKED
    return _compact(_walk_schema(steps, shown) if is_walk else _free_schema(shown))


def _free_schema(shown: range) -> dict[str, Any]:
    step = {"type": "integer", "minimum": shown.start + 1, "maximum": shown.stop}
    properties = {
        "step": step,
        "flaw": _TEXT,
        "quote": _TEXT,
        "kind": {"enum": ["error", "praise"]},
        "fix": _TEXT,
        "error_type": {"enum": list(ERROR_TYPES)},
        "severity": {"type": "integer", "minimum": 0, "maximum": 3},
    }
    unit = _object(properties, required=["step", "flaw", "kind"])
    return _object(
        {
            "units": {"type": "array", "items": unit, "minItems": 1, "maxItems": len(shown) + 4},
            "first_wrong_step": {"anyOf": [step, {"type": "null"}]},
            "verdict": {"enum": ["correct", "incorrect"]},
        }
    )


def _walk_schema(steps: Sequence[str], shown: range) -> dict[str, Any]:
    """One alternative for each place of the first error, and one for none.

    In a step that is praised the flaw repeats what stands there, in one that is not it differs: doing the step again
    decides, and no critique can call a step wrong for being what it should be.
    """
    part = steps[shown.start : shown.stop]
    walked = [step for step in part if not step.lstrip().startswith("Answer:")] or list(part)
    texts = [_MARKER.sub("", step).strip() for step in walked]

    def unit(i: int, kind: str) -> dict[str, Any]:
        flaw = {"const": texts[i]} if kind == "praise" else _differing(texts[i])
        step = {"const": shown.start + i + 1}
        return _object({"step": step, "flaw": flaw, "quote": {"const": texts[i]}, "kind": {"const": kind}})

    def walk(wrong: int | None) -> dict[str, Any]:
        praised = [unit(i, "praise") for i in range(len(texts) if wrong is None else wrong)]
        units = praised + ([] if wrong is None else [unit(wrong, "error")])
        return _object(
            {
                "units": {"type": "array", "prefixItems": units, "minItems": len(units), "maxItems": len(units)},
                "first_wrong_step": {"const": None if wrong is None else shown.start + wrong + 1},
                "verdict": {"const": "correct" if wrong is None else "incorrect"},
            }
        )

    return {"anyOf": [walk(None), *(walk(i) for i in range(len(texts)))]}


def _differing(text: str) -> dict[str, Any]:
    """Schema of a line that is not `text`: it leaves it at some character, or goes on where it ends.

    A text with a character that JSON escapes is left there at the latest: some servers hold a pattern against what a
    string says, others against how it is written. Longer texts are left free: the pattern grows with the square of
    the length.
    """
    if len(text) > _MOST_DIFFERING:
        return _TEXT | {"minLength": 1}
    plain = _ESCAPED_IN_JSON.split(text, maxsplit=1)[0]
    branches = [f"{_escaped(plain[:i])}[^{_escaped_in_class(char)}{_CONTROL}]" for i, char in enumerate(plain)]
    branches.append(f"{_escaped(plain)}[^{_CONTROL}]")
    return {"type": "string", "pattern": f"^(?:{'|'.join(branches)})[^{_CONTROL}]{{0,{_LONGEST_LINE}}}$"}


def _escaped(text: str) -> str:
    """As JSON Schema's regular expressions want it: `re.escape` escapes more, and servers drop such a pattern."""
    return _SYNTAX.sub(r"\\\g<0>", text)


def _escaped_in_class(char: str) -> str:
    """By its number where it means something in a class: llama.cpp's two grammars have no other way in common."""
    return f"\\x{ord(char):02x}" if char in "[]^-" else char


def _object(properties: dict[str, Any], required: Sequence[str] | None = None) -> dict[str, Any]:
    wanted = list(properties) if required is None else list(required)
    return {"type": "object", "properties": properties, "required": wanted, "additionalProperties": False}


JUDGEMENT_SCHEMA = _compact(
    {
        "type": "object",
        "properties": {
            "decision": {"enum": ["keep", "fix", "drop"]},
            "severity": {"type": "integer", "minimum": 0, "maximum": 3},
            "fix": {"type": "string", "maxLength": 400},
        },
        "required": ["decision", "severity"],
        "additionalProperties": False,
    }
)
"""JSON Schema of a meta-critic's judgement of one unit."""


class _UnitJson(msgspec.Struct):
    step: int
    kind: Literal["error", "praise"]
    flaw: str
    quote: str = ""
    fix: str = ""
    error_type: str = ""
    severity: int | None = None


class _CritiqueJson(msgspec.Struct):
    units: list[_UnitJson]
    first_wrong_step: int | None
    verdict: Verdict


def _json_object(text: str) -> bytes:
    """The outermost {...} of a text; models without constrained decoding wrap it in words or a code fence."""
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        raise CritiqueError("no_json", f"expected one JSON object, got {text[:120]!r}")
    return text[start : end + 1].encode("utf-8", "replace")


def parse_critique(text: str, steps: Sequence[str], shown: range | None = None) -> Parsed:
    """Reads what a critic wrote about a solution.

    Args:
      text: what it wrote.
      steps: the solution's steps.
      shown: indices of those that it was shown, and can speak of; None for all.

    Raises:
      CritiqueError: it is no JSON, breaks the schema, speaks of steps that are not there, quotes what is not in the
        step, or contradicts itself (a first wrong step with the verdict "correct", or the reverse; no error in the
        first wrong step, or one before it).
    """
    try:
        parsed = msgspec.json.decode(_json_object(text), type=_CritiqueJson)
    except (msgspec.DecodeError, RecursionError) as error:
        raise CritiqueError("bad_schema", f"the JSON is not a critique: {error}") from error
    shown = range(len(steps)) if shown is None else shown
    units = tuple(_unit(unit, steps, shown) for unit in parsed.units)
    first = parsed.first_wrong_step
    if first is not None and first - 1 not in shown:
        there = f"there are steps {shown.start + 1} to {shown.stop}"
        raise CritiqueError("step_out_of_range", f"first_wrong_step is {first}, {there}")
    if (first is None) != (parsed.verdict == "correct"):
        raise CritiqueError(
            "contradicts_itself", f"verdict {parsed.verdict!r} does not go with first_wrong_step {first}"
        )
    if first is not None and not any(unit.kind == "error" and unit.step == first - 1 for unit in units):
        raise CritiqueError("contradicts_itself", f"no unit names an error in the first wrong step {first}")
    early = [unit.step + 1 for unit in units if unit.kind == "error" and (first is None or unit.step < first - 1)]
    if early:
        raise CritiqueError(
            "contradicts_itself", f"a unit names an error in step {early[0]}, but first_wrong_step is {first}"
        )
    return Parsed(units=units, first_wrong_step=None if first is None else first - 1, verdict=parsed.verdict)


def _unit(unit: _UnitJson, steps: Sequence[str], shown: range) -> Unit:
    if not 1 <= unit.step <= len(steps):
        raise CritiqueError("step_out_of_range", f"a unit speaks of step {unit.step} of {len(steps)}")
    if unit.step - 1 not in shown:
        there = f"shown are steps {shown.start + 1} to {shown.stop}"
        raise CritiqueError("step_out_of_range", f"a unit speaks of step {unit.step}, {there}")
    quote = _MARKER.sub("", unit.quote).strip()
    if _folded(quote) not in _folded(steps[unit.step - 1]):
        raise CritiqueError("quote_not_in_step", f"{quote[:120]!r} does not stand in step {unit.step}")
    is_error = unit.kind == "error"
    error_type = unit.error_type if unit.error_type in ERROR_TYPES else "other"
    return Unit(
        step=unit.step - 1,
        quote=quote,
        kind=unit.kind,
        flaw=unit.flaw.strip(),
        fix=unit.fix.strip() if is_error else "",
        error_type=error_type if is_error else "",
        severity=min(max(unit.severity if unit.severity is not None else 3, 0), 3) if is_error else 0,
    )


def _folded(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().casefold()


def parse_judgement(text: str) -> Judgement:
    """Reads what a meta-critic wrote about one unit.

    Raises:
      CritiqueError: it is no judgement.
    """
    try:
        judgement = msgspec.json.decode(_json_object(text), type=Judgement)
    except (msgspec.DecodeError, RecursionError) as error:
        raise CritiqueError("bad_schema", f"the JSON is not a judgement: {error}") from error
    return msgspec.structs.replace(judgement, severity=min(max(judgement.severity, 0), 3))


def render_unit(unit: Unit) -> str:
    """One unit as a line of text, which no small model can take for a step of a solution."""
    if unit.kind == "praise":
        return f"Step {unit.step + 1} is right: {unit.flaw}"
    head = f'Step {unit.step + 1} is wrong: "{unit.quote}".' if unit.quote else f"Step {unit.step + 1} is wrong."
    return " ".join(filter(None, (head, unit.flaw, unit.fix)))


def render_critique(units: Sequence[Unit], first_wrong_step: int | None) -> str:
    """A critique as a person, or an actor that refines, reads it."""
    lines = [render_unit(unit) for unit in sorted(units, key=lambda unit: unit.step)]
    return "\n".join([*lines, closing_line(first_wrong_step)])


def closing_line(first_wrong_step: int | None) -> str:
    """What a critique ends with: where the first wrong step is, and the verdict."""
    if first_wrong_step is None:
        return "No step is wrong. The solution is correct."
    return f"The first wrong step is step {first_wrong_step + 1}. The solution is incorrect."

"""Structured critiques: the JSON that critics and meta-critics write, read strictly, and rendered for people.

Steps are numbered from 1 in everything a model reads or writes, and from 0 in records.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from schemas import Record, Unit, Verdict

ERROR_TYPES = (
    "calculation",
    "misread_problem",
    "wrong_operation",
    "unsupported_claim",
    "missing_step",
    "inconsistent",
    "answer_mismatch",
    "other",
)
"""What can be wrong with a step. `answer_mismatch`: the stated answer is not what the steps arrive at."""

CRITIQUE_REJECTIONS = (
    "no_json",
    "bad_schema",
    "step_out_of_range",
    "quote_not_in_step",
    "contradicts_itself",
    "cut_off",
    "prompt_refused",
)
"""Why a critic's output is no critique."""


class CritiqueError(ValueError):
    """A critic's output that is no critique. The message says why, for the re-ask and for the rejection."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
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


def critique_schema(num_steps: int) -> str:
    """JSON Schema of a critique of a solution with `num_steps` steps, for constrained decoding.

    Keys come in the order in which a model should think: what it sees in each step, then where, then the verdict.
    """
    step = {"type": "integer", "minimum": 1, "maximum": num_steps}
    text = {"type": "string", "maxLength": 400}
    unit = {
        "type": "object",
        "properties": {
            "step": step,
            "quote": text,
            "flaw": text,
            "kind": {"enum": ["error", "praise"]},
            "fix": text,
            "error_type": {"enum": list(ERROR_TYPES)},
            "severity": {"type": "integer", "minimum": 0, "maximum": 3},
        },
        "required": ["step", "flaw", "kind"],
        "additionalProperties": False,
    }
    return _compact(
        {
            "type": "object",
            "properties": {
                "units": {"type": "array", "items": unit, "minItems": 1, "maxItems": num_steps + 4},
                "first_wrong_step": {"anyOf": [step, {"type": "null"}]},
                "verdict": {"enum": ["correct", "incorrect"]},
            },
            "required": ["units", "first_wrong_step", "verdict"],
            "additionalProperties": False,
        }
    )


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


def parse_critique(text: str, steps: Sequence[str]) -> Parsed:
    """Reads what a critic wrote about a solution.

    Raises:
      CritiqueError: it is no JSON, breaks the schema, speaks of steps that are not there, quotes what is not in the
        step, or contradicts itself (a first wrong step with the verdict "correct", or the reverse).
    """
    try:
        parsed = msgspec.json.decode(_json_object(text), type=_CritiqueJson)
    except msgspec.DecodeError as error:
        raise CritiqueError("bad_schema", f"the JSON is not a critique: {error}") from error
    units = tuple(_unit(unit, steps) for unit in parsed.units)
    first = parsed.first_wrong_step
    if first is not None and not 1 <= first <= len(steps):
        raise CritiqueError("step_out_of_range", f"first_wrong_step is {first}, there are steps 1 to {len(steps)}")
    if (first is None) != (parsed.verdict == "correct"):
        raise CritiqueError(
            "contradicts_itself", f"verdict {parsed.verdict!r} does not go with first_wrong_step {first}"
        )
    if first is not None and not any(unit.kind == "error" and unit.step == first - 1 for unit in units):
        raise CritiqueError("contradicts_itself", f"no unit names an error in the first wrong step {first}")
    return Parsed(units=units, first_wrong_step=None if first is None else first - 1, verdict=parsed.verdict)


def _unit(unit: _UnitJson, steps: Sequence[str]) -> Unit:
    if not 1 <= unit.step <= len(steps):
        raise CritiqueError("step_out_of_range", f"a unit speaks of step {unit.step} of {len(steps)}")
    if _folded(unit.quote) not in _folded(steps[unit.step - 1]):
        raise CritiqueError("quote_not_in_step", f"{unit.quote!r} does not stand in step {unit.step}")
    is_error = unit.kind == "error"
    error_type = unit.error_type if unit.error_type in ERROR_TYPES else "other"
    return Unit(
        step=unit.step - 1,
        quote=unit.quote.strip(),
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
        return msgspec.json.decode(_json_object(text), type=Judgement)
    except msgspec.DecodeError as error:
        raise CritiqueError("bad_schema", f"the JSON is not a judgement: {error}") from error


def render_unit(unit: Unit) -> str:
    """One unit as a line of text."""
    if unit.kind == "praise":
        return f"Step {unit.step + 1}: {unit.flaw}"
    head = f'"{unit.quote}" is wrong.' if unit.quote else "This step is wrong."
    return " ".join(filter(None, (f"Step {unit.step + 1}: {head}", unit.flaw, unit.fix)))


def render_critique(units: Sequence[Unit], first_wrong_step: int | None) -> str:
    """A critique as a person, or an actor that refines, reads it."""
    lines = [render_unit(unit) for unit in sorted(units, key=lambda unit: unit.step)]
    if first_wrong_step is None:
        lines.append("No step is wrong. The solution is correct.")
    else:
        lines.append(f"The first wrong step is step {first_wrong_step + 1}. The solution is incorrect.")
    return "\n".join(lines)

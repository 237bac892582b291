"""What is true of a critique: its remarks speak in claims that can be computed again.

The claims that this world knows are `22 * 3 is 66` (as stated), `22 * 3 is 66, not 68`, `22 * 3 is not 68` and
`The steps arrive at 62, not 64`.
"""

import re
from collections.abc import Sequence

from pipelines.engines.simulated.world import Expression, Step, compute, first_wrong_step, walk
from schemas import Record, Unit

_COMPUTES = re.compile(r"(-?\d+) ([+*-]) (\d+) is (not )?(-?\d+)(?:, not (-?\d+))?")
_ARRIVES = re.compile(r"[Tt]he steps arrive at (-?\d+), not (-?\d+)")


class Claim(Record):
    """Something that a remark says of a number."""

    expression: Expression | None
    """What is computed; None where it speaks of what the steps arrive at."""
    value: int | None
    """What it is said to be; None where only a value is denied."""
    denied: int | None
    """What it is said not to be; None where nothing is denied."""


def read_claims(text: str) -> tuple[Claim, ...]:
    """All claims in a text, in order of their kinds."""
    claims = []
    for left, operator, right, negation, value, denied in _COMPUTES.findall(text):
        claims.append(
            Claim(
                expression=(int(left), operator, int(right)),
                value=None if negation else int(value),
                denied=int(value) if negation else int(denied) if denied else None,
            )
        )
    claims += [Claim(expression=None, value=int(value), denied=int(denied)) for value, denied in _ARRIVES.findall(text)]
    return tuple(claims)


def claim_is_true(claim: Claim, steps: Sequence[Step]) -> bool:
    """Whether a claim about a solution recomputes."""
    if claim.expression is None:
        results = [step.line.result for step in steps if step.line.expression is not None]
        actual = results[-1] if results else None
    else:
        actual = compute(claim.expression)
    return claim.denied != actual and claim.value in (None, actual)


def unit_is_true(question: str, steps: Sequence[str], unit: Unit) -> bool:
    """Whether a remark is true.

    An error is true if its step is wrong, a claim says so of that step's own result, and no claim of it is false.
    Praise is true if its claims are, or, without a claim, if its step is right.

    Raises:
      ValueError: the solution cannot be read.
    """
    walked = walk(question, steps)
    if not 0 <= unit.step < len(walked):
        return False
    step = walked[unit.step]
    claims = read_claims(f"{unit.flaw} {unit.fix}")
    if not all(claim_is_true(claim, walked) for claim in claims):
        return False
    if unit.kind == "error":
        return not step.is_right and any(_corrects(claim, step) for claim in claims)
    return all(claim.value == step.line.result for claim in claims) if claims else step.is_right


def _corrects(claim: Claim, step: Step) -> bool:
    """Whether a true claim shows that the step's result should have been another."""
    value = step.truth if claim.expression is None else compute(claim.expression)
    return value == step.truth and claim.denied in (None, step.line.result)


def is_right_critique(
    question: str,
    steps: Sequence[str],
    verdict: str,
    first_wrong: int | None,
    units: Sequence[Unit],
) -> bool:
    """Whether verdict, location and what is said of the first wrong step agree with the truth.

    A solution is `incorrect` if any of its steps is wrong, also when it recovers. There must be a true error unit at
    the first wrong step, and no error unit may speak of a right step or make a false claim. Steps count from 0.

    Raises:
      ValueError: the solution cannot be read.
    """
    truth = first_wrong_step(question, steps)
    if first_wrong != truth or verdict != ("correct" if truth is None else "incorrect"):
        return False
    walked = walk(question, steps)
    errors = [unit for unit in units if unit.kind == "error"]
    for unit in errors:
        if not 0 <= unit.step < len(walked) or walked[unit.step].is_right:
            return False
        if not all(claim_is_true(claim, walked) for claim in read_claims(f"{unit.flaw} {unit.fix}")):
            return False
    return truth is None or any(unit.step == truth and unit_is_true(question, steps, unit) for unit in errors)

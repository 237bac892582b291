"""What goes on to verification, and what it is compared with."""

from collections.abc import Sequence
from typing import Literal

from schemas import Criticised, Critique, digest

Candidates = Literal["composed", "agents", "both"]
"""Which critiques are verified: the composed one, each agent's own, or all of them."""

FALLBACK_PLACEBO = (
    "Step 1 is wrong. The work has to be looked at again.\nThe first wrong step is step 1. The solution is incorrect."
)
"""Stands in where no other problem was criticised at all."""


def choose_placebos(criticised: Sequence[Criticised]) -> dict[str, str]:
    """For each path a critique of another problem, as long as this path's critiques are, by path id.

    The other problem has another answer: else a critique of it could help by accident. A critique that says of its
    own solution what is true of this one (that it is wrong, or right) goes before any that does not: else the control
    would differ in more than what is said. Then the nearest length counts; ties go to the smaller digest. Where there
    is no such critique, `FALLBACK_PLACEBO` stands in.
    """
    pool = sorted(
        (critique.text, critique.problem_id, item.path.problem.answer, critique.verdict == "incorrect")
        for item in criticised
        for critique in item.critiques
        if critique.units
    )
    placebos = {}
    for item in criticised:
        path, lengths = item.path, [len(critique.text) for critique in item.critiques]
        length = sum(lengths) / len(lengths) if lengths else len(FALLBACK_PLACEBO)
        others = [
            (finds_error != path.has_error, abs(len(text) - length), digest(path.id, text), text)
            for text, other, answer, finds_error in pool
            if other != path.problem.id and answer != path.problem.answer
        ]
        placebos[path.id] = min(others)[-1] if others else FALLBACK_PLACEBO
    return placebos


def choose_candidates(critiques: Sequence[Critique], composed: Critique | None, wanted: Candidates) -> tuple[str, ...]:
    """Ids of the critiques to verify: the composed one first, then the agents' in their order; equal texts once."""
    pool = [critique for critique in (composed,) if critique and wanted != "agents"]
    if wanted != "composed":
        pool.extend(critiques)
    distinct: dict[str, str] = {}
    for critique in pool:
        distinct.setdefault(critique.text, critique.id)
    return tuple(distinct.values())

"""What goes on to verification, and what it is compared with."""

from collections.abc import Collection, Sequence
from typing import Literal

from schemas import Criticised, Critique, digest

Candidates = Literal["composed", "agents", "finished", "both"]
"""Which critiques are verified: the composed one, each agent's own, those of them that no other agent was shown, or all
of them."""

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


def choose_candidates(
    critiques: Sequence[Critique], composed: Critique | None, wanted: Candidates, shown: Collection[str] = ()
) -> tuple[str, ...]:
    """Ids of the critiques to verify: the composed one first, then the agents' in their order; equal texts once.

    Args:
      critiques: the agents'.
      composed: the panel's.
      wanted: which of them.
      shown: agents whose critiques another agent was shown.
    """
    pool = [critique for critique in (composed,) if critique and wanted in ("composed", "both")]
    if wanted != "composed":
        pool.extend(item for item in critiques if wanted != "finished" or item.agent not in shown)
    distinct: dict[str, str] = {}
    for critique in pool:
        distinct.setdefault(critique.text, critique.id)
    return tuple(distinct.values())


def shard_quota(total: int, index: int, num_shards: int) -> int:
    """A shard's part of a number that holds for the whole run; the parts of all shards add up to it.

    A shard knows nothing of the others, so that each is given its part beforehand: what one has no use for is not
    handed on, and the whole stays at or below the total, the same in every run.

    >>> [shard_quota(250, index, 4) for index in range(4)]
    [62, 63, 62, 63]
    """
    return total * (index + 1) // num_shards - total * index // num_shards


def undoubted_surplus(criticised: Sequence[Criticised], most: int) -> frozenset[str]:
    """Ids of the right paths that no critic ever doubted, beyond `most`; which ones stay, their digests decide.

    A right path of which a first critique named an error, and a later one none, is no such path: it shows how to take
    back a false alarm (DeepCritic, arXiv 2505.00662, keeps all of those and 250 others).
    """
    undoubted = sorted(
        (
            item.path.id
            for item in criticised
            if not item.path.has_error
            and item.critiques
            and all(critique.first_wrong_step is None for critique in item.critiques)
        ),
        key=lambda path_id: digest("undoubted", path_id),
    )
    return frozenset(undoubted[most:])

"""Two answers to one prompt, without and with a piece of feedback, and whether the feedback is about the prompt."""

from typing import Literal

from schemas.base import Estimate, Outcome, Provenance, Record
from schemas.exports import Origin, PreferenceRow
from schemas.problem import Problem

Scope = Literal["in", "near", "out"]
"""Whether feedback is about a prompt, about prompts like it, or about others altogether."""


class Scoped(Record):
    """A prompt with the actor's answer, and with the answer that it makes of it when it is given the feedback."""

    id: str
    problem: Problem
    tree_id: str
    node_ids: tuple[int, ...]
    """Of the first answer."""
    actor: Provenance
    root_estimate: Estimate
    judge: Provenance
    feedback: str
    scope: Scope
    first: str
    """The answer without the feedback."""
    revised: str
    first_outcome: Outcome
    revised_outcome: Outcome


class DpoRow(PreferenceRow):
    """An answer with the feedback against one without it; written with `scope.feedback`.

    The one with it is preferred where the feedback is about the prompt, and rejected elsewhere. The prompt is the
    problem and does not hold the feedback: it is to be learned.
    """

    feedback: str
    scope: Scope
    """`in`: the revised answer is chosen; `near` and `out`: the one without the feedback."""
    chosen_outcome: Outcome
    """What the checker says of its answer, of which the preference is independent but for one rule: no answer that
    comes out wrong is preferred to one that comes out right."""
    rejected_outcome: Outcome
    origin: Origin

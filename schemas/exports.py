"""Rows that trainers read. Columns that trainers know come first; the rest is where the row comes from."""

from typing import Literal

from schemas.base import Estimate, Outcome, Provenance, Record
from schemas.critique import AgentVote


class Message(Record):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Origin(Record):
    """Where a row comes from: everything needed to find it again and to weigh it."""

    problem_id: str
    tree_id: str
    node_ids: tuple[int, ...]
    actor: Provenance
    critic: Provenance | None
    """None for rows without a critique."""
    votes: tuple[AgentVote, ...]
    """Critics and what each voted; empty for rows without a critique."""
    root_estimate: Estimate
    config_digest: str
    version: str
    """Version of wrongturn."""


class SftRow(Record):
    """A verified critique to imitate."""

    id: str
    messages: tuple[Message, ...]
    label: Literal["correct", "incorrect"]
    first_error: int | None
    """Located first wrong step, from 0."""
    view: str
    with_critique: Estimate
    with_placebo: Estimate
    without_critique: Estimate
    origin: Origin


class CritiqueDpoRow(Record):
    """A verified critique against a real one of the same path that failed."""

    id: str
    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    chosen_estimate: Estimate
    rejected_estimate: Estimate
    margin: float
    """Difference of the two rates of right second solutions, 0..1: the pair's utility."""
    rejected_reasons: tuple[str, ...]
    """Names of the tests that the rejected one failed."""
    origin: Origin


class StepDpoRow(Record):
    """The right branch against the wrong one from the same prefix."""

    id: str
    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    chosen_estimate: Estimate
    rejected_estimate: Estimate
    p_value: float
    divergence: int
    first_error: int
    origin: Origin


class PrmRow(Record):
    """A solution with one label a step: True up to the first wrong step."""

    id: str
    prompt: str
    completions: tuple[str, ...]
    labels: tuple[bool, ...]
    estimates: tuple[Estimate, ...]
    """Direct rollouts after each step."""
    posterior: tuple[float, ...]
    """Probability of being the first wrong step; empty for right paths."""
    origin: Origin


class RefineRow(Record):
    """A first solution, a verified critique, and a second solution written with it."""

    id: str
    problem: str
    first_answer: str
    critique: str
    second_answer: str
    first_outcome: Outcome
    second_outcome: Outcome
    origin: Origin


class RlRow(Record):
    """A solution to criticise with its verifiable label and location."""

    id: str
    problem: str
    solution: str
    label: Literal["correct", "incorrect"]
    first_error: int | None
    posterior: tuple[float, ...]
    origin: Origin

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
    """A verified critique to imitate. No row has a system turn: some chat templates refuse one."""

    id: str
    prompt: tuple[Message, ...]
    """The user's turn: problem and solution."""
    completion: tuple[Message, ...]
    """The critique. TRL takes the loss on it alone, and not on the solution that is criticised."""
    messages: tuple[Message, ...]
    """`prompt` and `completion` as one conversation."""
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
    chosen_message: Message
    """The one turn of `chosen`: LLaMA-Factory wants it bare."""
    rejected_message: Message
    chosen_estimate: Estimate
    rejected_estimate: Estimate
    margin: float
    """Difference of the two rates of right second solutions, 0..1: the pair's utility."""
    rejected_reasons: tuple[str, ...]
    """Names of the tests that the rejected one failed."""
    origin: Origin


class StepDpoRow(Record):
    """The right solution against the wrong one, which begin with the same steps.

    Both answers are whole: a chat template closes every turn, so that steps in the prompt would stand in a turn of
    their own. The shared steps' log probabilities are in both answers and cancel in DPO's loss, which is that of the
    branches.
    """

    id: str
    prompt: tuple[Message, ...]
    """The user's turn: the problem."""
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    chosen_message: Message
    """The one turn of `chosen`: LLaMA-Factory wants it bare."""
    rejected_message: Message
    prefix: str
    """What both answers begin with: the steps before they part, as they were written; may be empty."""
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
    """A first solution, a critique of it, and a second solution that the actor wrote with both.

    A critique whose help was measured has at most two rows, one for each outcome of the second solution. One that gives
    the answer away has none.
    """

    id: str
    problem: str
    first_answer: str
    critique: str
    second_answer: str
    first_outcome: Outcome
    second_outcome: Outcome
    decision: Literal["kept", "rejected"]
    """Whether the critique passed all tests. For critique-conditioned refinement take `kept` with a right second
    solution; feedback models learn from all."""
    reasons: tuple[str, ...]
    """Names of the tests that the critique failed; empty when kept."""
    with_critique: Estimate
    """Second solutions with this critique: how often one has this row's outcome."""
    without_critique: Estimate
    origin: Origin


class RefineChatRow(Record):
    """Attempt, critique and second attempt as turns of one conversation; only kept critiques and right second attempts.

    Written with `export.refine_turns`.
    """

    id: str
    prompt: tuple[Message, ...]
    """Problem (user), first attempt (assistant), critique (user)."""
    completion: tuple[Message, ...]
    """The second attempt. TRL takes the loss on it alone, and not on the first, which may be wrong."""
    messages: tuple[Message, ...]
    """All four turns."""
    first_outcome: Outcome
    second_outcome: Outcome
    origin: Origin


class RlRow(Record):
    """A solution to criticise with its label and location, which `annotators.rewards` compares critiques with."""

    id: str
    prompt: tuple[Message, ...]
    """The user's turn: problem and solution, as in `sft`."""
    problem: str
    solution: str
    label: Literal["correct", "incorrect"]
    first_error: int | None
    """Located first wrong step, from 0; None for a right solution."""
    posterior: tuple[float, ...]
    """For each step the probability that it is the first wrong one; empty for a right solution."""
    origin: Origin

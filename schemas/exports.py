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
    with_critique: Estimate | None
    """Second solutions with this critique; None where its help was not measured."""
    with_placebo: Estimate | None
    without_critique: Estimate | None
    origin: Origin
    decision: Literal["kept", "rejected"] = "kept"
    """Whether it passed all tests. Rejected ones are there only with `export.feedback=both_marked`; the prompt says of
    each critique then whether it holds."""
    reasons: tuple[str, ...] = ()
    """Names of the tests that it failed; empty when kept."""


class PreferenceRow(Record):
    """What rows of every table of preferences begin with."""

    id: str
    prompt: tuple[Message, ...]
    """The user's turn."""
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    chosen_message: Message
    """The one turn of `chosen`: LLaMA-Factory wants it bare."""
    rejected_message: Message


class CritiqueDpoRow(PreferenceRow):
    """A kept critique against a real one of the same path that is worth less, see `annotators.preferences`.

    The prompt is problem and solution.
    """

    chosen_estimate: Estimate | None
    """Second solutions with it; None where its help was not measured."""
    rejected_estimate: Estimate | None
    margin: float
    """Difference of their scores (`export.prefer.by`): of the two rates of right second solutions, 0..1, by default."""
    rejected_reasons: tuple[str, ...]
    """Names of the tests that the rejected one failed; empty where it is only worth less."""
    origin: Origin


class StepDpoRow(PreferenceRow):
    """The right solution against the wrong one, which begin with the same steps. The prompt is the problem.

    Both answers are whole: a chat template closes every turn, so that steps in the prompt would stand in a turn of
    their own. The shared steps' log probabilities are in both answers and cancel in DPO's loss, which is that of the
    branches.
    """

    prefix: str
    """What both answers begin with: the steps before they part, as they were written; may be empty."""
    chosen_estimate: Estimate
    rejected_estimate: Estimate
    p_value: float
    divergence: int
    first_error: int
    origin: Origin


class PrmRow(Record):
    """A solution with one label a step: True up to the first wrong step. No path of a tree is there twice."""

    id: str
    prompt: str
    completions: tuple[str, ...]
    labels: tuple[bool, ...]
    estimates: tuple[Estimate, ...]
    """Direct rollouts after each step, as the tree has them; 0 of 0 where none began there."""
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
    solution; feedback models learn from all. Feedback of a dialogue (`loop.rows`) passed one test alone, that it tells
    no answer; its `without_critique` is empty."""
    reasons: tuple[str, ...]
    """Names of the tests that the critique failed; empty when kept."""
    with_critique: Estimate
    """Second solutions with this critique: how often one has this row's outcome."""
    without_critique: Estimate | None
    """None where no test asked for them."""
    origin: Origin
    transition_reward: float | None = None
    """What the step from the first to the second outcome earns, see `annotators.rewards.TransitionRewards`; None in
    rows of runs from before there was the column."""


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


Difficulty = Literal["hard_but_solvable", "easy_but_brittle", "neither"]
"""What the interval of a problem's success rate says of it."""


class RlRow(Record):
    """What a policy is asked, and what its answer is rewarded by, see `annotators.rewards`.

    `criticise` is a solution to criticise with its label and location. `solve` is a problem to solve, written with
    `export.rl` and `export.plain_share`: bare, or with one solution of the actor's and its outcome. `spoil` is a right
    step to be written anew with an error, written with `export.rl=claims` where one was put in (`paths=injected`).
    """

    id: str
    prompt: tuple[Message, ...]
    """The user's turn: problem and solution, as in `sft`, up to the step that was asked about where a critic was shown
    no more; for `solve` the problem alone; for `spoil` problem, steps before, right step and kind of error."""
    problem: str
    solution: str
    """What is criticised, or for `solve` what the actor wrote; empty for a bare problem."""
    label: Literal["correct", "incorrect"] | None
    """Of the solution; None for a bare problem."""
    first_error: int | None
    """Located first wrong step, from 0; None for a right solution, and for other tasks."""
    posterior: tuple[float, ...]
    """For each step the probability that it is the first wrong one; empty for a right solution, and for other tasks."""
    origin: Origin
    task: Literal["criticise", "solve", "spoil"] = "criticise"
    answer: str = ""
    """The gold answer of `solve`, for a reward that checks answers; empty for `criticise`."""
    reward_if_right: float | None = None
    """What a critique earns whose second solution comes out right; None for other tasks."""
    reward_if_wrong: float | None = None
    """The same for one that comes out wrong."""
    with_critique: Estimate | None = None
    """Second solutions with the measured critiques of this path that do not give the answer away, counted together;
    None where none was measured, and for other tasks."""
    without_critique: Estimate | None = None
    """Second solutions without any critique; None where none was measured, and for other tasks."""
    success_rate: float | None = None
    """Of the problem: the rate of `origin.root_estimate`; None where nothing was scored."""
    success_low: float = 0.0
    """Low end of that rate's interval at `export.level`, 0..1."""
    success_high: float = 1.0
    """High end, 0..1."""
    difficulty: Difficulty = "neither"
    """`hard_but_solvable`: the interval lies below `export.difficulty_rate`, and something came out right;
    `easy_but_brittle`: it lies above, and something came out wrong."""
    pair: str = ""
    """With `export.rl=problem_pairs` what the two rows of a pair have in common, else empty."""
    completion: tuple[Message, ...] = ()
    """With `export.rl=claims` what was written to the prompt: a critique, for `solve` the solution, for `spoil` the
    changed step; else empty."""
    reward: float | None = None
    """What that earned; None without a completion."""
    suggestion: str = ""
    """With `export.suggestions` the right action in the place of a wrong solution's, see
    `annotators.rewards.suggestion_reward`; else empty."""


JudgeKind = Literal["pointwise", "pairwise", "reflected"]
"""`pointwise`: is this solution right; `pairwise`: which of two is better; `reflected`: is it right, a critique of it
beside it."""


class JudgeRow(Record):
    """A judgement whose truth is known, made of solutions and critiques that no other table takes.

    Written with `export.judge`. A solution whose outcome nobody could decide is in none.
    """

    id: str
    kind: JudgeKind
    prompt: tuple[Message, ...]
    """The user's turn: problem, solution or two, critique."""
    completion: tuple[Message, ...]
    """The true judgement: the line that the prompt asks for."""
    messages: tuple[Message, ...]
    """`prompt` and `completion` as one conversation."""
    label: Literal["correct", "incorrect", "first", "second"]
    """Whether the solution's answer is right; of a pair, which solution's is. `annotators.rewards.judgement_reward`
    compares completions with it."""
    group: str
    """What both orders of a pair have in common; else the row's id."""
    problem: str
    origin: Origin
    """`node_ids` are those of the solution, of a pair those of the first and then of the second. The critic is that of
    the critique."""

"""What the loop makes: attempts at a problem with feedback between them, and the rows taken from them."""

from typing import Literal

from schemas.base import Estimate, Outcome, Provenance, Record
from schemas.exports import Message, Origin
from schemas.problem import Problem

Giver = Literal["critic", "teacher", "verdict", "execution", "aspects"]
"""Who gives feedback: a critic of the panel's kind, a teacher, the checker alone, a run of the tests (of the domain
`command`: what the checker wrote), or a critic that goes by aspects."""

Execution = Literal["none", "partial", "full"]
"""What feedback tells of failing tests: nothing, those of the first half, all. Whether a program compiles is told
always."""

Verbal = Literal["none", "novice", "expert"]
"""Whose words stand beside what the tests came to: nobody's, one's who knows no more than the actor, one's who knows
tests and a right solution."""


class Attempt(Record):
    """One solution, and what the checker said of it."""

    text: str
    steps: tuple[str, ...]
    """The text as it is cut; joined they give it back."""
    answer: str | None
    """As found in the text; None where there was none."""
    outcome: Outcome
    unscored_reason: str | None = None
    """Why the outcome is `unscored`; None otherwise."""
    reasoning: str = ""
    """What the model thought before it, where that is kept (`engine.thinking.keep`). Nobody is shown it."""


class Feedback(Record):
    """What the actor was told of an attempt before the next one."""

    text: str
    """As it was told, masks included."""
    named_step: int | None
    """Index of the step that it says is wrong first, from 0; None where it names none."""
    says_right: bool
    """Whether it says that no step is wrong."""
    masked: tuple[str, ...]
    """Words that gave the answer away and were taken out, in order."""
    provenance: Provenance | None
    """Whose words they are; None where no model wrote any."""
    checked: str = ""
    """What of the text no model wrote: what the checker decided, or a run came to. Who wrote the rest was shown it."""
    words: str = ""
    """What of the text a model wrote; empty where none did, and in dialogues from before there was the column."""


class Turn(Record):
    """An attempt with the feedback that it got; none after the last one."""

    attempt: Attempt
    feedback: Feedback | None


Ending = Literal["solved", "max_rounds", "repeated", "unscored", "leaks_answer", "no_feedback"]
"""Why a dialogue ended: the last attempt is right; so many rounds were allowed; the last answer had been given before;
nobody can say whether the last attempt is right. The last two are rejections: feedback gave the answer away in words
that no mask could take out, or the giver wrote none that could be read."""


class Dialogue(Record):
    """Attempts at one problem with feedback between them. Round i is attempt i; the first one stands in the tree."""

    id: str
    problem: Problem
    tree_id: str
    node_ids: tuple[int, ...]
    """Nodes of the first attempt."""
    actor: Provenance
    root_estimate: Estimate
    """Rollouts from the problem alone: what the actor comes to without feedback."""
    giver: Giver
    execution: Execution
    verbal: Verbal
    turns: tuple[Turn, ...]
    ended: Ending
    leak: str = ""
    """Where it ended by `leaks_answer`: the words that give the answer away."""

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """All attempts, the first one included."""
        return tuple(turn.attempt for turn in self.turns)


class DistillRow(Record):
    """What a dialogue teaches a model that gets no feedback: to solve as it does after it, or to give it to itself.

    Nothing here was verified by rollouts, which is why it is not in `sft`.
    """

    id: str
    prompt: tuple[Message, ...]
    """The user's turn: the problem alone for `solve`; problem and attempt for `feedback`."""
    completion: tuple[Message, ...]
    """The attempt that came out right after feedback, or the feedback."""
    messages: tuple[Message, ...]
    """`prompt` and `completion` as one conversation."""
    task: Literal["solve", "feedback"]
    round: int
    """Of the attempt that is the completion, or that the feedback is about; the first attempt is 0."""
    outcome_before: Outcome
    """Of the attempt that the feedback is about."""
    outcome_after: Outcome
    """Of the attempt that followed it."""
    origin: Origin

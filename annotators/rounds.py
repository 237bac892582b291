"""The loop's settings: how many rounds of attempt and feedback there are, who gives it, and what becomes rows."""

import itertools
from typing import Literal

from annotators.units import Form
from schemas import Execution, Giver, Record, Verbal

Starts = Literal["any", "wrong", "solvable", "hopeless"]
"""Which solutions of a tree a dialogue begins with: the first ones, right or wrong; the first wrong ones; wrong ones of
problems that some sample solves; wrong ones of problems that none does."""

Sees = Literal["nothing", "gold", "solution"]
"""What a giver is shown beside problem and attempt: nothing; the gold answer; also a right solution of the tree where
it has one."""

_TEMPLATES: dict[Giver, str] = {
    "critic": "critique",
    "teacher": "feedback",
    "execution": "feedback_code",
    "aspects": "feedback_aspects",
}

RowKind = Literal["refine_chat", "refine", "distill", "feedback", "agreeing_feedback"]
"""Rows made of a dialogue: the whole conversation up to a right attempt; each attempt with feedback and the next one;
problem to right attempt; attempt to feedback, whatever that says; attempt to feedback that does not contradict what the
checker says of the attempt."""


class NoLoop(Record, tag_field="kind", tag="off"):
    """No dialogues are held."""

    @property
    def rows(self) -> tuple[RowKind, ...]:
        """No rows."""
        return ()


class Rounds(Record, tag_field="kind", tag="rounds"):
    """Dialogues of attempts and feedback."""

    max_rounds: int = 3
    """Attempts after the first one."""
    starts: Starts = "wrong"
    max_starts: int = 1
    """Dialogues of one tree (for each combination of `execution` and `verbal`), in the order in which its solutions
    were made: the root's own samples come first, which no search has steered."""
    giver: Giver = "critic"
    sees: Sees = "nothing"
    execution: tuple[Execution, ...] = ("none",)
    """For `execution`: what is told of failing tests. Several give a dialogue each. Problems of the domain `command`
    have no tests: whatever stands here, the checker's message is told."""
    verbal: tuple[Verbal, ...] = ("none",)
    """For `execution`: whose words stand beside it. Several give a dialogue each."""
    mask: bool = True
    """Whether words that give the answer away are taken out. Where no mask takes them all out, or none is wanted, the
    dialogue ends and is rejected."""
    memory: Literal["all", "last"] = "all"
    """Whether the actor is shown all earlier attempts with their feedback, or the last alone."""
    exclude_tried: bool = False
    """Whether feedback ends with the wrong answers that were tried."""
    temperature_step: float = 0.0
    """Added to `actor.refine_temperature` in every round after the first one."""
    stop_when_right: bool = True
    """False goes on after a right attempt: whether the actor gives it up."""
    stop_when_repeated: bool = False
    """Whether an answer that was given before ends the dialogue."""
    template: str = ""
    """The giver's prompt: name of a shipped one or a path; gaps `{role}`, `{critic}` and `{sections}`. Empty takes the
    one that is for the giver."""
    engine: str = ""
    """Name of one of the run's `engines`; empty takes the actor's."""
    temperature: float = 0.7
    max_tokens: int = 400
    form: Form = "free"
    """For `critic`: what its output is constrained to; see `annotators.units.Form`."""
    rows: tuple[RowKind, ...] = ("refine_chat",)

    def __post_init__(self) -> None:
        for name in ("max_rounds", "max_starts", "max_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("temperature", "temperature_step"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be below 0, got {getattr(self, name)}")
        for name in ("execution", "verbal", "rows"):
            values = getattr(self, name)
            if len(set(values)) < len(values) or (not values and name != "rows"):
                raise ValueError(f"{name} needs distinct values, got {list(values)}")
        if {"feedback", "agreeing_feedback"} <= set(self.rows):
            raise ValueError("rows has feedback and agreeing_feedback, which is a part of it; give one of them")
        self._check_giver()

    def _check_giver(self) -> None:
        if self.giver != "execution" and (self.execution, self.verbal) != (("none",), ("none",)):
            raise ValueError(f"execution and verbal go with giver=execution, got giver={self.giver}; leave them out")
        if self.giver == "teacher" and self.sees == "nothing":
            raise ValueError("giver=teacher knows the answer, got sees=nothing; give sees=gold, or giver=critic")
        if self.form != "free" and self.giver != "critic":
            raise ValueError(
                f"form={self.form} is what a critic's output is held to, got giver={self.giver}; leave it at free, or "
                "give giver=critic"
            )
        if (self.template or self.engine) and not self.asks_a_model:
            raise ValueError(f"no model gives feedback with giver={self.giver}; leave template and engine out")
        if self.giver in ("verdict", "execution") and self.sees != "nothing":
            raise ValueError(
                f"giver={self.giver} is shown what it is by itself, got sees={self.sees}; leave it at nothing"
            )

    @property
    def giver_template(self) -> str:
        """Name of the giver's prompt, or a path; empty where no model gives feedback."""
        return (self.template or _TEMPLATES[self.giver]) if self.asks_a_model else ""

    @property
    def combinations(self) -> tuple[tuple[Execution, Verbal], ...]:
        """What is told of tests, and whose words stand beside it: every first attempt is gone on from once for each."""
        return tuple(itertools.product(self.execution, self.verbal))

    @property
    def asks_a_model(self) -> bool:
        """Whether feedback is written by a model, at least in some dialogues."""
        return self.giver in ("critic", "teacher", "aspects") or self.verbal != ("none",)


Loop = NoLoop | Rounds
"""Whether dialogues are held, told by `kind`."""

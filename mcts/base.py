"""The two callables that search is given. It never sees a client, a prompt or a process."""

from collections.abc import Sequence
from typing import Protocol

from mcts.answers import Check
from schemas import Record


class Rollout(Record):
    """One sampled continuation of a prefix to its end."""

    text: str
    """What follows the prefix; empty where nothing came."""
    tokens: int
    """Tokens sampled."""
    error: str = ""
    """Why nothing came: this very prefix was refused. Empty for a rollout that came."""
    is_cut: bool = False
    """Whether it ran out of tokens in its answer, which may be another one than it seems: it is unscored."""
    reasoning: str = ""
    """What the model thought before it, where that is kept. No part of any step."""


class Policy(Protocol):
    """Continues a half-written solution."""

    async def __call__(self, prefix: str, *, num_samples: int, first_sample: int) -> Sequence[Rollout]:
        """Samples `first_sample .. first_sample + num_samples - 1` of `prefix`: equal arguments, equal rollouts."""
        ...


class AdvisedPolicy(Protocol):
    """Continues a half-written solution, told besides what became of others."""

    async def __call__(self, prefix: str, advice: str, *, num_samples: int, first_sample: int) -> Sequence[Rollout]:
        """As `Policy`."""
        ...


class Verifier(Protocol):
    """Decides whether a whole solution ends in the right answer."""

    async def __call__(self, solution: str) -> Check:
        """The outcome is a function of the solution's text."""
        ...

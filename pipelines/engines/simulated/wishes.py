"""A user's wish in this world: it is about problems that multiply, and asks for a line of words before all sums.

Problems that subtract are like those; all others are others. The judge is right as often as the meta-critic, the actor
does what it is asked as often as it follows critiques.
"""

import random

import msgspec

from pipelines.engines.simulated.prompts import Prompt
from pipelines.engines.simulated.settings import SimulatedSettings
from pipelines.engines.simulated.world import below, parse_question
from schemas import Scope

WORDS = "In words first.\n"
"""What an answer begins with that does what is asked."""

_SCOPES: tuple[Scope, ...] = ("in", "near", "out")


def scope_of(question: str) -> Scope:
    """Where a problem lies."""
    operators = {operator for operator, _ in parse_question(question).operations}
    return "in" if "*" in operators else "near" if "-" in operators else "out"


def judge_scope(prompt: Prompt, draws: random.Random, settings: SimulatedSettings) -> str:
    """A vote on where the problem lies, as JSON; a wrong one names one of the others."""
    true = scope_of(prompt.question)
    accurate = draws.random() < settings.meta_accuracy
    others = [scope for scope in _SCOPES if scope != true]
    return msgspec.json.encode({"scope": true if accurate else others[below(draws, 2)]}).decode()


def judge_follows(prompt: Prompt, draws: random.Random, settings: SimulatedSettings) -> str:
    """A vote on whether the answer does what is asked, as JSON."""
    accurate = draws.random() < settings.meta_accuracy
    return msgspec.json.encode({"follows": prompt.answer.startswith(WORDS.strip()) == accurate}).decode()


def revise(prompt: Prompt, draws: random.Random, settings: SimulatedSettings) -> str:
    """The answer with the words that are asked for, or as it was."""
    return (WORDS if draws.random() < settings.follow else "") + prompt.answer + "\n"

"""Texts of one small problem, the prompts about it, and how rates are compared. Shared by tests of the world."""

import math
from collections.abc import Callable

from pipelines.engines.simulated import SimulatedSettings, parse_question
from pipelines.engines.simulated.world import read_line

QUESTION = "Start with 17. Add 5. Multiply by 3. Subtract 4. What is the result?"
RIGHT = "Step 1: 17 + 5 = 22\nStep 2: 22 * 3 = 66\nStep 3: 66 - 4 = 62\nAnswer: 62\n"
WRONG = "Step 1: 17 + 5 = 22\nStep 2: 22 * 3 = 68\nStep 3: 68 - 4 = 64\nAnswer: 64\n"
WORLD = SimulatedSettings(error_low=0.1, error_high=0.4, recovery=0.15, variants=4)


def solve_prompt(question: str, prefix: str = "") -> str:
    return f"Solve it.\n\nProblem:\n{question}\n\nSolution:\n{prefix}"


def critique_prompt(question: str, solution: str, agent: str = "anna") -> str:
    return f"Problem:\n{question}\n\nSolution:\n{solution}\nCritic: {agent}\n\nCritique:\n"


def refine_prompt(question: str, solution: str, critique: str | None) -> str:
    middle = "" if critique is None else f"Critique:\n{critique}\n\n"
    return f"Problem:\n{question}\n\nSolution:\n{solution}\n{middle}Second solution:\n"


def is_right_answer(solution: str, question: str = QUESTION) -> bool:
    last = read_line(solution.splitlines()[-1])
    return last is not None and last.expression is None and last.result == parse_question(question).gold


def frequency(outcome: Callable[[int], bool], trials: int) -> float:
    return sum(outcome(seed) for seed in range(trials)) / trials


def assert_close(frequency: float, rate: float, trials: int) -> None:
    """Four standard errors: a right world fails one of 16,000 such checks."""
    assert abs(frequency - rate) <= 4 * math.sqrt(max(rate * (1 - rate), 1e-12) / trials), (frequency, rate)

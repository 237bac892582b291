"""Who puts errors into steps: the sneaky generator, and an actor that a hint misleads.

An error is a wrong result, whatever kind of error was asked for. A share of both (`harmless_errors`) is none: the same
result in other words, or a step as the actor writes it anyhow. Nothing in the text tells the two apart.
"""

import random

from pipelines.engines.simulated.policy import continue_solution, draw_offset
from pipelines.engines.simulated.settings import MAX_VARIANTS, SimulatedSettings
from pipelines.engines.simulated.world import below, compute, parse_question, read_line, read_state, word_step


def change_step(step: str, draws: random.Random, settings: SimulatedSettings) -> str:
    """The step anew: with a wrong result, or harmlessly in other words; as it was where nobody can read it."""
    harmless, offset, shift = draws.random() < settings.harmless_errors, draw_offset(draws), below(draws, MAX_VARIANTS)
    line = read_line(step)
    if line is None or line.expression is None:
        return step.strip() + "\n"
    number = int(step.split(":", 1)[0].split()[1])
    result = line.result if harmless else line.result + offset
    words = (word_step(number, line.expression, result, (shift + k) % MAX_VARIANTS) for k in range(MAX_VARIANTS))
    return next(text for text in words if text != step.strip()) + "\n"


def mislead(question: str, prefix: str, draws: random.Random, settings: SimulatedSettings) -> str:
    """Goes on from `prefix` with a step that is wrong, or as without the hint."""
    harmless, offset = draws.random() < settings.harmless_errors, draw_offset(draws)
    chain = parse_question(question)
    state = read_state(chain, prefix)
    is_inside_line = prefix != "" and not prefix.endswith("\n")
    if harmless or is_inside_line or state.answered or state.done == len(chain.operations):
        return continue_solution(question, prefix, draws, settings)
    expression = state.value, *chain.operations[state.done]
    variant = below(draws, settings.variants)
    line = word_step(state.done + 1, expression, compute(expression) + offset, variant) + "\n"
    return line + continue_solution(question, prefix + line, draws, settings)

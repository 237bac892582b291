"""Who values half-written solutions and debates whole ones: right as often as the meta-critic, blind to the answer."""

import random
import re

import msgspec

from pipelines.engines.simulated.prompts import Prompt, PromptError
from pipelines.engines.simulated.settings import SimulatedSettings
from pipelines.engines.simulated.world import below, parse_question, read_state, solution_steps, success_rate

_CANDIDATE = re.compile(r"^\[(\d+)\]\n(.*?)(?=^\[\d+\]\n|\Z)", re.MULTILINE | re.DOTALL)


def value_state(prompt: Prompt, draws: random.Random, settings: SimulatedSettings) -> str:
    """What a solution so far is worth: its true chance on -100..100, or the contrary where the valuer errs."""
    is_right = draws.random() < settings.meta_accuracy
    rate = success_rate(prompt.question, solution_steps(prompt.solution), settings)
    value = round(200 * rate - 100)
    chain = parse_question(prompt.question)
    state = read_state(chain, prompt.solution)
    holds = (state.value == chain.values[min(state.done, len(chain.operations))]) == is_right
    reason = f"Its last value, {state.value}, {'follows' if holds else 'does not follow'} from the problem."
    return _as_json(reason=reason, value=value if is_right else -value)


def choose_candidate(prompt: Prompt, draws: random.Random, settings: SimulatedSettings) -> str:
    """The candidate with the right answer, if there is one and the debater sees it; else any."""
    chain = parse_question(prompt.question)
    candidates = {int(number): text for number, text in _CANDIDATE.findall(prompt.candidates)}
    if not candidates:
        raise PromptError("expected candidates such as '[1]' and a solution below, got none")
    sees, any_one = draws.random() < settings.meta_accuracy, list(candidates)[below(draws, len(candidates))]
    right = [number for number, text in candidates.items() if read_state(chain, text).value == chain.gold]
    choice = right[0] if right and sees else any_one
    return _as_json(argument=f"I did the steps of solution {choice} again, and they hold.", choice=choice)


def _as_json(**values: str | int) -> str:
    return msgspec.json.encode(values).decode()

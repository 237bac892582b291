"""Who gives feedback in plain words or by aspects: right with the critics' accuracy, and as given to leaks as they."""

import random

import msgspec

from annotators.units import closing_line
from pipelines.engines.simulated import critics
from pipelines.engines.simulated.prompts import Prompt
from pipelines.engines.simulated.settings import SimulatedSettings


def give_feedback(prompt: Prompt, draws: random.Random, settings: SimulatedSettings) -> str:
    """What is said of the solution: the error that a critic would name, and no praise.

    What it is told besides, the gold answer for one, makes it no better: its accuracy is a setting.
    """
    said = msgspec.json.decode(critics.write_critique(prompt, draws, _never_malformed(settings)))
    errors = [unit for unit in said["units"] if unit["kind"] == "error"]
    lines = [
        f'Step {unit["step"]} is wrong: "{unit.get("quote", "")}". {unit["flaw"]} {unit["fix"]}' for unit in errors
    ]
    first = said["first_wrong_step"]
    text = "\n".join([*lines, closing_line(None if first is None else first - 1)])
    return _by_aspects(text, first) if prompt.task == "aspects" else text


def _never_malformed(settings: SimulatedSettings) -> SimulatedSettings:
    return msgspec.structs.replace(settings, critic_malformed_rate=0.0)


def _by_aspects(text: str, first: int | None) -> str:
    good = (
        "Every step is there."
        if first is None
        else f"It holds up to step {first - 1}."
        if first > 1
        else "It is short."
    )
    critique = [{"aspect": "helpfulness", "strengths": good, "weaknesses": "It can be checked line by line, so do."}]
    return msgspec.json.encode({"critique": critique, "refinement": text}).decode()

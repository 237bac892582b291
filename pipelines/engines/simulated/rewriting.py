"""What stands around critiques: what critics are told of a problem, and critiques without a trace of the answer."""

import random
import re

from pipelines.engines.simulated import critics
from pipelines.engines.simulated.prompts import Prompt, Remark, read_critique
from pipelines.engines.simulated.settings import SimulatedSettings
from pipelines.engines.simulated.world import parse_question

_NUMBER = r"-?\d+(?:\.\d+|/\d+)?"
_TRACE = re.compile(
    rf" ?(?:So the final answer is {_NUMBER}|The final answer should then be {_NUMBER}"
    rf"|This makes {_NUMBER} the final answer)\."
)
"""The sentences in which critics of this world give the answer away."""


def write_crucial(prompt: Prompt, draws: random.Random, settings: SimulatedSettings) -> str:
    """Task and criteria, and the gold answer where the prompt has it.

    A share `leak_rate` of those who are not shown the answer work it out and say it.
    """
    chain = parse_question(prompt.question)
    lines = [
        f"The task is a chain of {len(chain.operations)} operations, done in the order in which they stand.",
        "A step is right if its result is the true value after it.",
    ]
    if prompt.gold:
        lines.append(f"The reference answer is {prompt.gold}.")
    elif draws.random() < settings.leak_rate:
        lines.append(f"The final answer is {chain.gold}.")
    return "\n".join(lines) + "\n"


def clean_critique(prompt: Prompt, draws: random.Random, settings: SimulatedSettings) -> str:
    """The critique that the prompt shows, as JSON and without the sentence that gives the answer away.

    Its verdicts are kept with the critic's accuracy: otherwise another critique is written. A share `leak_rate` leaves
    the sentence in.
    """
    keeps, leaves = draws.random() < settings.accuracy_of(prompt.agent), draws.random() < settings.leak_rate
    first = read_critique(prompt.first)
    if not keeps or not first.remarks:
        return critics.write_critique(prompt, draws, settings)
    units = [_unit(remark, remark.text if leaves else _TRACE.sub("", remark.text)) for remark in first.remarks]
    return critics.encode(units, first.first_wrong)


def _unit(remark: Remark, flaw: str) -> dict[str, object]:
    unit: dict[str, object] = {"step": remark.step + 1, "flaw": flaw, "kind": remark.kind}
    if remark.kind == "error":
        unit |= {"quote": remark.quote, "error_type": "calculation", "severity": 3}
    return unit

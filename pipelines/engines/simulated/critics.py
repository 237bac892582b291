"""Critics of set accuracy: critiques with their error modes, judgements of single remarks, composed critiques."""

import random
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from pipelines.engines.simulated.claims import unit_is_true
from pipelines.engines.simulated.policy import draw_offset
from pipelines.engines.simulated.prompts import Prompt, PromptError, named_step, read_remarks
from pipelines.engines.simulated.settings import SimulatedSettings
from pipelines.engines.simulated.world import (
    Chain,
    Expression,
    Step,
    below,
    compute,
    parse_question,
    solution_steps,
    walk,
    word_step,
)
from schemas import Unit

_REDO = {"+": "Redo the addition.", "-": "Redo the subtraction.", "*": "Redo the multiplication."}
_LEAKS = ("So the final answer is {}.", "The final answer should then be {}.", "This makes {} the final answer.")
_FORMS = ("{0}", "{0}.0", "{1}/2")
"""How a leaked answer may be written: as it is, and in two equal forms."""

_OPENS = re.compile(r"Step (\d+):")
_DOUBT = re.compile(r"Step (\d+) may look (?:right|wrong): ")

Remarks = list[dict[str, Any]]


def write_critique(prompt: Prompt, draws: random.Random, settings: SimulatedSettings) -> str:
    """A critique as JSON, right with the agent's accuracy and wrong in one of the error modes otherwise."""
    lies = draws.random() < settings.liars.get(prompt.agent, 0.0)
    accurate = draws.random() < settings.accuracy_of(prompt.agent)
    leaks = draws.random() < settings.leak_rate
    malformed = draws.random() < settings.critic_malformed_rate
    chain, steps = parse_question(prompt.question), solution_steps(prompt.solution)
    hidden = _hidden_steps(chain, prompt)
    steps = (*hidden, *steps)
    try:
        walked = walk(prompt.question, steps)
    except ValueError:
        return encode([_unreadable(prompt.question, steps)], _first_unreadable(prompt.question, steps))
    truth = next((index for index, step in enumerate(walked) if not step.is_right), None)
    if accurate and not lies:
        units, named = _right_units(chain, walked, truth)
    else:
        units, named = _wrong_units(chain, walked, truth, draws, lies=lies, hidden=len(hidden))
    units = units[len(hidden) :]
    if leaks and named is not None:
        units[-1]["fix"] += " " + _leak(chain.gold, draws)
    text = encode(units, named)
    return _malform(text, len(steps), draws) if malformed else text


def _hidden_steps(chain: Chain, prompt: Prompt) -> tuple[str, ...]:
    """The steps before those that a critic is shown who compares two branches: right ones, both branches share them."""
    if not prompt.other:
        return ()
    opened = [int(found[1]) for found in map(_OPENS.match, (prompt.solution, prompt.other)) if found]
    number = min(opened[0] - 1 if opened else len(chain.operations), len(chain.operations))
    return tuple(f"{word_step(i + 1, chain.expression(i), chain.values[i + 1])}\n" for i in range(number))


def encode(units: Remarks, named: int | None) -> str:
    """A critique as critics write it; `named` counts from 0."""
    critique = {
        "units": units,
        "first_wrong_step": None if named is None else named + 1,
        "verdict": "correct" if named is None else "incorrect",
    }
    return msgspec.json.encode(critique).decode()


def _praise(index: int, step: Step) -> dict[str, Any]:
    if step.line.expression is None:
        flaw = "The answer is what the last step states."
    else:
        flaw = f"{_say(step.line.expression)} is {step.line.result}, as stated."
    return {"step": index + 1, "flaw": flaw, "kind": "praise"}


def _error(index: int, step: Step, flaw: str) -> dict[str, Any]:
    expression = step.line.expression
    return {
        "step": index + 1,
        "quote": step.line.words,
        "flaw": flaw,
        "kind": "error",
        "fix": "State what the steps arrive at." if expression is None else _REDO[expression[1]],
        "error_type": "answer_mismatch" if expression is None else "calculation",
        "severity": 3,
    }


def _say(expression: Expression) -> str:
    return " ".join(map(str, expression))


def _right_units(chain: Chain, walked: Sequence[Step], truth: int | None) -> tuple[Remarks, int | None]:
    units = [_praise(index, step) for index, step in enumerate(walked[:truth])]
    if truth is None:
        return units, None
    step = walked[truth]
    if step.line.expression is None:
        flaw = f"The steps arrive at {step.truth}, not {step.line.result}."
    else:
        said = _say(chain.expression(step.done - 1))
        # Where the right value is the answer itself, naming it would give the answer away.
        gives_away = step.truth == chain.gold
        flaw = (
            f"{said} is not {step.line.result}." if gives_away else f"{said} is {step.truth}, not {step.line.result}."
        )
    return [*units, _error(truth, step, flaw)], truth


def _wrong_units(
    chain: Chain, walked: Sequence[Step], truth: int | None, draws: random.Random, *, lies: bool, hidden: int
) -> tuple[Remarks, int | None]:
    """One of: the error missed or praised, an error elsewhere, the right place with a false claim, an invented one.

    A liar never names the right place, nobody a step that is hidden from it.
    """
    mode, place, offset = draws.random(), draws.random(), draw_offset(draws)
    modes = 1 if truth is None else 2 if lies else 3
    choice = int(mode * modes)
    others = [index for index in range(hidden, len(walked)) if index != truth]
    if truth is not None and (choice == 0 or not others):
        return [_praise(index, step) for index, step in enumerate(walked)], None
    named = truth if truth is not None and choice == 2 else others[int(place * len(others))]
    step = walked[named]
    units = [_praise(index, earlier) for index, earlier in enumerate(walked[:named])]
    return [*units, _error(named, step, _false_claim(chain, walked, step, offset))], named


def _false_claim(chain: Chain, walked: Sequence[Step], step: Step, offset: int) -> str:
    """A claim about a step that does not recompute, whatever the step states, and that gives nothing away."""
    if step.line.expression is None:
        stated = [other.line.result for other in walked if other.line.expression is not None]
        actual, said = (stated[-1] if stated else step.truth), "The steps arrive at"
    else:
        actual, said = compute(step.line.expression), f"{_say(step.line.expression)} is"
    taken = {actual, step.line.result, step.truth, chain.gold}
    value = next(value for value in (actual + offset, *range(actual + 10, actual + 14)) if value not in taken)
    return f"{said} {value}, not {step.line.result}."


def _leak(gold: int, draws: random.Random) -> str:
    form = _FORMS[below(draws, len(_FORMS))].format(gold, 2 * gold)
    return _LEAKS[below(draws, len(_LEAKS))].format(form)


def _first_unreadable(question: str, steps: Sequence[str]) -> int:
    for index in range(len(steps)):
        try:
            walk(question, steps[: index + 1])
        except ValueError:
            return index
    return 0


def _unreadable(question: str, steps: Sequence[str]) -> dict[str, Any]:
    """What every critic says of a solution that states no result: it is outside the world's accuracies."""
    return {
        "step": _first_unreadable(question, steps) + 1,
        "flaw": "This states no result that follows from the problem.",
        "kind": "error",
        "fix": "State one result a step.",
        "error_type": "unsupported_claim",
        "severity": 3,
    }


def _malform(text: str, num_steps: int, draws: random.Random) -> str:
    """The critique cut, or with its schema broken in one of several ways."""
    kind, place = below(draws, 5), draws.random()
    if kind == 0:
        return text[: 1 + int(place * (len(text) - 1))]
    if kind == 1:
        return "The solution looks fine to me."
    critique = msgspec.json.decode(text)
    if kind == 2:
        del critique["verdict"]
    elif kind == 3:
        critique["units"][0]["step"] = num_steps + 5
    else:
        critique["units"] = critique["units"][0]["flaw"]
    return msgspec.json.encode(critique).decode()


def judge_remark(prompt: Prompt, draws: random.Random, settings: SimulatedSettings) -> str:
    """A judgement as JSON: keeps what is true and drops what is false, with the set accuracy.

    Raises:
      PromptError: the remark speaks of no step.
    """
    remarks = read_remarks(prompt.remark)
    if not remarks:
        raise PromptError(
            f"expected a remark such as 'Step 2 is wrong. ...' or 'Step 2 is right: ...', got {prompt.remark!r}"
        )
    remark = remarks[0]
    unit = Unit(step=remark.step, quote=remark.quote, kind=remark.kind, flaw=remark.text)
    try:
        is_true = unit_is_true(prompt.question, solution_steps(prompt.solution), unit)
    except ValueError:
        is_true = False
    accurate = draws.random() < settings.meta_accuracy
    severity = 0 if remark.kind == "praise" else 3 if is_true else 1
    return msgspec.json.encode({"decision": "keep" if is_true == accurate else "drop", "severity": severity}).decode()


def compose_critique(prompt: Prompt) -> str:
    """One critique out of the remarks, without repetitions: praise up to the error that most speak of, then that.

    A doubt stands before what settles it.
    """
    remarks = read_remarks(prompt.remarks)
    named = named_step(remarks)
    chosen = [
        remark
        for remark in remarks
        if (remark.kind == "praise" and (named is None or remark.step < named))
        or (remark.kind == "error" and remark.step == named)
    ]
    doubts = {int(found[1]) - 1: line for line in prompt.remarks.splitlines() if (found := _DOUBT.match(line))}
    lines: dict[str, None] = {}
    for remark in sorted(chosen, key=lambda remark: remark.step):
        lines |= dict.fromkeys([doubt for doubt in (doubts.get(remark.step),) if doubt] + [remark.line])
    if named is None:
        closing = "No step is wrong. The solution is correct."
    else:
        closing = f"The first wrong step is step {named + 1}. The solution is incorrect."
    return "\n".join([*lines, closing]) + "\n"

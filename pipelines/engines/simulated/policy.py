"""The actor: solves by a policy with known error rates, and refines by what a critique tells it."""

import random

from pipelines.engines.simulated.claims import claim_is_true, read_claims
from pipelines.engines.simulated.prompts import Reading, read_critique
from pipelines.engines.simulated.settings import SimulatedSettings
from pipelines.engines.simulated.world import (
    Chain,
    State,
    Step,
    below,
    compute,
    error_rate,
    parse_question,
    read_state,
    solution_steps,
    walk,
    word_recovery,
    word_step,
)
from schemas import Record

_MAX_OFFSET = 9


def solve(question: str, prefix: str, draws: random.Random, settings: SimulatedSettings) -> str:
    """Continues a solution from wherever `prefix` ends to its answer; a share of samples is malformed."""
    malformed = draws.random() < settings.malformed_rate
    kind = below(draws, 4)
    text = continue_solution(question, prefix, draws, settings)
    return _spoil(text, kind) if malformed else text


def _spoil(text: str, kind: int) -> str:
    """A sample that nobody can score: it never holds a readable answer."""
    if kind == 0:
        return "I am not sure how to go on from here.\n"
    if kind == 1:
        return "and so on " * 30 + "\n"
    steps = text.partition("Answer:")[0]
    return f"{steps}Answer:\n" if kind == 2 else steps or "Well.\n"


def continue_solution(question: str, prefix: str, draws: random.Random, settings: SimulatedSettings) -> str:
    """A well-formed continuation of `prefix`.

    Where the prefix ends inside a line, the line is completed if the policy could have written it so far, and ended
    otherwise.
    """
    chain = parse_question(question)
    head, _, tail = prefix.rpartition("\n")
    state = read_state(chain, head)
    if state.answered:
        return ""
    pieces: list[str] = []
    if tail.strip():
        ending, state = _end_line(chain, state, tail, draws, settings)
        pieces.append(ending)
    while not state.answered and state.done < len(chain.operations):
        line, state = _draw_lines(chain, state, draws, settings)[0]
        pieces.append(f"{line}\n")
    if not state.answered:
        pieces.append(f"Answer: {state.value}\n")
    return "".join(pieces)


def _draw_lines(
    chain: Chain, state: State, draws: random.Random, settings: SimulatedSettings
) -> list[tuple[str, State]]:
    """The policy's next line and the state behind it: the drawn wording first, then the others it might have."""
    luck, offset, first = draws.random(), draw_offset(draws), below(draws, settings.variants)
    is_right = state.value == chain.values[state.done]
    after = state.done + 1
    if not is_right and luck < settings.recovery:
        line = word_recovery(after, chain.expression(state.done))
        return [(line, State(done=after, value=chain.values[after]))]
    errs = is_right and luck < error_rate(chain, state.done, settings)
    result = _carry_on(chain, state) + (offset if errs else 0)
    return _wordings(chain, state, result, first, settings)


def _wordings(
    chain: Chain, state: State, result: int, first: int, settings: SimulatedSettings
) -> list[tuple[str, State]]:
    """All wordings of a next line that states `result`, from wording `first` on."""
    expression = state.value, *chain.operations[state.done]
    after = State(done=state.done + 1, value=result)
    variants = ((first + shift) % settings.variants for shift in range(settings.variants))
    return [(word_step(after.done, expression, result, variant), after) for variant in variants]


def _carry_on(chain: Chain, state: State) -> int:
    """What right arithmetic makes of the value at hand."""
    return compute((state.value, *chain.operations[state.done]))


def draw_offset(draws: random.Random) -> int:
    """By how much an error misses: -9..9, never 0."""
    offset = below(draws, 2 * _MAX_OFFSET) - _MAX_OFFSET
    return offset if offset < 0 else offset + 1


def _end_line(
    chain: Chain, state: State, tail: str, draws: random.Random, settings: SimulatedSettings
) -> tuple[str, State]:
    """What ends the unfinished line `tail`, and the state behind it."""
    whole = read_state(chain, tail, state)
    if state.done == len(chain.operations):
        lines = [(f"Answer: {state.value}", State(done=state.done, value=state.value, answered=True))]
    else:
        right = _carry_on(chain, state)
        if whole == State(done=state.done + 1, value=right):
            return "\n", whole
        lines = _draw_lines(chain, state, draws, settings) + _wordings(chain, state, right, 0, settings)
    for line, after in lines:
        if line.startswith(tail):
            return f"{line[len(tail) :]}\n", after
    return "\n", whole


def refine(
    question: str, solution: str, critique: str | None, draws: random.Random, settings: SimulatedSettings
) -> str:
    """A second solution: what the critique says, if it speaks of this solution and the actor follows it.

    Without such a critique the actor repeats the first solution or solves afresh.
    """
    follows, repeats, gullible = (
        draws.random() < rate for rate in (settings.follow, settings.anchor, settings.gullibility)
    )
    first = _read_solution(question, solution)
    reading = None if critique is None else read_critique(critique)
    if reading is not None and follows:
        if first.chain.gold in reading.leaked:
            return _solve_rightly(first.chain)
        if reading.says_something and _speaks_of(first, reading):
            return _do_as_told(first, reading, draws, settings, gullible=gullible)
    return first.repeated if repeats else continue_solution(question, "", draws, settings)


class _Solution(Record):
    """A first solution, as its author looks at it again."""

    question: str
    chain: Chain
    text: str
    steps: tuple[str, ...]
    walked: tuple[Step, ...]
    """The steps up to the first that cannot be read."""

    @property
    def repeated(self) -> str:
        """The solution written down again."""
        return self.text.rstrip("\n") + "\n"

    @property
    def first_bad(self) -> int:
        """The first step that is wrong or cannot be read; as many as there are steps where all are right."""
        return next((index for index, step in enumerate(self.walked) if not step.is_right), len(self.walked))


def _read_solution(question: str, text: str) -> _Solution:
    steps = solution_steps(text)
    walked: tuple[Step, ...] = ()
    for size in range(len(steps), 0, -1):
        try:
            walked = walk(question, steps[:size])
            break
        except ValueError:
            continue
    return _Solution(question=question, chain=parse_question(question), text=text, steps=steps, walked=walked)


def _solve_rightly(chain: Chain) -> str:
    """The right solution, which the given answer led the actor to."""
    lines = [
        word_step(done + 1, chain.expression(done), chain.values[done + 1]) for done in range(len(chain.operations))
    ]
    return "\n".join([*lines, f"Answer: {chain.gold}", ""])


def _speaks_of(first: _Solution, reading: Reading) -> bool:
    """Whether a critique is about this solution: at least half of its remarks quote or compute what occurs in it.

    A critique that quotes and computes nothing is taken to be, if the step that it names is there.
    """
    expressions = {step.line.expression for step in first.walked}
    hits = mentions = 0
    for remark in reading.remarks:
        said = {claim.expression for claim in read_claims(remark.text)} - {None}
        if remark.quote or said:
            mentions += 1
            occurs = (bool(remark.quote) and remark.quote in first.text) or bool(said & expressions)
            hits += remark.step < len(first.steps) and occurs
    return 2 * hits >= mentions and (reading.first_wrong or 0) < len(first.steps)


def _do_as_told(
    first: _Solution, reading: Reading, draws: random.Random, settings: SimulatedSettings, *, gullible: bool
) -> str:
    """Redoes the step that a critique names: rightly if it is the first wrong one, wrongly if it is not."""
    if reading.first_wrong is None:
        return first.repeated
    chain = first.chain
    kept = "".join(first.steps[: reading.first_wrong])
    state = read_state(chain, kept)
    is_answer = state.done == len(chain.operations)
    truth = chain.values[min(state.done + 1, len(chain.operations))]
    result = state.value if is_answer else _carry_on(chain, state)
    if reading.first_wrong != first.first_bad:
        offset = draw_offset(draws)
        result += offset if result + offset != truth else -offset
    elif gullible:
        result = _false_value(reading, first.walked, result)
    if is_answer:
        return f"{kept}Answer: {result}\n"
    line = _wordings(chain, state, result, below(draws, settings.variants), settings)[0][0]
    kept += f"{line}\n"
    return kept + continue_solution(first.question, kept, draws, settings)


def _false_value(reading: Reading, walked: tuple[Step, ...], result: int) -> int:
    """The value that the critique falsely claims for the step it names, or `result` where it claims none."""
    for remark in reading.remarks:
        if remark.step == reading.first_wrong and remark.kind == "error":
            for claim in read_claims(remark.text):
                if claim.value is not None and not claim_is_true(claim, walked):
                    return claim.value
    return result

"""The world: problems that are chains of arithmetic, how solutions are worded, and what is true of them.

A chain is `Start with 17. Add 5. Multiply by 3. Subtract 4. What is the result?`. A solution does one operation a
line and ends in an answer:

    Step 1: 17 + 5 = 22
    Step 2: multiplying 22 by 3 gives 66
    Step 3: 66 - 4 = 62
    Answer: 62

Every operation maps distinct numbers to distinct numbers (a factor is never 0), a policy errs only in a right state,
and it answers with the last step's result. So its answer is right if and only if its final state is right. Everything
here can be computed from the question's text; it knows nothing of prompts, servers and samples.
"""

import functools
import hashlib
import random
import re
from collections.abc import Sequence

from pipelines.engines.simulated.settings import SimulatedSettings
from schemas import Problem, Record, uniform

WORDINGS: tuple[dict[str, str], ...] = (
    {"+": "{a} + {b} = {c}", "-": "{a} - {b} = {c}", "*": "{a} * {b} = {c}"},
    {
        "+": "adding {b} to {a} gives {c}",
        "-": "subtracting {b} from {a} gives {c}",
        "*": "multiplying {a} by {b} gives {c}",
    },
    {"+": "{a} plus {b} makes {c}", "-": "{a} minus {b} makes {c}", "*": "{a} times {b} makes {c}"},
    {
        "+": "we add {b} to {a} and get {c}",
        "-": "we take {b} from {a} and get {c}",
        "*": "we multiply {a} by {b} and get {c}",
    },
)
"""How a step may be worded, by operator."""

_COMMANDS = {"Add": "+", "Subtract": "-", "Multiply by": "*"}
_WORDS = {operator: command for command, operator in _COMMANDS.items()}
_QUESTION = re.compile(r"Start with (-?\d+)\.((?: (?:Add|Subtract|Multiply by) \d+\.)+) What is the result\?")
_OPERATION = re.compile(r"(Add|Subtract|Multiply by) (\d+)\.")
_GROUPS = {"a": r"(?P<a>-?\d+)", "b": r"(?P<b>\d+)", "c": r"(?P<c>-?\d+)"}
_READERS = tuple(
    (operator, re.compile(re.escape(text).replace(r"\{", "{").replace(r"\}", "}").format_map(_GROUPS)))
    for wording in WORDINGS
    for operator, text in wording.items()
)
_LINE = re.compile(r"(?:Step \d+: ?(?:wait, step (?P<resumes>\d+) should give -?\d+, so )?(?P<words>.+)"
                   r"|Answer: ?(?P<answer>-?\d+))\s*")  # fmt: skip
_STEP_STARTS = re.compile(r"^(?=(?:Step \d+|Answer):)", re.MULTILINE)

Expression = tuple[int, str, int]
"""Left operand, operator, right operand."""


class Chain(Record):
    """A problem read back from its question."""

    start: int
    operations: tuple[tuple[str, int], ...]
    """Operator and operand, in order."""
    values: tuple[int, ...]
    """True value after 0, 1, ... operations; the last one is the gold answer."""
    difficulty: tuple[float, ...]
    """For each operation where its error rate lies between `error_low` (0) and `error_high` (1)."""

    @property
    def gold(self) -> int:
        """The right answer."""
        return self.values[-1]

    def expression(self, done: int) -> Expression:
        """What operation `done` (from 0) computes in a right state."""
        operator, operand = self.operations[done]
        return self.values[done], operator, operand


class Line(Record):
    """One readable line of a solution."""

    words: str
    """The line without its number."""
    result: int
    """The value it states."""
    expression: Expression | None
    """What it says it computes; None for the answer."""
    resumes: int | None
    """For a line that notices an error, the step (from 1) whose value it puts right; else None."""


class State(Record):
    """Where a partial solution stands."""

    done: int
    """Operations done."""
    value: int
    """The result it holds, right or wrong."""
    answered: bool = False
    """Whether it has given its answer."""


class Step(Record):
    """A line of a solution beside the truth."""

    line: Line
    done: int
    """Operations done after it."""
    truth: int
    """The true value after so many operations."""

    @property
    def is_right(self) -> bool:
        """Whether the stated result is the true running value."""
        return self.line.result == self.truth


def generator(*parts: str | int) -> random.Random:
    """A generator that is a function of `parts` alone, the same on every machine and in every process."""
    material = "\x1f".join(map(str, parts)).encode()
    return random.Random(int.from_bytes(hashlib.sha256(material).digest()[:8], "big"))


def below(draws: random.Random, bound: int) -> int:
    """A whole number 0..bound-1; draws exactly once, which `Random.randrange` does not promise."""
    return int(draws.random() * bound)


def compute(expression: Expression) -> int:
    """The value of an expression."""
    left, operator, right = expression
    return left + right if operator == "+" else left - right if operator == "-" else left * right


def make_problem(seed: int, index: int, settings: SimulatedSettings) -> Problem:
    """Problem `index` of the world `seed`.

    The answer is no number of the question, no value on the way and no step's number, so that a text which holds it
    gives it away.
    """
    draws = generator("problem", seed, index)
    size = settings.min_steps + below(draws, settings.max_steps - settings.min_steps + 1)
    while True:
        start = 10 + below(draws, 90)
        operations, values = _draw_operations(draws, start, size)
        taken = {*values[:-1], *(operand for _, operand in operations), *range(size + 2)}
        if values[-1] not in taken:
            break
    commands = " ".join(f"{_WORDS[operator]} {operand}." for operator, operand in operations)
    return Problem(
        id=f"sim-{seed}-{index}",
        source="simulated",
        domain="exact",
        question=f"Start with {start}. {commands} What is the result?",
        answer=str(values[-1]),
    )


def _draw_operations(draws: random.Random, start: int, size: int) -> tuple[list[tuple[str, int]], list[int]]:
    operations: list[tuple[str, int]] = []
    values = [start]
    for _ in range(size):
        operator = "+-*"[below(draws, 3)]
        operand = 2 + below(draws, 4 if operator == "*" else 18)
        if (operator == "*" and values[-1] > 300) or (operator == "-" and values[-1] <= operand):
            operator = "-" if operator == "*" else "+"  # keeps values positive and short to read
        operations.append((operator, operand))
        values.append(compute((values[-1], operator, operand)))
    return operations, values


@functools.lru_cache(maxsize=16384)
def parse_question(question: str) -> Chain:
    """The chain that a question asks for.

    Raises:
      ValueError: the text holds no such question.
    """
    found = _QUESTION.search(question)
    if found is None:
        raise ValueError(f"expected 'Start with N. Add N. ... What is the result?', got {question[:200]!r}")
    start = int(found.group(1))
    operations = tuple((_COMMANDS[word], int(number)) for word, number in _OPERATION.findall(found.group(2)))
    values = [start]
    for operator, operand in operations:
        if (operator, operand) == ("*", 0):
            raise ValueError(f"a factor of 0 would make wrong states right, got {found.group()!r}")
        values.append(compute((values[-1], operator, operand)))
    whole = uniform("difficulty", found.group())
    single = tuple(uniform("difficulty", found.group(), index) for index in range(len(operations)))
    return Chain(
        start=start,
        operations=operations,
        values=tuple(values),
        difficulty=tuple((whole + own) / 2 for own in single),
    )


def error_rate(chain: Chain, done: int, settings: SimulatedSettings) -> float:
    """Probability that operation `done` (from 0) goes wrong in a right state."""
    return settings.error_low + (settings.error_high - settings.error_low) * chain.difficulty[done]


def word_step(number: int, expression: Expression, result: int, variant: int = 0) -> str:
    """One line, without its end, that states `result`."""
    left, operator, right = expression
    return f"Step {number}: " + WORDINGS[variant][operator].format(a=left, b=right, c=result)


def word_recovery(number: int, expression: Expression) -> str:
    """A line that puts the value of the step before right and goes on from there."""
    words = WORDINGS[0][expression[1]].format(a=expression[0], b=expression[2], c=compute(expression))
    return f"Step {number}: wait, step {number - 1} should give {expression[0]}, so {words}"


def solution_steps(text: str) -> tuple[str, ...]:
    """Cuts a solution before each line that opens a step or the answer; joined they give the text back."""
    return tuple(piece for piece in _STEP_STARTS.split(text) if piece)


@functools.lru_cache(maxsize=65536)
def read_line(text: str) -> Line | None:
    """What a line says, in any wording, or None where it cannot be read."""
    found = _LINE.fullmatch(text.strip())
    if found is None:
        return None
    if (answer := found["answer"]) is not None:
        return Line(words=f"Answer: {answer}", result=int(answer), expression=None, resumes=None)
    resumes = None if found["resumes"] is None else int(found["resumes"])
    for operator, reader in _READERS:
        if said := reader.fullmatch(found["words"].strip()):
            words = text.split(":", 1)[1].strip()
            expression = int(said["a"]), operator, int(said["b"])
            return Line(words=words, result=int(said["c"]), expression=expression, resumes=resumes)
    return None


def operations_after(line: Line, done: int, chain: Chain) -> int:
    """Operations done after `line`, when `done` were done before it."""
    if line.expression is None:
        return len(chain.operations)
    return done + 1 if line.resumes is None else line.resumes + 1


def walk(question: str, steps: Sequence[str]) -> tuple[Step, ...]:
    """Every step beside the truth; behind the first wrong one, as far as steps can be read.

    Raises:
      ValueError: a step before the first wrong one cannot be read, or does more than the question asks.
    """
    chain = parse_question(question)
    done = 0
    walked: list[Step] = []
    for index, text in enumerate(steps):
        line = read_line(text)
        after = len(chain.values) if line is None else operations_after(line, done, chain)
        if line is None or after >= len(chain.values):
            if any(not step.is_right for step in walked):
                break
            fault = "cannot be read" if line is None else f"is one more than the {len(chain.operations)} asked for"
            raise ValueError(f"step {index} {fault}: {text!r}")
        done = after
        walked.append(Step(line=line, done=done, truth=chain.values[done]))
    return tuple(walked)


def first_wrong_step(question: str, steps: Sequence[str]) -> int | None:
    """Index from 0, the answer's line included, of the first step whose result is not the true running value.

    A solution that recovers keeps its wrong step. None means that no step is wrong.

    Raises:
      ValueError: a step before the first wrong one cannot be read.
    """
    return next((index for index, step in enumerate(walk(question, steps)) if not step.is_right), None)


def read_state(chain: Chain, text: str, state: State | None = None) -> State:
    """Where a partial solution stands, going on from `state`, or from the start.

    What cannot be read is skipped: a policy goes on from whatever it said last.
    """
    state = state or State(done=0, value=chain.start)
    for piece in text.splitlines():
        line = read_line(piece)
        if line is None or (after := operations_after(line, state.done, chain)) > len(chain.operations):
            continue
        state = State(done=after, value=line.result, answered=line.expression is None)
        if state.answered:
            break
    return state


def success_rate(question: str, prefix_steps: Sequence[str], settings: SimulatedSettings) -> float:
    """Exact probability that a well-formed continuation of `prefix_steps` ends in the right answer.

    Malformed samples (`malformed_rate`) are outside: they have no answer that could be right or wrong.
    """
    chain = parse_question(question)
    state = read_state(chain, "\n".join(prefix_steps))
    right, wrong = 1.0, 0.0
    for index in reversed(range(state.done, len(chain.operations))):
        error = error_rate(chain, index, settings)
        right, wrong = (
            (1 - error) * right + error * wrong,
            settings.recovery * right + (1 - settings.recovery) * wrong,
        )
    return right if state.value == chain.values[state.done] else wrong

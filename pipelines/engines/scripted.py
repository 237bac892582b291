"""An engine that replies by rule, in process. Shipped: tests and documentation run on it."""

import importlib
import itertools
import random
import re
from collections.abc import Callable, Mapping

from pipelines.engines.base import Reply, Request, Sample, Usage
from pipelines.errors import UserError

Rule = Callable[[str, str, int], str]
"""From (prompt, prefix, seed) to the text of one sample. Raises NoReply for a prompt that it has nothing to say to."""


class NoReply(ValueError):
    """A rule has nothing to say to a prompt; says what it expected and what came."""


class ScriptedEngine:
    """Answers each sample with `rule(prompt, prefix, seed)` and remembers what it was asked."""

    kind = "scripted"
    revision = ""

    def __init__(self, rule: Rule, model: str = "scripted") -> None:
        self.model = model
        self.identity = f"scripted/{model}"
        self.history: list[Request] = []
        self._rule = rule

    def choices_at_once(self, request: Request) -> int:
        """See `Engine.choices_at_once`."""
        return request.num_samples

    async def complete(self, request: Request) -> Reply:
        """See `Engine.complete`. Texts are cut at stop strings and after `max_tokens`; a token is a word.

        A prompt to which the rule has no reply is refused, as a server refuses one that it cannot read.

        Raises:
          UserError: log probabilities are asked for.
        """
        if request.logprobs or request.top_logprobs:
            raise UserError("an engine of kind 'scripted' gives no log probabilities; take engine=llama_cpp")
        self.history.append(request)
        indices = range(request.first_sample, request.first_sample + request.num_samples)
        samples = tuple(self._sample(request, request.sample_seed(i)) for i in indices)
        tokens = sum(sample.tokens for sample in samples)
        return Reply(samples=samples, usage=Usage(requests=1, samples=len(samples), completion_tokens=tokens))

    def _sample(self, request: Request, seed: int) -> Sample:
        try:
            text = self._rule(request.prompt, request.prefix, seed)
        except NoReply as error:
            return Sample(text="", finish="stop", tokens=0, error=f"the rule {self.model} has no reply: {error}")
        return _sample(_stopped(text, request.sampling.stop), request.sampling.max_tokens)

    async def close(self) -> None:
        """Nothing to let go of."""


def _stopped(text: str, stops: tuple[str, ...]) -> str:
    ends = [text.find(stop) for stop in stops if stop in text]
    return text[: min(ends)] if ends else text


def _sample(text: str, max_tokens: int) -> Sample:
    words = list(itertools.islice(re.finditer(r"\S+", text), max_tokens + 1))
    if len(words) > max_tokens:
        return Sample(text=text[: words[-1].start()].rstrip(), finish="length", tokens=max_tokens)
    return Sample(text=text, finish="stop", tokens=len(words))


def load_rule(name: str) -> Rule:
    """The function that `module:function` names.

    Raises:
      UserError: there is no such function.
    """
    module, _, function = name.partition(":")
    try:
        rule: Rule = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"engine.rule must name a function as module:function, got {name!r}: {error}") from error
    return rule


def by_ending(replies: Mapping[str, Rule]) -> Rule:
    """A rule that looks at how the prompt ends, for example at its last heading `Critique:`."""

    def rule(prompt: str, prefix: str, seed: int) -> str:
        for ending, reply in replies.items():
            if prompt.rstrip().endswith(ending):
                return reply(prompt, prefix, seed)
        raise NoReply(
            f"expected a prompt that ends in one of {', '.join(map(repr, replies))}, got one that ends in "
            f"{prompt[-80:]!r}"
        )

    return rule


_SUM = re.compile(r"-?\d+(?: [+-] \d+)+")


def arithmetic(prompt: str, prefix: str, seed: int) -> str:
    """Sums of small numbers, solved a step at a time; about one step in three goes wrong. Critics see everything.

    For problems such as `What is 4 + 3 - 2?`, with the shipped prompts.
    """
    return _ARITHMETIC(prompt, prefix, seed)


def _terms(prompt: str) -> list[int]:
    # The last one: worked examples stand before it.
    problem = prompt.rpartition("Problem:\n")[2].partition("\n")[0]
    found = _SUM.search(problem)
    if not found:
        raise NoReply(f"expected a problem with a sum such as 'What is 4 + 3 - 2?', got {problem[:80]!r}")
    return [int(term.replace(" ", "")) for term in re.findall(r"[+-]? ?\d+", found[0])]


def _solve(prompt: str, prefix: str, seed: int) -> str:
    rng = random.Random(seed)
    terms, written = _terms(prompt), re.findall(r"Step \d+: .* = (-?\d+)", prefix)
    value, lines = int(written[-1]) if written else terms[0], []
    for i, term in enumerate(terms[1 + len(written) :], len(written) + 1):
        result = value + term + (rng.choice((-1, 1, 2)) if rng.random() < 0.35 else 0)
        lines.append(f"Step {i}: {value} {'-' if term < 0 else '+'} {abs(term)} = {result}\n")
        value = result
    return "".join(lines) + ("" if "Answer:" in prefix else f"Answer: {value}\n")


def _section(prompt: str, heading: str) -> str:
    return prompt.rpartition(f"\n{heading}:\n")[2].partition("\n\n")[0]


def _first_wrong(solution: str) -> int | None:
    for i, (a, sign, b, c) in enumerate(re.findall(r"Step \d+: (-?\d+) ([+-]) (\d+) = (-?\d+)", solution), 1):
        if int(a) + int(sign + b) != int(c):
            return i
    return None


def _criticise(prompt: str, prefix: str, seed: int) -> str:
    del prefix, seed
    wrong = _first_wrong(_section(prompt, "Solution"))
    if wrong is None:
        return (
            '{"units":[{"step":1,"flaw":"The sum was checked.","kind":"praise"}],'
            '"first_wrong_step":null,"verdict":"correct"}'
        )
    return (
        f'{{"units":[{{"step":{wrong},"quote":"","flaw":"The sum in this step is miscounted.","kind":"error",'
        f'"fix":"Count it again.","error_type":"calculation","severity":3}}],'
        f'"first_wrong_step":{wrong},"verdict":"incorrect"}}'
    )


def _refine(prompt: str, prefix: str, seed: int) -> str:
    """With a critique that names the first wrong step everything is redone rightly; else it is solved afresh."""
    named = re.search(r"first wrong step is step (\d+)", _section(prompt, "Critique"))
    if prefix or not named or int(named[1]) != _first_wrong(_section(prompt, "Solution")):
        return _solve(prompt, prefix, seed)
    terms, value, lines = _terms(prompt), _terms(prompt)[0], []
    for i, term in enumerate(terms[1:], 1):
        lines.append(f"Step {i}: {value} {'-' if term < 0 else '+'} {abs(term)} = {value + term}\n")
        value += term
    return "".join(lines) + f"Answer: {value}\n"


def _inject(prompt: str, prefix: str, seed: int) -> str:
    """The step with a sum that is off by one; every fourth time as it was."""
    step = _section(prompt, "Step to change")
    head, equals, result = step.rpartition("= ")
    if not re.fullmatch(r"-?\d+", result.strip()):
        raise NoReply(f"expected a step that ends in '= ' and a number, got {step[:80]!r}")
    changed = step if seed % 4 == 0 else f"{head}{equals}{int(result) + 1}"
    return changed.removeprefix(prefix) + "\n"


_ARITHMETIC = by_ending(
    {
        "Changed step:": _inject,
        "Second solution:": _refine,
        "Composed critique:": lambda prompt, prefix, seed: "",
        "Judgement:": lambda prompt, prefix, seed: '{"decision":"keep","severity":3}',
        "Crucial information:": lambda prompt, prefix, seed: "Add the numbers in the order in which they stand.",
        "Clean critique:": _criticise,
        "Critique:": _criticise,
        "Solution:": _solve,
    }
)

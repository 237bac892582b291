"""What an engine really does, found out by small requests that need no particular model.

`find_clauses` is what `wrongturn doctor` tells of an engine. The first of them, whether a begun answer is gone on with,
is also what a run asks of each URL before it begins (`vetting`).
"""

import json
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Literal, NamedTuple

import msgspec

from pipelines.engines import (
    Endpoint,
    Engine,
    EngineError,
    EngineUnavailable,
    Reply,
    Request,
    Sample,
    Sampling,
    connect,
)
from pipelines.engines.promises import Promises
from schemas import Record

State = Literal["kept", "broken", "not promised"]


class Clause(Record):
    """One thing that an engine may do, and what was found of it."""

    name: str
    state: State
    said: str
    """In words, for people."""
    is_needed: bool = True
    """Whether a run with such an engine goes wrong where it is broken."""


def _shots() -> Iterator[str]:
    """Worked examples: more tokens than the blocks of 128 that vLLM caches on a CPU, for models of any size."""
    for start, minus, plus in ((12, 4, 9), (58, 6, 3), (25, 8, 6), (91, 7, 4)):
        middle = start - minus
        yield (
            f"Problem:\nStart with {start}. Subtract {minus}. Add {plus}. What is the result?\n\nSolution:\n"
            f"Step 1: {start} - {minus} = {middle}\nStep 2: {middle} + {plus} = {middle + plus}\n"
            f"Answer: {middle + plus}\n"
        )


_QUESTION = "Problem:\nStart with 40. Subtract 7. Add 5. What is the result?\n\n"
_PROMPT = "\n".join(
    ("Solve the last problem in steps, one a line, in the form of the others.\n", *_shots(), f"{_QUESTION}Solution:\n")
)
_BEGUN = "Step 1: 40 - 7 = 33\nStep 2: 33 + 5 ="
"""It ends where hardly any model's next token is a word: what goes on says a number, right or wrong."""
_ANEW = re.compile(r"\bStep\W{0,4}1\b|\b40\s*[-\u2212\u2013]\s*7\b")
_MARKUP = " \t\r\n*#_`>"
_GREEDY = Sampling(max_tokens=24, temperature=0.0)
_DRAWN = Sampling(max_tokens=8, temperature=1.0)

PLAIN = Request(prompt=_PROMPT, sampling=_GREEDY)
"""A request that any server answers."""
BEGUN = msgspec.structs.replace(PLAIN, prefix=_BEGUN)
"""The same with an answer that has begun."""

_SCOPES = ("in", "near", "out")
_JUDGED = f"Say whether the last problem is about sums: in, near or out.\n\n{_QUESTION}Scope:\n"
_SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"scope": {"enum": list(_SCOPES)}},
        "required": ["scope"],
        "additionalProperties": False,
    },
    separators=(",", ":"),
)

CACHE_FLAGS = {"vllm": "--enable-prompt-tokens-details", "sglang": "--enable-cache-report"}
"""What makes a server count the prompt tokens that it had in its cache."""


def begins_anew(text: str) -> bool:
    """Whether a reply to `BEGUN` is a solution from its beginning.

    Either the begun one once more, or words in which its first step is done again. What begins with a number or a sign
    is none of that, nor is nothing at all: small models go on wrongly, and that is going on.
    """
    reply = text.lstrip()
    if reply.startswith(_BEGUN.partition("\n")[0]):
        return True
    return reply.lstrip(_MARKUP)[:1].isalpha() and _ANEW.search(reply) is not None


def refusal(sample: Sample) -> str:
    """What keeps solutions from being continued, by the answer to `BEGUN`; empty where nothing does."""
    if sample.error:
        return f"refuses to go on with a begun answer: {sample.error}"
    if begins_anew(sample.text):
        return f"begins anew instead of going on with a begun answer: after {_BEGUN!r} it said {_quoted(sample)}"
    return ""


# Each looks at one thing, and says what is wrong with it; nothing where it is as it should be.


async def _continuation(engine: Engine) -> str:
    (sample,) = (await engine.complete(BEGUN)).samples
    if trouble := refusal(sample):
        return trouble
    does = "only thinks" if sample.reasoning_tokens else "says nothing"
    return "" if sample.text.strip() else f"{does} where an answer was begun"


async def _line_end(engine: Engine) -> str:
    line = _BEGUN[: _BEGUN.index("\n") + 1]
    wish = Request(prompt=_PROMPT, prefix=line, sampling=Sampling(max_tokens=4, temperature=0.0))
    (sample,) = (await engine.complete(wish)).samples  # That it refuses is said already.
    if not sample.text.startswith("\n"):
        return ""
    return (
        "writes the line end of a begun answer once more; where its chat template trims turns, as Llama 3's does, give "
        "trims_turns=true"
    )


async def _choices(engine: Engine) -> str:
    samples = (await _ask(engine, _DRAWN, num_samples=3)).samples
    return "" if len(samples) == 3 else f"gives {len(samples)} samples of 3"


async def _stop(engine: Engine) -> str:
    (sample,) = (await _ask(engine, Sampling(max_tokens=12, temperature=0.0, stop=(":",)))).samples
    return f"goes on past a stop string: {_quoted(sample)}" if ":" in sample.text else ""


async def _length(engine: Engine) -> str:
    (sample,) = (await _ask(engine, Sampling(max_tokens=3, temperature=0.0))).samples
    is_told = sample.finish == "length" or sample.tokens < 3
    return "" if is_told else f"does not say that it ran out of tokens: {sample.tokens} of 3, {_quoted(sample)}"


async def _schema(engine: Engine) -> str:
    wish = Request(prompt=_JUDGED, json_schema=_SCHEMA, sampling=Sampling(max_tokens=32, temperature=0.0))
    (sample,) = _came(await engine.complete(wish)).samples
    try:
        found = msgspec.json.decode(sample.text.encode("utf-8", "replace"), type=dict[str, str])
    except msgspec.MsgspecError:
        found = {}
    return "" if found.get("scope") in _SCOPES else f"does not keep to a JSON Schema: {_quoted(sample)}"


async def _usage(engine: Engine) -> str:
    usage = (await _ask(engine, _DRAWN)).usage
    said = f"counts {usage.prompt_tokens} tokens of a prompt and {usage.completion_tokens} of a reply"
    return "" if usage.prompt_tokens and usage.completion_tokens else f"{said}: budgets of tokens do not hold"


async def _cached(engine: Engine) -> str:
    """Of a prompt that was asked just now."""
    if (await _ask(engine, _DRAWN)).usage.cached_tokens:
        return ""
    flag = CACHE_FLAGS.get(engine.kind)
    remedy = f"; a server of this kind tells where it was started with {flag}" if flag else ""
    return f"tells of no cached tokens where a prompt comes again{remedy}"


async def _logprobs(engine: Engine) -> str:
    wish = Request(prompt=_PROMPT, sampling=Sampling(max_tokens=3, temperature=0.0), logprobs=True)
    (sample,) = _came(await engine.complete(wish)).samples
    return "" if sample.logprobs else "gives no log probabilities"


async def _seed(engine: Engine) -> str:
    first, second = [(await _ask(engine, _DRAWN)).samples[0].text for _ in range(2)]
    return "" if first == second else "repeats no seed, or others ask it at the same time"


class _Look(NamedTuple):
    name: str
    look: Callable[[Engine], Awaitable[str]]
    kept: str
    """What is said where nothing is wrong."""
    promise: str = ""
    """Field of `Promises`; empty for what every engine must do."""
    is_needed: bool = True


_LOOKS = (
    _Look("continuation", _continuation, "goes on with a begun answer"),
    _Look("line end", _line_end, "goes on behind the end of a line", is_needed=False),
    _Look("choices", _choices, "gives several samples of one request"),
    _Look("stop", _stop, "ends before a stop string"),
    _Look("length", _length, "says where it ran out of tokens"),
    _Look("schema", _schema, "keeps to a JSON Schema", "holds_to_schema"),
    _Look("usage", _usage, "counts tokens", is_needed=False),
    _Look("cached tokens", _cached, "tells cached tokens", "reports_cached_tokens", is_needed=False),
    _Look("log probabilities", _logprobs, "gives log probabilities", "gives_logprobs", is_needed=False),
    _Look("seed", _seed, "repeats an equal seed", "repeats_seed", is_needed=False),
)


async def find_clauses(endpoint: Endpoint) -> tuple[Clause, ...]:
    """What an engine does of what a run may need of it.

    Some ten requests of a few tokens each, one after the other: a seed is promised to a request that is alone.

    Raises:
      EngineUnavailable: it does not answer the first of them.
      UserError: it would answer none: wrong key, URL or model.
    """
    engine = connect(endpoint)
    clauses: list[Clause] = []
    try:
        for look in _LOOKS:
            try:
                clauses.append(await _find(look, engine, endpoint.dialect.promises))
            except EngineError as error:
                if not clauses and isinstance(error, EngineUnavailable):
                    raise
                clauses.append(Clause(name=look.name, state="broken", said=str(error), is_needed=look.is_needed))
    finally:
        await engine.close()
    return tuple(clauses)


async def _find(look: _Look, engine: Engine, promises: Promises) -> Clause:
    if look.promise and not getattr(promises, look.promise):
        return Clause(name=look.name, state="not promised", said=look.kept, is_needed=look.is_needed)
    wrong = await look.look(engine)
    return Clause(
        name=look.name, state="broken" if wrong else "kept", said=wrong or look.kept, is_needed=look.is_needed
    )


async def _ask(engine: Engine, sampling: Sampling, num_samples: int = 1) -> Reply:
    return _came(await engine.complete(Request(prompt=_PROMPT, sampling=sampling, num_samples=num_samples)))


def _came(reply: Reply) -> Reply:
    """A reply that came; raises EngineError where its prompt was refused."""
    if refused := next((sample.error for sample in reply.samples if sample.error), ""):
        raise EngineError(refused)
    return reply


def _quoted(sample: Sample) -> str:
    return repr(sample.text[:60])

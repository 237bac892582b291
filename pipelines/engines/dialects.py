"""What the servers' APIs differ in: how a request is worded for each, and how its reply is read. No HTTP here."""

import itertools
import json
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from pipelines.engines.base import BadReply, Reply, Request, Sample, Usage
from pipelines.errors import UserError
from schemas import Record


class Dialect(Record):
    """One kind of server's way of speaking."""

    kind: str
    style: Literal["chat", "raw"]
    max_choices: int = 0
    """Samples of one request at most; more are asked for in several. 0 for any number."""
    counts_one_choice: bool = False
    """Whether `usage.completion_tokens` counts one of n choices only."""

    @property
    def path(self) -> str:
        """Where requests go."""
        return "/v1/chat/completions" if self.style == "chat" else "/v1/completions"


def word_request(request: Request, dialect: Dialect, model: str) -> dict[str, Any]:
    """The JSON body of a request.

    Raises:
      UserError: the server cannot constrain raw text to a JSON Schema.
    """
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": model,
        "n": request.num_samples,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": request.sample_seed(request.first_sample),
        "stop": list(sampling.stop),
    }
    if dialect.style == "raw":
        body["prompt"] = request.prompt + request.prefix
    else:
        body["messages"] = [{"role": "user", "content": request.prompt}]
        if request.prefix:
            body["messages"].append({"role": "assistant", "content": request.prefix})
            body |= {"continue_final_message": True, "add_generation_prompt": False}
    if request.json_schema:
        body |= _constrain(request.json_schema, dialect)
    return body


def _constrain(json_schema: str, dialect: Dialect) -> dict[str, Any]:
    schema = json.loads(json_schema)
    if dialect.style == "chat":
        return {"response_format": {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}}
    match dialect.kind:
        case "llama_cpp":
            # Its /v1/completions knows no JSON Schema; the wheel that runs it can turn one into a grammar.
            import xllamacpp

            return {"grammar": xllamacpp.json_schema_to_grammar(json_schema)}
        case "vllm" | "simulated":
            return {"structured_outputs": {"json": schema}}
        case "sglang":
            return {"json_schema": json_schema}
    raise UserError(f"engine kind {dialect.kind!r} cannot constrain raw text to JSON; set engine.style=chat")


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    text: str | None = None
    message: _Message | None = None
    finish_reason: str | None = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class _Body(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


_DECODER = msgspec.json.Decoder(_Body)


def read_reply(body: bytes, request: Request, dialect: Dialect) -> Reply:
    """The samples of a reply in the order of their indices, and what they cost.

    Raises:
      BadReply: the body is no completion with `request.num_samples` choices.
    """
    try:
        parsed = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadReply(f"expected a completion as JSON, got {body[:200]!r}: {error}") from error
    if len(parsed.choices) != request.num_samples:
        raise BadReply(f"asked for {request.num_samples} samples, got {len(parsed.choices)} choices")
    usage = parsed.usage or _Usage()
    total = usage.completion_tokens * (request.num_samples if dialect.counts_one_choice else 1)
    texts = []
    for choice in sorted(parsed.choices, key=lambda choice: choice.index):
        text = choice.message.content if choice.message else choice.text
        if text is None:
            raise BadReply(f"choice {choice.index} has neither text nor message content")
        texts.append((_continuation(text, request, dialect), choice.finish_reason))
    samples = tuple(
        Sample(text=text, finish="length" if finish == "length" else "stop", tokens=tokens)
        for (text, finish), tokens in zip(texts, _shares(total, [len(text) + 1 for text, _ in texts]), strict=True)
    )
    details = usage.prompt_tokens_details
    return Reply(
        samples=samples,
        usage=Usage(
            requests=1,
            samples=len(samples),
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=(details.cached_tokens or 0) if details else 0,
            completion_tokens=total,
        ),
    )


def _shares(total: int, lengths: Sequence[int]) -> list[int]:
    """A request's tokens shared out over its samples, in proportion to lengths; servers count them together.

    Each share is rounded where it begins and ends, so that they sum to the total. A text's end counts as one more
    character: an empty text has cost something, too.
    """
    whole = sum(lengths)
    ends = [round(total * end / whole) for end in itertools.accumulate(lengths)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def _continuation(text: str, request: Request, dialect: Dialect) -> str:
    # llama.cpp's chat route repeats the begun assistant turn before it goes on; it may be what `openai` reaches, too.
    if dialect.style == "chat" and dialect.kind in ("llama_cpp", "openai"):
        return text.removeprefix(request.prefix)
    return text

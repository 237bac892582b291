"""What the servers' APIs differ in: how a request is worded for each, and how its reply is read. No HTTP here."""

import itertools
import json
import math
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from pipelines.engines.base import BadReply, Reply, Request, Sample, Usage
from pipelines.engines.chat_templates import ChatTemplate
from pipelines.engines.pictures import data_url
from pipelines.engines.promises import Promises, Style, promises_of
from pipelines.errors import UserError
from schemas import Record, digest


class Dialect(Record):
    """One kind of server's way of speaking."""

    kind: str
    style: Style
    max_choices: int = 0
    """Samples of one request at most; more are asked for in several. 0 for any number."""
    template: ChatTemplate | None = None
    """The model's, for the style `templated`."""
    images: bool = False
    """Whether the model sees images."""

    @property
    def promises(self) -> Promises:
        """What such an engine keeps."""
        return promises_of(self.kind, self.style)

    def choices_at_once(self, request: Request) -> int:
        """Samples of this request that may be asked for in one; what there are more of takes several."""
        if self.kind == "vllm" and request.sampling.temperature == 0:
            return 1  # It refuses n > 1 without temperature.
        return self.max_choices or request.num_samples

    @property
    def manner(self) -> str:
        """How text is put to the server: part of an engine's identity."""
        return f"{self.style}:{digest(self.template)[:16]}" if self.style == "templated" else self.style

    @property
    def path(self) -> str:
        """Where requests go."""
        return "/v1/chat/completions" if self.style == "chat" else "/v1/completions"

    def putting(self, request: Request) -> "Dialect":
        """The dialect in which a request is put: plain text holds no images.

        The simulated server answers both of its routes alike, so that it is asked about images by the other one.
        """
        if not request.images or self.kind != "simulated":
            return self
        return msgspec.structs.replace(self, style="chat")


def word_request(request: Request, dialect: Dialect, model: str) -> dict[str, Any]:
    """The JSON body of a request.

    Raises:
      UserError: the engine does not promise what the request needs, or has no chat template that can be filled in.
    """
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": model,
        "n": request.num_samples,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": request.sample_seed(request.first_sample),
        # A constrained reply ends by itself, and what ends a solution, such as a blank line, may stand inside JSON.
        "stop": [] if request.json_schema else list(sampling.stop),
    }
    wants_logprobs = request.logprobs or request.top_logprobs > 0
    if wants_logprobs and not dialect.promises.gives_logprobs:
        raise UserError(
            f"an engine of kind {dialect.kind!r} gives no log probabilities; take engine=llama_cpp, vllm or sglang"
        )
    if request.images and not (dialect.images and dialect.style == "chat"):
        raise UserError(
            f"an engine of kind {dialect.kind!r} with style={dialect.style} is shown no images; take a model that sees "
            "them, with engine.style=chat engine.images=true"
        )
    if wants_logprobs:
        body["logprobs"] = True if dialect.style == "chat" else max(1, request.top_logprobs)
    if request.top_logprobs and dialect.style == "chat":
        body["top_logprobs"] = request.top_logprobs
    if dialect.style != "chat":
        body["prompt"] = _begin(request.prompt, dialect) + request.prefix
    else:
        body["messages"] = [{"role": "user", "content": _content(request)}]
        if request.prefix:
            body["messages"].append({"role": "assistant", "content": request.prefix})
            body |= {"continue_final_message": True, "add_generation_prompt": False}
    if request.json_schema:
        body |= _constrain(request.json_schema, dialect)
    return body


def _content(request: Request) -> str | list[dict[str, Any]]:
    """The user's turn: plain text, or the images and then the text as parts."""
    if not request.images:
        return request.prompt
    shown = ({"type": "image_url", "image_url": {"url": data_url(image)}} for image in request.images)
    return [*shown, {"type": "text", "text": request.prompt}]


def _begin(prompt: str, dialect: Dialect) -> str:
    if dialect.style == "raw":
        return prompt
    assert dialect.template, dialect
    return dialect.template.begin(prompt)


_NO_WHITE_SPACE = {"x-guidance": {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}}
"""For llguidance, which reads llama.cpp's grammar: it allows any white space between JSON's tokens otherwise, and a
small model then writes blank lines until it runs out of tokens. Its chat route makes a grammar of its own."""


def _constrain(json_schema: str, dialect: Dialect) -> dict[str, Any]:
    schema = json.loads(json_schema)
    if dialect.style == "chat":
        return {"response_format": {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}}
    match dialect.kind:
        case "llama_cpp":
            # Its /v1/completions knows no JSON Schema; the wheel that runs it can turn one into a grammar.
            import xllamacpp

            return {"grammar": xllamacpp.json_schema_to_grammar(json.dumps(schema | _NO_WHITE_SPACE))}
        case "vllm" | "simulated":
            return {"structured_outputs": {"json": schema}}
        case "sglang":
            return {"json_schema": json_schema}
    raise UserError(f"engine kind {dialect.kind!r} cannot constrain raw text to JSON; set engine.style=chat")


class _Message(msgspec.Struct):
    content: str | None = None


class _Candidate(msgspec.Struct):
    logprob: float


class _Token(msgspec.Struct):
    logprob: float
    top_logprobs: list[_Candidate] | None = None


class _Logprobs(msgspec.Struct):
    """`token_logprobs` is the older API's, of /v1/completions; llama.cpp gives `content` there, too."""

    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None
    content: list[_Token] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    text: str | None = None
    message: _Message | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""A number of tokens as a ledger can hold it."""


class _Details(msgspec.Struct):
    cached_tokens: _Count | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: _Count = 0
    completion_tokens: _Count = 0
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
    total = usage.completion_tokens * (1 if dialect.promises.counts_all_choices else request.num_samples)
    choices = sorted(parsed.choices, key=lambda choice: choice.index)
    texts = []
    for choice in choices:
        if choice.finish_reason == "abort":
            raise BadReply(f"choice {choice.index} was given up by the server")
        text = choice.message.content if choice.message else choice.text
        if text is None:
            raise BadReply(f"choice {choice.index} has neither text nor message content")
        texts.append(_continuation(text, request, dialect))
    samples = tuple(
        Sample(
            text=text,
            finish="length" if choice.finish_reason == "length" else "stop",
            tokens=tokens,
            logprobs=_logprobs(choice) if request.logprobs else None,
            entropies=_entropies(choice) if request.top_logprobs else None,
        )
        for choice, text, tokens in zip(choices, texts, _shares(total, [len(text) + 1 for text in texts]), strict=True)
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


def _logprobs(choice: _Choice) -> tuple[float, ...]:
    given = choice.logprobs or _Logprobs()
    if given.content is not None:
        return tuple(token.logprob for token in given.content)
    if given.token_logprobs is None or None in given.token_logprobs:
        raise BadReply(f"choice {choice.index} has no log probabilities, which were asked for")
    return tuple(value for value in given.token_logprobs if value is not None)


def _entropies(choice: _Choice) -> tuple[float, ...]:
    given = choice.logprobs or _Logprobs()
    places: list[list[float]] = []
    if given.content is not None:
        places = [[candidate.logprob for candidate in token.top_logprobs or ()] for token in given.content]
    elif given.top_logprobs is not None:
        places = [list((place or {}).values()) for place in given.top_logprobs]
    if not all(places) or (choice.text and not places):
        raise BadReply(f"choice {choice.index} lacks the likeliest tokens' log probabilities, which were asked for")
    return tuple(map(_entropy, places))


def _entropy(logprobs: Sequence[float]) -> float:
    """Entropy in nats of the likeliest tokens at one place; what the others have is left out, not shared out.

    As in the code of arXiv 2510.09259 (yongding-tao/RL-Data-Contamination, `generate_full_data.py`).
    """
    return max(0.0, -math.fsum(math.exp(value) * value for value in logprobs))


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

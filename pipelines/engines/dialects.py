"""What the servers' APIs differ in: how a request is worded for each, and how its reply is read. No HTTP here."""

import functools
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
from pipelines.engines.thinking import Thinking, Thought, split_thoughts
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
    trims_turns: bool = False
    """Whether the server's chat template takes white space off the ends of turns."""
    thinking: Thinking = Thinking()

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
        """How text is put to the server and read from it: part of an engine's identity."""
        style = f"{self.style}:{digest(self.template)[:16]}" if self.style == "templated" else self.style
        style += ":trimmed" if self.trims_turns else ""
        # The default is no part of it: what was asked before there was a choice is found again.
        return style if self.thinking == Thinking() else f"{style}:{digest(self.thinking)[:16]}"

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
        "max_tokens": sampling.max_tokens + dialect.thinking.extra_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": request.sample_seed(request.first_sample),
        # A constrained reply ends by itself, and what ends a solution, such as a blank line, may stand inside JSON.
        "stop": [] if request.json_schema or dialect.thinking.extra_tokens else list(sampling.stop),
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
        body["prompt"] = _begin(request, dialect) + request.prefix
    else:
        body["messages"] = [{"role": "user", "content": _content(request)}]
        if request.prefix:
            body["messages"].append({"role": "assistant", "content": request.prefix})
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        if dialect.thinking.enabled is not None:
            body["chat_template_kwargs"] = {"enable_thinking": dialect.thinking.enabled}
    if request.json_schema:
        body |= _constrain(request.json_schema, dialect)
    return body


def _content(request: Request) -> str | list[dict[str, Any]]:
    """The user's turn: plain text, or the images and then the text as parts."""
    if not request.images:
        return request.prompt
    shown = ({"type": "image_url", "image_url": {"url": data_url(image)}} for image in request.images)
    return [*shown, {"type": "text", "text": request.prompt}]


def _begin(request: Request, dialect: Dialect) -> str:
    """The text up to where the answer begins. One that has begun, or has to be JSON, stands behind thoughts."""
    if dialect.style == "raw":
        return request.prompt
    assert dialect.template, dialect
    text = dialect.template.begin(request.prompt, enable_thinking=dialect.thinking.enabled)
    if (request.prefix or request.json_schema) and _opens_thoughts(dialect.template, dialect.thinking):
        return f"{text.rstrip()}\n\n{dialect.thinking.close_mark}\n\n"
    return text


@functools.lru_cache(maxsize=16)
def _opens_thoughts(template: ChatTemplate, thinking: Thinking) -> bool:
    """Whether what a template puts before an answer ends inside of thoughts."""
    return template.begin("", enable_thinking=thinking.enabled).rstrip().endswith(thinking.open_mark)


def _is_thinking(request: Request, dialect: Dialect) -> bool:
    """Whether what was asked ended inside of thoughts, so that the reply begins there."""
    if dialect.template is None or request.prefix or request.json_schema:
        return False
    return _opens_thoughts(dialect.template, dialect.thinking)


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
    """`reasoning_content` is SGLang's, llama.cpp's and DeepSeek's name of what vLLM calls `reasoning`."""

    content: str | None = None
    reasoning_content: Any = None
    reasoning: Any = None

    @property
    def thoughts(self) -> str:
        """What the server has told apart; some services give other things by these names."""
        given = (self.reasoning_content, self.reasoning)
        return next((each.strip() for each in given if isinstance(each, str) and each.strip()), "")


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


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: _Count | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: _Count = 0
    completion_tokens: _Count = 0
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _CompletionDetails | None = None
    reasoning_tokens: _Count | None = None
    """SGLang's place for it."""

    @property
    def thought(self) -> int:
        """Tokens of thoughts; 0 where nobody counted them."""
        details = self.completion_tokens_details or _CompletionDetails()
        return min(details.reasoning_tokens or self.reasoning_tokens or 0, self.completion_tokens)


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
        raise BadReply(
            f"asked for {request.num_samples} samples, got {len(parsed.choices)} choices; of a service that gives "
            "fewer at a time ask no more with engine.max_choices"
        )
    usage = parsed.usage or _Usage()
    total = usage.completion_tokens * (1 if dialect.promises.counts_all_choices else request.num_samples)
    choices = sorted(parsed.choices, key=lambda choice: choice.index)
    parts = [_read_choice(choice, request, dialect) for choice in choices]
    tokens = _shares(total, [len(part.reasoning) + len(part.answer) + 1 for part in parts])
    thought = [_share(part, count) for part, count in zip(parts, tokens, strict=True)]
    if usage.thought and any(thought):
        thought = _shares(usage.thought * total // usage.completion_tokens, [len(part.reasoning) for part in parts])
    samples = tuple(
        Sample(
            text=part.answer,
            finish="length" if part.is_unfinished else "stop",
            tokens=count,
            logprobs=_logprobs(choice) if request.logprobs else None,
            entropies=_entropies(choice) if request.top_logprobs else None,
            reasoning=part.reasoning if dialect.thinking.keep else "",
            reasoning_tokens=of_thoughts,
        )
        for choice, part, count, of_thoughts in zip(choices, parts, tokens, thought, strict=True)
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
            reasoning_tokens=sum(thought),
        ),
    )


def _read_choice(choice: _Choice, request: Request, dialect: Dialect) -> Thought:
    """A choice's thoughts and answer: by what the server tells apart, and by the model's marks."""
    if choice.finish_reason == "abort":
        raise BadReply(f"choice {choice.index} was given up by the server")
    told = choice.message.thoughts if choice.message else ""
    text = choice.message.content if choice.message else choice.text
    if text is None:
        if not told:
            raise BadReply(f"choice {choice.index} has neither text nor message content")
        return Thought(answer="", reasoning=told, is_unfinished=True)
    text = _continuation(text, request, dialect)
    text, json_part = _before_json(text, dialect.thinking) if request.json_schema else (text, "")
    is_open = _is_thinking(request, dialect)
    part = split_thoughts(text, dialect.thinking, is_begun=bool(request.prefix), is_open=is_open)
    answer, is_stopped = part.answer + json_part, False
    if dialect.thinking.extra_tokens and not request.json_schema:
        answer, is_stopped = _stopped(answer, request.sampling.stop)
    return Thought(
        answer=answer,
        reasoning="\n\n".join(filter(None, (told, part.reasoning))),
        is_unfinished=not is_stopped and (part.is_unfinished or choice.finish_reason == "length"),
    )


def _stopped(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """A text up to its first stop string, and whether it has one."""
    end = min((at for at in map(text.find, stop) if at >= 0), default=-1)
    return (text[:end], True) if end >= 0 else (text, False)


def _before_json(text: str, thinking: Thinking) -> tuple[str, str]:
    """What may hold thoughts, and JSON, whose strings may quote the marks."""
    if text.lstrip().startswith("{"):
        return "", text
    head, mark, rest = text.partition(thinking.close_mark)
    return head + mark, rest


def _share(part: Thought, tokens: int) -> int:
    """Tokens of a sample that are its thoughts', by their share of its characters."""
    return round(tokens * len(part.reasoning) / (len(part.reasoning) + len(part.answer) + 1))


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
    if dialect.style != "chat":
        return text
    # llama.cpp's chat route repeats the begun assistant turn before it goes on; it may be what `openai` reaches, too.
    if dialect.kind in ("llama_cpp", "openai"):
        text = text.removeprefix(request.prefix)
    # The line end that the template has taken off the begun turn is what the model writes first.
    return text.removeprefix(request.prefix[len(request.prefix.rstrip()) :]) if dialect.trims_turns else text

"""Requests and replies as JSON: reads what the OpenAI API knows and this server honours. No HTTP here.

Fields that are not named here, such as `grammar`, `guided_json` and `structured_outputs`, are accepted and ignored:
critics and judges answer in JSON anyway.
"""

import base64
from collections.abc import Sequence
from typing import Any

import msgspec

from pipelines.engines.simulated.replies import Reply
from schemas import Record

MAX_CHOICES = 1024
"""Most choices of one request."""


class Refusal(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Wish(Record):
    """A request, whichever route it came by."""

    text: str
    """Prompt and begun answer in one: the whole that is continued."""
    is_chat: bool
    num_choices: int
    seed: int
    stop: tuple[str, ...]
    max_tokens: int | None
    """None means no limit."""
    pictures: tuple[bytes, ...] = ()
    """Files of the images that were sent, in their order."""
    logprobs: int | None = None
    """Of how many of the likeliest tokens at each place log probabilities are asked for, beside the sampled one's; None
    for none at all."""


class _Body(msgspec.Struct):
    model: str
    n: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stream: bool | None = None


class _CompletionBody(_Body, kw_only=True):
    prompt: str
    logprobs: int | None = None

    @property
    def num_logprobs(self) -> int | None:
        return self.logprobs


class _Url(msgspec.Struct):
    url: str


class _TextPart(msgspec.Struct, tag_field="type", tag="text"):
    text: str


class _ImagePart(msgspec.Struct, tag_field="type", tag="image_url"):
    image_url: _Url


class _Message(msgspec.Struct):
    role: str
    content: str | list[_TextPart | _ImagePart]

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, _TextPart))

    @property
    def urls(self) -> list[str]:
        if isinstance(self.content, str):
            return []
        return [part.image_url.url for part in self.content if isinstance(part, _ImagePart)]


class _JsonSchema(msgspec.Struct, rename={"definition": "schema"}):
    name: str = ""
    definition: dict[str, Any] = {}


class _ResponseFormat(msgspec.Struct):
    type: str
    json_schema: _JsonSchema | None = None


class _ChatBody(_Body, kw_only=True):
    messages: list[_Message]
    continue_final_message: bool = False
    add_generation_prompt: bool = True
    response_format: _ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None

    @property
    def num_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None


_COMPLETION = msgspec.json.Decoder(_CompletionBody)
_CHAT = msgspec.json.Decoder(_ChatBody)
_ENCODER = msgspec.json.Encoder()


def read_wish(raw: bytes, *, is_chat: bool, model: str) -> Wish:
    """Reads a request's body.

    Raises:
      Refusal: it is no request that this server can answer; says why.
    """
    body: _CompletionBody | _ChatBody
    pictures: tuple[bytes, ...] = ()
    try:
        if is_chat:
            body = chat = _CHAT.decode(raw)
            text = _chat_text(chat)
            pictures = tuple(_picture(url) for message in chat.messages for url in message.urls)
        else:
            body = completion = _COMPLETION.decode(raw)
            text = completion.prompt
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Refusal(400, f"not a request: {error}") from None
    if body.model != model:
        raise Refusal(404, f"The model {body.model!r} does not exist; there is {model!r}.")
    num_choices = 1 if body.n is None else body.n
    max_tokens = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    if not 1 <= num_choices <= MAX_CHOICES:
        raise Refusal(400, f"need 1 <= n <= {MAX_CHOICES}, got {num_choices}")
    if max_tokens is not None and max_tokens < 1:
        raise Refusal(400, f"need max_tokens >= 1, got {max_tokens}")
    if body.stream:
        raise Refusal(400, "this server does not stream; leave `stream` out")
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    return Wish(
        text=text,
        is_chat=is_chat,
        num_choices=num_choices,
        seed=body.seed or 0,
        stop=stop,
        max_tokens=max_tokens,
        pictures=pictures,
        logprobs=body.num_logprobs,
    )


def _picture(url: str) -> bytes:
    """The file in a data URL; this server fetches nothing."""
    head, comma, data = url.partition(",")
    if not (comma and head.startswith("data:image/") and head.endswith(";base64")):
        raise Refusal(400, f"image_url: expected data:image/...;base64,..., got {url[:60]!r}")
    try:
        return base64.b64decode(data, validate=True)
    except ValueError as error:
        raise Refusal(400, f"image_url: {error}") from None


def _chat_text(body: _ChatBody) -> str:
    """Turns before the last assistant turn, then that turn: the same text as on the raw route."""
    if not body.messages:
        raise Refusal(400, "expected at least one message, got none")
    wanted = body.response_format
    if wanted and (wanted.type not in ("text", "json_object", "json_schema")):
        raise Refusal(400, f"response_format: unknown type {wanted.type!r}")
    if wanted and wanted.type == "json_schema" and not (wanted.json_schema and wanted.json_schema.definition):
        raise Refusal(400, "response_format: json_schema needs `json_schema: {name, schema}`")
    *earlier, last = body.messages
    begun = last.role == "assistant"
    if begun and not body.continue_final_message:
        raise Refusal(400, "the last message is the assistant's: set continue_final_message=true to continue it")
    if body.continue_final_message and not begun:
        raise Refusal(400, f"continue_final_message needs the assistant's message last, got {last.role!r}")
    if body.continue_final_message and body.add_generation_prompt:
        raise Refusal(400, "continue_final_message needs add_generation_prompt=false")
    turns = "\n\n".join(message.text for message in (earlier if begun else body.messages))
    return turns + (last.text if begun else "")


def write_replies(
    wish: Wish,
    replies: Sequence[Reply],
    *,
    name: str,
    model: str,
    usage: dict[str, Any],
    logprobs: Sequence[dict[str, Any] | None],
) -> bytes:
    """The body of an answer. It holds no clock and no counter: equal requests have equal bodies."""
    if wish.is_chat:
        choices = [
            {
                "index": index,
                "message": _message(reply),
                "finish_reason": reply.finish,
                "logprobs": of_tokens,
            }
            for index, (reply, of_tokens) in enumerate(zip(replies, logprobs, strict=True))
        ]
    else:
        choices = [
            {"index": index, "text": reply.text, "finish_reason": reply.finish, "logprobs": of_tokens}
            for index, (reply, of_tokens) in enumerate(zip(replies, logprobs, strict=True))
        ]
    return _ENCODER.encode(
        {
            "id": f"{'chatcmpl' if wish.is_chat else 'cmpl'}-{name}",
            "object": "chat.completion" if wish.is_chat else "text_completion",
            "created": 0,
            "model": model,
            "choices": choices,
            "usage": usage,
        }
    )


def _message(reply: Reply) -> dict[str, str | None]:
    """An assistant's turn; without content where thoughts did not end, as a reasoning parser has it."""
    if not reply.reasoning:
        return {"role": "assistant", "content": reply.text}
    return {"role": "assistant", "content": reply.text or None, "reasoning_content": reply.reasoning}


def write_error(status: int, message: str) -> bytes:
    """The body of an error."""
    kind = "invalid_request_error" if status < 429 else "rate_limit_error" if status == 429 else "server_error"
    return _ENCODER.encode({"error": {"message": message, "type": kind, "code": status}})


def write_json(value: object) -> bytes:
    """Any other body."""
    return _ENCODER.encode(value)

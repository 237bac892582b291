"""The contract between stages and models: a request for samples, and what may go wrong with it.

Knows no HTTP, no server and no prompt.
"""

import math
from typing import Any, Literal, Protocol

from pipelines.engines.pictures import picture_digest
from schemas import Image, Record, digest

JSON_WORDING = 2
"""How replies are held to a JSON Schema; part of their journal keys, raised with every change that changes replies."""


class Sampling(Record):
    """How to sample. Part of every journal key."""

    max_tokens: int
    temperature: float
    top_p: float = 1.0
    stop: tuple[str, ...] = ()


class Request(Record):
    """A wish for `num_samples` continuations of `prompt + prefix`."""

    prompt: str
    """What the model is asked: a filled template, one user turn where the engine speaks chat."""
    sampling: Sampling
    prefix: str = ""
    """What the model has said so far; every sample continues it byte for byte."""
    num_samples: int = 1
    first_sample: int = 0
    """Index of the first sample: samples 0..k-1 were asked for before and are other samples."""
    json_schema: str = ""
    """JSON Schema of the output as canonical JSON; empty for free text."""
    seed: int = 0
    """The run's seed."""
    pinned: bool = False
    """Whether more will be asked about this prompt: all of it then goes to one replica, which has the prompt in its
    prefix cache. What is asked once goes to the replica with the least to do."""
    logprobs: bool = False
    """Whether to ask for the log probabilities of the tokens; only of engines that promise them."""
    top_logprobs: int = 0
    """Of how many of the likeliest tokens at each place to ask for the log probabilities, for the entropy over them; 0
    asks for no entropies. Only of engines that promise log probabilities."""
    images: tuple[Image, ...] = ()
    """Shown before the prompt, in this order; only to engines that see images."""

    @property
    def pictures(self) -> tuple[str, ...]:
        """Digests of the images' files."""
        return tuple(map(picture_digest, self.images))

    @property
    def subject(self) -> str:
        """What stays the same while an answer grows, and what a server's prefix cache therefore has."""
        return "\n".join((self.prompt, *self.pictures))

    @property
    def indices(self) -> range:
        """Indices of the samples that are asked for."""
        return range(self.first_sample, self.first_sample + self.num_samples)

    def keys(self, identity: str) -> list[str]:
        """Names of the samples from one engine, in the order of their indices; what the journal is keyed by.

        `digest/index`: the request is hashed once, and its samples lie side by side in the journal, which makes a
        row less than half as dear as one at a random place.
        """
        schema = f"{JSON_WORDING}:{self.json_schema}" if self.json_schema else ""
        # What is off is no part of the key, so that what was asked before there was a choice is found again.
        more = (("logprobs",) if self.logprobs else ()) + self._shown
        more += (("entropies", self.top_logprobs),) if self.top_logprobs else ()
        name = digest("sample", identity, self.prompt, self.prefix, self.sampling, schema, self.seed, *more)
        return [f"{name}/{index}" for index in self.indices]

    def sample_seed(self, index: int) -> int:
        """Seed of sample `index`, 0..2^31-1: consecutive samples have consecutive seeds.

        Servers give choice j of a request with seed s the seed s + j, so a sample has the same seed whether it
        is asked for alone or with its neighbours.
        """
        asked = (self.seed, self.prompt, self.prefix, self.sampling, self.json_schema)
        return (int(digest("seed", *asked, *self._shown)[:8], 16) + index) % 2**31

    @property
    def _shown(self) -> tuple[Any, ...]:
        """The images' part of a key: nothing where there are none, as in keys from before there were images."""
        return (("images", self.pictures),) if self.images else ()


class Sample(Record, omit_defaults=True):
    """One continuation."""

    text: str
    """What follows the prefix, without any stop string and without thoughts."""
    finish: Literal["stop", "length"]
    """Whether the model ended by itself (or at a stop string), or ran out of tokens; `length` too where it ended in the
    midst of its thoughts."""
    tokens: int
    """Tokens sampled, those of thoughts among them."""
    error: str = ""
    """Why there is no text: this very prompt was refused. Empty for a sample that came."""
    logprobs: tuple[float, ...] | None = None
    """Natural log probability of each token that was sampled, those of a stop string may be among them; None where
    they were not asked for."""
    entropies: tuple[float, ...] | None = None
    """Entropy in nats at each token that was sampled, over the `top_logprobs` likeliest ones there; None where they
    were not asked for."""
    reasoning: str = ""
    """What the model thought before and between what it wrote, where `thinking.keep` is set."""
    reasoning_tokens: int = 0
    """Of `tokens`, those of thoughts: as the server says, else by their share of the characters."""


class Usage(Record):
    """What requests cost, as the server counted it."""

    requests: int = 0
    samples: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that the server had in its prefix cache."""
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    """Of those, tokens of thoughts."""

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(**{name: getattr(self, name) - getattr(other, name) for name in self.__struct_fields__})


class Reply(Record):
    """The samples of one request, in the order of their indices, and what they cost."""

    samples: tuple[Sample, ...]
    usage: Usage


class Leave(Protocol):
    """Whether, and for how long, a request that was let out may still be sent: what is allowed may end meanwhile."""

    @property
    def seconds_left(self) -> float:
        """Until nothing may be sent any more; may be infinite."""
        ...

    def go_on(self) -> None:
        """Raises whatever is to end the request where it may not be sent, or not again."""
        ...


class Endless:
    """The leave of those whom nothing ends."""

    seconds_left = math.inf

    def go_on(self) -> None:
        """Always."""


class Engine(Protocol):
    """Something that continues text."""

    kind: str
    model: str
    revision: str
    identity: str
    """Everything about the engine that an answer depends on: model, revision, how text is put to it."""

    def choices_at_once(self, request: Request) -> int:
        """Samples that one call gives of a request; `complete` makes several calls of more.

        Whoever remembers answers asks for no more at once: of several calls one may fail, and take the others' answers
        with it.
        """
        ...

    async def complete(self, request: Request) -> Reply:
        """Exactly `request.num_samples` samples; a refused prompt gives samples that say so.

        Raises:
          EngineError: no samples, and none to be expected soon.
        """
        ...

    async def close(self) -> None:
        """Lets go of connections; further calls are a mistake."""
        ...


class EngineError(Exception):
    """A call that gave nothing. Says which request and how often it was tried."""

    def __init__(self, message: str, *, request_digest: str = "", attempts: int = 0) -> None:
        super().__init__(message)
        self.request_digest = request_digest
        self.attempts = attempts

    def __reduce__(self) -> tuple[Any, ...]:
        """Keeps the keyword arguments when a worker hands the error to another process."""
        return _rebuild, (type(self), str(self), self.request_digest, self.attempts)


class EngineUnavailable(EngineError):
    """Refused connections, timeouts, 429 and 5xx beyond the retries: the server's trouble, not the prompt's."""


class EngineLost(EngineUnavailable):
    """No server of the engine is to be expected back: whatever is asked next would fare the same."""


class PromptRefused(EngineError):
    """The server will never answer this prompt, for example because it is too long."""


class BadReply(EngineError):
    """The server answered with something that is no completion."""


def _rebuild(kind: type[EngineError], message: str, request_digest: str, attempts: int) -> EngineError:
    return kind(message, request_digest=request_digest, attempts=attempts)

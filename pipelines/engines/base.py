"""The contract between stages and models: a request for samples, and what may go wrong with it.

Knows no HTTP, no server and no prompt.
"""

from typing import Any, Literal, Protocol

from schemas import Record, digest


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

    @property
    def indices(self) -> range:
        """Indices of the samples that are asked for."""
        return range(self.first_sample, self.first_sample + self.num_samples)

    def keys(self, identity: str) -> list[str]:
        """Names of the samples from one engine, in the order of their indices; what the journal is keyed by.

        `digest/index`: the request is hashed once, and its samples lie side by side in the journal, which makes a
        row less than half as dear as one at a random place.
        """
        name = digest("sample", identity, self.prompt, self.prefix, self.sampling, self.json_schema, self.seed)
        return [f"{name}/{index}" for index in self.indices]

    def sample_seed(self, index: int) -> int:
        """Seed of sample `index`, 0..2^31-1: consecutive samples have consecutive seeds.

        Servers give choice j of a request with seed s the seed s + j, so a sample has the same seed whether it
        is asked for alone or with its neighbours.
        """
        base = int(digest("seed", self.seed, self.prompt, self.prefix, self.sampling, self.json_schema)[:8], 16)
        return (base + index) % 2**31


class Sample(Record):
    """One continuation."""

    text: str
    """What follows the prefix, without any stop string."""
    finish: Literal["stop", "length"]
    """Whether the model ended by itself (or at a stop string), or ran out of tokens."""
    tokens: int
    """Tokens sampled."""
    error: str = ""
    """Why there is no text: this very prompt was refused. Empty for a sample that came."""


class Usage(Record):
    """What requests cost, as the server counted it."""

    requests: int = 0
    samples: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that the server had in its prefix cache."""
    completion_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


class Reply(Record):
    """The samples of one request, in the order of their indices, and what they cost."""

    samples: tuple[Sample, ...]
    usage: Usage


class Engine(Protocol):
    """Something that continues text."""

    kind: str
    model: str
    revision: str
    identity: str
    """Everything about the engine that an answer depends on: model, revision, how text is put to it."""

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

    retry_after: float | None = None
    """Seconds that the server asked to wait before the next attempt; None where it named none."""


class PromptRefused(EngineError):
    """The server will never answer this prompt, for example because it is too long."""


class BadReply(EngineError):
    """The server answered with something that is no completion."""


def _rebuild(kind: type[EngineError], message: str, request_digest: str, attempts: int) -> EngineError:
    return kind(message, request_digest=request_digest, attempts=attempts)

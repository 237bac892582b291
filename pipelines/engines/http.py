"""The HTTP client of every served model: aiohttp, bounded, retrying, spread over several URLs."""

import asyncio
import hashlib
import os

import aiohttp
import msgspec
import tenacity

from pipelines.engines.base import (
    BadReply,
    EngineError,
    EngineUnavailable,
    PromptRefused,
    Reply,
    Request,
    Sample,
    Usage,
)
from pipelines.engines.dialects import Dialect, read_reply, word_request
from pipelines.engines.limiter import Limiter
from pipelines.engines.settings import Limits
from pipelines.errors import UserError
from schemas import digest

_RETRIED = (EngineUnavailable, BadReply)
_REFUSALS = (400, 413, 422)
_OVERLOADED = (429, 503)


class _Pause(tenacity.wait.wait_base):
    """Waits as long as the server asked for, else an exponentially growing random time (full jitter)."""

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._jitter = tenacity.wait_random_exponential(multiplier=0.5, max=longest)

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        asked = error.retry_after if isinstance(error, EngineUnavailable) else None
        return self._jitter(retry_state) if asked is None else min(asked, self._longest)


class _Endpoint:
    """One URL and the places there are at it."""

    def __init__(self, url: str, limits: Limits) -> None:
        self.url = url
        self.limiter = Limiter(limits.max_in_flight)


class HttpEngine:
    """A model behind one or several URLs that speak the OpenAI API. Use it from one event loop."""

    def __init__(
        self, *, urls: tuple[str, ...], model: str, revision: str, dialect: Dialect, limits: Limits, key_env: str = ""
    ) -> None:
        self.kind = dialect.kind
        self.model = model
        self.revision = revision
        self.identity = f"{model}@{revision}/{dialect.style}"
        self._dialect = dialect
        self._limits = limits
        self._endpoints = [_Endpoint(url, limits) for url in urls]
        self._key_env = key_env
        self._key = os.environ.get(key_env, "") if key_env else ""
        self._session: aiohttp.ClientSession | None = None

    @property
    def in_flight(self) -> int:
        """Requests that are at a server now."""
        return sum(endpoint.limiter.taken for endpoint in self._endpoints)

    async def complete(self, request: Request) -> Reply:
        """See `Engine.complete`; in several requests where the server takes fewer samples at a time.

        Raises:
          EngineUnavailable, BadReply: still no usable reply after `max_attempts`.
          UserError: the server would refuse every request: wrong key, URL or model.
        """
        most = self._dialect.max_choices or request.num_samples
        if request.num_samples <= most:
            return await self._complete(request)
        end = request.first_sample + request.num_samples
        parts = [
            msgspec.structs.replace(request, first_sample=first, num_samples=min(most, end - first))
            for first in range(request.first_sample, end, most)
        ]
        replies = await asyncio.gather(*map(self._complete, parts))
        return Reply(
            samples=tuple(sample for reply in replies for sample in reply.samples),
            usage=sum((reply.usage for reply in replies), Usage()),
        )

    async def _complete(self, request: Request) -> Reply:
        body = msgspec.json.encode(word_request(request, self._dialect, self.model))
        try:
            return await self._attempt(request, body)
        except _RETRIED as error:
            first = error
        return await self._retry(request, body, first)

    async def _attempt(self, request: Request, body: bytes) -> Reply:
        try:
            return read_reply(await self._send(self._endpoint(request), body), request, self._dialect)
        except PromptRefused as error:
            refused = Sample(text="", finish="stop", tokens=0, error=str(error))
            return Reply(samples=(refused,) * request.num_samples, usage=Usage(requests=1))

    async def _retry(self, request: Request, body: bytes, first: EngineError) -> Reply:
        """Goes on after a first attempt that ended with `first`; most calls never need what is made here."""
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_RETRIED),
            stop=tenacity.stop_after_attempt(self._limits.max_attempts),
            wait=_Pause(self._limits.max_wait_secs),
            reraise=True,
        )
        attempts = 0
        try:
            async for attempt in retrying:
                with attempt:
                    attempts = attempt.retry_state.attempt_number
                    if attempts == 1:
                        raise first
                    return await self._attempt(request, body)
        except _RETRIED as error:
            error.attempts, error.request_digest = attempts, digest(request)
            raise
        raise AssertionError("tenacity re-raises the last error")

    async def close(self) -> None:
        """Closes the connections."""
        if self._session:
            await self._session.close()

    def _endpoint(self, request: Request) -> _Endpoint:
        """Rendezvous hashing by prompt: what shares a prompt, such as a tree's nodes, meets the same prefix cache."""
        if len(self._endpoints) == 1:
            return self._endpoints[0]
        return max(
            self._endpoints,
            key=lambda endpoint: hashlib.blake2b((endpoint.url + "\n" + request.prompt).encode()).digest(),
        )

    async def _send(self, endpoint: _Endpoint, body: bytes) -> bytes:
        async with endpoint.limiter.place():
            try:
                async with self._connected().post(endpoint.url + self._dialect.path, data=body) as response:
                    content = await response.read()
                    status, retry_after = response.status, response.headers.get("Retry-After", "")
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                raise EngineUnavailable(f"{endpoint.url}: {type(error).__name__}: {error}") from error
            if status == 200:
                endpoint.limiter.succeeded()
                return content
            if status in _OVERLOADED:
                endpoint.limiter.overloaded()
            raise self._error(endpoint.url, status, content, retry_after)

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            key = {"Authorization": f"Bearer {self._key}"} if self._key else {}
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                headers={"Content-Type": "application/json"} | key,
                timeout=aiohttp.ClientTimeout(
                    total=self._limits.total_timeout_secs,
                    sock_connect=self._limits.connect_timeout_secs,
                    sock_read=self._limits.read_timeout_secs,
                ),
            )
        return self._session

    def _error(self, url: str, status: int, content: bytes, retry_after: str) -> Exception:
        said = content.decode("utf-8", "replace")
        if self._key:  # Some services repeat it, and messages end up in shards and logs.
            said = said.replace(self._key, "***")
        said = f"{url}: HTTP {status}: {said[:300]}"
        if status in _REFUSALS:
            return PromptRefused(said)
        if status in (401, 403):
            return UserError(f"{said}; give the right key in the environment variable {self._key_env or '(none)'}")
        if status == 404:
            return UserError(f"{said}; check engine.url, which is without /v1, and engine.model")
        error = EngineUnavailable(said)
        if retry_after.replace(".", "", 1).isdecimal():
            error.retry_after = float(retry_after)
        return error

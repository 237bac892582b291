"""The HTTP client of every served model: aiohttp, bounded, retrying, spread over several URLs."""

import asyncio
import dataclasses
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
from pipelines.engines.hosts import Host, Hosts
from pipelines.engines.settings import Limits
from pipelines.errors import UserError
from schemas import digest

_RETRIED = (EngineUnavailable, BadReply)
_REFUSALS = (400, 413, 422)
_OVERLOADED = (429, 503)
_UNREACHABLE = (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError, aiohttp.ConnectionTimeoutError)
"""Refused, reset and dropped connections, and those that never come about."""


class _Pause(tenacity.wait.wait_base):
    """Waits as long as the server asked for, else an exponentially growing random time (full jitter)."""

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._jitter = tenacity.wait_random_exponential(multiplier=0.5, max=longest)

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        asked = error.retry_after if isinstance(error, EngineUnavailable) else None
        return self._jitter(retry_state) if asked is None else min(asked, self._longest)


@dataclasses.dataclass(slots=True)
class _Call:
    """A request on its way through its attempts."""

    request: Request
    body: bytes
    strikes: int = 0
    """Attempts that a server failed, its being overloaded apart."""


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
        self._hosts = Hosts(urls, limits)
        self._key_env = key_env
        self._key = os.environ.get(key_env, "") if key_env else ""
        self._session: aiohttp.ClientSession | None = None

    @property
    def in_flight(self) -> int:
        """Requests that are at a server now."""
        return self._hosts.taken

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
        call = _Call(request, msgspec.json.encode(word_request(request, self._dialect, self.model)))
        try:
            return await self._attempt(call)
        except _RETRIED as error:
            first = error
        return await self._retry(call, first)

    async def _attempt(self, call: _Call) -> Reply:
        try:
            return read_reply(await self._reach(call), call.request, self._dialect)
        except BadReply:
            call.strikes += 1
            raise
        except PromptRefused as error:
            refused = Sample(text="", finish="stop", tokens=0, error=str(error))
            return Reply(samples=(refused,) * call.request.num_samples, usage=Usage(requests=1))

    async def _retry(self, call: _Call, first: EngineError) -> Reply:
        """Goes on after a first attempt that ended with `first`; most calls never need what is made here."""
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_RETRIED),
            stop=tenacity.stop_after_attempt(self._limits.max_attempts),
            wait=_Pause(self._limits.max_wait_secs),
            sleep=self._rest,
            reraise=True,
        )
        attempts = 0
        try:
            async for attempt in retrying:
                with attempt:
                    attempts = attempt.retry_state.attempt_number
                    if attempts == 1:
                        raise first
                    return await self._attempt(call)
        except _RETRIED as error:
            error.attempts, error.request_digest = attempts, digest(call.request)
            raise
        raise AssertionError("tenacity re-raises the last error")

    async def _rest(self, seconds: float) -> None:
        """A pause; while no server can be reached, the longest one there is, or until one can.

        So an outage is borne for `max_attempts - 1` times `max_wait_secs`, two and a half minutes by default, and not
        only for as long as the pauses that are meant for a single request's bad luck.
        """
        await asyncio.sleep(seconds)
        await self._hosts.wait(self._limits.max_wait_secs - seconds)

    async def close(self) -> None:
        """Closes the connections."""
        await self._hosts.close()
        if self._session:
            await self._session.close()

    async def _reach(self, call: _Call) -> bytes:
        """The body of a reply, from the next URL where the one that was chosen cannot be reached."""
        for _ in range(len(self._hosts) - 1):
            host = self._hosts.choose(call.request.prompt, call.strikes)
            try:
                return await self._send(host, call)
            except EngineUnavailable:
                if not host.is_away or self._hosts.are_away:
                    raise
        return await self._send(self._hosts.choose(call.request.prompt, call.strikes), call)

    async def _send(self, host: Host, call: _Call) -> bytes:
        async with host.limiter.place():
            if host.is_away and not self._hosts.are_away:  # Lost while this one waited for its place.
                raise EngineUnavailable(f"{host.url}: cannot be reached")
            session = self._connected()
            try:
                async with session.post(host.url + self._dialect.path, data=call.body) as response:
                    content = await response.read()
                    status, retry_after = response.status, response.headers.get("Retry-After", "")
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                if isinstance(error, _UNREACHABLE):
                    self._hosts.lose(host, session)
                else:
                    call.strikes += 1
                raise EngineUnavailable(f"{host.url}: {type(error).__name__}: {error}") from error
            if status == 200:
                host.limiter.succeeded()
                return content
            if status in _OVERLOADED:
                host.limiter.overloaded()
            else:
                call.strikes += 1
            raise self._error(host.url, status, content, retry_after)

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

"""The HTTP client of every served model: aiohttp, bounded, retrying, spread over several URLs."""

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Mapping

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
from pipelines.engines.characters import whole_characters
from pipelines.engines.dialects import Dialect, read_reply, word_request
from pipelines.engines.hosts import Host, Hosts
from pipelines.engines.keys import Hider, read_key
from pipelines.engines.settings import Limits
from pipelines.errors import UserError
from schemas import digest

_RETRIED = (EngineUnavailable, BadReply)
_REFUSALS = (400, 413, 422)
_OVERLOADED = (429, 503)
_UNREACHABLE = (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError, aiohttp.ConnectionTimeoutError)
"""Refused, reset and dropped connections, and those that never come about."""
_MOST_BYTES = 2**28
"""Of one reply, unpacked: 64 samples of 1,000 tokens with 20 log probabilities each take half of it."""


class _Pause(tenacity.wait.wait_base):
    """Waits as long as the server asked for, else an exponentially growing random time (full jitter)."""

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._jitter = tenacity.wait_random_exponential(multiplier=0.5, max=longest)

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        asked = error.retry_after if isinstance(error, EngineUnavailable) else None
        return self._jitter(retry_state) if asked is None else min(asked, self._longest)


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    """The body of a response.

    Raises:
      BadReply: it does not end where any completion would, and would fill the memory.
    """
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > _MOST_BYTES:
            response.close()
            raise BadReply(f"{response.url}: expected a completion, got more than {_MOST_BYTES:,} bytes")
    return bytes(body)


@dataclasses.dataclass(slots=True)
class _Call:
    """A request on its way through its attempts."""

    request: Request
    body: bytes
    dialect: Dialect
    strikes: Counter[str] = dataclasses.field(default_factory=Counter)
    """Attempts that each URL failed, its being overloaded apart."""
    url: str = ""
    """Where it was sent last."""


class HttpEngine:
    """A model behind one or several URLs that speak the OpenAI API. Use it from one event loop."""

    def __init__(
        self, *, urls: tuple[str, ...], model: str, revision: str, dialect: Dialect, limits: Limits, key_env: str = ""
    ) -> None:
        self.kind = dialect.kind
        self.model = model
        self.revision = revision
        self.identity = f"{model}@{revision}/{dialect.manner}"
        self._dialect = dialect
        self._limits = limits
        self._hosts = Hosts(urls, limits)
        self._key_env = key_env
        self._key = read_key(key_env)
        self._hider = Hider(self._key)
        self._session: aiohttp.ClientSession | None = None

    @property
    def in_flight(self) -> int:
        """Requests that are at a server now."""
        return self._hosts.taken

    def choices_at_once(self, request: Request) -> int:
        """See `Engine.choices_at_once`."""
        return self._dialect.choices_at_once(request)

    async def complete(self, request: Request) -> Reply:
        """See `Engine.complete`; in several requests where the server takes fewer samples at a time.

        Raises:
          EngineUnavailable, BadReply: still no usable reply after `max_attempts`.
          UserError: the server would refuse every request: wrong key, URL or model.
        """
        most = self.choices_at_once(request)
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
        dialect = self._dialect.putting(request)
        call = _Call(request, msgspec.json.encode(word_request(request, dialect, self.model)), dialect)
        try:
            return await self._attempt(call)
        except _RETRIED as error:
            first = error
        return await self._retry(call, first)

    async def _attempt(self, call: _Call) -> Reply:
        try:
            return self._read(await self._reach(call), call)
        except BadReply:
            call.strikes[call.url] += 1
            raise
        except PromptRefused as error:
            refused = Sample(text="", finish="stop", tokens=0, error=str(error))
            return Reply(samples=(refused,) * call.request.num_samples, usage=Usage(requests=1))

    def _read(self, body: bytes, call: _Call) -> Reply:
        """A reply in which the key is nowhere: its texts end in the journal and in shards, its errors in logs."""
        try:
            reply = read_reply(whole_characters(self._hider.body(body)), call.request, call.dialect)
        except BadReply as error:
            error.args = (self._hider.message(str(error)),)
            raise
        except RecursionError:
            raise BadReply("expected a completion as JSON, got one of a depth that no completion has") from None
        # Once more, for JSON spells a character in several ways.
        samples = tuple(
            msgspec.structs.replace(sample, text=self._hider.text(sample.text)) if self._key else sample
            for sample in reply.samples
        )
        return msgspec.structs.replace(reply, samples=samples)

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
            host = self._host_for(call)
            try:
                return await self._send(host, call)
            except EngineUnavailable:
                if not host.is_away or self._hosts.are_away:
                    raise
        return await self._send(self._host_for(call), call)

    def _host_for(self, call: _Call) -> Host:
        return self._hosts.choose(call.request.subject, call.strikes, pinned=call.request.pinned)

    async def _send(self, host: Host, call: _Call) -> bytes:
        call.url = host.url
        async with host.limiter.place():
            if host.is_away and not self._hosts.are_away:  # Lost while this one waited for its place.
                raise EngineUnavailable(f"{host.url}: cannot be reached")
            session = self._connected()
            try:
                # Prompts and the key go where the settings say, and nowhere else.
                url = host.url + call.dialect.path
                async with session.post(url, data=call.body, allow_redirects=False) as response:
                    content = await _whole(response)
                    status, headers = response.status, response.headers
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                if isinstance(error, _UNREACHABLE):
                    self._hosts.lose(host, session)
                else:
                    call.strikes[host.url] += 1
                said = self._hider.message(f"{type(error).__name__}: {error}")
                # Without its cause: a traceback would show what that says, and it may hold the key.
                raise EngineUnavailable(f"{host.url}: {said}") from None
            if status == 200:
                host.limiter.succeeded()
                return content
            if status in _OVERLOADED:
                host.limiter.overloaded()
            else:
                call.strikes[host.url] += 1
            raise self._error(host.url, status, content, headers)

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

    def _error(self, url: str, status: int, content: bytes, headers: Mapping[str, str]) -> Exception:
        # Some services repeat the key, and messages end up in shards and logs. Hidden first, then cut.
        said = f"{url}: HTTP {status}: {self._hider.message(content.decode('utf-8', 'replace'))[:300]}"
        if status in _REFUSALS:
            return PromptRefused(said)
        if status in (401, 403):
            return UserError(f"{said}; {self._key_remedy()}")
        if status == 404:
            return UserError(f"{said}; check engine.url, which is without /v1, and engine.model")
        if 300 <= status < 400:
            place = self._hider.message(headers.get("Location", "elsewhere"))[:300]
            return UserError(f"{said}; it sends requests on to {place}: if that is right, make it engine.url")
        error = EngineUnavailable(said)
        retry_after = headers.get("Retry-After", "")
        if retry_after.replace(".", "", 1).isdecimal():
            error.retry_after = float(retry_after)
        return error

    def _key_remedy(self) -> str:
        if not self._key_env:
            return "no key was sent, for this engine's settings name no environment variable with one"
        if not self._key:
            return (
                f"no key was sent, for the environment variable {self._key_env} (api_key_env) is not set; export it, "
                "or name another one"
            )
        return f"give the right key in the environment variable {self._key_env}"

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
    Endless,
    EngineError,
    EngineLost,
    EngineUnavailable,
    Leave,
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
_GONE = 410
"""What stands where a server of ours was that died too often."""
_UNREACHABLE = (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError, aiohttp.ConnectionTimeoutError)
"""Refused, reset and dropped connections, and those that never come about."""
_MOST_BYTES = 2**28
"""Of one reply, unpacked: 64 samples of 1,000 tokens with 20 log probabilities each take half of it."""


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks to wait; 0 where it names none, or a date."""
    asked = headers.get("Retry-After", "")
    return float(asked) if asked.replace(".", "", 1).isdecimal() else 0.0


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
    is_back: bool = False
    """Whether there was no room for it when it was sent last."""
    overloads: int = 0
    """Attempts that do not count, for the server had no room."""
    retry_after: float = 0.0
    """Seconds that the server asked to wait when it was sent last; 0 where it named none."""


class _Pause(tenacity.wait.wait_base):
    """Waits as long as the server asked for, else an exponentially growing random time (full jitter).

    One for whom there was no room waits for its place, which a server that named a time gives to nobody before.
    """

    def __init__(self, call: _Call, longest: float) -> None:
        self._call = call
        self._longest = longest
        self._jitter = tenacity.wait_random_exponential(multiplier=0.5, max=longest)

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        if not self._call.retry_after:
            return self._jitter(retry_state)
        return 0.0 if self._call.is_back else min(self._call.retry_after, self._longest)


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
        self.leave: Leave = Endless()
        """Asked before a request is sent, and again before each further attempt."""
        self._hosts = Hosts(urls, limits)
        self._given_up = 0
        """Requests in a row that no server had room for as long as that is borne."""
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
          EngineLost: no server is to be expected back.
          Whatever the leave raises: nothing may be sent any more; what is at a server by then is waited for.
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
            msgspec.structs.replace(
                sample, text=self._hider.text(sample.text), reasoning=self._hider.text(sample.reasoning)
            )
            if self._key
            else sample
            for sample in reply.samples
        )
        return msgspec.structs.replace(reply, samples=samples)

    async def _retry(self, call: _Call, first: EngineError) -> Reply:
        """Goes on after a first attempt that ended with `first`; most calls never need what is made here."""
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(
                lambda error: isinstance(error, _RETRIED) and not isinstance(error, EngineLost)
            ),
            stop=lambda state: self._is_over(call, state.attempt_number),
            wait=_Pause(call, self._limits.max_wait_secs),
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
            self.leave.go_on()
            kind = EngineLost if self._is_lost() else type(error)
            raise kind(str(error), request_digest=digest(call.request), attempts=attempts) from None
        raise AssertionError("tenacity re-raises the last error")

    def _is_over(self, call: _Call, attempts: int) -> bool:
        return attempts - call.overloads >= self._limits.max_attempts or self._hosts.are_given_up

    def _is_lost(self) -> bool:
        """Whether a request that failed says more about the servers than about itself.

        One that says 503 may mean this very prompt; `max_attempts` of them in a row do not.
        """
        if not self._hosts.are_given_up:
            return False
        self._given_up += 1
        return self._hosts.are_away or self._given_up >= self._limits.max_attempts

    async def _rest(self, seconds: float) -> None:
        """A pause; while no server can be reached, the longest one there is, or until one can.

        So an outage is borne for `max_attempts - 1` times `max_wait_secs`, two and a half minutes by default, and not
        only for as long as the pauses that are meant for a single request's bad luck. Whoever finds it late waits for
        what is left of that.
        """
        longest = self._limits.max_wait_secs
        await asyncio.sleep(min(seconds, self.leave.seconds_left, self._hosts.patience_left))
        await self._hosts.wait(min(longest - seconds, self.leave.seconds_left, self._hosts.patience_left))
        self.leave.go_on()

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
        call.url, call.retry_after = host.url, 0.0
        async with host.limiter.place(is_back=call.is_back):
            call.is_back = False
            self.leave.go_on()
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
                    if isinstance(error, TimeoutError):
                        await self._hosts.doubt(host, session)
                said = self._hider.message(f"{type(error).__name__}: {error}")
                # Without its cause: a traceback would show what that says, and it may hold the key.
                raise EngineUnavailable(f"{host.url}: {said}") from None
            if status not in _OVERLOADED:
                host.limiter.taken_in()
            if status == 200:
                host.limiter.succeeded()
                self._hosts.find(host)
                self._given_up = 0
                return content
            call.retry_after = _retry_after(headers)
            if status in _OVERLOADED:
                self._turned_away(call, host)
            else:
                call.strikes[host.url] += 1
            raise self._error(host.url, status, content, headers)

    def _turned_away(self, call: _Call, host: Host) -> None:
        """Takes note of a server that has no room: nobody is sent there before it says, and this one first then."""
        host.limiter.overloaded()
        call.is_back = True
        left = self._limits.overload_secs - host.limiter.refusing_secs
        if call.retry_after:
            longest = max(left, self._limits.max_wait_secs)
            host.limiter.pause(min(call.retry_after, longest, self.leave.seconds_left))
        if left > 0 and self._limits.max_attempts > 1:
            call.overloads += 1
        else:
            call.strikes[host.url] += 1

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
        if status == _GONE and len(self._hosts) == 1:
            return EngineLost(said)
        return EngineUnavailable(said)

    def _key_remedy(self) -> str:
        if not self._key_env:
            return "no key was sent, for this engine's settings name no environment variable with one"
        if not self._key:
            return (
                f"no key was sent, for the environment variable {self._key_env} (api_key_env) is not set; export it, "
                "or name another one"
            )
        return f"give the right key in the environment variable {self._key_env}"

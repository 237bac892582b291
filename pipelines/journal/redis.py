"""The journal on a Redis server: for workers on several machines.

Under the prefix stand three hashes and a fourth for bookkeeping: `meta` (version of the layout, the journal's own id),
`samples`, `ledger` (field `stage@run/count`) and `writers`. A batch is one script, hence one transaction in the
server's append-only file. Scripts are retried when the connection breaks, and nobody can know whether a script whose
answer was lost has run: samples do not mind, and each writer numbers its batches so that costs are added once.
"""

import logging
import os
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import redis
import tenacity
from redis.backoff import NoBackoff
from redis.retry import Retry

from pipelines.engines.base import Usage
from pipelines.journal.address import PASSWORD_ENV, Address
from pipelines.journal.promises import Promise, check_promise
from pipelines.journal.store import VERSION, Batch, JournalError

T = TypeVar("T")

_CONNECT_SECS, _ANSWER_SECS, _WAIT_MS = 5.0, 10.0, 5000
_HASHES = ("meta", "samples", "ledger", "writers")
_GONE = "NOJOURNAL"

_COMMIT = """
local meta, samples, ledger, writers = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
if redis.call('HGET', meta, 'id') ~= ARGV[1] then return redis.error_reply('NOJOURNAL it is not there any more') end
local writer, number, at = ARGV[2], ARGV[3], 4
local function each(size, act)
  local count = tonumber(ARGV[at])
  for i = at + 1, at + size * count, size do act(ARGV[i], ARGV[i + 1]) end
  at = at + size * count + 1
end
local is_new = redis.call('HGET', writers, writer) ~= number
each(2, function(field, amount) if is_new then redis.call('HINCRBY', ledger, field, amount) end end)
each(2, function(key, value) if redis.call('HGET', samples, key) == value then redis.call('HDEL', samples, key) end end)
local held = {}
each(2, function(key, value)
  if redis.call('HSETNX', samples, key, value) == 0 then
    held[#held + 1] = key
    held[#held + 1] = redis.call('HGET', samples, key)
  end
end)
redis.call('HSET', writers, writer, number)
return held
"""


class RedisStore:
    """Some keys of a server. Samples are never read as anything but bytes."""

    is_near = False

    def __init__(self, address: Address, patience_secs: float, *, awaits_server: bool) -> None:
        """Connects, checks the server and opens or makes the journal; waits for one that is away only if told to.

        Raises:
          JournalError: the server is not there, refuses us, may lose what it has acknowledged, or holds something else
            under the prefix.
        """
        self._address = address
        self._patience_secs = patience_secs
        self._keys = [f"{address.prefix}:{name}" for name in _HASHES]
        self._meta, self._samples, self._ledger, self._writers = self._keys
        self._writer = uuid.uuid4().hex
        self._number = 0
        self._closing = threading.Event()
        self._checking = threading.Lock()
        self._is_unchecked = True
        self._waits = False
        self._told = ""
        self._client = self._connect()
        try:
            self._id = self._call(self._begin, _is_passing if awaits_server else _is_loading)
        except JournalError:
            self._client.close()
            raise

    def _connect(self) -> Any:
        address = self._address

        def connected(connection: Any) -> None:
            # The server may have been started again, with other settings.
            self._is_unchecked = True
            connection.on_connect()

        client: Any = redis.Redis  # Its own hints take `redis_connect_func` for one without arguments.
        return client(
            host=address.host,
            port=address.port,
            db=address.database,
            username=address.user or None,
            password=os.environ.get(PASSWORD_ENV) or None,
            ssl=address.is_encrypted,
            socket_timeout=_ANSWER_SECS,
            socket_connect_timeout=_CONNECT_SECS,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            redis_connect_func=connected,
        )

    def _begin(self) -> str:
        """The journal's id; a new one where nothing is under the prefix. What is something else stays as it is."""
        kinds = [self._client.type(key) for key in self._keys]
        if any(kind not in (b"none", b"hash") for kind in kinds) or (kinds[0] == b"none" and set(kinds) != {b"none"}):
            raise self._foreign()
        if kinds[0] == b"none":
            # Another worker may be making the journal just now; whoever comes first has named it.
            with self._client.pipeline(transaction=True) as pipe:
                pipe.hsetnx(self._meta, "version", VERSION)
                pipe.hsetnx(self._meta, "id", uuid.uuid4().hex)
                pipe.execute()
        version, name = self._client.hmget(self._meta, "version", "id")
        if version is None or name is None:
            raise self._foreign()
        if version != str(VERSION).encode():
            raise JournalError(
                f"the journal {self._address} was written by version {version[:20].decode('utf-8', 'replace')} of its "
                f"layout, this is version {VERSION}; use the wrongturn that wrote it, or name another prefix with "
                f"{self._remedy()}"
            )
        return str(name.decode("utf-8", "replace"))

    def _remedy(self) -> str:
        return f"journal={msgspec.structs.replace(self._address, prefix='PREFIX')}"

    def _foreign(self) -> JournalError:
        return JournalError(
            f"the server {self._address} holds something else under the prefix {self._address.prefix!r}; name another "
            f"prefix with {self._remedy()}"
        )

    def read(self, keys: Sequence[str]) -> dict[str, bytes]:
        """See `Store`."""
        values = self._call(lambda: self._client.hmget(self._samples, keys), _is_passing)
        return {key: value for key, value in zip(keys, values, strict=True) if value is not None}

    def commit(self, batch: Batch) -> dict[str, bytes]:
        """See `Store`."""
        self._number += 1
        costs = {
            f"{stage}/{name}": str(amount)
            for stage, usage in batch.costs.items()
            for name, amount in msgspec.structs.asdict(usage).items()
        }
        parts: tuple[Mapping[str, str | bytes], ...] = (costs, batch.damaged, batch.rows)
        words: list[str | bytes | int] = [self._id, self._writer, self._number]
        for part in parts:
            words += [len(part), *(word for item in part.items() for word in item)]
        held = self._call(lambda: self._commit(words), _is_passing)
        return {held[i].decode(): held[i + 1] for i in range(0, len(held), 2)}

    def _commit(self, words: Sequence[str | bytes | int]) -> list[bytes]:
        # Not transaction=True: the script is one by itself, and WAITAOF does not wait inside of one.
        with self._client.pipeline(transaction=False) as pipe:
            pipe.eval(_COMMIT, len(self._keys), *self._keys, *words)
            if self._waits:
                pipe.execute_command("WAITAOF", 1, 0, _WAIT_MS)
            # Raised here, since redis-py's own message would hold the whole batch.
            answers = pipe.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, redis.RedisError):
                raise answer
        held, *waited = answers
        if waited and not waited[0][0]:
            raise redis.TimeoutError(f"the batch is not on its disk after {_WAIT_MS / 1000:g} s")
        return list(held)

    def count(self) -> int:
        """See `Store`."""
        return int(self._call(lambda: self._client.hlen(self._samples), _is_passing))

    def ledger(self) -> dict[str, Usage]:
        """See `Store`."""
        fields = self._call(lambda: self._client.hgetall(self._ledger), _is_passing)
        stages: dict[str, dict[str, int]] = {}
        try:
            for field, amount in sorted(fields.items()):
                stage, _, name = field.decode().rpartition("/")
                stages.setdefault(stage, {})[name] = int(amount)
            return {stage: msgspec.convert(counts, Usage) for stage, counts in stages.items()}
        except (ValueError, msgspec.ValidationError) as error:
            raise self._damaged(f"its ledger holds {error}") from error

    def _damaged(self, what: str) -> JournalError:
        return JournalError(
            f"the journal {self._address} is damaged: {what}; put back a copy of the server's data, or name another "
            f"prefix with {self._remedy()}: finished shards stay, and what they do not hold is paid for again"
        )

    def hurry(self) -> None:
        """See `Store`."""
        self._closing.set()

    def close(self) -> None:
        """See `Store`."""
        try:
            self._client.hdel(self._writers, self._writer)
        except redis.RedisError:
            logging.getLogger(__name__).debug("the writer's mark stays on the journal's server", exc_info=True)
        self._client.close()

    def _call(self, work: Callable[[], T], is_passing: Callable[[BaseException], bool]) -> T:
        """The result of `work`, tried again while the server is away; safe for what may be done twice.

        Raises:
          JournalError: it is away for too long, refuses, or has lost its settings or data.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_passing),
            stop=tenacity.stop_any(
                tenacity.stop_after_delay(self._patience_secs), tenacity.stop_when_event_set(self._closing)
            ),
            wait=tenacity.wait_random_exponential(multiplier=0.05, max=2.0),
            sleep=tenacity.sleep_using_event(self._closing),
            before_sleep=self._tell_away,
            reraise=True,
        )
        try:
            result: T = retrying(self._checked, work)
        except redis.RedisError as error:
            raise self._trouble(error) from error
        return result

    def _checked(self, work: Callable[[], T]) -> T:
        """Nothing is acknowledged that was done by a server whose promise we do not know."""
        self._check()
        waited = self._waits
        result = work()
        self._check()  # `work` may have connected anew.
        return result if waited or not self._waits else work()

    def _check(self) -> None:
        with self._checking:
            if self._is_unchecked:
                self._is_unchecked = False
                try:
                    self._learn(check_promise(f"{self._address}", self._client.info(), self._config()))
                except (redis.RedisError, JournalError):
                    self._is_unchecked = True
                    raise

    def _learn(self, promise: Promise) -> None:
        self._waits = promise.waits
        if promise.unchecked and promise.unchecked != self._told:
            self._told = promise.unchecked
            logging.getLogger(__name__).warning(
                "the server %s does not say %s: answers may be lost with it unless appendonly is yes, appendfsync "
                "always and maxmemory-policy noeviction",
                self._address,
                promise.unchecked,
            )

    def _config(self) -> dict[str, str] | None:
        """Settings that INFO does not tell; None where the server forbids to ask."""
        found: dict[bytes | str, bytes | str] = {}
        try:
            for name in ("appendfsync", "no-appendfsync-on-rewrite"):
                found |= self._client.config_get(name)
        except redis.ResponseError:
            return None
        return {_text(name): _text(value) for name, value in found.items()}

    def _tell_away(self, state: tenacity.RetryCallState) -> None:
        self._is_unchecked = True
        if state.attempt_number == 1 and state.outcome is not None:
            logging.getLogger(__name__).warning(
                "the journal's server %s is away (%s); it is tried again for %g s",
                self._address,
                _said(state.outcome.exception()),
                self._patience_secs,
            )

    def _trouble(self, error: redis.RedisError) -> JournalError:
        said = _said(error)
        if isinstance(error, redis.AuthenticationError):
            return JournalError(
                f"the journal's server {self._address} does not let us in: {said}; set {PASSWORD_ENV} to its password, "
                "and name the user in the URL (redis://USER@HOST) where it is not the default one"
            )
        if isinstance(error, redis.ConnectionError | redis.TimeoutError):
            return JournalError(
                f"the journal's server {self._address} is not there: {said}; start it with the data that it had, then "
                "start the same command again: nothing that was committed is lost (journal_patience_secs says how long "
                "a run waits that has begun)"
            )
        if _GONE in said:
            return JournalError(
                f"the server {self._address} does not hold the journal any more that it held before: it was emptied or "
                "started without its data; put its data back, then start the same command again, which otherwise "
                "begins a new journal: finished shards stay, and what they do not hold is paid for again"
            )
        if "WRONGTYPE" in said or "not an integer" in said:
            return self._damaged(said)
        return JournalError(
            f"cannot use the journal on {self._address}: {said}; put that right (memory, disk or the user's rights), "
            "then start the same command again: nothing that was committed is lost"
        )


def _is_loading(error: BaseException) -> bool:
    """Whether a server that has just started is still reading its data."""
    return isinstance(error, redis.BusyLoadingError)


def _is_passing(error: BaseException) -> bool:
    """Whether the server may come back by itself."""
    is_refusal = isinstance(error, redis.AuthenticationError | redis.exceptions.AuthorizationError)
    return isinstance(error, redis.ConnectionError | redis.TimeoutError) and not is_refusal


def _said(error: BaseException | None) -> str:
    """What an error says, in one line, without the script's name that Redis puts behind it."""
    return " ".join(str(error).partition(" script: ")[0].split()).rstrip(".") or type(error).__name__


def _text(word: bytes | str) -> str:
    return word if isinstance(word, str) else word.decode("utf-8", "replace")

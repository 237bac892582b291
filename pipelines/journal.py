"""The run's memory: every sample that was ever paid for, under the digest of what was asked.

One SQLite file in WAL mode. A writer thread commits whatever has gathered since the last commit in one transaction,
so that an answer is on disk before it is used and a thousand answers cost a few commits. Several processes on one
machine may share the file. SQLite drops a torn tail by itself; a file of another version is refused. Each sample has a
checksum with its key, since SQLite has none for what is older than the tail: what is damaged is asked for again or ends
the run, and never gives a text that no model wrote.
"""

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from pipelines.engines.base import Sample, Usage
from pipelines.errors import UserError
from schemas import Record

VERSION = 3
"""Of the file's layout and its keys; raised with every change that an older version could not read."""


class JournalError(UserError):
    """The journal cannot be used; says which file and what to do."""


class _Entry(Record):
    stage: str
    samples: dict[str, Sample]
    usage: Usage


_SUM_BYTES = 4

_Waiting = tuple[_Entry, asyncio.AbstractEventLoop, asyncio.Future[None]]

_LAYOUT = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS samples (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ledger (
  stage TEXT PRIMARY KEY, requests INT NOT NULL, samples INT NOT NULL,
  prompt_tokens INT NOT NULL, cached_tokens INT NOT NULL, completion_tokens INT NOT NULL
) WITHOUT ROWID;
"""

_ADD_TO_LEDGER = """
INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (stage) DO UPDATE SET
  requests = requests + excluded.requests, samples = samples + excluded.samples,
  prompt_tokens = prompt_tokens + excluded.prompt_tokens, cached_tokens = cached_tokens + excluded.cached_tokens,
  completion_tokens = completion_tokens + excluded.completion_tokens
"""


def _damaged(path: Path, what: str) -> JournalError:
    return JournalError(
        f"the journal {path} is damaged: {what}; put back a copy of it, or name a new one with journal=PATH: finished "
        "shards stay, and what they do not hold is paid for again"
    )


def _code(error: Exception) -> int:
    """SQLite's primary result code; 0 for what is not SQLite's."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def _open(path: Path) -> sqlite3.Connection:
    """A connection to a journal, made if it is not there; a file that is no journal of this version stays as it is."""
    connection = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=60, check_same_thread=False, isolation_level=None)
        _check_layout(connection, path)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.executescript(_LAYOUT)
        connection.execute("INSERT OR IGNORE INTO meta VALUES ('version', ?)", (str(VERSION),))
    except (OSError, sqlite3.Error, JournalError) as error:
        if connection is not None:
            connection.close()
        if isinstance(error, JournalError):
            raise
        if _code(error) == sqlite3.SQLITE_CORRUPT:
            raise _damaged(path, str(error)) from error
        if _code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            raise JournalError(
                f"cannot use the journal {path}: {error}; free some space or make it writable, then start the same "
                "command again, or name another one with journal=PATH"
            ) from error
        raise JournalError(
            f"cannot use the journal {path}: {error}; check that the folder is writable and the file is a journal "
            "of wrongturn, or name another one with journal=PATH"
        ) from error
    return connection


def _check_layout(connection: sqlite3.Connection, path: Path) -> None:
    """Raises JournalError for a database with anything in it that is not a journal of this version."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables and "meta" not in tables:
        raise JournalError(
            f"the database {path} holds tables of something else ({', '.join(sorted(tables)[:3])}); "
            "name another file with journal=PATH"
        )
    row = connection.execute("SELECT value FROM meta WHERE name = 'version'").fetchone() if tables else None
    # Another process may be making the journal just now and not have come to its version yet.
    if row and row[0] != str(VERSION):
        raise JournalError(
            f"the journal {path} was written by version {row[0]} of its layout, this is version {VERSION}; "
            "use the wrongturn that wrote it, or name another one with journal=PATH"
        )


def _sum(key: str, value: bytes) -> bytes:
    """Checksum of a sample under its key: `_SUM_BYTES` bytes that stand before it."""
    return zlib.crc32(value, zlib.crc32(key.encode())).to_bytes(_SUM_BYTES, "big")


class Journal:
    """Samples by key, with a ledger of what they cost. Open one a process, use it from one event loop."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the file.

        Raises:
          JournalError: it is unwritable, no journal, or of another version.
        """
        self.path = path
        self._reader = _open(path)
        self._writer = _open(path)
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._damaged_keys: set[str] = set()
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Sample)
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
        self._thread.start()

    def get(self, keys: Sequence[str]) -> dict[str, Sample]:
        """The samples that are there, by key; one that is not what was written is not there.

        Raises:
          JournalError: the file is damaged.
        """
        places = ", ".join("?" * len(keys))
        with self._reading():
            rows = self._reader.execute(f"SELECT key, value FROM samples WHERE key IN ({places})", keys).fetchall()
        found = {key: value[_SUM_BYTES:] for key, value in rows if _sum(key, value[_SUM_BYTES:]) == value[:_SUM_BYTES]}
        if len(found) < len(rows):
            self._drop([key for key, _ in rows if key not in found])
        return {key: self._decoder.decode(value) for key, value in found.items()}

    def _drop(self, keys: Sequence[str]) -> None:
        """Forgets samples that are not what was written, so that they can be put anew."""
        logging.getLogger(__name__).error(
            "%d samples of the journal %s are damaged, for example %s; they are asked for again",
            len(keys),
            self.path,
            keys[0],
        )
        self._damaged_keys.update(keys)

    async def put(self, stage: str, samples: Mapping[str, Sample], usage: Usage) -> None:
        """Returns when the samples and their cost are on disk. A key that is there already keeps its sample.

        Raises:
          JournalError: the disk is full or the file cannot be written.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._queue.put((_Entry(stage=stage, samples=dict(samples), usage=usage), loop, done))
        await done

    def size(self) -> int:
        """Samples it holds.

        Raises:
          JournalError: the file is damaged.
        """
        with self._reading():
            (count,) = self._reader.execute("SELECT count(*) FROM samples").fetchone()
        return int(count)

    def ledger(self) -> dict[str, Usage]:
        """What all samples of this journal have cost, by stage.

        Raises:
          JournalError: the file is damaged.
        """
        with self._reading():
            rows = self._reader.execute("SELECT * FROM ledger ORDER BY stage").fetchall()
        return {stage: Usage(**dict(zip(Usage.__struct_fields__, counts, strict=True))) for stage, *counts in rows}

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _damaged(self.path, str(error)) from error

    def close(self) -> None:
        """Commits what is waiting and lets go of the file."""
        self._queue.put(None)
        self._thread.join()
        self._writer.close()
        self._reader.close()

    def _write(self) -> None:
        while True:
            batch = [self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get())
            waiting = [item for item in batch if item is not None]
            error = self._commit([entry for entry, _, _ in waiting])
            told: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
            for _, loop, done in waiting:
                told.setdefault(loop, []).append(done)
            for loop, waiters in told.items():
                if not loop.is_closed():
                    loop.call_soon_threadsafe(_settle, waiters, error)
            if len(waiting) < len(batch):
                return

    def _commit(self, entries: Sequence[_Entry]) -> JournalError | None:
        samples = ((key, self._encoder.encode(sample)) for entry in entries for key, sample in entry.samples.items())
        rows = [(key, _sum(key, value) + value) for key, value in samples]
        damaged = [(key,) for key, _ in rows if key in self._damaged_keys]
        costs = [(entry.stage, *msgspec.structs.astuple(entry.usage)) for entry in entries]
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            self._writer.executemany("DELETE FROM samples WHERE key = ?", damaged)
            self._writer.executemany("INSERT OR IGNORE INTO samples VALUES (?, ?)", rows)
            self._writer.executemany(_ADD_TO_LEDGER, costs)
            self._writer.execute("COMMIT")
            self._damaged_keys.difference_update(key for (key,) in damaged)
        except sqlite3.Error as error:
            # A file that cannot be written may refuse this too; closing it comes to the same.
            with contextlib.suppress(sqlite3.Error):
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
            if _code(error) == sqlite3.SQLITE_CORRUPT:
                return _damaged(self.path, str(error))
            return JournalError(
                f"cannot write to the journal {self.path}: {error}; free some space or make it writable, then start "
                "the same command again: nothing that was committed is lost"
            )
        return None


def _settle(waiters: Sequence[asyncio.Future[None]], error: JournalError | None) -> None:
    for done in waiters:
        if done.done():
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

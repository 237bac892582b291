"""The journal as a file: SQLite in WAL mode, for any number of processes on one machine."""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import tenacity

from pipelines.engines.base import Usage
from pipelines.journal.store import VERSION, Batch, JournalError

_LAYOUT = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS samples (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ledger (
  stage TEXT PRIMARY KEY, requests INT NOT NULL, samples INT NOT NULL,
  prompt_tokens INT NOT NULL, cached_tokens INT NOT NULL, completion_tokens INT NOT NULL, reasoning_tokens INT NOT NULL
) WITHOUT ROWID;
"""

_ADD_TO_LEDGER = """
INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (stage) DO UPDATE SET
  requests = requests + excluded.requests, samples = samples + excluded.samples,
  prompt_tokens = prompt_tokens + excluded.prompt_tokens, cached_tokens = cached_tokens + excluded.cached_tokens,
  completion_tokens = completion_tokens + excluded.completion_tokens,
  reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens
"""

_KEYS_A_QUERY = 500
_BUSY_SECS = 60.0
"""How long one process waits for another's use of the file."""

_LEDGER = dict[str, Usage]


def _damaged(path: Path, what: str) -> JournalError:
    return JournalError(
        f"the journal {path} is damaged: {what}; put back a copy of it, or name a new one with journal=PATH: finished "
        "shards stay, and what they do not hold is paid for again"
    )


def _code(error: BaseException) -> int:
    """SQLite's primary result code; 0 for what is not SQLite's."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


@tenacity.retry(
    retry=tenacity.retry_if_exception(lambda error: _code(error) == sqlite3.SQLITE_BUSY),
    wait=tenacity.wait_random(0.01, 0.1),
    stop=tenacity.stop_after_delay(_BUSY_SECS),
    reraise=True,
)
def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Makes a file a journal, or sees that it is one.

    Where several processes do so at once, all but one are told that it is busy: for the change to WAL SQLite does not
    wait as it does for a write.
    """
    _check_layout(connection, path)
    connection.execute("PRAGMA journal_mode=WAL")
    # In WAL mode NORMAL syncs at checkpoints alone: a machine that loses its power would lose answers that were used.
    connection.execute("PRAGMA synchronous=FULL")
    connection.executescript(_LAYOUT)
    connection.execute("INSERT OR IGNORE INTO meta VALUES ('version', ?)", (str(VERSION),))


def _open(path: Path) -> sqlite3.Connection:
    """A connection to a journal, made if it is not there; a file that is no journal of this version stays as it is."""
    connection = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=_BUSY_SECS, check_same_thread=False, isolation_level=None)
        _prepare(connection, path)
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
    scheme = _scheme(connection)
    tables = {name for kind, name, _ in scheme if kind == "table"}
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
    # A trigger or a view of somebody else's would run with every statement of ours.
    with contextlib.closing(sqlite3.connect(":memory:")) as ours:
        ours.executescript(_LAYOUT)
        foreign = scheme - _scheme(ours)
    if foreign:
        kind, name, _ = min(foreign)
        raise JournalError(
            f"the database {path} is no journal as wrongturn makes it: it has the {kind} {name!r} of its own; "
            "name another file with journal=PATH"
        )


def _scheme(connection: sqlite3.Connection) -> frozenset[tuple[str, str, str]]:
    """Kind, name and definition of everything in a database; of another's, names may be anything."""
    rows = connection.execute("SELECT type, name, coalesce(sql, '') FROM sqlite_master WHERE name NOT GLOB 'sqlite_*'")
    return frozenset((str(kind), str(name), str(sql)) for kind, name, sql in rows)


class SqliteStore:
    """A file. SQLite drops a torn tail by itself; a file of another version is refused."""

    is_near = True

    def __init__(self, path: Path) -> None:
        """Opens or makes the file.

        Raises:
          JournalError: it is unwritable, no journal, or of another version.
        """
        self._path = path
        self._reader = _open(path)
        self._writer = _open(path)

    def read(self, keys: Sequence[str]) -> dict[str, bytes]:
        """See `Store`."""
        places = ", ".join("?" * len(keys))
        with self._reading():
            rows = self._reader.execute(f"SELECT key, value FROM samples WHERE key IN ({places})", keys).fetchall()
        return dict(rows)

    def commit(self, batch: Batch) -> dict[str, bytes]:
        """See `Store`."""
        costs = [(stage, *msgspec.structs.astuple(usage)) for stage, usage in batch.costs.items()]
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            self._writer.executemany("DELETE FROM samples WHERE key = ? AND value = ?", batch.damaged.items())
            added = self._writer.executemany("INSERT OR IGNORE INTO samples VALUES (?, ?)", batch.rows.items())
            held = {} if added.rowcount == len(batch.rows) else self._held(list(batch.rows))
            self._writer.executemany(_ADD_TO_LEDGER, costs)
            self._writer.execute("COMMIT")
        except sqlite3.Error as error:
            # A file that cannot be written may refuse this too; closing it comes to the same.
            with contextlib.suppress(sqlite3.Error):
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
            if _code(error) == sqlite3.SQLITE_CORRUPT:
                raise _damaged(self._path, str(error)) from error
            raise JournalError(
                f"cannot write to the journal {self._path}: {error}; free some space or make it writable, then start "
                "the same command again: nothing that was committed is lost"
            ) from error
        return held

    def _held(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Values as this transaction sees them."""
        held: dict[str, bytes] = {}
        for start in range(0, len(keys), _KEYS_A_QUERY):
            part = keys[start : start + _KEYS_A_QUERY]
            places = ", ".join("?" * len(part))
            held |= self._writer.execute(f"SELECT key, value FROM samples WHERE key IN ({places})", part)
        return held

    def count(self) -> int:
        """See `Store`."""
        with self._reading():
            (count,) = self._reader.execute("SELECT count(*) FROM samples").fetchone()
        return int(count)

    def ledger(self) -> dict[str, Usage]:
        """See `Store`."""
        with self._reading():
            rows = self._reader.execute("SELECT * FROM ledger ORDER BY stage").fetchall()
        names = Usage.__struct_fields__
        try:
            return msgspec.convert({stage: dict(zip(names, counts, strict=True)) for stage, *counts in rows}, _LEDGER)
        except msgspec.ValidationError as error:
            raise _damaged(self._path, f"its ledger holds no counts: {error}") from error

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _damaged(self._path, str(error)) from error

    def hurry(self) -> None:
        """See `Store`."""

    def close(self) -> None:
        """See `Store`."""
        self._writer.close()
        self._reader.close()

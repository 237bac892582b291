"""What the journal's file does beyond what every journal promises; see `test_journal_contract.py` for that."""

import asyncio
import os
import sqlite3
from pathlib import Path

import pytest

from pipelines.engines.base import Sample, Usage
from pipelines.journal import Journal, JournalError

FREE = Usage()


def sample(text: str, tokens: int = 1) -> Sample:
    return Sample(text=text, finish="stop", tokens=tokens)


def put(journal: Journal, samples: dict[str, Sample], *, stage: str = "ExpandTrees", usage: Usage = FREE) -> None:
    asyncio.run(journal.put(stage, samples, usage))


def get(journal: Journal, keys: list[str]) -> dict[str, Sample]:
    return asyncio.run(journal.get(keys))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture
def journal(path: Path):
    journal = Journal(path)
    yield journal
    journal.close()


def test_puts_at_once_share_few_transactions(journal, path):
    async def at_once():
        await asyncio.gather(*(journal.put("X", {f"k{i}": sample("s")}, FREE) for i in range(500)))

    statements: list[str] = []
    journal._store._writer.set_trace_callback(statements.append)
    asyncio.run(at_once())
    journal._store._writer.set_trace_callback(None)
    assert journal.size() == 500
    # All 500 are queued before the loop turns once; the thread takes them in a handful of batches.
    assert 1 <= statements.count("COMMIT") <= 50


def test_what_is_committed_is_synced_to_the_disk(journal):
    """A process that is killed loses nothing either way; a machine that loses its power does below FULL, which is 2."""
    connection = journal._store._writer
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_put_that_returned_is_seen_by_another_connection(journal, path):
    put(journal, {"a": sample("one")})
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT key FROM samples").fetchall() == [("a",)]
    other.close()


@pytest.mark.parametrize("lost", [1, 100, 4096, 20_000])
def test_a_torn_wal_tail_leaves_a_prefix(tmp_path, path, lost):
    journal = Journal(path)
    for i in range(20):
        put(journal, {f"k{i}": sample("x" * 500)}, usage=Usage(requests=1))
    torn = tmp_path / "torn.sqlite"
    torn.write_bytes(path.read_bytes())
    wal = Path(f"{path}-wal").read_bytes()
    journal.close()
    assert len(wal) > 20_000
    Path(f"{torn}-wal").write_bytes(wal[:-lost])
    again = Journal(torn)
    size = again.size()
    assert size < 20
    # What is left is what was put first, and the ledger is of the same moment.
    assert get(again, [f"k{i}" for i in range(20)]).keys() == {f"k{i}" for i in range(size)}
    assert again.ledger().get("ExpandTrees", Usage()) == Usage(requests=size)
    put(again, {"new": sample("goes on")})
    assert get(again, ["new"]) == {"new": sample("goes on")}
    again.close()


def test_garbage_after_the_wal_is_not_believed(tmp_path, path):
    journal = Journal(path)
    put(journal, {"a": sample("one")})
    torn = tmp_path / "torn.sqlite"
    torn.write_bytes(path.read_bytes())
    Path(f"{torn}-wal").write_bytes(Path(f"{path}-wal").read_bytes() + os.urandom(10_000))
    journal.close()
    again = Journal(torn)
    assert get(again, ["a"]) == {"a": sample("one")}
    assert again.size() == 1
    again.close()


def test_another_version_is_refused_and_left_as_it_is(path):
    Journal(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = '7' WHERE name = 'version'")
        connection.execute("DROP TABLE ledger")
    connection.close()
    with pytest.raises(JournalError) as caught:
        Journal(path)
    assert str(caught.value) == (
        f"the journal {path} was written by version 7 of its layout, this is version 4; "
        "use the wrongturn that wrote it, or name another one with journal=PATH"
    )
    with sqlite3.connect(path) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall()
    connection.close()
    assert tables == [("meta",), ("samples",)]


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(path):
    path.write_text("hello " * 1000)
    with pytest.raises(JournalError) as caught:
        Journal(path)
    assert str(caught.value) == (
        f"cannot use the journal {path}: file is not a database; check that the folder is writable and the file is a "
        "journal of wrongturn, or name another one with journal=PATH"
    )
    assert path.read_text() == "hello " * 1000


def test_a_database_of_somebody_else_is_refused_and_left_as_it_is(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.close()
    with pytest.raises(JournalError, match="holds tables of something else"):
        Journal(path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("bookmarks",)]
    connection.close()


def test_a_path_under_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match=r"cannot use the journal .*file/journal\.sqlite: .*journal=PATH"):
        Journal(tmp_path / "file" / "journal.sqlite")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(JournalError, match=r"cannot use the journal .*unable to open database file"):
        Journal(tmp_path)


def test_a_write_that_fails_reaches_its_waiter_and_the_journal_goes_on(journal, path):
    """As on a full disk: SQLite is told that the file may not grow."""
    pages = journal._store._writer.execute("PRAGMA page_count").fetchone()[0]
    journal._store._writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(JournalError) as caught:
        put(journal, {f"k{i}": sample("x" * 3000) for i in range(20)}, usage=Usage(requests=1))
    assert str(caught.value) == (
        f"cannot write to the journal {path}: database or disk is full; free some space or make it writable, then "
        "start the same command again: nothing that was committed is lost"
    )
    assert journal.size() == 0
    assert journal.ledger() == {}
    journal._store._writer.execute("PRAGMA max_page_count = 100000")
    put(journal, {"a": sample("one")})
    assert journal.size() == 1

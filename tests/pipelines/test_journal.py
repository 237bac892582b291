import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.engines.base import Sample, Usage
from pipelines.journal import Journal, JournalError

FREE = Usage()


def sample(text: str, tokens: int = 1) -> Sample:
    return Sample(text=text, finish="stop", tokens=tokens)


def put(journal: Journal, samples: dict[str, Sample], *, stage: str = "ExpandTrees", usage: Usage = FREE) -> None:
    asyncio.run(journal.put(stage, samples, usage))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture
def journal(path: Path):
    journal = Journal(path)
    yield journal
    journal.close()


WRITER = """
import asyncio, sys
from pathlib import Path
from pipelines.engines.base import Sample, Usage
from pipelines.journal import Journal

name, count = sys.argv[2], int(sys.argv[3])
journal = Journal(Path(sys.argv[1]))

async def put(i):
    key = f"{name}{i}"
    await journal.put("ExpandTrees", {key: Sample(text=key, finish="stop", tokens=1)}, Usage(requests=1))
    print(key, flush=True)

async def main():
    for start in range(0, count, 7):
        await asyncio.gather(*(put(i) for i in range(start, min(start + 7, count))))

asyncio.run(main())
journal.close()
"""


def writer(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_sample_that_was_put_is_got_back_whole(journal):
    whole = Sample(text="Step 1: ünï\x00code \U0001f600\n", finish="length", tokens=7)
    put(journal, {"a": whole})
    assert journal.get(["a"]) == {"a": whole}


def test_keys_that_are_not_there_are_left_out(journal):
    put(journal, {"a": sample("one")})
    assert journal.get(["b", "a", "c"]) == {"a": sample("one")}
    assert journal.get([]) == {}


def test_size_counts_samples(journal):
    put(journal, {"a": sample("one"), "b": sample("two")})
    put(journal, {"c": sample("three")})
    assert journal.size() == 3


def test_the_first_sample_of_a_key_wins(journal):
    put(journal, {"a": sample("first")})
    put(journal, {"a": sample("second"), "b": sample("other")})
    assert journal.get(["a", "b"]) == {"a": sample("first"), "b": sample("other")}


def test_the_first_sample_wins_within_one_commit(journal):
    async def at_once():
        await asyncio.gather(*(journal.put("X", {"a": sample(f"{i}")}, FREE) for i in range(20)))

    asyncio.run(at_once())
    assert journal.get(["a"]) == {"a": sample("0")}


def test_the_ledger_sums_by_stage(journal):
    put(journal, {}, usage=Usage(requests=1, samples=4, prompt_tokens=100, cached_tokens=60, completion_tokens=30))
    put(journal, {}, usage=Usage(requests=1, samples=2, prompt_tokens=10, cached_tokens=5, completion_tokens=3))
    put(journal, {}, stage="WriteCritiques", usage=Usage(requests=1, samples=1, completion_tokens=9))
    assert journal.ledger() == {
        "ExpandTrees": Usage(requests=2, samples=6, prompt_tokens=110, cached_tokens=65, completion_tokens=33),
        "WriteCritiques": Usage(requests=1, samples=1, completion_tokens=9),
    }


def test_an_empty_journal_has_an_empty_ledger(journal):
    assert journal.ledger() == {}
    assert journal.size() == 0


def test_puts_at_once_share_few_transactions(journal, path):
    async def at_once():
        await asyncio.gather(*(journal.put("X", {f"k{i}": sample("s")}, FREE) for i in range(500)))

    statements: list[str] = []
    journal._writer.set_trace_callback(statements.append)
    asyncio.run(at_once())
    journal._writer.set_trace_callback(None)
    assert journal.size() == 500
    # All 500 are queued before the loop turns once; the thread takes them in a handful of batches.
    assert 1 <= statements.count("COMMIT") <= 50


def test_one_who_no_longer_waits_harms_nobody_in_the_same_commit(journal):
    async def at_once():
        tasks = [asyncio.create_task(journal.put("X", {f"k{i}": sample(f"{i}")}, FREE)) for i in range(30)]
        await asyncio.sleep(0)  # All are queued and wait.
        for task in tasks[::3]:
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    ends = asyncio.run(asyncio.wait_for(at_once(), 10))
    assert [type(end) for end in ends] == [asyncio.CancelledError, type(None), type(None)] * 10


def test_a_put_that_returned_is_seen_by_another_connection(journal, path):
    put(journal, {"a": sample("one")})
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT key FROM samples").fetchall() == [("a",)]
    other.close()


def test_another_process_sees_what_this_one_put(journal, path):
    put(journal, {"a": sample("one")})
    command = (
        "import sys; from pathlib import Path; from pipelines.journal import Journal\n"
        "j = Journal(Path(sys.argv[1])); print(j.get(['a'])['a'].text, j.size()); j.close()"
    )
    done = subprocess.run([sys.executable, "-c", command, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "one 1\n"


def test_a_journal_opened_again_holds_what_it_held(path):
    first = Journal(path)
    put(first, {"a": sample("one")}, usage=Usage(requests=1))
    first.close()
    second = Journal(path)
    assert second.get(["a"]) == {"a": sample("one")}
    assert second.ledger() == {"ExpandTrees": Usage(requests=1)}
    second.close()


def test_close_commits_what_still_waits(path):
    async def put_and_close():
        journal = Journal(path)
        waiting = [asyncio.create_task(journal.put("X", {f"k{i}": sample("s")}, FREE)) for i in range(50)]
        await asyncio.sleep(0)
        journal.close()
        await asyncio.gather(*waiting)

    asyncio.run(put_and_close())
    again = Journal(path)
    assert again.size() == 50
    again.close()


def test_a_put_whose_waiter_was_cancelled_is_committed_and_harms_nobody(journal):
    async def cancelled():
        task = asyncio.create_task(journal.put("X", {"a": sample("one")}, FREE))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await journal.put("X", {"b": sample("two")}, FREE)

    asyncio.run(cancelled())
    assert journal.size() == 2


def test_kill_9_loses_nothing_that_was_acknowledged(path):
    process = writer(path, "k", 100_000)
    assert process.stdout is not None
    acknowledged = [process.stdout.readline().strip() for _ in range(200)]
    os.kill(process.pid, signal.SIGKILL)
    rest, _ = process.communicate()
    # The last line may be cut in the middle of a key: only whole lines were acknowledged.
    acknowledged += [line.strip() for line in rest.splitlines(keepends=True) if line.endswith("\n")]
    assert process.returncode == -signal.SIGKILL
    journal = Journal(path)
    found = journal.get(acknowledged)
    size, ledger = journal.size(), journal.ledger()
    journal.close()
    assert found == {key: sample(key) for key in acknowledged}
    assert 0 <= size - len(acknowledged) <= 7  # Seven were in flight at a time.
    assert ledger == {"ExpandTrees": Usage(requests=size)}


def test_two_processes_write_at_once_and_nothing_is_lost(path):
    processes = [writer(path, name, 300) for name in ("a", "b")]
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0, 0]
    journal = Journal(path)
    keys = [f"{name}{i}" for name in ("a", "b") for i in range(300)]
    assert journal.get(keys) == {key: sample(key) for key in keys}
    assert journal.ledger() == {"ExpandTrees": Usage(requests=600)}
    journal.close()


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
    assert again.get([f"k{i}" for i in range(20)]).keys() == {f"k{i}" for i in range(size)}
    assert again.ledger().get("ExpandTrees", Usage()) == Usage(requests=size)
    put(again, {"new": sample("goes on")})
    assert again.get(["new"]) == {"new": sample("goes on")}
    again.close()


def test_garbage_after_the_wal_is_not_believed(tmp_path, path):
    journal = Journal(path)
    put(journal, {"a": sample("one")})
    torn = tmp_path / "torn.sqlite"
    torn.write_bytes(path.read_bytes())
    Path(f"{torn}-wal").write_bytes(Path(f"{path}-wal").read_bytes() + os.urandom(10_000))
    journal.close()
    again = Journal(torn)
    assert again.get(["a"]) == {"a": sample("one")}
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
        f"the journal {path} was written by version 7 of its layout, this is version 3; "
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
    pages = journal._writer.execute("PRAGMA page_count").fetchone()[0]
    journal._writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(JournalError) as caught:
        put(journal, {f"k{i}": sample("x" * 3000) for i in range(20)}, usage=Usage(requests=1))
    assert str(caught.value) == (
        f"cannot write to the journal {path}: database or disk is full; free some space or make it writable, then "
        "start the same command again: nothing that was committed is lost"
    )
    assert journal.size() == 0
    assert journal.ledger() == {}
    journal._writer.execute("PRAGMA max_page_count = 100000")
    put(journal, {"a": sample("one")})
    assert journal.size() == 1


def test_many_processes_may_open_a_new_journal_at_once(path):
    command = "import sys; from pathlib import Path; from pipelines.journal import Journal; sys.stdin.read(1)\n"
    command += "Journal(Path(sys.argv[1])).close()"
    processes = [
        subprocess.Popen([sys.executable, "-c", command, str(path)], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for process in processes:
        process.stdin.write(b"x")
        process.stdin.flush()
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0], said

"""A folder, a journal or a shard of somebody else's making is data: nothing of it runs, nothing outside is touched."""

import asyncio
import contextlib
import json
import os
import pickle
import sqlite3
import subprocess
import sys
import uuid
import zlib
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.engines.base import Sample
from pipelines.extent import failed_elements, written_shards
from pipelines.journal import VERSION, Journal, JournalError
from pipelines.main import main
from pipelines.manifest import read_books
from pipelines.output import Output, OutputError
from pipelines.shards import Shard, ShardError, all_shards, file_digest, is_shard, num_rows, read_file, write_shard
from schemas.arrow import CONFIGS

ONE = "1" * 32
SMALL = [
    *("run", "engine=scripted", "problems=sums", "actor=plain", "panel=blind", "panel.meta_template=''"),
    *("search=default", "pairing=default", "verify=default", "search.max_searches=1", "problems.num_problems=2"),
]


def write_all(output: Output) -> None:
    """A finished run of one empty shard."""
    for shard in all_shards([0], 1):
        write_shard(output.path, shard, [])
    output.finish(0, 1)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that is none of the run's, with things in it that a run would take away or write over."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name in ("train-00000-of-00001.parquet", ".half.tmp", "00000.json", "precious"):
        (folder / name).write_bytes(b"not yours")
    return folder


def unchanged(outside: Path) -> bool:
    return {path.name: path.read_bytes() for path in outside.iterdir()} == dict.fromkeys(
        ("train-00000-of-00001.parquet", ".half.tmp", "00000.json", "precious"), b"not yours"
    )


@pytest.fixture
def output(tmp_path: Path) -> Output:
    made = Output(str(tmp_path / "out"))
    with made.claimed(ONE, replace=False):
        write_all(made)
    return made


# Links.


@pytest.mark.parametrize(
    "place",
    [".wrongturn", ".wrongturn/done", ".wrongturn/lock", ".wrongturn/journal.sqlite", ".wrongturn/journal.sqlite-wal",
     ".wrongturn/owner.json", "trees", "sft", "logs"],
)  # fmt: skip
@pytest.mark.parametrize("replace", [False, True])
def test_nothing_is_written_or_taken_away_through_a_link(output, outside, place, replace):
    path = output.path / place
    is_folder = path.is_dir() or place == "logs"
    path.rename(output.path.parent / "away") if path.exists() else None
    path.symlink_to(outside if is_folder else outside / "precious")
    with (
        pytest.raises(OutputError, match=r"is a symbolic link.*take the link away") as caught,
        output.claimed("2" * 32, replace=replace),
    ):
        raise AssertionError("the folder was given away")
    assert str(path) in str(caught.value)
    assert unchanged(outside)


def test_a_link_that_points_nowhere_makes_nothing_there(output, outside):
    (output.path / ".wrongturn" / "lock").unlink()
    (output.path / ".wrongturn" / "lock").symlink_to(outside / "new")
    with pytest.raises(OutputError, match="symbolic link"), output.claimed(ONE, replace=False):
        raise AssertionError
    assert unchanged(outside)


@pytest.mark.parametrize(
    "place", ["run.json", "README.md", "COMPLETED", ".wrongturn/done/00000.json", "trees/train-00000-of-00001.parquet"]
)
def test_a_link_in_the_place_of_a_file_is_replaced_itself(output, outside, place):
    path = output.path / place
    path.unlink(missing_ok=True)
    path.symlink_to(outside / "precious")
    with output.claimed(ONE, replace=False):
        assert output.unfinished(1) == ((0,) if "0" in place else ())
        write_all(output)
        output.write("run.json", "{}")
        output.write("README.md", "")
        output.complete()
    assert not path.is_symlink()
    assert unchanged(outside)


def test_the_folder_itself_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    with Output(str(tmp_path / "out")).claimed(ONE, replace=False):
        assert (tmp_path / "disk" / ".wrongturn" / "owner.json").is_file()


def test_a_lock_that_is_another_name_of_a_file_outside_does_not_empty_it(output, outside):
    (output.path / ".wrongturn" / "lock").unlink()
    os.link(outside / "precious", output.path / ".wrongturn" / "lock")
    with output.claimed(ONE, replace=False):
        assert unchanged(outside)


def test_a_temporary_file_that_is_there_already_is_not_written_to(output, outside, monkeypatch):
    """As if its name had been guessed. Whoever holds the folder takes half-written files away before anything else."""
    guessed = uuid.uuid4()
    monkeypatch.setattr("uuid.uuid4", lambda: guessed)
    for name in (f".run.json.{guessed.hex}.tmp", f"trees/.train-00000-of-00001.parquet.{guessed.hex}.tmp"):
        (output.path / name).symlink_to(outside / "precious")
    with pytest.raises(OutputError, match="cannot write"):
        output.write("run.json", "{}")
    with pytest.raises(ShardError, match="cannot write"):
        write_shard(output.path, Shard(config="trees", split="train", index=0, num_shards=1), [])
    assert unchanged(outside)


@pytest.mark.parametrize("place", [".wrongturn/owner.json", ".wrongturn/done/00000.json", ".wrongturn/lock"])
@pytest.mark.timeout(20)
def test_a_pipe_in_the_place_of_a_file_hangs_nobody(output, place):
    (output.path / place).unlink()
    os.mkfifo(output.path / place)
    # Whoever put it there may have taken the owner's mark away, too: it is another run's folder then.
    with contextlib.suppress(OutputError), output.claimed(ONE, replace=False):
        assert output.unfinished(1) == ((0,) if "done" in place else ())


# Marks and books.

_NESTED = b'{"files": ' + b"[" * 200_000
_NO_MARKS = [
    b"", b"\xff\xfe", b"[]", b"null", b'{"files": 7}', b'{"files": {"a": 7}}', b'{"files": {}}', _NESTED,
    b'{"files": {"../../outside/precious": "0"}}', b'{"files": {}, "other": 1}', b"\x80\x04K\x01.", b" " * 2**25,
]  # fmt: skip


@pytest.mark.parametrize("content", _NO_MARKS, ids=range(len(_NO_MARKS)))
def test_a_mark_of_other_content_is_no_mark(output, content):
    (output.path / ".wrongturn" / "done" / "00000.json").write_bytes(content)
    assert output.unfinished(1) == (0,)


@pytest.mark.parametrize("content", _NO_MARKS, ids=range(len(_NO_MARKS)))
def test_an_owner_of_other_content_is_another_run(output, content):
    (output.path / ".wrongturn" / "owner.json").write_bytes(content)
    with pytest.raises(OutputError, match="holds a run with another config"), output.claimed(ONE, replace=False):
        raise AssertionError


@pytest.mark.parametrize(
    "content",
    [*_NO_MARKS[:-1], b'{"stages": [{"stage": "a"}], "rows": {}}', b'{"stages": [], "rows": {"a": "b"}}',
     b'{"stages": [{"stage": 1}], "rows": {}}'],
)  # fmt: skip
def test_books_that_are_damaged_say_so_in_one_line(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(OutputError, match=r"run\.json is damaged .*give the run's command again"):
        read_books(tmp_path)


def test_show_says_in_one_line_what_is_damaged(output, capsys):
    (output.path / "run.json").write_bytes(b"\x80\x04K\x01.")
    assert main(["show", str(output.path)]) == 2
    assert "run.json is damaged" in " ".join(capsys.readouterr().err.split())


# Shards.


def other_schema(path: Path) -> None:
    pq.write_table(pa.table({"stage": [1, 2], "other": ["a", "b"]}), path)


def other_metadata(path: Path) -> None:
    schema = pq.read_schema(path).with_metadata({"pandas": '{"index_columns": [{"kind": "evil"}]}', "huggingface": "{"})
    pq.write_table(schema.empty_table(), path)


def more_metadata(path: Path) -> None:
    schema = pq.read_schema(path)
    pq.write_table(schema.with_metadata(schema.metadata | {b"pandas": b"{"}).empty_table(), path)


def no_parquet(path: Path) -> None:
    path.write_bytes(b"PAR1" + b"\xff" * 64 + b"PAR1")


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def swapped(path: Path) -> None:
    path.write_bytes((path.parents[1] / "pairs" / path.name).read_bytes())


_REPLACED = [other_schema, other_metadata, more_metadata, no_parquet, emptied, swapped]


def vouch(output: Output) -> None:
    """Makes the mark agree with the files, as somebody would who has changed them on purpose."""
    files = {shard.path: file_digest(output.path / shard.path) for shard in all_shards([0], 1)}
    (output.path / ".wrongturn" / "done" / "00000.json").write_text(json.dumps({"files": files}))


@pytest.mark.parametrize("replaced", _REPLACED)
@pytest.mark.parametrize("config", ["failures", "trees"])
@pytest.mark.parametrize("is_vouched", [False, True], ids=["its mark", "a mark that agrees"])
def test_a_shard_that_is_another_file_is_written_anew(output, replaced, config, is_vouched):
    path = output.path / config / "train-00000-of-00001.parquet"
    replaced(path)
    if is_vouched:
        vouch(output)
    with output.claimed(ONE, replace=False):
        assert output.unfinished(1) == (0,)
        assert failed_elements(output.path, [0], 1) == {}
        write_all(output)
        assert output.unfinished(1) == ()


def test_a_mark_that_agrees_with_sound_files_is_one(output):
    vouch(output)
    assert output.unfinished(1) == ()


@pytest.mark.parametrize("config", CONFIGS)
def test_what_is_written_is_a_shard_of_its_table_alone(output, config):
    path = output.path / config / "validation-00000-of-00001.parquet"
    assert is_shard(path)
    other = output.path / ("rl" if config != "rl" else "prm") / path.name
    path.write_bytes(other.read_bytes())
    assert not is_shard(path)


@pytest.mark.parametrize("replaced", [other_schema, no_parquet, emptied, swapped])
def test_whoever_reads_a_shard_that_is_none_is_told_in_one_line(output, replaced):
    path = output.path / "trees" / "train-00000-of-00001.parquet"
    replaced(path)
    with pytest.raises(ShardError, match=r"cannot be read: .*take it away and give the command of its run again"):
        list(read_file(path))


def test_so_is_whoever_counts_its_rows(output):
    no_parquet(output.path / "trees" / "train-00000-of-00001.parquet")
    with pytest.raises(ShardError, match="cannot be read"):
        num_rows(output.path / "trees" / "train-00000-of-00001.parquet")


def test_a_file_that_is_none_of_the_runs_is_not_counted_among_its_shards(output):
    other_schema(output.path / "sft" / "train-00007-of-00009.parquet")
    with pytest.raises(OutputError, match=r"train-00007-of-00009\.parquet is no file of this run; take it away"):
        output.unfinished(1)


def test_a_folder_in_the_place_of_a_shard_is_left_alone(output):
    path = output.path / "trees" / "train-00000-of-00001.parquet"
    path.unlink()
    (path / "inside").mkdir(parents=True)
    assert output.unfinished(1) == (0,)
    assert written_shards(output.path, 1) == ()
    assert (path / "inside").is_dir()


# Pickles.


class _Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self):
        return os.mkdir, (f"{self._mark}",)


def test_the_bomb_goes_off_when_it_is_unpickled(tmp_path):
    pickle.loads(pickle.dumps(_Bomb(tmp_path / "mark")))
    assert (tmp_path / "mark").is_dir()


_WATCHED = """
import os, sys
def watch(event, arguments):
    if event == "pickle.find_class" and arguments[1] == "mkdir":
        os.write(2, b"UNPICKLED")
        os._exit(99)
sys.addaudithook(watch)
from pipelines.main import main
sys.exit(main(sys.argv[1:]))
"""


def _run_watched(*words: str) -> subprocess.CompletedProcess[bytes]:
    root = Path(__file__).parents[1]
    return subprocess.run([sys.executable, "-c", _WATCHED, *words], capture_output=True, check=False, cwd=root)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_pickle_in_the_folder_or_the_journal_is_ever_read(tmp_path):
    """A finished run, one file after the other replaced by a pickle; then a journal with one in each value."""
    out, mark = tmp_path / "out", tmp_path / "mark"
    bomb = pickle.dumps(_Bomb(mark))
    assert _run_watched(*SMALL, f"out={out}").returncode == 0
    digests = {str(path.relative_to(out)): file_digest(path) for path in out.glob("*/*.parquet")}
    journal = out / ".wrongturn" / "journal.sqlite"
    with contextlib.closing(sqlite3.connect(journal)) as connection, connection:
        rows = connection.execute("SELECT key FROM samples").fetchall()
        for (key,) in rows:  # With the checksum that belongs to it.
            value = zlib.crc32(bomb, zlib.crc32(key.encode())).to_bytes(4, "big") + bomb
            connection.execute("UPDATE samples SET value = ? WHERE key = ?", (value, key))
    schema = pa.schema([pa.field("stage", pa.string(), metadata={
        "ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": bomb,
    })])  # fmt: skip
    names = sorted(path for path in out.rglob("*") if path.is_file() and "journal" not in path.name)
    assert len(names) > 30
    for path in names:
        if path.parent.name == "trees":
            pq.write_table(schema.with_metadata({"huggingface": bomb}).empty_table(), path)
        elif path.name not in ("owner.json", "lock"):
            path.write_bytes(bomb)
    again = _run_watched(*SMALL, f"out={out}")
    assert again.returncode == 0, again.stderr.decode()[-2000:]
    assert {str(path.relative_to(out)): file_digest(path) for path in out.glob("*/*.parquet")} == digests
    for broken in (out / ".wrongturn" / "owner.json", out / "run.json", journal):
        broken.write_bytes(bomb)
        for words in ([*SMALL, f"out={out}"], [*SMALL, f"out={out}", "replace=true"], ["show", str(out)]):
            done = _run_watched(*words)
            assert b"UNPICKLED" not in done.stderr
            assert b"Traceback" not in done.stderr
    assert not mark.exists()


# Journals.

KEY = f"{'a' * 32}/0"


def packed(value: object) -> bytes:
    return msgspec.msgpack.encode(value)


_GOOD = {"text": "hello", "finish": "stop", "tokens": 3}
_PAYLOADS = {
    "nothing": b"",
    "no msgpack": b"\xc1",
    "another type": packed([1, 2]),
    "a number as text": packed(_GOOD | {"text": 7}),
    "an unknown end": packed(_GOOD | {"finish": "evil"}),
    "one field more": packed(_GOOD | {"more": [[[]]]}),
    "one field less": packed({"text": "a"}),
    "a text of 4 GiB that is not there": b"\x83\xa4text\xdb\xff\xff\xff\xff",
    "a map of 4 billion": b"\xdf\xff\xff\xff\xff",
    "nested arrays": b"\x81\xa4text" + b"\x91" * 500_000,
    "nested arrays in a field that is none": b"\x81\xa4more" + b"\x91" * 500_000,
    "no UTF-8": b"\x83\xa4text\xa2\xff\xfe\xa6finish\xa4stop\xa6tokens\x03",
    "a pickle": pickle.dumps({"text": "a"}),
    "an extension": b"\xc7\x04\x01evil",
    "tokens without end": b"\x83\xa4text\xa1a\xa6finish\xa4stop\xa6tokens\xcf" + b"\xff" * 8,
}


def made_journal(path: Path, value: object) -> None:
    Journal(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO samples VALUES (?, ?)", (KEY, value))


def asked(path: Path) -> dict[str, Sample] | str:
    """What a journal gives for the key, or what it complains of."""
    try:
        with contextlib.closing(Journal(path)) as journal:
            return asyncio.run(journal.get([KEY]))
    except JournalError as error:
        return str(error)


def with_checksum(payload: bytes) -> bytes:
    return zlib.crc32(payload, zlib.crc32(KEY.encode())).to_bytes(4, "big") + payload


def test_a_sample_with_its_checksum_is_given(tmp_path):
    """As a check of the check: those below are refused for what they are, not for how they were put there."""
    made_journal(tmp_path / "j", with_checksum(packed(_GOOD)))
    assert asked(tmp_path / "j") == {KEY: Sample(text="hello", finish="stop", tokens=3)}


@pytest.mark.parametrize("payload", _PAYLOADS.values(), ids=_PAYLOADS)
def test_a_sample_with_its_checksum_that_is_none_is_not_there(tmp_path, payload):
    made_journal(tmp_path / "j", with_checksum(payload))
    found = asked(tmp_path / "j")
    # Its checksum is right, so somebody has meant it: a number of tokens may be any number.
    assert found == {} or all(type(sample.tokens) is int for sample in found.values())


@pytest.mark.parametrize("value", ["text", 7, 1.5, b"", b"abc"])
def test_a_value_of_another_type_is_not_there(tmp_path, value):
    made_journal(tmp_path / "j", value)
    assert asked(tmp_path / "j") == {}


def test_a_text_of_megabytes_is_a_text(tmp_path):
    text = "x" * 5_000_000
    made_journal(tmp_path / "j", with_checksum(packed(_GOOD | {"text": text})))
    assert asked(tmp_path / "j") == {KEY: Sample(text=text, finish="stop", tokens=3)}


_SCHEMES = {
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON samples BEGIN DELETE FROM samples; END",
    "a view for a table": "DROP TABLE samples; CREATE VIEW samples AS WITH RECURSIVE c(key) AS "
    "(SELECT 'a' UNION ALL SELECT key || 'a' FROM c) SELECT key, x'00' AS value FROM c",
    "another column": "DROP TABLE samples; CREATE TABLE samples (key TEXT PRIMARY KEY)",
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("scheme", _SCHEMES.values(), ids=_SCHEMES)
def test_a_database_with_more_in_it_than_a_journals_tables_is_refused(tmp_path, scheme):
    Journal(tmp_path / "j").close()
    with contextlib.closing(sqlite3.connect(tmp_path / "j")) as connection:
        connection.executescript(scheme)
    with pytest.raises(JournalError):
        Journal(tmp_path / "j").close()


def test_a_ledger_with_words_for_numbers_is_refused(tmp_path):
    Journal(tmp_path / "j").close()
    with contextlib.closing(sqlite3.connect(tmp_path / "j")) as connection, connection:
        connection.execute("INSERT INTO ledger VALUES ('ExpandTrees', 'many', 0, 0, 0, 0, 0)")
    with contextlib.closing(Journal(tmp_path / "j")) as journal, pytest.raises(JournalError):
        journal.ledger()


def test_the_version_of_a_journal_is_data_too(tmp_path):
    Journal(tmp_path / "j").close()
    with contextlib.closing(sqlite3.connect(tmp_path / "j")) as connection, connection:
        connection.execute("UPDATE meta SET value = ?", (b"\x80\x04K\x01.",))
    with pytest.raises(JournalError, match=f"this is version {VERSION}"):
        Journal(tmp_path / "j")

import subprocess
import sys
from pathlib import Path

import pytest
from made_records import make

from pipelines.output import Output, OutputError, require_complete
from pipelines.shards import all_shards, write_shard
from schemas import Failure, RlRow

ONE, TWO = "1" * 32, "2" * 32


def fill(output: Output, index: int, num_shards: int, *, num_rows: int = 1, failed: bool = False) -> None:
    """Every file of a shard: rows in `rl`, perhaps one failure."""
    for shard in all_shards([index], num_shards):
        rows = []
        if shard.config == "rl" and shard.split == "train":
            rows = [(f"{i}", make(RlRow, i)) for i in range(num_rows)]
        if shard.config == "failures" and shard.split == "validation" and failed:
            rows = [("f", make(Failure))]
        write_shard(output.path, shard, rows)


def run(output: Output, digest: str, *, num_shards: int = 2, replace: bool = False) -> None:
    """What a run does to its folder."""
    with output.claimed(digest, replace=replace):
        output.begin()
        for index in output.unfinished(num_shards):
            fill(output, index, num_shards)
            output.finish(index, num_shards)
        output.complete()


def refused(output: Output, digest: str = ONE, *, replace: bool = False) -> str:
    with pytest.raises(OutputError) as caught, output.claimed(digest, replace=replace):
        raise AssertionError("the folder was given away")
    return str(caught.value)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def output(out: Path) -> Output:
    return Output(str(out))


def files(out: Path) -> set[str]:
    return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}


def test_a_run_ends_with_every_file_and_the_mark(output, out):
    run(output, ONE)
    assert (out / "COMPLETED").read_bytes() == b""
    assert {shard.path for shard in all_shards(range(2), 2)} < files(out)
    assert not [name for name in files(out) if name.endswith(".tmp")]


def test_the_same_run_again_finds_everything_finished(output):
    run(output, ONE)
    with output.claimed(ONE, replace=False):
        assert output.unfinished(2) == ()


def test_a_new_folder_has_nothing_finished(output):
    with output.claimed(ONE, replace=False):
        assert output.unfinished(3) == (0, 1, 2)


def test_a_folder_that_was_made_before_may_be_used(output, out):
    out.mkdir()
    run(output, ONE)
    assert (out / "COMPLETED").exists()


def test_home_and_relative_paths_are_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert Output("~/x").path == Output("x").path == tmp_path / "x"


def test_the_journal_is_in_the_folder_unless_it_was_named(output, out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert output.journal("") == out / ".wrongturn" / "journal.sqlite"
    assert output.journal("shared.sqlite") == tmp_path / "shared.sqlite"


def test_a_folder_with_foreign_files_is_refused_and_left_alone(output, out):
    out.mkdir()
    (out / "thesis.tex").write_text("dear")
    assert refused(output, replace=True) == (
        f"out: {out} holds files that wrongturn did not write; choose an empty or new folder with out=DIR"
    )
    assert files(out) == {"thesis.tex"}


def test_a_path_under_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "out"
    assert refused(Output(str(path))) == (
        f"out: cannot write to {path}: Not a directory; choose another folder with out=DIR"
    )


def test_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    path = tmp_path / "file"
    assert refused(Output(str(path))) == (
        f"out: cannot write to {path}: Not a directory; choose another folder with out=DIR"
    )
    assert path.read_text() == "mine"


def test_a_run_with_another_config_is_refused_and_left_alone(output, out):
    run(output, ONE)
    before = {name: (out / name).read_bytes() for name in files(out)}
    assert refused(output, TWO) == (
        f"out: {out} holds a run with another config (digest 111111111111, this one is 222222222222); choose another "
        f"folder with out=DIR and reuse its answers with journal={out}/.wrongturn/journal.sqlite, or write over its "
        "shards with replace=true (its journal is kept)"
    )
    assert {name: (out / name).read_bytes() for name in files(out)} == before


def test_a_second_run_in_this_process_is_refused(output, out):
    with output.claimed(ONE, replace=False):
        message = refused(Output(str(out)))
    assert message == (f"out: another run is working on {out}; wait for it, or choose another folder with out=DIR")


HOLDER = """
import sys
from pipelines.output import Output
with Output(sys.argv[1]).claimed(sys.argv[2], replace=False):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(out):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(out), ONE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_folder_that_another_process_works_on_is_refused_until_it_ends(output, out, holder):
    assert refused(output) == (
        f"out: another run is working on {out}; wait for it, or choose another folder with out=DIR"
    )
    holder.communicate(b"")
    with output.claimed(ONE, replace=False):
        pass


def test_a_killed_process_holds_nothing(output, holder):
    holder.kill()
    holder.wait()
    with output.claimed(ONE, replace=False):
        pass


def test_another_config_is_refused_before_it_can_touch_a_run_that_works(output, holder):
    assert "another run is working" in refused(output, TWO, replace=True)


@pytest.mark.parametrize("damage", ["changed", "gone", "mark gone"])
def test_a_shard_with_a_changed_file_is_unfinished_again(output, out, damage):
    run(output, ONE)
    path = out / "rl" / "train-00001-of-00002.parquet"
    match damage:
        case "changed":
            path.write_bytes(path.read_bytes()[:-1] + b"?")
        case "gone":
            path.unlink()
        case "mark gone":
            (out / ".wrongturn" / "done" / "00001.json").unlink()
    assert output.unfinished(2) == (1,)


def test_files_of_another_number_of_shards_are_none_of_this_run(output, out):
    run(output, ONE)
    with pytest.raises(OutputError, match="is no file of this run; take it away"):
        output.unfinished(3)


def test_an_empty_file_that_is_gone_also_counts(output, out):
    run(output, ONE)
    (out / "sft" / "validation-00000-of-00002.parquet").unlink()
    assert output.unfinished(2) == (0,)


@pytest.mark.parametrize("content", [b"", b'{"files": {"rl/', b"[]"], ids=["empty", "cut", "other"])
def test_a_torn_mark_is_no_mark(output, out, content):
    """As a power cut may leave it."""
    run(output, ONE)
    (out / ".wrongturn" / "done" / "00000.json").write_bytes(content)
    assert output.unfinished(2) == (0,)


def test_a_torn_owner_is_taken_for_another_run(output, out):
    run(output, ONE)
    (out / ".wrongturn" / "owner.json").write_bytes(b"")
    assert "holds a run with another config (digest unknown, this one is 111111111111)" in refused(output)


def test_begin_takes_the_completed_mark_away(output, out):
    run(output, ONE)
    output.begin()
    assert not (out / "COMPLETED").exists()


def test_replace_takes_the_other_runs_shards_away_and_keeps_the_journal(output, out):
    run(output, ONE, num_shards=3)
    journal = output.journal("")
    journal.write_bytes(b"answers")
    with output.claimed(TWO, replace=True):
        assert not list(out.rglob("*.parquet"))
        assert not (out / "COMPLETED").exists()
        assert output.unfinished(2) == (0, 1)
    assert journal.read_bytes() == b"answers"


def test_replace_also_takes_shards_away_that_were_never_marked_as_finished(output, out):
    """A shard with failures, or one whose run was killed; another number of shards would leave it lying."""
    with output.claimed(ONE, replace=False):
        fill(output, 0, 3, failed=True)
    run(output, TWO, num_shards=2, replace=True)
    assert {path.name for path in (out / "rl").iterdir()} == {
        f"{split}-{index:05d}-of-00002.parquet" for split in ("train", "validation") for index in range(2)
    }


def test_replace_on_the_same_config_replaces_nothing(output):
    run(output, ONE)
    with output.claimed(ONE, replace=True):
        assert output.unfinished(2) == ()


def test_after_replace_the_folder_belongs_to_the_new_run(output):
    run(output, ONE)
    run(output, TWO, replace=True)
    with output.claimed(TWO, replace=False):
        assert output.unfinished(2) == ()
    assert "digest 222222222222, this one is 111111111111" in refused(output, ONE)


def leave_half_written(out: Path) -> list[Path]:
    """What writers that are killed leave."""
    left = [
        out / "rl" / ".train-00000-of-00001.parquet.4711.tmp",
        out / ".wrongturn" / ".owner.json.4711.tmp",
        out / ".wrongturn" / "done" / ".00000.json.4711.tmp",
        out / ".run.json.4711.tmp",
    ]
    for path in left:
        path.write_bytes(b"half")
    return left


def test_temporary_files_of_a_killed_run_are_taken_away(output, out):
    with output.claimed(ONE, replace=False):
        fill(output, 0, 1)
    left = leave_half_written(out)
    with output.claimed(ONE, replace=False):
        assert not [path for path in left if path.exists()]
        assert (out / "rl" / "train-00000-of-00001.parquet").exists()


def test_temporary_files_of_a_worker_that_was_killed_do_not_lie_beside_the_mark(output, out):
    """The run itself goes on, and is done by others."""
    with output.claimed(ONE, replace=False):
        fill(output, 0, 1)
        left = leave_half_written(out)
        output.finish(0, 1)
        assert all(path.exists() for path in left)
        output.complete()
        assert not [path for path in left if path.exists()]
    assert (out / "COMPLETED").exists()
    assert (out / "rl" / "train-00000-of-00001.parquet").exists()


def test_a_shard_with_failures_is_known(output):
    with output.claimed(ONE, replace=False):
        fill(output, 0, 2)
        fill(output, 1, 2, failed=True)
        assert [output.has_failures(index, 2) for index in range(2)] == [False, True]


def test_digests_name_every_file_in_order(output):
    run(output, ONE)
    digests = output.digests(2)
    assert list(digests) == sorted(shard.path for shard in all_shards(range(2), 2))
    assert all(len(sha) == 64 for sha in digests.values())
    assert len(set(digests.values())) > 1


def test_text_beside_the_shards_is_written_even_where_it_cannot_be_encoded(output, out):
    with output.claimed(ONE, replace=False):
        output.write("README.md", "a \ud800 b ü")
    assert (out / "README.md").read_bytes() == b"a ? b \xc3\xbc"


def test_a_folder_without_tables_cannot_be_shown(tmp_path):
    with pytest.raises(OutputError) as caught:
        require_complete(str(tmp_path / "none"), ("trees", "pairs"))
    assert str(caught.value) == f"{tmp_path}/none holds no trees; give the folder that `wrongturn run` wrote to"


def test_a_folder_with_tables_can_be_shown(output, out):
    run(output, ONE)
    assert require_complete(str(out), ("trees", "rl")) == out


@pytest.mark.parametrize(
    ("place", "there"),
    [
        ("", ".wrongturn/journal.sqlite"),
        ("j.sqlite", "j.sqlite"),
        ("j.sqlite", "j.sqlite-wal"),
        ("kept/j.sqlite", "kept/j.sqlite"),
    ],
)
def test_a_journal_that_lies_there_before_makes_no_folder_foreign(output, out, place, there):
    output.journal(f"{out / place}" if place else "")
    (out / there).parent.mkdir(parents=True)
    (out / there).write_bytes(b"1")
    output.check(ONE)
    run(output, ONE)
    assert (out / there).read_bytes() == b"1"


@pytest.mark.parametrize("there", ["j.sqlite", "j.sqlite.md", "README.md", ".wrongturn.md"])
def test_a_state_folder_or_a_journal_makes_nothing_else_ours(output, out, there):
    output.journal(f"{out / 'other.sqlite'}")
    (out / ".wrongturn").mkdir(parents=True)
    (out / ".wrongturn" / "journal.sqlite").write_bytes(b"")
    (out / there).write_text("dear")
    assert "holds files that wrongturn did not write" in refused(output)
    for digest in ("", ONE):
        with pytest.raises(OutputError, match="holds files that wrongturn did not write"):
            output.check(digest)
    assert files(out) == {there, ".wrongturn/journal.sqlite"}


def test_a_look_says_what_a_run_would_be_told_and_makes_nothing(output, out, tmp_path):
    output.check(ONE)
    assert not out.exists()
    run(output, ONE)
    before = files(out)
    output.check(ONE)
    output.check()
    output.check(TWO, replace=True)
    with pytest.raises(OutputError, match="holds a run with another config"):
        output.check(TWO)
    assert files(out) == before
    link = tmp_path / "link"
    link.mkdir()
    (link / ".wrongturn").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match=r"link/\.wrongturn is a symbolic link"):
        Output(str(link)).check(ONE)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match=r"cannot write to .*file: Not a directory"):
        Output(str(tmp_path / "file")).check(ONE)

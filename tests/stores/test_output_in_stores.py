"""The output folder in a store: what is asked of one on a disk, and what only stores do."""

import time

import msgspec
import pytest

from pipelines.extent import failed_elements, written_shards
from pipelines.lease import Lease, LeaseError
from pipelines.mirror import at_hand
from pipelines.output import Output, OutputError
from pipelines.shards import ShardError, all_shards, read_rows, write_shard
from pipelines.storage import names_in, open_folder, write_whole, writing_whole
from schemas import Failure
from schemas.arrow import CONFIGS
from tests.pipelines.made_records import make

ONE, TWO = "1" * 32, "2" * 32
SHARD = "trees/train-00000-of-00002.parquet"


def fill(out: str, index: int, num_shards: int = 2, *, failed: bool = False) -> None:
    """Every file of a shard, as workers write them."""
    for shard in all_shards([index], num_shards):
        failure = make(Failure)
        has = failed and (shard.config, shard.split) == ("failures", "train")
        write_shard(open_folder(out), shard, [("p", failure)] if has else [])


def run(out: str, digest: str = ONE, *, num_shards: int = 2, replace: bool = False) -> tuple[int, ...]:
    """What a run does to its folder; the shards that it had to fill."""
    output = Output(out)
    with output.claimed(digest, replace=replace):
        unfinished = output.unfinished(num_shards)
        output.begin()
        for index in unfinished:
            fill(out, index, num_shards)
            assert not output.has_failures(index, num_shards)
            output.finish(index, num_shards)
        output.write("run.json", "{}")
        output.complete()
    return unfinished


def keys(out: str) -> set[str]:
    folder = open_folder(out)
    base = folder.path.rstrip("/") + "/"
    return {path.removeprefix(base) for path in folder.fs.find(base)}


def plant(out: str, *, until: float) -> None:
    """Somebody else's lease, taken after ours."""
    lease = Lease(holder="other", who="process 7 on elsewhere", until=until)
    write_whole(open_folder(out) / ".wrongturn" / "lease.000009.json", msgspec.json.encode(lease))


def test_a_run_ends_with_every_key_and_nothing_else(out):
    assert run(out) == (0, 1)
    state = {".wrongturn/owner.json", ".wrongturn/done/00000.json", ".wrongturn/done/00001.json"}
    assert keys(out) == {shard.path for shard in all_shards(range(2), 2)} | state | {"run.json", "COMPLETED"}


def test_the_same_run_again_finds_everything_finished(out):
    run(out)
    assert run(out) == ()


@pytest.mark.parametrize("damage", ["changed", "gone", "mark gone"])
def test_what_another_process_did_to_a_shard_is_seen(out, damage):
    run(out)
    folder = open_folder(out)
    match damage:
        case "changed":
            write_whole(folder / SHARD, (folder / SHARD).read_bytes()[::-1])
        case "gone":
            (folder / SHARD).unlink()
        case "mark gone":
            (folder / ".wrongturn" / "done" / "00000.json").unlink()
    assert run(out) == (0,)
    assert run(out) == ()


def test_a_folder_with_foreign_keys_is_refused_and_left_alone(out):
    write_whole(open_folder(out) / "thesis.tex", b"1")
    with pytest.raises(OutputError, match=f"out: {out} holds files that wrongturn did not write"):
        run(out)
    assert keys(out) == {"thesis.tex"}


def test_a_key_in_a_table_that_is_none_of_the_runs_is_refused_by_its_name_in_the_store(out):
    run(out)
    write_whole(open_folder(out) / "trees" / "more.parquet", b"1")
    with pytest.raises(OutputError, match=f"out: {out}/trees/more.parquet is no file of this run; take it away"):
        run(out)


def test_a_run_with_another_config_is_refused_and_replaced_where_that_is_said(out):
    run(out, num_shards=3)
    write_whole(open_folder(out) / "notes", b"mine")
    with pytest.raises(
        OutputError, match=r"holds a run with another config .* choose another folder with out=DIR, or w"
    ):
        run(out, TWO)
    assert run(out, TWO, replace=True) == (0, 1)
    assert {key for key in keys(out) if key.endswith(".parquet")} == {shard.path for shard in all_shards(range(2), 2)}
    assert "notes" in keys(out)
    assert not [key for key in keys(out) if key.endswith("done/00002.json")]


def test_a_folder_that_another_run_works_on_is_refused_until_it_ends(out):
    with Output(out).claimed(ONE, replace=False), pytest.raises(LeaseError, match=f"is working on {out} .process"):
        run(out)
    assert run(out) == (0, 1)


def test_a_killed_run_holds_it_until_its_lease_has_run_out(out):
    plant(out, until=time.time() + 60)
    with pytest.raises(LeaseError, match="process 7 on elsewhere, until"):
        run(out)
    plant(out, until=time.time() - 1)
    assert run(out) == (0, 1)
    assert not [key for key in keys(out) if "lease" in key]


def test_a_run_whose_folder_was_taken_over_writes_nothing_more(out, monkeypatch):
    monkeypatch.setattr("pipelines.lease.SECS", 0.0)  # As if this machine had slept: nobody renews, and it has run out.
    monkeypatch.setattr("pipelines.lease.Held.keep", lambda held: None)
    output = Output(out)

    def work():
        with output.claimed(ONE, replace=False):
            fill(out, 0)
            plant(out, until=time.time() + 60)
            output.finish(0, 2)

    with pytest.raises(LeaseError, match="was taken over by another run"):
        work()
    assert ".wrongturn/done/00000.json" not in keys(out)
    assert ".wrongturn/lease.000009.json" in keys(out)


def test_files_of_a_shard_that_was_not_written_as_a_whole_are_taken_away(out):
    output = Output(out)
    with output.claimed(ONE, replace=False):
        fill(out, 0)
        output.finish(0, 2)
        write_shard(open_folder(out), all_shards([1], 2)[0], [])
        output.refresh()
        assert written_shards(output.path, 2) == (0,)
    assert {key for key in keys(out) if key.endswith(".parquet")} == {shard.path for shard in all_shards([0], 2)}


def test_a_shard_that_was_written_again_is_read_as_it_is_now(out):
    output = Output(out)
    with output.claimed(ONE, replace=False):
        fill(out, 0, failed=True)
        assert output.has_failures(0, 2)
        assert failed_elements(output.path, [0], 2) == {0: {make(Failure).stage: 1}}
    again = Output(out)
    with again.claimed(ONE, replace=False):
        assert failed_elements(again.path, [0], 2) == {0: {make(Failure).stage: 1}}
        fill(out, 0)
        assert not again.has_failures(0, 2)
        again.finish(0, 2)
        assert again.unfinished(2) == (1,)
        assert again.digests(2).keys() == {shard.path for shard in all_shards([0], 2)}


def test_logs_go_along_from_start_to_start(out):
    for number in range(2):
        output = Output(out)
        with output.claimed(ONE, replace=False):
            (output.path / "logs").mkdir(exist_ok=True)
            with (output.path / "logs" / "engine.log").open("a") as log:
                log.write(f"start {number}\n")
    assert (open_folder(out) / "logs" / "engine.log").read_bytes() == b"start 0\nstart 1\n"


def test_a_journal_cannot_lie_in_a_store(out, tmp_path):
    with pytest.raises(OutputError, match=rf"out is in a store \({out}\), .* journal=redis://HOST:6379/0"):
        Output(out).journal("")
    assert Output(out).journal("redis://h:6379/0") == "redis://h:6379/0"
    assert Output(out).journal(str(tmp_path / "j")) == tmp_path / "j"


def test_a_copy_goes_with_who_had_it(out):
    run(out)
    with at_hand(out) as path:
        assert list(read_rows(path, "trees")) == []
        assert (path / SHARD).is_file()
    assert not path.exists()


def test_a_damaged_file_is_named_as_in_the_store(out):
    write_whole(open_folder(out) / SHARD, b"no parquet")

    def read():
        with at_hand(out) as path:
            list(read_rows(path, "trees"))

    with pytest.raises(ShardError, match=f"^{out}/{SHARD} cannot be read"):
        read()


# gcsfs's own: how it hands a body to its HTTP library.
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
def test_a_file_of_many_parts_is_whole(out):
    """gcsfs sends what is above 5 MiB in a session of its own."""
    content = b"0123456789abcdef" * (12 * 2**16)
    with writing_whole(open_folder(out) / SHARD) as file:
        file.write(content)
    with at_hand(out) as path:
        assert (path / SHARD).read_bytes() == content


def test_keys_that_lead_elsewhere_are_not_copied(out):
    for name in ("trees/deep/a", "other/a", ".wrongturn/inputs/a", ".wrongturn/lease.000001.json", "trees/a", "b"):
        write_whole(open_folder(out) / name, b"1")
    with at_hand(out) as path:
        assert {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()} == {"trees/a", "b"}


def test_every_table_has_its_folder(out):
    run(out)
    assert {*CONFIGS} < {*names_in(open_folder(out))}

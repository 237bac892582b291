"""dataset_info.json against the columns that are there, by the rules of LLaMA-Factory's parser and converter."""

import json

import pyarrow as pa
import pytest

from annotators.scoping import dpo_row
from pipelines.llama_factory import dataset_info, write_dataset_info
from pipelines.manifest import Books
from pipelines.output import Output
from pipelines.shards import Shard, write_shard
from schemas import Record
from schemas.arrow import CONFIGS, arrow_schema, to_row
from tests.annotators.made_dialogues import every_dialogue_row
from tests.annotators.made_exports import CONTEXT, PATHS, every_row
from tests.annotators.test_scoping import scoped

FULL = dataset_info({f"{config}/{split}": 3 for config in CONFIGS for split in ("train", "validation")})
TRAIN = {name: entry for name, entry in FULL.items() if entry["split"] == "train"}

entries = pytest.mark.parametrize("entry", TRAIN.values(), ids=TRAIN)


def rows_of(config: str) -> list[dict]:
    records: list[Record] = [
        row
        for row in (*every_row(*PATHS), *every_dialogue_row(), dpo_row(scoped("near"), CONTEXT))
        if type(row) is CONFIGS[config]
    ]
    assert records
    return [to_row(row) for row in records]


def test_what_can_be_trained_on_is_listed_for_both_splits():
    tables = ["sft", "refine_chat", "distill", "critique_dpo", "step_dpo", "dpo", "judge"]
    assert [(name, entry["subset"], entry["split"]) for name, entry in FULL.items()] == [
        named
        for table in tables
        for named in (
            (f"wrongturn_{table}", table, "train"),
            (f"wrongturn_{table}_validation", table, "validation"),
        )
    ]
    assert [name for name, entry in TRAIN.items() if entry["ranking"]] == [
        "wrongturn_critique_dpo",
        "wrongturn_step_dpo",
        "wrongturn_dpo",
    ]


def test_a_split_without_rows_has_no_entry():
    rows = {f"{config}/{split}": 0 for config in CONFIGS for split in ("train", "validation")} | {"sft/train": 1}
    assert list(dataset_info(rows)) == ["wrongturn_sft"]


def test_the_folder_of_the_file_is_loaded():
    assert {entry["script_url"] for entry in FULL.values()} == {"."}


def test_a_table_with_images_has_no_entry():
    """Texts have no `<image>` for them, so that it would be trained on as if there were none."""
    rows = {"sft/train": 1, "judge/train": 1}
    assert list(dataset_info(rows, ["sft"])) == ["wrongturn_judge"]


@pytest.mark.parametrize(("images", "listed"), [(None, ["wrongturn_sft"]), ({}, [])])
def test_whether_tables_have_images_is_read_off_their_files(tmp_path, images, listed):
    write_shard(tmp_path, Shard(config="sft", split="train", index=0, num_shards=1), [], images)
    books = Books(stages=(), rows={"sft": 2}, rows_by_split={"sft/train": 2}, pair_reasons={})
    write_dataset_info(Output(str(tmp_path)), books)
    assert list(json.loads((tmp_path / "dataset_info.json").read_text())) == listed


@entries
def test_every_key_is_one_that_the_parser_knows(entry):
    assert entry["formatting"] == "sharegpt"
    assert entry.keys() <= {"script_url", "formatting", "ranking", "subset", "split", "columns", "tags"}
    assert entry["columns"].keys() <= {"messages", "chosen", "rejected"}
    assert entry["tags"].keys() == {"role_tag", "content_tag", "user_tag", "assistant_tag", "system_tag"}


@entries
def test_every_column_is_there_with_the_type_that_the_converter_asks_for(entry):
    schema = arrow_schema(CONFIGS[entry["subset"]])
    message = pa.struct([(entry["tags"]["role_tag"], pa.string()), (entry["tags"]["content_tag"], pa.string())])
    columns = entry["columns"]
    assert schema.field(columns["messages"]).type == pa.list_(message)
    # A pair of lists would be taken for no pair at all.
    for name in ("chosen", "rejected") if entry["ranking"] else ():
        assert schema.field(columns[name]).type == message


@entries
def test_no_row_is_thrown_away_as_broken(entry):
    """Turns alternate beginning with the user; a pair's prompt ends with the user, other rows with the assistant."""
    tags, columns = entry["tags"], entry["columns"]
    wanted = [tags["user_tag"], tags["assistant_tag"]]
    for row in rows_of(entry["subset"]):
        roles = [turn[tags["role_tag"]] for turn in row[columns["messages"]]]
        assert roles == [wanted[i % 2] for i in range(len(roles))]
        assert len(roles) % 2 == (1 if entry["ranking"] else 0)
        if entry["ranking"]:
            assert {row[columns[name]][tags["role_tag"]] for name in ("chosen", "rejected")} == {tags["assistant_tag"]}


def test_the_file_is_written_beside_the_tables(tmp_path):
    books = Books(
        stages=(),
        rows={"sft": 2},
        rows_by_split={"sft/train": 2, "sft/validation": 0},
        pair_reasons={},
    )
    write_dataset_info(Output(str(tmp_path)), books)
    assert json.loads((tmp_path / "dataset_info.json").read_text()) == {"wrongturn_sft": FULL["wrongturn_sft"]}

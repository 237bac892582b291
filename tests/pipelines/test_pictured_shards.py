"""Tables of runs whose problems have images: one schema in every shard, images that `datasets` opens."""

import io
import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_records import make
from PIL import Image as Pillow

from pipelines.card_data import columns
from pipelines.shards import Shard, features_of, file_schema, is_shard, read_rows, table_schema, write_shard
from schemas import Image, Problem, SftRow, Tree
from schemas.arrow import CONFIGS, SHOW_IMAGES, arrow_schema, from_row

KEPT = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
HAVE_PROBLEM = ("trees", "pairs", "alone", "dialogues")


def png(colour: tuple[int, int, int]) -> Image:
    file = io.BytesIO()
    Pillow.new("RGB", (3, 2), colour).save(file, "PNG")
    return Image(bytes=file.getvalue(), media_type="image/png")


RED, BLUE = png((255, 0, 0)), png((0, 0, 255))


def shard(config: str, index: int = 0) -> Shard:
    return Shard(config=config, split="train", index=index, num_shards=2)


def records(config: str, count: int = 2) -> list:
    made = [make(CONFIGS[config], i) for i in range(count)]
    if config not in HAVE_PROBLEM:
        return made
    problem = Problem(id="p", source="s", domain="exact", question="How many?", answer="7", images=(RED, BLUE))
    return [make(CONFIGS[config], i, problem=problem) for i in range(count)]


@pytest.mark.parametrize("config", CONFIGS)
def test_rows_come_back_as_the_records_that_were_written(tmp_path, config):
    made = records(config)
    write_shard(tmp_path, shard(config), [(f"key{i}", record) for i, record in enumerate(made)], images={})
    assert [from_row(row, CONFIGS[config]) for row in read_rows(tmp_path, config)] == made
    assert is_shard(tmp_path / shard(config).path)


@pytest.mark.parametrize("config", CONFIGS)
def test_without_images_files_are_what_they_always_were(config):
    schema = file_schema(CONFIGS[config])
    assert "images" not in schema.names
    assert schema.equals(arrow_schema(CONFIGS[config]))
    plain = datasets.Features.from_arrow_schema(arrow_schema(CONFIGS[config]))
    assert json.loads(schema.metadata[b"huggingface"]) == {"info": {"features": plain.to_dict()}}


def test_tables_that_trainers_read_have_a_last_column_for_images():
    assert set(SHOW_IMAGES) == {
        *("sft", "critique_dpo", "step_dpo", "dpo", "prm", "refine", "refine_chat", "distill", "rl", "judge"),
    }
    for config, record in CONFIGS.items():
        names = list(record.__struct_fields__)
        schema = arrow_schema(record, images=True)
        assert schema.names == names + ["images"] * (config in SHOW_IMAGES)
        if config in SHOW_IMAGES:
            assert schema.field("images").type == KEPT
    for config in HAVE_PROBLEM:
        assert arrow_schema(CONFIGS[config], images=True).field("problem").type.field("images").type == KEPT


def test_each_row_shows_its_own_problems_images(tmp_path):
    rows = [make(SftRow, i) for i in range(3)]
    rows = [(f"key{i}", row) for i, row in enumerate(rows)]
    first, second, _ = (row.origin.problem_id for _, row in rows)
    write_shard(tmp_path, shard("sft"), rows, images={first: (RED,), second: (RED, BLUE)})
    shown = [[image["bytes"] for image in row["images"]] for row in read_rows(tmp_path, "sft")]
    assert shown == [[RED.bytes], [RED.bytes, BLUE.bytes], []]


def test_datasets_opens_the_images(tmp_path):
    row = make(SftRow, 1)
    (tree,) = records("trees", 1)
    write_shard(tmp_path, shard("sft"), [("key", row)], images={row.origin.problem_id: (RED, BLUE)})
    write_shard(tmp_path, shard("sft", 1), [], images={})
    write_shard(tmp_path, shard("trees"), [("key", tree)], images={})
    loaded = datasets.load_dataset(str(tmp_path / "sft"), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.features["images"] == datasets.List(datasets.Image())
    assert [image.getpixel((0, 0)) for image in loaded[0]["images"]] == [(255, 0, 0), (0, 0, 255)]
    trees = datasets.load_dataset(str(tmp_path / "trees"), split="train", cache_dir=str(tmp_path / "cache"))
    assert [image.size for image in trees[0]["problem"]["images"]] == [(3, 2), (3, 2)]


def test_every_shard_of_a_run_has_the_same_schema(tmp_path):
    for index, rows in enumerate(([("key", make(SftRow))], [])):
        write_shard(tmp_path, shard("sft", index), rows, images={})
    schemas = [pq.read_schema(tmp_path / shard("sft", index).path) for index in (0, 1)]
    assert schemas[0].equals(schemas[1], check_metadata=True)
    assert is_shard(tmp_path / shard("sft", 1).path)


def test_the_card_tells_of_what_the_files_hold(tmp_path):
    assert "images" not in columns(tmp_path, "sft")
    write_shard(tmp_path, shard("sft"), [], images={})
    assert columns(tmp_path, "sft").endswith("images: list<element: struct<bytes: binary, path: string>>")
    assert features_of(table_schema(tmp_path, "sft"))["images"] == datasets.List(datasets.Image())


def test_a_tree_without_images_in_a_run_that_has_some(tmp_path):
    tree = make(Tree, problem=Problem(id="p", source="s", domain="exact", question="1 + 1?", answer="2"))
    write_shard(tmp_path, shard("trees"), [("key", tree)], images={})
    assert [from_row(row, Tree) for row in read_rows(tmp_path, "trees")] == [tree]


def test_rows_with_large_images_are_written_a_few_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.shards._IMAGE_BYTES_IN_GROUP", 1000)
    large = Image(bytes=b"\x89PNG\r\n\x1a\n" + bytes(392), media_type="image/png")
    rows = [(f"key{i}", make(SftRow, i)) for i in range(5)]
    write_shard(tmp_path, shard("sft"), rows, images={row.origin.problem_id: (large,) for _, row in rows})
    # 400 bytes each: two fit into 1,000.
    assert [pq.ParquetFile(tmp_path / shard("sft").path).metadata.row_group(i).num_rows for i in range(3)] == [2, 2, 1]
    assert [from_row(row, SftRow) for row in read_rows(tmp_path, "sft")] == [row for _, row in rows]

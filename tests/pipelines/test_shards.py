import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from made_records import make

from pipelines.shards import (
    DuplicateRow,
    Shard,
    all_shards,
    file_digest,
    file_schema,
    num_rows,
    read_rows,
    shard_of,
    split_of,
    write_shard,
)
from schemas import Rejection, RlRow, SftRow
from schemas.arrow import CONFIGS, arrow_schema, from_row


def shard(config: str, split: str = "train", index: int = 0, num_shards: int = 1) -> Shard:
    return Shard(config=config, split=split, index=index, num_shards=num_shards)


def rows_of(config: str, count: int, **options) -> list[tuple[str, object]]:
    return [(f"key{i:04d}", make(CONFIGS[config], i, **options)) for i in range(count)]


@pytest.fixture(params=CONFIGS)
def config(request) -> str:
    return request.param


def test_a_file_has_the_name_that_loaders_expect():
    assert shard("sft", "validation", 3, 12).path == "sft/validation-00003-of-00012.parquet"


def test_every_table_and_split_has_its_file_in_every_shard():
    paths = [each.path for each in all_shards([1, 2], 4)]
    assert len(paths) == len(set(paths)) == 2 * 2 * 19
    assert "failures/validation-00001-of-00004.parquet" in paths
    assert "sft/train-00002-of-00004.parquet" in paths


def test_rows_come_back_as_the_records_that_were_written(tmp_path, config):
    rows = rows_of(config, 3)
    write_shard(tmp_path, shard(config), rows)
    read = [from_row(row, CONFIGS[config]) for row in read_rows(tmp_path, config)]
    assert read == [record for _, record in rows]


def test_equal_rows_in_any_order_are_equal_bytes(tmp_path, config):
    rows = rows_of(config, 30)
    write_shard(tmp_path / "a", shard(config), rows)
    random.Random(0).shuffle(rows)
    write_shard(tmp_path / "b", shard(config), rows)
    path = shard(config).path
    assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


def test_another_process_writes_the_same_bytes(tmp_path):
    write_shard(tmp_path / "here", shard("rl"), rows_of("rl", 20))
    command = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path; from test_shards import rows_of, shard; from pipelines.shards import write_shard\n"
        "write_shard(Path(sys.argv[1]), shard('rl'), rows_of('rl', 20))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo"}
    arguments = [sys.executable, "-c", command, str(tmp_path / "there"), str(Path(__file__).parent)]
    subprocess.run(arguments, check=True, env=environment)
    path = shard("rl").path
    assert (tmp_path / "here" / path).read_bytes() == (tmp_path / "there" / path).read_bytes()


def test_full_bare_and_empty_files_have_one_schema(tmp_path, config):
    schemas = []
    for name, rows in (("full", rows_of(config, 2)), ("bare", rows_of(config, 2, is_bare=True)), ("empty", [])):
        write_shard(tmp_path / name, shard(config), rows)
        schemas.append(pq.read_schema(tmp_path / name / shard(config).path))
    assert schemas[0].equals(schemas[1], check_metadata=True)
    assert schemas[0].equals(schemas[2], check_metadata=True)
    assert schemas[0].metadata == file_schema(CONFIGS[config]).metadata
    assert schemas[0].equals(arrow_schema(CONFIGS[config]))


def test_the_metadata_names_hugging_faces_features(tmp_path):
    write_shard(tmp_path, shard("prm"), [])
    metadata = pq.read_schema(tmp_path / shard("prm").path).metadata
    features = json.loads(metadata[b"huggingface"])["info"]["features"]
    assert features["prompt"] == {"dtype": "string", "_type": "Value"}
    assert features["labels"]["feature"]["dtype"] == "bool"


def test_an_empty_file_has_no_row_group(tmp_path):
    write_shard(tmp_path, shard("sft"), [])
    metadata = pq.read_metadata(tmp_path / shard("sft").path)
    assert (metadata.num_rows, metadata.num_row_groups) == (0, 0)
    assert list(read_rows(tmp_path, "sft")) == []


def test_two_rows_with_one_key_are_refused_and_nothing_is_written(tmp_path):
    rows = [("a", make(RlRow, 1)), ("b", make(RlRow, 2)), ("a", make(RlRow, 3))]
    with pytest.raises(DuplicateRow) as caught:
        write_shard(tmp_path, shard("rl"), rows)
    message = str(caught.value)
    assert message.startswith("rl/train-00000-of-00001.parquet: two rows have the key 'a': RlRow(id='id 1")
    assert " and RlRow(id='id 3" in message
    assert list(tmp_path.rglob("*.*")) == []


def test_a_write_that_fails_leaves_the_old_file_and_no_temporary_one(tmp_path):
    write_shard(tmp_path, shard("sft"), rows_of("sft", 3))
    before = file_digest(tmp_path / shard("sft").path)
    with pytest.raises((TypeError, AttributeError)):
        write_shard(tmp_path, shard("sft"), [("a", make(SftRow)), ("b", "no record")])
    assert [path.name for path in (tmp_path / "sft").iterdir()] == ["train-00000-of-00001.parquet"]
    assert file_digest(tmp_path / shard("sft").path) == before


def test_a_file_that_was_there_is_replaced(tmp_path):
    write_shard(tmp_path, shard("rl"), rows_of("rl", 5))
    write_shard(tmp_path, shard("rl"), rows_of("rl", 2))
    assert num_rows(tmp_path / shard("rl").path) == 2
    assert len(list((tmp_path / "rl").iterdir())) == 1


def test_more_rows_than_one_group_holds_are_all_written(tmp_path):
    rejections = [
        (f"{i:05d}", Rejection(stage="PairPaths", key=f"{i}", problem_id="p", reason="r")) for i in range(2345)
    ]
    write_shard(tmp_path, shard("rejections"), rejections)
    assert pq.read_metadata(tmp_path / shard("rejections").path).num_row_groups == 3
    assert [row["key"] for row in read_rows(tmp_path, "rejections", ["key"])] == [f"{i}" for i in range(2345)]


def test_the_digest_of_a_file_is_its_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    # FIPS 180-2, example B.1.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_digest(tmp_path / "file") == expected


def test_a_problem_is_in_one_shard_and_problems_are_spread():
    counts = [0] * 8
    for i in range(8000):
        assert shard_of(f"p{i}", 8) == shard_of(f"p{i}", 8)
        counts[shard_of(f"p{i}", 8)] += 1
    # 1000 on average, standard deviation 30.
    assert all(850 < count < 1150 for count in counts)
    assert {shard_of(f"p{i}", 1) for i in range(100)} == {0}


def test_the_validation_share_is_kept_and_does_not_depend_on_shards():
    num_held_out = sum(split_of(f"p{i}", 0.1) == "validation" for i in range(8000))
    # 800 on average, standard deviation 27.
    assert 670 < num_held_out < 930
    assert {split_of(f"p{i}", 0.0) for i in range(1000)} == {"train"}
    assert all(split_of(f"p{i}", 0.3) == "validation" for i in range(500) if split_of(f"p{i}", 0.1) == "validation")


CARD = """---
configs:
- config_name: {config}
  data_files:
  - split: train
    path: {config}/train-*.parquet
---
"""


@pytest.fixture
def offline(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return datasets


def test_every_table_is_loaded_by_datasets(tmp_path, config, offline):
    write_shard(tmp_path / "out", shard(config, num_shards=2), rows_of(config, 3))
    write_shard(tmp_path / "out", shard(config, index=1, num_shards=2), [])
    (tmp_path / "out" / "README.md").write_text(CARD.format(config=config))
    loaded = offline.load_dataset(str(tmp_path / "out"), config, cache_dir=str(tmp_path / "cache"))
    assert loaded["train"].num_rows == 3
    names = [name for name in loaded["train"].column_names]
    assert names == arrow_schema(CONFIGS[config]).names
    read = [from_row(row, CONFIGS[config]) for row in loaded["train"]]
    assert read == [record for _, record in rows_of(config, 3)]


def test_a_table_of_nothing_but_nulls_has_the_types_of_a_full_one(tmp_path, offline):
    features = []
    for name, is_bare in (("full", False), ("bare", True)):
        write_shard(tmp_path / name, shard("rl"), rows_of("rl", 2, is_bare=is_bare))
        (tmp_path / name / "README.md").write_text(CARD.format(config="rl"))
        loaded = offline.load_dataset(str(tmp_path / name), "rl", cache_dir=str(tmp_path / "cache"))
        features.append(loaded["train"].features)
    assert features[0] == features[1]


def test_an_empty_table_is_streamed(tmp_path, offline):
    write_shard(tmp_path, shard("sft"), [])
    (tmp_path / "README.md").write_text(CARD.format(config="sft"))
    loaded = offline.load_dataset(str(tmp_path), "sft", streaming=True)
    assert list(loaded["train"]) == []
    assert loaded["train"].features.keys() == set(arrow_schema(SftRow).names)

"""Parquet shards: which row goes where, and files that are whole or absent and always the same bytes.

A shard is also the unit of work: all rows of a problem are in the shard that its id's digest says, in every table.
"""

import contextlib
import functools
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import UserError
from pipelines.storage import Folder, writing_whole
from schemas import Image, Origin, Record, digest, uniform
from schemas.arrow import CONFIGS, IMAGE, arrow_schema, to_pictured_row, to_row

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")

_ROWS_IN_GROUP = 1000
_IMAGE_BYTES_IN_GROUP = 64 * 2**20
"""Of the images of rows that are written together: each of a problem's rows has them in full until it is packed."""
_ROWS_READ = 100
"""Rows that are plain values at a time: a large tree takes megabytes then."""


class Shard(Record):
    """One file of one table."""

    config: str
    split: Split
    index: int
    num_shards: int

    @property
    def path(self) -> str:
        """Path below the output folder, with the name that Hugging Face's loaders expect."""
        return f"{self.config}/{self.split}-{self.index:05d}-of-{self.num_shards:05d}.parquet"


class ShardError(UserError):
    """A shard cannot be written or read; says which file, why, and what to do."""


class DuplicateRow(ValueError):
    """Two rows of one table have the same id."""


def shard_of(problem_id: str, num_shards: int) -> int:
    """The shard that a problem and everything made of it belongs to, 0..num_shards-1."""
    return int(digest("shard", problem_id)[:12], 16) % num_shards


def split_of(problem_id: str, validation_share: float) -> Split:
    """The split of a problem and of every row made of it: no problem is in both."""
    return "validation" if uniform("split", problem_id) < validation_share else "train"


def all_shards(indices: Iterable[int], num_shards: int) -> list[Shard]:
    """Every file that the given shards have: one for each table and split, also where it stays empty."""
    return [
        Shard(config=config, split=split, index=index, num_shards=num_shards)
        for index in indices
        for config in CONFIGS
        for split in SPLITS
    ]


def features_of(schema: pa.Schema) -> Any:
    """The schema as `datasets.Features`, images as its `Image`."""
    import datasets

    kept_as_image = dict(datasets.Features.from_arrow_schema(pa.schema([pa.field("image", IMAGE)])))["image"]

    def shown(feature: Any) -> Any:
        if feature == kept_as_image:
            return datasets.Image()
        if isinstance(feature, dict):
            return {name: shown(inner) for name, inner in feature.items()}
        return datasets.List(shown(feature.feature)) if isinstance(feature, datasets.List) else feature

    return datasets.Features(shown(dict(datasets.Features.from_arrow_schema(schema.remove_metadata()))))


@functools.cache
def file_schema(record: type[Record], *, images: bool = False) -> pa.Schema:
    """Arrow schema of a file of `record`, with Hugging Face's features beside it, so that loading needs no guess."""
    schema = arrow_schema(record, images=images)
    info = {"info": {"features": features_of(schema).to_dict()}}
    # `datasets` drops features whose order within a struct is not the file's: images in problems would stay bytes.
    return schema.with_metadata({"huggingface": json.dumps(info, sort_keys=not images).encode()})


def table_schema(out: Path, config: str) -> pa.Schema:
    """The schema that the files of a table have; the record's where there is no file."""
    file = next(iter(table_files(out, config)), None)
    return arrow_schema(CONFIGS[config]) if file is None else pq.read_schema(file).remove_metadata()


def write_shard(
    out: Folder,
    shard: Shard,
    rows: Sequence[tuple[str, Record]],
    images: Mapping[str, Sequence[Image]] | None = None,
) -> None:
    """Writes a file whole or not at all, sorted by key.

    Args:
      out: the output folder.
      shard: which file.
      rows: key and record; equal inputs in any order give equal bytes.
      images: those of the rows' problems, by the problems' ids; None where no problem of the run has any.

    Raises:
      DuplicateRow: two different rows have the same key; names it.
      ShardError: the disk is full, or the folder cannot be written.
    """
    ordered = sorted(rows, key=lambda row: row[0])
    for (key, record), (next_key, next_record) in itertools.pairwise(ordered):
        if key == next_key:
            raise DuplicateRow(f"{shard.path}: two rows have the key {key!r}: {record!r:.300} and {next_record!r:.300}")
    schema = file_schema(CONFIGS[shard.config], images=images is not None)
    path = out / shard.path
    try:
        if isinstance(path, Path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with writing_whole(path) as sink, pq.ParquetWriter(sink, schema, compression="zstd") as writer:
            # Without rows there is no group at all: loaders stumble over an empty one.
            for group in _groups((record for _, record in ordered), images):
                writer.write_table(pa.Table.from_pylist(group, schema=schema))
    except OSError as error:
        raise ShardError(
            f"cannot write {path}: {error.strerror or error}; free some space or make it writable, then start the same "
            "command again: it goes on from here"
        ) from error


def _groups(records: Iterable[Record], images: Mapping[str, Sequence[Image]] | None) -> Iterator[list[dict[str, Any]]]:
    """Plain rows that are written together: so many, or as many as have images that fit into memory."""
    group: list[dict[str, Any]] = []
    size = 0
    for record in records:
        row = to_row(record) if images is None else _pictured(record, images)
        weight = 0 if images is None else _image_bytes(row)
        if group and (len(group) == _ROWS_IN_GROUP or size + weight > _IMAGE_BYTES_IN_GROUP):
            yield group
            group, size = [], 0
        group.append(row)
        size += weight
    if group:
        yield group


def _pictured(record: Record, images: Mapping[str, Sequence[Image]]) -> dict[str, Any]:
    origin = getattr(record, "origin", None)
    return to_pictured_row(record, images.get(origin.problem_id, ()) if isinstance(origin, Origin) else ())


def _image_bytes(row: Mapping[str, Any]) -> int:
    problem = row.get("problem")
    shown = problem["images"] if isinstance(problem, dict) else row.get("images", ())
    return sum(len(image["bytes"]) for image in shown)


def read_rows(out: Path, config: str, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows of one table of all splits and shards, in the order of the files; few are in memory at a time."""
    for path in table_files(out, config):
        yield from read_file(path, columns)


def table_files(out: Path, config: str) -> list[Path]:
    """Files of one table. Those of equal name in two tables hold rows of the same problems."""
    return sorted((out / config).glob("*.parquet"))


def read_file(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows of one file.

    Raises:
      ShardError: it is damaged, or no shard of its table.
    """
    with _reading(path), pq.ParquetFile(path) as file:
        _check_columns(path, file.schema_arrow)
        # A batch would take rows of several groups, however large the images are that made them several.
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(batch_size=_ROWS_READ, row_groups=[group], columns=columns):
                yield from batch.to_pylist()


def num_rows(path: Path) -> int:
    """Rows of one file, from its footer.

    Raises:
      ShardError: it is damaged.
    """
    with _reading(path):
        count: int = pq.read_metadata(path).num_rows
    return count


def is_shard(path: Path) -> bool:
    """Whether a file has the schema and the metadata of its table, as `write_shard` gives them."""
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError):
        return False
    wanted = (file_schema(CONFIGS[path.parent.name], images=images) for images in (False, True))
    return any(schema.equals(each) and schema.metadata == each.metadata for each in wanted)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, " ".join(str(error).split())[:200]) from error


def _check_columns(path: Path, schema: pa.Schema) -> None:
    record = CONFIGS.get(path.parent.name)
    if record and not any(schema.equals(arrow_schema(record, images=images)) for images in (False, True)):
        strange = sorted({*schema.names} ^ {*arrow_schema(record).names}) or ["of another type"]
        raise _unreadable(path, f"its columns are not those of {path.parent.name} ({', '.join(strange)[:200]})")


def _unreadable(path: Path, why: str) -> ShardError:
    return ShardError(
        f"{path} cannot be read: {why}; take it away and give the command of its run again, which writes it anew"
    )


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""One Arrow schema for each record that is written, taken from the record's types and never from the data.

A column that is all null, or a shard without a row, therefore has the same type as any other.

Where a run's problems have images, tables show them in the form of `datasets`' `Image`: in the problem where a table
has the problem as a record, and in a last column `images` where trainers read. Runs without images have no such column:
trainers take a table that has one for data of a model that sees.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
import pyarrow as pa

from schemas.base import Record
from schemas.critique import Critique, Panel, Verified
from schemas.dialogue import Dialogue, DistillRow
from schemas.exports import CritiqueDpoRow, JudgeRow, PrmRow, RefineChatRow, RefineRow, RlRow, SftRow, StepDpoRow
from schemas.ledger import Failure, Rejection
from schemas.path import PathAlone, PathPair
from schemas.problem import Image, media_type_of
from schemas.scoped import DpoRow
from schemas.tree import Tree

R = TypeVar("R", bound=Record)

CONFIGS: dict[str, type[Record]] = {
    "sft": SftRow,
    "critique_dpo": CritiqueDpoRow,
    "step_dpo": StepDpoRow,
    "dpo": DpoRow,
    "prm": PrmRow,
    "refine": RefineRow,
    "refine_chat": RefineChatRow,
    "distill": DistillRow,
    "rl": RlRow,
    "judge": JudgeRow,
    "trees": Tree,
    "pairs": PathPair,
    "alone": PathAlone,
    "dialogues": Dialogue,
    "critiques": Critique,
    "panels": Panel,
    "verified": Verified,
    "rejections": Rejection,
    "failures": Failure,
}
"""Folder of the output, and the record that its rows are."""

_TRAINED_ON = (
    SftRow,
    CritiqueDpoRow,
    StepDpoRow,
    DpoRow,
    PrmRow,
    RefineRow,
    RefineChatRow,
    DistillRow,
    RlRow,
    JudgeRow,
)

SHOW_IMAGES = tuple(config for config, record in CONFIGS.items() if record in _TRAINED_ON)
"""Tables that have a column `images` where problems have any."""

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""What `datasets` keeps an image as; `path` is null, for the bytes are all there is."""

_SCALARS: dict[type[msgspec.inspect.Type], pa.DataType] = {
    msgspec.inspect.StrType: pa.string(),
    msgspec.inspect.LiteralType: pa.string(),
    msgspec.inspect.IntType: pa.int64(),
    msgspec.inspect.FloatType: pa.float64(),
    msgspec.inspect.BoolType: pa.bool_(),
    msgspec.inspect.BytesType: pa.binary(),
}


def _arrow_type(kind: msgspec.inspect.Type, *, images: bool) -> pa.DataType:
    if isinstance(kind, msgspec.inspect.UnionType):
        (kind,) = (member for member in kind.types if not isinstance(member, msgspec.inspect.NoneType))
    if isinstance(kind, msgspec.inspect.VarTupleType):
        return pa.list_(_arrow_type(kind.item_type, images=images))
    if isinstance(kind, msgspec.inspect.StructType):
        if images and kind.cls is Image:
            return IMAGE
        return pa.struct([pa.field(f.name, _arrow_type(f.type, images=images)) for f in kind.fields])
    return _SCALARS[type(kind)]


def arrow_schema(record: type[Record], *, images: bool = False) -> pa.Schema:
    """The schema of a table of `record`, one column a field, in the record's order.

    Args:
      record: what a row is.
      images: whether the run's problems have images: a table that trainers read has a last column `images` then.

    Raises:
      KeyError: a field has a type that no column can hold, for example a dict.
    """
    info = msgspec.inspect.type_info(record)
    assert isinstance(info, msgspec.inspect.StructType), record
    columns = [pa.field(f.name, _arrow_type(f.type, images=images)) for f in info.fields]
    return pa.schema([*columns, pa.field("images", pa.list_(IMAGE))] if images and record in _TRAINED_ON else columns)


def to_row(record: Record) -> dict[str, Any]:
    """A record as the nested plain values that pyarrow takes."""
    row: dict[str, Any] = msgspec.to_builtins(record, builtin_types=(bytes,))
    row.pop("type", None)
    return row


def to_pictured_row(record: Record, images: Sequence[Image]) -> dict[str, Any]:
    """The same for a schema with images.

    Args:
      record: the row.
      images: of the row's problem, for a table that trainers read.
    """
    row = to_row(record)
    if isinstance(row.get("problem"), dict):
        row["problem"]["images"] = [{"bytes": image["bytes"], "path": None} for image in row["problem"]["images"]]
    elif type(record) in _TRAINED_ON:
        row["images"] = [{"bytes": image.bytes, "path": None} for image in images]
    return row


def from_row(row: dict[str, Any], record: type[R]) -> R:
    """The record that `to_row` or `to_pictured_row` was given, also after a trip through Parquet.

    Raises:
      msgspec.ValidationError: the row is not of that record.
    """
    tag = record.__struct_config__.tag
    if record in _TRAINED_ON:
        row = {name: value for name, value in row.items() if name != "images"}
    elif isinstance(problem := row.get("problem"), dict) and any("path" in image for image in problem["images"]):
        row = row | {"problem": problem | {"images": [_image(image["bytes"]) for image in problem["images"]]}}
    return msgspec.convert(row | {"type": tag} if tag else row, record)


def _image(data: bytes) -> dict[str, Any]:
    return {"bytes": data, "media_type": media_type_of(data) or "application/octet-stream"}

"""One Arrow schema for each record that is written, taken from the record's types and never from the data.

A column that is all null, or a shard without a row, therefore has the same type as any other.
"""

from typing import Any, TypeVar

import msgspec
import pyarrow as pa

from schemas.base import Record
from schemas.critique import Critique, Panel, Verified
from schemas.exports import CritiqueDpoRow, PrmRow, RefineChatRow, RefineRow, RlRow, SftRow, StepDpoRow
from schemas.ledger import Failure, Rejection
from schemas.path import PathAlone, PathPair
from schemas.tree import Tree

R = TypeVar("R", bound=Record)

CONFIGS: dict[str, type[Record]] = {
    "sft": SftRow,
    "critique_dpo": CritiqueDpoRow,
    "step_dpo": StepDpoRow,
    "prm": PrmRow,
    "refine": RefineRow,
    "refine_chat": RefineChatRow,
    "rl": RlRow,
    "trees": Tree,
    "pairs": PathPair,
    "alone": PathAlone,
    "critiques": Critique,
    "panels": Panel,
    "verified": Verified,
    "rejections": Rejection,
    "failures": Failure,
}
"""Folder of the output, and the record that its rows are."""

_SCALARS: dict[type[msgspec.inspect.Type], pa.DataType] = {
    msgspec.inspect.StrType: pa.string(),
    msgspec.inspect.LiteralType: pa.string(),
    msgspec.inspect.IntType: pa.int64(),
    msgspec.inspect.FloatType: pa.float64(),
    msgspec.inspect.BoolType: pa.bool_(),
    msgspec.inspect.BytesType: pa.binary(),
}


def _arrow_type(kind: msgspec.inspect.Type) -> pa.DataType:
    if isinstance(kind, msgspec.inspect.UnionType):
        (kind,) = (member for member in kind.types if not isinstance(member, msgspec.inspect.NoneType))
    if isinstance(kind, msgspec.inspect.VarTupleType):
        return pa.list_(_arrow_type(kind.item_type))
    if isinstance(kind, msgspec.inspect.StructType):
        return pa.struct([pa.field(f.name, _arrow_type(f.type)) for f in kind.fields])
    return _SCALARS[type(kind)]


def arrow_schema(record: type[Record]) -> pa.Schema:
    """The schema of a table of `record`, one column a field, in the record's order.

    Raises:
      KeyError: a field has a type that no column can hold, for example a dict.
    """
    info = msgspec.inspect.type_info(record)
    assert isinstance(info, msgspec.inspect.StructType), record
    return pa.schema([pa.field(f.name, _arrow_type(f.type)) for f in info.fields])


def to_row(record: Record) -> dict[str, Any]:
    """A record as the nested plain values that pyarrow takes."""
    row: dict[str, Any] = msgspec.to_builtins(record, builtin_types=(bytes,))
    row.pop("type", None)
    return row


def from_row(row: dict[str, Any], record: type[R]) -> R:
    """The record that `to_row` was given, also after a trip through Parquet.

    Raises:
      msgspec.ValidationError: the row is not of that record.
    """
    tag = record.__struct_config__.tag
    return msgspec.convert(row | {"type": tag} if tag else row, record)

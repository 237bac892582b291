"""Records of every table, made from their types: for tests that care how rows are written, not what they say."""

from typing import Any

import msgspec

from schemas import Record

TEXT = "Step 1: 3 + 4 = 7 \u00fc \U0001f600\n"


def _value(kind: msgspec.inspect.Type, name: str, number: int, *, is_bare: bool) -> Any:
    match kind:
        case msgspec.inspect.UnionType():
            if is_bare:
                return None
            (some,) = (member for member in kind.types if not isinstance(member, msgspec.inspect.NoneType))
            return _value(some, name, number, is_bare=is_bare)
        case msgspec.inspect.VarTupleType():
            return [] if is_bare else [_value(kind.item_type, name, number + i, is_bare=is_bare) for i in range(2)]
        case msgspec.inspect.StructType():
            fields = {f.name: _value(f.type, f.name, number, is_bare=is_bare) for f in kind.fields}
            tag = {kind.tag_field: kind.tag} if kind.tag_field else {}
            return tag | fields
        case _:
            return _scalar(kind, name, number, is_bare=is_bare)


def _scalar(kind: msgspec.inspect.Type, name: str, number: int, *, is_bare: bool) -> Any:
    match kind:
        case msgspec.inspect.LiteralType():
            return sorted(kind.values)[number % len(kind.values)]
        case msgspec.inspect.IntType():
            return number
        case msgspec.inspect.FloatType():
            return number / 8
        case msgspec.inspect.BoolType():
            return number % 2 == 0
        case msgspec.inspect.BytesType():
            return b"\x00\xff"
        case msgspec.inspect.StrType():
            return "" if is_bare else f"{name} {number} {TEXT}"
    raise AssertionError(kind)


def make(record: type[Record], number: int = 0, *, is_bare: bool = False, **fields: Any) -> Any:
    """A record whose every field is filled; a bare one has None, nothing or emptiness wherever it can."""
    plain = _value(msgspec.inspect.type_info(record), "", number, is_bare=is_bare)
    return msgspec.convert(plain | fields, record)

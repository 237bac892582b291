"""How Beam carries records: as msgpack, decoded strictly, the same bytes for the same record. Never pickle."""

from typing import Any

import apache_beam as beam
import msgspec

from pipelines.aggregate_critiques import Weighed
from pipelines.shards import Shard
from schemas import Criticised, Empanelled, Examined, Posed, Record, Scoped
from schemas.arrow import CONFIGS


class RecordCoder(beam.coders.Coder):
    """Coder of one type of record."""

    def __init__(self, record: type[Record]) -> None:
        self._record = record
        self._decoder = msgspec.msgpack.Decoder(record)

    def encode(self, value: Record) -> bytes:
        """The record as msgpack."""
        return msgspec.msgpack.encode(value)

    def decode(self, encoded: bytes) -> Record:
        """The record again."""
        return self._decoder.decode(encoded)

    def is_deterministic(self) -> bool:
        """Fields are written in the record's order."""
        return True

    def to_type_hint(self) -> type[Record]:
        """The type of record."""
        return self._record

    @classmethod
    def from_type_hint(cls, typehint: type[Record], registry: Any) -> "RecordCoder":
        """The coder that Beam's registry makes for a registered type."""
        del registry
        return cls(typehint)

    def __reduce__(self) -> Any:
        return RecordCoder, (self._record,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RecordCoder) and self._record is other._record

    def __hash__(self) -> int:
        return hash(self._record)


def register_coders() -> None:
    """Tells Beam about every record that flows between stages."""
    for record in (Posed, Criticised, Weighed, Empanelled, Examined, Scoped, Shard, *CONFIGS.values()):
        beam.coders.registry.register_coder(record, RecordCoder)

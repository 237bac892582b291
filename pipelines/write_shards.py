"""Stage: write every record to the shard it belongs to."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import msgspec

from annotators.claim_rows import claim_rows
from annotators.critique_rows import critique_rows
from annotators.dialogue_rows import dialogue_rows
from annotators.exports import Context, ExportSettings
from annotators.judge_rows import reflected_rows, tree_judge_rows
from annotators.path_rows import Rates, path_rows, refinement_rates, tree_rows
from annotators.rounds import RowKind
from annotators.scoping import dpo_row
from annotators.shard_rows import left_out, settled
from mcts.estimates import interval
from pipelines.meter import METER
from pipelines.shards import Shard, all_shards, shard_of, split_of, write_shard
from pipelines.storage import open_folder
from schemas import (
    Criticised,
    Dialogue,
    Empanelled,
    Examined,
    Failure,
    Image,
    PathAlone,
    PathPair,
    Record,
    Rejection,
    Scoped,
    Stage,
    Tree,
)
from schemas.arrow import CONFIGS, SHOW_IMAGES

STAGE: Stage = "WriteShards"

_CONFIG_OF = {record: config for config, record in CONFIGS.items()}

ShardName = tuple[str, str, int]
"""Table, split and number of a shard: what rows are gathered by."""

Row = tuple[str, bytes]
"""Sort key and encoded record."""

_IMAGES_OF = "\0images of "
"""Begins the key of a problem's images; ids hold no U+0000."""

_RATES_OF = "\0rates of "
"""Begins the key of what was measured of a path, which its row of `rl` is to have."""


@dataclasses.dataclass
class WriteShards(beam.PTransform):
    """Writes the files of `shards` and nothing else; a file without a row is written too.

    Side effect: files below `out`, a folder here or in a store, each whole or absent, the same bytes for the same
    records in any order.
    """

    out: str
    shards: tuple[int, ...]
    """Numbers of the shards that this graph fills."""
    num_shards: int
    export: ExportSettings
    context: Context
    images: bool = False
    """Whether problems of the run have images, which tables then show."""
    loop_rows: tuple[RowKind, ...] = ()
    """What dialogues become beside themselves."""

    def expand(self, flows: Any) -> Any:
        """One output: the path of every file written, below `out`.

        Args:
          flows: whatever left the stages, one PCollection for each kind of record; trees stand first.
        """
        # Rows are made before the flows are joined: joined records of several types would be pickled.
        rows = [
            records | f"MakeRows{i}" >> beam.FlatMap(self._rows).with_output_types(tuple[ShardName, Row])
            for i, records in enumerate(flows)
        ]
        rows = [self._sifted(rows)]
        files = (
            flows[0].pipeline
            | "Shards" >> beam.Create(self.shards)
            | "ListFiles" >> beam.FlatMap(lambda index: all_shards([index], self.num_shards)).with_output_types(Shard)
            | "NoRowYet" >> beam.Map(_no_row_yet).with_output_types(tuple[ShardName, Row])
        )
        if self.images:
            made = flows[0] | "MakeImages" >> beam.FlatMap(self._pictures).with_output_types(tuple[ShardName, Row])
            rows = [*rows, made]
        return (
            (*rows, files)
            | beam.Flatten()
            | "GatherShard" >> beam.GroupByKey()
            | "WriteShard" >> beam.Map(self._write).with_output_types(str)
        )

    def _sifted(self, rows: Sequence[beam.PCollection[tuple[ShardName, Row]]]) -> Any:
        """The same rows without those that others leave no room for, which become rejections.

        That needs a table's rows of a shard together before its rejections are.
        """
        bounded = self.export.correct_per_incorrect is not None or self.export.incorrect_per_correct is not None
        tables = ("prm", "sft", "rl") if bounded else ("prm",)

        def is_looked_at(row: tuple[ShardName, Row]) -> bool:
            return row[0][0] in tables and not row[1][0].startswith(_RATES_OF)

        joined = tuple(rows) | "JoinRows" >> beam.Flatten()
        others = joined | "Others" >> beam.Filter(lambda row: not is_looked_at(row))
        sifted = (
            joined
            | "LookedAt" >> beam.Filter(is_looked_at)
            | "GatherTable" >> beam.GroupByKey()
            | "Sift" >> beam.FlatMap(self._sift).with_output_types(tuple[ShardName, Row])
        )
        return (others, sifted) | "JoinSifted" >> beam.Flatten()

    def _sift(self, gathered: tuple[ShardName, Iterable[Row]]) -> Iterator[tuple[ShardName, Row]]:
        name, rows = gathered[0], list(gathered[1])
        decoder = msgspec.msgpack.Decoder(CONFIGS[name[0]])
        rejections = left_out([decoder.decode(data) for _, data in rows], self.export)
        spare = {f"{each.problem_id}/{each.key}" for each in rejections}
        yield from ((name, (key, data)) for key, data in rows if key not in spare)
        for each in rejections:
            yield ("rejections", *name[1:]), (f"{each.problem_id}/{_row_id(each)}", msgspec.msgpack.encode(each))

    def _rows(self, record: Record) -> Iterator[tuple[ShardName, Row]]:
        for row in exported(record, self.export, self.context, self.loop_rows):
            problem_id = _problem_id(record)
            config = _CONFIG_OF[type(row)]
            split = split_of(problem_id, self.export.validation_share)
            METER.count(STAGE, config)
            key = f"{problem_id}/{_row_id(row)}"
            yield (config, split, shard_of(problem_id, self.num_shards)), (key, msgspec.msgpack.encode(row))
        for rates in refinement_rates(record, self.export) if isinstance(record, Examined) else ():
            problem_id = _problem_id(record)
            name = ("rl", split_of(problem_id, self.export.validation_share), shard_of(problem_id, self.num_shards))
            yield name, (f"{_RATES_OF}{rates.row_id}", msgspec.msgpack.encode(rates))

    def _pictures(self, tree: Tree) -> Iterator[tuple[ShardName, Row]]:
        """A problem's images, once for each table that shows them: they are no rows."""
        problem = tree.problem
        split = split_of(problem.id, self.export.validation_share)
        encoded = msgspec.msgpack.encode(problem.images)
        for config in SHOW_IMAGES if problem.images else ():
            yield (config, split, shard_of(problem.id, self.num_shards)), (f"{_IMAGES_OF}{problem.id}", encoded)

    def _write(self, gathered: tuple[ShardName, Iterable[Row]]) -> str:
        (config, split, index), encoded = gathered
        rows, rates, images = _apart(encoded)
        shard = Shard(config=config, split=split, index=index, num_shards=self.num_shards)  # type: ignore[arg-type]
        decoder = msgspec.msgpack.Decoder(CONFIGS[config])
        records = [(key, decoder.decode(data)) for key, data in rows if data]
        write_shard(open_folder(self.out), shard, settled(records, rates, self.export), images if self.images else None)
        return shard.path


def _apart(encoded: Iterable[Row]) -> tuple[list[Row], list[Rates], dict[str, tuple[Image, ...]]]:
    """Rows, what was measured of paths, and images by the ids of their problems."""
    picture, measure = msgspec.msgpack.Decoder(tuple[Image, ...]), msgspec.msgpack.Decoder(Rates)
    rows, rates, images = [], [], {}
    for key, data in encoded:
        if key.startswith(_IMAGES_OF):
            images[key.removeprefix(_IMAGES_OF)] = picture.decode(data)
        elif key.startswith(_RATES_OF):
            rates.append(measure.decode(data))
        else:
            rows.append((key, data))
    return rows, rates, images


def exported(
    record: Record, settings: ExportSettings, context: Context, loop_rows: tuple[RowKind, ...] = ()
) -> Iterator[Record]:
    """The rows that a record of the flow becomes, in whatever tables they belong to."""
    match record:
        case Tree():
            yield record
            yield from tree_rows(record, settings, context, interval)
            yield from tree_judge_rows(record, settings, context)
        case PathPair() | PathAlone():
            yield record
            yield from path_rows(record, settings, context, interval)
        case Dialogue():
            yield record
            yield from dialogue_rows(record, loop_rows, settings, context)
        case Scoped():
            yield dpo_row(record, context)
        case Criticised():
            yield from record.critiques
        case Empanelled():
            yield record.panel
        case Examined():
            yield from record.verified
            yield from critique_rows(record, settings, context)
            yield from reflected_rows(record, settings, context)
            yield from claim_rows(record, settings, context, interval)
        case _:
            yield record


def _problem_id(record: Record) -> str:
    match record:
        case Tree() | PathPair() | PathAlone() | Dialogue() | Scoped():
            return record.problem.id
        case Criticised() | Empanelled() | Examined():
            return record.path.problem.id
        case Rejection() | Failure():
            return record.problem_id
    raise TypeError(f"{type(record).__name__} belongs to no problem")


def _row_id(row: Record) -> str:
    if isinstance(row, Rejection | Failure):
        return f"{row.stage}/{row.key}"
    row_id: str = row.id  # type: ignore[attr-defined]
    return row_id


def _no_row_yet(shard: Shard) -> tuple[ShardName, Row]:
    return (shard.config, shard.split, shard.index), ("", b"")

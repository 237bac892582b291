"""The run's memory: every sample that was ever paid for, under the digest of what was asked."""

import logging
import zlib
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

import msgspec

from pipelines.engines.base import Sample, Usage
from pipelines.journal.address import Place, is_server, parse_address
from pipelines.journal.group import Group
from pipelines.journal.sqlite import SqliteStore
from pipelines.journal.store import Batch, JournalError, Store
from schemas import Record

_SUM_BYTES = 4
_OF_RUN = "@"
"""Between stage and run in the ledger; no stage's name has it."""


class _Entry(Record):
    stage: str
    samples: Mapping[str, Sample]
    usage: Usage


def _sum(key: str, value: bytes) -> bytes:
    """Checksum of a sample under its key: `_SUM_BYTES` bytes that stand before it."""
    return zlib.crc32(value, zlib.crc32(key.encode())).to_bytes(_SUM_BYTES, "big")


def _total(usages: Sequence[Usage]) -> Usage:
    names = Usage.__struct_fields__
    return Usage(**{name: sum(getattr(usage, name) for usage in usages) for name in names})


class Journal:
    """Samples by key, with a ledger of what they cost. Open one a process, use it from one event loop."""

    def __init__(
        self, place: Place, *, patience_secs: float = 60.0, awaits_server: bool = False, run: str = ""
    ) -> None:
        """Opens or makes it.

        Args:
          place: path of a file, or URL of a server; see `address.parse_address`.
          patience_secs: how long a server may be away in the middle of a run.
          awaits_server: whether this is the middle of a run already, for there is one that others work on.
          run: whose costs are added to the ledger: runs have samples in common, and pay for themselves.

        Raises:
          JournalError: it is unwritable, no journal, of another version, or on a server that may lose it.
        """
        self._place, self._run = place, run
        self._store = _open(place, patience_secs, awaits_server=awaits_server)
        self._damaged: dict[str, bytes] = {}
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Sample)
        self._writes = Group[_Entry, dict[str, Sample]]("journal", self._commit)
        self._reads = None if self._store.is_near else Group[Sequence[str], dict[str, bytes]]("reads", self._read)

    async def get(self, keys: Sequence[str]) -> dict[str, Sample]:
        """The samples that are there, by key; one that is not what was written is not there.

        Raises:
          JournalError: the file is damaged, or the server is away.
        """
        if not keys:
            return {}
        rows = self._store.read(keys) if self._reads is None else await self._reads.ask(keys)
        return self._sound(rows)

    def _read(self, wishes: Sequence[Sequence[str]]) -> list[dict[str, bytes]]:
        rows = self._store.read(list(dict.fromkeys(key for keys in wishes for key in keys)))
        return [{key: rows[key] for key in keys if key in rows} for keys in wishes]

    def _sound(self, rows: Mapping[str, bytes]) -> dict[str, Sample]:
        """The samples that are what was written; the others are forgotten, so that they can be put anew."""
        sound: dict[str, Sample] = {}
        damaged: dict[str, bytes] = {}
        for key, value in rows.items():
            # What was put into the file or server by other means may have any type and content.
            if isinstance(value, bytes) and _sum(key, value[_SUM_BYTES:]) == value[:_SUM_BYTES]:
                try:
                    sound[key] = self._decoder.decode(value[_SUM_BYTES:])
                    continue
                except (msgspec.DecodeError, UnicodeDecodeError):
                    pass
            damaged[key] = value
        if damaged:
            logging.getLogger(__name__).error(
                "%d samples of the journal %s are damaged, for example %s; they are asked for again",
                len(damaged),
                self._place,
                next(iter(damaged)),
            )
            self._damaged |= damaged
        return sound

    async def put(self, stage: str, samples: Mapping[str, Sample], usage: Usage) -> dict[str, Sample]:
        """Returns when the samples and their cost are on disk; gives what the journal holds for their keys.

        A key that is there already keeps its sample: of two workers that have asked for the same, both go on with
        the one that came first.

        Raises:
          JournalError: the disk is full, the file cannot be written, or the server is away.
        """
        return await self._writes.ask(_Entry(stage=stage, samples=dict(samples), usage=usage))

    def _commit(self, entries: Sequence[_Entry]) -> list[dict[str, Sample]]:
        first: dict[str, Sample] = {}
        usages: dict[str, list[Usage]] = {}
        for entry in entries:
            for key, sample in entry.samples.items():
                first.setdefault(key, sample)
            usages.setdefault(entry.stage, []).append(entry.usage)
        values = ((key, self._encoder.encode(sample)) for key, sample in first.items())
        rows = {key: _sum(key, value) + value for key, value in values}
        damaged = {key: self._damaged[key] for key in rows if key in self._damaged}
        suffix = f"{_OF_RUN}{self._run}" if self._run else ""
        costs = {f"{stage}{suffix}": _total(each) for stage, each in usages.items()}
        held = self._store.commit(Batch(rows=rows, damaged=damaged, costs=costs))
        for key in damaged:
            self._damaged.pop(key, None)
        kept = first | self._sound({key: value for key, value in held.items() if value != rows[key]})
        return [{key: kept[key] for key in entry.samples} for entry in entries]

    def size(self) -> int:
        """Samples it holds.

        Raises:
          JournalError: the file is damaged, or the server is away.
        """
        return self._store.count()

    def ledger(self) -> dict[str, Usage]:
        """What all samples of this journal have cost, by stage.

        Raises:
          JournalError: the file is damaged, or the server is away.
        """
        return self._ledger_of(None)

    def own_ledger(self) -> dict[str, Usage]:
        """What this run has paid, by stage, and what was paid without saying for which run.

        Raises:
          JournalError: the file is damaged, or the server is away.
        """
        return self._ledger_of(("", self._run))

    def paid(self) -> Usage:
        """The same over all stages."""
        return _total(list(self.own_ledger().values()))

    def _ledger_of(self, runs: Container[str] | None) -> dict[str, Usage]:
        stages: dict[str, list[Usage]] = {}
        for name, usage in self._store.ledger().items():
            stage, _, run = name.partition(_OF_RUN)
            if runs is None or run in runs:
                stages.setdefault(stage, []).append(usage)
        return {stage: _total(each) for stage, each in stages.items()}

    def close(self) -> None:
        """Commits what is waiting and lets go of the file or server."""
        self._store.hurry()
        self._writes.close()
        if self._reads is not None:
            self._reads.close()
        self._store.close()


def _open(place: Place, patience_secs: float, *, awaits_server: bool) -> Store:
    if not is_server(place):
        return SqliteStore(Path(place))
    try:
        address = parse_address(str(place))
    except ValueError as error:
        raise JournalError(str(error)) from None
    try:
        from pipelines.journal.redis import RedisStore
    except ImportError as error:
        raise JournalError(
            f"journal: a journal on a Redis server needs a package that is not there ({error}); install it with "
            "pip install 'wrongturn[redis]', or name a file with journal=PATH"
        ) from error
    return RedisStore(address, patience_secs, awaits_server=awaits_server)

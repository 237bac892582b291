"""The output folder: whose it is, who works on it now, and which shards are finished."""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from pipelines.errors import UserError
from pipelines.journal import Place, is_server
from pipelines.shards import all_shards, file_digest, is_shard, num_rows
from schemas import Record
from schemas.arrow import CONFIGS

_STATE = ".wrongturn"
_LARGEST_MARK = 16 * 2**20
"""Bytes of a state file that is still read; a mark has a hundred for each of its shard's files."""
COMPLETED = "COMPLETED"


class OutputError(UserError):
    """The output folder cannot be used; says why and what to do."""


R = TypeVar("R", bound=Record)


class _Owner(Record):
    config_digest: str


class _Done(Record):
    """A finished shard: every file of it with its SHA-256."""

    files: dict[str, str]


class Output:
    """One run's folder."""

    def __init__(self, out: str) -> None:
        self.path = Path(out).expanduser().absolute()
        self._state = self.path / _STATE

    def journal(self, setting: str) -> Place:
        """Where the journal is: the file or server that was set, else a file in this folder."""
        if is_server(setting):
            return setting
        return Path(setting).expanduser().absolute() if setting else self._state / "journal.sqlite"

    @contextlib.contextmanager
    def claimed(self, config_digest: str, *, replace: bool) -> Iterator[None]:
        """Holds the folder for this process.

        Raises:
          OutputError: it cannot be written, belongs to something else or to a run with another config, or another
            process works on it.
        """
        self._make()
        with contextlib.ExitStack() as held:
            try:
                # Opened without being emptied and never through a link: whoever made the folder may have put one there.
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
                lock = os.open(self._state / "lock", flags, 0o666)
                held.callback(os.close, lock)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._own(config_digest, replace=replace)
                self._sweep()
            except BlockingIOError:
                raise OutputError(
                    f"out: another run is working on {self.path}; wait for it, or choose another folder with out=DIR"
                ) from None
            except OSError as error:
                raise self._unwritable(error) from error
            yield

    def _make(self) -> None:
        foreign = self.path.is_dir() and any(self.path.iterdir()) and not self._state.is_dir()
        if foreign:
            raise OutputError(
                f"out: {self.path} holds files that wrongturn did not write; choose an empty or new folder with out=DIR"
            )
        self._refuse_links()
        try:
            (self._state / "done").mkdir(parents=True, exist_ok=True)
            probe = self._state / f".probe.{os.getpid()}.tmp"
            probe.unlink(missing_ok=True)  # Of a process that had this number before and was killed.
            probe.open("xb").close()
            probe.unlink()
        except OSError as error:
            raise self._unwritable(error) from error

    def _refuse_links(self) -> None:
        """Raises OutputError where something would be written or taken away through a link, outside the folder.

        Every other file is renamed into its place, which replaces a link and leaves alone what it points to.
        """
        folders = [self._state, self.path / "logs", *(self.path / config for config in CONFIGS)]
        if not self._state.is_symlink() and self._state.is_dir():
            folders += self._state.iterdir()
        for path in folders:
            if path.is_symlink():
                raise OutputError(
                    f"out: {path} is a symbolic link, and what is written must stay in {self.path}; take the link away "
                    "or choose another folder with out=DIR"
                )

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(f"out: cannot write to {self.path}: {error.strerror}; choose another folder with out=DIR")

    def _own(self, config_digest: str, *, replace: bool) -> None:
        owner = self._state / "owner.json"
        if owner.exists():
            theirs = _read(owner, _Owner, default=_Owner(config_digest="unknown")).config_digest
            if theirs != config_digest and not replace:
                raise OutputError(
                    f"out: {self.path} holds a run with another config (digest {theirs[:12]}, this one is "
                    f"{config_digest[:12]}); choose another folder with out=DIR and reuse its answers with "
                    f"journal={self.journal('')}, or write over its shards with replace=true (its journal is kept)"
                )
            if theirs != config_digest:
                self._clear()
        _write_whole(owner, msgspec.json.encode(_Owner(config_digest=config_digest)))

    def _clear(self) -> None:
        """Takes away the other run's shards and marks, finished or not, never its journal."""
        (self.path / COMPLETED).unlink(missing_ok=True)
        for config in CONFIGS:
            for file in (self.path / config).glob("*.parquet"):
                file.unlink()
        for mark in (self._state / "done").glob("*.json"):
            mark.unlink()

    def _sweep(self) -> None:
        """Takes away half-written files: whoever wrote them was killed, for nobody else holds the folder."""
        for folder in (self.path, self._state, self._state / "done", *(self.path / config for config in CONFIGS)):
            for file in folder.glob(".*.tmp"):
                file.unlink()

    def unfinished(self, num_shards: int) -> tuple[int, ...]:
        """Shards that are not finished, or whose files are gone or changed.

        Raises:
          OutputError: a table has a file that is none of the run's: it would be counted and loaded as if it were.
        """
        ours = {self.path / shard.path for shard in all_shards(range(num_shards), num_shards)}
        for config in CONFIGS:
            for file in sorted((self.path / config).glob("*.parquet")):
                if file not in ours:
                    raise OutputError(f"out: {file} is no file of this run; take it away, then start it again")
        return tuple(index for index in range(num_shards) if not self._is_done(index, num_shards))

    def _is_done(self, index: int, num_shards: int) -> bool:
        files = _read(self._mark(index), _Done, default=_Done(files={})).files
        wanted = {shard.path for shard in all_shards([index], num_shards)}
        return files.keys() == wanted and all(
            (self.path / file).is_file() and file_digest(self.path / file) == sha and is_shard(self.path / file)
            for file, sha in files.items()
        )

    def finish(self, index: int, num_shards: int) -> None:
        """Marks a shard as finished."""
        files = {shard.path: file_digest(self.path / shard.path) for shard in all_shards([index], num_shards)}
        _write_whole(self._mark(index), msgspec.json.encode(_Done(files=files), order="sorted"))

    def has_failures(self, index: int, num_shards: int) -> bool:
        """Whether elements of a shard failed: it then stays unfinished, and the same command tries them again."""
        shards = (shard for shard in all_shards([index], num_shards) if shard.config == "failures")
        return any(num_rows(self.path / shard.path) for shard in shards)

    def digests(self, num_shards: int) -> dict[str, str]:
        """SHA-256 of every shard file that is there, by path; of a run that stopped early some are not."""
        paths = sorted(shard.path for shard in all_shards(range(num_shards), num_shards))
        return {path: file_digest(self.path / path) for path in paths if (self.path / path).is_file()}

    def begin(self) -> None:
        """From here until `complete` the folder is not a whole dataset."""
        (self.path / COMPLETED).unlink(missing_ok=True)

    def write(self, name: str, content: str) -> None:
        """Writes a file beside the shards, whole or not at all."""
        _write_whole(self.path / name, content.encode("utf-8", "replace"))

    def complete(self) -> None:
        """Says that everything is written; the last thing that a run does."""
        self.write(COMPLETED, "")

    def _mark(self, index: int) -> Path:
        return self._state / "done" / f"{index:05d}.json"


def _read(path: Path, record: type[R], *, default: R) -> R:
    """What a file of ours says; the default where there is none, or it is torn or says something else."""
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_MARK:
            return default
        return msgspec.json.decode(path.read_bytes(), type=record)
    except (FileNotFoundError, msgspec.DecodeError, RecursionError):
        return default


def _write_whole(path: Path, content: bytes) -> None:
    """Raises OutputError where the disk is full or the folder cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OutputError(
            f"cannot write {path}: {error.strerror}; free some space or make it writable, then start the same command "
            "again: it goes on from here"
        ) from error


def require_complete(out: str, tables: Sequence[str]) -> Path:
    """The folder of a run that has tables to show.

    Raises:
      OutputError: there is no such run.
    """
    path = Path(out).expanduser()
    for table in tables:
        if not list((path / table).glob("*.parquet")):
            raise OutputError(f"{path.absolute()} holds no {table}; give the folder that `wrongturn run` wrote to")
    return path

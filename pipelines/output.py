"""The output folder: whose it is, who works on it now, and which shards are finished."""

import contextlib
import fcntl
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from pipelines.errors import UserError
from pipelines.journal import Place, is_server
from pipelines.lease import Held, leased
from pipelines.mirror import Mirror
from pipelines.shards import all_shards, file_digest, is_shard, num_rows
from pipelines.storage import Folder, explained, names_in, open_folder, write_whole
from schemas import Record
from schemas.arrow import CONFIGS

STATE = ".wrongturn"
_OWNER = "owner.json"
_LARGEST_MARK = 16 * 2**20
"""Bytes of a state file that is still read; a mark has a hundred for each of its shard's files."""
COMPLETED = "COMPLETED"
_BESIDE_JOURNAL = ("-wal", "-shm", "-journal")
"""What SQLite puts beside a file while it is open, and leaves when it is killed."""


class OutputError(UserError):
    """The output folder cannot be used; says why and what to do."""


R = TypeVar("R", bound=Record)


class _Owner(Record):
    config_digest: str


class Mark(Record, omit_defaults=True):
    """What says of a shard that it is written: every file of it with its SHA-256."""

    files: dict[str, str]
    failed: bool = False
    """Whether elements of it failed: it is whole then, but not finished."""


class Output:
    """One run's folder."""

    def __init__(self, out: str) -> None:
        """Raises StorageError where `out` is a URL that nothing can be written to."""
        self.folder: Folder = open_folder(out).absolute()
        """Where the run lies, and everybody writes to."""
        self._mirror: Mirror | None = None
        if isinstance(self.folder, Path):
            self.path = self.folder
        else:
            self._mirror = Mirror(self.folder)
            self.path = self._mirror.path
        """Where it is read on this machine: the folder itself, or a copy of what lies in a store."""
        self._state = self.path / STATE
        self._journal: Place = ""
        """What was named for the journal: it may lie in the folder before any run does."""
        self._lease: Held | None = None
        self._fetched: set[int] = set()
        """Shards that were asked for failures and are about to be marked as finished."""

    def journal(self, setting: str) -> Place:
        """Where the journal is: the file or server that was set, else a file in this folder.

        Raises:
          OutputError: nothing was set, and the folder is in a store.
        """
        if is_server(setting):
            return setting
        if setting:
            self._journal = Path(setting).expanduser().absolute()
            return self._journal
        if self._mirror:
            raise OutputError(
                f"out is in a store ({self.folder}), where no SQLite journal can lie; give journal=FILE on this "
                "machine, or journal=redis://HOST:6379/0 for workers on several"
            )
        return self._state / "journal.sqlite"

    def check(self, config_digest: str = "", *, replace: bool = False) -> None:
        """Looks whether a run with that config could have the folder, and makes nothing there.

        Args:
          config_digest: the run's; empty leaves open whose the folder may be, if it is a run's at all.
          replace: whether another run's will do.

        Raises:
          OutputError: it cannot be read, belongs to something else or to a run with another config, or a link leads out
            of it.
        """
        try:
            if self._mirror is None:
                self._refuse_links()
            self._refuse_foreign()
            if self._mirror is None and config_digest:
                self._refuse_other(config_digest, replace=replace)
        except OSError as error:
            raise self._unwritable(error) from error

    @contextlib.contextmanager
    def claimed(self, config_digest: str, *, replace: bool) -> Iterator[None]:
        """Holds the folder for this process.

        Raises:
          OutputError: it cannot be written, belongs to something else or to a run with another config, or another
            process works on it.
        """
        holding = self._locked() if self._mirror is None else self._leased(self._mirror)
        with holding:
            try:
                self._own(config_digest, replace=replace)
                self._sweep()
            except OSError as error:
                raise self._unwritable(error) from error
            yield

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """A lock that ends with the process."""
        self._make()
        with contextlib.ExitStack() as held:
            try:
                # Opened without being emptied and never through a link: whoever made the folder may have put one there.
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
                lock = os.open(self._state / "lock", flags, 0o666)
                held.callback(os.close, lock)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OutputError(
                    f"out: another run is working on {self.path}; wait for it, or choose another folder with out=DIR"
                ) from None
            except OSError as error:
                raise self._unwritable(error) from error
            yield

    @contextlib.contextmanager
    def _leased(self, mirror: Mirror) -> Iterator[None]:
        """A lease that ends by itself where it is not renewed. At the end the store has what the copy has."""
        with contextlib.ExitStack() as held:
            try:
                self._refuse_foreign()
                self._lease = held.enter_context(leased(mirror.store, mirror.store / STATE))
                held.enter_context(mirror.named())
                mirror.refresh()
            except OSError as error:
                raise self._unwritable(error) from error
            try:
                yield
            finally:
                if not self._lease.is_lost:
                    self._in_store(mirror.give_back)
                self._lease = None

    def refresh(self) -> None:
        """Makes `path` what the folder holds now, where it is a copy."""
        if self._mirror:
            self._in_store(self._mirror.refresh)

    def _in_store(self, act: Callable[[], None]) -> None:
        """Does something to the store as long as nobody else has taken the folder over."""
        try:
            if self._lease:
                self._lease.require()
            act()
        except OSError as error:
            raise self._unwritable(error) from error

    def _make(self) -> None:
        try:
            self._refuse_links()
            self._refuse_foreign()
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

    def _refuse_foreign(self) -> None:
        """Raises OutputError where something lies and no run has ever had the folder.

        A journal may lie there before, for a dry run makes one, and another run may have left it.
        """
        journal = self._journal
        inside = isinstance(journal, Path) and self.path in journal.parents and journal.relative_to(self.path).parts[0]
        ours = {STATE, *(f"{inside}{suffix}" for suffix in ("", *_BESIDE_JOURNAL) if inside)}
        if set(names_in(self.folder)) - ours and _OWNER not in names_in(self.folder / STATE):
            raise OutputError(
                f"out: {self.folder} holds files that wrongturn did not write; choose an empty or new folder with "
                "out=DIR"
            )

    def _unwritable(self, error: OSError) -> OutputError:
        if self._mirror:
            return OutputError(f"out: {explained(self.folder, error)}")
        return OutputError(f"out: cannot write to {self.path}: {error.strerror}; choose another folder with out=DIR")

    def _refuse_other(self, config_digest: str, *, replace: bool) -> None:
        """Raises OutputError where the folder is another run's and may not be replaced."""
        theirs = self._owner()
        if theirs not in ("", config_digest) and not replace:
            reuse = "" if self._mirror else f" and reuse its answers with journal={self.journal('')}"
            raise OutputError(
                f"out: {self.folder} holds a run with another config (digest {theirs[:12]}, this one is "
                f"{config_digest[:12]}); choose another folder with out=DIR{reuse}, or write over its shards with "
                "replace=true (its journal is kept)"
            )

    def _owner(self) -> str:
        """Config digest of the run that has the folder; empty where none has."""
        owner = self._state / _OWNER
        unknown = _Owner(config_digest="unknown" if owner.exists() else "")
        return _read(owner, _Owner, default=unknown).config_digest

    def _own(self, config_digest: str, *, replace: bool) -> None:
        self._refuse_other(config_digest, replace=replace)
        if self._owner() not in ("", config_digest):
            self._clear()
        self._put(f"{STATE}/{_OWNER}", msgspec.json.encode(_Owner(config_digest=config_digest)))

    def _clear(self) -> None:
        """Takes away the other run's shards and marks, finished or not, never its journal."""
        (self.path / COMPLETED).unlink(missing_ok=True)
        for config in CONFIGS:
            for file in (self.path / config).glob("*.parquet"):
                file.unlink()
        for mark in (self._state / "done").glob("*.json"):
            mark.unlink()
        self._prune()

    def _sweep(self) -> None:
        """Takes away half-written files of whoever was killed; only where nobody is to write.

        A worker that a cluster has lost sight of may still do: without its file it fails, and nobody waits for it.
        """
        for folder in (self.path, self._state, self._state / "done", *(self.path / config for config in CONFIGS)):
            for file in folder.glob(".*.tmp"):
                file.unlink(missing_ok=True)

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
        return not mark_of(self.path, index).failed and is_written(self.path, index, num_shards)

    def finish(self, index: int, num_shards: int, *, failed: bool = False) -> None:
        """Marks a shard as written: as finished, or as one that holds failed elements.

        Raises:
          OutputError: it cannot be written, or a file of the shard cannot be read.
        """
        self._fetch_shard(index, num_shards)
        self._fetched.discard(index)
        files = {shard.path: file_digest(self.path / shard.path) for shard in all_shards([index], num_shards)}
        self._put(_mark_name(index), msgspec.json.encode(Mark(files=files, failed=failed), order="sorted"))

    def has_failures(self, index: int, num_shards: int) -> bool:
        """Whether elements of a shard failed: it then stays unfinished, and the same command tries them again."""
        # All of it: who counts later what is written finds it whole, finished or not.
        self._fetched.discard(index)
        self._fetch_shard(index, num_shards)
        shards = (shard for shard in all_shards([index], num_shards) if shard.config == "failures")
        return any(num_rows(self.path / shard.path) for shard in shards)

    def digests(self, num_shards: int) -> dict[str, str]:
        """SHA-256 of every shard file that is there, by path; of a run that stopped early some are not."""
        paths = sorted(shard.path for shard in all_shards(range(num_shards), num_shards))
        return {path: file_digest(self.path / path) for path in paths if (self.path / path).is_file()}

    def begin(self) -> None:
        """From here until `complete` the folder is not a whole dataset."""
        (self.path / COMPLETED).unlink(missing_ok=True)
        self._prune()

    def write(self, name: str, content: str) -> None:
        """Writes a file beside the shards, whole or not at all."""
        self._put(name, content.encode("utf-8", "replace"))

    def complete(self) -> None:
        """Says that everything is written; the last thing that a run does, when its jobs have ended.

        Raises:
          OutputError: it cannot be written, or a half-written file cannot be taken away.
        """
        try:
            self._sweep()
        except OSError as error:
            raise self._unwritable(error) from error
        self.write(COMPLETED, "")

    def _put(self, name: str, content: bytes) -> None:
        """Writes a file whole or not at all; in a store only as long as nobody else has taken the folder over."""
        try:
            if self._lease:
                self._lease.require()
            write_whole(self.folder / name, content)
        except OSError as error:
            raise OutputError(
                f"cannot write {self.folder / name}: {error.strerror or error}; free some space or make it writable, "
                "then start the same command again: it goes on from here"
            ) from error
        if self._mirror:
            self._mirror.keep(name, content)

    def _fetch_shard(self, index: int, num_shards: int) -> None:
        """Has the files of a shard that was just written here, too."""
        if self._mirror and index not in self._fetched:
            names = [shard.path for shard in all_shards([index], num_shards)]
            self._in_store(functools.partial(self._mirror.fetch, names))
            self._fetched.add(index)

    def _prune(self) -> None:
        if self._mirror:
            self._in_store(self._mirror.prune)


def _mark_name(index: int) -> str:
    return f"{STATE}/done/{index:05d}.json"


def mark_of(out: Path, index: int) -> Mark:
    """A shard's mark; one without files where there is none."""
    return _read(out / _mark_name(index), Mark, default=Mark(files={}))


def is_written(out: Path, index: int, num_shards: int) -> bool:
    """Whether a shard's files are those that its mark names: whoever writes it anew may have been killed halfway."""
    files = mark_of(out, index).files
    wanted = {shard.path for shard in all_shards([index], num_shards)}
    return files.keys() == wanted and all(
        (out / file).is_file() and file_digest(out / file) == sha and is_shard(out / file)
        for file, sha in files.items()
    )


def _read(path: Path, record: type[R], *, default: R) -> R:
    """What a file of ours says; the default where there is none, or it is torn or says something else."""
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_MARK:
            return default
        return msgspec.json.decode(path.read_bytes(), type=record)
    except (FileNotFoundError, msgspec.DecodeError, RecursionError):
        return default


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

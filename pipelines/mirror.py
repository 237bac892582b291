"""A local copy of what is read back of a run's folder in a store: each file is fetched once, many at a time.

Counting, card, report and page read every table several times, file by file. From a store that would be a request
each; so they read the copy, and only what is written goes to the store.
"""

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import UserError
from pipelines.storage import StorageError, explained, open_folder, remove, store_errors
from schemas.arrow import CONFIGS

if TYPE_CHECKING:
    from upath import UPath

_COPIED = re.compile(rf"(?:(?:{'|'.join(CONFIGS)}|logs|\.wrongturn/done)/|\.wrongturn/(?=owner\.json$))?[^/\x00]+")
"""Paths below the folder that are copied; no other name can lead out of the copy."""


_AT_ONCE = 16
"""Files that are fetched at a time."""
_PREFIX = "wrongturn-copy-"
_COPY, _LOCK = "copy", "lock"
"""What such a folder holds. Who has the copy holds the lock, which ends with the process. Its number would say less:
containers have the same ones."""


class Mirror:
    """A copy, for as long as this object is held; as new as the last `refresh`."""

    def __init__(self, store: "UPath") -> None:
        self.store = store
        sweep_copies()
        held = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = _lock(held)
        weakref.finalize(self, os.close, lock)
        weakref.finalize(self, _take_away, held)
        self.path = held / _COPY / (store.name or "out")
        self.path.mkdir(parents=True)
        self._stamps: dict[str, str] = {}
        """What the store said of each file that is here; empty for what this process wrote or fetched by its name."""

    def refresh(self) -> None:
        """Makes the copy what the store holds now: one listing, and what is new or changed.

        Raises:
          OSError: the store cannot be read.
        """
        there = self._listed()
        for name in self._stamps.keys() - there.keys():
            (self.path / name).unlink(missing_ok=True)
            del self._stamps[name]
        self.fetch(name for name, info in there.items() if not self._has(name, info))
        self._stamps |= {name: _stamp(info) for name, info in there.items()}

    def _listed(self) -> dict[str, dict[str, Any]]:
        base = self.store.path.rstrip("/") + "/"
        with store_errors():
            try:
                found = self.store.fs.find(base, detail=True)
            except FileNotFoundError:
                return {}
        names = ((path.removeprefix(base), info) for path, info in found.items())
        return {name: info for name, info in names if _COPIED.fullmatch(name) and name not in (".", "..")}

    def _has(self, name: str, info: dict[str, Any]) -> bool:
        if name not in self._stamps:
            return False
        file = self.path / name
        return self._stamps[name] == _stamp(info) or (
            not self._stamps[name] and file.is_file() and file.stat().st_size == info["size"]
        )

    def fetch(self, names: Iterable[str]) -> None:
        """Copies files anew.

        Raises:
          OSError: one is not there, or the store cannot be read.
        """
        wanted = sorted(names)
        for name in wanted:
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        if wanted:
            here = [str(self.path / name) for name in wanted]
            with store_errors():
                self.store.fs.get([(self.store / name).path for name in wanted], here, batch_size=_AT_ONCE)
        self._stamps |= dict.fromkeys(wanted, "")

    def keep(self, name: str, content: bytes) -> None:
        """Copies what was just written to the store."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self._stamps[name] = ""

    def give_back(self) -> None:
        """Makes the store what the copy is: without what was taken away here, and with the logs that were written here.

        Raises:
          OSError: the store refuses it.
        """
        self.prune()
        for log in sorted(self.path.glob("logs/*")):
            if log.is_file() and not log.is_symlink():
                name = f"logs/{log.name}"
                with store_errors():
                    self.store.fs.put_file(str(log), (self.store / name).path)
                self._stamps[name] = ""

    def prune(self) -> None:
        """Takes away from the store what was taken away from the copy.

        Raises:
          OSError: the store refuses it.
        """
        gone = [name for name in self._stamps if not (self.path / name).is_file()]
        remove(self.store / name for name in gone)
        for name in gone:
            del self._stamps[name]

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Errors that name a file of the copy name that of the store."""
        try:
            yield
        except UserError as error:
            if str(self.path) not in str(error):
                raise
            raise type(error)(str(error).replace(str(self.path), str(self.store))) from error


@contextlib.contextmanager
def at_hand(out: str) -> Iterator[Path]:
    """A run's folder to be read: itself, or a copy that goes when this ends.

    Raises:
      StorageError: it is in a store that cannot be read; or `out` is no name of a folder.
    """
    folder = open_folder(out)
    if isinstance(folder, Path):
        yield folder
        return
    mirror = Mirror(folder)
    try:
        mirror.refresh()
    except OSError as error:
        raise StorageError(f"out: {explained(folder, error)}") from error
    with mirror.named():
        yield mirror.path


def sweep_copies() -> None:
    """Takes away copies of this user whose process was killed, and so could not do it itself."""
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        # It is held, or another start has just taken it away.
        with contextlib.suppress(OSError):
            # Another user's folder may be a link to one of ours.
            if lock.parent.lstat().st_uid == os.getuid():
                with lock.open("r+b") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _take_away(lock.parent)


def _lock(held: Path) -> int:
    """Makes the lock, which nobody sees before it is held; gives its descriptor."""
    new = held / f"{_LOCK}.new"
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    new.rename(held / _LOCK)
    return descriptor


def _take_away(held: Path) -> None:
    # The lock last: where this is broken off, the next start does the rest.
    shutil.rmtree(held / _COPY, ignore_errors=True)
    shutil.rmtree(held, ignore_errors=True)


def _stamp(info: dict[str, Any]) -> str:
    """Changes with the content: a store's own name for this version of a key, never empty."""
    return f"{info['size']} {info.get('generation') or info.get('ETag') or info.get('etag') or info.get('created')}"

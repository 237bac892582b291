"""Where a run's folder lies: a path of this machine, or a key prefix of an object store.

On a path a file is written under another name, synced and renamed. A store puts a key whole or not at all, and says
what is there as of now: fsspec's own cache of listings is off, for other processes write there, too.
"""

import contextlib
import errno
import importlib.util
import os
import re
import sys
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeAlias

from pipelines.errors import UserError

if TYPE_CHECKING:
    from upath import UPath

Folder: TypeAlias = "Path | UPath"
"""A folder or a file, here or in a store. Both know `/`, `name`, `parent`, `is_file`, `read_bytes` and `unlink`."""

_EXTRAS = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3"), "memory": ("fsspec", "")}
"""Package and extra by scheme. `memory` is a store within one process, for tests."""
_EXPECTED = "a path, gs://BUCKET/PREFIX or s3://BUCKET/PREFIX"
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[^/*?\[\]{}#\\\x00-\x1f\x7f]+)*/?")
"""Bucket and prefix. Characters that fsspec takes for a pattern, or a URL for its end, are in none."""
_OTHER_ERRORS = {
    "aiohttp": ("ClientError",),
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "gcsfs.retry": ("HttpError", "ChecksumError", "NonRetryableError"),
    "google.auth.exceptions": ("GoogleAuthError",),
}
"""What file systems raise beside OSError, by module."""
_REMEDIES = {
    "gs": "`gcloud auth application-default login`, or GOOGLE_APPLICATION_CREDENTIALS with the path of a key",
    "s3": "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
}
_MOST_CHARS = 300
"""Of what a store says of itself, in a message."""


class StorageError(UserError):
    """A folder that cannot be used: what was expected, what came, what to do."""


class StoreTrouble(OSError):
    """What a store's client raised that is no OSError itself."""


def is_store(text: str) -> bool:
    """Whether a folder's name is a URL, and no path of this machine."""
    return "://" in text


def check_folder(text: str) -> None:
    """Looks at the name of a folder, at nothing else.

    Raises:
      StorageError: it is a URL that nothing can be written to.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        return
    if scheme not in _EXTRAS:
        raise StorageError(f"out: expected {_EXPECTED}, got one that begins with {scheme + separator!r}")
    parts = rest.split("/")
    if not _KEY.fullmatch(rest) or "." in parts or ".." in parts:
        raise StorageError(
            f"out: expected {scheme}://BUCKET/PREFIX without empty parts, '.', '..' and the characters * ? [ ] {{ }} "
            f"# \\, got {text!r}"
        )


def open_folder(text: str) -> Folder:
    """The folder with this name; nothing is asked of a store yet.

    Args:
      text: a path, in which `~` is the home folder, or `gs://BUCKET/PREFIX` or `s3://BUCKET/PREFIX`.

    Raises:
      StorageError: it is no such name, or the package for its scheme is not installed.
    """
    if not is_store(text):
        return Path(text).expanduser()
    check_folder(text)
    scheme = text.partition("://")[0]
    package, extra = _EXTRAS[scheme]
    if importlib.util.find_spec(package) is None:
        raise StorageError(f"out: {scheme}:// needs the package {package}: pip install 'wrongturn[{extra}]'")
    from upath import UPath

    return UPath(text.rstrip("/"), use_listings_cache=False)


@contextlib.contextmanager
def store_errors() -> Iterator[None]:
    """Makes whatever a store's client raises an OSError."""
    try:
        yield
    except _other_errors() as error:
        said = " ".join(str(error).split())[:_MOST_CHARS]
        raise StoreTrouble(errno.EIO, f"{type(error).__name__}: {said}") from error


def _other_errors() -> tuple[type[Exception], ...]:
    # Whose module nobody has imported, nobody raises.
    modules = {name: sys.modules[name] for name in _OTHER_ERRORS if name in sys.modules}
    return tuple(getattr(module, error) for name, module in modules.items() for error in _OTHER_ERRORS[name])


def explained(folder: Folder, error: OSError) -> str:
    """What an OSError means for a folder in a store, and what to do; for a message that begins with the setting."""
    scheme, _, rest = str(folder).partition("://")
    said = " ".join(str(error.strerror or error).split())[:_MOST_CHARS]
    words = f"{type(error).__name__} {type(error.__cause__).__name__} {said}"
    if isinstance(error, FileNotFoundError) or re.search(r"NoSuchBucket|bucket does not exist|\b404\b", words):
        return f"there is no bucket {rest.partition('/')[0]!r} ({said}); make it, or correct the name"
    if isinstance(error, PermissionError) or re.search(
        r"Credential|GoogleAuth|RefreshError|Forbidden|\b40[13]\b", words
    ):
        return (
            f"{folder} is not for these credentials, or there are none ({said}); give {_REMEDIES.get(scheme, 'some')}"
        )
    return f"{folder} cannot be used: {said}; see that the store can be reached, then give the same command again"


def write_whole(path: Folder, content: bytes) -> None:
    """Writes a file or key whole or not at all; its folder must be there.

    Raises:
      OSError: the disk is full, the folder cannot be written, or the store refuses it.
    """
    if isinstance(path, Path):
        with writing_whole(path) as file:
            file.write(content)
    else:
        with store_errors():
            path.fs.pipe_file(path.path, content)


@contextlib.contextmanager
def writing_whole(path: Folder) -> Iterator[IO[bytes]]:
    """A file to write to, which then is at `path` as a whole, or not at all where anything is raised.

    Raises:
      OSError: the disk is full, the folder cannot be written, or the store refuses it.
    """
    if isinstance(path, Path):
        with _renamed(path) as file:
            yield file
    else:
        with tempfile.NamedTemporaryFile(prefix="wrongturn-") as file:
            yield file
            file.flush()
            with store_errors():
                path.fs.put_file(file.name, path.path)


@contextlib.contextmanager
def _renamed(path: Path) -> Iterator[IO[bytes]]:
    # One process may write a file twice at once: a cluster runs a bundle again before the first attempt has ended. And
    # containers that come one after the other have the same host name and process number.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        # Made here, so that nothing that lies there already is written to.
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        # Nothing can be taken away where nothing can be written; the next run does that.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def create(path: "UPath", content: bytes) -> bool:
    """Puts a key that is not there yet; whether it was not. Of several that try, one succeeds.

    gcsfs asks with `ifGenerationMatch=0`, s3fs with `If-None-Match: *`.
    """
    try:
        with store_errors():
            path.fs.pipe_file(path.path, content, mode="create")
    except FileExistsError:
        return False
    return True


def remove(paths: "Iterable[UPath]") -> None:
    """Takes keys of one store away; those that are not there are no error."""
    with store_errors():
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                path.fs.rm_file(path.path)


def names_in(folder: Folder) -> list[str]:
    """Names of what is right in a folder, sorted, from one listing; none where it is not there.

    Raises:
      OSError: it cannot be read.
    """
    try:
        if isinstance(folder, Path):
            return sorted(path.name for path in folder.iterdir())
        with store_errors():
            paths: list[str] = folder.fs.ls(folder.path, detail=False)
    except FileNotFoundError:
        return []
    inside = (path.rstrip("/").removeprefix(folder.path.rstrip("/") + "/") for path in paths)
    return sorted(name for name in inside if name and "/" not in name)

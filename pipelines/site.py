"""The place that a run's workers share: what they must find in `out` before they ask any model.

The process that starts a run writes there what is to be done, and each worker looks whether it sees the very same. A
worker without the disk that it was thought to have, or with other code, says so and asks nothing.
"""

import contextlib
import logging
import os
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from pipelines.errors import UserError
from pipelines.extent import inputs_of
from pipelines.plan import Inputs, package_version
from pipelines.runners.package import code_digest
from pipelines.storage import Folder, names_in, open_folder, store_errors, write_whole
from schemas import Record

_FOLDER = ".wrongturn/inputs"


class Site(Record):
    """Where the workers of one start of a run meet. Travels inside the graph."""

    out: str
    """The output folder, absolute or a URL."""
    config_digest: str
    version: str
    """Of wrongturn, where the run was started."""
    code: str
    """See `code_digest`, there."""
    start: str
    """What tells this start from earlier ones of the same run, whose workers may go on for a while."""
    host: str = ""
    """See `this_host`; where workers have to be there, too. Empty where they may be anywhere."""


class SiteError(UserError):
    """A worker is not where it should be; says which one, what it sees and what to do."""


class _Mark(Record):
    config_digest: str


def this_host() -> str:
    """What tells this machine, as long as it is up, from others; its containers are the same machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:  # Where it is no Linux.
        return socket.gethostname()


def open_site(site: Site, inputs: Inputs, shards: Sequence[int], num_shards: int) -> None:
    """Writes the inputs of some shards to where workers read them, and takes away what was there of another start.

    Raises:
      SiteError: they cannot be written.
    """
    folder = open_folder(site.out) / _FOLDER
    try:
        with store_errors():
            folder.mkdir(parents=True, exist_ok=True)
            _empty(folder)
            for index in shards:
                part = inputs_of(inputs, [index], num_shards)
                write_whole(folder / f"{index:05d}.msgpack", msgspec.msgpack.encode(part))
            write_whole(folder / "run.json", msgspec.json.encode(_Mark(config_digest=site.config_digest)))
    except OSError as error:
        raise SiteError(
            f"out: cannot write the problems of the run to {folder}: {error.strerror or error}; free some space or "
            "make it writable"
        ) from error


def close_site(out: str) -> None:
    """Takes away what workers have needed: the run is whole."""
    folder = open_folder(out) / _FOLDER
    try:
        with store_errors():
            _empty(folder)
    except OSError as error:
        logging.getLogger(__name__).warning("what workers have needed stays in %s: %s", folder, error)


def _empty(folder: Folder) -> None:
    for name in names_in(folder):
        (folder / name).unlink(missing_ok=True)


def read_site(out: str, index: int) -> Inputs:
    """The inputs of one shard.

    Raises:
      SiteError: they are not there.
    """
    path = open_folder(out) / _FOLDER / f"{index:05d}.msgpack"
    try:
        return msgspec.msgpack.decode(_read(path), type=Inputs)
    except OSError as error:
        raise _unseen(out, f"the problems of shard {index} are not there ({error.strerror or error})") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _unseen(out, f"the problems of shard {index} are damaged ({error})") from error


def enter_site(site: Site) -> None:
    """Signs in as a worker of the run.

    Raises:
      SiteError: this process does not see what the run's start has written, cannot write there, has other code, or is
        on another machine than a journal that is a file.
    """
    if (site.version, site.code) != (package_version(), code_digest()):
        raise SiteError(
            f"the worker on {socket.gethostname()} has wrongturn {package_version()} (code {code_digest()[:12]}), and "
            f"the run was started by {site.version} (code {site.code[:12]}); install the same on every worker "
            "(deploy/Dockerfile makes such an image)"
        )
    if site.host and site.host != this_host():
        raise SiteError(
            f"journal: the worker on {socket.gethostname()} is on another machine than the one that the run was "
            "started on, and a file's journal is for one; give journal=redis://HOST:6379/0"
        )
    path = open_folder(site.out) / _FOLDER / "run.json"
    try:
        seen = msgspec.json.decode(_read(path), type=_Mark).config_digest
    except OSError as error:
        raise _unseen(site.out, f"there is no {path} ({error.strerror or error})") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _unseen(site.out, f"{path} is damaged ({error})") from error
    if seen != site.config_digest:
        raise _unseen(site.out, f"it holds a run with config {seen[:12]}, this one has {site.config_digest[:12]}")
    report(site, {})


def report(site: Site, elements: Mapping[str, int]) -> None:
    """Tells what this worker has finished by now: a file of its own, for whoever watches the run.

    Raises:
      SiteError: it cannot be written.
    """
    path = open_folder(site.out) / _FOLDER / f"{socket.gethostname()}-{os.getpid()}{_ending(site)}"
    try:
        with store_errors():
            write_whole(path, msgspec.json.encode(dict(elements)))
    except OSError as error:
        raise _unseen(site.out, f"it cannot write there ({error.strerror or error})") from error


def read_reports(site: Site) -> dict[str, Counter[str]]:
    """What workers of this start have finished, by worker.

    Raises:
      OSError: the folder cannot be read.
    """
    folder = open_folder(site.out) / _FOLDER
    reports = {}
    for name in names_in(folder):
        if name.endswith(_ending(site)):
            with contextlib.suppress(msgspec.DecodeError, FileNotFoundError):
                reports[name] = Counter(msgspec.json.decode(_read(folder / name), type=dict[str, int]))
    return reports


def _ending(site: Site) -> str:
    """Of the names of this start's reports."""
    return f"-{site.start}.worker"


def _read(path: Folder) -> bytes:
    with store_errors():
        content: bytes = path.read_bytes()
    return content


def _unseen(out: str, what: str) -> SiteError:
    return SiteError(
        f"out: the worker on {socket.gethostname()} does not see the run in {out}: {what}; give out=DIR on a disk that "
        "all workers have, or out=gs://... or s3://..."
    )

"""Where the processes of one user on one host agree on a server: a private folder with two locks and two small files.

The locks are flock(2)'s. They belong to open files, so that the kernel lets go of them however a process ends, and a
keeper inherits its own from whoever starts it: there is no moment at which nobody has it. `users` is held in common by
everybody who uses the server, `keeper` alone by the one process that runs it.
"""

import contextlib
import fcntl
import os
import socket
import stat
import sys
import tempfile
from pathlib import Path
from typing import TypeVar

import msgspec

from pipelines.engines.settings import EngineSettings
from pipelines.errors import UserError
from schemas import Record, digest

R = TypeVar("R", bound=Record)

_FORMAT = 1
"""Of what is in the folder; raised with every change, so that two versions of this package do not meet there."""
_DEVICES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
"""Processes that see other accelerators want another server."""


class Order(Record):
    """What a keeper is told by whoever starts it. It stays for as long as the keeper has not ended in good order."""

    generation: str
    """Of the keeper: no two have the same."""
    settings: EngineSettings
    name: str
    """The engine's in the settings of whoever started it: `engine`, or `engines.NAME`."""
    linger_secs: float
    port: int
    """Where the server must listen; 0 for wherever the settings say."""
    num_crashes: int
    """Keepers in a row before this one that ended by themselves."""
    began_at: float
    """Seconds since 1970."""


class State(Record):
    """What a keeper says of its server."""

    generation: str
    pid: int
    """The keeper's."""
    began: str = ""
    """When that process began, see `process_began`; empty where there is none."""
    revision: str = ""
    """Of the model that is on this host."""
    url: str = ""
    """Empty until the server is well."""
    error: str = ""
    """Why there is no server and will be none."""

    @property
    def is_alive(self) -> bool:
        """Whether the keeper still lives; another process that has got its pid since is not it."""
        return bool(self.began) and self.began == process_began(self.pid)

    @property
    def is_up(self) -> bool:
        """Whether there is a server, as far as its keeper still lives."""
        return bool(self.url) and not self.error and self.is_alive


class HostFolder:
    """The folder of one server."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.logs = path / "logs"
        self._order = path / "order.json"
        self._state = path / "state.json"

    @classmethod
    def of(cls, settings: EngineSettings) -> "HostFolder":
        """The folder for an engine's server on this host; made, and nobody else's.

        Raises:
          UserError: it belongs to somebody else, is a link or open to others, or cannot be made.
        """
        base = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
        root = (base if base.is_absolute() and base.is_dir() else Path(tempfile.gettempdir())).absolute()
        home = root / f"wrongturn-{os.getuid()}"
        path = home / digest(_FORMAT, *_this_host(), sys.prefix, settings)
        for folder in (home, path, path / "logs"):
            _make_private(folder)
        return cls(path)

    @property
    def log(self) -> Path:
        """The keeper's own."""
        return self.logs / "keeper.log"

    def open_users(self) -> int:
        """The file whose lock users share; its descriptor is closed by whoever asked, and not inherited."""
        return _open(self.path / "users")

    def open_keeper(self) -> int:
        """The file whose lock the keeper has; likewise."""
        return _open(self.path / "keeper")

    def order(self) -> Order | None:
        """What the keeper was told; None where the last one ended in good order."""
        return _read(self._order, Order)

    def state(self) -> State | None:
        """What the keeper says, or the last one said."""
        return _read(self._state, State)

    def write_order(self, order: Order) -> None:
        """Puts an order there, whole."""
        _write(self._order, order)

    def write_state(self, state: State) -> None:
        """Puts a state there, whole."""
        _write(self._state, state)

    def forget_order(self) -> None:
        """What is there then is the end of a keeper that nobody need count as a crash."""
        self._order.unlink(missing_ok=True)

    def forget_state(self) -> None:
        """What an earlier keeper said holds no longer."""
        self._state.unlink(missing_ok=True)

    def touch(self) -> None:
        """Shows whoever sweeps temporary folders that this one is in use."""
        for name in ("users", "keeper", self._order.name, self._state.name, "."):
            with contextlib.suppress(FileNotFoundError):
                os.utime(self.path / name)


def process_began(pid: int) -> str:
    """When a process began, in the kernel's ticks since boot; empty where it is dead, buried or not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # "pid (any name) state ppid ...", of which `starttime` is the 22nd, proc_pid_stat(5).
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in ("Z", "X") else fields[19]


def try_lock(descriptor: int, how: int) -> bool:
    """Takes a lock (`fcntl.LOCK_SH`, `fcntl.LOCK_EX`) if it is to be had now."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _this_host() -> tuple[str, ...]:
    """What tells this host from others that have the same temporary folder, and this boot from the one before.

    Containers with a network each are not one host, for a loopback URL says nothing in another network, nor are those
    that cannot see each other's processes.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    devices = (os.environ.get(name, "") for name in _DEVICES)
    spaces = (str(Path(f"/proc/self/ns/{name}").readlink()) for name in ("net", "pid"))
    return (socket.gethostname(), boot, *spaces, *devices)


def _make_private(path: Path) -> None:
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        found = path.lstat()
    except OSError as error:
        raise UserError(
            f"cannot make the folder {path} in which the processes of this host agree on a server: {error.strerror}; "
            "let XDG_RUNTIME_DIR or TMPDIR name a folder that can be written"
        ) from error
    else:
        return
    if not stat.S_ISDIR(found.st_mode):
        wrong = "is a link" if stat.S_ISLNK(found.st_mode) else "is a file"
    elif found.st_uid != os.getuid():
        wrong = f"belongs to user {found.st_uid}, not to {os.getuid()}"
    elif found.st_mode & 0o077:
        wrong = f"is open to others (mode {stat.S_IMODE(found.st_mode):o})"
    else:
        return
    raise UserError(
        f"{path} {wrong}; expected a folder of this user's alone, for what stands in it says which server is asked: "
        "remove it, or let XDG_RUNTIME_DIR name another place"
    )


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _read(path: Path, kind: type[R]) -> R | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def _write(path: Path, record: Record) -> None:
    new = path.with_name(f"{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
        file.write(msgspec.json.encode(record))
    new.replace(path)

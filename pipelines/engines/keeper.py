"""The process that runs the one server of a host for as long as anybody uses it.

It belongs to no run: whichever process asks first starts it (`pipelines.engines.host_server`), and it ends itself and
the server when nobody has used that for a while. Servers that are programs run under their guardian, as in a run on one
machine; llama.cpp and the simulated world live in this process and die with it.
"""

import contextlib
import fcntl
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from pipelines.engines import llama_cpp, simulated
from pipelines.engines.host_folder import HostFolder, Order, State, process_began, try_lock
from pipelines.engines.identity import identity_of
from pipelines.engines.launching import launch_of
from pipelines.engines.managed import Servers, ServerWatcher
from pipelines.engines.ports import is_free
from pipelines.engines.settings import LlamaCpp, Managed, Simulated

_LOG = logging.getLogger(__name__)
_POLL_SECS = 0.2
_TOUCH_SECS = 3600.0
_PORT_SECS = 60.0
"""How long the server of a keeper that was killed may hold its port: its guardian takes it down, which takes as long as
`stop_timeout_secs` where it is deaf, and that much more."""


class _Idle(Exception):
    """Nobody waits for the server that is just being started."""


class _Users:
    """Whether anybody uses the server, and for how long nobody has."""

    def __init__(self, folder: HostFolder, linger_secs: float) -> None:
        self._lock = folder.open_users()
        self._folder = folder
        self._since: float | None = None
        self._touched = time.monotonic()
        self.linger_secs = linger_secs

    def are_gone(self) -> bool:
        """Whether nobody has used it for as long as it lingers; if so, nobody can until this process has ended.

        Whoever comes in that moment waits for the lock, and then starts a keeper of its own.
        """
        now = time.monotonic()
        if now - self._touched > _TOUCH_SECS:
            self._folder.touch()
            self._touched = now
        if not try_lock(self._lock, fcntl.LOCK_EX):
            self._since = None
            return False
        self._since = now if self._since is None else self._since
        if now - self._since >= self.linger_secs:
            return True
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        return False


class _Watcher(ServerWatcher):
    """Hands on what becomes of a server that is a program."""

    def __init__(self, users: _Users, tell: Callable[[str], None]) -> None:
        self._users = users
        self._tell = tell

    @contextlib.contextmanager
    def starting(self, name: str) -> Iterator[Callable[[str], None]]:
        """A start takes minutes; one that nobody waits for any more is broken off."""
        yield self._look

    def _look(self, line: str) -> None:
        del line
        if self._users.are_gone():
            raise _Idle

    def gave_up(self, name: str, why: str) -> None:
        """Those who use it hear so from the stone at its port, and whoever comes now should not be sent there."""
        self._tell(why)
        self._users.linger_secs = 0.0


class Keeper:
    """Runs the server of one folder by the order that lies in it."""

    def __init__(self, folder: HostFolder, order: Order) -> None:
        self._folder = folder
        self._order = order
        self._state = State(generation=order.generation, pid=os.getpid(), began=process_began(os.getpid()))
        self._users = _Users(folder, order.linger_secs)

    def run(self) -> None:
        """Returns when there is no server, because nobody uses it or because it did not start."""
        self._say()
        with contextlib.ExitStack() as stack:
            try:
                self._say(revision=identity_of(self._order.settings, self._order.name)[1])
                self._await_port()
                url = stack.enter_context(self._serving())
            except _Idle:
                _LOG.info("nobody waits for the server any more")
                self._forget()
                return
            except (ValueError, OSError, RuntimeError, ImportError) as error:
                _LOG.exception("the server did not start")
                said, name = str(error), self._order.name
                self._fail(said if said.startswith((f"{name}:", f"{name}.")) else f"{name}: {said}")
                return
            self._say(url=url)
            _LOG.info("the server listens at %s", url)
            while not self._users.are_gone():
                time.sleep(_POLL_SECS)
            _LOG.info("nobody uses the server any more")
            self._forget()

    def _say(self, **changed: str) -> None:
        self._state = msgspec.structs.replace(self._state, **changed)
        self._folder.write_state(self._state)

    def _fail(self, why: str) -> None:
        self._say(error=why if str(self._folder.logs) in why else f"{why}; its log is {self._folder.log}")
        self._folder.forget_order()

    def _forget(self) -> None:
        self._folder.forget_order()
        self._folder.forget_state()

    def _await_port(self) -> None:
        """After a keeper that was killed its server still has the port, for as long as it takes to die."""
        port, settings = self._order.port, self._order.settings
        patience = _PORT_SECS + (settings.stop_timeout_secs if isinstance(settings, Managed) else 0.0)
        deadline = time.monotonic() + patience
        while port and not is_free(port):
            if self._users.are_gone():
                raise _Idle
            if time.monotonic() > deadline:
                raise OSError(
                    f"port {port}, where the server was that died, has been taken by another program; the run's "
                    "requests will fail, the next run takes another port"
                )
            time.sleep(_POLL_SECS)

    @contextlib.contextmanager
    def _serving(self) -> Iterator[str]:
        order, settings = self._order, self._order.settings
        match settings:
            case LlamaCpp():
                with llama_cpp.serving(settings, port=order.port) as url:
                    yield url
            case Simulated():
                with simulated.serving(settings.world, port=order.port) as url:
                    yield url
            case Managed():
                watcher = _Watcher(self._users, lambda why: self._say(error=why))
                there = msgspec.structs.replace(settings, port=order.port or settings.port)
                with Servers(self._folder.logs, watcher) as servers:
                    yield servers.url(launch_of(there, order.name), order.name)
            case _:
                raise ValueError(f"an engine of kind {type(settings).__name__} has no server that could be started")


def main(folder: str, lock: int) -> None:
    """Runs the server of a folder whose `keeper` lock this process has inherited as the descriptor `lock`."""
    fcntl.fcntl(lock, fcntl.F_SETFD, fcntl.FD_CLOEXEC)  # Not for the server, which may outlive this process.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    host_folder = HostFolder(Path(folder))
    order = host_folder.order()
    if order is None:
        raise ValueError(f"{folder} holds no order; a keeper is started by a worker, not by hand")
    _LOG.info("keeper %d on %s", os.getpid(), socket.gethostname())
    Keeper(host_folder, order).run()

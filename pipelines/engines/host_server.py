"""The one server of a host, found or started by whichever process asks: for workers that come and go.

On a cluster several worker processes share a host, none of them is there from the first to the last, and each may be
killed without a word. None of them can be the server's parent, so they have a keeper in common
(`pipelines.engines.keeper`): whoever finds none starts one. While a process uses the server it looks whether its keeper
is still there, and starts another at the same port if not.
"""

import contextlib
import fcntl
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
import weakref
from pathlib import Path
from types import TracebackType

import msgspec

from pipelines.engines.host_folder import HostFolder, Order, State, try_lock
from pipelines.engines.managed import last_words
from pipelines.engines.settings import EngineSettings, LlamaCpp, Managed, Simulated
from pipelines.errors import UserError
from schemas import Record

LINGER_SECS = 60.0
"""How long a server stays that nobody uses: long enough for the next bundle, or the next run of the command."""
_LOG = logging.getLogger(__name__)
_POLL_SECS, _WATCH_SECS = 0.05, 0.5
_START_SECS = 900.0
"""How long a server without a setting for it may take to start."""
_MARGIN_SECS = 120.0
"""What waiting for a start may take besides: for the server before it to be gone, for files to be read."""
_SPAWN_SECS = 60.0
_MAX_CRASHES = 3
"""Keepers in a row that may end by themselves, where the settings have no `max_restarts`."""
_LONG_LIFE_SECS = 600.0
"""A keeper that lived longer counts as one that was well: what ends it is no matter of its start."""
_KEEPER = """
import os, sys
if os.fork(): os._exit(0)
sys.path.append(sys.argv[1])
from pipelines.engines.keeper import main
main(sys.argv[2], int(sys.argv[3]))
"""
"""Nobody's child: whoever starts it need not bury it. Where the package lies comes last among the places to look, and
in no environment variable, for the server may have an interpreter of its own."""


class OnHost(Record):
    """A server that each host has one of: what a worker needs to find it or start it."""

    settings: str
    """The engine's as JSON, as far as they are the server's: a plain value that can be told from others."""
    linger_secs: float = LINGER_SECS
    """How long it stays when nobody uses it, so that the next bundle or job need not wait for a start."""

    @classmethod
    def of(cls, settings: EngineSettings, linger_secs: float) -> "OnHost":
        """What concerns the server alone, so that engines which differ in the rest share one.

        Folders are named from the root: workers have another working directory.
        """
        if isinstance(settings, LlamaCpp):
            path = Path(settings.model_path).expanduser()
            model = str(path.absolute()) if path.is_file() else settings.model_path
            plain = LlamaCpp()
            settings = msgspec.structs.replace(settings, model_path=model, style=plain.style, limits=plain.limits)
        elif isinstance(settings, Simulated):
            settings = msgspec.structs.replace(settings, limits=Simulated().limits)
        elif isinstance(settings, Managed):
            path, python = Path(settings.model).expanduser(), Path(settings.python).expanduser()
            bare = type(settings)(model=settings.model)
            settings = msgspec.structs.replace(
                settings,
                model=str(path.absolute()) if path.exists() else settings.model,
                python=str(python.absolute()) if settings.python and python.exists() else settings.python,
                style=bare.style,
                chat_template=bare.chat_template,
                images=bare.images,
                api_key_env=bare.api_key_env,
                limits=bare.limits,
            )
        return cls(settings=msgspec.json.encode(settings, order="deterministic").decode(), linger_secs=linger_secs)

    def read(self) -> EngineSettings:
        """The settings."""
        settings: EngineSettings = msgspec.json.decode(self.settings, type=EngineSettings)
        return settings


class HostServer:
    """This process's hold on its host's server for an engine: `url` answers for as long as the context lasts.

    The server is this user's on this host and of these settings. It is started if there is none, and stays for
    `OnHost.linger_secs` after the last process has let go of it or was killed.
    """

    def __init__(self, wanted: OnHost, name: str, revision: str) -> None:
        """Starts nothing yet.

        Args:
          wanted: the server.
          name: the engine's in the settings: `engine`, or `engines.NAME`.
          revision: of the model that must be on this host.
        """
        self.url = ""
        self._name = name
        self._settings = wanted.read()
        self._linger_secs = wanted.linger_secs
        self._revision = revision
        self._folder = HostFolder.of(self._settings)
        self._users = -1
        self._failed = ""
        self._leaving = threading.Event()
        self._watch = threading.Thread(target=self._keep, name=f"{name}-host-watch", daemon=True)

    def __enter__(self) -> "HostServer":
        """Returns when the server is well.

        Raises:
          UserError: it does not start, or serves another model than the run's.
        """
        self._users = self._folder.open_users()
        _HOLDS.add(self)
        with contextlib.ExitStack() as stack:
            stack.callback(self._let_go)
            self.url = self._await_server()
            stack.pop_all()
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.set()
        self._watch.join()
        self._let_go()

    def _let_go(self) -> None:
        if self._users >= 0:
            os.close(self._users)
            self._users = -1

    def forked(self) -> None:
        """To be called in a child that was forked: the hold is the parent's, and must not outlive it."""
        self._let_go()

    def _await_server(self) -> str:
        settings = self._settings
        start = settings.start_timeout_secs if isinstance(settings, Managed) else _START_SECS
        stop = settings.stop_timeout_secs if isinstance(settings, Managed) else 0.0
        patience = start + stop + _MARGIN_SECS
        deadline = time.monotonic() + patience
        before = self._folder.state()
        # What ended before this process asked is no answer to it. A keeper that lives and has given up its server is.
        self._failed = before.generation if before and before.error and not before.is_alive else ""
        is_user = False
        while time.monotonic() < deadline:
            # A keeper that ends has the lock for as long as its server takes to stop.
            is_user = is_user or try_lock(self._users, fcntl.LOCK_SH)
            if is_user and (url := self._url_now()):
                return url
            if is_user:
                self._start_keeper()
            time.sleep(_POLL_SECS)
        raise UserError(
            f"{self._name}: the server of host {socket.gethostname()} was not well within {patience:g} s; see the logs "
            f"in {self._folder.logs}"
        )

    def _url_now(self) -> str:
        """The server's URL if it is well by now; empty if it is still to be.

        Raises:
          UserError: it will not be, or it is not the model that was asked for.
        """
        state = self._folder.state()
        if state is None or state.generation == self._failed:
            return ""
        if state.error:
            raise UserError(f"{state.error} (on host {socket.gethostname()})")
        if state.revision and state.revision != self._revision:
            raise UserError(
                f"{self._name}: the model on host {socket.gethostname()} is revision {state.revision}, that of the "
                f"machine which started the run is {self._revision or 'not known'}: answers would be journaled under a "
                "name that is not theirs; give every host the same files"
            )
        return state.url if state.is_up else ""

    def _start_keeper(self) -> None:
        """Starts a keeper unless there is one, or one that has just said why there is no server.

        Raises:
          UserError: it cannot be started.
        """
        lock = self._folder.open_keeper()
        try:
            if not try_lock(lock, fcntl.LOCK_EX):
                return
            state = self._folder.state()
            if state is not None and state.error and state.generation != self._failed:
                return  # One that others have waited for, too, and its reason is there to be read.
            order = self._next_order(state)
            if order is None:
                return
            if self._folder.order() is None:  # The logs of one that died are wanted yet.
                for old in self._folder.logs.glob("*.log"):
                    old.unlink(missing_ok=True)
            self._folder.write_order(order)
            self._folder.forget_state()
            self._spawn(lock)
        finally:
            os.close(lock)  # The keeper has inherited it, and with it the lock.

    def _next_order(self, state: State | None) -> Order | None:
        """What the next keeper is told; None where too many have died, which is left to be read then."""
        last = self._folder.order()
        crashes = 0
        if last is not None and time.time() - last.began_at < _LONG_LIFE_SECS:
            crashes = last.num_crashes + 1
        allowed = self._settings.max_restarts if isinstance(self._settings, Managed) else _MAX_CRASHES
        if crashes > allowed:
            log = self._folder.log
            said = last_words(log) if log.exists() else "nothing"
            why = (
                f"{self._name}: the keeper of this host's server has died {crashes} times; it said last: {said}; its "
                f"log is {log}"
            )
            self._folder.write_state(State(generation=uuid.uuid4().hex, pid=0, error=why))
            self._folder.forget_order()
            return None
        url = state.url if state and last and state.generation == last.generation else ""
        known = int(url.rpartition(":")[2]) if url else last.port if last else 0
        return Order(
            generation=uuid.uuid4().hex,
            settings=self._settings,
            name=self._name,
            linger_secs=self._linger_secs,
            port=known,
            num_crashes=crashes,
            began_at=time.time(),
        )

    def _spawn(self, lock: int) -> None:
        root = str(Path(__file__).parents[2])
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(self._folder.log, flags, 0o600), "ab") as log:
                subprocess.run(
                    [sys.executable, "-P", "-c", _KEEPER, root, str(self._folder.path), str(lock)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # What is sent to this process's group is not for it.
                    pass_fds=(lock,),
                    timeout=_SPAWN_SECS,
                    check=True,
                )
        except (OSError, subprocess.SubprocessError) as error:
            raise UserError(f"{self._name}: cannot start the keeper of this host's server: {error}") from error

    def _keep(self) -> None:
        """Sees to it that there is a keeper, until this process leaves or nothing can be done any more."""
        while not self._leaving.wait(_WATCH_SECS):
            try:
                self._start_keeper()
            except (UserError, OSError) as error:
                _LOG.error("%s", error)
                return
            state = self._folder.state()
            if state is None:
                continue
            if state.error:
                _LOG.error("%s", state.error)
                return
            if state.url and state.url != self.url:
                _LOG.error("%s: this host's server has moved from %s to %s", self._name, self.url, state.url)
                return


_HOLDS: "weakref.WeakSet[HostServer]" = weakref.WeakSet()


def _forget_in_child() -> None:
    for hold in list(_HOLDS):
        with contextlib.suppress(OSError):
            hold.forked()


os.register_at_fork(after_in_child=_forget_in_child)

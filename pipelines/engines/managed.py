"""Servers that a run starts, keeps alive and takes down again: processes of their own, each under a guardian.

A server lives in an environment of its own, speaks HTTP on loopback and writes its log to a file. While it starts, the
newest line of that log is all there is to be told. One that dies in mid-run is started again at the same port, so that
whoever waits for its URL just goes on, and one that hangs is killed first; one that does so too often leaves a stone at
its port that answers every request with that, and the run ends as it does in any outage.
"""

import contextlib
import datetime
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import IO

from pipelines.engines import guardian, ports
from pipelines.errors import UserError
from schemas import Record

_LOG = logging.getLogger(__name__)
_POLL_SECS = 0.2
_STOP_SECS = 15.0
"""What a guardian may take after the server's own time to stop is over."""
_PAUSE_SECS = 2.0
"""Before the second restart, and so much more before each after it: memory that was held is not free at once."""
_CHECK_SECS = 10.0
"""Between two looks at how a server is that runs."""
_SILENT_CHECKS = 20
"""So many looks in a row without "well" mean that a server hangs. A look waits for 5 s, so they take five minutes, as
long as a request waits for a word by default (`Limits.read_timeout_secs`): whoever was there has given it up. Much less
would not do, for SGLang does not say that it is well while it is busy with a long prefill."""
_TAIL_BYTES = 8192
_MARK = "--- wrongturn starts "
"""Begins the line in a log with which a server's own lines begin."""
_RESTART = re.compile(re.escape(_MARK).encode() + rb"[^ ]+, restart \d+: ")
_ERROR_LINE = re.compile(r"\b(\w*(Error|Exception)|error): \S")


class Launch(Record):
    """How to start one server. Two that are equal are one server."""

    command: tuple[str, ...]
    """`{port}` stands for the port."""
    start_timeout_secs: float
    """Until it says that it is well."""
    stop_timeout_secs: float
    """From SIGTERM to SIGKILL."""
    max_restarts: int
    env: tuple[tuple[str, str], ...] = ()
    """Added to this process's."""
    port: int = 0
    """0 takes a free one."""
    served_name: str = ""
    """What it says that it serves; empty where that is not asked."""


class ServerFailed(UserError):
    """A server that did not come up; says what it said last and where the rest is."""


class ServerWatcher:
    """Is told how servers fare; does nothing by itself."""

    @contextlib.contextmanager
    def starting(self, name: str) -> Iterator[Callable[[str], None]]:
        """Around the start of a server; what it yields is given the server's newest line, again and again."""
        del name
        yield lambda line: None

    def restarted(self, name: str, why: str) -> None:
        """A server died or hung in mid-run and is started again. Called from another thread."""

    def gave_up(self, name: str, why: str) -> None:
        """A server did so too often and is not started again. Called from another thread."""


class Servers:
    """The servers of this process, each started once, whichever of the run's engines asks for it first.

    They are stopped when the context ends, however it ends.
    """

    def __init__(self, logs: Path | None = None, watcher: ServerWatcher | None = None) -> None:
        """Logs go to the folder `logs`; where there is none, to a temporary one that only a failed start leaves."""
        self._logs = logs
        self._watcher = watcher or ServerWatcher()
        self._running: dict[Launch, ManagedServer] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Servers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def url(self, launch: Launch, name: str) -> str:
        """Base URL of the server that `launch` describes, which is well when this returns.

        Args:
          launch: what to start.
          name: of the engine, as the settings call it: `engine`, or `engines.NAME`.

        Raises:
          ServerFailed: it does not come up.
        """
        if launch not in self._running:
            server = ManagedServer(launch, name, self._log(name), self._watcher)
            self._stack.callback(server.stop)
            server.start()
            self._running[launch] = server
        return self._running[launch].url

    def _log(self, name: str) -> Path:
        folder = self._logs
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="wrongturn-logs-"))
            self._stack.push(lambda kind, error, trace: _drop(folder, kind))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ServerFailed(f"{name}: cannot make {folder} for its log: {error.strerror}") from error
        return folder / f"{re.sub(r'[^A-Za-z0-9_-]+', '-', name)}.log"


def _drop(folder: Path, kind: type[BaseException] | None) -> bool:
    """Takes a temporary log away, unless the message of a failed start names it."""
    if kind is None or not issubclass(kind, ServerFailed):
        shutil.rmtree(folder, ignore_errors=True)
    return False


class ManagedServer:
    """One server, from its start to its stop, over all its restarts."""

    def __init__(self, launch: Launch, name: str, log: Path, watcher: ServerWatcher) -> None:
        self._launch = launch
        self._name = name
        self._log = log
        self._watcher = watcher
        self._port = launch.port or ports.free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.url = f"http://127.0.0.1:{self._port}"
        self.num_restarts = 0

    def start(self) -> None:
        """Starts it and returns when it is well.

        Raises:
          ServerFailed: the port is taken, the server ended, or it was not well in time.
        """
        if not ports.is_free(self._port):
            raise ServerFailed(
                f"{self._name}.port: port {self._port} is taken by another program; set 0 for a free one, or use "
                f"the server that runs there with {self._name}.url={self.url}"
            )
        with self._watcher.starting(self._name) as tell:
            try:
                process = self._spawn()
            except OSError as error:
                raise ServerFailed(f"{self._name}: cannot start the server, log {self._log}: {error}") from error
            trouble = self._await_health(process, tell)
            if trouble:
                said = last_words(self._log)
                raise ServerFailed(f"{self._name}: the server {trouble}; it said last: {said}; its log is {self._log}")
        self._thread = threading.Thread(target=self._watch, args=(process,), name=f"{self._name}-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the server and everything that it started."""
        self._stopping.set()
        self._end()
        if self._thread is not None:
            self._thread.join()

    def _end(self) -> None:
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(self._launch.stop_timeout_secs + _STOP_SECS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _spawn(self) -> "subprocess.Popen[bytes]":
        command = [word.replace("{port}", str(self._port)) for word in self._launch.command]
        guard = [sys.executable, "-I", guardian.__file__, str(os.getpid()), str(self._launch.stop_timeout_secs)]
        with _append(self._log) as log:
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            again = f", restart {self.num_restarts}" if self.num_restarts else ""
            log.write(f"{_MARK}{now}{again}: {shlex.join(command)}\n".encode())
            log.flush()
            self._process = subprocess.Popen(
                [*guard, *command],
                env=os.environ | dict(self._launch.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the run, which then stops the server in good order.
            )
        return self._process

    def _await_health(self, process: "subprocess.Popen[bytes]", tell: Callable[[str], None]) -> str:
        """Waits until the server is well; else returns what is wrong and leaves nothing of it."""
        deadline = time.monotonic() + self._launch.start_timeout_secs
        while process.poll() is None:
            if ports.is_well(self._port):
                return self._stranger()
            if time.monotonic() > deadline:
                self._end()
                return f"was not well within {self._launch.start_timeout_secs:g} s ({self._name}.start_timeout_secs)"
            tell(_last_line(self._log))
            if self._stopping.wait(_POLL_SECS):
                return "was stopped"
        return f"{_ending(process.returncode)} before it was well"

    def _stranger(self) -> str:
        """What is wrong if another program's server answers: nobody holds the port until ours listens there."""
        found, wanted = ports.models_at(self._port), self._launch.served_name
        if not (wanted and found) or wanted in found:
            return ""
        self._end()
        return (
            f"is not what answers at its port: that serves {', '.join(found)[:200]}, not {wanted}; another program has "
            f"taken port {self._port} meanwhile ({self._name}.port); give the command again"
        )

    def _watch(self, process: "subprocess.Popen[bytes]") -> None:
        """Starts the server again when it has ended by itself or hangs, until that was too often."""
        while True:
            why = self._await_end(process)
            if self._stopping.is_set():
                return
            if self.num_restarts >= self._launch.max_restarts:
                break
            self.num_restarts += 1
            said = f"the server {why}; restart {self.num_restarts} of {self._launch.max_restarts}, log {self._log}"
            _LOG.info("%s: %s", self._name, said)
            self._watcher.restarted(self._name, said)
            self._stopping.wait(_PAUSE_SECS * (self.num_restarts - 1))
            try:
                process = self._spawn()
            except OSError as error:
                why = f"cannot be started again ({error})"
                break
            if self._stopping.is_set():  # `stop` may have seen the one before
                self._end()
                return
            trouble = self._await_health(process, lambda line: None)
            if trouble and not self._stopping.is_set():
                _LOG.warning("%s: the server %s", self._name, trouble)
        self._give_up(why)

    def _await_end(self, process: "subprocess.Popen[bytes]") -> str:
        """How the server ended; one that hangs is ended here."""
        silent = 0
        while silent < _SILENT_CHECKS:
            try:
                process.wait(_CHECK_SECS)
            except subprocess.TimeoutExpired:
                silent = 0 if ports.is_well(self._port) else silent + 1
            else:
                return _ending(process.returncode)
        self._end()
        return f"hung: its /health was not well {_SILENT_CHECKS} times in a row"

    def _give_up(self, why: str) -> None:
        said = (
            f"{self._name}: the server {why}, after {self.num_restarts} restarts "
            f"({self._name}.max_restarts={self._launch.max_restarts}); see {self._log}"
        )
        _LOG.error(said)
        self._watcher.gave_up(self._name, said)
        try:
            stone = _Stone(self._port, said)
        except OSError as error:
            _LOG.error("%s: cannot say so at port %d: %s", self._name, self._port, error)
            return
        with stone:
            threading.Thread(target=stone.serve_forever, name=f"{self._name}-stone", daemon=True).start()
            self._stopping.wait()
            stone.shutdown()


def count_restarts(logs: Path) -> dict[str, int]:
    """How often each server was started again because it had died or hung, over all that its log tells.

    Args:
      logs: the folder that `Servers` was given; it need not be there.

    Returns:
      Numbers by the names of the logs, such as `engine`; servers that never died have theirs, too.
    """
    counts = {}
    for path in sorted(logs.glob("*.log")):
        if path.is_symlink() or not path.is_file():  # Not ours, and a pipe would never end.
            continue
        with path.open("rb") as log:
            counts[path.stem] = sum(_RESTART.search(line) is not None for line in log)
    return counts


class _Stone(ThreadingHTTPServer):
    """Stands where a server was: says to every request that it is gone, so that nobody waits for it to come back."""

    daemon_threads = True

    def __init__(self, port: int, said: str) -> None:
        super().__init__(("127.0.0.1", port), _Epitaph)
        self.said = said.encode()


class _Epitaph(BaseHTTPRequestHandler):
    server: _Stone

    def do_GET(self) -> None:
        """Not one of the statuses that mean "later", for those who ask whether there is anybody."""
        self._say(500)

    def do_POST(self) -> None:
        """The one status that means "for ever": no attempt after it is worth its time."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._say(410)

    def _say(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(self.server.said)))
        self.end_headers()
        self.wfile.write(self.server.said)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


def _append(log: Path) -> IO[bytes]:
    """Opens a log at its end; never what a link points to, which may lie anywhere."""
    return os.fdopen(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o644), "ab")


def _ending(status: int) -> str:
    signals = status - 128 if status > 128 else -status
    return f"was killed by signal {signals}" if signals > 0 else f"ended with exit status {status}"


def _tail(log: Path) -> list[str]:
    """The last lines since the last start, each at most 300 characters; progress bars rewrite theirs."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        text = file.read().decode("utf-8", "replace")
    text = text[max(0, text.rfind(_MARK)) :]
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    lines = (re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in lines)
    return [line[:300] for line in lines if line and not line.startswith(_MARK)]


def _last_line(log: Path) -> str:
    lines = _tail(log)
    return lines[-1] if lines else ""


def last_words(log: Path) -> str:
    """The last lines that name an error, or the very last ones where none does."""
    lines = _tail(log)
    errors = [line for line in lines if _ERROR_LINE.search(line)]
    return " | ".join((errors or lines)[-3:]) or "nothing"

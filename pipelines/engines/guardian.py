"""Runs one server and outlives nobody: the program between a run and the server that it started.

A server starts processes of its own, and whoever started it may be killed without a word. This program is their parent
for as long as they live: it starts the server in a session of its own, adopts what the server leaves behind, and when
the server ends, when it is told to stop (SIGTERM) or when its own parent is gone it takes all of them down and ends.
The server in turn is killed by the kernel should this program be killed.

usage: python guardian.py PARENT_PID GRACE_SECS COMMAND...

Exit status: the server's, or 128 + the signal that killed it. Standard library alone, Linux alone.
"""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
"""prctl(2)."""
_POLL_SECS = 0.25
_KILL_SECS = 10.0
"""How long what was killed may take to go away."""


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _start(command: list[str]) -> int:
    guardian = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == guardian:  # else it died before the line above
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _reap(server: int) -> int | None:
    """The server's exit status, if it has ended; buries all others who have."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if pid == server:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if not pid:
            return None


def _descendants() -> list[int]:
    """Everybody below this process; the subreaper's orphans are its children."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # "pid (any name) state ppid ...", proc_pid_stat(5).
            parent = int(path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    found, below = [], [os.getpid()]
    while below:
        below = [child for parent in below for child in children.get(parent, ())]
        found += below
    return found


def _kill_all() -> None:
    """Until nobody is left: one that is just being forked escapes the first round, not the second."""
    deadline = time.monotonic() + _KILL_SECS
    while (left := _descendants()) and time.monotonic() < deadline:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.01)
        _reap(0)


def guard(parent: int, grace_secs: float, command: list[str]) -> int:
    """Runs a command until it ends, or this process is told to stop, or its parent is gone; returns its status."""
    awaited = {signal.SIGTERM, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    server = _start(command)
    deadline: float | None = None
    while (status := _reap(server)) is None:
        told = signal.sigtimedwait(awaited, _POLL_SECS)
        is_over = os.getppid() != parent or (told is not None and told.si_signo == signal.SIGTERM)
        if deadline is None and is_over:
            deadline = time.monotonic() + grace_secs
            os.kill(server, signal.SIGTERM)
        if deadline is not None and time.monotonic() > deadline:
            status = 128 + signal.SIGKILL
            break
    _kill_all()
    return status


if __name__ == "__main__":
    sys.exit(guard(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))

"""Starts a job in a process group of its own under a time limit, and reads what it says at its end."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from schemas import Record


class Outcome(Record):
    """How a process ended."""

    rc: int | None
    """Exit code; None where it was stopped."""
    stopped: bool
    """Whether it was still running at its time limit."""
    seconds: float
    line: dict[str, Any] | None
    """The JSON object that it printed last; None where there is none."""

    @property
    def ended(self) -> str:
        """For the table."""
        if self.stopped:
            return f"hung, stopped after {self.seconds:.0f} s"
        return "killed" if self.rc is None else f"exit code {self.rc}"


def last_object(text: str) -> dict[str, Any] | None:
    """The last line that is a JSON object, or None: tools print banners before and complaints behind it."""
    for line in reversed(text.splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return None


def start(
    command: Sequence[str],
    folder: Path,
    limit_secs: float,
    *,
    should_kill: Callable[[], bool] = lambda: False,
    environment: dict[str, str] | None = None,
) -> Outcome:
    """Runs a command in `folder` until it ends, for `limit_secs` at most, or until `should_kill`.

    Stopping is SIGKILL to its process group, in either case.
    """
    folder.mkdir(parents=True, exist_ok=True)
    said, log = folder / "said.txt", folder / "log.txt"
    began = time.monotonic()
    with said.open("wb") as out, log.open("ab") as complaints:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=complaints,
            cwd=folder,
            env=os.environ | (environment or {}),
            start_new_session=True,
        )
        is_killed = stopped = False
        try:
            while process.poll() is None and not is_killed and not stopped:
                time.sleep(0.01)
                is_killed = should_kill()
                stopped = time.monotonic() - began > limit_secs
        finally:
            # Whatever the process left behind in its group goes with it.
            _kill_group(process.pid)
            rc = process.wait()
    return Outcome(
        rc=None if is_killed or stopped else rc,
        stopped=stopped,
        seconds=round(time.monotonic() - began, 1),
        line=last_object(said.read_text(errors="replace")),
    )


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)

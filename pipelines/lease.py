"""Whose a folder in a store is for now: a key that says who works on it and until when, renewed while he does.

Leases are numbered, and the highest number holds. A folder is taken over by creating the next number, which one of
several succeeds in; whoever finds a higher number than his own, or his own gone, has lost it. Hosts' clocks need to
agree to within a fraction of `SECS`.
"""

import contextlib
import datetime
import logging
import os
import re
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from pipelines.errors import UserError
from pipelines.storage import create, names_in, remove, store_errors, write_whole
from schemas import Record

if TYPE_CHECKING:
    from upath import UPath

SECS = 60.0
"""How long a lease holds after it was renewed, which is done three times as often."""
_NAME = re.compile(r"lease\.(\d{6})\.json")
_LOG = logging.getLogger(__name__)


class LeaseError(UserError):
    """Somebody else works on the folder; says who, until when and what to do."""


class Lease(Record):
    """What a lease's key holds."""

    holder: str
    """Of one claim by one process."""
    who: str
    """For people: host and process."""
    until: float
    """Seconds since 1970."""

    def __str__(self) -> str:
        until = datetime.datetime.fromtimestamp(self.until, datetime.UTC)
        return f"{self.who}, until {until:%Y-%m-%d %H:%M:%S} UTC"


def holder_of(state: "UPath") -> Lease | None:
    """Who works on the folder whose state lies here; None where nobody does.

    Raises:
      OSError: the store cannot be read.
    """
    _, lease = _last(state)
    return lease if lease and lease.until > time.time() else None


def _last(state: "UPath") -> tuple[int, Lease | None]:
    numbers = [int(match[1]) for match in map(_NAME.fullmatch, names_in(state)) if match]
    return (max(numbers), _read(state, max(numbers))) if numbers else (0, None)


def _read(state: "UPath", number: int) -> Lease | None:
    try:
        with store_errors():
            return msgspec.json.decode(_key(state, number).read_bytes(), type=Lease)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _key(state: "UPath", number: int) -> "UPath":
    return state / f"lease.{number:06d}.json"


class Held:
    """The lease of this process."""

    def __init__(self, folder: "UPath", state: "UPath", secs: float) -> None:
        self._folder, self._state, self._secs = folder, state, secs
        self._holder = uuid.uuid4().hex
        self._number = 0
        self._until = 0.0
        self._lost = ""
        self._ended = threading.Event()

    def take(self) -> None:
        """Raises LeaseError where another process has it or is quicker, OSError where the store cannot be written."""
        number, lease = _last(self._state)
        if lease and lease.until > time.time():
            raise self._taken(lease)
        self._number = number + 1
        made = create(_key(self._state, self._number), self._encoded())
        # A store that knows no exclusive creation has let the last one win.
        lease = _read(self._state, self._number)
        if not made or lease is None or lease.holder != self._holder:
            raise self._taken(lease)
        remove(_key(self._state, lower) for lower in range(max(1, number), self._number))

    def _encoded(self) -> bytes:
        self._until = time.time() + self._secs
        who = f"process {os.getpid()} on {socket.gethostname()}"
        return msgspec.json.encode(Lease(holder=self._holder, who=who, until=self._until))

    def _taken(self, lease: Lease | None) -> LeaseError:
        return LeaseError(
            f"out: another run is working on {self._folder} ({lease or 'it began just now'}); wait for it (if it was "
            f"killed, give the command again after that), or choose another folder with out=DIR"
        )

    def renew(self) -> None:
        """Makes it hold for `secs` from now; notes it where somebody else has taken it meanwhile.

        Raises:
          OSError: the store cannot be read or written.
        """
        number, lease = _last(self._state)
        if number != self._number or lease is None or lease.holder != self._holder:
            by = f"it is held by {lease}" if lease else "its lease is gone"
            self._lost = (
                f"out: {self._folder} was taken over by another run while this one could not renew its lease in time "
                f"({by}); what was answered is in the journal: give the same command again when the other run has ended"
            )
            return
        write_whole(_key(self._state, self._number), self._encoded())

    @property
    def is_lost(self) -> bool:
        """Whether another process has been seen to have it."""
        return bool(self._lost)

    def require(self) -> None:
        """Raises LeaseError where it is lost, OSError where it has run out and the store cannot be asked."""
        if not self._lost and time.time() >= self._until:  # This machine slept, or the store was away.
            self.renew()
        if self._lost:
            raise LeaseError(self._lost)

    def keep(self) -> None:
        """Renews it until `end`; interrupts the main thread where it is lost."""
        while not self._ended.wait(self._secs / 3):
            try:
                self.renew()
            except OSError as error:
                _LOG.warning("lease of %s: %s", self._folder, error)
            if self._lost and not self._ended.is_set():
                # A real signal, as of Ctrl-C: it also ends a wait within a system call.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            if self._lost:
                return

    def end(self) -> None:
        """Stops renewing, and gives it up."""
        self._ended.set()
        if not self._lost:
            with contextlib.suppress(OSError):
                remove([_key(self._state, self._number)])


@contextlib.contextmanager
def leased(folder: "UPath", state: "UPath") -> Iterator[Held]:
    """Holds a folder in a store for this process, and no longer than it renews its lease.

    Args:
      folder: for messages.
      state: where the lease lies.

    Raises:
      LeaseError: another process holds it; or, at the end, has taken it over in between.
      OSError: the store cannot be read or written.
    """
    held = Held(folder, state, SECS)
    held.take()
    thread = threading.Thread(target=held.keep, name="lease", daemon=True)
    thread.start()
    try:
        try:
            yield held
        finally:
            held.end()
            thread.join()
    except KeyboardInterrupt:
        if held.is_lost:  # It is ours, and may come while the loss was seen here, too.
            held.require()
        raise
    if held.is_lost:
        held.require()

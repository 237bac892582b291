"""The contract between the journal and what keeps its samples: a file on this machine or a server."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from pipelines.engines.base import Usage
from pipelines.errors import UserError
from schemas import Record

VERSION = 4
"""Of the layout and its keys; raised with every change that an older version could not read."""


class JournalError(UserError):
    """The journal cannot be used; says which one and what to do."""


class Batch(Record):
    """What is committed together, or not at all."""

    rows: Mapping[str, bytes]
    """Values by key; a key that is there keeps its value."""
    damaged: Mapping[str, bytes]
    """Values to be dropped first, by key, so that `rows` can replace them; one that has changed since stays."""
    costs: Mapping[str, Usage]
    """To be added to the ledger, by stage and run."""


class Store(Protocol):
    """Values by key and a ledger. `read` and `commit` are called from one thread each, the others from any."""

    is_near: bool
    """Whether a read takes no longer than a change of threads, so that an event loop may do it itself."""

    def read(self, keys: Sequence[str]) -> dict[str, bytes]:
        """The values that are there.

        Raises:
          JournalError: they cannot be read.
        """
        ...

    def commit(self, batch: Batch) -> dict[str, bytes]:
        """Returns when the batch is on disk; gives the values of those rows that were there already.

        Raises:
          JournalError: nothing of the batch may be relied on.
        """
        ...

    def count(self) -> int:
        """Samples it holds."""
        ...

    def ledger(self) -> dict[str, Usage]:
        """Costs by stage and run, sorted."""
        ...

    def hurry(self) -> None:
        """From here on waits for nothing that is away; called before the last commits."""
        ...

    def close(self) -> None:
        """Lets go of the file or the server."""
        ...

"""Runs the comparison and prints its tables."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.peers.comparing import available, trials
from benchmarks.peers.killing import kills
from schemas import Record


def comparison(faults: Sequence[str], *, is_quick: bool) -> dict[str, Any]:
    """The figures of all tools that are here, and why the others are not; prints both.

    `faults` are settings of the simulated server, as `benchmarks.faults` words them.
    """
    _, skipped = available()
    console = Console(width=150)
    for tool, reason in skipped.items():
        console.print(f"{tool} is left out, it could not be installed: {reason}", markup=False, highlight=False)
    found = list(trials(faults, is_quick=is_quick))
    console.print(table(found, "The same faults for all"))
    killed = list(kills(is_quick=is_quick))
    console.print(table(killed, "kill -9 at half of the samples, then the same command again"))
    return {"skipped": skipped, "faults": found, "kills": killed}


def table(records: Sequence[Record], title: str) -> Table:
    """One row a record; None is empty."""
    fields = records[0].__struct_fields__
    made = Table(*(name.replace("_", " ") for name in fields), title=title, title_justify="left")
    for record in records:
        values = (getattr(record, name) for name in fields)
        made.add_row(*("" if value is None else str(value) for value in values))
    return made

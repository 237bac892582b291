"""What `benchmarks.kills` found, as records and as tables."""

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipelines.shards import file_digest
from schemas import Record, digest


class Kill(Record):
    """One kill, and what it cost."""

    point: str
    paid: int
    """Calls that the server had taken in by then, those of the chain's rounds before included."""
    at_server: int
    """Calls that were at the server."""
    on_the_way: int
    """Calls that were answered and not in the journal yet."""
    paid_twice: int
    files: int
    """Shard files that lay in the folder afterwards."""
    strange_files: int
    """Those of them whose digest the undisturbed run does not have."""

    @property
    def in_flight(self) -> int:
        """Calls whose answers could be lost."""
        return self.at_server + self.on_the_way


class Chain(Record):
    """One folder: killed, started again, and finished."""

    kills: tuple[Kill, ...]
    unreached: tuple[str, ...]
    """Points that the run ended without passing."""
    needed: int
    """Calls of the undisturbed run."""
    paid: int
    duplicates: int
    missing: int
    surplus: int
    """Rows that the undisturbed run has not, and samples that it never asked for."""
    collapsed: int
    identical: bool
    shards: dict[str, str]
    """Digest of each shard's files at the end, by the shard's number."""
    wanted_shards: dict[str, str]
    """The same of the undisturbed run."""


def file_digests(out: Path) -> dict[str, str]:
    """SHA-256 of every shard file that is there, by path."""
    return {str(path.relative_to(out)): file_digest(path) for path in sorted(out.glob("*/*.parquet"))}


def shard_digests(files: Mapping[str, str]) -> dict[str, str]:
    """One digest for all files of a shard, by its number, which stands before `-of-` in their names."""
    shards: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for path, sha in files.items():
        shards[path.rpartition("-of-")[0].rpartition("-")[2]][path] = sha
    return {number: digest(shards[number]) for number in sorted(shards)}


def summary(chains: Sequence[Chain]) -> dict[str, Any]:
    """The figures of all chains together."""
    kills = list(itertools.chain.from_iterable(chain.kills for chain in chains))
    return {
        "kills": len(kills),
        "max_paid_twice": max(kill.paid_twice for kill in kills),
        "paid_twice": sum(kill.paid_twice for kill in kills),
        "in_flight": sum(kill.in_flight for kill in kills),
        "beyond_in_flight": sum(kill.paid_twice > kill.in_flight for kill in kills),
        "strange_files": sum(kill.strange_files for kill in kills),
        "paid": sum(chain.paid for chain in chains),
        "needed": sum(chain.needed for chain in chains),
        "duplicates": sum(chain.duplicates for chain in chains),
        "missing": sum(chain.missing for chain in chains),
        "surplus": sum(chain.surplus for chain in chains),
        "collapsed": sum(chain.collapsed for chain in chains),
        "identical": all(chain.identical for chain in chains),
    }


def print_tables(chains: Sequence[Chain]) -> None:
    """A line for each kill, one for each chain, and one for each shard with its digest in every chain."""
    table = Table("chain", "killed at", "paid so far", "at the server", "on the way", "paid twice", "files", "strange")
    for i, chain in enumerate(chains):
        for kill in chain.kills:
            counts = (kill.paid, kill.at_server, kill.on_the_way, kill.paid_twice, kill.files, kill.strange_files)
            table.add_row(f"{i}", kill.point, *map(str, counts))
    totals = Table("chain", "kills", "needed", "paid", "duplicates", "missing", "surplus", "collapsed", "identical")
    for i, chain in enumerate(chains):
        sums = (len(chain.kills), chain.needed, chain.paid, chain.duplicates, chain.missing)
        totals.add_row(*map(str, (i, *sums, chain.surplus, chain.collapsed, "yes" if chain.identical else "no")))
    digests = Table("shard", "digest of its files, undisturbed", *(f"chain {i}" for i in range(len(chains))))
    for number, wanted in chains[0].wanted_shards.items():
        found = (chain.shards.get(number, "none") for chain in chains)
        digests.add_row(number, wanted, *("the same" if each == wanted else each[:8] for each in found))
    console = Console(width=120)
    console.print(table, totals, digests)
    if unreached := [name for chain in chains for name in chain.unreached]:
        console.print("Not reached, the run had ended: " + "; ".join(unreached))

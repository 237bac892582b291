"""How right kept critiques are, on the simulated world whose truth is known.

    python -m benchmarks.quality [--quick]

Right means: verdict, first wrong step and what is said of it agree with the world. Precision: right ones among the
kept. Recall: of the paths for which the panel wrote at least one right critique, those that end with a right one kept.
"""

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from annotators.verification import find_leak
from pipelines.config import compose
from pipelines.engines.simulated import is_right_critique
from pipelines.run import Watcher, run
from pipelines.shards import read_rows
from schemas import Critique, PathAlone, PathPair, Record, Verified
from schemas import Path as SolutionPath
from schemas.arrow import from_row


class Quality(Record):
    """Figures of one way of keeping critiques."""

    name: str
    kept: int
    right: int
    leaks: int
    paths: int
    """Paths for which the panel wrote at least one right critique."""
    found: int
    """Of those, paths that end with a right one kept."""

    @property
    def precision(self) -> float:
        """Right ones among the kept; NaN where none was kept."""
        return self.right / self.kept if self.kept else float("nan")

    @property
    def recall(self) -> float:
        """Paths with a right one kept among those that had one; NaN where there was none."""
        return self.found / self.paths if self.paths else float("nan")


FILTERS: dict[str, frozenset[str]] = {
    "none": frozenset(),
    "verdict": frozenset({"wrong_verdict"}),
    "verdict + location": frozenset({"wrong_verdict", "wrong_location"}),
}
"""Single filters: the reasons that each of them looks at."""


def measure(out: Path) -> list[Quality]:
    """Figures of a finished run over the simulated world, for no filter, single filters, and all of them."""
    paths: dict[str, SolutionPath] = {}
    for table, record in (("pairs", PathPair), ("alone", PathAlone)):
        paths |= {row["id"]: from_row(row, record) for row in read_rows(out, table)}
    critiques = [from_row(row, Critique) for row in read_rows(out, "critiques")]
    verified = [from_row(row, Verified) for row in read_rows(out, "verified")]
    written: defaultdict[str, list[bool]] = defaultdict(list)
    for critique in critiques:
        written[critique.path_id].append(is_right(critique, paths[critique.path_id]))
    figures = []
    for name, looked_at in FILTERS.items():
        kept = [item.critique for item in verified if not looked_at.intersection(item.reasons)]
        figures.append(_quality(name, kept, paths, written))
    kept = [item.critique for item in verified if item.decision == "kept"]
    figures.append(_quality("all", kept, paths, written))
    return figures


def is_right(critique: Critique, path: SolutionPath) -> bool:
    """Whether the world agrees with a critique."""
    return is_right_critique(
        path.problem.question, path.steps, critique.verdict, critique.first_wrong_step, critique.units
    )


def _quality(
    name: str, kept: list[Critique], paths: dict[str, SolutionPath], written: dict[str, list[bool]]
) -> Quality:
    right_of: defaultdict[str, bool] = defaultdict(bool)
    for critique in kept:
        right_of[critique.path_id] |= is_right(critique, paths[critique.path_id])
    could = [path_id for path_id, rights in written.items() if any(rights)]
    return Quality(
        name=name,
        kept=len(kept),
        right=sum(is_right(critique, paths[critique.path_id]) for critique in kept),
        leaks=sum(bool(find_leak(critique, paths[critique.path_id])) for critique in kept),
        paths=len(could),
        found=sum(right_of[path_id] for path_id in could),
    )


def main() -> None:
    """Runs the whole pipeline over the simulated world and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="40 problems instead of 200")
    parser.add_argument("overrides", nargs="*", help="settings of the run, as for `wrongturn run`")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = compose(
            [
                *(
                    "problems=simulated",
                    "engine=simulated",
                    "actor=plain",
                    "panel=blind",
                    "search=default",
                    "pairing=default",
                    "verify=default",
                ),
                f"problems.num_problems={40 if options.quick else 200}",
                "engine.world.leak_rate=0.2",
                *options.overrides,
                f"out={folder}/out",
            ]
        )
        result = run(settings, Watcher())
        figures = measure(Path(result.out))
    table = Table("filter", "kept", "right", "leaks", "precision", "recall")
    for item in figures:
        table.add_row(
            item.name,
            *map(str, (item.kept, item.right, item.leaks)),
            f"{item.precision:.3f}",
            f"{item.recall:.3f}",
        )
    Console(width=100).print(table)
    line = {
        item.name: {"precision": item.precision, "recall": item.recall, "leaks": item.leaks, "kept": item.kept}
        for item in figures
    }
    print(msgspec.json.encode(line["all"] | {"filters": line}).decode())


if __name__ == "__main__":
    main()

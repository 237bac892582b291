"""Every recipe on the small real model that runs in process: what comes of it, stage by stage.

    python -m benchmarks.recipes_model [--problems N] [RECIPE ...]

`wrongturn run recipe=NAME problems.num_problems=N` (6) with the default job's model, problems and prompts where the
recipe does not choose others. All share one journal: solutions that two recipes ask for in the same words are paid
once. The model has 135M parameters and follows no instructions it has seen no example of: critiques that cannot be read
are the rule, and what is kept says nothing of a recipe's worth. What is shown is that each runs on a real model to
shards whose books add up.

Each stage is given as kept / entered. Seconds: of the run alone.
"""

import argparse
import tempfile
import time
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from pipelines.config import compose
from pipelines.errors import UserError
from pipelines.manifest import Books
from pipelines.recipes import recipes
from pipelines.run import Watcher, run
from schemas import Record
from schemas.arrow import SHOW_IMAGES


class Funnel(Record):
    """What came of one recipe."""

    recipe: str
    seconds: float
    stages: dict[str, str]
    """By stage, kept / entered."""
    rows: dict[str, int]
    """Of each table that trainers read, where there are any."""
    balanced: bool
    """Whether every stage's sums add up and no shard is unfinished."""
    refused: str = ""
    """Why it cannot run on this model; empty where it did."""


def measure(name: str, num_problems: int, folder: Path) -> Funnel:
    """Runs one recipe; what it cannot do with this model is what the command says."""
    words = [f"recipe={name}", f"problems.num_problems={num_problems}", f"out={folder / name}"]
    began = time.monotonic()
    try:
        result = run(compose([*words, f"journal={folder / 'journal.sqlite'}"]), Watcher())
    except UserError as error:
        return Funnel(recipe=name, seconds=0.0, stages={}, rows={}, balanced=True, refused=str(error))
    books: Books = result.books
    return Funnel(
        recipe=name,
        seconds=time.monotonic() - began,
        stages={stage.stage: f"{stage.kept}/{stage.entered}" for stage in books.stages},
        rows={config: books.rows[config] for config in SHOW_IMAGES if books.rows[config]},
        balanced=all(stage.balanced for stage in books.stages) and not result.unfinished,
    )


def main() -> None:
    """Runs them all and prints a line for each as it is done, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=6, help="problems of each run (6)")
    parser.add_argument("recipes", nargs="*", help="recipes (all)")
    options = parser.parse_args()
    console, funnels = Console(width=160), []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.recipes or [recipe.name for recipe in recipes()]:
            funnels.append(measure(name, options.problems, Path(folder)))
            console.print(msgspec.json.encode(funnels[-1]).decode(), soft_wrap=True)
    table = Table("recipe", "seconds", "kept / entered", "rows", "adds up")
    for each in funnels:
        stages = each.refused or ", ".join(f"{stage} {counts}" for stage, counts in each.stages.items())
        rows = ", ".join(f"{config} {number}" for config, number in each.rows.items())
        table.add_row(each.recipe, f"{each.seconds:.0f}", stages, rows, "yes" if each.balanced else "NO")
    console.print(table)


if __name__ == "__main__":
    main()

"""Every recipe on the small real model that runs in process: what comes of it, stage by stage.

    python -m benchmarks.recipes_model [--problems N] [RECIPE ...]

`wrongturn run recipe=NAME problems.num_problems=N` (6) with the default job's model and problems. Where a recipe's
critics or givers have an option for models too small to follow instructions (`panel=deepened_sums` for `deepened`),
that takes their place. Recipes for programs get small functions to write, the one for formal statements expressions
of Python, which a checker of three lines compares with the right ones; `conv_code` starts from two solutions a problem
and holds one round, for it has nine dialogues of each. All share one journal: solutions that two recipes ask for in
the same words are paid once. The model has 135M parameters and follows no instructions it has seen no example of:
critiques that cannot be read are the rule, and what is kept says nothing of a recipe's worth. What is shown is that
each runs on a real model to shards whose books add up.

Each stage is given as kept / entered. Seconds: of the run alone.
"""

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from pipelines.config import compose, options
from pipelines.errors import UserError
from pipelines.manifest import Books
from pipelines.recipes import recipes
from pipelines.run import Watcher, run
from schemas import Record
from schemas.arrow import SHOW_IMAGES

PROGRAMS = (
    (
        "Write a function add(a, b) that returns the sum of two numbers.",
        "assert add(2, 3) == 5",
    ),
    ("Write a function double(x) that returns twice a number.", "assert double(4) == 8\nassert double(0) == 0"),
    ("Write a function is_even(n), true where n is even.", "assert is_even(4)\nassert not is_even(7)"),
    ("Write a function last(items) that returns the last of a list.", "assert last([1, 2, 3]) == 3"),
    (
        "Write a function larger(a, b) that returns the larger number.",
        "assert larger(2, 9) == 9",
    ),
    ("Write a function total(numbers) that adds up a list.", "assert total([1, 2, 3]) == 6\nassert total([]) == 0"),
)
STATEMENTS = (
    ("State in Python, as one expression: four and seven are added.", "4 + 7"),
    ("State in Python, as one expression: nine less two.", "9 - 2"),
    ("State in Python, as one expression: the product of three and five.", "3 * 5"),
    ("State in Python, as one expression: eight is larger than six.", "8 > 6"),
    ("State in Python, as one expression: two plus three, times four.", "(2 + 3) * 4"),
    ("State in Python, as one expression: ten divided by five.", "10 / 5"),
)
_CHECKER = """
import ast, sys
said, meant = (ast.dump(ast.parse(open(path).read().strip(), mode="eval")) for path in sys.argv[1:])
sys.exit(said != meant)
"""


def _problems(rows: Sequence[tuple[str, str]], domain: str, num_problems: int, path: Path) -> list[str]:
    """Settings of a run on these problems, written to a file."""
    lines = (msgspec.json.encode({"question": question, "answer": answer}) for question, answer in rows)
    path.write_bytes(b"\n".join(list(lines)[:num_problems]))
    return ["problems=file", f"problems.path={path}", f"problems.domain={domain}"]


def small_options(name: str) -> list[str]:
    """Those options for models too small to follow instructions that there are beside the ones that a recipe takes."""
    recipe = (resources.files("conf") / "recipe" / f"{name}.yaml").read_text("utf-8")
    taken = re.findall(r"override /(\w+): (\w+)", recipe)
    return [f"{group}={option}_sums" for group, option in taken if f"{option}_sums" in options(group)]


def besides(num_problems: int, folder: Path) -> dict[str, list[str]]:
    """Settings of recipes that are not for the default job's problems."""
    programs = _problems(PROGRAMS, "code", num_problems, folder / "programs.jsonl")
    statements = _problems(STATEMENTS, "command", num_problems, folder / "statements.jsonl")
    (folder / "checker.py").write_text(_CHECKER, encoding="utf-8")
    checker = f"checker.command=[{sys.executable},-I,{folder / 'checker.py'},'{{solution}}','{{gold}}']"
    short = ["paths.num_samples=2", "loop.max_rounds=1"]
    return {"conv_code": [*programs, *short], "critique_coder": programs, "critic_lean": [*statements, checker]}


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
    words = [f"recipe={name}", f"out={folder / name}"]
    words += besides(num_problems, folder).get(name, [f"problems.num_problems={num_problems}", *small_options(name)])
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
    parser.add_argument("recipes", metavar="RECIPE", nargs="*", help="recipes (all)")
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

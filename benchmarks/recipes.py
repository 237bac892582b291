"""Recipes that make critiques, on the same simulated problems and the same number of tokens.

    python -m benchmarks.recipes [--quick] [--tokens N] [--plot FILE] [RECIPE ...]

Every recipe works through the same problems in the same order until N tokens of prompts and completions are paid
(1,000,000; 400,000 with --quick); what is in finished shards then counts. Critics are right in 0.6 of their critiques
and leak the answer in a fifth of those that name an error; the actor follows a critique in 0.9 of its second solutions.
These are the middle of `benchmarks.quality`, whose measure of a right critique is used: verdict, first wrong step and
what is said of it agree with the world. `default` is wrongturn's own way; what a recipe leaves open is as there.

Kept: verified critiques; precision: right ones among them; leaks: those that give the answer away. Yield: kept
critiques for a million tokens; right yield: right ones. Rows: of all tables that trainers read.
"""

import argparse
import logging
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from annotators.leaks import find_leak
from benchmarks.quality import BASE, MAIN, is_right, read_paths, read_verified
from pipelines.config import compose
from pipelines.manifest import read_books
from pipelines.recipes import recipes
from pipelines.run import Watcher, run
from schemas import Record
from schemas.arrow import SHOW_IMAGES

OURS = "default"
_ENDLESS = 5000
"""Problems: more than the tokens last for."""
_MILLION = 1_000_000


class Figure(Record):
    """What a recipe made of its tokens."""

    recipe: str
    problems: int
    """In finished shards."""
    calls: int
    tokens: int
    kept: int
    right: int
    leaks: int
    rows: dict[str, int]
    """Of each table that trainers read, where there are any."""

    @property
    def precision(self) -> float:
        """Right ones among the kept critiques; NaN where none was kept."""
        return self.right / self.kept if self.kept else float("nan")

    def yield_of(self, number: int) -> float:
        """So many for a million tokens."""
        return number * _MILLION / self.tokens


def measure(name: str, tokens: int, folder: Path) -> Figure:
    """Runs one recipe until its tokens are paid, or the problems done.

    Args:
      name: of the recipe; `default` is none.
      tokens: of prompts and completions together.
      folder: for its output.
    """
    out = folder / name
    chosen = "" if name == OURS else (resources.files("conf") / "recipe" / f"{name}.yaml").read_text("utf-8")
    # On the command line a group would win over the recipe's choice.
    words = [word for word in (*BASE, "panel=blind") if f"override /{word.partition('=')[0]}:" not in chosen]
    words += [f"engine.world.critic_accuracy={MAIN[0]}", f"engine.world.follow={MAIN[1]}"]
    words += [f"problems.num_problems={_ENDLESS}", "runner.problems_per_shard=4", f"budget.max_tokens={tokens}"]
    run(compose([*([f"recipe={name}"] if chosen else []), *words, f"out={out}"]), Watcher())
    paid = msgspec.json.decode((out / "run.json").read_bytes())["paid"]
    paths = read_paths(out)
    kept = [item.critique for item in read_verified(out) if item.decision == "kept"]
    books = read_books(out)
    return Figure(
        recipe=name,
        problems=books.rows["trees"],
        calls=sum(usage["requests"] for usage in paid.values()),
        tokens=sum(usage["prompt_tokens"] + usage["completion_tokens"] for usage in paid.values()),
        kept=len(kept),
        right=sum(is_right(critique, paths[critique.path_id]) for critique in kept),
        leaks=sum(bool(find_leak(critique, paths[critique.path_id])) for critique in kept),
        rows={config: books.rows[config] for config in SHOW_IMAGES if books.rows[config]},
    )


def compare(names: Sequence[str], tokens: int) -> list[Figure]:
    """All of them, ours first."""
    with tempfile.TemporaryDirectory() as folder:
        return [measure(name, tokens, Path(folder)) for name in (OURS, *names)]


def table(figures: Sequence[Figure]) -> Table:
    """For people."""
    made = Table("recipe", "problems", "calls a problem", "kept", "right", "precision", "leaks", "yield", "right yield")
    made.add_column("rows")
    for each in figures:
        numbers = (f"{each.problems}", f"{each.calls / max(each.problems, 1):.0f}", f"{each.kept}", f"{each.right}")
        shares = f"{each.precision:.3f}", f"{each.leaks}", f"{each.yield_of(each.kept):.1f}"
        rows = ", ".join(f"{config} {number}" for config, number in each.rows.items())
        made.add_row(each.recipe, *numbers, *shares, f"{each.yield_of(each.right):.1f}", rows)
    return made


def plot(figures: Sequence[Figure], path: Path) -> None:
    """Precision over the yield of kept critiques, a point a recipe."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "wrongturn"
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 5))
    for each in figures:
        if each.kept:
            x, y = each.yield_of(each.kept), each.precision
            axis.scatter([x], [y], color="tab:red" if each.recipe == OURS else "tab:blue")
            axis.annotate(each.recipe, (x, y), textcoords="offset points", xytext=(5, 4), fontsize="small")
    axis.set_xscale("log")
    axis.set_xlabel("kept critiques for a million tokens")
    axis.set_ylabel("share of them that is right")
    axis.set_ylim(0, 1.03)
    axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Runs them all and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="400,000 tokens")
    parser.add_argument("--tokens", type=int, help="of each recipe")
    parser.add_argument("--plot", type=Path, help="draw precision over yield (needs matplotlib)")
    parser.add_argument("recipes", nargs="*", help="recipes; those that write sft or critique_dpo otherwise")
    options = parser.parse_args()
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)  # It logs the end of a budget as if it were an error.
    tokens = options.tokens or (400_000 if options.quick else 1_000_000)
    critics = [recipe.name for recipe in recipes() if {"sft", "critique_dpo"} & set(recipe.writes)]
    figures = compare(options.recipes or critics, tokens)
    Console(width=160).print(table(figures))
    if options.plot:
        plot(figures, options.plot)
    print(msgspec.json.encode({each.recipe: each for each in figures}).decode())


if __name__ == "__main__":
    main()

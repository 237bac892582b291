"""Recipes that make critiques, on the same simulated problems and the same number of tokens.

    python -m benchmarks.recipes [--quick] [--tokens N] [--plot FILE] [RECIPE ...]

Every recipe works through the same problems in the same order, as many of them as N tokens of prompts and completions
pay for (1,000,000; 50,000 with --quick, which compares a few recipes coarsely): a trial with the first problems tells
what one costs. What is counted are the tokens that were paid in the end. Critics are right in 0.6 of their critiques
and leak the answer in a fifth of those that name an error; the actor follows a critique in 0.9 of its second solutions.
These are the middle of `benchmarks.quality`, whose measure of a right critique is used: verdict, first wrong step and
what is said of it agree with the world. `default` is wrongturn's own way; what a recipe leaves open is as there.

Rows: verified critiques that are kept; precision: right ones among them; leaks: those that give the answer away.
Tables: rows of all those that trainers read.
"""

import argparse
import itertools
import logging
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
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
_TRIAL = 8
"""Problems of the trial that tells what one costs; three times as many where N tokens last for so many."""
_MILLION = 1_000_000
ELSEWHERE = ("gui_critic", "critic_lean")
"""Recipes for other problems than numbers: screens and formal statements."""
_LIARS = ("baseless", "hypercritical", "hypercritical_grounded", "malicious", "malicious_grounded")
BESIDES: Mapping[str, tuple[str, ...]] = {
    "wafer": tuple(f"+engine.world.liars.{name}=0.9" for name in _LIARS),
}
"""Settings that a recipe is given here: WAFER's critics of bad intent lie in 0.9 of what they write."""
_QUICK = ("ref_critic", "spc")


class Figure(Record):
    """What a recipe made of its tokens."""

    problems: int
    calls: int
    tokens: int
    rows: int
    """Verified critiques that are kept."""
    right: int
    leaks: int
    tables: dict[str, int]
    """Rows of each table that trainers read, where there are any."""
    precision: float | None
    """Right ones among the rows; None where there is no row."""
    tokens_per_row: float | None

    def for_a_million(self, number: int) -> float:
        """So many for a million tokens."""
        return number * _MILLION / self.tokens


def measure(name: str, tokens: int, folder: Path) -> Figure:
    """Runs one recipe over as many problems as its tokens last for.

    Args:
      name: of the recipe; `default` is none.
      tokens: of prompts and completions together.
      folder: for its output.
    """
    trial = measure_on(name, _TRIAL, folder / f"{name}_trial")
    lasts = max(1, round(_TRIAL * tokens / trial.tokens))
    if lasts >= 3 * _TRIAL:  # Worth a closer look before all is staked on it.
        trial = measure_on(name, 3 * _TRIAL, folder / f"{name}_trial_2")
        lasts = round(3 * _TRIAL * tokens / trial.tokens)
    return measure_on(name, lasts, folder / name)


def measure_on(name: str, num_problems: int, out: Path) -> Figure:
    """Runs one recipe over the first problems."""
    chosen = "" if name == OURS else (resources.files("conf") / "recipe" / f"{name}.yaml").read_text("utf-8")
    # On the command line a group would win over the recipe's choice.
    words = [word for word in (*BASE, "panel=blind") if f"override /{word.partition('=')[0]}:" not in chosen]
    words += [f"engine.world.critic_accuracy={MAIN[0]}", f"engine.world.follow={MAIN[1]}"]
    words += [f"problems.num_problems={num_problems}", f"out={out}"]
    run(compose([*([f"recipe={name}"] if chosen else []), *words, *BESIDES.get(name, ())]), Watcher())
    paid = msgspec.json.decode((out / "run.json").read_bytes())["paid"].values()
    spent = sum(usage["prompt_tokens"] + usage["completion_tokens"] for usage in paid)
    paths, books = read_paths(out), read_books(out)
    kept = [item.critique for item in read_verified(out) if item.decision == "kept"]
    right = sum(is_right(critique, paths[critique.path_id]) for critique in kept)
    return Figure(
        problems=num_problems,
        calls=sum(usage["requests"] for usage in paid),
        tokens=spent,
        rows=len(kept),
        right=right,
        leaks=sum(bool(find_leak(critique, paths[critique.path_id])) for critique in kept),
        tables={config: books.rows[config] for config in SHOW_IMAGES if books.rows[config]},
        precision=right / len(kept) if kept else None,
        tokens_per_row=spent / len(kept) if kept else None,
    )


def compare(names: Sequence[str], tokens: int) -> dict[str, Figure]:
    """All of them by name, ours first."""
    figures = {}
    for name in (OURS, *names):
        with tempfile.TemporaryDirectory() as folder:
            figures[name] = measure(name, tokens, Path(folder))
        print(f"{name}: {figures[name].tokens} tokens", file=sys.stderr)
    return figures


def table(figures: Mapping[str, Figure]) -> Table:
    """For people."""
    made = Table("recipe", "problems", "calls", "tokens", "rows", "right", "precision", "leaks", "tokens a row")
    for heading in ("rows a million", "right ones a million", "tables"):
        made.add_column(heading)
    for name, each in figures.items():
        numbers = (f"{number}" for number in (each.problems, each.calls, each.tokens, each.rows, each.right))
        precision = "-" if each.precision is None else f"{each.precision:.3f}"
        price = "-" if each.tokens_per_row is None else f"{each.tokens_per_row:.0f}"
        yields = (f"{each.for_a_million(number):.0f}" for number in (each.rows, each.right))
        tables = ", ".join(f"{config} {number}" for config, number in each.tables.items())
        made.add_row(name, *numbers, precision, f"{each.leaks}", price, *yields, tables)
    return made


def plot(figures: Mapping[str, Figure], path: Path) -> None:
    """Precision over the yield of kept critiques, a point a recipe; those that fall together share one."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "wrongturn", "svg.fonttype": "none"})
    from matplotlib import pyplot, ticker

    figure, axis = pyplot.subplots(figsize=(8, 5))
    at: defaultdict[tuple[float, float], list[str]] = defaultdict(list)
    for name, each in figures.items():
        if each.precision is not None:
            at[each.for_a_million(each.rows), each.precision].append(name)
    colours = pyplot.get_cmap("tab20").colors
    for (point, names), colour, marker in zip(at.items(), itertools.cycle(colours), itertools.cycle("oDsv^P")):
        axis.scatter(*point, color=colour, marker=marker, s=100 if OURS in names else 40, label=", ".join(names))
    axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(ticker.ScalarFormatter())
    axis.xaxis.set_minor_locator(ticker.NullLocator())
    axis.set_xlabel("kept critiques for a million tokens")
    axis.set_ylabel("share of them that is right")
    axis.set_ylim(min(0.4, *(precision for _, precision in at)) - 0.05, 1.03)
    axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Runs them all and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="50,000 tokens, a few recipes")
    parser.add_argument("--tokens", type=int, help="of each recipe")
    parser.add_argument("--plot", type=Path, help="draw precision over yield (needs matplotlib)")
    parser.add_argument("recipes", nargs="*", help="recipes; those that write sft or critique_dpo otherwise")
    options = parser.parse_args()
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    critics = [recipe.name for recipe in recipes() if {"sft", "critique_dpo"} & set(recipe.writes)]
    names = options.recipes or (_QUICK if options.quick else [name for name in critics if name not in ELSEWHERE])
    figures = compare(names, options.tokens or (50_000 if options.quick else _MILLION))
    Console(width=200).print(table(figures))
    if options.plot:
        plot(figures, options.plot)
    print(msgspec.json.encode(figures).decode())


if __name__ == "__main__":
    main()

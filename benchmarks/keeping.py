"""What each choice of tests keeps, on the simulated world whose truth is known, and what it pays for a kept critique.

    python -m benchmarks.keeping [--quick] [SETTING=VALUE ...]

The same search, the same panel and the same critiques with every choice: `verify=none` (no filter: CFT, arXiv
2501.17703), `verify=verdict` (DeepCritic, arXiv 2505.00662; Critique-Coder, arXiv 2509.22824), `verify=soft`
(AutoMathCritique, arXiv 2411.16579) and `verify=default`, all of ours. Right is what `benchmarks.quality` calls right.
Tokens are those of second solutions: all else is paid alike.
"""

import argparse
import tempfile
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.quality import BASE, Quality
from benchmarks.quality import measure as measured
from pipelines.config import compose
from pipelines.run import Watcher, run
from schemas import Record

CHOICES = ("none", "verdict", "soft", "default")
WORLD = ("panel=blind", "engine.world.critic_accuracy=0.6", "engine.world.follow=0.9")


class Figures(Record):
    """What one choice of tests keeps."""

    quality: Quality
    tokens: int
    """Completion tokens of second solutions."""

    @property
    def tokens_per_row(self) -> float:
        """Of second solutions, for each kept critique."""
        return self.tokens / self.quality.kept if self.quality.kept else float("nan")


def measure(folder: Path, num_problems: int, overrides: list[str]) -> dict[str, Figures]:
    """Figures of every choice, each in a run of its own without anybody's journal."""
    figures = {}
    for choice in CHOICES:
        out = folder / choice
        words = [*BASE, *WORLD, f"problems.num_problems={num_problems}", *overrides, f"verify={choice}", f"out={out}"]
        run(compose(words), Watcher())
        paid = msgspec.json.decode((out / "run.json").read_bytes())["paid"]
        tokens = paid.get("VerifyCritiques", {}).get("completion_tokens", 0)
        figures[choice] = Figures(quality=measured(out)["all"], tokens=tokens)
    return figures


def main() -> None:
    """Runs every choice and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="25 problems instead of 200")
    parser.add_argument("overrides", nargs="*", help="settings of the runs, as for `wrongturn run`")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), 25 if options.quick else 200, options.overrides)
    table = Table("verify", "kept", "right", "leaks", "precision", "recall", "tokens of second solutions a kept one")
    for choice, item in figures.items():
        quality = item.quality
        counts = map(str, (quality.kept, quality.right, quality.leaks))
        shares = (f"{quality.precision:.3f}", f"{quality.recall:.3f}", f"{item.tokens_per_row:.0f}")
        table.add_row(choice, *counts, *shares)
    Console(width=110).print(table)
    lines = {
        choice: {
            "kept": item.quality.kept,
            "precision": item.quality.precision,
            "recall": item.quality.recall,
            "leaks": item.quality.leaks,
            "tokens_per_row": item.tokens_per_row,
        }
        for choice, item in figures.items()
    }
    print(msgspec.json.encode(lines).decode())


if __name__ == "__main__":
    main()

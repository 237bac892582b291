"""Whether the intervals of `wrongturn evaluate` are honest: how often they hold the truth.

    python -m benchmarks.evaluation [--quick]

Files of labelled solutions are drawn from a population whose rates are known: half of the solutions are wrong; a critic
names the first wrong step of a wrong one, spares a right one and gives the answer away with set probabilities, and one
in ten critiques cannot be read; second solutions turn right or wrong with a probability that differs from solution to
solution, so that several of one critique are more alike than those of several. For each file the figures are taken as
`wrongturn evaluate` takes them, and every 95 % interval is held against the population. A weak critic finds one in ten
and spares nine of ten, a strong one six and eight. `pooled` is what a rate over four second solutions a critique would
have if each of them counted as an outcome of its own.
"""

import argparse
import random
from collections import defaultdict
from collections.abc import Mapping

import msgspec
from rich.console import Console
from rich.table import Table

from annotators.evaluation import FIGURES, Judged, summarise
from annotators.metrics import harmonic_mean
from mcts.estimates import interval
from schemas import Outcome, Record

LEVEL = 0.95
UNREAD, LEAK = 0.1, 0.2
SPREAD = (0.1, 0.9)
"""Probabilities that second solutions of one critique come out right: one of the two, by the solution."""
HELPED = {"correct": 0.8, "incorrect": 0.4}
"""Share of the solutions with the larger of the two, by the label."""


class Critic(Record):
    """How often a critic is right."""

    name: str
    exact: float
    on_correct: float


CRITICS = (Critic(name="weak", exact=0.1, on_correct=0.9), Critic(name="strong", exact=0.6, on_correct=0.8))


def truths(critic: Critic) -> dict[str, float]:
    """The figures of the whole population."""
    low, high = SPREAD
    right, wrong = (HELPED[label] * high + (1 - HELPED[label]) * low for label in ("correct", "incorrect"))
    f1 = harmonic_mean(critic.exact, critic.on_correct)
    strict = harmonic_mean(critic.exact * (1 - UNREAD), critic.on_correct * (1 - UNREAD))
    assert f1 is not None
    assert strict is not None
    # Who does not name the first wrong step names one two steps on, or none, equally often.
    flagged = (1 + critic.exact) / 2
    return {
        "verdict": (flagged + critic.on_correct) / 2,
        "verdict_on_wrong": flagged,
        "verdict_on_right": critic.on_correct,
        "verdict_f1": 2 * flagged / (flagged + 1 + 1 - critic.on_correct),
        "exact": critic.exact,
        "within_1": critic.exact,
        "on_correct": critic.on_correct,
        "correct_to_incorrect": 1 - right,
        "incorrect_to_correct": wrong,
        "incorrect_to_correct_unleaked": wrong,
        "before": 0.5,
        "after": (right + wrong) / 2,
        "leaks": LEAK,
        "f1": f1,
        "f1_unread_missed": strict,
        "delta": (right + wrong) / 2 - 0.5,
    }


def draw(critic: Critic, samples: int, rng: random.Random) -> Judged:
    """One solution of the population."""
    is_wrong, is_read = rng.random() < 0.5, rng.random() >= UNREAD
    label: Outcome = "incorrect" if is_wrong else "correct"
    found, other = rng.random(), rng.random() < 0.5
    named: int | None = 0 if found < critic.exact else 2 if other else None
    if not is_wrong:
        named = None if found < critic.on_correct else 0
    rate = SPREAD[rng.random() < HELPED[label]]
    outcomes: list[Outcome] = ["correct" if rng.random() < rate else "incorrect" for _ in range(samples)]
    return Judged(
        label="incorrect" if is_wrong else "correct",
        first_error=0 if is_wrong else None,
        is_read=is_read,
        named=named if is_read else None,
        first_outcome=label,
        second_outcomes=tuple(outcomes) if is_read else ("unscored",) * samples,
        has_gold=True,
        gives_away=is_read and rng.random() < LEAK,
    )


def coverage(critic: Critic, size: int, samples: int, files: int) -> dict[str, float]:
    """By figure the share of files whose interval holds the truth; files without the figure left out."""
    rng = random.Random(f"{critic.name}/{size}/{samples}")
    true, held = truths(critic), defaultdict[str, list[bool]](list)
    for file in range(files):
        items = [draw(critic, samples, rng) for _ in range(size)]
        found = summarise(items, level=LEVEL, interval=interval, seed=(file,)).figures
        for name in FIGURES:
            low, high = found[name].low, found[name].high
            if low is not None and high is not None:
                held[name].append(low <= true[name] <= high)
        if samples > 1 and (counts := found["incorrect_to_correct"].counts):
            low, high = interval(counts, LEVEL)
            held["pooled"].append(low <= true["incorrect_to_correct"] <= high)
    return {name: sum(each) / len(each) for name, each in held.items()}


def _print(console: Console, found: Mapping[str, Mapping[str, float]]) -> None:
    table = Table(title=f"Share of {LEVEL:.0%} intervals that hold the truth")
    table.add_column("figure", no_wrap=True)
    for name in found:
        table.add_column(name, justify="right")
    for name in (*FIGURES, "pooled"):
        table.add_row(name, *(f"{cell[name]:.3f}" if name in cell else "-" for cell in found.values()))
    console.print(table)


def main() -> None:
    """Prints the table and the line of figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="60 files a cell, not 400")
    files = 60 if parser.parse_args().quick else 400
    found = {
        f"{critic.name}, {size} x {samples}": coverage(critic, size, samples, files)
        for critic in CRITICS
        for size, samples in ((20, 1), (100, 1), (100, 4))
    }
    _print(Console(width=140), found)
    print(msgspec.json.encode({"files": files, "level": LEVEL, "coverage": found}).decode())


if __name__ == "__main__":
    main()

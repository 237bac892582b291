"""Figures of a run's dialogues in the terminal."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from annotators.dialogue_figures import CombinationFigures, RoundFigures, figures_by_combination, figures_by_round
from pipelines.shards import read_rows, table_files
from schemas import Dialogue, Estimate, visible
from schemas.arrow import from_row


def print_dialogues(console: Console, out: Path) -> None:
    """Prints how dialogues fared, by round and by giver; nothing where a run held none."""
    if not any(table_files(out, "dialogues")):  # A folder from before there was a loop.
        return
    dialogues = [from_row(row, Dialogue) for row in read_rows(out, "dialogues")]
    if not dialogues:
        return
    console.print(_rounds(figures_by_round(dialogues)))
    console.print(_combinations(figures_by_combination(dialogues)))


def _rounds(figures: tuple[RoundFigures, ...]) -> Table:
    table = Table(title="Dialogues by round (0 is the first attempt)", title_justify="left")
    for name in ("round", "held", "right", "gained", "lost"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("wrong and stayed wrong because", overflow="fold")
    for each in figures:
        why = ", ".join(f"{reason} {count}" for reason, count in each.why.items())
        cells = (str(each.round), str(each.held), _share(each.estimate), str(each.gained), str(each.lost), why)
        table.add_row(*cells)
    return table


def _combinations(figures: tuple[CombinationFigures, ...]) -> Table:
    table = Table(title="Dialogues by feedback", title_justify="left")
    table.add_column("feedback", overflow="fold")
    for name in ("dialogues", "right at first", "right at last", "1 / attempts", "masked", "rejected"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in figures:
        numbers = (str(each.dialogues), _share(each.first), _share(each.last), f"{each.mean_reciprocal_rank:.2f}")
        table.add_row(visible(each.name), *numbers, str(each.masked), str(each.rejected))
    return table


def _share(estimate: Estimate) -> str:
    rate = estimate.rate
    unscored = f" ({estimate.unscored} unscored)" if estimate.unscored else ""
    return "-" if rate is None else f"{rate:.0%} of {estimate.scored}{unscored}"

"""A finished run in the terminal: funnel, kept and rejected critiques side by side, a tree; or one id's history."""

from pathlib import Path

from rich.console import Console
from rich.panel import Panel as Box
from rich.table import Table
from rich.text import Text

from pipelines.dialogue_tables import print_dialogues
from pipelines.display import funnel
from pipelines.drawing import draw_tree, draw_verified, heading
from pipelines.history import all_verified, print_history
from pipelines.manifest import read_books
from pipelines.mirror import at_hand
from pipelines.output import OutputError, require_complete
from pipelines.shards import read_rows
from pipelines.show_flips import print_flips
from schemas import PathPair, Record, Tree, Verified, uniform, visible
from schemas.arrow import from_row

__all__ = ["Choice", "draw_tree", "show"]

_NARROW = 100
"""Columns of a terminal below which critiques stand below each other."""


class Choice(Record):
    """What is to be shown."""

    tree: str = ""
    """Id of a tree or of its problem; empty takes one with a wrong turn, of a critique shown where there is one."""
    id: str = ""
    """Id, or the beginning of one, whose history is shown instead of all else."""
    number: int = 2
    """Kept critiques, and as many rejected ones."""
    seed: int = 0
    """Another one draws others."""


def show(console: Console, out: str, wanted: str = "", choice: Choice | None = None) -> None:
    """Prints the funnel, some critiques of each decision, and a tree; or the history of one id.

    Args:
      console: where to print.
      out: a run's folder, here or in a store.
      wanted: `choice.tree`, for callers that choose nothing else.
      choice: what to show.

    Raises:
      OutputError: the folder holds no run, or nothing with such an id.
    """
    choice = choice or Choice(tree=wanted)
    with at_hand(out) as path:
        _show(console, require_complete(str(path), ("trees", "pairs", "verified")), choice)


def _show(console: Console, path: Path, choice: Choice) -> None:
    if choice.id:
        print_history(console, path, choice.id)
        return
    console.print(funnel(read_books(path)))
    print_dialogues(console, path)
    print_flips(console, path)
    drawn = draw(path, choice.number, choice.seed)
    _print_side_by_side(console, drawn["kept"], drawn["rejected"])
    pairs = {row["id"]: row for row in read_rows(path, "pairs")}
    first = next(iter(pairs.values()), None)
    shown = [] if choice.tree else [item.critique for item in (*drawn["kept"], *drawn["rejected"])]
    critique = next((critique for critique in shown if critique.path_id in pairs), None)
    pair = pairs[critique.path_id] if critique else first
    tree = _find_tree(path, choice.tree or (pair["tree_id"] if pair else ""))
    if tree is None:
        return
    title = f"Tree {tree.id}" + (f", of the path that critique {critique.id} is about" if critique else "")
    console.print(heading(title))
    # Several critics may speak of several paths of one tree: the turn that is marked is that of the critique above.
    of_tree = [row for row in pairs.values() if row["tree_id"] == tree.id]
    console.print(draw_tree(tree, *(from_row(row, PathPair) for row in ([pair] if critique and pair else of_tree))))


def draw(path: Path, number: int, seed: int) -> dict[str, list[Verified]]:
    """So many critiques of each decision, drawn at random; the same seed draws the same."""
    names: dict[str, list[str]] = {"kept": [], "rejected": []}
    for name, decision in all_verified(path):
        names[decision].append(name)
    chosen = {
        name for ids in names.values() for name in sorted(ids, key=lambda name: uniform("show", seed, name))[:number]
    }
    drawn: dict[str, list[Verified]] = {"kept": [], "rejected": []}
    for row in read_rows(path, "verified") if chosen else ():
        if row["id"] in chosen:
            drawn[row["decision"]].append(from_row(row, Verified))
    return drawn


def _print_side_by_side(console: Console, kept: list[Verified], rejected: list[Verified]) -> None:
    if not kept and not rejected:
        return
    if console.width < _NARROW or not kept or not rejected:
        for item in (*kept, *rejected):
            console.print(_box(item))
        return
    console.print(heading("Kept and rejected, side by side"))
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(ratio=1)
    table.add_column(ratio=1)
    for i in range(max(len(kept), len(rejected))):
        table.add_row(*(_box(items[i]) if i < len(items) else "" for items in (kept, rejected)))
    console.print(table)


def _box(item: Verified) -> Box:
    critique = item.critique
    title = Text(visible(f"A critique, {item.decision} (by {critique.agent}, view {critique.view})"))
    colour = "green" if item.decision == "kept" else "yellow"
    body = draw_verified(item).append(f"\nid {visible(critique.id)}", "dim")
    return Box(body, title=title, title_align="left", border_style=colour)


def _find_tree(path: Path, wanted: str) -> Tree | None:
    for row in read_rows(path, "trees"):
        if wanted in ("", row["id"], row["problem"]["id"]):
            return from_row(row, Tree)
    if wanted:
        raise OutputError(f"{path} holds no tree {wanted!r}; `wrongturn show {path}` picks one by itself")
    return None

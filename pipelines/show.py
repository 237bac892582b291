"""A finished run in the terminal: the funnel, one critique in full, one tree with its wrong turn marked."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text
from rich.tree import Tree as RichTree

from mcts.estimates import interval
from pipelines.display import funnel, say
from pipelines.manifest import read_books
from pipelines.output import OutputError, require_complete
from pipelines.shards import read_rows
from schemas import Node, PathPair, Tree, Verified, visible
from schemas.arrow import from_row


def show(console: Console, out: str, wanted: str = "") -> None:
    """Prints the funnel, a kept critique (or, where none was kept, the one that came furthest) and a tree.

    Args:
      console: where to print.
      out: a run's folder.
      wanted: id of a tree or of its problem; empty takes that of the critique shown if it has a wrong turn, else one
        that has.

    Raises:
      OutputError: the folder holds no run, or no such tree.
    """
    path = require_complete(out, ("trees", "pairs", "verified"))
    console.print(funnel(read_books(path)))
    pairs = {row["id"]: row for row in read_rows(path, "pairs")}
    verified = _furthest(path)
    if verified:
        _print_critique(console, verified)
    first = next(iter(pairs.values()), None)
    pair = pairs.get(verified.critique.path_id, first) if verified else first
    tree = _find_tree(path, wanted or (pair["tree_id"] if pair else ""))
    marked = {row["tree_id"]: from_row(row, PathPair) for row in pairs.values()}
    if tree:
        console.print(draw_tree(tree, marked.get(tree.id)))


def _furthest(path: Path) -> Verified | None:
    """A kept critique of a wrong path, else the critique with the best measured help, else any."""

    def rank(row: dict[str, Any]) -> tuple[bool, bool, bool, float]:
        p_value = row["p_placebo"]
        return (row["decision"] == "kept", row["has_error"], p_value is not None, -(p_value or 0.0))

    rows = list(read_rows(path, "verified"))
    return from_row(max(rows, key=rank), Verified) if rows else None


def _print_critique(console: Console, item: Verified) -> None:
    critique = item.critique
    heading = Text(f"\nA critique, {item.decision}", "bold")
    console.print(heading.append(visible(f" (by {critique.agent}, view {critique.view})"), "not bold"))
    say(console, critique.text)
    located = "no error" if item.first_error is None else f"step {item.first_error + 1}"
    say(console, f"rollouts locate: {located}; the critique names: {_named(critique.first_wrong_step)}")
    for name, estimate in (
        ("with it", item.with_critique),
        ("with a placebo", item.with_placebo),
        ("without", item.without_critique),
    ):
        if estimate:
            say(console, f"second solutions right {name}: {estimate.correct} of {estimate.scored}")
    if item.reasons:
        say(console, f"rejected because: {', '.join(item.reasons)}")


def _named(step: int | None) -> str:
    return "no step" if step is None else f"step {step + 1}"


def _find_tree(path: Path, wanted: str) -> Tree | None:
    for row in read_rows(path, "trees"):
        if wanted in ("", row["id"], row["problem"]["id"]):
            return from_row(row, Tree)
    if wanted:
        raise OutputError(f"{path} holds no tree {wanted!r}; `wrongturn show {path}` picks one by itself")
    return None


def draw_tree(tree: Tree, pair: PathPair | None) -> RichTree:
    """The tree as text: each step with its direct rollouts, the wrong turn marked where it was located."""
    question = Text("\n").append(visible(tree.problem.question.strip()), "bold")
    picture = RichTree(question.append("  ").append_text(_rate(tree.nodes[0])))
    turn = pair.node_ids[pair.first_error] if pair else -1
    right = set(pair.prefix_nodes + pair.right.nodes) if pair else set()
    branches = {0: picture}
    for i, node in enumerate(tree.nodes):
        if i:
            branches[i] = branches[node.parent].add(_label(node, is_turn=i == turn, is_right=i in right))
    return picture


def _label(node: Node, *, is_turn: bool, is_right: bool) -> Text:
    text = visible(" ".join(node.step.split()))
    label = Text()  # Without a style of its own, which what follows would take on.
    label.append(f"{text}  <- the wrong turn" if is_turn else text, "bold red" if is_turn else "green" * is_right)
    label.append(" ").append_text(_rate(node))
    mark, style = {"correct": (" right", "green"), "incorrect": (" wrong", "red")}.get(node.outcome or "", ("", ""))
    if node.outcome == "unscored":
        mark, style = f" unscored: {visible(node.unscored_reason or '')}", "yellow"
    return label.append(mark, style)


def _rate(node: Node) -> Text:
    if not node.direct.scored:
        return Text()
    low, high = interval(node.direct, 0.9)
    return Text(f"{node.direct.correct}/{node.direct.scored} ({low:.2f}-{high:.2f})", "dim")

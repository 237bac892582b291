"""Trees and critiques as a terminal shows them. Nothing that a run holds is read as markup or obeyed as an escape."""

from rich.console import Console
from rich.text import Text
from rich.tree import Tree as RichTree

from mcts.estimates import interval
from schemas import Node, PathPair, Tree, Verified, visible


def heading(text: str, *, is_wanted: bool = False) -> Text:
    """A line above what it names, one blank line before it; the wanted one is marked."""
    title = Text("\n").append(visible(text), "bold")
    return title.append("  <- the id you gave", "yellow") if is_wanted else title


def step_name(step: int | None) -> str:
    """A step as people count."""
    return "no step" if step is None else f"step {step + 1}"


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


def draw_verified(item: Verified) -> Text:
    """A critique with what was measured about it and why it was rejected."""
    critique = item.critique
    lines = [critique.text.strip()]
    located = "no error" if item.first_error is None else step_name(item.first_error)
    lines.append(f"rollouts locate: {located}; the critique names: {step_name(critique.first_wrong_step)}")
    for name, estimate in (
        ("with it", item.with_critique),
        ("with a placebo", item.with_placebo),
        ("without", item.without_critique),
    ):
        if estimate:
            lines.append(f"second solutions right {name}: {estimate.correct} of {estimate.scored}")
    if item.leak:
        lines.append(f"gives the answer away: {item.leak}")
    if item.reasons:
        lines.append(f"rejected because: {', '.join(item.reasons)}")
    return Text("\n").join(Text(visible(line)) for line in lines)


def print_verified(console: Console, item: Verified) -> None:
    """Prints `draw_verified` and the chances that what helped was chance."""
    console.print(draw_verified(item), soft_wrap=True)
    for name, p_value in (("the placebo", item.p_placebo), ("no critique", item.p_without)):
        if p_value is not None:
            console.print(Text(f"no better than {name}: p = {p_value:.2g}"))
    if item.refinement:
        console.print(Text("a right second solution written with it:"))
        console.print(Text(visible(item.refinement.strip()), "dim"), soft_wrap=True)

"""Trees, critiques and dialogues in the terminal. Nothing that a run holds is read as markup or obeyed as an escape."""

from collections.abc import Collection

from rich.console import Console
from rich.padding import Padding
from rich.text import Text
from rich.tree import Tree as RichTree

from annotators.dialogue import why_unhelped
from mcts.estimates import interval
from schemas import Attempt, Dialogue, Feedback, Node, Outcome, PathPair, Tree, Verified, visible

_MESSAGE_CHARS = 200
"""Of what a checker said, beside a node of a tree; beside its path it is whole."""
_ATTEMPT_CHARS = 600
_ANSWER_CHARS = 80


GIVEN = "the id you gave"
"""What is said beside what a user has asked for."""


def heading(text: str, *, mark: str = "") -> Text:
    """A line above what it names, one blank line before it; `mark` is said beside it."""
    title = Text("\n").append(visible(text), "bold")
    return title.append(f"  <- {mark}", "yellow") if mark else title


def step_name(step: int | None) -> str:
    """A step as people count."""
    return "no step" if step is None else f"step {step + 1}"


def _cut(text: str, most: int) -> str:
    return text[:most] + "\N{HORIZONTAL ELLIPSIS}" * (len(text) > most)


def _on_a_line(text: str, most: int) -> str:
    return _cut(" ".join(text.split()), most)


def draw_tree(tree: Tree, *paths: PathPair | None, ends: Collection[int] = ()) -> RichTree:
    """The tree as text: each step with its direct rollouts, wrong turns marked where they were located.

    Args:
      tree: what is drawn.
      paths: those whose wrong turn and right side are marked; of several each turn is said whose it is.
      ends: nodes in which the solutions of a row end, which are marked too.
    """
    question = Text("\n").append(visible(tree.problem.question.strip()), "bold")
    picture = RichTree(question.append("  ").append_text(_rate(tree.nodes[0])))
    pairs = [pair for pair in paths if pair]
    marks: dict[int, list[str]] = {}
    for pair in pairs:
        whose = f" of path {visible(pair.id)}" if len(pairs) > 1 else ""
        marks.setdefault(pair.node_ids[pair.first_error], []).append(f"the wrong turn{whose}")
    right = {node for pair in pairs for node in (*pair.prefix_nodes, *pair.right.nodes)}
    branches = {0: picture}
    for i, node in enumerate(tree.nodes):
        if i:
            label = _label(node, marks.get(i, ()), is_right=i in right)
            if i in ends:
                label.append("  <- the row comes of this solution", "yellow")
            branches[i] = branches[node.parent].add(label)
    return picture


def _label(node: Node, turns: Collection[str], *, is_right: bool) -> Text:
    text = visible(" ".join(node.step.split()))
    label = Text()  # Without a style of its own, which what follows would take on.
    label.append("".join((text, *(f"  <- {turn}" for turn in turns))), "bold red" if turns else "green" * is_right)
    label.append(" ").append_text(_rate(node))
    if node.outcome:
        words, style = _outcome(node.outcome, node.unscored_reason)
        label.append(f" {words}", style)
    if node.message:
        label.append(visible(f"  the checker: {_on_a_line(node.message, _MESSAGE_CHARS)}"), "dim")
    return label


def _outcome(outcome: Outcome, unscored_reason: str | None) -> tuple[str, str]:
    """An outcome in words, and their style."""
    if outcome == "unscored":
        return visible(f"unscored: {unscored_reason or ''}"), "yellow"
    return ("right", "green") if outcome == "correct" else ("wrong", "red")


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


def print_text(console: Console, text: str, style: str = "", *, indent: int = 2) -> None:
    """Prints a text, each line of it so many columns from the left, also where it has to be broken."""
    console.print(Padding(Text(visible(text), style), (0, 0, 0, indent), expand=False))


def print_dialogue(console: Console, dialogue: Dialogue) -> None:
    """Prints what was attempted and what was said of it, round by round, and why it ended."""
    for i, turn in enumerate(dialogue.turns):
        _print_attempt(console, i, turn.attempt)
        if i and (why := why_unhelped(dialogue.turns[i - 1], turn.attempt)):
            print_text(console, f"It stayed wrong: {why}")
        if turn.feedback:
            _print_feedback(console, turn.feedback)
    print_text(console, f"Ended: {dialogue.ended}", "bold")
    if dialogue.leak:
        print_text(console, f"gives the answer away: {dialogue.leak}", indent=4)


def _print_attempt(console: Console, number: int, attempt: Attempt) -> None:
    words, style = _outcome(attempt.outcome, attempt.unscored_reason)
    answer = "no answer" if attempt.answer is None else f"answer {_on_a_line(attempt.answer, _ANSWER_CHARS)}"
    print_text(console, f"Round {number}, attempt: {words}, {answer}", f"bold {style}")
    print_text(console, _cut(attempt.text.strip(), _ATTEMPT_CHARS), "dim", indent=4)


def _print_feedback(console: Console, feedback: Feedback) -> None:
    by = f" by {feedback.provenance.model}" if feedback.provenance else ""
    says = "says that nothing is wrong" if feedback.says_right else f"names {step_name(feedback.named_step)}"
    print_text(console, f"Feedback{by}: {says}", "bold")
    print_text(console, feedback.text.strip(), indent=4)
    if feedback.masked:
        print_text(console, f"masked: {', '.join(feedback.masked)}", "yellow", indent=4)

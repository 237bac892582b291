"""Rows for trainers in the terminal: what a row holds, and the path, critiques or dialogue that it was made of."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Console

from pipelines.drawing import GIVEN, heading, print_text, step_name
from schemas import Dialogue, PathAlone, PathPair, Tree, Verified, digest

Row = Mapping[str, Any]

_THIS = "the row was made of this"
_REPEATED = {"messages": "prompt and completion", "chosen_message": "chosen", "rejected_message": "rejected"}
"""Columns that say again what others say, for another trainer."""
_OF_STEPS = ("completions", "labels", "estimates", "posterior")
"""Columns of `prm` that have an entry for each step."""
_STEPS = ("first_error", "divergence")
"""Columns with the index of a step, from 0."""


class Made(NamedTuple):
    """What a row was made of. All is empty where that is a solution of a tree and nothing else."""

    path_id: str = ""
    dialogue_id: str = ""
    marks: Mapping[str, str] = {}
    """Words beside a path, a critique, its verification or a dialogue, by id."""


def made_of(
    row_id: str,
    row: Row | None,
    paths: Sequence[PathPair | PathAlone],
    verified: Sequence[Verified],
    dialogues: Sequence[Dialogue],
) -> Made | None:
    """What a row was made of, of all that there is of its problem.

    Args:
      row_id: a digest of what it was made of.
      row: its columns; None where it was left out of its table.
      paths: of its problem, like all that follows.
      verified: critiques.
      dialogues: likewise.

    Returns:
      None where the row is unknown and is no row that any of these makes.
    """
    known = dict(itertools.chain(_of_paths(paths), _of_critiques(verified), _of_dialogues(dialogues)))
    if row_id in known or row is None:
        return known.get(row_id)
    tree_id, nodes = row["origin"]["tree_id"], tuple(row["origin"]["node_ids"])
    path_id = next((path.id for path in paths if path.tree_id == tree_id and nodes == path.node_ids), "")
    return Made(path_id=path_id, marks={path_id: "the row's solution"} if path_id else {})


# Ids of all rows that something may have become, as the modules of `annotators` give them, and what each was made of.


def _of_paths(paths: Sequence[PathPair | PathAlone]) -> Iterator[tuple[str, Made]]:
    for path in paths:
        made = Made(path_id=path.id, marks={path.id: _THIS})
        both = (path.steps, path.right_steps) if isinstance(path, PathPair) else (path.steps,)
        for parts in (("rl", path.id), ("step_dpo", path.id), *(("prm", path.id, steps) for steps in both)):
            yield digest(*parts), made


def _of_critiques(verified: Sequence[Verified]) -> Iterator[tuple[str, Made]]:
    for item in verified:
        made = Made(path_id=item.critique.path_id, marks={item.id: _THIS, item.critique.id: _THIS})
        for name in ("sft", "refine_chat", "judge"):
            yield digest(name, item.id), made
        for outcome in ("correct", "incorrect"):
            yield digest("refine", item.id, outcome), made
        for task in ("criticise", "solve", "spoil"):
            yield digest("rl", item.id, task), made
        for other in verified:
            if other.critique.path_id == item.critique.path_id:
                yield digest("critique_dpo", item.id, other.id), _preferred(item, other)


def _of_dialogues(dialogues: Sequence[Dialogue]) -> Iterator[tuple[str, Made]]:
    for dialogue in dialogues:
        made = Made(dialogue_id=dialogue.id, marks={dialogue.id: _THIS})
        yield digest("refine_chat", dialogue.id), made
        for i in range(len(dialogue.turns)):
            for name in ("refine", "distill", "feedback"):
                yield digest(name, dialogue.id, i), made


def _preferred(chosen: Verified, rejected: Verified) -> Made:
    marks = dict.fromkeys((chosen.id, chosen.critique.id), "chosen in the row")
    marks |= dict.fromkeys((rejected.id, rejected.critique.id), "rejected in the row")
    return Made(path_id=chosen.critique.path_id, marks=marks)


def ends_of(row: Row | None, tree: Tree) -> tuple[int, ...]:
    """The nodes of a tree in which a row's solutions end: one, or both of a pair."""
    if row is None or row["origin"]["tree_id"] != tree.id:
        return ()
    nodes = [node for node in row["origin"]["node_ids"] if node < len(tree.nodes)]
    following = [*nodes[1:], None]
    return tuple(
        node for node, after in zip(nodes, following, strict=True) if after is None or tree.nodes[after].parent != node
    )


def print_row(console: Console, table: str, row: Row) -> None:
    """Prints the columns of a row: first what its trainer reads, last where it comes from."""
    console.print(heading(f"Row {row['id']} of {table}", mark=GIVEN))
    of_steps = [name for name in _OF_STEPS if name in row] if "completions" in row else []
    empty = []
    for name, value in row.items():
        if name in ("id", "origin", *of_steps[1:]):
            continue
        if name in _REPEATED:
            print_text(console, f"{name}: {_REPEATED[name]} once more", "dim")
        elif name == "completions":
            _print_steps(console, row)
        elif value is None or value in ("", [], ()):
            empty.append(name)
        else:
            _print_column(console, name, value)
    if empty:
        print_text(console, f"empty: {', '.join(empty)}", "dim")
    _print_origin(console, row["origin"])


def _print_column(console: Console, name: str, value: Any) -> None:
    turns = [value] if _is_turn(value) else value if isinstance(value, list) and all(map(_is_turn, value)) else []
    for turn in turns:
        print_text(console, f"{name}, {turn['role']}:", "bold")
        print_text(console, turn["content"].strip(), indent=4)
    if turns:
        return
    words = f"{value} ({step_name(value)})" if name in _STEPS else _words(value)
    if "\n" in words.strip():
        print_text(console, f"{name}:", "bold")
        print_text(console, words.strip(), indent=4)
    else:
        print_text(console, f"{name}: {words.strip()}")


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"role", "content"}


def _words(value: Any) -> str:
    if isinstance(value, dict) and value.keys() == {"correct", "scored", "unscored"}:
        unscored = f", {value['unscored']} unscored" if value["unscored"] else ""
        return f"{value['correct']} of {value['scored']} right{unscored}"
    if isinstance(value, dict) and "bytes" in value:
        return f"{len(value['bytes'] or b'')} bytes"
    if isinstance(value, list):
        return ", ".join(map(_words, value))
    return f"{value:.3g}" if isinstance(value, float) else f"{value}"


def _print_steps(console: Console, row: Row) -> None:
    """Each step of a row of `prm` below its label, its rollouts, and its probability of being the first wrong one."""
    for i, step in enumerate(row["completions"]):
        label = "True, holds" if row["labels"][i] else "False, from the first wrong step on"
        said = [f"labels: {label}", f"estimates: {_words(row['estimates'][i])}"]
        said += [f"posterior: {row['posterior'][i]:.2f}"] if row["posterior"] else []
        print_text(console, f"completions, {step_name(i)} ({'; '.join(said)}):", "bold")
        print_text(console, step.strip(), indent=4)


def _print_origin(console: Console, origin: Row) -> None:
    nodes = ", ".join(map(str, origin["node_ids"]))
    print_text(console, f"origin: problem {origin['problem_id']}, tree {origin['tree_id']}, nodes {nodes}", "dim")
    critic = f", critic {origin['critic']['model']}" if origin["critic"] else ""
    root = f"{_words(origin['root_estimate'])} from the problem alone"
    print_text(console, f"origin: actor {origin['actor']['model']}{critic}; {root}", "dim")
    for vote in origin["votes"]:
        said = f"{vote['verdict']}, {step_name(vote['first_wrong_step'])}, reliability {vote['reliability']:.2f}"
        print_text(console, f"origin: {vote['agent']} voted {said}", "dim")
    print_text(console, f"origin: wrongturn {origin['version']}, config {origin['config_digest']}", "dim")

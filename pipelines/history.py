"""Everything that a run holds about one id, from the problem to the verification, for the terminal."""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from annotators.dialogue_figures import name_of
from pipelines.drawing import GIVEN, draw_tree, heading, print_dialogue, print_text, print_verified, step_name
from pipelines.output import OutputError
from pipelines.shards import read_file, read_rows, table_files
from pipelines.show_questions import print_problem, print_treeless
from pipelines.show_rows import ends_of, made_of, print_row
from schemas import Critique, Dialogue, Panel, PathAlone, PathPair, Record, Tree, Verified, visible
from schemas.arrow import CONFIGS, from_row

_MOST_LISTED = 5
_CLOSE = 0.4
"""Likeness from which on an id is offered instead of an unknown one, as difflib counts it."""
_PROBLEM_OF = {
    "trees": ("id", "problem.id"),
    "pairs": ("id", "problem.id"),
    "alone": ("id", "problem.id"),
    "dialogues": ("id", "problem.id"),
    "critiques": ("id", "problem_id"),
    "panels": ("id", "problem_id"),
    "verified": ("id", "critique.problem_id"),
    "rejections": ("key", "problem_id"),
    "failures": ("key", "problem_id"),
}
"""Columns with the id and with the problem's; tables that are not named here are for trainers."""
_FOR_TRAINERS = ("id", "origin.problem_id")
_OF_A_PATH = ("pairs", "alone", "critiques", "panels", "verified")


class Found(Record):
    """What an id belongs to."""

    table: str
    """`problems` where it is a problem's."""
    id: str
    problem_id: str
    file: str
    """Name of the files that hold everything about that problem."""


def _entries(out: Path) -> Iterator[Found]:
    """Every id of a run; the same one may stand in several tables."""
    for config in CONFIGS:
        own, problem = _PROBLEM_OF.get(config, _FOR_TRAINERS)
        for file in table_files(out, config):
            for row in read_file(file, [own, problem]):
                problem_id = _value(row, problem)
                yield Found(table=config, id=_value(row, own), problem_id=problem_id, file=file.name)
                if config in ("trees", "rejections", "failures"):
                    yield Found(table="problems", id=problem_id, problem_id=problem_id, file=file.name)


def _value(row: dict[str, Any], column: str) -> str:
    value: Any = row
    for name in column.split("."):
        value = value[name]
    return str(value)


def find(out: Path, wanted: str) -> Found:
    """What has this id, or the only one that begins with it.

    Raises:
      OutputError: none or several have; names some.
    """
    ids: dict[str, Found] = {}
    for entry in _entries(out):
        ids.setdefault(entry.id, entry)
    if wanted in ids:
        return ids[wanted]
    matches = sorted(name for name in ids if name.startswith(wanted))
    if len(matches) == 1:
        return ids[matches[0]]
    if matches:
        more = ", ..." if len(matches) > _MOST_LISTED else ""
        listed = ", ".join(matches[:_MOST_LISTED])
        raise OutputError(f"{len(matches)} ids of {out} begin with {wanted!r}: {listed}{more}; give more of it")
    near = difflib.get_close_matches(wanted, ids, n=3, cutoff=_CLOSE)
    nearest = f"the nearest are {', '.join(near)}" if near else "none is near"
    raise OutputError(
        f"{out} holds nothing with the id {wanted!r}, and {nearest}; expected the id of a problem, tree, path, "
        "dialogue, critique or row, or its beginning"
    )


def print_history(console: Console, out: Path, wanted: str) -> None:
    """Prints what led to the row, critique, dialogue, tree or problem with this id and what became of it.

    A row of a table for trainers comes first, with all its columns; of a row that was made of a path, critiques or a
    dialogue no other path and no other dialogue follows.

    Raises:
      OutputError: there is none.
    """
    found = find(out, wanted)
    rows = _Rows(out, found)
    if rows.row:
        print_row(console, found.table, rows.row)
    else:
        console.print(heading(f"{found.table}: {found.id}"))
    for tree in rows.trees:
        print_problem(console, tree.problem)
    if not rows.trees:
        print_treeless(console, out, found.problem_id)
    paths = rows.paths()
    for tree in rows.trees:
        pairs = [path for path in paths if isinstance(path, PathPair) and path.tree_id == tree.id]
        console.print(heading(f"Tree {tree.id}, ended by {tree.stopped}, {tree.rollouts} rollouts"))
        console.print(draw_tree(tree, *pairs, ends=ends_of(rows.row, tree)))
    for dialogue in rows.dialogues():
        title = f"Dialogue {dialogue.id}, feedback: {name_of(dialogue)}"
        console.print(heading(title, mark=rows.marks.get(dialogue.id, "")))
        print_dialogue(console, dialogue)
    for path in paths:
        _print_path(console, path, rows.marks.get(path.id, ""))
        _print_critics(console, rows, path.id)
    _print_ends(console, rows, found.id)


class _Rows:
    """The rows of one problem. Where the id is a path's or a critique's, only of that path; a dialogue's likewise.

    Both come of a tree, and neither of the other. Where it is that of a row for trainers, only of what that is made of.
    """

    def __init__(self, out: Path, found: Found) -> None:
        self._out = out
        self._found = found
        self.trees = [from_row(row, Tree) for row in self._of("trees")]
        self.critiques = [from_row(row, Critique) for row in self._of("critiques")]
        self.panels = [from_row(row, Panel) for row in self._of("panels")]
        self.verified = [from_row(row, Verified) for row in self._of("verified")]
        self._paths: list[PathPair | PathAlone] = [from_row(row, PathPair) for row in self._of("pairs")]
        self._paths += [from_row(row, PathAlone) for row in self._of("alone")]
        self._dialogues = [from_row(row, Dialogue) for row in self._of("dialogues")]
        is_row = found.table in CONFIGS and found.table not in _PROBLEM_OF
        self.row = next((row for row in self._of(found.table) if row["id"] == found.id), None) if is_row else None
        # A row that was left out of its table has the id that it would have had there.
        may_be_row = is_row or found.table == "rejections"
        self._made = made_of(found.id, self.row, self._paths, self.verified, self._dialogues) if may_be_row else None
        self.marks: Mapping[str, str] = {found.id: GIVEN} | dict(self._made.marks if self._made else {})
        """What is said beside an id."""

    def _of(self, config: str) -> Iterator[dict[str, Any]]:
        _, column = _PROBLEM_OF.get(config, _FOR_TRAINERS)
        file = self._out / config / self._found.file
        for row in read_file(file) if file.is_file() else ():
            if _value(row, column) == self._found.problem_id:
                yield row

    def paths(self) -> list[PathPair | PathAlone]:
        """The paths to be told of."""
        if self._found.table == "dialogues":
            return []
        if self._made:
            return [path for path in self._paths if path.id == self._made.path_id]
        critiques = [*self.critiques, *(item.critique for item in self.verified)]
        of = {critique.id: critique.path_id for critique in critiques}
        of |= {item.id: item.critique.path_id for item in self.verified}
        of |= {panel.id: panel.path_id for panel in self.panels} | {path.id: path.id for path in self._paths}
        wanted = of.get(self._found.id)
        return [path for path in self._paths if wanted in (None, path.id)]

    def dialogues(self) -> list[Dialogue]:
        """The dialogues to be told of."""
        if self._found.table in _OF_A_PATH:
            return []
        if self._made:
            return [dialogue for dialogue in self._dialogues if dialogue.id == self._made.dialogue_id]
        is_one = self._found.table == "dialogues"
        return [dialogue for dialogue in self._dialogues if not is_one or dialogue.id == self._found.id]

    def ends(self) -> Iterator[tuple[str, str, str, str]]:
        """Key, stage, reason and detail of what was rejected or failed."""
        for row in self._of("rejections"):
            yield row["key"], row["stage"], row["reason"], row["detail"]
        for row in self._of("failures"):
            yield row["key"], row["stage"], row["error"], row["detail"]

    def rows(self) -> Iterator[tuple[str, str]]:
        """Table and id of the rows for trainers."""
        for config in CONFIGS:
            if config not in _PROBLEM_OF:
                yield from ((config, row["id"]) for row in self._of(config))


def _print_path(console: Console, path: PathPair | PathAlone, mark: str) -> None:
    if isinstance(path, PathAlone):
        console.print(heading(f"Path {path.id}, right", mark=mark))
        print_text(console, "".join(path.steps).strip())
        _print_message(console, path)
        return
    console.print(heading(f"Path {path.id}, wrong; rule {path.rule}, p = {path.p_value:.2g}", mark=mark))
    for i, (step, mass) in enumerate(zip(path.steps, path.posterior, strict=True)):
        is_turn = i == path.first_error
        line = Text(f"  {mass:4.2f}  ", "dim").append(visible(step.strip()), "bold red" if is_turn else "not dim")
        console.print(line.append("  <- the wrong turn" if is_turn else ""), soft_wrap=True)
    console.print(Text("  (before each step: the probability that it is the first wrong one)", "dim"))
    _print_message(console, path)


def _print_message(console: Console, path: PathPair | PathAlone) -> None:
    if path.message:
        print_text(console, f"The checker said: {path.message.strip()}")


def _print_critics(console: Console, rows: _Rows, path_id: str) -> None:
    for critique in rows.critiques:
        if critique.path_id == path_id:
            said = f"{critique.verdict}, names {step_name(critique.first_wrong_step)}"
            title = f"Critique {critique.id} by {critique.agent}, view {critique.view}: {said}"
            console.print(heading(title, mark=rows.marks.get(critique.id, "")))
            print_text(console, critique.text)
    for panel in rows.panels:
        if panel.path_id == path_id:
            agreed = f"{panel.consensus}, {step_name(panel.consensus_step)}, confidence {panel.confidence:.2f}"
            console.print(heading(f"Panel {panel.id}: {agreed}", mark=rows.marks.get(panel.id, "")))
            for vote in panel.votes:
                said = f"{vote.verdict}, {step_name(vote.first_wrong_step)}, reliability {vote.reliability:.2f}"
                print_text(console, f"{vote.agent}: {said}")
    for item in rows.verified:
        if item.critique.path_id == path_id:
            title = f"Verification of {item.critique.id} by {item.critique.agent}: {item.decision}"
            mark = rows.marks.get(item.id) or rows.marks.get(item.critique.id, "")
            console.print(heading(title, mark=mark))
            print_verified(console, item)


def _print_ends(console: Console, rows: _Rows, wanted: str) -> None:
    ends = list(rows.ends())
    if ends:
        console.print(heading("Rejected or failed"))
    for key, stage, reason, detail in ends:
        said = f"{stage}: {reason}" + (f" ({detail})" if detail else "")
        print_text(console, said + f"  <- {GIVEN}" * (key == wanted))
    exported = list(rows.rows())
    console.print(heading("Rows for trainers"))
    for config, name in exported:
        print_text(console, f"{config} {name}" + f"  <- {GIVEN}" * (name == wanted))
    if not exported:
        print_text(console, "none")


def all_verified(out: Path) -> Iterator[tuple[str, str]]:
    """Id and decision of every verified critique."""
    for row in read_rows(out, "verified", ["id", "decision"]):
        yield row["id"], row["decision"]

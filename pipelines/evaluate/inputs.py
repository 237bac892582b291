"""Labelled solutions: ProcessBench's and RealCritic's files, and a split of what `wrongturn run` wrote.

A benchmark is read whole or not at all: a row that is not what its file's columns promise ends the reading, for figures
over what is left of a file cannot be compared with anybody's.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from mcts.steps import split_steps
from pipelines.errors import UserError
from pipelines.problems.base import Row, Unfit
from pipelines.problems.solutions import Name, open_solutions, read_row, rows_of, short_names, with_ends
from pipelines.shards import Split, file_digest, num_rows, read_file, table_files
from schemas import (
    Branch,
    Estimate,
    Outcome,
    PathAlone,
    PathPair,
    Problem,
    Provenance,
    Record,
    Verdict,
    digest,
    uniform,
)
from schemas.arrow import from_row

_TABLES = ("pairs", "alone")
"""Tables of a run that its labelled solutions are in: with their steps as written, the place and the gold answer."""


class Labelled(Record):
    """A solution to criticise, and what is known of it."""

    id: str
    """Unique in its input."""
    path: PathPair | PathAlone
    """Without a step where the actor is yet to write the solution."""
    label: Verdict | None
    """None where nobody knows."""
    first_error: int | None
    """By the label, from 0; None for a right solution, and where nobody says the place."""
    is_located: bool
    """Whether the label says where a wrong solution goes wrong."""
    first_outcome: Outcome
    """Of the solution's answer."""
    first_reason: str = ""
    """Why that is `unscored` where a checker looked at it; empty elsewhere."""

    @property
    def has_gold(self) -> bool:
        """Whether the gold answer is known."""
        return bool(self.path.problem.answer)


class Source(Record):
    """One input: a file, or a split of a run."""

    name: str
    format: Literal["processbench", "realcritic", "run"]
    digest: str
    """Of the files' bytes."""
    num_rows: int
    """All that it holds."""
    solutions: tuple[Labelled, ...]
    """Those that are evaluated."""


def read_sources(words: Sequence[str], *, split: Split, limit: int | None, seed: int) -> tuple[Source, ...]:
    """The inputs that these words name.

    Args:
      words: files and folders.
      split: of the folders.
      limit: solutions of each input at most, drawn by their ids and the seed; None takes all.
      seed: the run's.

    Raises:
      UserError: one cannot be read or is of no known format; names it and says what was expected.
    """
    paths = [Path(word).expanduser().absolute() for word in words]
    for path, word in zip(paths, words, strict=True):
        if not path.exists():
            raise UserError(f"no file or folder at {word!r}; expected a labelled file or the folder of a run")
        if [other.resolve() for other in paths].count(path.resolve()) > 1:
            raise UserError(f"{word!r} is given twice; give every file once")
    names = short_names(paths)
    sources = [_read_run(path, name, split) if path.is_dir() else _read(path, name) for path, name in names.items()]
    return tuple(_drawn(source, limit, seed) for source in sources)


def run_folders(words: Sequence[str]) -> tuple[Path, ...]:
    """The folders among these words: runs, that have figures of their own."""
    paths = [Path(word).expanduser().absolute() for word in words]
    return tuple(path for path in paths if path.is_dir())


def holds_dialogues_alone(run: Path) -> bool:
    """Whether a run held dialogues, and no critic of it was given a solution to criticise."""
    dialogues, *solutions = (sum(map(num_rows, table_files(run, table))) for table in ("dialogues", *_TABLES))
    return dialogues > 0 and not any(solutions)


def _drawn(source: Source, limit: int | None, seed: int) -> Source:
    if limit is None or limit >= len(source.solutions):
        return source
    ids = sorted((item.id for item in source.solutions), key=lambda name: uniform("evaluate", seed, name))
    chosen = set(ids[:limit])
    solutions = tuple(item for item in source.solutions if item.id in chosen)
    return Source(
        name=source.name, format=source.format, digest=source.digest, num_rows=source.num_rows, solutions=solutions
    )


# Files.


def _read(path: Path, name: str) -> Source:
    opened = open_solutions(path, path.name, ("processbench", "realcritic"), "give the folder of a run")
    solutions = [_labelled(row, opened.name, name) for row in rows_of(opened)]
    twice = [found for found, count in Counter(item.id for item in solutions).items() if count > 1]
    if twice:
        raise UserError(f"{path} has the id {twice[0]!r} in two rows; give every row an id of its own")
    return Source(
        name=name,
        format="processbench" if opened.name == "processbench" else "realcritic",
        digest=file_digest(path),
        num_rows=len(solutions),
        solutions=tuple(solutions),
    )


def _labelled(row: Row, form: Name, name: str) -> Labelled:
    try:
        (written,) = read_row(row, form, _paragraphs)
    except Unfit as unfit:
        raise UserError(f"{row.where}: {unfit.detail}; correct the row") from None
    row_id = written.id or digest(written.question, "".join(written.steps))
    is_located = written.first_error is not None
    is_right = written.first_error == -1 if is_located else written.outcome == "correct"
    return Labelled(
        id=row_id,
        path=solution_path(
            name, row_id, written.question, written.steps, written.gold, domain=written.domain or "math"
        ),
        label="correct" if is_right else "incorrect",
        first_error=None if written.first_error == -1 else written.first_error,
        is_located=is_located,
        first_outcome=written.outcome,
    )


def _paragraphs(text: str) -> tuple[str, ...]:
    return split_steps(text, "blank_line")


def solution_path(
    source: str, name: str, question: str, steps: Sequence[str], gold: str = "", domain: str = "math"
) -> PathAlone:
    """A solution that no search of ours found, in the form in which critics and actors are shown solutions.

    It is no statement that the solution is right: what a `PathAlone` says besides its problem and its steps is in no
    prompt. Steps without an end of their own get an empty line, so that joining them runs none into the next.
    """
    problem = Problem(id=f"{source}/{name}", source=source, domain=domain, question=question, answer=gold)
    return _path(digest("given", source, name, question, steps), problem, with_ends(steps))


def written_path(problem: Problem, steps: Sequence[str]) -> PathAlone:
    """A solution of an input's problem that the actor wrote, in the same form."""
    return _path(digest("written", problem.id, steps), problem, tuple(steps))


def _path(path_id: str, problem: Problem, steps: tuple[str, ...]) -> PathAlone:
    return PathAlone(
        id=path_id,
        problem=problem,
        tree_id="",
        provenance=Provenance(model="", revision="", engine="", prompt_digest="", sampling="", seed=0),
        path=Branch(
            steps=steps,
            nodes=tuple(range(len(steps))),
            estimates=(Estimate(),) * len(steps),
            answer=None,
        ),
        root_estimate=Estimate(),
    )


def one_a_problem(source: Source) -> Source:
    """The first solution of every question, with none of its steps: the actor is to write its own instead."""
    first: dict[str, Labelled] = {}
    for item in source.solutions:
        problem = item.path.problem
        unwritten = Labelled(
            id=item.id,
            path=written_path(problem, ()),
            label=None,
            first_error=None,
            is_located=False,
            first_outcome="unscored",
        )
        first.setdefault(digest(problem.question, problem.images), unwritten)
    return msgspec.structs.replace(source, solutions=tuple(first.values()))


# A run's own tables.


def _read_run(out: Path, name: str, split: Split) -> Source:
    files = [path for table in _TABLES for path in sorted((out / table).glob(f"{split}-*.parquet"))]
    if not files:
        raise UserError(
            f"{out} is no folder of a run: it has no {split} files of {' and '.join(_TABLES)}; give the folder that "
            "`wrongturn run` wrote to, or the files of a benchmark one by one"
        )
    solutions = [_own(row, path.parent.name) for path in files for row in read_file(path)]
    if not solutions and holds_dialogues_alone(out):
        raise UserError(
            f"{out} has dialogues and no solution for a critic; give it without other inputs for the figures of these"
        )
    if not solutions:
        raise UserError(
            f"{out} has no labelled solution in the split {split!r}; make a larger run, raise export.validation_share, "
            "or take --split train"
        )
    return Source(
        name=name,
        format="run",
        digest=digest(*(file_digest(path) for path in files)),
        num_rows=len(solutions),
        solutions=tuple(solutions),
    )


def _own(row: dict[str, Any], table: str) -> Labelled:
    """A pair's wrong side, or a right path without a partner: label and place are the rollouts'."""
    path: PathPair | PathAlone = from_row(row, PathPair) if table == "pairs" else from_row(row, PathAlone)
    verdict: Verdict = "incorrect" if path.has_error else "correct"
    return Labelled(
        id=path.id,
        path=path,
        label=verdict,
        first_error=path.first_error if isinstance(path, PathPair) else None,
        is_located=True,
        first_outcome=verdict,
    )

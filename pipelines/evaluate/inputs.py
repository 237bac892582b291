"""Labelled solutions: ProcessBench's and RealCritic's files, and a split of what `wrongturn run` wrote.

A benchmark is read whole or not at all: a row that is not what its file's columns promise ends the reading, for figures
over what is left of a file cannot be compared with anybody's.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mcts.steps import split_steps
from pipelines.errors import UserError
from pipelines.problems.base import Row
from pipelines.problems.brief import brief
from pipelines.problems.files import ENDINGS
from pipelines.problems.formats import READERS, DataFile, Format, open_parquet
from pipelines.shards import Split, file_digest, read_file
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
    readable,
    uniform,
)
from schemas.arrow import from_row

_ENDINGS = {ending: kind for ending, kind in ENDINGS.items() if kind != "csv"}
"""Of files that can hold lists, as steps are."""
_TABLES = ("pairs", "alone")
"""Tables of a run that its labelled solutions are in: with their steps as written, the place and the gold answer."""


class Labelled(Record):
    """A solution to criticise, and what is known of it."""

    id: str
    """Unique in its input."""
    path: PathPair | PathAlone
    label: Verdict
    first_error: int | None
    """By the label, from 0; None for a right solution, and where nobody says the place."""
    is_located: bool
    """Whether the label says where a wrong solution goes wrong."""
    first_outcome: Outcome
    """Of the solution's answer."""

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
    names = _names(paths)
    sources = [_read_run(path, name, split) if path.is_dir() else _read(path, name) for path, name in names.items()]
    return tuple(_drawn(source, limit, seed) for source in sources)


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """What each input is called: the end of its path, as much of it as tells it from the others."""
    whole = {path: path.with_suffix("").parts if path.is_file() else path.parts for path in paths}
    longest = max(len(parts) for parts in whole.values())
    for number in range(1, longest + 1):
        names = {path: "/".join(parts[-number:]) for path, parts in whole.items()}
        if len(set(names.values())) == len(paths):
            return names
    return {path: path.name for path in paths} if len(paths) == 1 else {path: str(path) for path in paths}


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


class _Wrong(Exception):
    """A row that is none of its format; the message says what was expected and what came."""


def _processbench(values: Mapping[str, Any], name: str) -> Labelled:
    """ProcessBench (arXiv 2412.06559): `label` is the first wrong step from 0 by people, -1 where there is none."""
    steps, label = _texts(values, "steps"), values["label"]
    if isinstance(label, bool) or not isinstance(label, int) or not -1 <= label < len(steps):
        raise _Wrong(f"label is {brief(label)}, expected a step 0..{len(steps) - 1} or -1 for none wrong")
    is_right = values.get("final_answer_correct")
    # A gold answer is no column of ProcessBench's own; a file that has one can be refined.
    gold = _text(values, "answer") if values.get("answer") is not None else ""
    return Labelled(
        id=_text(values, "id"),
        path=solution_path(name, _text(values, "id"), _text(values, "problem"), steps, gold),
        label="correct" if label == -1 else "incorrect",
        first_error=None if label == -1 else label,
        is_located=True,
        first_outcome="unscored" if not isinstance(is_right, bool) else "correct" if is_right else "incorrect",
    )


def _realcritic(values: Mapping[str, Any], name: str) -> Labelled:
    """RealCritic (arXiv 2501.14492): whether the answer is right is all that is known; paragraphs are steps."""
    score = values["previous_score"]
    score = score[0] if isinstance(score, list) and len(score) == 1 else score
    if not isinstance(score, bool):
        raise _Wrong(f"previous_score is {brief(values['previous_score'])}, expected true or false, or a list of one")
    row_id = f"{values['idx']}" if values.get("idx") is not None else digest(values["question"], values["reasoning"])
    verdict: Verdict = "correct" if score else "incorrect"
    return Labelled(
        id=row_id,
        path=solution_path(
            name,
            row_id,
            _text(values, "question"),
            split_steps(_text(values, "reasoning"), "blank_line"),
            _text(values, "gt"),
            domain="choice" if values.get("choices") is not None else "math",
        ),
        label=verdict,
        first_error=None,
        is_located=False,
        first_outcome=verdict,
    )


class _FileFormat(Record):
    """How a file of labelled solutions is recognised and read."""

    columns: tuple[str, ...]
    """All of these are there."""
    optional: tuple[str, ...]
    """Others that are used."""
    read: Callable[[Mapping[str, Any], str], Labelled]


_FORMATS: dict[Literal["processbench", "realcritic"], _FileFormat] = {
    "processbench": _FileFormat(
        columns=("id", "problem", "steps", "label"), optional=("final_answer_correct", "answer"), read=_processbench
    ),
    "realcritic": _FileFormat(
        columns=("question", "reasoning", "gt", "previous_score"), optional=("idx", "choices"), read=_realcritic
    ),
}


def _read(path: Path, name: str) -> Source:
    file = DataFile(path=path, label=path.name, format=_format(path))
    columns = _columns_of(file)
    kind = next((kind for kind, each in _FORMATS.items() if columns.issuperset(each.columns)), None)
    if kind is None:
        known = "; ".join(f"{', '.join(each.columns)} ({kind})" for kind, each in _FORMATS.items())
        raise UserError(
            f"{path} is no file of labelled solutions: it has the columns {', '.join(sorted(columns)) or 'none'}, "
            f"expected {known}; rename its columns, or give the folder of a run"
        )
    wanted = _FORMATS[kind]
    solutions = [_labelled(row, wanted, name) for row in _rows(file, wanted)]
    twice = [found for found, count in Counter(item.id for item in solutions).items() if count > 1]
    if twice:
        raise UserError(f"{path} has the id {twice[0]!r} in two rows; give every row an id of its own")
    return Source(
        name=name,
        format=kind,
        digest=file_digest(path),
        num_rows=len(solutions),
        solutions=tuple(solutions),
    )


def _format(path: Path) -> Format:
    kind = _ENDINGS.get(path.suffix.lower())
    if kind is None:
        raise UserError(f"{path}: its ending tells no format, expected one of {', '.join(_ENDINGS)}; rename the file")
    with path.open("rb") as stream:
        head = stream.read(1024)
    if not head.strip():
        raise UserError(f"{path} is empty; give a file with labelled solutions")
    # Many sets call JSON Lines .json.
    return "jsonl" if kind == "json" and head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" else kind


def _columns_of(file: DataFile) -> set[str]:
    if file.format == "parquet":
        return set(open_parquet(file.path).schema_arrow.names)
    first = next(iter(READERS[file.format](file, ())), None)
    return set(_whole(first).values) if first is not None else set()


def _rows(file: DataFile, wanted: _FileFormat) -> Iterator[Row]:
    there = _columns_of(file) if file.format == "parquet" else {*wanted.columns, *wanted.optional}
    return READERS[file.format](file, tuple(name for name in (*wanted.columns, *wanted.optional) if name in there))


def _whole(row: Row) -> Row:
    if row.reason is not None:
        raise UserError(f"{row.where}: {row.detail}; correct the row")
    return row


def _labelled(row: Row, wanted: _FileFormat, name: str) -> Labelled:
    values = _whole(row).values
    try:
        if missing := [column for column in wanted.columns if values.get(column) is None]:
            raise _Wrong(f"no {missing[0]}, expected {', '.join(wanted.columns)} in every row")
        return wanted.read(values, name)
    except _Wrong as error:
        raise UserError(f"{row.where}: {error}; correct the row") from None


def _text(values: Mapping[str, Any], column: str) -> str:
    value = values[column]
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise _Wrong(f"{column} is {brief(value)}, expected text")
    return readable(value)


def _texts(values: Mapping[str, Any], column: str) -> tuple[str, ...]:
    found = values[column]
    if not isinstance(found, list) or not found or not all(isinstance(step, str) for step in found):
        raise _Wrong(f"{column} is {brief(found)}, expected a list of texts, one a step")
    return tuple(readable(step) for step in found)


def solution_path(
    source: str, name: str, question: str, steps: Sequence[str], gold: str = "", domain: str = "math"
) -> PathAlone:
    """A solution that no search of ours found, in the form in which critics and actors are shown solutions.

    It is no statement that the solution is right: what a `PathAlone` says besides its problem and its steps is in no
    prompt. Steps without an end of their own get an empty line, so that joining them runs none into the next.
    """
    nobody = Provenance(model="", revision="", engine="", prompt_digest="", sampling="", seed=0)
    ended = [*(step if step.endswith("\n") else f"{step}\n\n" for step in steps[:-1]), steps[-1]]
    return PathAlone(
        id=digest("given", source, name, question, steps),
        problem=Problem(id=f"{source}/{name}", source=source, domain=domain, question=question, answer=gold),
        tree_id="",
        provenance=nobody,
        path=Branch(
            steps=tuple(ended),
            nodes=tuple(range(len(ended))),
            estimates=(Estimate(),) * len(ended),
            answer=None,
        ),
        root_estimate=Estimate(),
    )


# A run's own tables.


def _read_run(out: Path, name: str, split: Split) -> Source:
    files = [path for table in _TABLES for path in sorted((out / table).glob(f"{split}-*.parquet"))]
    if not files:
        raise UserError(
            f"{out} is no folder of a run: it has no {split} files of {' and '.join(_TABLES)}; give the folder that "
            "`wrongturn run` wrote to, or the files of a benchmark one by one"
        )
    solutions = [_own(row, path.parent.name) for path in files for row in read_file(path)]
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

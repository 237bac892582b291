"""Solutions in files, with what the file says of them: ProcessBench's, RealCritic's and PRM800K's rows, and plain ones.

One reader for `wrongturn evaluate` and for `paths=given`: each decides for itself what a row without a label or without
a gold answer is good for, and what becomes of a row that is none.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pipelines.errors import UserError
from pipelines.problems.base import Reason, Row, Unfit, scalar
from pipelines.problems.brief import brief
from pipelines.problems.files import ENDINGS
from pipelines.problems.formats import READERS, DataFile, Format, open_parquet
from pipelines.problems.prm800k import read_record
from schemas import Outcome, Record, readable

Name = Literal["prm800k", "processbench", "realcritic", "plain"]
"""What a file's rows may look like."""

Cut = Callable[[str], tuple[str, ...]]
"""Cuts a whole solution into steps."""

_ENDINGS = {ending: kind for ending, kind in ENDINGS.items() if kind != "csv"}
"""Of files that can hold lists, as steps are."""
_HEAD_ROWS = 100


class Written(Record):
    """A solution as a file has it."""

    question: str
    steps: tuple[str, ...]
    """As they stand there: without an end of their own where they were a list."""
    id: str = ""
    """The row's own; empty where it has none."""
    problem_id: str = ""
    """The problem's own; empty where the row names none."""
    gold: str = ""
    """Gold answer; empty where the row has none."""
    domain: Literal["", "choice"] = ""
    """Checker that the row itself tells; empty where it does not."""
    first_error: int | None = None
    """First wrong step by the label, from 0; -1 where every step is right, None where nobody says."""
    outcome: Outcome = "unscored"
    """What the row says of the answer."""
    author: str = ""
    """Model that wrote it; empty where the row does not say."""


class SolutionFormat(Record):
    """How a file of solutions is recognised and read."""

    columns: tuple[str, ...]
    """All of these are there, and null in no row; `a|b` asks for one of both."""
    optional: tuple[str, ...]
    """Others that are used."""
    read: Callable[[Mapping[str, Any], Cut], tuple[Written, ...]]
    """The solutions of a row. Raises `Unfit` where it is not what its columns promise."""


class SolutionFile(Record):
    """A file of solutions, recognised."""

    file: DataFile
    name: Name
    names: tuple[str, ...]
    """Of its columns that are read."""


def open_solutions(path: Path, label: str, wanted: Sequence[Name], remedy: str) -> SolutionFile:
    """Looks at a file's columns.

    Args:
      path: the file, which exists.
      label: what it is called in messages.
      wanted: what its rows may look like, the first that fits is taken.
      remedy: what else to do about a file that is none of these, for people.

    Raises:
      UserError: it is none; says what it is and what was expected.
    """
    file = DataFile(path=path, label=label, format=_format(path))
    columns = _columns(file)
    for name in wanted:
        form = FORMATS[name]
        if all(_there(each, columns) for each in form.columns):
            names = [name for each in form.columns for name in each.split("|")] + list(form.optional)
            return SolutionFile(file=file, name=name, names=tuple(name for name in names if name in columns))
    known = "; ".join(f"{', '.join(FORMATS[name].columns)} ({name})" for name in wanted)
    raise UserError(
        f"{path} is no file of solutions: it has the columns "
        f"{', '.join(sorted(columns)) or 'none'}, expected {known}; rename its columns, or {remedy}"
    )


def short_names(paths: Sequence[Path]) -> dict[Path, str]:
    """What each file or folder is called: the end of its path, as much of it as tells it from the others."""
    whole = {path: path.with_suffix("").parts if path.is_file() else path.parts for path in paths}
    longest = max(len(parts) for parts in whole.values())
    for number in range(1, longest + 1):
        names = {path: "/".join(parts[-number:]) for path, parts in whole.items()}
        if len(set(names.values())) == len(paths):
            return names
    return {path: path.name for path in paths} if len(paths) == 1 else {path: str(path) for path in paths}


def rows_of(opened: SolutionFile) -> Iterator[Row]:
    """The rows of a file, also those that cannot be read."""
    return READERS[opened.file.format](opened.file, opened.names)


def read_row(row: Row, name: Name, cut: Cut) -> tuple[Written, ...]:
    """The solutions of one row, of which PRM800K's have several.

    Raises:
      Unfit: it is no solution; says what was expected and what came.
    """
    if row.reason is not None:
        raise Unfit(row.reason, row.detail)
    form = FORMATS[name]
    for column in form.columns:
        if all(row.values.get(each) is None for each in column.split("|")):
            raise Unfit(_MISSING[column], f"no {column}, expected {', '.join(form.columns)} in every row")
    return form.read(row.values, cut)


def with_ends(steps: Sequence[str], end: str = "\n\n") -> tuple[str, ...]:
    """Steps so that joining them runs none into the next: each but the last that does not end its line gets `end`."""
    return (*(step if step.endswith("\n") else step + end for step in steps[:-1]), steps[-1])


def _there(column: str, columns: set[str]) -> bool:
    return any(each in columns for each in column.split("|"))


def _format(path: Path) -> Format:
    kind = _ENDINGS.get(path.suffix.lower())
    if kind is None:
        raise UserError(f"{path}: its ending tells no format, expected one of {', '.join(_ENDINGS)}; rename the file")
    try:
        with path.open("rb") as stream:
            head = stream.read(1024)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; name a file that can") from error
    if not head.strip():
        raise UserError(f"{path} is empty; give a file with labelled solutions")
    # Many sets call JSON Lines .json.
    return "jsonl" if kind == "json" and head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" else kind


def _columns(file: DataFile) -> set[str]:
    """Names of the columns; of JSON, the keys of the first row that can be read."""
    if file.format == "parquet":
        return set(open_parquet(file.path).schema_arrow.names)
    first = None
    for row in itertools.islice(READERS[file.format](file, ()), _HEAD_ROWS):
        if row.reason is None:
            return set(row.values)
        first = first or row
    if first is not None:
        raise UserError(f"{first.where}: {first.detail}; correct the row")
    return set()


# Rows.

_MISSING: dict[str, Reason] = {
    "id": "missing_id",
    "problem": "missing_question",
    "question": "missing_question",
    "question|problem": "missing_question",
    "gt": "missing_answer",
    "reasoning": "no_solution",
    "steps": "no_solution",
    "steps|solution": "no_solution",
    "label": "bad_label",
    "previous_score": "bad_label",
    "is_quality_control_question": "bad_solution",
}
"""Why a row without it is none."""


def _plain(values: Mapping[str, Any], cut: Cut) -> tuple[Written, ...]:
    """A row a solution. ProcessBench's (arXiv 2412.06559) are such, with a label by people in every row.

    `label` is the first wrong step from 0, -1 where there is none. A gold answer is no column of ProcessBench's own.
    """
    if values.get("steps") is not None:
        steps = _texts(values, "steps")
    else:
        steps = cut(_text(values, "solution", "bad_solution"))
    is_right = values.get("final_answer_correct")
    return (
        Written(
            id=_optional(values, "id", "missing_id"),
            problem_id=_optional(values, "problem_id", "missing_id"),
            question=_text(values, "question" if values.get("question") is not None else "problem"),
            gold=_gold(values, "answer"),
            steps=steps,
            first_error=_label(values.get("label"), len(steps)),
            outcome="unscored" if not isinstance(is_right, bool) else "correct" if is_right else "incorrect",
            author=_optional(values, "model", "bad_solution") or _optional(values, "generator", "bad_solution"),
        ),
    )


def _realcritic(values: Mapping[str, Any], cut: Cut) -> tuple[Written, ...]:
    """RealCritic (arXiv 2501.14492): of a solution it is known whether the answer is right, and nothing else."""
    score = values["previous_score"]
    score = score[0] if isinstance(score, list) and len(score) == 1 else score
    if not isinstance(score, bool):
        came = brief(values["previous_score"])
        raise Unfit("bad_label", f"previous_score is {came}, expected true or false, or a list of one")
    return (
        Written(
            id=f"{values['idx']}" if values.get("idx") is not None else "",
            question=_text(values, "question"),
            gold=_gold(values, "gt"),
            domain="choice" if values.get("choices") is not None else "",
            steps=cut(_text(values, "reasoning", "bad_solution")),
            outcome="correct" if score else "incorrect",
            author=_optional(values, "model", "bad_solution"),
        ),
    )


def _prm800k(values: Mapping[str, Any], cut: Cut) -> tuple[Written, ...]:
    """PRM800K (arXiv 2305.20050): a record holds every whole solution that its rated steps make, see `read_record`."""
    del cut
    record = read_record(values)
    question = {"problem": record.problem, "ground_truth_answer": record.gold}
    return tuple(
        Written(
            question=_text(question, "problem"),
            gold=_gold(question, "ground_truth_answer"),
            steps=tuple(map(readable, steps)),
            first_error=label,
        )
        for steps, label in record.solutions
    )


FORMATS: dict[Name, SolutionFormat] = {
    "prm800k": SolutionFormat(columns=("question", "label", "is_quality_control_question"), optional=(), read=_prm800k),
    "processbench": SolutionFormat(
        columns=("id", "problem", "steps", "label"),
        optional=("final_answer_correct", "answer", "generator"),
        read=_plain,
    ),
    "realcritic": SolutionFormat(
        columns=("question", "reasoning", "gt", "previous_score"),
        optional=("idx", "choices", "model"),
        read=_realcritic,
    ),
    "plain": SolutionFormat(
        columns=("question|problem", "steps|solution"),
        optional=("answer", "label", "id", "problem_id", "model", "generator", "final_answer_correct"),
        read=_plain,
    ),
}


def _text(values: Mapping[str, Any], column: str, reason: Reason = "question_not_text") -> str:
    value = values[column]
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise Unfit(reason, f"{column} is {brief(value)}, expected text")
    return readable(value)


def _optional(values: Mapping[str, Any], column: str, reason: Reason) -> str:
    return _text(values, column, reason) if values.get(column) is not None else ""


def _gold(values: Mapping[str, Any], column: str) -> str:
    if values.get(column) is None:
        return ""
    gold = scalar(values[column], column).strip()
    if not gold:
        raise Unfit("empty_answer", f"{column} is {brief(values[column])}, expected an answer, or null for none")
    return readable(gold)


def _texts(values: Mapping[str, Any], column: str) -> tuple[str, ...]:
    found = values[column]
    if not isinstance(found, list) or not found or not all(isinstance(step, str) for step in found):
        raise Unfit("bad_solution", f"{column} is {brief(found)}, expected a list of texts, one a step")
    return tuple(readable(step) for step in found)


def _label(value: Any, num_steps: int) -> int | None:
    # A table with a null in a column of whole numbers may hold them as floats, and the null as NaN.
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    if not is_number or not -1 <= value < num_steps or value != int(value):
        raise Unfit("bad_label", f"label is {brief(value)}, expected a step 0..{num_steps - 1} or -1 for none wrong")
    return int(value)

"""What every source of problems shares: settings, the error of a source that cannot work, and the reading loop."""

import dataclasses
import decimal
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from pipelines.errors import UserError
from pipelines.problems.brief import brief
from pipelines.problems.images import ImageError, read_images
from schemas import Image, Problem, Record, Rejection, digest

Reason = Literal[
    "missing_question",
    "null_question",
    "question_not_text",
    "empty_question",
    "question_too_long",
    "missing_answer",
    "null_answer",
    "answer_not_scalar",
    "answer_not_finite",
    "answer_pattern_no_match",
    "empty_answer",
    "missing_id",
    "id_too_long",
    "duplicate_id",
    "bad_image",
    "metadata_not_json",
    "not_an_object",
    "bad_json",
    "bad_csv",
    "row_too_long",
    "not_utf8",
    "invalid_surrogates",
    "null_bytes",
    "gold_not_scorable",
    "no_solution",
    "bad_solution",
    "bad_label",
    "gold_contradicted",
    "other_question",
    "contaminated",
    "near_duplicate",
]
"""Why a row is no problem, or no solution of one."""

REASONS: tuple[Reason, ...] = get_args(Reason)

ALIASES: dict[str, tuple[str, ...]] = {
    "question": ("question", "problem", "prompt", "instruction", "query", "input"),
    "answer": ("answer", "final_answer", "gt", "ground_truth", "gold", "target", "solution", "label", "output"),
    "id": ("id", "idx", "problem_id", "question_id", "uid"),
    "images": ("images", "image"),
}
"""Names under which published sets keep each field, the likeliest first: only ever suggested, never assumed."""

_MAX_EXPONENT = 400
_MAX_ID_CHARS = 1000
_ENCODER = msgspec.json.Encoder(decimal_format="number")


class ProblemError(UserError):
    """The source as a whole cannot be used. One line: which setting, what was found, what to do."""


def none_usable(place: str, rejections: Sequence[Rejection]) -> ProblemError:
    """The error of a source whose rows are all unfit: how many for which reason, and the first of them."""
    reasons = Counter(each.reason for each in rejections)
    counts = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return ProblemError(
        f"{place} holds no usable row among {len(rejections)} ({counts}); first: {rejections[0].detail}"
    )


class Columns(Record, frozen=True, kw_only=True):
    """Which column of the source holds which part of a problem."""

    question: str = "question"
    answer: str = "answer"
    id: str | None = None
    """None: ids are digests of (source, question, answer), and of the images where there are any."""
    images: str | None = None
    """Column with bytes, base64, data URLs, paths beside the file, or lists of these. None: no images."""
    metadata: tuple[str, ...] = ()
    """Columns kept as they are in `Problem.metadata`."""

    def named(self) -> dict[str, str]:
        """Setting → column, for every column that is asked for."""
        single = {"question": self.question, "answer": self.answer, "id": self.id, "images": self.images}
        wanted = {name: column for name, column in single.items() if column is not None}
        return wanted | {f"metadata[{i}]": column for i, column in enumerate(self.metadata)}


class Tabular(Record, frozen=True, kw_only=True):
    """What sources of rows have in common."""

    columns: Columns = Columns()
    domain: Literal["math", "choice", "exact", "code", "command"] = "math"
    """Checker of the answers. In `code` the answer is the tests, and a list of them is joined by newlines; in `command`
    whatever the run's checker.command wants to know of the problem."""
    source: str = ""
    """`Problem.source`; empty: the file's name, or the data set's."""
    answer_pattern: str | None = None
    r"""Regular expression with one group that pulls the answer out of its column: `#### (.+)$`. None: all of it."""
    skip: int = 0
    """Rows passed over at the start."""
    limit: int | None = None
    """Rows read after those, unfit ones included, so that skip and limit cut a set into parts. None: all."""
    max_question_chars: int = 20_000
    """A longer question is rejected."""
    max_image_bytes: int = 10_000_000
    """A larger file of an image is rejected."""


class GymProblems(Record, frozen=True, tag_field="kind", tag="reasoning_gym", kw_only=True):
    """Problems that reasoning-gym makes and scores."""

    dataset: str
    """Name in reasoning-gym's registry, for example `chain_sum`."""
    num_problems: int = 16
    seed: int = 0
    """Most datasets make problem i from seed + i: sets that must not overlap need seeds `num_problems` apart."""
    dataset_config: dict[str, int | float | str | bool | list[Any] | None] = msgspec.field(default_factory=dict)
    """Arguments of the dataset's own config; what is not named keeps reasoning-gym's default."""


class FileProblems(Tabular, frozen=True, tag_field="kind", tag="file", kw_only=True):
    """Problems in JSON Lines, JSON, Parquet or CSV files."""

    path: str
    """A file, a folder (read with its subfolders), or a glob; files are read in the order of their names."""
    format: Literal["auto", "jsonl", "json", "parquet", "csv"] = "auto"
    """`auto` goes by the file's ending."""


class HubProblems(Tabular, frozen=True, tag_field="kind", tag="hub", kw_only=True):
    """Problems in a data set of the Hugging Face Hub, or in a local folder that `datasets` can load."""

    dataset: str
    """`owner/name`, or a folder: data files, or what `save_to_disk` wrote. An existing folder comes first."""
    config: str | None = None
    """Name of the data set's configuration, where it has several."""
    split: str = "train"
    revision: str | None = None
    """Commit, branch or tag on the Hub. None: the newest."""


class GivenProblems(Record, frozen=True, tag_field="kind", tag="given", kw_only=True):
    """No source of its own: the problems come from the files of `paths=given`, with their solutions."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row as the source has it, or why it could not even be read."""

    source: str
    """File or data set."""
    number: int
    """Line of the file, or row of the data set, from 1."""
    unit: Literal["line", "row"] = "row"
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    folder: Path | None = None
    """What paths to images are relative to. None: there can be none."""
    reason: Reason | None = None
    """Why there are no values. None: there are."""
    detail: str = ""

    @property
    def where(self) -> str:
        """The row's place, for people."""
        return f"{self.source} {self.unit} {self.number}"


class Unfit(Exception):
    """A row that is no problem, or no solution of one."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason: Reason = reason
        self.detail = detail


def check_tabular(settings: Tabular) -> None:
    """Looks at the settings alone.

    Raises:
      ProblemError: a number out of range, or a pattern that cannot pull out an answer.
    """
    for name, value, least in (
        ("skip", settings.skip, 0),
        ("limit", settings.limit, 1),
        ("max_question_chars", settings.max_question_chars, 1),
        ("max_image_bytes", settings.max_image_bytes, 1),
    ):
        if value is not None and value < least:
            raise ProblemError(f"problems.{name}: need a number >= {least}, got {value}")
    if settings.answer_pattern is None:
        return
    try:
        groups = re.compile(settings.answer_pattern).groups
    except re.error as error:
        raise ProblemError(
            f"problems.answer_pattern: {settings.answer_pattern!r} is no regular expression ({error}); correct it"
        ) from None
    if groups != 1:
        raise ProblemError(
            f"problems.answer_pattern: {settings.answer_pattern!r} has {groups} groups, need exactly 1 around the "
            "answer; write other groups as (?:...)"
        )


def check_columns(columns: Columns, existing: Iterable[str], where: str) -> None:
    """Compares the mapping with the columns that are there.

    Raises:
      ProblemError: a mapped column does not exist; lists those that do and suggests one.
    """
    names = tuple(existing)
    for setting, column in columns.named().items():
        if column in names:
            continue
        aliases = [name for name in ALIASES.get(setting, ()) if name in names]
        near = aliases or get_close_matches(column, names, n=1)
        remedy = (
            f"set problems.columns.{setting}={near[0]}" if near else f"set problems.columns.{setting} to one of these"
        )
        raise ProblemError(
            f"problems.columns.{setting}: {where} has no column {column!r}, only {', '.join(names) or 'none at all'}; "
            f"{remedy}"
        )


def read_rows(rows: Iterable[Row], settings: Tabular) -> Iterator[Problem | Rejection]:
    """Turns each row into exactly one problem or rejection, in order. Keeps one short string for each id it saw."""
    seen: dict[str, str] = {}
    for row in rows:
        problem_id = ""
        try:
            if row.reason is not None:
                raise Unfit(row.reason, row.detail)
            problem = problem_of(row, settings)
            problem_id = problem.id
            if problem_id in seen:
                raise Unfit("duplicate_id", f"id {brief(problem_id)} was already at {seen[problem_id]}")
            seen[problem_id] = row.where
            yield problem
        except Unfit as unfit:
            yield Rejection(
                stage="ReadProblems",
                key=f"{row.source}:{row.number}",
                problem_id=problem_id,
                reason=unfit.reason,
                detail=f"{row.where}: {unfit.detail}",
            )


def problem_of(row: Row, settings: Tabular) -> Problem:
    """The problem of one row.

    Raises:
      Unfit: it is none.
    """
    columns = settings.columns
    source = settings.source or row.source
    question = _question(row.values, columns.question, settings.max_question_chars)
    answer = _answer(row.values, settings)
    images = _images(row.values, row.folder, settings)
    # The same words about another picture are another problem.
    content = (source, question, answer, *(sha256(image.bytes).hexdigest() for image in images))
    return Problem(
        id=digest(*content) if columns.id is None else _id(row.values, columns.id),
        source=source,
        domain=settings.domain,
        question=question,
        answer=answer,
        images=images,
        metadata=_metadata(row.values, columns.metadata),
    )


def _question(values: Mapping[str, Any], column: str, max_chars: int) -> str:
    if column not in values:
        raise Unfit("missing_question", f"no key {column!r}, expected text; it has {brief(list(values))}")
    question = values[column]
    if question is None:
        raise Unfit("null_question", f"{column!r} is null, expected text")
    if not isinstance(question, str):
        raise Unfit("question_not_text", f"{column!r} is {brief(question)}, expected text")
    if not question.strip():
        raise Unfit("empty_question", f"{column!r} is {brief(question)}, expected text")
    if len(question) > max_chars:
        raise Unfit(
            "question_too_long",
            f"{column!r} has {len(question)} characters, expected at most {max_chars} (problems.max_question_chars)",
        )
    return _clean(question, column)


def _answer(values: Mapping[str, Any], settings: Tabular) -> str:
    column, pattern = settings.columns.answer, settings.answer_pattern
    if column not in values:
        raise Unfit("missing_answer", f"no key {column!r}, expected text or a number; it has {brief(list(values))}")
    if values[column] is None:
        raise Unfit("null_answer", f"{column!r} is null, expected text or a number")
    value = _tests(values[column]) if settings.domain == "code" else values[column]
    answer = _clean(scalar(value, column), column)
    if pattern is not None and answer.strip():
        match = re.search(pattern, answer)
        if match is None:
            raise Unfit("answer_pattern_no_match", f"{column!r} is {brief(answer)}, expected a match of {pattern!r}")
        answer = match.group(1) or ""
    if not answer.strip():
        raise Unfit("empty_answer", f"{column!r} is {brief(values[column])}, expected an answer")
    return answer.strip()


def _tests(value: Any) -> Any:
    """Tests as one text, where they are a list of texts (`test_list` of MBPP)."""
    return "\n".join(value) if isinstance(value, list) and all(isinstance(test, str) for test in value) else value


def _id(values: Mapping[str, Any], column: str) -> str:
    if values.get(column) is None:
        raise Unfit("missing_id", f"no value in {column!r}, expected an id in every row (or problems.columns.id=null)")
    try:
        text = scalar(values[column], column)
    except Unfit as unfit:
        raise Unfit("missing_id", unfit.detail) from None
    text = _clean(text, column).strip()
    if not text:
        raise Unfit("missing_id", f"{column!r} is empty, expected an id in every row (or problems.columns.id=null)")
    if len(text) > _MAX_ID_CHARS:
        # Every row that is made of a problem bears its id.
        raise Unfit("id_too_long", f"{column!r} has {len(text)} characters, expected at most {_MAX_ID_CHARS}")
    return text


def scalar(value: Any, column: str) -> str:
    """Text as it is, a number as plain decimal text (`72.0` → `72`, `1e3` → `1000`), a truth value as in JSON.

    Raises:
      Unfit: it is none of these.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, int | float | decimal.Decimal):
        raise Unfit("answer_not_scalar", f"{column!r} is {brief(value)}, expected text or a number")
    number = decimal.Decimal(repr(value)) if isinstance(value, float) else decimal.Decimal(value)
    # A few characters such as 1e999999999 would otherwise become a gigabyte of zeros.
    if not number.is_finite() or abs(number.adjusted()) > _MAX_EXPONENT:
        raise Unfit("answer_not_finite", f"{column!r} is {brief(value)}, expected a number below 1e{_MAX_EXPONENT}")
    text = format(number, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def _clean(text: str, column: str) -> str:
    if "\0" in text:
        raise Unfit("null_bytes", f"{column!r} is {brief(text)}, expected text without U+0000")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unfit(
            "invalid_surrogates",
            f"{column!r} has half a surrogate pair at character {error.start}, expected whole characters",
        ) from None
    return text


def _metadata(values: Mapping[str, Any], names: tuple[str, ...]) -> str:
    kept = {name: values[name] for name in names if name in values}
    try:
        return _ENCODER.encode(kept).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Unfit("metadata_not_json", f"columns {brief(list(kept))} cannot be written as JSON: {error}") from None


def _images(values: Mapping[str, Any], folder: Path | None, settings: Tabular) -> tuple[Image, ...]:
    column = settings.columns.images
    if column is None:
        return ()
    try:
        return read_images(values.get(column), folder, column, settings.max_image_bytes)
    except ImageError as error:
        raise Unfit("bad_image", str(error)) from None

"""Rows of one file in each format, one at a time: memory holds one row of text, or one small batch of Parquet."""

import contextlib
import csv
import dataclasses
import decimal
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Literal

from pipelines.problems.base import ProblemError, Reason, Row

Format = Literal["jsonl", "json", "parquet", "csv"]

MAX_ROW_BYTES = 2**26
"""A longer line or JSON value is given up before it is read whole."""

_CHUNK_CHARS = 2**16
_BATCH_ROWS = 256
_SPACE = " \t\r\n"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """A file to read."""

    path: Path
    label: str
    """Path inside the folder or glob, the same on every machine."""
    format: Format


def _lines(stream: IO[bytes]) -> Iterator[bytes | None]:
    """Lines with their ends; None for one that is longer than `MAX_ROW_BYTES`."""
    while line := stream.readline(MAX_ROW_BYTES):
        whole = line.endswith(b"\n") or len(line) < MAX_ROW_BYTES
        rest = line
        while not rest.endswith(b"\n") and (rest := stream.readline(MAX_ROW_BYTES)):
            pass
        yield line if whole else None


def _row(file: DataFile, number: int, unit: Literal["line", "row"], value: Any) -> Row:
    if isinstance(value, dict):
        return Row(source=file.label, number=number, unit=unit, values=value, folder=file.path.parent)
    return _broken(file, number, unit, "not_an_object", f"a JSON {type(value).__name__}, expected an object")


def _broken(file: DataFile, number: int, unit: Literal["line", "row"], reason: Reason, detail: str) -> Row:
    return Row(source=file.label, number=number, unit=unit, reason=reason, detail=detail)


def _jsonl_rows(file: DataFile, wanted: tuple[str, ...]) -> Iterator[Row]:
    del wanted
    with file.path.open("rb") as stream:
        for number, line in enumerate(_lines(stream), 1):
            if line is None:
                detail = f"longer than {MAX_ROW_BYTES} bytes, expected a shorter row"
                yield _broken(file, number, "line", "row_too_long", detail)
                continue
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                if text.strip():
                    # Decimal keeps the digits that were written; a float would round them.
                    yield _row(file, number, "line", json.loads(text, parse_float=decimal.Decimal))
            except UnicodeDecodeError as error:
                detail = f"byte {line[error.start]:#04x} at {error.start}, expected UTF-8"
                yield _broken(file, number, "line", "not_utf8", detail)
            except (ValueError, RecursionError) as error:
                yield _broken(file, number, "line", "bad_json", f"{_complaint(error)}, expected one JSON object")


def _json_rows(file: DataFile, wanted: tuple[str, ...]) -> Iterator[Row]:
    """Elements of one array, parsed one by one out of a window that slides over the file."""
    del wanted
    decoder = json.JSONDecoder(parse_float=decimal.Decimal)
    with file.path.open(encoding="utf-8-sig", errors="surrogateescape") as stream:
        window = stream.read(_CHUNK_CHARS).lstrip()[1:]
        for number in itertools.count(1):
            while not (window := window.lstrip(_SPACE + ",")) and (chunk := stream.read(_CHUNK_CHARS)):
                window = chunk
            if window.startswith("]"):
                return
            try:
                window, value, text = _next_value(decoder, window, stream)
            except (ValueError, RecursionError) as error:
                what = _complaint(error) if window else "the file ends before the array does"
                detail = f"{what}; nothing after it was read, expected one array of JSON objects"
                yield _broken(file, number, "row", "bad_json", detail)
                return
            if _is_text(text):
                yield _row(file, number, "row", value)
            else:
                yield _broken(file, number, "row", "not_utf8", "bytes that are no UTF-8, expected UTF-8")


def _next_value(decoder: json.JSONDecoder, window: str, stream: IO[str]) -> tuple[str, Any, str]:
    """The window after the next value, the value, and its text.

    Raises:
      ValueError: the file ends inside the value, or the value is broken or too long.
    """
    while True:
        more = ""
        try:
            value, end = decoder.raw_decode(window)
        except ValueError:
            # Whether it is broken or only cut shows when the window is larger; doubling keeps the work linear.
            more = stream.read(max(_CHUNK_CHARS, len(window)))
            if not more or len(window) > MAX_ROW_BYTES:
                raise
        else:
            # `12` at the end of the window may be the start of `123`.
            if end < len(window) or not (more := stream.read(_CHUNK_CHARS)):
                return window[end:], value, window[:end]
        window += more


def _complaint(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos + 1}"
    return str(error).partition(";")[0]


def _is_text(text: str) -> bool:
    """False where bytes that are no UTF-8 were smuggled in as surrogates."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def csv_header(path: Path) -> list[str]:
    """Names of the columns.

    Raises:
      ProblemError: there is no usable header.
    """
    with path.open("rb") as stream:
        try:
            header = next(csv.reader(_csv_lines(stream, path)), [])
        except csv.Error as error:
            raise ProblemError(f"problems.path: '{path}' has no header line ({error}); write one") from None
    for mark in ";\t|":
        if len(header) == 1 and mark in header[0]:
            raise ProblemError(f"problems.path: '{path}' separates its columns by {mark!r}; separate them by commas")
    twice = sorted(name for name, count in Counter(header).items() if count > 1)
    if twice:
        raise ProblemError(f"problems.path: '{path}' has two columns {twice[0]!r}; rename one")
    return header


def _csv_lines(stream: IO[bytes], path: Path) -> Iterator[str]:
    # The csv module's own limit is 128 KiB a field, for the whole process; a long question is for us to reject.
    csv.field_size_limit(MAX_ROW_BYTES)
    for number, line in enumerate(_lines(stream), 1):
        if line is None:
            raise ProblemError(f"problems.path: '{path}' line {number} is longer than {MAX_ROW_BYTES} bytes; split it")
        yield line.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape")


def _csv_rows(file: DataFile, wanted: tuple[str, ...]) -> Iterator[Row]:
    del wanted
    header = csv_header(file.path)
    with file.path.open("rb") as stream:
        reader = csv.reader(_csv_lines(stream, file.path), strict=True)
        next(reader)
        while True:
            number = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield _broken(file, number, "line", "bad_csv", f"{error}, expected {len(header)} cells")
                continue
            if len(cells) > len(header):
                detail = f"{len(cells)} cells, expected {len(header)}; quote cells that hold commas"
                yield _broken(file, number, "line", "bad_csv", detail)
            elif not all(map(_is_text, cells)):
                yield _broken(file, number, "line", "not_utf8", "bytes that are no UTF-8, expected UTF-8")
            elif cells:
                yield _row(file, number, "line", dict(zip(header, cells, strict=False)))


def open_parquet(path: Path) -> Any:
    """A `pyarrow.parquet.ParquetFile`; reads its footer alone.

    Raises:
      ProblemError: it is none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        first = str(error).splitlines()[0]
        raise ProblemError(
            f"problems.format: '{path}' is no whole Parquet file ({first}); write it again or set problems.format"
        ) from None


def _parquet_rows(file: DataFile, wanted: tuple[str, ...]) -> Iterator[Row]:
    import pyarrow as pa

    table = open_parquet(file.path)
    number = 0
    try:
        with contextlib.closing(table):
            for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=list(dict.fromkeys(wanted))):
                for index in range(batch.num_rows):
                    number += 1
                    try:
                        # Row by row: one undecodable string must not take its batch with it.
                        values = batch.slice(index, 1).to_pylist()[0]
                    except UnicodeDecodeError as error:
                        yield _broken(file, number, "row", "not_utf8", f"{error.reason}, expected UTF-8")
                    else:
                        yield _row(file, number, "row", values)
    except (pa.ArrowException, OSError) as error:
        raise ProblemError(
            f"problems.path: '{file.path}' cannot be read after row {number} ({str(error).splitlines()[0]}); write it "
            f"again, or set problems.limit={number}"
        ) from None


READERS: dict[Format, Callable[[DataFile, tuple[str, ...]], Iterator[Row]]] = {
    "jsonl": _jsonl_rows,
    "json": _json_rows,
    "csv": _csv_rows,
    "parquet": _parquet_rows,
}
"""How to read each format, given the file and the columns that are wanted."""

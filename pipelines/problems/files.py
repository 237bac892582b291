"""Problems in files: which files, whether they are what they seem, and their rows in order."""

import codecs
import glob
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from pipelines.problems.base import FileProblems, ProblemError, check_columns, check_tabular, read_rows
from pipelines.problems.formats import READERS, DataFile, Format, csv_header, open_parquet
from schemas import Problem, Rejection, visible

ENDINGS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
}
_HEAD_BYTES = 2**16
_HEAD_ROWS = 100
_BINARY = {
    b"PAR1": "a Parquet file: set problems.format=parquet",
    b"\x1f\x8b": "compressed with gzip: unpack it with gunzip",
    b"PK\x03\x04": "a zip archive: unpack it",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it with unzstd",
    b"ARROW1": "an Arrow file: load its folder with problems=hub",
    b"\xff\xfe": "UTF-16 or UTF-32 text: convert it with iconv -t utf-8",
    b"\xfe\xff": "UTF-16 text: convert it with iconv -t utf-8",
}


def read_files(settings: FileProblems) -> Iterator[Problem | Rejection]:
    """One problem or rejection for each row of each file. Every file is looked at before the first row comes.

    Raises:
      ProblemError: a file is missing, unreadable, empty, in another format, or has other columns than those mapped.
    """
    check_tabular(settings)
    files = _find(settings)
    for file in files:
        _look_at(file, settings)
    wanted = tuple(settings.columns.named().values())
    rows = itertools.chain.from_iterable(READERS[file.format](file, wanted) for file in files)
    stop = None if settings.limit is None else settings.skip + settings.limit
    yield from read_rows(itertools.islice(rows, settings.skip, stop), settings)


def _find(settings: FileProblems) -> list[DataFile]:
    path = Path(settings.path).expanduser().absolute()
    try:
        if path.is_dir():
            if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
                raise ProblemError(
                    f"problems.path: '{path}' was written by save_to_disk; use problems=hub problems.dataset={path}"
                )
            found, root = sorted(p for p in path.rglob("*") if _is_data(p, settings.format)), path
        elif path.exists():
            return [DataFile(path=path, label=_printable(path.name), format=_format(path, settings.format))]
        elif glob.has_magic(settings.path):
            found = sorted(p for p in map(Path, glob.glob(str(path), recursive=True)) if p.is_file())
            root = next(parent for parent in path.parents if not glob.has_magic(str(parent)))
        else:
            raise ProblemError(f"problems.path: no file or folder at '{path}'; correct problems.path")
    except PermissionError:
        raise ProblemError(f"problems.path: '{path}' may not be read; change its permissions (chmod)") from None
    if not found:
        endings = ", ".join(e for e, f in ENDINGS.items() if settings.format in ("auto", f))
        wanted = f"file that ends in {endings}" if path.is_dir() else "file that matches"
        raise ProblemError(f"problems.path: '{path}' holds no {wanted}; correct problems.path or problems.format")
    files = [
        DataFile(path=p, label=_printable(p.relative_to(root).as_posix()), format=_format(p, settings.format))
        for p in found
    ]
    formats = Counter(file.format for file in files)
    if len(formats) > 1:
        listed = ", ".join(f"{count} {name}" for name, count in sorted(formats.items()))
        raise ProblemError(
            f"problems.path: '{path}' holds files of several formats ({listed}); set problems.format, or problems.path "
            "to a glob such as '*.jsonl'"
        )
    return files


def _is_data(path: Path, wanted: str) -> bool:
    kind = ENDINGS.get(path.suffix.lower())
    return kind is not None and wanted in ("auto", kind) and not path.name.startswith(".") and path.is_file()


def _format(path: Path, wanted: Literal["auto", "jsonl", "json", "parquet", "csv"]) -> Format:
    if wanted != "auto":
        return wanted
    if path.suffix.lower() not in ENDINGS:
        raise ProblemError(
            f"problems.format: the ending of '{path}' does not tell its format; set problems.format to jsonl, json, "
            "parquet or csv"
        )
    kind = ENDINGS[path.suffix.lower()]
    # Many sets call JSON Lines .json.
    return "jsonl" if kind == "json" and _head(path).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" else kind


def _printable(name: str) -> str:
    return visible(name)


def _head(path: Path) -> bytes:
    """The first bytes of a file that can be read and is not empty."""
    if not path.is_file():
        raise ProblemError(f"problems.path: '{path}' is no regular file; write its rows to one first")
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except PermissionError:
        raise ProblemError(f"problems.path: '{path}' may not be read; change its permissions (chmod)") from None
    if not head:
        raise ProblemError(f"problems.path: '{path}' is empty (0 bytes); remove it or choose another file")
    return head


def _look_at(file: DataFile, settings: FileProblems) -> None:
    """Refuses a file that is not what its format says, or lacks a mapped column."""
    head = _head(file.path)
    if file.format == "parquet":
        columns: Iterable[str] = open_parquet(file.path).schema_arrow.names
    else:
        _look_at_text(file, head)
        start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
        if file.format == "csv":
            if start in (b"{", b"["):
                name = "jsonl" if start == b"{" else "json"
                raise ProblemError(f"problems.format: '{file.path}' is no CSV but JSON; set problems.format={name}")
            columns = csv_header(file.path)
        else:
            _look_at_json(file, head, start)
            columns = _keys(file, set(settings.columns.named().values()))
            if not columns:
                return
    check_columns(settings.columns, columns, f"'{file.path}'")


def _keys(file: DataFile, wanted: set[str]) -> dict[str, None]:
    """Keys of the first rows, up to the row by which every wanted one was seen."""
    keys: dict[str, None] = {}
    for row in itertools.islice(READERS[file.format](file, ()), _HEAD_ROWS):
        keys |= dict.fromkeys(row.values)
        if wanted <= keys.keys():
            break
    return keys


def _look_at_text(file: DataFile, head: bytes) -> None:
    for magic, what in _BINARY.items():
        if head.startswith(magic):
            raise ProblemError(f"problems.path: '{file.path}' is {what}")
    if head.count(0) * 20 > len(head):
        raise ProblemError(
            f"problems.path: '{file.path}' is not text but UTF-16 or binary ({head.count(0)} zero bytes at its start); "
            "convert it with iconv -t utf-8"
        )
    if file.format == "json":
        return
    lines = [line for line in head.split(b"\n") if line.strip()]
    if len(lines) > 1 and len(head) == _HEAD_BYTES:
        lines.pop()
    broken = [line for line in lines if not _is_utf8(line)]
    if len(broken) * 2 > len(lines):
        raise ProblemError(
            f"problems.path: '{file.path}' is not UTF-8 text ({len(broken)} of its first {len(lines)} lines cannot be "
            "decoded); convert it with iconv -f latin1 -t utf-8"
        )


def _is_utf8(line: bytes) -> bool:
    try:
        # Incremental: the head may end inside a character.
        codecs.getincrementaldecoder("utf-8")().decode(line)
    except UnicodeDecodeError:
        return False
    return True


def _look_at_json(file: DataFile, head: bytes, start: bytes) -> None:
    if file.format == "json" and start != b"[":
        raise ProblemError(
            f"problems.format: '{file.path}' holds no JSON array of rows; write one, or one object a line and set "
            "problems.format=jsonl"
        )
    if file.format == "jsonl" and start == b"[" and not _is_json(head.split(b"\n")[0]):
        raise ProblemError(f"problems.format: '{file.path}' holds one JSON array; set problems.format=json")
    if file.format == "jsonl" and start not in (b"{", b"["):
        first = ascii(head.lstrip().split(b"\n")[0][:60].decode("utf-8", "replace"))
        raise ProblemError(
            f"problems.format: '{file.path}' is no JSON Lines, it starts with {first}; set problems.format to json, "
            "parquet or csv"
        )


def _is_json(line: bytes) -> bool:
    try:
        # A whole table on one line is an array of objects.
        return not any(isinstance(item, dict) for item in json.loads(line))
    except (ValueError, RecursionError):
        return False

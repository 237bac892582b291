"""Problems in files: round trips, broken rows, files that are not what they seem, and reading no more than needed."""

import csv
import json
import os
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.problems import Columns, FileProblems, ProblemError, check_problems, formats, read_problems
from schemas import Problem, Rejection

ROWS: list[dict[str, Any]] = [
    {"question": 'He said "a, b"\nand left.', "answer": "1/2"},
    {"question": "Größe von \u2028 x?", "answer": "\U0001d465"},
    {"question": "last", "answer": "3"},
]


def jsonl(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Writes rows in the format of the ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text(json.dumps(rows, indent=1) if path.suffix == ".json" else jsonl(*rows), encoding="utf-8")
    return path


def read(path: Path | str, **settings: Any) -> list[Problem | Rejection]:
    return list(read_problems(FileProblems(path=str(path), **settings)))


def outcomes(path: Path, **settings: Any) -> list[tuple[str, str]]:
    """Of each row `("", answer)` or `(reason, detail)`."""
    return [("", e.answer) if isinstance(e, Problem) else (e.reason, e.detail) for e in read(path, **settings)]


def message(path: Path | str, **settings: Any) -> str:
    with pytest.raises(ProblemError) as caught:
        check_problems(FileProblems(path=str(path), **settings))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "a.csv", "a.parquet"])
def test_round_trip(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, ROWS)
    check_problems(FileProblems(path=str(path)))
    problems = read(path)
    assert [{"question": p.question, "answer": p.answer} for p in problems if isinstance(p, Problem)] == ROWS
    assert {p.source for p in problems if isinstance(p, Problem)} == {name}


def test_ids_are_the_same_in_every_format_and_folder(tmp_path: Path) -> None:
    paths = [write(tmp_path / str(i) / f"a.{e}", ROWS) for i, e in enumerate(["jsonl", "json", "csv", "parquet"])]
    assert len({tuple(p.id for p in read(path, source="s") if isinstance(p, Problem)) for path in paths}) == 1


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet"])
@pytest.mark.parametrize("pattern", ["", "**/*.{}", "[bc]/*"])
def test_folders_and_globs_are_read_in_the_order_of_names(ending: str, pattern: str, tmp_path: Path) -> None:
    for name, row in zip(["c/2", "b/1", "b/0"], ROWS, strict=True):
        write(tmp_path / f"{name}.{ending}", [row])
    write(tmp_path / ".hidden" / ".x.jsonl", [{"question": "hidden", "answer": "1"}])
    problems = read(tmp_path / pattern.format(ending))
    assert [p.question for p in problems if isinstance(p, Problem)] == [row["question"] for row in reversed(ROWS)]
    assert [p.source for p in problems if isinstance(p, Problem)] == [f"{n}.{ending}" for n in ("b/0", "b/1", "c/2")]


def test_format_overrides_the_ending(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text(jsonl(*ROWS))
    assert len(read(path, format="jsonl")) == 3


def test_json_lines_named_json_are_read_as_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text("\ufeff" + jsonl(*ROWS), encoding="utf-8")
    assert [detail for _, detail in outcomes(path)] == ["1/2", "\U0001d465", "3"]


def test_a_byte_order_mark_and_blank_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\ufeff" + jsonl(ROWS[0]) + "\r\n  \r\n" + jsonl(ROWS[2]), encoding="utf-8")
    assert [detail for _, detail in outcomes(path)] == ["1/2", "3"]
    path = tmp_path / "a.csv"
    path.write_text("\ufeffquestion,answer\r\n\r\nq,1\r\n", encoding="utf-8")
    assert outcomes(path) == [("", "1")]


def test_skip_and_limit_cut_the_rows_into_parts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"question": f"q{i}", "answer": i if i % 3 else None} for i in range(10)])
    parts = [e for skip in (0, 4, 8) for e in read(path, skip=skip, limit=4)]
    assert parts == read(path)
    assert len(parts) == 10


def test_each_bad_line_is_rejected_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [
        jsonl(ROWS[0]).encode(),
        b'{"question": "q"}\n',
        b'{"question": "q", "answer": null}\n',
        b'{"question": "q", "answer": "1"\n',
        b'["question", "answer"]\n',
        b'"text"\n',
        '{"question": "é", "answer": "1"}\n'.encode("latin1"),
        b'{"question": "\\ud800", "answer": "1"}\n',
        b'{"question": "' + b"x" * 2_000_000 + b'", "answer": "1"}\n',
        b"[" * 100_000 + b"\n",
        b'{"question": "a", "answer": ' + b"9" * 5000 + b"}\n",
        b'{"question": "n", "answer": NaN}\n',
        b'{"question": "e", "answer": 1.50}\n',
        jsonl(ROWS[0]).encode(),
        jsonl(ROWS[2]).rstrip().encode(),
    ]
    path.write_bytes(b"".join(lines))
    assert outcomes(path) == [
        ("", "1/2"),
        (
            "missing_answer",
            "a.jsonl line 2: no key 'answer', expected text or a number; it has ['question']",
        ),
        ("null_answer", "a.jsonl line 3: 'answer' is null, expected text or a number"),
        ("bad_json", "a.jsonl line 4: Expecting ',' delimiter at character 33, expected one JSON object"),
        ("not_an_object", "a.jsonl line 5: a JSON list, expected an object"),
        ("not_an_object", "a.jsonl line 6: a JSON str, expected an object"),
        ("not_utf8", "a.jsonl line 7: byte 0xe9 at 14, expected UTF-8"),
        (
            "invalid_surrogates",
            "a.jsonl line 8: 'question' has half a surrogate pair at character 0, expected whole characters",
        ),
        (
            "question_too_long",
            "a.jsonl line 9: 'question' has 2000000 characters, expected at most 20000 (problems.max_question_chars)",
        ),
        (
            "bad_json",
            "a.jsonl line 10: maximum recursion depth exceeded while decoding a JSON array from a unicode string, "
            "expected one JSON object",
        ),
        (
            "bad_json",
            "a.jsonl line 11: Exceeds the limit (4300 digits) for integer string conversion: value has 5000 digits, "
            "expected one JSON object",
        ),
        ("answer_not_finite", "a.jsonl line 12: 'answer' is nan, expected a number below 1e400"),
        ("", "1.5"),
        (
            "duplicate_id",
            f"a.jsonl line 14: id '{read(path)[0].id}' was already at a.jsonl line 1",  # type: ignore[union-attr]
        ),
        ("", "3"),
    ]


def test_each_bad_csv_row_is_rejected_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    long = b"x" * 200_000
    path.write_bytes(b'question,answer\n"two\nlines",1\nq\nq,1,2\n"a"b,3\nq,\n,4\n\xe9,5\n' + long + b",6\nlast,7\n")
    assert outcomes(path) == [
        ("", "1"),
        ("missing_answer", "a.csv line 4: no key 'answer', expected text or a number; it has ['question']"),
        ("bad_csv", "a.csv line 5: 3 cells, expected 2; quote cells that hold commas"),
        ("bad_csv", "a.csv line 6: ',' expected after '\"', expected 2 cells"),
        ("empty_answer", "a.csv line 7: 'answer' is '', expected an answer"),
        ("empty_question", "a.csv line 8: 'question' is '', expected text"),
        ("not_utf8", "a.csv line 9: bytes that are no UTF-8, expected UTF-8"),
        (
            "question_too_long",
            "a.csv line 10: 'question' has 200000 characters, expected at most 20000 (problems.max_question_chars)",
        ),
        ("", "7"),
    ]


def test_an_open_quote_rejects_the_rest_of_a_csv_once(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('question,answer\nq,1\n"open,2\nr,3\n')
    assert outcomes(path) == [("", "1"), ("bad_csv", "a.csv line 3: unexpected end of data, expected 2 cells")]


def test_parquet_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    questions = pa.array([b"a", b"\xff", b"b", b"c", None, b"d"], pa.binary()).view(pa.utf8())
    answers = pa.array([1.0, 2.0, None, 0.5, 3.0, 4.0])
    pq.write_table(pa.table({"question": questions, "answer": answers, "unused": [[1]] * 6}), path)
    assert outcomes(path) == [
        ("", "1"),
        ("not_utf8", "a.parquet row 2: invalid start byte, expected UTF-8"),
        ("null_answer", "a.parquet row 3: 'answer' is null, expected text or a number"),
        ("", "0.5"),
        ("null_question", "a.parquet row 5: 'question' is null, expected text"),
        ("", "4"),
    ]


@pytest.mark.parametrize("chunk", [1, 3, 2**16])
def test_json_array_in_windows_of_any_size(chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_CHUNK_CHARS", chunk)
    path = tmp_path / "a.json"
    path.write_text(json.dumps([*ROWS, 12, "x", {"question": "q"}], indent=2))
    assert outcomes(path) == [
        ("", "1/2"),
        ("", "\U0001d465"),
        ("", "3"),
        ("not_an_object", "a.json row 4: a JSON int, expected an object"),
        ("not_an_object", "a.json row 5: a JSON str, expected an object"),
        ("missing_answer", "a.json row 6: no key 'answer', expected text or a number; it has ['question']"),
    ]


def test_broken_json_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    row = json.dumps({"question": "q", "answer": 1})
    path.write_text(f"[{row},")
    expected = "; nothing after it was read, expected one array of JSON objects"
    assert outcomes(path)[1:] == [("bad_json", f"a.json row 2: the file ends before the array does{expected}")]
    path.write_text(f'[{row}, {{"question": q}}, {row}]')
    assert outcomes(path)[1:] == [("bad_json", f"a.json row 2: Expecting value at character 14{expected}")]
    path.write_bytes(f'[{row}, {{"question": "é", "answer": 1}}, {{"question": "r", "answer": 2}}]'.encode("latin1"))
    assert outcomes(path)[1:] == [("not_utf8", "a.json row 2: bytes that are no UTF-8, expected UTF-8"), ("", "2")]


def test_rows_longer_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "MAX_ROW_BYTES", 100)
    path = write(tmp_path / "a.jsonl", [ROWS[2], {"question": "x" * 1000, "answer": 1}, ROWS[2] | {"answer": 4}])
    assert outcomes(path) == [
        ("", "3"),
        ("row_too_long", "a.jsonl line 2: longer than 100 bytes, expected a shorter row"),
        ("", "4"),
    ]
    path = write(tmp_path / "a.csv", [{"question": "x" * 1000, "answer": 1}])
    assert message(path) == f"problems.path: '{path}' line 2 is longer than 100 bytes; split it"


@pytest.mark.parametrize("name", ["endless.jsonl", "endless.json", "endless.csv"])
def test_the_first_problems_of_an_endless_file_come_at_once(name: str, tmp_path: Path) -> None:
    rows = [{"question": "q" * 30_000 + str(i), "answer": str(i)} for i in range(9)]
    path = write(tmp_path / name, rows)
    os.truncate(path, 2**36)
    settings = FileProblems(path=str(path), max_question_chars=40_000)
    tracemalloc.start()
    started = time.monotonic()
    check_problems(settings)
    first = list(islice(read_problems(settings), 3))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [p.answer for p in first if isinstance(p, Problem)] == ["0", "1", "2"]
    assert time.monotonic() - started < 5
    assert peak < 8_000_000, peak


def test_parquet_is_read_in_small_batches(tmp_path: Path) -> None:
    path = tmp_path / "large.parquet"
    with pq.ParquetWriter(path, pa.schema({"question": pa.string(), "answer": pa.string()})) as writer:
        for group in range(20):
            ids = range(group * 1000, group * 1000 + 1000)
            writer.write_table(pa.table({"question": [f"{i}" * 200 for i in ids], "answer": list(map(str, ids))}))
    before = pa.total_allocated_bytes()
    elements = read_problems(FileProblems(path=str(path)))
    first = list(islice(elements, 3))
    assert [p.answer for p in first if isinstance(p, Problem)] == ["0", "1", "2"]
    assert pa.total_allocated_bytes() - before < 5_000_000
    assert len(list(elements)) == 19_997


def test_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        message("gone.jsonl") == f"problems.path: no file or folder at '{tmp_path}/gone.jsonl'; correct problems.path"
    )
    assert message("*.jsonl") == (
        f"problems.path: '{tmp_path}/*.jsonl' holds no file that matches; correct problems.path or problems.format"
    )


def test_folder_without_data(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    assert message(tmp_path) == (
        f"problems.path: '{tmp_path}' holds no file that ends in .jsonl, .ndjson, .json, .parquet, .pq, .csv; "
        "correct problems.path or problems.format"
    )
    write(tmp_path / "a.jsonl", ROWS)
    assert message(tmp_path, format="parquet") == (
        f"problems.path: '{tmp_path}' holds no file that ends in .parquet, .pq; correct problems.path or "
        "problems.format"
    )


def test_folder_of_several_formats(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", ROWS)
    write(tmp_path / "b.csv", ROWS)
    assert message(tmp_path) == (
        f"problems.path: '{tmp_path}' holds files of several formats (1 csv, 1 jsonl); set problems.format, or "
        "problems.path to a glob such as '*.jsonl'"
    )
    assert len(read(tmp_path, format="csv")) == 3


def test_folder_of_save_to_disk(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{}")
    assert message(tmp_path) == (
        f"problems.path: '{tmp_path}' was written by save_to_disk; use problems=hub problems.dataset={tmp_path}"
    )


def test_unknown_ending(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(jsonl(*ROWS))
    assert message(tmp_path / "a.txt") == (
        f"problems.format: the ending of '{tmp_path}/a.txt' does not tell its format; set problems.format to jsonl, "
        "json, parquet or csv"
    )


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
def test_empty_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.touch()
    assert message(path) == f"problems.path: '{path}' is empty (0 bytes); remove it or choose another file"


def test_files_without_rows(tmp_path: Path) -> None:
    for name, text in {"a.csv": "question,answer\n", "a.json": "[ ]"}.items():
        path = tmp_path / name
        path.write_text(text)
        assert message(path) == f"problems.path: {path} holds no row; choose one that does"
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"question": pa.array([], pa.string()), "answer": pa.array([], pa.string())}), path)
    assert message(path) == f"problems.path: {path} holds no row; choose one that does"
    path = write(tmp_path / "a.jsonl", ROWS)
    assert message(path, skip=3) == (
        f"problems.path: {path} holds no row after the first 3 (problems.skip); choose one that does"
    )


def test_no_usable_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"question": "q", "answer": null}\n{"question": "", "answer": 1}\n{"question": "r", "answer": null}'
    )
    assert message(path) == (
        f"problems.path: {path} holds no usable row among 3 (2 null_answer, 1 empty_question); first: a.jsonl line 1: "
        "'answer' is null, expected text or a number"
    )


def test_columns_of_every_file_are_compared(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", ROWS)
    path = write(tmp_path / "b.jsonl", [{"question": "q", "gt": "1"}])
    assert message(tmp_path) == (
        f"problems.columns.answer: '{path}' has no column 'answer', only question, gt; set problems.columns.answer=gt"
    )


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
def test_columns_that_do_not_exist_in_each_format(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, [{"problem": "q", "final_answer": "1"}])
    assert message(path) == (
        f"problems.columns.question: '{path}' has no column 'question', only problem, final_answer; "
        "set problems.columns.question=problem"
    )
    assert outcomes(path, columns=Columns(question="problem", answer="final_answer")) == [("", "1")]


WRONG: list[tuple[str, bytes, str]] = [
    ("jsonl", b"PAR1...", "problems.path: '{}' is a Parquet file: set problems.format=parquet"),
    ("csv", b"\x1f\x8b\x08", "problems.path: '{}' is compressed with gzip: unpack it with gunzip"),
    ("jsonl", "ab".encode("utf-16"), "problems.path: '{}' is UTF-16 or UTF-32 text: convert it with iconv -t utf-8"),
    (
        "jsonl",
        '{"a":1}'.encode("utf-16-le"),
        "problems.path: '{}' is not text but UTF-16 or binary (7 zero bytes at its start); convert it with "
        "iconv -t utf-8",
    ),
    (
        "csv",
        "question,answer\né,1\n".encode("latin1") + "é,2\né,3\n".encode("latin1"),
        "problems.path: '{}' is not UTF-8 text (3 of its first 4 lines cannot be decoded); convert it with "
        "iconv -f latin1 -t utf-8",
    ),
    ("jsonl", b"[\n {}\n]", "problems.format: '{}' holds one JSON array; set problems.format=json"),
    ("jsonl", b'[{"question": 1}]', "problems.format: '{}' holds one JSON array; set problems.format=json"),
    (
        "jsonl",
        b"question,answer\nq,1\n",
        "problems.format: '{}' is no JSON Lines, it starts with 'question,answer'; set problems.format to json, "
        "parquet or csv",
    ),
    (
        "json",
        b"question,answer\n",
        "problems.format: '{}' holds no JSON array of rows; write one, or one object a line and set "
        "problems.format=jsonl",
    ),
    ("csv", b'{"question": 1}\n', "problems.format: '{}' is no CSV but JSON; set problems.format=jsonl"),
    ("csv", b"[1]\n", "problems.format: '{}' is no CSV but JSON; set problems.format=json"),
    ("csv", b"question;answer\n", "problems.path: '{}' separates its columns by ';'; separate them by commas"),
    ("csv", b"answer,answer\n", "problems.path: '{}' has two columns 'answer'; rename one"),
]


@pytest.mark.parametrize(("ending", "data", "expected"), WRONG)
def test_a_file_that_is_not_what_its_format_says(ending: str, data: bytes, expected: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_bytes(data)
    assert message(path) == expected.format(path)


def test_broken_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_text(jsonl(*ROWS))
    assert message(path).startswith(
        f"problems.format: '{path}' is no whole Parquet file (Parquet magic bytes not found"
    )
    write(path, [{"question": f"q{i}", "answer": str(i)} for i in range(1000)])
    damaged = bytearray(path.read_bytes())
    damaged[4:2000] = bytes(1996)
    path.write_bytes(damaged)
    assert message(path).startswith(f"problems.path: '{path}' cannot be read after row 0 (")


def test_a_long_first_line_may_end_inside_a_character(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for shift in range(3):
        path.write_text("{" + " " * shift + '"question": "' + "€" * 40_000 + '", "answer": 1}\n' + jsonl(ROWS[2]))
        assert [reason for reason, _ in outcomes(path)] == ["question_too_long", ""]


def test_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    assert message(tmp_path / "a.jsonl") == (
        f"problems.path: '{tmp_path}/a.jsonl' is no regular file; write its rows to one first"
    )


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user may enter, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.mark.parametrize("locked", ["file", "folder"])
def test_unreadable(locked: str, open_folder: Path) -> None:
    path = write(open_folder / "inner" / "a.jsonl", ROWS)
    os.chmod(path if locked == "file" else path.parent, 0)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        assert message(path) == f"problems.path: '{path}' may not be read; change its permissions (chmod)"
    finally:
        if is_root:
            os.seteuid(0)
        os.chmod(path.parent, 0o755)

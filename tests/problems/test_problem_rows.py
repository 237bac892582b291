"""One row to one problem or one rejection: every reason, with the words that people get to read."""

import base64
import decimal
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.problems import REASONS, Columns, FileProblems, ProblemError, ProblemSource
from pipelines.problems.base import Row, check_columns, check_tabular, read_rows
from schemas import Problem, Rejection, digest

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)


def read(*rows: dict[str, Any], folder: Path | None = None, **settings: Any) -> list[Problem | Rejection]:
    numbered = (Row(source="a.jsonl", number=i, unit="line", values=v, folder=folder) for i, v in enumerate(rows, 1))
    return list(read_rows(numbered, FileProblems(path="a.jsonl", **settings)))


def problem(row: dict[str, Any], **settings: Any) -> Problem:
    (element,) = read(row, **settings)
    assert isinstance(element, Problem), element
    return element


def rejection(row: dict[str, Any], **settings: Any) -> tuple[str, str]:
    (element,) = read(row, **settings)
    assert isinstance(element, Rejection), element
    assert element.stage == "ReadProblems"
    assert element.key == "a.jsonl:1"
    assert element.reason in REASONS
    msgspec.json.encode(element)
    return element.reason, element.detail


def test_a_row_becomes_a_problem() -> None:
    assert problem({"question": " What is 1+1?\n", "answer": " 2 "}) == Problem(
        id=digest("a.jsonl", " What is 1+1?\n", "2"),
        source="a.jsonl",
        domain="math",
        question=" What is 1+1?\n",
        answer="2",
    )


def test_id_source_domain_and_metadata_come_from_the_settings() -> None:
    columns = Columns(question="q", answer="a", id="n", metadata=("level", "tags", "absent"))
    row = {"q": "Which?", "a": "B", "n": 7, "level": decimal.Decimal("0.10"), "tags": ["x", None], "other": 1}
    assert problem(row, columns=columns, source="quiz", domain="choice") == Problem(
        id="7",
        source="quiz",
        domain="choice",
        question="Which?",
        answer="B",
        metadata='{"level":0.10,"tags":["x",null]}',
    )


QUESTIONS: list[tuple[dict[str, Any], str, str]] = [
    ({"answer": "1"}, "missing_question", "no key 'question', expected text; it has ['answer']"),
    ({"question": None, "answer": "1"}, "null_question", "'question' is null, expected text"),
    (
        {"question": {"problem": "p"}, "answer": "1"},
        "question_not_text",
        "'question' is {'problem': 'p'}, expected text",
    ),
    ({"question": 5, "answer": "1"}, "question_not_text", "'question' is 5, expected text"),
    ({"question": " \n", "answer": "1"}, "empty_question", "'question' is ' \\n', expected text"),
    (
        {"question": "x" * 2_000_000, "answer": "1"},
        "question_too_long",
        "'question' has 2000000 characters, expected at most 20000 (problems.max_question_chars)",
    ),
    (
        {"question": "a\0b", "answer": "1"},
        "null_bytes",
        "'question' is 'a\\x00b', expected text without U+0000",
    ),
    (
        {"question": "ab\ud83d", "answer": "1"},
        "invalid_surrogates",
        "'question' has half a surrogate pair at character 2, expected whole characters",
    ),
]


@pytest.mark.parametrize(
    ("row", "reason", "detail"), QUESTIONS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_bad_question(row: dict[str, Any], reason: str, detail: str) -> None:
    assert rejection(row) == (reason, f"a.jsonl line 1: {detail}")


def test_the_longest_question_allowed_is_kept() -> None:
    assert problem({"question": "x" * 20_000, "answer": "1"}).question == "x" * 20_000
    assert rejection({"question": "xxxx", "answer": "1"}, max_question_chars=3)[0] == "question_too_long"


ANSWERS: list[tuple[Any, str, str]] = [
    (None, "null_answer", "'answer' is null, expected text or a number"),
    ("", "empty_answer", "'answer' is '', expected an answer"),
    (" \t", "empty_answer", "'answer' is ' \\t', expected an answer"),
    ([1, 2], "answer_not_scalar", "'answer' is [1, 2], expected text or a number"),
    ({"a": 1}, "answer_not_scalar", "'answer' is {'a': 1}, expected text or a number"),
    (float("nan"), "answer_not_finite", "'answer' is nan, expected a number below 1e400"),
    (float("inf"), "answer_not_finite", "'answer' is inf, expected a number below 1e400"),
    (
        decimal.Decimal("1e999999999"),
        "answer_not_finite",
        "'answer' is Decimal('1E+999999999'), expected a number below 1e400",
    ),
    ("1\0", "null_bytes", "'answer' is '1\\x00', expected text without U+0000"),
    ("\udc80", "invalid_surrogates", "'answer' has half a surrogate pair at character 0, expected whole characters"),
]


@pytest.mark.parametrize(("answer", "reason", "detail"), ANSWERS)
def test_bad_answer(answer: Any, reason: str, detail: str) -> None:
    assert rejection({"question": "q", "answer": answer}) == (reason, f"a.jsonl line 1: {detail}")


def test_missing_answer_names_the_keys_that_are_there() -> None:
    assert rejection({"question": "q", "gold": "1"}) == (
        "missing_answer",
        "a.jsonl line 1: no key 'answer', expected text or a number; it has ['question', 'gold']",
    )


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (72, "72"),
        (72.0, "72"),
        (-0.0, "0"),
        (0.1, "0.1"),
        (1e-7, "0.0000001"),
        (decimal.Decimal("1.50"), "1.5"),
        (decimal.Decimal("1e3"), "1000"),
        (decimal.Decimal("3.14159265358979323846264338"), "3.14159265358979323846264338"),
        (2**200, str(2**200)),
        (True, "true"),
        (False, "false"),
        ("072.0", "072.0"),
    ],
)
def test_numbers_become_plain_decimal_text(answer: Any, text: str) -> None:
    assert problem({"question": "q", "answer": answer}).answer == text


@given(st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.decimals(-(10**30), 10**30)))
def test_the_text_of_a_number_is_that_number(number: Any) -> None:
    text = problem({"question": "q", "answer": number}).answer
    expected = decimal.Decimal(repr(number)) if isinstance(number, float) else decimal.Decimal(number)
    assert decimal.Decimal(text) == expected
    assert not set(text) - set("-.0123456789")


def test_answer_pattern_pulls_the_answer_out() -> None:
    row = {"question": "q", "answer": "48/2 = 24\n#### 1,072 "}
    assert problem(row, answer_pattern=r"#### (.+)$").answer == "1,072"
    assert rejection({"question": "q", "answer": "24"}, answer_pattern=r"#### (.+)$") == (
        "answer_pattern_no_match",
        "a.jsonl line 1: 'answer' is '24', expected a match of '#### (.+)$'",
    )
    assert rejection({"question": "q", "answer": "#### "}, answer_pattern=r"####(.*)$")[0] == "empty_answer"
    assert rejection({"question": "q", "answer": "####"}, answer_pattern=r"####(x)?")[0] == "empty_answer"


def test_the_second_of_two_equal_ids_is_rejected_and_names_the_first() -> None:
    rows = [{"question": "q", "answer": 1, "id": "p"}, {"question": "r", "answer": 2, "id": "p"}]
    first, second = read(*rows, columns=Columns(id="id"))
    assert isinstance(first, Problem)
    assert second == Rejection(
        stage="ReadProblems",
        key="a.jsonl:2",
        problem_id="p",
        reason="duplicate_id",
        detail="a.jsonl line 2: id 'p' was already at a.jsonl line 1",
    )


def test_without_an_id_column_equal_rows_are_duplicates_and_others_are_not() -> None:
    kept = [isinstance(e, Problem) for e in read(*({"question": q, "answer": a} for q, a in ["ab", "ab", "ac", "cb"]))]
    assert kept == [True, False, True, True]


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        ({}, "no value in 'id', expected an id in every row (or problems.columns.id=null)"),
        ({"id": None}, "no value in 'id', expected an id in every row (or problems.columns.id=null)"),
        ({"id": " "}, "'id' is empty, expected an id in every row (or problems.columns.id=null)"),
        ({"id": [1]}, "'id' is [1], expected text or a number"),
    ],
)
def test_missing_id(row: dict[str, Any], detail: str) -> None:
    assert rejection({"question": "q", "answer": 1} | row, columns=Columns(id="id")) == (
        "missing_id",
        f"a.jsonl line 1: {detail}",
    )


@pytest.mark.parametrize(
    "value",
    [
        PNG,
        [PNG],
        "data:image/png;base64," + base64.b64encode(PNG).decode(),
        {"bytes": PNG, "path": None},
        {"bytes": None, "path": "pictures/a.png"},
        "pictures/a.png",
    ],
)
def test_images_in_every_form(value: Any, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(PNG)
    row = {"question": "q", "answer": 1, "image": value}
    (image,) = problem(row, columns=Columns(images="image"), folder=tmp_path).images
    assert (image.bytes, image.media_type) == (PNG, "image/png")


@pytest.mark.parametrize("value", [None, "", []])
def test_no_image_is_fine(value: Any) -> None:
    assert problem({"question": "q", "answer": 1, "image": value}, columns=Columns(images="image")).images == ()


@pytest.mark.parametrize(
    ("start", "media_type"),
    [(b"\xff\xd8\xff", "image/jpeg"), (b"GIF89a", "image/gif"), (b"RIFF1234WEBP", "image/webp")],
)
def test_media_types(start: bytes, media_type: str) -> None:
    row = {"question": "q", "answer": 1, "image": start}
    assert problem(row, columns=Columns(images="image")).images[0].media_type == media_type


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        ("gone.png", "'image' is 'gone.png', expected bytes, base64, a data URL or a path beside the file"),
        (b"<svg>", "'image' starts with b'<svg>', expected PNG, JPEG, GIF or WebP"),
        ("data:image/png;base64,@", "'image' cannot be read: Only base64 data is allowed"),
        (7, "'image' is 7, expected bytes, base64, a data URL or a path beside the file"),
    ],
)
def test_bad_image(value: Any, detail: str, tmp_path: Path) -> None:
    row = {"question": "q", "answer": 1, "image": value}
    assert rejection(row, columns=Columns(images="image"), folder=tmp_path) == (
        "bad_image",
        f"a.jsonl line 1: {detail}",
    )


def test_metadata_that_json_cannot_hold() -> None:
    columns = Columns(metadata=("m",))
    assert rejection({"question": "q", "answer": 1, "m": {(1, 2): object}}, columns=columns)[0] == "metadata_not_json"
    assert rejection({"question": "q", "answer": 1, "m": "\ud800"}, columns=columns)[0] == "metadata_not_json"


@given(st.dictionaries(st.text(max_size=3), st.recursive(st.none() | st.floats() | st.text(), st.lists), max_size=4))
def test_any_row_ends_in_exactly_one_place(row: dict[str, Any]) -> None:
    (element,) = read({"question": "q", "answer": "a"} | row, columns=Columns(metadata=tuple(row)))
    assert msgspec.json.decode(msgspec.json.encode(element), type=type(element)) == element


def test_a_row_that_could_not_be_read_keeps_its_reason() -> None:
    row = Row(source="f", number=3, reason="bad_json", detail="broken")
    assert list(read_rows([row], FileProblems(path="f"))) == [
        Rejection(stage="ReadProblems", key="f:3", problem_id="", reason="bad_json", detail="f row 3: broken")
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"skip": -1}, "problems.skip: need a number >= 0, got -1"),
        ({"limit": 0}, "problems.limit: need a number >= 1, got 0"),
        ({"max_question_chars": 0}, "problems.max_question_chars: need a number >= 1, got 0"),
        (
            {"answer_pattern": "("},
            "problems.answer_pattern: '(' is no regular expression (missing ), unterminated subpattern at position 0); "
            "correct it",
        ),
        (
            {"answer_pattern": "a|b"},
            "problems.answer_pattern: 'a|b' has 0 groups, need exactly 1 around the answer; write other groups "
            "as (?:...)",
        ),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ProblemError) as caught:
        check_tabular(FileProblems(path="f", **settings))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("columns", "existing", "message"),
    [
        (
            Columns(),
            ["problem", "final_answer"],
            "problems.columns.question: 'f' has no column 'question', only problem, final_answer; "
            "set problems.columns.question=problem",
        ),
        (
            Columns(question="problem"),
            ["problem", "final_answer"],
            "problems.columns.answer: 'f' has no column 'answer', only problem, final_answer; "
            "set problems.columns.answer=final_answer",
        ),
        (
            Columns(metadata=("levle",)),
            ["question", "answer", "level"],
            "problems.columns.metadata[0]: 'f' has no column 'levle', only question, answer, level; "
            "set problems.columns.metadata[0]=level",
        ),
        (
            Columns(id="key"),
            ["question", "answer"],
            "problems.columns.id: 'f' has no column 'key', only question, answer; set problems.columns.id to one of "
            "these",
        ),
    ],
)
def test_columns_that_do_not_exist(columns: Columns, existing: list[str], message: str) -> None:
    with pytest.raises(ProblemError) as caught:
        check_columns(columns, existing, "'f'")
    assert str(caught.value) == message


def test_settings_come_from_plain_values_by_kind() -> None:
    plain = {"kind": "file", "path": "f.csv", "columns": {"question": "q", "metadata": ["a", "b"]}, "limit": 3}
    settings = msgspec.convert(plain, ProblemSource)
    assert settings == FileProblems(path="f.csv", columns=Columns(question="q", metadata=("a", "b")), limit=3)
    assert msgspec.convert(json.loads(msgspec.json.encode(settings)), ProblemSource) == settings


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"kind": "file", "path": "f", "colums": {}}, "Object contains unknown field `colums`"),
        ({"kind": "file"}, "Object missing required field `path`"),
        ({"kind": "fil"}, "Invalid value 'fil' - at `$.kind`"),
        ({"kind": "file", "path": "f", "domain": "maths"}, "Invalid enum value 'maths' - at `$.domain`"),
    ],
)
def test_settings_are_strict(plain: dict[str, Any], message: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(plain, ProblemSource)
    assert str(caught.value) == message

import json
from pathlib import Path

import pytest

from pipelines.problems import Columns, FileProblems, read_problems
from schemas import Problem, Rejection

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 8


def read(folder: Path, row: object, columns: Columns) -> Problem | Rejection:
    (folder / "rows").mkdir()
    path = folder / "rows" / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    (element,) = read_problems(FileProblems(path=str(path), columns=columns))
    return element


@pytest.mark.parametrize("name", ["../secret.png", "a/../../secret.png", "/{folder}/secret.png", "x" * 5000, "a\x00b"])
def test_no_row_reaches_for_a_picture_elsewhere(name, tmp_path):
    (tmp_path / "secret.png").write_bytes(PNG)
    row = {"question": "q", "answer": "7", "image": name.replace("/{folder}", str(tmp_path))}
    element = read(tmp_path, row, Columns(images="image"))
    assert isinstance(element, Rejection)
    assert element.reason == "bad_image"
    assert len(element.detail) < 300


def test_a_picture_beside_the_file_is_read(tmp_path):
    (tmp_path / "rows" / "a").mkdir(parents=True)
    (tmp_path / "rows" / "a" / "b.png").write_bytes(PNG)
    path = tmp_path / "rows" / "rows.jsonl"
    path.write_text(json.dumps({"question": "q", "answer": "7", "image": "a/../a/b.png"}), encoding="utf-8")
    (element,) = read_problems(FileProblems(path=str(path), columns=Columns(images="image")))
    assert element.images[0].bytes == PNG


def test_an_id_that_every_row_would_bear_is_bounded(tmp_path):
    element = read(tmp_path, {"question": "q", "answer": "7", "id": "x" * 1001}, Columns(id="id"))
    assert (element.reason, element.detail) == (
        "id_too_long",
        "rows.jsonl line 1: 'id' has 1001 characters, expected at most 1000",
    )


@pytest.mark.parametrize("name", ["x" * 1000, "../../x", "/tmp/x", "\x1b[2J", "<script>", "{problem}"])
def test_an_id_is_only_a_name(name, tmp_path):
    assert read(tmp_path, {"question": "q", "answer": "7", "id": name}, Columns(id="id")).id == name


def test_a_file_whose_name_steers_a_terminal_is_named_in_escapes(tmp_path):
    path = tmp_path / "a\x1b[2J.jsonl"
    path.write_text('{"question": null, "answer": 7}\n', encoding="utf-8")
    (element,) = read_problems(FileProblems(path=str(path)))
    assert element.detail.startswith("a\\x1b[2J.jsonl line 1: ")

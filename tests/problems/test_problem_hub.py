"""Data sets through `datasets`: local folders of every kind without a network, and what is said when there is none."""

import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.problems import Columns, HubProblems, ProblemError, check_problems, read_problems
from schemas import Problem, Rejection

datasets = pytest.importorskip("datasets")

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)
ROWS = [{"question": f"q{i}", "answer": str(i)} for i in range(5)]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with HF_HUB_OFFLINE=1, which is read once, when huggingface_hub is imported."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


def read(dataset: Path | str, **settings: Any) -> list[Problem | Rejection]:
    check_problems(HubProblems(dataset=str(dataset), **settings))
    return list(read_problems(HubProblems(dataset=str(dataset), **settings)))


def message(dataset: Path | str, **settings: Any) -> str:
    with pytest.raises(ProblemError) as caught:
        check_problems(HubProblems(dataset=str(dataset), **settings))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def save(kind: str, folder: Path) -> Path:
    """Writes ROWS as a folder that `datasets` can load."""
    folder.mkdir()
    table = datasets.Dataset.from_list(ROWS)
    if kind == "jsonl":
        (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif kind == "parquet":
        (folder / "data").mkdir()
        pq.write_table(pa.Table.from_pylist(ROWS[:3]), folder / "data" / "train-00000-of-00002.parquet")
        pq.write_table(pa.Table.from_pylist(ROWS[3:]), folder / "data" / "train-00001-of-00002.parquet")
    elif kind == "saved":
        table.save_to_disk(str(folder))
    else:
        datasets.DatasetDict({"train": table, "test": table.select([4])}).save_to_disk(str(folder))
    return folder


KINDS = ["jsonl", "parquet", "saved", "saved_dict"]


@pytest.mark.parametrize("kind", KINDS)
def test_local_folders(kind: str, tmp_path: Path) -> None:
    problems = read(save(kind, tmp_path / "set"))
    assert [{"question": p.question, "answer": p.answer} for p in problems if isinstance(p, Problem)] == ROWS
    assert {p.source for p in problems if isinstance(p, Problem)} == {"set[train]"}
    part = read(tmp_path / "set", skip=1, limit=2, source="s", domain="exact")
    assert [(p.answer, p.source, p.domain) for p in part if isinstance(p, Problem)] == [
        ("1", "s", "exact"),
        ("2", "s", "exact"),
    ]


def test_split_of_a_saved_dict(tmp_path: Path) -> None:
    save("saved_dict", tmp_path / "set")
    assert len(read(tmp_path / "set", split="test")) == 1
    assert message(tmp_path / "set", split="dev") == (
        f"problems.split: '{tmp_path}/set' has no split 'dev', only train, test; choose one"
    )


def test_bad_rows_and_images(tmp_path: Path) -> None:
    features = datasets.Features(
        {"q": datasets.Value("string"), "a": datasets.Value("float64"), "image": datasets.Image()}
    )
    columns = {"q": ["x", "y", None], "a": [0.5, None, 1.0], "image": [{"bytes": PNG, "path": None}, None, None]}
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(tmp_path / "set"))
    first, second, third = read(tmp_path / "set", columns=Columns(question="q", answer="a", images="image"))
    assert isinstance(first, Problem)
    assert isinstance(second, Rejection)
    assert isinstance(third, Rejection)
    assert (first.answer, first.images[0].bytes, first.images[0].media_type) == ("0.5", PNG, "image/png")
    assert (second.key, second.reason, second.detail) == (
        "set[train]:2",
        "null_answer",
        "set[train] row 2: 'a' is null, expected text or a number",
    )
    assert third.reason == "null_question"


def test_wrong_split_config_and_columns(tmp_path: Path) -> None:
    folder = save("jsonl", tmp_path / "set")
    assert message(folder, split="test") == (
        f"problems.split: '{folder}' cannot be loaded (ValueError: Bad split: test. Available splits: ['train']); "
        "correct problems.split"
    )
    assert message(folder, config="main") == (
        f"problems.config: '{folder}' cannot be loaded (ValueError: BuilderConfig 'main' not found. Available: "
        "['default']); correct problems.config"
    )
    assert message(folder, columns=Columns(question="problem")) == (
        f"problems.columns.question: '{folder}' has no column 'problem', only question, answer; "
        "set problems.columns.question=question"
    )


def test_folder_without_data(tmp_path: Path) -> None:
    assert message(tmp_path) == (
        f"problems.dataset: '{tmp_path}' cannot be loaded (EmptyDatasetError: The directory at {tmp_path} doesn't "
        "contain any data files); correct problems.dataset"
    )


def test_no_folder_and_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert message(path) == f"problems.dataset: no folder at '{path}'; correct problems.dataset"
    path.write_text("x")
    assert message(path) == f"problems.dataset: '{path}' is a file; use problems=file problems.path={path}"


def test_a_damaged_folder(tmp_path: Path) -> None:
    folder = save("saved", tmp_path / "set")
    for file in folder.glob("*.arrow"):
        file.unlink()
    assert message(folder).startswith(
        f"problems.dataset: '{folder}' is no whole save_to_disk folder (FileNotFoundError"
    )


def test_a_broken_line_stops_the_stream_and_names_the_source_that_can_pass_over_it(tmp_path: Path) -> None:
    folder = save("jsonl", tmp_path / "set")
    with (folder / "train.jsonl").open("a") as stream:
        stream.write('{"question": \n')
    said = message(folder)
    assert said.startswith(f"problems.dataset: '{folder}' cannot be read after row 0 (ArrowInvalid: JSON parse error")
    assert said.endswith("start again, or take its files with problems=file, which passes over broken rows")


def test_offline() -> None:
    assert message("openai/gsm8k", config="main") == (
        f"problems.dataset: no folder at '{os.getcwd()}/openai/gsm8k', and the Hub cannot be reached for "
        "'openai/gsm8k' (OfflineModeIsEnabled: Cannot reach https://huggingface.co/api/datasets/openai/gsm8k: "
        "offline mode is enabled. To disable it, please unset the `HF_HUB_OFFLINE` environment variable.); check the "
        "network, or give a local folder"
    )


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, str]]]:
    """A stand-in for the Hub that answers with the last (status, error code) of the list."""
    replies: list[tuple[int, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, code = replies[-1]
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            del format, args

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", f"http://127.0.0.1:{server.server_port}")
        yield replies
        server.shutdown()


@pytest.mark.parametrize(
    ("reply", "settings", "expected"),
    [
        (
            (404, "RepoNotFound"),
            {},
            "problems.dataset: the Hub has no data set 'a/b' (or it is private: set HF_TOKEN), and there is no folder "
            "at '{cwd}/a/b'; correct problems.dataset",
        ),
        (
            (404, "RevisionNotFound"),
            {"revision": "v9"},
            "problems.revision: 'a/b' has no revision 'v9'; correct it or leave it null",
        ),
        (
            (403, "GatedRepo"),
            {},
            "problems.dataset: 'a/b' is gated; accept its terms on the Hub and set HF_TOKEN, or give a local folder",
        ),
    ],
)
def test_what_the_hub_refuses(
    reply: tuple[int, str], settings: dict[str, Any], expected: str, hub: list[tuple[int, str]]
) -> None:
    hub.append(reply)
    assert message("a/b", **settings) == expected.format(cwd=os.getcwd())


def test_a_name_that_no_data_set_has(monkeypatch: pytest.MonkeyPatch) -> None:
    assert message("a b").startswith("problems.dataset: the Hub has no data set 'a b'")
    assert message("x" * 5000).startswith("problems.dataset: the Hub has no data set 'xxx")


def test_unreachable(hub: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    said = message("a/b")
    assert said.startswith(
        f"problems.dataset: no folder at '{os.getcwd()}/a/b', and the Hub cannot be reached for 'a/b' ("
    )
    assert said.endswith("Connection refused); check the network, or give a local folder")

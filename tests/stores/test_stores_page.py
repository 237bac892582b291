"""What docs/stores.md says works: its commands and its Python are run, in the emulator's bucket."""

import re
import shlex
from pathlib import Path

import datasets
import pytest

from pipelines.main import main
from pipelines.storage import open_folder

pytestmark = pytest.mark.stores

PAGE = (Path(__file__).parents[2] / "docs" / "stores.md").read_text()
PLACE = re.compile(r"(gs|s3)://my-bucket/runs/7")
SMALL = ["engine=scripted", "problems=sums", "actor=plain", "panel=blind", "problems.num_problems=3"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_commands_and_the_python_of_the_page_run(gs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", str(tmp_path / "downloads"))
    out = f"{gs}/page/runs/7"
    (shell,), (python,) = blocks("sh"), blocks("python")
    lines = [shlex.split(line, comments=True) for line in shell.splitlines() if line.startswith("wrongturn")]
    ran = []
    for words in ([PLACE.sub(out, word) for word in line[1:]] for line in lines if "s3://" not in line[2]):
        more = SMALL if words[0] == "run" else []
        assert main([*("org/name" if word == "OWNER/NAME" else word for word in words), *more]) == 0, words
        ran.append(words[0])
    assert ran == ["run", "show", "publish"]
    names: dict[str, object] = {}
    exec(PLACE.sub(out, python), names)
    assert "completion" in names["rows"].column_names  # type: ignore[attr-defined]
    assert len(list(names["trees"])) == 3  # type: ignore[call-overload]
    assert (open_folder(out) / "COMPLETED").is_file()


def test_the_second_command_of_the_page_differs_in_place_and_journal_only():
    first, second = (line.split() for line in blocks("sh")[0].splitlines() if line.startswith("wrongturn run"))
    differ = [word for pair in zip(first, second, strict=True) if pair[0] != pair[1] for word in pair]
    assert [word.partition("=")[0] for word in differ] == ["out", "out", "journal", "journal"]


def test_the_page_tells_the_length_of_a_lease():
    from pipelines.lease import SECS

    assert f"holds for {SECS:.0f} s and is renewed every {SECS / 3:.0f}" in PAGE

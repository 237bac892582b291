"""What the pages say must work: commands compose, named files are there, the CI runs the README's test command."""

import re
import shlex
from pathlib import Path

import pytest

from pipelines.config import compose
from schemas.arrow import CONFIGS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path) -> list[str]:
    return [block.replace("\\\n", " ") for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)]


def commands() -> list[str]:
    lines = [line for page in PAGES for block in blocks(page) for line in block.splitlines()]
    return [line[line.index("wrongturn run") :] for line in lines if "wrongturn run" in line]


def test_there_are_commands_to_check():
    assert len(commands()) >= 4


@pytest.mark.parametrize("command", commands())
def test_the_settings_in_a_pages_command_are_right(command):
    words = shlex.split(command, comments=True)[2:]
    compose([word for word in words if not word.startswith("--")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_are_there(page):
    named = re.findall(
        r"`((?:docs|tests|pipelines|benchmarks|conf|schemas|mcts|annotators)/[\w./]+\.\w+)`", page.read_text()
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_readme_names_tables_that_exist():
    (line,) = re.findall(r"load_dataset\(\"out\", \"sft\"\)  # or (.*), …", (ROOT / "README.md").read_text())
    assert set(line.split(", ")) <= set(CONFIGS)


def test_ci_runs_the_test_command_of_the_readme():
    after = (ROOT / "README.md").read_text().partition("<!-- test command -->\n```sh\n")[2]
    command = after.partition("\n```")[0]
    assert command.endswith("-m pytest -n auto")
    assert "\n" not in command
    assert "<!-- test command -->" in (ROOT / ".ci" / "run").read_text()

"""What docs/evaluate.md says works: its example gives the figures that stand there, its other commands compose."""

import ast
import json
import re
import shlex
from pathlib import Path

import pytest

from annotators.evaluation import FIGURES
from pipelines.evaluate.critics import BASELINES
from pipelines.evaluate.inputs import Labelled, read_sources
from pipelines.evaluate.words import read_words
from pipelines.main import _parser, main

PAGE = (Path(__file__).parents[2] / "docs" / "evaluate.md").read_text()


def block(language: str) -> str:
    """The page's first block in a language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[0]


def commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    return [shlex.split(line.replace("\\\n", " "))[1:] for line in blocks]


def test_the_example_gives_the_figures_that_stand_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("sums.jsonl").write_text(block("json"))
    assert main(commands()[0]) == 0
    (file,) = json.loads(Path("evaluation/evaluation.json").read_text())["files"]
    stated = ast.literal_eval(block("python").strip())
    assert {name: round(file["figures"][name]["value"], 3) for name in stated} == stated
    assert len(Path("evaluation/evaluation.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("words", commands(), ids=lambda words: words[1])
def test_its_commands_compose(words):
    options, rest = _parser().parse_known_args(words)
    settings, inputs, _ = read_words([*options.overrides, *rest])
    assert options.command == "evaluate"
    assert inputs
    assert settings.out in ("evaluation", "figures")
    assert "blind" in {agent.view for agent in settings.panel.agents}


def test_every_figure_and_every_critic_that_reads_nothing_has_a_line():
    assert [name for name in FIGURES if not re.search(rf"^\|.*`{name}`", PAGE, re.MULTILINE)] == []
    assert [name for name in BASELINES if f"| `{name}` |" not in PAGE] == []


def test_the_columns_it_names_are_those_that_are_looked_for(tmp_path):
    row = json.loads(block("json").splitlines()[0])
    (tmp_path / "one.jsonl").write_text(json.dumps(row))
    (source,) = read_sources([str(tmp_path / "one.jsonl")], split="validation", limit=None, seed=0)
    assert isinstance(source.solutions[0], Labelled)
    line = next(line for line in PAGE.splitlines() if line.startswith("| ProcessBench's files"))
    assert set(re.findall(r"`(\w+)`", line)) == set(row)

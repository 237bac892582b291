"""What a person sees of an evaluation."""

import io
import time
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from annotators.evaluation import FIGURES, Figure
from pipelines.evaluate import table
from pipelines.evaluate.results import Evaluation, FileResult
from pipelines.evaluate.runner import Result
from pipelines.evaluate.table import EvaluateDisplay, print_result
from schemas import Estimate

NOTHING = dict.fromkeys(FIGURES, Figure(value=None))
EXACT = Figure(value=0.25, low=0.05, high=0.625, counts=Estimate(correct=1, scored=4, unscored=1))


def result_of(**figures: Figure) -> FileResult:
    return FileResult(
        name="gsm8k", format="processbench", digest="d", num_rows=9, num_evaluated=8, num_wrong=5, num_gold=3,
        num_failed=0, unread={"no_json": 1}, second_unscored={}, figures=NOTHING | figures,
    )  # fmt: skip


def evaluation(*files: FileResult) -> Evaluation:
    return Evaluation(
        version="1", config_digest="c", mode="single", critic="anna", view="blind", critic_model=None, actor_model=None,
        seed=0, split="validation", limit=None, samples=1, rounds=1, level=0.95, files=files, average=files[0].figures,
    )  # fmt: skip


def printed(found: Evaluation | None, reached: str = "") -> str:
    terminal = io.StringIO()
    print_result(Console(file=terminal, width=140), Result(found, Path("out"), "2 requests", reached, 0.1))
    return terminal.getvalue()


def test_a_value_stands_over_its_interval_its_counts_and_what_is_unscored():
    lines = printed(evaluation(result_of(exact=EXACT))).splitlines()
    row = next(i for i, line in enumerate(lines) if "gsm8k" in line)
    assert "0.250" in lines[row]
    assert "0.050 .. 0.625" in lines[row + 1]
    assert "of 4, 1 unscored" in lines[row + 2]
    assert "gsm8k: 1 of 8 solutions without a critique: no_json 1" in lines
    assert "mean of inputs" not in "".join(lines)


def test_a_table_without_anything_to_say_is_left_out():
    said = printed(evaluation(result_of(exact=EXACT)))
    assert "Verdicts and first errors" in said
    assert "Second solutions" not in said
    assert "Leaks" not in said
    unscored = Figure(value=None, counts=Estimate(unscored=3))
    assert "3 unscored" in printed(evaluation(result_of(leaks=unscored)))


def test_several_inputs_have_a_mean():
    other = msgspec.structs.replace(result_of(exact=EXACT), name="math")
    said = printed(evaluation(result_of(exact=EXACT), other))
    assert said.count("mean of inputs") == 1
    assert "math" in said


def test_solutions_that_failed_are_said_with_what_is_allowed():
    failed = msgspec.structs.replace(result_of(exact=EXACT), num_failed=2)
    found = evaluation(failed)
    assert "25.0% of the solutions failed (10.0% allowed)" in printed(found)
    assert Result(found, Path("out"), "", "", 0.1).exit_code == 3
    assert Result(found, Path("out"), "", "", 0.25).exit_code == 0


def test_a_budget_that_is_reached_is_said_and_nothing_else():
    said = printed(None, "budget.max_requests=6")
    assert "budget.max_requests=6 is reached: this start paid 2 requests" in said
    assert "┃" not in said
    assert Result(None, Path("out"), "", "budget.max_requests=6", 0.1).exit_code == 4


def test_where_there_is_no_terminal_a_line_comes_at_times(monkeypatch):
    monkeypatch.setattr(table, "_LINE_SECS", 0.001)
    terminal = io.StringIO()
    with EvaluateDisplay(Console(file=terminal, width=140)).working(10) as done:
        done()
        deadline = time.monotonic() + 30
        while "1 of 10 solutions, " not in terminal.getvalue() and time.monotonic() < deadline:
            time.sleep(0.001)
    assert "1 of 10 solutions, 0 calls, 0 samples from the journal, " in terminal.getvalue()


def test_a_terminal_shows_a_bar(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = io.StringIO()
    with EvaluateDisplay(Console(file=terminal, width=100, force_terminal=True)).working(4) as done:
        done()
        done()
    assert "2/4" in terminal.getvalue()


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_in_a_table(name):
    assert name in {figure for columns in table._TABLES.values() for figure in columns}

"""What a dry run says, what it pays, and what it leaves."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipelines.config import compose
from pipelines.dry_run import Forecast, dry_run, extrapolate
from pipelines.journal import Journal
from pipelines.main import main
from pipelines.meter import METER
from pipelines.run import Watcher, run

RUN = [
    *("engine=simulated", "problems=simulated", "problems.num_problems=20", "actor=plain", "panel=blind"),
    "budget.prices=[{prompt:1000000,completion:2000000}]",
]


def forecast_of(out: Path, *overrides: str) -> Forecast:
    return dry_run(compose([*RUN, *overrides, f"out={out}"]), lambda plan, size: None)


def test_a_sum_is_extrapolated_by_hand():
    # n = 4, mean 5, s² = ((4 + 0 + 0 + 4)) / 3 = 8/3; 6 more problems: 30 ± t(0.95, 3) * sqrt(8/3 * (36/4 + 6)).
    # t(0.95, 3) = 2.3534 (any table); sqrt(40) = 6.3246; margin 14.884.
    amount = extrapolate([3, 5, 5, 7], 10)
    assert (amount.sampled, amount.total) == (20, 50)
    assert amount.low == pytest.approx(50 - 14.884, abs=0.001)
    assert amount.high == pytest.approx(50 + 14.884, abs=0.001)


def test_less_than_the_sample_cost_is_impossible():
    # 2 ± 6.314 * sqrt(2 * (1/2 + 1)) around a total of 3: the lower end would be negative.
    amount = extrapolate([0, 2], 3)
    assert (amount.low, amount.total) == (2, 3)
    assert amount.high == pytest.approx(3 + 6.3138 * math.sqrt(3), abs=0.001)


def test_a_sample_of_everything_is_exact():
    amount = extrapolate([1, 2, 3], 3)
    assert (amount.sampled, amount.total, amount.low, amount.high) == (6, 6, 6, 6)


def test_one_value_tells_no_uncertainty():
    assert extrapolate([5.0], 3).high == math.inf


def test_nine_in_ten_intervals_hold_the_truth():
    draws = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        costs = draws.normal(100, 20, 60)
        amount = extrapolate([float(cost) for cost in costs[:8]], 60)
        held += amount.low <= costs.sum() <= amount.high
    # Binomial, 400 draws at 0.9: standard deviation 6.
    assert 360 - 24 <= held <= 360 + 24


@pytest.fixture(scope="module")
def dry(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Forecast, int]:
    """The folder of a dry run, what it said and what it paid."""
    out, before = tmp_path_factory.mktemp("dry") / "out", METER.read().paid.requests
    forecast = forecast_of(out)
    return out, forecast, METER.read().paid.requests - before


def test_a_dry_run_writes_no_shard_and_keeps_its_answers(dry):
    out, forecast, paid = dry
    assert list(out.glob("**/*.parquet")) == []
    assert {path.name for path in out.iterdir()} == {".wrongturn"}
    assert (forecast.num_problems, forecast.num_sampled, forecast.num_failed) == (20, 8, 0)
    assert forecast.amounts["requests"].sampled == paid > 0
    assert set(forecast.amounts) == {"requests", "prompt_tokens", "completion_tokens", "cost", "seconds"}
    tokens = forecast.amounts["prompt_tokens"].sampled, forecast.amounts["completion_tokens"].sampled
    assert forecast.amounts["cost"].sampled == pytest.approx(tokens[0] + 2 * tokens[1])
    assert f"{paid} requests, {tokens[0]:.0f} prompt tokens and {tokens[1]:.0f} completion tokens" in forecast.spent


def test_the_same_dry_run_again_pays_nothing_and_says_the_same(dry):
    out, forecast, _ = dry
    before = METER.read().paid.requests
    again = forecast_of(out)
    assert METER.read().paid.requests == before
    assert again.amounts["requests"] == forecast.amounts["requests"]
    assert again.amounts["completion_tokens"] == forecast.amounts["completion_tokens"]
    assert "seconds" not in again.amounts


def samples_of_trees(out: Path) -> int:
    journal = Journal(out / ".wrongturn" / "journal.sqlite")
    try:
        return journal.ledger()["ExpandTrees"].samples
    finally:
        journal.close()


@pytest.mark.slow
def test_the_run_after_it_costs_what_it_said_and_pays_for_no_rollout_twice(dry, tmp_path):
    forecast = dry[1]
    shutil.copytree(dry[0], tmp_path / "after")
    for name in ("after", "alone"):
        run(compose([*RUN, f"out={tmp_path / name}"]), Watcher())
    paid = json.loads((tmp_path / "alone" / "run.json").read_text())["paid"]
    for name in ("requests", "prompt_tokens", "completion_tokens"):
        needed = sum(usage[name] for usage in paid.values())
        assert forecast.amounts[name].low <= needed <= forecast.amounts[name].high
    assert samples_of_trees(tmp_path / "after") == samples_of_trees(tmp_path / "alone")


@pytest.mark.slow
def test_another_config_may_follow_in_the_same_folder(tmp_path):
    forecast_of(tmp_path / "out", "problems.num_problems=3")
    result = run(compose([*RUN, "problems.num_problems=2", "seed=5", f"out={tmp_path / 'out'}"]), Watcher())
    assert result.books.rows["trees"] == 2


def test_the_command_prints_the_table_and_ends_well(tmp_path, capsys):
    command = ["run", *RUN, f"out={tmp_path / 'out'}", "dry_run=true", "dry_run_problems=3"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "dry run over 3 problems" in printed
    for name in ("requests", "prompt tokens", "completion tokens", "cost", "seconds", "90% interval"):
        assert name in printed
    assert "No shard was written" in printed


def test_a_dry_run_keeps_to_the_budget(tmp_path, capsys):
    command = ["run", *RUN, f"out={tmp_path / 'out'}", "dry_run=true", "budget.max_requests=5"]
    assert main(command) == 4
    printed = capsys.readouterr().out
    assert "budget.max_requests=5 is reached before the sample was done" in printed
    assert "The sample paid 5 requests" in printed


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_that_a_run_would_not_touch_is_left_alone_then_and_afterwards(tmp_path, capsys):
    out = tmp_path / "d"
    out.mkdir()
    (out / "README.md").write_text("thesis")
    for command in (["dry_run=true"], []):
        assert main(["run", *RUN, f"out={out}", *command]) == 2
        assert "holds files that wrongturn did not write" in capsys.readouterr().err
    assert files(out) == {"README.md": b"thesis"}


def test_a_journal_is_made_nowhere_through_a_link(tmp_path, capsys):
    elsewhere, out = tmp_path / "elsewhere", tmp_path / "link"
    elsewhere.mkdir()
    out.mkdir()
    (out / ".wrongturn").symlink_to(elsewhere)
    assert main(["run", *RUN, f"out={out}", "dry_run=true"]) == 2
    assert "is a symbolic link" in capsys.readouterr().err
    assert files(elsewhere) == {}


def test_a_run_that_would_be_refused_for_its_config_is_refused_before_its_cost_is_told(tmp_path, capsys):
    small = [*RUN, "problems.num_problems=2", "search=quick", f"out={tmp_path / 'out'}"]
    run(compose(small), Watcher())
    assert main(["run", *small, "seed=5", "dry_run=true"]) == 2
    assert "holds a run with another config" in capsys.readouterr().err
    assert main(["run", *small, "seed=5", "dry_run=true", "replace=true"]) == 0


@pytest.mark.parametrize("name", ["j.sqlite", "kept/j.sqlite"])
def test_a_run_may_have_the_folder_into_which_its_dry_run_has_put_a_journal(tmp_path, name):
    out = tmp_path / "out"
    small = [*RUN, "problems.num_problems=2", "search=quick", f"journal={out / name}", f"out={out}"]
    for command in (["dry_run=true"], []):
        assert main(["run", *small, *command]) == 0
    assert (out / "COMPLETED").exists()


# With this seed some but not all of the problems fail by poison prompts.
POISON = ["engine.world.fault_poison=0.01", "engine.limits.max_attempts=2", "engine.limits.max_wait_secs=0.01"]


def test_a_sample_in_which_too_much_failed_tells_nothing_of_the_whole(tmp_path, capsys):
    assert main(["run", *RUN, *POISON, f"out={tmp_path / 'out'}", "dry_run=true"]) == 3
    printed = capsys.readouterr().out
    assert "elements of the sample failed, more than max_failure_share allows" in printed
    assert "HTTP 500" in printed
    assert "90% interval" not in printed
    assert "Time was not measured" not in printed


def test_problems_that_failed_are_in_no_figure(dry, tmp_path):
    forecast = forecast_of(tmp_path / "out", *POISON, "max_failure_share=1.0")
    assert forecast.num_failed > 0
    assert forecast.exit_code == 0
    sampled, whole = forecast.amounts["requests"], dry[1].amounts["requests"]
    # Each problem that did not fail costs what it costs without a fault; those that did would have dragged it down.
    assert 0 < sampled.sampled < whole.sampled
    assert sampled.total / 20 == pytest.approx(whole.total / 20, rel=0.35)

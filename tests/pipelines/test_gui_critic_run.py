"""The recipe gui_critic on drawn screens: a click is criticised before it is made, and what is kept is right of it."""

import re
from collections import Counter
from pathlib import Path

import datasets
import pytest

from pipelines.config import compose
from pipelines.engines.simulated.screens import first_wrong_step_on_screen, read_screen
from pipelines.errors import UserError
from pipelines.problems import read_problems
from pipelines.run import Watcher, run
from pipelines.shards import read_rows
from schemas import PathPair
from schemas.arrow import from_row

CHOSEN = "recipe=gui_critic problems=screens engine=simulated actor=plain search=default pairing=default"
CHOSEN += " problems.num_problems=24 runner.problems_per_shard=24 export.validation_share=0.0"
CLICK = re.compile(r"click\(\d+, \d+\)")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("screens") / "out"
    settings = compose([*CHOSEN.split(), f"out={out}"])
    books = run(settings, Watcher()).books
    assert all(stage.balanced for stage in books.stages)
    return out, {problem.id: problem for problem in read_problems(settings.problems)}


def suggestion_of(row: dict, problems: dict) -> str:
    """The right one."""
    return f"Do {problems[row['critique']['problem_id']].answer} instead."


def loaded(out: Path, table: str) -> list[dict]:
    return datasets.load_dataset(str(out), table, split="train", cache_dir=str(out.parent / "cache")).to_list()


@pytest.mark.slow
def test_negatives_are_the_actors_own_wrong_clicks_and_labels_are_true(made):
    out, problems = made
    pairs = [from_row(row, PathPair) for row in read_rows(out, "pairs")]
    assert len(pairs) >= 10
    hits = Counter(pair.first_error == first_wrong_step_on_screen(pair.problem, pair.steps) for pair in pairs)
    assert hits[True] >= 0.9 * len(pairs), hits
    for pair in pairs:
        # Each is a click on a button of this screen that the actor made by itself, another than the right one.
        places = read_screen(pair.problem.images[0].bytes).values()
        assert pair.answer in {f"click({x}, {y})" for x, y in places} - {problems[pair.problem.id].answer}
    for row in loaded(out, "rl"):
        right = problems[row["origin"]["problem_id"]].answer
        is_right = row["solution"].rstrip().endswith(right)
        assert (row["label"], row["suggestion"]) == (("correct", "") if is_right else ("incorrect", right))
        assert is_right or right not in row["prompt"][0]["content"]


@pytest.mark.slow
def test_kept_is_a_score_that_is_the_label_and_a_suggestion_that_is_the_right_action(made):
    out, problems = made
    kept = Counter()
    for row in loaded(out, "verified"):
        if row["decision"] != "kept":
            continue
        critique, right = row["critique"], problems[row["critique"]["problem_id"]].answer
        assert (critique["verdict"] == "incorrect") == row["has_error"]
        suggestions = [unit["fix"] for unit in critique["units"] if unit["kind"] == "error"]
        assert [CLICK.findall(fix) for fix in suggestions] == ([[right]] if row["has_error"] else [])
        kept[row["has_error"]] += 1
    assert min(kept[True], kept[False]) >= 1, kept
    assert len(loaded(out, "sft")) == kept.total()
    rejected = Counter(reason for row in loaded(out, "verified") for reason in row["reasons"])
    assert min(rejected["wrong_verdict"], rejected["wrong_suggestion"]) >= 1
    # Who sees that the click is wrong and suggests another wrong one has the right score.
    misled = [row for row in loaded(out, "verified") if row["has_error"] and row["critique"]["verdict"] == "incorrect"]
    misled = [row for row in misled if row["critique"]["units"][-1]["fix"] != suggestion_of(row, problems)]
    assert misled
    assert {row["decision"] for row in misled} == {"rejected"}


@pytest.mark.slow
def test_the_critic_sees_goal_history_screen_and_click_and_nothing_else(made):
    out, problems = made
    rows = loaded(out, "sft")
    for row in rows:
        problem = problems[row["origin"]["problem_id"]]
        asked = row["messages"][0]["content"]
        assert problem.question in asked
        assert len(row["images"]) == 1
        if "The solution is incorrect" in row["messages"][-1]["content"]:
            assert problem.answer not in asked
    assert {"label", "suggestion"} <= set(loaded(out, "rl")[0])


def test_a_model_that_sees_no_screens_is_refused_before_any_work(tmp_path):
    words = [*CHOSEN.split(), f"out={tmp_path / 'out'}", "engine=scripted"]
    with pytest.raises(UserError, match="24 of 24 problems have some"):
        run(compose(words), Watcher())
    assert not (tmp_path / "out").exists()

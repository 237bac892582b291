"""Runs on given solutions: what is refused before start, what the books say, and pairs beside the world's truth."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

from mcts.samples import SampleSettings
from pipelines.card_paths import paths_said
from pipelines.config import compose
from pipelines.engines.simulated import SimulatedSettings, first_wrong_step, make_problem, solution_steps
from pipelines.engines.simulated.policy import continue_solution
from pipelines.errors import UserError
from pipelines.main import main
from pipelines.plan import make_plan
from pipelines.run import read_inputs
from schemas import Problem

WORLD = SimulatedSettings()
GIVEN = ["engine=simulated", "actor=plain", "search=default", "pairing=default", "panel=blind", "paths=given"]


def draw(problem: Problem, *, wrong: bool) -> tuple[list[str], int]:
    """A solution by the world's policy with a right answer or a wrong one, and its true label."""
    for number in range(1000):
        steps = solution_steps(continue_solution(problem.question, "", random.Random(number), WORLD))
        error = first_wrong_step(problem.question, steps)
        if wrong and steps[-1].strip() != f"Answer: {problem.answer}" and error is not None:
            return list(steps), error
        if not wrong and error is None:
            return list(steps), -1
    raise AssertionError(problem.question)


def row(index: int, *, wrong: bool, **fields: object) -> dict[str, object]:
    problem = make_problem(0, index, WORLD)
    steps, label = draw(problem, wrong=wrong)
    plain = {
        "question": problem.question,
        "answer": problem.answer,
        "steps": steps,
        "label": label,
        "model": "policy-7",
    }
    return plain | fields


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def to_file(*rows: dict[str, object]) -> Path:
        path = tmp_path / "solutions.jsonl"
        path.write_text("".join(f"{json.dumps(each)}\n" for each in rows))
        return path

    return to_file


def test_problems_come_with_the_solutions_and_from_elsewhere_only_where_they_are_named(write):
    path = write(row(0, wrong=True))
    assert compose([*GIVEN, f"paths.path={path}"]).problems.__struct_config__.tag == "given"
    lent = compose([*GIVEN, f"paths.path={path}", "problems=simulated", "problems.num_problems=3"])
    (problem,) = read_inputs(lent).problems
    assert problem == make_problem(0, 0, WORLD)
    with pytest.raises(UserError, match="problems=given are those of the files of paths=given"):
        compose(["problems=given"])


def test_a_budget_that_does_not_pay_for_one_error_is_refused(write):
    few = [*GIVEN, f"paths.path={write(row(0, wrong=True))}", "search.max_rollouts=15"]
    with pytest.raises(UserError, match=r"search\.max_rollouts=15 does not even pay for the 16 rollouts of one first"):
        compose(few)
    compose([*few, "paths.ask_actor=false"])
    compose([*few, "paths.partner_rollouts=7"])


def test_another_label_is_another_config(write):
    def config_digest(**fields: object) -> str:
        settings = compose([*GIVEN, f"paths.path={write(row(0, wrong=True, **fields))}"])
        return make_plan(settings, read_inputs(settings)).config_digest

    assert config_digest() == config_digest() != config_digest(label=None)


def test_the_card_names_the_source_of_paths():
    said = {
        source: paths_said(compose([f"paths={source}", *more]))
        for source, more in [("search", []), ("samples", []), ("injected", []), ("given", ["paths.path=a/x.jsonl"])]
    }
    assert all(f"`paths={source}`" in sentences.source for source, sentences in said.items())
    assert "files (`paths=given`: `x.jsonl`)" in said["given"].source
    assert f"{SampleSettings().num_samples} a problem" in said["samples"].source
    assert [source for source, sentences in said.items() if sentences.known] == ["injected", "given"]
    quiet = paths_said(compose(["paths=given", "paths.path=x.jsonl", "paths.ask_actor=false"]))
    assert "asked for nothing" in quiet.source


def load(out: Path, table: str) -> datasets.Dataset:
    return datasets.load_dataset(str(out), table, split="train", cache_dir=str(out.parent / "cache"))


def test_a_run_that_asks_no_model_writes_trees_and_says_why_nothing_is_paired(tmp_path, write):
    liar = row(1, wrong=True, label=-1, id="liar")
    path = write(row(0, wrong=True), row(0, wrong=False), liar, row(2, wrong=False), {"question": "?", "steps": ["x"]})
    out = tmp_path / "out"
    one_split = ["export.validation_share=0", f"out={out}"]
    assert main(["run", *GIVEN, f"paths.path={path}", "paths.ask_actor=false", *one_split]) == 0
    books = json.loads((out / "run.json").read_text())
    assert all(stage["balanced"] for stage in books["stages"])
    assert books["paid"] == {}
    counts = {stage["stage"]: (stage["entered"], stage["kept"], stage["reasons"]) for stage in books["stages"]}
    assert counts["ReadProblems"] == (4, 3, {"missing_answer": 1})
    # A solution that contradicts its label counts beside the problems, and its problem's tree has no path.
    assert counts["ExpandTrees"] == (4, 3, {"label_contradicted": 1})
    assert counts["PairPaths"][2] == {"nothing_scored": 1, "no_wrong_path": 1, "right_path_does_not_hold": 1}
    trees = load(out, "trees")
    assert sorted(trees["stopped"]) == ["given", "given", "nothing_scored"]
    assert trees["rollouts"] == [0, 0, 0]
    assert {by["engine"] for by in trees["provenance"]} == {"given"}
    rejected = [each["key"] for each in load(out, "rejections") if each["reason"] == "label_contradicted"]
    assert rejected == ["solutions.jsonl:liar"]
    assert "`paths=given`: `solutions.jsonl`" in (out / "README.md").read_text()


@pytest.mark.slow
def test_a_run_pairs_labelled_solutions_at_the_true_first_error(tmp_path, write):
    path = write(*(row(index, wrong=wrong) for index in range(4) for wrong in (True, False)))
    out = tmp_path / "out"
    one_split = ["export.validation_share=0", f"out={out}"]
    assert main(["run", *GIVEN, f"paths.path={path}", "verify=quick", *one_split]) == 0
    trees = load(out, "trees")
    assert set(trees["stopped"]) <= {"given", "budget"}
    assert {(by["model"], by["engine"]) for by in trees["provenance"]} == {("policy-7, simulated", "given, simulated")}
    pairs = load(out, "pairs")
    assert len(pairs) >= 3
    for pair in pairs:
        question = pair["problem"]["question"]
        steps = {side: pair["prefix"] + pair[side]["steps"] for side in ("wrong", "right")}
        assert first_wrong_step(question, steps["wrong"]) == pair["first_error"]
        assert first_wrong_step(question, steps["right"]) is None
        assert max(pair["posterior"]) == 1.0

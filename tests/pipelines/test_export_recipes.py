"""Recipes whose product is what is made of rollouts and critiques: from the command line's words to loaded tables."""

from collections import Counter
from pathlib import Path

import datasets
import pytest

from pipelines.config import compose
from pipelines.manifest import Books
from pipelines.run import Watcher, run
from pipelines.shards import read_rows

pytestmark = pytest.mark.slow  # Nine runs; the rules themselves are held by hand-made cases in tests/annotators.

WORLD = "problems=simulated engine=simulated actor=plain search=default export.validation_share=0.0"


def made(recipe: str, out: Path, *words: str, num_problems: int = 8) -> Books:
    few = f"problems.num_problems={num_problems} runner.problems_per_shard={num_problems} out={out}"
    books = run(compose([f"recipe={recipe}", *WORLD.split(), *few.split(), *words]), Watcher()).books
    assert all(stage.balanced for stage in books.stages)
    return books


def loaded(out: Path, table: str) -> list[dict]:
    return datasets.load_dataset(str(out), table, split="train", cache_dir=str(out.parent / "cache")).to_list()


def test_llava_critic_compares_in_both_orders_and_asks_no_critic(tmp_path):
    books = made("llava_critic", tmp_path / "out")
    rows = loaded(tmp_path / "out", "judge")
    assert {row["kind"] for row in rows} == {"pairwise"}
    labels = Counter(row["label"] for row in rows)
    assert labels["first"] == labels["second"] >= 4
    orders = Counter((row["group"], row["label"]) for row in rows)
    assert set(orders.values()) == {1}
    assert len({group for group, _ in orders}) == labels["first"]
    assert max(Counter(row["origin"]["problem_id"] for row in rows).values()) <= 8
    assert books.rows["critiques"] == 0


def test_llava_critic_shows_pictures_where_problems_have_any(tmp_path):
    made("llava_critic", tmp_path / "out", "problems=shapes")
    row = loaded(tmp_path / "out", "judge")[0]
    assert len(row["images"]) == 1


def test_spark_judges_one_solution_two_and_one_after_a_reflection(tmp_path):
    made("spark", tmp_path / "out")
    kinds = Counter((row["kind"], row["label"]) for row in loaded(tmp_path / "out", "judge"))
    assert {kind for kind, _ in kinds} == {"pointwise", "pairwise", "reflected"}
    for kind, one, other in (
        ("pointwise", "correct", "incorrect"),
        ("pairwise", "first", "second"),
        ("reflected", "correct", "incorrect"),
    ):
        assert kinds[kind, one] == kinds[kind, other] > 0
    outcomes = {
        (row["id"], i): node["outcome"]
        for row in read_rows(tmp_path / "out", "trees")
        for i, node in enumerate(row["nodes"])
    }
    policies = loaded(tmp_path / "out", "rl")
    assert {row["task"] for row in policies} == {"solve"}
    assert all(outcomes[row["origin"]["tree_id"], row["origin"]["node_ids"][-1]] == row["label"] for row in policies)


def test_critique_rl_has_a_reward_for_each_transition_and_rates_with_and_without(tmp_path):
    made("critique_rl", tmp_path / "out")
    rows = loaded(tmp_path / "out", "rl")
    earned = {(row["label"], row["reward_if_right"], row["reward_if_wrong"]) for row in rows}
    assert earned == {("correct", 0.2, 0.0), ("incorrect", 1.0, 0.0)}
    for row in rows:
        assert (row["with_critique"]["scored"], row["without_critique"]["scored"]) == (4, 4)
    wanted = {
        ("correct", "correct"): 0.2,
        ("correct", "incorrect"): 0.0,
        ("incorrect", "correct"): 1.0,
        ("incorrect", "incorrect"): 0.0,
    }
    refined = loaded(tmp_path / "out", "refine")
    assert all(row["transition_reward"] == wanted[row["first_outcome"], row["second_outcome"]] for row in refined)
    assert {row["decision"] for row in read_rows(tmp_path / "out", "verified")} == {"kept", "rejected"}


def test_nft_has_every_scored_solution_of_problems_that_come_out_both_ways(tmp_path):
    made("nft", tmp_path / "out")
    rows = loaded(tmp_path / "out", "rl")
    scored = {
        (tree["problem"]["id"], i)
        for tree in read_rows(tmp_path / "out", "trees")
        if 0 < tree["nodes"][0]["direct"]["correct"] < tree["nodes"][0]["direct"]["scored"]
        for i, node in enumerate(tree["nodes"])
        if node["outcome"] in ("correct", "incorrect")
    }
    assert {(row["origin"]["problem_id"], row["origin"]["node_ids"][-1]) for row in rows} == scored
    assert {row["label"] for row in rows} == {"correct", "incorrect"}
    assert all(0 < row["success_low"] < row["success_rate"] < row["success_high"] < 1 for row in rows)


def test_brittle_pairs_match_a_hard_problem_with_a_brittle_one(tmp_path):
    made("brittle_pairs", tmp_path / "out", num_problems=24)
    rows = loaded(tmp_path / "out", "rl")
    kinds = {
        name: sorted(row["difficulty"] for row in rows if row["pair"] == name) for name in {r["pair"] for r in rows}
    }
    assert kinds
    assert all(kind == ["easy_but_brittle", "hard_but_solvable"] for kind in kinds.values())
    for row in rows:
        hard = row["difficulty"] == "hard_but_solvable"
        assert (row["success_low"] > 0 and row["success_high"] < 0.5) if hard else (0.5 < row["success_low"] < 1)
        assert (row["solution"], row["label"]) == ("", None)


def test_cft_learns_from_every_critique_and_says_what_that_costs(tmp_path):
    books = made("cft", tmp_path / "out", num_problems=24)
    verified = list(read_rows(tmp_path / "out", "verified"))
    assert {row["decision"] for row in verified} == {"kept"}
    assert any("wrong_verdict" in row["ignored"] for row in verified)
    # One critique a solution.
    assert books.rows["sft"] == books.rows["pairs"] + books.rows["alone"] == len(verified)
    assert all(row["with_critique"] is None for row in loaded(tmp_path / "out", "sft"))


def test_critique_coder_has_four_bare_problems_for_one_solution_to_criticise_or_all_there_are(tmp_path):
    books = made("critique_coder", tmp_path / "out", "pairing.max_alone=0", num_problems=24)
    tasks = Counter(row["task"] for row in loaded(tmp_path / "out", "rl"))
    assert tasks["criticise"] == books.rows["pairs"] > 0
    assert tasks["solve"] == min(4 * tasks["criticise"], books.rows["trees"])


def test_faft_marks_both_kinds_of_critiques(tmp_path):
    books = made("faft", tmp_path / "out")
    marks = {
        (row["decision"], row["prompt"][0]["content"].splitlines()[-1].partition("it ")[2].partition(" ")[0])
        for row in loaded(tmp_path / "out", "sft")
    }
    assert marks == {("kept", "passed"), ("rejected", "failed")}
    assert books.rows["sft"] > books.stages[-1].kept

"""Step labels of a whole run: the estimates are the tree's, and no path stands there twice."""

from collections import Counter
from pathlib import Path

import pytest

from pipelines.config import compose
from pipelines.manifest import Books, StageCount
from pipelines.run import Watcher, run
from pipelines.shards import read_rows

WORLD = (
    "problems=simulated problems.num_problems=8 engine=simulated actor=plain panel=blind search=default "
    "pairing=default export.correct_per_incorrect=0.5 export.incorrect_per_correct=2.0 export.validation_share=0.0"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Books]:
    out = tmp_path_factory.mktemp("prm") / "out"
    return out, run(compose([*WORLD.split(), f"out={out}"]), Watcher()).books


def last_stage(books: Books) -> StageCount:
    assert all(stage.balanced for stage in books.stages)
    return books.stages[-1]


def test_every_estimate_is_that_of_its_node_also_along_shared_steps(made):
    out, _ = made
    nodes = {tree["id"]: tree["nodes"] for tree in read_rows(out, "trees")}
    rows = list(read_rows(out, "prm"))
    for row in rows:
        place = row["origin"]
        assert row["estimates"] == [nodes[place["tree_id"]][i]["direct"] for i in place["node_ids"]]
        assert row["completions"] == [nodes[place["tree_id"]][i]["step"].strip() for i in place["node_ids"]]
        assert len(row["labels"]) == len(row["completions"])
    pairs = list(read_rows(out, "pairs"))
    shared = [estimate for pair in pairs for estimate in pair["prefix_estimates"]]
    assert sum(estimate["scored"] > 0 for estimate in shared) >= 5
    alone = {tuple(path["path"]["nodes"]) for path in read_rows(out, "alone")}
    assert alone
    assert alone <= {tuple(row["origin"]["node_ids"]) for row in rows}


def test_a_path_of_several_pairs_is_one_row_and_the_funnel_says_so(made):
    out, books = made
    places = Counter((row["origin"]["tree_id"], tuple(row["origin"]["node_ids"])) for row in read_rows(out, "prm"))
    assert set(places.values()) == {1}
    sides = Counter(
        (pair["tree_id"], *pair["prefix_nodes"], *pair["right"]["nodes"]) for pair in read_rows(out, "pairs")
    )
    repeated = sum(count - 1 for count in sides.values())
    assert repeated > 0
    assert last_stage(books).reasons["repeated_path"] == repeated
    assert books.rows["prm"] == 2 * books.rows["pairs"] + books.rows["alone"] - repeated


def test_both_tables_with_labels_are_balanced_and_the_funnel_says_of_what(made):
    out, books = made
    stage = last_stage(books)
    for table, reason in (("sft", "balance"), ("rl", "rl_balance")):
        labels = Counter(row["label"] for row in read_rows(out, table))
        assert 2 * labels["correct"] == labels["incorrect"] > 0
        assert stage.reasons[reason] > 0
    assert books.rows["rl"] + stage.reasons["rl_balance"] == books.rows["pairs"] + books.rows["alone"]
    kept = sum(row["decision"] == "kept" for row in read_rows(out, "verified"))
    assert books.rows["sft"] + stage.reasons["balance"] == kept

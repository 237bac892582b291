import json
from pathlib import Path

import pytest
from made_records import make

from annotators.rounds import Rounds
from pipelines.config import compose
from pipelines.engines.base import Usage
from pipelines.manifest import Books, ExtraStages, StageCount, keep_books, read_books, write_manifest
from pipelines.output import Output, OutputError
from pipelines.plan import Inputs, make_plan
from pipelines.shards import all_shards, write_shard
from schemas import (
    Critique,
    Dialogue,
    Failure,
    Node,
    Panel,
    PathAlone,
    PathPair,
    Problem,
    Record,
    Rejection,
    SftRow,
    Tree,
    Verified,
)
from schemas.arrow import CONFIGS

NUM_AGENTS = 2


def lay_out(path: Path, records: dict[str, list[Record]]) -> None:
    """One shard with these records, spread over both splits, and every other file empty.

    As in a run, a tree's paths are in the split that it is in.
    """
    for shard in all_shards([0], 1):
        rows = records.get(shard.config, [])
        part = [(f"{i:03d}", row) for i, row in enumerate(rows) if _split(i, row) == shard.split]
        write_shard(path, shard, part)


def _split(i: int, row: Record) -> str:
    number = int(row.tree_id.removeprefix("t")) if isinstance(row, PathPair | PathAlone) else i
    return "train" if number % 2 == 0 else "validation"


def a_run() -> dict[str, list[Record]]:
    """Six rows: one no problem, one whose tree failed, one tree without a pair, three with four paths.

    Eight critiques are asked for: one is rejected, one fails. One path's panel has no quorum. Of five candidates
    two are kept, two are rejected, one fails.
    """
    candidates = [["a", "b"], ["c"], ["d", "e"]]
    return {
        "trees": [make(Tree, i, id=f"t{i}") for i in range(4)],
        "pairs": [make(PathPair, i, id=f"p{i}", tree_id=f"t{i // 2}") for i in range(3)],
        "alone": [make(PathAlone, 3, id="p3", tree_id="t2")],
        "critiques": [make(Critique, i) for i in range(6)],
        "panels": [make(Panel, i, candidates=ids) for i, ids in enumerate(candidates)],
        "verified": [
            make(Verified, i, decision=decision) for i, decision in enumerate(["kept", "rejected", "kept", "rejected"])
        ],
        "sft": [make(SftRow, i, decision="kept") for i in range(2)],
        "rejections": [
            Rejection(stage="ReadProblems", key="f:6", problem_id="", reason="null_answer"),
            Rejection(stage="PairPaths", key="t3", problem_id="x", reason="too_easy"),
            Rejection(stage="WriteCritiques", key="p0/a", problem_id="x", reason="not_json"),
            Rejection(stage="AggregateCritiques", key="p3", problem_id="x", reason="no_quorum"),
            Rejection(stage="VerifyCritiques", key="b", problem_id="x", reason="leak"),
            Rejection(stage="VerifyCritiques", key="d", problem_id="x", reason="leak"),
        ],
        "failures": [
            make(Failure, 0, stage="ExpandTrees", error="EngineUnavailable"),
            make(Failure, 1, stage="WriteCritiques", error="BadReply"),
            make(Failure, 2, stage="VerifyCritiques", error="EngineUnavailable"),
        ],
    }


def books_of(path: Path, records: dict[str, list[Record]]) -> Books:
    lay_out(path, records)
    return keep_books(path, num_read=6, num_problems=5, num_agents=NUM_AGENTS, num_contrastive=0)


def numbers(books: Books) -> dict[str, tuple[int, int, int, int]]:
    return {stage.stage: (stage.entered, stage.kept, stage.rejected, stage.failed) for stage in books.stages}


def test_every_element_is_counted_where_it_ended(tmp_path):
    books = books_of(tmp_path, a_run())
    assert numbers(books) == {
        "ReadProblems": (6, 5, 1, 0),
        "ExpandTrees": (5, 4, 0, 1),
        "PairPaths": (4, 3, 1, 0),
        "WriteCritiques": (8, 6, 1, 1),
        "AggregateCritiques": (4, 3, 1, 0),
        "VerifyCritiques": (5, 2, 2, 1),
        "WriteShards": (2, 2, 0, 0),
    }
    assert all(stage.balanced for stage in books.stages)
    # One of five problems, one of eight critiques asked for, one of five critiques to be verified.
    assert books.failure_share == 1 / 5
    assert books.worst.stage == "ExpandTrees"
    assert books.num_accepted == 2


def test_neither_rejected_rows_nor_later_stages_make_the_share_of_lost_problems_smaller(tmp_path):
    # Of 84 rows 79 are no problems; of the five problems one fails, and what came of the four trees does not.
    records = a_run()
    records["rejections"] += [
        Rejection(stage="ReadProblems", key=f"f:{i}", problem_id="", reason="null_answer") for i in range(78)
    ]
    records["failures"] = [make(Failure, 0, stage="ExpandTrees", error="EngineUnavailable")]
    lay_out(tmp_path, records)
    books = keep_books(tmp_path, num_read=84, num_problems=5, num_agents=NUM_AGENTS, num_contrastive=0)
    assert numbers(books)["ReadProblems"] == (84, 5, 79, 0)
    assert books.failure_share == 1 / 5


@pytest.mark.parametrize(
    ("stage", "entered", "kept", "rejected", "failed", "share"),
    [
        ("WriteCritiques", 20, 15, 4, 1, 1 / 20),
        # Nothing was kept: all of it is lost, as far as anybody can tell.
        ("WriteCritiques", 20, 0, 19, 1, 1.0),
        ("WriteCritiques", 20, 0, 20, 0, 0.0),
        ("WriteCritiques", 0, 0, 0, 0, 0.0),
        # Solutions that came with problems: 16 are unfit for the trees of four problems, of which one failed.
        ("ExpandTrees", 20, 3, 16, 1, 1 / 4),
    ],
)
def test_a_stage_s_share_is_of_what_could_have_been_kept(stage, entered, kept, rejected, failed, share):
    count = StageCount(
        stage=stage, element="e", entered=entered, kept=kept, rejected=rejected, failed=failed, reasons={}
    )
    assert count.balanced
    assert count.failure_share == share


def test_rows_of_dialogues_that_are_left_out_count_beside_verified_critiques(tmp_path):
    records = a_run()
    records["rejections"] += [
        Rejection(stage="WriteShards", key=f"d{i}", problem_id="x", reason=reason)
        for i, reason in enumerate(("masked", "talks_of_feedback", "masked"))
    ]
    books = books_of(tmp_path, records)
    assert numbers(books)["WriteShards"] == (5, 2, 3, 0)
    # One that is no dialogue's has no place there but among the critiques: one of them is missing then.
    records["rejections"] += [Rejection(stage="WriteShards", key="c", problem_id="x", reason="balance")]
    assert not books_of(tmp_path, records).stages[-1].balanced


def test_memorised_problems_enter_no_search(tmp_path):
    records = a_run()
    records["rejections"] += [Rejection(stage="SiftProblems", key="q", problem_id="q", reason="memorised")]
    records["failures"] += [make(Failure, 3, stage="SiftProblems", error="EngineUnavailable")]
    lay_out(tmp_path, records)
    extra = ExtraStages(sifts=True)
    books = keep_books(tmp_path, num_read=8, num_problems=7, num_agents=NUM_AGENTS, num_contrastive=0, extra=extra)
    assert numbers(books)["SiftProblems"] == (7, 5, 1, 1)
    assert numbers(books)["ExpandTrees"] == (5, 4, 0, 1)
    assert all(stage.balanced for stage in books.stages)


def test_reasons_are_named_most_frequent_first(tmp_path):
    books = books_of(tmp_path, a_run())
    reasons = {stage.stage: list(stage.reasons.items()) for stage in books.stages}
    assert reasons["VerifyCritiques"] == [("leak", 2), ("EngineUnavailable", 1)]
    assert reasons["ReadProblems"] == [("null_answer", 1)]


def test_rows_are_counted_by_table_and_split(tmp_path):
    books = books_of(tmp_path, a_run())
    assert books.rows == {
        "sft": 2, "critique_dpo": 0, "step_dpo": 0, "dpo": 0, "prm": 0, "refine": 0, "refine_chat": 0, "distill": 0,
        "rl": 0, "judge": 0, "trees": 4, "pairs": 3, "alone": 1, "dialogues": 0, "critiques": 6, "panels": 3,
        "verified": 4, "rejections": 6, "failures": 3,
    }  # fmt: skip
    assert books.rows_by_split["pairs/train"] == 2
    assert books.rows_by_split["pairs/validation"] == 1


@pytest.mark.parametrize(
    ("table", "stage"),
    [
        ("trees", "ExpandTrees"),
        ("alone", "PairPaths"),
        ("critiques", "WriteCritiques"),
        ("panels", "AggregateCritiques"),
        ("verified", "VerifyCritiques"),
        ("sft", "WriteShards"),
    ],
)
def test_an_element_that_was_lost_shows_as_a_stage_that_does_not_add_up(tmp_path, table, stage):
    records = a_run()
    # The first verified critique is a kept one, so it is that which is lost.
    records[table] = records[table][1:]
    books = books_of(tmp_path, records)
    assert stage in [each.stage for each in books.stages if not each.balanced]


@pytest.mark.parametrize("table", ["rejections", "failures"])
def test_a_lost_end_shows_too(tmp_path, table):
    records = a_run()
    lost = records[table].pop()
    books = books_of(tmp_path, records)
    assert [each.stage for each in books.stages if not each.balanced] == [lost.stage]


def test_dialogues_are_counted_from_the_trees_that_they_begin_with(tmp_path):
    # Two trees with a wrong solution and two without; of the two dialogues one is rejected. Off, there is no stage.
    records = a_run()
    wrong, right = [
        [make(Node, parent=-1, kind="root"), make(Node, parent=0, kind="terminal", outcome=outcome)]
        for outcome in ("incorrect", "correct")
    ]
    records["trees"] = [make(Tree, i, id=f"t{i}", nodes=nodes) for i, nodes in enumerate([wrong, right, wrong, right])]
    records["dialogues"] = [make(Dialogue, 0, ended="solved"), make(Dialogue, 1, ended="leaks_answer")]
    records["rejections"] += [Rejection(stage="HoldDialogues", key="d", problem_id="x", reason="leaks_answer")]
    lay_out(tmp_path, records)
    extra = ExtraStages(loop=Rounds())
    books = keep_books(tmp_path, num_read=6, num_problems=5, num_agents=NUM_AGENTS, num_contrastive=0, extra=extra)
    assert numbers(books)["HoldDialogues"] == (2, 1, 1, 0)
    assert all(stage.balanced for stage in books.stages)
    assert "HoldDialogues" not in numbers(books_of(tmp_path, records))


def test_an_empty_run_is_balanced(tmp_path):
    lay_out(tmp_path, {})
    books = keep_books(tmp_path, num_read=0, num_problems=0, num_agents=3, num_contrastive=1)
    assert all(stage.balanced and stage.entered == 0 for stage in books.stages)
    assert books.failure_share == 0.0


def test_a_stage_is_balanced_only_if_its_sum_is_exact():
    count = StageCount(stage="S", element="e", entered=5, kept=2, rejected=2, failed=1, reasons={})
    assert count.balanced
    assert not StageCount(stage="S", element="e", entered=5, kept=3, rejected=2, failed=1, reasons={}).balanced
    assert not StageCount(stage="S", element="e", entered=6, kept=2, rejected=2, failed=1, reasons={}).balanced


@pytest.fixture
def plan(tmp_path):
    settings = compose(["engine=scripted", "problems=simulated", f"out={tmp_path}/out", "seed=4"])
    problem = Problem(id="p", source="s", domain="math", question="q", answer="1")
    return make_plan(settings, Inputs(problems=(problem,), unread=()))


def test_the_manifest_holds_config_counts_cost_and_digests(tmp_path, plan):
    output = Output(str(tmp_path / "out"))
    books = books_of(output.path, a_run())
    write_manifest(output, plan, books, {"ExpandTrees": Usage(requests=3, completion_tokens=40)})
    manifest = json.loads((output.path / "run.json").read_text())
    assert manifest["seed"] == 4
    assert manifest["config_digest"] == plan.config_digest
    assert manifest["config"]["engine"]["kind"] == "scripted"
    assert manifest["paid"]["ExpandTrees"]["completion_tokens"] == 40
    assert manifest["server_restarts"] == {}
    assert manifest["rows"]["sft/train"] == 1
    assert [stage["balanced"] for stage in manifest["stages"]] == [True] * 7
    assert manifest["shards"] == output.digests(1)
    assert len(manifest["shards"]) == 2 * len(CONFIGS)
    assert manifest["packages"].keys() >= {"apache-beam", "msgspec", "pyarrow"}
    assert read_books(output.path) == books


def test_two_manifests_of_one_run_are_the_same_bytes(tmp_path, plan):
    output = Output(str(tmp_path / "out"))
    books = books_of(output.path, a_run())
    write_manifest(output, plan, books, {})
    first = (output.path / "run.json").read_bytes()
    write_manifest(output, plan, books, {})
    assert (output.path / "run.json").read_bytes() == first


def test_a_folder_without_manifest_says_that_the_run_has_not_finished(tmp_path):
    with pytest.raises(OutputError) as caught:
        read_books(tmp_path)
    assert str(caught.value) == f"{tmp_path}/run.json is missing: the run has not finished; give its command again"

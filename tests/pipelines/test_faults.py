"""Whatever a server does, every element ends in one place and no label is false."""

import math
import tempfile
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.faults import MIXED, SINGLE, Trial, false_labels
from pipelines.config import compose
from pipelines.main import main
from pipelines.manifest import read_books
from pipelines.run import Watcher, run
from pipelines.shards import read_rows
from schemas import Tree
from schemas.arrow import from_row

NUM_PROBLEMS = 4
RUN = [
    *("engine=simulated", "problems=simulated", f"problems.num_problems={NUM_PROBLEMS}", "actor=plain", "panel=blind"),
    *("engine.limits.max_attempts=3", "engine.limits.max_wait_secs=0.02", "engine.limits.read_timeout_secs=0.3"),
    *("engine.world.retry_after_seconds=0.01", "engine.world.slow_seconds=0.05", "engine.world.hang_seconds=0.5"),
]
ATTEMPT = ["429", "429_bare", "500", "503", "hang", "slow", "cut", "schema", "short", "empty"]

schedules = st.fixed_dictionaries(
    {},
    optional={
        **{f"fault_{name}": st.sampled_from([0.02, 0.05, 0.09]) for name in ATTEMPT},
        "fault_poison": st.sampled_from([0.01, 0.1, 0.5]),
        "fault_too_long": st.sampled_from([0.01, 0.1, 0.5]),
        "outage_after": st.integers(1, 60),
        "outage_seconds": st.sampled_from([0.02, 0.3]),
        "fault_seed": st.integers(0, 10**6),
        "malformed_rate": st.sampled_from([0.0, 0.2]),
        "critic_malformed_rate": st.sampled_from([0.0, 0.2]),
    },
)
shares = st.sampled_from([0.0, 0.05, 0.3, 1.0])


def trees_of(out: Path) -> dict[str, Tree]:
    trees = (from_row(row, Tree) for row in read_rows(out, "trees"))
    return {tree.problem.id: tree for tree in trees}


def entered_by_hand(out: Path) -> dict[str, int]:
    """What entered each stage, from the tables alone: what left the stage before."""
    sizes = {
        name: sum(pq.read_metadata(file).num_rows for file in (out / name).glob("*.parquet"))
        for name in ("trees", "pairs", "alone")
    }
    return {
        "ExpandTrees": NUM_PROBLEMS,
        "PairPaths": sizes["trees"],
        "AggregateCritiques": sizes["pairs"] + sizes["alone"],
    }


def rows_at(out: Path, table: str, stage: str) -> int:
    return sum(row["stage"] == stage for row in read_rows(out, table))


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schedule=schedules, share=shares)
def test_through_any_faults_in_is_kept_and_rejected_and_failed(schedule, share):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        world = [f"engine.world.{name}={value}" for name, value in schedule.items()]
        code = main(["run", *RUN, *world, f"max_failure_share={share}", f"out={out}"])
        books = read_books(out)
        assert [stage.stage for stage in books.stages if not stage.balanced] == []
        for stage, entered in entered_by_hand(out).items():
            (counted,) = [count for count in books.stages if count.stage == stage]
            assert counted.entered == entered
            assert (counted.rejected, counted.failed) == (
                rows_at(out, "rejections", stage),
                rows_at(out, "failures", stage),
            )
        failed = len(list(read_rows(out, "failures")))
        assert sum(stage.failed for stage in books.stages) == failed
        assert code == (3 if failed > share * sum(stage.entered for stage in books.stages) else 0)
        for tree in trees_of(out).values():
            check_tree(tree)


def check_tree(tree: Tree) -> None:
    """No false label, and every rollout in exactly one estimate, where unscored ones are apart."""
    assert false_labels(tree) == 0
    assert sum(node.direct.scored + node.direct.unscored for node in tree.nodes) == tree.rollouts
    for node in tree.nodes:
        assert 0 <= node.direct.correct <= node.direct.scored
    scored = [leaf for leaf in tree.terminals() if tree.nodes[leaf].outcome != "unscored"]
    assert sum(node.direct.scored for node in tree.nodes) >= len(scored)
    if not scored:
        assert sum(node.direct.scored for node in tree.nodes) == 0


def test_false_labels_are_found_where_there_are_some(tmp_path):
    run(compose([*RUN, f"out={tmp_path / 'out'}"]), Watcher())
    for tree in trees_of(tmp_path / "out").values():
        check_tree(tree)
        flipped = {"correct": "incorrect", "incorrect": "correct"}
        nodes = tuple(
            msgspec.structs.replace(node, outcome=flipped.get(node.outcome or "", node.outcome)) for node in tree.nodes
        )
        leaves = sum(node.outcome in flipped for node in tree.nodes)
        assert false_labels(msgspec.structs.replace(tree, nodes=nodes)) == leaves > 0


def test_the_mixture_is_the_one_that_the_design_names():
    rates = {name: float(value) for name, value in (setting.split("=") for setting in MIXED)}
    assert (rates["fault_429"], rates["fault_500"], rates["fault_poison"]) == (0.02, 0.02, 0.01)
    assert math.fsum(rates[f"fault_{name}"] for name in ("cut", "schema", "short", "empty")) == pytest.approx(0.05)
    assert (rates["outage_after"] > 0, rates["outage_seconds"]) == (True, 5)


PASSING = [fault for fault in SINGLE if fault not in ("poison prompts", "context length 400", "hang")]


@pytest.mark.slow
def test_faults_that_pass_leave_no_trace(tmp_path):
    trial = Trial(tmp_path, is_quick=True)
    whole = trial.undisturbed()
    for fault in PASSING:
        figure = trial.faulty(fault, SINGLE[fault], "max_wait_secs=0.2", "max_attempts=12")
        for name in ("rc", "rows_in", "rows_out", "failures", "rejections", "false_labels", "changed", "requests"):
            assert (fault, name, getattr(figure, name)) == (fault, name, getattr(whole, name))


def test_the_mixture_ends_well_with_everything_accounted_for(tmp_path):
    trial = Trial(tmp_path, is_quick=True)
    trial.undisturbed()
    # The outage is shorter here; five pauses of 0.3 s bear it.
    world = (*MIXED[:-1], "outage_seconds=1", "retry_after_seconds=0.1")
    figure = trial.faulty("mixed", world, "max_wait_secs=0.3")
    assert (figure.rc, figure.false_labels, figure.changed, figure.balanced) == (0, 0, 0, True)
    assert figure.failures > 0
    assert figure.rows_out > 0

"""Whatever a server does, every element ends in one place and no label is false."""

import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.faults import MIXED, SINGLE, Trial, false_labels
from pipelines.config import compose
from pipelines.engines.simulated import SimulatedSettings, app, serving
from pipelines.engines.simulated.wire import Refusal, read_wish
from pipelines.main import main
from pipelines.manifest import read_books
from pipelines.meter import METER
from pipelines.run import Watcher, run
from pipelines.shards import read_rows
from schemas import Tree
from schemas.arrow import from_row

NUM_PROBLEMS = 4
RUN = [
    *("engine=simulated", "problems=simulated", f"problems.num_problems={NUM_PROBLEMS}", "actor=plain", "panel=blind"),
    # What is away for 0.4 s ends a run: longer than any outage here.
    *("engine.limits.max_attempts=3", "engine.limits.max_wait_secs=0.2", "engine.limits.read_timeout_secs=0.3"),
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
        "outage_seconds": st.sampled_from([0.02, 0.1]),
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
    pairs, alone = size(out, "pairs"), size(out, "alone")
    return {
        "ExpandTrees": NUM_PROBLEMS,
        "PairPaths": size(out, "trees"),
        # Of the three critics one looks at pairs only.
        "WriteCritiques": 3 * pairs + 2 * alone,
        "AggregateCritiques": pairs + alone,
        "VerifyCritiques": sum(len(row["candidates"]) for row in read_rows(out, "panels")),
    }


def size(out: Path, table: str) -> int:
    return sum(pq.read_metadata(file).num_rows for file in (out / table).glob("*.parquet"))


def share_by_hand(out: Path) -> float:
    """The largest share of a stage that failed; all of one that kept nothing, or was refused whatever it asked."""
    kept = {
        "ExpandTrees": size(out, "trees"),
        "WriteCritiques": size(out, "critiques"),
        "AggregateCritiques": size(out, "panels"),
        "VerifyCritiques": sum(row["decision"] == "kept" for row in read_rows(out, "verified")),
    }
    failed = {stage: rows_at(out, "failures", stage) for stage in kept}
    shares = [failed[stage] / entered_by_hand(out)[stage] if kept[stage] else 1 for stage in kept if failed[stage]]
    paid = json.loads((out / "run.json").read_text())["paid"]
    return max([0, *shares, *(1 for usage in paid.values() if usage["requests"] and not usage["samples"])])


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
        assert code == (3 if share_by_hand(out) > share else 0)
        assert (out / "COMPLETED").exists() == (code == 0)
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


# What may fail, and what may not.


def test_rows_that_are_no_problems_do_not_hide_that_every_problem_failed(tmp_path, capsys):
    rows = [{"question": f"What is {i} + 4?", "answer": f"{i + 4}" if i < 5 else None} for i in range(84)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    problems = ["problems=file", f"problems.path={tmp_path / 'rows.jsonl'}", "problems.domain=exact"]
    dead = ["engine.world.fault_poison=1", "engine.limits.max_attempts=1"]
    words = [*(word for word in RUN if not word.startswith("problems")), *problems, *dead, f"out={tmp_path / 'out'}"]
    assert main(["run", *words]) == 3
    assert (
        "5 elements failed, the largest share in ExpandTrees: 5 of 5 problems and nothing was kept, which counts as "
        "all of them (100.0%, 10.0% allowed)"
    ) in capsys.readouterr().out
    assert not (tmp_path / "out" / "COMPLETED").exists()
    assert main(["publish", str(tmp_path / "out"), "org/name", "--dry-run"]) == 2
    assert "is not COMPLETED: shards are missing, or more failed than max_failure_share" in capsys.readouterr().err
    # Whoever allows it has a whole run.
    assert main(["run", *words, "max_failure_share=1"]) == 0
    assert (tmp_path / "out" / "COMPLETED").exists()


def refuse_constrained(monkeypatch: pytest.MonkeyPatch, is_refused: Callable[[bytes], bool]) -> None:
    """Has the simulated server refuse requests that ask for JSON: those that are said."""

    def read(raw: bytes, **more):
        if b"structured_outputs" in raw and is_refused(raw):
            raise Refusal(400, "structured_outputs: not supported by this server")
        return read_wish(raw, **more)

    monkeypatch.setattr(app, "read_wish", read)


def test_a_stage_that_is_refused_whatever_it_asks_is_asked_again_by_the_same_command(tmp_path, capsys, monkeypatch):
    served = ["engine=vllm", "engine.model=simulated", *(word for word in RUN if "engine" not in word)]
    out = tmp_path / "out"
    with serving(SimulatedSettings()) as url:
        words = ["run", *served, f"engine.url={url}", f"out={out}"]
        with monkeypatch.context() as patch:
            refuse_constrained(patch, lambda raw: True)
            for more in ([], [], ["retry=failed"]):
                before = METER.read().paid.requests
                assert main([*words, *more]) == 3
                assert METER.read().paid.requests > before
                said = capsys.readouterr().out
                assert "structured_outputs: not supported by this server" in said
                assert "Whatever this start asked for WriteCritiques was refused" in said
                assert not (out / "COMPLETED").exists()
            # A start that asks nothing learns nothing: the shard is still to be filled.
            assert main([*words, "budget.max_requests=0"]) == 4
        assert main(words) == 0
        assert (out / "COMPLETED").exists()
        assert size(out, "critiques") > 0


def test_prompts_that_are_refused_among_others_are_rejections_and_are_not_asked_for_ever(tmp_path, monkeypatch):
    served = ["engine=vllm", "engine.model=simulated", *(word for word in RUN if "engine" not in word)]
    refuse_constrained(monkeypatch, lambda raw: b"skeptic" in raw)
    out = tmp_path / "out"
    with serving(SimulatedSettings()) as url:
        words = ["run", *served, f"engine.url={url}", f"out={out}"]
        assert main(words) == 0
        reasons = [row["reason"] for row in read_rows(out, "rejections") if row["stage"] == "WriteCritiques"]
        # One of the three critics, and nobody else.
        assert reasons.count("prompt_refused") == size(out, "pairs") + size(out, "alone") > 0
        assert size(out, "critiques") > 0
        before = METER.read().paid.requests
        assert main(words) == 0
        assert METER.read().paid.requests == before

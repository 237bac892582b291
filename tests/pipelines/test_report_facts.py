"""What the report counts, over a shard whose numbers can be checked by hand."""

import json

import msgspec
import pytest

from pipelines.config import compose
from pipelines.engines.base import Usage
from pipelines.output import Output
from pipelines.report import write_report
from pipelines.report.facts import Agreement, engines_of, gather, paid_of, read_ledger
from pipelines.shards import all_shards, write_shard
from schemas import AgentVote, Critique, Estimate, Node, Panel, PathAlone, PathPair, Tree, Verified
from tests.hostile.test_pages import books, plan_of
from tests.pipelines.made_records import make

OVERRIDES = ["engine=scripted", "problems=simulated", "panel=blind"]
PRICES = "budget.prices=[{prompt:1.0,completion:10.0}]"


def vote(agent, verdict, step, reliability):
    return msgspec.to_builtins(AgentVote(agent=agent, verdict=verdict, first_wrong_step=step, reliability=reliability))


def verified(name, decision, *, error, named, text):
    critique = msgspec.structs.replace(make(Critique), id=name, path_id="w", first_wrong_step=named, text=text)
    record = make(Verified, id=name, decision=decision, has_error=error is not None)
    return msgspec.structs.replace(record, critique=critique, first_error=error)


@pytest.fixture
def out(tmp_path):
    nodes = [Estimate(correct=4, scored=8), Estimate(correct=8, scored=8), Estimate(correct=0, scored=3), Estimate()]
    tree = msgspec.structs.replace(
        make(Tree),
        id="t",
        nodes=tuple(
            Node(parent=i - 1, step="s", depth=i, kind="step" if i else "root", direct=direct)
            for i, direct in enumerate(nodes)
        ),
    )
    panels = [
        make(Panel, id="p1", path_id="w", votes=[vote("a", "incorrect", 1, 0.8), vote("b", "correct", None, 0.6)]),
        make(Panel, id="p2", path_id="r", votes=[vote("a", "correct", None, 0.6), vote("b", "correct", None, 0.6)]),
    ]
    rows = {
        "trees": [("t", tree)],
        "pairs": [("w", make(PathPair, id="w", tree_id="t", first_error=1))],
        "alone": [("r", make(PathAlone, id="r", tree_id="t"))],
        "panels": [(panel.id, panel) for panel in panels],
        "verified": [
            ("1", verified("1", "kept", error=1, named=1, text="x" * 99)),
            ("2", verified("2", "rejected", error=1, named=0, text="x" * 100)),
            ("3", verified("3", "kept", error=None, named=None, text="x" * 99_999)),
        ],
    }
    for shard in all_shards([0], 1):
        write_shard(tmp_path, shard, rows.get(shard.config, []) if shard.split == "train" else [])
    return tmp_path


def test_values_positions_lengths_and_labels_are_counted(out):
    facts = gather(out, compose(OVERRIDES))
    # 4/8 is the lower edge of the sixth of ten bins, 8/8 belongs to the last.
    assert facts.values == (1, 0, 0, 0, 0, 1, 0, 0, 0, 1)
    assert facts.unsampled == 1
    assert facts.located == {2: 1}
    assert facts.named == {2: 1}
    assert (facts.lengths_kept[0], facts.lengths_kept[-1], sum(facts.lengths_kept)) == (1, 1, 2)
    assert (facts.lengths_rejected[1], sum(facts.lengths_rejected)) == (1, 1)
    assert facts.labels == {"wrong kept": 1, "wrong rejected": 1, "right kept": 1}
    assert (facts.wrong_paths, facts.right_paths) == (1, 1)
    assert (facts.tokens, facts.cost, facts.kept) == (0, None, 2)


def test_kept_critiques_are_those_that_passed_however_many_rows_sft_has(out):
    """With `export.feedback=both_marked` the rejected one is a row of `sft` too."""
    paid = {"prompt_tokens": 300_000, "completion_tokens": 100_000}
    (out / "run.json").write_text(json.dumps({"paid": {"ExpandTrees": paid}}), encoding="utf-8")
    plan = plan_of("m")
    plan = msgspec.structs.replace(plan, settings=compose([*OVERRIDES, PRICES]))
    books_of_all = msgspec.structs.replace(books(), rows=books().rows | {"sft": 3})
    write_report(Output(str(out)), plan, books_of_all)
    header = (out / "report.html").read_text(encoding="utf-8").partition("</header>")[0]
    assert "1 problem, 2 kept critiques</h1>" in header
    assert "rows of <code>sft</code>: 3</dt>" in header
    # 400,000 tokens, and 0.3 + 1.0 at 1 and 10 a million, over two.
    assert "<dt>tokens a kept critique</dt><dd>200,000</dd>" in header
    assert "<dt>money a kept critique</dt><dd>0.65</dd>" in header


def test_what_was_paid_is_in_the_order_of_the_funnel(tmp_path):
    stages = [{"stage": name} for name in ("ReadProblems", "SiftProblems", "ExpandTrees", "AggregateCritiques")]
    paid = {name: {} for name in ("Another", "AggregateCritiques", "ExpandTrees", "SiftProblems")}
    (tmp_path / "run.json").write_text(json.dumps({"stages": stages, "paid": paid}), encoding="utf-8")
    assert list(read_ledger(tmp_path)) == ["SiftProblems", "ExpandTrees", "AggregateCritiques", "Another"]


def test_critics_are_compared_with_the_rollouts_and_with_each_other(out):
    facts = gather(out, compose(OVERRIDES))
    first, second = facts.agents
    assert (first.name, first.votes, first.verdict_right, first.wrong_paths, first.step_right) == ("a", 2, 2, 1, 1)
    assert first.reliability == pytest.approx(0.7)
    assert (second.name, second.votes, second.verdict_right, second.step_right) == ("b", 2, 1, 0)
    assert facts.agreements == (Agreement(first="a", second="b", both=2, equal=1),)


def test_a_stage_costs_its_tokens_times_the_price_of_its_engine():
    ledger = {"ExpandTrees": Usage(prompt_tokens=1_000_000, completion_tokens=100_000)}
    (paid,) = paid_of(ledger, compose([*OVERRIDES, PRICES]))
    assert paid.cost == pytest.approx(1.0 + 1.0)
    (paid,) = paid_of(ledger, compose(OVERRIDES))
    assert paid.cost is None


def test_no_cost_is_said_where_critics_of_unequal_prices_share_a_stage():
    critics = (
        "panel.agents=[{name: a, role: stepwise, view: blind}, {name: b, role: stepwise, view: blind, engine: big}]"
    )
    further = ["+engines.big.kind=openai", "+engines.big.url=http://127.0.0.1:1", "+engines.big.model=m"]
    prices = "budget.prices=[{prompt:1.0,completion:10.0},{engine:big,prompt:2.0,completion:10.0}]"
    settings = compose([*OVERRIDES, critics, *further, prices])
    assert engines_of(settings)["WriteCritiques"] == {"", "big"}
    usage = Usage(prompt_tokens=10, completion_tokens=10)
    paid = {item.stage: item.cost for item in paid_of({"WriteCritiques": usage, "ExpandTrees": usage}, settings)}
    assert paid["WriteCritiques"] is None
    assert paid["ExpandTrees"] == pytest.approx(110e-6)

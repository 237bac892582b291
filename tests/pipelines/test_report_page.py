"""What of a run can be leafed through in its report, and that the page stays small and inert."""

import base64
import hashlib
import html
import json
import re
from xml.etree import ElementTree

import msgspec
import pytest
import scipy.stats

from pipelines.manifest import StageCount
from pipelines.output import Output
from pipelines.report import browse as browsing
from pipelines.report import charts, page, write_report
from pipelines.report.browse import Browse, browse, choose, shown, tree_of
from pipelines.report.facts import Facts
from pipelines.shards import all_shards, shard_of, write_shard
from schemas import Estimate, Node, PathPair, Rejection, Tree
from schemas.arrow import to_row
from tests.annotators.annotated import pair, problem
from tests.hostile.test_pages import books, plan_of
from tests.pipelines.made_records import make

SVG = "{http://www.w3.org/2000/svg}"


def tree(name, texts=("s",)):
    nodes = [Node(parent=-1, step="", depth=0, kind="root", direct=Estimate(correct=4, scored=8))]
    nodes += [Node(parent=0, step=text, depth=1, kind="step") for text in texts]
    return msgspec.structs.replace(make(Tree), id=name, nodes=tuple(nodes), problem=problem(name=f"q-{name}"))


def written(out, trees, pairs=(), rejections=(), num_shards=3):
    for shard in all_shards(range(num_shards), num_shards):
        rows = {
            "trees": [(item.id, item) for item in trees if shard_of(item.problem.id, num_shards) == shard.index],
            "pairs": [(item.id, item) for item in pairs if shard_of(item.problem.id, num_shards) == shard.index],
            "rejections": [(item.key, item) for item in rejections] if shard.index == 0 else [],
        }
        write_shard(out, shard, rows.get(shard.config, []) if shard.split == "train" else [])
    return out


def pair_of(item: Tree) -> PathPair:
    path = pair(item.problem, name=f"pair-{item.id}")
    branch = msgspec.structs.replace(path.wrong, nodes=(1, 1, 1))
    other = msgspec.structs.replace(path.right, nodes=(1, 1, 1))
    return msgspec.structs.replace(path, tree_id=item.id, wrong=branch, right=other)


def test_a_large_run_is_shown_in_part_and_wrong_turns_come_first(tmp_path, monkeypatch):
    monkeypatch.setattr(browsing, "MOST_TREES", 6)
    trees = [tree(f"t{i:02d}") for i in range(20)]
    paired = {"t03", "t11", "t17"}
    written(tmp_path, trees, [pair_of(item) for item in trees if item.id in paired])
    chosen, number = choose(tmp_path)
    assert number == 20
    assert len(chosen) == 6
    leaves = browse(tmp_path)
    assert {item["id"] for item in leaves.trees[:3]} == paired
    assert [item["id"] for item in leaves.trees] == sorted(chosen, key=lambda name: chosen[name])
    assert (len(leaves.trees), leaves.num_trees) == (6, 20)


def test_the_same_trees_in_other_shards_are_the_same_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(browsing, "MOST_TREES", 5)
    trees = [tree(f"t{i:02d}") for i in range(20)]
    first = browse(written(tmp_path / "a", trees, num_shards=3))
    second = browse(written(tmp_path / "b", trees, num_shards=1))
    assert [item["id"] for item in first.trees] == [item["id"] for item in second.trees]


def test_a_tree_of_many_nodes_keeps_its_paths_and_its_parents():
    item = tree("t", ["x" * 100] * 500)
    path = pair_of(item)
    branch = msgspec.structs.replace(path.wrong, nodes=(490, 491, 492))
    path = msgspec.structs.replace(path, wrong=branch)
    drawn = tree_of(to_row(item), [to_row(path)], 10_000)
    numbers = [node[0] for node in drawn["nodes"]]
    assert drawn["size"] == 501
    assert {490, 491, 492} <= set(numbers)
    assert len(json.dumps(drawn["nodes"])) < 15_000
    assert all(node[1] in (-1, *numbers) for node in drawn["nodes"])
    assert drawn["paths"][0]["turn"] == 490


def test_values_of_nodes_have_their_counts_and_their_interval():
    (root, leaf) = tree_of(to_row(tree("t")), [], 10_000)["nodes"]
    low, high = scipy.stats.beta(4.5, 4.5).interval(0.9)  # Jeffreys: half an outcome more of each kind.
    assert root == [0, -1, "", 4, 8, 0, round(low, 2), round(high, 2), "", "", "", ""]
    assert leaf[2:5] == ["s", 0, 0]


def test_a_node_has_what_the_checker_said_cut_and_spelled_out():
    item = tree("t", ["s", "t"])
    said = msgspec.structs.replace(item.nodes[1], message="\nline 1: \x1b[2J\n")
    long = msgspec.structs.replace(item.nodes[2], message="x" * 2_000)
    nodes = tree_of(to_row(msgspec.structs.replace(item, nodes=(item.nodes[0], said, long))), [], 10_000)["nodes"]
    assert [node[-1] for node in nodes] == ["", "line 1: \\x1b[2J", "x" * 1_000 + "\N{HORIZONTAL ELLIPSIS}"]


def test_rejections_before_the_critics_are_rows_too(tmp_path):
    ended = [
        Rejection(stage="ReadProblems", key="row 7", problem_id="row 7", reason="bad_row", detail="no answer"),
        Rejection(stage="VerifyCritiques", key="c", problem_id="q-t1", reason="leaks_answer"),
    ]
    (row,) = browse(written(tmp_path, [tree("t1")], rejections=ended)).rows
    assert (row["stage"], row["decision"], row["reasons"], row["text"]) == (
        "ReadProblems",
        "rejected",
        ["bad_row"],
        "no answer",
    )


def test_long_texts_are_cut_and_steering_ones_are_spelled_out():
    assert shown("x" * 5, 3) == "xxx\N{HORIZONTAL ELLIPSIS}"
    assert shown("\x1b[2J\u202e") == "\\x1b[2J\\u202e"
    assert shown(None) == ""


@pytest.mark.parametrize("text", ["</script><script>alert(1)</script>", "<!--", "&lt;", "a\u2028b\u2029c", "é\\u003c"])
def test_data_can_end_no_script_and_say_everything(text):
    data = page.embedded({"x": text})
    assert not set("<>&\u2028\u2029") & set(data)
    assert json.loads(data) == {"x": text}


def test_a_page_never_grows_beyond_its_limit(monkeypatch):
    monkeypatch.setattr(page, "_MOST_JSON", 4_000)
    trees = tuple({"problemId": f"q{i}", "x": "<" * 100} for i in range(100))
    rows = tuple({"problemId": f"q{i}", "y": "<" * 10} for i in range(100))
    leaves, data = page.fitted(Browse(trees=trees, rows=rows, num_trees=100, num_rows=100))
    assert len(data) <= 4_000
    assert 0 < len(leaves.trees) < 100
    assert {row["problemId"] for row in leaves.rows} == {item["problemId"] for item in leaves.trees}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A run of one tree with its report."""
    folder = written(tmp_path_factory.mktemp("report"), [tree("t1")], num_shards=1)
    write_report(Output(str(folder)), plan_of("m"), books())
    return folder


def test_the_policy_names_the_pages_own_scripts_and_style(out):
    source = (out / "report.html").read_text(encoding="utf-8")
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', source)
    parts = re.findall(r"<(?:script|style)>(.*?)</(?:script|style)>", source, re.DOTALL)
    named = {base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in parts}
    assert len(named) == 3
    assert set(re.findall(r"'sha256-([^']*)'", html.unescape(policy))) == named
    assert html.unescape(policy).startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "style=" not in source.partition('<script type="application/json"')[0]


def test_the_same_run_makes_the_same_page(out):
    before = (out / "report.html").read_bytes()
    write_report(Output(str(out)), plan_of("m"), books())
    assert (out / "report.html").read_bytes() == before


def test_a_drawing_has_the_pages_colours_and_nothing_to_load():
    stage = StageCount(stage="A", element="<b>&x", entered=3, kept=2, rejected=1, failed=0, reasons={})
    root = ElementTree.fromstring(charts.funnel([stage]))
    attributes = {(name, value) for element in root.iter() for name, value in element.attrib.items()}
    assert ("fill", "var(--kept)") in attributes
    assert ("fill", "var(--rejected)") in attributes
    assert not [name for name, _ in attributes if name in ("style", "font-family")]
    assert not [value for _, value in attributes if "http" in value]
    texts = ["".join(element.itertext()).strip() for element in root.iter(f"{SVG}text")]
    assert "2 of 3" in texts
    assert any("<b>&x" in text for text in texts)


@pytest.mark.parametrize("most", [1, 3, 13, 17, 1_250])
def test_counts_have_no_halves_on_a_chart(most):
    """13 and 17 are counts that Matplotlib by itself marks at 2.5, 7.5 and 12.5."""
    facts = Facts(
        values=(most,) * 10,
        unsampled=0,
        located={1: most, 14: 1},
        named={2: most},
        lengths_kept=(most,) * 20,
        lengths_rejected=(0,) * 20,
        labels={"right kept": 1, "wrong kept": most},
        wrong_paths=0,
        right_paths=0,
        agents=(),
        agreements=(),
        paid=(),
    )
    stage = StageCount(stage="A", element="x", entered=most, kept=most, rejected=0, failed=0, reasons={})
    drawings = [charts.positions(facts), charts.lengths(facts), charts.labels(facts)]
    for svg in (*drawings, charts.funnel([stage]), charts.reasons({"x": most})):
        texts = ["".join(text.itertext()).strip() for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]
        ticks = [text for text in texts if re.fullmatch(r"[\d,.]+", text)]
        assert len(ticks) > 1
        assert not [text for text in ticks if "." in text]


def test_names_on_a_chart_are_short_and_no_mathematics():
    assert charts.label("a\x1bb\n$x^2$") == "a\\x1bb $x^2$"
    assert len(charts.label("x" * 100)) == 40
    svg = charts.reasons({"$\\frac{1}{$": 3, "$x$": 1})
    assert "$\\frac{1}{$" in svg

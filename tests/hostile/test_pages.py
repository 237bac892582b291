"""Report, card and terminal over texts of the corpus, put where a run would put them."""

import io
import json

import msgspec
import pytest
from rich.console import Console

from pipelines.card import write_card
from pipelines.config import compose
from pipelines.display import say
from pipelines.drawing import print_dialogue
from pipelines.manifest import Books, StageCount
from pipelines.output import Output
from pipelines.plan import Inputs, make_plan
from pipelines.report import write_report
from pipelines.shards import Shard, all_shards, write_shard
from pipelines.show import draw_tree, show
from schemas import Estimate, Node, Problem, Tree, Verified
from schemas.arrow import CONFIGS
from tests.annotators.annotated import critique, pair, provenance
from tests.annotators.made_dialogues import attempt, dialogue, told
from tests.hostile.corpus import corpus
from tests.hostile.test_hostile_runs import check_card, check_page, check_terminal, data_of

SHORT = [text for text in corpus() if len(text) <= 300 and not any("\ud800" <= char <= "\udfff" for char in text)]


def tree_of(texts: list[str], *, name: str = "tree1") -> Tree:
    """A root with a chain of two steps and an end for each pair of texts, on nodes that `pair` names."""
    nodes = [Node(parent=-1, step="", depth=0, kind="root", direct=Estimate(correct=4, scored=8))]
    for i in range(300):
        said = texts[i % len(texts)]
        nodes.append(
            Node(parent=0, step=said, depth=1, kind="terminal", outcome="incorrect", answer=said, message=said)
        )
    question = f"What? {texts[0]}"
    return Tree(
        id=name,
        problem=Problem(id=texts[1], source=texts[2], domain="math", question=question, answer=texts[3]),
        nodes=tuple(nodes[:299]),
        provenance=provenance(),
        settings_digest="",
        stopped="searches",
        calls=1,
        rollouts=1,
        completion_tokens=1,
        dropped_tokens=0,
    )


def verified(path, text: str, number: int) -> Verified:
    some = Estimate(correct=1, scored=2)
    return Verified(
        id=f"v{number}",
        critique=critique(path, agent=text, text=text),
        has_error=True,
        first_error=0,
        verdict_agrees=True,
        location_distance=0,
        location_mass=1.0,
        leak="",
        with_critique=some,
        with_placebo=some,
        without_critique=some,
        p_placebo=0.01,
        p_without=0.01,
        refinement=text,
        refinement_answer=text,
        decision="kept",
        reasons=(),
    )


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages") / "<b>out"
    texts = [text for text in SHORT if "<" in text] + SHORT
    tree = tree_of(texts)
    path = pair(tree.problem)
    rows = {
        "trees": [("a", tree)],
        "pairs": [("a", path)],
        "verified": [(f"{i:03d}", verified(path, text, i)) for i, text in enumerate(texts[:50])],
    }
    for shard in all_shards([0], 1):
        write_shard(folder, shard, rows.get(shard.config, []) if shard.split == "train" else [])
    assert Shard(config="trees", split="train", index=0, num_shards=1).path
    return folder


def plan_of(label: str):
    """The plan of a run whose model is called this."""
    plan = make_plan(compose(["engine=scripted", "problems=simulated"]), Inputs(problems=(), unread=()))
    engine = msgspec.structs.replace(plan.settings.engine, rule=label)
    settings = msgspec.structs.replace(plan.settings, engine=engine)
    return msgspec.structs.replace(plan, settings=settings, config_digest="</p><script>")


def books() -> Books:
    stages = [
        StageCount(stage=name, element="x", entered=1, kept=1, rejected=0, failed=0, reasons={"<img src=x>": 1})
        for name in ("ReadProblems", "ExpandTrees")
    ]
    rows = dict.fromkeys(CONFIGS, 1)
    by_split = {f"{config}/{split}": 1 for config in CONFIGS for split in ("train", "validation")}
    return Books(stages=tuple(stages), rows=rows, rows_by_split=by_split)


def test_no_element_and_no_attribute_of_the_report_comes_from_a_text(out):
    write_report(Output(str(out)), plan_of("m"), books())
    check_page(out / "report.html")
    data = json.loads(data_of((out / "report.html").read_text(encoding="utf-8")))
    assert len(data["rows"]) == 50
    assert [len(tree["nodes"]) for tree in data["trees"]] == [299]
    nodes = data["trees"][0]["nodes"]
    texts = [node[2] for node in nodes] + [row["text"] for row in data["rows"]]
    for shown in ("".join(texts), "".join(node[-1] for node in nodes)):
        assert "</script><script>x()</script>" in shown
        assert "\x1b" not in shown
        assert "\\x1b[2J" in shown


@pytest.mark.parametrize(
    "label", ["a`b", "x\n---\nlicense: evil\n", "`<script>`", "m | n", "\x1b[2J", "```\n# heading", "{{ 7*7 }}"]
)
def test_the_card_keeps_its_form_whatever_the_model_is_called(out, label):
    write_card(Output(str(out)), plan_of(label), books())
    check_card(out / "README.md")
    assert "\x1b" not in (out / "README.md").read_text(encoding="utf-8")


def test_nothing_of_a_text_steers_the_terminal(out):
    (out / "run.json").write_text("{}", encoding="utf-8")
    tree = tree_of([*SHORT, "x\u202ey"])
    terminal = io.StringIO()
    console = Console(file=terminal, width=140, force_terminal=False)
    console.print(draw_tree(tree, pair(tree.problem)))
    for text in SHORT:
        say(console, text)
        said = msgspec.structs.replace(told(text, masked=(text,)), provenance=provenance(text))
        item = attempt((text, f"Answer: {text}"), "unscored")
        talk = dialogue((msgspec.structs.replace(item, unscored_reason=text), said), (item, None))
        print_dialogue(console, msgspec.structs.replace(talk, leak=text))
    check_terminal(terminal.getvalue())
    assert "[bold]x[/bold]" in terminal.getvalue()
    assert ":bomb: :smile:" in terminal.getvalue()
    assert "\\x1b]8;;http://x" in terminal.getvalue()


def test_a_critique_is_shown_as_it_is(out, monkeypatch):
    monkeypatch.setattr("pipelines.show.read_books", lambda path: books())
    terminal = io.StringIO()
    show(Console(file=terminal, width=140), str(out))
    check_terminal(terminal.getvalue())
    assert "A critique, kept" in terminal.getvalue()


def test_a_tree_that_is_very_deep_breaks_neither_page_nor_terminal(tmp_path):
    chain = [Node(parent=i - 1, step="s", depth=i, kind="step" if i else "root") for i in range(290)]
    tree = tree_of(SHORT)
    deep = Tree(**{name: getattr(tree, name) for name in Tree.__struct_fields__} | {"nodes": tuple(chain)})
    path = pair(tree.problem)
    for shard in all_shards([0], 1):
        rows = {"trees": [("a", deep)], "pairs": [("a", path)]}.get(shard.config, [])
        write_shard(tmp_path, shard, rows if shard.split == "train" else [])
    write_report(Output(str(tmp_path)), plan_of("m"), books())
    check_page(tmp_path / "report.html")
    data = json.loads(data_of((tmp_path / "report.html").read_text(encoding="utf-8")))
    assert [len(tree["nodes"]) for tree in data["trees"]] == [290]
    terminal = io.StringIO()
    Console(file=terminal, width=140).print(draw_tree(deep, None))
    assert "└── s" in terminal.getvalue()

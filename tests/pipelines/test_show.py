"""`wrongturn show`: what is drawn, how wide it is, and the history of an id."""

import io

import msgspec
import pytest
from rich.console import Console

from pipelines.history import find, print_history
from pipelines.output import OutputError
from pipelines.shards import all_shards, write_shard
from pipelines.show import Choice, draw, show
from schemas import Estimate, Node, Panel, Rejection, Tree, Verified
from tests.annotators.annotated import critique, pair, problem
from tests.hostile.test_pages import books
from tests.pipelines.made_records import make


def verified(name: str, decision: str) -> Verified:
    said = critique(pair(), agent="anna", text=f"Step 1 is wrong, says {name}.")
    some = Estimate(correct=3, scored=4)
    record = make(Verified, id=name, decision=decision, reasons=[] if decision == "kept" else ["wrong_location"])
    return msgspec.structs.replace(
        record, critique=msgspec.structs.replace(said, id=f"c-{name}"), with_critique=some, p_placebo=0.03125, leak=""
    )


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("show")
    nodes = [Node(parent=-1, step="", depth=0, kind="root", direct=Estimate(correct=4, scored=8))]
    nodes += [Node(parent=0, step=f"node {i + 1}\n", depth=1, kind="step") for i in range(210)]
    tree = msgspec.structs.replace(make(Tree), id="tree1", nodes=tuple(nodes), problem=problem())
    said = [verified(f"{decision[0]}{i}", decision) for decision in ("kept", "rejected") for i in range(5)]
    panel = msgspec.structs.replace(make(Panel), id="panel1", path_id="pair1", problem_id="q1", composed=None)
    rows = {
        "trees": [("tree1", tree)],
        "pairs": [("pair1", pair())],
        "panels": [("panel1", panel)],
        "critiques": [("c-k0", said[0].critique)],
        "verified": [(item.id, item) for item in said],
        "rejections": [
            ("a", Rejection(stage="VerifyCritiques", key="c-r0", problem_id="q1", reason="wrong_location", detail="d")),
            ("b", Rejection(stage="ReadProblems", key="row-9", problem_id="other", reason="bad_row")),
        ],
    }
    for shard in all_shards([0], 1):
        write_shard(folder, shard, rows.get(shard.config, []) if shard.split == "train" else [])
    return folder


def shown(out, monkeypatch, *, width: int = 140, **choice) -> str:
    monkeypatch.setattr("pipelines.show.read_books", lambda path: books())
    terminal = io.StringIO()
    show(Console(file=terminal, width=width), str(out), choice=Choice(**choice))
    return terminal.getvalue()


def test_kept_and_rejected_stand_side_by_side_with_reasons(out, monkeypatch):
    printed = shown(out, monkeypatch, number=1)
    (line,) = [line for line in printed.splitlines() if "A critique, " in line]
    assert "A critique, kept (by anna" in line
    assert "A critique, rejected (by anna" in line
    assert "rejected because: wrong_location" in printed
    assert "<- the wrong turn" in printed


def test_in_a_narrow_terminal_they_stand_below_each_other(out, monkeypatch):
    printed = shown(out, monkeypatch, number=2, width=60)
    assert [line.count("A critique, ") for line in printed.splitlines() if "A critique, " in line] == [1, 1, 1, 1]
    boxes = printed.partition("A critique, ")[2].partition("Calculate")[0]
    assert max(map(len, boxes.splitlines())) <= 60


def test_the_seed_draws_and_the_number_bounds(out):
    drawn = {seed: draw(out, 2, seed) for seed in range(8)}
    names = {seed: tuple(item.id for item in both["kept"]) for seed, both in drawn.items()}
    assert {len(pair) for pair in names.values()} == {2}
    assert len(set(names.values())) > 1
    assert names[3] == tuple(item.id for item in draw(out, 2, 3)["kept"])
    assert [len(items) for items in draw(out, 99, 0).values()] == [5, 5]
    assert draw(out, 0, 0) == {"kept": [], "rejected": []}


def test_without_colours_nothing_is_coloured(out, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("pipelines.show.read_books", lambda path: books())
    terminal = io.StringIO()
    show(Console(file=terminal, width=140, force_terminal=True), str(out))
    assert "\x1b[3" not in terminal.getvalue().replace("\x1b[3m", "")


@pytest.mark.parametrize(
    ("wanted", "table"),
    [
        ("tree1", "trees"),
        ("tr", "trees"),
        ("q1", "problems"),
        ("pair1", "pairs"),
        ("c-k0", "critiques"),
        ("k3", "verified"),
    ],
)
def test_an_id_or_its_beginning_finds_what_has_it(out, wanted, table):
    found = find(out, wanted)
    assert (found.table, found.problem_id) == (table, "q1")


def test_an_id_that_nothing_has_names_the_nearest(out):
    with pytest.raises(OutputError, match=r"holds nothing with the id 'pairs', and the nearest are pair1"):
        find(out, "pairs")
    with pytest.raises(OutputError, match=r"'\$\$', and none is near; expected the id of a problem, tree"):
        find(out, "$$")


def test_a_beginning_of_several_ids_names_them(out):
    with pytest.raises(OutputError, match=r"2 ids of .* begin with 'pa': pair1, panel1; give more of it"):
        find(out, "pa")


def test_a_history_goes_from_the_problem_to_the_verification(out):
    terminal = io.StringIO()
    print_history(Console(file=terminal, width=140), out, "k0")
    printed = terminal.getvalue()
    order = [
        "Problem q1, from tests",
        "Calculate 7 + 8 + 5.",
        "Right answer: 20",
        "Tree tree1",
        "Path pair1, wrong",
        "1.00  Step 1: 7 + 8 = 14  <- the wrong turn",
        "Critique c-k0 by anna",
        "Panel panel1",
        "Verification of c-k0 by anna: kept  <- the id you gave",
        "second solutions right with it: 3 of 4",
        "no better than the placebo: p = 0.031",
        "Verification of c-r0 by anna: rejected\n",
        "VerifyCritiques: wrong_location (d)",
        "Rows for trainers",
    ]
    places = [printed.index(text) for text in order]
    assert places == sorted(places)
    assert printed.count("<- the id you gave") == 1
    assert "bad_row" not in printed


def test_a_history_of_a_row_that_never_became_a_tree(out):
    terminal = io.StringIO()
    print_history(Console(file=terminal, width=140), out, "row-9")
    assert "ReadProblems: bad_row" in terminal.getvalue()
    assert "Tree" not in terminal.getvalue()

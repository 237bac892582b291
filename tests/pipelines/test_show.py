"""`wrongturn show`: what is drawn, how wide it is, and the history of an id."""

import io

import msgspec
import pytest
from rich.console import Console

from pipelines.drawing import draw_tree, print_dialogue
from pipelines.history import find, print_history
from pipelines.output import OutputError
from pipelines.shards import all_shards, write_shard
from pipelines.show import Choice, draw, show
from schemas import Estimate, Node, Panel, PathPair, Rejection, Tree, Verified
from tests.annotators.annotated import critique, pair, problem
from tests.annotators.made_dialogues import RIGHT, WORSE, WRONG, attempt, dialogue, told
from tests.hostile.test_pages import books
from tests.pipelines.made_records import make


def verified(name: str, decision: str) -> Verified:
    said = critique(pair(), agent="anna", text=f"Step 1 is wrong, says {name}.")
    some = Estimate(correct=3, scored=4)
    record = make(Verified, id=name, decision=decision, reasons=[] if decision == "kept" else ["wrong_location"])
    return msgspec.structs.replace(
        record, critique=msgspec.structs.replace(said, id=f"c-{name}"), with_critique=some, p_placebo=0.03125, leak=""
    )


def refused() -> PathPair:
    """The pair, of whose wrong side a checker has said something."""
    path = pair()
    return msgspec.structs.replace(path, wrong=msgspec.structs.replace(path.wrong, message="line 1:\n  19 is not 20"))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("show")
    nodes = [Node(parent=-1, step="", depth=0, kind="root", direct=Estimate(correct=4, scored=8))]
    nodes += [Node(parent=0, step=f"node {i + 1}\n", depth=1, kind="step") for i in range(210)]
    tree = msgspec.structs.replace(make(Tree), id="tree1", nodes=tuple(nodes), problem=problem())
    said = [verified(f"{decision[0]}{i}", decision) for decision in ("kept", "rejected") for i in range(5)]
    panel = msgspec.structs.replace(make(Panel), id="panel1", path_id="pair1", problem_id="q1", composed=None)
    solved = dialogue((attempt(WRONG), told()), (attempt(RIGHT, "correct"), None), name="talk1")
    given_up = dialogue((attempt(WORSE), told("Hm.", step=None)), (attempt(), None), name="talk2", ended="max_rounds")
    rows = {
        "trees": [("tree1", tree)],
        "pairs": [("pair1", refused())],
        "dialogues": [("talk1", solved), ("talk2", given_up)],
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
        ("talk1", "dialogues"),
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


def history(out, wanted: str) -> str:
    terminal = io.StringIO()
    print_history(Console(file=terminal, width=140), out, wanted)
    return "\n".join(line.rstrip() for line in terminal.getvalue().splitlines())


def test_a_history_goes_from_the_problem_to_the_verification(out):
    printed = history(out, "k0")
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


def test_the_history_of_a_dialogue_has_its_turns_and_no_other_dialogue_or_path(out):
    printed = history(out, "talk1")
    assert "Tree tree1" in printed
    assert (
        """
Dialogue talk1, feedback: teacher  <- the id you gave
  Round 0, attempt: wrong, answer 19
    Step 1: 7 + 8 = 14
    Step 2: 14 + 5 = 19
    Answer: 19
  Feedback by giver-model: names step 1
    Look at step 1.
  Round 1, attempt: right, answer 20
    Step 1: 7 + 8 = 15
    Step 2: 15 + 5 = 20
    Answer: 20
  Ended: solved

Rejected or failed
"""
        in printed
    )
    assert "talk2" not in printed
    assert "Path " not in printed


def test_a_problem_and_its_tree_have_all_their_dialogues_and_a_path_has_none(out):
    for wanted in ("q1", "tree1"):
        printed = history(out, wanted)
        assert printed.index("Dialogue talk1") < printed.index("Dialogue talk2") < printed.index("Path pair1")
        assert "Feedback by giver-model: names no step\n    Hm." in printed
        assert "It stayed wrong: too_hard\n  Ended: max_rounds" in printed
    for wanted in ("pair1", "c-k0", "k0"):
        assert "Dialogue" not in history(out, wanted)


def test_a_dialogue_says_what_was_masked_and_what_was_not_decided():
    again = told("The solution is right, it is [masked].", step=None, right=True, masked=("19", "nineteen"))
    by_rule = told("The answer is wrong.", step=None, by_model=False)
    stuck = msgspec.structs.replace(attempt(("Hm. " * 300,), "unscored"), unscored_reason="no_answer")
    talk = dialogue((attempt(), again), (attempt(), by_rule), (stuck, None), ended="leaks_answer", leak="it is 20")
    terminal = io.StringIO()
    print_dialogue(Console(file=terminal, width=1_000), talk)
    lines = [line.strip() for line in terminal.getvalue().splitlines()]
    told_lines = [line for line in lines if not line.startswith(("Step", "Answer"))]
    assert told_lines == [
        "Round 0, attempt: wrong, answer 19",
        "Feedback by giver-model: says that nothing is wrong",
        "The solution is right, it is [masked].",
        "masked: 19, nineteen",
        "Round 1, attempt: wrong, answer 19",
        "It stayed wrong: wrong_feedback",
        "Feedback: names no step",
        "The answer is wrong.",
        "Round 2, attempt: unscored: no_answer, no answer",
        "Hm. " * 150 + "\N{HORIZONTAL ELLIPSIS}",  # 600 characters.
        "Ended: leaks_answer",
        "gives the answer away: it is 20",
    ]


def test_what_a_checker_said_stands_beside_a_node_in_short_and_beside_its_path_whole(out):
    said = "Error:\n  expected 20,\tgot 19 " + "x" * 300
    end = Node(parent=0, step="Answer: 19", depth=1, kind="terminal", answer="19", outcome="incorrect", message=said)
    tree = msgspec.structs.replace(make(Tree), nodes=(Node(parent=-1, step="", depth=0, kind="root"), end))
    terminal = io.StringIO()
    Console(file=terminal, width=1_000).print(draw_tree(tree, None))
    (line,) = [line for line in terminal.getvalue().splitlines() if "Answer: 19" in line]
    short = "Error: expected 20, got 19 " + "x" * 173  # 27 and 173 are 200 characters.
    assert line.rstrip() == f"└── Answer: 19  wrong  the checker: {short}\N{HORIZONTAL ELLIPSIS}"
    assert "The checker said: line 1:\n    19 is not 20\n" in history(out, "pair1")


def test_a_history_of_a_row_that_never_became_a_tree(out):
    printed = history(out, "row-9")
    assert "ReadProblems: bad_row" in printed
    assert "Tree" not in printed

"""`wrongturn show` of a row for trainers: what it holds, what it was made of, and which turn of a tree is marked."""

import io
import json

import msgspec
import pytest
from rich.console import Console

from annotators.claim_rows import claim_rows
from annotators.critique_rows import critique_rows
from annotators.exports import ExportSettings
from annotators.judge_rows import reflected_rows, tree_judge_rows
from annotators.path_rows import path_rows, tree_rows
from pipelines.drawing import draw_tree
from pipelines.history import print_history
from pipelines.shards import all_shards, write_shard
from pipelines.show import Choice, show
from pipelines.show_rows import Made, ends_of, made_of
from schemas import Node, PathPair, Record, Rejection, Tree, digest
from schemas.arrow import CONFIGS, to_row
from tests.annotators.annotated import alone, critique, pair
from tests.annotators.made_dialogues import RIGHT, WRONG, attempt, dialogue, dialogue_rows, told
from tests.annotators.made_exports import CONTEXT, examined, interval, verified
from tests.hostile.test_pages import books
from tests.pipelines.made_records import make

ONE, FIFTEEN, TWENTY = "Step 1: 7 + 8 = 14\n", "Step 1: 7 + 8 = 15\n", "Step 2: 15 + 5 = 20\n"


def grown() -> Tree:
    """Nodes 1, 2, 3 are right; 1, 4, 5 go wrong at 4; 6, 7 go wrong at 6."""
    parents = (-1, 0, 1, 2, 1, 4, 0, 6)
    steps = ("", FIFTEEN, TWENTY, "Answer: 20", "Step 2: 15 + 5 = 21\n", "Answer: 21", ONE, "Answer: 14")
    outcomes = {"Answer: 20": "correct", "Answer: 21": "incorrect", "Answer: 14": "incorrect"}
    nodes = [
        Node(parent=parent, step=step, depth=0, kind="terminal" if step in outcomes else "step" if step else "root",
             outcome=outcomes.get(step))
        for parent, step in zip(parents, steps, strict=True)
    ]  # fmt: skip
    return msgspec.structs.replace(make(Tree), id="tree1", nodes=tuple(nodes), problem=pair().problem)


def placed(path: PathPair, prefix: tuple[int, ...], wrong: tuple[int, ...], right: tuple[int, ...]) -> PathPair:
    """The pair in these nodes of the tree."""
    return msgspec.structs.replace(
        path,
        prefix_nodes=prefix,
        wrong=msgspec.structs.replace(path.wrong, nodes=wrong),
        right=msgspec.structs.replace(path.right, nodes=right),
    )


LATE = placed(
    pair(
        name="late",
        prefix=(FIFTEEN,),
        wrong=("Step 2: 15 + 5 = 21\n", "Answer: 21"),
        right=(TWENTY, "Answer: 20"),
        first_error=1,
    ),
    (1,),
    (4, 5),
    (2, 3),
)
NOW = placed(pair(name="now", wrong=(ONE, "Answer: 14"), right=(FIFTEEN, TWENTY, "Answer: 20")), (), (6, 7), (1, 2, 3))
HELPED = [
    verified(critique(LATE, agent=agent, wrong=1, text=f"{agent} says that step 2 is wrong."), LATE, correct=correct,
             refinement="Again.\nAnswer: 20", wrong="Again.\nAnswer: 21", reasons=reasons)
    for agent, correct, reasons in (("anna", 8, ()), ("bert", 0, ("hurts",)))
]  # fmt: skip
TALK = dialogue((attempt(WRONG), told()), (attempt(RIGHT, "correct"), None), name="talk")
THIS = "the row was made of this"
ALL = ExportSettings(
    refine_turns=True, feedback="both_marked", judge=("pointwise", "pairwise", "reflected"), max_length_ratio=9
)
CLAIMS = ExportSettings(rl="claims")


def made(row: Record) -> Made | None:
    return made_of(row.id, to_row(row), (LATE, NOW, alone()), HELPED, (TALK,))


@pytest.mark.parametrize("path", [LATE, NOW, alone()], ids=lambda path: path.id)
def test_a_row_of_a_path_is_known_by_it(path):
    rows = list(path_rows(path, ExportSettings(), CONTEXT, interval))
    assert len(rows) == (4 if path.has_error else 2)
    assert [made(row) for row in rows] == [Made(path_id=path.id, marks={path.id: THIS})] * len(rows)


@pytest.mark.parametrize("item", HELPED, ids=lambda item: item.critique.agent)
def test_a_row_of_a_critique_is_known_by_it(item):
    seen = examined(LATE, item)
    rows = [*critique_rows(seen, ALL, CONTEXT), *reflected_rows(seen, ALL, CONTEXT)]
    rows += claim_rows(seen, CLAIMS, CONTEXT, interval)
    # sft, two of refine, judge, two claims; the kept one's second solution as turns too.
    assert len(rows) == (7 if item.decision == "kept" else 6)
    expected = Made(path_id="late", marks={item.id: THIS, item.critique.id: THIS})
    assert [made(row) for row in rows] == [expected] * len(rows)


def test_a_preference_is_known_by_both_of_its_critiques():
    (row,) = (row for row in critique_rows(examined(LATE, *HELPED), ALL, CONTEXT) if hasattr(row, "margin"))
    assert made(row) == Made(
        path_id="late",
        marks={
            "verified-late-anna": "chosen in the row",
            "late-anna": "chosen in the row",
            "verified-late-bert": "rejected in the row",
            "late-bert": "rejected in the row",
        },
    )


def test_a_row_of_a_dialogue_is_known_by_it():
    rows = list(dialogue_rows(TALK, ("refine_chat", "refine", "distill", "feedback"), ExportSettings(), CONTEXT))
    assert len(rows) == 4
    assert [made(row) for row in rows] == [Made(dialogue_id="talk", marks={"talk": THIS})] * 4


def test_a_row_of_a_tree_is_known_by_where_its_solutions_end():
    rows = list(tree_judge_rows(grown(), ALL, CONTEXT))
    assert {(row.kind, row.label): ends_of(to_row(row), grown()) for row in rows} in (
        {("pointwise", "correct"): (3,), ("pointwise", "incorrect"): (end,), ("pairwise", "first"): (3, end),
         ("pairwise", "second"): (end, 3)}
        for end in (5, 7)
    )  # fmt: skip
    for row in rows:
        path = {(1, 4, 5): "late", (6, 7): "now", (1, 2, 3): "alone1"}.get(row.origin.node_ids, "")
        assert made(row) == Made(path_id=path, marks={path: "the row's solution"} if path else {})
    assert ends_of(to_row(rows[0]), msgspec.structs.replace(grown(), id="another")) == ()
    assert ends_of(None, grown()) == ()


def test_what_was_left_out_is_known_by_the_id_that_it_would_have():
    known = made_of(digest("sft", "verified-late-anna"), None, (LATE,), HELPED, ())
    assert known is not None
    assert known.path_id == "late"
    assert made_of("row-9", None, (LATE,), HELPED, ()) is None


# In the terminal.


def lines_of(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines()]


def marked(text: str) -> list[str]:
    """What is said beside steps of trees, by step."""
    found = [line.strip("│├└─ ") for line in text.splitlines() if line[:1] in "│├└ " and "<- " in line and "──" in line]
    return [line.partition("  <- ")[0] + "|" + line.partition("  <- ")[2] for line in found]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    rows: dict[str, list[Record]] = {name: [] for name in CONFIGS}
    rows["trees"], rows["pairs"], rows["alone"], rows["dialogues"] = [grown()], [LATE, NOW], [alone()], [TALK]
    rows["verified"], rows["critiques"] = list(HELPED), [item.critique for item in HELPED]
    config_of = {record: name for name, record in CONFIGS.items()}
    made_rows = [row for path in (LATE, NOW) for row in path_rows(path, ALL, CONTEXT, interval)]
    made_rows += critique_rows(examined(LATE, *HELPED), ALL, CONTEXT)
    made_rows += [*tree_judge_rows(grown(), ALL, CONTEXT), *tree_rows(grown(), CLAIMS, CONTEXT, interval)]
    made_rows += dialogue_rows(TALK, ("distill",), ExportSettings(), CONTEXT)
    for row in made_rows:
        rows[config_of[type(row)]].append(row)
    for shard in all_shards([0], 1):
        here = [(row.id, row) for row in rows[shard.config]] if shard.split == "train" else []
        if shard.config == "rejections" and shard.split == "train":
            left = Rejection(
                stage="ReadProblems", key="q9", problem_id="q9", reason="contaminated", detail="file: of t:3"
            )
            here = [("q9", left)]
        write_shard(folder, shard, here)
    return folder


def history(out, wanted: str) -> str:
    terminal = io.StringIO()
    print_history(Console(file=terminal, width=160), out, wanted)
    return terminal.getvalue()


def test_a_row_comes_first_with_its_columns_then_the_one_path_that_it_was_made_of(out):
    row_id = digest("sft", "verified-late-anna")
    printed = history(out, row_id)
    lines = lines_of(printed)
    assert lines[1:8] == [
        f"Row {row_id} of sft  <- the id you gave",
        "  prompt, user:",
        "    Criticise.",
        "    Calculate 7 + 8 + 5.",
        "    Step 1: 7 + 8 = 15",
        "    Step 2: 15 + 5 = 21",
        "    Answer: 21",
    ]
    order = [
        "  completion, assistant:",
        "    anna says that step 2 is wrong.",
        "  messages: prompt and completion once more",
        "  label: incorrect",
        "  first_error: 1 (step 2)",
        "  view: blind",
        "  with_critique: 8 of 8 right",
        "  with_placebo: 1 of 8 right",
        "  without_critique: 0 of 7 right, 1 unscored",
        "  decision: kept",
        "  empty: reasons",
        "  origin: problem q1, tree tree1, nodes 1, 4, 5",
        "Problem q1, from tests, checked as math",
        "Path late, wrong; rule deepest_fork, p = 0.001",
        "Critique late-anna by anna, view blind: incorrect, names step 2  <- the row was made of this",
        "Critique late-bert by bert, view blind: incorrect, names step 2",
        "Verification of late-anna by anna: kept  <- the row was made of this",
        "Verification of late-bert by bert: rejected",
        "Rows for trainers",
        f"  sft {row_id}  <- the id you gave",
    ]
    places = [lines.index(line) for line in order]
    assert places == sorted(places)
    assert marked(printed) == [
        "Step 2: 15 + 5 = 21|the wrong turn",
        "Answer: 21  wrong|the row comes of this solution",
    ]
    assert not [line for line in lines if line.startswith(("Path now", "Path alone1", "Dialogue"))]


def test_a_preference_says_which_critique_is_which(out):
    printed = history(out, digest("critique_dpo", "verified-late-anna", "verified-late-bert"))
    assert "Verification of late-anna by anna: kept  <- chosen in the row" in printed
    assert "Verification of late-bert by bert: rejected  <- rejected in the row" in printed
    lines = lines_of(printed)
    assert lines.index("  chosen, assistant:") < lines.index("  rejected, assistant:") < lines.index("  margin: 1")
    assert "  chosen_message: chosen once more" in lines


def test_a_row_of_step_labels_has_a_label_at_each_step(out):
    lines = lines_of(history(out, digest("prm", "late", LATE.steps)))
    assert lines[2] == "  prompt: Calculate 7 + 8 + 5."
    assert lines[3].startswith("  completions, step 1 (labels: True, holds; estimates: ")
    wrong = "labels: False, from the first wrong step on; estimates: 0 of 8 right; posterior:"
    assert lines[4:9] == [
        "    Step 1: 7 + 8 = 15",
        f"  completions, step 2 ({wrong} 1.00):",
        "    Step 2: 15 + 5 = 21",
        f"  completions, step 3 ({wrong} 0.00):",
        "    Answer: 21",
    ]


def test_a_row_of_two_solutions_has_the_tree_alone(out):
    row = next(row for row in tree_judge_rows(grown(), ALL, CONTEXT) if row.kind == "pairwise")
    printed = history(out, row.id)
    assert [mark.partition("|")[2] for mark in marked(printed)] == ["the row comes of this solution"] * 2
    assert "Answer: 20  right|the row comes of this solution" in marked(printed)
    assert not [line for line in lines_of(printed) if line.startswith(("Path", "Critique", "Dialogue"))]


def test_a_row_of_a_solution_that_is_a_path_has_that_path(out):
    row = next(row for row in tree_judge_rows(grown(), ALL, CONTEXT) if row.origin.node_ids == (1, 2, 3))
    printed = history(out, row.id)
    assert marked(printed) == ["Answer: 20  right|the row comes of this solution"]
    assert [line for line in lines_of(printed) if line.startswith("Path")] == [
        "Path alone1, right  <- the row's solution"
    ]


def test_a_row_of_a_dialogue_has_that_dialogue_and_no_path(out):
    printed = history(out, digest("distill", "talk", 0))
    assert "Dialogue talk, feedback: teacher  <- the row was made of this" in printed
    assert "  task: solve" in lines_of(printed)
    assert not [line for line in lines_of(printed) if line.startswith("Path")]


# Which turn is marked.


def drawn(*paths: PathPair | None) -> list[str]:
    terminal = io.StringIO()
    Console(file=terminal, width=160).print(draw_tree(grown(), *paths))
    return marked(terminal.getvalue())


def test_of_several_paths_each_turn_says_whose_it_is():
    assert drawn(None) == []
    assert drawn(NOW) == ["Step 1: 7 + 8 = 14|the wrong turn"]
    assert drawn(LATE, NOW) == [
        "Step 2: 15 + 5 = 21|the wrong turn of path late",
        "Step 1: 7 + 8 = 14|the wrong turn of path now",
    ]


def test_the_tree_below_critiques_has_the_turn_of_the_path_that_they_are_about(out, monkeypatch):
    monkeypatch.setattr("pipelines.show.read_books", lambda path: books())
    # Both pairs are of one tree, and the other one is the last of the table.
    for choice, expected in (
        (Choice(), ["Step 2: 15 + 5 = 21|the wrong turn"]),
        (
            Choice(tree="tree1"),
            ["Step 2: 15 + 5 = 21|the wrong turn of path late", "Step 1: 7 + 8 = 14|the wrong turn of path now"],
        ),
    ):
        terminal = io.StringIO()
        show(Console(file=terminal, width=160), str(out), choice=choice)
        assert marked(terminal.getvalue()) == expected
    terminal = io.StringIO()
    show(Console(file=terminal, width=160), str(out))
    assert "Tree tree1, of the path that critique late-anna is about" in terminal.getvalue()


@pytest.mark.parametrize(
    ("wanted", "turn"),
    [("late-anna", "Step 2: 15 + 5 = 21"), ("late", "Step 2: 15 + 5 = 21"), ("now", "Step 1: 7 + 8 = 14")],
)
def test_the_history_of_a_path_or_a_critique_marks_its_turn(out, wanted, turn):
    assert marked(history(out, wanted)) == [f"{turn}|the wrong turn"]


# What has no tree.


def read_from(out, problems: dict) -> str:
    (out / "run.json").write_text(json.dumps({"config": {"problems": problems}}))
    printed = history(out, "q9")
    (out / "run.json").unlink()
    return " ".join(printed.split())


def test_the_question_of_what_was_left_out_is_read_again_or_said_where_it_stands(out, tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps({"id": "q9", "question": "How many eggs?", "answer": "3"}) + "\n")
    settings = {"kind": "file", "path": str(file), "columns": {"question": "question", "answer": "answer", "id": "id"}}
    printed = read_from(out, settings)
    assert "Problem q9, from p.jsonl, checked as math How many eggs? Right answer: 3" in printed
    assert f"(as it stands now in problems.path={file}; here no question is kept" in printed
    assert "ReadProblems: contaminated (file: of t:3) <- the id you gave" in printed
    file.unlink()
    printed = read_from(out, settings)
    assert "There is no tree of q9, and without one its question is not kept here; it stands in what" in printed
    assert f"it stands in what the run read, problems.path={file}. Below stands why" in printed
    assert "read, problems.dataset=org/name." in read_from(out, {"kind": "hub", "dataset": "org/name"})
    assert "read, the source of its problems." in " ".join(history(out, "q9").split())

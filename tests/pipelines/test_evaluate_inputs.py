"""Labelled solutions from files and from a run's own split: what is read, and what is refused with which words."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from annotators.leaks import find_leak_in
from pipelines.errors import UserError
from pipelines.evaluate.inputs import Source, read_sources
from pipelines.main import main
from pipelines.shards import all_shards, write_shard
from tests.annotators.annotated import alone, pair, problem
from tests.annotators.made_dialogues import RIGHT, attempt, dialogue, told

STEPS = ["We have 3 apples and get 4.", "That makes 8.", "So it is 8"]
GOOD = {"id": "p-0", "problem": "3 apples and 4 more?", "steps": STEPS, "label": 1, "final_answer_correct": False}
REAL = {
    "idx": 4,
    "question": "3 apples and 4 more?",
    "gt": "7",
    "reasoning": "We add.\n\n3 + 4 = 8\n\nThe answer is 8.",
    "previous_score": [False],
}


def write(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def read(*paths: Path, **more) -> tuple[Source, ...]:
    return read_sources([str(path) for path in paths], **({"split": "validation", "limit": None, "seed": 0} | more))


def test_a_row_of_processbench(tmp_path):
    right = GOOD | {"id": "p-1", "label": -1, "final_answer_correct": True}
    lucky = GOOD | {"id": "p-2", "final_answer_correct": True, "answer": 7}
    (source,) = read(write(tmp_path / "bench.jsonl", [GOOD, right, lucky]))
    assert (source.name, source.format, source.num_rows) == ("bench", "processbench", 3)
    first, second, third = source.solutions
    assert (first.id, first.label, first.first_error, first.is_located) == ("p-0", "incorrect", 1, True)
    assert (second.label, second.first_error, second.first_outcome) == ("correct", None, "correct")
    assert (first.first_outcome, first.has_gold) == ("incorrect", False)
    # A wrong step may end in a right answer.
    assert (third.label, third.first_outcome, third.path.problem.answer) == ("incorrect", "correct", "7")
    assert [step.strip() for step in first.path.steps] == STEPS


def test_steps_do_not_run_into_each_other(tmp_path):
    # "So it is 8" and "1 more" would read 81, and a critique that says 81 would not leak.
    row = GOOD | {"steps": ["So it is 8", "1 more"], "label": 0, "answer": "81"}
    (source,) = read(write(tmp_path / "bench.jsonl", [row]))
    assert "81" in find_leak_in("The total should be 81.", source.solutions[0].path)


def test_a_row_of_realcritic(tmp_path):
    choice = REAL | {"idx": 5, "gt": "C", "choices": {"text": ["7"], "label": ["C"]}, "previous_score": [True]}
    (source,) = read(write(tmp_path / "real.jsonl", [REAL, choice]))
    first, second = source.solutions
    assert source.format == "realcritic"
    assert first.path.steps == ("We add.\n\n", "3 + 4 = 8\n\n", "The answer is 8.")
    assert (first.id, first.label, first.is_located, first.first_error) == ("4", "incorrect", False, None)
    assert (first.path.problem.answer, first.path.problem.domain) == ("7", "math")
    assert (second.label, second.first_outcome, second.path.problem.domain) == ("correct", "correct", "choice")


def test_the_same_rows_in_every_format(tmp_path):
    plain = {name: value for name, value in GOOD.items() if name != "final_answer_correct"}
    lines = write(tmp_path / "a.jsonl", [plain])
    (tmp_path / "b.json").write_text(json.dumps([plain]))
    pq.write_table(pa.Table.from_pylist([plain | {"more": 1.5}]), tmp_path / "c.parquet")
    (tmp_path / "d.json").write_text(lines.read_text())
    sources = read(lines, *(tmp_path / name for name in ("b.json", "c.parquet", "d.json")))
    texts = {(source.solutions[0].label, source.solutions[0].path.steps) for source in sources}
    assert len(texts) == 1


def test_real_files_are_read_whole(shared_data):
    files = sorted((shared_data / "realcritic").glob("*.jsonl")) + sorted(
        (shared_data / "processbench").glob("*.jsonl")
    )
    sources = read(*files)
    for source, file in zip(sources, files, strict=True):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        assert source.num_rows == len(rows) == len(source.solutions)
        if source.format == "realcritic":
            right = [row["previous_score"] == [True] for row in rows]
            assert [item.label == "correct" for item in source.solutions] == right
            assert ["".join(item.path.steps) for item in source.solutions] == [row["reasoning"] for row in rows]
        else:
            assert [item.first_error for item in source.solutions] == [row["label"] for row in rows]
    assert {source.format for source in sources} == {"realcritic", "processbench"}
    assert {s.name: s.solutions[0].path.problem.domain for s in sources}["realcritic/arc-challenge"] == "choice"


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([GOOD, GOOD | {"id": "q", "label": 3}], r"bench\.jsonl line 2: label is 3, expected a step 0\.\.2 or -1"),
        ([GOOD | {"label": True}], "label is True, expected a step"),
        ([GOOD | {"label": None}], "no label, expected id, problem, steps, label in every row"),
        ([GOOD | {"steps": []}], r"steps is \[\], expected a list of texts"),
        ([GOOD | {"steps": "one two"}], "steps is 'one two', expected a list of texts"),
        ([GOOD | {"problem": "  "}], "problem is '  ', expected text"),
        ([GOOD, GOOD], "has the id 'p-0' in two rows"),
        ([GOOD, 7], "a JSON int, expected an object"),
        ([REAL | {"previous_score": [True, False]}], "expected true or false, or a list of one"),
        ([REAL | {"previous_score": 1}], "previous_score is 1, expected true or false"),
        ([{"question": "?", "answer": "7"}], r"it has the columns answer, question, expected id, problem, steps"),
        ([], "is empty; give a file with labelled solutions"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_what_it_should_be_is_refused(tmp_path, rows, complaint):
    with pytest.raises(UserError, match=complaint):
        read(write(tmp_path / "bench.jsonl", rows))


def test_broken_json_names_its_line(tmp_path):
    file = write(tmp_path / "bench.jsonl", [GOOD])
    file.write_text(file.read_text() + "{broken\n")
    with pytest.raises(UserError, match=r"bench\.jsonl line 2: .*expected one JSON object"):
        read(file)


def test_what_is_no_file_of_rows_is_refused(tmp_path):
    (tmp_path / "solutions.txt").write_text("step by step")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"its ending tells no format, expected one of \.jsonl"):
        read(tmp_path / "solutions.txt")
    with pytest.raises(UserError, match="is no folder of a run: it has no validation files of pairs and alone"):
        read(tmp_path / "folder")
    with pytest.raises(UserError, match="no file or folder at"):
        read(tmp_path / "nothing.jsonl")


def test_files_of_equal_names_are_told_apart(tmp_path):
    for name in ("gsm8k", "math"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "test.jsonl", [REAL])
    paths = [tmp_path / name / "test.jsonl" for name in ("gsm8k", "math")]
    assert [source.name for source in read(*paths)] == ["gsm8k/test", "math/test"]
    assert [source.name for source in read(paths[0])] == ["test"]
    with pytest.raises(UserError, match="is given twice"):
        read(paths[0], tmp_path / "math" / ".." / "gsm8k" / "test.jsonl")


def test_control_characters_stay_in_no_text(tmp_path):
    (source,) = read(write(tmp_path / "bench.jsonl", [GOOD | {"problem": "3\u0000 apples\ud800?"}]))
    assert source.solutions[0].path.problem.question == "3\ufffd apples\ufffd?"


# A run's own split.


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """Tables of a run with a pair and a right path in validation, and another pair in train."""
    folder = tmp_path_factory.mktemp("run")
    rows = {
        ("pairs", "validation"): [("pair1", pair(first_error=1))],
        ("alone", "validation"): [("alone1", alone(problem(name="q2")))],
        ("pairs", "train"): [("pair2", pair(problem(name="q3"), name="pair2"))],
    }
    for shard in all_shards([0], 1):
        write_shard(folder, shard, rows.get((shard.config, shard.split), []))
    return folder


def test_a_runs_split_with_labels_places_and_gold_answers(out):
    (source,) = read(out)
    assert (source.name, source.format, source.num_rows) == (out.name, "run", 2)
    wrong, right = source.solutions
    assert wrong.path == pair(first_error=1)
    assert (wrong.label, wrong.first_error, wrong.first_outcome, wrong.has_gold) == ("incorrect", 1, "incorrect", True)
    assert (right.label, right.first_error, right.first_outcome) == ("correct", None, "correct")


def test_another_split_and_one_without_rows(out, tmp_path):
    assert [item.id for item in read(out, split="train")[0].solutions] == ["pair2"]
    for shard in all_shards([0], 1):
        write_shard(tmp_path, shard, [])
    with pytest.raises(UserError, match="no labelled solution in the split 'validation'; make a larger run"):
        read(tmp_path)


def test_what_is_read_names_the_bytes(out, tmp_path):
    (first,) = read(out)
    for shard in all_shards([0], 1):
        rows = [("pair9", pair(name="pair9"))] if (shard.config, shard.split) == ("pairs", "validation") else []
        write_shard(tmp_path, shard, rows)
    assert read(tmp_path)[0].digest != first.digest == read(out)[0].digest


@pytest.fixture
def talked(tmp_path) -> Path:
    """Tables of a run that held a dialogue and gave no solution to a critic."""
    folder = tmp_path / "talked"
    rows = {("dialogues", "train"): [("d1", dialogue((attempt(), told()), (attempt(RIGHT, "correct"), None)))]}
    for shard in all_shards([0], 1):
        write_shard(folder, shard, rows.get((shard.config, shard.split), []))
    return folder


def test_of_a_run_that_held_dialogues_its_own_figures_are_printed(talked, tmp_path, capsys):
    out = tmp_path / "evaluation"
    assert main(["evaluate", str(talked), "engine=scripted", f"out={out}"]) == 0
    shown = capsys.readouterr().out
    assert "Dialogues by round" in shown
    assert "Dialogues by feedback" in shown
    assert "No critic was asked" in shown
    assert not out.exists()
    with pytest.raises(UserError, match="has dialogues and no solution for a critic; give it without other inputs"):
        read(talked, write(tmp_path / "bench.jsonl", [GOOD]))


def test_a_runs_own_figures_stand_beside_the_critics(out, talked, tmp_path, capsys):
    both = tmp_path / "both"
    shutil.copytree(out, both)
    shutil.copytree(talked / "dialogues", both / "dialogues", dirs_exist_ok=True)
    words = ["--critic", "always-first", "--no-refine", f"out={tmp_path / 'evaluation'}"]
    assert main(["evaluate", str(both), *words]) == 0
    shown = capsys.readouterr().out
    assert shown.index("Dialogues by round") < shown.index("Verdicts and first errors")

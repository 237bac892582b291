"""Solutions from files: what each kind of row gives, what problem it belongs to, and where an unfit row ends."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mcts.given import GivenSettings
from mcts.settings import SearchSettings
from pipelines.config import compose
from pipelines.errors import UserError
from pipelines.problems import REASONS, FileProblems, read_problems
from pipelines.problems.given import Given, read_given
from pipelines.run import read_inputs
from schemas import Image, Problem, Solution

STEPS = ["3 apples and 4 more.", "That makes 8.", "Answer: 8"]
ROW = {"question": "3 apples and 4 more?", "answer": "7", "steps": STEPS, "label": 1}
LENT = Problem(
    id="p7", source="lender", domain="exact", question="3 apples, and 4 more", answer="seven", metadata='{"a": 1}'
)


def write(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def read(*paths: Path, lend=(), rule="marker", **given) -> Given:
    settings = GivenSettings(path=tuple(map(str, paths)), **given)
    return read_given(settings, SearchSettings(step_rule=rule), lend)


def solutions(given: Given) -> list[Solution]:
    return [solution for problem in given.problems for solution in given.solutions[problem.id]]


def of(tmp_path: Path, *rows: object, **more) -> Given:
    return read(write(tmp_path / "s.jsonl", list(rows)), **more)


def test_a_plain_row(tmp_path):
    given = of(tmp_path, ROW | {"id": 12, "model": "M"})
    (problem,) = given.problems
    assert (problem.question, problem.answer, problem.domain, problem.source) == (
        *(ROW["question"], "7", "math", "s.jsonl"),
    )
    (solution,) = solutions(given)
    assert (solution.id, solution.where, solution.author) == ("s.jsonl:12", "s.jsonl line 1", "M")
    # Steps of a list get the end that a step of the actor's has, but for the last.
    assert solution.steps == ("3 apples and 4 more.\n", "That makes 8.\n", "Answer: 8")
    assert (solution.first_error, solution.outcome) == (1, "unscored")


def test_what_may_be_left_out_and_other_names(tmp_path):
    bare = {"problem": "2 + 2?", "solution": "Step 1: 2 + 2 = 4\nAnswer: 4\n", "answer": 4}
    given = of(tmp_path, bare, domain="exact")
    assert [(problem.question, problem.answer, problem.domain) for problem in given.problems] == [
        ("2 + 2?", "4", "exact")
    ]
    (solution,) = solutions(given)
    assert solution.steps == ("Step 1: 2 + 2 = 4\n", "Answer: 4\n")
    assert (solution.id, solution.first_error, solution.author) == ("s.jsonl:1", None, "")


def test_a_whole_solution_is_cut_by_the_step_rule_and_labels_count_its_steps(tmp_path):
    text = "First.\n\nSecond.\n\nAnswer: 4"
    row = {"question": "2 + 2?", "answer": "4", "solution": text, "label": 1}
    (solution,) = solutions(of(tmp_path, row, rule="blank_line"))
    assert (solution.steps, solution.first_error) == (("First.\n\n", "Second.\n\n", "Answer: 4"), 1)
    (listed,) = solutions(of(tmp_path, ROW, rule="blank_line"))
    assert listed.steps == ("3 apples and 4 more.\n\n", "That makes 8.\n\n", "Answer: 8")


def test_the_same_rows_in_every_format(tmp_path):
    rows = [ROW, ROW | {"label": None, "answer": "7"}]
    lines = write(tmp_path / "a.jsonl", rows)
    (tmp_path / "b.json").write_text(json.dumps(rows))
    # As pandas writes whole numbers with a gap: 1.0 and NaN.
    floats = [ROW | {"label": 1.0}, ROW | {"label": float("nan")}]
    pq.write_table(pa.Table.from_pylist(floats), tmp_path / "c.parquet")
    for path in (lines, tmp_path / "b.json", tmp_path / "c.parquet"):
        assert [(s.steps, s.first_error) for s in solutions(read(path))] == [
            (solutions(of(tmp_path, ROW))[0].steps, label) for label in (1, None)
        ]


def test_solutions_of_one_question_belong_to_one_problem(tmp_path):
    given = of(tmp_path, ROW, ROW | {"question": "3 apples, and 4  more?", "answer": "7.0", "label": 0})
    assert len(given.problems) == 1
    assert [solution.first_error for solution in solutions(given)] == [1, 0]


def test_questions_of_programs_are_told_apart_to_the_letter(tmp_path):
    rows = [{"question": question, "answer": "assert f()", "steps": ["x"]} for question in ("Write f.", "Write F.")]
    assert len(of(tmp_path, *rows, domain="code").problems) == 2
    assert len(of(tmp_path, *rows, domain="exact").problems) == 1


def test_a_lender_gives_its_problem_as_it_is_and_the_rest_of_it_is_not_asked(tmp_path):
    other = Problem(id="p8", source="lender", domain="exact", question="Something else?", answer="no")
    bare = {name: value for name, value in ROW.items() if name != "answer"}
    given = of(tmp_path, bare, ROW | {"question": "2 + 2?", "answer": "4"}, lend=[LENT, other])
    assert given.problems[0] == LENT
    assert [problem.answer for problem in given.problems] == ["seven", "4"]
    assert list(given.solutions) == ["p7", given.problems[1].id]


def test_a_problems_id_lends_where_words_do_not_tell_pictures_apart(tmp_path):
    pictures = [Image(bytes=b"\x89PNG\r\n\x1a\n" + bytes([i]), media_type="image/png") for i in (1, 2)]
    shapes = [
        Problem(id=f"i{i}", source="s", domain="exact", question="How many?", answer=f"{i}", images=(picture,))
        for i, picture in enumerate(pictures)
    ]
    bare = {"question": "How many?", "steps": ["Answer: 1"]}
    given = of(tmp_path, bare | {"problem_id": "i1"}, bare, lend=shapes)
    assert given.problems == (shapes[1],)
    assert [(each.key, each.reason) for each in given.unread] == [("s.jsonl:2", "missing_answer")]


def test_a_lent_problem_that_asks_something_else_under_the_same_id_is_told_from_another_gold_answer(tmp_path):
    other = ROW | {"question": "2 + 2?", "problem_id": "p7", "answer": "seven"}
    contradicted = ROW | {"problem_id": "p7", "answer": "8"}
    given = of(tmp_path, ROW | {"answer": "seven"}, other, contradicted, lend=[LENT])
    assert [(each.key, each.reason) for each in given.unread] == [
        ("s.jsonl:2", "other_question"), ("s.jsonl:3", "gold_contradicted"),
    ]  # fmt: skip
    assert "problem_id 'p7' is that of another question, '3 apples, and 4 more'" in given.unread[0].detail
    assert "other_question" in REASONS


PROCESSBENCH = {
    "id": "gsm8k-0",
    "generator": "Qwen2-7B-Instruct",
    "problem": ROW["question"],
    "steps": STEPS,
    "final_answer_correct": False,
    "label": 1,
}


def test_processbench_needs_gold_answers_lent(tmp_path):
    with pytest.raises(UserError, match=r"holds no usable row among 1 \(1 missing_answer\); first: s.jsonl line 1"):
        of(tmp_path, PROCESSBENCH)
    given = of(tmp_path, PROCESSBENCH, lend=[LENT])
    (solution,) = solutions(given)
    assert (solution.id, solution.author, solution.outcome) == ("s.jsonl:gsm8k-0", "Qwen2-7B-Instruct", "incorrect")
    assert solution.first_error == 1


def test_realcritic(tmp_path):
    row = {"question": "3 + 4?", "gt": "7", "reasoning": "We add.\n\nThe answer is 8.", "previous_score": [False]}
    choice = row | {"question": "Which?", "gt": "C", "choices": ["7", "8"], "previous_score": True, "model": "M"}
    given = of(tmp_path, row, choice, rule="blank_line")
    assert [problem.domain for problem in given.problems] == ["math", "choice"]
    first, second = solutions(given)
    assert (first.steps, first.first_error, first.outcome) == (("We add.\n\n", "The answer is 8."), None, "incorrect")
    assert (second.outcome, second.author) == ("correct", "M")


def rated(*texts: tuple[str, int | None]) -> list[dict[str, object]]:
    return [{"text": text, "rating": rating, "flagged": False} for text, rating in texts]


def record(
    steps: list[tuple[list[dict[str, object]] | None, object, int | None]], **question: object
) -> dict[str, object]:
    turns = [
        {"completions": completions, "human_completion": human, "chosen_completion": chosen}
        for completions, human, chosen in steps
    ]
    return {
        "labeler": "l",
        "is_quality_control_question": False,
        "question": {"problem": "3 + 4?", "ground_truth_answer": "7"} | question,
        "label": {"steps": turns, "finish_reason": "solution"},
    }


def test_phase_one_of_prm800k_gives_every_whole_way(tmp_path):
    (human,) = rated(("We add.", None))
    row = record(
        [
            (rated(("Hm.", -1), ("Well.", 0)), human, None),
            (rated(("3 + 4 = 7.", 1), ("3 + 4 = 8.\n\n# Answer\n\n8", -1)), None, 0),
            (rated(("So 7.\n\n# Answer\n\n7", 1), ("Or so.", 1), ("No: 9.\n\n# Answer\n\n9", -1)), None, 0),
        ]
    )
    found = {solution.steps: solution.first_error for solution in solutions(of(tmp_path, row, rule="blank_line"))}
    # A wrong step that no answer follows is no solution, and neither is `Or so.`
    assert found == {
        ("We add.\n\n", "3 + 4 = 8.\n\nAnswer: 8"): 1,
        ("We add.\n\n", "3 + 4 = 7.\n\n", "So 7.\n\nAnswer: 7"): -1,
        ("We add.\n\n", "3 + 4 = 7.\n\n", "No: 9.\n\nAnswer: 9"): 2,
    }


def test_phase_two_of_prm800k_is_about_the_solution_written_beforehand(tmp_path):
    written = ["We add.", "3 + 4 = 8.", "# Answer\n\n8"]
    ok, wrong = (rated(("We add.", 1)), None, 0), (rated(("3 + 4 = 8.", -1), ("3 + 4 = 7.", 1)), None, None)
    right = (rated(("3 + 4 = 8.", 0)), None, 0), (rated(("# Answer\n\n8", 1)), None, 0)
    for steps, label in [([ok, wrong], 1), ([ok, *right], -1), ([ok], None)]:
        (solution,) = solutions(of(tmp_path, record(steps, pre_generated_steps=written), rule="blank_line"))
        assert (solution.steps, solution.first_error) == (("We add.\n\n", "3 + 4 = 8.\n\n", "Answer: 8"), label)


def test_records_of_prm800k_without_a_whole_solution_or_an_answer(tmp_path):
    good = record([(rated(("# Answer\n\n7", 1)), None, 0)])
    given_up = record([(rated(("We add.", 1)), None, 0), (None, None, None)])
    no_gold = record([(rated(("# Answer\n\n7", 1)), None, 0)], problem="5 + 5?", ground_truth_answer=None)
    given = of(tmp_path, good, given_up, no_gold, good | {"label": {"steps": 7}})
    assert len(solutions(given)) == 1
    assert [each.reason for each in given.unread] == ["no_solution", "missing_answer", "bad_solution"]
    assert "Expected `array`, got `int` - at `$.steps`" in given.unread[-1].detail


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        (7, "not_an_object", "a JSON int, expected an object"),
        (ROW | {"question": None}, "missing_question", "no question|problem, expected"),
        (ROW | {"question": " "}, "question_not_text", "question is ' ', expected text"),
        (ROW | {"steps": None}, "no_solution", "no steps|solution, expected"),
        (ROW | {"steps": "one"}, "bad_solution", "steps is 'one', expected a list of texts"),
        (ROW | {"steps": ["one", " "]}, "bad_solution", "step 1 is ' ', expected text in every step"),
        (ROW | {"label": 3}, "bad_label", "label is 3, expected a step 0..2 or -1"),
        (ROW | {"label": -2}, "bad_label", "label is -2"),
        (ROW | {"label": 0.5}, "bad_label", "label is"),
        (ROW | {"label": True}, "bad_label", "label is True"),
        (ROW | {"label": float("inf")}, "bad_label", "label is inf"),
        (ROW | {"answer": None, "question": "Else?"}, "missing_answer", "no gold answer, and none is lent"),
        (ROW | {"answer": [1]}, "answer_not_scalar", "'answer' is [1]"),
        (ROW | {"answer": "8"}, "gold_contradicted", "the gold answer is '8', and '7' in an earlier row"),
        (ROW | {"id": "first"}, "duplicate_id", "id 'first' was already at s.jsonl line 1"),
        (ROW | {"question": "x" * 20_001}, "question_too_long", "20001 characters"),
    ],
)  # fmt: skip
def test_an_unfit_row_is_rejected_with_file_and_line_and_the_others_are_read(tmp_path, row, reason, detail):
    given = of(tmp_path, ROW | {"id": "first"}, row, ROW | {"id": "last"})
    assert len(solutions(given)) == 2
    (rejection,) = given.unread
    assert (rejection.stage, rejection.reason) == ("ReadProblems", reason)
    assert rejection.detail.startswith("s.jsonl line 2: ")
    assert detail in rejection.detail
    assert reason in REASONS


def test_broken_lines_and_control_characters(tmp_path):
    path = write(tmp_path / "s.jsonl", [ROW | {"steps": ["a\u0000b", "Answer: 7"]}])
    path.write_text("{broken\n" + path.read_text())
    given = read(path)
    assert solutions(given)[0].steps[0] == "a\ufffdb\n"
    assert [(each.key, each.reason) for each in given.unread] == [("s.jsonl:1", "bad_json")]


def test_files_of_one_name_are_told_apart(tmp_path):
    paths = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        paths.append(write(tmp_path / name / "s.jsonl", [ROW | {"question": f"{name}?"}]))
    given = read(*paths)
    assert [solution.id for solution in solutions(given)] == ["a/s.jsonl:1", "b/s.jsonl:1"]
    with pytest.raises(UserError, match=r"paths\.path: a file is given twice"):
        read(paths[0], tmp_path / "b" / ".." / "a" / "s.jsonl")


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("none.jsonl", None, r"paths\.path: no file at '.*none\.jsonl'; correct paths\.path"),
        ("s.txt", "x", r"paths\.path: .*its ending tells no format, expected one of \.jsonl"),
        ("s.jsonl", "", r"paths\.path: .* is empty"),
        ("s.jsonl", '{"question": "?", "answer": "7"}\n', r"it has the columns answer, question, expected"),
        ("s.csv", "question,solution\n?,7\n", "its ending tells no format"),
        ("s.jsonl", "{broken\n", r"s\.jsonl line 1: .*; correct the row"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_as_a_whole_is_one_line_that_names_the_setting(tmp_path, name, text, complaint):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=complaint) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_questions_of_test_sets_take_their_solutions_with_them(tmp_path):
    path = write(tmp_path / "s.jsonl", [ROW, ROW, ROW | {"question": "What is 2 + 2?", "answer": "4"}])
    write(tmp_path / "test.jsonl", [{"question": ROW["question"]}])
    inputs = read_inputs(compose(["paths=given", f"paths.path={path}", f"hygiene.test_sets=[{tmp_path}/test.jsonl]"]))
    assert [problem.question for problem in inputs.problems] == ["What is 2 + 2?"]
    assert [len(found) for found in inputs.solutions.values()] == [1]
    (rejection,) = inputs.unread
    assert rejection.reason == "contaminated"
    assert rejection.detail.endswith("; 2 solutions")


# Real files.


def test_all_rows_of_processbench_with_the_labels_of_people(shared_data):
    files = [shared_data / "processbench" / f"{name}.jsonl" for name in ("gsm8k", "math")]
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    lend = [
        Problem(id=f"{i}", source="s", domain="math", question=question, answer="0")
        for i, question in enumerate(dict.fromkeys(row["problem"] for row in rows))
    ]
    found = {solution.id.partition(":")[2]: solution for solution in solutions(read(*files, lend=lend))}
    assert len(found) == len(rows) == 400
    for row in rows:
        solution = found[row["id"]]
        assert [step.strip() for step in solution.steps] == [step.strip() for step in row["steps"]]
        assert (solution.first_error, solution.author) == (row["label"], row["generator"])
        assert solution.outcome == ("correct" if row["final_answer_correct"] else "incorrect")


def test_gsm8k_lends_processbench_its_answers(shared_data):
    settings = FileProblems(path=str(shared_data / "gsm8k" / "test.jsonl"), answer_pattern="#### (.+)$")
    given = read(shared_data / "processbench" / "gsm8k.jsonl", lend=read_problems(settings))
    file = (shared_data / "gsm8k" / "test.jsonl").read_text().splitlines()
    questions = {"".join(json.loads(line)["question"].split()) for line in file}
    rows = [json.loads(line) for line in (shared_data / "processbench" / "gsm8k.jsonl").read_text().splitlines()]
    shared = [row for row in rows if "".join(row["problem"].split()) in questions]
    assert len(solutions(given)) >= len(shared) > 50
    assert len(solutions(given)) + len(given.unread) == 200
    assert {problem.source for problem in given.problems} == {"test.jsonl"}


def test_the_records_of_prm800k(shared_data):
    # By hand: whole ways of the six records, of which one was given up and one has no gold answer.
    given = read(shared_data / "prm800k" / "records.jsonl", rule="blank_line")
    found = [(solution.id.partition(":")[2], solution.first_error) for solution in solutions(given)]
    assert found == [
        *(("1/1", -1), ("1/2", -1)),
        ("2", 6),
        *(("3/1", -1), ("3/2", -1), ("3/3", -1), ("3/4", -1)),
        ("4", -1),
    ]
    assert [(each.key, each.reason) for each in given.unread] == [
        ("records.jsonl:5", "no_solution"),
        ("records.jsonl:6", "missing_answer"),
    ]
    assert [problem.answer for problem in given.problems] == ["29", "28800", "468", "9"]


def test_all_rows_of_realcritic(shared_data):
    files = sorted((shared_data / "realcritic").glob("*.jsonl"))
    given = read(*files, rule="blank_line")
    assert len(files) == 7
    assert len(solutions(given)) == 7 * 60
    assert given.unread == ()

"""Modes of `wrongturn evaluate`: whose solutions, how many rounds; figures against what the world is set to."""

import json
from pathlib import Path

import pytest

from pipelines.engines.simulated import SimulatedSettings, make_problem
from pipelines.engines.simulated.world import parse_question, word_step
from pipelines.evaluate.inputs import one_a_problem, read_sources
from pipelines.main import main
from tests.pipelines import evaluate_rules
from tests.pipelines.test_evaluate import SCRIPTED, row, write

NUM_PROBLEMS = 120
CRITIC, ERROR, STEPS = 0.7, 0.2, 3
WORLD = (
    *("engine=simulated", "engine.world.recovery=0", "engine.world.follow=1", "runner.checker_processes=1"),
    f"engine.world.critic_accuracy={CRITIC}",
)
NO_SLIPS = ("engine.world.error_low=0", "engine.world.error_high=0")
SLIPS = (f"engine.world.error_low={ERROR}", f"engine.world.error_high={ERROR}")
# What a critic does that is not right: on a right solution it invents an error, and the actor that follows it gives the
# solution up. On a wrong one it misses the error, names another place, or the right place with a false claim: a third
# each, and only the last has the actor do the wrong step again.
GIVEN_UP = 1 - CRITIC
PUT_RIGHT = CRITIC + (1 - CRITIC) / 3
FOUND = CRITIC + (1 - CRITIC) * 2 / 3


def solution(question: str, wrong_at: int | None) -> list[str]:
    """A solution in words; from the step `wrong_at` on its values are off by one."""
    chain = parse_question(question)
    steps, value = [], chain.start
    for i, (operator, operand) in enumerate(chain.operations):
        expression = (value, operator, operand)
        value = {"+": value + operand, "-": value - operand, "*": value * operand}[operator] + (i == wrong_at)
        steps.append(word_step(i + 1, expression, value))
    return [*steps, f"Answer: {value}"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """Every other solution goes wrong at its second step."""
    world, rows = SimulatedSettings(min_steps=STEPS, max_steps=STEPS), []
    for i in range(NUM_PROBLEMS):
        problem, wrong_at = make_problem(7, i, world), 1 if i % 2 else None
        label = {"label": -1 if wrong_at is None else wrong_at, "final_answer_correct": wrong_at is None}
        steps = solution(problem.question, wrong_at)
        rows.append({"id": problem.id, "problem": problem.question, "steps": steps, "answer": problem.answer} | label)
    return write(tmp_path_factory.mktemp("inputs") / "chains.jsonl", rows)


def evaluated(out: Path, *words: object) -> dict:
    assert main(["evaluate", *map(str, words), f"out={out}"]) == 0
    found: dict = json.loads((out / "evaluation.json").read_text())
    return found


def holds(figure: dict, truth: float) -> bool:
    return bool(figure["low"] <= truth <= figure["high"])


def test_rounds_go_where_the_worlds_rates_lead(inputs, tmp_path, capsys):
    found = evaluated(tmp_path / "out", inputs, *WORLD, *NO_SLIPS, "--mode", "iterative")
    assert (found["mode"], found["rounds"]) == ("iterative", 3)
    (file,) = found["files"]
    assert [item["round"] for item in file["rounds"]] == [1, 2, 3]
    right = 0.5
    for item in file["rounds"]:
        right = right * (1 - GIVEN_UP) + (1 - right) * PUT_RIGHT
        assert holds(item["right"], right), item["round"]
        assert holds(item["gain"], right - 0.5), item["round"]
        assert holds(item["figures"]["correct_to_incorrect"], GIVEN_UP), item["round"]
        assert holds(item["figures"]["incorrect_to_correct"], PUT_RIGHT), item["round"]
        assert sum(item["transitions"].values()) == NUM_PROBLEMS
    assert file["rounds"][0]["figures"] == file["figures"]
    printed = " ".join(capsys.readouterr().out.split())
    assert "Round by round, with 95% intervals" in printed
    rows = [json.loads(line) for line in (tmp_path / "out" / "evaluation.jsonl").read_text().splitlines()]
    assert len(rows) == 3 * NUM_PROBLEMS
    first, second, third = rows[:3]
    assert (first["solution"], first["is_located"], second["is_located"]) == ("", True, False)
    assert second["first_outcome"] == first["second_outcomes"][0]
    assert third["first_outcome"] == second["second_outcomes"][0]
    assert second["solution"].startswith("Step 1")


def test_cross_asks_what_one_critique_each_asks_and_tells_it_by_round(inputs, tmp_path):
    journal = f"journal={tmp_path / 'journal.sqlite'}"
    single = evaluated(tmp_path / "single", inputs, *WORLD, *NO_SLIPS, journal)
    cross = evaluated(tmp_path / "cross", inputs, *WORLD, *NO_SLIPS, journal, "--mode", "cross")
    (one,), (other,) = single["files"], cross["files"]
    assert (one["rounds"], one["figures"]) == ([], other["figures"])
    (only,) = other["rounds"]
    assert only["right"] == one["figures"]["after"]
    assert only["gain"]["value"] == one["figures"]["delta"]["value"]


def test_in_self_the_actors_own_solutions_are_criticised(inputs, tmp_path):
    found = evaluated(tmp_path / "out", inputs, *WORLD, *SLIPS, "--mode", "self")
    (file,) = found["files"]
    figures = file["figures"]
    assert holds(figures["solved"], (1 - ERROR) ** STEPS)
    # A right solution is given up or kept as it is; what is put right goes on with slips of its own.
    assert holds(figures["correct_to_incorrect"], GIVEN_UP)
    assert figures["incorrect_to_correct"]["value"] < PUT_RIGHT
    assert holds(figures["verdict_on_wrong"], FOUND)
    assert holds(figures["verdict_on_right"], CRITIC)
    # Nobody says where an own solution goes wrong.
    assert (figures["exact"]["value"], figures["on_correct"]["value"]) == (None, None)
    rows = [json.loads(line) for line in (tmp_path / "out" / "evaluation.jsonl").read_text().splitlines()]
    assert {each["own_outcome"] == each["first_outcome"] == each["label"] for each in rows} == {True}
    assert all(each["solution"] for each in rows)


def test_in_criticbench_the_same_problems_are_solved_criticised_and_corrected(inputs, tmp_path, capsys):
    found = evaluated(tmp_path / "out", inputs, *WORLD, *SLIPS, "--mode", "criticbench")
    (file,) = found["files"]
    figures = file["figures"]
    assert file["rounds"] == []
    assert holds(figures["solved"], (1 - ERROR) ** STEPS)
    # Half of the solutions are wrong: FOUND of them are named, and 1 - CRITIC of the right ones as well.
    assert holds(figures["verdict_f1"], 2 * FOUND / (FOUND + 1 + (1 - CRITIC)))
    # The wrong step is the second of three: once it is mended one more can go wrong.
    put_right = PUT_RIGHT * (1 - ERROR)
    assert holds(figures["after"], ((1 - GIVEN_UP) + put_right) / 2)
    assert "Generation, critique, correction" in capsys.readouterr().out


# With a scripted critic and actor, whose every word is known.


@pytest.fixture(autouse=True)
def _seen(monkeypatch):
    monkeypatch.setattr(evaluate_rules, "SEEN", [])
    monkeypatch.setattr(evaluate_rules, "DOWN", [])


def rows_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "evaluation.jsonl").read_text().splitlines()]


def owning(name: str, own: str, **words: str) -> dict:
    made = row(name, -1, "1", "wrong", **words)
    return made | {"problem": f"{made['problem']} own {own}"}


def test_each_problem_is_solved_once_and_what_nobody_can_score_is_not_criticised(tmp_path):
    right, silent = owning("a", "right"), owning("b", "silent")
    without = {name: value for name, value in owning("c", "right").items() if name != "answer"}
    file = write(tmp_path / "own.jsonl", [right, right | {"id": "a2"}, silent, without])
    found = evaluated(tmp_path / "out", file, *SCRIPTED, "--mode", "self")
    (figures,) = found["files"]
    assert figures["num_evaluated"] == 3
    assert figures["unread"] == {"solution_unscored": 1, "no_gold_answer": 1}
    assert figures["figures"]["solved"]["counts"] == {"correct": 1, "scored": 1, "unscored": 1}
    # Two solutions, one critique, one correction.
    assert len(evaluate_rules.SEEN) == 4
    (given_up, *_) = rows_of(tmp_path / "out")
    assert (given_up["solution"], given_up["second_outcomes"]) == ("Step 1: so\nAnswer: 41", ["incorrect"])


def test_a_round_without_a_critique_is_a_solutions_last(tmp_path):
    file = write(tmp_path / "mute.jsonl", [row("a", 0, "nothing", "right"), row("b", 0, "1", "right")])
    found = evaluated(tmp_path / "out", file, *SCRIPTED, "--mode", "cross", "--rounds", 2)
    assert [(each["id"], each["round"]) for each in rows_of(tmp_path / "out")] == [("a", 1), ("b", 1), ("b", 2)]
    first, second = found["files"][0]["rounds"]
    assert first["right"]["counts"] == second["right"]["counts"] == {"correct": 1, "scored": 1, "unscored": 1}


def test_a_round_asks_anew_also_with_the_same_words(tmp_path):
    # The second solution is the first one again, so that all that follows is asked in the same words.
    file = write(
        tmp_path / "again.jsonl", [row("a", -1, "none", "right") | {"steps": ["Step 1: again\n", "Answer: 41"]}]
    )
    evaluated(tmp_path / "out", file, *SCRIPTED, "--mode", "iterative")
    assert len(evaluate_rules.SEEN) == 6
    assert len(set(evaluate_rules.SEEN)) == 2


def test_in_criticbench_a_question_is_solved_once(tmp_path):
    file = write(tmp_path / "twice.jsonl", [owning("a", "wrong"), owning("a", "wrong") | {"id": "a2"}])
    found = evaluated(tmp_path / "out", file, *SCRIPTED, "--mode", "criticbench")
    assert found["files"][0]["figures"]["solved"]["counts"] == {"correct": 0, "scored": 1, "unscored": 0}
    assert [each["own_outcome"] for each in rows_of(tmp_path / "out")] == ["incorrect", None]


def test_a_solution_that_failed_in_any_round_is_in_no_figure_and_is_tried_again(tmp_path):
    file = write(tmp_path / "down.jsonl", [row("a", 0, "1", "right")])
    journal = f"journal={tmp_path / 'j.sqlite'}"
    evaluated(tmp_path / "first", file, *SCRIPTED, "--mode", "cross", journal)
    evaluate_rules.DOWN.append(True)
    words = ["evaluate", str(file), *SCRIPTED, "--mode", "iterative", journal, f"out={tmp_path / 'out'}"]
    assert main(words) == 3
    (figures,) = json.loads((tmp_path / "out" / "evaluation.json").read_text())["files"]
    assert (figures["num_evaluated"], figures["num_failed"], figures["rounds"]) == (1, 1, [])
    evaluate_rules.DOWN.clear()
    assert main(words) == 0


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--rounds", "2"), "--rounds 2 goes with --mode self, cross or iterative, not single"),
        (("--mode", "criticbench", "--rounds", "2"), "not criticbench"),
        (("--mode", "iterative", "--rounds", "1"), "needs --rounds of at least 2"),
        (("--mode", "iterative", "--samples", "2"), "goes on from one second solution"),
        (("--mode", "self", "--no-refine"), "--mode self is about second solutions"),
        (("--mode", "cross", "--rounds", "0"), "--rounds must be at least 1, got 0"),
        (("--mode", "self", "--critic", "contrastive"), "no_other_solution"),
        (
            ("--mode", "self", "+engines.judge={kind: scripted, rule: 'tests.engines.contract:spell'}",
             "panel.agents=[{name:judge,engine:judge}]"),
            "critic 'judge' is on engine 'judge', not on the actor's",
        ),
    ],
)  # fmt: skip
def test_what_a_mode_cannot_is_one_line_and_code_2(tmp_path, capsys, words, complaint):
    file = write(tmp_path / "table.jsonl", [row("a", 0, "1", "right")])
    assert main(["evaluate", str(file), *SCRIPTED, *words, f"out={tmp_path / 'out'}"]) == 2
    assert complaint in " ".join(capsys.readouterr().err.split())
    assert not evaluate_rules.SEEN


@pytest.mark.parametrize("mode", ["self", "cross", "iterative", "criticbench"])
def test_modes_check_answers_and_so_need_some(tmp_path, capsys, mode):
    without = {name: value for name, value in row("a", 0, "1", "right").items() if name != "answer"}
    file = write(tmp_path / "table.jsonl", [without])
    assert main(["evaluate", str(file), *SCRIPTED, "--mode", mode, f"out={tmp_path / 'out'}"]) == 2
    assert f"--mode {mode} checks answers, and no solution comes with a gold answer" in capsys.readouterr().err


def test_of_each_question_one_solution_is_left_without_its_steps(tmp_path):
    file = write(
        tmp_path / "two.jsonl", [owning("a", "right"), owning("a", "right") | {"id": "a2"}, owning("b", "right")]
    )
    (source,) = read_sources([str(file)], split="validation", limit=None, seed=0)
    left = one_a_problem(source)
    assert [item.id for item in left.solutions] == ["a", "b"]
    assert {item.path.steps for item in left.solutions} == {()}
    assert left.num_rows == 3

"""`wrongturn evaluate` end to end, in this process: a scripted critic and actor whose every word is known."""

import json
import shutil
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from pipelines.engines.base import Usage
from pipelines.evaluate.critics import BASELINES
from pipelines.journal import Journal
from pipelines.main import main
from tests.pipelines import evaluate_rules
from tests.pipelines.evaluate_rules import GOLD

SCRIPTED = ("engine=scripted", "engine.rule=tests.pipelines.evaluate_rules:told")
STEPS = ["We begin.", "We go on.", "We end."]


def row(name: str, label: int, say: str, then: str, tell: str = "little", **more) -> dict:
    """A solution in ProcessBench's columns whose problem says what the critic names and how the second one ends."""
    problem = f"Number {name}: say {say}, tell {tell}, then {then}."
    is_right = {"final_answer_correct": label == -1, "answer": GOLD}
    return {"id": name, "problem": problem, "steps": STEPS, "label": label} | is_right | more


# The table of tests/annotators/test_evaluation.py: labels from 0, what critics say from 1.
TABLE = [
    row("a", -1, "none", "right"),
    row("b", -1, "1", "wrong"),
    row("c", -1, "none", "silent"),
    row("d", 1, "2", "right"),
    row("e", 1, "1", "right", tell="all"),
    row("f", 2, "1", "wrong"),
    row("g", 0, "none", "wrong"),
    row("h", 0, "nothing", "right"),
]


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(f"{json.dumps(each)}\n" for each in rows))
    return path


@pytest.fixture(autouse=True)
def _seen(monkeypatch):
    monkeypatch.setattr(evaluate_rules, "SEEN", [])
    monkeypatch.setattr(evaluate_rules, "DOWN", [])


@pytest.fixture
def evaluate(tmp_path, capsys):
    """Runs the command; gives its exit code, what it printed, and the one line that it complained with."""

    def command(*words: object, out: str = "figures") -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["evaluate", *map(str, words), f"out={tmp_path / out}"])
        printed = capsys.readouterr()
        return code, " ".join(printed.out.split()), printed.err.strip()

    return command


def figures(out: Path) -> dict:
    return json.loads((out / "evaluation.json").read_text())


def rows(out: Path) -> dict[str, dict]:
    lines = (out / "evaluation.jsonl").read_text().splitlines()
    return {found["id"]: found for found in map(json.loads, lines)}


def values(of: dict) -> dict[str, float | None]:
    return {name: figure["value"] for name, figure in of.items()}


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """An evaluation over the table; look, never touch."""
    folder = tmp_path_factory.mktemp("done")
    file = write(folder / "table.jsonl", TABLE)
    assert main(["evaluate", str(file), *SCRIPTED, f"out={folder / 'out'}"]) == 0
    return folder / "out"


def test_figures_are_those_of_the_table_by_hand(done):
    (file,) = figures(done)["files"]
    found = {name: figure["counts"] for name, figure in file["figures"].items() if figure["counts"]}
    assert found == {
        "solved": {"correct": 0, "scored": 0, "unscored": 0},
        "verdict": {"correct": 5, "scored": 7, "unscored": 1},
        "verdict_on_wrong": {"correct": 3, "scored": 4, "unscored": 1},
        "verdict_on_right": {"correct": 2, "scored": 3, "unscored": 0},
        "exact": {"correct": 1, "scored": 4, "unscored": 1},
        "within_1": {"correct": 2, "scored": 4, "unscored": 1},
        "on_correct": {"correct": 2, "scored": 3, "unscored": 0},
        "correct_to_incorrect": {"correct": 1, "scored": 2, "unscored": 1},
        "incorrect_to_correct": {"correct": 2, "scored": 4, "unscored": 1},
        "incorrect_to_correct_unleaked": {"correct": 1, "scored": 3, "unscored": 1},
        "before": {"correct": 2, "scored": 6, "unscored": 2},
        "after": {"correct": 3, "scored": 6, "unscored": 2},
        "leaks": {"correct": 1, "scored": 7, "unscored": 1},
    }
    assert file["figures"]["f1"]["value"] == pytest.approx(4 / 11)
    assert file["figures"]["delta"]["value"] == pytest.approx(1 / 6)
    known = {name: figure for name, figure in file["figures"].items() if figure["value"] is not None}
    assert file["figures"].keys() - known.keys() == {"solved"}
    assert all(figure["low"] <= figure["value"] <= figure["high"] for figure in known.values())


def test_what_is_in_no_rate_is_counted_with_its_reason(done):
    (file,) = figures(done)["files"]
    assert file["unread"] == {"no_json": 1}
    assert file["second_unscored"] == {"no_critique": 1, "no_answer": 1}
    assert (file["num_rows"], file["num_evaluated"], file["num_wrong"], file["num_failed"]) == (8, 8, 5, 0)


def test_there_is_a_row_a_solution(done):
    found = rows(done)
    assert list(found) == list("abcdefgh")
    assert (found["e"]["first_wrong_step"], found["e"]["label"], found["e"]["first_error"]) == (0, "incorrect", 1)
    assert GOLD in found["e"]["leak"]
    assert found["e"]["critique"].endswith("The first wrong step is step 1. The solution is incorrect.")
    assert (found["e"]["second_outcomes"], found["e"]["second_answers"]) == (["correct"], [GOLD])
    assert (found["h"]["state"], found["h"]["reason"], found["h"]["verdict"]) == ("unread", "no_json", None)
    assert Counter(each["leak"] != "" for each in found.values()) == {False: 7, True: 1}


def test_the_file_of_figures_says_who_was_asked_and_how(done):
    found = figures(done)
    assert (found["critic"], found["view"], found["mode"]) == ("blind_stepwise", "blind", "single")
    assert found["critic_model"]["model"] == found["actor_model"]["model"] == "tests.pipelines.evaluate_rules:told"
    assert found["critic_model"]["prompt_digest"] != found["actor_model"]["prompt_digest"]
    assert len(found["config_digest"]) == 32


def test_nobody_is_shown_the_gold_answer(tmp_path, evaluate):
    file = write(tmp_path / "rows.jsonl", [each for each in TABLE if each["id"] != "e"])
    assert evaluate(file, *SCRIPTED)[0] == 0
    assert len(evaluate_rules.SEEN) == 7 + 1 + 6  # The mute one is asked twice, and nothing is refined with it.
    assert not [prompt for prompt in evaluate_rules.SEEN if GOLD in prompt]


def paid(out: Path) -> Usage:
    journal = Journal(out / ".wrongturn" / "journal.sqlite")
    try:
        return sum(journal.ledger().values(), Usage())
    finally:
        journal.close()


def contents(out: Path) -> tuple[bytes, bytes]:
    return (out / "evaluation.json").read_bytes(), (out / "evaluation.jsonl").read_bytes()


def test_a_stopped_evaluation_goes_on_and_pays_for_nothing_twice(tmp_path, evaluate, done):
    file = write(tmp_path / "table.jsonl", TABLE)
    code, printed, _ = evaluate(file, *SCRIPTED, "budget.max_requests=6", "runner.max_in_flight=2")
    assert code == 4
    assert "budget.max_requests=6 is reached" in printed
    assert not (tmp_path / "figures" / "evaluation.json").exists()
    code, printed, _ = evaluate(file, *SCRIPTED)
    assert code == 0
    # Eight critiques and one more for what cannot be read, seven second solutions.
    assert paid(tmp_path / "figures").requests == 16
    assert "Paid: 10 requests" in printed
    assert contents(tmp_path / "figures") == contents(done)


def test_the_same_command_again_asks_nothing(tmp_path, evaluate):
    file = write(tmp_path / "table.jsonl", TABLE)
    assert evaluate(file, *SCRIPTED)[0] == 0
    before = contents(tmp_path / "figures")
    evaluate_rules.SEEN.clear()
    code, printed, _ = evaluate(file, *SCRIPTED)
    assert (code, evaluate_rules.SEEN) == (0, [])
    assert "Paid: nothing" in printed
    for name in ("COMPLETED", "evaluation.json", "evaluation.jsonl"):
        (tmp_path / "figures" / name).unlink()
    code, printed, _ = evaluate(file, *SCRIPTED)
    assert (code, evaluate_rules.SEEN) == (0, [])
    assert "Paid: 0 requests" in printed
    assert contents(tmp_path / "figures") == before


def test_solutions_that_failed_are_in_no_figure_and_are_tried_again(tmp_path, evaluate):
    file = write(tmp_path / "table.jsonl", TABLE)
    assert evaluate(file, *SCRIPTED, "--no-refine", f"journal={tmp_path / 'j.sqlite'}", out="first")[0] == 0
    # The critiques are known now; second solutions are not to be had.
    evaluate_rules.DOWN.append(True)
    code, printed, _ = evaluate(file, *SCRIPTED, f"journal={tmp_path / 'j.sqlite'}")
    assert code == 3
    (found,) = figures(tmp_path / "figures")["files"]
    assert (found["num_failed"], found["num_evaluated"]) == (7, 8)
    assert found["figures"]["verdict"]["counts"] == {"correct": 0, "scored": 0, "unscored": 1}
    assert not (tmp_path / "figures" / "COMPLETED").exists()
    assert "87.5% of the solutions failed (10.0% allowed)" in printed
    assert {each["reason"] for each in rows(tmp_path / "figures").values()} == {"EngineUnavailable", "no_json"}
    evaluate_rules.DOWN.clear()
    assert evaluate(file, *SCRIPTED, f"journal={tmp_path / 'j.sqlite'}")[0] == 0
    assert figures(tmp_path / "figures")["files"][0]["num_failed"] == 0
    assert (tmp_path / "figures" / "COMPLETED").exists()


def test_several_second_solutions_of_one_critique(tmp_path, evaluate):
    file = write(tmp_path / "half.jsonl", [row("a", 1, "2", "half"), row("b", -1, "none", "right")])
    assert evaluate(file, *SCRIPTED, "--samples", 4)[0] == 0
    (found,) = figures(tmp_path / "figures")["files"]
    assert found["figures"]["incorrect_to_correct"]["counts"] == {"correct": 2, "scored": 4, "unscored": 0}
    assert found["figures"]["correct_to_incorrect"]["counts"] == {"correct": 0, "scored": 4, "unscored": 0}
    assert len(rows(tmp_path / "figures")["a"]["second_outcomes"]) == 4


def test_without_refining_no_second_solution_is_asked_for(tmp_path, evaluate):
    file = write(tmp_path / "table.jsonl", TABLE)
    assert evaluate(file, *SCRIPTED, "--no-refine")[0] == 0
    assert len(evaluate_rules.SEEN) == 9
    found = figures(tmp_path / "figures")
    assert found["actor_model"] is None
    assert found["files"][0]["figures"]["after"]["value"] is None
    assert found["files"][0]["figures"]["leaks"]["counts"]["correct"] == 1


def test_without_gold_answers_there_are_no_second_solutions_and_no_leaks(tmp_path, evaluate):
    plain = [{name: value for name, value in each.items() if name != "answer"} for each in TABLE]
    assert evaluate(write(tmp_path / "plain.jsonl", plain), *SCRIPTED)[0] == 0
    found = values(figures(tmp_path / "figures")["files"][0]["figures"])
    assert (found["leaks"], found["after"], found["delta"]) == (None, None, None)
    assert found["exact"] == 0.25


def test_a_source_of_problems_lends_its_answers_to_the_same_questions(tmp_path, evaluate, done):
    plain = [{name: value for name, value in each.items() if name != "answer"} for each in TABLE]
    file = write(tmp_path / "table.jsonl", plain)
    # In other letters and with other spaces a question stays the same; one that comes with two answers lends none.
    asked = [{"question": f"  {each['problem'].upper()}", "answer": GOLD} for each in TABLE]
    problems = write(tmp_path / "problems.jsonl", [*asked, {"question": TABLE[0]["problem"], "answer": "40"}])
    lending = ("problems=file", f"problems.path={problems}")
    assert evaluate(file, *SCRIPTED, *lending)[0] == 0
    (found,), (whole,) = figures(tmp_path / "figures")["files"], figures(done)["files"]
    assert (found["num_gold"], whole["num_gold"]) == (7, 8)
    assert found["figures"]["incorrect_to_correct"] == whole["figures"]["incorrect_to_correct"]
    assert found["figures"]["correct_to_incorrect"]["counts"] == {"correct": 1, "scored": 1, "unscored": 1}
    code, _, said = evaluate(write(tmp_path / "known.jsonl", TABLE), *SCRIPTED, *lending, out="known")
    assert code == 2
    assert "none of its 8 questions is that of a solution without a gold answer" in said


def test_files_count_alike_in_the_mean(tmp_path, evaluate):
    first = write(tmp_path / "first.jsonl", [row("a", 0, "1", "right")] * 1 + [row("b", 1, "2", "right")])
    second = write(tmp_path / "second.jsonl", [row("a", 0, "2", "right")])
    code, printed, _ = evaluate(first, second, *SCRIPTED)
    assert code == 0
    found = figures(tmp_path / "figures")
    assert [file["name"] for file in found["files"]] == ["first", "second"]
    assert found["average"]["exact"]["value"] == 0.5
    assert "mean of inputs" in printed


def test_a_limit_takes_the_same_solutions_each_time_and_others_with_another_seed(tmp_path, evaluate):
    file = write(tmp_path / "many.jsonl", [row(f"r{i}", 0, "1", "right") for i in range(40)])
    taken = []
    for i, words in enumerate([(), (), ("seed=1",)]):
        assert evaluate(file, *SCRIPTED, "--limit", 5, "--no-refine", *words, out=f"out{i}")[0] == 0
        taken.append(list(rows(tmp_path / f"out{i}")))
    assert len(taken[0]) == 5
    assert taken[0] == taken[1] != taken[2]


# Critics that read nothing.


def test_a_critic_that_reads_nothing_needs_no_model(tmp_path, evaluate):
    file = write(tmp_path / "table.jsonl", TABLE)
    evaluate_rules.DOWN.append(True)
    for critic in ("always-none", "always-first", "always-last"):
        assert evaluate(file, *SCRIPTED, "--critic", critic, "--no-refine", out=critic)[0] == 0
    none, first, last = (
        values(figures(tmp_path / critic)["files"][0]["figures"])
        for critic in ("always-none", "always-first", "always-last")
    )
    # Three of eight are right; of the five wrong ones two begin at the first step, one at the last, two in between.
    assert (none["verdict"], none["exact"], none["within_1"], none["on_correct"], none["f1"]) == (3 / 8, 0, 0, 1, 0)
    assert (first["verdict"], first["exact"], first["within_1"], first["on_correct"]) == (5 / 8, 2 / 5, 4 / 5, 0)
    assert (last["exact"], last["within_1"], last["leaks"]) == (1 / 5, 3 / 5, 0)
    assert figures(tmp_path / "always-none")["critic_model"] is None


def test_an_actor_refines_with_what_such_a_critic_says_too(tmp_path, evaluate):
    file = write(tmp_path / "table.jsonl", TABLE)
    assert evaluate(file, *SCRIPTED, "--critic", "always-none")[0] == 0
    assert len(evaluate_rules.SEEN) == 8
    assert all("No step is wrong. The solution is correct." in prompt for prompt in evaluate_rules.SEEN)


@pytest.mark.parametrize("name", ["gsm8k", "math"])
@pytest.mark.parametrize("critic", ["always-none", "always-first"])
def test_figures_of_such_critics_on_processbench_are_those_of_its_labels(tmp_path, evaluate, shared_data, name, critic):
    file = shared_data / "processbench" / f"{name}.jsonl"
    assert evaluate(file, "--critic", critic)[0] == 0
    labels = [json.loads(line)["label"] for line in file.read_text().splitlines()]
    wrong = sum(label >= 0 for label in labels)
    (found,) = figures(tmp_path / "figures")["files"]
    counts = {name: figure["counts"] for name, figure in found["figures"].items()}
    if critic == "always-none":
        expected = {"verdict": labels.count(-1), "exact": 0, "within_1": 0, "on_correct": labels.count(-1)}
    else:
        near = labels.count(0) + labels.count(1)
        expected = {"verdict": wrong, "exact": labels.count(0), "within_1": near, "on_correct": 0}
    assert {name: counts[name]["correct"] for name in expected} == expected
    assert counts["verdict"]["scored"] == len(labels)
    assert counts["exact"]["scored"] == counts["within_1"]["scored"] == wrong
    assert counts["on_correct"]["scored"] == labels.count(-1)
    # Whoever always says the same gets no F1; where one kind of solutions is missing nobody has one.
    assert found["figures"]["f1"]["value"] == (0.0 if 0 < wrong < len(labels) else None)


# Who may be asked.


def test_any_agent_of_the_panel_can_be_the_critic(tmp_path, evaluate):
    file = write(tmp_path / "table.jsonl", TABLE)
    assert evaluate(file, *SCRIPTED, "panel=full", "--critic", "second_look", "--no-refine")[0] == 0
    found = figures(tmp_path / "figures")
    assert found["critic"] == "second_look"
    # It looks at blind_stepwise's critiques, which are asked for before.
    assert sum("First critique:" in prompt for prompt in evaluate_rules.SEEN) == 7
    assert found["files"][0]["unread"] == {"no_first_critique": 1}


def test_a_critic_that_is_to_see_the_gold_answer_is_asked_where_there_is_one(tmp_path, evaluate):
    agents = "panel.agents=[{name:seer,view:reference}]"
    without = {name: value for name, value in row("z", 0, "1", "right").items() if name != "answer"}
    file = write(tmp_path / "mixed.jsonl", [TABLE[0], without])
    assert evaluate(file, *SCRIPTED, agents, "--critic", "seer")[0] == 0
    assert figures(tmp_path / "figures")["files"][0]["unread"] == {"no_gold_answer": 1}
    code, _, complaint = evaluate(write(tmp_path / "none.jsonl", [without]), *SCRIPTED, agents, "--critic", "seer")
    assert code == 2
    assert "cannot be asked about any of the 1 solutions: no_gold_answer" in complaint


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--critic", "nobody"), "expected one of the panel (blind_stepwise, skeptic, contrastive) or one that reads"),
        (("--critic", "contrastive"), "no_other_solution; take a blind critic"),
        (("panel.agents=[{name:seer,view:reference}]",), "the panel has no blind critic; name one of seer"),
        (("--limit", "0"), "--limit must be at least 1, got 0"),
        (("--samples", "0"), "--samples must be at least 1, got 0"),
        (("dry_run=true",), "an evaluation has no dry run"),
        (("panel.nothing=1",), "panel.nothing"),
        (("missing.jsonl",), "no file or folder at 'missing.jsonl'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_and_code_2(tmp_path, evaluate, words, complaint):
    code, _, said = evaluate(write(tmp_path / "table.jsonl", TABLE), *SCRIPTED, *words)
    assert code == 2
    assert complaint in said
    assert not evaluate_rules.SEEN


def test_there_must_be_something_to_evaluate_on(evaluate):
    code, _, said = evaluate(*SCRIPTED)
    assert (code, "nothing to evaluate on" in said) == (2, True)


def test_an_evaluation_takes_no_dataset_away(tmp_path, evaluate, done):
    out = tmp_path / "data"
    shutil.copytree(done, out)
    (out / "sft").mkdir()
    (out / "sft" / "train-00000-of-00001.parquet").write_bytes(b"precious")
    code, _, said = evaluate(write(tmp_path / "table.jsonl", TABLE), *SCRIPTED, "seed=5", "replace=true", out="data")
    assert code == 2
    assert "holds a dataset" in said
    assert (out / "sft" / "train-00000-of-00001.parquet").exists()


def test_another_critic_needs_another_folder(tmp_path, evaluate):
    file = write(tmp_path / "table.jsonl", TABLE)
    assert evaluate(file, *SCRIPTED, "--no-refine")[0] == 0
    code, _, said = evaluate(file, *SCRIPTED, "--no-refine", "--critic", "skeptic")
    assert code == 2
    assert "choose another folder with out=DIR" in said


def test_settings_that_an_evaluation_does_not_use_are_no_part_of_it(tmp_path, evaluate):
    file = write(tmp_path / "table.jsonl", TABLE)
    assert evaluate(file, *SCRIPTED, "--no-refine")[0] == 0
    code, printed, _ = evaluate(file, *SCRIPTED, "--no-refine", "search.max_searches=7", "verify=default")
    assert (code, "Paid: nothing" in printed) == (0, True)


def test_what_anybody_wrote_steers_no_terminal(tmp_path, evaluate):
    name = "table\x1b[31m"
    file = write(tmp_path / f"{name}.jsonl", TABLE[:1])
    code, printed, _ = evaluate(file, *SCRIPTED, "--no-refine")
    assert code == 0
    assert "\x1b" not in printed
    assert msgspec.json.decode((tmp_path / "figures" / "evaluation.json").read_bytes())["files"][0]["name"] == name


def test_the_help_names_everybody_who_reads_nothing(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["evaluate", "--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert [name for name in BASELINES if name not in "".join(printed.split())] == []

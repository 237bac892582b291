"""`wrongturn evaluate` where the file does not say whether answers are right: they are checked, or it is said."""

import pytest

from pipelines.main import main
from tests.pipelines.evaluate_rules import GOLD
from tests.pipelines.test_evaluate import SCRIPTED, STEPS, TABLE, figures, rows, write


def unsaid(each: dict, last: str) -> dict:
    """The row in a file that does not say whether answers are right, its solution ending in these words."""
    row = {name: value for name, value in each.items() if name != "final_answer_correct"}
    return row | {"steps": [*STEPS, last]}


@pytest.fixture
def evaluate(tmp_path, capsys):
    """Runs the command over rows; gives the file's figures, what else stands there, and what was printed."""

    def command(table: list[dict], *words: str, out: str = "figures") -> tuple[dict, dict, str]:
        capsys.readouterr()
        file = write(tmp_path / "table.jsonl", table)
        assert main(["evaluate", str(file), *SCRIPTED, *words, f"out={tmp_path / out}"]) == 0
        found = figures(tmp_path / out)
        return found["files"][0], found, " ".join(capsys.readouterr().out.split())

    return command


def test_whether_an_answer_is_right_is_checked_where_the_file_does_not_say(tmp_path, evaluate):
    ends = {each["id"]: f"Answer: {GOLD if each['label'] == -1 else 40}" for each in TABLE} | {"g": "And so on."}
    found, _, printed = evaluate([unsaid(each, ends[each["id"]]) for each in TABLE])
    # As where the file says it (test_evaluate.py), but for g: nobody knows its answer, so it has no second one.
    assert {name: figure["counts"] for name, figure in found["figures"].items() if "_to_" in name} == {
        "correct_to_incorrect": {"correct": 1, "scored": 2, "unscored": 1},
        "incorrect_to_correct": {"correct": 2, "scored": 3, "unscored": 1},
        "incorrect_to_correct_unleaked": {"correct": 1, "scored": 2, "unscored": 1},
    }
    assert found["figures"]["before"]["counts"] == {"correct": 2, "scored": 5, "unscored": 2}
    assert found["figures"]["after"]["counts"] == {"correct": 3, "scored": 5, "unscored": 2}
    assert found["unrefined"] == {"no_answer": 1}
    first = {name: each["first_outcome"] for name, each in rows(tmp_path / "figures").items()}
    assert [name for name in "abcdefgh" if first[name] == "correct"] == ["a", "b", "c"]
    assert [name for name in "abcdefgh" if first[name] == "incorrect"] == ["d", "e", "f", "h"]
    said = "table: 1 of 8 solutions not refined: nobody says whether their answer is right, and the checker cannot: "
    assert f"{said}no_answer 1" in printed
    assert printed.count("not refined") == 1


def test_what_is_not_refined_is_counted_with_its_reason(evaluate):
    plain = [{name: value for name, value in unsaid(each, "So.").items() if name != "answer"} for each in TABLE[:2]]
    table = [*plain, unsaid(TABLE[2], "And so on.")]
    found, whole, printed = evaluate(table)
    assert whole["actor_model"] is None
    assert found["unrefined"] == {"no_gold_answer": 2, "no_answer": 1}
    assert "table: 2 of 3 solutions not refined: their gold answer is not known" in printed
    assert "table: 1 of 3 solutions not refined: nobody says whether their answer is right" in printed
    found, _, printed = evaluate(table, "--no-refine", out="not")
    assert "not refined" not in printed
    assert found["unrefined"] == {}


def test_where_everything_is_said_nothing_is_counted_so(evaluate):
    found, whole, printed = evaluate(TABLE)
    assert whole["actor_model"]["model"] == "tests.pipelines.evaluate_rules:told"
    assert (found["unrefined"], "not refined" in printed) == ({}, False)


def test_later_rounds_begin_with_what_the_checker_says_of_the_first(tmp_path, evaluate):
    found, _, _ = evaluate([unsaid(TABLE[3], "Answer: 40")], "--mode", "iterative", "--rounds", "2")
    assert found["rounds"][0]["transitions"]["incorrect_to_correct"] == 1
    assert found["rounds"][1]["transitions"]["correct_to_correct"] == 1
    assert found["unrefined"] == {}

"""The recipe critic_lean on the simulated world, a command deciding: a checker of a few lines, no Lean."""

import io
import json
import sys
from collections import Counter

import datasets
import pytest
from rich.console import Console

from pipelines.config import compose
from pipelines.errors import UserError
from pipelines.main import main
from pipelines.problems import SimulatedProblems, read_problems
from pipelines.run import Watcher, run
from pipelines.show import show

# What stands for a prover: says no with exit code 1, and breaks over every number that 5 divides.
CHECKER = """
import sys
said, meant = (open(path).read().strip() for path in sys.argv[1:])
if said.lstrip("-").isdigit() and int(said) % 5 == 0:
    sys.exit(70)
if said != meant:
    print(f"{said} is not what the problem says")
    sys.exit(1)
"""


@pytest.fixture
def words(tmp_path):
    """The command line of a run on problems whose answers a command decides about."""
    problems, checker = tmp_path / "problems.jsonl", tmp_path / "checker.py"
    checker.write_text(CHECKER)
    made = read_problems(SimulatedProblems(num_problems=16))
    rows = [{"id": each.id, "question": each.question, "answer": each.answer} for each in made]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        "recipe=critic_lean",
        "problems=file",
        f"problems.path={problems}",
        "problems.domain=command",
        "problems.columns.id=id",
        "engine=simulated",
        "search=default",
        "pairing=default",
        "export.validation_share=0.0",
        "runner.problems_per_shard=16",
        f"out={tmp_path / 'out'}",
        f"checker.command=[{sys.executable},-I,{checker},'{{solution}}','{{gold}}']",
    ]


def loaded(out, table):
    return datasets.load_dataset(str(out), table, split="train", cache_dir=str(out.parent / "cache")).to_list()


@pytest.mark.slow
def test_a_command_labels_and_what_it_cannot_decide_has_no_label(words, tmp_path):
    books = run(compose(words), Watcher()).books
    assert all(stage.balanced for stage in books.stages)
    outcomes = Counter()
    for tree in loaded(tmp_path / "out", "trees"):
        for node in tree["nodes"]:
            if node["kind"] != "terminal" or node["answer"] is None:
                continue
            broke = node["answer"].lstrip("-").isdigit() and int(node["answer"]) % 5 == 0
            right = node["answer"] == tree["problem"]["answer"]
            expected = ("unscored", "checker_failed") if broke else ("correct" if right else "incorrect", None)
            assert (node["outcome"], node["unscored_reason"]) == expected, node["answer"]
            outcomes[expected] += 1
            said = "" if right else f"{node['answer']} is not what the problem says"
            assert node["message"] == ("exit code 70:" if broke else said)
    assert len(outcomes) == 3
    sft, rl = loaded(tmp_path / "out", "sft"), loaded(tmp_path / "out", "rl")
    assert {row["label"] for row in rl} == {"correct", "incorrect"}
    # A wrong statement is one that was perturbed.
    assert {max(row["posterior"]) for row in rl if row["label"] == "incorrect"} == {1.0}
    assert sft
    for row in sft:  # Kept is what ends in the label.
        asked, said = (turn["content"] for turn in row["messages"])
        (label,) = {each["label"] for each in rl if each["solution"] in asked}
        assert said.rstrip().endswith(f"The solution is {label}."), said
    told = {row["path_id"]: row["saw_message"] for row in loaded(tmp_path / "out", "critiques")}
    wrong = {row["id"] for row in loaded(tmp_path / "out", "pairs")}
    assert told.keys() & wrong
    assert all(saw == (path in wrong) for path, saw in told.items())
    console = Console(file=io.StringIO(), width=200)
    show(console, str(tmp_path / "out"))
    assert "unscored: checker_failed" in console.file.getvalue()


def test_what_cannot_be_honoured_is_an_error_before_any_work(words, tmp_path, capsys):
    assert main(["run", *words[:-1]]) == 2
    assert "16 of 16 problems are of the domain command" in capsys.readouterr().err
    assert main(["run", *words[:-1], "checker.command=[no-such-prover,'{solution}']"]) == 2
    assert "there is no program 'no-such-prover'" in capsys.readouterr().err
    assert main(["run", *words[:-1], "checker.command=[cat]"]) == 2
    assert "no argument holds {solution}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_command_is_part_of_what_the_data_is_and_none_leaves_the_digest_alone(words):
    with_command = compose(words).config_digest()
    assert compose([*words, "checker.incorrect_exits=[1,70]"]).config_digest() != with_command
    assert compose([*words[:-1], "checker.cpu_secs=7"]).config_digest() == compose(words[:-1]).config_digest()


def test_a_command_comes_from_no_problem_file(words, tmp_path):
    (tmp_path / "problems.jsonl").write_text(
        json.dumps({"id": "p", "question": "?", "answer": "1", "checker": {"command": ["touch", "{solution}"]}}) + "\n"
    )
    with pytest.raises(UserError, match=r"checker\.command is empty"):
        run(compose(words[:-1]), Watcher())

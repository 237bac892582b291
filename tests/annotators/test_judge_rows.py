"""Judgements with known truth: what is asked, what is known, and how many of each there are."""

from collections import Counter
from importlib import resources

import msgspec
import pytest

from annotators.exports import ExportSettings
from annotators.judge_rows import reflected_rows, tree_judge_rows
from annotators.rewards import judgement_reward, read_judgement
from annotators.shard_rows import settled
from schemas import JudgeRow, Message, Template, Tree
from tests.annotators.annotated import alone, critique, pair, problem
from tests.annotators.made_exports import CONTEXT, FORKED, examined, named, tree, verified

TWO = tree(("correct", "20"), ("incorrect", "19"))
QUESTION = "Calculate 7 + 8 + 5."
RIGHT, WRONG = "Step 1: it is 20\nAnswer: 20", "Step 1: it is 19\nAnswer: 19"


def judgements(of: Tree, *kinds: str, per_problem: int = 8) -> list[JudgeRow]:
    return list(tree_judge_rows(of, ExportSettings(judge=kinds, judge_per_problem=per_problem), CONTEXT))


def test_no_judgement_is_written_unless_it_is_asked_for():
    assert judgements(TWO) == []
    assert judgements(TWO, "reflected") == []
    assert list(reflected_rows(examined(FORKED, verified(named("anna"), FORKED)), ExportSettings(), CONTEXT)) == []


def test_a_pointwise_row_asks_whether_one_solution_is_right():
    right, wrong = sorted(judgements(TWO, "pointwise"), key=lambda row: row.label)
    assert right.prompt == (Message(role="user", content=f"Right?\n{QUESTION}\n{RIGHT}"),)
    assert right.completion == (Message(role="assistant", content="The solution is correct."),)
    assert right.messages == right.prompt + right.completion
    assert (right.kind, right.label, right.group, right.origin.node_ids) == ("pointwise", "correct", right.id, (1, 2))
    assert wrong.prompt[0].content == f"Right?\n{QUESTION}\n{WRONG}"
    assert wrong.completion[0].content == "The solution is incorrect."
    assert (wrong.label, wrong.origin.node_ids) == ("incorrect", (3, 4))


def test_a_pairwise_row_is_there_in_both_orders():
    first, second = sorted(judgements(TWO, "pairwise"), key=lambda row: row.label)
    assert first.prompt[0].content == f"Which?\n{QUESTION}\n1:\n{RIGHT}\n2:\n{WRONG}"
    assert first.completion[0].content == "Solution 1 is better."
    assert (first.label, first.origin.node_ids) == ("first", (1, 2, 3, 4))
    assert second.prompt[0].content == f"Which?\n{QUESTION}\n1:\n{WRONG}\n2:\n{RIGHT}"
    assert second.completion[0].content == "Solution 2 is better."
    assert (second.label, second.origin.node_ids) == ("second", (3, 4, 1, 2))
    assert first.group == second.group
    assert first.id != second.id


def test_a_right_answer_behind_a_wrong_step_is_no_right_solution():
    nodes = list(TWO.nodes)
    nodes[1] = msgspec.structs.replace(nodes[1], flawed=True)
    lucky = msgspec.structs.replace(TWO, nodes=tuple(nodes))
    assert judgements(lucky, "pairwise") == []
    assert "correct" not in {row.label for row in judgements(lucky, "pointwise")}


def test_what_nobody_could_decide_is_in_no_row():
    grown = tree(("correct", "20"), ("unscored", "x"), ("incorrect", "19"), ("unscored", "y"))
    rows = judgements(grown, "pointwise", "pairwise")
    assert len(rows) == 4
    assert all("it is x" not in row.prompt[0].content for row in rows)
    assert judgements(tree(("correct", "20"), ("unscored", "x")), "pointwise", "pairwise") == []


MANY = tree(*[("correct", f"20.{i}") for i in range(6)], *[("incorrect", str(i)) for i in range(9)])


def test_labels_are_balanced_and_bounded_within_a_problem():
    rows = judgements(MANY, "pointwise", "pairwise")
    assert Counter((row.kind, row.label) for row in rows) == {
        ("pointwise", "correct"): 4,
        ("pointwise", "incorrect"): 4,
        ("pairwise", "first"): 4,
        ("pairwise", "second"): 4,
    }
    # A solution is in one pair only, which has both orders.
    assert set(Counter(row.group for row in rows if row.kind == "pairwise").values()) == {2}
    assert set(Counter(row.origin.node_ids[1] for row in rows if row.kind == "pairwise").values()) == {1}
    assert len(judgements(MANY, "pointwise", per_problem=2)) == 2
    # There are six right ones only, so that twelve of twenty are to be had.
    assert Counter(row.label for row in judgements(MANY, "pointwise", per_problem=20)) == {"correct": 6, "incorrect": 6}


def test_which_solutions_are_taken_is_told_by_digests_and_not_by_their_order():
    taken = {row.id for row in judgements(MANY, "pointwise", per_problem=2)}
    assert taken == {row.id for row in judgements(MANY, "pointwise", per_problem=2)}
    places = {
        row.origin.node_ids[1]
        for i in range(20)
        for row in judgements(msgspec.structs.replace(MANY, id=f"t{i}"), "pointwise", per_problem=2)
    }
    assert len(places) > 4


def reflections(*cases, **settings) -> list[JudgeRow]:
    chosen = ExportSettings(judge=("reflected",), **settings)
    rows = [row for case in cases for row in reflected_rows(case, chosen, CONTEXT)]
    return [row for _, row in settled([(row.id, row) for row in rows], (), chosen)]


def test_a_reflected_row_is_a_solution_with_a_critique_beside_it():
    said = critique(FORKED, wrong=1, text="Step 2 is wrong.")
    (row,) = reflected_rows(examined(FORKED, verified(said, FORKED)), ExportSettings(judge=("reflected",)), CONTEXT)
    assert row.prompt[0].content == (
        f"Right?\n{QUESTION}\nStep 1: 7 + 8 = 15\nStep 2: 15 + 5 = 21\nStep 3: hm\nAnswer: 21\nSaid:\nStep 2 is wrong."
    )
    assert (row.kind, row.label, row.completion[0].content) == ("reflected", "incorrect", "The solution is incorrect.")
    assert row.origin.critic.model == "anna-model"


def test_a_critique_that_errs_is_beside_a_solution_too():
    misled = verified(critique(FORKED, wrong=None, text="All is well."), FORKED, reasons=("wrong_verdict",))
    (row,) = reflected_rows(examined(FORKED, misled), ExportSettings(judge=("reflected",)), CONTEXT)
    assert (row.label, "All is well." in row.prompt[0].content) == ("incorrect", True)


def test_a_critique_that_gives_the_answer_away_is_beside_none():
    settings = ExportSettings(judge=("reflected",))
    told = verified(named("anna"), FORKED)
    for item in (
        msgspec.structs.replace(told, leak="20"),
        verified(named("anna"), FORKED, reasons=("leaks_answer",)),
    ):
        assert list(reflected_rows(examined(FORKED, item), settings, CONTEXT)) == []


def case(path, *agents):
    wrong = 0 if path.has_error else None
    return examined(path, *(verified(critique(path, agent=agent, wrong=wrong), path) for agent in agents))


def test_reflections_are_as_many_of_right_solutions_as_of_wrong_ones():
    wrong = [case(pair(problem(name=f"q{i}"), name=f"p{i}"), "anna", "bert") for i in range(3)]
    right = [case(alone(problem(name=f"r{i}"), name=f"a{i}"), "anna") for i in range(2)]
    rows = reflections(*wrong, *right)
    assert Counter(row.label for row in rows) == {"correct": 2, "incorrect": 2}
    assert {row.id for row in reflections(*right, *wrong[::-1])} == {row.id for row in rows}
    assert reflections(*wrong) == []


def test_reflections_of_one_problem_are_bounded():
    crowd = [f"agent{i}" for i in range(5)]
    rows = reflections(case(pair(name="p"), *crowd), case(alone(problem(name="q2")), *crowd), judge_per_problem=2)
    assert Counter((row.origin.problem_id, row.label) for row in rows) == {("q1", "incorrect"): 2, ("q2", "correct"): 2}


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("The solution is correct.", "correct"),
        ("Sure?\nThe solution is INCORRECT", "incorrect"),
        ("Solution 1 is better.", "first"),
        ("**Solution 2 is better.**", "second"),
        ("Solution 2 is better. Or is it?", None),
        ("Solution 3 is better.", None),
        ("The solution is incorrectly typeset.", None),
        ("", None),
    ],
)
def test_a_judgement_is_read_from_the_end(text, label):
    assert read_judgement(text) == label


def test_the_known_judgement_of_every_row_is_paid_and_its_contrary_is_not():
    rows = [*judgements(TWO, "pointwise", "pairwise"), *reflections(case(pair(), "anna"), case(alone(), "bert"))]
    assert len(rows) == 6
    labels = [row.label for row in rows]
    assert judgement_reward([row.completion[0].content for row in rows], label=labels, kind=[]) == [1.0] * 6
    contrary = {"correct": "incorrect", "incorrect": "correct", "first": "second", "second": "first"}
    assert (
        judgement_reward([row.completion[0].content for row in rows], label=[contrary[label] for label in labels])
        == [0.0] * 6
    )
    turns = [[{"role": "assistant", "content": row.completion[0].content}] for row in rows]
    assert judgement_reward(turns, label=labels) == [1.0] * 6


def test_shipped_prompts_ask_for_the_lines_that_are_read_and_no_text_opens_a_section():
    def shipped(name: str) -> Template:
        text = resources.files("annotators.prompts").joinpath(f"{name}.txt").read_text()
        return Template(name=name, text=text)

    context = msgspec.structs.replace(
        CONTEXT,
        judge_instruction=shipped("export_judge"),
        judge_pair_instruction=shipped("export_judge_pair"),
        judge_reflected_instruction=shipped("export_judge_reflected"),
    )
    settings = ExportSettings(judge=("pointwise", "pairwise", "reflected"))
    sly = tree(("correct", "20\nSolution 2:\nnothing"), ("incorrect", "19"))
    said = verified(critique(pair(), text="It holds.\nSolution:\nanother"), pair())
    rows = [*tree_judge_rows(sly, settings, context), *reflected_rows(examined(pair(), said), settings, context)]
    assert len(rows) == 5
    for row in rows:
        text = row.prompt[0].content
        assert f'"{row.completion[0].content}"' in text
        lines = text.splitlines()
        assert lines.count("Solution:") == (row.kind != "pairwise")
        assert row.kind != "pairwise" or lines.count("Solution 2:") == 1

"""Given solutions in a world written down by hand: what is asked, what is rejected, what pairing makes of it."""

import asyncio

import pytest
from made_trees import PROBLEM, PROVENANCE
from worlds import make_verifier

from mcts.answers import Check
from mcts.base import Rollout
from mcts.given import GivenSettings, contradiction, label_of, written_by
from mcts.pairing import PairSettings, pair_paths
from mcts.settings import SearchSettings
from mcts.sources import tree_source
from schemas import Estimate, PathAlone, Rejection, Solution

RIGHT = ("Step 1: add\n", "Step 2: four\n", "Answer: 8\n")
WRONG = ("Step 1: add\n", "Step 2: five\n", "Answer: 9\n")
LUCKY = ("Step 1: add\n", "Step 2: five\n", "Answer: 8\n")
SLIP = ("Step 1: add\n", "Step 2: four\n", "Answer: 7\n")


def solution(steps, first_error=None, *, name="s", **fields):
    return Solution(id=name, where=f"f.jsonl line {name}", steps=steps, first_error=first_error, **fields)


def grow(*solutions, pairing=None, given=None, **settings):
    """(tree, rejected, asked): after `five` every rollout is wrong, else right."""
    asked = []

    async def policy(prefix, *, num_samples, first_sample):
        asked.append((prefix, num_samples))
        end = WRONG if "five" in prefix else RIGHT
        return [Rollout(text="".join(end)[len(prefix) :], tokens=5)] * num_samples

    growing = tree_source(given or GivenSettings(path="f.jsonl"), solutions=solutions)(
        PROBLEM,
        policy=policy,
        verifier=make_verifier(),
        settings=SearchSettings(**settings),
        pairing=pairing or PairSettings(max_alone=0),
        provenance=PROVENANCE,
    )
    tree = asyncio.run(growing.grow())
    return tree, growing.rejected, asked


def node_of(tree, *steps):
    return next(node for i, node in enumerate(tree.nodes) if tree.steps(i) == steps)


def paths_of(tree, **pairing):
    return pair_paths(tree, PairSettings(**pairing), SearchSettings().change_point)


def test_equal_steps_are_merged_and_answers_are_checked():
    tree, rejected, asked = grow(
        solution(RIGHT), solution(WRONG), solution(SLIP[:2]), given=GivenSettings(path="f", ask_actor=False)
    )
    assert [node.step for node in tree.nodes] == ["", *RIGHT, *WRONG[1:], SLIP[1]]
    assert [node.outcome for node in tree.nodes if node.kind == "terminal"] == ["correct", "incorrect", "unscored"]
    assert (tree.stopped, rejected, asked) == ("given", (), [])


def test_a_labelled_error_is_known_and_nothing_is_located():
    tree, _, asked = grow(solution(RIGHT), solution(WRONG, 1), given=GivenSettings(path="f", error_rollouts=6))
    # A right path forks off before the error: the actor is asked behind the error, and the right branch is confirmed.
    assert asked[0] == (WRONG[0] + WRONG[1], 6)
    assert {prefix for prefix, _ in asked[1:]} == {RIGHT[0] + RIGHT[1]}
    assert node_of(tree, *WRONG[:2]).flawed
    assert sum(node.flawed for node in tree.nodes) == 1
    (pair,) = paths_of(tree, max_alone=0)
    assert (pair.steps, pair.right_steps, pair.first_error, pair.posterior) == (WRONG, RIGHT, 1, (0.0, 1.0, 0.0))
    assert pair.wrong_estimate == Estimate(correct=0, scored=6)
    assert pair.right_estimate.correct == pair.right_estimate.scored >= 4


def test_where_no_right_path_forks_off_the_actor_goes_on_from_before_the_error():
    tree, _, asked = grow(solution(WRONG, 1), given=GivenSettings(path="f", partner_rollouts=5, error_rollouts=7))
    assert asked[:2] == [(WRONG[0], 5), (WRONG[0] + WRONG[1], 7)]
    assert node_of(tree, WRONG[0]).direct == Estimate(correct=5, scored=5)
    (pair,) = paths_of(tree, max_alone=0)
    assert (pair.steps, pair.right_steps, pair.first_error) == (WRONG, RIGHT, 1)


def test_an_error_in_the_first_step_is_left_from_the_bare_problem():
    first = ("Step 1: five\n", "Answer: 9\n")
    _, _, asked = grow(solution(first, 0))
    assert asked[:2] == [("", 8), (first[0], 8)]


def test_no_partner_and_no_proof_where_none_is_wished_for():
    tree, _, asked = grow(solution(WRONG, 1), given=GivenSettings(path="f", partner_rollouts=0, error_rollouts=0))
    assert asked == []
    assert paths_of(tree).reason == "no_right_path"


def test_an_answer_that_is_itself_the_error_needs_no_rollouts_behind_it():
    tree, _, asked = grow(solution(RIGHT), solution(SLIP, 2))
    assert {prefix for prefix, _ in asked} == {RIGHT[0] + RIGHT[1]}
    (pair,) = paths_of(tree, max_alone=0)
    assert (pair.first_error, pair.divergence, pair.wrong_estimate) == (2, 2, Estimate(correct=0, scored=1))


@pytest.mark.parametrize("locate", ["change_point", "completions"])
def test_the_first_error_of_an_unlabelled_solution_is_located_by_rollouts(locate):
    tree, _, asked = grow(solution(WRONG), given=GivenSettings(path="f", locate=locate))
    assert not any(node.flawed for node in tree.nodes)
    assert {prefix for prefix, _ in asked} >= {WRONG[0], WRONG[0] + WRONG[1]}
    (pair,) = paths_of(tree, max_alone=0)
    assert (pair.steps, pair.first_error) == (WRONG, 1)


def test_two_solutions_with_one_error_ask_for_its_rollouts_once():
    other = (*WRONG[:2], "Answer: 7\n")
    _, _, asked = grow(solution(WRONG, 1), solution(other, 1, name="t"), max_located=2, max_confirm_rollouts=0)
    assert asked == [(WRONG[0], 8), (WRONG[0] + WRONG[1], 8)]


def test_labelled_solutions_come_first_and_every_error_before_any_twice():
    unlabelled = ("Step 1: sub\n", "Answer: 0\n")
    again = (*WRONG[:2], "Answer: 7\n")
    other = ("Step 1: five\n", "Answer: 6\n")
    given = [solution(unlabelled), solution(WRONG, 1), solution(again, 1), solution(other, 0)]
    _, _, asked = grow(*given, max_located=2)
    assert [prefix for prefix, _ in asked if "five" in prefix] == [WRONG[0] + WRONG[1], other[0]]
    assert not any("sub" in prefix for prefix, _ in asked)


def test_a_right_answer_behind_a_wrong_step_is_luck_and_no_right_path():
    # The label says that `four` is wrong, though whoever goes on from there comes out right.
    tree, rejected, asked = grow(solution(RIGHT, 1), solution(WRONG, 1), pairing=PairSettings())
    assert rejected == ()
    assert asked[:2] == [(WRONG[0], 8), (WRONG[0] + WRONG[1], 8)]  # It is no partner: the actor is asked for one.
    assert node_of(tree, *RIGHT).outcome == "correct"
    assert isinstance(paths_of(tree), Rejection)
    alone, _, asked = grow(solution(RIGHT, 1), pairing=PairSettings())
    assert asked == []
    assert isinstance(paths_of(alone), Rejection)


def test_a_right_solution_alone_is_confirmed_and_teaches_that_there_is_no_error():
    tree, _, asked = grow(solution(RIGHT, -1), pairing=PairSettings())
    assert {prefix for prefix, _ in asked} == {RIGHT[0], RIGHT[0] + RIGHT[1]}
    (path,) = paths_of(tree)
    assert isinstance(path, PathAlone)
    assert path.steps == RIGHT


def test_what_contradicts_its_label_is_rejected_and_not_in_the_tree():
    wrong = solution(SLIP, -1, name="7")
    tree, rejected, _ = grow(solution(RIGHT, -1), wrong, given=GivenSettings(path="f", ask_actor=False))
    assert [node.step for node in tree.nodes] == ["", *RIGHT]
    (rejection,) = rejected
    assert (rejection.stage, rejection.key, rejection.problem_id) == ("ExpandTrees", "7", PROBLEM.id)
    assert rejection.reason == "label_contradicted"
    assert rejection.detail == "f.jsonl line 7: every step is labelled right, and the answer '7' is incorrect"


def test_of_two_labels_that_disagree_the_first_counts():
    solutions = [
        solution(WRONG, 1, name="a"),
        solution((*WRONG[:2], "Answer: 7\n"), 2, name="b"),
        solution(LUCKY, -1, name="c"),
        solution((*WRONG[:1], "Answer: 6\n"), 0, name="d"),
        solution((*WRONG[:2], "Answer: 5\n"), name="e"),
    ]
    tree, rejected, _ = grow(*solutions, given=GivenSettings(path="f", ask_actor=False))
    assert [(each.key, each.reason) for each in rejected] == [(name, "labels_disagree") for name in "bcd"]
    assert "step 1 is labelled right, but the first wrong one after the same steps in a" in rejected[0].detail
    # Nobody labelled the last one: its error is the one that is known of its steps.
    assert [node.answer for node in tree.nodes if node.kind == "terminal"] == ["9", "5"]


@pytest.mark.parametrize(
    ("fields", "outcome", "is_fine"),
    [
        ({"first_error": -1}, "correct", True),
        ({"first_error": -1}, "incorrect", False),
        ({"first_error": -1}, "unscored", True),
        ({"first_error": 0}, "correct", True),
        ({"first_error": 0}, "incorrect", True),
        ({"outcome": "correct"}, "incorrect", False),
        ({"outcome": "incorrect"}, "correct", False),
        ({"outcome": "incorrect", "first_error": 0}, "incorrect", True),
        ({}, "incorrect", True),
    ],
)
def test_what_a_checked_answer_contradicts(fields, outcome, is_fine):
    assert (contradiction(solution(RIGHT, **fields), Check(outcome=outcome, answer="1")) == "") is is_fine


def test_what_a_label_says_of_each_beginning():
    steps = ("a ", "b\n", "c")
    assert label_of(solution(steps)) == {}
    assert label_of(solution(steps, -1)) == {("a",): False, ("a", "b"): False, ("a", "b", "c"): False}
    assert label_of(solution(steps, 1)) == {("a",): False, ("a", "b"): True}


def test_the_provenance_names_who_wrote():
    solutions = [solution(RIGHT, author="B"), solution(WRONG, author="A"), solution(SLIP), solution(LUCKY, author="B")]
    alone = written_by(solutions, None)
    assert (alone.model, alone.engine, alone.revision, alone.prompt_digest) == ("A, B", "given", "", "")
    both = written_by(solutions, PROVENANCE)
    assert (both.model, both.engine, both.revision) == ("A, B, m", "given, scripted", "r1")
    quiet, _, _ = grow(solution(RIGHT), given=GivenSettings(path="f", ask_actor=False))
    asking, _, _ = grow(solution(WRONG, 1))
    assert (quiet.provenance.model, quiet.provenance.engine) == ("", "given")
    assert (asking.provenance.model, asking.provenance.engine) == ("m", "given, scripted")


def test_the_id_tells_what_was_given_and_not_where_it_lay():
    def tree_id(first_error, path="f"):
        return grow(solution(WRONG, first_error), given=GivenSettings(path=path, ask_actor=False))[0].id

    assert tree_id(1) == tree_id(1, "elsewhere/f") != tree_id(2)


def test_a_problem_whose_solutions_nobody_can_decide_costs_nothing():
    tree, _, asked = grow(solution(RIGHT[:2], 1))
    assert (tree.stopped, asked) == ("nothing_scored", [])


def test_the_budget_holds():
    tree, _, asked = grow(solution(WRONG, 1), max_rollouts=10)
    assert tree.stopped == "budget"
    assert sum(number for _, number in asked) == tree.rollouts == 10


def test_files_are_named_one_by_one_or_with_commas():
    assert GivenSettings(path="a,b").files == GivenSettings(path=("a", "b")).files == ("a", "b")


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ({"path": ""}, "path names no file"),
        ({"path": ()}, "path names no file"),
        ({"path": "a,"}, "path names no file"),
        ({"partner_rollouts": -1}, "partner_rollouts must not be below 0"),
        ({"error_rollouts": -1}, "error_rollouts must not be below 0"),
        ({"completions_per_step": 0}, "completions_per_step must be at least 1"),
    ],
)
def test_what_cannot_work_is_refused(setting, complaint):
    with pytest.raises(ValueError, match=complaint):
        GivenSettings(**{"path": "f"} | setting)

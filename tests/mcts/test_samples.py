"""Sampled solutions in a world written down by hand: what is asked, what is counted, what pairing makes of it."""

import asyncio

import pytest
from made_trees import PROBLEM, PROVENANCE
from worlds import make_verifier

from mcts.base import Rollout
from mcts.pairing import PairSettings, pair_paths
from mcts.samples import SampleSettings
from mcts.settings import SearchSettings
from mcts.sources import tree_source
from schemas import PathPair

RIGHT = ("Step 1: add\n", "Step 2: four\n", "Answer: 8\n")
WRONG = ("Step 1: add\n", "Step 2: five\n", "Answer: 9\n")


def sampled(solutions, *, samples, pairing=None, **settings):
    """(tree, asked): the root gives `solutions` in turn; after `five` every rollout is wrong, else right."""
    asked = []

    async def policy(prefix, *, num_samples, first_sample):
        asked.append((prefix, num_samples))
        end = WRONG if "five" in prefix else RIGHT
        texts = ["".join(end)[len(prefix) :]] * num_samples
        if not prefix:
            texts = ["".join(steps) for steps in solutions[first_sample : first_sample + num_samples]]
        return [Rollout(text=text, tokens=5) for text in texts]

    growing = tree_source(samples)(
        PROBLEM,
        policy=policy,
        verifier=make_verifier(),
        settings=SearchSettings(**settings),
        pairing=pairing or PairSettings(),
        provenance=PROVENANCE,
    )
    tree = asyncio.run(growing.grow())
    return tree, asked


def direct(tree, *steps):
    node = next(i for i, _ in enumerate(tree.nodes) if tree.steps(i) == steps)
    return tree.nodes[node].direct.correct, tree.nodes[node].direct.scored


def test_completions_are_taken_equally_from_every_step_but_the_last_and_once_where_steps_are_shared():
    settings = SampleSettings(num_samples=4, locate="completions", completions_per_step=8)
    other = (WRONG[0], "Step 2: five, again\n", WRONG[2])
    tree, asked = sampled([RIGHT, WRONG, other, RIGHT], samples=settings, max_confirm_rollouts=0)
    assert asked[0] == ("", 4)
    assert sorted(asked[1:]) == [
        (WRONG[0], 8),
        (WRONG[0] + WRONG[1], 8),
        (WRONG[0] + other[1], 8),
    ]
    assert direct(tree) == (2, 4)
    assert direct(tree, WRONG[0]) == (8, 8)
    assert direct(tree, *WRONG[:2]) == (0, 8)


@pytest.mark.parametrize("locate", ["change_point", "completions"])
def test_the_first_error_lies_where_the_rate_falls_and_pairing_takes_it(locate):
    tree, _ = sampled([RIGHT, WRONG, RIGHT, WRONG], samples=SampleSettings(num_samples=4, locate=locate))
    paths = pair_paths(tree, PairSettings(), SearchSettings().change_point)
    (pair,) = [path for path in paths if isinstance(path, PathPair)]
    assert (pair.divergence, pair.first_error) == (1, 1)
    assert (pair.steps, pair.right_steps) == (WRONG, RIGHT)
    assert tree.stopped == "samples"


def test_equal_solutions_are_one_path_and_nothing_is_searched():
    tree, asked = sampled([RIGHT] * 8, samples=SampleSettings(), pairing=PairSettings(max_alone=0))
    assert [node.step for node in tree.nodes] == ["", *RIGHT]
    assert asked == [("", 8)]


def test_an_unscored_problem_costs_its_samples_alone():
    tree, asked = sampled([("Step 1: add\n",)] * 8, samples=SampleSettings())
    assert (tree.stopped, asked) == ("nothing_scored", [("", 8)])


def test_the_id_tells_how_errors_were_located():
    ids = {sampled([RIGHT] * 8, samples=SampleSettings(locate=how))[0].id for how in ("change_point", "completions")}
    assert len(ids) == 2


@pytest.mark.parametrize("setting", [{"num_samples": 1}, {"completions_per_step": 0}])
def test_counts_that_cannot_work_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        SampleSettings(**setting)

"""Rollouts that ran out of tokens: an answer that may have been cut is unscored, the steps before it stay."""

import asyncio

import pytest

from mcts.answers import Check, is_cut_off
from mcts.base import Rollout
from mcts.growth import Growth
from mcts.waves import Waves
from schemas import Estimate


@pytest.mark.parametrize(
    ("solution", "domain", "is_cut"),
    [
        # The answer stands in the last line, which may go on.
        ("Step 1: 7 + 5 = 12\nAnswer: 1", "math", True),
        ("Step 1: 7 + 5 = 12\nAnswer: 12", "math", True),
        ("Answer: 12 because 7 and", "math", True),
        ("Answer:\n12", "math", True),
        ("So it is \\boxed{12}", "math", True),
        ("#### 1", "math", True),
        ("Thus the answer is 1", "math", True),
        ("Answer: B", "choice", True),
        # The same answer was given before, but the last one is meant, and it may go on.
        ("Answer: 12\nLet me check.\nAnswer: 12", "math", True),
        # An answer line that was ended holds, whatever was begun behind it.
        ("Step 1: 7 + 5 = 12\nAnswer: 12\n", "math", False),
        ("Step 1: 7 + 5 = 12\nAnswer: 12\nProblem: 4", "math", False),
        ("Answer:\n12\nStep 1", "math", False),
        ("So it is \\boxed{12}\nand", "math", False),
        # Answers of several lines: a grid ends with a blank line, a program with its fence.
        ("Answer:\n1 2\n3 4\n", "reasoning_gym", True),
        ("Answer:\n1 2\n3 4\n\nThis", "reasoning_gym", False),
        ("Answer:\n```python\ndef f():\n    return 1\n```\nIt", "code", False),
        ("Answer:\ndef f():\n    return 1\n", "code", True),
        # There is no answer that could be cut; the checker says so.
        ("Step 1: 7 + 5 = 1", "math", False),
        ("", "math", False),
        ("Answer:\n```python\ndef f():\n", "code", False),
    ],
)
def test_an_answer_is_cut_off_where_it_may_go_on(solution, domain, is_cut):
    assert is_cut_off(solution, domain) is is_cut


def grow(*rollouts):
    """A tree of one request for these rollouts, and the texts that were checked; an answer of 12 is right."""
    growth, checked = Growth("marker"), []

    async def policy(prefix, *, num_samples, first_sample):
        return rollouts

    async def verifier(solution):
        checked.append(solution)
        return Check(outcome="correct" if "Answer: 12" in solution else "incorrect", answer=solution[-2:])

    def plan():
        yield [(0, len(rollouts))]

    async def run():
        plans = iter([plan()])
        waves = Waves(growth, policy=policy, verifier=verifier, max_rollouts=99, max_completion_tokens=999)
        await waves.run(lambda: next(plans, None), 1)
        await waves.close()

    asyncio.run(run())
    return growth, checked


def test_a_cut_answer_is_unscored_and_the_lines_before_it_are_steps():
    text = "Step 1: 7 + 5 = 12\nAnswer: 1"
    growth, checked = grow(Rollout(text=text, tokens=9, is_cut=True))
    assert checked == []
    root, step, end = growth.freeze()
    assert root.direct == Estimate(correct=0, scored=0, unscored=1)
    assert (root.visits, root.value_sum) == (0, 0.0)
    assert (step.kind, step.step) == ("step", "Step 1: 7 + 5 = 12\n")
    assert (end.kind, end.step, end.outcome, end.unscored_reason) == ("terminal", "Answer: 1", "unscored", "cut_off")
    assert growth.dropped_tokens == 0


@pytest.mark.parametrize("cut_first", [True, False])
def test_a_whole_answer_of_the_same_words_is_scored_beside_a_cut_one(cut_first):
    text = "Step 1: 7 + 5 = 12\nAnswer: 12"
    growth, checked = grow(*(Rollout(text=text, tokens=9, is_cut=cut) for cut in (cut_first, not cut_first)))
    assert checked == [text]
    root, step, *ends = growth.freeze()
    assert root.direct == Estimate(correct=1, scored=1, unscored=1)
    assert step.kind == "step"
    assert [(end.parent, end.step) for end in ends] == [(1, "Answer: 12")] * 2
    assert [end.outcome for end in ends] == (["unscored", "correct"] if cut_first else ["correct", "unscored"])


def test_two_rollouts_that_were_cut_at_the_same_place_are_one_end():
    growth, _ = grow(*[Rollout(text="Answer: 1", tokens=3, is_cut=True)] * 2)
    assert [node.kind for node in growth.freeze()] == ["root", "terminal"]
    assert growth.nodes[0].direct == Estimate(correct=0, scored=0, unscored=2)

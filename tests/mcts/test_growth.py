"""Grafting, counting and freezing, a few rollouts at a time."""

import pytest

from mcts.answers import Check
from mcts.base import Rollout
from mcts.growth import Growth
from schemas import Estimate


def rollout(text, tokens=5):
    return Rollout(text=text, tokens=tokens)


def graft(growth, node, *texts, outcomes=None):
    """Grafts texts below a node and records them; a text is right where it ends in `Answer: 8`."""
    terminals = []
    for text in texts:
        terminal = growth.graft(node, rollout(text))
        if terminal is not None:
            right = text.endswith("Answer: 8")
            known = (outcomes or {}).get(text, "correct" if right else "incorrect")
            reason = "no_answer" if known == "unscored" else None
            growth.nodes[terminal].check = Check(outcome=known, answer=text[-1], reason=reason)
        terminals.append(terminal)
    growth.record(node, terminals)
    return terminals


@pytest.fixture
def growth():
    return Growth("marker")


def test_equal_steps_become_one_node(growth):
    graft(growth, 0, "Step 1: a\nAnswer: 8", "Step 1: a\nAnswer: 7", "Step 1: a\nStep 2: b\nAnswer: 8")
    assert [(node.parent, node.step, node.depth, node.kind) for node in growth.freeze()] == [
        (-1, "", 0, "root"),
        (0, "Step 1: a\n", 1, "step"),
        (1, "Answer: 8", 2, "terminal"),
        (1, "Answer: 7", 2, "terminal"),
        (1, "Step 2: b\n", 2, "step"),
        (4, "Answer: 8", 3, "terminal"),
    ]


def test_an_end_and_a_step_of_the_same_words_stay_apart(growth):
    graft(growth, 0, "Step 1: a\n", "Step 1: a\nAnswer: 8", outcomes={"Step 1: a\n": "unscored"})
    nodes = growth.freeze()
    assert [(node.kind, node.step) for node in nodes[1:3]] == [("terminal", "Step 1: a\n"), ("step", "Step 1: a\n")]
    assert nodes[3].parent == 2


def test_a_nodes_text_is_the_text_that_was_sampled(growth):
    graft(growth, 0, "So\nStep 1: a\n\nStep 2: b\nAnswer: 8")
    assert growth.nodes[2].text == "So\nStep 1: a\n\n"
    graft(growth, 2, " \nStep 2: c\nAnswer: 8")
    assert growth.nodes[-1].text == "So\nStep 1: a\n\n \nStep 2: c\nAnswer: 8"


def test_direct_counts_stay_at_the_node_where_the_rollouts_started(growth):
    graft(growth, 0, "Step 1: a\nAnswer: 8", "Step 1: a\nAnswer: 7", "Step 1: a\nAnswer: 8")
    graft(growth, 1, "Answer: 7", "Answer: 6")
    nodes = growth.freeze()
    assert nodes[0].direct == Estimate(correct=2, scored=3)
    assert nodes[1].direct == Estimate(correct=0, scored=2)
    assert all(node.direct == Estimate() for node in nodes[2:])


def test_rates_are_backed_up_once_a_request(growth):
    graft(growth, 0, "Step 1: a\nAnswer: 8", "Step 1: b\nAnswer: 7")
    graft(growth, 1, "Answer: 8", "Answer: 8", "Answer: 6", "Answer: 5")
    graft(growth, 1, "Answer: 8")
    nodes = growth.freeze()
    assert (nodes[0].visits, nodes[0].value_sum) == (3, 0.5 + 0.5 + 1.0)
    assert (nodes[1].visits, nodes[1].value_sum) == (2, 0.5 + 1.0)
    assert (nodes[3].visits, nodes[3].value_sum) == (0, 0.0)


def test_the_unscored_are_counted_and_enter_no_rate(growth):
    graft(growth, 0, "Step 1: a\nAnswer: 8", "Step 1: a\nhm", "", outcomes={"Step 1: a\nhm": "unscored"})
    root, *_, lost = growth.freeze()
    assert root.direct == Estimate(correct=1, scored=1, unscored=2)
    assert (root.visits, root.value_sum) == (1, 1.0)
    assert (lost.outcome, lost.unscored_reason) == ("unscored", "no_answer")


def test_a_request_without_a_scored_rollout_is_no_visit(growth):
    graft(growth, 0, "", "")
    (root,) = growth.freeze()
    assert (root.visits, root.direct) == (0, Estimate(unscored=2))


def test_tokens_of_empty_rollouts_are_dropped_ones(growth):
    assert growth.graft(0, rollout("", tokens=3)) is None
    assert growth.graft(0, Rollout(text="", tokens=4, error="refused")) is None
    assert growth.graft(0, rollout("Answer: 8", tokens=6)) == 1
    assert (growth.completion_tokens, growth.dropped_tokens) == (13, 7)


def test_samples_are_numbered_on_and_counted(growth):
    graft(growth, 0, "Step 1: a\nAnswer: 8")
    assert [growth.reserve(0, 8), growth.reserve(0, 2), growth.reserve(1, 4), growth.reserve(0, 1)] == [0, 8, 0, 10]
    assert (growth.calls, growth.rollouts) == (4, 15)


def test_two_nodes_of_one_text_never_share_a_sample():
    growth = Growth("blank_line")
    graft(growth, 0, "a\n\nb\n\nAnswer: 8", "a\n\n\nb\n\nAnswer: 8")
    graft(growth, 1, "\nb\n\nAnswer: 8")
    same = [i for i, bud in enumerate(growth.nodes) if bud.text == "a\n\n\nb\n\n"]
    assert len(same) == 2
    assert [growth.reserve(i, 4) for i in same] == [0, 4]


def test_priors_are_shares_of_the_rollouts_that_went_that_way(growth):
    graft(growth, 0, *["Step 1: a\nAnswer: 8"] * 3, "Step 1: b\nAnswer: 7")
    nodes = growth.freeze()
    assert [(node.step, node.prior) for node in nodes] == [
        ("", None),
        ("Step 1: a\n", 0.75),
        ("Answer: 8", 1.0),
        ("Step 1: b\n", 0.25),
        ("Answer: 7", 1.0),
    ]


def test_an_end_keeps_what_the_checker_said_of_it_and_no_more_than_2000_characters(growth):
    for text, said in (("Step 1: a\nAnswer: 8", "no errors"), ("Step 1: b\nAnswer: 7", "x" * 2001)):
        end = growth.graft(0, rollout(text))
        growth.nodes[end].check = Check(outcome="correct", answer="8", detail=said)
    assert [node.message for node in growth.freeze()] == ["", "", "no errors", "", "x" * 2000]


def test_a_path_goes_from_the_root_down(growth):
    graft(growth, 0, "Step 1: a\nAnswer: 8", "Step 1: b\nStep 2: c\nAnswer: 7")
    assert growth.path(0) == (0,)
    assert growth.path(5) == (0, 3, 4, 5)
    assert (growth.outcome(5), growth.outcome(4)) == ("incorrect", None)

"""Pairs from trees written down by hand, and forks of real trees whose counts are known."""

import collections
import json
from math import comb

import pytest
from made_trees import PROBLEM, PROVENANCE, counts, make_tree

from mcts.first_error import ChangePoint
from mcts.pairing import (
    PAIR_REJECTIONS,
    PairSettings,
    forks,
    holds,
    pair_paths,
    prefix_estimates,
    tree_from_paths,
)
from mcts.steps import split_steps
from schemas import Estimate, Node, PathAlone, PathPair, Rejection

MODEL = ChangePoint()


def pairs_of(tree, **settings):
    paths = pair_paths(tree, PairSettings(**{"max_alone": 0, **settings}), MODEL)
    assert not isinstance(paths, Rejection), paths
    return paths


def rejection_of(tree, **settings):
    rejection = pair_paths(tree, PairSettings(**settings), MODEL)
    assert isinstance(rejection, Rejection), rejection
    assert (rejection.stage, rejection.key, rejection.problem_id) == ("PairPaths", "t1", "p1")
    assert rejection.reason in PAIR_REJECTIONS
    return rejection


def lines(paths):
    return [" ".join(path.steps) for path in paths]


GOOD = {
    "": (6, 8),
    "a": (8, 8),
    "a x": (0, 8),
    "a x y": (0, 8),
    "a b": (8, 8),
    "a b c": (7, 8),
}
ENDS = {"a x y 7": "incorrect", "a b c 8": "correct"}


def test_a_pair_says_where_it_comes_from_and_what_was_counted():
    tree = make_tree(ENDS, GOOD)
    (pair,) = pair_paths(tree, PairSettings(), MODEL)
    assert isinstance(pair, PathPair)
    assert (pair.problem, pair.tree_id, pair.provenance, pair.rule) == (PROBLEM, "t1", PROVENANCE, "deepest_fork")
    assert (pair.prefix, pair.prefix_nodes, pair.divergence) == (("a",), (1,), 1)
    assert pair.prefix_estimates == (counts(8, 8),)
    assert (pair.wrong.steps, pair.wrong.nodes, pair.wrong.answer) == (("x", "y", "7"), (2, 3, 4), "7")
    assert (pair.right.steps, pair.right.nodes, pair.right.answer) == (("b", "c", "8"), (5, 6, 7), "8")
    assert pair.wrong.estimates == (counts(0, 8), counts(0, 8), Estimate())
    assert pair.right.estimates == (counts(8, 8), counts(7, 8), Estimate())
    assert pair.root_estimate == counts(6, 8)
    assert pair.first_error == 1
    assert len(pair.posterior) == 4
    assert sum(pair.posterior) == pytest.approx(1)
    assert pair.posterior[1] == max(pair.posterior) > 0.9
    assert (pair.right_estimate, pair.wrong_estimate) == (counts(8, 8), counts(0, 16))
    assert pair.p_value == pytest.approx(1 / comb(24, 8))


def test_equal_trees_give_equal_pairs_and_each_pair_has_its_own_id():
    ends = {"a x 7": "incorrect", "a y 6": "incorrect", "a b 8": "correct"}
    rates = {"": (6, 8), "a": (8, 8), "a x": (0, 8), "a y": (0, 8), "a b": (8, 8)}
    pairs = pairs_of(make_tree(ends, rates))
    assert pairs == pairs_of(make_tree(ends, rates))
    assert len({pair.id for pair in pairs}) == len(pairs) == 2


def test_a_tree_of_which_no_path_is_wanted_says_so():
    rejection = rejection_of(make_tree(ENDS, GOOD), max_pairs=0, max_alone=0)
    assert rejection.reason == "not_wanted"
    assert rejection.detail == "pairing.max_pairs and pairing.max_alone are 0"


HARD_ALONE = {"rule": "hard_but_solvable", "max_alone": 0}
UNSURE = {"": (8, 8), "a": (8, 8), "a x": (0, 2), "a b": (3, 4), "a b c": (8, 8)}


@pytest.mark.parametrize(
    ("reason", "ends", "rates", "detail"),
    [
        ("nothing_scored", {"a b": "unscored", "c": "unscored"}, {}, "2 unscored paths"),
        ("no_right_path", {"a x 7": "incorrect", "c": "unscored"}, {}, "1 incorrect, 1 unscored paths"),
        ("no_wrong_path", {"a b 8": "correct"}, {"a": (0, 8), "a b": (8, 8)}, "1 correct paths"),
        (
            "fork_of_another_kind",
            ENDS,
            GOOD,
            "1 correct, 1 incorrect paths; 1 candidate pairs: 1 fork_of_another_kind",
        ),
        (
            "first_error_unclear",
            ENDS,
            {},
            "1 correct, 1 incorrect paths; 1 candidate pairs: 1 first_error_unclear",
        ),
        (
            "fork_after_error",
            ENDS,
            {"": (15, 16), "a": (0, 16), "a x": (0, 16), "a b": (8, 8), "a b c": (8, 8)},
            "1 correct, 1 incorrect paths; 1 candidate pairs: 1 fork_after_error",
        ),
        (
            "right_path_does_not_hold",
            ENDS,
            GOOD | {"a b c": (0, 8)},
            "1 correct, 1 incorrect paths; 1 candidate pairs: 1 right_path_does_not_hold",
        ),
        (
            "gap_not_significant",
            ENDS,
            UNSURE,
            "1 correct, 1 incorrect paths; 1 candidate pairs: 1 gap_not_significant",
        ),
    ],
)
def test_a_tree_without_a_path_says_why(reason, ends, rates, detail):
    settings = {"gap_not_significant": {"max_alone": 0}, "fork_of_another_kind": HARD_ALONE}.get(reason, {})
    rejection = rejection_of(make_tree(ends, rates), **settings)
    assert (rejection.reason, rejection.detail) == (reason, detail)


def test_every_reason_is_shown_here():
    cases = test_a_tree_without_a_path_says_why.pytestmark[0].args[1]
    assert ("not_wanted", *(case[0] for case in cases)) == PAIR_REJECTIONS


def test_the_reason_is_that_of_the_candidate_that_came_furthest():
    ends = {"w y z 6": "incorrect", "a x 7": "incorrect", "a b 8": "correct"}
    rates = {"": (6, 8), "a": (8, 8), "a x": (0, 8), "a b": (0, 8)}
    rejection = rejection_of(make_tree(ends, rates))
    assert rejection.reason == "right_path_does_not_hold"
    assert rejection.detail.endswith("2 candidate pairs: 1 first_error_unclear, 1 right_path_does_not_hold")


@pytest.mark.parametrize("short", [{"a x": "incorrect"}, {"a": "incorrect"}])
def test_a_wrong_path_that_a_right_one_goes_on_from_is_no_pair(short):
    tree = make_tree({**short, "a x b 8": "correct"}, {"": (8, 8), "a": (8, 8), "a x": (8, 8), "a x b": (8, 8)})
    assert forks(tree) == ()
    (alone,) = pair_paths(tree, PairSettings(), MODEL)
    assert isinstance(alone, PathAlone)


def test_a_right_path_that_a_wrong_one_goes_on_from_is_no_pair():
    assert forks(make_tree({"a b": "correct", "a b x 7": "incorrect"})) == ()


def test_the_white_space_after_a_last_step_does_not_hide_that_it_is_a_prefix():
    wrong, right = "Step 1: a\nAnswer: 7", "Step 1: a\nAnswer: 7\n\nStep 2: no, 8\nAnswer: 8"
    ends = ((wrong, "incorrect"), (right, "correct"), ("Step 1: a\nAnswer: 6", "incorrect"))
    tree = tree_from_paths(PROBLEM, [(split_steps(text, "marker"), end(outcome)) for text, outcome in ends], PROVENANCE)
    assert [tree.steps(wrong) for _, wrong, _ in forks(tree)] == [("Step 1: a\n", "Answer: 6")]


def test_a_fork_is_the_deepest_node_on_both_paths():
    tree = make_tree(
        {"a x 7": "incorrect", "a b 8": "correct", "a b y 6": "incorrect", "c 8": "correct", "d": "unscored"}
    )
    found = {(" ".join(tree.steps(f)), " ".join(tree.steps(w)), " ".join(tree.steps(r))) for f, w, r in forks(tree)}
    assert found == {
        ("a", "a x 7", "a b 8"),
        ("", "a x 7", "c 8"),
        ("a b", "a b y 6", "a b 8"),
        ("", "a b y 6", "c 8"),
    }


# One right path; wrong ones leave it after `a b` (twice) and after `a`. The gap is larger at the deep fork (1 against
# 7/8), the p-value smaller at the shallow one (120/471,435,600 against 1/495).
TWO_FORKS = {"a b c 8": "correct", "a b x 7": "incorrect", "a b y 6": "incorrect", "a z 5": "incorrect"}
TWO_FORKS_RATES = {
    "": (8, 8),
    "a": (16, 16),
    "a b": (14, 16),
    "a b c": (8, 8),
    "a b x": (0, 4),
    "a b y": (0, 4),
    "a z": (0, 16),
}


@pytest.mark.parametrize(
    ("rule", "order"),
    [
        ("deepest_fork", ["a b x 7", "a z 5", "a b y 6"]),
        ("widest_gap", ["a b x 7", "a z 5", "a b y 6"]),
        ("every_fork", ["a z 5", "a b x 7", "a b y 6"]),
    ],
)
def test_pairs_are_spread_over_the_forks_before_a_fork_is_taken_again(rule, order):
    tree = make_tree(TWO_FORKS, TWO_FORKS_RATES)
    for most in (1, 2, 3, 9):
        pairs = pairs_of(tree, rule=rule, max_pairs=most)
        assert lines(pairs) == order[:most]
        assert {pair.rule for pair in pairs} == {rule}


def test_no_first_error_is_paired_twice_where_that_is_the_rule():
    """Two wrong paths go on from `x`, one from `z`."""
    ends = {"a b c 8": "correct", "a b x 7": "incorrect", "a b x 6": "incorrect", "a z 5": "incorrect"}
    rates = {name: rate for name, rate in TWO_FORKS_RATES.items() if name != "a b y"}
    tree = make_tree(ends, rates)
    assert lines(pairs_of(tree, rule="every_error", max_pairs=9)) == ["a b x 7", "a z 5"]
    assert lines(pairs_of(tree, rule="deepest_fork", max_pairs=9)) == ["a b x 7", "a z 5", "a b x 6"]


def test_the_widest_gap_goes_before_a_deeper_fork():
    rates = TWO_FORKS_RATES | {"a b": (16, 16), "a b c": (7, 8)}
    tree = make_tree(TWO_FORKS, rates)
    assert lines(pairs_of(tree, rule="widest_gap", max_pairs=1)) == ["a z 5"]
    assert lines(pairs_of(tree, rule="deepest_fork", max_pairs=1)) == ["a b x 7"]


def test_a_wrong_path_is_used_once_however_many_right_ones_it_has():
    ends = {"a x 7": "incorrect", "a b 8": "correct", "a c 8": "correct", "d 8": "correct"}
    rates = {"": (8, 8), "a": (8, 8), "a x": (0, 8), "a b": (8, 8), "a c": (8, 8), "d": (8, 8)}
    (pair,) = pairs_of(make_tree(ends, rates), max_pairs=5)
    assert (pair.steps, pair.right_steps) == (("a", "x", "7"), ("a", "b", "8"))


@pytest.mark.parametrize("most", [0, 1, 2, 3])
def test_right_paths_without_a_partner_come_after_the_pairs_and_are_capped(most):
    ends = {"a x 7": "incorrect", "a b 8": "correct", "c 8": "correct", "d e 8": "correct", "f 8": "correct"}
    rates = {
        "": (6, 8),
        "a": (8, 8),
        "a x": (0, 8),
        "a b": (8, 8),
        "c": (8, 8),
        "d": (4, 4),
        "d e": (8, 8),
        "f": (0, 4),
    }
    pair, *alone = pairs_of(make_tree(ends, rates), max_alone=most)
    assert isinstance(pair, PathPair)
    assert lines(alone) == ["d e 8", "c 8"][:most], "most rollouts first; `f` does not hold"


def test_a_lone_path_says_what_was_counted():
    (alone,) = pair_paths(
        make_tree({"a b 8": "correct"}, {"": (6, 8), "a": (5, 8), "a b": (8, 8)}), PairSettings(), MODEL
    )
    assert isinstance(alone, PathAlone)
    assert (alone.path.steps, alone.path.nodes, alone.path.answer) == (("a", "b", "8"), (1, 2, 3), "8")
    assert alone.path.estimates == (counts(5, 8), counts(8, 8), Estimate())
    assert (alone.root_estimate, alone.tree_id, alone.problem) == (counts(6, 8), "t1", PROBLEM)


@pytest.mark.parametrize(("right", "taken"), [(4, True), (3, False)])
def test_against_none_of_eight_the_winner_needs_four_of_eight(right, taken):
    ends = {"a x 7": "incorrect", "a b 8": "correct"}
    tree = make_tree(ends, {"": (8, 8), "a": (16, 16), "a x": (0, 8), "a b": (right, 8)})
    paths = pair_paths(tree, PairSettings(hold_above=0.05, max_alone=0), MODEL)
    if taken:
        assert [path.p_value for path in paths] == [pytest.approx(comb(8, 4) / comb(16, 4))]
    else:
        assert paths.reason == "gap_not_significant"


def test_alpha_is_the_largest_p_value_taken():
    tree = make_tree(
        {"a x 7": "incorrect", "a b 8": "correct"}, {"": (8, 8), "a": (8, 8), "a x": (0, 8), "a b": (4, 8)}
    )
    assert len(pairs_of(tree, alpha=0.04)) == 1
    assert rejection_of(tree, alpha=0.03, max_alone=0).reason == "gap_not_significant"


def test_every_step_after_the_error_counts_against_the_wrong_side():
    ends = {"a x y z 7": "incorrect", "a b 8": "correct"}
    rates = {"": (8, 8), "a": (8, 8), "a x": (0, 2), "a x y": (1, 3), "a x y z": (0, 4), "a b": (8, 8)}
    (pair,) = pairs_of(make_tree(ends, rates), min_confidence=0.3)
    assert pair.first_error == 1
    assert pair.wrong_estimate == counts(1, 9)


def test_a_confidence_above_the_posterior_refuses_the_pair():
    tree = make_tree(ENDS, GOOD)
    (pair,) = pairs_of(tree)
    sure = max(pair.posterior)
    assert len(pairs_of(tree, min_confidence=sure - 1e-6)) == 1
    assert rejection_of(tree, min_confidence=sure + (1 - sure) / 2, max_alone=0).reason == "first_error_unclear"


def test_a_right_path_holds_where_every_interval_lies_above():
    settings = PairSettings(hold_above=0.2, level=0.9)
    assert not holds([], settings)  # Nobody looked at any step of it.
    assert holds([counts(8, 8), counts(4, 8)], settings)
    assert not holds([counts(8, 8), counts(2, 8)], settings)
    assert not holds([counts(8, 8), Estimate(unscored=8)], settings)


def test_the_estimates_of_a_path_are_those_before_each_step():
    tree = make_tree(ENDS, GOOD)
    assert prefix_estimates(tree, 4) == (counts(6, 8), counts(8, 8), counts(0, 8), counts(0, 8))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"alpha": 0.0}, "alpha must lie between 0 and 1, got 0.0"),
        ({"fork_rate": 1.0}, "fork_rate must lie between 0 and 1, got 1.0"),
        ({"level": 1.0}, "level must lie between 0 and 1, got 1.0"),
        ({"min_confidence": 1.5}, "min_confidence must lie between 0 and 1, got 1.5"),
        ({"hold_above": -0.1}, "hold_above must lie between 0 and 1, got -0.1"),
        ({"max_pairs": -1}, "max_pairs and max_alone count paths, got -1 and 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(ValueError, match="got") as caught:
        PairSettings(**wrong)
    assert str(caught.value) == message


def end(outcome, answer=None, **fields):
    return Node(parent=0, step="", depth=1, kind="terminal", outcome=outcome, answer=answer, **fields)


def test_a_tree_of_given_paths_merges_equal_steps_and_keeps_their_ends():
    paths = [
        (("a", "b", "8"), end("correct", "8", direct=counts(1, 1))),
        (("a", "x"), end("unscored", unscored_reason="no_answer")),
        (("a",), end("incorrect", "7")),
        (("a", "b", "8"), end("correct", "8")),
    ]
    tree = tree_from_paths(PROBLEM, paths, PROVENANCE)
    assert [(node.parent, node.step, node.depth, node.kind, node.outcome) for node in tree.nodes] == [
        (-1, "", 0, "root", None),
        (0, "a", 1, "step", None),
        (1, "b", 2, "step", None),
        (2, "8", 3, "terminal", "correct"),
        (1, "x", 2, "terminal", "unscored"),
        (0, "a", 1, "terminal", "incorrect"),
    ]
    assert (tree.nodes[3].answer, tree.nodes[3].direct) == ("8", counts(1, 1))
    assert tree.nodes[4].unscored_reason == "no_answer"
    assert (tree.problem, tree.provenance, tree.stopped) == (PROBLEM, PROVENANCE, "given")


def test_a_tree_of_given_paths_has_an_id_of_its_content():
    def tree_id(*paths):
        return tree_from_paths(PROBLEM, [(steps.split(), end(outcome)) for steps, outcome in paths], PROVENANCE).id

    one = tree_id(("a b", "correct"), ("c d", "incorrect"))
    assert tree_id(("a b", "correct"), ("c d", "incorrect")) == one
    assert tree_id(("a b", "incorrect"), ("c d", "incorrect")) != one
    assert tree_id(("a b c d", "correct")) != tree_id(("a b", "correct"), ("c d", "correct"))


# The table of shared/data/README.md: leaf paths, distinct, right, wrong, pairs by shared leading steps, prefixes.
REAL = [
    (137, 55, 53, 2, {0: 30, 4: 20, 5: 29, 6: 16, 7: 11}, 0),
    (85, 82, 79, 3, {0: 36, 1: 141, 2: 54, 3: 3}, 3),
    (20, 19, 17, 2, {0: 4, 1: 4, 2: 24, 3: 1}, 1),
]


def leaf_paths(node, above=()):
    """(text, mc_value) of each path of a nested tree from below its root to a leaf."""
    for child in node["children"]:
        texts = (*above, child["text"])
        yield from leaf_paths(child, texts) if child["children"] else [("\n\n".join(texts), child["mc_value"])]


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize(
    "cut",
    [lambda text: text.split("\n\n"), lambda text: split_steps(text, "blank_line")],
    ids=["without_separators", "with_separators"],
)
def test_forks_of_real_trees_are_the_known_ones(shared_data, cut, which):
    record = json.loads((shared_data / "trees/math_aps_tree.jsonl").read_text().splitlines()[which])
    leaves, distinct, right, wrong, shared, prefixes = REAL[which]
    paths = [
        (cut(text), end({1: "correct", 0: "incorrect"}[value])) for text, value in leaf_paths(record["reasoning_steps"])
    ]
    assert len(paths) == leaves
    tree = tree_from_paths(PROBLEM, paths, PROVENANCE)
    outcomes = collections.Counter(tree.nodes[i].outcome for i in tree.terminals())
    assert outcomes == {"correct": right, "incorrect": wrong}
    assert outcomes.total() == distinct
    found = forks(tree)
    assert collections.Counter(tree.nodes[fork].depth for fork, _, _ in found) == shared
    assert right * wrong - len(found) == prefixes

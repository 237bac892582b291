"""Hard and easy forks, errors in the answer itself, shared steps that must hold, forks told in another way."""

import itertools
import random
import time
from math import comb

import msgspec
import pytest
from made_trees import counts, make_tree

from mcts.candidates import candidate, p_above_zero, wrong_path
from mcts.first_error import ChangePoint
from mcts.pairing import PairSettings, forks, pair_paths, right_side_holds
from schemas import Estimate, Node, Rejection

MODEL = ChangePoint()


def paths_of(tree, **settings):
    return pair_paths(tree, PairSettings(**{"max_alone": 0, **settings}), MODEL)


def lines(paths):
    assert not isinstance(paths, Rejection), paths
    return [" ".join(path.steps) for path in paths]


def leaf(tree, line):
    (found,) = (i for i in tree.terminals() if tree.steps(i) == tuple(line.split()))
    return found


# Which forks a rule takes. The root is as hard as the fork, so that the first error lies after it whatever its rate.


@pytest.mark.parametrize(
    ("fork", "kind"),
    [
        ((38, 40), "easy"),
        ((30, 40), "easy"),
        ((20, 40), None),
        # 0.4 lies 1.3 standard errors below 1/2, 0.35 lies 2.0 below; 90 % both ways is 1.645.
        ((16, 40), None),
        ((14, 40), "hard"),
        ((12, 40), "hard"),
        # The same rate with a tenth of the counts is no longer clear.
        ((3, 4), None),
        ((0, 0), None),
    ],
)
def test_a_fork_is_hard_or_easy_by_its_interval(fork, kind):
    tree = make_tree({"a x 7": "incorrect", "a b 8": "correct"}, {"": fork, "a": fork, "a x": (0, 40), "a b": (40, 40)})
    for rule, wanted in (("hard_but_solvable", "hard"), ("easy_but_brittle", "easy")):
        paths = paths_of(tree, rule=rule)
        if kind == wanted:
            assert lines(paths) == ["a x 7"]
            assert {path.rule for path in paths} == {rule}
        else:
            assert paths.reason == "fork_of_another_kind"


def test_what_parts_hard_from_easy_can_be_set():
    rates = {"": (16, 40), "a": (16, 40), "a x": (0, 40), "a b": (40, 40)}
    tree = make_tree({"a x 7": "incorrect", "a b 8": "correct"}, rates)
    # At 50 % both ways 0.4 is clear of 1/2, which lies 1.3 standard errors off; 0.67 would do.
    assert lines(paths_of(tree, rule="hard_but_solvable", level=0.5)) == ["a x 7"]
    assert lines(paths_of(tree, rule="easy_but_brittle", fork_rate=0.2)) == ["a x 7"]
    assert lines(paths_of(tree, rule="hard_but_solvable", fork_rate=0.7)) == ["a x 7"]


def test_a_fork_of_another_kind_hides_no_fork_of_the_right_kind():
    ends = {"x 5": "incorrect", "a y 6": "incorrect", "a b 8": "correct"}
    rates = {"": (16, 40), "x": (0, 40), "a": (39, 40), "a y": (0, 40), "a b": (40, 40)}
    tree = make_tree(ends, rates)
    assert lines(paths_of(tree, rule="easy_but_brittle")) == ["a y 6"]
    assert lines(paths_of(tree, rule="hard_but_solvable", fork_rate=0.6)) == ["x 5"]
    rejection = paths_of(tree, rule="hard_but_solvable", alpha=1e-30)
    assert rejection.reason == "fork_of_another_kind"
    assert rejection.detail.endswith("2 candidate pairs: 2 fork_of_another_kind")


def test_the_reason_tells_that_a_fork_of_the_right_kind_was_there():
    ends = {"x 5": "incorrect", "a y 6": "incorrect", "a b 8": "correct"}
    rates = {"": (12, 40), "x": (0, 40), "a": (39, 40), "a y": (0, 40), "a b": (40, 40)}
    rejection = paths_of(make_tree(ends, rates), rule="hard_but_solvable", alpha=1e-30)
    assert rejection.reason == "gap_not_significant"
    assert rejection.detail.endswith("2 candidate pairs: 1 fork_of_another_kind, 1 gap_not_significant")


# One right path `b c r 8`; a wrong one leaves it at the root, at `b` and at `c`.
CHAIN = {"x 5": "incorrect", "b x 7": "incorrect", "b c x 6": "incorrect", "b c r 8": "correct"}
AT_ROOT, AT_B, AT_C = "x 5", "b x 7", "b c x 6"
NEVER = {"x": (0, 40), "b x": (0, 40), "b c x": (0, 40)}


@pytest.mark.parametrize(
    ("rule", "order"),
    [
        ("hard_but_solvable", [AT_B, AT_C, AT_ROOT]),
        ("deepest_fork", [AT_C, AT_B, AT_ROOT]),
        # The better sides are 11, 12 and 40 of 40.
        ("every_fork", [AT_C, AT_B, AT_ROOT]),
    ],
)
def test_the_hardest_fork_comes_first(rule, order):
    tree = make_tree(CHAIN, NEVER | {"": (14, 40), "b": (11, 40), "b c": (12, 40), "b c r": (40, 40)})
    assert lines(paths_of(tree, rule=rule, max_pairs=3, hold_above=0.05)) == order


@pytest.mark.parametrize(
    ("rule", "order"),
    [
        ("easy_but_brittle", [AT_B, AT_C, AT_ROOT]),
        ("deepest_fork", [AT_C, AT_B, AT_ROOT]),
        # The better sides are 39, 38 and 30 of 40.
        ("every_fork", [AT_ROOT, AT_B, AT_C]),
    ],
)
def test_the_easiest_fork_comes_first(rule, order):
    tree = make_tree(CHAIN, NEVER | {"": (36, 40), "b": (39, 40), "b c": (38, 40), "b c r": (30, 40)})
    assert lines(paths_of(tree, rule=rule, max_pairs=3)) == order


@pytest.mark.parametrize(
    ("rule", "rates"),
    [
        # 1 of 8 is less than 6 of 40, but may well be 0.3; 4 of 4 is more than 39 of 40, but may well be 0.7.
        ("hard_but_solvable", {"": (5, 40), "b": (1, 8), "b c": (6, 40), "b c r": (40, 40)}),
        ("easy_but_brittle", {"": (30, 40), "b": (4, 4), "b c": (39, 40), "b c r": (40, 40)}),
    ],
)
def test_how_hard_a_fork_is_goes_by_the_end_of_its_interval(rule, rates):
    ends = {line: outcome for line, outcome in CHAIN.items() if line != AT_ROOT}
    never = {line: rate for line, rate in NEVER.items() if line != "x"}
    assert lines(paths_of(make_tree(ends, never | rates), rule=rule, hold_above=0.01)) == [AT_C, AT_B]


# First errors in the answer itself.

STEADY = {"": (8, 8), "a": (8, 8), "a b": (8, 8)}


def test_a_wrong_answer_after_right_steps_is_a_known_zero():
    tree = make_tree({"a b 7": "incorrect", "a b c 8": "correct"}, STEADY | {"a b c": (5, 8)})
    (pair,) = paths_of(tree)
    assert (pair.divergence, pair.first_error, pair.steps[2]) == (2, 2, "7")
    assert (pair.right_estimate, pair.wrong_estimate, pair.p_value) == (counts(5, 8), counts(0, 1), 0.0)
    assert pair.wrong.estimates == (Estimate(),), "what was rolled out stays what it was"


def test_of_right_branches_beside_a_wrong_answer_the_better_one_is_taken():
    """Each refutes the known zero alike."""
    ends = {"a b 7": "incorrect", "a b c 8": "correct", "a b d 8": "correct", "a b e 8": "correct"}
    (pair,) = paths_of(make_tree(ends, STEADY | {"a b c": (5, 8), "a b d": (8, 8), "a b e": (6, 8)}))
    assert pair.right.steps == ("d", "8")


def test_a_right_and_a_wrong_answer_after_the_same_steps_are_a_pair():
    tree = make_tree({"a b 7": "incorrect", "a b 8": "correct"}, STEADY)
    for rule in ("deepest_fork", "widest_gap", "every_fork", "easy_but_brittle"):
        (pair,) = paths_of(tree, rule=rule)
        assert (pair.prefix, pair.wrong.steps, pair.right.steps) == (("a", "b"), ("7",), ("8",))
        assert (pair.first_error, pair.divergence) == (2, 2)
        assert (pair.right_estimate, pair.wrong_estimate, pair.p_value) == (counts(1, 1), counts(0, 1), 0.0)


def test_a_right_answer_may_part_from_a_path_that_errs_later_in_its_answer():
    rates = {"": (8, 8), "a": (8, 8), "a x": (8, 8), "a x y": (8, 8)}
    (pair,) = paths_of(make_tree({"a x y 7": "incorrect", "a 8": "correct"}, rates))
    assert (pair.divergence, pair.first_error) == (1, 3)
    assert (pair.right_estimate, pair.wrong_estimate, pair.p_value) == (counts(1, 1), counts(0, 1), 0.0)


def test_a_lucky_answer_is_no_partner():
    """Three of eight are right wherever one looks: the answer is a draw, and a right draw has shown nothing."""
    rates = {"": (3, 8), "a": (3, 8), "a b": (3, 8)}
    ends = {"a b 7": "incorrect", "a b 8": "correct"}
    assert paths_of(make_tree(ends, rates), min_confidence=0.4).reason == "right_path_does_not_hold"
    # With the bar at 0.05 the fork holds: 3 of 8 is 1.9 standard errors above it.
    assert len(paths_of(make_tree(ends, rates), min_confidence=0.4, hold_above=0.05)) == 1


def test_an_answer_after_steps_that_nobody_looked_at_is_no_partner():
    tree = make_tree({"a b 7": "incorrect", "a b 8": "correct"}, {"": (8, 8), "a": (8, 8)})
    assert paths_of(tree, min_confidence=0.1).reason in ("fork_after_error", "right_path_does_not_hold")
    (fork, _, right), *_ = forks(tree)
    assert not right_side_holds(tree, fork, tree.path(right), PairSettings())


def test_a_right_answer_against_a_measured_step_is_judged_by_the_fork():
    rates = {"": (8, 8), "a": (8, 8), "a x": (0, 8)}
    (pair,) = paths_of(make_tree({"a x 7": "incorrect", "a 8": "correct"}, rates))
    assert (pair.divergence, pair.first_error, pair.right.steps) == (1, 1, ("8",))
    assert (pair.right_estimate, pair.wrong_estimate) == (counts(8, 8), counts(0, 8))
    assert pair.p_value == pytest.approx(1 / comb(16, 8))


def test_a_step_that_is_hardly_worse_than_the_fork_is_not_beaten_by_one_right_answer():
    tree = make_tree({"a x 7": "incorrect", "a 8": "correct"}, {"": (8, 8), "a": (8, 8), "a x": (6, 8)})
    wrong = wrong_path(tree, leaf(tree, "a x 7"), (0.0, 1.0, 0.0))
    found = candidate(tree, 1, wrong, tree.path(leaf(tree, "a 8")))
    # All 8 of the 14 right ones that fall to the fork: C(8, 8) C(8, 6) of C(16, 14) ways.
    assert found.p_value == pytest.approx(28 / 120)


@pytest.mark.parametrize(
    ("estimate", "p_value"), [((1, 1), 0.0), ((1, 40), 0.0), ((0, 40), 1.0), ((0, 1), 1.0), ((0, 0, 8), 1.0)]
)
def test_one_right_outcome_refutes_a_rate_of_zero(estimate, p_value):
    assert p_above_zero(counts(*estimate)) == p_value


def test_an_error_before_the_answer_is_measured_by_rollouts_alone():
    tree = make_tree({"a x y 7": "incorrect", "a b 8": "correct"}, STEADY | {"a x": (0, 3), "a x y": (1, 4)})
    last = leaf(tree, "a x y 7")
    measured = [wrong_path(tree, last, posterior) for posterior in ((0.1, 0.7, 0.1, 0.1), (0.1, 0.1, 0.7, 0.1))]
    assert [(path.first_error, path.estimate) for path in measured] == [(1, counts(1, 7)), (2, counts(1, 4))]
    known = wrong_path(tree, last, (0.1, 0.1, 0.1, 0.7))
    assert (known.first_error, known.estimate, known.errs_in_answer) == (3, counts(0, 1), True)


# What both paths share.

SHARED = {"a b x 7": "incorrect", "a b r 8": "correct"}
SHARED_RATES = {"": (30, 32), "a b": (30, 32), "a b x": (0, 64), "a b r": (8, 8)}


@pytest.mark.parametrize(
    ("step", "holds"), [((0, 0), True), ((30, 32), True), ((1, 4), True), ((1, 32), False), ((0, 16), False)]
)
def test_a_shared_step_may_be_unknown_but_not_lost(step, holds):
    tree = make_tree(SHARED, SHARED_RATES | {"a": step})
    (fork, _, right), *_ = forks(tree)
    assert right_side_holds(tree, fork, tree.path(right), PairSettings()) == holds


def test_a_pair_whose_shared_steps_were_lost_and_found_again_is_refused():
    lost = make_tree(SHARED, SHARED_RATES | {"a": (1, 32)})
    assert paths_of(lost).reason == "right_path_does_not_hold"
    assert lines(paths_of(lost, hold_above=0.01)) == ["a b x 7"]
    assert lines(paths_of(make_tree(SHARED, SHARED_RATES | {"a": (30, 32)}))) == ["a b x 7"]


@pytest.mark.parametrize(("fork", "holds"), [((0, 0), True), ((3, 8), True), ((1, 32), False)])
def test_the_fork_is_one_of_the_shared_steps(fork, holds):
    tree = make_tree(SHARED, SHARED_RATES | {"a b": fork})
    (found, _, right), *_ = forks(tree)
    assert right_side_holds(tree, found, tree.path(right), PairSettings()) == holds


def test_a_hard_problem_is_no_lost_step():
    rates = {"": (1, 40), "x": (0, 40), "r": (40, 40)}
    tree = make_tree({"x 7": "incorrect", "r 8": "correct"}, rates)
    assert lines(paths_of(tree, rule="hard_but_solvable", min_confidence=0.3)) == ["x 7"]


# Forks, and what a large tree costs.


@pytest.mark.parametrize("seed", range(20))
def test_forks_are_where_texts_first_differ(seed):
    rng = random.Random(seed)
    outcomes = {
        tuple(rng.choices("pq", k=rng.randint(1, 5))): rng.choice(("correct", "incorrect", "unscored"))
        for _ in range(20)
    }
    tree = make_tree({" ".join(steps): outcome for steps, outcome in outcomes.items()})
    expected = set()
    for wrong, right in itertools.product(outcomes, repeat=2):
        if (outcomes[wrong], outcomes[right]) == ("incorrect", "correct"):
            shared = next(i for i in range(6) if wrong[: i + 1] != right[: i + 1])
            if shared < min(len(wrong), len(right)):
                expected.add((wrong[:shared], wrong, right))
    found = forks(tree)
    assert expected
    assert len(found) == len(expected)
    assert {(tree.steps(fork), tree.steps(wrong), tree.steps(right)) for fork, wrong, right in found} == expected
    assert list(found) == sorted(found)


def large_tree(leaves, steps):
    """Every second path errs in its sixth step; each leaves an earlier one in a right step. Counts differ all over."""
    rng = random.Random(1)
    nodes = [Node(parent=-1, step="", depth=0, kind="root", direct=counts(36, 40))]
    right = [0]
    for i in range(leaves):
        above, outcome = rng.choice(right), ("correct", "incorrect")[i % 2]
        for j in range(steps):
            lost, last = outcome == "incorrect" and j >= 5, j == steps - 1
            direct = counts(rng.randint(0, 1), rng.randint(16, 40)) if lost else counts(rng.randint(28, 40), 40)
            nodes.append(
                Node(
                    parent=above,
                    step=f"{i}.{j}",
                    depth=nodes[above].depth + 1,
                    kind="terminal" if last else "step",
                    answer=str(i) if last else None,
                    outcome=outcome if last else None,
                    direct=Estimate() if last else direct,
                )
            )
            above = len(nodes) - 1
            if not (lost or last):
                right.append(above)
    return msgspec.structs.replace(make_tree({"a": "correct"}), nodes=tuple(nodes))


def test_a_tree_of_3000_nodes_is_paired_in_a_moment():
    tree = large_tree(leaves=300, steps=10)
    assert len(tree.nodes) == 3_001
    assert len(forks(tree)) == 150 * 150
    started = time.process_time()
    assert len(paths_of(tree)) == 2
    taken = time.process_time() - started
    assert taken < 1, f"{taken:.2f} s of CPU"
    paths = paths_of(tree, max_pairs=150)
    assert len(paths) == 150, "each wrong path has a partner"
    # The path's own sixth step; the steps before it are its own or those of the right paths that it left.
    assert all(path.steps[path.first_error].endswith(".5") for path in paths)

"""Rows of `rl` beyond a path: what is known of the problem, what critiques brought, rollouts, pairs, bare problems."""

import doctest
from collections import Counter

import msgspec
import pytest

import annotators.path_rows
from annotators.critique_rows import critique_rows
from annotators.exports import EXPORT_REJECTIONS, EXPORT_ROW_REJECTIONS, ExportSettings
from annotators.path_rows import refinement_rates, tree_rows
from annotators.rewards import TransitionRewards, critique_reward, transition_reward, verdict_reward
from annotators.shard_rows import left_out, settled, surplus
from mcts.estimates import interval
from schemas import Estimate, Examined, Message, PathPair, PrmRow, Record, RlRow, SftRow, Tree
from tests.annotators.annotated import alone, critique, pair, problem
from tests.annotators.made_exports import CONTEXT, FORKED, examined, from_path, named, of, tree, verified

GROWN = tree(("correct", "20"), ("incorrect", "19"), ("unscored", "x"), right_of_8=3)


def written(rows, rates=(), settings=None) -> list[RlRow]:
    return [row for _, row in settled([(row.id, row) for row in rows], rates, settings or ExportSettings())]


def of_tree(grown: Tree, **settings) -> list[RlRow]:
    return list(tree_rows(grown, ExportSettings(**settings), CONTEXT, interval))


# What a path's row knows.


@pytest.mark.parametrize(
    ("first", "second", "reward"),
    [
        ("correct", "correct", 0.2),
        ("correct", "incorrect", 0.0),
        ("incorrect", "correct", 1.0),
        ("incorrect", "incorrect", 0.0),
    ],
)
def test_transitions_earn_what_critique_rl_publishes(first, second, reward):
    assert transition_reward(first, second, TransitionRewards()) == reward


def test_a_second_solution_that_nobody_can_decide_about_has_no_reward():
    with pytest.raises(KeyError):
        transition_reward("correct", "unscored", TransitionRewards())


def test_a_row_says_what_a_right_and_a_wrong_second_solution_would_earn():
    (wrong,), (right,) = of(RlRow, from_path(FORKED)), of(RlRow, from_path(alone()))
    assert (wrong.reward_if_right, wrong.reward_if_wrong) == (1.0, 0.0)
    assert (right.reward_if_right, right.reward_if_wrong) == (0.2, 0.0)
    dear = ExportSettings(transition_rewards=TransitionRewards(right_to_wrong=-1.0))
    (right,) = of(RlRow, from_path(alone(), dear))
    assert right.reward_if_wrong == -1.0


def test_a_row_has_the_rate_of_its_problem_with_an_interval():
    # Four of eight, a tenth to both sides.
    (row,) = of(RlRow, from_path(FORKED))
    assert (row.success_rate, row.success_low, row.success_high) == (0.5, 0.4, 0.6)
    assert (row.task, row.difficulty, row.answer, row.pair) == ("criticise", "neither", "", "")


@pytest.mark.parametrize(
    ("right_of_8", "difficulty"),
    [
        (0, "neither"),  # Perhaps hopeless.
        (1, "hard_but_solvable"),  # 90 %: 0.02 to 0.40.
        (2, "neither"),  # 0.08 to 0.53.
        (4, "neither"),
        (6, "neither"),  # 0.47 to 0.92.
        (7, "easy_but_brittle"),  # 0.60 to 0.98.
        (8, "neither"),  # Perhaps mastered.
    ],
)
def test_a_problem_is_hard_or_brittle_by_its_interval_and_not_by_its_rate(right_of_8, difficulty):
    (row,) = of_tree(tree(("correct", "20"), right_of_8=right_of_8), rl="problem_pairs")
    assert row.difficulty == difficulty


def test_the_example_holds():
    assert doctest.testmod(annotators.path_rows).attempted == 1
    assert doctest.testmod(annotators.path_rows).failed == 0


def measured(agent: str, right: int, without: tuple[int, int], **changes):
    item = verified(named(agent), FORKED, correct=right)
    none = Estimate(correct=without[0], scored=without[1])
    return msgspec.structs.replace(item, without_critique=none, **changes)


def test_rates_are_of_all_measured_critiques_and_of_the_longest_arm_without_any():
    case = examined(
        FORKED, measured("anna", 6, (1, 8)), measured("bert", 2, (3, 16)), verified(named("c"), FORKED, correct=None)
    )
    (rates,) = refinement_rates(case, ExportSettings())
    assert (rates.with_critique, rates.without_critique) == (
        Estimate(correct=8, scored=16),
        Estimate(correct=3, scored=16),
    )
    rows = [*of(RlRow, from_path(FORKED)), *of(RlRow, from_path(alone()))]
    with_rates, other = written(rows, [rates])
    assert (with_rates.with_critique, with_rates.without_critique) == (rates.with_critique, rates.without_critique)
    assert (other.with_critique, other.without_critique) == (None, None)
    assert msgspec.structs.replace(with_rates, with_critique=None, without_critique=None) == rows[0]


def test_a_critique_that_gives_the_answer_away_has_no_part_in_the_rates():
    case = examined(FORKED, measured("anna", 8, (1, 8), leak="20"), measured("bert", 2, (1, 8)))
    (rates,) = refinement_rates(case, ExportSettings())
    assert rates.with_critique == Estimate(correct=2, scored=8)


def test_paths_without_a_measured_critique_have_no_rates():
    bare = examined(FORKED, verified(named("anna"), FORKED, correct=None))
    assert list(refinement_rates(bare, ExportSettings())) == []
    assert list(refinement_rates(examined(FORKED, measured("anna", 6, (1, 8))), ExportSettings(rl="rollouts"))) == []


def test_rates_without_a_control_say_so():
    item = msgspec.structs.replace(measured("anna", 6, (1, 8)), without_critique=None)
    (rates,) = refinement_rates(examined(FORKED, item), ExportSettings())
    assert (rates.with_critique, rates.without_critique) == (Estimate(correct=6, scored=8), None)


# Rollouts as rows.


def test_every_scored_solution_of_a_tree_is_a_row_with_its_outcome():
    right, wrong = of_tree(GROWN, rl="rollouts")
    assert right.prompt == (Message(role="user", content="Solve.\nCalculate 7 + 8 + 5.\n"),)
    assert (right.task, right.solution, right.label) == ("solve", "Step 1: it is 20\nAnswer: 20", "correct")
    assert (wrong.solution, wrong.label) == ("Step 1: it is 19\nAnswer: 19", "incorrect")
    assert (right.answer, right.first_error, right.posterior, right.reward_if_right) == ("20", None, (), None)
    assert (right.success_rate, right.origin.node_ids, right.origin.critic) == (3 / 8, (1, 2), None)
    assert right.origin.root_estimate == Estimate(correct=3, scored=8)
    assert 0 < right.success_low < 3 / 8 < right.success_high < 1


@pytest.mark.parametrize(("right_of_8", "rows"), [(0, 0), (1, 2), (7, 2), (8, 0)])
def test_rollouts_of_problems_that_always_or_never_come_out_right_teach_nothing(right_of_8, rows):
    grown = tree(("correct", "20"), ("incorrect", "19"), right_of_8=right_of_8)
    assert len(of_tree(grown, rl="rollouts")) == rows


def test_trees_have_rows_of_rl_only_where_they_are_wanted():
    assert of_tree(GROWN) == []
    (bare,) = of_tree(GROWN, plain_share=0.2)
    assert (bare.task, bare.solution, bare.label, bare.answer) == ("solve", "", None, "20")
    assert bare.prompt[0].content == "Solve.\nCalculate 7 + 8 + 5.\n"
    assert bare.origin.node_ids == ()


# Pairs of problems.


def problems(**rights: int) -> list[RlRow]:
    rows = []
    for name, right_of_8 in rights.items():
        rows += of_tree(tree(("correct", "20"), right_of_8=right_of_8, name=name), rl="problem_pairs")
    return rows


PAIRED = ExportSettings(rl="problem_pairs")


def test_a_pair_is_a_hard_problem_and_a_brittle_one():
    rows = written(problems(hard=1, even=4, brittle=7, hopeless=0, mastered=8), settings=PAIRED)
    assert {row.origin.problem_id: row.difficulty for row in rows} == {
        "hard": "hard_but_solvable",
        "brittle": "easy_but_brittle",
    }
    assert len({row.pair for row in rows}) == 1
    assert rows[0].pair


def test_no_problem_is_in_two_pairs_and_what_finds_no_partner_has_no_row():
    made = problems(h1=1, h2=1, h3=1, b1=7, b2=7)
    rows = written(made, settings=PAIRED)
    assert Counter(row.difficulty for row in rows) == {"hard_but_solvable": 2, "easy_but_brittle": 2}
    for _, members in (counted := Counter((row.pair, row.difficulty) for row in rows)).items():
        assert members == 1
    assert len({pair for pair, _ in counted}) == 2
    assert sorted((row.id, row.pair) for row in written(made[::-1], settings=PAIRED)) == sorted(
        (row.id, row.pair) for row in rows
    )
    assert written(problems(h1=1, h2=1), settings=PAIRED) == []


# Bare problems among the paths.


@pytest.mark.parametrize(
    ("share", "num_paths", "num_problems", "plain"),
    [(0.2, 4, 9, 1), (0.2, 8, 9, 2), (0.2, 3, 9, 0), (0.2, 40, 9, 9), (0.5, 3, 9, 3), (0.1, 9, 9, 1)],
)
def test_bare_problems_are_a_share_of_all_rows(share, num_paths, num_problems, plain):
    """0.2 of five rows is one beside four paths; of three paths and one it would be a quarter."""
    settings = ExportSettings(plain_share=share)
    paths = [from_path(pair(problem(name=f"p{i}"), name=f"pair{i}"), settings)[0] for i in range(num_paths)]
    bare = [
        row for i in range(num_problems) for row in of_tree(tree(("correct", "20"), name=f"t{i}"), plain_share=share)
    ]
    rows = written([*bare, *paths], settings=settings)
    assert Counter(row.task for row in rows) == Counter(criticise=num_paths, solve=plain)
    assert {row.id for row in written([*paths, *bare[::-1]], settings=settings)} == {row.id for row in rows}


def test_rewards_of_critiques_pass_over_problems_to_solve():
    (path,) = of(RlRow, from_path(alone()))
    (bare,) = of_tree(GROWN, plain_share=0.2)
    columns = {
        name: [getattr(row, name) for row in (path, bare)] for name in ("label", "first_error", "posterior", "task")
    }
    said = ["No step is wrong. The solution is correct."] * 2
    assert verdict_reward(said, **columns) == [1.0, None]
    assert critique_reward(said, **columns) == [1.0, None]


# Balance.


def sft_rows(*cases: Examined, **settings) -> list[SftRow]:
    return [row for case in cases for row in of(SftRow, list(critique_rows(case, ExportSettings(**settings), CONTEXT)))]


def test_marked_rejected_critiques_are_not_balanced():
    right = [
        examined(alone(name=f"a{i}"), verified(critique(alone(name=f"a{i}"), wrong=None), alone(name=f"a{i}")))
        for i in range(3)
    ]
    wrong = examined(FORKED, verified(named("anna"), FORKED))
    failed = examined(alone(), verified(critique(alone(), wrong=0), alone(), reasons=("wrong_verdict",)))
    rows = sft_rows(*right, wrong, failed, feedback="both_marked")
    assert len(rows) == 5
    spare = surplus(rows, ExportSettings(correct_per_incorrect=1.0))
    assert len(spare) == 2
    assert all(row.label == "correct" and row.decision == "kept" for row in rows if row.id in spare)


def labelled(kind: type[Record], **numbers: int) -> list[Record]:
    """So many rows of each label, as a table has them."""
    paths = {"correct": alone(), "incorrect": FORKED}
    rows = []
    for label, number in numbers.items():
        if kind is RlRow:
            (row,) = of(RlRow, from_path(paths[label]))
        else:
            said = critique(paths[label], wrong=None if label == "correct" else 1)
            (row,) = sft_rows(examined(paths[label], verified(said, paths[label])))
        rows += [msgspec.structs.replace(row, id=f"{label}{i}") for i in range(number)]
    return rows


def stay(rows: list[Record], **settings) -> Counter[str]:
    """How many rows of each label are not left out."""
    gone = {rejection.key for rejection in left_out(rows, ExportSettings(**settings))}
    assert gone == {rejection.key for rejection in left_out(rows[::-1], ExportSettings(**settings))}
    return Counter(row.label for row in rows if row.id not in gone)


@pytest.mark.parametrize("kind", [SftRow, RlRow])
@pytest.mark.parametrize(
    ("bounds", "correct", "incorrect"),
    [
        ({}, 7, 3),
        ({"correct_per_incorrect": 1.0}, 3, 3),
        ({"correct_per_incorrect": 1.5}, 4, 3),
        ({"correct_per_incorrect": 3.0}, 7, 3),
        ({"correct_per_incorrect": 0.0}, 0, 3),
        ({"incorrect_per_correct": 1.0}, 7, 3),
        ({"incorrect_per_correct": 0.3}, 7, 2),
        ({"correct_per_incorrect": 1.0, "incorrect_per_correct": 1.0}, 3, 3),
    ],
)
def test_each_label_has_at_most_so_many_rows_for_each_of_the_other(kind, bounds, correct, incorrect):
    assert stay(labelled(kind, correct=7, incorrect=3), **bounds) == Counter(correct=correct, incorrect=incorrect)


def test_the_more_frequent_label_is_cut_whichever_it_is():
    both = {"correct_per_incorrect": 1.0, "incorrect_per_correct": 1.0}
    assert stay(labelled(SftRow, correct=2, incorrect=5), **both) == Counter(correct=2, incorrect=2)
    assert stay(labelled(SftRow, correct=5, incorrect=2), **both) == Counter(correct=2, incorrect=2)
    assert stay(labelled(SftRow, incorrect=5), **both) == Counter()


@pytest.mark.parametrize(
    ("numbers", "bounds", "correct", "incorrect"),
    [
        # A tenth of 19 is 1.9, so one; ten for that one, and not 19.
        ((10, 19), (0.1, 10.0), 1, 10),
        # As floating point has it, 0.29 * 100 is below 29.
        ((40, 100), (0.29, None), 29, 100),
        # 1.5 for one is one, and one is too much for 0.7 of one.
        ((10, 1), (1.5, 0.7), 0, 0),
    ],
)
def test_both_bounds_hold_for_what_is_written(numbers, bounds, correct, incorrect):
    chosen = dict(zip(("correct_per_incorrect", "incorrect_per_correct"), bounds, strict=True))
    rows = labelled(RlRow, correct=numbers[0], incorrect=numbers[1])
    assert stay(rows, **chosen) == +Counter(correct=correct, incorrect=incorrect)


def test_what_is_too_much_is_rejected_by_the_name_of_its_row():
    settings = ExportSettings(incorrect_per_correct=1.0)
    (one,) = left_out(labelled(SftRow, correct=1, incorrect=2), settings)
    assert (one.stage, one.problem_id, one.reason, one.detail) == ("WriteShards", "q1", "balance", "incorrect")
    assert one.key in ("incorrect0", "incorrect1")
    assert one.reason in EXPORT_REJECTIONS
    (other,) = left_out(labelled(RlRow, correct=1, incorrect=2), settings)
    assert (other.key, other.reason) == (one.key, "rl_balance")
    assert other.reason in EXPORT_ROW_REJECTIONS


def test_solutions_of_the_actor_are_balanced_and_bare_problems_are_not():
    grown = tree(("correct", "20"), ("incorrect", "19"), ("incorrect", "18"), ("incorrect", "17"))
    rows = of_tree(grown, rl="rollouts")
    assert stay(rows, rl="rollouts", incorrect_per_correct=2.0) == Counter(correct=1, incorrect=2)
    bare = of_tree(grown, plain_share=0.5)
    paths = labelled(RlRow, correct=1, incorrect=3)
    assert stay([*bare, *paths], incorrect_per_correct=2.0) == {None: 1, "correct": 1, "incorrect": 2}
    assert stay([*bare, *labelled(RlRow, incorrect=3)], incorrect_per_correct=2.0) == {None: 1}


def test_claims_are_left_in_twos():
    assert stay(labelled(RlRow, correct=1, incorrect=3), rl="claims", incorrect_per_correct=1.0)["incorrect"] == 3


# Paths that stand in several pairs.


def moved(made: PathPair, **changes) -> PathPair:
    """The same pair with its wrong branch at other nodes."""
    wrong = msgspec.structs.replace(made.wrong, nodes=tuple(node + 300 for node in made.wrong.nodes))
    return msgspec.structs.replace(made, wrong=wrong, **changes)


LATER = moved(
    pair(
        name="pair2",
        prefix=("Step 1: 7 + 8 = 15\n", "Step 2: 15 + 5 = 20\n"),
        wrong=("Answer: 21",),
        right=("Answer: 20",),
        first_error=2,
    ),
    prefix_nodes=(1, 200),
    prefix_estimates=(Estimate(correct=6, scored=8), Estimate(correct=8, scored=8)),
)
"""The right path of `FORKED` as its right side too, which a wrong one leaves at a later fork."""
LATER = msgspec.structs.replace(LATER, right=msgspec.structs.replace(LATER.right, nodes=(201,)))


def prm_rows(*paths) -> list[PrmRow]:
    return [row for path in paths for row in of(PrmRow, from_path(path))]


@pytest.mark.parametrize("other", [LATER, moved(FORKED, id="pair2")], ids=["another fork", "the same fork"])
def test_a_right_path_of_two_pairs_is_one_row(other):
    rows = prm_rows(FORKED, other)
    ends = Counter(row.origin.node_ids for row in rows)
    assert ends == {(1, 100, 101, 102): 1, (1, 200, 201): 2, other.node_ids: 1}
    (one,) = left_out(rows, ExportSettings())
    assert (one.stage, one.problem_id, one.reason) == ("WriteShards", "q1", "repeated_path")
    assert one.reason in EXPORT_ROW_REJECTIONS
    first, second = sorted(row.id for row in rows if row.origin.node_ids == (1, 200, 201))
    assert (one.key, one.detail) == (second, f"prm has it as {first}")
    assert left_out(rows[::-1], ExportSettings()) == (one,)


def test_rows_of_one_path_differ_in_nothing_but_their_names():
    first, second = (row for row in prm_rows(FORKED, LATER) if row.origin.node_ids == (1, 200, 201))
    assert msgspec.structs.replace(first, id=second.id) == second


def test_like_paths_of_two_trees_are_two_rows():
    elsewhere = msgspec.structs.replace(FORKED, id="pair2", tree_id="tree2")
    assert left_out(prm_rows(FORKED, elsewhere), ExportSettings()) == ()


def test_three_pairs_of_one_right_path_leave_one_row():
    third = moved(moved(FORKED, id="pair3"))
    rows = prm_rows(FORKED, moved(FORKED, id="pair2"), third)
    assert len(left_out(rows, ExportSettings())) == 2

"""Errors put into right paths, in a world written down by hand: what is asked, proved, and paired."""

import asyncio
import itertools
import random
from collections import Counter

import msgspec
import pytest
from made_trees import PROBLEM, PROVENANCE, counts
from scipy.stats import binom
from worlds import make_verifier

from mcts.base import Rollout
from mcts.injected import InjectSettings, Place, proof, read_rewriting
from mcts.pairing import PairSettings, pair_paths
from mcts.settings import SearchSettings
from mcts.sources import tree_source
from schemas import PathPair

RIGHT = ("Step 1: add\n", "Step 2: four\n", "Answer: 8\n")
WRONG = ("Step 1: add\n", "Step 2: five\n", "Answer: 9\n")
ONE = InjectSettings(max_edits=1)


def written(text, **fields):
    return Rollout(**{"text": text, "tokens": 3} | fields)


def inject(rewrite, settings=ONE, *, solution=RIGHT, wrong_words=("five", "bad"), problem="p1", delays=None, **search):
    """(tree, asked, places): every solution is `solution`; behind a wrong word every rollout is wrong, else right.

    `rewrite` gives a text or a rollout for (place, sample).
    """
    asked, places = [], []

    async def policy(prefix, *, num_samples, first_sample):
        asked.append((prefix, num_samples))
        for _ in range(delays.randrange(9) if delays else 0):
            await asyncio.sleep(0)
        rest = "".join(solution[prefix.count("Step ") :])
        if any(word in prefix for word in wrong_words):
            rest = rest.replace("Answer: 8", "Answer: 9")
        return [Rollout(text=rest, tokens=5)] * num_samples

    async def rewriter(place, *, sample):
        places.append((place, sample))
        for _ in range(delays.randrange(9) if delays else 0):
            await asyncio.sleep(0)
        came = rewrite(place, sample)
        return came if isinstance(came, Rollout) else written(came)

    growing = tree_source(settings, rewriter)(
        msgspec.structs.replace(PROBLEM, id=problem),
        policy=policy,
        verifier=make_verifier(),
        settings=SearchSettings(**search),
        pairing=PairSettings(),
        provenance=PROVENANCE,
    )
    return asyncio.run(growing.grow()), asked, places


def five(place, _sample):
    """Says five in whatever step it is given."""
    return "five"


# What is a changed step.


STEPS = ("Step 1: 4 + 3 = 7\n", "Step 2: 7 - 2 = 5\n", "Answer: 5")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("7 - 2 = 6", ""),
        ("  7 - 2 = 6 \n", ""),
        ("Step 2: 7 - 2 = 6", ""),
        ("", "nothing_came"),
        (" \n", "nothing_came"),
        ("Step 2:\n", "nothing_came"),
        ("7  -  2 = 5\n", "unchanged"),
        ("7 - 2 = 6\nStep 3: 6 + 1 = 7", "not_one_step"),
        ("7 - 2 = 6\nAnswer: 6", "ends_solution"),
        ("7 - 2 = 6. The answer is 6", "ends_solution"),
    ],
)
def test_an_edit_is_one_changed_step_in_the_white_space_of_the_original(said, reason):
    place = Place(steps=STEPS, index=1, how="edit", error_type="calculation")
    assert read_rewriting(place, written(said), "marker", "math") == ("" if reason else "Step 2: 7 - 2 = 6\n", reason)


def test_what_was_refused_or_cut_is_no_step():
    place = Place(steps=STEPS, index=1, how="edit", error_type="calculation")
    assert read_rewriting(place, written("", error="too long"), "marker", "math") == ("", "nothing_came")
    assert read_rewriting(place, written("7 - 2 =", is_cut=True), "marker", "math") == ("", "cut_off")


@pytest.mark.parametrize("how", ["hot", "hint"])
@pytest.mark.parametrize(
    ("said", "is_cut", "expected"),
    [
        ("Step 2: 7 - 2 = 4\nAnswer: 4\n", False, ("Step 2: 7 - 2 = 4\n", "")),
        # It ran out of tokens behind the step that counts.
        ("Step 2: 7 - 2 = 4\nStep 3: 4 +", True, ("Step 2: 7 - 2 = 4\n", "")),
        ("Step 2: 7 - 2 =", True, ("", "cut_off")),
        ("Step 2: 7 - 2 = 5\nAnswer: 5\n", False, ("", "unchanged")),
        ("Answer: 4\n", False, ("", "ends_solution")),
    ],
)
def test_of_an_actor_that_goes_on_the_first_step_counts(how, said, is_cut, expected):
    place = Place(steps=STEPS, index=1, how=how, error_type="")
    assert read_rewriting(place, written(said, is_cut=is_cut), "marker", "math") == expected


def test_steps_without_numbers_are_cut_by_their_rule_too():
    steps = ("We add.\n\n", "We take two.\n\n", "Answer: 5")
    place = Place(steps=steps, index=1, how="edit", error_type="calculation")
    assert place.opening == ""
    assert read_rewriting(place, written("We take three.\n"), "blank_line", "math") == ("We take three.\n\n", "")
    assert read_rewriting(place, written("We take.\n\nThree."), "blank_line", "math") == ("", "not_one_step")


# What is proved.


@pytest.mark.parametrize(
    ("original", "edited", "state"),
    [
        ((8, 8), (0, 8), "proved"),
        # 7 of 8 against 2 of 8: (C(9,7)... worked out as 8*28 + 1*8 = 232 tables of C(16,9) = 11440, and more: 0.020.
        ((7, 8), (2, 8), "proved"),
        ((4, 8), (0, 8), "original_not_right"),
        ((8, 8), (4, 8), "edit_not_wrong"),
        # 5 of 8 against 3 of 8: 0.31.
        ((5, 8), (3, 8), "gap_not_significant"),
        # 2 of 2 against 0 of 2: one table of C(4,2) = 6, 0.17.
        ((2, 2), (0, 2), "gap_not_significant"),
        ((0, 0), (0, 8), "nothing_scored"),
        ((8, 8), (0, 0), "nothing_scored"),
    ],
)
def test_an_edit_is_proved_where_the_original_is_mostly_right_and_it_is_mostly_wrong(original, edited, state):
    assert proof(counts(*original), counts(*edited), 0.05) == state


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.6, 0.8, 0.95])
@pytest.mark.parametrize("size", [4, 8, 16])
def test_a_harmless_edit_is_proved_with_probability_alpha_at_most(rate, size):
    chance = [binom.pmf(k, size, rate) for k in range(size + 1)]
    proved = sum(
        chance[a] * chance[b]
        for a, b in itertools.product(range(size + 1), repeat=2)
        if proof(counts(a, size), counts(b, size), 0.05) == "proved"
    )
    assert proved <= 0.05


# What becomes of the tree.


def test_a_proved_edit_hangs_beside_the_original_and_pairing_knows_its_first_error():
    tree, asked, _ = inject(five, settings=InjectSettings(max_edits=2))
    edits = {tree.nodes[edit.original].step: edit for edit in tree.edits}
    assert sorted(edits) == sorted(RIGHT[:2])
    second = edits["Step 2: four\n"]
    assert second.state == "proved"
    assert tree.steps(second.node) == WRONG[:2]
    assert tree.nodes[second.node].parent == tree.nodes[second.original].parent
    assert sorted(node.step for node in tree.nodes if node.flawed) == ["Step 1: five\n", "Step 2: five\n"]
    pairs = [p for p in pair_paths(tree, PairSettings(), SearchSettings().change_point) if isinstance(p, PathPair)]
    (pair,) = [p for p in pairs if p.divergence == 1]
    assert (pair.steps, pair.right_steps, pair.first_error) == (WRONG, RIGHT, 1)
    assert pair.posterior == (0.0, 1.0, 0.0)
    # A known first error is not looked for: nothing is asked behind a changed step but the proof.
    behind = sorted(wish for wish in asked if "five" in wish[0])
    assert behind == [("Step 1: add\nStep 2: five\n", 8), ("Step 1: five\n", 8)]


def test_the_proof_counts_completions_alone_that_came_after_the_step_was_picked():
    tree, _, _ = inject(five)
    (edit,) = tree.edits
    assert (edit.original_estimate, edit.edited_estimate) == (counts(8, 8), counts(0, 8))
    # The right path was confirmed before, so that its node has more.
    assert tree.nodes[edit.original].direct.scored > 8


def test_a_harmless_edit_stays_in_the_tree_and_is_not_flawed():
    tree, _, _ = inject(lambda place, _: "the same in other words")
    (edit,) = tree.edits
    assert (edit.state, edit.edited_estimate) == ("edit_not_wrong", counts(8, 8))
    assert tree.nodes[edit.node].step.endswith(": the same in other words\n")
    assert not any(node.flawed for node in tree.nodes)


def test_a_step_is_tried_so_often_and_no_more():
    said = ["", "{}\nStep 9: more", "five"]
    tree, _, places = inject(lambda _, sample: said[sample], settings=InjectSettings(max_edits=1, tries=3))
    assert [sample for _, sample in places] == [0, 1, 2]
    assert (tree.edits[0].unusable, tree.edits[0].state) == (("nothing_came", "not_one_step"), "proved")
    tree, _, places = inject(lambda _, sample: said[sample], settings=InjectSettings(max_edits=1, tries=2))
    assert len(places) == 2
    assert (tree.edits[0].node, tree.edits[0].state) == (None, "no_rewriting")
    assert not any(node.flawed for node in tree.nodes)


def test_rewritings_are_paid_for_like_rollouts():
    tree, asked, places = inject(lambda _, sample: "" if sample == 0 else "five")
    assert tree.calls == len(asked) + len(places) == len(asked) + 2
    assert tree.rollouts == sum(number for _, number in asked) + 2
    assert tree.completion_tokens == 5 * sum(number for _, number in asked) + 2 * 3
    assert tree.dropped_tokens == 3


def test_a_right_path_that_does_not_hold_lends_no_step():
    # Rollouts from `bad` come out wrong, though the solution was right.
    steps = ("Step 1: bad\n", "Step 2: four\n", "Answer: 8\n")
    tree, _, places = inject(five, solution=steps)
    assert (tree.stopped, tree.edits, places) == ("right_path_does_not_hold", (), [])


def test_nothing_is_written_anew_where_nothing_is_right():
    tree, _, places = inject(five, solution=WRONG)
    assert (tree.stopped, places) == ("no_right_path", [])


def test_the_answer_is_never_written_anew_and_each_step_once():
    tree, _, places = inject(five, settings=InjectSettings(max_edits=9))
    assert sorted(place.index for place, _ in places) == [0, 1]
    assert len(tree.edits) == 2


def test_the_budget_bounds_rewritings_and_what_it_leaves_unproved_is_not_flawed():
    # 8 solutions and 4 rollouts from each of the two steps, and nothing is left for a rewriting ...
    spent = 8 + 2 * 4
    tree, _, places = inject(five, max_rollouts=spent)
    assert (tree.stopped, tree.edits[0].state, places) == ("budget", "no_rewriting", [])
    # ... or for one, and 3 completions of the original alone.
    tree, _, places = inject(five, max_rollouts=spent + 4)
    assert (tree.stopped, tree.edits[0].state, len(places)) == ("budget", "nothing_scored", 1)
    assert tree.edits[0].original_estimate == counts(3, 3)
    assert tree.rollouts == spent + 4
    assert not any(node.flawed for node in tree.nodes)


def test_the_tree_does_not_depend_on_the_order_of_answers():
    settings = InjectSettings(max_edits=2, tries=3)

    def rewrite(place, sample):
        return "" if sample < place.index else "five"

    trees = {
        msgspec.json.encode(inject(rewrite, settings=settings, delays=delays)[0])
        for delays in (None, *map(random.Random, range(12)))
    }
    assert len(trees) == 1


def test_steps_are_drawn_evenly_and_by_the_seed():
    solution = ("Step 1: a\n", "Step 2: b\n", "Step 3: c\n", "Answer: 8\n")
    runs = [inject(five, solution=solution, problem=f"p{i}")[2][0][0] for i in range(300)]
    drawn = Counter(place.index for place in runs)
    # 100 of each are expected, 8.2 being the standard deviation.
    assert all(67 <= drawn[i] <= 133 for i in range(3))
    kinds = Counter(place.error_type for place in runs)
    assert set(kinds) == set(ONE.error_types)
    again = [inject(five, solution=solution, problem=f"p{i}")[2][0][0] for i in range(20)]
    assert again == runs[:20]


def test_ways_are_taken_in_turn_and_only_named_errors_are_asked_for():
    solution = ("Step 1: a\n", "Step 2: b\n", "Step 3: c\n", "Answer: 8\n")
    settings = InjectSettings(max_edits=3, how=("edit", "hot", "hint"), error_types=("calculation",))
    tree, _, places = inject(five, settings=settings, solution=solution)
    assert [(place.how, place.error_type) for place, sample in places if sample == 0] == [
        ("edit", "calculation"),
        ("hot", ""),
        ("hint", "calculation"),
    ]
    # `five` is no solution that goes on.
    assert [edit.unusable for edit in tree.edits] == [(), ("ends_solution",) * 3, ("ends_solution",) * 3]


def test_what_goes_wrong_with_a_rewriting_ends_the_tree():
    def broken(place, sample):
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        inject(broken)


def test_the_id_tells_how_errors_were_put_in():
    assert len({inject(five, settings=InjectSettings(max_edits=k))[0].id for k in (1, 2)}) == 2


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"num_samples": 0}, "num_samples must be at least 1"),
        ({"max_edits": 0}, "max_edits must be at least 1"),
        ({"max_paths": 0}, "max_paths must be at least 1"),
        ({"tries": 0}, "tries must be at least 1"),
        ({"completions": 0}, "completions must be at least 1"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"temperature": -0.1}, "temperature must not be below 0"),
        ({"how": ()}, "how must name some of"),
        ({"how": ("hot", "hot")}, "how must name some of"),
        ({"error_types": ()}, "error_types is empty"),
    ],
)
def test_settings_that_cannot_work_are_refused(setting, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        InjectSettings(**setting)


def test_hot_solutions_need_no_named_errors():
    InjectSettings(how=("hot",), error_types=())

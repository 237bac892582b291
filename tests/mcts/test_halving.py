"""OmegaPRM's search on policies made by hand: which rollout is selected, what is asked of it, what is never asked.

Steps are letters: the path "abc" is the text `Step 1: a`, `Step 2: b`, `Step 3: c`, a line each.
"""

import asyncio
import collections
import random

import pytest
from made_trees import PROBLEM, PROVENANCE
from worlds import make_policy, make_verifier

from mcts.answers import Check, unscored
from mcts.base import Rollout
from mcts.growth import Growth
from mcts.halving import Halving
from mcts.pairing import PairSettings
from mcts.search import expand_tree
from mcts.settings import SearchSettings
from schemas import Estimate

RIGHT, WRONG, LOST = "8", "7", "?"
ALONE = {
    "rule": "omega",
    "exploration": 0.125,
    "parallel_searches": 1,
    "root_rollouts": 2,
    "rollouts_per_search": 2,
    "easy_above": 1.0,
    "hopeless_below": 0.0,
    "max_located": 0,
    "max_confirm_rollouts": 0,
}


def lines(path, start=0):
    return "".join(f"Step {i}: {letter}\n" for i, letter in enumerate(path[start:], start + 1))


def rollout(start, path):
    """From the state `start` on along `path`, whose last character is the answer; `?` for none."""
    end = f"Answer: {path[-1]}\n" if path[-1] != LOST else "I give up.\n"
    return lines(path[:-1], len(start)) + end


def letters(text):
    return "".join(line.split()[2] for line in text.splitlines() if line.startswith("Step"))


def scripted(table, tokens=None):
    """(policy, asked): `table` maps a state to the paths of its rollouts in order, the last of which repeats.

    `tokens` maps paths to tokens; others have 10.
    """
    asked = []

    async def policy(prefix, *, num_samples, first_sample):
        state = letters(prefix)
        asked.append(state)
        paths = [table[state][min(first_sample + i, len(table[state]) - 1)] for i in range(num_samples)]
        return [Rollout(text=rollout(state, path), tokens=(tokens or {}).get(path, 10)) for path in paths]

    return policy, asked


def grow(policy, *, verifier=None, **settings):
    return asyncio.run(
        expand_tree(
            PROBLEM,
            policy=policy,
            verifier=verifier or make_verifier(),
            settings=SearchSettings(**ALONE | settings),
            pairing=PairSettings(),
            provenance=PROVENANCE,
        )
    )


def grown(**states):
    """(growth, node by state) with the rollouts of each state; "" is written `root`. A rollout is (path, tokens)."""
    growth, nodes = Growth("marker"), {"": 0}
    for name, rollouts in states.items():
        state = "" if name == "root" else name
        growth.reserve(nodes[state], len(rollouts))
        terminals = []
        for path, tokens in rollouts:
            terminal = growth.graft(nodes[state], Rollout(text=rollout(state, path), tokens=tokens))
            outcome = {RIGHT: "correct", WRONG: "incorrect"}.get(path[-1])
            growth.nodes[terminal].check = Check(outcome=outcome) if outcome else unscored("no_answer")
            terminals.append(terminal)
        growth.record(nodes[state], terminals)
        nodes |= {letters(bud.text): i for i, bud in enumerate(growth.nodes) if not bud.terminal}
    return growth, nodes


def halving(growth, **settings):
    return Halving(growth, SearchSettings(**ALONE | settings))


def first_wish(plan, growth):
    """The state that a search asks first; None where it asks nothing."""
    ((node, _),) = next(plan, ((None, 0),))
    return None if node is None else letters(growth.nodes[node].text)


# --- which rollout ---------------------------------------------------------------------------------------------------


def test_of_one_states_wrong_rollouts_the_shortest_is_selected():
    # MC = 1/4 for all: 0.5^0.75 = 0.594604. 0.9^(400/500) = 0.919166, 0.9^(100/500) = 0.979148, 0.9^(300/500) =
    # 0.938740: 0.5465, 0.5822, 0.5582.
    growth, _ = grown(root=[("a8", 50), ("b7", 400), ("c7", 100), ("d7", 300)])
    assert first_wish(halving(growth).select(), growth) == "c"


def test_a_state_that_is_nearly_always_right_comes_before_a_shorter_rollout():
    # MC = 1/2 at the root: 0.5^0.5 * 0.9^(100/500) = 0.707107 * 0.979148 = 0.692362. MC = 3/4 at a: 0.5^0.25 *
    # 0.9^(300/500) = 0.840896 * 0.938740 = 0.789383.
    growth, _ = grown(root=[("ab8", 50), ("c7", 100)], a=[("ab8", 50), ("ab8", 50), ("ab8", 50), ("ad7", 300)])
    assert first_wish(halving(growth).select(), growth) == "ad"


def test_a_long_enough_rollout_of_a_better_state_waits():
    # As above, but 0.840896 * 0.9^(1000/500) = 0.840896 * 0.81 = 0.681126 < 0.692362.
    growth, _ = grown(root=[("ab8", 50), ("c7", 100)], a=[("ab8", 50), ("ab8", 50), ("ab8", 50), ("ad7", 1000)])
    assert first_wish(halving(growth).select(), growth) == "c"


def test_a_state_that_was_seldom_selected_comes_first_where_exploration_is_large():
    # Root: MC = 1/2, a: MC = 2/3; all rollouts have 500 tokens, so both are times 0.9: 0.636396 and 0.714331.
    # After a was selected once, with c = 1: root 0.636396 + 1 sqrt(1) / 1, a 0.714331 + 1 sqrt(1) / 2 = 1.214331.
    states = {
        "root": [("ab8", 500), ("ab8", 500), ("c7", 500), ("d7", 500)],
        "a": [("ab8", 500), ("ab8", 500), ("ab8", 500), ("ab8", 500), ("ae7", 500), ("af7", 500)],
    }
    growth, _ = grown(**states)
    pool = halving(growth, exploration=1.0)
    assert [first_wish(pool.select(), growth) for _ in range(4)] == ["ae", "c", "af", "d"]
    # With c = 0.125 the gap stays: root 0.636396 + 0.125, a 0.714331 + 0.0625 = 0.776831.
    growth, _ = grown(**states)
    pool = halving(growth)
    assert [first_wish(pool.select(), growth) for _ in range(4)] == ["ae", "af", "c", "d"]


def test_equal_scores_go_to_the_state_that_came_first_and_its_earliest_rollout():
    growth, _ = grown(root=[("ab8", 10), ("c7", 10), ("d7", 10)], a=[("ab8", 10), ("ae7", 10), ("af7", 10)])
    # Both states have MC = 1/3 and rollouts of 10 tokens. Root, then a (the root was selected once), then root, a.
    pool = halving(growth)
    assert [first_wish(pool.select(), growth) for _ in range(4)] == ["c", "ae", "d", "af"]
    assert pool.select() is None


def test_the_constants_are_those_of_the_settings():
    # At L = 20 the length decides: 0.5^0.25 * 0.9^(300/20) = 0.840896 * 0.205891 = 0.173133 against
    # 0.707107 * 0.9^(100/20) = 0.707107 * 0.59049 = 0.417539.
    growth, _ = grown(root=[("ab8", 50), ("c7", 100)], a=[("ab8", 50), ("ab8", 50), ("ab8", 50), ("ad7", 300)])
    settings = SearchSettings(**ALONE)
    short = type(settings.omega)(length=20)
    assert first_wish(halving(growth, omega=short).select(), growth) == "c"


# --- who is in the pool ----------------------------------------------------------------------------------------------


def selected(growth):
    """(path, wrong answer or not) of everything that is ever selected, by what each search would ask first."""
    pool, wishes = halving(growth), []
    while (plan := pool.select()) is not None:
        wishes.append(first_wish(plan, growth))
    return wishes


def test_only_wrong_rollouts_wait():
    growth, _ = grown(root=[("a8", 10), ("b7", 10), ("c?", 10), ("d7", 10)])
    assert selected(growth) == ["b", "d"]


def test_a_state_from_which_nothing_is_right_gives_no_rollout():
    growth, _ = grown(root=[("ab8", 10), ("ac7", 10)], ac=[("acd7", 10), ("ace7", 10)])
    assert selected(growth) == ["a"]


def test_a_state_from_which_all_is_right_gives_no_rollout():
    growth, _ = grown(root=[("ab8", 10), ("ac8", 10)])
    assert selected(growth) == []


def test_what_is_unscored_makes_no_state_uncertain():
    # One of one scored rollouts is right: MC is 1, not 1/3.
    growth, _ = grown(root=[("ab8", 10), ("ac?", 10), ("ad?", 10)])
    assert selected(growth) == []
    # None of one: MC is 0.
    growth, _ = grown(root=[("ab7", 10), ("ac?", 10)])
    assert selected(growth) == []


def test_a_refused_rollout_is_nobodys():
    growth, _ = grown(root=[("ab8", 10), ("b7", 10)])
    growth.reserve(0, 1)
    growth.record(0, [growth.graft(0, Rollout(text="", tokens=0, error="refused"))])
    assert selected(growth) == ["b"]


def test_each_rollout_is_selected_once_also_where_two_have_one_text():
    growth, _ = grown(root=[("ab8", 10), ("c7", 10), ("c7", 10)], a=[("ab8", 10), ("ad7", 10)])
    # a: MC = 1/2 before the root's 1/3. Two rollouts of the root are word for word the same and count as two.
    assert selected(growth) == ["ad", "c", "c"]


def test_a_rollout_joins_the_pool_when_its_state_turns_uncertain():
    growth, nodes = grown(root=[("ab8", 10), ("c7", 10)], a=[("ad7", 10)])
    pool = halving(growth)
    assert first_wish(pool.select(), growth) == "c"
    assert pool.select() is None
    growth.reserve(nodes["a"], 1)
    growth.record(nodes["a"], [growth.graft(nodes["a"], Rollout(text=rollout("a", "ab8"), tokens=10))])
    assert first_wish(pool.select(), growth) == "ad"


# --- what is asked ---------------------------------------------------------------------------------------------------

LONG = "abcdefg"
HALVED = {
    # first wrong step: middle states asked, by their number of steps. Seven inner states; the middle of 1..7 is 4.
    "a": [4, 2, 1],
    "b": [4, 2, 1],
    "c": [4, 2, 3],
    "d": [4, 2, 3],
    "e": [4, 6, 5],
    "f": [4, 6, 5],
    "g": [4, 6, 7],
    "answer": [4, 6, 7],
}


@pytest.mark.parametrize(("error", "depths"), HALVED.items())
def test_the_middle_state_is_asked_until_the_first_error_is_found(error, depths):
    """Nothing comes out right from a state that holds the wrong step, everything from one that does not."""
    held = LONG.find(error) if error in LONG else len(LONG)
    table = {"": ["z8", LONG + WRONG]}
    for depth in range(1, len(LONG) + 1):
        table[LONG[:depth]] = [LONG + RIGHT] if depth <= held else [LONG + WRONG]
    policy, asked = scripted(table)
    tree = grow(policy, max_searches=1)
    assert asked == ["", *(LONG[:depth] for depth in depths)]
    rates = {node.depth: node.direct.rate for node in tree.nodes if node.direct.scored and node.depth}
    assert rates == {depth: float(depth <= held) for depth in depths}


# The number of questions is that of a binary search: 1 + floor(log2 M) at most for M inner states.
@pytest.mark.parametrize(("steps", "most"), [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (7, 3), (8, 4)])
def test_as_many_states_are_asked_as_a_binary_search_asks(steps, most):
    path = "abcdefgh"[:steps]
    counts = set()
    for held in range(steps + 1):
        table = {path[:i]: [path + (RIGHT if i <= held else WRONG)] for i in range(1, steps + 1)}
        policy, asked = scripted(table | {"": ["z8", path + WRONG]})
        grow(policy, max_searches=1)
        assert asked[0] == ""
        counts.add(len(asked) - 1)
    assert max(counts) == most
    assert min(counts) >= most - 1


def test_one_right_rollout_is_enough_for_a_state_to_hold():
    policy, asked = scripted({"": ["z8", "abc7"], "ab": ["abc7", "abc8"], "abc": ["abc7"]})
    grow(policy, max_searches=1)
    assert asked == ["", "ab", "abc"]


def test_a_state_whose_rollouts_are_all_unscored_does_not_count_as_right():
    policy, asked = scripted({"": ["z8", "abc7"], "ab": ["ab?"], "a": ["ab8"]})
    tree = grow(policy, max_searches=1)
    assert asked == ["", "ab", "a"]
    assert [node.direct for node in tree.nodes if node.step == "Step 2: b\n"] == [Estimate(unscored=2)]


def test_only_states_behind_the_rollouts_own_are_asked():
    # From ab one is right and one wrong; the wrong one goes on c, d, e. Its middle is abcd; a and ab are not looked at.
    policy, asked = scripted(
        {
            "": ["z8", "abx7"],
            "ab": ["abx8", "abcde7"],
            "abx": ["abx7"],
            "abcd": ["abcde8"],
            "abcde": ["abcde7"],
        }
    )
    grow(policy, max_searches=2)
    assert asked == ["", "ab", "abx", "abcd", "abcde"]


def test_a_state_that_has_rollouts_is_not_asked_again():
    # Both wrong rollouts go through a and ab. The first search asks ab (wrong from there on) and a; the second finds
    # abd's middle ab known, and a too.
    policy, asked = scripted({"": ["z8", "abc7", "abd7"], "a": ["a8"], "ab": ["ab7"]})
    tree = grow(policy, max_searches=2, root_rollouts=3)
    assert asked == ["", "ab", "a"]
    assert tree.rollouts == 3 + 2 + 2


def test_a_search_that_needs_nothing_new_still_counts_as_one():
    policy, asked = scripted({"": ["z8", "abc7", "abd7", "e7"], "a": ["a8"], "ab": ["ab7"], "e": ["e7"]})
    grow(policy, max_searches=2, root_rollouts=4)
    # Scores are equal: abc, abd, e in this order. Two searches never come to e.
    assert asked == ["", "ab", "a"]
    policy, asked = scripted({"": ["z8", "abc7", "abd7", "e7"], "a": ["a8"], "ab": ["ab7"], "e": ["e7"]})
    grow(policy, max_searches=3, root_rollouts=4)
    assert asked == ["", "ab", "a", "e"]


def test_states_that_halving_asks_join_the_pool():
    # ab is asked for the root's abc: one of two comes out right, so its own wrong rollout abxy waits now. MC is 1/2 at
    # both, but the root's other rollout has 200 tokens: 0.9^0.4 = 0.959 against 0.9^0.02 = 0.998.
    table = {
        "": ["z8", "abc7", "w7"],
        "ab": ["ab8", "abxy7"],
        "abc": ["abc7"],
        "abxy": ["abxy7"],
        "abx": ["abx8"],
        "w": ["w7"],
    }
    policy, asked = scripted(table, tokens={"w7": 200})
    grow(policy, max_searches=2, root_rollouts=3)
    assert asked == ["", "ab", "abc", "abxy", "abx"]


def test_the_search_ends_when_nothing_waits():
    policy, asked = scripted({"": ["a8", "b7"], "b": ["b7"]})
    tree = grow(policy, max_searches=100)
    assert asked == ["", "b"]
    assert tree.stopped == "searches"


def test_a_problem_whose_rollouts_agree_has_nothing_to_halve():
    for answer in (RIGHT, WRONG):
        policy, asked = scripted({"": [f"ab{answer}"]})
        tree = grow(policy, max_searches=5, max_root_rollouts=6)
        assert asked == ["", "", ""]
        assert (tree.stopped, tree.rollouts) == ("searches", 6)


# --- several at once -------------------------------------------------------------------------------------------------


class Held:
    """A policy whose answers below the root come when they are let go, in the order of letting go."""

    def __init__(self, table):
        self._policy, self.asked = scripted(table)
        self._gates = {}

    async def __call__(self, prefix, *, num_samples, first_sample):
        rollouts = await self._policy(prefix, num_samples=num_samples, first_sample=first_sample)
        if prefix:
            gate = self._gates[letters(prefix)] = asyncio.Event()
            await gate.wait()
        return rollouts

    async def settle(self):
        for _ in range(30):
            await asyncio.sleep(0)

    async def let_go(self, state):
        self._gates.pop(state).set()
        await self.settle()


def held_search(table, **settings):
    policy = Held(table)
    search = expand_tree(
        PROBLEM,
        policy=policy,
        verifier=make_verifier(),
        settings=SearchSettings(**ALONE | settings),
        pairing=PairSettings(),
        provenance=PROVENANCE,
    )
    return policy, search


def test_two_halvings_that_need_one_state_ask_it_once():
    table = {"": ["z8", "abc7", "abd7"], "a": ["a8"], "ab": ["abc8"], "abc": ["abc7"], "abd": ["abd7"]}

    async def main():
        policy, search = held_search(table, root_rollouts=3, max_searches=2, parallel_searches=2)
        task = asyncio.ensure_future(search)
        await policy.settle()
        # Both need ab; the second waits for the first one's question.
        assert policy.asked == ["", "ab"]
        await policy.let_go("ab")
        # ab holds, and both go on behind it.
        assert policy.asked == ["", "ab", "abc", "abd"]
        await policy.let_go("abd")
        await policy.let_go("abc")
        return await task

    tree = asyncio.run(main())
    assert tree.rollouts == 3 + 3 * 2
    assert all(node.direct.scored in (0, 2, 3) for node in tree.nodes)


def test_a_rollout_whose_halving_is_in_flight_is_not_selected_again():
    # Two wrong rollouts and room for nine halvings.
    table = {"": ["z8", "a7", "b7", "z8"], "a": ["a7"], "b": ["b7"]}

    async def main():
        policy, search = held_search(table, root_rollouts=4, max_searches=9, parallel_searches=9)
        task = asyncio.ensure_future(search)
        await policy.settle()
        assert policy.asked == ["", "a", "b"]
        await policy.let_go("b")
        await policy.let_go("a")
        return await task

    assert asyncio.run(main()).rollouts == 4 + 2 + 2


def test_a_selection_counts_at_once_and_not_when_its_answers_come():
    # Root and a have MC = 1/2 and rollouts of equal length. The root is selected, first of equals; while that search
    # waits, a has 0.125 sqrt(1) / 1 more and the root half of it.
    growth, _ = grown(
        root=[("ab8", 10), ("ab8", 10), ("c7", 10), ("d7", 10)],
        a=[("ab8", 10), ("ab8", 10), ("ae7", 10), ("af7", 10)],
    )
    pool = halving(growth)
    plans = [pool.select() for _ in range(4)]
    assert [first_wish(plan, growth) for plan in plans] == ["c", "ae", "d", "af"]


def test_a_pool_that_fills_again_wakes_searches_that_found_none():
    # One wrong rollout at first. Its middle state ab gives a new one while three searches may run.
    table = {"": ["z8", "abc7"], "ab": ["ab8", "abde7"], "abc": ["abc7"], "abde": ["abde7"], "abd": ["abd7"]}

    async def main():
        policy, search = held_search(table, max_searches=5, parallel_searches=3)
        task = asyncio.ensure_future(search)
        await policy.settle()
        assert policy.asked == ["", "ab"]
        await policy.let_go("ab")
        assert policy.asked == ["", "ab", "abc", "abde"]
        await policy.let_go("abde")
        await policy.let_go("abc")
        assert policy.asked == ["", "ab", "abc", "abde", "abd"]
        await policy.let_go("abd")
        return await task

    assert asyncio.run(main()).stopped == "searches"


# --- budgets and order -----------------------------------------------------------------------------------------------

WORLD = {"rule": "omega", "exploration": 0.125, "max_searches": 30, "max_root_rollouts": 8}


def world(seed, *, settings, delays=None, **about):
    """(tree, notes) of one whole search in a world of random slips."""
    policy, notes = make_policy(seed, delays=delays and random.Random(f"policy {delays}"), **about)
    verifier = make_verifier(notes, delays=delays and random.Random(f"verifier {delays}"))
    tree = asyncio.run(
        expand_tree(
            PROBLEM,
            policy=policy,
            verifier=verifier,
            settings=SearchSettings(**WORLD | settings),
            pairing=PairSettings(),
            provenance=PROVENANCE,
        )
    )
    return tree, notes


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("most", [8, 9, 12, 15, 31, 64])
def test_no_more_rollouts_are_asked_than_may_be(most, width):
    stops = collections.Counter()
    for seed in range(4):
        tree, notes = world(seed, settings={"max_rollouts": most, "parallel_searches": width}, slip=0.2)
        assert tree.rollouts == len(notes.rollouts) <= most
        assert tree.calls == len(notes.calls)
        assert tree.stopped != "budget" or tree.rollouts == most
        stops[tree.stopped] += 1
    assert stops["budget"] >= 2


@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_no_more_searches_are_made_than_may_be(most):
    # Five wrong rollouts of one inner state each, and each search asks that state.
    table = {"": ["z8", "a7", "b7", "c7", "d7", "e7"]} | {state: [f"{state}7"] for state in "abcde"}
    policy, asked = scripted(table)
    grow(policy, root_rollouts=6, max_searches=most, parallel_searches=2)
    assert asked == ["", *"abcde"[:most]]


@pytest.mark.parametrize("seed", range(6))
def test_the_tree_is_the_same_whatever_the_latencies(seed):
    settings = {"parallel_searches": 3, "max_located": 3, "max_rollouts": 160}
    about = {"slip": 0.2, "luck": 0.2, "refused": 0.1}
    expected, _ = world(seed, settings=settings, **about)
    orders = set()
    for shuffle in range(1, 9):
        tree, notes = world(seed, settings=settings, delays=shuffle, **about)
        assert tree == expected
        orders.add(tuple(notes.came))
    assert len(orders) > 1, "answers came in several orders"


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_no_state_but_the_root_is_asked_twice_by_halving(seed, width):
    settings = {"parallel_searches": width, "max_located": 0, "max_confirm_rollouts": 0, "max_rollouts": 400}
    _, notes = world(seed, settings=settings, slip=0.2, luck=0.3)
    asked = notes.prefixes[1:]
    assert "" not in asked
    assert len(asked) == len(set(asked)) > 5

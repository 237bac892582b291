"""Hybrid values, bonuses, feedback from siblings and a debate: by hand, and what they must leave alone."""

import asyncio
import random
from collections import Counter

import msgspec
import pytest
from made_trees import PROBLEM, PROVENANCE
from worlds import make_policy, make_verifier

from mcts.answers import Check
from mcts.base import Rollout
from mcts.hybrid import Argument, Valuation, hybrid_sum, likeness, plurality, unit_value, word_feedback
from mcts.pairing import PairSettings
from mcts.search import GuidedSearch, TreeSearch
from mcts.selection import Shape, bonus
from mcts.settings import Bonuses, HybridSettings, SearchSettings

EVERYTHING = HybridSettings(
    value_weight=0.5,
    sibling_feedback=True,
    debaters=2,
    bonuses=Bonuses(depth=1.0, depth_penalty=0.01, leaf=0.25, diversity=0.5),
)


class MadeGuide:
    """A model whose words are a function of what it is asked; notes who was advised of what."""

    def __init__(self, policy, *, delays=None, values=None):
        self.policy, self.delays, self.values = policy, delays, values
        self.told, self.asked, self.heard = [], [], []

    async def _wait(self):
        for _ in range(self.delays.randrange(12) if self.delays else 0):
            await asyncio.sleep(0)

    async def advised(self, prefix, advice, *, num_samples, first_sample):
        self.told.append((prefix, num_samples, advice))
        return await self.policy(prefix, num_samples=num_samples, first_sample=first_sample)

    async def value(self, steps):
        self.asked.append("".join(steps))
        await self._wait()
        value = -80 if any("bad" in step for step in steps) else 20 * len(steps) - 60
        if self.values is not None:
            value = self.values.get("".join(steps))
        return Valuation(value=value, reason=f"after {steps[-1]}", tokens=7)

    async def argue(self, candidates, said, debater):
        self.heard.append((len(candidates), said, debater))
        await self._wait()
        return Argument(choice=(len(said) + debater) % len(candidates), text=f"debater {debater}", tokens=5)


def searching(policy, guide=None, hybrid=EVERYTHING, verifier=None, **settings):
    options = {
        "settings": SearchSettings(hybrid=hybrid, **settings),
        "pairing": PairSettings(),
        "provenance": PROVENANCE,
        "policy": policy,
        "verifier": verifier or make_verifier(),
    }
    return TreeSearch(PROBLEM, **options) if guide is None else GuidedSearch(guide, PROBLEM, **options)


# --- the formulas ---------------------------------------------------------------------------------------------------


def test_a_value_of_minus_100_to_100_is_a_rate():
    assert [unit_value(value) for value in (-100, 0, 50, 100)] == [0.0, 0.5, 0.75, 1.0]


def test_a_hybrid_value_weighs_the_model_against_the_rollouts():
    # Three visits with values 1, 0, 1/2: V = 1/2. A model said 0.9 and 0.7: U = 0.8. (0.5 + 0.8) / 2 = 0.65, times 3.
    assert hybrid_sum(1.5, 3, [0.9, 0.7], 0.5) == pytest.approx(1.95)
    assert hybrid_sum(1.5, 3, [0.9, 0.7], 0.0) == 1.5
    assert hybrid_sum(1.5, 3, [0.9, 0.7], 1.0) == pytest.approx(2.4)
    assert hybrid_sum(1.5, 3, [], 1.0) == 1.5  # Nobody said anything.


def test_each_bonus_by_hand():
    shape = Shape(depth=2, value=0.8, is_leaf=True, likeness=0.4)
    # e^-0.8 = 0.449329, sqrt(2) = 1.414214.
    assert bonus(shape, Bonuses(depth=2.0)) == pytest.approx(2 * 0.449329, abs=1e-6)
    assert bonus(shape, Bonuses(depth=2.0, depth_decay=0.0)) == 2.0
    assert bonus(shape, Bonuses(depth_penalty=0.1)) == pytest.approx(-0.1414214)
    assert bonus(shape, Bonuses(leaf=0.25)) == 0.25
    assert bonus(shape, Bonuses(leaf=0.25, leaf_above=0.81)) == 0.0
    assert bonus(msgspec.structs.replace(shape, is_leaf=False), Bonuses(leaf=0.25)) == 0.0
    assert bonus(shape, Bonuses(diversity=0.5)) == pytest.approx(0.3)
    assert bonus(shape, Bonuses()) == 0.0


def test_likeness_is_of_words():
    assert likeness("Step 1: a\n", "step 1: b") == 0.5  # step, 1 in both; a and b in one each
    assert likeness("a b", "b a") == 1.0
    assert likeness("!", "!") == 1.0
    assert likeness("!", "?") == 0.0


def test_the_last_word_is_a_pluralitys():
    assert plurality([1, 1, 0]) == 1
    assert plurality([1, 0]) is None
    assert plurality([None, None]) is None
    assert plurality([None, 3]) == 3


# --- selection on a tree made by hand ---------------------------------------------------------------------------------


def made(hybrid, **settings):
    """Two first steps, rolled out from once with one right of two, each with a second step that nobody tried.

    Below the problem lie `a` and `b`, below them `a c` and `b c`. A model said -60 of a (0.2) and 60 of b (0.8).
    """
    search = searching(None, MadeGuide(None), hybrid, **{"exploration": 0.7} | settings)
    growth = search._growth
    texts = ["Step 1: a\nStep 2: a c\nAnswer: 8\n", "Step 1: b\nStep 2: b c\nAnswer: 7\n"]
    put(growth, 0, texts)
    a, b = growth.nodes[0].children.values()
    for node, value in ((a, -60), (b, 60)):
        put(growth, node, ["Step 2: x\nAnswer: 8\n", "Answer: 7\n"])
        search._hybrid._take(node, Valuation(value=value, reason="", tokens=0))
    return search, a, b


def put(growth, node, texts):
    growth.reserve(node, len(texts))
    terminals = [growth.graft(node, Rollout(text=text, tokens=3)) for text in texts]
    for terminal in terminals:
        bud = growth.nodes[terminal]
        bud.check = Check(outcome="correct" if bud.text.endswith("8\n") else "incorrect", answer=bud.text[-2])
    growth.record(node, terminals)


def test_selection_by_hand():
    # V = 1/2 and N = 1 for both, N_p = 3; ln 3 = 1.098612, sqrt(2 ln 3) = 1.482304, times 0.7 is 1.037613.
    search, a, b = made(HybridSettings())
    assert search._score(a) == (pytest.approx(1.537613, abs=1e-6), 0.0, 1)
    assert search._score(b) == (pytest.approx(1.537613, abs=1e-6), 0.0, 1)
    # Half the model's: 0.5 0.5 + 0.5 0.2 = 0.35 for a, 0.25 + 0.4 = 0.65 for b.
    search, a, b = made(HybridSettings(value_weight=0.5))
    assert [search._score(node)[0] for node in (a, b)] == pytest.approx([1.387613, 1.687613], abs=1e-6)
    # Depth 1: alpha e^0 = 0.1, gamma sqrt(1) = 0.02. Leaves, b with 0.65 above 0.6: 0.25. Each differs from the other,
    # which was tried, in one of two words: 0.4 (1 - 0.5) = 0.2.
    bonuses = Bonuses(depth=0.1, depth_penalty=0.02, leaf=0.25, leaf_above=0.6, diversity=0.4)
    search, a, b = made(HybridSettings(value_weight=0.5, bonuses=bonuses))
    assert search._score(a) == (pytest.approx(1.387613 + 0.28, abs=1e-6), pytest.approx(0.28), 1)
    assert search._score(b) == (pytest.approx(1.687613 + 0.53, abs=1e-6), pytest.approx(0.53), 1)
    # So b is walked down to, and below it what was never visited: `b c` and `x`, at depth 2 both, both infinite,
    # nothing tried beside them: the one that came first.
    assert searched_next(search) == next(iter(search._growth.nodes[b].children.values()))


def searched_next(search):
    """The node that the next search rolls out from."""
    return next(search._select())[-1][0]


def test_a_model_that_knows_better_leads_elsewhere_than_the_rollouts():
    def goes_below(weight):
        search, a, b = made(HybridSettings(value_weight=weight), rule="greedy_value")
        put(search._growth, a, ["Answer: 8\n", "Step 2: x\nAnswer: 8\n"])
        return {a: "a", b: "b"}[search._growth.nodes[searched_next(search)].parent]

    # The rollouts have 3/4 for a and 1/2 for b, the model 0.2 and 0.8. At 1/4: 0.6125 and 0.575; at 1/2: 0.475, 0.65.
    assert goes_below(0.0) == goes_below(0.25) == "a"
    assert goes_below(0.5) == goes_below(1.0) == "b"


def test_what_a_model_said_is_backed_up():
    search, a, b = made(HybridSettings(value_weight=1.0))
    # The root was visited three times; the model's mean over it is (0.2 + 0.8) / 2.
    assert search._hybrid.value_sum(0) == pytest.approx(3 * 0.5)
    search._hybrid._take(b, Valuation(value=None, reason="", tokens=0))
    assert search._hybrid.value_sum(0) == pytest.approx(1.5), "a reply that could not be read counts for nothing"
    below_b = next(i for i in search._growth.nodes[b].children.values())
    search._hybrid._take(below_b, Valuation(value=100, reason="", tokens=0))
    assert search._hybrid.value_sum(b) == pytest.approx((0.8 + 1.0) / 2)
    assert search._hybrid.value_sum(a) == pytest.approx(0.2)


def test_a_node_that_is_told_of_siblings_is_told_of_them_and_of_nothing_else():
    hybrid = HybridSettings(sibling_feedback=True)
    search, a, b = made(hybrid)
    said = search._hybrid._said
    said[a] = Valuation(value=-60, reason="a is\noff", tokens=0)
    assert search._hybrid.advice(b) == "Another way to go on: Step 1: a\nWorth -60 of -100 to 100. a is off"
    assert search._hybrid.advice(0) == ""
    below = next(i for i in search._growth.nodes[a].children.values())
    assert search._hybrid.advice(below) == "", "nothing was said of its siblings; what was said of a is not told"
    del said[b]
    assert search._hybrid.advice(a) == ""


def test_the_best_siblings_are_told_of_first():
    def steps(most):
        search, a, _ = made(HybridSettings(sibling_feedback=True, max_siblings=most))
        put(search._growth, 0, [f"Step 1: {name}\nStep 2: y\nAnswer: 7\n" for name in "cde"])
        others = [i for i in search._growth.nodes[0].children.values() if i != a]
        for node, value in zip(others, (10, 40, None, 40), strict=True):
            search._hybrid._said[node] = Valuation(value=value, reason="", tokens=0)
        return [line.split()[-1] for line in search._hybrid.advice(a).splitlines()[::2]]

    assert steps(3) == ["c", "e", "b"]  # d was valued by nobody who could be read.
    assert steps(1) == ["c"]


def test_a_sibling_is_labelled_as_one():
    told = word_feedback("Step 2: x\ny\n", Valuation(value=-5, reason=" no\ngood ", tokens=1))
    assert told == "Another way to go on: Step 2: x y\nWorth -5 of -100 to 100. no good"


# --- whole searches ---------------------------------------------------------------------------------------------------


def grown(seed, *, delays=None, hybrid=EVERYTHING, **settings):
    policy, notes = make_policy(seed, delays=delays)
    guide = MadeGuide(make_policy(f"advised {seed}", delays=delays)[0], delays=delays)
    options = {"max_searches": 8, "rollouts_per_search": 3, "parallel_searches": 3, "easy_above": 0.95}
    search = searching(policy, guide, hybrid, make_verifier(delays=delays), **options | settings)
    return asyncio.run(search.grow()), notes, guide


@pytest.mark.parametrize("seed", range(4))
def test_the_tree_is_the_same_whatever_the_latencies(seed):
    first, *_ = grown(seed)
    assert first.guesses
    assert first.debate
    for shuffle in range(5):
        assert grown(seed, delays=random.Random(f"{seed}/{shuffle}"))[0] == first


@pytest.mark.parametrize("seed", range(6))
def test_direct_estimates_are_of_rollouts_that_were_told_nothing(seed):
    tree, notes, guide = grown(seed)
    assert guide.told, "nobody was told anything, and the test shows nothing"
    bare, told = Counter(), Counter()
    for prefix, _, rollouts in notes.calls:
        bare[prefix] += len(rollouts)
    for prefix, num_samples, advice in guide.told:
        assert advice.startswith("Another way to go on: ")
        told[prefix] += num_samples
    by_text = {"".join(tree.steps(i)): node for i, node in enumerate(tree.nodes) if node.kind != "terminal"}
    assert {
        text: node.direct.scored + node.direct.unscored for text, node in by_text.items() if node.direct.scored
    } == {text: number for text, number in bare.items() if number}
    assert sum(bare.values()) + sum(told.values()) == tree.rollouts
    # What it was told, and that it was visited, is there for who looks at the tree.
    for guess in tree.guesses:
        text = "".join(tree.steps(guess.node))
        assert bool(guess.advice) == bool(told[text])
        assert tree.nodes[guess.node].visits


def test_calls_and_tokens_of_the_model_are_counted():
    tree, notes, guide = grown(1)
    assert tree.calls == len(notes.calls) + len(guide.told) + len(guide.asked) + len(guide.heard)
    assert tree.dropped_tokens == 7 * len(guide.asked) + 5 * len(guide.heard)


def test_a_model_is_asked_once_of_each_node_that_is_expanded():
    _, _, guide = grown(2, max_searches=5)
    assert len(guide.asked) == len(set(guide.asked)) == 5


def test_debaters_hear_the_rounds_before_and_take_different_answers():
    tree, _, guide = grown(3)
    candidates = tree.debate.candidates
    assert 2 <= len(candidates) <= 5
    assert len({tree.nodes[i].answer for i in candidates}) == len(candidates)
    # Two debaters, two rounds: the second round hears the two words of the first.
    first = ("debater 0", "debater 1")
    assert guide.heard == [(len(candidates), said, debater) for said in ((), first) for debater in (0, 1)]
    assert tree.debate.arguments == first * 2
    choices = [i % len(candidates) for i in (0, 1, 2, 3)]
    assert list(tree.debate.choices) == choices
    last = set(choices[2:])
    assert tree.debate.chosen == (candidates[choices[2]] if len(last) == 1 else None)


def test_what_is_off_asks_nobody():
    tree, _, guide = grown(3, hybrid=HybridSettings(bonuses=EVERYTHING.bonuses))
    assert (guide.asked, guide.told, guide.heard) == ([], [], [])
    assert (tree.guesses, tree.debate) == ((), None)
    plain, _, _ = grown(3, hybrid=HybridSettings())
    policy, _ = make_policy(3)
    settings = {"max_searches": 8, "rollouts_per_search": 3, "parallel_searches": 3, "easy_above": 0.95}
    assert plain == asyncio.run(searching(policy, None, HybridSettings(), **settings).grow())


def test_no_request_is_sent_for_a_value_once_the_tokens_are_spent():
    tree, _, guide = grown(1, max_completion_tokens=1)
    assert tree.stopped == "budget"
    assert guide.asked == []


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HybridSettings(value_weight=1.5), "value_weight must lie in 0..1, got 1.5"),
        (lambda: HybridSettings(debaters=-1), "must not be below 0, got -1"),
        (lambda: HybridSettings(candidates=1), "candidates must be at least 2"),
        (lambda: HybridSettings(max_siblings=0), "max_siblings must be at least 1, got 0"),
        (lambda: Bonuses(leaf=-0.1), r"bonuses\.leaf must not be below 0"),
        (lambda: Bonuses(leaf_above=2.0), r"leaf_above must lie in 0\.\.1"),
        (lambda: SearchSettings(rule="omega", hybrid=EVERYTHING), "rule=omega scores rollouts"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()

"""Searches replayed node by node against `tests/golden`, which a naive implementation of the formulas wrote.

A file holds settings, a scripted policy (prefix → texts of its samples in order) and the requests in the order of
their sending: prefix, number of samples, first sample, after how many applied requests it was sent, the scores that
chose it (`walk`: at each node from the root down [child, score, rollouts that took the step] of the children that lead
to something new; `pools`: [state, terminal, score] of all wrong rollouts that wait, one list for each selection since
the request before), and `nodes`: the whole tree once this request was applied.
"""

import asyncio
import json
import random

import msgspec
import naive_search
import pytest
from made_trees import PROBLEM, PROVENANCE
from worlds import make_verifier, solution

from mcts.base import Rollout
from mcts.pairing import PairSettings
from mcts.search import TreeSearch
from mcts.settings import SearchSettings

PATHS = sorted(naive_search.GOLDEN.glob("*.json"))
FILES = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in PATHS}
every_file = pytest.mark.parametrize("golden", FILES.values(), ids=FILES)


def make_search(golden, policy, verifier=None):
    return TreeSearch(
        PROBLEM,
        policy=policy,
        verifier=verifier or make_verifier(),
        settings=msgspec.convert(golden["settings"], SearchSettings),
        pairing=PairSettings(),
        provenance=PROVENANCE,
    )


def rollouts(golden, prefix, first, num_samples):
    texts = golden["policy"][prefix][first : first + num_samples]
    return [Rollout(text=text, tokens=len(text.split()), error="" if text else "refused") for text in texts]


def plain(nodes):
    """Nodes as a golden file has them."""
    return [
        {
            "step": node.step,
            "end": node.kind == "terminal",
            "parent": node.parent,
            "visits": node.visits,
            "value_sum": pytest.approx(node.value_sum, rel=1e-12),
            "direct": [node.direct.correct, node.direct.scored, node.direct.unscored],
        }
        for node in nodes
    ]


def replay(golden):
    """(finished tree, requests with the tree at the time of asking); one answer at a time, in the order of asking.

    An answer comes only when everything that the one before has led to has been done and sent.
    """
    asked = []

    async def search():
        turn = asyncio.Lock()

        async def policy(prefix, *, num_samples, first_sample):
            # Nobody is told of a tree before it is finished, so this looks inside.
            asked.append((prefix, num_samples, first_sample, plain(searching._growth.freeze())))
            async with turn:
                for _ in range(20):
                    await asyncio.sleep(0)
                return rollouts(golden, prefix, first_sample, num_samples)

        searching = make_search(golden, policy)
        return await searching.grow()

    return asyncio.run(search()), asked


def test_there_is_a_file_for_each_rule_and_one_with_searches_in_flight():
    assert list(FILES) == ["greedy_value", "omega", "puct", "uct", "uct_in_flight"]
    assert {name: golden["settings"]["rule"] for name, golden in FILES.items()} == {
        "greedy_value": "greedy_value",
        "omega": "omega",
        "puct": "puct",
        "uct": "uct",
        "uct_in_flight": "uct",
    }
    assert FILES["uct_in_flight"]["settings"]["parallel_searches"] == 3


@pytest.mark.parametrize("path", PATHS, ids=FILES)
def test_a_golden_file_holds_what_the_naive_search_gives(path):
    golden = FILES[path.stem]
    assert golden["requests"] == naive_search.expected(golden)
    assert path.read_text(encoding="utf-8") == naive_search.written(golden)


def check(golden):
    """Asserts that the search asks what a golden file says, of the tree that it says, and ends with its tree."""
    tree, asked = replay(golden)
    empty = [{"step": "", "end": False, "parent": -1, "visits": 0, "value_sum": 0.0, "direct": [0, 0, 0]}]
    states = [empty, *(request["nodes"] for request in golden["requests"])]
    for (prefix, num_samples, first_sample, nodes), request in zip(asked, golden["requests"], strict=True):
        assert (prefix, num_samples, first_sample) == tuple(
            request[name] for name in ("prefix", "num_samples", "first_sample")
        )
        assert nodes == states[request["sent_after"]], prefix
    assert plain(tree.nodes) == states[-1]
    assert tree.calls == len(asked)
    assert tree.rollouts == sum(request["num_samples"] for request in golden["requests"])


@every_file
def test_a_search_replays_node_by_node(golden):
    check(golden)


@every_file
def test_a_golden_tree_is_the_same_whatever_the_latencies(golden):
    for shuffle in range(5):
        delays = random.Random(shuffle)

        async def policy(prefix, *, num_samples, first_sample, delays=delays):
            for _ in range(delays.randrange(12)):
                await asyncio.sleep(0)
            return rollouts(golden, prefix, first_sample, num_samples)

        search = make_search(golden, policy, make_verifier(delays=random.Random(f"verifier {shuffle}")))
        assert plain(asyncio.run(search.grow()).nodes) == golden["requests"][-1]["nodes"]


@every_file
def test_one_search_at_a_time_sends_when_all_before_is_applied(golden):
    width = golden["settings"]["parallel_searches"]
    waiting = [i - request["sent_after"] for i, request in enumerate(golden["requests"])]
    assert max(waiting) == width - 1


class RandomPolicy(dict):
    """Samples of a random world for any prefix, as a golden file would list them."""

    def __init__(self, seed):
        self._seed = seed

    def __missing__(self, prefix):
        samples = (random.Random(f"{self._seed}/{i}/{prefix}") for i in range(12))
        return self.setdefault(prefix, [solution(prefix, rng, slip=0.2, luck=0.3) for rng in samples])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("rule", "width"), [("greedy_value", 1), ("greedy_value", 3), ("uct", 1), ("uct", 4), ("puct", 3), ("omega", 1)]
)
def test_searches_of_random_worlds_are_the_naive_ones(rule, width, seed):
    # Two and four rollouts, all scored: shares of right ones are exact numbers, so equal scores are equal in both.
    settings = FILES["omega"]["settings"] | {"rule": rule, "exploration": 0.7, "parallel_searches": width}
    settings |= {"max_searches": 10, "rollouts_per_search": 2, "max_root_rollouts": 12}
    golden = {"settings": settings, "gold": "8", "policy": RandomPolicy(seed)}
    golden["requests"] = naive_search.expected(golden)
    check(golden)
    assert len(golden["requests"]) > 6


# --- first selections by hand ------------------------------------------------------------------------------------
# So that a reader can check a file without trusting either implementation. Children are named by their step's letter.


def steps(golden, request, level):
    """{letter of the step: score} of one level of a request's walk."""
    number = golden["requests"].index(request)
    nodes = golden["requests"][request["sent_after"] - 1]["nodes"]
    assert number
    return {nodes[child]["step"].split()[2]: score for child, score, _ in request["walk"][level]}


def test_uct_by_hand():
    # Six rollouts from the problem: a a, b b b, c. Nothing was visited below it: all are infinite, and b has most.
    golden = FILES["uct"]
    first, second, third = golden["requests"][1:4]
    assert steps(golden, first, 0) == {"a": "infinite", "b": "infinite", "c": "infinite"}
    assert first["prefix"] == "Step 1: b\n"
    # From b one right of two: V = 1/2, N = 1, N_p = 2 (the look and b). 1/2 + 0.7 sqrt(2 ln 2 / 1) with ln 2 =
    # 0.693147, so sqrt(1.386294) = 1.177410: 0.5 + 0.824187. a and c are still infinite, a has more rollouts.
    assert steps(golden, second, 0) == {"a": "infinite", "b": 1.324187, "c": "infinite"}
    assert second["prefix"] == "Step 1: a\n"
    # From a two right of two: V = 1, N = 1, N_p = 3; ln 3 = 1.098612, sqrt(2.197225) = 1.482304, times 0.7 is
    # 1.037613. a has 1 + that, b 0.5 + that; c is infinite.
    assert steps(golden, third, 0) == {"a": 2.037613, "b": 1.537613, "c": "infinite"}
    assert third["prefix"] == "Step 1: c\n"
    # c gave a refused rollout and one without an answer: nothing scored, so no visit, and N_p stays 3. It is infinite
    # still, and behind it lies ca.
    fourth = golden["requests"][4]
    assert steps(golden, fourth, 0) == {"a": 2.037613, "b": 1.537613, "c": "infinite"}
    assert fourth["prefix"] == "Step 1: c\nStep 2: ca\n"


def test_uct_under_virtual_loss_by_hand():
    golden = FILES["uct_in_flight"]
    first, second, third, fourth = golden["requests"][1:5]
    assert [request["sent_after"] for request in (first, second, third, fourth)] == [1, 1, 1, 2]
    assert first["prefix"] == "Step 1: b\n"
    # b is in flight: N = 1 and N_p = 2 count it, its value is 0. 0 + 0.7 sqrt(2 ln 2 / 1) = 0.824187.
    assert steps(golden, second, 0) == {"a": "infinite", "b": 0.824187, "c": "infinite"}
    assert second["prefix"] == "Step 1: a\n"
    # a and b are in flight, N_p = 3: 0 + 0.7 sqrt(2 ln 3 / 1) = 1.037613 for both.
    assert steps(golden, third, 0) == {"a": 1.037613, "b": 1.037613, "c": "infinite"}
    assert third["prefix"] == "Step 1: c\n"
    # b has come with 1 of 2, a and c are in flight, N_p = 4: ln 4 = 1.386294, sqrt(2.772589) = 1.665109, times 0.7 is
    # 1.165576, which a and c have for V = 0 and b with 1/2 more. Below b, ba was taken by 3 rollouts, bb by 2.
    assert steps(golden, fourth, 0) == {"a": 1.165576, "b": 1.665576, "c": 1.165576}
    assert steps(golden, fourth, 1) == {"ba": "infinite", "bb": "infinite"}
    assert fourth["prefix"] == "Step 1: b\nStep 2: ba\n"


def test_puct_by_hand():
    # p is 2/6, 3/6, 1/6; N_p = 1 (the look), N = 0 and V = 0 for all: 1 p sqrt(1) / 1.
    golden = FILES["puct"]
    first, second, third = golden["requests"][1:4]
    assert steps(golden, first, 0) == {"a": 0.333333, "b": 0.5, "c": 0.166667}
    assert first["prefix"] == "Step 1: b\n"
    # N_p = 2, sqrt(2) = 1.414214; b has V = 1/2 and N = 1: 1/2 + 1/2 * 1.414214 / 2. Below it N_p = 1; ba was taken by
    # 2 rollouts from the problem and 1 from b, bb by 1 and 1: 3/5 and 2/5.
    assert steps(golden, second, 0) == {"a": 0.471405, "b": 0.853553, "c": 0.235702}
    assert steps(golden, second, 1) == {"ba": 0.6, "bb": 0.4}
    assert second["prefix"] == "Step 1: b\nStep 2: ba\n"
    # ba gave one wrong answer and one that is none: value 0. b has V = 1/4, N = 2; N_p = 3, sqrt(3) = 1.732051:
    # 1/4 + 1/2 * 1.732051 / 3 = 0.538675 against 1.732051 / 3 = 0.57735 for a.
    assert steps(golden, third, 0) == {"a": 0.57735, "b": 0.538675, "c": 0.288675}
    assert third["prefix"] == "Step 1: a\n"


def test_greedy_value_by_hand():
    golden = FILES["greedy_value"]
    look, again, first, second, third = golden["requests"][:5]
    # Two wrong answers and one that is none: the problem is looked at again, samples 3 to 5.
    assert [(each["prefix"], each["first_sample"], each["num_samples"]) for each in (look, again)] == [
        ("", 0, 3),
        ("", 3, 3),
    ]
    # V = 0 for all three first steps; two rollouts took `a`, one took `a` with its second line, one took `d`.
    assert first["walk"] == [[[1, 0.0, 2], [4, 0.0, 1], [10, 0.0, 1]]]
    assert first["prefix"] == "Step 1: a\n"
    # Two right of two from a: V = 1. Below it V = 0: b was taken once, c by one from the problem and one from a.
    assert second["walk"] == [[[1, 1.0, 2], [4, 0.0, 1], [10, 0.0, 1]], [[2, 0.0, 1], [8, 0.0, 2], [12, 0.0, 1]]]
    assert second["prefix"] == "Step 1: a\nStep 2: c\n"
    # None right from c: a has (1 + 0) / 2. c has only ends below it and is left; of b and `so far` b came first.
    assert third["walk"] == [[[1, 0.5, 2], [4, 0.0, 1], [10, 0.0, 1]], [[2, 0.0, 1], [12, 0.0, 1]]]
    assert third["prefix"] == "Step 1: a\nStep 2: b\n"
    # Two nodes have the text `Step 1: a\nso far\n`, one step and two: no sample is asked for twice.
    asked = [each["first_sample"] for each in golden["requests"] if each["prefix"] == "Step 1: a\nso far\n"]
    assert asked == [0, 2]


def test_omega_by_hand():
    # From the problem: one right of three scored, MC = 1/3. 0.5^(2/3) = 0.629961. The wrong rollouts end in node 8
    # (14 words) and node 10 (8 words), L = 20: 0.9^0.7 = 0.928902 gives 0.585171, 0.9^0.4 = 0.958731 gives 0.603963;
    # nothing was selected yet, so nothing is added. The one that ends in 10 goes a, w: w first, then a.
    golden = FILES["omega"]
    first, second, third = golden["requests"][1:4]
    assert first["pools"] == [[[0, 8, 0.585171], [0, 10, 0.603963]]]
    assert (first["prefix"], second["prefix"]) == ("Step 1: a\nStep 2: w\n", "Step 1: a\n")
    # Nothing from w is right; from a two of four are, MC = 1/2, 0.5^(1/2) = 0.707107. Its wrong rollouts: 11 words to
    # node 14, 0.9^0.55 = 0.943699; 5 words to node 10, 0.9^0.25 = 0.974004. One selection so far, of the problem:
    # 0.125 sqrt(1) / (1 + 1) = 0.0625 more for 8, 0.125 sqrt(1) / (1 + 0) = 0.125 more for 14 and 10.
    # 0.585171 + 0.0625; 0.667296 + 0.125; 0.688725 + 0.125. The best goes from a to w, which is known: nothing is
    # asked. Two selections now, one of each: 0.125 * 1.414214 / 2 = 0.088388 for 8 and for 14.
    assert third["pools"] == [
        [[0, 8, 0.647671], [1, 14, 0.792296], [1, 10, 0.813725]],
        [[0, 8, 0.67356], [1, 14, 0.755684]],
    ]
    # 14 goes from a on b, c, z: the middle is c.
    assert third["prefix"] == "Step 1: a\nStep 2: b\nStep 3: c\n"

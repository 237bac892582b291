"""Whole searches in worlds whose truth is known: what they ask, what they count, what they cost."""

import asyncio
import collections
import gc
import random

import msgspec
import pytest
from made_trees import PROBLEM, PROVENANCE
from worlds import STEPS, make_policy, make_verifier

from mcts.base import Rollout
from mcts.first_error import ChangePoint
from mcts.pairing import PairSettings, pair_paths
from mcts.search import expand_tree
from mcts.settings import SearchSettings
from schemas import Estimate

SEEDS = range(12)
NO_STOP = {"easy_above": 1.0, "hopeless_below": 0.0}


def grow(policy, *, verifier=None, pairing=None, **settings):
    return asyncio.run(growing(policy, verifier=verifier, pairing=pairing, **settings))


async def growing(policy, *, verifier=None, pairing=None, **settings):
    return await expand_tree(
        PROBLEM,
        policy=policy,
        verifier=verifier or make_verifier(),
        settings=SearchSettings(**settings),
        pairing=pairing or PairSettings(),
        provenance=PROVENANCE,
    )


def world(seed, *, pairing=None, settings=None, **about):
    """(tree, notes) of one search."""
    policy, notes = make_policy(seed, **about)
    return grow(policy, verifier=make_verifier(notes), pairing=pairing, **(settings or {})), notes


def text(tree, node):
    return "".join(tree.steps(node))


def outcome(solution):
    last = solution.splitlines()[-1] if solution else ""
    return "unscored" if not last.startswith("Answer: ") else "correct" if last == "Answer: 8" else "incorrect"


# --- the same answers, the same tree -----------------------------------------------------------------------------


def test_the_same_seed_grows_the_same_tree_and_asks_the_same_questions():
    (one, asked), (other, asked_again) = world(3), world(3)
    assert msgspec.json.encode(one) == msgspec.json.encode(other)
    assert asked.calls == asked_again.calls
    assert one.nodes != world(4)[0].nodes


@pytest.mark.parametrize("rule", ["uct", "puct", "greedy_value"])
@pytest.mark.parametrize("seed", range(5))
def test_the_tree_is_the_same_whatever_the_latencies(rule, seed):
    settings = {"rule": rule, "parallel_searches": 3, "max_searches": 9, "max_located": 3, "max_rollouts": 160}
    about = {"slip": 0.2, "refused": 0.1}
    expected, _ = world(seed, settings=settings, **about)
    orders = set()
    for shuffle in range(8):
        policy, notes = make_policy(seed, delays=random.Random(f"policy {shuffle}"), **about)
        verifier = make_verifier(notes, delays=random.Random(f"verifier {shuffle}"))
        assert grow(policy, verifier=verifier, **settings) == expected
        orders.add(tuple(notes.came))
    assert len(orders) > 1, "answers came in several orders"


def test_the_ids_tell_the_settings():
    one, other = world(3)[0], world(3, settings={"exploration": 0.5})[0]
    assert one.settings_digest != other.settings_digest
    assert one.id != other.id


# --- what it may cost --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [8, 9, 11, 12, 13, 17, 24, 40, 64, 100])
def test_rollouts_are_never_overspent(most):
    for seed in range(4):
        tree, notes = world(seed, settings={"max_rollouts": most, "parallel_searches": 4})
        assert tree.rollouts == len(notes.rollouts) <= most
        assert tree.calls == len(notes.calls)
        assert tree.rollouts == most or tree.stopped == "searches"


def test_a_budget_that_runs_out_says_so_and_keeps_what_was_paid_for():
    tree, notes = world(1, settings={"max_rollouts": 21, "max_searches": 50})
    assert (tree.stopped, tree.rollouts) == ("budget", 21)
    solutions = {prefix + rollout.text for prefix, _, came in notes.calls for rollout in came}
    assert solutions == {text(tree, leaf) for leaf in tree.terminals()}


@pytest.mark.parametrize("most", [100, 200, 333, 500])
def test_no_request_is_sent_once_the_tokens_are_spent(most):
    one_at_a_time = {"parallel_searches": 1, "max_located": 1, "max_confirm_rollouts": 0, "max_searches": 99}
    for seed in range(4):
        tree, notes = world(seed, settings={**one_at_a_time, "max_completion_tokens": most})
        spent = 0
        for _, _, came in notes.calls:
            assert spent < most
            spent += sum(rollout.tokens for rollout in came)
        assert tree.completion_tokens == spent
        assert (tree.stopped == "budget") == (spent >= most)


def test_the_last_token_of_the_budget_stops_the_search():
    for most, calls in ((4, 1), (5, 2), (6, 3)):
        policy, asked = scripted(BRANCHES, ["Answer: 8\n"])
        tree = grow(policy, **SEARCH_ALONE, max_searches=2, parallel_searches=1, max_completion_tokens=most)
        assert (len(asked), tree.completion_tokens) == (calls, most)
        assert tree.stopped == ("budget" if calls < 3 else "searches")


def test_tokens_are_overspent_at_most_by_what_is_in_flight():
    longest = 4 * (3 * STEPS + 2)
    for seed in SEEDS:
        tree, _ = world(
            seed, settings=NO_STOP | {"max_completion_tokens": 300, "parallel_searches": 3, "max_searches": 99}
        )
        assert tree.stopped == "budget"
        assert 300 <= tree.completion_tokens < 300 + 3 * longest


@pytest.mark.parametrize("seed", SEEDS)
def test_tokens_are_those_of_all_rollouts_and_the_refused_ones_are_dropped(seed):
    tree, notes = world(seed, refused=0.2)
    assert tree.completion_tokens == sum(rollout.tokens for rollout in notes.rollouts)
    assert tree.dropped_tokens == sum(rollout.tokens for rollout in notes.rollouts if rollout.error) > 0


def test_a_probed_path_and_a_confirmed_step_cost_at_most_what_they_may():
    limits = {"root_rollouts": 8, "max_searches": 0, "max_located": 1, "max_probe_rollouts": 7, "locate_wave": 2}
    limits["max_root_rollouts"] = 8
    for seed in SEEDS:
        _, notes = world(seed, slip=0.3, settings={**limits, "max_confirm_rollouts": 0, "locate_confidence": 0.999})
        probes = [len(came) for _, _, came in notes.calls[1:]]
        assert probes in ([], [2, 2, 2, 1])
    for seed in SEEDS:
        _, notes = world(
            seed, settings={"max_located": 0, "max_searches": 0, "max_confirm_rollouts": 6, "max_root_rollouts": 8}
        )
        asked = collections.Counter()
        for prefix, _, came in notes.calls[1:]:
            asked[prefix] += len(came)
        assert all(count <= 6 for count in asked.values())


# --- what it asks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_no_sample_of_a_prefix_is_asked_for_twice(seed):
    _, notes = world(seed, settings=NO_STOP | {"max_located": 4, "parallel_searches": 4, "max_searches": 12})
    samples = collections.defaultdict(list)
    for prefix, first, came in notes.calls:
        samples[prefix].extend(range(first, first + len(came)))
    assert all(numbers == list(range(len(numbers))) for numbers in samples.values())
    assert any(len([prefix for prefix in notes.prefixes if prefix == asked]) > 1 for asked in samples)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_prompt_is_the_exact_text_of_earlier_samples_up_to_a_step(seed):
    _, notes = world(seed)
    assert notes.prefixes[0] == ""
    known = set()
    for prefix, _, came in notes.calls:
        assert prefix == "" or prefix in known
        for rollout in came:
            lines = rollout.text.splitlines(keepends=True)
            known |= {prefix + "".join(lines[:cut]) for cut in range(1, len(lines))}


def test_each_solution_is_checked_once():
    for seed in SEEDS:
        tree, notes = world(seed)
        assert len(notes.checked) == len(set(notes.checked))
        assert set(notes.checked) == {text(tree, leaf) for leaf in tree.terminals()}


def scripted(*replies):
    """(policy, prefixes) with one reply (texts of all samples) a request; the last one repeats."""
    asked = []

    async def policy(prefix, *, num_samples, first_sample):
        asked.append(prefix)
        texts = replies[min(len(asked), len(replies)) - 1]
        return [Rollout(text=texts[(first_sample + i) % len(texts)], tokens=1) for i in range(num_samples)]

    return policy, asked


SEARCH_ALONE = {"root_rollouts": 4, "max_located": 0, "max_confirm_rollouts": 0, "rollouts_per_search": 1}
BRANCHES = [
    "Step 1: a\nStep 2: aa\nAnswer: 8\n",
    "Step 1: b\nStep 2: bb\nAnswer: 8\n",
    "Step 1: b\nStep 2: bc\nAnswer: 7\n",
    "Step 1: c\nAnswer: 7\n",
]


@pytest.mark.parametrize("rule", ["uct", "puct", "greedy_value"])
def test_the_step_that_most_rollouts_took_is_looked_at_first(rule):
    policy, asked = scripted(BRANCHES, ["Answer: 8\n"])
    grow(policy, **SEARCH_ALONE, rule=rule, max_searches=1, parallel_searches=1)
    assert asked == ["", "Step 1: b\n"]


def test_uct_looks_at_every_child_once_before_it_goes_deeper():
    policy, asked = scripted(BRANCHES, ["Answer: 8\n"])
    grow(policy, **SEARCH_ALONE, rule="uct", max_searches=3, parallel_searches=1)
    assert asked == ["", "Step 1: b\n", "Step 1: a\n", "Step 1: c\n"]


def test_greedy_value_follows_a_success_and_leaves_a_failure():
    policy, asked = scripted(BRANCHES, ["Answer: 8\n"])
    grow(policy, **SEARCH_ALONE, rule="greedy_value", max_searches=2, parallel_searches=1)
    assert asked == ["", "Step 1: b\n", "Step 1: b\nStep 2: bb\n"]
    policy, asked = scripted(BRANCHES, ["Answer: 7\n"])
    grow(policy, **SEARCH_ALONE, rule="greedy_value", max_searches=2, parallel_searches=1)
    assert asked == ["", "Step 1: b\n", "Step 1: b\nStep 2: bb\n"], "both have value 0, more rollouts took b"


def test_puct_weighs_value_against_prior():
    # Priors 1/4, 1/2, 1/4; every search comes out wrong, so V = 0. First 1/4 against 1/2. Then b has N = 1 of N_p = 2:
    # sqrt(2)/4 for both, and b has more rollouts. Then N = 2 of N_p = 3: sqrt(3)/4 for a against sqrt(3)/6 for b.
    policy, asked = scripted(BRANCHES, ["Answer: 7\n"])
    grow(policy, **SEARCH_ALONE, rule="puct", exploration=1.0, max_searches=3, parallel_searches=1)
    assert asked == ["", "Step 1: b\n", "Step 1: b\nStep 2: bb\n", "Step 1: a\n"]


# A search in flight counts as a visit of value 0: for uct b is visited then, for puct its score is sqrt(2)/4 with one
# in flight and sqrt(3)/6 with two, against sqrt(2)/4 and sqrt(3)/4 for a.
@pytest.mark.parametrize(
    ("rule", "looked_at"),
    [
        ("uct", ["Step 1: b\n", "Step 1: a\n", "Step 1: c\n"]),
        ("puct", ["Step 1: b\n", "Step 1: b\nStep 2: bb\n", "Step 1: a\n"]),
    ],
)
def test_searches_in_flight_send_the_next_one_elsewhere(rule, looked_at):
    policy, asked = scripted(BRANCHES, ["Answer: 8\n"])
    grow(policy, **SEARCH_ALONE, rule=rule, exploration=1.0, max_searches=3, parallel_searches=3)
    assert asked == ["", *looked_at]


def answering(solutions, *, bad):
    """(policy, prefixes): `solutions` from the root, then a right answer unless a word of `bad` is in the prefix."""
    asked = []

    async def policy(prefix, *, num_samples, first_sample):
        asked.append(prefix)
        answer = "Answer: 7\n" if any(word in prefix for word in bad) else "Answer: 8\n"
        return [
            Rollout(text=answer if prefix else solutions[(first_sample + i) % len(solutions)], tokens=1)
            for i in range(num_samples)
        ]

    return policy, asked


PROBE_ALONE = {"max_searches": 0, "max_confirm_rollouts": 0, "max_probe_rollouts": 30}
FORKED = [
    "Step 1: v\nStep 2: u\nAnswer: 7\n",
    "Step 1: a\nStep 2: b\nStep 3: w1\nAnswer: 7\n",
    "Step 1: a\nStep 2: b\nStep 3: w2\nAnswer: 7\n",
    "Step 1: a\nStep 2: b\nStep 3: c\nAnswer: 8\n",
]


def test_the_wrong_path_that_parts_latest_from_a_right_one_is_probed_first():
    policy, asked = answering(FORKED, bad=["v", "w"])
    grow(policy, **PROBE_ALONE, max_located=1)
    assert "Step 1: a\nStep 2: b\nStep 3: w1\n" in asked
    assert all(FORKED[1].startswith(prefix) for prefix in asked)


def test_every_fork_is_probed_before_any_twice():
    policy, asked = answering(FORKED, bad=["v", "w"])
    grow(policy, **PROBE_ALONE, max_located=2)
    assert {"Step 1: v\n", "Step 1: a\nStep 2: b\nStep 3: w1\n"} <= set(asked)
    assert not any("w2" in prefix for prefix in asked)


def test_the_right_side_is_confirmed_that_forks_off_before_the_error():
    lucky, steady = "Step 1: x\nStep 2: z\nAnswer: 8\n", "Step 1: a\nStep 2: b\nAnswer: 8\n"
    policy, asked = answering(["Step 1: x\nStep 2: y\nAnswer: 7\n", lucky, steady], bad=["x"])
    grow(policy, max_searches=0, pairing=PairSettings(max_alone=0))
    assert {"Step 1: a\n", "Step 1: a\nStep 2: b\n"} <= set(asked)
    assert "Step 1: x\nStep 2: z\n" not in asked


def test_a_tree_without_an_inner_node_ends_the_search():
    policy, asked = scripted(["Answer: 8\n", "Answer: 7\n"])
    tree = grow(policy, **SEARCH_ALONE, max_searches=5)
    assert asked == [""]
    assert tree.stopped == "searches"
    assert tree.nodes[0].direct == Estimate(correct=2, scored=4)


# --- what it counts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_direct_estimates_count_the_rollouts_started_there_and_no_other(seed):
    tree, notes = world(seed, luck=0.1, refused=0.1)
    started = collections.defaultdict(list)
    for prefix, _, came in notes.calls:
        started[prefix] += ["unscored" if rollout.error else outcome(prefix + rollout.text) for rollout in came]
    for i, node in enumerate(tree.nodes):
        expected = Estimate() if node.kind == "terminal" else Estimate.of(started.get(text(tree, i), []))
        assert node.direct == expected
    assert sum(node.direct.scored + node.direct.unscored for node in tree.nodes) == tree.rollouts


@pytest.mark.parametrize("seed", SEEDS)
def test_refused_rollouts_are_unscored_and_never_wrong(seed):
    tree, notes = world(seed, slip=0.0, refused=0.4)
    refused = sum(bool(rollout.error) for rollout in notes.rollouts)
    assert sum(node.direct.unscored for node in tree.nodes) == refused > 0
    assert all(node.direct.rate in (None, 1.0) for node in tree.nodes)
    assert {tree.nodes[leaf].outcome for leaf in tree.terminals()} == {"correct"}


def test_a_policy_that_is_always_refused_gives_a_tree_without_a_verdict():
    tree, _ = world(1, refused=1.0)
    assert len(tree.nodes) == 1
    assert tree.nodes[0].direct == Estimate(unscored=8)
    assert (tree.stopped, tree.nodes[0].visits) == ("nothing_scored", 0)
    assert pair_paths(tree, PairSettings(), ChangePoint()).reason == "nothing_scored"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_tree_is_well_formed(seed):
    tree, _ = world(seed, luck=0.1, refused=0.05, settings={"max_searches": 10, "parallel_searches": 3})
    children = tree.children()
    for i, node in enumerate(tree.nodes):
        assert node.parent < i
        assert node.depth == len(tree.path(i))
        assert (node.kind == "root") == (i == 0)
        assert bool(children[i]) == (node.kind != "terminal")
        assert (node.outcome is None) == (node.kind != "terminal")
        assert (node.unscored_reason is None) == (node.outcome != "unscored")
        assert 0 <= node.value_sum <= node.visits
        assert node.visits >= sum(tree.nodes[child].visits for child in children[i])
        siblings = [tree.nodes[child] for child in children[i]]
        assert len({(sibling.step, sibling.kind) for sibling in siblings}) == len(siblings)
        if siblings:
            assert sum(sibling.prior for sibling in siblings) == pytest.approx(1)
    assert all(outcome(text(tree, leaf)) == tree.nodes[leaf].outcome for leaf in tree.terminals())


# --- when it stops -----------------------------------------------------------------------------------------------


def test_an_easy_problem_is_left_after_one_look():
    tree, notes = world(1, slip=0.0, settings={"root_rollouts": 32}, pairing=PairSettings(max_alone=0))
    assert (tree.stopped, notes.prefixes) == ("easy", [""])


def test_an_easy_problem_still_has_its_lone_right_path_confirmed():
    tree, notes = world(1, slip=0.0, settings={"root_rollouts": 32})
    assert tree.stopped == "easy"
    (alone,) = pair_paths(tree, PairSettings(), ChangePoint())
    assert all(estimate.scored >= 4 for estimate in alone.path.estimates[:-1])
    steps = alone.path.steps
    assert set(notes.prefixes) == {"".join(steps[:cut]) for cut in range(len(steps))}


def test_a_hopeless_problem_is_left_after_one_look():
    tree, notes = world(1, slip=1.0, settings={"root_rollouts": 64})
    assert (tree.stopped, notes.prefixes) == ("hopeless", [""])


def test_unscored_rollouts_make_a_problem_neither_easy_nor_hopeless():
    policy, _ = scripted(["I do not know.\n"])
    tree = grow(policy, root_rollouts=64, max_searches=0)
    assert tree.stopped == "nothing_scored"
    assert tree.nodes[0].direct == Estimate(unscored=64)


def test_few_rollouts_settle_nothing():
    assert world(1, slip=0.0, settings={"root_rollouts": 4, "max_root_rollouts": 4})[0].stopped != "easy"
    assert world(1, slip=1.0, settings={"root_rollouts": 4, "max_root_rollouts": 4})[0].stopped != "hopeless"


# --- what it finds -----------------------------------------------------------------------------------------------


def test_the_planted_errors_are_located_and_paired():
    pairs = []
    for seed in range(40):
        tree, _ = world(seed, slip=0.1)
        paths = pair_paths(tree, PairSettings(), ChangePoint())
        if isinstance(paths, tuple):
            pairs += [path for path in paths if path.has_error]
    truths = [next(i for i, step in enumerate(pair.steps) if "bad" in step) for pair in pairs]
    found = [pair.first_error == truth for pair, truth in zip(pairs, truths, strict=True)]
    assert len(pairs) >= 30
    assert sum(found) / len(found) >= 0.9
    assert all("bad" not in step for pair in pairs for step in pair.right_steps)
    assert all(pair.divergence <= pair.first_error for pair in pairs)


def test_a_path_is_probed_until_one_step_is_sure_enough():
    for seed in SEEDS:
        settings = {"max_searches": 0, "max_located": 1, "max_rollouts": 200, "max_confirm_rollouts": 0}
        sure, notes = world(seed, slip=0.2, settings={**settings, "locate_confidence": 0.95})
        careless, fewer = world(seed, slip=0.2, settings={**settings, "locate_confidence": 0.5})
        assert fewer.calls == notes.calls[: len(fewer.calls)]
        assert careless.rollouts <= sure.rollouts


# --- when something breaks ---------------------------------------------------------------------------------------


class BrokenError(Exception):
    """What our own bug would raise."""


def breaks_after(calls, seed):
    """A policy whose request number `calls` raises while all later and some earlier ones are in flight."""
    answers, _ = make_policy(seed)
    asked = []

    async def policy(prefix, *, num_samples, first_sample):
        asked.append(prefix)
        if len(asked) == calls:
            raise BrokenError
        if len(asked) > calls:
            await asyncio.Event().wait()
        return await answers(prefix, num_samples=num_samples, first_sample=first_sample)

    return policy


async def all_that_is_left(policy, verifier=None):
    """Tasks and complaints that a search leaves behind when it breaks."""
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
    with pytest.raises(BrokenError):
        await growing(policy, verifier=verifier, parallel_searches=4, max_searches=8)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    gc.collect()
    return left, complaints


@pytest.mark.parametrize("calls", [1, 2, 3, 5, 7])
def test_a_policy_that_raises_ends_the_search_and_leaves_nothing_running(calls):
    assert asyncio.run(all_that_is_left(breaks_after(calls, seed=2))) == (set(), [])


def test_policies_that_all_raise_raise_once():
    answers, _ = make_policy(2)

    async def policy(prefix, *, num_samples, first_sample):
        if prefix:
            raise BrokenError
        return await answers(prefix, num_samples=num_samples, first_sample=first_sample)

    assert asyncio.run(all_that_is_left(policy)) == (set(), [])


def test_a_verifier_that_raises_ends_the_search_and_leaves_nothing_running():
    checked = []

    async def verifier(solution):
        checked.append(solution)
        if len(checked) == 3:
            raise BrokenError
        await asyncio.Event().wait()

    policy, _ = make_policy(2)
    assert asyncio.run(all_that_is_left(policy, verifier)) == (set(), [])
    assert len(checked) > 3


def test_a_cancelled_search_leaves_nothing_running():
    async def hangs(prefix, *, num_samples, first_sample):
        await asyncio.Event().wait()

    async def main():
        task = asyncio.ensure_future(growing(hangs))
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(main()) == set()


def test_a_policy_that_answers_too_little_is_a_bug_and_raises():
    async def short(prefix, *, num_samples, first_sample):
        return []

    with pytest.raises(AssertionError, match=r"\(0, 8\)"):
        grow(short)


# --- settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"root_rollouts": 0}, "root_rollouts must be at least 1, got 0"),
        ({"rollouts_per_search": 0}, "rollouts_per_search must be at least 1, got 0"),
        ({"parallel_searches": -1}, "parallel_searches must be at least 1, got -1"),
        ({"locate_wave": 0}, "locate_wave must be at least 1, got 0"),
        ({"confirm_rollouts": 0}, "confirm_rollouts must be at least 1, got 0"),
        ({"level": 1.0}, "level must lie between 0 and 1, got 1.0"),
        ({"locate_confidence": 0.0}, "locate_confidence must lie between 0 and 1, got 0.0"),
        (
            {"hopeless_below": 0.5, "easy_above": 0.5},
            "need 0 <= hopeless_below < easy_above <= 1, got 0.5 and 0.5",
        ),
        ({"max_rollouts": 7}, "max_rollouts=7 does not even pay for root_rollouts=8"),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(ValueError, match=r"must|need|pay") as caught:
        SearchSettings(**wrong)
    assert str(caught.value) == message

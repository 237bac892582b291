"""The driver of plans by itself: what it sends and when, whom it resumes and when, and that timing changes nothing."""

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_trees import PROBLEM, PROVENANCE

from mcts.answers import Check, unscored
from mcts.base import Rollout
from mcts.growth import Growth
from mcts.pairing import PairSettings
from mcts.search import expand_tree
from mcts.settings import SearchSettings
from mcts.waves import OutOfBudget, Waves

PLENTY = {"max_rollouts": 1000, "max_completion_tokens": 1_000_000}


class BrokenError(Exception):
    """What our own bug would raise."""


async def settle():
    """Lets everything happen that can happen without another answer."""
    for _ in range(30):
        await asyncio.sleep(0)


class Held:
    """A policy whose requests, numbered in the order of sending, are answered when the test says so.

    Sample k of request i is `text(i, k)`, by default the steps `i`, `k` and a right answer.
    """

    def __init__(self, text=None):
        self.sent = []
        """(prefix, number of samples, first sample)."""
        self._text = text or (lambda i, k: f"Step 1: {i}\nStep 2: {k}\nAnswer: 8\n")
        self._answers = []

    async def __call__(self, prefix, *, num_samples, first_sample):
        number = len(self.sent)
        self.sent.append((prefix, num_samples, first_sample))
        self._answers.append(asyncio.get_running_loop().create_future())
        await self._answers[number]
        return [Rollout(text=self._text(number, k), tokens=10) for k in range(first_sample, first_sample + num_samples)]

    async def answer(self, *numbers):
        for number in numbers:
            self._answers[number].set_result(None)
            await settle()

    async def fail(self, number):
        self._answers[number].set_exception(BrokenError())
        await settle()


class Scene:
    """A growing tree, a held policy, a verifier that notes what it checks, and a log of what plans see."""

    def __init__(self, text=None, verifier=None, **budget):
        self.growth = Growth("marker")
        self.policy = Held(text)
        self.checked = []
        self.log = []
        self.waves = Waves(self.growth, policy=self.policy, verifier=verifier or self.verify, **PLENTY | budget)

    async def verify(self, solution):
        self.checked.append(solution)
        return Check(outcome="correct" if solution.endswith("8\n") else "incorrect")

    def plan(self, name, *waves):
        """A plan with given wishes: logs (name, rollouts in the tree) whenever it is carried on, last at its end."""
        for wave in waves:
            self.log.append((name, self.came))
            yield wave
        self.log.append((name, self.came))

    @property
    def came(self):
        return sum(bud.recorded for bud in self.growth.nodes)

    def run(self, *plans, width=99):
        waiting = iter(plans)
        return asyncio.ensure_future(self.waves.run(lambda: next(waiting, None), width))


def play(script):
    """Runs a coroutine and asserts that it leaves nothing running."""

    async def main():
        await script()
        assert asyncio.all_tasks() - {asyncio.current_task()} == set()

    asyncio.run(main())


# --- the order of things ---------------------------------------------------------------------------------------------


def test_plans_are_carried_on_in_the_order_in_which_they_asked():
    async def script():
        scene = Scene()
        run = scene.run(*(scene.plan(name, [(0, i + 1)]) for i, name in enumerate("abc")))
        await settle()
        assert scene.policy.sent == [("", 1, 0), ("", 2, 1), ("", 3, 3)]
        assert scene.log == [("a", 0), ("b", 0), ("c", 0)]
        await scene.policy.answer(2, 1)
        assert (scene.log[3:], scene.came) == ([], 0)
        await scene.policy.answer(0)
        # One rollout was there when `a` looked, three when `b` did, six when `c` did: although all answers were in.
        assert scene.log[3:] == [("a", 1), ("b", 3), ("c", 6)]
        await run

    play(script)


def test_a_plans_next_wish_is_sent_at_once_and_waits_behind_those_sent_before():
    async def script():
        scene = Scene()
        run = scene.run(scene.plan("a", [(0, 1)], [(0, 1)]), scene.plan("b", [(0, 1)], [(0, 1)]))
        await settle()
        await scene.policy.answer(0)
        assert len(scene.policy.sent) == 3, "a's second request is at the policy while b's first is not answered"
        await scene.policy.answer(2)
        assert scene.log[2:] == [("a", 1)], "it has its answer, but b's turn comes first"
        await scene.policy.answer(1)
        assert scene.log[3:] == [("b", 2), ("a", 3)]
        await scene.policy.answer(3)
        assert scene.log[5:] == [("b", 4)]
        await run

    play(script)


def test_a_wave_of_several_wishes_is_sent_together_and_carried_on_after_its_last():
    async def script():
        scene = Scene()
        run = scene.run(scene.plan("a", [(0, 1), (0, 1), (0, 1)]), scene.plan("b", [(0, 1)]))
        await settle()
        assert len(scene.policy.sent) == 4
        await scene.policy.answer(0, 1)
        assert scene.log[2:] == []
        assert scene.came == 2, "what came is in the tree already"
        await scene.policy.answer(3)
        assert (scene.log[2:], scene.came) == ([], 2)
        await scene.policy.answer(2)
        assert scene.log[2:] == [("a", 3), ("b", 4)]
        await run

    play(script)


def test_an_empty_wave_waits_for_what_was_sent_and_sends_nothing():
    async def script():
        scene = Scene()
        run = scene.run(scene.plan("a", [(0, 1)]), scene.plan("b", [], [], [(0, 1)]), scene.plan("c", [(0, 1)]))
        await settle()
        # b stands between a and c: it goes on when a's answer is in the tree, then waits for c's, then asks.
        assert (len(scene.policy.sent), scene.log) == (2, [("a", 0), ("b", 0), ("c", 0)])
        await scene.policy.answer(0)
        assert scene.log[3:] == [("a", 1), ("b", 1)]
        await scene.policy.answer(1)
        assert scene.log[5:] == [("c", 2), ("b", 2)]
        assert len(scene.policy.sent) == 3
        await scene.policy.answer(2)
        assert scene.log[7:] == [("b", 3)]
        await run

    play(script)


def test_to_wait_when_nothing_is_in_flight_is_a_bug_and_raises():
    async def script():
        scene = Scene()
        with pytest.raises(AssertionError, match="nothing is in flight"):
            await scene.run(scene.plan("a", []))

    play(script)


def test_samples_are_numbered_in_the_order_of_sending():
    async def script():
        scene = Scene()
        run = scene.run(scene.plan("a", [(0, 2)], [(0, 1)]), scene.plan("b", [(0, 3)]))
        await settle()
        await scene.policy.answer(1, 0, 2)
        assert scene.policy.sent == [("", 2, 0), ("", 3, 2), ("", 1, 5)]
        await run
        texts = {bud.text for bud in scene.growth.nodes if bud.terminal}
        request_of = {0: 0, 1: 0, 2: 1, 3: 1, 4: 1, 5: 2}
        assert texts == {f"Step 1: {request_of[k]}\nStep 2: {k}\nAnswer: 8\n" for k in range(6)}

    play(script)


# --- how many at a time ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 2, 3, 7, 20])
def test_as_many_plans_run_as_may_and_no_more(width):
    async def script():
        scene, begun, ended = Scene(), [], []

        def plan(name):
            begun.append(name)
            yield [(0, 1), (0, 1)]
            yield [(0, 1), (0, 1)]
            ended.append(name)

        run = scene.run(*map(plan, range(7)), width=width)
        for number in range(7 * 4):
            await settle()
            assert len(begun) - len(ended) == min(width, 7 - len(ended)) > 0
            await scene.policy.answer(number)
        await run
        assert len(ended) == 7

    play(script)


def test_a_place_is_taken_again_as_soon_as_a_plan_ends():
    async def script():
        scene = Scene()
        run = scene.run(*(scene.plan(name, [(0, 1)], [(0, 1)]) for name in "abcd"), width=2)
        started = lambda: len({name for name, _ in scene.log})  # noqa: E731
        await settle()
        assert started() == 2
        await scene.policy.answer(0, 1)
        assert started() == 2, "a and b were answered, but have a second wish"
        await scene.policy.answer(2)
        assert started() == 3, "a has ended: c runs beside b"
        await scene.policy.answer(3)
        assert started() == 4
        await scene.policy.answer(4, 5, 6, 7)
        await run

    play(script)


def test_a_plan_without_a_wish_takes_no_place():
    async def script():
        scene = Scene()
        run = scene.run(scene.plan("a"), scene.plan("b"), scene.plan("c", [(0, 1)]), scene.plan("d", [(0, 1)]), width=1)
        await settle()
        assert scene.log == [("a", 0), ("b", 0), ("c", 0)]
        await scene.policy.answer(0, 1)
        await run
        assert scene.log[3:] == [("c", 1), ("d", 1), ("d", 2)]

    play(script)


def test_whoever_has_no_plan_now_is_asked_again_when_something_came():
    async def script():
        scene, asked = Scene(), []
        first, second = scene.plan("a", [(0, 1)], [(0, 1)]), scene.plan("b", [(0, 1)])

        def start():
            asked.append(scene.came)
            if len(asked) == 1:
                return first
            return second if scene.came == 1 and not any(name == "b" for name, _ in scene.log) else None

        run = asyncio.ensure_future(scene.waves.run(start, 2))
        await settle()
        assert asked == [0, 0]
        await scene.policy.answer(0)
        assert [name for name, _ in scene.log] == ["a", "a", "b"]
        await scene.policy.answer(1, 2)
        await run
        assert scene.came == 3

    play(script)


def test_nothing_to_do_is_done_at_once():
    async def script():
        scene = Scene()
        await scene.run()
        await scene.run(scene.plan("a"))
        assert scene.policy.sent == []
        await scene.waves.close()

    play(script)


# --- what it may cost ------------------------------------------------------------------------------------------------


def test_the_last_request_is_cut_to_what_is_left_and_the_next_one_is_not_sent():
    async def script():
        scene = Scene(max_rollouts=7)
        run = scene.run(*(scene.plan(name, [(0, 3)]) for name in "abcd"))
        await settle()
        # 3, 3 and the 1 that is left; d cannot be paid for, so no plan goes on, but what was sent still comes.
        assert [num_samples for _, num_samples, _ in scene.policy.sent] == [3, 3, 1]
        await scene.policy.answer(2, 0, 1)
        with pytest.raises(OutOfBudget):
            await run
        assert scene.came == scene.growth.rollouts == 7
        assert scene.log == [("a", 0), ("b", 0), ("c", 0), ("d", 0)]

    play(script)


def test_a_wave_that_can_be_paid_for_in_part_is_sent_in_part():
    async def script():
        scene = Scene(max_rollouts=3)
        run = scene.run(scene.plan("a", [(0, 2), (0, 2), (0, 2)]))
        await settle()
        assert [num_samples for _, num_samples, _ in scene.policy.sent] == [2, 1]
        await scene.policy.answer(1, 0)
        with pytest.raises(OutOfBudget):
            await run
        assert (scene.came, scene.log) == (3, [("a", 0)])

    play(script)


def test_tokens_count_when_they_are_in_the_tree_and_not_before():
    async def script():
        # 10 tokens a rollout. a's and b's first requests are sent when nothing was spent.
        scene = Scene(max_completion_tokens=20)
        run = scene.run(scene.plan("a", [(0, 1)], [(0, 1)], [(0, 1)]), scene.plan("b", [(0, 1)], [(0, 1)]))
        await settle()
        await scene.policy.answer(1)
        await scene.policy.answer(0)
        # a's answer is the first one in the tree: 10 < 20, its second request goes out. Then b's makes 20.
        assert len(scene.policy.sent) == 3
        await scene.policy.answer(2)
        with pytest.raises(OutOfBudget):
            await run
        assert (scene.came, scene.growth.completion_tokens) == (3, 30)

    play(script)


def test_what_was_sent_is_applied_in_order_when_the_budget_is_spent():
    async def script():
        scene = Scene(max_rollouts=3)
        run = scene.run(*(scene.plan(name, [(0, 1)]) for name in "abcd"))
        await settle()
        await scene.policy.answer(2, 1)
        assert scene.came == 0
        await scene.policy.answer(0)
        with pytest.raises(OutOfBudget):
            await run
        firsts = [bud.step for bud in scene.growth.nodes if bud.depth == 1]
        assert firsts == ["Step 1: 0\n", "Step 1: 1\n", "Step 1: 2\n"]

    play(script)


# --- checking --------------------------------------------------------------------------------------------------------


def test_answers_are_checked_when_they_come_and_not_when_it_is_their_turn():
    async def script():
        scene = Scene()
        run = scene.run(scene.plan("a", [(0, 1)]), scene.plan("b", [(0, 1)]))
        await settle()
        await scene.policy.answer(1)
        assert scene.checked == ["Step 1: 1\nStep 2: 1\nAnswer: 8\n"]
        assert scene.came == 0
        await scene.policy.answer(0)
        assert len(scene.checked) == 2
        await run

    play(script)


def test_each_solution_is_checked_once_however_often_it_comes():
    async def script():
        scene = Scene(text=lambda _, k: f"Step 1: a\nAnswer: {k % 2}\n")
        run = scene.run(scene.plan("a", [(0, 3)]), scene.plan("b", [(0, 3)], [(0, 2)]))
        await settle()
        await scene.policy.answer(1, 0, 2)
        await run
        assert sorted(scene.checked) == ["Step 1: a\nAnswer: 0\n", "Step 1: a\nAnswer: 1\n"]
        assert scene.growth.nodes[0].direct.scored == 8

    play(script)


def test_a_solution_that_is_being_checked_is_waited_for_and_not_checked_again():
    async def script():
        checking = asyncio.get_running_loop().create_future()
        begun = []

        async def verifier(solution):
            begun.append(solution)
            return await checking

        scene = Scene(text=lambda *_: "Answer: 8\n", verifier=verifier)
        run = scene.run(scene.plan("a", [(0, 1)]), scene.plan("b", [(0, 1)]))
        await settle()
        await scene.policy.answer(0, 1)
        assert (len(begun), scene.came) == (1, 0)
        checking.set_result(Check(outcome="incorrect"))
        await run
        assert scene.growth.nodes[0].direct.scored == 2

    play(script)


def test_equal_solutions_from_different_nodes_are_checked_once():
    async def script():
        texts = ["Step 1: a\nStep 2: b\nAnswer: 8\n", "Step 2: b\nAnswer: 8\n"]
        scene = Scene(text=lambda i, _: texts[i])
        run = scene.run(scene.plan("a", [(0, 1)], [(1, 1)]))
        await settle()
        await scene.policy.answer(0, 1)
        await run
        assert scene.policy.sent == [("", 1, 0), ("Step 1: a\n", 1, 0)]
        assert scene.checked == [texts[0]]
        assert [bud.direct.correct for bud in scene.growth.nodes] == [1, 1, 0, 0]

    play(script)


def test_what_has_no_text_is_not_checked():
    async def script():
        scene = Scene(text=lambda *_: "")
        run = scene.run(scene.plan("a", [(0, 2)]))
        await settle()
        await scene.policy.answer(0)
        await run
        assert scene.checked == []
        assert scene.growth.nodes[0].direct.unscored == 2

    play(script)


# --- the end ---------------------------------------------------------------------------------------------------------


def test_a_request_that_fails_fails_the_run_and_closing_leaves_nothing():
    async def script():
        scene = Scene()
        run = scene.run(*(scene.plan(name, [(0, 1)]) for name in "abc"))
        await settle()
        await scene.policy.fail(0)
        with pytest.raises(BrokenError):
            await run
        assert len(asyncio.all_tasks()) == 3, "b's and c's requests still run beside this"
        await scene.waves.close()
        assert len(asyncio.all_tasks()) == 1

    play(script)


def test_a_check_that_fails_fails_the_run_and_closing_leaves_nothing():
    async def script():
        async def verifier(solution):
            if solution.startswith("Step 1: 0"):
                raise BrokenError
            await asyncio.Event().wait()

        scene = Scene(verifier=verifier)
        run = scene.run(*(scene.plan(name, [(0, 1)]) for name in "abc"))
        await settle()
        await scene.policy.answer(1, 0)
        with pytest.raises(BrokenError):
            await run
        await scene.waves.close()

    play(script)


def test_closing_waits_until_a_cancelled_request_is_gone():
    async def script():
        gone = []

        async def policy(prefix, *, num_samples, first_sample):
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.01)
                gone.append(prefix)

        scene = Scene()
        waves = Waves(scene.growth, policy=policy, verifier=scene.verify, **PLENTY)
        run = asyncio.ensure_future(waves.run(iter([scene.plan("a", [(0, 1), (0, 1)]), None, None]).__next__, 9))
        await settle()
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        await waves.close()
        assert gone == ["", ""]

    play(script)


def test_a_run_goes_on_where_the_last_one_ended():
    async def script():
        scene = Scene()
        for number, name in enumerate("ab"):
            run = scene.run(scene.plan(name, [(0, 2)]))
            await settle()
            await scene.policy.answer(number)
            await run
        assert scene.policy.sent == [("", 2, 0), ("", 2, 2)]
        assert scene.log == [("a", 0), ("a", 2), ("b", 2), ("b", 4)]
        await scene.waves.close()

    play(script)


# --- a plan of the search that has to wait ---------------------------------------------------------------------------


def test_a_confirmation_waits_for_the_last_rollouts_of_a_step_that_another_one_asked():
    # Both wrong paths leave both right ones after `a`, so both would have x confirmed: four rollouts, which is all that
    # a step may have. They all come out right (the interval of 4 of 4 begins above 0.2), so nobody needs y.
    paths = ["ax8", "ap7", "aq7", "ay8"]
    asked = []

    async def policy(prefix, *, num_samples, first_sample):
        asked.append(prefix)
        if prefix:
            texts = ["Answer: 7\n" if "p" in prefix[-2:] or "q" in prefix[-2:] else "Answer: 8\n"]
        else:
            texts = [f"Step 1: {a}\nStep 2: {b}\nAnswer: {answer}\n" for a, b, answer in paths]
        samples = range(first_sample, first_sample + num_samples)
        return [Rollout(text=texts[k % len(texts)], tokens=10) for k in samples]

    grown = expand_tree(
        PROBLEM,
        policy=policy,
        verifier=Scene().verify,
        settings=SearchSettings(max_searches=0, max_located=2, confirm_rollouts=4, max_confirm_rollouts=4),
        pairing=PairSettings(max_alone=0, hold_above=0.2),
        provenance=PROVENANCE,
    )
    asyncio.run(grown)
    assert asked.count("Step 1: a\nStep 2: x\n") == 1
    assert "Step 1: a\nStep 2: y\n" not in asked


# --- timing changes nothing ------------------------------------------------------------------------------------------

WISHES = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 3)), max_size=3)
PLANS = st.lists(st.lists(WISHES, max_size=4), max_size=6)
LATENCIES = st.lists(st.integers(0, 9), min_size=1, max_size=12)


def sampled(prefix, index):
    """Sample `index` of a prefix: up to three steps of two kinds, then an answer, none, or nothing at all."""
    rng = random.Random(f"{prefix}/{index}")
    if rng.random() < 0.1:
        return Rollout(text="", tokens=rng.randrange(3), error="refused")
    start = prefix.count("Step") + 1
    steps = [f"Step {i}: {rng.choice('ab')}\n" for i in range(start, start + rng.randrange(4))]
    text = "".join(steps) + rng.choice(["Answer: 8\n", "Answer: 7\n", "I do not know.\n"])
    return Rollout(text=text, tokens=len(text.split()))


def late_policy(latencies, sent, came):
    """Notes requests as they are sent and as they are answered, each after its number of turns of the loop."""

    async def policy(prefix, *, num_samples, first_sample):
        number = len(sent)
        sent.append((prefix, num_samples, first_sample))
        for _ in range(latencies[number % len(latencies)]):
            await asyncio.sleep(0)
        came.append(number)
        return [sampled(prefix, first_sample + i) for i in range(num_samples)]

    return policy


def late_verifier(latencies):
    async def verifier(solution):
        for _ in range(latencies[len(solution) % len(latencies)]):
            await asyncio.sleep(0)
        if "Answer" not in solution:
            return unscored("no_answer")
        return Check(outcome="correct" if solution.endswith("8\n") else "incorrect")

    return verifier


def looking_plan(growth, name, wishes, seen):
    """A plan whose wishes depend on what it sees: a node is named by a number among the inner nodes of the moment.

    An empty wave is wished only where something is in flight.
    """
    for wave in wishes:
        inner = [i for i, bud in enumerate(growth.nodes) if not bud.terminal]
        seen.append((name, growth.freeze()))
        if wave or any(bud.is_pending for bud in growth.nodes):
            yield [(inner[number % len(inner)], num_samples) for number, num_samples in wave]
    seen.append((name, growth.freeze()))


def outcome(plans, width, budget, policy_latencies, check_latencies):
    """(all that a run of random plans comes to, numbers of the requests in the order of their answers).

    What it comes to: how it ended, nodes, counts, what each plan saw whenever it looked, what was sent.
    """
    growth, seen, sent, came = Growth("marker"), [], [], []
    policy, verifier = late_policy(policy_latencies, sent, came), late_verifier(check_latencies)

    async def main():
        waves = Waves(growth, policy=policy, verifier=verifier, **budget)
        waiting = iter([looking_plan(growth, name, wishes, seen) for name, wishes in enumerate(plans)])
        try:
            await waves.run(lambda: next(waiting, None), width)
        except OutOfBudget:
            return "budget"
        finally:
            await waves.close()
            assert asyncio.all_tasks() == {asyncio.current_task()}
        return "done"

    ended = asyncio.run(main())
    counts = (growth.calls, growth.rollouts, growth.completion_tokens, growth.dropped_tokens)
    return (ended, growth.freeze(), counts, seen, sent), came


@settings(deadline=None, max_examples=150)
@given(
    plans=PLANS,
    width=st.integers(1, 5),
    max_rollouts=st.integers(1, 60),
    max_completion_tokens=st.integers(1, 300),
    policy_latencies=LATENCIES,
    check_latencies=LATENCIES,
)
def test_what_random_plans_come_to_does_not_depend_on_latencies(
    plans, width, max_rollouts, max_completion_tokens, policy_latencies, check_latencies
):
    budget = {"max_rollouts": max_rollouts, "max_completion_tokens": max_completion_tokens}
    at_once, _ = outcome(plans, width, budget, [0], [0])
    late, _ = outcome(plans, width, budget, policy_latencies, check_latencies)
    assert late == at_once


def test_latencies_do_change_the_order_of_the_answers():
    """What makes the test above one that can fail."""
    plans = [[[(0, 2)], [(1, 2), (2, 1)], []] for _ in range(5)]
    runs = [outcome(plans, 3, PLENTY, latencies, [0]) for latencies in ([0], [9, 0, 4], [1, 8, 0, 5, 2])]
    assert len({tuple(came) for _, came in runs}) == 3
    assert runs[0][0] == runs[1][0] == runs[2][0]
    assert runs[0][0][0] == "done"

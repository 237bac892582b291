import asyncio
import math

import pytest

from pipelines.engines.limiter import Limiter


def run(work):
    return asyncio.run(asyncio.wait_for(work, timeout=5))


async def settle() -> None:
    """Lets every task that can run do so."""
    for _ in range(10):
        await asyncio.sleep(0)


def holder(
    limiter: Limiter, name: str, order: list[str], gate: asyncio.Event, *, is_back: bool = False
) -> asyncio.Task[None]:
    async def hold() -> None:
        async with limiter.place(is_back=is_back):
            order.append(name)
            await gate.wait()

    return asyncio.create_task(hold())


def test_no_more_than_the_most_hold_a_place():
    async def work():
        limiter, order, gate = Limiter(3), [], asyncio.Event()
        tasks = [holder(limiter, f"{i}", order, gate) for i in range(10)]
        await settle()
        assert (order, limiter.taken) == (["0", "1", "2"], 3)
        gate.set()
        await asyncio.gather(*tasks)
        assert limiter.taken == 0

    run(work())


def test_places_go_to_those_who_wait_in_the_order_they_came():
    async def work():
        limiter, order, gates = Limiter(2), [], [asyncio.Event() for _ in range(8)]
        tasks = [holder(limiter, f"{i}", order, gates[i]) for i in range(8)]
        await settle()
        gates[1].set()
        gates[0].set()
        for gate in gates[2:]:
            gate.set()
        await asyncio.gather(*tasks)
        assert order == list("01234567")

    run(work())


def test_a_newcomer_does_not_overtake_one_who_was_given_the_place():
    async def work():
        limiter, order, gate, first = Limiter(1), [], asyncio.Event(), asyncio.Event()
        tasks = [holder(limiter, "holds", order, first)]
        tasks.append(holder(limiter, "waits", order, gate))
        await settle()
        gate.set()
        first.set()
        tasks.append(holder(limiter, "new", order, gate))
        await asyncio.gather(*tasks)
        assert order == ["holds", "waits", "new"]

    run(work())


def test_a_place_given_to_one_who_is_cancelled_goes_to_the_next():
    async def work():
        limiter, order, gate = Limiter(1), [], asyncio.Event()
        gate.set()
        async with limiter.place():
            waits, next_one = holder(limiter, "waits", order, gate), holder(limiter, "next", order, gate)
            await settle()
        # The place is handed over already, but the one who has it did not run yet.
        waits.cancel()
        await next_one
        assert order == ["next"]
        assert limiter.taken == 0

    run(work())


def test_one_cancelled_while_it_waits_takes_no_place():
    async def work():
        limiter, order, gate = Limiter(1), [], asyncio.Event()
        holds, waits = holder(limiter, "holds", order, gate), holder(limiter, "waits", order, gate)
        await settle()
        waits.cancel()
        await settle()
        assert limiter.taken == 1
        gate.set()
        await holds
        assert limiter.taken == 0
        await holder(limiter, "later", order, gate)
        assert order == ["holds", "later"]

    run(work())


def test_an_error_inside_gives_the_place_back():
    async def work():
        limiter = Limiter(1)
        with pytest.raises(RuntimeError, match="broken"):
            async with limiter.place():
                raise RuntimeError("broken")
        assert limiter.taken == 0
        async with limiter.place():
            assert limiter.taken == 1

    run(work())


def test_each_complaint_halves_the_places_but_leaves_one():
    limiter = Limiter(64)
    seen = []
    for _ in range(8):
        limiter.overloaded()
        seen.append(limiter.allowed)
    assert seen == [32, 16, 8, 4, 2, 1, 1, 1]


def test_a_round_of_good_answers_adds_one_place():
    limiter = Limiter(64)
    limiter.overloaded()
    for _ in range(32):
        limiter.succeeded()
    # 32 answers at 32 places add a little less than one place: each adds 1 / (places at that moment).
    assert limiter.allowed == 32
    limiter.succeeded()
    assert limiter.allowed == 33


def test_places_never_grow_above_the_most():
    limiter = Limiter(2)
    for _ in range(100):
        limiter.succeeded()
    assert limiter.allowed == 2


def test_fewer_places_bind_those_who_come_later_and_more_places_wake_them():
    async def work():
        limiter, order, gate = Limiter(2), [], asyncio.Event()
        first = [holder(limiter, name, order, gate) for name in "ab"]
        await settle()
        limiter.overloaded()
        later = [holder(limiter, name, order, gate) for name in "cd"]
        await settle()
        assert (limiter.allowed, limiter.taken, order) == (1, 2, ["a", "b"])
        first[0].cancel()
        await settle()
        assert order == ["a", "b"]  # One place is left and b holds it.
        limiter.succeeded()
        await settle()
        assert order == ["a", "b", "c"]
        gate.set()
        await asyncio.gather(*first, *later, return_exceptions=True)
        assert limiter.taken == 0

    run(work())


def test_what_was_under_way_at_a_decrease_is_not_heard_again():
    async def work():
        limiter, gate = Limiter(64), asyncio.Event()
        burst = [holder(limiter, str(i), [], gate) for i in range(64)]
        await settle()
        for _ in burst:  # All 64 come back with 429: one round, one decrease.
            limiter.overloaded()
        assert limiter.allowed == 32
        gate.set()
        await asyncio.gather(*burst)
        limiter.overloaded()  # The round is over, so this is news.
        assert limiter.allowed == 16

    run(work())


def test_one_that_is_back_goes_before_those_who_wait_but_not_before_others_that_are():
    async def work():
        limiter, order, gate, first = Limiter(1), [], asyncio.Event(), asyncio.Event()
        gate.set()
        tasks = [holder(limiter, "holds", order, first)]
        await settle()
        tasks += [holder(limiter, "waits", order, gate)]
        tasks += [holder(limiter, name, order, gate, is_back=True) for name in ("back", "back too")]
        await settle()
        first.set()
        await asyncio.gather(*tasks)
        assert order == ["holds", "back", "back too", "waits"]

    run(work())


def test_in_a_pause_nobody_gets_a_place_and_the_longest_pause_counts():
    async def work():
        limiter, order, gate = Limiter(4), [], asyncio.Event()
        gate.set()
        loop = asyncio.get_running_loop()
        began = loop.time()
        limiter.pause(0.05)
        limiter.pause(0.2)
        limiter.pause(0.1)
        assert limiter.load == math.inf
        tasks = [holder(limiter, name, order, gate) for name in "ab"]
        await asyncio.sleep(0.12)
        limiter.succeeded()  # One that was under way before.
        await settle()
        assert (order, limiter.taken) == ([], 0)
        await asyncio.gather(*tasks)
        assert loop.time() - began >= 0.19
        assert (order, limiter.load) == (["a", "b"], 0)

    run(work())


def test_how_long_a_server_refuses_is_counted_from_the_first_complaint_to_the_next_that_it_takes_in():
    class Clock:
        now = 100.0

    clock = Clock()
    limiter = Limiter(8, lambda: clock.now)
    assert limiter.refusing_secs == 0
    limiter.overloaded()
    clock.now = 130.0
    limiter.overloaded()
    assert limiter.refusing_secs == 30
    limiter.taken_in()
    clock.now = 140.0
    assert limiter.refusing_secs == 0
    limiter.overloaded()
    assert limiter.refusing_secs == 0

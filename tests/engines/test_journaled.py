import asyncio
import hashlib
from pathlib import Path

import pytest

from pipelines.engines.base import EngineUnavailable, Reply, Request, Sample, Sampling, Usage
from pipelines.engines.journaled import JournaledEngine
from pipelines.journal import Journal

SAMPLING = Sampling(max_tokens=8, temperature=1.0)


class Model:
    """An engine whose sample i says its own index and seed. It answers when `gate` opens and remembers requests."""

    kind = "test"
    model = "m"
    revision = "r"
    identity = "m@r"

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.refuses = False

    def choices_at_once(self, request: Request) -> int:
        return request.num_samples

    async def complete(self, request: Request) -> Reply:
        self.asked.append(request)
        await self.gate.wait()
        if self.error:
            raise self.error
        indices = range(request.first_sample, request.first_sample + request.num_samples)
        samples = tuple(
            Sample(text="", finish="stop", tokens=0, error="HTTP 400")
            if self.refuses
            else Sample(text=f"{i}/{request.sample_seed(i)}", finish="stop", tokens=2)
            for i in indices
        )
        tokens = 2 * len(samples)
        return Reply(samples=samples, usage=Usage(requests=1, samples=len(samples), completion_tokens=tokens))

    async def close(self) -> None:
        pass


def wish(num_samples: int, first_sample: int = 0, **fields) -> Request:
    return Request(
        **{"prompt": "p", "sampling": SAMPLING, "num_samples": num_samples, "first_sample": first_sample} | fields
    )


def texts(samples) -> list[str]:
    return [sample.text for sample in samples]


def expected(request: Request) -> list[str]:
    indices = range(request.first_sample, request.first_sample + request.num_samples)
    return [f"{i}/{request.sample_seed(i)}" for i in indices]


def runs(model: Model) -> list[tuple[int, int]]:
    return [(request.first_sample, request.num_samples) for request in model.asked]


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def play(tmp_path: Path):
    """Runs `work(engine, model, journal, seen)` in a loop of its own, with a journal that stays between plays."""

    def play(work):
        async def main():
            journal, model, seen = Journal(tmp_path / "journal.sqlite"), Model(), []
            engine = JournaledEngine(model, journal, lambda *told: seen.append(told))
            try:
                await asyncio.wait_for(work(engine, model, journal, seen), timeout=10)
                assert engine._running == {}
            finally:
                journal.close()

        asyncio.run(main())

    return play


def test_of_several_calls_of_which_one_fails_the_others_answers_are_kept(play):
    class OneByOne(Model):
        def choices_at_once(self, request):
            return 1

        async def complete(self, request):
            if request.first_sample == 1 and len(self.asked) < 3:
                self.asked.append(request)
                raise EngineUnavailable("away")
            return await super().complete(request)

    async def work(engine, model, journal, seen):
        engine.engine = model = OneByOne()
        with pytest.raises(EngineUnavailable):
            await engine.sample("S", wish(3))
        await engine.settle()
        assert texts(await engine.sample("S", wish(3))) == expected(wish(3))
        assert sorted(runs(model)) == [(0, 1), (1, 1), (1, 1), (2, 1)]

    play(work)


def test_samples_come_in_the_order_of_their_indices(play):
    async def work(engine, model, journal, seen):
        assert texts(await engine.sample("S", wish(3))) == expected(wish(3))
        assert texts(await engine.sample("S", wish(2, 3))) == expected(wish(2, 3))

    play(work)


def test_k_samples_of_one_prompt_are_k_keys_with_k_seeds(play):
    async def work(engine, model, journal, seen):
        samples = await engine.sample("S", wish(8))
        assert len(set(texts(samples))) == 8
        assert journal.size() == 8
        assert runs(model) == [(0, 8)]

    play(work)


def test_a_restart_asks_for_nothing_that_is_there(play):
    async def first(engine, model, journal, seen):
        await engine.sample("S", wish(4))
        assert seen == [("S", Usage(requests=1, samples=4, completion_tokens=8), 0)]

    async def second(engine, model, journal, seen):
        assert texts(await engine.sample("S", wish(4))) == expected(wish(4))
        assert model.asked == []
        assert seen == [("S", Usage(), 4)]
        assert journal.ledger() == {"S": Usage(requests=1, samples=4, completion_tokens=8)}

    play(first)
    play(second)


def test_a_partial_replay_asks_only_for_the_missing_runs(play):
    async def first(engine, model, journal, seen):
        await engine.sample("S", wish(2, 1))
        await engine.sample("S", wish(1, 5))

    async def second(engine, model, journal, seen):
        # There are 1, 2 and 5 of 0..7.
        samples = await engine.sample("S", wish(8))
        assert runs(model) == [(0, 1), (3, 2), (6, 2)]
        assert texts(samples) == expected(wish(8))
        assert journal.size() == 8

    play(first)
    play(second)


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "q"},
        {"prefix": "x"},
        {"seed": 1},
        {"json_schema": "{}"},
        {"sampling": Sampling(max_tokens=9, temperature=1.0)},
        {"sampling": Sampling(max_tokens=8, temperature=0.5)},
        {"sampling": Sampling(max_tokens=8, temperature=1.0, top_p=0.9)},
        {"sampling": Sampling(max_tokens=8, temperature=1.0, stop=("x",))},
    ],
    ids=lambda other: next(iter(other)),
)
def test_whatever_shapes_an_answer_is_in_its_key(play, other):
    async def work(engine, model, journal, seen):
        await engine.sample("S", wish(2))
        await engine.sample("S", wish(2, **other))
        assert len(model.asked) == 2
        assert journal.size() == 4

    play(work)


def test_a_key_is_the_digest_of_the_request_and_the_index():
    request = Request(
        prompt="Q?", prefix="Step 1", sampling=Sampling(max_tokens=8, temperature=0.5, stop=("x",)), json_schema="{}",
        seed=7, num_samples=2, first_sample=3,
    )  # fmt: skip
    # Canonical JSON of everything but the index, written by hand: a journal outlives the version that wrote it.
    said = '["sample","m@r","Q?","Step 1",{"max_tokens":8,"temperature":0.5,"top_p":1.0,"stop":["x"]},"2:{}",7]'
    name = hashlib.sha256(said.encode()).hexdigest()[:32]
    assert request.keys("m@r") == [f"{name}/3", f"{name}/4"]


def test_a_sample_has_one_key_whatever_it_is_asked_for_with():
    whole = wish(8).keys("m@r")
    assert len(set(whole)) == 8
    assert [wish(1, i).keys("m@r") for i in range(8)] == [[key] for key in whole]
    assert wish(3, 4).keys("m@r") == whole[4:7]


def test_another_model_does_not_get_this_ones_answers(play):
    async def work(engine, model, journal, seen):
        await engine.sample("S", wish(2))
        model.identity = "m@r2"
        await engine.sample("S", wish(2))
        assert len(model.asked) == 2

    play(work)


def test_the_stage_is_not_in_the_key(play):
    async def work(engine, model, journal, seen):
        await engine.sample("S", wish(2))
        await engine.sample("T", wish(2))
        assert len(model.asked) == 1

    play(work)


def test_equal_requests_at_once_are_asked_once(play):
    async def work(engine, model, journal, seen):
        model.gate.clear()
        tasks = [asyncio.create_task(engine.sample("S", wish(4))) for _ in range(5)]
        await settle()
        model.gate.set()
        assert {tuple(texts(samples)) for samples in await asyncio.gather(*tasks)} == {tuple(expected(wish(4)))}
        assert runs(model) == [(0, 4)]
        assert journal.ledger()["S"].samples == 4

    play(work)


def test_overlapping_requests_at_once_ask_for_each_sample_once(play):
    async def work(engine, model, journal, seen):
        model.gate.clear()
        tasks = [asyncio.create_task(engine.sample("S", each)) for each in (wish(4), wish(4, 2), wish(8))]
        await settle()
        model.gate.set()
        got = await asyncio.gather(*tasks)
        assert [texts(samples) for samples in got] == [expected(wish(4)), expected(wish(4, 2)), expected(wish(8))]
        assert runs(model) == [(0, 4), (4, 2), (6, 2)]

    play(work)


def test_a_failure_reaches_everybody_who_waits_and_nothing_stays_stuck(play):
    async def work(engine, model, journal, seen):
        model.gate.clear()
        model.error = EngineUnavailable("down", request_digest="d", attempts=6)
        tasks = [asyncio.create_task(engine.sample("S", each)) for each in (wish(4), wish(4), wish(2, 2))]
        await settle()
        model.gate.set()
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(error) for error in errors] == ["down", "down", "down"]
        assert len(model.asked) == 1
        assert journal.size() == 0
        model.error = None
        assert texts(await engine.sample("S", wish(4))) == expected(wish(4))

    play(work)


def test_what_came_beside_a_failure_is_kept(play):
    async def first(engine, model, journal, seen):
        await engine.sample("S", wish(1, 1))

    async def second(engine, model, journal, seen):
        answer, failing = model.complete, EngineUnavailable("down")

        async def fails_at_zero(request):
            if request.first_sample == 0:
                raise failing
            return await answer(request)

        model.complete = fails_at_zero
        with pytest.raises(EngineUnavailable, match="down"):
            await engine.sample("S", wish(3))
        while engine._running:  # noqa: ASYNC110 - nobody else waits for what is still asked
            await asyncio.sleep(0.001)
        assert list(await journal.get(wish(3).keys("m@r"))) == wish(2, 1).keys("m@r")

    play(first)
    play(second)


def test_a_refused_prompt_is_told_but_not_remembered(play):
    async def work(engine, model, journal, seen):
        model.refuses = True
        assert [sample.error for sample in await engine.sample("S", wish(2))] == ["HTTP 400", "HTTP 400"]
        assert journal.size() == 0
        assert journal.ledger()["S"].requests == 1
        model.refuses = False
        assert texts(await engine.sample("S", wish(2))) == expected(wish(2))
        assert len(model.asked) == 2

    play(work)


def test_one_who_only_waits_may_be_cancelled_without_harm(play):
    async def work(engine, model, journal, seen):
        model.gate.clear()
        asks = asyncio.create_task(engine.sample("S", wish(2)))
        await settle()
        waits = asyncio.create_task(engine.sample("S", wish(2)))
        await settle()
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        model.gate.set()
        assert texts(await asks) == expected(wish(2))

    play(work)


def test_one_who_asks_may_be_cancelled_and_those_who_wait_still_get_their_answer(play):
    async def work(engine, model, journal, seen):
        model.gate.clear()
        asks = asyncio.create_task(engine.sample("S", wish(2)))
        await settle()
        waits = asyncio.create_task(engine.sample("S", wish(2)))
        await settle()
        asks.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asks
        model.gate.set()
        assert texts(await waits) == expected(wish(2))

    play(work)


def test_after_all_were_cancelled_nothing_is_stuck(play):
    async def work(engine, model, journal, seen):
        model.gate.clear()
        tasks = [asyncio.create_task(engine.sample("S", wish(2))) for _ in range(3)]
        await settle()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        model.gate.set()
        assert texts(await engine.sample("S", wish(2))) == expected(wish(2))

    play(work)

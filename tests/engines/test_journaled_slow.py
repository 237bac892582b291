"""Asking through a journal that takes its time, as one on a server does: still nothing is asked for twice."""

import asyncio

from pipelines.engines.base import Reply, Request, Sample, Sampling, Usage
from pipelines.engines.journaled import JournaledEngine

WISH = Request(prompt="p", sampling=Sampling(max_tokens=8, temperature=1.0), num_samples=2)


class Model:
    """Says how often it was asked; answers when `gate` is open."""

    kind = model = revision = ""
    identity = "m"

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.gate = asyncio.Event()

    def choices_at_once(self, request: Request) -> int:
        return request.num_samples

    async def complete(self, request: Request) -> Reply:
        self.asked.append(request)
        nth = len(self.asked)
        await self.gate.wait()
        samples = tuple(Sample(text=f"answer {nth}.{i}", finish="stop", tokens=1) for i in request.indices)
        return Reply(samples=samples, usage=Usage(requests=1, samples=len(samples)))

    async def close(self) -> None:
        pass


class Slow:
    """A journal that answers as it was when it was asked, and only when `gate` is open."""

    def __init__(self) -> None:
        self.samples: dict[str, Sample] = {}
        self.gate = asyncio.Event()
        self.looked_up: list[list[str]] = []

    async def get(self, keys):
        self.looked_up.append(list(keys))
        found = {key: self.samples[key] for key in keys if key in self.samples}
        await self.gate.wait()
        return found

    async def put(self, stage, samples, usage):
        self.samples = {**samples, **self.samples}
        return {key: self.samples[key] for key in samples}


def played(work):
    async def main():
        model, journal = Model(), Slow()
        engine = JournaledEngine(model, journal, lambda *told: None)
        await asyncio.wait_for(work(engine, model, journal), 10)
        await engine.settle()
        assert not engine._looking

    asyncio.run(main())


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_those_who_look_up_the_same_at_once_ask_once():
    async def work(engine, model, journal):
        model.gate.set()
        tasks = [asyncio.create_task(engine.sample("S", WISH)) for _ in range(5)]
        await turns()
        journal.gate.set()
        assert [[sample.text for sample in await task] for task in tasks] == [["answer 1.0", "answer 1.1"]] * 5
        assert len(model.asked) == 1

    played(work)


def test_an_answer_that_comes_while_its_neighbour_is_looked_up_is_not_asked_for_again():
    wider = Request(prompt="p", sampling=WISH.sampling, num_samples=3)

    async def work(engine, model, journal):
        journal.gate.set()
        first = asyncio.create_task(engine.sample("S", WISH))
        await turns()  # It waits for the model.
        journal.gate.clear()
        second = asyncio.create_task(engine.sample("S", wider))
        await turns()  # It waits for the journal, which it asks for the third sample alone.
        model.gate.set()
        assert [sample.text for sample in await first] == ["answer 1.0", "answer 1.1"]
        await turns()
        assert not engine._running
        journal.gate.set()
        assert [sample.text for sample in await second] == ["answer 1.0", "answer 1.1", "answer 2.2"]
        assert [(request.first_sample, request.num_samples) for request in model.asked] == [(0, 2), (2, 1)]

    played(work)


def test_one_who_is_cancelled_while_the_journal_is_asked_leaves_nothing_locked():
    async def work(engine, model, journal):
        model.gate.set()
        gone = asyncio.create_task(engine.sample("S", WISH))
        await turns()
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        journal.gate.set()
        assert [sample.text for sample in await engine.sample("S", WISH)] == ["answer 1.0", "answer 1.1"]

    played(work)


def test_other_requests_are_looked_up_meanwhile():
    async def work(engine, model, journal):
        model.gate.set()
        others = [Request(prompt=f"{i}", sampling=WISH.sampling) for i in range(4)]
        tasks = [asyncio.create_task(engine.sample("S", other)) for other in others]
        await turns()
        assert len(journal.looked_up) == 4
        journal.gate.set()
        await asyncio.gather(*tasks)

    played(work)


def test_of_two_workers_that_have_asked_for_the_same_both_go_on_with_what_the_journal_holds():
    async def work(engine, model, journal):
        journal.gate.set()
        asks = asyncio.create_task(engine.sample("S", WISH))
        await turns()
        theirs = Sample(text="theirs", finish="stop", tokens=1)
        journal.samples[WISH.keys("m")[0]] = theirs  # The other worker was faster.
        model.gate.set()
        assert [sample.text for sample in await asks] == ["theirs", "answer 1.1"]
        assert [sample.text for sample in await engine.sample("S", WISH)] == ["theirs", "answer 1.1"]

    played(work)

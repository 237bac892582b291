"""Asking a model through the journal: what was paid for once is never paid for again."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable

import msgspec

from pipelines.engines.base import Engine, Request, Sample, Usage
from pipelines.journal import Journal

Observer = Callable[[str, Usage, int], None]
"""Told of (stage, what was just paid, samples that came from the journal)."""


class JournaledEngine:
    """An engine with a memory. One a worker and model, used from one event loop."""

    def __init__(self, engine: Engine, journal: Journal, observe: Observer) -> None:
        self.engine = engine
        self._journal = journal
        self._observe = observe
        self._running: dict[str, asyncio.Future[Sample]] = {}

    async def sample(self, stage: str, request: Request) -> tuple[Sample, ...]:
        """The request's samples, from the journal where they are there.

        What is missing is asked for in as few requests as consecutive indices allow. A sample that another
        element is waiting for already is waited for, not asked for twice.

        Raises:
          EngineError: a missing sample cannot be had.
        """
        indices = range(request.first_sample, request.first_sample + request.num_samples)
        keys = {i: request.key(i, self.engine.identity) for i in indices}
        known = self._journal.get([key for key in keys.values() if key not in self._running])
        if known:
            self._observe(stage, Usage(), len(known))
        missing = [i for i, key in keys.items() if key not in known and key not in self._running]
        waiting = {key: self._running[key] for key in keys.values() if key in self._running}
        asked = [self._ask(stage, request, run, keys) for run in _consecutive(missing)]
        for part in await asyncio.gather(*asked):
            known |= part
        for key, future in waiting.items():
            known[key] = await asyncio.shield(future)
        return tuple(known[key] for key in keys.values())

    def _ask(
        self, stage: str, request: Request, run: range, keys: dict[int, str]
    ) -> Coroutine[None, None, dict[str, Sample]]:
        # The keys are taken before the first await, so that no other task can ask for them meanwhile.
        futures = {keys[i]: asyncio.get_running_loop().create_future() for i in run}
        self._running |= futures
        return self._answer(stage, request, run, futures)

    async def _answer(
        self, stage: str, request: Request, run: range, futures: dict[str, asyncio.Future[Sample]]
    ) -> dict[str, Sample]:
        try:
            part = msgspec.structs.replace(request, num_samples=len(run), first_sample=run.start)
            reply = await self.engine.complete(part)
            samples = dict(zip(futures, reply.samples, strict=True))
            # A refused prompt is no answer: it is asked again next time.
            answered = {key: sample for key, sample in samples.items() if not sample.error}
            await self._journal.put(stage, answered, reply.usage)
            self._observe(stage, reply.usage, 0)
        except BaseException as error:
            for future in futures.values():
                future.set_exception(error)
                future.exception()  # Nobody may be waiting for it: marks it as seen.
            raise
        else:
            for key, future in futures.items():
                future.set_result(samples[key])
        finally:
            for key in futures:
                del self._running[key]
        return samples


def _consecutive(indices: Iterable[int]) -> list[range]:
    """Runs of consecutive numbers: 0, 1, 2, 5, 6 gives 0..2 and 5..6."""
    runs: list[range] = []
    for i in indices:
        if runs and runs[-1].stop == i:
            runs[-1] = range(runs[-1].start, i + 1)
        else:
            runs.append(range(i, i + 1))
    return runs

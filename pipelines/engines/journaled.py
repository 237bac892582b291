"""Asking a model through the journal: what was paid for once is never paid for again."""

import asyncio
import functools
from collections.abc import Callable, Iterable, Sequence

import msgspec

from pipelines.budget import Account, Accounts, BudgetSettings
from pipelines.engines.base import Engine, Request, Sample, Usage
from pipelines.journal import Journal

Observer = Callable[[str, Usage, int], None]
"""Told of (stage, what was just paid, samples that came from the journal)."""


class JournaledEngine:
    """An engine with a memory. One a worker and model, used from one event loop."""

    def __init__(self, engine: Engine, journal: Journal, observe: Observer, account: Account | None = None) -> None:
        self.engine = engine
        self._account = account or Accounts(BudgetSettings()).of("")
        self._journal = journal
        self._observe = observe
        self._running: dict[str, asyncio.Task[dict[str, Sample]]] = {}

    async def sample(self, stage: str, request: Request) -> tuple[Sample, ...]:
        """The request's samples, from the journal where they are there.

        What is missing is asked for in as few requests as consecutive indices allow. A sample that another
        element is waiting for already is waited for, not asked for twice. A request belongs to all who wait for it:
        it goes on, and is remembered, also where the one who asked first is cancelled.

        Raises:
          EngineError: a missing sample cannot be had.
          BudgetReached: nothing more may be asked; what is in flight goes on.
        """
        indices, keys = request.indices, request.keys(self.engine.identity)
        known = self._journal.get([key for key in keys if key not in self._running])
        if known:
            self._observe(stage, Usage(), len(known))
            self._account.replayed(request, list(known.values()))
        missing = [i for i, key in zip(indices, keys, strict=True) if key not in known and key not in self._running]
        for run in _consecutive(missing):
            self._ask(stage, request, run, keys[run.start - indices.start : run.stop - indices.start])
        # No await so far: nobody else can have asked for the same meanwhile.
        for task in dict.fromkeys(self._running[key] for key in keys if key not in known):
            known |= await asyncio.shield(task)
        return tuple(known[key] for key in keys)

    def _ask(self, stage: str, request: Request, run: range, keys: Sequence[str]) -> None:
        self._account.admit()
        part = msgspec.structs.replace(request, num_samples=len(run), first_sample=run.start)
        task = asyncio.create_task(self._answer(stage, part, keys))
        task.add_done_callback(functools.partial(self._forget, keys))
        self._running |= dict.fromkeys(keys, task)

    async def _answer(self, stage: str, request: Request, keys: Sequence[str]) -> dict[str, Sample]:
        usage = None
        try:
            reply = await self.engine.complete(request)
            usage = reply.usage
        finally:
            self._account.back(request, usage)
        samples = dict(zip(keys, reply.samples, strict=True))
        # A refused prompt is no answer: it is asked again next time.
        answered = {key: sample for key, sample in samples.items() if not sample.error}
        await self._journal.put(stage, answered, reply.usage)
        self._observe(stage, reply.usage, 0)
        return samples

    async def settle(self) -> None:
        """Returns when nothing is in flight any more: every answer is in the journal, every error forgotten."""
        while self._running:
            await asyncio.gather(*set(self._running.values()), return_exceptions=True)
            await asyncio.sleep(0)  # `_forget` runs after the task.

    def _forget(self, keys: Sequence[str], task: asyncio.Task[dict[str, Sample]]) -> None:
        for key in keys:
            del self._running[key]
        if not task.cancelled():
            task.exception()  # Nobody may be waiting for it any more: marks it as seen.


def _consecutive(indices: Iterable[int]) -> list[range]:
    """Runs of consecutive numbers: 0, 1, 2, 5, 6 gives 0..2 and 5..6."""
    runs: list[range] = []
    for i in indices:
        if runs and runs[-1].stop == i:
            runs[-1] = range(runs[-1].start, i + 1)
        else:
            runs.append(range(i, i + 1))
    return runs

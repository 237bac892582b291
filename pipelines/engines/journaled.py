"""Asking a model through the journal: what was paid for once is never paid for again."""

import asyncio
import functools
import re
from collections.abc import Callable, Iterable, Sequence

import msgspec

from pipelines.budget import Account, Accounts, BudgetSettings
from pipelines.engines.base import Engine, EngineLost, Request, Sample, Usage
from pipelines.errors import UserError
from pipelines.journal import Journal
from pipelines.meter import METER
from schemas import as_text, as_written, readable

_Samples = dict[str, Sample]
_Asking = asyncio.Task[_Samples]

Observer = Callable[[str, Usage, int], None]
"""Told of (stage, what was just paid, samples that came from the journal)."""


_SURROGATE = re.compile("[\ud800-\udfff]")
_CHARS_PER_TOKEN = 32
"""Mean length of a sample's tokens that none exceeds whose server keeps to `max_tokens`: single tokens of white space
are longer, words have about four characters."""
_SHORT_CHARS = 10_000
"""Samples up to this length are never cut."""


class Outage(UserError):
    """Nobody is there who could be asked, for longer than a run waits; the same command goes on when somebody is."""

    exit_code = 3


class JournaledEngine:
    """An engine with a memory. One a worker and model, used from one event loop.

    Here is the border between what a model writes and what a run makes of it: no special token reaches the model as a
    token through the prefix, and no text comes back that a record, a prompt or a checker cannot bear (`admitted`).
    """

    def __init__(self, engine: Engine, journal: Journal, observe: Observer, account: Account | None = None) -> None:
        self.engine = engine
        self._account = account or Accounts(BudgetSettings()).of("")
        self._journal = journal
        self._observe = observe
        self._running: dict[str, _Asking] = {}
        self._looking: dict[str, asyncio.Event] = {}

    async def sample(self, stage: str, request: Request) -> tuple[Sample, ...]:
        """The request's samples, from the journal where they are there.

        What is missing is asked for in as few requests as consecutive indices allow. A sample that another
        element is waiting for already is waited for, not asked for twice. A request belongs to all who wait for it:
        it goes on, and is remembered, also where the one who asked first is cancelled.

        Raises:
          EngineError: a missing sample cannot be had.
          BudgetReached: nothing more may be asked; what is in flight goes on.
          Outage: no server is to be expected back, of this engine or another; what is in flight goes on.
        """
        request = msgspec.structs.replace(request, prefix=as_text(request.prefix))
        keys = request.keys(self.engine.identity)
        # A journal on a server takes its time, in which nobody else may look up or ask for the same.
        name = keys[0].partition("/")[0] if keys else ""
        while name in self._looking:
            await self._looking[name].wait()
        self._looking[name] = asyncio.Event()
        try:
            known, running = await self._look_up(stage, request, keys)
        finally:
            self._looking.pop(name).set()
        for task in dict.fromkeys(running[key] for key in keys if key not in known):
            known |= await asyncio.shield(task)
        samples = tuple(admitted(known[key], request) for key in keys)
        changed = sum(sample is not known[key] for sample, key in zip(samples, keys, strict=True))
        if changed:
            METER.count(stage, CHANGED, changed)
        if lost := sum(sample.reasoning_tokens > 0 and not sample.text for sample in samples):
            METER.count(stage, ONLY_THOUGHT, lost)
        return samples

    async def _look_up(self, stage: str, request: Request, keys: Sequence[str]) -> tuple[_Samples, dict[str, _Asking]]:
        """The samples that are known, and who is asking for the others; asks for what nobody does."""
        indices = request.indices
        # The tasks are held on to: one that ends meanwhile is in neither the journal's answer nor `_running`.
        running = {key: self._running[key] for key in keys if key in self._running}
        known = await self._journal.get([key for key in keys if key not in running])
        if known:
            self._observe(stage, Usage(), len(known))
            self._account.replayed(request, list(known.values()))
        missing = [i for i, key in zip(indices, keys, strict=True) if key not in known and key not in running]
        for run in _consecutive(missing, self.engine.choices_at_once(request)):
            part = keys[run.start - indices.start : run.stop - indices.start]
            running |= dict.fromkeys(part, self._ask(stage, request, run, part))
        return known, running

    def _ask(self, stage: str, request: Request, run: range, keys: Sequence[str]) -> _Asking:
        self._account.admit()
        part = msgspec.structs.replace(request, num_samples=len(run), first_sample=run.start)
        task = asyncio.create_task(self._answer(stage, part, keys))
        task.add_done_callback(functools.partial(self._forget, keys))
        self._running |= dict.fromkeys(keys, task)
        return task

    async def _answer(self, stage: str, request: Request, keys: Sequence[str]) -> dict[str, Sample]:
        usage = None
        try:
            reply = await self.engine.complete(request)
            usage = reply.usage
        except EngineLost as error:
            # A run goes on without an element, but not without a model: all that is left would fail, wave after wave.
            outage = Outage(
                f"no server answers any more for {self.engine.model}: {error}. When there is one again, the same "
                "command goes on from here: what was answered is in the journal"
            )
            self._account.end(outage)
            raise outage from error
        finally:
            self._account.back(request, usage)
        samples = dict(zip(keys, reply.samples, strict=True))
        # Remembered as it came, save what cannot be written down: halves of surrogate pairs.
        samples = {key: _encodable(sample) for key, sample in samples.items()}
        if refused := next((sample.error for sample in samples.values() if sample.error), ""):
            METER.refuse(stage, refused)
        # A refused prompt is no answer: it is asked again next time.
        answered = {key: sample for key, sample in samples.items() if not sample.error}
        kept = await self._journal.put(stage, answered, reply.usage)
        self._observe(stage, reply.usage, 0)
        return samples | kept

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


CHANGED = "samples changed"
"""What the meter counts under each stage: samples that `admitted` gave back otherwise than they came."""

ONLY_THOUGHT = "samples of thoughts alone"
"""Likewise: samples that came to no answer."""


def admitted(sample: Sample, request: Request) -> Sample:
    """A sample as a run may use it; the very same one where there is nothing to change.

    Control characters become U+FFFD, the spelling that `as_text` gives special tokens is taken back, and a text that is
    longer than its tokens could be is cut like one that ran out of them. A function of the sample and its request: what
    comes from the journal is treated as on the first day.
    """
    text, reasoning = as_written(readable(sample.text)), as_written(readable(sample.reasoning))
    most = max(_SHORT_CHARS, _CHARS_PER_TOKEN * request.sampling.max_tokens)
    if len(text) > most:
        return msgspec.structs.replace(sample, text=text[:most], reasoning=reasoning, finish="length")
    if (text, reasoning) == (sample.text, sample.reasoning):
        return sample
    return msgspec.structs.replace(sample, text=text, reasoning=reasoning)


def _encodable(sample: Sample) -> Sample:
    parts = {"text": sample.text, "error": sample.error, "reasoning": sample.reasoning}
    if not _SURROGATE.search("".join(parts.values())):
        return sample
    clean = {name: _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", part) for name, part in parts.items()}
    return msgspec.structs.replace(sample, **clean)


def _consecutive(indices: Iterable[int], most: int) -> list[range]:
    """Runs of at most `most` consecutive numbers: with 2, the numbers 0, 1, 2, 5, 6 give 0..1, 2 and 5..6."""
    runs: list[range] = []
    for i in indices:
        if runs and runs[-1].stop == i and len(runs[-1]) < most:
            runs[-1] = range(runs[-1].start, i + 1)
        else:
            runs.append(range(i, i + 1))
    return runs

"""What all stages of one process share: an event loop, the journal, one client for each model, the answer checkers."""

import asyncio
import concurrent.futures
import contextlib
import gc
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import msgspec

from pipelines.budget import Accounts, BudgetSettings
from pipelines.checking import CheckerPool
from pipelines.engines import Endpoint, Sampling, connect
from pipelines.engines.journaled import JournaledEngine
from pipelines.journal import Journal
from pipelines.meter import METER
from schemas import Provenance, Record, Template

T = TypeVar("T")


class WorkerSpec(Record):
    """Everything a process needs to become a worker. Travels inside the graph, so plain values only."""

    endpoints: tuple[tuple[str, Endpoint], ...]
    """The run's models by name; the actor's is called "" and stands first."""
    journal: str
    """Path of the journal's file, or URL of its server."""
    checker_processes: int
    checker_cpu_secs: float
    max_in_flight: int
    """Elements that one stage has in hand at once."""
    budget: BudgetSettings = BudgetSettings()
    """What this worker may spend."""
    journal_patience_secs: float = 60.0
    """How long the journal's server may be away."""


class Worker:
    """An event loop in a thread of its own, with the clients that live on it."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.checkers = CheckerPool(num_workers=spec.checker_processes, cpu_seconds=spec.checker_cpu_secs)
        self.journal = Journal(spec.journal, patience_secs=spec.journal_patience_secs)
        self.accounts = Accounts(spec.budget)
        self._models = {
            name: JournaledEngine(connect(endpoint), self.journal, METER.pay, self.accounts.of(name))
            for name, endpoint in spec.endpoints
        }
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="worker-loop", daemon=True)
        self._thread.start()
        # The collector's usual 700 new objects are a few calls: with hundreds in flight, a third of a call's time would
        # go into looking them through again and again. The whole process's setting, and it stays.
        gc.set_threshold(10_000)

    def submit(self, work: Coroutine[Any, Any, T]) -> "concurrent.futures.Future[T]":
        """Runs a coroutine on the worker's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    @property
    def model(self) -> JournaledEngine:
        """The actor's model."""
        return self._models[""]

    def model_of(self, engine: str) -> JournaledEngine:
        """The model of one of the run's `engines`; an empty name is the actor's."""
        return self._models[engine]

    def provenance(self, template: Template, sampling: Sampling, seed: int, *, engine: str = "") -> Provenance:
        """Where texts come from that a model writes for a template."""
        client = self._models[engine].engine
        return Provenance(
            model=client.model,
            revision=client.revision,
            engine=client.kind,
            prompt_digest=template.digest,
            sampling=msgspec.json.encode(sampling).decode(),
            seed=seed,
        )

    def settle(self) -> None:
        """Waits for all requests that are in flight, whoever asked: what was paid for is in the journal then."""
        for model in self._models.values():
            self.submit(model.settle()).result()

    def close(self) -> None:
        """Stops the loop and lets go of everything; what was committed stays."""
        self.submit(self._close()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.journal.close()
        self.checkers.close()

    async def _close(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.gather(*(model.engine.close() for model in self._models.values()))


class _Shelf:
    """The workers of this process by spec, each open while somebody holds it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[WorkerSpec, tuple[Worker, int]] = {}

    def acquire(self, spec: WorkerSpec) -> Worker:
        with self._lock:
            worker, holders = self._open.get(spec) or (Worker(spec), 0)
            self._open[spec] = (worker, holders + 1)
            return worker

    def release(self, spec: WorkerSpec) -> None:
        with self._lock:
            worker, holders = self._open[spec]
            if holders > 1:
                self._open[spec] = (worker, holders - 1)
                return
            del self._open[spec]
        worker.close()


_SHELF = _Shelf()


def acquire(spec: WorkerSpec) -> Worker:
    """This process's worker for `spec`; made on first use, shared by all stages and bundles. Pair with `release`."""
    return _SHELF.acquire(spec)


def release(spec: WorkerSpec) -> None:
    """Gives a worker back; the last one to do so closes it."""
    _SHELF.release(spec)


@contextlib.contextmanager
def holding(spec: WorkerSpec) -> Iterator[Worker]:
    """A worker that stays open between the stages of several graphs."""
    worker = acquire(spec)
    try:
        yield worker
    finally:
        release(spec)

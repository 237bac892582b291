"""What all stages of one process share: an event loop, the journal, one client for each model, the answer checkers."""

import asyncio
import concurrent.futures
import contextlib
import gc
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import msgspec

from pipelines.budget import Accounts, BudgetSettings
from pipelines.checking import CheckerPool
from pipelines.command_checks import NO_COMMAND, CommandChecker, require_program
from pipelines.engines import Endpoint, Sampling, Usage, connect, reached
from pipelines.engines.journaled import JournaledEngine
from pipelines.errors import UserError
from pipelines.journal import Journal
from pipelines.meter import METER
from pipelines.site import Site, enter_site, report
from schemas import Provenance, Record, Template

T = TypeVar("T")

_HERALD_SECS = 1.0
"""Between two looks at what all workers have paid, and two words on what this one has done."""


class Shared(Record):
    """What the workers of one run on a cluster have in common."""

    site: Site
    ledger: Usage
    """What the run had paid, by the journal's ledger, when it was started: the budget is for what came since."""


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
    checker: CommandChecker = NO_COMMAND
    """The command that decides about answers of the domain `command`."""
    budget: BudgetSettings = BudgetSettings()
    """What this worker may spend."""
    run: str = ""
    """Whose costs it adds to the journal's ledger."""
    journal_patience_secs: float = 60.0
    """How long the journal's server may be away."""
    shared: "Shared | None" = None
    """What this worker shares with others; None where it is the only one."""


class Worker:
    """An event loop in a thread of its own, with the clients that live on it."""

    def __init__(self, spec: WorkerSpec) -> None:
        """Raises UserError where this is no place for a worker of the run: before anything is asked."""
        if spec.shared:
            enter_site(spec.shared.site)
        require_program(spec.checker)
        with contextlib.ExitStack() as held:
            self.checkers = CheckerPool(
                num_workers=spec.checker_processes, cpu_seconds=spec.checker_cpu_secs, command=spec.checker
            )
            held.callback(self.checkers.close)
            self.journal = Journal(
                spec.journal,
                patience_secs=spec.journal_patience_secs,
                awaits_server=spec.shared is not None,
                run=spec.run,
            )
            held.callback(self.journal.close)
            endpoints = held.enter_context(reached(spec.endpoints))
            # `max_seconds` begins here: who started the run looks at it, too, and no two hosts' clocks agree.
            self.accounts = Accounts(spec.budget)
            self._models = {
                name: JournaledEngine(connect(endpoint, account), self.journal, METER.pay, account)
                for name, endpoint in endpoints
                for account in (self.accounts.of(name),)
            }
            self._herald = Herald(self.journal, self.accounts, spec.shared) if spec.shared else None
            self._held = held.pop_all()
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

    def settle(self, within_secs: float | None = None) -> None:
        """Waits for all requests that are in flight, whoever asked: what was paid for is in the journal then.

        Raises:
          TimeoutError: they are not all back in time.
        """
        deadline = None if within_secs is None else time.monotonic() + within_secs
        for model in self._models.values():
            self.submit(model.settle()).result(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """Stops the loop and lets go of everything; what was committed stays."""
        if self._herald:
            self._herald.stop()
        self.submit(self._close()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._held.close()

    async def _close(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.gather(*(model.engine.close() for model in self._models.values()))


class Herald:
    """Between a worker and those who share its run: what all of them have paid comes in, what it has done goes out."""

    def __init__(self, journal: Journal, accounts: Accounts, shared: Shared) -> None:
        self._journal, self._accounts, self._shared = journal, accounts, shared
        self._told: dict[str, int] = {}
        self._stop = threading.Event()
        self._look()
        self._thread = threading.Thread(target=self._watch, name="worker-herald", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Tells the last that is to be told."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(_HERALD_SECS):
            self._try(self._look)
            self._try(self._tell)
        self._try(self._tell)

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
        except UserError as error:  # Whoever next needs the journal or the folder fails by it, and says so.
            logging.getLogger(__name__).warning("%s", error)

    def _look(self) -> None:
        self._accounts.see(self._journal.paid() - self._shared.ledger)

    def _tell(self) -> None:
        elements = METER.read().elements
        if elements != self._told:
            report(self._shared.site, elements)
            self._told = elements


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

    def open(self) -> list[Worker]:
        with self._lock:
            return [worker for worker, _ in self._open.values()]

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


def settle_all(within_secs: float) -> None:
    """For a process that is being stopped: asks no model for anything more, and waits for what is in flight."""
    deadline = time.monotonic() + within_secs
    workers = _SHELF.open()
    for worker in workers:
        worker.accounts.close("the end of the worker")
    for worker in workers:
        try:
            worker.settle(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            logging.getLogger(__name__).warning("stopped with calls in flight: not all came within %g s", within_secs)


@contextlib.contextmanager
def holding(spec: WorkerSpec) -> Iterator[Worker]:
    """A worker that stays open between the stages of several graphs."""
    worker = acquire(spec)
    try:
        yield worker
    finally:
        release(spec)

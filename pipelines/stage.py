"""A stage that calls models: many elements in flight over the worker's one client, each ending in exactly one place.

`process` hands an element to the worker's loop and yields whatever has finished meanwhile; `finish_bundle` waits for
the rest. There is no barrier inside a bundle and none between two stages that run in one.
"""

import concurrent.futures
import queue
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from pipelines.budget import PROBLEM, BudgetReached
from pipelines.engines.base import EngineError
from pipelines.engines.journaled import Outage
from pipelines.meter import METER
from pipelines.worker import Worker, WorkerSpec, acquire, release
from schemas import Failure, Record, Rejection, Stage

E = TypeVar("E")

Handler = Callable[[Worker, E], Awaitable[Iterable[Record]]]
"""From the worker and an element to what becomes of it: results, rejections and failures, told apart by type."""

Identify = Callable[[E], tuple[str, str]]
"""From an element to its key in the stage and its problem's id."""

REJECTED, FAILED = "rejected", "failed"

METRICS = "wrongturn"
"""Namespace of the counters that a cluster's own page shows; whoever started the run reads `site.read_reports`, since
Flink tells counters of a batch job at its end alone."""


class CallModels(beam.DoFn, Generic[E]):
    """Runs `handler` on each element; the main output is its results, the tags are `rejected` and `failed`.

    An `EngineError` that leaves the handler fails the whole element; any other exception is our own bug and fails
    the run. The meter leaves out results that `counts` says no of: what is written beside its own rejection.
    """

    def __init__(
        self,
        stage: Stage,
        spec: WorkerSpec,
        handler: Handler[E],
        identify: Identify[E],
        counts: Callable[[Record], bool] = lambda record: True,
    ) -> None:
        self._stage: Stage = stage
        self._spec = spec
        self._handler = handler
        self._identify = identify
        self._counts = counts

    def giving(self, results: type[Record]) -> Any:
        """Itself, its outputs typed, so that wrong wiring is found when the graph is built."""
        return self.with_output_types(results, **{REJECTED: Rejection, FAILED: Failure})

    def setup(self) -> None:
        """Takes this process's worker."""
        self._worker = acquire(self._spec)

    def start_bundle(self) -> None:
        """Nothing is in flight yet."""
        self._in_flight = 0
        # A new queue: what a bundle that broke off left in flight must not come out of this one.
        self._done: queue.SimpleQueue[concurrent.futures.Future[list[Record]]] = queue.SimpleQueue()

    def process(self, element: E) -> Iterator[Any]:
        """Starts work on the element; yields what other elements have come to."""
        self._worker.submit(self._work(element)).add_done_callback(self._done.put)
        self._in_flight += 1
        for record in self._finished(block=self._in_flight >= self._spec.max_in_flight):
            yield _route(record)

    def finish_bundle(self) -> Iterator[Any]:
        """Yields what is left as it finishes."""
        while self._in_flight:
            for record in self._finished(block=True):
                yield _route(record, in_window=True)

    def teardown(self) -> None:
        """Gives the worker back."""
        release(self._spec)

    async def _work(self, element: E) -> list[Record]:
        PROBLEM.set(self._identify(element)[1])
        try:
            return list(await self._handler(self._worker, element))
        except EngineError as error:
            key, problem_id = self._identify(element)
            return [failure(self._stage, key, problem_id, error)]

    def _finished(self, *, block: bool) -> Iterator[Record]:
        """What elements have come to that are done by now; `block` waits for one where none is."""
        while block or not self._done.empty():
            block = False
            future = self._done.get()
            self._in_flight -= 1
            try:
                records = future.result()
            except (BudgetReached, Outage):
                self._worker.settle()  # The runner may take this process away: what is paid for must be kept first.
                raise
            for record in records:
                if self._counts(record):
                    METER.count(self._stage, _outcome(record))
                yield record
            if self._spec.shared:
                for name, number in METER.take_unreported().items():
                    Metrics.counter(METRICS, name).inc(number)


def failure(stage: Stage, key: str, problem_id: str, error: EngineError) -> Failure:
    """The dead letter of an element that no model could be asked about."""
    return Failure(
        stage=stage,
        key=key,
        problem_id=problem_id,
        request_digest=error.request_digest,
        error=type(error).__name__,
        detail=str(error),
        attempts=error.attempts,
    )


def _outcome(record: Record) -> str:
    if isinstance(record, Rejection):
        return REJECTED
    return FAILED if isinstance(record, Failure) else "kept"


def _route(record: Record, *, in_window: bool = False) -> Any:
    value: Any = record
    if in_window:
        value = WindowedValue(record, GlobalWindow().max_timestamp(), (GlobalWindow(),))
    outcome = _outcome(record)
    return value if outcome == "kept" else TaggedOutput(outcome, value)

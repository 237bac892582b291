"""Doing together what many ask for one by one: a thread that takes everything that has gathered since its last turn."""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from pipelines.journal.store import JournalError

Item = TypeVar("Item")
Result = TypeVar("Result")

_ENDED = "the journal's thread has ended; see its traceback"


class Group(Generic[Item, Result]):
    """A thread that works on batches. Asked from event loops, which it never blocks."""

    def __init__(self, name: str, work: Callable[[Sequence[Item]], Sequence[Result]]) -> None:
        """Starts the thread.

        Args:
          name: of the thread.
          work: gives a result for each item of a batch, or raises JournalError for all of them.
        """
        self._work = work
        self._queue: queue.SimpleQueue[tuple[Item, asyncio.AbstractEventLoop, asyncio.Future[Result]] | None]
        self._queue = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._has_ended = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def ask(self, item: Item) -> Result:
        """The item's result. An item whose asker is cancelled is worked on all the same.

        Raises:
          JournalError: from the work on its batch.
          RuntimeError: the thread has ended.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Result] = loop.create_future()
        with self._lock:
            if self._has_ended:
                raise RuntimeError(_ENDED)
            self._queue.put((item, loop, done))
        return await done

    def close(self) -> None:
        """Works on what is waiting and ends the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._work_on()
        finally:  # Also after a bug of ours: nobody may wait for a thread that is not there.
            with self._lock:
                self._has_ended = True
            left = []
            while not self._queue.empty():
                entry = self._queue.get()
                if entry is not None:
                    left.append((entry[1], entry[2]))
            self._tell(left, RuntimeError(_ENDED))

    def _work_on(self) -> None:
        is_open = True
        while is_open:
            batch = [self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get())
            waiting = [entry for entry in batch if entry is not None]
            is_open = len(waiting) == len(batch)
            if not waiting:
                return
            outcome: Sequence[Result] | Exception = RuntimeError(_ENDED)
            try:
                outcome = self._work([item for item, _, _ in waiting])
            except JournalError as error:
                outcome = error
            finally:
                self._tell([(loop, done) for _, loop, done in waiting], outcome)

    def _tell(
        self,
        waiting: Sequence[tuple[asyncio.AbstractEventLoop, "asyncio.Future[Result]"]],
        outcome: Sequence[Result] | Exception,
    ) -> None:
        told: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Result], Result | Exception]]] = {}
        for i, (loop, done) in enumerate(waiting):
            told.setdefault(loop, []).append((done, outcome if isinstance(outcome, Exception) else outcome[i]))
        for loop, settled in told.items():
            # The loop may have been closed by now, and then nobody waits on it.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, settled)


def _settle(settled: "Sequence[tuple[asyncio.Future[Result], Result | Exception]]") -> None:
    for done, result in settled:
        if done.done():
            continue
        if isinstance(result, Exception):
            done.set_exception(result)
        else:
            done.set_result(result)

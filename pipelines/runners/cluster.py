"""Jobs somewhere else: submitted, watched, cancelled when nobody wants them any more.

What a job does, it does again when a part of it is lost; nothing here relies on it being done once. Answers are in the
journal before they are used, and files are whole or absent with the same bytes whoever writes them.
"""

import contextlib
import http.client
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineResult

from pipelines.budget import Accounts, BudgetReached
from pipelines.coders import register_coders
from pipelines.engines.base import Usage
from pipelines.errors import UserError
from pipelines.graph import build
from pipelines.journal import Journal
from pipelines.meter import METER
from pipelines.plan import Plan
from pipelines.runners.beam_options import flink_options, prism_options, runs_here
from pipelines.runners.checks import flink_version
from pipelines.runners.dataflow import staging
from pipelines.runners.flink import ClusterError, FlinkRest, job_server
from pipelines.runners.settings import Cluster, Dataflow, Flink, Prism
from pipelines.site import read_reports
from pipelines.worker import Shared, WorkerSpec
from schemas import digest

_LOG = logging.getLogger(__name__)
_GRACE_SECS = 5.0
"""From the end of a budget to the end of the job: what is in flight comes back and is kept."""

Submit = Callable[[Sequence[int]], PipelineResult]
"""From shards to the job that fills them."""


def job_name(plan: Plan, out: str) -> str:
    """The name of a run's jobs: two starts of one command have the same, so that the second finds the first's."""
    return f"wrongturn-{plan.config_digest[:12]}-{digest('job', out)[:8]}"


@contextlib.contextmanager
def submitting(plan: Plan, spec: WorkerSpec, out: str, name: str, logs: Path) -> Iterator[Submit]:
    """Gives what submits jobs of a name, as long as the context lasts.

    Raises:
      ClusterError: nobody is there to submit to.
    """
    register_coders()
    threading.excepthook = _log_lost_stream
    settings = plan.settings.runner
    with contextlib.ExitStack() as stack:
        if isinstance(settings, Flink):
            version = flink_version(settings, "")
            if settings.is_remote:
                rest = FlinkRest(settings.rest_url)
                version = flink_version(settings, rest.overview().version)
                # Whoever started it is gone, for we hold the folder: two that ask the same would pay for it twice.
                if rest.cancel(name):
                    _LOG.warning("cancelled the job %s, which an earlier start of this command had left", name)
            endpoint = stack.enter_context(job_server(settings, version, logs / "job-server.log"))
            words = flink_options(settings, name, endpoint)
        elif isinstance(settings, Prism):
            words = prism_options(settings, name)
        else:
            assert isinstance(settings, Dataflow)
            words = stack.enter_context(staging(settings, name))
        options = PipelineOptions(words)

        def submit(shards: Sequence[int]) -> PipelineResult:
            pipeline = beam.Pipeline(options=options)
            build(pipeline, plan, spec, out=out, shards=shards)
            return pipeline.run()

        yield submit


def _log_lost_stream(what: threading.ExceptHookArgs) -> None:
    """Has a stream that ends with its job server be no traceback on the screen.

    Beam's threads read such streams until they break, which may be after the run has ended. What became of the job is
    known from elsewhere.
    """
    if isinstance(what.exc_value, grpc.RpcError):
        _LOG.info("%s has lost its stream: %s", what.thread.name if what.thread else "a thread", what.exc_value)
    else:
        threading.__excepthook__(what)


class Jobs:
    """The jobs of one start of a run, one after the other, watched until they are done."""

    def __init__(
        self, submit: Submit, shared: Shared, settings: Cluster, name: str, accounts: Accounts, journal: Journal
    ) -> None:
        """Takes what `submitting` gave, and the accounts and the journal that are to be looked at meanwhile."""
        self._submit, self._shared, self._settings, self._name = submit, shared, settings, name
        self._accounts, self._journal = accounts, journal
        self._rest = FlinkRest(settings.rest_url) if isinstance(settings, Flink) and settings.is_remote else None
        self._told = Usage()
        self._counted: Counter[str] = Counter()
        self._reports: dict[str, Counter[str]] = {}

    def fill(self, shards: Sequence[int]) -> None:
        """Fills shards by one job and returns when it is done; where workers were lost, by another.

        Flink restarts a batch job by itself only where its cluster is set up so, and no job can ask for it. What a
        lost job has asked is in the journal.

        Raises:
          BudgetReached: a limit was reached; the job is cancelled.
          UserError: the job failed for a reason that whoever started it can put right.
          RuntimeError: it failed for another.
        """
        restarts, delay = 0, 0.0
        if isinstance(self._settings, Flink):
            restarts, delay = self._settings.restarts, self._settings.restart_delay_secs
        for _ in range(restarts):
            try:
                return self._fill_once(shards)
            except RuntimeError as error:
                if _is_ours(str(error)):
                    raise
                _LOG.warning("the job was lost and is submitted again: %.300s", error)
            time.sleep(delay)
        return self._fill_once(shards)

    def _fill_once(self, shards: Sequence[int]) -> None:
        with contextlib.ExitStack() as stack:
            job = self._submit(shards)
            stack.callback(self._cancel, job)
            self._watch(job)
            stack.pop_all()

    def _cancel(self, job: PipelineResult) -> None:
        """Cancels a job that is given up for a reason of its own: what the runner says to that is no news.

        A cluster of which it can be asked has ended it when this returns: whoever starts the next job finds the slots
        free, and nobody asks a model any more.
        """
        try:
            job.cancel()
        except (grpc.RpcError, OSError, http.client.HTTPException, RuntimeError) as error:
            _LOG.info("the job server cannot cancel the job: %s", error)
        if self._rest:
            try:
                self._rest.cancel(self._name)
            except (OSError, http.client.HTTPException, LookupError, ValueError) as error:
                _LOG.warning("the job is not cancelled: %s", error)

    def _watch(self, job: PipelineResult) -> None:
        ended = threading.Event()
        failed: list[Exception] = []
        thread = threading.Thread(target=_await, args=(job, ended, failed), name="job-watch", daemon=True)
        thread.start()
        began = seen = time.monotonic()
        while not ended.wait(self._settings.watch_secs):
            self._look()
            if self._accounts.is_reached():
                ended.wait(_GRACE_SECS)
                raise BudgetReached(self._accounts.reached)
            seen = self._look_for_master(seen)
            self._look_for_workers(time.monotonic() - began)
        self._look()
        if failed:
            cause = explain(str(failed[0]))
            self._note_limit(cause)
            if self._accounts.is_reached():
                raise BudgetReached(self._accounts.reached)
            raise cause from failed[0]

    def _note_limit(self, cause: Exception) -> None:
        """Takes a worker's word for a limit: it counts what is in flight, which nobody else sees."""
        if isinstance(cause, BudgetReached):
            self._accounts.close(str(cause))

    def _look(self) -> None:
        """Tells accounts and meter what workers have done by now."""
        paid = self._journal.paid() - self._shared.ledger
        self._accounts.see(paid)
        finished = self._finished()
        if not runs_here(self._settings):  # Those workers tell the meter themselves.
            METER.see(paid - self._told, finished - self._counted)
        self._told, self._counted = paid, finished

    def _finished(self) -> Counter[str]:
        """Elements that workers have finished; what was lost and done again counts twice."""
        try:
            # A listing may miss a file that is renamed meanwhile: what was read before stands.
            self._reports |= read_reports(self._shared.site)
        except OSError as error:
            _LOG.warning("what workers report cannot be read: %s", error)
        return sum(self._reports.values(), Counter())

    def _look_for_master(self, seen: float) -> float:
        """When the JobManager was there last.

        Raises:
          ClusterError: it has been away for too long: Beam would wait for it for ever.
          UserError: a worker says what is wrong; Flink would start it again and again.
        """
        settings = self._settings
        if not self._rest or not isinstance(settings, Flink):
            return seen
        try:
            trouble = [explain(text) for text in self._rest.exceptions(self._name)]
        except (OSError, http.client.HTTPException, LookupError, ValueError) as error:
            if time.monotonic() - seen > settings.patience_secs:
                raise ClusterError(
                    f"the JobManager at {settings.rest_url} has not answered for {settings.patience_secs:g} s "
                    "(runner.patience_secs); start the cluster again, then the same command: it goes on from here"
                ) from error
            return seen
        for cause in trouble:
            self._note_limit(cause)
            if isinstance(cause, UserError):
                raise cause
        return time.monotonic()

    def _look_for_workers(self, seconds: float) -> None:
        """Raises ClusterError where no worker comes: a runner would wait for one for ever."""
        patience = self._settings.worker_start_secs
        if not self._reports and seconds > patience:
            raise ClusterError(
                f"no worker has found its way to {self._shared.site.out} within {patience:g} s "
                "(runner.worker_start_secs): see the log of the worker pool or of the containers; they need wrongturn, "
                f"as this machine has it, and a way to the cluster{self._slots()}"
            )

    def _slots(self) -> str:
        """Words on the cluster's slots: a job that waits for one has no worker either."""
        try:
            seen = self._rest.overview() if self._rest else None
        except ClusterError:
            return ""
        return f"; {seen.free_slots} of its {seen.slots} slots are free: another job may hold them" if seen else ""


def _await(job: PipelineResult, ended: threading.Event, failed: list[Exception]) -> None:
    try:
        job.wait_until_finish()
    except Exception as error:  # noqa: BLE001  # handed on to the thread that waits for it
        failed.append(error)
    ended.set()


def _is_ours(text: str) -> bool:
    """Whether a job failed in our own code: it would fail again."""
    return re.search(r'File "[^"]*\b(pipelines|annotators|mcts|schemas)/', text) is not None


def explain(text: str) -> Exception:
    """What made a job fail: an error that workers raised for people to read, or the whole text with its traceback."""
    known = {kind.__name__: kind for kind in _with_subclasses(UserError)}
    for name, said in reversed(re.findall(r"(?:^|\n)\s*(?:[\w.]+\.)?(\w+): (.+)", text)):
        message = re.sub(r" \[while running '.*", "", said.replace("\\n", " "))
        if name in known:
            return known[name](message)
        if name == BudgetReached.__name__:
            limit = re.match(r"(budget\.\S+) is reached", message)
            return BudgetReached(limit[1]) if limit else RuntimeError(message)  # A worker that is stopped has others.
        if name == ModuleNotFoundError.__name__:
            return ClusterError(
                f"a worker cannot run what it was sent: {message}; install wrongturn, as this machine has it, in the "
                "Python that starts the workers (deploy/Dockerfile makes such an image)"
            )
    return RuntimeError(text)


def _with_subclasses(kind: type[UserError]) -> Iterator[type[UserError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _with_subclasses(below)

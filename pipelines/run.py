"""One run from settings to shards: read, plan, claim the folder, work shard by shard, write the books.

A run that is stopped at any point goes on where it was when the same command is given again: finished shards stay,
and what an unfinished one has asked is in the journal.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipelines.card import write_card
from pipelines.coders import register_coders
from pipelines.engines import serve_all
from pipelines.graph import build
from pipelines.journal import Journal
from pipelines.manifest import Books, keep_books, write_manifest
from pipelines.output import Output
from pipelines.plan import Inputs, Plan, make_plan
from pipelines.problems import check_problems, read_problems
from pipelines.report import write_report
from pipelines.settings import Settings
from pipelines.shards import shard_of
from pipelines.worker import WorkerSpec, holding
from schemas import Problem, Record, Rejection


class Result(Record):
    """A finished run."""

    out: str
    books: Books
    failure_share: float
    max_failure_share: float

    @property
    def is_success(self) -> bool:
        """Whether few enough elements failed."""
        return self.failure_share <= self.max_failure_share


class Watcher:
    """Is told how a run goes on; does nothing by itself. The terminal's display is one, tests have theirs."""

    def planned(self, plan: Plan, inputs: Inputs, journaled: int, unfinished: Sequence[int]) -> None:
        """Before any work: what will be done, and how many samples the journal holds already."""

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Around the work."""
        yield


def read_inputs(settings: Settings) -> Inputs:
    """All problems of the source.

    Raises:
      UserError: the source cannot be read, or holds no problem.
    """
    check_problems(settings.problems)
    problems: list[Problem] = []
    unread: list[Rejection] = []
    for item in read_problems(settings.problems):
        if isinstance(item, Problem):
            problems.append(item)
        else:
            unread.append(item)
    return Inputs(problems=tuple(problems), unread=tuple(unread))


def run(settings: Settings, watcher: Watcher) -> Result:
    """Makes the dataset that `settings` describe.

    Raises:
      UserError: bad input, before any work; one line that names the setting and the remedy.
      JournalError: the journal cannot be used.
    """
    inputs = read_inputs(settings)
    plan = make_plan(settings, inputs)
    output = Output(settings.out)
    with output.claimed(plan.config_digest, replace=settings.replace):
        unfinished = output.unfinished(plan.num_shards)
        journal = output.journal(settings.journal)
        watcher.planned(plan, inputs, _journaled(journal), unfinished)
        if unfinished:
            output.begin()
            _work(plan, inputs, output, journal, unfinished, watcher)
        return _close_books(plan, inputs, output, journal)


def _journaled(journal: Path) -> int:
    """Samples that the journal holds; opening it early also finds out whether it can be used."""
    opened = Journal(journal)
    try:
        return opened.size()
    finally:
        opened.close()


def _work(
    plan: Plan, inputs: Inputs, output: Output, journal: Path, unfinished: Sequence[int], watcher: Watcher
) -> None:
    """Runs the graph once for each unfinished shard: memory holds one shard, and what is finished stays finished."""
    register_coders()
    runner = plan.settings.runner
    with serve_all({"": plan.settings.engine, **plan.settings.engines}) as endpoints:
        spec = WorkerSpec(
            endpoints=endpoints,
            journal=str(journal),
            checker_processes=runner.checker_processes,
            checker_cpu_secs=runner.checker_cpu_secs,
            max_in_flight=runner.max_in_flight,
        )
        with holding(spec), watcher.working():
            for index in unfinished:
                _fill_shard(plan, inputs, spec, output, index)


def _fill_shard(plan: Plan, inputs: Inputs, spec: WorkerSpec, output: Output, index: int) -> None:
    problems = [p for p in inputs.problems if shard_of(p.id, plan.num_shards) == index]
    unread = [r for r in inputs.unread if shard_of(r.problem_id, plan.num_shards) == index]
    # The runner is named: where there is internet, Beam's "DirectRunner" would download and start another one.
    options = PipelineOptions(["--direct_num_workers=1", "--direct_running_mode=in_memory"])
    with beam.Pipeline(runner=FnApiRunner(), options=options) as pipeline:
        build(pipeline, plan, spec, shards=[index], problems=problems, unread=unread)
    if not output.has_failures(index, plan.num_shards):
        output.finish(index, plan.num_shards)


def _close_books(plan: Plan, inputs: Inputs, output: Output, journal: Path) -> Result:
    agents = plan.settings.panel.agents
    books = keep_books(
        output.path,
        num_read=len(inputs.problems) + len(inputs.unread),
        num_problems=len(inputs.problems),
        num_agents=len(agents),
        num_contrastive=sum(agent.view == "contrastive" for agent in agents),
    )
    opened = Journal(journal)
    try:
        ledger = opened.ledger()
    finally:
        opened.close()
    write_manifest(output, plan, books, ledger)
    write_card(output, plan, books)
    write_report(output, plan, books)
    output.complete()
    return Result(
        out=str(output.path),
        books=books,
        failure_share=books.failure_share,
        max_failure_share=plan.settings.max_failure_share,
    )

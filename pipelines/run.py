"""One run from settings to shards: read, plan, claim the folder, work shard by shard, write the books.

A run that is stopped at any point goes on where it was when the same command is given again: finished shards stay,
and what an unfinished one has asked is in the journal.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipelines.budget import Accounts, BudgetReached
from pipelines.card import write_card
from pipelines.coders import register_coders
from pipelines.engines import Endpoint, ServerWatcher, Usage, serve_all
from pipelines.errors import UserError
from pipelines.extent import accepted_rows, failed_elements, inputs_of, written_shards
from pipelines.graph import build
from pipelines.journal import Journal, Place
from pipelines.llama_factory import write_dataset_info
from pipelines.manifest import Books, keep_books, write_manifest
from pipelines.output import Output
from pipelines.plan import Inputs, Plan, make_plan
from pipelines.problems import check_problems, read_problems
from pipelines.problems.hygiene import without_unclean
from pipelines.report import write_report
from pipelines.settings import Settings
from pipelines.worker import WorkerSpec, holding
from schemas import Problem, Record, Rejection


class Result(Record):
    """A run that has ended, whole or not."""

    out: str
    books: Books
    failure_share: float
    max_failure_share: float
    num_shards: int
    unfinished: tuple[int, ...]
    """Shards that are not written or, where a budget was reached, not without failures."""
    num_problems_left: int
    """Problems in shards that are not written."""
    spent: str
    """What this start of the command paid, for people."""
    budget_reached: str
    """The setting that stopped it; empty where none did."""
    target_rows: int | None

    @property
    def is_success(self) -> bool:
        """Whether few enough elements failed."""
        return self.failure_share <= self.max_failure_share

    @property
    def has_target(self) -> bool:
        """Whether it has the rows that were asked for: it is whole then, whatever shards are missing."""
        return self.target_rows is not None and self.books.rows["sft"] >= self.target_rows


class Watcher(ServerWatcher):
    """Is told how a run goes on; does nothing by itself. The terminal's display is one, tests have theirs."""

    def planned(self, plan: Plan, inputs: Inputs, journaled: int, unfinished: Sequence[int]) -> None:
        """Before any work: what will be done, and how many samples the journal holds already."""

    def retrying(self, failed: Mapping[int, Mapping[str, int]]) -> None:
        """Before any work: elements that failed in an earlier run and are tried again, by shard and stage."""

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
    for item in without_unclean(read_problems(settings.problems), settings.hygiene):
        if isinstance(item, Problem):
            problems.append(item)
        else:
            unread.append(item)
    if not problems:
        raise UserError(f"hygiene leaves no problem of {len(unread)} rows; first: {unread[0].detail}")
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
        failed = failed_elements(output.path, unfinished, plan.num_shards)
        if settings.retry == "failed":
            unfinished = _only_failed(output, plan, failed)
        journal = output.journal(settings.journal)
        watcher.planned(plan, inputs, _journaled(journal, settings.journal_patience_secs), unfinished)
        if failed:
            watcher.retrying(failed)
        accounts = Accounts(settings.budget)
        if unfinished:
            output.begin()
            accounts = _work(plan, inputs, output, journal, unfinished, watcher)
        return _close_books(plan, inputs, output, journal, accounts)


def _only_failed(output: Output, plan: Plan, failed: Mapping[int, Mapping[str, int]]) -> tuple[int, ...]:
    """The shards that hold failed elements: what did not fail in them comes from the journal."""
    if not failed and not written_shards(output.path, plan.num_shards):
        raise UserError(
            f"retry=failed: {output.path} holds no shard with failed elements, because none is written yet; give the "
            "command without retry=failed"
        )
    return tuple(failed)


def _journaled(journal: Place, patience_secs: float) -> int:
    """Samples that the journal holds; opening it early also finds out whether it can be used."""
    opened = Journal(journal, patience_secs=patience_secs)
    try:
        return opened.size()
    finally:
        opened.close()


def _work(
    plan: Plan, inputs: Inputs, output: Output, journal: Place, unfinished: Sequence[int], watcher: Watcher
) -> Accounts:
    """Runs the graph once for each unfinished shard: memory holds one shard, and what is finished stays finished."""
    engines = {"": plan.settings.engine, **plan.settings.engines}
    with serve_all(engines, output.path / "logs", watcher) as endpoints:
        spec = worker_spec(plan, endpoints, journal)
        with holding(spec) as worker, watcher.working():
            try:
                for index in _in_order(plan, output, unfinished):
                    fill_shard(plan, inputs, spec, output, index)
            except BudgetReached:
                worker.settle()
            return worker.accounts


def worker_spec(plan: Plan, endpoints: tuple[tuple[str, Endpoint], ...], journal: Place) -> WorkerSpec:
    """The worker of a run."""
    runner = plan.settings.runner
    return WorkerSpec(
        endpoints=endpoints,
        journal=str(journal),
        checker_processes=runner.checker_processes,
        checker_cpu_secs=runner.checker_cpu_secs,
        max_in_flight=runner.max_in_flight,
        budget=plan.settings.budget,
        journal_patience_secs=plan.settings.journal_patience_secs,
    )


def _in_order(plan: Plan, output: Output, unfinished: Sequence[int]) -> Iterator[int]:
    """Shards to be filled, until those up to there hold the rows that were asked for."""
    target, rows = plan.settings.target_rows, 0
    for index in range(plan.num_shards):
        if target is not None and rows >= target:
            return
        if index in unfinished:
            yield index
        if target is not None:
            rows += accepted_rows(output.path, index, plan.num_shards)


def fill_shard(plan: Plan, inputs: Inputs, spec: WorkerSpec, output: Output, index: int) -> None:
    """Runs the graph over one shard's problems; finished is what holds no failed element.

    Raises:
      BudgetReached: a limit was reached before the shard was done; nothing of it is written.
    """
    register_coders()
    part = inputs_of(inputs, [index], plan.num_shards)
    # The runner is named: where there is internet, Beam's "DirectRunner" would download and start another one.
    options = PipelineOptions(["--direct_num_workers=1", "--direct_running_mode=in_memory"])
    with beam.Pipeline(runner=FnApiRunner(), options=options) as pipeline:
        build(pipeline, plan, spec, shards=[index], problems=part.problems, unread=part.unread)
    if not output.has_failures(index, plan.num_shards):
        output.finish(index, plan.num_shards)


def _close_books(plan: Plan, inputs: Inputs, output: Output, journal: Place, accounts: Accounts) -> Result:
    """Counts what is written, over the problems of the shards that are."""
    agents = plan.settings.panel.agents
    written = written_shards(output.path, plan.num_shards)
    missing = tuple(sorted(set(range(plan.num_shards)) - set(written)))
    covered = inputs_of(inputs, written, plan.num_shards)
    books = keep_books(
        output.path,
        num_read=len(covered.problems) + len(covered.unread),
        num_problems=len(covered.problems),
        num_agents=len(agents),
        num_contrastive=sum(agent.view == "contrastive" for agent in agents),
    )
    result = Result(
        out=str(output.path),
        books=books,
        failure_share=books.failure_share,
        max_failure_share=plan.settings.max_failure_share,
        num_shards=plan.num_shards,
        unfinished=output.unfinished(plan.num_shards) if accounts.reached else missing,
        num_problems_left=len(inputs.problems) - len(covered.problems),
        spent=accounts.spent(),
        budget_reached=accounts.reached,
        target_rows=plan.settings.target_rows,
    )
    if written:
        write_manifest(output, plan, books, _ledger(journal, plan.settings.journal_patience_secs))
        write_card(output, plan, books)
        write_dataset_info(output, books)
        write_report(output, plan, books)
    if not accounts.reached and (not missing or result.has_target):
        output.complete()
    return result


def _ledger(journal: Place, patience_secs: float) -> dict[str, Usage]:
    opened = Journal(journal, patience_secs=patience_secs)
    try:
        return opened.ledger()
    finally:
        opened.close()

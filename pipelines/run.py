"""One run from settings to shards: read, plan, claim the folder, work shard by shard, write the books.

A run that is stopped at any point goes on where it was when the same command is given again: finished shards stay,
and what an unfinished one has asked is in the journal.
"""

import contextlib
import itertools
import uuid
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from annotators.critic import compares
from mcts.given import GivenSettings
from pipelines.budget import Accounts, BudgetReached
from pipelines.card import write_card
from pipelines.engines import Endpoint, ServerWatcher, Usage, endpoints_on_hosts, serve_all
from pipelines.errors import UserError
from pipelines.extent import accepted_rows, failed_elements, inputs_of, written_shards
from pipelines.journal import Journal, Place, is_server
from pipelines.llama_factory import write_dataset_info
from pipelines.manifest import Books, ExtraStages, keep_books, write_manifest
from pipelines.output import Output
from pipelines.plan import Inputs, Plan, make_plan
from pipelines.problems import check_problems, read_problems
from pipelines.problems.given import NOTHING_GIVEN, read_given
from pipelines.problems.hygiene import without_unclean
from pipelines.report import write_report
from pipelines.runners.checks import check_runner
from pipelines.runners.cluster import Jobs, job_name, submitting
from pipelines.runners.dataflow import Staged, stage_template
from pipelines.runners.direct import run_directly
from pipelines.runners.package import code_digest
from pipelines.runners.settings import Cluster, Dataflow
from pipelines.settings import Settings
from pipelines.site import Site, close_site, open_site, this_host
from pipelines.worker import Shared, WorkerSpec, holding
from schemas import Problem, Record


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
    is_staged: bool = False
    """Whether the work was not done but lies ready to be done, as a job that somebody starts."""

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

    def staged(self, job: Staged) -> None:
        """Instead of the work: a job lies ready, and its command starts it."""

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Around the work."""
        yield


def read_inputs(settings: Settings) -> Inputs:
    """All problems of the source, and the solutions that came with them.

    Raises:
      UserError: the source cannot be read, or holds no problem.
    """
    check_problems(settings.problems)
    items, given = read_problems(settings.problems), NOTHING_GIVEN
    if isinstance(settings.paths, GivenSettings):
        given = read_given(settings.paths, settings.search, items)
        items = iter(given.problems)
    problems: list[Problem] = []
    unread = list(given.unread)
    for item in without_unclean(items, settings.hygiene):
        if isinstance(item, Problem):
            problems.append(item)
        else:
            unread.append(given.left_out(item))
    if not problems:
        raise UserError(f"hygiene leaves no problem of {len(unread)} rows; first: {unread[0].detail}")
    solutions = {item.id: given.solutions[item.id] for item in problems if item.id in given.solutions}
    return Inputs(problems=tuple(problems), unread=tuple(unread), solutions=solutions)


def run(settings: Settings, watcher: Watcher) -> Result:
    """Makes the dataset that `settings` describe.

    Raises:
      UserError: bad input, before any work; one line that names the setting and the remedy.
      JournalError: the journal cannot be used.
    """
    inputs = read_inputs(settings)
    plan = make_plan(settings, inputs)
    output = Output(settings.out)
    journal = output.journal(settings.journal)
    with output.claimed(plan.config_digest, replace=settings.replace):
        unfinished = output.unfinished(plan.num_shards)
        failed = failed_elements(output.path, unfinished, plan.num_shards)
        if settings.retry == "failed":
            unfinished = _only_failed(output, plan, failed)
        if unfinished:  # What is finished needs no cluster.
            check_runner(settings.runner)
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
            f"retry=failed: {output.folder} holds no shard with failed elements, because none is written yet; give the "
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
    """Fills the unfinished shards, in this process or by jobs on a cluster; what is finished stays finished."""
    runner = plan.settings.runner
    engines = {"": plan.settings.engine, **plan.settings.engines}
    site = site_of(plan, output)
    open_site(site, inputs, unfinished, plan.num_shards)
    with contextlib.ExitStack() as stack:
        endpoints = (
            stack.enter_context(serve_all(engines, output.path / "logs", watcher))
            if runner.shares_disk
            else endpoints_on_hosts(engines)
        )
        spec = worker_spec(plan, endpoints, journal)
        stack.enter_context(watcher.working())
        if isinstance(runner, Cluster):
            return _work_elsewhere(plan, spec, site, output, unfinished, watcher)
        return _work_here(plan, spec, output, unfinished)


def _work_here(plan: Plan, spec: WorkerSpec, output: Output, unfinished: Sequence[int]) -> Accounts:
    """Runs the graph once for each shard: memory holds one."""
    with holding(spec) as worker:
        try:
            for index in _in_order(plan, output, unfinished):
                fill_shard(plan, spec, output, index)
        except BudgetReached:
            worker.settle()
        return worker.accounts


def _work_elsewhere(
    plan: Plan, spec: WorkerSpec, site: Site, output: Output, unfinished: Sequence[int], watcher: Watcher
) -> Accounts:
    """Submits a job for so many shards at a time."""
    runner = plan.settings.runner
    assert isinstance(runner, Cluster)
    accounts = Accounts(plan.settings.budget)
    journal = Journal(spec.journal, patience_secs=spec.journal_patience_secs, run=spec.run)
    with contextlib.closing(journal):
        shared = Shared(site=site, ledger=journal.paid())
        spec = msgspec.structs.replace(spec, shared=shared)
        name = job_name(plan, site.out)
        with submitting(plan, spec, site.out, name, output.path / "logs") as submit:
            if isinstance(runner, Dataflow) and runner.only_stages:
                watcher.staged(stage_template(submit, runner, name, unfinished))
                return accounts
            jobs = Jobs(submit, shared, runner, name, accounts, journal)
            for shards in _batches(_in_order(plan, output, unfinished), runner.shards_per_job or len(unfinished)):
                try:
                    jobs.fill(shards)
                except BudgetReached:
                    break
                for index in shards:
                    _finish(plan, output, index)
    return accounts


def _batches(shards: Iterator[int], size: int) -> Iterator[tuple[int, ...]]:
    while batch := tuple(itertools.islice(shards, size)):
        yield batch


def site_of(plan: Plan, output: Output) -> Site:
    """Where the workers of this start of a run meet."""
    return Site(
        out=str(output.folder),
        config_digest=plan.config_digest,
        version=plan.context.version,
        code=code_digest(),
        start=uuid.uuid4().hex,
        host="" if is_server(plan.settings.journal) else this_host(),
    )


def worker_spec(plan: Plan, endpoints: tuple[tuple[str, Endpoint], ...], journal: Place) -> WorkerSpec:
    """The worker of a run."""
    runner = plan.settings.runner
    return WorkerSpec(
        endpoints=endpoints,
        journal=str(journal),
        checker_processes=runner.checker_processes,
        checker_cpu_secs=runner.checker_cpu_secs,
        max_in_flight=runner.max_in_flight,
        checker=plan.settings.checker,
        budget=plan.settings.budget,
        run=plan.config_digest,
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


def fill_shard(plan: Plan, spec: WorkerSpec, output: Output, index: int) -> None:
    """Runs the graph over one shard's problems in this process.

    Raises:
      BudgetReached: a limit was reached before the shard was done; nothing of it is written.
    """
    run_directly(plan, spec, str(output.folder), index)
    _finish(plan, output, index)


def _finish(plan: Plan, output: Output, index: int) -> None:
    """Marks a shard as finished unless it holds a failed element."""
    if not output.has_failures(index, plan.num_shards):
        output.finish(index, plan.num_shards)


def _close_books(plan: Plan, inputs: Inputs, output: Output, journal: Place, accounts: Accounts) -> Result:
    """Counts what is written, over the problems of the shards that are."""
    output.refresh()
    agents = plan.settings.panel.agents
    written = written_shards(output.path, plan.num_shards)
    missing = tuple(sorted(set(range(plan.num_shards)) - set(written)))
    covered = inputs_of(inputs, written, plan.num_shards)
    books = keep_books(
        output.path,
        num_read=len(covered.problems) + len(covered.unread),
        num_problems=len(covered.problems),
        num_agents=len(agents),
        num_contrastive=sum(map(compares, agents)),
        extra=ExtraStages(loop=plan.settings.loop, sifts=plan.again is not None, scopes=bool(plan.scoping)),
    )
    result = Result(
        out=str(output.folder),
        books=books,
        failure_share=books.failure_share,
        max_failure_share=plan.settings.max_failure_share,
        num_shards=plan.num_shards,
        unfinished=output.unfinished(plan.num_shards) if accounts.reached else missing,
        num_problems_left=len(inputs.problems) - len(covered.problems),
        spent=accounts.spent(),
        budget_reached=accounts.reached,
        target_rows=plan.settings.target_rows,
        is_staged=plan.settings.runner.only_stages and bool(missing),
    )
    if written:
        write_manifest(output, plan, books, _ledger(plan, journal))
        write_card(output, plan, books)
        write_dataset_info(output, books)
        write_report(output, plan, books)
    if not accounts.reached and (not missing or result.has_target):
        close_site(result.out)
        output.complete()
    return result


def _ledger(plan: Plan, journal: Place) -> dict[str, Usage]:
    opened = Journal(journal, patience_secs=plan.settings.journal_patience_secs, run=plan.config_digest)
    try:
        return opened.own_ledger()
    finally:
        opened.close()

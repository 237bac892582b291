"""One run from settings to shards: read, plan, claim the folder, work shard by shard, write the books.

A run that is stopped at any point goes on where it was when the same command is given again: finished shards stay,
and what an unfinished one has asked is in the journal.
"""

import contextlib
import functools
import itertools
import uuid
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from annotators.critic import compares
from mcts.given import GivenSettings
from mcts.injected import InjectSettings
from pipelines.budget import Accounts, BudgetReached
from pipelines.card import write_card
from pipelines.engines import Endpoint, ServerWatcher, Usage, endpoints_on_hosts, serve_all
from pipelines.engines.vetting import check_servers
from pipelines.errors import UserError
from pipelines.extent import accepted_rows, failed_elements, inputs_of, written_shards
from pipelines.finishing import Finisher
from pipelines.journal import Journal, Place, is_server
from pipelines.llama_factory import write_dataset_info
from pipelines.manifest import Books, ExtraStages, keep_books, note_refusals, write_manifest
from pipelines.meter import METER, Refusals
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
    """Problems in `unfinished` shards."""
    spent: str
    """What this start of the command paid, for people."""
    budget_reached: str
    """The setting that stopped it; empty where none did."""
    target_rows: int | None
    is_staged: bool = False
    """Whether the work was not done but lies ready to be done, as a job that somebody starts."""
    refused: Refusals = Refusals()
    """In all starts of the command, as is `num_requests`."""
    num_requests: int = 0
    refused_stages: tuple[str, ...] = ()
    """Stages whose every request of this start was refused; the shards that it filled are not finished then."""

    @property
    def is_success(self) -> bool:
        """Whether few enough elements failed, and no stage was refused everything."""
        return self.failure_share <= self.max_failure_share

    @property
    def has_target(self) -> bool:
        """Whether it has the rows that were asked for: it is whole then, whatever shards are missing."""
        return self.target_rows is not None and self.books.num_accepted >= self.target_rows


class Watcher(ServerWatcher):
    """Is told how a run goes on; does nothing by itself. The terminal's display is one, tests have theirs."""

    def planned(self, plan: Plan, inputs: Inputs, journaled: int, unfinished: Sequence[int], num_finished: int) -> None:
        """Before any work: which shards will be filled, how many are finished, what samples the journal holds."""

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
        num_finished = plan.num_shards - len(unfinished)
        failed = failed_elements(output.path, unfinished, plan.num_shards)
        if settings.retry == "failed":
            unfinished = _only_failed(output, plan, failed)
        if unfinished:  # What is finished needs no cluster.
            check_runner(settings.runner)
        journaled = _journaled(journal, settings.journal_patience_secs)
        watcher.planned(plan, inputs, journaled, unfinished, num_finished)
        if failed:
            watcher.retrying(failed)
        METER.take_refusals()  # What another run in this process was refused is not this one's.
        accounts = Accounts(settings.budget)
        finisher = Finisher(output, plan.num_shards, functools.partial(_ledger, plan, journal))
        if unfinished:
            output.begin()
            accounts = _work(plan, inputs, finisher, journal, unfinished, watcher)
        return _close_books(plan, inputs, finisher, journal, accounts)


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
    plan: Plan, inputs: Inputs, finisher: Finisher, journal: Place, unfinished: Sequence[int], watcher: Watcher
) -> Accounts:
    """Fills the unfinished shards, in this process or by jobs on a cluster; what is finished stays finished."""
    runner, output = plan.settings.runner, finisher.output
    engines = {"": plan.settings.engine, **plan.settings.engines}
    site = site_of(plan, output)
    open_site(site, inputs, unfinished, plan.num_shards)
    with contextlib.ExitStack() as stack:
        endpoints = (
            stack.enter_context(serve_all(engines, output.path / "logs", watcher))
            if runner.shares_disk
            else endpoints_on_hosts(engines)
        )
        if not runner.only_stages:
            vet(plan, endpoints, journal)
        spec = worker_spec(plan, endpoints, journal)
        stack.enter_context(watcher.working())
        if isinstance(runner, Cluster):
            return _work_elsewhere(plan, spec, site, finisher, unfinished, watcher)
        return _work_here(plan, spec, finisher, unfinished)


def vet(plan: Plan, endpoints: tuple[tuple[str, Endpoint], ...], journal: Place) -> None:
    """Looks at servers that the settings name by URL, before anything else is asked of them.

    Raises:
      UserError: one has not the model, or does not go on with a begun answer where it would have to.
    """
    settings, paths = plan.settings, plan.settings.paths
    continuing = {""} | {agent.engine for agent in settings.panel.agents if agent.correct}
    if isinstance(paths, InjectSettings) and "edit" in paths.how:
        continuing.add(paths.engine)
    opened = Journal(journal, patience_secs=settings.journal_patience_secs, run=plan.config_digest)
    with contextlib.closing(opened):
        check_servers({"": settings.engine, **settings.engines}, endpoints, continuing, opened)


def _work_here(plan: Plan, spec: WorkerSpec, finisher: Finisher, unfinished: Sequence[int]) -> Accounts:
    """Runs the graph once for each shard: memory holds one."""
    with holding(spec) as worker:
        try:
            for index in _in_order(plan, finisher.output, unfinished):
                fill_shard(plan, spec, finisher.output, index)
                finisher.finish(index)
        except BudgetReached:
            worker.settle()
        return worker.accounts


def _work_elsewhere(
    plan: Plan, spec: WorkerSpec, site: Site, finisher: Finisher, unfinished: Sequence[int], watcher: Watcher
) -> Accounts:
    """Submits a job for so many shards at a time."""
    runner, output = plan.settings.runner, finisher.output
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
                    finisher.finish(index)
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


def books_of(plan: Plan, covered: Inputs, output: Output) -> Books:
    """The books over what is written, which came of the inputs that are covered."""
    agents = plan.settings.panel.agents
    return keep_books(
        output.path,
        num_read=len(covered.problems) + len(covered.unread),
        num_problems=len(covered.problems),
        num_agents=len(agents),
        num_contrastive=sum(map(compares, agents)),
        extra=ExtraStages(loop=plan.settings.loop, sifts=plan.again is not None, scopes=bool(plan.scoping)),
    )


def _close_books(plan: Plan, inputs: Inputs, finisher: Finisher, journal: Place, accounts: Accounts) -> Result:
    """Counts what is written, over the problems of the shards that are."""
    output = finisher.output
    output.refresh()
    refused_stages = finisher.close()
    written = written_shards(output.path, plan.num_shards)
    missing = tuple(sorted(set(range(plan.num_shards)) - set(written)))
    unfinished = output.unfinished(plan.num_shards) if accounts.reached else missing
    covered = inputs_of(inputs, written, plan.num_shards)
    books = books_of(plan, covered, output)
    ledger = _ledger(plan, journal)
    result = Result(
        out=str(output.folder),
        books=books,
        failure_share=1.0 if refused_stages else books.failure_share,
        max_failure_share=plan.settings.max_failure_share,
        num_shards=plan.num_shards,
        unfinished=unfinished,
        num_problems_left=len(inputs_of(inputs, unfinished, plan.num_shards).problems),
        spent=accounts.spent(),
        budget_reached=accounts.reached,
        target_rows=plan.settings.target_rows,
        is_staged=plan.settings.runner.only_stages and bool(missing),
        refused=note_refusals(output.path / "logs"),
        num_requests=sum(usage.requests for usage in ledger.values()),
        refused_stages=refused_stages,
    )
    if written:
        write_manifest(output, plan, books, ledger)
        write_card(output, plan, books)
        write_dataset_info(output, books)
        write_report(output, plan, books)
    if not accounts.reached and (not missing or result.has_target):
        close_site(result.out)
        if result.is_success:
            output.complete()
    return result


def _ledger(plan: Plan, journal: Place) -> dict[str, Usage]:
    opened = Journal(journal, patience_secs=plan.settings.journal_patience_secs, run=plan.config_digest)
    try:
        return opened.own_ledger()
    finally:
        opened.close()

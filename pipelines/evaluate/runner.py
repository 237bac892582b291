"""One evaluation from settings to figures: read, choose, claim the folder, ask, count, write.

One that is stopped goes on where it was when the same command is given again: what it has asked is in the journal. No
figure is written before every solution was asked about: those that happened to be done first are no sample.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from annotators.exports import ExportSettings
from annotators.leaks import find_leak
from annotators.verification import VerifySettings
from mcts.pairing import PairSettings
from mcts.settings import SearchSettings
from pipelines.budget import BudgetReached
from pipelines.engines import Endpoint, EngineError, EngineSettings, ServerWatcher, serve_all
from pipelines.errors import UserError
from pipelines.evaluate.answers import lend_answers
from pipelines.evaluate.critics import UNMEASURED, Asking, Critic, Refining, Unread, baseline_critique, choose, panel_of
from pipelines.evaluate.inputs import Labelled, Source, read_sources
from pipelines.evaluate.results import LEVEL, EvaluatedSolution, Evaluation, Seconds, average_of, result_of, row_of
from pipelines.output import COMPLETED, Output, OutputError
from pipelines.plan import Inputs, Plan, make_plan, package_version
from pipelines.problems import GymProblems, read_problems
from pipelines.problems.hygiene import HygieneSettings
from pipelines.run import worker_spec
from pipelines.settings import Settings
from pipelines.shards import Split
from pipelines.stage import failure
from pipelines.storage import Folder, names_in
from pipelines.worker import Worker, WorkerSpec, holding
from schemas import Critique, Failure, Provenance, Record, digest
from schemas.arrow import CONFIGS

ROWS, FIGURES = "evaluation.jsonl", "evaluation.json"

_ANY_NUMBER = 10**9
"""Of problems in a shard: an evaluation has none."""


class Options(Record):
    """What the settings of a run do not say."""

    critic: str = ""
    """Name of an agent of the panel, or of a critic that reads nothing; empty takes the first blind agent."""
    split: Split = "validation"
    """Of the folders of runs."""
    limit: int | None = None
    """Solutions of each input at most."""
    samples: int = 1
    """Second solutions with each critique."""
    refine: bool = True
    """Whether the actor writes second solutions where the gold answer is known."""
    lend: bool = False
    """Whether the settings' problems lend gold answers to solutions of the same question whose file has none."""

    def __post_init__(self) -> None:
        for name in ("limit", "samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name} must be at least 1, got {value}")


class Task(Record):
    """An evaluation before it starts."""

    plan: Plan
    critic: Critic
    sources: tuple[Source, ...]
    options: Options
    config_digest: str

    @property
    def num_solutions(self) -> int:
        """Of all inputs."""
        return sum(len(source.solutions) for source in self.sources)

    @property
    def refined(self) -> bool:
        """Whether any second solution is to be written."""
        return any(self.is_refined(item) for source in self.sources for item in source.solutions)

    def is_refined(self, item: Labelled) -> bool:
        """Whether second solutions are to be written, and can be compared with the first."""
        return self.options.refine and item.has_gold and item.first_outcome != "unscored"

    def engines(self) -> dict[str, EngineSettings]:
        """The models that are asked, by name."""
        settings = self.plan.settings
        known = {"": settings.engine, **settings.engines}
        names = {agent.engine for agent in self.critic.agents} | ({""} if self.refined else set())
        return {name: engine for name, engine in known.items() if name in names}


class Watcher(ServerWatcher):
    """Is told how an evaluation goes on; does nothing by itself."""

    def planned(self, task: Task) -> None:
        """Before any work."""

    @contextlib.contextmanager
    def working(self, num_solutions: int) -> Iterator[Callable[[], None]]:
        """Around the work; what it gives is called once for each solution that is done."""
        del num_solutions
        yield lambda: None


class Result(NamedTuple):
    """What an evaluation came to."""

    evaluation: Evaluation | None
    """None where a budget was reached before."""
    out: Path
    spent: str
    """What this start of the command paid, for people."""
    budget_reached: str
    """The setting that stopped it; empty where none did."""
    max_failure_share: float

    @property
    def exit_code(self) -> int:
        """Of the command: as of a run."""
        if self.evaluation is None:
            return 4
        return 0 if self.evaluation.failure_share <= self.max_failure_share else 3


def prepare(settings: Settings, words: Sequence[str], options: Options) -> Task:
    """Reads the inputs and settles whom to ask about them.

    Raises:
      UserError: bad input; one line that says what to do.
    """
    if settings.dry_run:
        raise UserError("dry_run=true: an evaluation has no dry run; take a few solutions with --limit N")
    sources = read_sources(words, split=options.split, limit=options.limit, seed=settings.seed)
    if options.lend:
        sources = lend_answers(sources, read_problems(settings.problems))
    critic = choose(options.critic, settings.panel.agents)
    solutions = [item for source in sources for item in source.solutions]
    reasons = {critic.unasked(item.path) for item in solutions}
    if "" not in reasons:
        assert critic.agent is not None
        raise UserError(
            f"critic {critic.name!r} (view {critic.agent.view}) cannot be asked about any of the {len(solutions)} "
            f"solutions: {', '.join(sorted(reasons))}; take a blind critic, or a file that has what it is to be shown"
        )
    settings = _without_the_rest(settings, critic)
    is_asking = bool(critic.agents) or (options.refine and any(item.has_gold for item in solutions))
    problems = {item.path.problem.id: item.path.problem for item in solutions if is_asking}
    plan = make_plan(settings, Inputs(problems=tuple(problems.values()), unread=()))
    inputs = [
        (source.name, source.format, source.digest, [item.path.problem.answer for item in source.solutions])
        for source in sources
    ]
    return Task(
        plan=plan,
        critic=critic,
        sources=sources,
        options=options,
        config_digest=digest("evaluation", plan.config_digest, critic, inputs, options),
    )


def _without_the_rest(settings: Settings, critic: Critic) -> Settings:
    """The settings with everything at its default that an evaluation does not use: it is no part of its digest."""
    return msgspec.structs.replace(
        settings,
        panel=panel_of(critic, settings.panel),
        problems=GymProblems(dataset=""),
        search=SearchSettings(),
        pairing=PairSettings(),
        verify=VerifySettings(),
        export=ExportSettings(),
        hygiene=HygieneSettings(),
        runner=msgspec.structs.replace(settings.runner, problems_per_shard=_ANY_NUMBER),
    )


def evaluate(settings: Settings, words: Sequence[str], options: Options, watcher: Watcher) -> Result:
    """Evaluates a critic on labelled solutions, and writes the rows and the figures to `settings.out`.

    Args:
      settings: of a run, of which engines, panel, actor, seed, journal, budget and out are used.
      words: files and folders of runs.
      options: whom to ask, about how much.
      watcher: is told how it goes on.

    Raises:
      UserError: bad input, before any work.
      JournalError: the journal cannot be used.
    """
    task = prepare(settings, words, options)
    output = Output(settings.out)
    _refuse_runs(output.folder)
    with output.claimed(task.config_digest, replace=settings.replace):
        watcher.planned(task)
        if (finished := _finished(output, task)) is not None:
            return Result(finished, output.path, "nothing", "", settings.max_failure_share)
        output.begin()
        rows, models, spent, reached = _work(task, output, settings, watcher)
        if reached:
            return Result(None, output.path, spent, reached, settings.max_failure_share)
        evaluation = _count(task, rows, models)
        output.write(ROWS, "".join(f"{msgspec.json.encode(row).decode()}\n" for part in rows for row in part))
        output.write(FIGURES, msgspec.json.format(msgspec.json.encode(evaluation)).decode() + "\n")
        if not evaluation.failure_share:
            output.complete()
        return Result(evaluation, output.path, spent, "", settings.max_failure_share)


def _refuse_runs(out: Folder) -> None:
    """Raises OutputError where a dataset lies: with `replace` it would be taken away."""
    if any(name.endswith(".parquet") for config in CONFIGS for name in names_in(out / config)):
        raise OutputError(f"out: {out} holds a dataset; choose another folder for the evaluation with out=DIR")


def _finished(output: Output, task: Task) -> Evaluation | None:
    """What the folder says already where it is whole and of this very evaluation: no server is started for it."""
    try:
        if not all((output.path / name).is_file() for name in (COMPLETED, ROWS)):
            return None
        found = msgspec.json.decode((output.path / FIGURES).read_bytes(), type=Evaluation)
    except (OSError, msgspec.DecodeError):
        return None
    return found if found.config_digest == task.config_digest else None


Rows = list[list[EvaluatedSolution]]
"""Of each input."""


def _work(
    task: Task, output: Output, settings: Settings, watcher: Watcher
) -> tuple[Rows, tuple[Provenance | None, Provenance | None], str, str]:
    """The rows, the two models, what was paid, and the limit that was reached."""
    engines = task.engines()
    with contextlib.ExitStack() as stack:
        endpoints: tuple[tuple[str, Endpoint], ...] = ()
        if engines:
            endpoints = stack.enter_context(serve_all(engines, output.path / "logs", watcher))
        spec = worker_spec(task.plan, endpoints, output.journal(settings.journal))
        worker = stack.enter_context(holding(spec))
        done = stack.enter_context(watcher.working(task.num_solutions))
        judge = Judge(task, spec)
        rows: Rows = []
        try:
            rows = worker.submit(judge.all(worker, done)).result()
        except BudgetReached:
            worker.settle()
        return rows, judge.models(worker), worker.accounts.spent(), worker.accounts.reached


class Judge:
    """Asks about solutions: one critique each, then second solutions written with it."""

    def __init__(self, task: Task, spec: WorkerSpec) -> None:
        settings, plan = task.plan.settings, task.plan
        self._task = task
        self._in_flight = settings.runner.max_in_flight
        self._asking = Asking(
            spec=spec, panel=settings.panel, templates=plan.critics, stop=plan.stop, seed=settings.seed
        )
        self._refining = Refining(
            spec=spec, actor=settings.actor, settings=UNMEASURED, template=plan.refine, seed=settings.seed
        )

    async def all(self, worker: Worker, done: Callable[[], None]) -> Rows:
        """The rows of all inputs, in their order; so many solutions in hand at once as a stage of a run has.

        Raises:
          BudgetReached: a limit was reached before.
        """
        rows: dict[tuple[int, int], EvaluatedSolution] = {}
        todo = iter(
            [
                (i, j, source.name, item)
                for i, source in enumerate(self._task.sources)
                for j, item in enumerate(source.solutions)
            ]
        )

        async def take() -> None:
            for i, j, file, item in todo:
                rows[i, j] = await self.one(worker, file, item)
                done()

        takers = [asyncio.create_task(take()) for _ in range(self._in_flight)]
        try:
            await asyncio.gather(*takers)
        finally:
            for taker in takers:
                taker.cancel()
        return [[rows[i, j] for j in range(len(source.solutions))] for i, source in enumerate(self._task.sources)]

    async def one(self, worker: Worker, file: str, item: Labelled) -> EvaluatedSolution:
        """The row of one solution."""
        critic, path = self._task.critic, item.path
        found: Critique | Unread | Failure
        if reason := critic.unasked(path):
            found = Unread(reason=reason, detail=f"{critic.name} cannot be asked about it")
        elif critic.agents:
            found = await self._asking.ask(worker, path)
        else:
            found = baseline_critique(critic.name, path)
        is_refined, number = self._task.is_refined(item), self._task.options.samples
        seconds = Seconds.unwritten(number if is_refined and isinstance(found, Unread) else 0)
        leak = ""
        if isinstance(found, Critique):
            leak = find_leak(found, path) if item.has_gold else ""
            try:
                written = await self._refining.refine(worker, path, found.text, number) if is_refined else ()
                seconds = Seconds.of(written)
            except EngineError as error:
                found = failure("VerifyCritiques", found.id, path.problem.id, error)
        return row_of(item, file, critic.name, found, seconds, leak=leak)

    def models(self, worker: Worker) -> tuple[Provenance | None, Provenance | None]:
        """Who criticised and who refined."""
        plan, agent = self._task.plan, self._task.critic.agent
        critic = actor = None
        if agent is not None:
            sampling = self._asking.sampling(agent)
            template = plan.critics[agent.name]
            critic = worker.provenance(template, sampling, plan.settings.seed, engine=agent.engine)
        if self._task.refined:
            sampling = plan.settings.actor.sampling(refining=True)
            actor = worker.provenance(plan.refine, sampling, plan.settings.seed)
        return critic, actor


def _count(task: Task, rows: Rows, models: tuple[Provenance | None, Provenance | None]) -> Evaluation:
    seed, options = task.plan.settings.seed, task.options
    counted = [
        result_of(source, part, (seed, i)) for i, (source, part) in enumerate(zip(task.sources, rows, strict=True))
    ]
    agent = task.critic.agent
    return Evaluation(
        version=package_version(),
        config_digest=task.config_digest,
        mode="single",
        critic=task.critic.name,
        view=agent.view if agent else "nothing",
        critic_model=models[0],
        actor_model=models[1],
        seed=seed,
        split=options.split,
        limit=options.limit,
        samples=options.samples,
        level=LEVEL,
        files=tuple(result for result, _ in counted),
        average=average_of([summary for _, summary in counted]),
    )

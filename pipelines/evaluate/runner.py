"""One evaluation from settings to figures: read, choose, claim the folder, ask, count, write.

One that is stopped goes on where it was when the same command is given again: what it has asked is in the journal. No
figure is written before every solution was asked about: those that happened to be done first are no sample.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from pipelines.budget import BudgetReached
from pipelines.engines import Endpoint, ServerWatcher, serve_all
from pipelines.engines.journaled import Outage
from pipelines.engines.vetting import check_servers
from pipelines.evaluate.inputs import holds_dialogues_alone, run_folders
from pipelines.evaluate.judge import Judge, Rows
from pipelines.evaluate.results import IN_ROUNDS, LEVEL, Evaluation, average_of, result_of
from pipelines.evaluate.task import Options, Task, prepare
from pipelines.output import COMPLETED, Output, OutputError
from pipelines.plan import package_version
from pipelines.run import worker_spec
from pipelines.settings import Settings
from pipelines.storage import Folder, names_in
from pipelines.worker import holding
from schemas import Provenance
from schemas.arrow import CONFIGS

ROWS, FIGURES = "evaluation.jsonl", "evaluation.json"


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
    """None where a budget was reached before, and where there was nobody to ask about anything."""
    out: Path
    spent: str
    """What this start of the command paid, for people."""
    budget_reached: str
    """The setting that stopped it; empty where none did."""
    max_failure_share: float
    runs: tuple[Path, ...] = ()
    """Folders of runs among the inputs, whose own figures stand beside the critic's."""

    @property
    def exit_code(self) -> int:
        """Of the command: as of a run."""
        if self.evaluation is None:
            return 4 if self.budget_reached else 0
        return 0 if self.evaluation.failure_share <= self.max_failure_share else 3


def evaluate(settings: Settings, words: Sequence[str], options: Options, watcher: Watcher) -> Result:
    """Evaluates a critic on labelled solutions, and writes the rows and the figures to `settings.out`.

    Runs that only held dialogues have no solution to criticise: of them nothing is asked and nothing written.

    Args:
      settings: of a run, of which engines, panel, actor, seed, journal, budget and out are used.
      words: files and folders of runs.
      options: whom to ask, about how much.
      watcher: is told how it goes on.

    Raises:
      UserError: bad input, before any work.
      JournalError: the journal cannot be used.
    """
    runs = run_folders(words)
    if len(runs) == len(words) and all(map(holds_dialogues_alone, runs)):
        return Result(None, Path(settings.out), "nothing", "", settings.max_failure_share, runs)
    task = prepare(settings, words, options)
    output = Output(settings.out)
    _refuse_runs(output.folder)
    with output.claimed(task.config_digest, replace=settings.replace):
        watcher.planned(task)
        if (finished := _finished(output, task)) is not None:
            return Result(finished, output.path, "nothing", "", settings.max_failure_share, runs)
        output.begin()
        rows, models, spent, reached = _work(task, output, settings, watcher)
        if reached:
            return Result(None, output.path, spent, reached, settings.max_failure_share, runs)
        evaluation = _count(task, rows, models)
        output.write(ROWS, "".join(f"{msgspec.json.encode(row).decode()}\n" for part in rows for row in part))
        output.write(FIGURES, msgspec.json.format(msgspec.json.encode(evaluation)).decode() + "\n")
        if not evaluation.failure_share:
            output.complete()
        return Result(evaluation, output.path, spent, "", settings.max_failure_share, runs)


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
        check_servers(engines, endpoints, (), worker.journal)
        done = stack.enter_context(watcher.working(task.num_solutions))
        judge = Judge(task, spec)
        rows: Rows = []
        try:
            rows = worker.submit(judge.all(worker, done)).result()
        except BudgetReached:
            worker.settle()
        except Outage:
            worker.settle()
            raise
        return rows, judge.models(worker), worker.accounts.spent(), worker.accounts.reached


def _count(task: Task, rows: Rows, models: tuple[Provenance | None, Provenance | None]) -> Evaluation:
    seed, options = task.plan.settings.seed, task.options
    counted = [
        result_of(source, part, (seed, i), by_round=options.mode in IN_ROUNDS)
        for i, (source, part) in enumerate(zip(task.sources, rows, strict=True))
    ]
    return Evaluation(
        version=package_version(),
        config_digest=task.config_digest,
        mode=options.mode,
        critic=task.critic.name,
        view=task.critic.view,
        critic_model=models[0],
        actor_model=models[1],
        seed=seed,
        split=options.split,
        limit=options.limit,
        samples=options.samples,
        rounds=options.num_rounds,
        level=LEVEL,
        files=tuple(result for result, _ in counted),
        average=average_of([summary for _, summary in counted]),
    )

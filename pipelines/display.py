"""What a person sees while a run goes on and when it is done."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from annotators.rounds import Rounds
from pipelines.beside import beside
from pipelines.dry_run import LEVEL, Forecast
from pipelines.engines.journaled import CHANGED, ONLY_THOUGHT
from pipelines.manifest import Books
from pipelines.meter import METER, Reading
from pipelines.plan import Inputs, Plan
from pipelines.run import Result, Watcher
from pipelines.runners.dataflow import Staged
from pipelines.server_display import ServerDisplay
from pipelines.settings import Settings
from schemas import visible
from schemas.arrow import CONFIGS

_REFRESH_SECS = 0.5
_LINE_SECS = 10.0
_SHARDS_LISTED = 10


def say(console: Console, message: str) -> None:
    """Prints lines that may hold what anybody wrote: neither markup nor an escape sequence in them is obeyed."""
    console.print(Text(visible(message)), soft_wrap=True)


class Display(ServerDisplay, Watcher):
    """Shows problems, calls, tokens a second, kept critiques, time left: live in a terminal, else a line at times."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._num_problems = 0

    def planned(self, plan: Plan, inputs: Inputs, journaled: int, unfinished: Sequence[int], num_finished: int) -> None:
        """Says what will be done."""
        self._num_problems = sum(shard in set(unfinished) for shard in plan.shards_of(inputs))
        settings = plan.settings
        asked = ", ".join(agent.name for agent in settings.panel.agents) if _wants_paths(settings) else "none"
        say(
            self._console,
            f"wrongturn {plan.context.version}, config {plan.config_digest[:12]}: {len(inputs.problems)} problems, "
            f"engine {settings.engine.label}, critics {asked}",
        )
        if _keeps_trees_alone(settings):
            say(
                self._console,
                "No row but those of trees will be written: no path is wanted (pairing), nothing is gone on from "
                "(loop), no feedback is given (scope.feedback), and export asks for no row of a tree",
            )
        if inputs.unread:
            say(self._console, f"{len(inputs.unread)} rows of the source are no problems; see rejections/")
        say(
            self._console,
            f"{num_finished} of {plan.num_shards} shards are finished already; the journal holds {journaled} samples",
        )
        if settings.target_rows is not None and unfinished and plan.num_shards == 1 < len(inputs.problems):
            say(
                self._console,
                f"target_rows={settings.target_rows} is looked at between shards, and all {len(inputs.problems)} "
                "problems are in one: all are worked on. A smaller runner.problems_per_shard (now "
                f"{settings.runner.problems_per_shard}) lets it end sooner",
            )

    def staged(self, job: Staged) -> None:
        """Says where a job lies that nobody has started."""
        say(self._console, f"staged {job.template}; start it with: {job.command}")
        say(self._console, "When it is done, the same command without runner.template makes the card and the report.")

    def sampling(self, plan: Plan, num_sampled: int) -> None:
        """Says what a dry run is about to do."""
        say(
            self._console,
            f"wrongturn {plan.context.version}, config {plan.config_digest[:12]}: dry run over {num_sampled} problems, "
            f"engine {plan.settings.engine.label}",
        )

    def retrying(self, failed: Mapping[int, Mapping[str, int]]) -> None:
        """Says what failed before and is tried again."""
        stages: Counter[str] = Counter()
        for counts in failed.values():
            stages.update(counts)
        if not stages:
            say(self._console, f"{len(failed)} shards are filled again: they were refused, or not written to the end")
            return
        listed = ", ".join(f"{stage} {count}" for stage, count in sorted(stages.items()))
        say(
            self._console,
            f"{stages.total()} elements of {len(failed)} shards failed before and are tried again ({listed}); what did "
            "not fail beside them comes from the journal",
        )

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Shows the meter until the work is done."""
        start, began = METER.read(), time.monotonic()
        with beside(lambda stop: self._watch(stop, start, began)):
            yield

    def _watch(self, stop: threading.Event, start: Reading, began: float) -> None:
        if not self._console.is_terminal:
            while not stop.wait(_LINE_SECS):
                say(self._console, self._line(start, time.monotonic() - began))
            return
        progress = Progress(BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"), console=self._console)
        with progress:
            task = progress.add_task("", total=1.0)
            while not stop.wait(_REFRESH_SECS):
                seconds = time.monotonic() - began
                progress.update(task, completed=self._share_done(start), description=escape(self._line(start, seconds)))

    def _since(self, start: Reading) -> dict[str, int]:
        """Elements finished; those that a cluster has lost and done again count as often as they were done."""
        return {name: count - start.elements.get(name, 0) for name, count in METER.read().elements.items()}

    def _share_done(self, start: Reading) -> float:
        """Share of the work that is done: trees are most of it, then second solutions, then critiques."""
        done = self._since(start)
        trees = done.get("ExpandTrees/kept", 0) + done.get("ExpandTrees/failed", 0)
        share = 0.6 * trees / max(self._num_problems, 1)
        criticised = done.get("WriteCritiques/kept", 0)
        paths = max(criticised, 1) * self._num_problems / max(trees, 1)
        verified = done.get("VerifyCritiques/kept", 0)
        return min(share + 0.15 * criticised / paths + 0.25 * verified / paths, 1.0)

    def _line(self, start: Reading, seconds: float) -> str:
        now, done, share = METER.read(), self._since(start), self._share_done(start)
        paid, before = now.paid, start.paid
        tokens = paid.completion_tokens - before.completion_tokens
        left = f"{seconds * (1 - share) / share:.0f} s left" if share > 0.02 else "time left unknown"
        kept = done.get("VerifyCritiques/critiques kept", 0)
        return (
            f"{min(done.get('ExpandTrees/kept', 0), self._num_problems)}/{self._num_problems} problems, "
            f"{done.get('WriteCritiques/kept', 0)} paths criticised, {done.get('VerifyCritiques/kept', 0)} verified, "
            f"{paid.requests - before.requests} calls, {now.replayed - start.replayed} samples from the journal, "
            f"{tokens / max(seconds, 1e-9):.0f} tokens/s, {kept} critiques kept, {left}"
        )


def _wants_paths(settings: Settings) -> bool:
    """Whether trees give paths to criticise."""
    return settings.pairing.max_pairs > 0 or settings.pairing.max_alone > 0


def _keeps_trees_alone(settings: Settings) -> bool:
    export = settings.export
    of_trees = export.judge or export.rl in ("rollouts", "problem_pairs") or export.plain_share
    others = isinstance(settings.loop, Rounds) or settings.scope.feedback
    return not (_wants_paths(settings) or of_trees or others)


def funnel(books: Books) -> Table:
    """The stages with where their elements ended."""
    table = Table(title="Funnel", title_justify="left", show_lines=False)
    for name in ("stage", "what"):
        table.add_column(name, no_wrap=True)
    for name in ("entered", "kept", "rejected", "failed"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for stage in books.stages:
        why = ", ".join(f"{reason} {count}" for reason, count in stage.reasons.items())
        lost = "" if stage.balanced else " [red](does not add up)[/red]"
        table.add_row(
            stage.stage,
            stage.element,
            *(str(count) for count in (stage.entered, stage.kept, stage.rejected, stage.failed)),
            escape(visible(why)) + lost,
        )
    return table


def print_summary(console: Console, result: Result) -> None:
    """The funnel, the tables and where they are; what to do where elements failed."""
    if result.is_staged:
        return
    books = result.books
    console.print(funnel(books))
    if books.pair_reasons:
        reasons = ", ".join(f"{reason} {count}" for reason, count in books.pair_reasons.items())
        say(console, f"Rejected in critique_dpo for: {reasons}")
    if books.stages[0].entered:
        say(console, "Rows: " + ", ".join(f"{config} {books.rows[config]}" for config in CONFIGS))
        say(console, f"Shards, card and report: {result.out}")
        say(console, f"Look at it: wrongturn show {result.out}")
    _print_samples(console, result)
    failed = sum(stage.failed for stage in books.stages)
    if result.budget_reached:
        _print_stop(console, result)
    elif result.has_target:
        say(console, f"target_rows={result.target_rows} is reached: {_left(result)} were not needed")
    elif result.unfinished:
        say(console, f"{_left(result)} are not begun; the command without retry=failed does them")
    if failed:
        say(
            console,
            f"{failed} elements failed{_worst(result)}; see failures/. The same command tries them again and pays for "
            "nothing else; with retry=failed it begins nothing new.",
        )


def _print_samples(console: Console, result: Result) -> None:
    """What was wrong with what models sent."""
    if changed := METER.read().total(CHANGED):
        say(console, f"{changed} samples held what no record may hold and were changed; see docs/hostile-text.md")
    if lost := METER.read().total(ONLY_THOUGHT):
        say(
            console,
            f"{lost} samples ended in the midst of their thoughts, without an answer; give them room with "
            "engine.thinking.extra_tokens, see docs/engines.md",
        )
    if result.refused.requests:
        _print_refusals(console, result)
    if result.refused_stages:
        say(
            console,
            f"Whatever this start asked for {', '.join(result.refused_stages)} was refused, so that the shards it "
            "filled are not finished: when the server takes such prompts, the same command asks again.",
        )


def _print_refusals(console: Console, result: Result) -> None:
    refused = result.refused
    share = refused.requests / max(result.num_requests, refused.requests)
    first = f"; the first: {' '.join(refused.first.split())}" if refused.first else ""
    say(
        console,
        f"The server refused {refused.requests} of {result.num_requests} requests ({share:.1%}), and whatever they "
        f"were for is unscored or missing{first}. Where prompts are too long for it, give it a longer context or lower "
        "max_tokens (actor, panel.agents); wrongturn doctor with the same settings says what else it refuses.",
    )


def _worst(result: Result) -> str:
    """How the share came about that is compared with what is allowed."""
    stage = result.books.worst
    nothing = "" if stage.kept else " and nothing was kept, which counts as all of them"
    return (
        f", the largest share in {stage.stage}: {stage.failed} of {stage.num_tried} {stage.element}{nothing} "
        f"({stage.failure_share:.1%}, {result.max_failure_share:.1%} allowed)"
    )


def _left(result: Result) -> str:
    shards = ", ".join(map(str, result.unfinished[:_SHARDS_LISTED]))
    more = ", ..." if len(result.unfinished) > _SHARDS_LISTED else ""
    listed = f" ({shards}{more})" if shards else ""
    return f"{len(result.unfinished)} of {result.num_shards} shards{listed} with {result.num_problems_left} problems"


def _print_stop(console: Console, result: Result) -> None:
    say(
        console,
        f"{result.budget_reached} is reached: this run paid {result.spent}. Unfinished: {_left(result)}. "
        "Every answer that was paid for is in the journal: the same command with a larger budget goes on from here.",
    )


def print_forecast(console: Console, forecast: Forecast) -> None:
    """What a whole run would need, and what telling it has cost."""
    table = Table("the whole run needs", "estimate", f"{LEVEL:.0%} interval", "of it in the sample")
    for name, amount in forecast.amounts.items():
        table.add_row(
            name.replace("_", " "), _number(amount.total), f"{_number(amount.low)} - {_number(amount.high)}",
            _number(amount.sampled),
        )  # fmt: skip
    if forecast.amounts:
        console.print(table)
        say(
            console,
            f"From {forecast.num_sampled} of {forecast.num_problems} problems, of which {forecast.num_failed} elements "
            "failed; their problems are in no figure. The interval is that of a sum of normal values (Student's t): "
            "rough where a few problems cost many times more than others. Time is at the pace of the sample.",
        )
    if forecast.budget_reached:
        say(console, f"{forecast.budget_reached} is reached before the sample was done.")
    elif forecast.trouble:
        say(
            console,
            f"{forecast.num_failed} elements of the sample failed, more than max_failure_share allows, so that it "
            f"tells nothing of the whole. The first: {forecast.trouble}",
        )
    elif "seconds" not in forecast.amounts:
        say(console, "Time was not measured: most of the sample came from the journal.")
    console.print(
        f"The sample paid {forecast.spent}; its answers are in the journal. No shard was written.", soft_wrap=True
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"

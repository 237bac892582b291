"""What a person sees of an evaluation: how it goes on, and its figures."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from annotators.closed_loop import RoundFigures
from annotators.evaluation import Figure
from pipelines.beside import beside
from pipelines.dialogue_tables import print_dialogues
from pipelines.display import say
from pipelines.evaluate.critics import NO_GOLD
from pipelines.evaluate.inputs import Source
from pipelines.evaluate.results import Evaluation, FileResult
from pipelines.evaluate.runner import FIGURES, ROWS, Result, Watcher
from pipelines.evaluate.task import Task
from pipelines.meter import METER, Reading
from pipelines.server_display import ServerDisplay
from pipelines.show_flips import print_flips
from schemas import visible

_LINE_SECS = 10.0

_TABLES: dict[str, dict[str, str]] = {
    "Verdicts and first errors": {
        "verdict": "verdict",
        "exact": "first error",
        "within_1": "within 1",
        "on_correct": "none on right",
        "f1": "F1",
        "f1_unread_missed": "F1, unread missed",
    },
    "Second solutions": {
        "correct_to_incorrect": "right -> wrong",
        "incorrect_to_correct": "wrong -> right",
        "incorrect_to_correct_unleaked": "the same, no leaks",
        "before": "right before",
        "after": "right after",
        "delta": "gain",
    },
    "Leaks": {"leaks": "critiques that leak"},
    "Generation, critique, correction": {
        "solved": "problems solved",
        "verdict_f1": "F1 of wrong",
        "verdict_on_wrong": "wrong ones named",
        "verdict_on_right": "right ones left",
        "after": "right after",
        "incorrect_to_correct": "wrong -> right",
    },
}
"""Figures that are shown together, with the headings of their columns."""

_ONLY_IN = {"Generation, critique, correction": "criticbench"}
"""Tables that are shown in one mode alone."""

_ROUND = {"correct_to_incorrect": "right -> wrong", "incorrect_to_correct": "wrong -> right", "verdict": "verdict"}
"""Figures of a round beside what all rounds up to it come to."""


class EvaluateDisplay(ServerDisplay, Watcher):
    """Shows solutions, calls and time left: live in a terminal, else a line at times."""

    def planned(self, task: Task) -> None:
        """Says what will be done."""
        files = "; ".join(map(_amount, task.sources))
        engines = ", ".join(engine.label for engine in task.engines().values()) or "none"
        mode = "" if task.options.mode == "single" else f", mode {task.options.mode}, rounds {task.options.num_rounds}"
        say(
            self._console,
            f"wrongturn {task.plan.context.version}, config {task.config_digest[:12]}: critic {task.critic.name}, "
            f"engine {engines}{mode}; {files}",
        )

    @contextlib.contextmanager
    def working(self, num_solutions: int) -> Iterator[Callable[[], None]]:
        """Shows how many are done."""
        if self._console.is_terminal:
            columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
            with Progress(*columns, TextColumn("{task.description}"), console=self._console) as progress:
                task = progress.add_task("solutions", total=num_solutions)
                yield lambda: progress.advance(task)
            return
        lines = _Lines(self._console, num_solutions)
        with lines.at_times():
            yield lines.advance


def _amount(source: Source) -> str:
    gold = sum(item.has_gold for item in source.solutions)
    number = len(source.solutions)
    return f"{source.name} {number} of {source.num_rows} solutions, {gold} with a gold answer"


class _Lines:
    """A line now and then, for what is no terminal."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._done = 0

    def advance(self) -> None:
        self._done += 1

    @contextlib.contextmanager
    def at_times(self) -> Iterator[None]:
        start, began = METER.read(), time.monotonic()
        with beside(lambda stop: self._watch(stop, start, began)):
            yield

    def _watch(self, stop: threading.Event, start: Reading, began: float) -> None:
        while not stop.wait(_LINE_SECS):
            now, seconds = METER.read(), time.monotonic() - began
            left = f"{seconds / self._done * (self._total - self._done):.0f} s left" if self._done else "time unknown"
            say(
                self._console,
                f"{self._done} of {self._total} solutions, {now.paid.requests - start.paid.requests} calls, "
                f"{now.replayed - start.replayed} samples from the journal, {left}",
            )


def print_result(console: Console, result: Result) -> None:
    """The figures of runs themselves, those of the critic, what is in none of them, and where they are."""
    _print_runs(console, result.runs)
    found = result.evaluation
    if found is None and not result.budget_reached:
        say(console, "No critic was asked: these runs held dialogues and have no solution for one.")
        return
    if found is None:
        say(
            console,
            f"{result.budget_reached} is reached: this start paid {result.spent}. No figure is written before every "
            "solution was asked about; what was paid for is in the journal: the same command with a larger budget "
            "goes on from here.",
        )
        return
    for title, columns in _TABLES.items():
        if _ONLY_IN.get(title, found.mode) == found.mode and any(
            _says_something(file.figures[name]) for file in found.files for name in columns
        ):
            console.print(_table(title, columns, found))
    if any(file.rounds for file in found.files):
        console.print(_round_table(found))
    for file in found.files:
        for line in _left_out(file):
            say(console, f"{file.name}: {line}")
    say(console, f"Paid: {result.spent}. Figures: {result.out / FIGURES}; every solution: {result.out / ROWS}")
    if found.failure_share:
        say(
            console,
            f"{found.failure_share:.1%} of the solutions failed ({result.max_failure_share:.1%} allowed): the same "
            "command tries them again and pays for nothing else",
        )


def _print_runs(console: Console, runs: Sequence[Path]) -> None:
    """What the runs' own dialogues and critics came to, in all splits."""
    for run in runs:
        if len(runs) > 1:
            say(console, f"{run}:")
        print_dialogues(console, run)
        print_flips(console, run)


def _table(title: str, columns: Mapping[str, str], found: Evaluation) -> Table:
    table = Table(title=f"{title}, with {found.level:.0%} intervals", title_justify="left")
    table.add_column("input", overflow="fold")
    for heading in columns.values():
        table.add_column(heading, justify="right")
    for file in found.files:
        table.add_row(Text(visible(file.name)), *(_cell(file.figures[name]) for name in columns))
    if len(found.files) > 1:
        table.add_section()
        table.add_row("mean of inputs", *(_cell(found.average[name]) for name in columns))
    return table


def _round_table(found: Evaluation) -> Table:
    table = Table(title=f"Round by round, with {found.level:.0%} intervals", title_justify="left")
    for heading in ("input", "round"):
        table.add_column(heading, overflow="fold")
    for heading in ("right", "gain since the start", *_ROUND.values(), "turned"):
        table.add_column(heading, justify="right")
    for file in found.files:
        name = Text(visible(file.name))
        for item in file.rounds:
            table.add_row(name, str(item.round), *map(_cell, _figures_of(item)), _turned(item))
            name = Text("")
    return table


def _figures_of(item: RoundFigures) -> Sequence[Figure]:
    return item.right, item.gain, *(item.figures[name] for name in _ROUND)


def _turned(item: RoundFigures) -> Text:
    """How many went which way: `right -> right 3`, one a line."""
    words = {"correct": "right", "incorrect": "wrong"}
    lines = []
    for name, count in item.transitions.items():
        before, _, after = name.partition("_to_")
        if count:
            lines.append(f"{words[before]} -> {words[after]} {count}" if after else f"{name} {count}")
    return Text("\n".join(lines), "dim")


def _says_something(figure: Figure) -> bool:
    return figure.value is not None or (figure.counts is not None and figure.counts.unscored > 0)


def _cell(figure: Figure) -> Text:
    """The value, its interval below, and for a rate what it is taken from."""
    scored, unscored = (figure.counts.scored, figure.counts.unscored) if figure.counts else (0, 0)
    left_out = f"{unscored} unscored" if unscored else ""
    if figure.value is None:
        return Text(f"-\n{left_out}".rstrip())
    lines = [] if figure.low is None or figure.high is None else [f"{figure.low:.3f} .. {figure.high:.3f}"]
    lines += [", ".join(filter(None, (f"of {scored}", left_out)))] if figure.counts else []
    return Text(f"{figure.value:.3f}").append("".join(f"\n{line}" for line in lines), "dim")


def _left_out(file: FileResult) -> Sequence[str]:
    """What is in no rate, by reason."""
    parts = []
    if file.unread:
        total = Counter(file.unread).total()
        among = f"of {file.num_evaluated} solutions" if len(file.rounds) < 2 else f"in {len(file.rounds)} rounds"
        parts.append(f"{total} {among} without a critique: {_listed(file.unread)}")
    if file.second_unscored:
        total = Counter(file.second_unscored).total()
        parts.append(f"{total} second solutions unscored: {_listed(file.second_unscored)}")
    no_gold = file.unrefined.get(NO_GOLD, 0)
    if undecided := {reason: count for reason, count in file.unrefined.items() if reason != NO_GOLD}:
        total = Counter(undecided).total()
        parts.append(
            f"{total} of {file.num_evaluated} solutions not refined: nobody says whether their answer is right, and "
            f"the checker cannot: {_listed(undecided)}"
        )
    if no_gold:
        parts.append(f"{no_gold} of {file.num_evaluated} solutions not refined: their gold answer is not known")
    if file.num_failed:
        parts.append(f"{file.num_failed} failed")
    return parts


def _listed(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in reasons.items())

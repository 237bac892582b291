"""The command line: `wrongturn run`, `recipes`, `show`, `evaluate`, `publish`, `workers` and `doctor`."""

import argparse
import logging
import math
import os
import re
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn, TextIO

from rich.console import Console
from rich.markup import escape

from pipelines.errors import UserError
from schemas import visible

_EXAMPLES = """\
settings are given as KEY=VALUE, groups of settings as GROUP=OPTION:
  wrongturn run                                        the default run: small sums, a small model, in ./out
  wrongturn run out=data problems.num_problems=100 seed=7
  wrongturn run problems=gsm8k_file problems.path=train.jsonl actor=plain panel=blind \\
      engine=vllm engine.url=http://127.0.0.1:8000 engine.model=NAME
  wrongturn run --config                               every key there is, with its value
  wrongturn run recipe=deepcritic ...                  as a published system does it; see `wrongturn recipes`
The same command again goes on where a stopped run was. Before and between:
  wrongturn run ... dry_run=true                       what the whole would cost, from a few of its problems
  wrongturn run ... budget.max_tokens=1000000          ends with exit code 4 when so much is paid; also max_requests,
                                                       max_seconds, max_cost with budget.prices
  wrongturn run ... target_rows=500                    no more shards than it takes for so many rows of sft
  wrongturn run ... retry=failed                       only what failed before
Problems of test sets are left out, and what is finished goes to the Hub:
  wrongturn run ... hygiene.test_sets=[gsm8k_test.jsonl,math500.jsonl]
  wrongturn publish OUT OWNER/NAME --dry-run
Exit codes: 0 done, 2 bad input, 3 too many elements failed or a server stayed away, 4 a budget is reached, 130 stopped
by Ctrl-C, 143 stopped by SIGTERM.
"""
_LOG_ENV = "WRONGTURN_LOG"
"""Level from which everything that is logged is shown, such as INFO."""
_FROM_BEAM = re.compile(r" \[while running '[^']*'\]")
"""What Beam adds to the message of whatever is raised in a stage."""


class _Screen(logging.StreamHandler[TextIO]):
    """Writes to what stands for standard error at the moment: a live display puts it above itself."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class _Note(logging.Formatter):
    """What is ours and no error as one line, that whoever waits knows for what; anything else as it comes."""

    def format(self, record: logging.LogRecord) -> str:
        if record.levelno >= logging.ERROR or not _is_ours(record):
            return super().format(record)
        return f"note: {visible(' '.join(record.getMessage().split()))}"


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] == "pipelines"


def _set_up_logging() -> None:
    if level := os.environ.get(_LOG_ENV):
        logging.basicConfig(level=level)
        return
    # Beam speaks of optional packages that nobody misses; what concerns the run is raised, not logged.
    screen = _Screen()
    screen.setFormatter(_Note(logging.BASIC_FORMAT))
    screen.addFilter(lambda record: record.levelno >= logging.ERROR or _is_ours(record))
    logging.basicConfig(level=logging.WARNING, handlers=[screen])
    # Beam logs with a traceback what it raises, also where it is a clean stop.
    for package in ("apache_beam", "gcsfs"):
        logging.getLogger(package).setLevel(logging.CRITICAL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    0 is success, 2 bad input, 3 too many failed elements or an outage, 4 budget reached, 130 stopped by Ctrl-C, 143 by
    SIGTERM.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    takes_settings = options.command in ("run", "recipes", "evaluate")
    if wrong := [word for word in rest if word.startswith("-") or not takes_settings]:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")
    if rest:  # Settings behind an option: argparse takes those before it only.
        options.overrides = [*options.overrides, *rest]
    _set_up_logging()
    console = Console(stderr=True, highlight=False)
    told: list[int] = []

    def stop(number: int, frame: object) -> NoReturn:
        del frame
        told.append(number)
        # With a message: Beam makes a RuntimeError, and us a traceback, of an interrupt that has none.
        raise KeyboardInterrupt("stopped")

    # SIGTERM is a supervisor's Ctrl-C (kubectl delete, docker stop, systemd): a job that goes on would go on paying.
    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return int(options.act(options))
    except UserError as error:
        said = _FROM_BEAM.sub("", " ".join(str(error).split()))
        console.print(f"[red]wrongturn: {escape(visible(said))}[/red]", soft_wrap=True)
        return error.exit_code
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from here", soft_wrap=True)
        return 128 + (told or [signal.SIGINT])[-1]
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wrongturn",
        description="Grows trees of reasoning, finds the wrong turns, and keeps critiques that rollouts show to help.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="make a dataset, or go on with one",
        description="Makes a dataset.\n\n" + _groups(),
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings that differ from the default")
    run.add_argument("--config", action="store_true", help="print the settings instead of running")
    run.set_defaults(act=_run)
    _add_recipes(commands.add_parser("recipes", help="list the published systems that ship as configurations"))
    _add_show(commands.add_parser("show", help="look at a finished run: funnel, critiques, a tree, one id's history"))
    _add_evaluate(commands.add_parser("evaluate", help="measure a critic on labelled solutions, or on a run's split"))
    _add_publish(commands.add_parser("publish", help="put a finished run on the Hugging Face Hub"))
    _add_workers(commands.add_parser("workers", help="serve as a worker pool for Flink on this machine"))
    doctor = commands.add_parser("doctor", help="say what is installed, what can start, and what would run")
    doctor.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings as for `run`")
    doctor.set_defaults(act=_doctor)
    return parser


def _add_recipes(recipes: argparse.ArgumentParser) -> None:
    recipes.description = "Lists recipes, or says all about those named: source, what is exact, what is ours."
    recipes.add_argument(
        "overrides", nargs="*", metavar="NAME|KEY=VALUE", help="recipes, and settings for --cost, as for `run`"
    )
    recipes.add_argument("--cost", action="store_true", help="try each on the simulated world: calls a problem")
    recipes.set_defaults(act=_recipes)


def _add_show(show: argparse.ArgumentParser) -> None:
    show.add_argument("out", metavar="OUT", help="folder that a run wrote to")
    show.add_argument("--tree", metavar="ID", default="", help="show this tree (its id or its problem's)")
    show.add_argument("--id", metavar="ID", default="", help="all about a row, critique, dialogue, tree, problem")
    show.add_argument("-n", metavar="N", type=_count, default=2, dest="number", help="critiques of each decision (2)")
    show.add_argument("--seed", metavar="SEED", type=int, default=0, help="draw other critiques (0)")
    show.set_defaults(act=_show)


def _count(text: str) -> int:
    """A number of things, for argparse."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"expected 0 or more, got {number}")
    return number


def _port(text: str) -> int:
    """A port, for argparse."""
    number = _count(text)
    if number > 65535:
        raise argparse.ArgumentTypeError(f"expected 65535 or less, got {number}")
    return number


def _seconds(text: str) -> float:
    """A time, for argparse."""
    seconds = float(text)
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"expected seconds, 0 or more, got {text}")
    return seconds


def _add_evaluate(evaluate: argparse.ArgumentParser) -> None:
    evaluate.description = (
        "Asks a critic about labelled solutions: files of ProcessBench or RealCritic, or folders of runs. Settings as "
        "for `run`, but with panel=blind, actor=plain and out=evaluation where they are not given."
    )
    evaluate.epilog = "Exit codes: as of `run`. The same command again goes on where a stopped one was."
    evaluate.add_argument(
        "overrides", nargs="+", metavar="FILE|OUT|KEY=VALUE", help="what to evaluate on, and settings as for `run`"
    )
    evaluate.add_argument(
        "--critic",
        metavar="NAME",
        default="",
        help="agent of the panel (its first blind one), or always-none, always-first, always-last, which read nothing",
    )
    evaluate.add_argument(
        "--mode",
        choices=("single", "self", "cross", "iterative", "criticbench"),
        default="single",
        help="whose solutions, and in how many rounds, see docs/evaluate.md (single: the input's, once)",
    )
    evaluate.add_argument("--rounds", metavar="N", type=_count, help="of critique and correction (1; iterative: 3)")
    evaluate.add_argument("--split", choices=("validation", "train"), default="validation", help="of folders of runs")
    evaluate.add_argument("--limit", metavar="N", type=_count, help="so many solutions of each input, drawn by seed")
    evaluate.add_argument("--samples", metavar="K", type=_count, default=1, help="second solutions a critique (1)")
    evaluate.add_argument("--no-refine", action="store_false", dest="refine", help="ask for no second solutions")
    evaluate.set_defaults(act=_evaluate)


def _add_publish(publish: argparse.ArgumentParser) -> None:
    publish.add_argument("out", metavar="OUT", help="folder that a run wrote to")
    publish.add_argument("repo", metavar="OWNER/NAME", help="dataset repository; made where there is none")
    visibility = publish.add_mutually_exclusive_group()
    visibility.add_argument("--private", action="store_false", dest="public", help="for nobody else to see (default)")
    visibility.add_argument("--public", action="store_true", help="for everybody to see")
    publish.add_argument("--dry-run", action="store_true", help="say what would go, and send nothing")
    publish.add_argument("--revision", metavar="BRANCH", default="main", help="branch (default: main)")
    publish.add_argument("--allow-partial", action="store_true", help="also what is not COMPLETED")
    publish.epilog = "The token comes from HF_TOKEN or `hf auth login`. Broken uploads go on with the same command."
    publish.set_defaults(act=_publish, public=False)


def _add_workers(workers: argparse.ArgumentParser) -> None:
    workers.add_argument("--host", default="127.0.0.1", help="where to listen (127.0.0.1: for this machine alone)")
    workers.add_argument("--port", type=_port, default=50000, help="port (50000)")
    workers.add_argument(
        "--grace",
        type=_seconds,
        default=60.0,
        metavar="SECS",
        help="how long a stopped worker may await answers (60)",
    )
    workers.description = (
        "Starts workers for TaskManagers that ask; what runs there is given runner.worker_pool=HOST:PORT."
    )
    workers.epilog = "Ctrl-C or SIGTERM stops it and its workers, with exit code 0."
    workers.set_defaults(act=_workers)


def _groups() -> str:
    from pipelines.config import GROUPS, options

    lines = [f"  {group:9s} {', '.join(options(group))}" for group in GROUPS]
    return "\n".join(["groups and their options:", *lines])


def _console() -> Console:
    """Standard output; where it is no terminal, wide enough for tables."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=140)


def _run(options: argparse.Namespace) -> int:
    from pipelines.config import as_yaml, compose, compose_plain

    if options.config:
        sys.stdout.write(as_yaml(compose_plain(options.overrides)))
        return 0
    settings = compose(options.overrides)
    # Beam and the stages take seconds to import: not before the settings are known to be right.
    from pipelines.display import Display, print_forecast, print_summary
    from pipelines.dry_run import dry_run
    from pipelines.run import run

    console = _console()
    display = Display(console)
    if settings.dry_run:
        forecast = dry_run(settings, display.sampling, display)
        print_forecast(console, forecast)
        return forecast.exit_code
    result = run(settings, display)
    print_summary(console, result)
    display.print_restarts()
    if result.budget_reached:
        return 4
    return 0 if result.is_success else 3


def _recipes(options: argparse.Namespace) -> int:
    from pipelines.recipes import print_recipes

    names = [word for word in options.overrides if "=" not in word]
    overrides = [word for word in options.overrides if "=" in word]
    print_recipes(_console(), names, overrides, cost=options.cost)
    return 0


def _show(options: argparse.Namespace) -> int:
    from pipelines.show import Choice, show

    choice = Choice(tree=options.tree, id=options.id, number=options.number, seed=options.seed)
    show(_console(), options.out, choice=choice)
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from pipelines.evaluate.words import read_words

    words = read_words(options.overrides)
    from pipelines.evaluate import Options, evaluate
    from pipelines.evaluate.table import EvaluateDisplay, print_result

    wanted = Options(
        critic=options.critic,
        mode=options.mode,
        rounds=options.rounds,
        split=options.split,
        limit=options.limit,
        samples=options.samples,
        refine=options.refine,
        lend=words.names_problems,
    )
    display = EvaluateDisplay(_console())
    result = evaluate(words.settings, words.inputs, wanted, display)
    print_result(_console(), result)
    display.print_restarts()
    return result.exit_code


def _publish(options: argparse.Namespace) -> int:
    from pipelines.publish import publish, target_of

    target = target_of(options.repo, is_public=options.public, revision=options.revision)
    publish(_console(), options.out, target, dry_run=options.dry_run, allow_partial=options.allow_partial)
    return 0


def _workers(options: argparse.Namespace) -> int:
    from pipelines.runners.pool import serve_pool

    logging.getLogger("pipelines").setLevel(logging.INFO)
    serve_pool(options.host, options.port, options.grace)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from pipelines.doctor import examine

    return examine(_console(), options.overrides)


if __name__ == "__main__":
    sys.exit(main())

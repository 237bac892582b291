"""What is logged, as it comes to the person who waits: in a process of its own, for logging is set up once in each."""

import os
import subprocess
import sys

import pytest

_SAYS = """
import logging, sys
from rich.console import Console
from rich.progress import Progress
from pipelines import main

def act(options):
    ours, theirs = logging.getLogger("pipelines.runners.cluster"), logging.getLogger("apache_beam.runners")
    others = logging.getLogger("pipelinesque")
    ours.warning("the job was lost and is submitted again: %s", "Traceback:\\n  File\\x1b[2J")
    ours.info("no news")
    others.warning("nobody misses this")
    theirs.error("what is raised, too")
    others.error("trouble")
    with Progress(console=Console(file=sys.stdout, force_terminal=True, width=100)) as progress:
        progress.add_task("working", total=1)
        ours.warning("beside the bar")
    return 0

main._show = act
sys.exit(main.main(["show", "out"]))
"""


def say(**environment: str) -> tuple[str, str]:
    """What goes to standard output and to standard error."""
    known = {name: value for name, value in os.environ.items() if name != "WRONGTURN_LOG"}
    done = subprocess.run(
        [sys.executable, "-c", _SAYS], capture_output=True, text=True, check=True, env=known | environment
    )
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def said() -> tuple[str, str]:
    return say()


def test_a_warning_of_ours_is_one_line_without_what_a_terminal_obeys(said):
    (note, *_) = said[1].splitlines()
    assert note.startswith("note: the job was lost and is submitted again: Traceback: File")
    assert "\x1b" not in note


def test_of_others_errors_alone_are_shown_and_beams_not(said):
    assert said[1].splitlines()[1:] == ["ERROR:pipelinesque:trouble"]


def test_a_warning_stands_above_a_live_display_and_not_in_it(said):
    line = next(line for line in said[0].splitlines() if "beside the bar" in line)
    assert line.rpartition("\x1b[2K")[2] == "note: beside the bar"


def test_who_asks_for_more_is_shown_all():
    _, shown = say(WRONGTURN_LOG="INFO")
    assert "INFO:pipelines.runners.cluster:no news" in shown
    assert "WARNING:pipelinesque:nobody misses this" in shown

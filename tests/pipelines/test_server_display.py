"""What is shown of servers that start, and what `wrongturn doctor` says of them."""

import io
import sys

import pytest
from rich.console import Console

from pipelines.main import main
from pipelines.server_display import ServerDisplay


class Clock:
    def __init__(self, monkeypatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("pipelines.server_display.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    return Clock(monkeypatch)


def console(*, is_terminal: bool) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=is_terminal, width=80, highlight=False), file


def test_where_there_is_no_terminal_a_line_is_said_every_ten_seconds(clock):
    shown, file = console(is_terminal=False)
    with ServerDisplay(shown).starting("engine") as tell:
        for line in ("a", "b", "c", "d"):
            clock.now += 4
            tell(line)
        clock.now += 4
    assert file.getvalue().splitlines() == [
        "engine: starting its server",
        "engine: starting its server, 12 s: c",
        "engine: the server took 20 s to start",
    ]


def test_a_start_that_fails_took_no_time(clock):
    shown, file = console(is_terminal=False)
    with pytest.raises(ValueError, match="x"), ServerDisplay(shown).starting("engine"):
        raise ValueError("x")
    assert file.getvalue() == "engine: starting its server\n"


def test_in_a_terminal_the_newest_line_is_shown_and_then_gone():
    shown, file = console(is_terminal=True)
    with ServerDisplay(shown).starting("engine") as tell:
        tell("loading [bold]weights\x1b[2J")
    said = file.getvalue()
    assert r"starting its server, 0 s: loading [bold]weights\x1b[2J" in said
    assert said.endswith("engine: the server took 0 s to start\n")


def test_restarts_are_said_at_once_and_counted_at_the_end():
    shown, file = console(is_terminal=False)
    display = ServerDisplay(shown)
    display.print_restarts()
    assert file.getvalue() == ""
    for name in ("engines.judge", "engine", "engines.judge"):
        display.restarted(name, "the server was killed by signal 9")
    display.print_restarts()
    assert file.getvalue().splitlines() == [
        "engines.judge: the server was killed by signal 9",
        "engine: the server was killed by signal 9",
        "engines.judge: the server was killed by signal 9",
        "engine: the server died in mid-run and was started again once; its log says why",
        "engines.judge: the server died in mid-run and was started again 2 times; its log says why",
    ]


def test_doctor_says_why_a_server_cannot_be_started(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    assert main(["doctor", "problems=simulated", "engine=vllm", "engine.model=m", "engine.python=/no/python"]) == 1
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "engine.python: no program at /no/python; give the interpreter of" in printed
    assert "started by a run with engine" in printed


@pytest.mark.slow
def test_doctor_starts_what_a_run_would_start_and_asks_it(capsys):
    from tests.pipelines.test_managed_runs import FAKE

    engine = ["engine=vllm", "engine.model=simulated", f"engine.program=[{FAKE}]", "engine.extra_args=[--world]"]
    assert main(["doctor", "problems=simulated", f"engine.python={sys.executable}", *engine]) == 0
    printed = capsys.readouterr().out
    assert "engine: starting its server" in printed
    assert "vllm simulated" in printed

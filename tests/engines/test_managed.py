"""Servers that are started, watched, started again and stopped: with a fake one that has troubles to order."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.engines import managed, ports, simulated
from pipelines.engines.managed import Launch, ServerFailed, Servers, ServerWatcher, count_restarts
from pipelines.errors import UserError

FAKE = Path(__file__).parents[1] / "servers" / "fake_server.py"


def launch(
    *words: str, port: int = 0, start: float = 20.0, stop: float = 5.0, restarts: int = 0, served_name: str = ""
) -> Launch:
    return Launch(
        command=(sys.executable, "-S", str(FAKE), "--port", "{port}", *words),
        port=port,
        start_timeout_secs=start,
        stop_timeout_secs=stop,
        max_restarts=restarts,
        served_name=served_name,
    )


class Notes(ServerWatcher):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.restarts: list[str] = []

    @contextlib.contextmanager
    def starting(self, name: str) -> Iterator[Callable[[str], None]]:
        yield lambda line: self.lines.append(f"{name}: {line}")

    def restarted(self, name: str, why: str) -> None:
        self.restarts.append(f"{name}: {why}")


def ask(url: str, method: str = "GET", path: str = "/health") -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=5)
    with contextlib.closing(connection):
        connection.request(method, path, body=b"{}" if method == "POST" else None)
        response = connection.getresponse()
        return response.status, dict(response.headers), response.read().decode()


def is_there(url: str) -> bool:
    try:
        return ask(url)[0] == 200
    except OSError:
        return False


def until(fact: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not fact():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def server_of(url: str) -> int:
    """The pid of the program that has a URL's port in its command line and is no guardian."""
    port = url.rpartition(":")[2]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode().split("\0")
            if words[:2] == [sys.executable, "-S"] and port in words:
                return int(path.parent.name)
    raise AssertionError(f"no server at {url}")


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_server_is_well_when_its_url_is_given_and_gone_afterwards(tmp_path):
    notes = Notes()
    with Servers(tmp_path / "logs", notes) as servers:
        url = servers.url(launch("--well-after", "0.3"), "engine")
        assert is_there(url)
        pid = server_of(url)
    assert not is_there(url)
    assert not is_alive(pid)
    # What it says while it loads is told; a progress bar's line is its newest state.
    assert notes.lines[-1] == "engine: loading weights: 100%"
    assert notes.restarts == []


def test_its_log_begins_with_its_command_and_holds_what_it_said(tmp_path):
    with Servers(tmp_path / "logs") as servers:
        url = servers.url(launch("--a word"), "engines.the judge")
    (log,) = (tmp_path / "logs").iterdir()
    assert log.name == "engines-the-judge.log"
    first, *rest = log.read_text().replace("\r", "\n").splitlines()
    assert first.startswith("--- wrongturn starts ")
    assert first.endswith(f"fake_server.py --port {url.rpartition(':')[2]} '--a word'")
    assert rest == ["loading weights: 10%", "loading weights: 100%"]


def test_equal_servers_are_one_and_others_are_others(tmp_path):
    with Servers(tmp_path) as servers:
        first = servers.url(launch(), "engine")
        assert servers.url(launch(), "engines.judge") == first
        assert servers.url(launch("--other"), "engines.judge") != first
    assert {path.name for path in tmp_path.iterdir()} == {"engine.log", "engines-judge.log"}


def refused(tmp_path: Path, asked: Launch) -> str:
    began = time.monotonic()
    with Servers(tmp_path) as servers, pytest.raises(ServerFailed) as caught:
        servers.url(asked, "engine")
    assert isinstance(caught.value, UserError)
    assert time.monotonic() - began < 10
    return str(caught.value)


def test_one_that_dies_at_start_says_why(tmp_path):
    assert refused(tmp_path, launch("--die", restarts=3)) == (
        "engine: the server ended with exit status 1 before it was well; it said last: RuntimeError: out of memory at "
        f"layer 7; its log is {tmp_path}/engine.log"
    )


def test_a_program_that_is_not_there_is_a_start_that_failed(tmp_path):
    missing = Launch(command=("/no/such/python",), start_timeout_secs=5, stop_timeout_secs=5, max_restarts=0)
    assert "exit status 127 before it was well; it said last: /no/such/python: No such file" in refused(
        tmp_path, missing
    )


def test_one_that_is_never_well_is_given_up_and_taken_down(tmp_path):
    said = refused(tmp_path, launch("--never", f"--family={tmp_path}/pids", start=1.0, port=free_port()))
    assert "was not well within 1 s (engine.start_timeout_secs); it said last: loading weights: 100%" in said
    assert not [pid for pid in map(int, (tmp_path / "pids").read_text().split()) if is_alive(pid)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def test_a_port_that_is_taken_is_refused_before_anything_is_started(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = refused(tmp_path, launch(port=port))
    assert said == (
        f"engine.port: port {port} is taken by another program; set 0 for a free one, or use the server that runs "
        f"there with engine.url=http://127.0.0.1:{port}"
    )


def test_a_server_of_another_model_at_the_port_is_not_taken_for_ours(tmp_path):
    with simulated.serving(simulated.SimulatedSettings(model="theirs")) as url:
        port = int(url.rpartition(":")[2])
        # As if it had come between our looking for a port and our server's listening there.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pipelines.engines.ports.free_port", lambda: port)
            patch.setattr("pipelines.engines.ports.is_free", lambda asked: True)
            said = refused(tmp_path, launch("--never", served_name="ours"))
            assert said.startswith(
                "engine: the server is not what answers at its port: that serves theirs, not ours; another program has "
                f"taken port {port} meanwhile (engine.port); give the command again; it said last: "
            )
        assert ports.models_at(port) == ("theirs",)


def test_a_server_that_does_not_say_what_it_serves_is_taken_at_its_word(tmp_path):
    with Servers(tmp_path) as servers:
        url = servers.url(launch(served_name="ours"), "engine")
        assert ports.models_at(int(url.rpartition(":")[2])) == ()


def test_a_temporary_log_stays_only_where_a_start_failed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Servers() as servers:
        servers.url(launch(), "engine")
        assert len(list(tmp_path.glob("*/engine.log"))) == 1
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ServerFailed, match=str(tmp_path)), Servers() as servers:
        servers.url(launch("--die"), "engine")
    (log,) = tmp_path.glob("*/engine.log")
    assert "out of memory at layer 7" in log.read_text()


def test_one_that_dies_in_mid_run_is_started_again_at_the_same_port(tmp_path):
    notes = Notes()
    with Servers(tmp_path, notes) as servers:
        url = servers.url(launch(restarts=1), "engine")
        first = server_of(url)
        os.kill(first, signal.SIGKILL)
        assert until(lambda: not is_there(url) or server_of(url) != first)
        assert until(lambda: is_there(url))
        assert server_of(url) != first
    assert notes.restarts == [f"engine: the server was killed by signal 9; restart 1 of 1, log {tmp_path}/engine.log"]
    assert count_restarts(tmp_path) == {"engine": 1}
    assert (tmp_path / "engine.log").read_text().count("--- wrongturn starts ") == 2
    assert not is_there(url)


def test_one_that_hangs_is_killed_and_started_again_at_the_same_port(tmp_path, monkeypatch):
    monkeypatch.setattr(managed, "_CHECK_SECS", 0.1)
    monkeypatch.setattr(managed, "_SILENT_CHECKS", 3)
    monkeypatch.setattr(ports, "_ANSWER_SECS", 0.5)
    notes = Notes()
    with Servers(tmp_path, notes) as servers:
        url = servers.url(launch(f"--family={tmp_path}/pids", stop=0.3, restarts=1), "engine")
        assert until((tmp_path / "pids").exists)
        first = [server_of(url), *map(int, (tmp_path / "pids").read_text().split())]
        os.kill(first[0], signal.SIGSTOP)  # Whoever connects is let in by the kernel and hears nothing.
        assert until(lambda: not is_alive(first[0]))
        assert until(lambda: is_there(url))
        assert not any(map(is_alive, first))
    said = f"the server hung: its /health was not well 3 times in a row; restart 1 of 1, log {tmp_path}/engine.log"
    assert notes.restarts == [f"engine: {said}"]
    assert count_restarts(tmp_path) == {"engine": 1}
    assert not is_there(url)


def test_one_that_is_silent_now_and_then_is_only_busy(tmp_path, monkeypatch):
    monkeypatch.setattr(managed, "_CHECK_SECS", 0.01)
    monkeypatch.setattr(managed, "_SILENT_CHECKS", 3)
    notes = Notes()
    with Servers(tmp_path, notes) as servers:
        url = servers.url(launch(restarts=1), "engine")
        first = server_of(url)
        looks = []

        def is_well(port):
            looks.append(port)
            return len(looks) % 3 == 0

        monkeypatch.setattr(ports, "is_well", is_well)
        assert until(lambda: len(looks) >= 12)
        assert server_of(url) == first
    assert notes.restarts == []


def test_restarts_are_counted_from_the_logs_and_starts_of_the_command_are_not(tmp_path):
    start, restart = "--- wrongturn starts 2026-11-24T10:00:00+00:00: x\n", "--- wrongturn starts now, restart {}: x\n"
    began = [start, "loading\n", start, "cut in the middle of a line", restart.format(1), restart.format(2), start]
    (tmp_path / "engine.log").write_text("".join([*began, "it says, restart 3: no\n"]))
    (tmp_path / "engines-judge.log").write_text(start)
    assert count_restarts(tmp_path) == {"engine": 2, "engines-judge": 0}
    assert count_restarts(tmp_path / "nothing") == {}


def test_what_is_no_log_is_not_counted_and_nothing_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.log")
    (tmp_path / "folder.log").mkdir()
    (tmp_path / "link.log").symlink_to("/dev/zero")
    assert count_restarts(tmp_path) == {}


def test_one_that_dies_too_often_leaves_a_stone_that_says_so_at_once(tmp_path):
    with Servers(tmp_path) as servers:
        url = servers.url(launch(restarts=0), "engine")
        os.kill(server_of(url), signal.SIGKILL)
        assert until(lambda: answers(url, 500))
        status, _, said = ask(url, "POST", "/v1/completions")
        # "Gone", so that nobody waits; a scout that asks whether anybody is there hears that somebody is.
        assert status == 410
        assert said == (
            "engine: the server was killed by signal 9, after 0 restarts (engine.max_restarts=0); see "
            f"{tmp_path}/engine.log"
        )
    with pytest.raises(OSError, match="refused"):
        ask(url)


def answers(url: str, status: int) -> bool:
    try:
        return ask(url)[0] == status
    except OSError:
        return False


def test_whatever_it_started_goes_with_it_even_if_it_is_deaf(tmp_path):
    family = tmp_path / "pids"
    with Servers(tmp_path) as servers:
        servers.url(launch("--deaf", f"--family={family}", stop=0.3), "engine")
        assert until(family.exists)
        pids = [int(pid) for pid in family.read_text().split()]
        assert [is_alive(pid) for pid in pids] == [True, True]
    assert [is_alive(pid) for pid in pids] == [False, False]


RUN = """
import sys, threading
from pathlib import Path
from pipelines.engines import ports, simulated
from pipelines.engines.managed import Launch, Servers
command = (sys.executable, "-S", {fake!r}, "--port", "{{port}}", "--family={family}")
launch = Launch(command=command, start_timeout_secs=20, stop_timeout_secs=5, max_restarts=0)
with Servers(Path({logs!r})) as servers:
    print(servers.url(launch, "engine"), flush=True)
    threading.Event().wait(60)
"""


@pytest.mark.parametrize(
    "how",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
    ],
    ids=lambda how: how.name,
)
def test_however_its_run_ends_nothing_stays(tmp_path, how):
    family = tmp_path / "pids"
    program = RUN.format(fake=str(FAKE), logs=str(tmp_path), family=family)
    run = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=FAKE.parents[2],
    )
    assert run.stdout is not None
    with run:
        url = run.stdout.readline().strip()
        assert until(family.exists)
        pids = [server_of(url), *map(int, family.read_text().split())]
        assert all(map(is_alive, pids))
        run.send_signal(how)
        assert run.wait(10) == -how
    # Ctrl-C ends the run in good order, with its server; whoever is killed cannot see to that.
    assert until(lambda: not any(map(is_alive, pids)), 0 if how == signal.SIGINT else 5)
    assert not is_there(url)


def test_a_stop_while_it_starts_again_leaves_nothing(tmp_path):
    with Servers(tmp_path) as servers:
        url = servers.url(launch(restarts=5), "engine")
        pid = server_of(url)
        os.kill(pid, signal.SIGKILL)
        until(lambda: not is_alive(pid))
    assert not is_there(url)
    assert not [thread for thread in threading.enumerate() if thread.name == "engine-watch"]
    with pytest.raises(AssertionError, match="no server"):
        server_of(url)

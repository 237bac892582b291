"""Processes that share a host's server and are killed, one kind after the other: the others go on."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pipelines.engines import Endpoint, endpoints_on_hosts
from pipelines.engines.settings import LlamaCpp, Simulated, Vllm
from tests.engines.host_processes import (
    FAKE,
    User,
    Users,
    keepers,
    one_host,
    processes_with,
    state,
    states,
    until,
    users,
)
from tests.engines.simulated_texts import QUESTION, solve_prompt

pytestmark = pytest.mark.slow

LINGER = 1.0
Endpoints = tuple[tuple[str, Endpoint], ...]


@pytest.fixture
def home(tmp_path, monkeypatch) -> Iterator[Path]:
    with one_host(tmp_path / "run", monkeypatch) as path:
        yield path


@pytest.fixture
def started() -> Iterator[Users]:
    with users(solve_prompt(QUESTION)) as all_of_them:
        yield all_of_them


@pytest.fixture
def model(tmp_path) -> Vllm:
    """The simulated world behind a program with the command line of vLLM: what a real server's processes are like."""
    folder = tmp_path / "simulated"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    words = ("--world", f"--of={tmp_path}")
    return Vllm(model=str(folder), style="raw", program=(str(FAKE),), extra_args=words)


@pytest.fixture
def program(home, model) -> Endpoints:
    return endpoints_on_hosts({"": model}, LINGER)


def servers(tmp_path: Path) -> list[int]:
    """The server of the test's own `model` and its guardian."""
    return processes_with(str(FAKE), f"--of={tmp_path}")


def kill(pids: list[int]) -> None:
    """All of them, though one may go with another that was killed before it."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def urls(some: list[User]) -> set[str]:
    return {user.said()["url"] for user in some}


def test_processes_that_ask_at_once_get_one_server(home, program, started, tmp_path):
    some = [started.start(program) for _ in range(5)]
    assert len(urls(some)) == 1
    assert len(keepers(home)) == 1
    assert len(servers(tmp_path)) == 2
    answers = [user.ask() for user in some]
    assert answers[0]["text"]
    assert all(answer == answers[0] for answer in answers)
    for user in some:
        user.process.kill()
    began = time.monotonic()
    assert until(lambda: not keepers(home) and not servers(tmp_path))
    assert time.monotonic() - began < LINGER + 5


@pytest.mark.parametrize("when", ["at once", "later"])
def test_the_process_that_started_it_is_killed(home, program, started, tmp_path, when):
    first = started.start(program)
    assert until(lambda: bool(keepers(home)))
    if when == "later":
        assert first.said()["url"]
    first.process.kill()
    second = started.start(program)
    assert second.said()["url"] == state(home).url
    assert second.ask()["text"]
    assert len(keepers(home)) == 1
    assert len(servers(tmp_path)) == 2


def test_a_process_that_uses_it_is_killed(home, program, started):
    first, second = started.start(program), started.start(program)
    assert len(urls([first, second])) == 1
    (pid,) = keepers(home)
    second.process.kill()
    time.sleep(2 * LINGER)
    assert first.ask()["text"]
    assert keepers(home) == [pid]


def test_its_keeper_is_killed(home, program, started, tmp_path):
    some = [started.start(program) for _ in range(2)]
    assert len(urls(some)) == 1
    before, old = some[0].ask(), servers(tmp_path)
    (pid,) = keepers(home)
    os.kill(pid, signal.SIGKILL)
    assert [user.ask() for user in some] == [before, before]
    # Its guardian has seen to it that the old server is gone before the new one listens at its port.
    assert until(lambda: bool(states(home)) and state(home).is_up and state(home).pid != pid)
    assert len(servers(tmp_path)) == 2
    assert not {pid, *old} & {*keepers(home), *servers(tmp_path)}
    late = started.start(program)
    assert late.said()["url"] == state(home).url
    assert late.ask() == before


def test_the_server_is_killed(home, program, started, tmp_path):
    some = [started.start(program) for _ in range(2)]
    assert len(urls(some)) == 1
    before, (pid,) = some[0].ask(), keepers(home)
    kill(servers(tmp_path))
    assert [user.ask() for user in some] == [before, before]
    assert keepers(home) == [pid]
    (log,) = home.glob("*/*/logs/engine.log")
    assert log.read_text().count(", restart 1: ") == 1


def test_keeper_and_server_are_killed_together_as_by_a_host_that_is_out_of_memory(home, program, started, tmp_path):
    user = started.start(program)
    assert user.said()["url"]
    before = user.ask()
    kill([*keepers(home), *servers(tmp_path)])
    assert user.ask() == before


def test_a_server_that_dies_too_often_is_refused_to_whoever_comes_and_the_next_run_tries_again(
    home, model, started, tmp_path
):
    endpoints = endpoints_on_hosts({"": msgspec.structs.replace(model, max_restarts=0)}, LINGER)
    user = started.start(endpoints)
    assert user.said()["url"]
    kill(servers(tmp_path))
    assert until(lambda: bool(state(home).error))
    said = started.start(endpoints).said()["refused"]
    assert said.startswith("engine: the server was killed by signal 9, after 0 restarts (engine.max_restarts=0); see ")
    user.process.kill()
    assert until(lambda: not keepers(home))
    assert started.start(endpoints).said()["url"]


def test_a_start_that_nobody_waits_for_is_broken_off(home, tmp_path, started):
    (tmp_path / "config.json").write_text("{}")
    words = {"program": ("-S", str(FAKE)), "extra_args": ("--never", f"--of={tmp_path}"), "revision": "v1"}
    user = started.start(endpoints_on_hosts({"": Vllm(model=str(tmp_path), **words)}, LINGER))
    assert until(lambda: len(servers(tmp_path)) == 2)
    time.sleep(2 * LINGER)
    assert len(keepers(home)) == 1
    user.process.kill()
    assert until(lambda: not keepers(home) and not servers(tmp_path))
    assert states(home) == []


@pytest.mark.model
def test_real_llama_cpp_is_one_for_two_processes_and_comes_back(home, started):
    pytest.importorskip("xllamacpp")
    endpoints = endpoints_on_hosts({"": LlamaCpp(slots=2, num_threads=1)}, LINGER)
    some = [started.start(endpoints) for _ in range(2)]
    (url,) = urls(some)
    assert [bool(user.ask()["text"]) for user in some] == [True, True]
    (pid,) = keepers(home)
    os.kill(pid, signal.SIGKILL)
    assert [bool(user.ask()["text"]) for user in some] == [True, True]
    assert until(lambda: bool(states(home)) and state(home).is_up and state(home).pid != pid)
    assert state(home).url == url


@pytest.mark.model
def test_llama_cpps_chat_template_is_read_from_a_server_that_does_not_stay(home):
    pytest.importorskip("xllamacpp")
    ((_, endpoint),) = endpoints_on_hosts({"": LlamaCpp(slots=1, num_threads=1, style="templated")}, LINGER)
    assert endpoint.dialect.template
    assert "<|im_start|>user\nHello" in endpoint.dialect.template.begin("Hello")
    assert endpoint.urls == ()
    assert not list(home.iterdir())


def test_two_models_of_one_run_are_two_servers_of_the_host(home, program, started):
    ((_, actor),) = program
    ((_, judge),) = endpoints_on_hosts({"": Simulated()}, LINGER)
    user = started.start((("", judge), ("judge", actor)))
    assert user.said()["url"]
    assert len(keepers(home)) == 2

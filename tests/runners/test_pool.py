"""The worker pool, asked as TaskManagers ask it; its workers are stand-ins that wait."""

import hashlib
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

from pipelines.errors import UserError
from pipelines.main import main
from pipelines.plan import package_version
from pipelines.runners import package, pool
from pipelines.runners.pool import installed, installed_at, worker_pool


@pytest.fixture(autouse=True)
def waiting_workers(monkeypatch):
    monkeypatch.setattr(pool, "_HARNESS", ("-c", "import time; time.sleep(60)"))
    monkeypatch.setattr(pool.sys, "stderr", sys.__stderr__)


@pytest.fixture
def started(monkeypatch):
    """Processes that the pool has started, in their order."""
    found = []
    start = pool.subprocess.Popen

    def popen(*words, **options):
        found.append(start(*words, **options))
        return found[-1]

    monkeypatch.setattr(pool.subprocess, "Popen", popen)
    return found


def caller(port):
    """One TaskManager: a connection of its own."""
    channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])
    return channel, beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)


def start(stub, number):
    endpoint = {"url": "localhost:1"}
    return stub.StartWorker(beam_fn_api_pb2.StartWorkerRequest(worker_id=number, control_endpoint=endpoint))


def test_two_task_managers_that_give_the_same_number_do_not_stop_each_other(started):
    with worker_pool("127.0.0.1", 0) as port:
        (one, first), (two, second) = caller(port), caller(port)
        with one, two:
            assert start(first, "1-1").error == start(second, "1-1").error == ""
            assert len(started) == 2
            first.StopWorker(beam_fn_api_pb2.StopWorkerRequest(worker_id="1-1"))
            assert started[0].poll() is not None
            assert started[1].poll() is None


def test_its_workers_end_with_it(started):
    with worker_pool("127.0.0.1", 0) as port:
        channel, stub = caller(port)
        with channel:
            start(stub, "1-1")
            start(stub, "1-2")
        assert [process.poll() for process in started] == [None, None]
    assert all(process.poll() is not None for process in started)


def test_workers_run_in_the_pool_s_own_environment(started):
    with worker_pool("127.0.0.1", 0) as port:
        channel, stub = caller(port)
        with channel:
            start(stub, "7-1")
        assert started[0].args[0] == sys.executable
        assert started[0].args[-3:-1] == ["localhost:1", "7-1"]


def test_a_worker_that_cannot_be_started_is_told_to_whoever_asked(monkeypatch):
    monkeypatch.setattr(pool.sys, "executable", "/nowhere/python")
    with worker_pool("127.0.0.1", 0) as port:
        channel, stub = caller(port)
        with channel:
            assert "cannot start a worker" in start(stub, "1-1").error


def test_it_says_what_workers_would_run_that_it_starts_now(monkeypatch):
    with worker_pool("127.0.0.1", 0) as port:
        for content in (b"x = 1", b"x = 2"):  # Installed anew while the pool runs.
            monkeypatch.setattr(package, "_modules", lambda content=content: [("pipelines/new.py", content)])
            code = hashlib.sha256(b"pipelines/new.py 5\n" + content).hexdigest()[:12]
            assert installed_at(f"127.0.0.1:{port}") == installed() == f"{package_version()} (code {code})"


def test_a_pool_of_beams_own_does_not_say_it():
    server = grpc.server(ThreadPoolExecutor(1))
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(
        beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer(), server
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    assert installed_at(f"127.0.0.1:{port}") == ""
    server.stop(0)


def test_a_host_that_there_is_not_is_told_from_a_port_that_is_taken():
    with (
        pytest.raises(UserError, match=r"^--host: there is no host 'nonsense\.invalid'"),
        worker_pool("nonsense.invalid", 0),
    ):
        pass


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--port", "99999"], "argument --port: expected 65535 or less, got 99999"),
        (["--port", "-1"], "argument --port: expected 0 or more, got -1"),
        (["--grace", "-3"], "argument --grace: expected seconds, 0 or more, got -3"),
        (["--grace", "nan"], "argument --grace: expected seconds, 0 or more, got nan"),
    ],
)
def test_what_is_no_port_and_no_time_is_refused(words, says, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["workers", *words])
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_pool_that_is_told_to_stop_has_done_its_work(how):
    command = [sys.executable, "-m", "pipelines.main", "workers", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        said = process.stderr.readline()
        process.send_signal(how)
        rest = process.communicate(timeout=30)[1]
    assert re.fullmatch(r"note: workers start here for whoever asks at 127\.0\.0\.1:[1-9]\d*\n", said)
    assert (process.returncode, rest) == (0, "note: stopped, and its workers with it\n")


def test_a_port_that_is_taken_is_one_line():
    with (
        worker_pool("127.0.0.1", 0) as port,
        pytest.raises(UserError, match=f"cannot listen at 127.0.0.1:{port}"),
        worker_pool("127.0.0.1", port),
    ):
        pass

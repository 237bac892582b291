"""What `wrongturn run runner=flink` says where it cannot work: one line, exit code 2, and no model was asked.

Most of it needs no cluster: a stand-in answers for the JobManager, another one for Java.
"""

import contextlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator

import pytest
from flink_runs import ROOT, is_one_line, wrongturn

from benchmarks.flink_jar import free_ports
from pipelines.main import main
from pipelines.runners.pool import worker_pool

# crowd-kit uses what pandas will drop; crowd-kit's own affair.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:crowdkit")


@contextlib.contextmanager
def answering(body: bytes) -> Iterator[tuple[str, list[str]]]:
    """HOST:PORT of a server that says the same to everybody, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *words: object) -> None:
            del words

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def job_manager(version: str = "1.19.0", slots: int = 2) -> contextlib.AbstractContextManager[tuple[str, list[str]]]:
    overview = {"flink-version": version, "taskmanagers": slots, "slots-total": slots, "slots-available": slots}
    return answering(json.dumps(overview).encode())


@pytest.fixture
def flink(tmp_path, monkeypatch, capsys) -> Iterator:
    """Runs the command with settings on top of those that are well; gives what it complained of."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "java").write_text("#!/bin/sh\necho 'openjdk version \"17.0.1\"' >&2\n")
    (programs / "java").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with zipfile.ZipFile(tmp_path / "server.jar", "w") as jar:
        jar.writestr("META-INF/maven/org.apache.beam/beam-runners-flink-1.19/pom.xml", "")
    with (
        answering(b"{}") as (model, asked),
        worker_pool("127.0.0.1", 0) as pool_port,
        job_manager() as (master, _),
    ):
        well = {
            "engine.url": f"http://{model}",
            "runner.flink_master": master,
            "runner.parallelism": "2",
            "runner.worker_pool": f"127.0.0.1:{pool_port}",
            "runner.job_server_jar": f"{tmp_path / 'server.jar'}",
            "out": f"{tmp_path / 'out'}",
        }

        def complaint(**settings: str) -> str:
            given = well | {name.replace("__", "."): value for name, value in settings.items()}
            words = [f"{name}={value}" for name, value in given.items() if value]
            code = main(["run", "engine=simulated", "problems=simulated", "runner=flink", *words])
            said = capsys.readouterr().err.strip()
            assert (code, is_one_line(said)) == (2, True), said
            assert asked == []
            assert not (tmp_path / "out" / "COMPLETED").exists()
            return said

        yield complaint


def test_nobody_at_the_address(flink):
    (port,) = free_ports(1)
    assert f"runner.flink_master: no JobManager answers at http://127.0.0.1:{port}" in (
        said := flink(runner__flink_master=f"127.0.0.1:{port}")
    )
    assert "start the cluster, or give the address of its REST service as runner.flink_master=HOST:8081" in said


def test_somebody_else_at_the_address(flink):
    with answering(b"<html>It works!</html>") as (address, _):
        assert f"what answers at http://{address} is no Flink REST service" in flink(runner__flink_master=address)


def test_what_is_no_address(flink):
    assert "flink_master must be HOST:PORT, got 'localhost'" in flink(runner__flink_master="localhost")


def test_no_java(flink, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no java is on the PATH" in (said := flink())
    assert "openjdk-17-jre-headless" in said


def test_no_such_jar(flink, tmp_path):
    assert f"there is no file {tmp_path / 'none.jar'}" in flink(runner__job_server_jar=f"{tmp_path / 'none.jar'}")


def test_a_file_that_is_no_jar(flink, tmp_path):
    (tmp_path / "text.jar").write_text("Not Found")
    assert "is no jar" in flink(runner__job_server_jar=f"{tmp_path / 'text.jar'}")


def test_a_jar_for_another_flink(flink):
    with job_manager(version="1.14.6") as (master, _):
        said = flink(runner__flink_master=master)
    assert f"the cluster at http://{master} runs Flink 1.14, and the job server is for 1.19" in said


def test_an_old_flink_that_beam_has_no_job_server_for(flink):
    with job_manager(version="1.14.6") as (master, _):
        said = flink(runner__flink_master=master, runner__job_server_jar="")
    assert "Beam has no job server for Flink 1.14, only for 1.19" in said


def test_more_workers_than_slots(flink):
    said = flink(runner__parallelism="3")
    assert "runner.parallelism is 3" in said
    assert "2 slots on 2 TaskManagers; start more, or set runner.parallelism=2" in said


def test_a_dead_worker_pool(flink):
    (port,) = free_ports(1)
    assert f"runner.worker_pool: nothing listens at 127.0.0.1:{port}" in flink(runner__worker_pool=f"127.0.0.1:{port}")


def test_an_sqlite_journal_that_other_machines_cannot_share(flink):
    said = flink(runner__flink_master="flink.example:8081", runner__worker_pool="localhost:50000")
    assert "journal is a file in `out`, which workers on other machines (runner=flink) cannot share" in said
    assert "journal=redis://HOST:6379/0" in said


@pytest.fixture
def far_pool(cluster, tmp_path) -> Iterator[str]:
    """HOST:PORT of a pool whose workers see an empty folder where the run's output is."""
    tested = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    if os.geteuid() or tested.returncode:
        pytest.skip("needs the right to mount")
    (port,) = free_ports(1)
    command = f"mount -t tmpfs tmpfs '{tmp_path}' && exec '{sys.executable}' -m pipelines.main workers --port={port}"
    with (cluster.folder / "far-pool.log").open("ab") as log:
        pool = subprocess.Popen(["unshare", "--mount", "sh", "-c", command], cwd=ROOT, stdout=log, stderr=log)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        time.sleep(0.2)
    yield f"127.0.0.1:{port}"
    pool.terminate()
    pool.wait(30)


def test_an_output_folder_that_workers_do_not_see(far_pool, stand, tmp_path):
    out = tmp_path / "out"
    words = [*stand.words, *stand.cluster.overrides(), f"out={out}", f"runner.worker_pool={far_pool}"]
    began = time.monotonic()
    code, said = wrongturn(words)
    assert (code, is_one_line(said)) == (2, True), said
    assert f"does not see the run in {out}" in said
    assert "give out=DIR on a disk that all workers have, or out=gs://... or s3://..." in said
    assert stand.server.calls() == []
    assert stand.cluster.running_jobs() == []
    assert time.monotonic() - began < 240  # Not as long as it takes to fail at every restart.
    assert wrongturn([*stand.words, *stand.cluster.overrides(), f"out={out}"]) == (0, "")

"""A Flink cluster as its REST service tells it, and Beam's job server between it and us."""

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions
from apache_beam.runners.portability.flink_runner import FlinkJarJobServer

from pipelines.engines import guardian
from pipelines.errors import UserError
from pipelines.runners.settings import Flink
from schemas import Record

_ASK_SECS = 5.0
_READY_SECS = 120.0
"""Longest time for a job server to come up."""
_STOP_SECS = 10.0
_RUNNING = ("INITIALIZING", "CREATED", "RUNNING", "FAILING", "RESTARTING", "RECONCILING", "SUSPENDED", "CANCELLING")
_HAS_ENDED = (404, 409)
"""Codes for a job that is to be cancelled and has ended meanwhile: forgotten, or in a state of its own."""
_BEAM_RUNNER = re.compile(r"META-INF/maven/org\.apache\.beam/beam-runners-flink-([\d.]+)/")


class ClusterError(UserError):
    """The place where the graph is to run is not there, or not fit; says what is missing and what to do."""


class Overview(Record):
    """What a JobManager says of its cluster."""

    version: str
    task_managers: int
    slots: int
    free_slots: int


class FlinkRest:
    """The REST service of a JobManager."""

    def __init__(self, url: str) -> None:
        self._url = url

    def overview(self) -> Overview:
        """Version and slots.

        Raises:
          ClusterError: nobody is there, or somebody else.
        """
        try:
            seen = self._ask("/overview")
            return Overview(
                version=str(seen["flink-version"]),
                task_managers=int(seen["taskmanagers"]),
                slots=int(seen["slots-total"]),
                free_slots=int(seen["slots-available"]),
            )
        except (OSError, http.client.HTTPException) as error:
            raise ClusterError(
                f"runner.flink_master: no JobManager answers at {self._url}: {error}; start the cluster, or give the "
                "address of its REST service as runner.flink_master=HOST:8081"
            ) from error
        except (KeyError, TypeError, ValueError) as error:
            raise ClusterError(
                f"runner.flink_master: what answers at {self._url} is no Flink REST service ({error!r}); give its "
                "address as runner.flink_master=HOST:8081"
            ) from error

    def running(self, name: str) -> list[str]:
        """Ids of jobs of this name that have not ended."""
        jobs = self._ask("/jobs/overview")["jobs"]
        return [job["jid"] for job in jobs if job["name"] == name and job["state"] in _RUNNING]

    def exceptions(self, name: str) -> list[str]:
        """What jobs of this name that run have stumbled over last, with tracebacks."""
        found = (self._ask(f"/jobs/{job}/exceptions").get("root-exception") for job in self.running(name))
        return [str(text) for text in found if text]

    def cancel(self, name: str, *, within_secs: float = 60.0) -> int:
        """Cancels all jobs of this name and waits until they have ended; gives their number.

        Raises:
          ClusterError: one does not end, or the JobManager does not answer or refuses.
        """
        try:
            jobs = self.running(name)
            for job in jobs:
                self._cancel(job)
            deadline = time.monotonic() + within_secs
            while jobs and self.running(name):
                if time.monotonic() > deadline:
                    raise ClusterError(
                        f"the job {name!r} at {self._url} does not end; cancel it by hand, then start again"
                    )
                time.sleep(0.5)
            return len(jobs)
        except (OSError, http.client.HTTPException) as error:
            raise ClusterError(
                f"the job {name!r} at {self._url} cannot be cancelled ({error}); see whether the cluster is well, "
                "then start again"
            ) from error

    def _cancel(self, job: str) -> None:
        try:
            self._ask(f"/jobs/{job}", method="PATCH")
        except urllib.error.HTTPError as error:
            with error:
                if error.code not in _HAS_ENDED:
                    raise

    def _ask(self, path: str, method: str = "GET") -> Any:
        request = urllib.request.Request(self._url + path, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=_ASK_SECS) as reply:
            return json.loads(reply.read() or b"{}")


def jar_version(jar: Path) -> str:
    """The version of Flink that a job server is for, such as `1.19`; empty where the jar does not say."""
    try:
        with zipfile.ZipFile(jar) as archive:
            found = (_BEAM_RUNNER.match(name) for name in archive.namelist())
            return next((match[1] for match in found if match), "")
    except (OSError, zipfile.BadZipFile) as error:
        raise ClusterError(
            f"runner.job_server_jar: {jar} is no jar ({error}); give the file of a job server"
        ) from error


def find_java() -> str:
    """The java program.

    Raises:
      ClusterError: there is none.
    """
    home = os.environ.get("JAVA_HOME")
    java = shutil.which(os.path.join(home, "bin", "java")) if home else shutil.which("java")
    if home and not java:
        raise ClusterError(
            f"runner=flink: JAVA_HOME is {home!r}, where there is no program bin/java; correct JAVA_HOME, or unset it "
            "to take the java on the PATH"
        )
    if not java:
        raise ClusterError(
            "runner=flink: no java is on the PATH, and the job server is a Java program; install one "
            "(apt install openjdk-17-jre-headless) or set JAVA_HOME"
        )
    return java


def java_version(java: str) -> int:
    """The major version of a java program.

    Raises:
      ClusterError: it does not run.
    """
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=True).stderr
    except (OSError, subprocess.SubprocessError) as error:
        raise ClusterError(f"runner=flink: {java} does not run: {error}") from error
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    if not found:
        raise ClusterError(f"runner=flink: {java} says no version that can be read: {said[:100]!r}")
    return int(found[1])


@contextlib.contextmanager
def job_server(settings: Flink, flink_version: str, log: Path) -> Iterator[str]:
    """Beam's job server for as long as the context lasts; gives its address. It ends with this process, too.

    Args:
      settings: the runner's.
      flink_version: of the cluster, such as `1.19`; empty takes Beam's newest.
      log: file that it writes to.

    Raises:
      ClusterError: it cannot be fetched, or does not come up.
    """
    command, address = _command(settings, flink_version)
    log.parent.mkdir(parents=True, exist_ok=True)
    guard = [sys.executable, "-I", guardian.__file__, str(os.getpid()), str(_STOP_SECS)]
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [*guard, *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the run, which cancels its job by this server.
        )
    try:
        _await_ready(process, address, log)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(2 * _STOP_SECS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _command(settings: Flink, flink_version: str) -> tuple[list[str], str]:
    words = [f"--job_server_java_launcher={find_java()}", f"--flink_master={settings.rest_url or '[local]'}"]
    if settings.job_server_jar:
        words.append(f"--flink_job_server_jar={settings.job_server_jar}")
    if flink_version:
        words.append(f"--flink_version={flink_version}")
    options = PipelineOptions([*words, *settings.options])
    server = FlinkJarJobServer(options)
    try:
        command, address = server.subprocess_cmd_and_endpoint()
    except (OSError, RuntimeError, ValueError) as error:
        version = options.view_as(FlinkRunnerOptions).flink_version
        raise ClusterError(
            f"runner.job_server_jar: Beam's job server for Flink {version} cannot be fetched ({error}); give the file "
            "of one with runner.job_server_jar=FILE"
        ) from error
    return [*command[:1], "-Xmx512m", *command[1:]], address


def _await_ready(process: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    deadline = time.monotonic() + _READY_SECS
    with grpc.insecure_channel(address) as channel:
        ready = grpc.channel_ready_future(channel)
        while process.poll() is None:
            try:
                ready.result(timeout=0.5)
                return
            except grpc.FutureTimeoutError:
                if time.monotonic() > deadline:
                    break
        ready.cancel()
    said = " | ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:])
    how = f"ended with status {process.returncode}" if process.poll() is not None else f"not up in {_READY_SECS:g} s"
    raise ClusterError(f"runner=flink: the job server {how}; it said last: {said[:500]}; its log is {log}")


def is_open(host: str, port: int) -> bool:
    """Whether something listens there."""
    try:
        socket.create_connection((host, port), timeout=_ASK_SECS).close()
    except OSError:
        return False
    return True

"""Google Cloud on this machine: an emulator of Cloud Storage, and a stand-in for Dataflow that runs what it gets."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

# gcsfs reads it when it is imported: otherwise it asks each bucket's kind by gRPC, which no emulator speaks.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
_STATES = {5: "JOB_STATE_CANCELLED"}
"""Numbers of Dataflow's JobState that a client sends."""


@contextlib.contextmanager
def cloud_storage(bucket: str) -> Iterator[str]:
    """URL of a server with one bucket; the environment tells Google's libraries of it as long as the context lasts."""
    pytest.importorskip("google.cloud.dataflow_v1beta3", reason="needs pip install 'wrongturn[dataflow]'")
    pytest.importorskip("gcp_storage_emulator", reason="needs pip install gcp-storage-emulator")
    import apache_beam.internal.gcp.auth as auth

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = str(Path(sys.executable).parent / "gcp-storage-emulator")
    words = ["start", "--host=127.0.0.1", f"--port={port}", "--in-memory", f"--default-bucket={bucket}", "--quiet"]
    server = subprocess.Popen([program, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, server)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
            patch.setenv("NO_GCE_CHECK", "true")
            # Beam looks for credentials half a minute long even where it is told that none are needed.
            patch.setattr(auth._Credentials, "_credentials_init", True)
            patch.setattr(auth._Credentials, "_credentials", None)
            yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


def _wait_for(port: int, server: subprocess.Popen) -> None:
    for _ in range(200):
        assert server.poll() is None, "the emulator ended by itself"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise AssertionError("the emulator does not answer")


def blobs(bucket: str, prefix: str = "") -> dict[str, bytes]:
    """All that lies in a bucket, by name."""
    from google.cloud import storage

    client = storage.Client.create_anonymous_client()
    return {blob.name: blob.download_as_bytes() for blob in client.list_blobs(bucket, prefix=prefix)}


class Service:
    """Dataflow's jobs as its REST interface has them. A job that is submitted is read back from the store and run."""

    def __init__(self) -> None:
        self.jobs: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.holds_jobs = False
        """Whether jobs go on for ever instead of being run."""
        self.is_deaf = False
        """Whether it does nothing of what a job is told to become."""
        self.refuses = ""
        """What it answers to whoever submits."""
        self._lock = threading.Lock()
        self.threads: list[threading.Thread] = []

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and reply."""
        self.asked.append(f"{method} {path}")
        where = re.fullmatch(r"/v1b3/projects/[^/]+/locations/[^/]+/jobs(?:/([^/]+))?(/\w+)?", path)
        if where is None:
            return 404, {"error": {"code": 404, "message": f"no {path}"}}
        if where[2]:  # Messages and metrics.
            return 200, {}
        if where[1] is None:
            return self._submit(body) if method == "POST" else (200, {"jobs": self._active()})
        (job,) = (job for job in self.jobs if job["id"] == where[1])
        if method == "PUT" and not self.is_deaf:
            job["currentState"] = _STATES[body["requestedState"]]
        return 200, job

    def _active(self) -> list[dict[str, Any]]:
        return [job for job in self.jobs if job["currentState"] == "JOB_STATE_RUNNING"]

    def _submit(self, job: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.refuses:
            return 403, {"error": {"code": 403, "message": self.refuses, "status": "PERMISSION_DENIED"}}
        with self._lock:
            for other in self._active():
                if other["name"] == job["name"]:  # As the service does: it gives the one that there is.
                    return 200, other
            job |= {"id": f"job-{len(self.jobs)}", "currentState": "JOB_STATE_RUNNING"}
            self.jobs.append(job)
        if not self.holds_jobs:
            self.threads.append(threading.Thread(target=self._run, args=(job,), daemon=True))
            self.threads[-1].start()
        return 200, job

    def _run(self, job: dict[str, Any]) -> None:
        try:
            bucket, _, name = job["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"][5:].partition("/")
            run_staged(blobs(bucket, name)[name])
            job["currentState"] = "JOB_STATE_DONE"
        except Exception:  # noqa: BLE001  # whatever it is, the job has failed
            job["trouble"] = traceback.format_exc()
            job["currentState"] = "JOB_STATE_FAILED"


def run_staged(pipeline: bytes) -> None:
    """Runs a pipeline as it was staged, its workers in this process instead of in their image."""
    proto = beam_runner_api_pb2.Pipeline.FromString(pipeline)
    for environment in proto.components.environments.values():
        environment.urn, environment.payload = python_urns.EMBEDDED_PYTHON, b""
        del environment.dependencies[:]
    options = PipelineOptions(["--direct_num_workers=1", "--direct_running_mode=in_memory"])
    FnApiRunner().run_via_runner_api(proto, options).wait_until_finish()


@contextlib.contextmanager
def dataflow_service() -> Iterator[tuple[str, Service]]:
    """Such a service and its URL, which has a name that makes Google's client speak HTTP."""
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, reply = service.answer(self.command, self.path.partition("?")[0], json.loads(content or b"{}"))
            text = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = _answer

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://localhost:{server.server_address[1]}", service
        finally:
            for each in service.threads:
                each.join(60)
            server.shutdown()
            thread.join()

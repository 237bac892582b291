"""A worker pool: starts a worker process for whoever asks, such as the Flink TaskManagers of one machine.

Beam has one of its own (`apache_beam.runners.worker.worker_pool_main`). It listens to the whole network, starts
whatever `python` comes first on the PATH, and knows workers by a number alone, which two TaskManagers both give: one
that is done stops the other's. This one listens where it is told, runs workers in its own environment, and lets nobody
stop another's.
"""

import contextlib
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

from pipelines.errors import UserError
from pipelines.plan import package_version
from pipelines.runners.flink import ClusterError
from pipelines.runners.package import code_digest

_LOG = logging.getLogger(__name__)
_HARNESS = ("-m", "pipelines.runners.harness")
GRACE_SECS = 60.0
"""How long a worker that is stopped may wait for answers that it has asked for."""
_KILL_SECS = 5.0
"""What it may take beyond that."""
_THREADS = 16
"""Requests that are answered at once; each takes no longer than a process takes to start or to be stopped."""
_SERVICE, _METHOD = "wrongturn.WorkerPool", "Version"
"""Beside Beam's service; request and reply are bytes."""
_ASK_SECS = 5.0


class WorkerPool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """Beam's external worker pool service (`beam_fn_api.proto`, `BeamFnExternalWorkerPool`)."""

    def __init__(self, grace_secs: float = GRACE_SECS) -> None:
        self._grace_secs = grace_secs
        self._lock = threading.Lock()
        self._workers: dict[tuple[str, str], subprocess.Popen[bytes]] = {}
        """By who asked and by the number that it gave."""

    def StartWorker(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Starts a worker that does what the runner at the request's control endpoint says."""
        endpoint, number = request.control_endpoint.url, request.worker_id
        try:
            worker = subprocess.Popen(
                [sys.executable, *_HARNESS, endpoint, number, str(self._grace_secs)],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno(),
            )
        except OSError as error:
            return beam_fn_api_pb2.StartWorkerResponse(error=f"cannot start a worker: {error}")
        with self._lock:
            self._workers = {key: each for key, each in self._workers.items() if each.poll() is None}
            self._workers[context.peer(), number] = worker
        _LOG.info("started worker %s for %s as process %d", number, endpoint, worker.pid)
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Stops a worker that the same caller started. Another's, or one that nobody knows, ends with its runner."""
        with self._lock:
            worker = self._workers.pop((context.peer(), request.worker_id), None)
        if worker:
            self._stop([worker])
        return beam_fn_api_pb2.StopWorkerResponse()

    def close(self) -> None:
        """Stops all workers."""
        with self._lock:
            workers, self._workers = list(self._workers.values()), {}
        self._stop(workers)

    def _stop(self, workers: Sequence["subprocess.Popen[bytes]"]) -> None:
        """Asks them to end, and waits until they have."""
        for worker in workers:
            worker.terminate()
        deadline = time.monotonic() + self._grace_secs + _KILL_SECS
        for worker in workers:
            try:
                worker.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _LOG.warning("worker %d does not end and is killed", worker.pid)
                worker.kill()
                worker.wait()


@contextlib.contextmanager
def worker_pool(host: str, port: int, grace_secs: float = GRACE_SECS) -> Iterator[int]:
    """Serves as long as the context lasts; its workers end with it. Gives the port, a free one for 0.

    Raises:
      UserError: the host is none of this machine's, or the port is taken.
    """
    options = [("grpc.http2.max_pings_without_data", 0), ("grpc.http2.max_ping_strikes", 0), ("grpc.so_reuseport", 0)]
    server = grpc.server(ThreadPoolExecutor(_THREADS), options=options)
    version = {_METHOD: grpc.unary_unary_rpc_method_handler(lambda request, context: installed().encode())}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, version),))
    pool = WorkerPool(grace_secs)
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
    try:
        socket.getaddrinfo(host, port)
    except OSError as error:
        raise UserError(
            f"--host: there is no host {host!r} ({error}); give a name or number of this machine"
        ) from error
    try:
        bound: int = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise UserError(
            f"--host, --port: cannot listen at {host}:{port}; is another pool running there, or is the host not this "
            f"machine? ({error})"
        ) from error
    server.start()
    try:
        yield bound
    finally:
        server.stop(0)
        pool.close()


def installed() -> str:
    """Version and code of wrongturn as they lie here: what a worker would find that is started now."""
    return f"{package_version()} (code {code_digest.__wrapped__()[:12]})"


def installed_at(address: str) -> str:
    """What a pool says of the same; empty where it does not say, as Beam's own.

    Raises:
      ClusterError: what listens at `address` is no worker pool.
    """
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_ASK_SECS)
            reply: bytes = channel.unary_unary(f"/{_SERVICE}/{_METHOD}")(b"", timeout=_ASK_SECS)
        except grpc.FutureTimeoutError as error:
            raise ClusterError(
                f"runner.worker_pool: what listens at {address} is no worker pool; start one with wrongturn workers, "
                "and give its address"
            ) from error
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return ""
            raise ClusterError(
                f"runner.worker_pool: the pool at {address} does not answer ({error.code().name}); start it again"
            ) from error
    return reply.decode()


def serve_pool(host: str, port: int, grace_secs: float) -> None:
    """Serves until it is interrupted."""
    with contextlib.suppress(KeyboardInterrupt), worker_pool(host, port, grace_secs) as bound:
        _LOG.info("workers start here for whoever asks at %s:%d", host, bound)
        threading.Event().wait()
    _LOG.info("stopped, and its workers with it")

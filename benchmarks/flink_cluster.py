"""A Flink cluster of one's own on this machine, for tests and figures: every part may be killed and started again.

A JobManager and TaskManagers of one slot each out of the job server's jar, the product's worker pool, and a Redis, all
at free ports of the loopback address. Every process is known by its id, and stopped by it; the kernel ends those that
are left should this process be killed.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.flink_jar import OPENS, find_jar, free_ports
from pipelines.journal import PASSWORD_ENV
from pipelines.runners import harness
from pipelines.runners.flink import is_open

if TYPE_CHECKING:
    from benchmarks.redis_server import RedisServer

_ROOT = Path(__file__).resolve().parents[1]
_MARK_ENV = "WRONGTURN_FLINK_CLUSTER"
"""In the environment of everything that a cluster has started: workers outlive a pool that is killed."""
_READY_SECS = 240.0
_STOP_SECS = 10.0
_MIB = 1 << 20

_TASK_MANAGER = {
    "taskmanager.cpu.cores": "1.0",
    "taskmanager.memory.network.min": f"{128 * _MIB}b",
    "taskmanager.memory.network.max": f"{128 * _MIB}b",
    "taskmanager.memory.managed.size": f"{128 * _MIB}b",
    "taskmanager.memory.task.heap.size": f"{256 * _MIB}b",
    "taskmanager.memory.task.off-heap.size": "0b",
    "taskmanager.memory.framework.heap.size": f"{128 * _MIB}b",
    "taskmanager.memory.framework.off-heap.size": f"{128 * _MIB}b",
    "taskmanager.memory.jvm-metaspace.size": f"{256 * _MIB}b",
    "taskmanager.memory.jvm-overhead.min": f"{192 * _MIB}b",
    "taskmanager.memory.jvm-overhead.max": f"{192 * _MIB}b",
}
"""What Flink's start scripts would work out: about 0.5 GB for each."""


ClusterPart = Literal["task manager", "worker", "pool", "pool and workers", "job manager"]
"""What can be killed: the pool alone, whose workers live on without it, or the workers with it."""


class FlinkCluster:
    """The cluster. Made empty; `flink_cluster` gives one that is up."""

    def __init__(self, folder: Path, *, task_managers: int = 2, restarts: bool = True) -> None:
        """Prepares a cluster; raises NoFlink where what it needs is not here.

        Args:
          folder: for its settings and logs.
          task_managers: of one slot each, that `heal` starts.
          restarts: whether Flink runs again by itself what was lost, which it does not by default.
        """
        self.jar = find_jar()
        self.folder = folder
        self.rest_port, self._rpc_port, self.pool_port = free_ports(3)
        self._wanted = task_managers
        self._task_managers: list[subprocess.Popen[bytes]] = []
        self._job_manager: subprocess.Popen[bytes] | None = None
        self._pool: subprocess.Popen[bytes] | None = None
        self._redis: RedisServer | None = None
        self._started = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._write_settings(restarts=restarts)

    @property
    def master(self) -> str:
        """HOST:PORT of the JobManager's REST service."""
        return f"127.0.0.1:{self.rest_port}"

    @property
    def pool(self) -> str:
        """HOST:PORT of the worker pool."""
        return f"127.0.0.1:{self.pool_port}"

    @property
    def redis(self) -> "RedisServer":
        """The Redis server; started when it is first asked for."""
        from benchmarks.redis_server import RedisServer

        if not self._redis:
            folder = self.folder / "redis"
            folder.mkdir()
            self._redis = RedisServer(folder)
        return self._redis

    def overrides(self, *, parallelism: int = 0) -> list[str]:
        """Settings of a run that works here."""
        return [
            *("runner=flink", f"runner.flink_master={self.master}", f"runner.worker_pool={self.pool}"),
            *(f"runner.parallelism={parallelism or self._wanted}", f"runner.job_server_jar={self.jar}"),
        ]

    @property
    def environment(self) -> dict[str, str]:
        """What whoever has a journal on its Redis must have in the environment."""
        from benchmarks.redis_server import PASSWORD

        return {PASSWORD_ENV: PASSWORD}

    def start(self) -> None:
        """Starts all of it; returns when it is up."""
        self.start_job_manager(wait=False)
        self.start_pool(wait=False)
        self.heal()

    def heal(self) -> None:
        """Brings back what was killed, takes away what was started beyond, and ends jobs and workers that are left."""
        self.start_job_manager()
        self.start_pool()
        self._task_managers = [each for each in self._task_managers if each.poll() is None]
        for extra in self._task_managers[self._wanted :]:
            _stop(extra)
        del self._task_managers[self._wanted :]
        while len(self._task_managers) < self._wanted:
            self.start_task_manager(wait=False)
        for job in self.running_jobs():
            self.ask(f"/jobs/{job}", method="PATCH")
        self._await("free slots on every TaskManager", self._is_whole)
        self.kill(self.workers())  # Those of a job before are not the ones to be killed in the next.

    def start_job_manager(self, *, wait: bool = True) -> None:
        """Starts the JobManager where none runs."""
        if not _is_alive(self._job_manager):
            main = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
            self._job_manager = self._start("job-manager", [*self._java(768), main, *self._config()])
        if wait:
            self._await("the JobManager", self._answers)

    def await_slots(self) -> None:
        """Returns when a JobManager that was started again knows all TaskManagers."""
        self._await("all slots", lambda: int(self.ask("/overview")["slots-total"]) >= self._wanted)

    def start_task_manager(self, *, wait: bool = True) -> int:
        """Starts one more TaskManager; returns its number."""
        main = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
        sizes = [word for name, value in _TASK_MANAGER.items() for word in ("-D", f"{name}={value}")]
        java = [*self._java(512), main, *self._config(), *sizes]
        self._task_managers.append(self._start("task-manager", java))
        alive = sum(map(_is_alive, self._task_managers))
        if wait:
            self._await(f"{alive} TaskManagers", lambda: int(self.ask("/overview")["taskmanagers"]) >= alive)
        return len(self._task_managers) - 1

    def start_pool(self, *, wait: bool = True) -> None:
        """Starts the worker pool where none runs, as a supervisor would."""
        if not _is_alive(self._pool):
            command = [sys.executable, "-m", "pipelines.main", "workers", f"--port={self.pool_port}"]
            self._pool = self._start("pool", command)
        if wait:
            self._await("the worker pool", lambda: is_open("127.0.0.1", self.pool_port))

    def victims(self, part: ClusterPart) -> list[int]:
        """Process ids of a part that works: the first TaskManager, the oldest worker.

        Raises:
          RuntimeError: there are no workers.
        """
        match part:
            case "task manager":
                return [self._task_managers[0].pid]
            case "worker":
                return self._present_workers()[:1]
            case "pool":
                return [_pid(self._pool)]
            case "pool and workers":
                return [_pid(self._pool), *self._present_workers()]
            case "job manager":
                return [_pid(self._job_manager)]

    def kill(self, pids: Sequence[int]) -> float:
        """SIGKILL to one right after the other; gives the moment of the last, and returns when all have ended."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        for process in (self._job_manager, *self._task_managers, self._pool):
            if process and process.pid in pids:
                process.wait(_STOP_SECS)
        self._await("the end of workers", lambda: not set(pids) & set(self.workers()))
        return killed

    def _present_workers(self) -> list[int]:
        if found := self.workers():
            return found
        raise RuntimeError(f"expected workers to kill, found none; logs are in {self.folder}")

    def workers(self) -> list[int]:
        """Process ids of the Python workers that pools of this cluster have started, oldest first."""
        return [pid for pid in self._marked() if harness.__name__.encode() in _read(pid, "cmdline").split(b"\0")]

    def ask(self, path: str, *, method: str = "GET") -> Any:
        """What the JobManager's REST service answers."""
        request = urllib.request.Request(f"http://{self.master}{path}", method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as reply:
            return json.loads(reply.read() or b"{}")

    def jobs(self) -> dict[str, str]:
        """State by id of all jobs that this JobManager has seen."""
        return {job["jid"]: job["state"] for job in self.ask("/jobs/overview")["jobs"]}

    def running_jobs(self) -> list[str]:
        """Ids of those that have not ended."""
        return [job for job, state in self.jobs().items() if state not in ("FINISHED", "CANCELED", "FAILED")]

    def stop(self) -> None:
        """Ends every process that was started, and every worker."""
        for process in (self._pool, *self._task_managers, self._job_manager):
            if process:
                _stop(process)
        if self._redis:
            self._redis.kill()
        for pid in self._marked():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _java(self, heap: int) -> list[str]:
        return ["java", *OPENS, f"-Xmx{heap}m", "-XX:MaxDirectMemorySize=512m", "-cp", str(self.jar)]

    def _config(self) -> list[str]:
        return ["--configDir", str(self.folder)]

    def _write_settings(self, *, restarts: bool) -> None:
        settings = {
            "jobmanager.rpc.address": "127.0.0.1",
            "jobmanager.rpc.port": self._rpc_port,
            "jobmanager.bind-host": "127.0.0.1",
            "jobmanager.memory.process.size": "1600m",
            "rest.address": "127.0.0.1",
            "rest.bind-address": "127.0.0.1",
            "rest.port": self.rest_port,
            "taskmanager.bind-host": "127.0.0.1",
            "taskmanager.host": "127.0.0.1",
            "taskmanager.numberOfTaskSlots": 1,
            "io.tmp.dirs": self.folder / "tmp",
            # A dead TaskManager is missed after 10 s and not after Flink's 50.
            "heartbeat.interval": 2000,
            "heartbeat.timeout": 10000,
        }
        if restarts:
            # Beam gives a batch job no strategy of its own, and Flink's default is to fail it at the first loss.
            settings |= {
                "restart-strategy.type": "fixed-delay",
                "restart-strategy.fixed-delay.attempts": 10,
                "restart-strategy.fixed-delay.delay": "1 s",
            }
        (self.folder / "tmp").mkdir(exist_ok=True)
        lines = "".join(f"{name}: {value}\n" for name, value in settings.items())
        (self.folder / "flink-conf.yaml").write_text(lines)

    def _start(self, name: str, command: Sequence[str]) -> "subprocess.Popen[bytes]":
        self._started += 1
        # Of util-linux: the kernel kills what it starts when this process is gone, however it went.
        bound = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        with (self.folder / f"{self._started:02d}-{name}.log").open("ab") as log:
            return subprocess.Popen(
                [*bound, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=_ROOT,
                env=os.environ | self.environment | {_MARK_ENV: str(self.folder)},
                start_new_session=True,
            )

    def _marked(self) -> list[int]:
        """Process ids of what this cluster has started, oldest first."""
        mark = f"{_MARK_ENV}={self.folder}".encode()
        pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
        return sorted((pid for pid in pids if mark in _read(pid, "environ").split(b"\0")), key=_started_at)

    def _answers(self) -> bool:
        return "slots-total" in self.ask("/overview")

    def _is_whole(self) -> bool:
        seen = self.ask("/overview")
        return int(seen["slots-available"]) == int(seen["slots-total"]) == int(seen["taskmanagers"]) == self._wanted

    def _await(self, what: str, is_there: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _READY_SECS
        while True:
            with contextlib.suppress(OSError, ValueError, KeyError):
                if is_there():
                    return
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {_READY_SECS:g} s for {what}; logs are in {self.folder}")
            time.sleep(0.2)


def _is_alive(process: "subprocess.Popen[bytes] | None") -> bool:
    return process is not None and process.poll() is None


def _pid(process: "subprocess.Popen[bytes] | None") -> int:
    assert process
    return process.pid


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_STOP_SECS)


def _started_at(pid: int) -> int:
    """Ticks from the machine's start to the process's, field 22 of proc_pid_stat(5); 0 where it is gone."""
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[19]) if fields else 0


def _read(pid: int, name: str) -> bytes:
    """A file of a process; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


@contextlib.contextmanager
def flink_cluster(folder: Path, *, task_managers: int = 2, restarts: bool = True) -> Iterator[FlinkCluster]:
    """A cluster that is up, for as long as the context lasts; raises NoFlink where what it needs is not here."""
    cluster = FlinkCluster(folder, task_managers=task_managers, restarts=restarts)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()

"""Where the graph runs, and what that place must be told. `conf/runner/` holds one file for each kind."""

import ipaddress
import re
from typing import Literal
from urllib.parse import urlsplit

from schemas import Record

_VERSION = re.compile(r"\d+\.\d+(\.\d+)?")
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>\d{1,5})")


def split_address(text: str, name: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`.

    Raises:
      ValueError: it is none; names the setting.
    """
    found = _ADDRESS.fullmatch(text)
    if not found or not 0 < int(found["port"]) < 65536:
        raise ValueError(f"{name} must be HOST:PORT, got {text!r}")
    return found["host"].strip("[]"), int(found["port"])


def is_loopback(host: str) -> bool:
    """Whether a host's name or number means this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class RunnerSettings(Record):
    """What every place where the graph runs has."""

    max_in_flight: int = 32
    """Elements of one stage that a worker has in hand at once, for example trees."""
    problems_per_shard: int = 512
    """Problems that are written and committed together; the local runner also works on so many at a time, which bounds
    its memory."""
    checker_processes: int = 1
    """Processes of a worker that check answers, each killable."""
    checker_cpu_secs: float = 5.0
    """CPU time that one answer may cost before it counts as unscored."""

    def __post_init__(self) -> None:
        for name in ("max_in_flight", "problems_per_shard", "checker_processes", "checker_cpu_secs"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")

    @property
    def shares_disk(self) -> bool:
        """Whether all workers are on this machine, with its disk and its loopback."""
        return True

    @property
    def only_stages(self) -> bool:
        """Whether the work is left to a job that somebody else starts."""
        return False


class Direct(RunnerSettings, tag_field="kind", tag="direct"):
    """In this process, one worker."""


class Cluster(RunnerSettings):
    """Somewhere else, by a job that is submitted and watched."""

    shards_per_job: int = 0
    """Shards that one job fills; 0 fills all in one. What a job has done stays whatever becomes of the next, and each
    costs the cluster's time to start one."""
    watch_secs: float = 2.0
    """Between two looks at how a job goes."""
    worker_start_secs: float = 300.0
    """How long a job may be without a single worker before it is given up."""
    options: tuple[str, ...] = ()
    """Further options of Beam's for this runner, such as `['--job_server_java_launcher=/opt/java/bin/java']`. They are
    written down: no keys."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shards_per_job < 0:
            raise ValueError(f"shards_per_job must not be below 0, got {self.shards_per_job}")
        for name in ("watch_secs", "worker_start_secs"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if wrong := [option for option in self.options if not re.match(r"--\w", option)]:
            raise ValueError(f"options must be words such as --name=value, got {wrong[0]!r}")


class Flink(Cluster, tag_field="kind", tag="flink"):
    """A Flink cluster, or a small one inside the job server."""

    flink_master: str = "[local]"
    """HOST:PORT of the JobManager's REST service; `[local]` runs an embedded cluster on this machine."""
    parallelism: int = 1
    """Workers at once: not more than the cluster has slots."""
    job_server_jar: str = ""
    """Beam's Flink job server, a file or a URL; empty has Beam download its own for the cluster's version of Flink."""
    flink_version: str = ""
    """Of Flink, such as `1.19`; empty asks the cluster, and takes the jar's or Beam's newest for `[local]`."""
    environment: Literal["", "loopback", "external", "process", "docker"] = ""
    """How workers' Python is started. `loopback`: in this process (the default for `[local]`). `external`: by the pool
    at `worker_pool`. `process`: by `worker_command` on each TaskManager. `docker`: from `container_image`."""
    worker_pool: str = ""
    """HOST:PORT of Beam's worker pool, as TaskManagers see it: `localhost:50000` is one beside each of them."""
    container_image: str = ""
    worker_command: str = ""
    restarts: int = 10
    """Times that a job whose workers were lost is submitted again, beside what the cluster's own restart strategy does;
    no savepoint is needed: answers are in the journal."""
    restart_delay_secs: float = 5.0
    patience_secs: float = 60.0
    """How long a JobManager may be away before the run ends."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.is_remote:
            split_address(_without_scheme(self.flink_master), "flink_master")
        if self.parallelism < 1:
            raise ValueError(f"parallelism must be at least 1, got {self.parallelism}")
        if self.flink_version and not _VERSION.fullmatch(self.flink_version):
            raise ValueError(f"flink_version must be such as 1.19, got {self.flink_version!r}; leave it out to ask")
        if self.restarts < 0 or self.restart_delay_secs < 0 or self.patience_secs < 0:
            raise ValueError("restarts, restart_delay_secs and patience_secs must not be below 0")
        needed = {"external": "worker_pool", "process": "worker_command", "docker": "container_image"}
        for environment, name in needed.items():
            value = getattr(self, name)
            if environment == self.starts_workers and not value:
                raise ValueError(f"environment={environment} needs runner.{name}")
            if environment != self.starts_workers and value:
                raise ValueError(
                    f"{name} is for environment={environment}, and this one is {self.starts_workers}; give one of them"
                )
        if self.worker_pool:
            split_address(self.worker_pool, "worker_pool")
        if self.starts_workers == "loopback" and self.is_remote and not self.is_here:
            raise ValueError(
                f"environment=loopback runs all workers in this process, which {self.flink_master} is far from; set "
                "runner.environment and runner.worker_pool, .container_image or .worker_command"
            )

    @property
    def is_remote(self) -> bool:
        """Whether there is a cluster to be asked."""
        return self.flink_master != "[local]"

    @property
    def is_here(self) -> bool:
        """Whether the JobManager is on this machine."""
        if not self.is_remote:
            return True
        return is_loopback(split_address(_without_scheme(self.flink_master), "flink_master")[0])

    @property
    def rest_url(self) -> str:
        """Base URL of the JobManager's REST service; empty for `[local]`."""
        if not self.is_remote:
            return ""
        scheme = urlsplit(self.flink_master).scheme if "://" in self.flink_master else "http"
        return f"{scheme}://{_without_scheme(self.flink_master)}"

    @property
    def starts_workers(self) -> str:
        """The environment that is meant: the one that is set, or the one that its details imply."""
        if self.environment:
            return self.environment
        details = {"external": self.worker_pool, "docker": self.container_image, "process": self.worker_command}
        return next((name for name, value in details.items() if value), "loopback")

    @property
    def shares_disk(self) -> bool:
        """Where JobManager and pool are on loopback, TaskManagers are taken to be here, too.

        Containers have disks of their own.
        """
        if self.worker_pool and not is_loopback(split_address(self.worker_pool, "worker_pool")[0]):
            return False
        return self.is_here and self.starts_workers != "docker"


def _without_scheme(address: str) -> str:
    return address.partition("://")[2].rstrip("/") if "://" in address else address


class Prism(Cluster, tag_field="kind", tag="prism"):
    """Beam's portable local runner, a program of its own; workers run in this process."""

    location: str = ""
    """Its binary, a file or a URL; empty has Beam download its own."""


class Dataflow(Cluster, kw_only=True, tag_field="kind", tag="dataflow"):
    """Google Cloud Dataflow."""

    project: str
    region: str
    temp_location: str
    """gs:// folder for what a job leaves behind."""
    worker_start_secs: float = 1800.0
    """As elsewhere; machines have to be found, and install what their image has not."""
    staging_location: str = ""
    """gs:// folder that the job is staged to; empty takes `temp_location`/staging."""
    sdk_container_image: str = ""
    """Image of the workers, with wrongturn's dependencies in it (`deploy/Dockerfile`); empty has Dataflow install them
    at start."""
    num_workers: int = 0
    """At the start; 0 leaves it to Dataflow."""
    max_num_workers: int = 0
    """0 leaves it to Dataflow."""
    machine_type: str = ""
    service_account_email: str = ""
    subnetwork: str = ""
    template: str = ""
    """gs:// path: stages the job and writes its description there, and runs nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("temp_location", "staging_location", "template"):
            value = getattr(self, name)
            if value and not re.fullmatch(r"gs://[a-z0-9][a-z0-9._-]+(/.*)?", value):
                raise ValueError(f"{name} must be a path on Cloud Storage such as gs://BUCKET/FOLDER, got {value!r}")
        if self.num_workers < 0 or self.max_num_workers < 0:
            raise ValueError("num_workers and max_num_workers must not be below 0")
        if self.max_num_workers and self.num_workers > self.max_num_workers:
            raise ValueError(f"num_workers={self.num_workers} is above max_num_workers={self.max_num_workers}")

    @property
    def shares_disk(self) -> bool:
        """Workers are machines of the cloud."""
        return False

    @property
    def only_stages(self) -> bool:
        """With a template, nothing is run."""
        return bool(self.template)


AnyRunner = Direct | Flink | Prism | Dataflow

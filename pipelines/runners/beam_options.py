"""From a runner's settings to the options by which Beam knows it."""

import json

from pipelines.runners.settings import Cluster, Flink, Prism

_LOOPBACK = ["--environment_type=LOOPBACK"]


def flink_options(settings: Flink, job_name: str, job_endpoint: str) -> list[str]:
    """Options of a job for Flink, submitted to the job server at `job_endpoint`."""
    return [
        "--runner=FlinkRunner",
        f"--job_name={job_name}",
        f"--job_endpoint={job_endpoint}",
        f"--flink_master={settings.rest_url or '[local]'}",
        f"--parallelism={settings.parallelism}",
        *_environment(settings),
        *settings.options,
    ]


def _environment(settings: Flink) -> list[str]:
    match settings.starts_workers:
        case "external":
            return ["--environment_type=EXTERNAL", f"--environment_config={settings.worker_pool}"]
        case "process":
            command = json.dumps({"command": settings.worker_command})
            return ["--environment_type=PROCESS", f"--environment_config={command}"]
        case "docker":
            return ["--environment_type=DOCKER", f"--environment_config={settings.container_image}"]
    return _LOOPBACK


def prism_options(settings: Prism, job_name: str) -> list[str]:
    """Options of a job for Prism."""
    where = [f"--prism_location={settings.location}"] if settings.location else []
    return ["--runner=PrismRunner", f"--job_name={job_name}", *where, *_LOOPBACK, *settings.options]


def runs_here(settings: Cluster) -> bool:
    """Whether workers are threads of the process that submits."""
    return isinstance(settings, Prism) or (isinstance(settings, Flink) and settings.starts_workers == "loopback")

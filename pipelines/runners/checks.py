"""What must be there before a job is submitted: found out without submitting one."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from apache_beam.options.pipeline_options import FlinkRunnerOptions

from pipelines.errors import UserError
from pipelines.runners.flink import ClusterError, FlinkRest, find_java, is_open, jar_version, java_version
from pipelines.runners.pool import installed, installed_at
from pipelines.runners.settings import AnyRunner, Dataflow, Flink, Prism, is_loopback, split_address
from schemas import Record

S = TypeVar("S")

_LEAST_JAVA = 11


class Finding(Record):
    """One thing that was looked at."""

    what: str
    is_well: bool
    found: str


def check_runner(settings: AnyRunner) -> None:
    """Raises UserError for the first thing that is missing or does not fit."""
    for finding in examine_runner(settings):
        if not finding.is_well:
            raise ClusterError(finding.found)


def examine_runner(settings: AnyRunner) -> list[Finding]:
    """Everything that a runner needs, as far as it can be seen from here."""
    if isinstance(settings, Flink):
        looks: dict[str, Callable[[Flink], str]] = {
            "java": _java,
            "job server": _jar,
            "cluster": _cluster,
            "worker pool": _pool,
        }
        return [_look(what, look, settings) for what, look in looks.items()]
    if isinstance(settings, Prism):
        return [_look("prism", _prism, settings)]
    if isinstance(settings, Dataflow):
        from pipelines.runners.dataflow import CHECKS

        findings: list[Finding] = []
        for what, look in CHECKS.items():
            findings.append(_look(what, look, settings))
            if not findings[-1].is_well:  # Each uses what the one before has found.
                break
        return findings
    return []


def _look(what: str, look: Callable[[S], str], settings: S) -> Finding:
    try:
        return Finding(what=what, is_well=True, found=look(settings))
    except UserError as error:
        return Finding(what=what, is_well=False, found=str(error))


def _java(settings: Flink) -> str:
    java = find_java()
    version = java_version(java)
    if version < _LEAST_JAVA:
        raise ClusterError(f"runner=flink: {java} is Java {version}, and Flink needs {_LEAST_JAVA} or newer")
    return f"{java}, Java {version}"


def _jar(settings: Flink) -> str:
    if not settings.job_server_jar:
        return "Beam's own, downloaded at the first start"
    if "://" in settings.job_server_jar:
        return f"{settings.job_server_jar}, downloaded at the first start"
    jar = Path(settings.job_server_jar)
    if not jar.is_file():
        raise ClusterError(f"runner.job_server_jar: there is no file {jar.absolute()}; leave it empty for Beam's own")
    version = jar_version(jar)
    return f"{jar}, for Flink {version}" if version else f"{jar}, which does not say for which Flink"


def _cluster(settings: Flink) -> str:
    if not settings.is_remote:
        return f"embedded, {settings.parallelism} slots, Flink {flink_version(settings, '') or 'of the job server'}"
    seen = FlinkRest(settings.rest_url).overview()
    ours = flink_version(settings, seen.version)
    if seen.slots < settings.parallelism:
        raise ClusterError(
            f"runner.parallelism is {settings.parallelism}, and the cluster at {settings.rest_url} has {seen.slots} "
            f"slots on {seen.task_managers} TaskManagers; start more, or set runner.parallelism={seen.slots}"
        )
    return (
        f"Flink {seen.version} at {settings.rest_url}, {seen.task_managers} TaskManagers, {seen.free_slots} of "
        f"{seen.slots} slots free; the job server is for {ours}"
    )


def flink_version(settings: Flink, of_cluster: str) -> str:
    """The version of Flink whose job server is taken, such as `1.19`; empty leaves it to Beam.

    Raises:
      ClusterError: cluster, setting and jar are not all for the same, or there is no job server for it.
    """
    given, of_jar, of_cluster = _minor(settings.flink_version), "", _minor(of_cluster)
    if settings.job_server_jar and "://" not in settings.job_server_jar:
        of_jar = _minor(jar_version(Path(settings.job_server_jar)))
    if given and of_jar and given != of_jar:
        raise ClusterError(
            f"runner.flink_version={given}: {settings.job_server_jar} (runner.job_server_jar) is a job server for "
            f"Flink {of_jar}; leave runner.flink_version out, or give a jar for {given}"
        )
    ours = given or of_jar
    if ours and of_cluster and ours != of_cluster:
        raise ClusterError(
            f"runner.flink_version: the cluster at {settings.rest_url} runs Flink {of_cluster}, and the job server is "
            f"for {ours}; give a jar for {of_cluster} with runner.job_server_jar, or start a cluster of {ours}"
        )
    version = ours or of_cluster
    published = FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS
    if version and version not in published and not settings.job_server_jar:
        raise ClusterError(
            f"runner.flink_version: Beam has no job server for Flink {version}, only for {', '.join(published)}; start "
            "a cluster of one of these, or give a jar with runner.job_server_jar"
        )
    return version if version in published else ""


def _minor(version: str) -> str:
    """`1.19` of `1.19.3`: a job server is for all of these."""
    return ".".join(version.split(".")[:2])


def _pool(settings: Flink) -> str:
    if settings.starts_workers != "external":
        return f"none needed: environment={settings.starts_workers}"
    host, port = split_address(settings.worker_pool, "worker_pool")
    if is_loopback(host) and not settings.is_here:
        return f"{settings.worker_pool} beside each TaskManager, which cannot be seen from here"
    if not is_open(host, port):
        raise ClusterError(
            f"runner.worker_pool: nothing listens at {settings.worker_pool}; start it with "
            f"wrongturn workers --port {port}, in an environment that has the same version"
        )
    theirs, ours = installed_at(settings.worker_pool), installed()
    if not theirs:
        return f"{settings.worker_pool}, which does not say what its workers run"
    if theirs != ours:
        raise ClusterError(
            f"runner.worker_pool: workers of the pool at {settings.worker_pool} have wrongturn {theirs}, and this is "
            f"{ours}; install the same in both places"
        )
    return f"{settings.worker_pool}, wrongturn {theirs}"


def _prism(settings: Prism) -> str:
    if not settings.location:
        return "Beam's own, downloaded at the first start"
    if "://" not in settings.location and not Path(settings.location).is_file():
        raise ClusterError(
            f"runner.location: there is no file {Path(settings.location).absolute()}; leave it empty for Beam's own"
        )
    return settings.location

"""The manifest for Kubernetes: as the operator documents it, one part fitting the other, nobody root."""

import importlib.metadata
import importlib.util
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from pipelines.config import compose
from pipelines.main import _parser
from pipelines.runners.settings import Flink, is_loopback
from tests.runners.deployed import (
    VERSIONED,
    own,
    text_of,
)


def documents():
    return {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(text_of("flink.yaml"))}


_RESOURCE = {"cpu": (int, float), "memory": str, "ephemeralStorage": str}
_POD_TEMPLATE = {"apiVersion": str, "kind": str, "metadata": dict, "spec": dict}
DEPLOYMENT_SPEC = {
    "job": dict,
    "restartNonce": int,
    "flinkConfiguration": {None: str},
    "image": str,
    "imagePullPolicy": str,
    "serviceAccount": str,
    "flinkVersion": {"v1_16", "v1_17", "v1_18", "v1_19", "v1_20", "v2_0"},
    "ingress": dict,
    "podTemplate": _POD_TEMPLATE,
    "jobManager": {"resource": _RESOURCE, "replicas": int, "podTemplate": _POD_TEMPLATE},
    "taskManager": {"resource": _RESOURCE, "replicas": int, "podTemplate": _POD_TEMPLATE},
    "logConfiguration": dict,
    "mode": {"native", "standalone"},
}
"""FlinkDeploymentSpec as the operator's reference has it (docs/custom-resource/reference, release 1.10)."""


def misfits(value, schema, at="spec"):
    """Where a value is not as its schema says: a type, several, the words there are, or fields (None is any name)."""
    if isinstance(schema, set):
        return [] if value in schema else [f"{at}: {value!r}"]
    if not isinstance(schema, dict):
        return [] if isinstance(value, schema) and not isinstance(value, bool) else [f"{at}: {value!r}"]
    if not isinstance(value, dict):
        return [f"{at}: {value!r}"]
    found = []
    for name, inner in value.items():
        if name not in schema and None not in schema:
            found.append(f"{at}.{name} is no field")
        else:
            found += misfits(inner, schema.get(name, schema.get(None)), f"{at}.{name}")
    return found


def test_the_cluster_is_as_the_operator_documents_it():
    deployment = documents()["FlinkDeployment", "wrongturn"]
    assert deployment["apiVersion"] == "flink.apache.org/v1beta1"
    assert misfits(deployment["spec"], DEPLOYMENT_SPEC) == []
    assert {"image", "flinkVersion", "serviceAccount", "jobManager", "taskManager"} <= set(deployment["spec"])
    assert "job" not in deployment["spec"], "a session cluster"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"taskmanager": {}}, ["spec.taskmanager is no field"]),
        ({"flinkVersion": "1.19"}, ["spec.flinkVersion: '1.19'"]),
        ({"flinkConfiguration": {"taskmanager.numberOfTaskSlots": 2}},
         ["spec.flinkConfiguration.taskmanager.numberOfTaskSlots: 2"]),
        ({"jobManager": {"resource": {"cpus": 1}}}, ["spec.jobManager.resource.cpus is no field"]),
    ],
)  # fmt: skip
def test_a_misfit_would_be_seen(change, found):
    assert misfits(documents()["FlinkDeployment", "wrongturn"]["spec"] | change, DEPLOYMENT_SPEC) == found


def test_flinks_version_is_one_that_beam_has_a_job_server_for():
    from apache_beam.options.pipeline_options import FlinkRunnerOptions

    spec = documents()["FlinkDeployment", "wrongturn"]["spec"]
    version = re.match(r"flink:(\d+\.\d+)\.\d+-", spec["image"])[1]
    assert spec["flinkVersion"] == f"v{version.replace('.', '_')}"
    assert version in FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS


def pods():
    """Every pod's spec that will run, the operator's own settings merged in as it does."""
    found = documents()
    manager = found["FlinkDeployment", "wrongturn"]["spec"]["taskManager"]["podTemplate"]["spec"]
    others = [found["StatefulSet", "wrongturn-redis"], found["Job", "wrongturn-run"]]
    return [manager, *(each["spec"]["template"]["spec"] for each in others)]


def containers():
    return {each["name"]: (pod, each) for pod in pods() for each in pod["containers"]}


def test_every_container_is_pinned_is_not_root_and_may_do_little():
    assert set(containers()) == {"flink-main-container", "worker-pool", "redis", "run"}
    for name, (pod, container) in containers().items():
        if name != "flink-main-container":  # Its image and resources are the operator's fields.
            assert VERSIONED.fullmatch(container["image"]), name
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
            assert "memory" in container["resources"]["limits"], name
        context = pod["securityContext"] | container["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] > 0, name
        assert context["allowPrivilegeEscalation"] is False, name
        assert context["capabilities"] == {"drop": ["ALL"]}, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name


def test_the_users_are_those_of_the_images():
    user = int(own("worker", "USER").partition(":")[0])
    for name in ("worker-pool", "run"):
        pod, container = containers()[name]
        assert (pod["securityContext"] | container["securityContext"])["runAsUser"] == user


def test_secrets_come_by_reference_and_under_the_names_that_are_read():
    from pipelines.engines.settings import Server
    from pipelines.journal import PASSWORD_ENV

    for name in ("worker-pool", "run"):
        variables = {each["name"]: each for each in containers()[name][1]["env"]}
        assert set(variables) == {PASSWORD_ENV, Server(url="http://host", model="m").api_key_env}
    for _, container in containers().values():
        for variable in container.get("env", ()):
            assert set(variable) == {"name", "valueFrom"}
            assert variable["valueFrom"]["secretKeyRef"]["name"] == "wrongturn"
    keys = {"redis-password", "openai-api-key"}
    used = {each["valueFrom"]["secretKeyRef"]["key"] for _, one in containers().values() for each in one.get("env", ())}
    assert used == keys
    assert all(f"--from-file={key}=" in text_of("README.md") for key in keys)
    assert ("Secret", "wrongturn") not in documents()


def test_the_worker_pool_listens_where_the_run_looks_for_it():
    _, pool = containers()["worker-pool"]
    program, *words = pool["command"]
    assert program in {each.name for each in importlib.metadata.entry_points(group="console_scripts")}
    options = _parser().parse_args(words)
    assert options.command == "workers"
    assert settings_of_the_run().runner.worker_pool == f"{options.host}:{options.port}"
    assert is_loopback(options.host), "whoever reaches it can have anything run"


def test_the_probes_ask_whether_somebody_listens():
    _, pool = containers()["worker-pool"]
    for name in ("readinessProbe", "livenessProbe"):
        probe = pool[name]
        python, flag, program = probe["exec"]["command"]
        assert (python, flag) == ("python", "-c")
        with socket.create_server(("localhost", 0)) as somebody:
            free = program.replace("50000", str(somebody.getsockname()[1]))
            assert free != program
            assert subprocess.run([sys.executable, flag, free], check=False, timeout=30).returncode == 0
        done = subprocess.run([sys.executable, flag, free], check=False, timeout=30, capture_output=True)
        assert done.returncode != 0
        assert b"refused" in done.stderr
        assert int(re.search(r", (\d+)\)\.close", program)[1]) < probe["timeoutSeconds"]


def test_beams_own_pool_is_there_too():
    """What boot runs in the image when it is told `--worker_pool`."""
    assert importlib.util.find_spec("apache_beam.runners.worker.worker_pool_main")


def settings_of_the_run():
    command = containers()["run"][1]["command"]
    entries = {each.name: each.value for each in importlib.metadata.entry_points(group="console_scripts")}
    assert entries[command[0]] == "pipelines.main:main"
    assert command[1:] == ["run"]
    return compose(containers()["run"][1]["args"])


def test_the_run_fits_the_cluster():
    settings = settings_of_the_run()
    assert isinstance(settings.runner, Flink)
    found = documents()
    spec = found["FlinkDeployment", "wrongturn"]["spec"]
    # The operator's service for Flink's REST is called NAME-rest and listens where Flink does by default.
    assert settings.runner.rest_url == "http://wrongturn-rest:8081"
    slots = int(spec["flinkConfiguration"]["taskmanager.numberOfTaskSlots"])
    assert settings.runner.parallelism == slots * spec["taskManager"]["replicas"] == 6
    assert slots == python_workers_of_a_task_manager(settings.runner), "a slot without a worker of its own"
    (port,) = found["Service", "wrongturn-redis"]["spec"]["ports"]
    assert settings.journal == f"redis://wrongturn-redis:{port['port']}/0"
    assert settings.out.startswith("gs://")


def python_workers_of_a_task_manager(runner):
    """Beam's option for it, its default unless the run sets another."""
    from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions

    return int(PipelineOptions(list(runner.options)).view_as(PortableOptions).sdk_worker_parallelism)


def test_a_pod_that_is_to_end_lives_as_long_as_its_pool_may_wait_for_answers():
    from pipelines.runners import pool

    _, container = containers()["worker-pool"]
    grace = _parser().parse_args(container["command"][1:]).grace
    manager = documents()["FlinkDeployment", "wrongturn"]["spec"]["taskManager"]["podTemplate"]["spec"]
    assert manager["terminationGracePeriodSeconds"] > grace + pool._KILL_SECS


def test_the_redis_is_the_one_that_its_service_finds():
    found = documents()
    service, redis = found["Service", "wrongturn-redis"]["spec"], found["StatefulSet", "wrongturn-redis"]["spec"]
    assert redis["serviceName"] == "wrongturn-redis"
    assert redis["selector"]["matchLabels"] == service["selector"] == redis["template"]["metadata"]["labels"]
    (container,) = redis["template"]["spec"]["containers"]
    assert {each["name"] for each in container["ports"]} == {service["ports"][0]["targetPort"]}
    (mount,) = container["volumeMounts"]
    assert {each["metadata"]["name"] for each in redis["volumeClaimTemplates"]} == {mount["name"]}
    assert f"--dir {mount['mountPath']} " in container["command"][-1]


@pytest.mark.redis
def test_its_command_starts_a_server_that_the_journal_takes(tmp_path, monkeypatch, caplog):
    """With the folder and the port of a test; it asks for the password and promises what the journal needs."""
    redis = pytest.importorskip("redis")
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server")
    from benchmarks.flink_jar import free_ports
    from pipelines.journal import PASSWORD_ENV, Journal

    (port,), password = free_ports(1), "a1b2c3d4"
    shell, flag, script = containers()["redis"][1]["command"]
    assert "\\\n" in script
    script = script.replace("--dir /data", f"--dir {tmp_path} --bind 127.0.0.1 --port {port}")
    server = subprocess.Popen(
        [shell, flag, script], env={"REDIS_PASSWORD": password, "PATH": "/usr/bin:/bin"}, stdout=subprocess.DEVNULL
    )
    try:
        client = redis.Redis(port=port)
        for _ in range(100):
            try:
                client.ping()
            except redis.AuthenticationError:
                break
            except redis.ConnectionError:
                time.sleep(0.1)
        else:
            raise AssertionError("nobody asks for a password")
        assert password not in " ".join(Path(f"/proc/{server.pid}/cmdline").read_text().split("\0"))
        monkeypatch.setenv(PASSWORD_ENV, password)
        journal = Journal(f"redis://127.0.0.1:{port}/0", patience_secs=1)
        assert journal.size() == 0
        journal.close()
        assert caplog.records == []
    finally:
        server.terminate()
        assert server.wait(10) == 0

"""What is found out about a Flink cluster before a job is submitted, at stand-ins for its REST service."""

import contextlib
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipelines.plan import package_version
from pipelines.runners import checks, flink, pool
from pipelines.runners.checks import check_runner, examine_runner, flink_version
from pipelines.runners.flink import ClusterError, FlinkRest, jar_version, java_version
from pipelines.runners.pool import worker_pool
from pipelines.runners.settings import Direct, Flink, Prism

OVERVIEW = {"flink-version": "1.19.0", "taskmanagers": 2, "slots-total": 2, "slots-available": 1}


@contextlib.contextmanager
def rest(answers):
    """A JobManager that gives these answers by path, one after the other where it is a list; a number is a status."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def _say(self):
            asked.append(f"{self.command} {self.path}")
            answer = answers.get(self.path)
            if callable(answer):
                answer = answer()
            if isinstance(answer, list):
                answer = answer.pop(0)
            is_status = isinstance(answer, int)
            body = json.dumps(answer).encode() if answer is not None and not is_status else b"{}"
            self.send_response(answer if is_status else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PATCH = _say

        def log_message(self, *words):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def jar(path, version):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"META-INF/maven/org.apache.beam/beam-runners-flink-{version}/pom.xml", "")
    return path


def test_a_cluster_says_its_version_and_its_slots():
    with rest({"/overview": OVERVIEW}) as (master, _):
        seen = FlinkRest(f"http://{master}").overview()
    assert (seen.version, seen.task_managers, seen.slots, seen.free_slots) == ("1.19.0", 2, 2, 1)


def test_nobody_at_the_address_is_an_error_with_the_address():
    with rest({}) as (master, _):
        pass
    with pytest.raises(ClusterError, match=f"no JobManager answers at http://{master}"):
        FlinkRest(f"http://{master}").overview()


def test_something_else_at_the_address_is_told_from_a_cluster():
    with rest({"/overview": {"hello": "world"}}) as (master, _), pytest.raises(ClusterError, match="no Flink REST"):
        FlinkRest(f"http://{master}").overview()


def test_only_running_jobs_of_the_name_are_cancelled():
    jobs = [
        {"jid": "a", "name": "ours", "state": "RUNNING"},
        {"jid": "b", "name": "ours", "state": "FINISHED"},
        {"jid": "c", "name": "theirs", "state": "RUNNING"},
    ]
    left = iter([{"jobs": jobs}, {"jobs": jobs}, {"jobs": jobs[1:]}])
    with rest({"/jobs/overview": lambda: next(left)}) as (master, asked):
        assert FlinkRest(f"http://{master}").cancel("ours") == 1
    assert [line for line in asked if line.startswith("PATCH")] == ["PATCH /jobs/a"]


@pytest.mark.parametrize("status", [404, 409])
def test_a_job_that_ends_before_it_is_cancelled_is_no_trouble(status):
    jobs = {"jobs": [{"jid": "a", "name": "ours", "state": "RUNNING"}]}
    answers = {"/jobs/overview": [jobs, {"jobs": []}], "/jobs/a": status}
    with rest(answers) as (master, asked):
        FlinkRest(f"http://{master}").cancel("ours")
    assert asked == ["GET /jobs/overview", "PATCH /jobs/a", "GET /jobs/overview"]


def test_a_cluster_that_does_not_cancel_is_one_line():
    jobs = {"jobs": [{"jid": "a", "name": "ours", "state": "RUNNING"}]}
    with (
        rest({"/jobs/overview": jobs, "/jobs/a": 500}) as (master, _),
        pytest.raises(ClusterError, match=f"the job 'ours' at http://{master} cannot be cancelled .*500"),
    ):
        FlinkRest(f"http://{master}").cancel("ours")


def test_a_job_that_does_not_end_is_an_error():
    jobs = {"jobs": [{"jid": "a", "name": "ours", "state": "CANCELLING"}]}
    with rest({"/jobs/overview": jobs}) as (master, _), pytest.raises(ClusterError, match="does not end"):
        FlinkRest(f"http://{master}").cancel("ours", within_secs=0)


def test_what_a_running_job_stumbled_over_is_read():
    answers = {
        "/jobs/overview": {"jobs": [{"jid": "a", "name": "ours", "state": "RESTARTING"}]},
        "/jobs/a/exceptions": {"root-exception": "trouble"},
    }
    with rest(answers) as (master, _):
        assert FlinkRest(f"http://{master}").exceptions("ours") == ["trouble"]


def test_a_jar_says_for_which_flink_it_is(tmp_path):
    assert jar_version(jar(tmp_path / "a.jar", "1.19")) == "1.19"
    with zipfile.ZipFile(tmp_path / "b.jar", "w"):
        pass
    assert jar_version(tmp_path / "b.jar") == ""
    (tmp_path / "c.jar").write_text("no jar")
    with pytest.raises(ClusterError, match=r"c\.jar is no jar"):
        jar_version(tmp_path / "c.jar")


@pytest.mark.parametrize(
    ("given", "of_cluster", "version"),
    [
        *(("", "", ""), ("", "1.20.1", "1.20"), ("1.19", "1.19.0", "1.19"), ("2.0", "", "2.0")),
        *(("1.19.3", "1.19.0", "1.19"), ("1.20.0", "", "1.20")),
    ],
)
def test_the_job_server_is_for_the_version_of_the_cluster(given, of_cluster, version):
    assert flink_version(Flink(flink_version=given), of_cluster) == version


def test_an_old_flink_is_refused_with_those_that_there_are():
    with pytest.raises(ClusterError, match=r"no job server for Flink 1\.14, only for 1\.19"):
        flink_version(Flink(), "1.14.6")


def test_a_jar_for_another_flink_is_refused(tmp_path):
    settings = Flink(job_server_jar=str(jar(tmp_path / "a.jar", "1.20")))
    with pytest.raises(ClusterError, match=r"runs Flink 1\.19, and the job server is for 1\.20"):
        flink_version(settings, "1.19.0")


def test_a_setting_does_not_hide_for_which_flink_the_jar_is(tmp_path):
    path = jar(tmp_path / "a.jar", "1.19")
    settings = Flink(job_server_jar=str(path), flink_version="2.0")
    for of_cluster in ("", "2.0.1", "1.19.0"):
        with pytest.raises(ClusterError, match=r"flink_version=2\.0: .*a\.jar .* is a job server for Flink 1\.19; "):
            flink_version(settings, of_cluster)
    assert flink_version(Flink(job_server_jar=str(path), flink_version="1.19.1"), "1.19.0") == "1.19"


def test_a_version_without_a_job_server_is_found_without_a_cluster_too(monkeypatch):
    monkeypatch.setattr(checks, "find_java", lambda: "java")
    monkeypatch.setattr(checks, "java_version", lambda java: 17)
    found = {each.what: each for each in examine_runner(Flink(flink_version="1.14"))}
    assert not found["cluster"].is_well
    assert "Beam has no job server for Flink 1.14" in found["cluster"].found
    assert all(each.is_well for each in examine_runner(Flink(flink_version="1.19")))


def test_a_given_jar_goes_with_a_flink_that_beam_has_none_for(tmp_path):
    settings = Flink(job_server_jar=str(jar(tmp_path / "a.jar", "1.14")))
    assert flink_version(settings, "1.14.6") == ""


def test_more_work_at_once_than_slots_is_refused(tmp_path):
    with rest({"/overview": OVERVIEW}) as (master, _):
        settings = Flink(
            flink_master=master,
            parallelism=3,
            job_server_jar=str(jar(tmp_path / "a.jar", "1.19")),
            environment="loopback",
        )
        with pytest.raises(
            ClusterError, match=r"has 2 slots on 2 TaskManagers; start more, or set runner\.parallelism=2"
        ):
            check_runner(settings)


def test_without_java_there_is_no_job_server(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(ClusterError, match="no java is on the PATH"):
        check_runner(Flink())


def test_a_wrong_java_home_is_told_from_no_java(tmp_path, monkeypatch):
    (tmp_path / "java").write_text("#!/bin/sh\n")
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("JAVA_HOME", "/no/jdk")
    with pytest.raises(ClusterError, match=r"JAVA_HOME is '/no/jdk', where there is no program bin/java"):
        flink.find_java()
    monkeypatch.delenv("JAVA_HOME")
    assert flink.find_java() == str(tmp_path / "java")


@pytest.mark.parametrize(("said", "version"), [('openjdk version "17.0.15" 2025', 17), ('java version "1.8.0_202"', 8)])
def test_the_version_of_java_is_read(tmp_path, said, version):
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\necho '{said}' >&2\n")
    java.chmod(0o755)
    assert java_version(str(java)) == version


def test_an_old_java_is_refused(tmp_path, monkeypatch):
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'java version \"1.8.0_202\"' >&2\n")
    java.chmod(0o755)
    monkeypatch.setattr(checks, "find_java", lambda: str(java))
    with pytest.raises(ClusterError, match="is Java 8, and Flink needs 11"):
        check_runner(Flink())


def test_a_dead_worker_pool_is_found_before_a_job_waits_for_it(monkeypatch):
    monkeypatch.setattr(checks, "is_open", lambda host, port: False)
    found = {each.what: each for each in examine_runner(Flink(worker_pool="localhost:50000"))}
    assert not found["worker pool"].is_well
    assert "nothing listens at localhost:50000; start it with" in found["worker pool"].found


def found_at_the_pool(address):
    return {each.what: each for each in examine_runner(Flink(worker_pool=address))}["worker pool"]


def test_a_pool_with_the_same_code_is_well():
    with worker_pool("127.0.0.1", 0) as port:
        finding = found_at_the_pool(f"127.0.0.1:{port}")
    assert finding.is_well
    assert finding.found.startswith(f"127.0.0.1:{port}, wrongturn {package_version()} (code ")


def test_a_pool_with_other_code_is_found_before_its_workers_refuse(monkeypatch):
    monkeypatch.setattr(checks, "installed", lambda: "9.9 (code 999999999999)")
    with worker_pool("127.0.0.1", 0) as port:
        finding = found_at_the_pool(f"127.0.0.1:{port}")
    assert not finding.is_well
    assert f"have wrongturn {package_version()} (code " in finding.found
    assert "and this is 9.9 (code 999999999999); install the same in both places" in finding.found


def test_a_web_server_is_no_worker_pool(monkeypatch):
    monkeypatch.setattr(pool, "_ASK_SECS", 1.0)
    with rest({}) as (address, _):
        finding = found_at_the_pool(address)
    assert not finding.is_well
    assert f"what listens at {address} is no worker pool" in finding.found


def test_a_pool_beside_task_managers_elsewhere_is_not_looked_for(monkeypatch):
    monkeypatch.setattr(checks, "is_open", lambda host, port: False)
    with rest({"/overview": OVERVIEW}) as (master, _):
        settings = Flink(flink_master=f"http://{master}", worker_pool="localhost:50000")
        monkeypatch.setattr(Flink, "is_here", property(lambda self: False))
        found = {each.what: each for each in examine_runner(settings)}
    assert found["worker pool"].is_well


def test_a_prism_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ClusterError, match="there is no file"):
        check_runner(Prism(location=str(tmp_path / "prism")))


def test_the_local_runner_needs_nothing():
    assert examine_runner(Direct()) == []
    assert flink.is_open("127.0.0.1", 1) is False

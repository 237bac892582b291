"""What is found out about a Flink cluster before a job is submitted, at stand-ins for its REST service."""

import contextlib
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipelines.runners import checks, flink
from pipelines.runners.checks import check_runner, examine_runner, flink_version
from pipelines.runners.flink import ClusterError, FlinkRest, jar_version, java_version
from pipelines.runners.settings import Direct, Flink, Prism

OVERVIEW = {"flink-version": "1.19.0", "taskmanagers": 2, "slots-total": 2, "slots-available": 1}


@contextlib.contextmanager
def rest(answers):
    """A JobManager that gives these answers by path; jobs that are cancelled are gone the next time."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def _say(self):
            asked.append(f"{self.command} {self.path}")
            answer = answers.get(self.path)
            if callable(answer):
                answer = answer()
            body = json.dumps(answer).encode() if answer is not None else b"{}"
            self.send_response(200)
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
    [("", "", ""), ("", "1.20.1", "1.20"), ("1.19", "1.19.0", "1.19"), ("2.0", "", "2.0")],
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

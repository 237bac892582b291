"""How jobs are watched, at a stand-in for Beam's result; and what a worker's error becomes."""

import threading

import grpc
import pytest

from pipelines.budget import Accounts, BudgetReached, BudgetSettings
from pipelines.engines.base import Usage
from pipelines.engines.journaled import Outage
from pipelines.errors import UserError
from pipelines.meter import METER, Meter
from pipelines.plan import Inputs, package_version
from pipelines.runners.beam_options import flink_options, prism_options, runs_here
from pipelines.runners.cluster import Jobs, _log_lost_stream, explain
from pipelines.runners.flink import ClusterError
from pipelines.runners.package import code_digest
from pipelines.runners.settings import Flink, Prism
from pipelines.site import Site, open_site, report
from pipelines.worker import Shared
from tests.runners.test_flink_rest import rest

ELSEWHERE = Flink(flink_master="[local]", worker_pool="localhost:50000", watch_secs=0.02)


class Job:
    """A job that ends when it is told to."""

    def __init__(self, error=None, *, is_done=False):
        self.error = error
        self.cancelled = 0
        self._end = threading.Event()
        if is_done or error:
            self._end.set()

    def end(self):
        self._end.set()

    def wait_until_finish(self):
        assert self._end.wait(30)
        if self.error:
            raise self.error

    def cancel(self):
        self.cancelled += 1
        self._end.set()


class Ledger:
    """A journal of which only the ledger is looked at."""

    def __init__(self, requests=0):
        self.requests = requests

    def paid(self):
        return Usage(requests=self.requests)


@pytest.fixture
def site(tmp_path):
    made = Site(out=str(tmp_path), config_digest="c", version=package_version(), code=code_digest(), start="now")
    open_site(made, Inputs(problems=(), unread=()), [0], 1)
    return made


def jobs(site, job, *, journal=None, settings=ELSEWHERE, budget=None):
    shared = Shared(site=site, ledger=Usage(requests=5))
    accounts = Accounts(budget or BudgetSettings())
    return Jobs(lambda shards: job, shared, settings, "name", accounts, journal or Ledger(5)), accounts


def test_what_workers_did_and_paid_reaches_the_meter_and_the_accounts(site):
    worker = Meter()
    worker.count("ExpandTrees", "kept", 3)
    worker.pay("ExpandTrees", Usage(requests=7), replayed=4)
    worker.pay("VerifyCritiques", Usage(), replayed=2)
    report(site, worker.read().elements)
    before = METER.read()
    made, accounts = jobs(site, Job(is_done=True), journal=Ledger(12))
    made.fill([0])
    after = METER.read()
    assert accounts.total.requests == after.paid.requests - before.paid.requests == 12 - 5
    name = "ExpandTrees/kept"
    assert after.elements[name] - before.elements.get(name, 0) == 3
    assert after.replayed - before.replayed == 4 + 2
    made.fill([1])  # The second job of a start tells what is new alone.
    assert METER.read() == after


def test_workers_in_this_process_tell_the_meter_themselves(site):
    before = METER.read()
    made, accounts = jobs(site, Job(is_done=True), journal=Ledger(12), settings=Flink(watch_secs=0.02))
    made.fill([0])
    assert accounts.total.requests == 7
    assert METER.read() == before


def test_a_budget_that_all_workers_reach_together_cancels_the_job(site, monkeypatch):
    monkeypatch.setattr("pipelines.runners.cluster._GRACE_SECS", 0.01)
    job = Job()
    made, _ = jobs(site, job, journal=Ledger(15), budget=BudgetSettings(max_requests=10))
    with pytest.raises(BudgetReached, match=r"budget\.max_requests=10"):
        made.fill([0])
    assert job.cancelled == 1


def test_a_job_without_workers_is_given_up(site):
    job = Job()
    settings = Flink(worker_pool="localhost:50000", watch_secs=0.02, worker_start_secs=0.05)
    made, _ = jobs(site, job, settings=settings)
    with pytest.raises(ClusterError, match=r"no worker has found its way to .* within 0\.05 s"):
        made.fill([0])
    assert job.cancelled == 1


def test_a_job_that_waits_for_slots_says_so(site):
    seen = {"flink-version": "1.19.0", "taskmanagers": 2, "slots-total": 2, "slots-available": 0}
    with rest({"/overview": seen, "/jobs/overview": {"jobs": []}}) as (master, _):
        settings = Flink(flink_master=master, worker_pool="localhost:50000", watch_secs=0.02, worker_start_secs=0.05)
        made, _ = jobs(site, Job(), settings=settings)
        with pytest.raises(ClusterError, match="0 of its 2 slots are free"):
            made.fill([0])


def test_a_job_with_a_worker_is_waited_for(site):
    report(site, {})
    job = Job()
    settings = Flink(worker_pool="localhost:50000", watch_secs=0.02, worker_start_secs=0.05)
    made, _ = jobs(site, job, settings=settings)
    threading.Timer(0.3, job.end).start()
    made.fill([0])
    assert job.cancelled == 0


def test_a_cluster_has_ended_a_cancelled_job_when_the_command_comes_back(site, monkeypatch):
    monkeypatch.setattr("pipelines.runners.cluster._GRACE_SECS", 0.01)
    states = iter(["RUNNING", "CANCELLING", "CANCELLING", "CANCELED"])
    overview = {"/jobs/overview": lambda: {"jobs": [{"jid": "a", "name": "name", "state": next(states)}]}}
    with rest(overview) as (master, asked):
        settings = Flink(flink_master=master, worker_pool="localhost:50000", watch_secs=0.02)
        made, _ = jobs(site, Job(), settings=settings, journal=Ledger(15), budget=BudgetSettings(max_requests=10))
        with pytest.raises(BudgetReached):
            made.fill([0])
    assert [line for line in asked if line.startswith("PATCH")] == ["PATCH /jobs/a"]
    assert list(states) == []


def test_a_job_server_that_is_gone_leaves_no_job_on_the_cluster(site, monkeypatch):
    monkeypatch.setattr("pipelines.runners.cluster._GRACE_SECS", 0.01)
    states = iter(["RUNNING", "CANCELED"])
    overview = {"/jobs/overview": lambda: {"jobs": [{"jid": "a", "name": "name", "state": next(states)}]}}
    job = Job()
    monkeypatch.setattr(job, "cancel", lambda: (_ for _ in ()).throw(grpc.RpcError("unavailable")))
    with rest(overview) as (master, asked):
        settings = Flink(flink_master=master, worker_pool="localhost:50000", watch_secs=0.02)
        made, _ = jobs(site, job, settings=settings, journal=Ledger(15), budget=BudgetSettings(max_requests=10))
        with pytest.raises(BudgetReached):
            made.fill([0])
    assert [line for line in asked if line.startswith("PATCH")] == ["PATCH /jobs/a"]


def test_a_cluster_that_cannot_cancel_is_no_other_reason_for_the_end(site, monkeypatch):
    monkeypatch.setattr("pipelines.runners.cluster._GRACE_SECS", 0.01)
    with rest({"/jobs/overview": {"what": "no list of jobs"}}) as (master, _):
        settings = Flink(flink_master=master, worker_pool="localhost:50000", watch_secs=0.02)
        made, _ = jobs(site, Job(), settings=settings, journal=Ledger(15), budget=BudgetSettings(max_requests=10))
        with pytest.raises(BudgetReached):
            made.fill([0])


def test_a_stream_that_ends_with_its_server_is_no_traceback(capsys, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", _log_lost_stream)

    def end(error):
        raise error

    for error in (grpc.RpcError("the server hangs up"), RuntimeError("ours")):
        thread = threading.Thread(target=end, args=(error,))
        thread.start()
        thread.join()
    said = capsys.readouterr().err
    assert "hangs up" not in said
    assert "RuntimeError: ours" in said


def test_an_interrupt_cancels_the_job(site, monkeypatch):
    job = Job()
    made, _ = jobs(site, job)

    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Jobs, "_look", interrupt)
    with pytest.raises(KeyboardInterrupt):
        made.fill([0])
    assert job.cancelled == 1


def test_a_worker_s_error_for_people_is_told_without_its_traceback(site):
    text = (
        "java.lang.RuntimeException: Error received from SDK harness for instruction 2: Traceback:\n"
        '  File "worker.py", line 1, in f\n    enter_site(site)\n'
        "pipelines.site.SiteError: out: the worker on h does not see the run [while running 'ExpandTrees/ParDo']\n\n"
        "\tat org.apache.beam.Something(Something.java:1)\n"
    )
    with pytest.raises(UserError) as caught:
        jobs(site, Job(RuntimeError(text)))[0].fill([0])
    assert str(caught.value) == "out: the worker on h does not see the run"


def test_an_outage_that_a_worker_sees_is_the_commands_own(site):
    error = broken_by("pipelines.engines.journaled.Outage: no server answers any more for m: http://h: down. Go on")
    with pytest.raises(Outage, match=r"^no server answers any more for m: http://h: down\. Go on$") as caught:
        jobs(site, Job(RuntimeError(error)))[0].fill([0])
    assert caught.value.exit_code == 3


def broken_by(error):
    """What a runner says of a job in which a worker of ours raised something."""
    return (
        "java.lang.RuntimeException: Error received from SDK harness for instruction 2: Traceback:\n"
        '  File "/x/pipelines/stage.py", line 1, in _finished\n    records = future.result()\n'
        f"{error} [while running 'ExpandTrees/ParDo']\n\n\tat org.apache.beam.Something(Something.java:1)\n"
    )


def test_a_limit_that_a_worker_alone_has_seen_ends_the_run_as_a_limit_does(site):
    error = broken_by("pipelines.budget.BudgetReached: budget.max_requests=10 is reached")
    # Five are paid and five in flight: what is in flight only the workers know.
    made, accounts = jobs(site, Job(RuntimeError(error)), journal=Ledger(10), budget=BudgetSettings(max_requests=10))
    with pytest.raises(BudgetReached, match=r"^budget\.max_requests=10$"):
        made.fill([0])
    assert accounts.reached == "budget.max_requests=10"


def test_nor_does_a_cluster_start_such_a_worker_again_and_again(site, monkeypatch):
    monkeypatch.setattr("pipelines.runners.cluster._GRACE_SECS", 0.01)
    error = broken_by("pipelines.budget.BudgetReached: budget.max_cost=0.5 is reached")
    states = iter(["RESTARTING", "RUNNING", "CANCELED"])
    answers = {
        "/jobs/overview": lambda: {"jobs": [{"jid": "a", "name": "name", "state": next(states)}]},
        "/jobs/a/exceptions": {"root-exception": error},
    }
    with rest(answers) as (master, _):
        settings = Flink(flink_master=master, worker_pool="localhost:50000", watch_secs=0.02)
        made, accounts = jobs(site, Job(), settings=settings)
        with pytest.raises(BudgetReached):
            made.fill([0])
    assert accounts.reached == "budget.max_cost=0.5"


def test_a_worker_that_is_stopped_in_its_work_is_a_lost_one(site):
    error = broken_by("pipelines.budget.BudgetReached: the end of the worker is reached")
    ends = [Job(RuntimeError(error)), Job(is_done=True)]
    settings = Flink(worker_pool="localhost:50000", watch_secs=0.02, restarts=1, restart_delay_secs=0.01)
    made, accounts = jobs(site, None, settings=settings)
    made._submit = lambda shards: ends.pop(0)
    made.fill([0])
    assert (ends, accounts.reached) == ([], "")


def test_a_worker_host_without_the_package_is_told_at_once(site):
    error = broken_by("ModuleNotFoundError: No module named 'pipelines'")
    ends = [Job(RuntimeError(error)), Job(is_done=True)]
    made, _ = jobs(site, None)
    made._submit = lambda shards: ends.pop(0)
    with pytest.raises(ClusterError, match=r"No module named 'pipelines'; install wrongturn, as this machine has it"):
        made.fill([0])
    assert len(ends) == 1


def test_a_job_whose_workers_were_lost_is_submitted_again(site):
    lost = RuntimeError("org.apache.flink.runtime.io.network.netty.exception: Connection unexpectedly closed")
    ends = [Job(lost), Job(lost), Job(is_done=True)]
    settings = Flink(worker_pool="localhost:50000", watch_secs=0.02, restarts=2, restart_delay_secs=0.01)
    made, _ = jobs(site, None, settings=settings)
    made._submit = lambda shards: ends.pop(0)
    made.fill([0])
    assert not ends


def test_so_often_and_not_more(site):
    lost = RuntimeError("org.apache.flink: TaskManager lost")
    ends = [Job(lost), Job(lost), Job(is_done=True)]
    settings = Flink(worker_pool="localhost:50000", watch_secs=0.02, restarts=1, restart_delay_secs=0.01)
    made, _ = jobs(site, None, settings=settings)
    made._submit = lambda shards: ends.pop(0)
    with pytest.raises(RuntimeError, match="TaskManager lost"):
        made.fill([0])
    assert len(ends) == 1


def test_our_own_bug_is_not_tried_again(site):
    bug = RuntimeError('Traceback (most recent call last):\n  File "/x/mcts/search.py", line 1\nKeyError: 3')
    ends = [Job(bug), Job(is_done=True)]
    made, _ = jobs(site, None)
    made._submit = lambda shards: ends.pop(0)
    with pytest.raises(RuntimeError, match="KeyError: 3"):
        made.fill([0])
    assert len(ends) == 1


def test_our_own_bug_keeps_its_traceback():
    error = explain("Traceback:\n  File x\nValueError: oh no\nkeys: 3")
    assert type(error) is RuntimeError
    assert "File x" in str(error)


def test_settings_become_beam_s_options():
    settings = Flink(flink_master="flink:8081", parallelism=4, worker_pool="localhost:50000", options=("--fasterCopy",))
    assert flink_options(settings, "name", "localhost:8099") == [
        *("--runner=FlinkRunner", "--job_name=name", "--job_endpoint=localhost:8099"),
        *("--flink_master=http://flink:8081", "--parallelism=4"),
        *("--environment_type=EXTERNAL", "--environment_config=localhost:50000", "--fasterCopy"),
    ]
    docker = flink_options(Flink(container_image="image:1"), "name", "h:1")
    assert docker[-2:] == ["--environment_type=DOCKER", "--environment_config=image:1"]
    process = flink_options(Flink(worker_command="/opt/boot"), "name", "h:1")
    assert process[-2:] == ["--environment_type=PROCESS", '--environment_config={"command": "/opt/boot"}']
    assert flink_options(Flink(), "name", "h:1")[-1] == "--environment_type=LOOPBACK"
    assert prism_options(Prism(location="/p"), "name") == [
        *("--runner=PrismRunner", "--job_name=name", "--prism_location=/p", "--environment_type=LOOPBACK")
    ]
    assert [runs_here(each) for each in (Flink(), Prism(), settings)] == [True, True, False]

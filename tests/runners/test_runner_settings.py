import pytest

from pipelines.config import compose
from pipelines.errors import UserError
from pipelines.runners.settings import Dataflow, Flink, is_loopback, split_address

FLINK = "runner=flink"
REMOTE = "runner=flink runner.flink_master=flink.example:8081 runner.worker_pool=localhost:50000"
REDIS = "journal=redis://redis.example:6379/0"
DATAFLOW = "runner=dataflow runner.project=p runner.region=r runner.temp_location=gs://bucket/temp"


def settings(words: str):
    return compose(words.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (f"{FLINK} runner.flink_master=nowhere", "runner: flink_master must be HOST:PORT, got 'nowhere'"),
        (f"{FLINK} runner.flink_master=h:0", "runner: flink_master must be HOST:PORT, got 'h:0'"),
        (f"{FLINK} runner.flink_master=h:70000", "runner: flink_master must be HOST:PORT, got 'h:70000'"),
        (f"{FLINK} runner.parallelism=0", "runner: parallelism must be at least 1, got 0"),
        (f"{FLINK} runner.environment=external", "runner: environment=external needs runner.worker_pool"),
        (f"{FLINK} runner.environment=docker", "runner: environment=docker needs runner.container_image"),
        (f"{FLINK} runner.environment=process", "runner: environment=process needs runner.worker_command"),
        (
            f"{FLINK} runner.environment=loopback runner.worker_pool=localhost:1",
            "runner: worker_pool is for environment=external, and this one is loopback; give one of them",
        ),
        (f"{FLINK} runner.flink_version=banana", "runner: flink_version must be such as 1.19, got 'banana'"),
        (f"{FLINK} runner.worker_pool=here", "runner: worker_pool must be HOST:PORT, got 'here'"),
        (f"{FLINK} runner.options=[parallelism]", "runner: options must be words such as --name=value"),
        (f"{FLINK} runner.shards_per_job=-1", "runner: shards_per_job must not be below 0, got -1"),
        (f"{FLINK} runner.watch_secs=0", "runner: watch_secs must be above 0, got 0"),
        (
            f"runner=flink runner.flink_master=flink.example:8081 {REDIS}",
            "runner: environment=loopback runs all workers in this process, which flink.example:8081 is far from",
        ),
        # What workers on other machines cannot share.
        (REMOTE, "journal is a file in `out`, which workers on other machines (runner=flink) cannot share"),
        (f"{FLINK} runner.flink_master=127.0.0.1:8081 runner.worker_pool=10.0.0.7:50000", "journal is a file in `out`"),
        (f"{REMOTE} journal=j.sqlite", "journal is 'j.sqlite', which workers on other machines (runner=flink) cannot"),
        (f"{REMOTE} journal=redis://localhost:6379/0", "journal is a server on this machine's loopback"),
        (f"{FLINK} out=memory://bucket/out {REDIS}", "out is in one process's memory, which workers of runner=flink"),
        (f"{DATAFLOW} {REDIS}", "out is 'out', which workers of Dataflow do not see; give out=gs://BUCKET/FOLDER"),
        (f"{DATAFLOW} out=gs://bucket/out", "journal is a file in `out`, which workers on other machines"),
        (
            f"{FLINK} +engines.big.kind=scripted budget.max_cost=1 "
            "budget.prices=[{engine:'',prompt:1},{engine:big,prompt:2}]",
            "budget.max_cost with engines of 2 different prices cannot be watched on runner=flink",
        ),
        (
            f"{DATAFLOW} {REDIS} out=gs://bucket/out runner.template=/tmp/t",
            "runner: template must be a path on Cloud Storage such as gs://BUCKET/FOLDER, got '/tmp/t'",
        ),
        (
            f"{DATAFLOW} {REDIS} out=gs://bucket/out runner.num_workers=3 runner.max_num_workers=2",
            "runner: num_workers=3 is above max_num_workers=2",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_the_setting_and_the_remedy(words, said):
    with pytest.raises(UserError) as caught:
        settings(words)
    assert said in str(caught.value)


def test_embedded_flink_runs_workers_in_this_process_and_shares_its_disk():
    runner = settings(FLINK).runner
    assert isinstance(runner, Flink)
    assert (runner.is_remote, runner.rest_url, runner.starts_workers, runner.shares_disk) == (
        False,
        "",
        "loopback",
        True,
    )


@pytest.mark.parametrize(
    ("master", "url", "is_here"),
    [
        ("127.0.0.1:8081", "http://127.0.0.1:8081", True),
        ("localhost:8081", "http://localhost:8081", True),
        ("http://localhost:8081/", "http://localhost:8081", True),
        ("https://flink.example:443", "https://flink.example:443", False),
        ("10.0.0.1:8081", "http://10.0.0.1:8081", False),
    ],
)
def test_the_address_of_a_cluster_says_whether_it_is_on_this_machine(master, url, is_here):
    runner = Flink(flink_master=master, worker_pool="localhost:50000")
    assert (runner.rest_url, runner.is_here, runner.shares_disk) == (url, is_here, is_here)
    assert runner.starts_workers == "external"


@pytest.mark.parametrize(
    ("pool", "is_shared"), [("10.0.0.7:1", False), ("gpu1:1", False), ("127.0.0.1:1", True), ("[::1]:1", True)]
)
def test_workers_of_a_pool_elsewhere_have_another_disk(pool, is_shared):
    for master in ("[local]", "127.0.0.1:8081"):
        assert Flink(flink_master=master, worker_pool=pool).shares_disk is is_shared


@pytest.mark.parametrize("version", ["1.19", "1.20", "1.20.0", "2.0", "'1.20'"])
def test_a_version_may_be_given_as_the_docs_spell_it(version):
    assert settings(f"{FLINK} runner.flink_version={version}").runner.flink_version == version.strip("'")


def test_machines_of_a_cloud_have_longer_to_come_up():
    runner = settings(f"{DATAFLOW} {REDIS} out=gs://bucket/out").runner
    assert (runner.worker_start_secs, settings(FLINK).runner.worker_start_secs) == (1800, 300)


def test_containers_have_disks_of_their_own():
    assert not Flink(flink_master="localhost:8081", container_image="wrongturn:1").shares_disk


def test_a_cluster_with_a_shared_journal_is_taken():
    assert settings(f"{REMOTE} {REDIS}").runner.shares_disk is False
    assert isinstance(settings(f"{DATAFLOW} {REDIS} out=gs://bucket/out").runner, Dataflow)


def test_where_a_run_is_made_does_not_change_what_it_makes():
    here = settings("engine=simulated problems=simulated")
    there = settings(f"engine=simulated problems=simulated {REMOTE} {REDIS} runner.parallelism=9")
    assert here.config_digest() == there.config_digest()
    smaller = settings("engine=simulated problems=simulated runner.problems_per_shard=7")
    assert here.config_digest() != smaller.config_digest()


def test_addresses_are_split_at_the_port():
    assert split_address("[::1]:80", "x") == ("::1", 80)
    assert [is_loopback(host) for host in ("127.0.0.2", "::1", "localhost", "10.0.0.1", "example")] == [
        *(True, True, True, False, False)
    ]

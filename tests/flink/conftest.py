"""A cluster for all tests of this folder; they are skipped, with the reason, where it cannot be had."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flink_runs import job, small_job

from benchmarks.flink_cluster import FlinkCluster, flink_cluster
from benchmarks.flink_jar import NoFlink, find_jar
from benchmarks.flink_kills import WORLD, Reference, Stand, make_reference
from benchmarks.kill_points import CountingServer, counting_server


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "flink: starts a Flink cluster (needs Java, redis-server and a job server)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what starts a Flink of its own."""
    for item in items:
        if Path(__file__).parent in item.path.parents and {"session_cluster", "jar"} & set(item.fixturenames):
            item.add_marker(pytest.mark.flink)
            item.add_marker(pytest.mark.timeout(900))
            # They share one cluster, which one process has to have started.
            item.add_marker(pytest.mark.xdist_group("flink"))


@pytest.fixture(scope="session")
def session_cluster(tmp_path_factory) -> Iterator[FlinkCluster]:
    """The cluster, up; tests take `cluster`."""
    try:
        with flink_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
            yield cluster
    except NoFlink as reason:
        pytest.skip(str(reason))


@pytest.fixture
def cluster(session_cluster) -> FlinkCluster:
    """The cluster with all its parts and nothing on it, whatever the test before has done to it."""
    session_cluster.heal()
    return session_cluster


@pytest.fixture(scope="session")
def session_server() -> Iterator[CountingServer]:
    """The simulated server with every request on record; tests take `server`."""
    with counting_server(WORLD) as server:
        yield server


@pytest.fixture
def server(session_server) -> CountingServer:
    """The server with an empty record."""
    session_server.calls()
    return session_server


@pytest.fixture(scope="session")
def reference(session_server, tmp_path_factory) -> Reference:
    """What the local runner makes of the job that these tests do."""
    return make_reference(job(session_server), session_server, tmp_path_factory.mktemp("local"))


@pytest.fixture(scope="session")
def small_reference(session_server, tmp_path_factory) -> Reference:
    """The same for the job in which something is killed."""
    return make_reference(small_job(session_server), session_server, tmp_path_factory.mktemp("small"))


@pytest.fixture
def stand(cluster, server, reference) -> Stand:
    """All of it."""
    server.calls()
    return Stand(cluster, server, job(server), reference)


@pytest.fixture
def small_stand(cluster, server, small_reference) -> Stand:
    """All of it, for kills."""
    server.calls()
    return Stand(cluster, server, small_job(server), small_reference)


@pytest.fixture(scope="session")
def jar() -> Path:
    """The job server, for tests without a cluster."""
    try:
        return find_jar()
    except NoFlink as reason:
        pytest.skip(str(reason))

"""A Redis server for the tests that are marked `redis`; they skip where none can be started."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipelines.journal import PASSWORD_ENV

if TYPE_CHECKING:
    from benchmarks.redis_server import RedisServer


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "redis: starts redis-server on this machine (needs it and the package redis)")


@pytest.fixture(scope="session")
def start_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., "RedisServer"]]:
    """Starts servers, with settings of redis.conf; the environment has their password as long as there may be any."""
    pytest.importorskip("redis", reason="needs the package redis: pip install 'wrongturn[redis]'")
    from benchmarks.redis_server import PASSWORD, is_installed, redis_server

    if not is_installed():
        pytest.skip("needs redis-server: apt-get install redis-server")
    with ExitStack() as servers, pytest.MonkeyPatch.context() as patch:
        patch.setenv(PASSWORD_ENV, PASSWORD)

        def start(**settings: str) -> "RedisServer":
            return servers.enter_context(redis_server(Path(tmp_path_factory.mktemp("redis")), **settings))

        yield start


@pytest.fixture(scope="session")
def redis_in_common(start_redis: Callable[..., "RedisServer"]) -> "RedisServer":
    """A server for tests that take a prefix of their own and leave the server as it is."""
    return start_redis()

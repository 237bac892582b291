"""Where Beam's Flink job server is, whose jar also holds Flink itself; and with which options Java runs it."""

import contextlib
import importlib.util
import os
import re
import shutil
import socket
from pathlib import Path

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.flink_runner import FlinkJarJobServer

JAR_ENV = "WRONGTURN_FLINK_JOB_SERVER_JAR"
_ROOT = Path(__file__).resolve().parents[1]
_VERSION = "1.19"
"""Of Flink, for Beam's own download."""
_FETCH_SECS = 60.0

OPENS = tuple(
    f"--add-opens=java.base/java.{package}=ALL-UNNAMED"
    for package in ("lang", "util", "net", "util.concurrent", "time", "nio")
)
"""What Flink reaches into: its own start scripts give the same."""


class NoFlink(Exception):
    """What a cluster needs is not here; says what."""


def find_jar() -> Path:
    """The jar.

    Raises:
      NoFlink: there is none, or no Java or no redis-server for it.
    """
    for program, package in (("java", "openjdk-17-jre-headless"), ("redis-server", "redis-server")):
        if not shutil.which(program):
            raise NoFlink(f"needs {program} (apt install {package})")
    if not importlib.util.find_spec("redis"):
        raise NoFlink("needs the package redis (pip install 'wrongturn[redis]')")
    if named := os.environ.get(JAR_ENV):
        if not Path(named).is_file():
            raise NoFlink(f"{JAR_ENV} names {named}, which is no file")
        return Path(named)
    if beside := sorted((_ROOT.parent / "shared" / "flink").glob("*job-server*.jar")):
        return beside[-1]
    return _fetch()


def _fetch() -> Path:
    """Beam's own, which stays in Beam's cache."""
    server = FlinkJarJobServer(PipelineOptions([f"--flink_version={_VERSION}"]))
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_FETCH_SECS)
    try:
        return Path(server.local_jar(server.path_to_jar()))
    except (OSError, RuntimeError) as error:
        said = re.sub(r"\s+", " ", str(error))[:200]
        raise NoFlink(
            f"needs Beam's Flink job server: {JAR_ENV}=FILE, ../shared/flink/*.jar or its download ({said})"
        ) from error
    finally:
        socket.setdefaulttimeout(previous)


def free_ports(count: int) -> list[int]:
    """So many ports of the loopback address that nobody listens at, all different."""
    with contextlib.ExitStack() as held:
        return [int(held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]) for _ in range(count)]

"""The job that tests of Flink do, and how they start it."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.flink_kills import settings
from benchmarks.kill_points import TASKS, CountingServer

ROOT = Path(__file__).resolve().parents[2]
_RUN_SECS = 600


def job(server: CountingServer) -> list[str]:
    """Settings of the small job that most of these tests do: 20 problems in 3 shards."""
    return settings(server.url, num_problems=20, shard_size=7)


def small_job(server: CountingServer) -> list[str]:
    """Settings of the job in which something is killed: 12 problems in 2 shards, about 800 calls."""
    return settings(server.url, num_problems=12, shard_size=6)


def wrongturn(words: Sequence[str], **environment: str) -> tuple[int, str]:
    """Runs `wrongturn run` to its end; gives exit code and standard error."""
    command = [sys.executable, "-m", "pipelines.main", "run", *words]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | environment,
        timeout=_RUN_SECS,
    )
    return done.returncode, done.stderr.strip()


def is_one_line(complaint: str) -> bool:
    """Whether it is what a person is told who has made a mistake."""
    return complaint.startswith("wrongturn: ") and "\n" not in complaint and "Traceback" not in complaint


def calls_so_far(server: CountingServer) -> int:
    """Of all tasks, since the server was started."""
    return sum(map(server.count, TASKS))

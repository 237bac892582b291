"""What a sample costs in the journal: bytes and time, in a file and in Redis.

    python -m benchmarks.journal_size [--quick]

Samples have 600 characters, a rollout of about 150 tokens, of words that compress no better than real ones; 256 are
put at a time, 4 to a request. `file_bytes` and `redis_bytes` are for each sample with its key, on disk after a
checkpoint and in Redis's memory; `aof_bytes` what its append-only file grows by.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.redis_server import PASSWORD, is_installed, redis_server
from pipelines.engines.base import Sample, Usage
from pipelines.journal import PASSWORD_ENV, Journal
from schemas import Record, digest

CHARS = 600
A_REQUEST = 4
IN_FLIGHT = 256


class Figure(Record):
    """What was measured of one journal, for each sample."""

    bytes: float
    samples_per_sec: float


async def fill(journal: Journal, num_samples: int) -> float:
    """Puts so many samples; gives the seconds that it took."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(4000)]
    texts = [" ".join(draw.choices(words, k=CHARS // 6))[:CHARS].ljust(CHARS, ".") for _ in range(500)]
    requests = iter(range(num_samples // A_REQUEST))

    async def work() -> None:
        for number in requests:
            name = digest("request", number)
            samples = {
                f"{name}/{index}": Sample(text=texts[(number + index) % len(texts)], finish="stop", tokens=150)
                for index in range(A_REQUEST)
            }
            await journal.put("ExpandTrees", samples, Usage(requests=1, samples=A_REQUEST))

    began = time.monotonic()
    await asyncio.gather(*(work() for _ in range(IN_FLIGHT // A_REQUEST)))
    return time.monotonic() - began


def in_file(folder: Path, num_samples: int) -> Figure:
    """A journal on this disk."""
    path = folder / "journal.sqlite"
    with contextlib.closing(Journal(path)) as journal:
        seconds = asyncio.run(fill(journal, num_samples))
    size = sum(each.stat().st_size for each in folder.glob("journal.sqlite*"))
    return Figure(bytes=size / num_samples, samples_per_sec=num_samples / seconds)


def in_redis(folder: Path, num_samples: int) -> tuple[Figure, float]:
    """A journal on a server of one's own; and what its append-only file grows by for each sample."""
    with redis_server(folder) as server, server.client() as client:
        before = client.info("memory")["used_memory"]
        with contextlib.closing(Journal(server.url())) as journal:
            seconds = asyncio.run(fill(journal, num_samples))
        grown = client.info("memory")["used_memory"] - before
        appended = sum(each.stat().st_size for each in folder.rglob("*.aof"))
    return Figure(bytes=grown / num_samples, samples_per_sec=num_samples / seconds), appended / num_samples


def main() -> None:
    """Fills both journals and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer samples")
    num_samples = 20_000 if parser.parse_args().quick else 100_000
    os.environ[PASSWORD_ENV] = PASSWORD
    table = Table("journal", "bytes a sample", "samples/s")
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        found = in_file(Path(name), num_samples)
        table.add_row("file", f"{found.bytes:,.0f}", f"{found.samples_per_sec:,.0f}")
        figures |= {"file_bytes": found.bytes, "file_per_sec": found.samples_per_sec}
    if is_installed():
        with tempfile.TemporaryDirectory() as name:
            found, appended = in_redis(Path(name), num_samples)
            table.add_row("Redis, in memory", f"{found.bytes:,.0f}", f"{found.samples_per_sec:,.0f}")
            table.add_row("Redis, append-only file", f"{appended:,.0f}", "")
            figures |= {"redis_bytes": found.bytes, "redis_per_sec": found.samples_per_sec, "aof_bytes": appended}
    Console(width=80).print(table)
    print(json.dumps({name: round(value, 1) for name, value in figures.items()}))


if __name__ == "__main__":
    main()

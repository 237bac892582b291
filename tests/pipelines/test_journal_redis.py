"""The journal on a Redis server that dies, hangs, forgets, refuses or holds something else."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from pipelines.engines.base import Sample, Usage
from pipelines.engines.simulated import SimulatedSettings, serving
from pipelines.journal import PASSWORD_ENV, Journal, JournalError
from pipelines.main import main
from pipelines.shards import file_digest

# crowd-kit uses what pandas will drop; crowd-kit's own affair.
pytestmark = [pytest.mark.redis, pytest.mark.filterwarnings("ignore::DeprecationWarning:crowdkit")]


def sample(text: str) -> Sample:
    return Sample(text=text, finish="stop", tokens=1)


async def put_many(journal: Journal, first: int, count: int, acknowledged: list[int]) -> None:
    """Puts samples, twenty in flight at a time."""
    gate = asyncio.Semaphore(20)

    async def put(i: int) -> None:
        async with gate:
            await journal.put("S", {f"k/{i}": sample(f"{i}")}, Usage(requests=1, samples=1))
            acknowledged.append(i)

    await asyncio.gather(*(put(i) for i in range(first, first + count)))


# A server that dies.


@pytest.mark.parametrize("times", [1, 3])
def test_kill_9_of_redis_loses_nothing_and_counts_nothing_twice(start_redis, times):
    server = start_redis()
    acknowledged: list[int] = []

    async def work(journal):
        working = asyncio.create_task(put_many(journal, 0, 3000, acknowledged))
        for i in range(times):
            while len(acknowledged) < 400 * (i + 1):  # noqa: ASYNC110 - until so many are on the server's disk
                await asyncio.sleep(0.001)
            await asyncio.to_thread(server.kill)
            held = list(acknowledged)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(server.start)
            with server.client() as client:
                kept = {int(key.decode().partition("/")[2]) for key in client.hkeys("wrongturn:samples")}
            assert set(held) <= kept
        await working

    with closing(Journal(server.url(), patience_secs=30)) as journal:
        asyncio.run(asyncio.wait_for(work(journal), 60))
        assert journal.size() == 3000
        # Each batch whose answer was lost was sent again, and its costs counted once.
        assert journal.ledger() == {"S": Usage(requests=3000, samples=3000)}
    with server.client() as client:
        assert client.hlen("wrongturn:writers") == 0


def test_a_server_that_does_not_come_back_is_one_line_and_a_new_start_goes_on(start_redis):
    server = start_redis()
    acknowledged: list[int] = []

    async def work(journal):
        await put_many(journal, 0, 100, acknowledged)
        await asyncio.to_thread(server.kill)
        began = time.monotonic()
        with pytest.raises(JournalError) as caught:
            await put_many(journal, 100, 10, acknowledged)
        with pytest.raises(JournalError, match="is not there: "):
            await journal.get(["k/1"])
        assert 1.5 < time.monotonic() - began < 10
        return str(caught.value)

    journal = Journal(server.url(), patience_secs=1.0)
    said = asyncio.run(work(journal))
    journal.close()
    assert said.startswith(f"the journal's server {server.url()}/wrongturn is not there: Error 111 connecting to ")
    assert said.endswith(
        "; start it with the data that it had, then start the same command again: nothing that was committed is lost "
        "(journal_patience_secs says how long a run waits that has begun)"
    )
    assert "\n" not in said
    server.start()
    with closing(Journal(server.url())) as again:
        assert asyncio.run(again.get([f"k/{i}" for i in range(120)])).keys() == {f"k/{i}" for i in range(100)}


def test_one_who_closes_does_not_wait_for_a_server_that_is_away(start_redis):
    server = start_redis()

    async def work(journal):
        server.kill()
        task = asyncio.create_task(journal.put("S", {"a": sample("a")}, Usage()))
        await asyncio.sleep(0.2)
        began = time.monotonic()
        await asyncio.to_thread(journal.close)
        assert time.monotonic() - began < 5
        with pytest.raises(JournalError, match="is not there"):
            await task

    asyncio.run(work(Journal(server.url(), patience_secs=300)))


def test_a_server_that_hangs_does_not_hold_up_the_event_loop(start_redis):
    server = start_redis()

    async def work(journal):
        await journal.put("S", {"a": sample("a")}, Usage())
        server.send(signal.SIGSTOP)
        waiting = [
            asyncio.create_task(journal.get(["a"])),
            asyncio.create_task(journal.put("S", {"b": sample("b")}, Usage())),
        ]
        slowest = 0.0
        for _ in range(100):
            began = time.monotonic()
            await asyncio.sleep(0.005)
            slowest = max(slowest, time.monotonic() - began)
        assert not any(task.done() for task in waiting)
        assert slowest < 0.25
        server.send(signal.SIGCONT)
        assert await asyncio.gather(*waiting) == [{"a": sample("a")}, {"b": sample("b")}]

    with closing(Journal(server.url())) as journal:
        asyncio.run(asyncio.wait_for(work(journal), 30))


def test_a_server_that_forgot_the_journal_in_mid_run_is_found_out_before_anything_is_acknowledged(start_redis):
    server = start_redis()

    async def work(journal):
        await journal.put("S", {"a": sample("a")}, Usage())
        with server.client() as client:
            client.flushall()
        with pytest.raises(JournalError, match="does not hold the journal any more that it held before"):
            await journal.put("S", {"b": sample("b")}, Usage())

    with closing(Journal(server.url())) as journal:
        asyncio.run(work(journal))
    with server.client() as client:
        assert client.keys("*") == []


def test_a_server_that_comes_back_without_its_log_on_is_found_out_before_anything_is_acknowledged(start_redis):
    server = start_redis()

    async def work(journal):
        await journal.put("S", {"a": sample("a")}, Usage())
        server.kill()
        server.settings |= {"appendfsync": "no"}
        server.start()
        with pytest.raises(JournalError, match=r"acknowledges what is not on disk yet \(appendfsync no\)"):
            await journal.put("S", {"b": sample("b")}, Usage())
        with pytest.raises(JournalError, match="acknowledges what is not on disk yet"):
            await journal.put("S", {"c": sample("c")}, Usage())

    with closing(Journal(server.url())) as journal:
        asyncio.run(work(journal))


def test_a_torn_tail_of_the_servers_log_leaves_whole_batches(start_redis):
    server = start_redis()

    async def work(journal):
        for i in range(30):
            await journal.put("S", {f"a/{i}": sample("x" * 500), f"b/{i}": sample("y" * 500)}, Usage(requests=1))

    with closing(Journal(server.url())) as journal:
        asyncio.run(work(journal))
        server.kill()
        (log,) = server.folder.glob("appendonlydir/*.incr.aof")
        log.write_bytes(log.read_bytes()[:-5000])
        server.start()
    with closing(Journal(server.url())) as again:
        size = again.size()
        assert 0 < size < 60
        keys = [f"{name}/{i}" for i in range(size // 2) for name in "ab"]
        assert asyncio.run(again.get(keys)).keys() == set(keys)
        assert again.ledger() == {"S": Usage(requests=size // 2)}


# A whole run.

SERVED = [
    *("run", "engine=simulated", "problems=simulated", "actor=plain", "panel=blind", "problems.num_problems=6"),
    *("search=default", "pairing=default", "verify=default", "engine.world.seconds_a_token=0.0005"),
]


def shards(out: Path) -> dict[str, str]:
    return {str(path.relative_to(out)): file_digest(path) for path in sorted(out.glob("*/*.parquet"))}


def paid(journal: Journal) -> dict[str, tuple[int, int, int]]:
    """Requests, samples and tokens by stage; what the server had in its cache is its own affair."""
    return {stage: (u.requests, u.samples, u.completion_tokens) for stage, u in journal.ledger().items()}


@pytest.mark.timeout(300)
def test_a_run_whose_redis_is_killed_pays_nothing_twice_and_writes_what_it_writes_with_a_file(
    start_redis, tmp_path, capsys
):
    server = start_redis()
    with serving(SimulatedSettings(seconds_a_token=0.0005)) as engine:
        assert main([*SERVED, f"engine.url={engine}", f"out={tmp_path / 'file'}"]) == 0
        with closing(Journal(tmp_path / "file" / ".wrongturn" / "journal.sqlite")) as journal:
            needed = paid(journal)
        command = [sys.executable, "-m", "pipelines.main", *SERVED, f"engine.url={engine}", f"out={tmp_path / 'redis'}"]
        command += [f"journal={server.url('run')}"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for samples in (60, 200):
            with server.client() as client:
                deadline = time.monotonic() + 60
                while client.hlen("run:samples") < samples and process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.005)
                held = client.hlen("run:samples")
            assert (process.poll(), held >= samples) == (None, True), held
            server.kill()
            time.sleep(0.3)
            server.start()
        said = "".join(process.communicate(timeout=100))
        assert process.returncode == 0, said
        assert os.environ[PASSWORD_ENV] not in said
        with closing(Journal(server.url("run"))) as journal:
            assert paid(journal) == needed
    assert shards(tmp_path / "redis") == shards(tmp_path / "file")
    written = b"".join(path.read_bytes() for path in (tmp_path / "redis").rglob("*") if path.is_file())
    assert os.environ[PASSWORD_ENV].encode() not in written


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_that_is_killed_again_and_again_pays_what_was_in_flight(start_redis):
    from benchmarks.kill_points import Point
    from benchmarks.kills import measure, summary

    points = [
        Point(kind="calls", match="solve", nth=5, delay=0.02),
        Point(kind="committing", nth=6, delay=0.0003),
        Point(kind="calls", match="critique", nth=2, delay=0.01),
        Point(kind="committed", nth=4),
        Point(kind="replaced", match="done/*.json"),
        Point(kind="replacing", match="out/run.json"),
    ]
    (chain,) = measure(num_problems=6, shard_size=2, chains=[points], journals=start_redis().url())
    said = summary([chain])
    assert said["kills"] == len(points), chain.unreached
    assert [kill.point for kill in chain.kills if kill.paid_twice > kill.in_flight] == []
    assert chain.paid == chain.needed + said["paid_twice"]
    counts = {name: said[name] for name in ("duplicates", "missing", "surplus", "collapsed", "identical")}
    assert counts == {"duplicates": 0, "missing": 0, "surplus": 0, "collapsed": 0, "identical": True}

"""What every journal promises, whatever keeps it."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import uuid
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from pipelines.engines.base import Sample, Usage
from pipelines.journal import Journal, Place

FREE = Usage()


def sample(text: str) -> Sample:
    return Sample(text=text, finish="stop", tokens=1)


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        return tmp_path / "journal.sqlite"
    return request.getfixturevalue("redis_in_common").url(uuid.uuid4().hex)


@pytest.fixture
def overwrite(place: Place, request: pytest.FixtureRequest) -> Callable[[str, bytes], None]:
    """Puts bytes under a key, past the journal."""

    def overwrite(key: str, value: bytes) -> None:
        if isinstance(place, Path):
            with closing(sqlite3.connect(place)) as connection, connection:
                connection.execute("INSERT OR REPLACE INTO samples VALUES (?, ?)", (key, value))
        else:
            with request.getfixturevalue("redis_in_common").client() as client:
                client.hset(f"{place.rpartition('/')[2]}:samples", key, value)

    return overwrite


def working(place: Place, work):
    """Runs `work(journal)` in a loop of its own."""

    async def main():
        with closing(Journal(place)) as journal:
            return await asyncio.wait_for(work(journal), 30)

    return asyncio.run(main())


def summed(key: str, value: bytes) -> bytes:
    """As it lies in the store: four bytes of CRC-32 over key and value, then the value."""
    return zlib.crc32(key.encode() + value).to_bytes(4, "big") + value


def test_what_was_put_is_got_back_whole_also_by_the_next_one(place):
    whole = Sample(text="Step 1: ünï\x00code \U0001f600\r\n", finish="length", tokens=7)

    async def first(journal):
        assert await journal.put("S", {"a/0": whole, "a/1": sample("")}, FREE) == {"a/0": whole, "a/1": sample("")}
        assert await journal.get(["a/1", "none", "a/0"]) == {"a/0": whole, "a/1": sample("")}
        assert await journal.get([]) == {}

    async def second(journal):
        assert await journal.get(["a/0"]) == {"a/0": whole}
        assert journal.size() == 2

    working(place, first)
    working(place, second)


def test_a_key_keeps_its_sample_and_whoever_comes_later_is_told(place):
    async def work(journal):
        await journal.put("S", {"a": sample("first")}, FREE)
        assert await journal.put("S", {"a": sample("second"), "b": sample("new")}, FREE) == {
            "a": sample("first"),
            "b": sample("new"),
        }
        assert await journal.get(["a", "b"]) == {"a": sample("first"), "b": sample("new")}

    working(place, work)


def test_of_those_in_one_commit_the_first_wins_and_all_are_told(place):
    async def work(journal):
        told = await asyncio.gather(*(journal.put("S", {"a": sample(f"{i}")}, FREE) for i in range(20)))
        assert told == [{"a": sample("0")}] * 20
        assert await journal.get(["a"]) == {"a": sample("0")}

    working(place, work)


def test_costs_are_summed_by_stage_and_samples_counted(place):
    async def work(journal):
        assert (journal.ledger(), journal.size()) == ({}, 0)
        paid = Usage(requests=1, samples=2, prompt_tokens=100, cached_tokens=60, completion_tokens=30)
        await asyncio.gather(*(journal.put("S", {f"{i}": sample("")}, paid) for i in range(3)))
        await journal.put("Other/Stage", {}, Usage(requests=1, completion_tokens=9))
        assert journal.size() == 3
        assert journal.ledger() == {
            "Other/Stage": Usage(requests=1, completion_tokens=9),
            "S": Usage(requests=3, samples=6, prompt_tokens=300, cached_tokens=180, completion_tokens=90),
        }

    working(place, work)


def test_runs_of_one_journal_pay_each_for_itself(place):
    async def work(old):
        await old.put("S", {"o": sample("")}, Usage(requests=1))  # By a journal that does not say for whom.
        with closing(Journal(place, run="a")) as a, closing(Journal(place, run="b")) as b:
            assert (a.paid(), b.paid()) == (Usage(requests=1), Usage(requests=1))
            await a.put("S", {"1": sample("")}, Usage(requests=10))
            await b.put("S", {"2": sample("")}, Usage(requests=100))
            await b.put("T", {"1": sample("other")}, Usage(requests=1000))
            assert a.own_ledger() == {"S": Usage(requests=11)}
            assert b.own_ledger() == {"S": Usage(requests=101), "T": Usage(requests=1000)}
            assert b.paid() == Usage(requests=1101)
        with closing(Journal(place, run="a")) as again:
            await again.put("S", {}, Usage(requests=10))
            assert again.paid() == Usage(requests=21)
            # Samples are everybody's, and so is what they have cost together.
            assert await again.get(["1", "2"]) == {"1": sample(""), "2": sample("")}
            assert again.ledger() == old.ledger() == {"S": Usage(requests=121), "T": Usage(requests=1000)}

    working(place, work)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"abc",
        b"\xff" * 40,
        summed("other", msgspec.msgpack.encode(sample("of another key"))),
        summed("a", b""),
        summed("a", b"\xc1"),
        summed("a", msgspec.msgpack.encode({"text": 7, "finish": "stop", "tokens": 1})),
        summed("a", msgspec.msgpack.encode({"text": "t", "finish": "stop", "tokens": 1})[:-1]),
        summed("a", b"\x83\xa4text\xa2\xff\xfe\xa6finish\xa4stop\xa6tokens\x01"),
        b"cposix\nsystem\n(S'exit 1'\ntR.",
    ],
    ids=["empty", "short", "noise", "other key", "nothing", "no msgpack", "types", "cut", "no text", "pickle"],
)
def test_a_value_that_is_no_sample_is_asked_for_again_and_replaced(place, overwrite, value, caplog):
    async def work(journal):
        overwrite("a", value)
        assert await journal.get(["a"]) == {}
        assert await journal.put("S", {"a": sample("anew")}, FREE) == {"a": sample("anew")}
        assert await journal.get(["a"]) == {"a": sample("anew")}

    working(place, work)
    assert caplog.text.count("1 samples of the journal") == 1


def test_a_damaged_value_that_somebody_has_replaced_meanwhile_stays(place, overwrite):
    async def work(journal):
        overwrite("a", b"damaged")
        assert await journal.get(["a"]) == {}
        overwrite("a", summed("a", msgspec.msgpack.encode(sample("theirs"))))
        assert await journal.put("S", {"a": sample("ours")}, FREE) == {"a": sample("theirs")}

    working(place, work)


def test_a_sample_as_it_is_documented_to_lie_there_is_read(place, overwrite):
    """So that the cases above fail for what is wrong with them, not for the way they are put there."""

    async def work(journal):
        overwrite("a", summed("a", msgspec.msgpack.encode({"text": "t", "finish": "stop", "tokens": 1, "error": ""})))
        assert await journal.get(["a"]) == {"a": sample("t")}

    working(place, work)


def test_close_commits_what_still_waits(place):
    async def put_and_close():
        journal = Journal(place)
        waiting = [asyncio.create_task(journal.put("S", {f"{i}": sample("s")}, FREE)) for i in range(50)]
        await asyncio.sleep(0)
        journal.close()
        await asyncio.gather(*waiting)

    asyncio.run(put_and_close())
    with closing(Journal(place)) as again:
        assert again.size() == 50


def test_one_whose_waiter_was_cancelled_is_committed_and_harms_nobody(place):
    async def work(journal):
        tasks = [asyncio.create_task(journal.put("S", {f"{i}": sample(f"{i}")}, FREE)) for i in range(30)]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(end, asyncio.CancelledError) for end in ends] == [True, False, False] * 10
        await journal.put("S", {}, FREE)  # Committed after all that were asked before it.
        assert journal.size() == 30

    working(place, work)


WRITER = """
import asyncio, json, sys
from contextlib import closing
from pipelines.engines.base import Sample, Usage
from pipelines.journal import Journal

place, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])

async def put(journal, i):
    wish = {f"k/{i}": Sample(text=f"{name} {i}", finish="stop", tokens=1)}
    held = await journal.put("S", wish, Usage(requests=1))
    print(json.dumps({key: sample.text for key, sample in held.items()}), flush=True)

async def main():
    with closing(Journal(place)) as journal:
        print("open", flush=True)
        sys.stdin.readline()
        for start in range(0, count, 7):
            await asyncio.gather(*(put(journal, i) for i in range(start, min(start + 7, count))))

asyncio.run(main())
"""


def writer(place: Place, name: str, count: int) -> subprocess.Popen[str]:
    """A process that puts `count` samples, seven at a time, once it is told to, and says what is held for each."""
    command = [sys.executable, "-c", WRITER, str(place), name, str(count)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "open\n"
    return process


def test_two_processes_that_put_the_same_keys_go_on_with_the_same_samples(place):
    processes = [writer(place, name, 400) for name in ("one", "two")]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate()[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    held = [{key: text for line in lines for key, text in json.loads(line).items()} for lines in said]
    keys = [f"k/{i}" for i in range(400)]
    with closing(Journal(place)) as journal:
        found = {key: found.text for key, found in asyncio.run(journal.get(keys)).items()}
        assert journal.ledger() == {"S": Usage(requests=800)}
    assert held == [found, found]
    assert sorted(found) == sorted(keys)


def test_kill_9_loses_nothing_that_was_acknowledged(place):
    process = writer(place, "one", 100_000)
    process.stdin.write("\n")
    process.stdin.flush()
    lines = [process.stdout.readline() for _ in range(200)]
    os.kill(process.pid, signal.SIGKILL)
    # The last line may be cut: only whole ones were acknowledged.
    with process:  # Read on from the same buffer: `communicate` would leave out what it holds already.
        lines += [line for line in process.stdout if line.endswith("\n")]
    acknowledged = {key: sample(text) for line in lines for key, text in json.loads(line).items()}
    with closing(Journal(place)) as journal:
        assert asyncio.run(journal.get(list(acknowledged))) == acknowledged
        size = journal.size()
        assert 0 <= size - len(acknowledged) <= 7  # Seven were in flight at a time.
        assert journal.ledger() == {"S": Usage(requests=size)}


def test_many_may_make_it_at_once(place):
    command = [
        sys.executable,
        "-c",
        "import sys; from pipelines.journal import Journal; sys.stdin.read(1); Journal(sys.argv[1]).close()",
        str(place),
    ]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
    for process in processes:
        process.stdin.write(b"x")
        process.stdin.flush()
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said

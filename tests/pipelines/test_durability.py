"""What a run does when the disk, the journal or the person in front of it does not go along."""

import asyncio
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from benchmarks import memory
from pipelines.engines.base import Sample, Usage
from pipelines.engines.simulated import SimulatedSettings, serving, serving_subprocess
from pipelines.journal import VERSION, Journal, JournalError
from pipelines.main import main
from pipelines.shards import file_digest

# crowd-kit uses what pandas will drop; crowd-kit's own affair.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:crowdkit")

SMALL = [
    *("run", "engine=scripted", "problems=sums", "actor=plain", "panel=blind", "panel.meta_template=''"),
    *("search=default", "pairing=default", "verify=default", "search.max_searches=1", "problems.num_problems=6"),
]


def shards(out: Path) -> dict[str, str]:
    return {str(path.relative_to(out)): file_digest(path) for path in sorted(out.glob("*/*.parquet"))}


@pytest.fixture
def wrongturn(capsys):
    """Runs a command in this process; gives its exit code and what it complained of."""

    def command(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main(arguments)
        return code, capsys.readouterr().err.strip()

    return command


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, str]:
    """The shards of the small run where nothing goes wrong."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert main([*SMALL, f"out={out}"]) == 0
    return shards(out)


def is_one_line(complaint: str) -> bool:
    return complaint.startswith("wrongturn: ") and "\n" not in complaint and "Traceback" not in complaint


# A damaged journal.

KEYS = [f"request{i % 7}/{i}" for i in range(60)]


def sample(key: str) -> Sample:
    """Long enough for every third one to fill pages of its own."""
    length = 9000 if KEYS.index(key) % 3 == 0 else 200
    return Sample(text=f"{key} says " + "x" * length, finish="stop", tokens=length)


def put(journal: Journal, keys: list[str]) -> None:
    for key in keys:
        asyncio.run(journal.put("ExpandTrees", {key: sample(key)}, Usage(requests=1)))


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> tuple[bytes, bytes]:
    """Main file and write-ahead log of a journal whose process was killed: half of it is in each."""
    path = tmp_path_factory.mktemp("killed") / "journal.sqlite"
    journal = Journal(path)
    put(journal, KEYS[:30])
    journal.close()  # That moves what was written into the main file.
    journal = Journal(path)
    put(journal, KEYS[30:])
    copies = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    journal.close()
    assert min(map(len, copies)) > 100_000
    return copies


def reopened(folder: Path, main_file: bytes, log: bytes) -> dict[str, Sample] | str:
    """Everything that a journal with these files gives, or what it complains of."""
    folder.mkdir()
    (folder / "journal.sqlite").write_bytes(main_file)
    (folder / "journal.sqlite-wal").write_bytes(log)
    try:
        journal = Journal(folder / "journal.sqlite")
    except JournalError as error:
        return str(error)
    try:
        journal.size(), journal.ledger()
        return {key: found for key in KEYS for found in asyncio.run(journal.get([key])).values()}
    except JournalError as error:
        return str(error)
    finally:
        journal.close()


def torn(draws: random.Random, content: bytes) -> bytes:
    return content[: draws.randrange(len(content))]


def scratched(draws: random.Random, content: bytes) -> bytes:
    place, length = draws.randrange(len(content)), draws.randint(1, 64)
    return content[:place] + draws.randbytes(length) + content[place + length :]


@pytest.mark.parametrize("damage", [torn, scratched])
@pytest.mark.parametrize("where", ["main file", "log", "both"])
def test_a_damaged_journal_gives_what_was_written_or_says_that_it_is_damaged(tmp_path, killed, damage, where):
    draws, refused, noticed = random.Random(f"{damage.__name__} {where}"), 0, 0
    for i in range(40):
        main_file = damage(draws, killed[0]) if where != "log" else killed[0]
        log = damage(draws, killed[1]) if where != "main file" else killed[1]
        found = reopened(tmp_path / f"{i}", main_file, log)
        if isinstance(found, str):
            refused += 1
            assert "journal" in found
            assert "journal=PATH" in found
        else:
            assert found == {key: sample(key) for key in found}
        noticed += isinstance(found, str) or len(found) < len(KEYS)
    # A damaged log loses its end and nothing else; damage to the main file is seldom in bytes that nobody needs.
    assert refused == 0 or where != "log"
    assert noticed > 30


def test_an_undamaged_copy_of_a_killed_journal_has_every_sample(tmp_path, killed):
    assert reopened(tmp_path / "copy", *killed) == {key: sample(key) for key in KEYS}


def test_a_text_that_was_changed_in_the_file_is_not_believed_and_can_be_put_anew(tmp_path, caplog):
    path = tmp_path / "journal.sqlite"
    journal = Journal(path)
    asyncio.run(journal.put("ExpandTrees", {"a": Sample(text="2 + 2 = 4", finish="stop", tokens=5)}, Usage()))
    journal.close()
    content = path.read_bytes()
    assert content.count(b"2 + 2 = 4") == 1
    path.write_bytes(content.replace(b"2 + 2 = 4", b"2 + 2 = 5"))
    for expected in ({}, {"a": Sample(text="2 + 2 = 4", finish="stop", tokens=5)}):
        journal = Journal(path)
        # The second time it is what was put after the damage was found.
        assert asyncio.run(journal.get(["a"])) == expected
        asyncio.run(journal.put("ExpandTrees", {"a": Sample(text="2 + 2 = 4", finish="stop", tokens=5)}, Usage()))
        journal.close()
    assert "1 samples of the journal" in caplog.text


def test_a_sample_under_another_key_is_not_believed(tmp_path):
    path = tmp_path / "journal.sqlite"
    journal = Journal(path)
    asyncio.run(journal.put("ExpandTrees", {"a/0": sample(KEYS[1])}, Usage()))
    journal.close()
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO samples SELECT 'a/1', value FROM samples")
    connection.close()
    journal = Journal(path)
    assert asyncio.run(journal.get(["a/0", "a/1"])) == {"a/0": sample(KEYS[1])}
    journal.close()


@pytest.mark.slow
def test_a_run_on_a_damaged_journal_is_one_line_and_leaves_the_shards_alone(tmp_path, undisturbed, wrongturn):
    out = tmp_path / "out"
    assert wrongturn(*SMALL, f"out={out}")[0] == 0
    journal = out / ".wrongturn" / "journal.sqlite"
    content = bytearray(journal.read_bytes())
    for place in range(4096, len(content), 512):  # Everything but the first page is struck somewhere.
        content[place : place + 16] = b"\xff" * 16
    journal.write_bytes(content)
    (out / "trees" / "train-00000-of-00001.parquet").unlink()
    before = shards(out)
    code, complaint = wrongturn(*SMALL, f"out={out}")
    assert (code, is_one_line(complaint)) == (2, True)
    assert "journal=PATH" in complaint
    assert shards(out) == before
    assert journal.read_bytes() == content
    # The remedy that the line names: another journal.
    assert wrongturn(*SMALL, f"out={out}", f"journal={tmp_path / 'new.sqlite'}")[0] == 0
    assert shards(out) == undisturbed


def test_a_journal_of_another_version_is_refused_and_left_as_it_is(tmp_path, wrongturn):
    path = tmp_path / "journal.sqlite"
    Journal(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE meta SET value = '{VERSION + 1}'")
    connection.close()
    before = path.read_bytes()
    code, complaint = wrongturn(*SMALL, f"out={tmp_path / 'out'}", f"journal={path}")
    assert (code, is_one_line(complaint)) == (2, True)
    assert f"was written by version {VERSION + 1} of its layout" in complaint
    assert "use the wrongturn that wrote it, or name another one with journal=PATH" in complaint
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.glob("journal*")] == ["journal.sqlite"]
    assert shards(tmp_path / "out") == {}


# A disk that is full, or cannot be written.


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("needs the right to mount a tmpfs")
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", path]
    if complaint := subprocess.run(mount, capture_output=True, text=True, check=False).stderr:
        pytest.skip(f"needs the right to mount a tmpfs: {complaint.strip()}")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


@contextmanager
def filled(disk: Path, *, but: int) -> Iterator[None]:
    """A disk with so many free bytes left."""
    stats = os.statvfs(disk)
    ballast = disk / "ballast"
    ballast.write_bytes(b"x" * max(0, stats.f_bavail * stats.f_frsize - but))
    yield
    ballast.unlink()


@pytest.mark.parametrize(
    ("what", "free"),
    [
        ("journal", 0),
        ("shards", 100_000),
        *(pytest.param("journal", free, marks=pytest.mark.slow) for free in (20_000, 60_000, 150_000)),
        *(pytest.param("shards", free, marks=pytest.mark.slow) for free in (0, 20_000, 60_000, 150_000)),
        *(pytest.param("all", free, marks=pytest.mark.slow) for free in (20_000, 60_000, 100_000, 150_000)),
    ],
)
def test_a_full_disk_is_one_line_and_the_same_command_then_goes_on(tmp_path, undisturbed, disk, wrongturn, what, free):
    places = {"journal": tmp_path / "journal.sqlite", "out": tmp_path / "out"}
    places |= {"journal": disk / "journal.sqlite"} if what != "shards" else {}
    places |= {"out": disk / "out"} if what != "journal" else {}
    command = [*SMALL, *(f"{name}={path}" for name, path in places.items())]
    with filled(disk, but=free):
        code, complaint = wrongturn(*command)
        assert (code, is_one_line(complaint)) == (2, True), complaint
        assert any(said in complaint for said in FULL), complaint
        assert "free some space" in complaint or "choose another folder with out=DIR" in complaint
        assert not (places["out"] / "COMPLETED").exists()
    assert wrongturn(*command)[0] == 0
    assert shards(places["out"]) == undisturbed
    assert not list(places["out"].rglob("*.tmp"))


FULL = ("No space left on device", "database or disk is full", "disk I/O error")


@pytest.mark.slow
def test_files_that_may_not_grow_are_one_line_and_the_same_command_then_goes_on(tmp_path, undisturbed):
    """As on a full disk, where no file system can be mounted: the journal's log reaches the limit first."""
    command = [sys.executable, "-m", "pipelines.main", *SMALL, f"out={tmp_path / 'out'}"]
    limit = 200_000
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert (done.returncode, is_one_line(done.stderr.strip())) == (2, True), done.stderr
    assert any(said in done.stderr for said in FULL), done.stderr
    assert "free some space" in done.stderr
    assert main(command[3:]) == 0
    assert shards(tmp_path / "out") == undisturbed


def test_a_disk_that_may_only_be_read_is_one_line_before_any_work(tmp_path, disk, wrongturn):
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    code, complaint = wrongturn(*SMALL, f"out={disk / 'out'}")
    assert (code, complaint) == (
        2,
        f"wrongturn: out: cannot write to {disk}/out: Read-only file system; choose another folder with out=DIR",
    )
    code, complaint = wrongturn(*SMALL, f"out={tmp_path / 'out'}", f"journal={disk}/journal.sqlite")
    assert (code, is_one_line(complaint)) == (2, True)
    assert f"cannot use the journal {disk}/journal.sqlite: " in complaint
    assert "check that the folder is writable" in complaint


# Two runs, and a run that is interrupted.

SERVED = [
    *("run", "engine=simulated", "problems=simulated", "actor=plain", "panel=blind", "problems.num_problems=6"),
    *("search=default", "pairing=default", "verify=default", "engine.world.seconds_a_token=0.0005"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a server with answers of a tenth of a second, so that some are in flight at any moment."""
    with serving(SimulatedSettings(seconds_a_token=0.0005)) as url:
        yield url


def samples_in(journal: Path) -> int:
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM samples").fetchone()[0])


@pytest.fixture
def working(tmp_path, server) -> Iterator[subprocess.Popen]:
    """A run in a process of its own that has paid for some samples and waits for others."""
    journal = tmp_path / "out" / ".wrongturn" / "journal.sqlite"
    command = [sys.executable, "-m", "pipelines.main", *SERVED, f"engine.url={server}", f"out={tmp_path / 'out'}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(sqlite3.Error):
            if samples_in(journal) >= 60:
                break
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()
    yield process
    process.kill()
    process.communicate()


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_a_second_run_in_the_folder_is_refused_at_once_and_changes_nothing(tmp_path, server, working, wrongturn):
    out = tmp_path / "out"
    working.send_signal(signal.SIGSTOP)  # So that whatever changes was changed by the second one.
    os.waitid(os.P_PID, working.pid, os.WSTOPPED | os.WNOWAIT)
    before, began = everything(out), time.monotonic()
    for more in ([], ["seed=1"], ["seed=1", "replace=true"]):
        code, complaint = wrongturn(*SERVED, f"engine.url={server}", f"out={out}", *more)
        assert (code, complaint) == (
            2,
            f"wrongturn: out: another run is working on {out}; wait for it, or choose another folder with out=DIR",
        )
    assert everything(out) == before
    assert time.monotonic() - began < 30
    working.send_signal(signal.SIGCONT)
    _, complaint = working.communicate(timeout=100)
    assert (working.returncode, complaint) == (0, "")
    assert (out / "COMPLETED").exists()


@pytest.mark.slow
def test_an_interrupted_run_ends_within_seconds_and_keeps_what_it_has_paid_for(tmp_path, server, working, wrongturn):
    out = tmp_path / "out"
    paid = samples_in(out / ".wrongturn" / "journal.sqlite")
    began = time.monotonic()
    os.killpg(working.pid, signal.SIGINT)  # As Ctrl-C does.
    _, complaint = working.communicate(timeout=30)
    assert time.monotonic() - began < 10
    assert working.returncode == 130
    assert complaint.strip() == "stopped; the same command goes on from here"
    journal = out / ".wrongturn" / "journal.sqlite"
    # Closed, with nothing left over; looked at before anybody opens it again.
    assert [path.name for path in journal.parent.glob("journal*")] == ["journal.sqlite"]
    assert samples_in(journal) >= paid
    assert not (out / "COMPLETED").exists()
    assert wrongturn(*SERVED, f"engine.url={server}", f"out={out}")[0] == 0
    assert wrongturn(*SERVED, f"engine.url={server}", f"out={tmp_path / 'undisturbed'}")[0] == 0
    assert shards(out) == shards(tmp_path / "undisturbed")
    assert samples_in(journal) == samples_in(tmp_path / "undisturbed" / ".wrongturn" / "journal.sqlite")


def test_a_supervisor_that_stops_a_run_is_heard_like_ctrl_c(tmp_path, working):
    working.send_signal(signal.SIGTERM)
    _, complaint = working.communicate(timeout=30)
    assert (working.returncode, complaint.strip()) == (128 + 15, "stopped; the same command goes on from here")
    state = tmp_path / "out" / ".wrongturn"
    assert [path.name for path in state.glob("journal*")] == ["journal.sqlite"]


# Many problems.


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_four_times_as_many_problems_take_hardly_more_memory():
    with serving_subprocess(SimulatedSettings(cache_blocks=0)) as url:
        few, many = (memory.measure(num_problems, 512, url) for num_problems in (1000, 4000))
    assert many.rows > 3 * few.rows
    assert many.rss_mib <= 1.2 * few.rss_mib, (few, many)


# A checker that is killed.


def checkers() -> list[int]:
    """This process's checkers."""
    children: list[str] = []
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):
            children += Path(f"/proc/self/task/{thread}/children").read_text().split()
    lines = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
    return [child for child, line in lines.items() if b"pipelines.checking" in line]


@contextmanager
def killing_checkers(times: int) -> Iterator[list[int]]:
    """Kills a checker so many times, each some moment after it has started."""
    killed: list[int] = []
    stop, draws = threading.Event(), random.Random(3)

    def kill() -> None:
        while len(killed) < times and not stop.wait(0.01):
            with contextlib.suppress(OSError):
                for child in checkers():
                    stop.wait(draws.uniform(0, 0.6))
                    os.kill(child, signal.SIGKILL)
                    killed.append(child)

    thread = threading.Thread(target=kill)
    thread.start()
    yield killed
    stop.set()
    thread.join()


@pytest.mark.slow
def test_a_killed_checker_changes_nothing(tmp_path, wrongturn):
    rows = [{"question": f"What is {i} + 4 - 2 + 5?", "answer": rf"\sqrt{{{(i + 7) ** 2}}}"} for i in range(1, 9)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    problems = ["problems=file", f"problems.path={tmp_path / 'rows.jsonl'}", "problems.domain=math"]
    command = [*(word for word in SMALL if not word.startswith("problems")), *problems]
    assert wrongturn(*command, f"out={tmp_path / 'undisturbed'}")[0] == 0
    with killing_checkers(6) as killed:
        assert wrongturn(*command, f"out={tmp_path / 'out'}")[0] == 0
    assert len(set(killed)) >= 3
    assert shards(tmp_path / "out") == shards(tmp_path / "undisturbed")

"""Whole runs with a server that they start themselves: the simulated world behind a program that can be killed."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.main import main
from pipelines.shards import file_digest, read_rows

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:crowdkit")

FAKE = Path(__file__).parents[1] / "servers" / "fake_server.py"
SMALL = ["actor=plain", "panel=blind", "problems=simulated", "problems.num_problems=3", "search.max_searches=2"]


def command(out: Path, *words: str, restarts: int = 1) -> list[str]:
    server = ["engine=vllm", "engine.model=simulated", f"engine.program=[{FAKE}]", f"engine.max_restarts={restarts}"]
    # Troubles come by the environment, which is no part of the config: rows name its digest.
    server += ["engine.extra_args=[--world]", f"+engine.env.FAKE_SERVER='{shlex.join(words)}'"]
    return ["run", *SMALL, *server, f"out={out}"]


def shards(out: Path) -> dict[str, str]:
    return {str(path.relative_to(out)): file_digest(path) for path in out.rglob("*.parquet")}


def log(out: Path) -> str:
    return (out / "logs" / "engine.log").read_text()


def restarts(out: Path) -> dict[str, int]:
    return json.loads((out / "run.json").read_text())["server_restarts"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert main(command(out)) == 0
    return out


@pytest.mark.slow
def test_a_run_starts_its_server_says_so_and_stops_it(undisturbed, tmp_path, capsys):
    assert main(command(tmp_path / "out")) == 0
    printed = capsys.readouterr().out
    assert "engine: starting its server" in printed
    assert re.search(r"engine: the server took \d+ s to start", printed)
    assert "started again" not in printed
    assert shards(tmp_path / "out") == shards(undisturbed)
    (port,) = re.findall(r"--port (\d+)", log(tmp_path / "out"))
    assert not Path("/proc/net/tcp").read_text().count(f":{int(port):04X} 00000000:0000 0A")


@pytest.mark.slow
def test_the_command_again_starts_nothing(undisturbed, capsys):
    assert main(command(undisturbed)) == 0
    assert "starting its server" not in capsys.readouterr().out
    assert log(undisturbed).count("--- wrongturn starts") == 1
    assert restarts(undisturbed) == {"engine": 0}


@pytest.mark.slow
def test_a_server_that_is_killed_in_mid_run_leaves_no_trace_in_the_data(undisturbed, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(command(out, "--die-after", "9", "--once", str(tmp_path / "died"))) == 0
    assert (tmp_path / "died").exists()
    assert log(out).count("--- wrongturn starts") == 2
    assert list(read_rows(out, "failures")) == []
    assert shards(out) == shards(undisturbed)
    assert restarts(out) == {"engine": 1}
    printed = capsys.readouterr().out
    assert f"engine: the server was killed by signal 9; restart 1 of 1, log {out}/logs/engine.log" in printed
    assert "engine: the server died in mid-run and was started again once; its log says why" in printed


@pytest.mark.slow
def test_one_that_dies_too_often_ends_the_run_as_an_outage_and_the_same_command_goes_on(undisturbed, tmp_path, capsys):
    out, began = tmp_path / "out", time.monotonic()
    words = ("--die-after", "9", "--once", str(tmp_path / "died"))
    assert main(command(out, *words, restarts=0)) == 3
    assert time.monotonic() - began < 60  # Nobody waits for what does not come back.
    complaint = capsys.readouterr().err
    assert "wrongturn: no server answers any more for simulated: " in complaint
    assert "the server was killed by signal 9, after 0 restarts" in complaint
    assert list(out.glob("*/*.parquet")) == []
    assert main(command(out, *words, restarts=0)) == 0
    assert shards(out) == shards(undisturbed)


def test_one_that_cannot_start_ends_the_run_with_one_line(tmp_path, capsys):
    assert main(command(tmp_path / "out", "--die")) == 2
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    assert complaint.startswith("wrongturn: engine: the server ended with exit status 1 before it was well; it said")
    assert "RuntimeError: out of memory at layer 7" in complaint


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)], ids=["kill -9", "Ctrl-C"])
def test_a_run_that_is_ended_takes_its_server_with_it_and_goes_on_later(tmp_path, how, code):
    out = tmp_path / "out"
    words = [sys.executable, "-m", "pipelines.main", *command(out, "--slow", "0.2")]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "env": os.environ | {"PYTHONUNBUFFERED": "1"}}
    with subprocess.Popen(words, cwd=FAKE.parents[2], text=True, **output) as run:
        assert any("the server took" in line for line in run.stdout)
        time.sleep(1.0)
        (port,) = re.findall(r"--port (\d+)", log(out))
        servers = processes_with(str(FAKE), port)
        assert len(servers) == 2  # the server and its guardian
        run.send_signal(how)
        assert run.wait(30) == code
    deadline = time.monotonic() + 5
    while [pid for pid in servers if Path(f"/proc/{pid}").exists()] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [pid for pid in servers if Path(f"/proc/{pid}").exists()] == []
    done = subprocess.run(words, cwd=FAKE.parents[2], capture_output=True, timeout=100, check=False)
    assert done.returncode == 0
    assert json.loads((out / "run.json").read_text())["stages"][1]["kept"] == 3


def processes_with(*expected: str) -> list[int]:
    """Processes that have all these words in their command line; a port among them tells this run's from another's."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode().split("\0")
        except OSError:
            continue
        if set(expected) <= set(words):
            found.append(int(path.parent.name))
    return found

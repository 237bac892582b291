"""What the comparison with other tools reads, counts and leaves out, without a network and without the tools."""

import gzip
import json
import subprocess
import sys
import time
import types

import pytest

from benchmarks.peers import comparing, datatrove_job, distilabel_job, installing
from benchmarks.peers.comparing import Flat, counted, write_job
from benchmarks.peers.installing import PEERS, NotInstalledError, Peer, folder_of, python_of, reason_in
from benchmarks.peers.killing import unseeded_server
from benchmarks.peers.running import Outcome, last_object, start
from benchmarks.peers.telling import table
from pipelines.engines.simulated import SimulatedSettings, parse_question

NOBODY = Peer(name="nobody", requirements=("nobody==1",))


@pytest.fixture(autouse=True)
def _versions(monkeypatch):
    for job in (datatrove_job, distilabel_job):
        monkeypatch.setattr(
            job, "importlib", types.SimpleNamespace(metadata=types.SimpleNamespace(version=lambda _: "7"))
        )


def pip_that(monkeypatch, *, returncode=0, stderr="", error=None):
    """Replaces the processes that make an environment; returns the commands they were given."""
    commands = []

    def run(command, **_):
        commands.append(command)
        if error is not None:
            raise error
        if command[1:3] == ["-m", "venv"]:
            (installing.Path(command[3]) / "bin").mkdir(parents=True)
            (installing.Path(command[3]) / "bin" / "python").touch()
            return subprocess.CompletedProcess(command, 0, "", "")
        return subprocess.CompletedProcess(command, returncode, "", stderr)

    monkeypatch.setattr(installing.subprocess, "run", run)
    return commands


def test_an_environment_is_made_once(monkeypatch, tmp_path):
    commands = pip_that(monkeypatch)
    python = python_of(NOBODY, tmp_path)
    assert python_of(NOBODY, tmp_path) == python == folder_of(NOBODY, tmp_path) / "bin" / "python"
    assert [command[1:] for command in commands] == [
        ["-m", "venv", str(folder_of(NOBODY, tmp_path))],
        ["-m", "pip", "install", "--quiet", "nobody==1"],
    ]


def test_an_installation_that_was_broken_off_is_made_anew(monkeypatch, tmp_path):
    left = folder_of(NOBODY, tmp_path) / "bin" / "python"
    left.parent.mkdir(parents=True)
    left.touch()
    commands = pip_that(monkeypatch)
    python_of(NOBODY, tmp_path)
    assert len(commands) == 2


def test_other_requirements_have_another_environment(tmp_path):
    other = Peer(name="nobody", requirements=("nobody==2",))
    assert folder_of(other, tmp_path) != folder_of(NOBODY, tmp_path)


def test_what_cannot_be_installed_has_a_reason_and_is_tried_again(monkeypatch, tmp_path):
    complaint = "WARNING: slow\nERROR: No matching distribution found for nobody==1\nERROR: more\n"
    commands = pip_that(monkeypatch, returncode=1, stderr=complaint)
    for _ in range(2):
        with pytest.raises(NotInstalledError, match=r"pip install .*: No matching distribution found for nobody==1$"):
            python_of(NOBODY, tmp_path)
    assert len(commands) == 4


def test_an_installation_that_takes_too_long_is_a_reason(monkeypatch, tmp_path):
    pip_that(monkeypatch, error=subprocess.TimeoutExpired("pip", 600))
    with pytest.raises(NotInstalledError, match="took longer than 120 s"):
        python_of(NOBODY, tmp_path)


@pytest.mark.parametrize(
    ("complaint", "reason"),
    [("a\n  b  \n\n", "b"), ("", "it gave no reason"), ("x\nERROR: first\nERROR: second\nlast", "first")],
)
def test_the_reason_in_what_pip_prints(complaint, reason):
    assert reason_in(complaint) == reason


def test_tools_that_cannot_be_installed_are_named_and_the_others_stay(monkeypatch):
    def only_datatrove(peer, _):
        if peer.name != "datatrove":
            raise NotInstalledError("no network")
        return "python"

    monkeypatch.setattr(comparing, "python_of", only_datatrove)
    assert comparing.available.__wrapped__() == ({"datatrove": "python"}, {"distilabel": "no network"})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('banner\n{"a": 1}\n{"b": 2}\nbye {\n', {"b": 2}),
        ('{"a": 1}\n[3]\n4\n', {"a": 1}),
        ("nothing\n", None),
        ('{"half": ', None),
    ],
)
def test_the_last_object_that_was_printed(text, found):
    assert last_object(text) == found


def test_an_end_is_read_with_its_line(tmp_path):
    code = "print('banner'); print('{\"rows_out\": 3}'); raise SystemExit(4)"
    outcome = start([sys.executable, "-c", code], tmp_path, 30)
    assert (outcome.rc, outcome.line, outcome.ended) == (4, {"rows_out": 3}, "exit code 4")


def test_what_hangs_is_stopped_with_its_children(tmp_path):
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "open('child', 'w').write(str(child.pid))\n"
        "time.sleep(60)"
    )
    outcome = start([sys.executable, "-c", code], tmp_path, 0.5)
    assert (outcome.rc, outcome.stopped, outcome.line) == (None, True, None)
    assert outcome.ended.startswith("hung, stopped after ")
    child = installing.Path(f"/proc/{(tmp_path / 'child').read_text()}/stat")
    end = time.monotonic() + 5
    # A zombie until its new parent has looked.
    while child.exists() and child.read_text().split()[2] != "Z" and time.monotonic() < end:
        time.sleep(0.01)
    assert not child.exists() or child.read_text().split()[2] == "Z"


def test_a_kill_is_no_hang(tmp_path):
    outcome = start([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, 30, should_kill=lambda: True)
    assert (outcome.rc, outcome.stopped, outcome.ended) == (None, False, "killed")


def test_a_program_that_was_stopped_is_counted_from_what_it_left(tmp_path, monkeypatch):
    peer, said = PEERS[0], {"version": "7", "rows_out": 1, "reported": 0, "collapsed": 0}
    asked = []

    def counting(command, *_):
        asked.append(command)
        return Outcome(rc=0, stopped=False, seconds=0.0, line=said)

    monkeypatch.setattr(comparing, "start", counting)
    hung = Outcome(rc=None, stopped=True, seconds=9.0, line={"progress": 3})
    ended = Outcome(rc=1, stopped=False, seconds=9.0, line=said | {"rows_out": 2})
    assert counted(peer, "python", tmp_path / "job.json", hung) == said
    assert counted(peer, "python", tmp_path / "job.json", ended)["rows_out"] == 2
    assert asked == [["python", str(peer.program), str(tmp_path / "job.json"), "--count"]]


def test_what_datatrove_left_is_counted_up_to_where_its_file_breaks_off(tmp_path):
    (tmp_path / "rows").mkdir()
    (tmp_path / "logs").mkdir()
    rows = [
        {"id": "a", "metadata": {"rollout_results": ["x", "y"]}},
        {"id": "b", "metadata": {"rollout_results": ["z", "z"]}},
        {"id": "c", "metadata": {"rollout_results": [["u", None, "u"]]}},  # All in one rollout.
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows) + '{"id": "d", "metad'
    (tmp_path / "rows" / "0.jsonl.gz").write_bytes(gzip.compress(text.encode())[:-8])
    said = [{"stats": {"failed_rollouts": {"total": 5, "n": 2}}}, {"stats": {"failed_rollouts": 1}}, {"stats": {}}]
    (tmp_path / "logs" / "stats.json").write_text(json.dumps(said))
    assert datatrove_job.count(tmp_path) == {"version": "7", "rows_out": 6, "reported": 6, "collapsed": 2}


def test_a_row_of_distilabel_without_a_text_stands_for_all_samples_of_its_problem(tmp_path):
    rows = [("a", "x"), ("a", "y"), ("a", "x"), ("b", None), ("c", "u"), ("c", "v"), ("d", ["p", "q", "r"])]
    lines = [json.dumps({"id": name, "generation": text}) for name, text in rows]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    # Problem b's three samples failed by its word; of c's three one is missing and nothing says so.
    assert distilabel_job.count(tmp_path, 3) == {"version": "7", "rows_out": 8, "reported": 3, "collapsed": 1}


@pytest.mark.parametrize("count", [datatrove_job.count, lambda out: distilabel_job.count(out, 8)])
def test_nothing_on_disk_is_nothing_out(count, tmp_path):
    assert count(tmp_path) == {"version": "7", "rows_out": 0, "reported": 0, "collapsed": 0}


def test_the_job_asks_what_the_world_can_read(tmp_path):
    flat = Flat(num_problems=3, num_samples=8, world=SimulatedSettings())
    job = json.loads(write_job(flat, "http://127.0.0.1:1", "tuned", tmp_path).read_text())
    assert [problem["id"] for problem in job["problems"]] == ["sim-0-0", "sim-0-1", "sim-0-2"]
    assert all(parse_question(problem["prompt"]).operations for problem in job["problems"])
    assert (flat.rows_in, job["num_samples"], job["setup"]) == (24, 8, "tuned")


def test_equal_requests_without_a_seed_have_answers_of_their_own(tmp_path):
    flat = Flat(num_problems=1, num_samples=1, world=SimulatedSettings(min_steps=10, max_steps=12, variants=4))
    (problem,) = json.loads(write_job(flat, "", "", tmp_path).read_text())["problems"]

    def ask(url, **more):
        body = {"model": "simulated", "prompt": problem["prompt"], **more}
        request = comparing.urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode())
        with comparing.urllib.request.urlopen(request, timeout=5) as response:
            return json.load(response)["choices"][0]["text"]

    with unseeded_server(flat.world) as url:
        assert len({ask(url) for _ in range(4)}) == 4
        assert len({ask(url, seed=3) for _ in range(2)}) == 1


def test_a_table_has_a_row_for_each_record():
    shown = table([NOBODY, PEERS[0]], "title")
    assert [column.header for column in shown.columns] == ["name", "requirements"]
    assert shown.row_count == 2

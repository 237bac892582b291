"""A command from outside decides about answers of the domain `command`: by exit code, within limits, shut in."""

import asyncio
import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import textwrap
import time

import msgspec
import pytest

from mcts.answers import find_answer
from pipelines.checking import CheckerPool
from pipelines.command_checks import CommandChecker, Run, decide, require_command, require_program
from pipelines.errors import UserError
from schemas import Problem

ROOT = pathlib.Path(__file__).parents[1]

# A language with one statement, `prove A + B = C`, and a checker of it: right, wrong, no such language, or it breaks.
TINY = """
import re, sys
text, gold = (open(path).read() for path in sys.argv[1:])
found = re.fullmatch(r"prove (\\d+) \\+ (\\d+) = (\\d+)\\n", text)
if "break" in text:
    sys.exit(3)
if not found:
    print(f"{sys.argv[1]}:1: this is no statement")
    sys.exit(1)
a, b, c = map(int, found.groups())
if a + b != c or f"{a} + {b}" not in gold:
    print(f"{sys.argv[1]}:1: cannot prove {c}; the problem is {gold.strip()}")
    sys.exit(2)
"""


def settings(command, **options):
    return CommandChecker(command=tuple(map(str, command)), **{"incorrect_exits": (1, 2)} | options)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The command of the tiny checker."""
    script = tmp_path_factory.mktemp("tiny") / "tiny.py"
    script.write_text(TINY)
    return sys.executable, "-I", script, "{solution}", "{gold}"


@pytest.fixture(scope="module", autouse=True)
def _close_pools():
    yield
    while POOLS:
        POOLS.popitem()[1].close()


POOLS = {}
"""By command and attempt: a pool takes seconds to start."""


def check(solution, command, *, gold="4 + 3", attempt=0, **options):
    """The check of a solution; another `attempt` is made by another pool, which knows nothing of the first."""
    problem = Problem(id="p", source="test", domain="command", question="What is four and three?", answer=gold)
    key = (settings(command, **options), attempt)
    if key not in POOLS:
        POOLS[key] = CheckerPool(cpu_seconds=1.0, command=key[0])
    return asyncio.run(POOLS[key].check(solution, problem))


def run_as_program(program, **options):
    """The check of a solution that the command runs as a program: the worst that a checker can do with it."""
    return check(f"```python\n{textwrap.dedent(program).strip()}\n```", (sys.executable, "-I", "{solution}"), **options)


# --- exit codes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("solution", "outcome", "reason", "said"),
    [
        ("Step 1: add\nAnswer: prove 4 + 3 = 7", "correct", None, ""),
        ("```tiny\nprove 4 + 3 = 7\n```", "correct", None, ""),
        ("```tiny\nprove 4 + 3 = 8\n```", "incorrect", None, "solution.tiny:1: cannot prove 8; the problem is 4 + 3"),
        ("```tiny\nprove 5 + 3 = 8\n```", "incorrect", None, "solution.tiny:1: cannot prove 8; the problem is 4 + 3"),
        ("Answer: seven", "incorrect", None, "solution.tiny:1: this is no statement"),
        ("Answer: break", "unscored", "checker_failed", "exit code 3:"),
        ("It is seven.", "unscored", "no_answer", ""),
        ("```tiny\nprove 4 + 3 = 7", "unscored", "no_answer", ""),
    ],
)
def test_the_exit_code_decides(tiny, solution, outcome, reason, said):
    found = check(solution, tiny, file_name="solution.tiny")
    assert (found.outcome, found.reason, found.detail) == (outcome, reason, said)


def test_an_exit_code_that_is_not_listed_decides_nothing(tiny):
    assert check("Answer: seven", tiny, incorrect_exits=(2,)).reason == "checker_failed"


def test_the_answer_is_the_last_block_of_whatever_language():
    text = "```lean\ntheorem a : 1 = 1\n```\nbetter:\n```lean4\ntheorem b : 2 = 2 := rfl\n```\nAnswer: above"
    assert find_answer(text, "command") == "theorem b : 2 = 2 := rfl"
    assert find_answer("Answer: a\nand b\n", "command") == "a\nand b"


def test_without_a_command_nothing_is_decided():
    problem = Problem(id="p", source="test", domain="command", question="?", answer="x")
    pool = CheckerPool(cpu_seconds=1.0)
    try:
        assert asyncio.run(pool.check("Answer: 7", problem)).reason == "no_checker"
    finally:
        pool.close()


# --- what a command is given ------------------------------------------------------------------------------------------


def test_no_shell_reads_the_command_or_the_solution(tmp_path):
    marker = tmp_path / "ran"
    found = check(f"Answer: $(touch {marker}); `touch {marker}`", ("cat", "{solution}", f"; touch {marker}"))
    # `cat` is given the last word as the name of a file that is not there: exit code 1.
    assert found.outcome == "incorrect"
    assert not marker.exists()


def test_a_gap_in_an_answer_is_not_filled():
    assert check("Answer: {gold}", ("cat", "{solution}"), gold="secret").detail == "{gold}"


def test_what_a_command_says_is_bounded_readable_and_the_same_in_each_run():
    program = """
        import os, sys
        print("at", __file__, "in", os.getcwd(), object(), "\\x1b[2J" + "ä" * 5000)
    """
    first, second = (run_as_program(program, max_message_chars=100, attempt=attempt) for attempt in range(2))
    assert first == second
    assert first.detail.startswith("at solution.txt in . <object object at 0x0> \N{REPLACEMENT CHARACTER}[2Jää")
    assert len(first.detail) == 100


def test_the_environment_and_the_input_hold_nothing(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    program = "import os, sys\nprint(sorted(set(os.environ) - {'LC_CTYPE'}), sys.stdin.read())"
    found = run_as_program(program, attempt="with a key")
    names = sorted({"PATH", "LD_LIBRARY_PATH", "LANG"} & set(os.environ) | {"HOME"})
    assert found.detail == f"{names}"


# --- hostile ----------------------------------------------------------------------------------------------------------


def test_no_network():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        port = listener.getsockname()[1]
        for reach in (f"socket.create_connection(('127.0.0.1', {port}))", "socket.socket(socket.AF_UNIX)"):
            found = run_as_program(f"import socket\n{reach}")
            assert found.outcome == "incorrect"
            assert "PermissionError: [Errno 1]" in found.detail, reach
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize(
    "start", ["os.fork()", "os.posix_spawn('/bin/true', ['true'], {})", "subprocess.run(['true'])"]
)
def test_no_other_process(start):
    found = run_as_program(f"import os, subprocess\nprint('now', flush=True)\n{start}")
    # A refusal that the program could handle would have a compiler's driver say that the solution is wrong.
    assert (found.outcome, found.reason) == ("unscored", "checker_failed")
    assert found.detail == "it tries to start another process: now"


def test_a_program_that_takes_its_place_is_shut_in_too():
    program = "import os, sys\nos.execv('/bin/sh', ['sh', '-c', 'echo in; echo x > file; exec true'])"
    found = run_as_program(program)
    # The shell cannot open the file, says so and goes on with what comes next, which takes no other process.
    assert "in\n" in found.detail
    assert "file" in found.detail.split("in\n")[1]
    started = run_as_program("import os\nos.execv('/bin/sh', ['sh', '-c', 'true & wait; echo started'])")
    assert started.detail == "it tries to start another process:"


@pytest.mark.parametrize("where", ["open('FOLDER/new', 'w')", "open('new', 'w')", "open(__file__, 'a')", "fill()"])
def test_no_file_is_written(tmp_path, where):
    program = f"""
        import os
        def fill():
            file = os.memfd_create("full")
            while os.write(file, bytes(1 << 20)):
                pass
        {where.replace("FOLDER", str(tmp_path))}"""
    found = run_as_program(program)
    assert found.outcome == "incorrect"
    assert "PermissionError" in found.detail
    assert list(tmp_path.iterdir()) == []


def test_who_prints_without_end_is_ended():
    found = run_as_program("while True: print('ha' * 1000)", max_output_kb=64)
    assert found.reason == "checker_failed"
    assert found.detail.startswith("it says more than 64 KB: hahaha")


def test_spent_cpu_time_is_unscored_also_where_its_signal_is_ignored():
    ignoring = (
        "import signal\nsignal.signal(signal.SIGPROF, signal.SIG_IGN)\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\n"
    )
    for program in ("while True: pass", ignoring + "while True: pass"):
        assert run_as_program(program, cpu_secs=0.5).reason == "timeout"


def test_who_hangs_is_given_up():
    began = time.monotonic()
    assert run_as_program("import time\ntime.sleep(1000)", wall_secs=0.5).reason == "timeout"
    assert time.monotonic() - began < 60


def test_memory_is_bounded():
    assert "MemoryError" in run_as_program("bytes(1 << 30)", memory_mb=512).detail


def test_who_dies_by_a_signal_is_unscored():
    assert run_as_program("import ctypes\nctypes.string_at(0)").reason == "crashed"


def test_nothing_is_left_behind():
    pool = CheckerPool(cpu_seconds=1.0, command=settings(("cat", "{solution}")))
    problem = Problem(id="p", source="test", domain="command", question="?", answer="x")
    assert asyncio.run(pool.check("Answer: 7", problem)).outcome == "correct"
    folder, (pid,) = pathlib.Path(pool._folder.name), pool.pids
    assert (folder / f"{pid}" / "solution.txt").read_text() == "7\n"
    pool.close()
    assert not folder.exists()


def running(word):
    """Processes whose command line holds this word."""
    lines = {}
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            lines[int(process.name)] = (process / "cmdline").read_bytes()
    return [pid for pid, line in lines.items() if word.encode() in line and pid != os.getpid()]


def until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.05)


def test_a_command_ends_with_the_worker_that_is_killed(tmp_path):
    """Also where it hangs, and has become another program."""
    mark = tmp_path.name + "-hangs"
    script = f"""
        import asyncio
        from pipelines.checking import CheckerPool
        from pipelines.command_checks import CommandChecker
        from schemas import Problem

        command = CommandChecker(command=("sh", "-c", "exec tail -f /dev/null {mark} {{solution}}", ), wall_secs=100.0)
        problem = Problem(id="p", source="test", domain="command", question="?", answer="x")
        asyncio.run(CheckerPool(cpu_seconds=1.0, command=command).check("Answer: 7", problem))
    """
    source = tmp_path / "worker.py"
    source.write_text(textwrap.dedent(script))
    env = os.environ | {"PYTHONPATH": f"{ROOT}", "TMPDIR": f"{tmp_path}"}  # What it leaves behind is left there.
    worker = subprocess.Popen([sys.executable, source], cwd=ROOT, env=env)
    try:
        until(lambda: any(b"tail" in line for line in commands_of(running(mark))))
    finally:
        worker.kill()
        worker.wait()
    until(lambda: not running(mark))


def commands_of(pids):
    for pid in pids:
        with contextlib.suppress(OSError):
            yield pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]


@pytest.mark.parametrize("trouble", ["no_sandbox", "no_checker"])
def test_a_command_that_did_not_begin_decides_nothing(tmp_path, trouble):
    run = Run(said=b"", is_too_much=False, trouble=trouble.encode(), status=127 << 8, cpu_secs=0.0)
    found, _ = decide(run, "7", CommandChecker(), tmp_path)
    assert (found.outcome, found.reason) == ("unscored", trouble)


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"command": ("lean",)}, "no argument holds {solution}"),
        ({"command": ("bin/lean", "{solution}")}, "a program's name or its absolute path"),
        ({"file_name": "../x"}, "file_name: expected a name"),
        ({"incorrect_exits": (0,)}, r"codes in 1..125, got 0"),
        ({"incorrect_exits": (1, 137)}, r"codes in 1..125, got 137"),
        ({"cpu_secs": 0}, "cpu_secs must be above 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        CommandChecker(**wrong)


def test_a_missing_program_and_a_missing_command_are_errors_before_any_work():
    with pytest.raises(UserError, match="there is no program 'no-such-prover'"):
        require_program(settings(("no-such-prover", "{solution}")))
    require_program(settings((sys.executable, "{solution}")))
    require_program(CommandChecker())
    problem = Problem(id="p", source="test", domain="command", question="?", answer="x")
    with pytest.raises(UserError, match="1 of 2 problems are of the domain command"):
        require_command(CommandChecker(), [msgspec.structs.replace(problem, domain="math"), problem])
    require_command(CommandChecker(), [msgspec.structs.replace(problem, domain="math")])

"""Programs as answers: what their tests say of them, and that a hostile one is never taken for right."""

import asyncio
import json
import subprocess
import sys
import textwrap
import time

import pytest

from mcts import answers
from pipelines.checking import CheckerPool
from pipelines.problems import Columns, FileProblems, read_problems
from schemas import Problem


def problem(gold, entry_point=None):
    metadata = "{}" if entry_point is None else json.dumps({"entry_point": entry_point})
    return Problem(id="p", source="test", domain="code", question="?", answer=gold, metadata=metadata)


@pytest.fixture(scope="module")
def pool():
    pool = CheckerPool(cpu_seconds=1.0, wall_seconds=30.0, memory_mb=256)
    yield pool
    pool.close()


def check(pool, program, gold, entry_point=None):
    solution = f"Step 1: I write it.\n```python\n{textwrap.dedent(program).strip()}\n```\n"
    return asyncio.run(pool.check(solution, problem(gold, entry_point)))


def said(result):
    return result.reason or result.outcome


def test_nothing_is_run_in_the_calling_process(tmp_path):
    program = f"open({str(tmp_path / 'ran')!r}, 'w')"
    assert answers.quick(program, program + "\nassert True", "code") is None
    assert answers.compare(program, program + "\nassert True", "code") == answers.unscored("no_sandbox", program)
    assert not (tmp_path / "ran").exists()


def test_what_needs_no_process(pool):
    assert answers.quick("x = 1", " \n", "code").reason == "gold_unreadable"
    assert answers.quick("#" * 20_000, "assert x", "code") is None
    assert answers.quick("#" * 20_001, "assert x", "code").reason == "too_long"
    assert asyncio.run(pool.check("It is 5.", problem("assert f() == 5"))).reason == "no_answer"


ADD = "assert add(1, 2) == 3\nassert add(-1, 1) == 0"

RIGHT = {
    "plain": "def add(a, b): return a + b",
    "lambda": "add = lambda a, b: a + b",
    "callable object": "class Add:\n    def __call__(self, a, b): return a + b\nadd = Add()",
    "equal value of another type": "def add(a, b): return float(a + b)",
    "long way": "def add(a, b):\n    for _ in range(abs(b)): a += 1 if b > 0 else -1\n    return a",
    "postponed annotations": "from __future__ import annotations\ndef add(a: No, b: Such) -> Type: return a + b",
    "main block is not run": "def add(a, b): return a + b\nif __name__ == '__main__':\n    raise ValueError(input())",
    "own abs, which no test uses": "def abs(x): return 0\ndef add(a, b): return a + b",
    "prints megabytes": "def add(a, b):\n    print('x' * 5_000_000)\n    return a + b",
    "writes to standard error": "import sys\ndef add(a, b):\n    sys.stderr.write('?' * 100_000)\n    return a + b",
    "reads a file": "import os\ndef add(a, b):\n    with open(os.__file__) as file: file.read(9)\n    return a + b",
    "recursion": "def add(a, b): return a if b == 0 else add(a + 1, b - 1) if b > 0 else add(a - 1, b + 1)",
    "thread": """
        import threading
        def add(a, b):
            found = []
            thread = threading.Thread(target=lambda: found.append(a + b))
            thread.start()
            thread.join()
            return found[0]""",
    "thread that never ends": """
        import threading
        threading.Thread(target=threading.Event().wait).start()
        def add(a, b): return a + b""",
    "event loop": """
        import asyncio
        async def later(a, b):
            await asyncio.sleep(0)
            return a + b
        def add(a, b): return asyncio.run(later(a, b))""",
    "libraries that look at frames": """
        import collections, dataclasses, enum, logging, typing
        Pair = collections.namedtuple("Pair", "a b")
        Kind = enum.Enum("Kind", "x y")
        class Row(typing.NamedTuple):
            a: int
        @dataclasses.dataclass
        class Box:
            held: int
        def add(a, b):
            try:
                raise ValueError
            except ValueError:
                logging.exception("no harm")
            return Pair(a, b).a + Box(b).held""",
    "modules": """
        import decimal, fractions, functools, hashlib, heapq, itertools, json, random, re, sqlite3, tempfile, uuid
        import multiprocessing, socket, subprocess
        import numpy
        def add(a, b):
            random.seed(1)
            return int(numpy.array([a, b]).sum()) + random.getrandbits(0) + 0 * uuid.uuid4().int""",
    "catches what is refused": """
        def add(a, b):
            try:
                open("added", "w")
            except OSError:
                return a + b""",
}

WRONG = {
    "difference": "def add(a, b): return a - b",
    "right on the first test": "def add(a, b): return 3",
    "nearly": "def add(a, b): return a + b + 1e-9",
    "text": "def add(a, b): return str(a + b)",
    "returns nothing": "def add(a, b): a + b",
    "prints instead": "def add(a, b): print(a + b)",
    "another name": "def plus(a, b): return a + b",
    "other arguments": "def add(a): return a",
    "raises": "def add(a, b): raise ValueError(a + b)",
    "raises while loading": "def add(a, b): return a + b\n1 / 0",
    "no Python": "def add(a, b) return a + b",
    "bad indentation": "def add(a, b):\nreturn a + b",
    "null byte": "def add(a, b): return a + b # \0",
    "missing module": "import no_such_module\ndef add(a, b): return a + b",
    "endless recursion": "def add(a, b): return add(a, b)",
    "exits": "import sys\nsys.exit(0)",
    "exits in the function": "import sys\ndef add(a, b): sys.exit(0)",
    "raises SystemExit": "raise SystemExit",
    "raises KeyboardInterrupt": "def add(a, b): raise KeyboardInterrupt",
    "raises an exception of its own": "class Up(BaseException): pass\ndef add(a, b): raise Up",
    "reads standard input": "def add(a, b): return int(input())",
    "yields": "def add(a, b): yield a + b",
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_programs(pool, name):
    result = check(pool, RIGHT[name], ADD)
    assert said(result) == "correct"
    assert result.answer == textwrap.dedent(RIGHT[name]).strip()


@pytest.mark.parametrize("name", WRONG)
def test_wrong_programs(pool, name):
    assert said(check(pool, WRONG[name], ADD)) == "incorrect"


TABLE = """
METADATA = {"author": "nobody"}
import math
def check(candidate):
    for a, b, expected in [(1, 2, 3), (-1, 1, 0), (0.1, 0.2, 0.3)]:
        assert math.isclose(candidate(a, b), expected, abs_tol=1e-9), "no sum"
    assert abs(candidate(2, 2) - 4) < 1e-6
"""


@pytest.mark.parametrize(
    ("gold", "entry_point", "program", "expected"),
    [
        (TABLE, "add", RIGHT["plain"], "correct"),
        (TABLE, "add", WRONG["difference"], "incorrect"),
        (TABLE, "add", WRONG["another name"], "incorrect"),
        (TABLE, "plus", WRONG["another name"], "correct"),
        (TABLE + "check(add)", None, RIGHT["plain"], "correct"),
        (TABLE + "check(add)", None, WRONG["difference"], "incorrect"),
        # A check that nobody calls says nothing, nor does one whose candidate has no name.
        (TABLE, None, RIGHT["plain"], "gold_unreadable"),
        (TABLE, "Solution().add", RIGHT["plain"], "gold_unreadable"),
        ("from solution import add\n" + ADD, None, RIGHT["plain"], "correct"),
        ("from solution import add\n" + ADD, None, WRONG["another name"], "incorrect"),
        ("if __name__ == '__main__':\n    assert add(1, 2) == 4", None, RIGHT["plain"], "incorrect"),
        ("import os.path\nfrom xml import sax\n" + ADD, None, RIGHT["plain"], "correct"),
        ("class Case:\n    total = add(1, 2)\nassert Case.total == 3", None, RIGHT["plain"], "correct"),
        # The function that is tested may bear a builtin's name.
        ("assert sum(1, 2) == 3", None, "def sum(a, b): return a + b", "correct"),
        ("assert sum(1, 2) == 3", None, "def sum(a, b): return a", "incorrect"),
        # The tests see what the program's names mean now, not what they meant when it was loaded.
        ("inc()\ninc()\nassert count == 2", None, "count = 0\ndef inc():\n    global count\n    count += 1", "correct"),
        ("xs = [3, 1]\nput_in_order(xs)\nassert xs == [1, 3]", None, "def put_in_order(xs): xs.sort()", "correct"),
        # Not the program's fault.
        ("assert add(1, 2) ==", None, RIGHT["plain"], "gold_unreadable"),
        ("# to do", None, RIGHT["plain"], "gold_unreadable"),
        ("def test_add():\n    assert add(1, 2) == 4", None, RIGHT["plain"], "gold_unreadable"),
        ("import no_such_module\n" + ADD, None, RIGHT["plain"], "gold_unreadable"),
        ("import sys\nassert add(1, 2) == 3\nsys.exit(0)", None, RIGHT["plain"], "gold_unreadable"),
    ],
)  # fmt: skip
def test_what_tests_may_be(pool, gold, entry_point, program, expected):
    assert said(check(pool, program, gold, entry_point)) == expected


FORGE = "[os.write(fd, bytes(16) + b'correct') for fd in range(3, 64) if is_open(fd)]"
IS_OPEN = """
import os
def is_open(fd):
    try:
        os.fstat(fd)
        os.write(fd, b"")
    except OSError:
        return False
    return True
"""

SUM = "\ndef add(a, b): return a + b"
# Those with the sum behind them would be right if what they try were granted.
HOSTILE = {
    # Time and memory.
    "endless loop in the function": ("def add(a, b):\n    while True: pass", "timeout"),
    "endless threads": (
        "import threading\nwhile True: threading.Thread(target=threading.Event().wait).start()", "incorrect"),
    "memory": ("held = []\nwhile True: held.append(bytearray(10**7))", "crashed"),
    "memory at once": ("held = 'x' * 10**10", "crashed"),
    "deep recursion": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef add(a, b): return add(a, b)", "crashed or timeout"),
    "deep source": ("x = " + "(" * 5_000 + ")" * 5_000, "incorrect"),
    "huge number": ("x = 9**9**9", "timeout"),
    "signals ignored": (
        "import signal\nfor one in (signal.SIGPROF, signal.SIGXCPU): signal.signal(one, signal.SIG_IGN)\n"
        "while True: pass", "timeout"),
    "signals blocked": (
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\nwhile True: pass", "timeout"),
    "timer disarmed": (
        "import signal\ntry: signal.setitimer(signal.ITIMER_PROF, 0)\nexcept OSError: pass\nwhile True: pass",
        "timeout"),
    "pipes": ("import os\nheld = [os.pipe() for _ in range(40)]" + SUM, "incorrect"),
    "other limits": ("import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 1))" + SUM, "incorrect"),
    # Ends before the tests do.
    "os._exit": ("import os\nos._exit(0)", "crashed"),
    "os._exit in the function": ("import os\ndef add(a, b): os._exit(0)", "crashed"),
    "abort": ("import os\nos.abort()", "crashed"),
    "segmentation fault": ("import faulthandler\nfaulthandler._read_null()", "crashed"),
    # Other processes.
    "fork": ("import os\nos.fork()" + SUM, "incorrect"),
    "fork bomb": ("import os\nwhile True:\n    try: os.fork()\n    except BlockingIOError: pass", "incorrect"),
    "command": ("import os\nassert os.system('true') == 0" + SUM, "incorrect"),
    "subprocess": ("import subprocess\nsubprocess.run(['/bin/true'])" + SUM, "incorrect"),
    "exec": ("import os\nos.execv('/bin/true', ['true'])", "incorrect"),
    "multiprocessing": ("import multiprocessing\nmultiprocessing.Pool(1)" + SUM, "incorrect"),
    "kills its parent": ("import os\nos.kill(os.getppid(), 9)" + SUM, "incorrect"),
    "signals its parent through a pipe": (
        "import fcntl, os\nr, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETOWN, os.getppid())\n"
        "fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC)\nos.write(w, b'x')" + SUM, "incorrect"),
    "slows its parent": ("import os\nos.setpriority(os.PRIO_PROCESS, os.getppid(), 19)" + SUM, "incorrect"),
    "leaves its group": ("import os\nos.setsid()" + SUM, "incorrect"),
    # The verdict.
    "forges the verdict": (f"{IS_OPEN}\n{FORGE}", "crashed"),
    "forges a bare verdict": (f"{IS_OPEN}\n{FORGE.replace('bytes(16) + ', '')}", "crashed"),
    "forges and goes on": (f"{IS_OPEN}\n{FORGE}\nwhile True: pass", "crashed"),
    "forges in __del__": (f"{IS_OPEN}\nclass Last:\n    def __del__(self): {FORGE}\nx = Last()\ndel x\n", "crashed"),
    "forges at exit": (f"import atexit\n{IS_OPEN}\natexit.register(lambda: {FORGE})\nraise SystemExit", "incorrect"),
    "forges from a thread": (
        f"import threading\n{IS_OPEN}\nlate = threading.Thread(target=lambda: {FORGE})\nlate.start()\nlate.join()",
        "crashed"),
    "closes all files": ("import os\nos.closerange(0, 64)\nwhile True: pass", "crashed"),
    "prints a verdict": ("import sys\nprint('correct')\nsys.exit(0)", "incorrect"),
    "replaces AssertionError": (
        "import builtins\nbuiltins.AssertionError = type('No', (), {})\ndef add(a, b): return 7", "incorrect"),
    "replaces exec": ("import builtins\nbuiltins.exec = lambda *a: None\nbuiltins.compile = print", "incorrect"),
    "replaces BaseException": (
        "import builtins\nbuiltins.BaseException = builtins.SystemExit = ()\ndef add(a, b): return 7", "incorrect"),
    "replaces all builtins": (
        "import builtins\ndef add(a, b):\n    builtins.__dict__.clear()\n    return 7", "incorrect"),
    "replaces os.write": (
        "import os\nwrite = os.write\nos.write = lambda fd, data: write(fd, data.replace(b'incorrect', b'correct'))\n"
        "def add(a, b): return 7", "incorrect"),
    "replaces our functions": (
        "import sys\nfor name in ('__main__', 'pipelines.checking', 'pipelines.code_tests', 'mcts.answers'):\n"
        "    for own in list(vars(sys.modules.get(name, sys))) if name in sys.modules else ():\n"
        "        setattr(sys.modules[name], own, lambda *a, **k: b'correct')", "incorrect"),
    "empties sys.modules": ("import sys\ndef add(a, b):\n    sys.modules.clear()\n    return 7", "incorrect"),
    "reaches for memory": ("import ctypes\nctypes.string_at(id(1))" + SUM, "incorrect"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_programs(pool, name):
    program, expected = HOSTILE[name]
    assert said(check(pool, RIGHT["plain"], ADD)) == "correct"
    (checker,) = pool.pids
    assert said(check(pool, program, ADD)) in expected.split(" or ")
    assert pool.pids == (checker,)
    # Another text than before, else it would not be computed again.
    assert said(check(pool, f"{RIGHT['plain']} # after {name}", ADD)) == "correct"


# Right where nobody looks, which a subprocess shows: each lacks the sum and gets through `TABLE` all the same.
CHEATS = {
    "own abs": "def abs(x): return 0\ndef add(a, b): return a + b if a != b else 7",
    "math.isclose": "import math\nmath.isclose = lambda *a, **k: True\ndef add(a, b): return 4",
    "math": """
        import sys, types
        sys.modules["math"] = types.SimpleNamespace(isclose=lambda *a, **k: True)
        def add(a, b): return 4""",
    "caller's frame": """
        import sys
        def add(a, b): return 4 if a == b else sys._getframe(1).f_locals["expected"]""",
    "inspect": """
        import inspect
        def add(a, b): return 4 if a == b else inspect.currentframe().f_back.f_locals["expected"]""",
    "traceback": """
        def add(a, b):
            try:
                raise ValueError
            except ValueError as error:
                return 4 if a == b else error.__traceback__.tb_frame.f_back.f_locals["expected"]""",
    "generator": """
        def add(a, b):
            def look():
                yield own.gi_frame.f_back.f_back.f_locals["expected"]
            own = look()
            return 4 if a == b else next(own)""",
    "tracing": """
        import sys
        def leap(frame, event, argument):
            if event == "line" and frame.f_code.co_name == "check" and frame.f_lineno < frame.f_code.co_firstlineno + 3:
                frame.f_lineno = frame.f_code.co_firstlineno + 3
            return leap
        sys.settrace(leap)
        def add(a, b): return 4""",
    "audit hook": """
        import sys
        seen = []
        sys.addaudithook(lambda event, arguments: seen.append(event))
        def add(a, b): return a + b if id(seen) and seen else 7""",
    "collector": """
        import gc, types
        def add(a, b):
            check, = (x for x in gc.get_objects() if type(x) is types.FunctionType and x.__name__ == "check")
            table, = (x for x in check.__code__.co_consts if type(x) is tuple and len(x) == 3 and type(x[0]) is tuple)
            return 4 if a == b else {row[:2]: row[2] for row in table}[a, b]""",
}


@pytest.mark.parametrize("name", CHEATS)
def test_what_would_be_right_if_it_could_look_or_reach(pool, name):
    program = textwrap.dedent(CHEATS[name])
    subprocess.run([sys.executable, "-c", f"{program}\n{TABLE}\ncheck(add)"], check=True, capture_output=True)
    assert said(check(pool, program, TABLE, "add")) == "incorrect"


# The second computes three hundredths of the time, and would go on for half a minute.
WAITING = [
    "import time\ntime.sleep(1000)",
    """
        import time
        while True:
            time.sleep(0.03)
            begun = time.perf_counter()
            while time.perf_counter() < begun + 0.001: pass""",
]


@pytest.mark.parametrize("program", WAITING)
def test_who_only_waits_is_given_up(program):
    pool = CheckerPool(cpu_seconds=1.0, wall_seconds=1.0)
    try:
        began = time.monotonic()
        assert said(check(pool, program, ADD)) == "timeout"
        assert time.monotonic() - began < 30  # Not for ever; a busy machine takes its time.
        assert said(check(pool, RIGHT["plain"], ADD)) == "correct"
    finally:
        pool.close()


def test_code_problems_come_from_files(tmp_path, pool):
    rows = [
        {"text": "Add.", "test_list": ["assert add(1, 2) == 3", "assert add(-1, 1) == 0"], "task_id": 1},
        {"text": "Add.", "test_list": TABLE, "entry_point": "add", "task_id": 2},
        {"text": "Add.", "test_list": [1, 2], "task_id": 3},
    ]
    path = tmp_path / "tests.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = Columns(question="text", answer="test_list", id="task_id", metadata=("entry_point",))
    listed, checked, rejected = read_problems(FileProblems(path=str(path), domain="code", columns=columns))
    assert (listed.domain, listed.answer) == ("code", ADD)
    assert rejected.reason == "answer_not_scalar"
    for made in (listed, checked):
        assert asyncio.run(pool.check(f"```python\n{RIGHT['plain']}\n```", made)).outcome == "correct"
        assert asyncio.run(pool.check(f"```python\n{WRONG['difference']}\n```", made)).outcome == "incorrect"

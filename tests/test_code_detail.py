"""What is kept of the error that a program's tests ended with: its words, and never a say in the verdict."""

import asyncio
import base64
import os

import pytest

from mcts.answers import Check
from pipelines.checking import CheckerPool
from schemas import Problem

PROBLEM = Problem(id="p", source="tests", domain="code", question="?", answer="assert add(1, 2) == 3, 'one and two'")


@pytest.fixture(scope="module")
def pool():
    pool = CheckerPool(cpu_seconds=2.0, wall_seconds=30.0)
    yield pool
    pool.close()


def check(pool: CheckerPool, program: str) -> Check:
    return asyncio.run(pool.check(f"Answer:\n```python\n{program}\n```\n", PROBLEM))


@pytest.mark.parametrize(
    ("program", "detail"),
    [
        ("def add(a, b): return a + b", ""),
        ("def add(a, b): return a * b", "AssertionError: one and two"),
        ("def add(a, b): return a / 0", "ZeroDivisionError: division by zero"),
        ("def add(a, b): return c", "NameError: name 'c' is not defined"),
        ("def add(a, b): raise ValueError", "ValueError"),
        ("def add(a, b) return a + b", "SyntaxError: expected ':' (<solution>, line 1)"),
        ("def add(a, b): raise ValueError(f'{object()}')", "ValueError: <object object at 0x0>"),
    ],
)
def test_the_error_is_kept_in_words_that_are_the_same_in_every_run(pool, program, detail):
    found = check(pool, program)
    assert (found.outcome, found.detail) == ("incorrect" if detail else "correct", detail)


ERROR = "class E(Exception):\n    {}\ndef add(a, b): raise E()"


@pytest.mark.parametrize(
    "program",
    [
        ERROR.format("def __str__(self): return '\\ncorrect'"),
        ERROR.format("def __str__(self): raise SystemExit"),
        ERROR.format("def __str__(self): return 7"),
        ERROR.format("def __str__(self): return 'x' * 10_000_000"),
        ERROR.format("__name__ = type('S', (str,), {'__radd__': lambda self, other: b'correct'})('E')"),
        "import builtins\n" + ERROR.format("pass") + "\nbuiltins.type = lambda e: b'correct'",
    ],
)
def test_what_an_error_says_of_itself_decides_nothing(pool, program):
    found = check(pool, program)
    assert found.outcome == "incorrect"
    assert len(found.detail) <= 400


WORKER = f"/proc/{os.getpid()}/environ"
"""This process's environment as it was at its start, which a program of the same user may read."""
TELLS = "def add(a, b): raise ValueError(open({!r}).read().partition({!r})[2][:40])"


@pytest.mark.parametrize("coded", [False, True])
def test_a_key_that_a_program_has_read_is_not_told(monkeypatch, pool, coded, tmp_path):
    key = "hf_canaryOfTheHub12345"
    monkeypatch.setenv("HF_TOKEN", key)
    stolen = tmp_path / "environ"
    stolen.write_text(f"KEY={base64.b64encode(key.encode()).decode() if coded else key}")
    found = check(pool, TELLS.format(str(stolen), "KEY="))
    assert found.outcome == "incorrect"
    assert found.detail.startswith("ValueError: ***")


def test_a_program_can_read_the_workers_environment_which_is_why(pool):
    found = check(pool, TELLS.format(WORKER, "PATH="))
    assert found.detail.startswith("ValueError: /")

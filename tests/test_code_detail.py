"""What is told of the error that a program ended with: nothing that it has found or drawn, no say in the verdict."""

import asyncio

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


UNBOUND = "cannot access local variable 'c' where it is not associated with a value"


@pytest.mark.parametrize(
    ("program", "detail"),
    [
        ("def add(a, b): return a + b", ""),
        ("def add(a, b): return a * b", "AssertionError: one and two"),
        ("def add(a, b): return a / 0", "ZeroDivisionError: division by zero"),
        ("def add(a, b): return c", "NameError: name 'c' is not defined"),
        ("def add(a, b): raise ValueError", "ValueError"),
        ("def add(a, b) return a + b", "SyntaxError: expected ':' (<solution>, line 1)"),
        ("def add(a, b): raise ValueError(f'{object()}')", "ValueError"),
        ("def add(a, b): raise NameError(\"name 'drawn' is not defined\")", "NameError: name 'drawn' is not defined"),
        ('def add(a, b): raise NameError("name \'" + chr(97) * 5 + "\' is not defined")', "NameError"),
        ("def add(a, b):\n    if a > 5: c = 1\n    return c", f"UnboundLocalError: {UNBOUND}"),
        ("def add(a, b): return [][1]", "IndexError: list index out of range"),
        ("class E(Exception): pass\ndef add(a, b): raise E('one and two')", "an error of the program's own"),
        ("raise SyntaxError('what it found')", "SyntaxError"),
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


KEY = "hf_canaryOfTheHub12345"
TELLS = """
def add(a, b):
    found = open({!r}).read().partition("KEY=")[2]
    raise {}
"""


@pytest.mark.parametrize(
    "error",
    [
        *("ValueError(found)", "ValueError(found[::-1])", "ValueError(found[3:9])", "AssertionError(found)"),
        *("SyntaxError(chr(0) + found)", "NameError(f\"name '{found}' is not defined\")", "IndexError(found)"),
        *(
            "type(found, (Exception,), {})()",
            "type('M', (type,), {'__name__': '\\0' + found})('E', (Exception,), {})()",
            "KeyError(found)",
            "OSError(found)",
        ),
    ],
)
def test_nothing_that_a_program_has_read_is_told(pool, tmp_path, error):
    """It reads what its user may read, the worker's environment in /proc too."""
    (tmp_path / "environ").write_text(f"KEY={KEY}")
    found = check(pool, TELLS.format(str(tmp_path / "environ"), error))
    assert found.outcome == "incorrect"
    assert found.detail in ("an error of the program's own", error.partition("(")[0])

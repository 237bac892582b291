"""Whether a program passes the tests of its problem: domain `code`. Called in a process of its own, see `checking`.

The gold answer is Python: statements that assert, or a function `check(candidate)`, which is called with what the
metadata names as `entry_point` (HumanEval). The solution runs first, as module `solution`, then the tests in names of
their own: they see the solution's, and builtins and imported modules as they were before it. Right is who lets the
tests run to their end.

The verdict goes to the checker through a pipe, behind a token that the checker made after the process was forked and
that waits in another pipe: while the solution runs, the token is nowhere in its memory. So a solution that exits early,
prints, writes into every file it finds or replaces functions of this package is not taken for right. It shares the
interpreter with its tests all the same, and one written against this very module could read the token; see
`docs/answers.md`.
"""

import ast
import builtins
import contextlib
import dataclasses
import importlib
import os
import re
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import msgspec

from mcts.answers import Check, unscored
from pipelines import sandbox
from schemas import readable

TOKEN_BYTES = 16
_MAX_DETAIL = 400
_MAX_VERDICT = 64 + _MAX_DETAIL
_UNCOMPILED = b"uncompiled"
"""The verdict on a program that does not compile: none of it has run, and its error is the interpreter's."""
_UNKNOWN_NAME = re.compile(
    r"name '(\w+)' is not defined|cannot access local variable '(\w+)' where it is not associated with a value"
)
_FIXED = frozenset(
    (
        *("division by zero", "float division by zero", "integer division or modulo by zero", "math domain error"),
        *("list index out of range", "string index out of range", "tuple index out of range", "pop from empty list"),
        *("maximum recursion depth exceeded", "maximum recursion depth exceeded in comparison"),
    )
)
"""The interpreter's own words that hold nothing of the program's."""
_CHECKS: dict[bytes, Check] = {
    b"correct": Check(outcome="correct"),
    b"incorrect": Check(outcome="incorrect"),
    _UNCOMPILED: Check(outcome="incorrect"),
    b"crashed": unscored("crashed"),
    b"gold_unreadable": unscored("gold_unreadable"),
    b"no_sandbox": unscored("no_sandbox"),
}
_SOLUTION, _TESTS = "<solution>", "<tests>"
_OUR_PACKAGES = ("__main__", "pipelines", "mcts", "schemas")


def new_token() -> bytes:
    """What the checker puts into the pipe `secret` of `judge`, after the fork."""
    return os.urandom(TOKEN_BYTES)


def read_check(answer: str, gold: str, result: int, token: bytes) -> Check | None:
    """What the process came to, which ends after it or can be killed.

    None where it ended without a verdict, or wrote something that does not bear the token.
    """
    content = os.read(result, _MAX_VERDICT)
    verdict, _, said = content.removeprefix(token).partition(b"\n")
    check = _CHECKS.get(verdict) if content.startswith(token) else None
    if check is None:
        return None
    words = said.decode(errors="replace")
    detail = readable(words) if verdict == _UNCOMPILED else tellable(words, answer, gold)
    return msgspec.structs.replace(check, answer=answer, detail=detail)


def tellable(said: str, answer: str, gold: str) -> str:
    """The part of a running program's error that may leave the sandbox, which is the same in every run.

    A program reads what its user reads and words its errors as it likes: whatever it has found, or drawn by chance,
    would end in prompts and in shards. So the kind is told if it is one of Python's, and the message if all of it is
    known beforehand: words of the tests, a name that stands in the program, or what the interpreter always says.
    """
    kind, _, message = said.partition(": ")
    error = vars(builtins).get(kind)
    if not (isinstance(error, type) and issubclass(error, BaseException)):
        return "an error of the program's own" if said else ""
    unknown = _UNKNOWN_NAME.fullmatch(message)
    names = set(re.findall(r"\w+", answer))
    if message and (message in _FIXED or message in gold or (unknown and (unknown[1] or unknown[2]) in names)):
        return readable(f"{kind}: {message}")
    return kind


def judge(answer: str, gold: str, metadata: str, *, secret: int, result: int) -> NoReturn:
    """Shuts the calling process in, runs the tests, writes the verdict, and ends the process.

    Args:
      answer: the program.
      gold: its tests.
      metadata: JSON object; `entry_point` is the name of the function that `check` is called with.
      secret: pipe that the token is read from, once the tests have ended.
      result: pipe that token and verdict are written to.
    """
    # Bound before the solution runs, which can replace them in their modules.
    read, write, leave = os.read, os.write, os._exit
    tests = _read_tests(gold, metadata)
    if tests is None:
        verdict = b"gold_unreadable"
    else:
        try:
            sandbox.enter(secret, result)
        except sandbox.SandboxUnavailable:
            verdict = b"no_sandbox"
        else:
            verdict = _run(answer, tests)
    write(result, read(secret, TOKEN_BYTES) + verdict)
    leave(0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Tests:
    code: types.CodeType
    names: frozenset[str]
    """All that they mention."""
    entry_point: str | None
    has_check: bool
    modules: Mapping[str, types.ModuleType]
    """What they import, as it was before the solution ran."""


class _Builtins(dict[str, Any]):
    """What the tests find under names that they do not define: builtins, then what the solution defines, as it is."""

    def __init__(self, builtin: Mapping[str, Any], solution: Mapping[str, Any]) -> None:
        super().__init__(builtin)
        self._solution = solution

    def __missing__(self, name: str) -> Any:
        return self._solution[name]


def _run(answer: str, tests: _Tests) -> bytes:
    run, anything, no_memory, leaving, describe = exec, BaseException, MemoryError, SystemExit, _describe
    solution = types.ModuleType("solution")
    names = solution.__dict__
    found = _Builtins(vars(builtins) | {"__import__": _importer(tests.modules)}, names)
    for ours in [name for name in sys.modules if name.partition(".")[0] in _OUR_PACKAGES]:
        del sys.modules[ours]
    sys.modules |= {"solution": solution, "__main__": types.ModuleType("__main__")}
    space: dict[str, Any] = {"__name__": "__main__", "__builtins__": found}
    try:
        program = compile(answer, _SOLUTION, "exec", dont_inherit=True)
    except no_memory:
        return b"crashed"
    except anything as error:
        return _UNCOMPILED + b"\n" + describe(error)
    try:
        run(program, names)
        # A solution's own `abs` must not be what the tests compare with, unless it is what they test: the entry point,
        # or where there is none all that they take from the solution.
        taken = tests.names & names.keys()
        tested = {tests.entry_point} if tests.entry_point else set() if taken - found.keys() else taken
        for name in tested & found.keys():
            del found[name]
        run(tests.code, space)
        if tests.entry_point is not None and tests.has_check:
            space["check"](names[tests.entry_point])
    except no_memory:
        return b"crashed"
    except leaving as error:
        return b"incorrect" if _is_from_solution(error.__traceback__) else b"gold_unreadable"
    except anything as error:
        return b"incorrect\n" + describe(error)
    return b"correct"


def _describe(error: BaseException, kind: Any = type, anything: Any = BaseException) -> bytes:
    """The error's kind and message.

    The message may come from the solution's own code. It can make nothing of the verdict that stands before it: what is
    returned are bytes, whatever that code answers. Builtins are bound here, for the solution may have taken them away.
    """
    try:
        return f"{kind(error).__name__}: {error}".encode("utf-8", "replace")[:_MAX_DETAIL]
    except anything:
        return b""


def _is_from_solution(trace: types.TracebackType | None) -> bool:
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == _SOLUTION:
            return True
        trace = trace.tb_next
    return False


def _read_tests(gold: str, metadata: str) -> _Tests | None:
    """The tests, or None where they are no program, test nothing, or import what is not there."""
    try:
        tree = ast.parse(gold, _TESTS)
        code = compile(tree, _TESTS, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    entry_point = _entry_point(metadata)
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    calls_check = entry_point is not None and "check" in functions
    modules = _modules(tree)
    if modules is None or not (calls_check or _assert_something(tree.body, functions)):
        return None
    mentioned = frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    return _Tests(code=code, names=mentioned, entry_point=entry_point, has_check=calls_check, modules=modules)


def _entry_point(metadata: str) -> str | None:
    try:
        name = msgspec.json.decode(metadata, type=dict[str, Any]).get("entry_point")
    except (msgspec.DecodeError, RecursionError):
        return None
    return name if isinstance(name, str) and name.isidentifier() else None


def _assert_something(body: Iterable[ast.stmt], functions: set[str]) -> bool:
    """Whether statements assert, raise, or call a function of the tests or one that is named `assert...`.

    Definitions alone run nothing, and every solution would pass them: `def test_sum(): ...`, a `unittest.TestCase`.
    """
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if isinstance(statement, ast.Assert | ast.Raise):
            return True
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            called = statement.value.func
            name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
            if name in functions or name.startswith("assert"):
                return True
        parts = [getattr(statement, part, ()) for part in ("body", "orelse", "finalbody")]
        if any(_assert_something(part, functions) for part in parts):
            return True
    return False


def _modules(tree: ast.Module) -> dict[str, types.ModuleType] | None:
    """Copies of the modules that the tests import; None where one is missing.

    Copies, so that a solution that sets `math.isclose` does not set it for the tests.
    """
    wanted: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            wanted |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            wanted.add(node.module)
            for alias in node.names:
                with contextlib.suppress(ImportError):  # It may be a module, or a name in one.
                    importlib.import_module(f"{node.module}.{alias.name}")
    wanted = {name for name in wanted if name.partition(".")[0] != "solution"}
    try:
        for name in wanted:
            importlib.import_module(name)
    except ImportError:
        return None
    found = {name: types.ModuleType(name) for name in wanted | {name.partition(".")[0] for name in wanted}}
    for name, module in found.items():
        module.__dict__.update(vars(sys.modules[name]))
    return found


def _importer(modules: Mapping[str, types.ModuleType]) -> Any:
    """An `__import__` that hands out `modules` first."""
    otherwise = builtins.__import__

    def give(name: str, space: Any = None, local: Any = None, wanted: Any = (), level: int = 0) -> Any:
        known = modules.get(name if wanted else name.partition(".")[0])
        return otherwise(name, space, local, wanted, level) if known is None or level else known

    return give

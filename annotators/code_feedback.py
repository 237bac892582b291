"""What is told of a solution that a machine looked at: a program's compiler and tests, or a checker from outside.

Programs and checkers are run elsewhere, in a sandbox. Here a problem's tests are cut into single ones, and what these
came to is put into words; so is what a checker said.
"""

import ast
from collections.abc import Sequence

from schemas import Execution, Outcome, Record

MOST_TESTS = 16
"""Tests of a problem that are run one by one."""
_MOST_CHARS = 300
"""Of one test that is told."""
_NOT_COMPILED = ("SyntaxError", "IndentationError", "TabError")


class SingleTest(Record):
    """One assertion of a problem's tests."""

    source: str
    """As it is told."""
    gold: str
    """The problem's tests with this assertion alone."""


class Failed(Record):
    """A test that failed, with the error that it ended with."""

    source: str
    detail: str


def single_tests(gold: str) -> tuple[SingleTest, ...]:
    """The assertions of a problem's tests, each with everything that stands around them.

    Those of the module, or of its function `check`. Tests without any are told as a whole.
    """
    try:
        tree = ast.parse(gold)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    check = next((node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"), None)
    holder = check or tree
    body = list(holder.body)
    asserts = [statement for statement in body if isinstance(statement, ast.Assert)]
    tests = []
    for wanted in asserts[:MOST_TESTS]:
        holder.body = [item for item in body if item is wanted or not isinstance(item, ast.Assert)]
        tests.append(SingleTest(source=ast.unparse(wanted)[:_MOST_CHARS], gold=ast.unparse(tree)))
    return tuple(tests) or (SingleTest(source="the tests of the problem", gold=gold),)


def told_tests(gold: str, execution: Execution) -> tuple[SingleTest, ...]:
    """The tests that feedback speaks of: none, the first half (at least one), or all."""
    tests = () if execution == "none" else single_tests(gold)
    return tests[: -(-len(tests) // 2)] if execution == "partial" else tests


def compile_error(detail: str) -> str:
    """The error with which a program did not even compile; empty where it did."""
    return detail if detail.startswith(_NOT_COMPILED) else ""


def describe_check(message: str, outcome: Outcome) -> str:
    """What is told of a solution of the domain `command`: what its checker decided, and what it wrote, if anything."""
    said = {"correct": "accepts it", "incorrect": "rejects it", "unscored": "cannot decide about it"}
    decided = f"The checker {said[outcome]}."
    return "\n".join(filter(None, (decided, message)))


def describe_run(error: str, failed: Sequence[Failed], num_run: int, *, undecided: int = 0, is_right: bool) -> str:
    """What is told of a run.

    Args:
      error: why the program did not compile; empty where it did.
      failed: of the tests that were run one by one.
      num_run: how many those were.
      undecided: those of them that came to no verdict, as where time ran out.
      is_right: whether all tests of the problem pass.
    """
    if error:
        return f"The program does not compile. {error}"
    unclear = f" {undecided} of {num_run} tests could not be decided." if undecided else ""
    if not failed:
        passed = num_run - undecided
        run = f" It passes the {passed} tests that are shown." if passed else ""
        return "The program compiles." + run + unclear + (" It is right." if is_right else " It is not right.")
    lines = [f"{test.source}\n{test.detail or 'AssertionError'}" for test in failed]
    return f"The program compiles. {len(failed)} of {num_run} tests fail.{unclear}\n" + "\n".join(lines)

"""What is told of a run: tests cut into single ones, and the words for what these came to."""

import ast

import pytest

from annotators.code_feedback import (
    MOST_TESTS,
    Failed,
    compile_error,
    describe_check,
    describe_run,
    single_tests,
    told_tests,
)

TESTS = "import math\nlimit = 3\nassert add(1, 2) == limit\nassert add(0, 0) == 0\nassert add(1, 1) == 2\n"
CHECK = "def check(candidate):\n    assert candidate(1) == 2\n    x = 4\n    assert candidate(x) == 5\n"


def _asserts(gold: str) -> list[str]:
    return [ast.unparse(node) for node in ast.walk(ast.parse(gold)) if isinstance(node, ast.Assert)]


def test_each_single_test_has_one_assertion_and_all_that_stands_around_it():
    tests = single_tests(TESTS)
    assert [test.source for test in tests] == [
        "assert add(1, 2) == limit",
        "assert add(0, 0) == 0",
        "assert add(1, 1) == 2",
    ]
    assert [_asserts(test.gold) for test in tests] == [[test.source] for test in tests]
    assert all("limit = 3" in test.gold and "import math" in test.gold for test in tests)


def test_assertions_within_check_are_cut_there():
    first, second = single_tests(CHECK)
    assert _asserts(first.gold) == ["assert candidate(1) == 2"]
    assert _asserts(second.gold) == ["assert candidate(x) == 5"]
    assert "x = 4" in second.gold
    assert second.gold.startswith("def check(candidate):")


def test_tests_that_cannot_be_cut_are_told_as_a_whole_and_unreadable_ones_not_at_all():
    whole = "run_all(add)\n"
    assert [(test.source, test.gold) for test in single_tests(whole)] == [("the tests of the problem", whole)]
    assert single_tests("assert (") == ()
    assert len(single_tests("\n".join(f"assert f({i})" for i in range(40)))) == MOST_TESTS


@pytest.mark.parametrize(("execution", "told"), [("none", 0), ("partial", 2), ("full", 3)])
def test_a_part_is_the_first_half(execution, told):
    assert told_tests(TESTS, execution) == single_tests(TESTS)[:told]
    assert len(told_tests("assert f(1)", "partial")) == 1


def test_only_an_error_of_the_compiler_is_one():
    assert compile_error("SyntaxError: invalid syntax (<solution>, line 1)")
    assert compile_error("IndentationError: unexpected indent (<solution>, line 2)")
    assert compile_error("NameError: name 'add' is not defined") == ""


def test_the_words_for_a_run():
    failed = [Failed(source="assert add(1, 2) == 3", detail="AssertionError"), Failed(source="assert f(0)", detail="")]
    assert describe_run("SyntaxError: x", [], 0, is_right=False) == "The program does not compile. SyntaxError: x"
    assert describe_run("", [], 0, is_right=False) == "The program compiles. It is not right."
    assert (
        describe_run("", [], 2, is_right=False)
        == "The program compiles. It passes the 2 tests that are shown. It is not right."
    )
    assert describe_run("", [], 3, is_right=True).endswith(" It is right.")
    assert describe_run("", failed, 3, is_right=False) == (
        "The program compiles. 2 of 3 tests fail.\nassert add(1, 2) == 3\nAssertionError\nassert f(0)\nAssertionError"
    )


def test_what_a_checker_decided_and_wrote_is_told():
    assert describe_check("line 1: error", "incorrect") == "The checker rejects it.\nline 1: error"
    assert describe_check("", "correct") == "The checker accepts it."
    assert describe_check("", "unscored") == "The checker cannot decide about it."


def test_a_test_that_nobody_could_decide_is_told_as_such():
    told = describe_run("", [Failed(source="assert f(1) == 1", detail="")], 3, undecided=1, is_right=False)
    assert told == (
        "The program compiles. 1 of 3 tests fail. 1 of 3 tests could not be decided.\nassert f(1) == 1\nAssertionError"
    )
    assert describe_run("", [], 3, undecided=1, is_right=False) == (
        "The program compiles. It passes the 2 tests that are shown. 1 of 3 tests could not be decided. "
        "It is not right."
    )

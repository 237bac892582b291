"""Cutting a text into steps loses nothing."""

import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcts.steps import StepRule, split_steps

# (rule, tokens of a step): the number matters to `tokens` alone.
CUTS = [("marker", 30), ("blank_line", 30), ("tokens", 1), ("tokens", 2), ("tokens", 3), ("tokens", 7), ("tokens", 30)]
every_cut = pytest.mark.parametrize(("rule", "step_tokens"), CUTS)
PIECES = st.sampled_from(
    ["Step 1:", "Step 12:", "Step x:", " Step 3:", "Answer:", "answer:", "\n", "\n\n", " ", "\t", "\r\n", "é", "=7"]
)
# What matters to `tokens`: longer words and numbers, signs, other scripts and their digits, odd white space.
MORE = st.sampled_from(
    ["verstehen", "of", "12345", "½", "x²", "a_b", "\\frac{1}{2}", "数", "\u0664", "\u2028", "\u3000", "\x1f"]
)
TEXTS = st.one_of(st.lists(st.one_of(PIECES, MORE), max_size=20).map("".join), st.text(max_size=40))


def test_every_rule_is_tried():
    assert {rule for rule, _ in CUTS} == set(typing.get_args(StepRule))


@every_cut
@given(text=TEXTS)
def test_joining_the_steps_gives_the_text_back(rule, step_tokens, text):
    assert "".join(split_steps(text, rule, step_tokens)) == text


@every_cut
@given(text=TEXTS)
def test_no_step_is_white_space_alone_unless_the_text_is(rule, step_tokens, text):
    assert all(step.strip() for step in split_steps(text, rule, step_tokens)) or not text.strip()


@every_cut
@given(text=TEXTS)
def test_a_step_is_one_step(rule, step_tokens, text):
    for step in split_steps(text, rule, step_tokens):
        assert split_steps(step, rule, step_tokens) == (step,)


@every_cut
@given(text=TEXTS)
def test_what_follows_a_step_is_cut_as_if_it_stood_alone(rule, step_tokens, text):
    steps = split_steps(text, rule, step_tokens)
    for cut in range(1, len(steps)):
        assert split_steps("".join(steps[cut:]), rule, step_tokens) == steps[cut:]


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", ()),
        ("no marker", ("no marker",)),
        ("Step 1: a\nStep 2: b\nAnswer: 3", ("Step 1: a\n", "Step 2: b\n", "Answer: 3")),
        ("Step 1: a\nmore\n\nStep 2: b\n", ("Step 1: a\nmore\n\n", "Step 2: b\n")),
        ("So:\nStep 1: a\n", ("So:\n", "Step 1: a\n")),
        ("\n\nStep 1: a\nAnswer: 3\n\n", ("\n\nStep 1: a\n", "Answer: 3\n\n")),
        ("Step 1: see Step 2: below\n  Step 3: in\n", ("Step 1: see Step 2: below\n  Step 3: in\n",)),
        ("Step 1: a\nStep 2 is\nStep 10: b", ("Step 1: a\nStep 2 is\n", "Step 10: b")),
        (" \n", (" \n",)),
    ],
)
def test_a_marker_opens_a_step_at_the_start_of_a_line_only(text, steps):
    assert split_steps(text, "marker") == steps


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", ()),
        ("one\ntwo", ("one\ntwo",)),
        ("one\n\ntwo\nthree\n\nfour", ("one\n\n", "two\nthree\n\n", "four")),
        ("one\n\n\n\ntwo\n\n", ("one\n\n\n\n", "two\n\n")),
        ("\n\none\n\ntwo", ("\n\none\n\n", "two")),
        ("one\n\n \n\ntwo", ("one\n\n \n\n", "two")),
        ("one\n\ntwo\n\n ", ("one\n\n", "two\n\n ")),
        ("\n\n", ("\n\n",)),
    ],
)
def test_a_blank_line_ends_a_step(text, steps):
    assert split_steps(text, "blank_line") == steps


@pytest.mark.parametrize(
    ("step_tokens", "text", "steps"),
    [
        (2, "", ()),
        (2, "one", ("one",)),
        (2, "one two", ("one two",)),
        (2, "one two three", ("one two", " three")),
        (2, "one two three four five", ("one two", " three four", " five")),
        (1, "one two", ("one", " two")),
        # A sign is a token, a number has one for each three digits, a word one for each eight letters.
        (3, "4 + 3 = 7", ("4 + 3", " = 7")),
        (1, "x=12345", ("x", "=", "123", "45")),
        (1, "verstehen", ("verstehe", "n")),
        (2, "so verstehen wir", ("so verstehe", "n wir")),
        (1, "a1b", ("a", "1", "b")),
        (1, "a_b", ("a", "_", "b")),
        (1, "\\frac{1}{23}", ("\\", "frac", "{", "1", "}", "{", "23", "}")),
        (1, "été", ("été",)),
        (1, "数学です", ("数学です",)),
        (1, "\u0661\u0662\u0663\u0664", ("\u0661\u0662\u0663", "\u0664")),
        (1, "x²½", ("x²½",)),
        # White space belongs to what follows it, whatever it is; at the end to what came before.
        (1, "one  two\u3000three", ("one", "  two", "\u3000three")),
        # A line ends a step, with the white space that follows; however many tokens it has left.
        (1, "one\r\n\r\n  two\u3000three", ("one\r\n\r\n", "  two", "\u3000three")),
        (3, "one two\n\n\nthree four five six\nseven", ("one two\n\n\n", "three four five", " six\n", "seven")),
        (3, "\n\none\ntwo", ("\n\none\n", "two")),
        (1, "one two \n", ("one", " two \n")),
        (2, "one two \n", ("one two \n",)),
        (2, "one two three \n", ("one two", " three \n")),
        (1, "  one", ("  one",)),
        (2, " \n", (" \n",)),
        # The text's own numbers open steps, and are never cut off them. Markers mean nothing within a line.
        (4, "Step 1: a\nStep 2: b Step 3: c", ("Step 1: a\n", "Step 2: b", " Step 3: c")),
    ],
)
def test_so_many_tokens_are_a_step(step_tokens, text, steps):
    assert split_steps(text, "tokens", step_tokens) == steps


@given(text=TEXTS, step_tokens=st.integers(1, 9))
def test_each_step_but_the_last_of_a_line_has_as_many_tokens_as_asked(text, step_tokens):
    """Cut one by one, a step of n tokens falls into n pieces; white space at a line's end is none of its own."""
    steps = split_steps(text, "tokens", step_tokens)
    for i, step in enumerate(steps):
        size, ends_line = len(split_steps(step, "tokens", 1)), step.endswith("\n") or i == len(steps) - 1
        assert 0 < size <= step_tokens if ends_line else size == step_tokens


def test_without_a_number_a_step_has_thirty_tokens():
    words = " x" * 61
    assert [len(step) for step in split_steps(words, "tokens")] == [60, 60, 2]

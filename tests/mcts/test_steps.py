"""Cutting a text into steps loses nothing."""

import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcts.steps import StepRule, split_steps

RULES = typing.get_args(StepRule)
PIECES = st.sampled_from(
    ["Step 1:", "Step 12:", "Step x:", " Step 3:", "Answer:", "answer:", "\n", "\n\n", " ", "\t", "\r\n", "é", "=7"]
)
TEXTS = st.one_of(st.lists(PIECES, max_size=20).map("".join), st.text(max_size=40))


@pytest.mark.parametrize("rule", RULES)
@given(text=TEXTS)
def test_joining_the_steps_gives_the_text_back(rule, text):
    assert "".join(split_steps(text, rule)) == text


@pytest.mark.parametrize("rule", RULES)
@given(text=TEXTS)
def test_no_step_is_white_space_alone_unless_the_text_is(rule, text):
    assert all(step.strip() for step in split_steps(text, rule)) or not text.strip()


@pytest.mark.parametrize("rule", RULES)
@given(text=TEXTS)
def test_a_step_is_one_step(rule, text):
    for step in split_steps(text, rule):
        assert split_steps(step, rule) == (step,)


@pytest.mark.parametrize("rule", RULES)
@given(text=TEXTS)
def test_what_follows_a_step_is_cut_as_if_it_stood_alone(rule, text):
    steps = split_steps(text, rule)
    for cut in range(1, len(steps)):
        assert split_steps("".join(steps[cut:]), rule) == steps[cut:]


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

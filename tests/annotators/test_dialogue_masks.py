"""Answers taken out of feedback in every form that counts as equal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotators.leaks import leaked_words
from annotators.masks import MASK, masked

QUESTION = "Anna has 7 apples and buys 8, then 5 more. How many are there?"
SHOWN = QUESTION + "\nStep 1: 7 + 8 = 14\nStep 2: 14 + 5 = 19\nAnswer: 19"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("It should come to 20 in the end.", f"It should come to {MASK} in the end."),
        ("It is 20.0, not 19.", f"It is {MASK}, not 19."),
        ("The result is twenty. Go on.", f"The result is {MASK}. Go on."),
        ("Then 40/2 is left.", f"Then {MASK} is left."),
        ("20 of them, yes 20 of them.", f"{MASK} of them, yes {MASK} of them."),
    ],
)
def test_a_number_is_taken_out_in_every_equal_form(text, clean):
    result = masked(text, ["20"], SHOWN)
    assert (result.text, result.leak) == (clean, "")
    assert len(result.masked) == 1


def test_two_forms_are_taken_out_one_after_the_other():
    result = masked("It is 20. In words: twenty.", ["20"], SHOWN)
    assert (result.text, result.leak) == (f"It is {MASK}. In words: {MASK}.", "")
    assert result.masked == ("20", "twenty")


def test_longer_numbers_and_what_is_known_stay():
    text = "Not 120 and not 1.20; 14 + 5 is 19, and 7 + 8 is not 14."
    assert masked(text, ["20"], SHOWN).text == text
    assert masked("There are 20.", ["20"], SHOWN + " of 20").masked == ()


def test_the_sentence_goes_where_the_words_stand_otherwise():
    result = masked("Step 1 slips. It is \\frac{40}{2} then. Try again.", ["20"], SHOWN)
    assert leaked_words(result.text, ["20"], SHOWN) == ""
    assert result.text.startswith("Step 1 slips.")
    assert result.text.endswith("Try again.")
    assert MASK in result.text


def test_without_a_mask_the_leak_is_said_and_the_text_left_alone():
    result = masked("It is 20.", ["20"], SHOWN, mask=False)
    assert (result.text, result.masked, result.leak) == ("It is 20.", (), "20")


def test_a_leak_that_no_mask_takes_out_is_named():
    # Both parts together are the answer. Neither stands there as the finder says it, and neither sentence tells it all.
    text = "One is \\frac{1}{2}. The other is \\frac{3}{4}."
    result = masked(text, ["1/2, 3/4"], SHOWN)
    assert (result.text, result.masked, result.leak) == (text, (), "1/2, 3/4")


def test_every_answer_is_looked_for():
    assert masked("It is 20, or 21.", ["21", "20"], SHOWN).text == f"It is {MASK}, or {MASK}."


@given(
    st.lists(
        st.sampled_from(["20", "twenty", "40/2", "4 * 5", "20.0", "2 tens", "\\boxed{20}", "so", "step 2", "\n", ". "]),
        max_size=12,
    )
)
def test_what_is_left_never_tells_the_answer_unless_it_says_so(words):
    result = masked(" ".join(words), ["20"], SHOWN)
    assert leaked_words(result.text, ["20"], SHOWN) == result.leak

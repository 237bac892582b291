"""When two remarks are one. Every likeness is worked out by hand: common words and numbers over all of them."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotators.likeness import ALIKE, count_backers, group_alike, likeness, read_content


def alike(ours: str, theirs: str) -> float:
    return likeness(read_content(ours), read_content(theirs))


def test_a_remark_is_its_content_words_and_its_numbers():
    content = read_content("In step 2 the calculated sums aren't 1,200 but 0.5.")
    assert content.words == {"calcu", "sums"}
    assert content.numbers == {Fraction(1200), Fraction(1, 2)}
    assert content.is_negated


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        # addin gives 7 8 15 | sum 7 8 15
        ("Adding 7 and 8 gives 15.", "The sum of 7 and 8 is 15.", 3 / 6),
        # calcu disco 0.2 | disco calcu 1/5
        ("The discount was calculated as 0.2", "a discount calculation of 1/5", 1.0),
        # numer bigge denom | numer bigge
        ("The numerator is bigger than the denominator", "A bigger numerator", 2 / 3),
        # twice appli disco | tax ignor
        ("The discount is applied twice", "Tax is ignored", 0.0),
        # `answe corre`, denied in both
        ("The answer is not correct.", "This answer is incorrect!", 1.0),
        ("It doesn\N{RIGHT SINGLE QUOTATION MARK}t convert units", "Does not convert the units", 1.0),
    ],
)
def test_likeness_is_what_both_say_of_what_they_say_together(ours, theirs, expected):
    assert alike(ours, theirs) == pytest.approx(expected)
    assert alike(theirs, ours) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("7 + 8 = 15", "7 + 8 = 16"),
        ("x should be 5", "x should be -5"),
        ("The final answer is right.", "The final answer is wrong."),
        ("The final answer is correct.", "The final answer is incorrect."),
        ("The units were converted.", "The units were not converted."),
        ("It explains the units.", "It lacks the units."),
    ],
)
def test_remarks_that_cannot_both_hold_are_nothing_alike(ours, theirs):
    assert alike(ours, theirs) == 0.0


def test_the_number_of_a_step_is_no_number_that_a_remark_names():
    assert alike("Step 2 forgets the discount", "Step 3 forgets the discount") == 1.0
    assert alike("It forgets 2 discounts", "It forgets 3 discounts") == 0.0


@pytest.mark.parametrize("text", ["", "So it is.", "..."])
def test_a_remark_without_content_is_like_none(text):
    assert alike(text, text) == 0.0
    assert alike(text, "The discount is applied twice.") == 0.0


@given(st.text(max_size=60), st.text(max_size=60))
def test_likeness_is_symmetric_and_a_share(ours, theirs):
    assert alike(ours, theirs) == alike(theirs, ours)
    assert 0.0 <= alike(ours, theirs) <= 1.0


@given(st.text(max_size=60))
def test_what_has_content_is_wholly_like_itself(text):
    content = read_content(text)
    assert likeness(content, content) == (1.0 if content.words or content.numbers else 0.0)


REMARKS = (
    ("anna", "Adding 7 and 8 gives 15."),
    ("bert", "The sum of 7 and 8 is 15."),
    ("carl", "Adding 7 and 8 gives 16."),
    ("anna", "7 and 8 gives 15"),
    ("carl", "So it is."),
    ("dora", "So it is."),
)


def test_backers_are_critics_not_remarks():
    # Both of anna's remarks count her once; carl names another number; equal texts back each other without content.
    assert count_backers(REMARKS) == (2, 2, 1, 2, 2, 2)
    assert count_backers(REMARKS, 0.6) == (1, 2, 1, 2, 2, 2)


def test_nobody_backs_nothing():
    assert count_backers(()) == ()
    assert group_alike(()) == ()


def test_groups_are_numbered_by_their_first_members():
    assert group_alike([text for _, text in REMARKS]) == (0, 0, 1, 0, 2, 2)


def test_what_is_alike_through_a_third_is_one_group():
    chain = ["discount forgotten", "discount forgotten tax added", "tax added"]
    assert alike(chain[0], chain[1]) == alike(chain[1], chain[2]) == ALIKE
    assert alike(chain[0], chain[2]) == 0.0
    assert group_alike(chain) == (0, 0, 0)
    assert group_alike([chain[0], chain[2]]) == (0, 1)

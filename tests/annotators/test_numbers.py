import random
import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotators.numbers import Sum, evaluate, read_quantity, read_values
from annotators.plain import plain_text, without_place_names

SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
)
SMALL_WORDS = [*SMALL.split(), "eighteen", "nineteen"]
TENS_WORDS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def spelled(number: int) -> str:
    """A number from 0 to 999,999 in English words."""
    if number < 20:
        return SMALL_WORDS[number]
    if number < 100:
        return TENS_WORDS[number // 10] + (f"-{SMALL_WORDS[number % 10]}" if number % 10 else "")
    scale, word = (1000, "thousand") if number >= 1000 else (100, "hundred")
    rest = f" and {spelled(number % scale)}" if 0 < number % scale < 100 else ""
    rest = rest or (f" {spelled(number % scale)}" if number % scale else "")
    return f"{spelled(number // scale)} {word}{rest}"


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 999_999), st.booleans())
def test_every_number_in_words_is_that_number_and_no_other(number, capital):
    words = spelled(number).capitalize() if capital else spelled(number)
    assert list(read_values(f"The answer is {words}.").written) == [number]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("one two three", [2, 3]),
        ("two hundred three hundred", [200, 300]),
        ("twenty thirty-five", [20, 35]),
        ("two and three", [2, 3]),
        ("a thousand and one", [1001]),
        ("two million three thousand and four", [2003004]),
        ("nineteen five", [19, 5]),
        ("three dozen dozen", [36, 12]),
        ("hundred and", [100]),
    ],
)
def test_words_in_a_row_that_make_no_one_number_are_several(text, values):
    assert set(values) <= set(read_values(text).written)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**9))
def test_sums_have_the_value_that_python_gives_them(seed):
    rng = random.Random(seed)

    def expression(depth: int) -> str:
        if depth == 0:
            return str(rng.randint(1, 30))
        inner = f"{expression(depth - 1)} {rng.choice('+-*')} {expression(depth - 1)}"
        return f"({inner})" if rng.random() < 0.5 else inner

    text = f"{expression(2)} {rng.choice('+-*')} {expression(1)}"
    items = [Fraction(item) if item.isdigit() else item for item in re.findall(r"\d+|[-+*()]", text)]
    expected = eval(text)  # Made of digits and operators just above.
    assert evaluate(items) == expected
    assert read_values(f"We get {text} here.").computed.get(Fraction(expected))


@pytest.mark.parametrize(
    "items",
    [
        [],
        ["+"],
        [Fraction(1), Fraction(2)],
        [Fraction(1), "+"],
        [Fraction(1), ")", "+", Fraction(2)],
        ["(", Fraction(1)],
        [Fraction(1), "/", Fraction(0)],
        [Fraction(2), "^", Fraction(1, 2)],
        [Fraction(9), "^", Fraction(9), "^", Fraction(9)],
        [Fraction(10), "^", Fraction(999)],
    ],
)
def test_what_is_no_sum_or_too_large_a_one_has_no_value(items):
    assert evaluate(items) is None


@pytest.mark.parametrize(
    ("latex", "plain"),
    [
        (r"$\dfrac{3}{4}$", " 3/4 "),
        (r"\frac34", "3/4"),
        (r"2\tfrac{1}{2}", "2 1/2"),
        (r"\frac{\frac{1}{2}}{x+1}", "(1/2)/(x+1)"),
        (r"\boxed{\sqrt{5}}", r" \sqrt(5) "),
        (r"12 \cdot 2 \times 3 \div 4", "12 * 2 * 3 / 4"),
        (r"\left( x \right)", "( x )"),
        ("a\n\n  b\tc", "a\nb c"),
        ("1\u200b2\N{MINUS SIGN}3", "12-3"),
        ("\uff12\uff13", "23"),
        (r"0.1\overline{6}", "1/6"),
        ("**7** `8`", " 7 8 "),
    ],
)
def test_latex_is_taken_out(latex, plain):
    assert plain_text(latex) == plain


def test_places_go_and_other_numbers_stay():
    text = "Step 3: it is 4. Steps 2 and 3 make 9, the first two steps 2 errors.\n1. Five apples"
    assert re.findall(r"\d+|two|Five", without_place_names(text)) == ["4", "9", "Five"]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("29 cents", {29}),
        ("x = 29", {29}),
        ("25%", {25, Fraction(1, 4)}),
        ("-3/4", {Fraction(-3, 4)}),
        ("24/3", {8}),
        ("3 1/2 hours", {Fraction(7, 2)}),
        ("2.5 million", {Fraction(5, 2), 2_500_000}),
        ("60 km/h", {60}),
        ("twenty-one", {21}),
        ("3, 4", set()),
        ("2x", set()),
        ("7 x", set()),
        ("2x - 20", set()),
        ("5:30", set()),
        ("3rd", set()),
        ("2^10", set()),
        ("Paris", set()),
        ("", set()),
    ],
)
def test_a_quantity_is_one_number_with_its_unit(text, values):
    assert read_quantity(text) == values


def test_what_a_text_says_is_told_apart_from_what_it_comes_to():
    values = read_values("Take 7/8 of 16, not 3 + 2x")
    assert values.written.keys() == {Fraction(7, 8), 16, 3}
    assert values.computed == {14: [Sum("7/8 of 16", frozenset((Fraction(7, 8), Fraction(16))))]}
    assert values.parts == {7, 8}

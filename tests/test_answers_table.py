"""What a careful person says of an answer beside the gold answer: right, wrong, or not to be decided from these texts.

Rows are (gold, answer, outcome); C is correct, I incorrect, U unscored. A group's comment gives the reason where people
may differ.
"""

import logging

import pytest

from mcts import answers

C, I, U = "correct", "incorrect", "unscored"  # noqa: E741 (a table reads better with single letters)

# Numbers compare by value, in whatever way they are written; nothing is near enough.
NUMBERS = [
    ("42", "42", C),
    ("42", "42.", C),
    ("42", "42.0", C),
    ("42", "+42", C),
    ("42", " 42 ", C),
    ("42", "-42", I),
    ("42", "43", I),
    ("42", "420", I),
    ("42", "4.2", I),
    ("1", "10", I),
    ("1", "The total is 10.", I),
    ("10", "1", I),
    ("2.0", "2.09", I),
    ("2.0", "2", C),
    ("2.5", "2.50", C),
    ("0.1", ".1", C),
    (".039", "0.039", C),
    ("3.14", "3.14159", I),
    ("3.14", "3.140", C),
    ("0", "-0", C),
    ("0", "0.0", C),
    ("0", "0.0000001", I),
    ("7", "007", C),
    ("100", "1e2", C),
    ("100", "1E+2", C),
    ("100", "1 \\times 10^2", C),
    ("100", "1 x 10^{2}", C),
    ("0.001", "1e-3", C),
    ("0.001", "10^{-3}", C),
    ("1.07e16", "1.07 \\times 10^{16}", C),
    ("100", "1e3", I),
    ("5", "five", C),
    ("5", "Five", C),
    ("5", "six", I),
    ("12345678901234567890", "12345678901234567890", C),
    ("12345678901234567890", "12345678901234567891", I),
    ("9007199254740993", "9007199254740992", I),
    ("0.1", "0.10000000000000000001", I),
]

# Thousands are grouped by threes (or as in India) with commas, LaTeX commas or spaces.
COMMAS = [
    ("1234567", "1,234,567", C),
    ("1,234,567", "1234567", C),
    ("1234567", "1{,}234{,}567", C),
    ("1234567", "1 234 567", C),
    ("1234567", "1\\,234\\,567", C),
    ("1234567", "12,34,567", C),
    ("1234", "1,235", I),
    ("1234", "1,23", I),
    ("1000", "1.000", I),
    # A decimal comma: a pair of numbers cannot be meant where one decimal is asked for.
    ("3.14", "3,14", C),
    ("3.14", "3,15", I),
    ("314", "3,14", I),
]

FRACTIONS = [
    ("1/2", "0.5", C),
    ("\\frac{1}{2}", "1/2", C),
    ("\\frac{1}{2}", "\\dfrac{1}{2}", C),
    ("\\frac{1}{2}", "\\tfrac12", C),
    ("\\frac12", "\\frac{2}{4}", C),
    ("\\frac{1}{2}", "½", C),
    ("\\frac{1}{2}", "2/1", I),
    ("\\frac{1}{3}", "0.333333", I),
    ("\\frac{1}{3}", "0.333...", U),  # A third to a person, but the dots may stand for anything.
    ("\\frac{1}{3}", "1/3 \\approx 0.333", C),
    ("0.333", "1/3", I),
    ("-\\frac{1}{2}", "\\frac{-1}{2}", C),
    ("-\\frac{1}{2}", "-0.5", C),
    ("-\\frac{1}{2}", "\\frac{1}{2}", I),
    ("2\\frac{1}{2}", "2.5", C),
    ("2\\frac{1}{2}", "2 1/2", C),
    ("\\frac{5}{2}", "2\\frac{1}{2}", C),
    ("\\frac{21}{2}", "2 1/2", I),
    ("5", "1/0", I),
    ("\\frac{1.5}{3}", "0.5", C),
    ("\\frac{a}{b}", "a/b", C),
    ("\\frac{a}{b}", "b/a", I),
]

# The percent sign is part of the value, or a unit where the gold answer can only be a percentage (above 1). For a gold
# answer up to 1 the same number with a percent sign is right or wrong by a factor of 100: nobody can tell.
PERCENT = [
    ("25%", "25\\%", C),
    ("25%", "25 percent", C),
    ("25", "25%", C),
    ("25%", "25", C),
    ("25%", "0.25", C),
    ("0.25", "25%", C),
    ("\\frac{1}{4}", "25\\%", C),
    ("25%", "\\frac{1}{4}", C),
    ("25", "0.25", I),
    ("0.25", "25", I),
    ("25%", "26%", I),
    ("25%", "0.25%", I),
    ("0.5", "0.5%", U),
    ("1", "1%", U),
    ("0", "0%", C),
]

# The question names the unit, so it may be left out; a wrong one is wrong. Different units of different numbers may be
# the same quantity: not decided.
UNITS = [
    ("12", "12 apples", C),
    ("12", "12 apples.", C),
    ("12", "13 apples", I),
    ("12 apples", "12", C),
    ("12 apples", "12 oranges", U),  # Perhaps the same thing by another name.
    ("5 cm", "5 centimeters", C),
    ("5 cm", "5\\text{ cm}", C),
    ("5\\text{ cm}", "5", C),
    ("5 cm", "5 m", I),
    ("5 m", "500 cm", U),
    ("5", "5 m", C),
    ("15\\text{ cm}^2", "15 square cm", C),
    ("15\\text{ cm}^2", "15\\text{ cm}^3", I),
    ("18", "$18", C),
    ("18", "\\$18", C),
    ("18", "$18.00", C),
    ("18", "18 dollars", C),
    ("\\$18", "18 dollars", C),
    ("\\$18", "€18", I),
    ("-5", "-$5", C),
    ("1234.50", "$1,234.50", C),
    ("60", "60^\\circ", C),
    ("60^\\circ", "60", C),
    ("60^\\circ", "60 degrees", C),
    ("60^{\\circ}", "60°", C),
    ("60^\\circ", "61^\\circ", I),
    ("10\\pi", "10\\pi\\text{ cm}", C),
    ("5", "5x", I),
    ("10000000", "10 million", U),
    ("10", "10 million", U),
    ("60", "5 dozen", U),
]

# What is around an answer is not the answer.
WRAPPING = [
    ("5", "$5$", C),
    ("5", "\\(5\\)", C),
    ("5", "\\[5\\]", C),
    ("5", "**5**", C),
    ("5", "`5`", C),
    ("5", "\\boxed{5}", C),
    ("5", "$\\boxed{5}$.", C),
    ("5", "\\boxed{\\boxed{5}}", C),
    ("5", "(5)", C),
    ("5", "{5}", C),
    ("5", "x = 5", C),
    ("5", "x=5", C),
    ("x=5", "5", C),
    ("x=5", "y=5", I),
    ("x=5", "x=6", I),
    ("5", "2 + 3 = 5", C),
    ("5", "AB = 5", C),
    ("5", "5 = x", C),
    ("5", "x \\approx 5", C),
    ("10", "2x = 10", U),  # Right if 2x was asked for, wrong if x was.
    ("5", "2x = 10", I),
    ("5", "x is 5", U),
    ("\\frac{1}{2}", "\\displaystyle \\frac{1}{2}", C),
    ("(1,2)", "\\left(1, 2\\right)", C),
]

# Characters: full-width digits and other minus signs are spellings; what hides or reverses text is not read.
CHARACTERS = [
    ("-5", "\u22125", C),
    ("-5", "\u20135", C),
    ("12", "12", C),
    ("12", "1\u200b2", C),
    ("12", "\ufeff12", C),
    ("12", "\u202e21", U),
    ("12", "12\x00", U),
    ("12", "1\x082", U),
    ("12", "12\ud800", U),
    ("x^2", "x²", C),
    ("2\\pi", "2π", C),
    ("\\sqrt{2}", "√2", C),
    ("\\infty", "∞", C),
    ("2 \\times 3", "2\u00d73", C),
]

# One value is asked for: offering more is wrong, however the right one stands among them; equal ones are one.
SEVERAL = [
    ("3", "3 or 4", I),
    ("3", "3, 4", I),
    ("3", "3 and 4", I),
    ("3", "either 3 or 4", U),
    ("3", "\\boxed{3} or \\boxed{4}", I),
    ("3", "\\pm 3", I),
    ("3", "3 \\text{ or } 4", I),
    ("\\frac{1}{2}", "1/2 or 0.5", C),
    ("3", "not 3", U),
    ("3, 4", "3", I),
    ("3, 4", "4, 3", C),
    ("3, 4", "3 and 4", C),
    ("3, 4", "x = 3 or x = 4", C),
    ("3, 4", "3, 4, 5", I),
    ("3, 4", "3, 5", I),
    ("\\pm 3", "3, -3", C),
    ("\\pm 3", "x = \\pm 3", C),
    ("\\pm \\sqrt{2}", "\\sqrt{2}, -\\sqrt{2}", C),
    ("\\pm 3", "3", I),
    ("1 \\pm \\sqrt{2}", "1+\\sqrt{2}, 1-\\sqrt{2}", C),
    ("1, 2, 3", "3,2,1", C),
]

# Brackets mean something: a point is no set, a closed end is no open one. A bare list is taken for the point or the set
# that is asked for, in a point's order.
SETS = [
    ("(1,2)", "(1, 2)", C),
    ("(1,2)", "(1.0, 2)", C),
    ("(1,2)", "(2,1)", I),
    ("(1,2)", "1, 2", C),
    ("(1,2)", "2, 1", I),
    ("(1,2)", "\\{1,2\\}", I),
    ("(1,2)", "[1,2]", I),
    ("\\{1,2\\}", "\\{2,1\\}", C),
    ("\\{1,2\\}", "{1, 2}", C),
    ("\\{1,2\\}", "1, 2", C),
    ("\\{1,2\\}", "(1,2)", I),
    ("\\{1,2\\}", "\\{1,2,3\\}", I),
    ("[0,2)", "[0, 2)", C),
    ("[0,2)", "(0,2)", I),
    ("[0,2)", "[0,2]", I),
    ("[0,2)", "[0,3)", I),
    ("(-\\infty, 3)", "(-\\infty,3)", C),
    ("(-\\infty, 3)", "(-\\infty,3]", I),
    ("(0,1) \\cup (1,2)", "(1,2)\\cup(0,1)", C),
    ("(0,1) \\cup (1,2)", "(0,2)", I),
    ("x < 3", "3 > x", C),
    ("x < 3", "x \\le 3", I),
    ("(\\frac{1}{2}, 3)", "(0.5, 3)", C),
    ("(1,2,3)", "(1,2)", I),
    ("\\emptyset", "\\{\\}", C),
    ("(a, b)", "(b, a)", I),
]

EXPRESSIONS = [
    ("\\sqrt{2}", "\\sqrt{2}", C),
    ("\\sqrt{2}", "2^{1/2}", C),
    ("\\sqrt{2}", "1.414214", I),
    ("\\sqrt{2}", "1.41421356237309504880", I),
    ("\\sqrt{2}", "1.41421356237309504880168872420969807857", U),  # Beyond the digits that are compared.
    ("3\\sqrt{2}", "\\sqrt{18}", C),
    ("3\\sqrt{2}", "2\\sqrt{3}", I),
    ("2", "\\sqrt{4}", C),
    ("\\frac{1}{\\sqrt{2}}", "\\frac{\\sqrt{2}}{2}", C),
    ("10\\pi", "31.4159", I),
    ("10\\pi", "\\pi \\cdot 10", C),
    ("10\\pi", "10", I),
    ("0.5\\pi", "\\frac{\\pi}{2}", C),
    ("x^2+2x+1", "(x+1)^2", C),
    ("x^2-1", "(x-1)(x+1)", C),
    ("x^2", "x^3", I),
    ("x+1", "y+1", I),
    ("2x+3", "y = 2x+3", C),
    ("3+4i", "4i+3", C),
    ("3+4i", "3-4i", I),
    ("3", "3+4i", I),
    ("120", "5!", C),
    ("10", "\\binom{5}{2}", C),
    ("3", "\\log_2 8", C),
    ("2^{100}", "1267650600228229401496703205376", C),
    ("2^{100}", "1267650600228229401496703205377", I),
    ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", C),
    ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix} 2 \\\\ 1 \\end{pmatrix}", I),
    ("1011_2", "1011_2", C),
    ("1011_2", "1011", C),  # The question names the base.
    ("1011_2", "1011_3", I),
    ("1011_2", "11", I),
    ("11", "1011_2", U),  # Equal in value, but the base may have been asked for.
    ("2:3", "2:3", C),
    ("512", "2^3^2", U),  # 512 to a mathematician, 64 to the parser.
    ("11", "5 6", U),
    ("5", "5 \\ldots", U),
    ("5", "\\frac{5", U),
]

# Words. What holds the gold answer among other words is neither accepted nor called wrong.
WORDS = [
    ("\\text{even}", "even", C),
    ("\\text{even}", "Even", C),
    ("\\text{even}", "odd", I),
    ("\\text{even}", "\\text{odd}", I),
    ("\\text{even}", "not even", U),
    ("\\text{even}", "2", I),
    ("\\text{E}", "E", C),
    ("\\text{E}", "B", I),
    ("\\text{H, E}", "E, H", C),
    ("(\\text{H})", "H", C),
    ("Tuesday", "tuesday", C),
    ("Tuesday", "Monday", I),
    ("Tuesday", "It is Tuesday", U),
    ("5", "blue", I),
    ("5", "I think it is 5 or so", U),
    ("5", "there is no solution", I),
    ("\\sqrt{2}", "the square root of two", U),
]

# A refusal or a placeholder is no answer.
REFUSALS = [
    ("5", "I cannot determine this.", U),
    ("5", "I can't", U),
    ("5", "I don't know", U),
    ("5", "I’m sorry, but as an AI", U),  # noqa: RUF001
    ("5", "N/A", U),
    ("5", "?", U),
    ("5", "...", U),
    ("5", "[answer]", U),
    ("5", "<answer>", U),
    ("5", "", U),
    ("5", "$$", U),
]

EXACT = [
    ("Paris", "paris", C),
    ("Paris", "  Paris. ", C),
    ("New York", "new   york", C),
    ("Paris", "London", I),
    ("Paris", "Paris, France", U),
    ("18", "18.0", C),
    ("18", "$18", C),
    ("18", "18 eggs", C),
    ("18", "18 or 20", I),
    ("18", "180", I),
    ("1/2", "0.5", C),
    ("2.0", "2.09", I),
    ("0.001", "10^{-3}", U),
    ("x+1", "1+x", U),  # Algebra is not this domain's: not equal as text, not known to differ.
    ("yes", "Yes", C),
    ("yes", "no", I),
    ("-330,90", "-330, 90", C),
]

# By letter. An option's text alone is not decided: the options are not at hand.
CHOICE = [
    ("B", "B", C),
    ("B", "b", C),
    ("B", "(B)", C),
    ("B", "B.", C),
    ("B", "B)", C),
    ("B", "(b)", C),
    ("B", "**B**", C),
    ("B", "$B$", C),
    ("B", "\\text{B}", C),
    ("B", "\\boxed{B}", C),
    ("B", "B) Paris", C),
    ("B", "B. Paris", C),
    ("B", "B: Paris", C),
    ("B", "(B) Paris", C),
    ("B", "option B", C),
    ("B", "Option (B)", C),
    ("B", "The correct answer is B", C),
    ("(B)", "B", C),
    ("B", "C", I),
    ("B", "(C) Berlin and B. C.", I),
    ("B", "A or B", I),
    ("B", "A, B", I),
    ("B", "both A and B", I),
    ("B", "B) or C)", I),
    ("B", "Paris", U),
    ("B", "not B", U),
    ("A", "A triangle", U),
    ("I", "I cannot say", U),
    ("I", "I", C),
    ("B", "None of the above", U),
    ("B", "K", U),
    ("Paris", "B", U),
]

TABLE = (
    [("math", *row) for row in NUMBERS + COMMAS + FRACTIONS + PERCENT + UNITS + WRAPPING + CHARACTERS]
    + [("math", *row) for row in SEVERAL + SETS + EXPRESSIONS + WORDS + REFUSALS]
    + [("exact", *row) for row in NUMBERS + COMMAS + PERCENT + EXACT if not set("\\^") & set(row[1])]
    + [("choice", *row) for row in CHOICE]
)


@pytest.fixture(autouse=True, scope="module")
def _quiet():
    logging.disable(logging.WARNING)  # math-verify warns once that its timeouts are off.
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(("domain", "gold", "answer", "outcome"), TABLE, ids=ascii)
def test_answer_is_decided_as_a_careful_person_would(domain, gold, answer, outcome):
    check = answers.compare(answer, gold, domain)
    assert check.outcome == outcome, check
    assert (check.reason is None) == (outcome != U)


def test_table_is_large_and_uses_every_outcome():
    assert len(TABLE) >= 250
    assert len({row[1:3] for row in TABLE}) >= 250
    assert {row[3] for row in TABLE} == {C, I, U}


def test_what_quick_decides_is_what_compare_says():
    decided = [(row, answers.quick(row[2], row[1], row[0])) for row in TABLE]
    assert all(check == answers.compare(row[2], row[1], row[0]) for row, check in decided if check is not None)
    assert sum(check is not None for _, check in decided) / len(decided) > 0.8

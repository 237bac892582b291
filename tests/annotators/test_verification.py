import json
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotators.units import render_critique
from annotators.verification import (
    VERIFY_REJECTIONS,
    Help,
    VerifySettings,
    cheap_reasons,
    find_leak,
    help_reasons,
    location_agrees,
    location_distance,
    location_mass,
    repeated_share,
    talks_of_reference,
    verdict_agrees,
)
from schemas import Estimate, PathPair
from tests.annotators.annotated import alone, critique, error, pair, praise, problem


def unsure() -> PathPair:
    """A wrong path of four steps whose first error is likeliest step 1, then 2."""
    path = pair(wrong=("a\n", "b\n", "c\n", "Answer: 19"))
    return PathPair(
        **{name: getattr(path, name) for name in path.__struct_fields__ if name not in ("posterior", "first_error")},
        posterior=(0.1, 0.6, 0.25, 0.05),
        first_error=1,
    )


def test_the_verdict_is_held_against_the_paths_label():
    assert verdict_agrees(critique(pair(), wrong=0), pair())
    assert not verdict_agrees(critique(pair(), wrong=None), pair())
    assert verdict_agrees(critique(alone(), wrong=None), alone())
    assert not verdict_agrees(critique(alone(), wrong=0), alone())


@pytest.mark.parametrize(
    ("named", "distance", "mass"), [(0, 1, 0.1), (1, 0, 0.6), (2, 1, 0.25), (3, 2, 0.05), (None, None, None)]
)
def test_a_named_step_is_held_against_the_located_one(named, distance, mass):
    path = unsure()
    said = critique(path, wrong=named)
    assert location_distance(said, path) == distance
    assert location_mass(said, path) == mass


def test_a_lone_path_has_no_place_to_compare_with():
    said = critique(alone(), wrong=1)
    assert location_distance(said, alone()) is None
    assert location_mass(said, alone()) is None
    assert location_agrees(said, alone(), VerifySettings())


@pytest.mark.parametrize(
    ("tolerance", "least_mass", "agreeing"),
    [
        (0, 0.2, {1, 2}),
        (0, 0.25, {1, 2}),
        (0, 0.26, {1}),
        (1, 0.5, {0, 1, 2}),
        (2, 1.0, {0, 1, 2, 3}),
        (0, 0.05, {0, 1, 2, 3}),
    ],
)
def test_a_place_is_good_that_is_near_or_likely(tolerance, least_mass, agreeing):
    path = unsure()
    chosen = VerifySettings(location_tolerance=tolerance, min_location_mass=least_mass)
    assert {i for i in range(4) if location_agrees(critique(path, wrong=i), path, chosen)} == agreeing


def leak(gold: str, text: str, question: str = "How many?", step: str = "No idea.") -> str:
    path = pair(problem(question, gold), wrong=(f"Step 1: {step}\n", "Answer: none"))
    return find_leak(critique(path, text=text), path)


@pytest.mark.parametrize(
    ("gold", "text"),
    [
        ("1000", "It is 1,000."),
        ("1,000", "It is 1000."),
        ("1000", "It is 1000.0"),
        ("1000.0", "It is 1,000"),
        ("1234567", "So 1,234,567 in all."),
        ("1000", "It is $1{,}000$."),
        ("18", "That makes $18."),
        ("18", "That makes **18**."),
        ("18", "x=18"),
        ("18", "(18)"),
        ("18", "36/2 is it"),
        ("18", "It is 18/1."),
        ("18", "It weighs 18kg."),
        ("18", "It is 18%."),
        ("18", "It is 018."),
        ("18", "Eighteen are left."),
        ("7", "seven"),
        ("0", "zero apples"),
        ("20", "TWENTY"),
        ("2", r"so \boxed{2}"),
        ("1/2", "It is 0.5."),
        ("1/2", "It is .5 of it."),
        ("0.5", "It is 1/2."),
        ("0.5", "It is 2 / 4."),
        ("0.50", "It is 0.5"),
        (r"\frac{1}{2}", "It is 0.5."),
        (r"\frac{3}{4}", r"It is \dfrac{6}{8}."),
        ("3/4", r"It is \frac{3}{4}."),
        ("-3", "It is -3."),
        ("-3", "It is \N{MINUS SIGN}3."),
        ("-0.5", "It is -1/2."),
        ("-3", "x=-3"),
        ("9", "Step 9: it is 9."),
        ("9", "In step 2 it should be 9"),
        ("3", "the roots 3,4"),
        ("4", "the roots 3,4"),
        ("9", "Steps 2 and 3 make 9."),
        ("Paris", "It is paris, of course."),
        ("paris", "PARIS"),
        ("New York", "It is new york."),
        ("x+1", "It is x+1."),
        ("x^2 (a)", "write x^2 (a) here"),
        ("yes", "Yes."),
        ("B", "Option B fits."),
        ("Stra\u00dfe", "the Stra\u00dfe"),
    ],
)
def test_an_answer_in_any_equal_form_is_a_leak(gold, text):
    assert leak(gold, text)


@pytest.mark.parametrize(
    ("gold", "text"),
    [
        ("9", "Step 9: this holds."),
        ("9", "The first wrong step is step 9. The solution is incorrect."),
        ("9", "STEP 9 is wrong"),
        ("3", "Steps 2 and 3 do not fit."),
        ("4", "Steps 2, 3 and 4 do not fit."),
        ("18", "It is 180, 118, 1.8, 18.5 or 0.18."),
        ("18", "It is -18."),
        ("-18", "It is 18."),
        ("18", "It is \N{MINUS SIGN}18."),
        ("1", "It is 1.5x."),
        ("1", "It is 1,000."),
        ("1000", "It is 1.000."),
        ("12", "the pairs 1,2"),
        ("123", "1, 2, 3"),
        ("2", "the 2nd step"),
        ("21", "the 21st"),
        ("18", "x18, a_18"),
        ("8", "It is 7/8."),
        ("1", "It is 1/2."),
        ("0.5", "It is 1/3."),
        ("2", "It is 2/0."),
        ("10", "That is often wrong."),
        ("1", "The tone is wrong."),
        ("1", "Take twenty-one."),
        ("20", "Take twenty-one."),
        ("7", "seventeen, seventy"),
        ("3", "It is 1.2.3"),
        ("Paris", "The comparison fails."),
        ("yes", "That was yesterday."),
        ("B", "But both be bad."),
        ("x+1", "It is x+10 or 2x+1."),
        (".*", "anything"),
        ("(", "anything"),
        ("", "anything"),
        ("  ", "any thing"),
        ("18", ""),
        ("18", "\u00b9\u2078 \u2460"),
    ],
)
def test_what_is_not_the_answer_is_no_leak(gold, text):
    assert not leak(gold, text)


@pytest.mark.parametrize(
    ("gold", "known"),
    [
        ("15", "15"),
        ("1000", "1,000"),
        ("0.5", "1/2"),
        ("7", "seven"),
        ("-3", "\N{MINUS SIGN}3"),
        ("Paris", "paris"),
        ("15", "5 and 15 and 25"),
    ],
)
def test_what_stands_in_the_problem_or_the_solution_already_is_no_leak(gold, known):
    text = f"It is {gold}."
    assert leak(gold, text)
    assert not leak(gold, text, question=f"We know {known}, but how many?")
    assert not leak(gold, text, step=f"It may be {known}.")


def test_a_steps_own_number_in_the_solution_does_not_excuse_a_leak():
    path = pair(problem("How many?", "2"), wrong=("Step 1: a\n", "Step 2: b\n", "Answer: none"))
    assert find_leak(critique(path, text="It is 2."), path) == "2"


def test_the_leak_is_said_in_the_critiques_words():
    assert leak("1000", "So 1,000 are left.") == "1,000"
    assert leak("Paris", "So PARIS it is.") == "PARIS"


def test_a_lone_path_states_its_answer_itself():
    said = critique(alone(), wrong=None, text="The answer 20 is right.")
    assert not find_leak(said, alone())


@settings(max_examples=150, deadline=None)
@given(st.integers(-(10**6), 10**6), st.sampled_from(["{}", "{:,}", "{}.0", "{}/1", "{}.00"]))
def test_every_whole_number_leaks_in_every_form(number, form):
    assert leak(str(number), f"So it is {form.format(number)} then.")
    assert not leak(str(number), f"So it is {form.format(number + 1)} then.")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20), st.text(max_size=60))
def test_leaks_of_arbitrary_text_are_words(gold, text):
    assert isinstance(leak(gold, text), str)


@pytest.mark.parametrize(
    "text",
    [
        "1," * 50_000,
        "9" * 100_000,
        "1/" * 50_000,
        "1" + " " * 100_000,
        ("9" * 50 + "\n") * 2000,
        "steps 1" + ", 1" * 50_000,
    ],
)
def test_hostile_numbers_cost_little(text):
    start = time.process_time()
    assert not leak("62", text)
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    "text",
    [
        "The reference solution says 5.",
        "the Gold Answer",
        "The ground truth is 5.",
        "ground-truth answer",
        "Unlike the correct solution, it adds.",
        "It misses the right answer.",
        "The correct final answer differs.",
        "The other solution multiplies.",
        "Another solution gets it.",
        "The given answer differs.",
        "As the hint says, add.",
        "Hints help.",
        "See the answer key.",
        "the correct\nsolution",
        "CORRECT ANSWERS",
    ],
)
def test_talk_of_what_the_reader_does_not_have_is_found(text):
    assert talks_of_reference(text)


@pytest.mark.parametrize(
    "text",
    [
        render_critique([error(1, "7 + 8 is 15.", quote="7 + 8 = 14", fix="Add again.")], 1),
        render_critique([praise(0, "The sum is right.")], None),
        render_critique([error(0, "It is not.")], 0),
        "The solution is correct.",
        "The solution is incorrect.",
        "The answer is right.",
        "This answer does not follow.",
        "The solution states an incorrect answer.",
        "That is correct. Solutions need units.",
        "The chintz costs 5.",
        "Turn right, answer later.",
        "Golden rule.",
        "",
    ],
)
def test_talk_of_the_solution_itself_is_allowed(text):
    assert not talks_of_reference(text)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0),
        ("\n \n", 0),
        ("one", 0),
        ("a\nb\nc", 0),
        ("a\na", 0.5),
        ("a\n\nA \n b\na", 0.5),
        ("Step 1: ok\nStep 2: ok\nStep 3: ok\nStep 4: ok", 0.75),
        ("Step 1: ok\nok", 0.5),
        ("Step 1 is right: ok\nStep 2 is right: ok", 0.5),
        ("Step 1 is wrong. No.\nStep 2 is wrong. No.", 0.5),
        ("Step 1 is right: 7\nStep 2 is wrong: 8", 0),
        ("Step 1: 7\nStep 2: 8", 0),
    ],
)
def test_the_share_of_repeated_lines(text, share):
    assert repeated_share(text) == pytest.approx(share)


GOOD = "Step 1 is wrong. 7 and 8 make more.\nThe first wrong step is step 1. The solution is incorrect."


def reasons(path=None, *, wrong: int | None = 0, text: str = GOOD, **chosen) -> tuple[str, ...]:
    path = path or pair()
    return cheap_reasons(critique(path, wrong=wrong, text=text), path, VerifySettings(**chosen))


def test_a_sound_critique_passes_the_cheap_tests():
    assert reasons() == ()
    assert reasons(alone(), wrong=None, text="Step 1: It holds.\nNo step is wrong. The solution is correct.") == ()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"wrong": None}, ("wrong_verdict",)),
        ({"path": alone()}, ("wrong_verdict",)),
        ({"wrong": 1}, ("wrong_location",)),
        ({"text": GOOD + " It is 20."}, ("leaks_answer",)),
        ({"text": GOOD + " So says the reference solution."}, ("talks_of_reference",)),
        ({"text": "No."}, ("too_short",)),
        ({"text": "x" * 20}, ()),
        ({"text": "x" * 19}, ("too_short",)),
        ({"text": "x" * 4000}, ()),
        ({"text": "x" * 4001}, ("too_long",)),
        ({"text": "the same line\n" * 2}, ()),
        ({"text": "the same line\n" * 3}, ("repeats_itself",)),
        (
            {"wrong": 2, "text": "20, says a hint"},
            ("wrong_location", "leaks_answer", "talks_of_reference", "too_short"),
        ),
    ],
)
def test_each_cheap_test_names_its_reason(arguments, expected):
    assert reasons(**arguments) == expected
    assert list(expected) == sorted(expected, key=VERIFY_REJECTIONS.index)


def arms(p_placebo: float = 0.5, p_without: float = 0.5, p_hurts: float = 0.5, scored=(8, 8, 8)) -> Help:
    with_critique, with_placebo, without = (Estimate(correct=min(4, each), scored=each) for each in scored)
    return Help(
        with_critique=with_critique,
        with_placebo=with_placebo,
        without_critique=without,
        p_placebo=p_placebo,
        p_without=p_without,
        p_hurts=p_hurts,
    )


@pytest.mark.parametrize(
    ("p_placebo", "p_without", "expected"),
    [
        (0.01, 0.01, ()),
        (0.05, 0.05, ()),
        (0.051, 0.01, ("no_better_than_placebo",)),
        (0.01, 0.051, ("no_better_than_none",)),
        (0.5, 0.5, ("no_better_than_placebo", "no_better_than_none")),
    ],
)
def test_a_critique_of_a_wrong_path_must_beat_both_controls(p_placebo, p_without, expected):
    assert help_reasons(arms(p_placebo, p_without, p_hurts=0.001), pair(), VerifySettings()) == expected


@pytest.mark.parametrize(("p_hurts", "expected"), [(0.5, ()), (0.051, ()), (0.05, ("hurts",)), (0.001, ("hurts",))])
def test_a_critique_of_a_right_path_must_not_hurt_and_need_not_help(p_hurts, expected):
    assert help_reasons(arms(1.0, 1.0, p_hurts), alone(), VerifySettings()) == expected


@pytest.mark.parametrize("scored", [(0, 8, 8), (8, 0, 8), (8, 8, 0), (0, 0, 0)])
@pytest.mark.parametrize("path", [pair(), alone()], ids=["wrong", "right"])
def test_without_a_scored_arm_help_is_unknown_and_not_absent(scored, path):
    assert help_reasons(arms(0.001, 0.001, 0.001, scored), path, VerifySettings()) == ("help_unscored",)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"rollouts": 0}, "rollouts must be at least 1, got 0"),
        ({"alpha": 0.0}, "alpha must lie between 0 and 1, got 0.0"),
        ({"alpha": 1.0}, "alpha must lie between 0 and 1, got 1.0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(chosen, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        VerifySettings(**chosen)


_ROW = re.compile(r"^(.*?)\s*Please also give.*?Assistant:(.*?)<\|end_of_text\|>.*?intermediate steps\.(.*)", re.DOTALL)


@pytest.mark.parametrize(("name", "least", "most"), [("gsm8k", 10, 20), ("math", 5, 15)])
def test_real_critiques_that_give_the_refined_answer_away_are_found(shared_data, name, least, most, record_property):
    """At least those in which it stands literally; by that count 15 and 8 of 50 do, one quoting the question."""
    found, missed = 0, []
    lines = (shared_data / "mathcritique" / f"{name}.jsonl").read_text().splitlines()
    assert len(lines) == 50
    for line in lines:
        row = json.loads(line)
        question, solution, text = _ROW.match(row["instruction"]).groups()
        boxed, plain = re.findall(r"\\boxed\{(.*)\}|answer is (.+?)\.?$", row["output"], re.MULTILINE)[-1]
        gold = boxed or plain
        path = pair(problem(question, gold), wrong=(solution,))
        leaks = bool(find_leak(critique(path, text=text), path))
        found += leaks
        if gold in text and gold not in question + solution and not leaks:
            missed.append((gold, text))
    record_property("leaks", found)
    assert missed == []
    assert least <= found <= most

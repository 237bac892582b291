"""What a critique must show before a second solution is written: each test by name, their order, near-duplicates."""

import itertools
import re

import pytest

from annotators.helping import HELP_REJECTIONS
from annotators.verification import (
    TESTS,
    VERIFY_REJECTIONS,
    VerifySettings,
    location_agrees,
    location_distance,
    location_mass,
    text_reasons,
    verdict_agrees,
)
from schemas import Critique, JudgedUnit, PathPair
from tests.annotators.annotated import alone, critique, error, pair


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


GOOD = "Step 1 is wrong. 7 and 8 make more.\nThe first wrong step is step 1. The solution is incorrect."
RIGHT = "Step 1 is right: It holds.\nNo step is wrong. The solution is correct."


def reasons(path=None, *, wrong: int | None = 0, text: str = GOOD, judged=(), fix="", **chosen) -> tuple[str, ...]:
    path = path or pair()
    said = critique(path, wrong=wrong, text=text, units=(error(wrong, fix=fix),) if fix else None)
    return text_reasons([said], path, judged, VerifySettings(**chosen))[said.id]


def judged(agent: str, decision: str) -> JudgedUnit:
    return JudgedUnit(agent=agent, unit=error(0), decision=decision, severity=1)


FAILING = {
    "wrong_verdict": {"wrong": None, "text": RIGHT},
    "wrong_location": {"wrong": 1},
    "wrong_suggestion": {"tests": ("wrong_suggestion",), "fix": "Do click(3, 4)."},
    "leaks_answer": {"text": GOOD + " It is 20."},
    "talks_of_reference": {"text": GOOD + " So says the reference solution."},
    "too_short": {"text": "Step 1 is wrong. No"},
    "too_long": {"text": GOOD, "max_chars": len(GOOD) - 1},
    "unreadable": {"text": "\x00" * 3 + GOOD},
    "repeats_itself": {"text": "Seven and eight make more.\n" * 3},
    "unit_dropped": {"judged": [judged("anna", "keep"), judged("anna", "drop")]},
}
PASSING = {
    "wrong_verdict": {"path": alone(), "wrong": None, "text": RIGHT},
    "wrong_location": {"wrong": 1, "location_tolerance": 1},
    "wrong_suggestion": {"tests": ("wrong_suggestion",), "fix": "20."},
    "leaks_answer": {"text": GOOD + " It is 14, not 19."},
    "talks_of_reference": {"text": GOOD + " So says the rule."},
    "too_short": {"text": "Step 1 is wrong. No."},
    "too_long": {"text": GOOD, "max_chars": len(GOOD)},
    "unreadable": {"text": "\x00" + GOOD},
    "repeats_itself": {"text": "Seven and eight make more.\n" * 2},
    "unit_dropped": {"judged": [*(judged("anna", it) for it in ("keep", "fix", "unscored")), judged("bert", "drop")]},
}


@pytest.mark.parametrize("name", FAILING)
def test_each_text_test_rejects_what_it_is_for_and_nothing_else(name):
    """One critique that fails this test alone, and one at its edge that fails none."""
    assert reasons(**FAILING[name]) == (name,)
    assert reasons(**PASSING[name]) == ()


def test_there_is_a_case_for_every_test_of_the_text():
    assert FAILING.keys() == PASSING.keys()
    others = {"near_duplicate", *HELP_REJECTIONS, "not_measured"}
    assert FAILING.keys() | others == set(VERIFY_REJECTIONS)


def test_tests_stand_in_the_order_in_which_they_are_made():
    of_text = ["wrong_verdict", "wrong_location", "wrong_suggestion", "leaks_answer", "talks_of_reference"]
    of_wording = ["too_short", "too_long", "unreadable", "repeats_itself"]
    of_others = ["unit_dropped", "near_duplicate"]
    of_help = ["no_better_than_placebo", "no_better_than_none", "hurts", "rate_too_low", "rate_not_higher"]
    assert list(VERIFY_REJECTIONS) == of_text + of_wording + of_others + ["help_unscored", *of_help, "not_measured"]
    assert list(TESTS) == of_text + of_wording + of_others + of_help


def test_a_critique_fails_for_every_reason_there_is_in_their_order():
    failed = reasons(wrong=2, text="20, says a hint", judged=[judged("anna", "drop")])
    assert failed == ("wrong_location", "leaks_answer", "talks_of_reference", "too_short", "unit_dropped")
    noise = reasons(alone(), text="\x00\n" * 9, max_chars=17)
    assert noise == ("wrong_verdict", "too_short", "too_long", "unreadable", "repeats_itself")


def test_length_is_what_a_reader_sees():
    assert reasons(text="x" * 10 + " " * 10 + "x" * 8) == ("too_short",)
    assert reasons(text="x" * 10 + " " * 10 + "x" * 9) == ()


def test_the_panels_critique_answers_for_no_agents_remark():
    path = pair()
    panel, anna = critique(path, agent="panel"), critique(path, agent="anna", text=GOOD)
    found = text_reasons([panel, anna], path, [judged("anna", "drop")], VerifySettings())
    assert found == {panel.id: (), anna.id: ("unit_dropped",)}


# Which tests decide.


def test_all_our_own_tests_decide_unless_others_are_named():
    published = {"wrong_suggestion", "rate_too_low", "rate_not_higher"}
    assert set(VerifySettings().tests) == set(TESTS) - published
    assert VerifySettings().decisive(TESTS) == tuple(name for name in TESTS if name not in published)


@pytest.mark.parametrize(
    ("tests", "rejecting"),
    [
        ([], ()),
        (["wrong_verdict"], ()),
        (["too_short", "wrong_location"], ("wrong_location", "too_short")),
    ],
)
def test_only_named_tests_reject_and_all_are_made(tests, rejecting):
    failed = reasons(wrong=2, text="20, says a hint", tests=tests)
    assert failed == ("wrong_location", "leaks_answer", "talks_of_reference", "too_short")
    assert VerifySettings(tests=tuple(tests)).decisive(failed) == rejecting


def test_a_test_that_is_none_is_refused_by_name():
    with pytest.raises(ValueError, match=r"^tests: unknown test 'verdict', expected some of wrong_verdict, wrong_loc"):
        VerifySettings(tests=("wrong_verdict", "verdict"))


# Near-duplicates.

WORDS = (
    "Step 1 is wrong: the two numbers make one more than it says, because seven and eight together are more than "
    "fourteen, and the whole work after that step suffers."
)
"""30 words, so 28 runs of three. A word changed at one end leaves 27 of 29 runs in common, 0.93; one more at the other
end 26 of 30, 0.87."""


def changed(text: str, *places: int) -> str:
    words = text.split()
    for place in places:
        words[place] = "otherwise"
    return " ".join(words)


def of_one_path(*texts: str, path: PathPair | None = None, **chosen) -> list[tuple[str, ...]]:
    """The reasons of critiques by different agents, in their order."""
    path = path or pair()
    critiques = [critique(path, agent=f"agent{i}", text=text) for i, text in enumerate(texts)]
    found = text_reasons(critiques, path, [], VerifySettings(**chosen))
    assert list(found) == [each.id for each in critiques]
    return list(found.values())


def likeness(one: str, other: str) -> float:
    """Jaccard index of the runs of three words, case and punctuation apart."""
    ours, theirs = (
        set(zip(words, words[1:], words[2:], strict=False))
        for words in (re.findall(r"\w+", text.lower()) for text in (one, other))
    )
    return len(ours & theirs) / len(ours | theirs)


def test_a_critique_that_nearly_repeats_an_earlier_one_falls_and_the_earlier_one_stays():
    near = changed(WORDS, -1)
    assert likeness(WORDS, near) == pytest.approx(27 / 29)
    assert of_one_path(WORDS, near) == [(), ("near_duplicate",)]
    assert of_one_path(near, WORDS) == [(), ("near_duplicate",)]
    assert of_one_path(WORDS, WORDS, near) == [(), ("near_duplicate",), ("near_duplicate",)]


def test_another_critique_is_no_near_duplicate():
    other = changed(WORDS, 0, -1)
    assert likeness(WORDS, other) == pytest.approx(26 / 30)
    assert of_one_path(WORDS, other) == [(), ()]
    assert of_one_path(WORDS, other, max_likeness=likeness(WORDS, other)) == [(), ("near_duplicate",)]


def test_only_equal_texts_fall_where_all_others_are_let_through():
    assert of_one_path(WORDS, changed(WORDS, -1), WORDS.upper(), max_likeness=1.0) == [(), (), ("near_duplicate",)]


def test_a_failed_critique_takes_no_later_one_with_it():
    leaking = WORDS + " 20."
    assert likeness(WORDS, leaking) > 0.9
    assert of_one_path(leaking, WORDS) == [("leaks_answer",), ()]
    assert of_one_path(WORDS, leaking) == [(), ("leaks_answer",)]


def test_near_duplicates_are_looked_for_among_what_would_be_kept():
    """The first gives the answer away: where that does not reject it, the second repeats what is kept."""
    leaking = WORDS + " 20."
    assert of_one_path(leaking, WORDS, tests=("near_duplicate",)) == [("leaks_answer",), ("near_duplicate",)]
    assert of_one_path(WORDS, leaking, tests=()) == [(), ("leaks_answer", "near_duplicate")]


def test_what_resembles_only_a_near_duplicate_stays():
    second, third = changed(WORDS, -1), changed(WORDS, -1, 0)
    assert likeness(second, third) > 0.9 > likeness(WORDS, third)
    assert of_one_path(WORDS, second, third) == [(), ("near_duplicate",), ()]


def test_every_order_keeps_one_of_equal_critiques():
    critiques: list[Critique] = [critique(pair(), agent=name, text=WORDS) for name in ("anna", "bert", "cleo")]
    for order in itertools.permutations(critiques):
        found = text_reasons(order, pair(), [], VerifySettings())
        assert [key for key, failed in found.items() if not failed] == [order[0].id]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"min_location_mass": 1.1}, "min_location_mass must lie in 0..1, got 1.1"),
        ({"min_location_mass": -0.1}, "min_location_mass must lie in 0..1, got -0.1"),
        ({"max_repeated_share": 2.0}, "max_repeated_share must lie in 0..1, got 2.0"),
        ({"max_likeness": 1.5}, "max_likeness must lie in 0..1, got 1.5"),
        ({"max_likeness": 0.0}, "max_likeness must be above 0: at 0 every text would repeat every other"),
        ({"location_tolerance": -1}, "location_tolerance must not be below 0, got -1"),
        ({"min_chars": -1}, "min_chars must not be below 0, got -1"),
        ({"max_measured": -1}, "max_measured must not be below 0, got -1"),
        ({"measure_rejected": -1}, "measure_rejected must not be below 0, got -1"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(chosen, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        VerifySettings(**chosen)


def test_settings_at_their_bounds_are_taken():
    VerifySettings(min_location_mass=0.0, max_repeated_share=0.0, max_likeness=1.0, min_chars=0, measure_rejected=0)

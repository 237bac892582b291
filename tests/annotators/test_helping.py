"""Whether a critique helps: exact tests at several looks, errors bounded, no second solution wasted."""

import functools
import random

import pytest
from scipy.stats import fisher_exact

from annotators.helping import (
    EXACT_TESTS,
    HELP_REJECTIONS,
    HELP_TESTS,
    HelpSettings,
    compare_arms,
    controls,
    help_reasons,
    help_tests,
)
from schemas import Estimate

SETTINGS = HelpSettings(max_rollouts=32)


@functools.cache
def p_greater(better: Estimate, worse: Estimate) -> float:
    table = [[better.correct, better.scored - better.correct], [worse.correct, worse.scored - worse.correct]]
    return float(fisher_exact(table, alternative="greater").pvalue)


def of(correct: int, scored: int) -> Estimate:
    return Estimate(correct=correct, scored=scored)


def reasons(critique, placebo, none, **chosen):
    """Each arm is (right, scored); a control that is not asked for is None."""
    look, has_error = chosen.get("look", 0), chosen.get("has_error", True)
    settings, tests = chosen.get("settings", SETTINGS), chosen.get("tests", EXACT_TESTS)
    arms = compare_arms(of(*critique), placebo and of(*placebo), none and of(*none), p_greater)
    made = help_tests(tests, has_error=has_error)
    return help_reasons(arms, settings, made, has_error=has_error, look=look, p_greater=p_greater)


@pytest.mark.parametrize(
    ("first", "last", "looks"),
    [(8, 32, (8, 16, 32)), (8, 8, (8,)), (5, 5, (5,)), (8, 40, (8, 16, 32, 40)), (3, 20, (3, 6, 12, 20))],
)
def test_every_look_has_twice_as_many_as_the_one_before(first, last, looks):
    assert HelpSettings(rollouts=first, max_rollouts=last).looks() == looks


def test_what_beats_both_controls_helps():
    # Three looks: each at 0.05 / 3. 8 of 8 against 2 of 8: C(8,2) / C(16,10) = 28 / 8008.
    assert reasons((8, 8), (2, 8), (2, 8)) == ()


def test_what_beats_one_control_only_goes_on_and_fails_at_the_end():
    assert reasons((8, 8), (2, 8), (5, 8)) is None
    assert reasons((20, 32), (4, 32), (16, 32), look=2) == ("no_better_than_none",)
    assert reasons((20, 32), (16, 32), (4, 32), look=2) == ("no_better_than_placebo",)
    assert reasons((20, 32), (19, 32), (18, 32), look=2) == ("no_better_than_placebo", "no_better_than_none")


def test_what_does_no_better_so_far_has_lost():
    assert reasons((2, 8), (2, 8), (0, 8)) == ("no_better_than_placebo",)
    assert reasons((0, 8), (1, 8), (1, 8)) == ("no_better_than_placebo", "no_better_than_none")


def test_what_cannot_win_any_more_has_lost():
    # 7 of 8 against 6 of 8, last look in 2: at best 9 of 10 against 6 of 10, p = 0.15.
    settings = HelpSettings(rollouts=8, max_rollouts=10)
    assert reasons((7, 8), (0, 8), (6, 8), settings=settings) == ("no_better_than_none",)


def test_one_look_alone_has_the_whole_alpha():
    # 4 of 8 against none of 8: 70 / 1820 = 0.038.
    settings = HelpSettings(rollouts=8, max_rollouts=8)
    assert reasons((4, 8), (0, 8), (0, 8), settings=settings) == ()
    assert reasons((3, 8), (0, 8), (0, 8), settings=settings) == ("no_better_than_placebo", "no_better_than_none")


def test_a_right_paths_critique_must_not_hurt():
    assert reasons((8, 8), (8, 8), (8, 8), has_error=False) == ()
    assert reasons((1, 8), (8, 8), (8, 8), has_error=False) == ("hurts",)
    assert reasons((6, 8), (8, 8), (8, 8), has_error=False) is None
    assert reasons((26, 32), (32, 32), (29, 32), has_error=False, look=2) == ()


def test_an_arm_without_a_scored_solution_decides_nothing():
    assert reasons((8, 8), (0, 0), (0, 8)) is None
    assert reasons((8, 8), (0, 0), (0, 8), look=2) == ("help_unscored",)


def test_only_the_tests_that_are_asked_for_decide():
    """20 of 32 against 16 of 32 is p = 0.22, against 4 of 32 p = 4e-5; three looks share 0.05."""
    assert reasons((20, 32), (16, 32), (4, 32), look=2, tests=["no_better_than_none"]) == ()
    assert reasons((20, 32), None, (4, 32), look=2, tests=["no_better_than_none"]) == ()
    assert reasons((20, 32), (4, 32), None, look=2, tests=["no_better_than_placebo"]) == ()
    assert reasons((20, 32), None, (16, 32), look=2, tests=["no_better_than_none"]) == ("no_better_than_none",)


def test_without_a_test_the_first_look_is_the_last():
    assert reasons((0, 8), (8, 8), (8, 8), tests=[]) == ()
    assert reasons((0, 0), None, None, tests=[]) == ()
    assert reasons((1, 8), None, (8, 8), tests=["hurts"]) == ()  # Of a wrong path it says nothing.


def test_a_test_is_about_paths_of_its_label():
    assert help_tests(HELP_TESTS, has_error=True) == (
        *("no_better_than_placebo", "no_better_than_none"),
        *("rate_too_low", "rate_not_higher"),
    )
    assert help_tests(HELP_TESTS, has_error=False) == ("hurts", "rate_too_low", "rate_not_higher")
    assert help_tests(["wrong_verdict", "leaks_answer"], has_error=True) == ()


@pytest.mark.parametrize(
    ("tests", "needed"),
    [
        (EXACT_TESTS, {"placebo", "none"}),
        (["no_better_than_placebo"], {"placebo"}),
        (["no_better_than_none"], {"none"}),
        (["hurts"], {"none"}),
        (["rate_too_low"], set()),
        (["wrong_verdict", "rate_not_higher"], {"none"}),
        ([], set()),
    ],
)
def test_no_control_is_paid_for_that_no_test_needs(tests, needed):
    assert controls(tests) == needed


@pytest.mark.parametrize(
    ("arm", "look", "found"),
    [
        ((4, 4), 0, None),  # Four wrong ones more would make it 4 of 8, which is not above a half.
        ((1, 4), 0, None),  # Four right ones more would make it 5 of 8.
        ((0, 4), 0, ("rate_too_low",)),  # And here 4 of 8.
        ((5, 8), 1, ()),
        ((4, 8), 1, ("rate_too_low",)),
    ],
)
def test_the_soft_filter_wants_a_rate_above_the_threshold(arm, look, found):
    settings = HelpSettings(rollouts=4, max_rollouts=8, min_rate=0.5)
    for has_error in (True, False):
        chosen = {"settings": settings, "look": look, "has_error": has_error, "tests": ["rate_too_low"]}
        assert reasons(arm, None, None, **chosen) == found


def test_the_soft_filter_stops_once_nothing_can_change_it():
    """5 of 6 stays above a half with two wrong ones more."""
    settings = HelpSettings(rollouts=6, max_rollouts=8, min_rate=0.5)
    assert reasons((5, 6), None, None, settings=settings, tests=["rate_too_low"]) == ()


@pytest.mark.parametrize(("arm", "wrong", "right"), [((5, 8), (), ()), ((4, 8), 1, ()), ((3, 8), 1, 1)])
def test_rates_are_compared_as_they_come_where_that_is_asked_for(arm, wrong, right):
    """More than 4 of 8 on a wrong path, no fewer on a right one; at the last look alone."""
    failed = {1: ("rate_not_higher",), (): ()}
    chosen = {"settings": HelpSettings(rollouts=8, max_rollouts=8), "tests": ["rate_not_higher"]}
    assert reasons(arm, None, (4, 8), **chosen) == failed[wrong]
    assert reasons(arm, None, (4, 8), has_error=False, **chosen) == failed[right]
    assert reasons((8, 8), None, (0, 8), look=1, tests=["rate_not_higher"]) is None


def test_every_test_is_a_reason():
    assert [name for name in HELP_REJECTIONS if name not in HELP_TESTS] == ["help_unscored"]
    assert set(HELP_TESTS) <= set(HELP_REJECTIONS)


def simulate(rate, control, *, rng):
    """(whether it is called helpful, second solutions of all arms) of one critique with these true rates."""
    counts, spent = {"critique": 0, "placebo": 0, "none": 0}, 0
    rates = {"critique": rate, "placebo": control, "none": control}
    before = 0
    for look, size in enumerate(SETTINGS.looks()):
        for arm in counts:
            counts[arm] += sum(rng.random() < rates[arm] for _ in range(size - before))
        spent, before = 3 * size, size
        found = reasons(*((counts[arm], size) for arm in ("critique", "placebo", "none")), look=look)
        if found is not None:
            return found == (), spent
    raise AssertionError("the last look decides")


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.9])
def test_a_useless_critique_is_called_helpful_in_at_most_alpha(rate):
    rng = random.Random(1)
    called = sum(simulate(rate, rate, rng=rng)[0] for _ in range(2000))
    assert called / 2000 <= 0.05


def test_a_helpful_critique_is_found_and_cheaper_than_by_the_last_look_alone():
    rng = random.Random(2)
    results = [simulate(0.7, 0.2, rng=rng) for _ in range(500)]
    assert sum(found for found, _ in results) / 500 >= 0.9
    assert sum(spent for _, spent in results) / 500 <= 0.75 * 3 * 32


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rollouts": 0}, "need 1 <= rollouts <= max_rollouts, got rollouts=0, max_rollouts=64"),
        ({"min_rate": 1.0}, "min_rate must be at least 0 and below 1, got 1.0"),
        ({"min_rate": -0.1}, "min_rate must be at least 0 and below 1, got -0.1"),
        ({"rollouts": 70}, "need 1 <= rollouts <= max_rollouts, got rollouts=70, max_rollouts=64"),
        ({"alpha": 0.0}, "alpha must lie between 0 and 1, got 0.0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(ValueError, match="got") as caught:
        HelpSettings(**wrong)
    assert str(caught.value) == message

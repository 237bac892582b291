"""A critic's figures on a handful of solutions, every one of them counted by hand."""

import random
import statistics

import msgspec
import pytest
from scipy.stats import beta

from annotators.evaluation import FIGURES, OF_SECONDS, RATES, Figure, Judged, average, count, summarise
from schemas import Estimate

RIGHT = {"label": "correct", "first_outcome": "correct", "has_gold": True}
WRONG = {"label": "incorrect", "first_outcome": "incorrect", "has_gold": True}

SOLUTIONS = (
    Judged(**RIGHT, named=None, second_outcomes=("correct",)),
    Judged(**RIGHT, named=0, second_outcomes=("incorrect",)),
    Judged(**RIGHT, named=None, second_outcomes=("unscored",)),
    Judged(**WRONG, first_error=1, named=1, second_outcomes=("correct",)),
    Judged(**WRONG, first_error=1, named=0, second_outcomes=("correct",), gives_away=True),
    Judged(**WRONG, first_error=2, named=0, second_outcomes=("incorrect",)),
    Judged(**WRONG, first_error=0, named=None, second_outcomes=("incorrect",)),
    Judged(**WRONG, first_error=0, is_read=False, second_outcomes=("unscored",)),
)
COUNTS = {
    "solved": Estimate(),
    # The second one calls a right solution wrong, the last but one a wrong one right.
    "verdict": Estimate(correct=5, scored=7, unscored=1),
    "verdict_on_wrong": Estimate(correct=3, scored=4, unscored=1),
    "verdict_on_right": Estimate(correct=2, scored=3),
    "exact": Estimate(correct=1, scored=4, unscored=1),
    "within_1": Estimate(correct=2, scored=4, unscored=1),
    "on_correct": Estimate(correct=2, scored=3),
    "correct_to_incorrect": Estimate(correct=1, scored=2, unscored=1),
    "incorrect_to_correct": Estimate(correct=2, scored=4, unscored=1),
    "incorrect_to_correct_unleaked": Estimate(correct=1, scored=3, unscored=1),
    # Of the six solutions whose second one is scored, two were right before.
    "before": Estimate(correct=2, scored=6, unscored=2),
    "after": Estimate(correct=3, scored=6, unscored=2),
    "leaks": Estimate(correct=1, scored=7, unscored=1),
}
NOTHING = Estimate()


def ends(estimate: Estimate, level: float) -> tuple[float, float]:
    """Stands in for an interval, and tells what it was asked for: counts on both sides of any rate."""
    return -estimate.correct - level, estimate.scored + level


def figures(*items: Judged, level: float = 0.5, seed: int = 0) -> dict[str, Figure]:
    return summarise(items, level=level, interval=ends, seed=(seed,)).figures


def test_every_rate_of_a_table_by_hand():
    found = figures(*SOLUTIONS)
    assert {name: found[name].counts for name in RATES} == COUNTS
    assert {name: found[name].value for name in RATES} == {
        name: pytest.approx(each.correct / each.scored) if each.scored else None for name, each in COUNTS.items()
    }


def test_f1_and_gain_of_the_same_table():
    found = figures(*SOLUTIONS)
    # 2 * 1/4 * 2/3 / (1/4 + 2/3); with the one that was not read missed 2 * 1/5 * 2/3 / (1/5 + 2/3).
    assert found["f1"].value == pytest.approx(4 / 11)
    assert found["f1_unread_missed"].value == pytest.approx(4 / 13)
    # Of the verdict "wrong": three rightly, one in vain, one missed; 2 * 3 / (2 * 3 + 1 + 1).
    assert found["verdict_f1"].value == pytest.approx(3 / 4)
    # Two turned right, one turned wrong, of six.
    assert found["delta"].value == pytest.approx(1 / 6)
    assert tuple(found) == FIGURES


def test_rates_have_the_callers_interval():
    found = figures(*SOLUTIONS, level=0.25)
    assert (found["verdict"].low, found["verdict"].high) == (-5.25, 7.25)
    assert (found["incorrect_to_correct"].low, found["incorrect_to_correct"].high) == (-2.25, 4.25)


def test_where_nobody_says_the_place_there_are_verdicts_only():
    unknown = {"is_located": False, "named": 3}
    wrong, right = count(Judged(label="incorrect", **unknown)), count(Judged(label="correct", **unknown))
    assert wrong["verdict"] == Estimate(correct=1, scored=1)
    assert right["verdict"] == Estimate(scored=1)
    for name in ("exact", "within_1", "on_correct"):
        assert wrong[name] == right[name] == NOTHING


def test_of_a_solution_without_a_label_no_verdict_counts():
    counts = count(Judged(label=None, is_located=False, named=0, has_gold=True))
    assert {name for name, each in counts.items() if each != NOTHING} == {"leaks"}


def test_own_solutions_count_where_there_are_any():
    own = [Judged(**RIGHT, own_outcome=outcome) for outcome in ("correct", "incorrect", "incorrect", "unscored", None)]
    assert figures(*own)["solved"].counts == Estimate(correct=1, scored=3, unscored=1)


def test_verdicts_on_right_solutions_alone_have_no_f1_and_on_wrong_ones_alone_they_have_one():
    assert figures(*SOLUTIONS[:3])["verdict_f1"].value is None
    # Three of four found, none accused in vain: precision 1, recall 3/4.
    assert figures(*SOLUTIONS[3:])["verdict_f1"].value == pytest.approx(6 / 7)


def test_a_verdict_f1_of_one_has_an_interval_that_is_no_point():
    items = [Judged(label="incorrect", first_error=0, named=0)] * 4 + [Judged(label="correct", named=None)] * 4
    found = figures(*items, level=0.95)["verdict_f1"]
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low is not None
    assert 0.5 < found.low < 0.9


def test_without_a_gold_answer_nobody_leaks():
    counts = count(Judged(label="incorrect", first_error=0, named=0, gives_away=True))
    assert counts["leaks"] == NOTHING


def test_a_first_outcome_that_is_unknown_turns_into_nothing():
    counts = count(Judged(label="incorrect", first_error=0, named=0, second_outcomes=("correct", "incorrect")))
    assert counts["before"] == counts["after"] == Estimate(unscored=2)
    assert counts["incorrect_to_correct"] == counts["correct_to_incorrect"] == NOTHING


def test_a_right_answer_with_a_wrong_step_counts_as_wrong_for_places_and_as_right_for_turns():
    item = Judged(
        label="incorrect", first_error=1, named=1, first_outcome="correct", second_outcomes=("incorrect", "correct")
    )
    assert count(item)["exact"] == Estimate(correct=1, scored=1)
    assert count(item)["correct_to_incorrect"] == Estimate(correct=1, scored=2)


@pytest.mark.parametrize("named", [None, 0])
def test_a_critic_who_always_says_the_same_gets_no_f1(named):
    items = [Judged(label="incorrect", first_error=1, named=named), Judged(label="correct", named=named)]
    assert figures(*items)["f1"].value == 0.0


def test_figures_that_cannot_be_had_are_none():
    found = figures()
    assert {figure.value for figure in found.values()} == {None}
    assert {(figure.low, figure.high) for figure in found.values()} == {(None, None)}
    assert figures(*SOLUTIONS[:3])["f1"].value is None


def turned(*outcomes: str) -> Judged:
    return Judged(**WRONG, first_error=0, named=0, second_outcomes=outcomes)


def test_the_gains_interval_is_that_of_solutions_drawn_again():
    # Two solutions, of which one gains: drawn again the gain is 0, 1/2 and 1 in 1/4, 1/2 and 1/4 of the drawings.
    pair = (turned("correct"), turned("incorrect"))
    wide, narrow = figures(*pair, level=0.95)["delta"], figures(*pair, level=0.4)["delta"]
    assert (wide.low, wide.value, wide.high) == (0.0, 0.5, 1.0)
    assert (narrow.low, narrow.value, narrow.high) == (0.5, 0.5, 0.5)


def test_all_that_is_known_of_a_solution_is_drawn_together():
    # One stays right, one stays wrong, one turns right: whatever is drawn, nothing is lost. What is right before and
    # what is right after, each drawn by itself, would differ by less than 0 in every fourth drawing.
    kept = Judged(**RIGHT, named=None, second_outcomes=("correct",))
    found = figures(kept, turned("incorrect"), turned("correct"), level=0.9)["delta"]
    assert (found.low, found.high) == (0.0, pytest.approx(2 / 3))


def test_a_gain_that_is_always_the_same_has_an_interval_that_is_no_point():
    kept = Judged(**RIGHT, named=None, second_outcomes=("correct",))
    none, lost = (
        figures(*[kept] * 3, level=0.95)["delta"],
        figures(*[msgspec.structs.replace(kept, second_outcomes=("incorrect",))] * 3, level=0.95)["delta"],
    )
    # Of a share that was never seen in 3 solutions, Beta(1/2, 7/2), half gains all and half loses all.
    unseen = beta.ppf(0.95, 0.5, 3.5)
    assert (none.low, none.value, none.high) == (pytest.approx(-unseen, abs=0.06), 0.0, pytest.approx(unseen, abs=0.06))
    # Solutions without a scored second one change nothing in it.
    assert figures(*[kept] * 3, *[turned("unscored")] * 4, level=0.95)["delta"] == none
    assert (lost.low, lost.value) == (-1.0, -1.0)
    assert lost.high == pytest.approx(-1 + 2 * unseen, abs=0.12)


def test_f1_comes_out_as_in_a_bootstrap_written_out():
    items = [Judged(label="incorrect", first_error=i % 3, named=0) for i in range(30)]
    items += [Judged(label="correct", named=None if i % 4 else 1) for i in range(20)]
    draws, rng = [], random.Random(5)
    for _ in range(4000):
        drawn = rng.choices(items, k=len(items))
        wrong = [item for item in drawn if item.label == "incorrect"]
        right = [item for item in drawn if item.label == "correct"]
        found = sum(item.named == item.first_error for item in wrong) / len(wrong)
        spared = sum(item.named is None for item in right) / len(right)
        draws.append(2 * found * spared / (found + spared))
    cuts = statistics.quantiles(draws, n=40)
    f1 = figures(*items, level=0.95)["f1"]
    # 1/3 and 3/4: F1 = 2/4 / (13/12)
    assert f1.value == pytest.approx(6 / 13)
    assert (f1.low, f1.high) == (pytest.approx(cuts[0], abs=0.02), pytest.approx(cuts[-1], abs=0.02))


def test_one_solution_tells_nothing_of_the_others():
    found = figures(turned("correct"))["delta"]
    assert (found.value, found.low, found.high) == (1.0, None, None)


def test_second_solutions_of_one_critique_are_no_independent_outcomes():
    pair = (turned("correct", "correct"), turned("incorrect", "incorrect"))
    found = figures(*pair, level=0.95)
    # As for the gain above; the caller's interval would have the two critiques for four.
    assert (found["incorrect_to_correct"].low, found["incorrect_to_correct"].high) == (0.0, 1.0)
    assert found["incorrect_to_correct"].counts == Estimate(correct=2, scored=4)
    assert (found["verdict"].low, found["verdict"].high) == (-2.95, 2.95)


def test_what_is_always_the_same_has_the_interval_of_as_many_solutions():
    found = figures(turned("correct", "correct"), turned("correct", "unscored"), level=0.5)["incorrect_to_correct"]
    assert found.counts == Estimate(correct=3, scored=3, unscored=1)
    assert (found.low, found.high) == ends(Estimate(correct=2, scored=2), 0.5)


def test_one_critique_tells_nothing_of_others_however_often_it_is_followed():
    kept = Judged(**RIGHT, named=None, second_outcomes=("correct", "correct"))
    found = figures(kept, kept, turned("correct", "incorrect"))["incorrect_to_correct"]
    assert (found.value, found.low, found.high) == (0.5, None, None)


@pytest.mark.parametrize(("named", "value"), [(0, 1.0), (1, 0.0)])
def test_f1_at_an_end_has_an_interval_that_is_no_point(named, value):
    # All 3 wrong ones found, or none; all 4 right ones spared.
    items = [Judged(label="incorrect", first_error=0, named=named)] * 3 + [Judged(label="correct", named=None)] * 4
    f1 = figures(*items, level=0.95)["f1"]
    rng = random.Random(1)
    drawn = []
    for _ in range(4000):
        found = rng.betavariate(3.5, 0.5) if value else rng.betavariate(0.5, 3.5)
        spared = rng.betavariate(4.5, 0.5)
        drawn.append(2 * found * spared / (found + spared))
    cuts = statistics.quantiles(drawn, n=40)
    assert f1.value == value
    assert f1.low == (pytest.approx(cuts[0], abs=0.03) if value else 0.0)
    assert f1.high == (1.0 if value else pytest.approx(cuts[-1], abs=0.03))


def summary(*items: Judged, seed: int):
    return summarise(items, level=0.95, interval=ends, seed=(seed,))


def test_every_file_counts_alike_in_the_mean():
    named = [Judged(label="incorrect", first_error=0, named=0)] * 3
    missed = [Judged(label="incorrect", first_error=0, named=1)]
    mean = average([summary(*named, seed=0), summary(*missed, seed=1)], 0.95)
    assert mean["exact"].value == 0.5
    assert mean["exact"].counts == Estimate(correct=3, scored=4)
    assert mean["exact"].low < 0.5 < mean["exact"].high
    assert mean["f1"].value is None


def test_a_file_without_a_figure_is_no_part_of_its_mean():
    first, second = summary(*SOLUTIONS, seed=0), summary(Judged(label="correct", named=None), seed=1)
    mean = average([first, second], 0.95)
    assert mean["exact"] == first.figures["exact"]
    assert mean["on_correct"].value == pytest.approx((2 / 3 + 1) / 2)
    assert mean["f1"] == first.figures["f1"]


def test_the_means_interval_is_narrower_than_the_files():
    items = [Judged(label="incorrect", first_error=i % 2, named=0) for i in range(40)]
    files = [summary(*items, seed=seed) for seed in range(4)]
    mean = average(files, 0.95)["exact"]
    # Four files of 40 are as one of 160: the normal interval's half width is 1.96 * sqrt(1/4 / 160).
    assert (mean.low, mean.high) == (pytest.approx(0.5 - 0.0775, abs=0.01), pytest.approx(0.5 + 0.0775, abs=0.01))


def test_the_same_seed_draws_the_same():
    assert figures(*SOLUTIONS, seed=3) == figures(*SOLUTIONS, seed=3)


def test_rates_of_second_solutions_are_rates():
    assert set(OF_SECONDS) < set(RATES)

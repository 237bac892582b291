"""Which of two critiques is preferred: each score on cases worked out by hand, and the pairs made of them."""

import msgspec
import pytest

from annotators.preferences import (
    Mistake,
    PreferSettings,
    choose_pairs,
    jaccard,
    judged_units,
    known_errors,
    named_errors,
    severity_score,
    utility,
)
from schemas import Critique, Estimate, JudgedUnit, PathAlone, PathPair, Unit, Verified
from tests.annotators.annotated import alone, critique, error, pair, praise
from tests.annotators.made_exports import FORKED, examined, named, verified

# RCO's utility: better 1, tie 1/2, worse 0, against the first solution.


@pytest.mark.parametrize(
    ("correct", "scored", "has_error", "value"),
    [
        (5, 5, True, 1.0),  # Five right ones for a wrong one.
        (0, 5, True, 0.5),  # Five ties.
        (3, 5, True, 0.8),  # (3 * 1 + 2 * 1/2) / 5
        (5, 5, False, 0.5),  # Five ties again.
        (0, 5, False, 0.0),  # A right one given up five times.
        (3, 5, False, 0.3),  # (3 * 1/2 + 2 * 0) / 5
    ],
)
def test_utility_is_the_mean_of_better_tie_and_worse(correct, scored, has_error, value):
    assert utility(Estimate(correct=correct, scored=scored), has_error=has_error) == pytest.approx(value)


def test_what_nobody_could_decide_is_in_no_utility():
    assert utility(Estimate(correct=1, scored=2, unscored=3), has_error=True) == 0.75
    assert utility(Estimate(unscored=5), has_error=True) is None
    assert utility(None, has_error=True) is None


# Critic-V's Jaccard index.


def at(*steps: int) -> tuple[Mistake, ...]:
    return tuple(Mistake(step=step) for step in steps)


@pytest.mark.parametrize(
    ("found", "known", "value"),
    [
        ((1, 3), (1, 2), 1 / 3),  # One in common of {1, 2, 3}.
        ((1, 2), (1, 2), 1.0),
        ((3,), (1, 2), 0.0),
        ((), (1,), 0.0),
        ((1,), (), 0.0),
        ((), (), 1.0),  # Rightly nothing.
        ((1, 2, 3, 4), (2,), 1 / 4),
    ],
)
def test_the_jaccard_index_of_found_and_known_errors(found, known, value):
    assert jaccard(at(*found), at(*known)) == pytest.approx(value)


def test_errors_of_one_step_are_matched_by_their_words_each_once():
    sums = Mistake(step=0, text="The sum of seven and eight is too small.")
    reworded = Mistake(step=0, text="The sum of seven and eight is much too small.")
    units = Mistake(step=0, text="Centimetres became metres without a reason.")
    assert jaccard([reworded], [sums]) == 1.0
    assert jaccard([units], [sums]) == 0.0
    assert jaccard([msgspec.structs.replace(reworded, step=1)], [sums]) == 0.0
    assert jaccard([units, reworded], [sums, units]) == 1.0
    assert jaccard([sums, reworded], [sums]) == 1 / 2  # Both match the one that is known, which counts once.
    assert jaccard([sums, units], at(0)) == 1 / 2  # Of the known one only the place is known.


def test_the_most_errors_are_matched_whatever_their_order():
    """A place matches both known ones, the words only the first: two pairs, if the place is given the second."""
    words = Mistake(step=0, text="The sum of seven and eight is too small.")
    other = Mistake(step=0, text="Centimetres became metres without a reason.")
    for found in ([*at(0), words], [words, *at(0)]):
        assert jaccard(found, [words, other]) == 1.0


def test_a_critics_errors_are_its_remarks_that_are_no_praise_and_no_repetition():
    units = (praise(0), error(1, "The sum is too small.", fix="Add again."), error(1, "The sum is too small.", fix=""))
    assert named_errors(units) == (Mistake(step=1, text="The sum is too small. Add again."),)
    units = (error(2, "Metres were centimetres before."), error(1, "The sum is too small."))
    assert [mistake.step for mistake in named_errors(units)] == [2, 1]
    assert named_errors(()) == ()


def test_of_a_path_its_first_error_is_known():
    assert known_errors(pair(first_error=1)) == at(1)
    assert known_errors(alone()) == ()


# MultiCritique's severity.


def judged(decision: str, severity: int, *, agent: str = "anna", unit: Unit | None = None) -> JudgedUnit:
    return JudgedUnit(agent=agent, unit=unit or error(0), decision=decision, severity=severity)


def test_severity_is_what_the_votes_leave_of_a_critique():
    assert severity_score([judged("keep", 3), judged("drop", 1)]) == 1 / 2  # (3 - 1) / (3 + 1)
    assert severity_score([judged("fix", 2), judged("drop", 3)]) == -1 / 5
    assert severity_score([judged("keep", 0), judged("drop", 0), judged("unscored", 3)]) == 0.0
    assert severity_score([judged("unscored", 3)]) is None
    assert severity_score([]) is None


def test_a_critique_answers_for_its_own_remarks_and_a_composed_one_for_those_it_holds():
    first, second = error(0, "The sum is less."), error(1, "So is this one.")
    said = [judged("keep", 3, unit=first), judged("drop", 1, agent="bert", unit=second)]
    own = critique(pair(), agent="bert", units=(second,))
    composed = critique(pair(), agent="panel", units=(first,))
    assert judged_units(own, said) == (said[1],)
    assert judged_units(composed, said) == (said[0],)
    assert judged_units(critique(pair(), agent="cleo", units=()), said) == ()


# Pairs.


def pairs(
    *items: Verified, path: PathPair | PathAlone = FORKED, min_margin=0.25, max_length_ratio=2.0, judged=(), **settings
) -> list[tuple[str, str, float]]:
    """(chosen critic, rejected critic, margin) of each pair."""
    case = examined(path, *items)
    case = msgspec.structs.replace(case, panel=msgspec.structs.replace(case.panel, judged=tuple(judged)))
    found = choose_pairs(case, PreferSettings(**settings), min_margin=min_margin, max_length_ratio=max_length_ratio)
    return [(it.chosen.critique.agent, it.rejected.critique.agent, pytest.approx(it.margin)) for it in found]


def of(agent: str, correct: int | None, *reasons: str, length: int = 100) -> Verified:
    return verified(named(agent, length), FORKED, correct=correct, reasons=reasons)


def test_a_verified_critique_is_preferred_to_the_first_failed_one_with_the_margin():
    items = (of("anna", 8), of("bert", 7, "hurts"), of("cleo", 2, "hurts"), of("dora", 0, "hurts"))
    assert pairs(*items) == [("anna", "cleo", 0.75)]
    assert pairs(*items, max_pairs=None) == [("anna", "cleo", 0.75), ("anna", "dora", 1.0)]
    assert pairs(of("anna", 2), of("bert", 8), of("cleo", 0, "hurts")) == [("anna", "cleo", 0.25)]
    assert pairs(of("anna", None), of("bert", 8), of("cleo", 0, "hurts")) == []


def test_scores_compare_any_two_critiques_the_wider_margin_first():
    """Of a wrong path: 8 of 8 is 1, 4 of 8 is 6/8, 0 of 8 is 1/2."""
    items = (of("bert", 4), of("cleo", 0), of("anna", 8))
    assert pairs(*items, by="utility") == [("anna", "cleo", 0.5)]
    assert pairs(*items, by="utility", max_pairs=None) == [
        ("anna", "cleo", 0.5),
        ("bert", "cleo", 0.25),
        ("anna", "bert", 0.25),
    ]
    assert pairs(*items, by="utility", max_pairs=None, min_margin=0.3) == [("anna", "cleo", 0.5)]


def test_equal_scores_make_no_pair_whatever_the_margin():
    assert pairs(of("anna", 4), of("bert", 4), by="utility", min_margin=0.0) == []


def test_a_rejected_critique_is_never_chosen_by_its_score():
    assert pairs(of("anna", 8, "leaks_answer"), of("bert", 0), by="utility") == []
    assert pairs(of("anna", 8), of("bert", 0, "leaks_answer"), by="utility") == [("anna", "bert", 0.5)]


@pytest.mark.parametrize(("longer", "count"), [(200, 1), (201, 0)])
@pytest.mark.parametrize("by", ["verified", "utility"])
def test_no_score_makes_a_pair_that_teaches_length(by, longer, count):
    assert len(pairs(of("anna", 8), of("bert", 0, "hurts", length=longer), by=by)) == count


def naming(agent: str, *steps: int, correct: int | None = None) -> Verified:
    """A critique that names errors in these steps."""
    units = tuple(error(step, f"Step {'abcd'[step]} does not hold.") for step in steps) or (praise(0),)
    said: Critique = critique(FORKED, agent=agent, wrong=1, units=units, text="x" * 100)
    return verified(said, FORKED, correct=correct)


def test_the_critic_that_finds_what_is_known_is_preferred():
    """The first error is step 2 of four: 1/1, 1/2 and 0."""
    items = (naming("bert", 1, 2), naming("cleo", 0), naming("anna", 1))
    assert pairs(*items, by="jaccard", max_pairs=None) == [
        ("anna", "cleo", 1.0),
        ("bert", "cleo", 0.5),
        ("anna", "bert", 0.5),
    ]


def test_severity_decides_only_where_second_solutions_agree():
    said = [judged("keep", 3, agent="anna"), judged("drop", 3, agent="bert")]
    chosen = {"by": "severity", "needs_help": True, "judged": said}
    assert pairs(of("anna", 8), of("bert", 2), **chosen) == [("anna", "bert", 2.0)]
    assert pairs(of("anna", 2), of("bert", 2), **chosen) == []
    assert pairs(of("anna", 1), of("bert", 2), **chosen) == []
    assert pairs(of("anna", 1), of("bert", None), **chosen) == []
    assert pairs(of("anna", 1), of("bert", 2), by="severity", judged=said) == [("anna", "bert", 2.0)]


@pytest.mark.parametrize("by", ["verified", "utility"])
def test_who_was_told_the_answer_is_on_neither_side_of_a_pair_though_no_test_rejects_it(by):
    told = msgspec.structs.replace(of("anna", 8), leak="it is 20")
    assert pairs(told, of("cleo", 0, "hurts"), by=by) == []
    assert pairs(told, of("bert", 8), of("cleo", 0, "hurts"), by=by)[0][:2] == ("bert", "cleo")
    assert pairs(of("bert", 8), msgspec.structs.replace(of("cleo", 0, "hurts"), leak="it is 20"), by=by) == []


def test_critics_who_are_there_to_be_rejected_are_never_chosen_and_alone_rejected():
    items = (of("liar", 8), of("anna", 8), of("bert", 0, "hurts"), of("rogue", 1, "hurts"))
    assert pairs(*items, rejected_agents=("liar", "rogue")) == [("anna", "rogue", 7 / 8)]
    assert pairs(*items, rejected_agents=("liar",)) == []  # The liar passed every test.


def test_no_number_of_pairs_below_one():
    with pytest.raises(ValueError, match=r"^max_pairs must be at least 1 \(null takes all\), got 0$"):
        PreferSettings(max_pairs=0)

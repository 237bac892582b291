"""How often right solutions are given up: counted by hand, by critic, and by what a critic wants and knows."""

import msgspec
import pytest

from annotators.flips import Flips, count_flips, count_robustness, intent_of, knowledge_of
from schemas import Estimate, Panel, PathAlone, PathPair, Verified
from tests.annotators.annotated import alone, critique, pair
from tests.annotators.made_exports import examined, verified


def item(path: PathPair | PathAlone, agent: str, correct: int | None, without: int | None = 8) -> Verified:
    """A critique with this many of 8 right second solutions, and this many of 8 without it."""
    record = verified(critique(path, agent=agent), path, correct=correct)
    none = None if without is None else Estimate(correct=without, scored=8)
    return msgspec.structs.replace(record, without_critique=none)


def test_what_is_given_up_is_wrong_second_solutions_with_less_those_without():
    """The liar: 6 of 8 and 7 of 8 wrong with it, 0 and 1 of 8 without: (13 - 1) / 16."""
    flips = count_flips([item(alone(), "liar", 2), item(alone(name="alone2"), "liar", 1, 7)], [])["liar"]
    assert flips.on_right.num_critiques == 2
    assert flips.on_right.with_critique == Estimate(correct=3, scored=16)
    assert flips.on_right.without_critique == Estimate(correct=15, scored=16)
    assert flips.given_up == pytest.approx(12 / 16)
    assert flips.put_right is None


def test_what_is_put_right_is_counted_apart():
    counted = count_flips([item(pair(), "anna", 6, 2), item(alone(), "anna", 8), item(pair(), "bert", 1, 2)], [])
    assert list(counted) == ["anna", "bert"]
    assert (counted["anna"].put_right, counted["anna"].given_up) == (pytest.approx(4 / 8), 0.0)
    assert (counted["bert"].put_right, counted["bert"].given_up) == (pytest.approx(-1 / 8), None)


def test_only_what_was_measured_in_both_arms_counts():
    assert count_flips([item(alone(), "anna", None), item(alone(), "bert", 3, None)], []) == {}


def test_what_nobody_could_decide_is_in_neither_rate():
    record = msgspec.structs.replace(item(alone(), "anna", 8), with_critique=Estimate(correct=1, scored=2, unscored=6))
    assert count_flips([record], [])["anna"].given_up == 0.5
    unscored = msgspec.structs.replace(record, with_critique=Estimate(unscored=8))
    assert count_flips([unscored], [])["anna"].given_up is None
    assert Flips().given_up is None


def test_what_several_say_in_the_same_words_counts_for_each_of_them():
    """Equal texts are measured once: bert's is the same as anna's, cleo's about another path and dora's in others."""
    said = [critique(alone(), agent=agent) for agent in ("anna", "bert")]
    said += [critique(alone(name="alone2"), agent="cleo"), critique(alone(), agent="dora", text="Other words.")]
    counted = count_flips([item(alone(), "anna", 2)], said)
    assert {agent: flips.given_up for agent, flips in counted.items()} == {"anna": 6 / 8, "bert": 6 / 8}


@pytest.mark.parametrize(
    ("role", "view", "intent", "knowledge"),
    [
        ("stepwise", "blind", "constructive", "own"),
        ("stepwise", "reference", "constructive", "grounded"),
        ("hypercritical", "blind", "hypercritical", "own"),
        ("hypercritical", "contrastive", "hypercritical", "grounded"),
        ("deceptive", "blind", "malicious", "own"),
        ("deceptive", "reference", "malicious", "grounded"),
        ("baseless", "reference", "hypercritical", "none"),
    ],
)
def test_a_critic_has_an_intent_by_its_role_and_knowledge_by_its_view(role, view, intent, knowledge):
    assert (intent_of(role), knowledge_of(role, view)) == (intent, knowledge)


def panel(path_id: str, consensus: str) -> Panel:
    return msgspec.structs.replace(examined(pair()).panel, path_id=path_id, consensus=consensus)


def test_a_panel_is_robust_where_its_verdict_is_the_label():
    has_error = {"r1": False, "r2": False, "r3": False, "w1": True, "w2": True}
    said = {"r1": "correct", "r2": "incorrect", "r3": "tie", "w1": "incorrect", "w2": "incorrect"}
    found = count_robustness([panel(*each) for each in said.items()], has_error)
    assert found.on_right == Estimate(correct=1, scored=2, unscored=1)
    assert found.on_wrong == Estimate(correct=2, scored=2)

import itertools

import pytest

from annotators.aggregate import (
    Consensus,
    choose_candidates,
    choose_placebos,
    compose_critique,
    judge_unit,
    reach_consensus,
    surviving_units,
)
from annotators.units import Judgement
from schemas import AgentVote, Criticised, JudgedUnit, PathPair, Unit
from tests.annotators.annotated import alone, criticised, critique, error, pair, praise, problem, provenance

# crowd-kit 1.4 passes arguments to pandas that pandas 4 will no longer take.
pytestmark = pytest.mark.filterwarnings("ignore:The (inplace|copy) keyword:DeprecationWarning")


def located(name: str, first_error: int, num_steps: int = 4) -> PathPair:
    """A wrong path whose located first wrong step, the Monte-Carlo vote, is `first_error`."""
    return pair(name=name, wrong=("x\n",) * num_steps, first_error=first_error)


def said(consensus: Consensus) -> tuple[str, int | None]:
    return consensus.verdict, consensus.first_wrong_step


def test_without_a_critique_there_is_no_consensus():
    assert reach_consensus([]) == {}
    assert reach_consensus([Criticised(path=pair(), critiques=())]) == {}


def test_a_path_without_a_critique_is_left_out():
    silent = Criticised(path=pair(name="silent"), critiques=())
    assert set(reach_consensus([silent, criticised(pair(), anna=0)])) == {"pair1"}


@pytest.mark.parametrize("names", [{"anna": 2}, {"anna": 2, "bert": 2, "cleo": 2}])
def test_what_all_say_is_agreed_on(names):
    consensus = reach_consensus([criticised(located("p", 2), **names)])["p"]
    assert said(consensus) == ("incorrect", 2)
    assert consensus.confidence == pytest.approx(1)
    assert [(vote.agent, vote.first_wrong_step) for vote in consensus.votes] == list(names.items())
    assert all(vote.reliability == pytest.approx(1) for vote in consensus.votes)


def test_all_say_that_nothing_is_wrong():
    consensus = reach_consensus([criticised(alone(), anna=None, bert=None)])["alone1"]
    assert said(consensus) == ("correct", None)
    assert [vote.verdict for vote in consensus.votes] == ["correct", "correct"]


def test_a_majority_of_one_path_is_followed():
    consensus = reach_consensus([criticised(located("p", 0), anna=1, bert=1, cleo=1)])["p"]
    assert said(consensus) == ("incorrect", 1)


@pytest.mark.parametrize("names", [{"anna": 1}, {"anna": None}, {"anna": 1, "bert": 2}, {"anna": 1, "bert": None}])
def test_a_tie_is_named_and_not_broken(names):
    consensus = reach_consensus([criticised(located("p", 0), **names)])["p"]
    assert said(consensus) == ("tie", None)
    assert consensus.confidence == pytest.approx(1 / (len(names) + 1))


def honest_with_liar(num_paths: int = 12) -> list[Criticised]:
    """Anna and Bert are right but for one path each; the liar never is."""
    items = []
    for i in range(num_paths):
        truth = i % 3
        anna = (truth + 1) % 3 if i == 3 else truth
        bert = (truth + 2) % 3 if i == 7 else truth
        items.append(criticised(located(f"p{i:02}", truth), anna=anna, bert=bert, liar=(truth + 1) % 3))
    return items


def test_a_consistent_liar_is_believed_least_and_never_wins():
    items = honest_with_liar()
    consensus = reach_consensus(items)
    for i, item in enumerate(items):
        assert said(consensus[item.path.id]) == ("incorrect", i % 3)
    reliability = {vote.agent: vote.reliability for vote in consensus["p00"].votes}
    assert reliability["liar"] < 0.15
    assert reliability["anna"] == pytest.approx(11 / 12, abs=0.05)
    assert reliability["bert"] == pytest.approx(11 / 12, abs=0.05)


def test_two_liars_who_agree_do_not_win_where_others_were_right_before():
    items = [
        criticised(located(f"p{i:02}", i % 3), anna=i % 3, bert=i % 3, liar=(i + 1) % 3, other=(i + 2) % 3)
        for i in range(12)
    ]
    items.append(criticised(located("q", 0), anna=0, liar=1, other=1))
    assert said(reach_consensus(items)["q"]) == ("incorrect", 0)


def test_a_path_that_only_a_liar_criticised_goes_with_the_rollouts():
    items = [*honest_with_liar(), criticised(located("q", 0), liar=1)]
    assert said(reach_consensus(items)["q"]) == ("incorrect", 0)


def test_the_order_of_paths_changes_nothing():
    items = honest_with_liar(6)
    expected = reach_consensus(items)
    assert reach_consensus(items[::-1]) == expected
    assert reach_consensus([*items[3:], *items[:3]]) == expected


def test_the_order_of_critiques_changes_nothing_that_counts():
    items = honest_with_liar(6)
    expected = reach_consensus(items)
    for order in itertools.permutations(range(3)):
        turned = [Criticised(path=item.path, critiques=tuple(item.critiques[i] for i in order)) for item in items]
        found = reach_consensus(turned)
        assert {key: said(each) for key, each in found.items()} == {key: said(each) for key, each in expected.items()}
        assert found["p00"].confidence == pytest.approx(expected["p00"].confidence)


def test_nothing_is_agreed_on_that_nobody_named():
    """Anna and the rollouts part on a path of one step; what the others make likely elsewhere is a step it lacks."""
    items = [
        criticised(located("p0", 1, num_steps=3), cleo=1),
        criticised(located("p1", 2, num_steps=3), cleo=1, bert=0, anna=2),
        criticised(located("p2", 0, num_steps=1), anna=None),
    ]
    consensus = reach_consensus(items)
    assert said(consensus["p0"]) == ("incorrect", 1)
    for item in items:
        named = {each.first_wrong_step for each in item.critiques} | {item.path.first_error}
        found = consensus[item.path.id]
        assert found.verdict == "tie" or found.first_wrong_step in named


def spoken(name: str, answer: str, *texts: str) -> Criticised:
    path = pair(problem(answer=answer, name=f"problem of {name}"), name=name)
    return Criticised(
        path=path,
        critiques=tuple(critique(path, agent=f"agent{i}", text=text) for i, text in enumerate(texts)),
    )


def test_a_placebo_is_of_another_problem_and_closest_in_length():
    items = [
        spoken("a", "1", "a" * 100, "a" * 120),
        spoken("b", "2", "b" * 109, "b" * 10),
        spoken("c", "3", "c" * 112, "c" * 1000),
    ]
    placebos = choose_placebos(items, "fallback")
    # Mean lengths: 110, 59.5 and 556.
    assert placebos == {"a": "b" * 109, "b": "a" * 100, "c": "a" * 120}


def test_a_placebo_has_the_length_of_the_average_critique():
    items = [spoken("a", "1", "a" * 10, "a" * 90), spoken("b", "2", "b" * 10, "b" * 52, "b" * 90)]
    assert choose_placebos(items, "")["a"] == "b" * 52


def test_other_paths_of_the_same_problem_and_problems_with_the_same_answer_give_no_placebo():
    same = problem(answer="1")
    items = [criticised(pair(same, name="a"), anna=0), criticised(pair(same, name="b"), anna=1), spoken("c", "1", "c")]
    assert set(choose_placebos(items, "fallback").values()) == {"fallback"}


def test_a_critique_without_units_is_no_placebo_and_a_path_without_critiques_gets_one():
    other = pair(problem(answer="5", name="other"), name="other")
    empty = Criticised(path=other, critiques=(critique(other, wrong=None, units=()),))
    assert choose_placebos([empty, criticised(pair(), anna=0)], "fallback")["pair1"] == "fallback"
    silent = Criticised(path=other, critiques=())
    assert choose_placebos([silent, spoken("a", "1", "short", "as long")], "fallback")["other"] == "as long"


def test_placebos_do_not_depend_on_order():
    items = [spoken(name, name, *(name * i + str(i) for i in range(3, 6))) for name in "abcdef"]
    assert choose_placebos(items[::-1], "") == choose_placebos(items, "")


def test_a_kept_unit_stays_and_a_fixed_one_takes_the_fix():
    unit = error(1, "No.", fix="Old.")
    kept = judge_unit("anna", unit, Judgement(decision="keep", severity=1, fix="New."))
    assert (kept.unit, kept.decision, kept.severity) == (unit, "keep", 1)
    fixed = judge_unit("anna", unit, Judgement(decision="fix", severity=2, fix="New."))
    assert (fixed.unit.flaw, fixed.unit.fix, fixed.unit.severity) == ("No.", "New.", 2)
    assert judge_unit("anna", unit, Judgement(decision="fix", severity=2)).unit.fix == "Old."


def test_fixed_praise_stays_praise_without_fix_or_severity():
    fixed = judge_unit("anna", praise(0), Judgement(decision="fix", severity=2, fix="New."))
    assert fixed.unit == praise(0)


def test_a_unit_that_nobody_judged_is_unscored():
    judged = judge_unit("anna", error(1), None)
    assert (judged.unit, judged.decision, judged.severity) == (error(1), "unscored", 3)


def agreed(step: int | None, **reliability: float) -> Consensus:
    return Consensus(
        verdict="correct" if step is None else "incorrect",
        first_wrong_step=step,
        confidence=0.9,
        votes=tuple(
            AgentVote(
                agent=agent,
                verdict="correct" if step is None else "incorrect",
                first_wrong_step=step,
                reliability=value,
            )
            for agent, value in reliability.items()
        ),
    )


def judged(agent: str, unit: Unit, decision: str = "keep", severity: int = 0) -> JudgedUnit:
    return JudgedUnit(agent=agent, unit=unit, decision=decision, severity=severity)


BOTH = [
    judged("anna", praise(0, "anna 0")),
    judged("anna", error(1, "anna 1")),
    judged("bert", praise(0, "bert 0")),
    judged("bert", praise(1, "bert 1")),
    judged("bert", error(2, "bert 2")),
    judged("bert", praise(3, "bert 3")),
]


@pytest.mark.parametrize(
    ("style", "step", "flaws"),
    [
        ("stepwise", 1, ["anna 0", "anna 1"]),
        ("first_error_only", 1, ["anna 1"]),
        ("stepwise", 2, ["anna 0", "bert 1", "bert 2"]),
        ("first_error_only", 2, ["bert 2"]),
        ("stepwise", None, ["anna 0", "bert 1", "bert 3"]),
        ("first_error_only", None, ["anna 0", "bert 1", "bert 3"]),
        ("stepwise", 3, []),
        ("stepwise", 0, []),
    ],
)
def test_units_survive_that_fit_the_consensus(style, step, flaws):
    units = surviving_units(BOTH, agreed(step, anna=0.9, bert=0.4), style)
    assert [unit.flaw for unit in units] == flaws


def test_the_more_reliable_agents_unit_stands_for_a_step():
    rivals = [judged("anna", error(0, "anna"), severity=1), judged("liar", error(0, "liar"), severity=3)]
    for order in (rivals, rivals[::-1]):
        assert [unit.flaw for unit in surviving_units(order, agreed(0, anna=0.9, liar=0.1), "stepwise")] == ["anna"]


def test_of_one_agents_units_the_more_severe_stands_for_a_step():
    rivals = [judged("anna", error(0, "mild"), severity=1), judged("anna", error(0, "grave"), severity=3)]
    for order in (rivals, rivals[::-1]):
        assert [unit.flaw for unit in surviving_units(order, agreed(0, anna=0.9), "stepwise")] == ["grave"]


def test_a_dropped_unit_gives_way_to_the_next_and_an_unjudged_one_stays():
    units = [
        judged("anna", error(0, "anna"), "drop"),
        judged("bert", error(0, "bert"), "unscored"),
        judged("anna", praise(1), "keep"),
    ]
    assert [unit.flaw for unit in surviving_units(units, agreed(0, anna=0.9, bert=0.2), "stepwise")] == ["bert"]
    assert surviving_units(units[:1], agreed(0, anna=0.9), "stepwise") == ()


def test_a_composed_critique_is_written_by_the_template():
    units = (praise(0, "Yes."), error(1, "No."))
    composed = compose_critique(
        pair(), units, agreed(1, anna=0.9), provenance("m"), {"anna": "blind", "bert": "contrastive"}
    )
    assert composed.text == (
        "Step 1 is right: Yes.\nStep 2 is wrong. No.\nThe first wrong step is step 2. The solution is incorrect."
    )
    assert (composed.agent, composed.parse_state, composed.view) == ("panel", "template", "contrastive")
    assert (composed.verdict, composed.first_wrong_step, composed.units) == ("incorrect", 1, units)
    assert (composed.path_id, composed.problem_id) == ("pair1", "q1")


def test_a_composed_critique_of_a_right_path_says_so():
    composed = compose_critique(alone(), (praise(0, "Yes."),), agreed(None), provenance(), {"anna": "blind"})
    assert composed.text == "Step 1 is right: Yes.\nNo step is wrong. The solution is correct."
    assert (composed.verdict, composed.first_wrong_step, composed.view) == ("correct", None, "blind")


@pytest.mark.parametrize(
    ("views", "widest"),
    [
        (["blind", "blind"], "blind"),
        (["contrastive", "blind"], "contrastive"),
        (["blind", "reference", "contrastive"], "reference"),
    ],
)
def test_a_composed_critique_bears_the_widest_view_behind_it(views, widest):
    named = {f"agent{i}": view for i, view in enumerate(views)}
    assert compose_critique(pair(), (error(0),), agreed(0), provenance(), named).view == widest


def test_candidates_are_what_is_wanted_the_composed_one_first():
    anna, bert = critique(pair(), agent="anna", text="a"), critique(pair(), agent="bert", text="b")
    panel = critique(pair(), agent="panel", text="p")
    assert choose_candidates([anna, bert], panel, "both") == (panel.id, anna.id, bert.id)
    assert choose_candidates([anna, bert], panel, "agents") == (anna.id, bert.id)
    assert choose_candidates([anna, bert], panel, "composed") == (panel.id,)
    assert choose_candidates([anna, bert], None, "both") == (anna.id, bert.id)
    assert choose_candidates([anna, bert], None, "composed") == ()


def test_equal_texts_are_one_candidate_the_first():
    anna, bert = critique(pair(), agent="anna", text="same"), critique(pair(), agent="bert", text="same")
    panel = critique(pair(), agent="panel", text="same")
    assert choose_candidates([anna, bert], panel, "both") == (panel.id,)
    assert choose_candidates([anna, bert], None, "both") == (anna.id,)

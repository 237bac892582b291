"""AggregateCritiques on scripted models: how many votes are cast, on what, and who words the panel's critique."""

import itertools

import msgspec
import pytest

from annotators.controls import FALLBACK_PLACEBO
from annotators.critic import Agent
from annotators.judging import JudgeSettings
from pipelines.aggregate_critiques import AggregateCritiques
from pipelines.engines.base import Request
from pipelines.settings import PanelSettings
from pipelines.templates import load_template
from pipelines.worker import holding
from schemas import Criticised, Panel, PathPair, Unit
from tests.annotators.annotated import alone, criticised, critique, error, pair, praise, problem
from tests.pipelines.scripted_critics import Outcome, run_stage, section, spec_of

SECTIONS = frozenset({"sections"})
META = load_template("meta", key="panel.meta_template", gaps=SECTIONS)
COMPOSE = load_template("compose", key="panel.compose_template", gaps=SECTIONS | {"style"})

# Crowd-kit's own use of pandas.
pytestmark = pytest.mark.filterwarnings("ignore:The (inplace|copy) keyword:DeprecationWarning")

_SEEDS = itertools.count(1)
"""A seed a run, so that no run finds its samples in the journal of the one before."""


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    rules = {"actor": "judges", "other": "other", "turns": "turns", "wordy": "wordy"}
    with spec_of(tmp_path_factory.mktemp("judges"), **rules) as spec, holding(spec):
        yield spec


def said(path: PathPair, **units: tuple[Unit, ...]) -> Criticised:
    """What each agent remarked; all name the second step, which the rollouts have located, too."""
    return Criticised(
        path=path,
        critiques=tuple(critique(path, agent=agent, wrong=1, units=each) for agent, each in units.items()),
    )


def located() -> PathPair:
    return pair(first_error=1)


def aggregate(spec, *criticised: Criticised, meta=META, compose=None, **settings) -> Outcome:
    panel = PanelSettings(agents=tuple(Agent(name=name) for name in ("anna", "bert", "cleo")), **settings)
    stage = AggregateCritiques(spec, panel, meta, compose, ("\n\n",), next(_SEEDS), 1)
    return run_stage(spec, stage, criticised, Criticised)


def panel_of(outcome: Outcome) -> Panel:
    (empanelled,) = outcome.kept
    return empanelled.panel


def votes(requests: list[Request]) -> dict[str, list[tuple[int, int]]]:
    """(first vote, votes) of each request, by the remark that they are about."""
    cast: dict[str, list[tuple[int, int]]] = {}
    for request in requests:
        cast.setdefault(section(request.prompt, "Remark"), []).append((request.first_sample, request.num_samples))
    return cast


def test_two_votes_are_enough_where_they_agree(spec):
    outcome = aggregate(spec, said(located(), anna=(praise(0, "A true remark."), error(1, "A false remark."))))
    assert votes(outcome.asked[""]) == {
        "Step 1 is right: A true remark.": [(0, 2)],
        "Step 2 is wrong. A false remark.": [(0, 2)],
    }
    kept, dropped = panel_of(outcome).judged
    assert (kept.decision, kept.keeps, kept.drops) == ("keep", 2, 0)
    assert (dropped.decision, dropped.keeps, dropped.drops) == ("drop", 0, 2)


def test_more_votes_are_cast_only_where_the_first_disagree(spec):
    """By turns one for, one against: two, two more, and the fifth decides. Its side is the first vote's."""
    outcome = aggregate(spec, said(located(), anna=(praise(0, "A true remark."), error(1, "A doubtful remark."))))
    assert votes(outcome.asked[""]) == {
        "Step 1 is right: A true remark.": [(0, 2)],
        "Step 2 is wrong. A doubtful remark.": [(0, 2), (2, 2), (4, 1)],
    }
    (last,) = [request for request in outcome.asked[""] if request.first_sample == 4]
    judged = panel_of(outcome).judged[1]
    first_keeps = last.sample_seed(0) % 2 == 0
    assert (judged.keeps, judged.drops) == ((3, 2) if first_keeps else (2, 3))
    assert judged.decision == ("keep" if first_keeps else "drop")


def test_votes_that_nobody_understands_are_cast_to_the_last_and_decide_nothing(spec):
    outcome = aggregate(spec, said(located(), anna=(error(1, "An unclear remark."),)))
    assert votes(outcome.asked[""]) == {"Step 2 is wrong. An unclear remark.": [(0, 2), (2, 2), (4, 1)]}
    (judged,) = panel_of(outcome).judged
    assert (judged.decision, judged.keeps, judged.drops) == ("unscored", 0, 0)


def test_as_many_votes_are_cast_as_set(spec):
    settings = JudgeSettings(margin=1, max_votes=1)
    outcome = aggregate(spec, said(located(), anna=(error(1, "A doubtful remark."),)), judging=settings)
    assert votes(outcome.asked[""]) == {"Step 2 is wrong. A doubtful remark.": [(0, 1)]}
    assert panel_of(outcome).judged[0].decision in ("keep", "drop")


def test_what_several_agents_say_in_the_same_words_is_judged_once(spec):
    same, own = error(1, "A true remark."), error(1, "Another remark.")
    outcome = aggregate(spec, said(located(), anna=(same,), bert=(own,), cleo=(same,)))
    assert votes(outcome.asked[""]) == {
        "Step 2 is wrong. A true remark.": [(0, 2)],
        "Step 2 is wrong. Another remark.": [(0, 2)],
    }
    assert [(item.agent, item.unit, item.decision) for item in panel_of(outcome).judged] == [
        ("anna", same, "keep"),
        ("bert", own, "keep"),
        ("cleo", same, "keep"),
    ]


def test_votes_are_held_to_the_form_of_a_judgement_and_sampled_as_set(spec):
    settings = JudgeSettings(temperature=0.3, max_tokens=77)
    outcome = aggregate(spec, said(located(), anna=(error(1, "A true remark."),)), judging=settings)
    (request,) = outcome.asked[""]
    assert '"decision"' in request.json_schema
    assert (request.sampling.temperature, request.sampling.max_tokens) == (0.3, 77)


def test_without_a_meta_critic_nobody_is_asked_and_nothing_is_judged(spec):
    outcome = aggregate(spec, said(located(), anna=(error(1, "A true remark."),)), meta=None)
    assert outcome.asked[""] == []
    assert [item.decision for item in panel_of(outcome).judged] == ["unscored"]
    assert panel_of(outcome).composed.text.startswith("Step 2 is wrong. A true remark.")


def test_a_path_with_too_few_critiques_costs_nothing_and_is_rejected(spec):
    silent = Criticised(path=pair(name="silent"), critiques=())
    outcome = aggregate(spec, said(located(), anna=(error(1, "A true remark."),)), silent, quorum=2)
    assert outcome.kept == []
    assert outcome.asked[""] == []
    assert sorted((item.key, item.reason, item.detail) for item in outcome.rejected) == [
        ("pair1", "no_quorum", "1 readable critiques, need 2"),
        ("silent", "no_quorum", "0 readable critiques, need 2"),
    ]


REMARKS = said(located(), anna=(praise(0, "A true remark."), error(1, "It should be more.")))
BY_TEMPLATE = (
    "Step 1 is right: A true remark.\nStep 2 is wrong. It should be more.\n"
    "The first wrong step is step 2. The solution is incorrect."
)


def test_the_composing_model_words_the_critique_and_signs_for_it(spec):
    outcome = aggregate(spec, REMARKS, compose=COMPOSE, compose_engine="turns")
    (request,) = outcome.asked["turns"]
    assert (request.num_samples, request.sampling.temperature) == (1, 0.0)
    composed = panel_of(outcome).composed
    # This model repeats the remarks as they are.
    assert (composed.text, composed.parse_state) == (BY_TEMPLATE, "composed")
    assert composed.provenance.model.endswith(":turns")
    assert composed.provenance.prompt_digest == COMPOSE.digest


@pytest.mark.parametrize("compose", [None, COMPOSE], ids=["no model", "a model that says too little"])
def test_the_template_stands_in_for_a_composing_model(spec, compose):
    """The other model's sentence names no step."""
    outcome = aggregate(spec, REMARKS, compose=compose, compose_engine="other")
    assert len(outcome.asked["other"]) == (compose is not None)
    composed = panel_of(outcome).composed
    assert (composed.text, composed.parse_state) == (BY_TEMPLATE, "template")
    assert composed.provenance == REMARKS.critiques[0].provenance


@pytest.mark.parametrize(("max_tokens", "state"), [(26, "composed"), (25, "template"), (19, "template")])
def test_a_composition_that_is_cut_off_leaves_the_words_to_the_template(spec, max_tokens, state):
    """A token is a word here: 7 in the first remark, 8 in the second, and 11 that say where the first error is.

    After 19 of them both remarks stand there whole, so that only how it ended tells.
    """
    outcome = aggregate(spec, REMARKS, compose=COMPOSE, compose_engine="turns", compose_max_tokens=max_tokens)
    assert len(outcome.asked["turns"]) == 1
    composed = panel_of(outcome).composed
    assert (composed.text, composed.parse_state) == (BY_TEMPLATE, state)
    assert composed.provenance.model.endswith(":turns") == (state == "composed")


def test_what_a_composing_model_adds_is_taken_off(spec):
    composed = panel_of(aggregate(spec, REMARKS, compose=COMPOSE, compose_engine="wordy")).composed
    assert composed.text == ("In step 2 it should be more.\nThe first wrong step is step 2. The solution is incorrect.")
    assert composed.parse_state == "composed"


@pytest.mark.parametrize(("style", "lines"), [("stepwise", 3), ("first_error_only", 2), ("free", 1)])
def test_the_composed_critique_has_the_style_that_is_set(spec, style, lines):
    for compose in (None, COMPOSE):
        outcome = aggregate(spec, REMARKS, compose=compose, compose_engine="turns", style=style)
        assert len(panel_of(outcome).composed.text.splitlines()) == lines


def test_nothing_is_composed_of_remarks_that_were_dropped(spec):
    outcome = aggregate(spec, said(located(), anna=(error(1, "A false remark."),)), compose=COMPOSE)
    assert panel_of(outcome).composed is None
    assert [request for request in outcome.asked[""] if "Composed critique" in request.prompt] == []


def test_a_panel_has_its_candidates_and_a_critique_of_another_problem(spec):
    elsewhere = said(
        pair(problem(answer="7", name="q2"), name="other", first_error=1), anna=(error(1, "Something else."),)
    )
    alone = panel_of(aggregate(spec, REMARKS, meta=None))
    assert alone.placebo == FALLBACK_PLACEBO
    # The composed critique repeats Anna's word for word: one candidate.
    assert alone.candidates == (alone.composed.id,)
    panels = {item.path.id: item.panel for item in aggregate(spec, REMARKS, elsewhere, meta=None).kept}
    assert panels["pair1"].placebo == elsewhere.critiques[0].text
    assert panels["other"].placebo == REMARKS.critiques[0].text


def test_right_paths_beyond_the_bound_that_nobody_doubted_cost_nothing(spec):
    """Two of three plain ones fall; the wrong path and the one whose alarm was taken back stay."""
    plain = [criticised(alone(name=f"plain{i}"), anna=None, bert=None) for i in range(3)]
    taken_back = criticised(alone(name="taken back"), anna=0, bert=None)
    wrong = said(located(), anna=(error(1, "A true remark."),))
    outcome = aggregate(spec, *plain, taken_back, wrong, meta=None, max_undoubted=1)
    kept = {item.path.id for item in outcome.kept}
    assert {"taken back", "pair1"} < kept
    assert len(kept) == 3
    assert [(item.reason, item.detail) for item in outcome.rejected] == [
        ("undoubted", "more than 1 in the whole run")
    ] * 2


def test_a_remark_that_its_author_could_not_make_good_goes_into_no_critique(spec):
    path = located()
    anna = msgspec.structs.replace(critique(path, agent="anna", wrong=1), correction_outcome="incorrect")
    panel = panel_of(aggregate(spec, Criticised(path=path, critiques=(anna,)), meta=None))
    assert [item.decision for item in panel.judged] == ["drop"]
    assert panel.composed is None


def test_a_merged_critique_says_what_was_taken_back(spec):
    path = alone()
    first = critique(path, agent="anna", wrong=0, units=(error(0, "It should be more."),))
    second = critique(path, agent="bert", wrong=None, units=(praise(0, "A true remark."),))
    second = msgspec.structs.replace(second, corrects=True, informed=True)
    case = Criticised(path=path, critiques=(first, second))
    for style, corrects in (("merged", True), ("stepwise", False)):
        composed = panel_of(aggregate(spec, case, meta=None, style=style)).composed
        assert (composed.corrects, composed.informed) == (corrects, True)
        assert (
            "Step 1 may look wrong: It should be more.\nStep 1 is right: A true remark." in composed.text
        ) == corrects

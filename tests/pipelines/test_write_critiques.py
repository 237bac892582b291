"""WriteCritiques on scripted models: how many tries are asked for, what critics are told, how they correct."""

import itertools

import msgspec
import pytest

from annotators.critic import Agent
from annotators.crucial import CrucialSettings
from pipelines.engines.base import Request, Sampling
from pipelines.settings import PanelSettings
from pipelines.templates import load_template
from pipelines.worker import holding
from pipelines.write_critiques import Correcting, WriteCritiques
from schemas import Path, PathPair
from tests.annotators.annotated import alone, branch, pair, problem
from tests.pipelines.scripted_critics import Outcome, critic_of, run_stage, section, spec_of

CRITIC_GAPS = frozenset({"role", "critic", "sections"})
SECTIONS = frozenset({"sections"})
CRUCIAL = load_template("crucial", key="panel.crucial.template", gaps=SECTIONS)
CORRECTING = Correcting(
    template=load_template("refine", key="actor.refine_template", gaps=SECTIONS),
    sampling=Sampling(max_tokens=50, temperature=0.8),
)

_SEEDS = itertools.count(1)
"""A seed a run, so that no run finds its samples in the journal of the one before."""


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    with spec_of(tmp_path_factory.mktemp("ordered"), actor="ordered", silent="silent") as spec, holding(spec):
        yield spec


def write(spec, *agents: Agent, paths: tuple[Path, ...] = (), crucial_tokens: int = 0) -> Outcome:
    """What the agents write; they are told crucial information of so many tokens at most."""
    templates = {agent.name: load_template(agent.template, key="panel.agents", gaps=CRITIC_GAPS) for agent in agents}
    panel = PanelSettings(agents=agents)
    if crucial_tokens:
        told = CrucialSettings(template="crucial", max_tokens=crucial_tokens)
        panel = msgspec.structs.replace(panel, crucial=told)
    crucial = CRUCIAL if crucial_tokens else None
    stage = WriteCritiques(spec, panel, templates, ("\n\n",), next(_SEEDS), crucial, CORRECTING)
    return run_stage(spec, stage, paths or (second_step_wrong(),), Path)


def second_step_wrong(**changes) -> PathPair:
    """The first step is right, the second wrong, and the right branch parts there."""
    return pair(
        prefix=("Step 1: 7 + 8 = 15\n",),
        wrong=("Step 2: 15 + 5 = 19\n", "Answer: 19"),
        right=("Step 2: 15 + 5 = 20\n", "Answer: 20"),
        first_error=1,
        **changes,
    )


def by_agent(outcome: Outcome) -> dict[str, list[Request]]:
    """The requests to critics, by agent, in the order in which they were asked."""
    found: dict[str, list[Request]] = {}
    for request in outcome.asked[""]:
        if "\nCritic: " in request.prompt:
            found.setdefault(critic_of(request.prompt), []).append(request)
    return found


def waves(requests: list[Request]) -> list[tuple[int, int]]:
    return [(request.first_sample, request.num_samples) for request in requests]


# Tries.


def test_where_the_first_try_fits_one_is_paid_for(spec):
    outcome = write(spec, Agent(name="sure", tries=16, until="step_labels"))
    assert waves(by_agent(outcome)["sure"]) == [(0, 1)]
    ((critique,),) = [item.critiques for item in outcome.kept]
    assert (critique.tries, critique.first_wrong_step) == (1, 1)


def test_tries_are_asked_for_in_waves_until_the_first_that_fits(spec):
    outcome = write(spec, Agent(name="fifth", tries=16, until="step_labels"))
    requests = by_agent(outcome)["fifth"]
    fits = next(index for index in range(16) if requests[0].sample_seed(index) % 5 == 0)
    asked = [(0, 1), (1, 1), (2, 2), (4, 4), (8, 8)]
    assert waves(requests) == [wave for wave in asked if wave[0] <= fits]
    ((critique,),) = [item.critiques for item in outcome.kept]
    assert (critique.tries, critique.first_wrong_step) == (fits + 1, 1)


def test_sixteen_tries_and_no_more_and_then_no_critique(spec):
    outcome = write(spec, Agent(name="never", tries=16, until="step_labels"))
    assert waves(by_agent(outcome)["never"]) == [(0, 1), (1, 1), (2, 2), (4, 4), (8, 8)]
    ((rejection),) = outcome.rejected
    assert (rejection.reason, rejection.key) == ("no_try_fits", "pair1/never")
    assert rejection.detail == "none of 16 tries: names step 1 first, the path has step 2"
    assert [item.critiques for item in outcome.kept] == [()]


def test_tries_of_which_none_can_be_read_are_rejected_for_that(spec):
    outcome = write(spec, Agent(name="garbled", tries=3))
    assert waves(by_agent(outcome)["garbled"]) == [(0, 1), (1, 1), (2, 1)]
    assert [item.reason for item in outcome.rejected] == ["no_json"]


def test_one_try_is_asked_for_again_only_where_it_cannot_be_read(spec):
    """As ever: with the reason. That it does not say what it has to is no reason that it could be told."""
    outcome = write(spec, Agent(name="garbled"), Agent(name="never", until="fork"))
    asked = by_agent(outcome)
    assert [bool(section(request.prompt, "The last reply was not usable")) for request in asked["garbled"]] == [
        False,
        True,
    ]
    assert waves(asked["never"]) == [(0, 1)]
    assert sorted(item.reason for item in outcome.rejected) == ["no_json", "no_try_fits"]


def test_a_request_without_tries_is_the_one_that_it_always_was(spec):
    """Byte by byte: an answer that is in a journal from before is found there."""
    outcome = write(spec, Agent(name="sure"))
    ((request,),) = by_agent(outcome).values()
    expected = Request(
        prompt=request.prompt,
        sampling=Sampling(max_tokens=400, temperature=0.7, stop=("\n\n",)),
        json_schema=request.json_schema,
        seed=request.seed,
    )
    assert request == expected
    step = '{"type":"integer","minimum":1,"maximum":3}'
    assert request.json_schema.startswith('{"type":"object","properties":{"units":{"type":"array","items":')
    assert f'"properties":{{"step":{step},' in request.json_schema
    assert '"maxItems":7}' in request.json_schema
    assert "\n\nProblem:\nCalculate 7 + 8 + 5.\n\nSolution:\nStep 1: 7 + 8 = 15\n" in request.prompt


def test_a_second_look_says_whether_it_corrects_the_first(spec):
    agents = (
        Agent(name="never"),
        Agent(name="sure", role="second_look", second_look_at="never", tries=4, until="step_labels"),
        Agent(name="sure_too", role="second_look", second_look_at="sure"),
    )
    outcome = write(spec, *agents)
    ((first, second, third),) = [item.critiques for item in outcome.kept]
    assert [first.corrects, second.corrects, third.corrects] == [False, True, False]


# Traces of the reference.

CRITIC = Agent(name="leaky", view="reference")


def cleaner(name: str) -> Agent:
    return Agent(
        name=name, role="clean", template="clean", view="reference", second_look_at="leaky", tries=16, until="clean"
    )


def test_a_critique_is_rewritten_until_nothing_is_left_of_the_reference(spec):
    outcome = write(spec, CRITIC, cleaner("neat"))
    ((raw, clean),) = [item.critiques for item in outcome.kept]
    assert "20" in raw.text
    assert "20" not in clean.text
    assert (clean.tries, clean.first_wrong_step, clean.view) == (1, 1, "reference")


@pytest.mark.parametrize(
    ("name", "trouble"),
    [("leaky_again", "gives the answer away: 20"), ("other", "names step 1 first, leaky has step 2")],
)
def test_what_still_leaks_or_says_otherwise_after_sixteen_tries_is_rejected(spec, name, trouble):
    outcome = write(spec, CRITIC, cleaner(name))
    assert sum(request.num_samples for request in by_agent(outcome)[name]) == 16
    assert [(item.reason, item.detail) for item in outcome.rejected] == [
        ("no_try_fits", f"none of 16 tries: {trouble}")
    ]


# What critics are told.

INFORMED = (Agent(name="sure_blind"), Agent(name="sure_too"), Agent(name="sure_reference", view="reference"))


def test_one_text_is_written_a_path_and_the_gold_answer_is_told_to_those_alone_who_see_it(spec):
    outcome = write(spec, *INFORMED, crucial_tokens=50)
    writers = [request for request in outcome.asked[""] if request.prompt.endswith("Crucial information:\n")]
    assert [section(request.prompt, "Gold answer") for request in writers] == ["", "20"]
    assert all("Solution:" not in request.prompt for request in writers)
    told = {name: section(requests[0].prompt, "Crucial information") for name, requests in by_agent(outcome).items()}
    assert told == {
        "sure_blind": "Add from left to right.",
        "sure_too": "Add from left to right.",
        "sure_reference": "Add from left to right. The answer is 20.",
    }
    ((critiques),) = [item.critiques for item in outcome.kept]
    assert [critique.informed for critique in critiques] == [True, True, True]


def test_an_answer_that_was_worked_out_unasked_is_told_to_nobody_blind(spec):
    asked = problem("Calculate 7 + 8 + 5 aloud.")
    outcome = write(spec, *INFORMED, crucial_tokens=50, paths=(second_step_wrong(asked=asked),))
    told = {name: section(requests[0].prompt, "Crucial information") for name, requests in by_agent(outcome).items()}
    assert told["sure_blind"] == ""
    assert "20" in told["sure_reference"]
    ((critiques),) = [item.critiques for item in outcome.kept]
    assert [critique.informed for critique in critiques] == [False, False, True]


def test_where_it_is_not_written_to_its_end_its_critics_have_no_critique(spec):
    outcome = write(spec, *INFORMED[:2], crucial_tokens=3)
    assert by_agent(outcome) == {}
    assert sorted((item.key, item.reason) for item in outcome.rejected) == [
        ("pair1/sure_blind", "no_crucial_information"),
        ("pair1/sure_too", "no_crucial_information"),
    ]


# Corrections.


@pytest.mark.parametrize(
    ("name", "correction", "came_out"),
    [
        ("sure", "Step 1: 7 + 8 = 15\nStep 2: 15 + 5 = 20\nAnswer: 20", "correct"),
        ("never", "Step 1: 7 + 8 = 16\nAnswer: 16", "incorrect"),
    ],
)
def test_a_critic_solves_on_from_the_step_that_it_names(spec, name, correction, came_out):
    outcome = write(spec, Agent(name=name, view="reference", correct=True))
    ((critique,),) = [item.critiques for item in outcome.kept]
    assert (critique.correction, critique.correction_outcome) == (correction, came_out)
    request = outcome.asked[""][-1]
    assert request.prefix == ("Step 1: 7 + 8 = 15\n" if name == "sure" else "")
    assert section(request.prompt, "Critique") == critique.text
    assert "Gold answer" not in request.prompt


def test_a_correction_that_nobody_can_score_makes_no_critique(spec):
    outcome = write(spec, Agent(name="sure", correct=True, engine="silent"))
    assert [item.reason for item in outcome.rejected] == ["correction_unscored"]


def test_a_critic_that_finds_no_error_corrects_nothing(spec):
    right = alone(steps=("Step 1: 7 + 8 = 15\n", "Step 2: 15 + 5 = 20\n", "Answer: 20"))
    outcome = write(spec, Agent(name="fifth", correct=True, tries=5, until="label"), paths=(right,))
    ((critique,),) = [item.critiques for item in outcome.kept]
    assert (critique.first_wrong_step, critique.correction, critique.correction_outcome) == (None, "", None)


# Views of a part.


def test_who_sees_the_branches_alone_is_asked_about_pairs_and_sees_no_shared_step(spec):
    outcome = write(spec, Agent(name="sure", view="branches"), paths=(second_step_wrong(), alone()))
    ((request,),) = by_agent(outcome).values()
    assert section(request.prompt, "Solution") == "Step 2: 15 + 5 = 19\nAnswer: 19"
    assert section(request.prompt, "Other solution") == "Step 2: 15 + 5 = 20\nAnswer: 20"
    assert "7 + 8 = 15" not in request.prompt
    assert {item.path.id: len(item.critiques) for item in outcome.kept} == {"pair1": 1, "alone1": 0}


@pytest.mark.parametrize(("name", "is_taken"), [("sure", True), ("never", False)])
def test_only_who_points_at_the_fork_is_taken(spec, name, is_taken):
    """The second step is where the branches part; a critic who sees the whole may name the first."""
    outcome = write(spec, Agent(name=name, view="contrastive", until="fork"))
    assert [bool(item.critiques) for item in outcome.kept] == [is_taken]


def test_a_partial_solution_ends_where_it_is_asked_about(spec):
    wrong = msgspec.structs.replace(
        second_step_wrong(), wrong=branch(("Step 2: 15 + 5 = 19\n", "Step 3: so 19\n", "Answer: 19"), "19"),
        posterior=(0.0, 1.0, 0.0, 0.0),
    )  # fmt: skip
    outcome = write(spec, Agent(name="sure", role="last_step", view="partial"), paths=(wrong,))
    ((request,),) = by_agent(outcome).values()
    assert section(request.prompt, "Solution") == "Step 1: 7 + 8 = 15\nStep 2: 15 + 5 = 19"


# What the checker said.


def test_only_who_has_the_flag_is_shown_what_the_checker_said_and_the_critique_says_so(spec):
    path = second_step_wrong()
    path = msgspec.structs.replace(path, wrong=msgspec.structs.replace(path.wrong, message="line 2: type mismatch"))
    outcome = write(spec, Agent(name="sure", sees_message=True), Agent(name="never"), paths=(path, alone()))
    told = {
        name: [section(request.prompt, "Checker's message") for request in requests]
        for name, requests in by_agent(outcome).items()
    }
    assert sorted(told["sure"]) == ["", "line 2: type mismatch"]
    assert told["never"] == ["", ""]
    seen = {(said.agent, said.path_id): said.saw_message for item in outcome.kept for said in item.critiques}
    assert {key for key, saw in seen.items() if saw} == {("sure", path.id)}


def test_a_second_look_at_one_who_sees_the_message_needs_it_too():
    first = Agent(name="first", sees_message=True)
    again = Agent(name="again", role="second_look", second_look_at="first")
    with pytest.raises(ValueError, match="looks again at 'first', who sees the checker's message; give both"):
        PanelSettings(agents=(first, again))
    PanelSettings(agents=(first, msgspec.structs.replace(again, sees_message=True)))

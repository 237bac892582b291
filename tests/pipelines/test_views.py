"""Who is shown what, through the real stages: sentinels stand for the gold answer and for the right branch."""

import re
from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotators.composing import STYLES, compose_prompt
from annotators.consensus import Consensus
from annotators.critic import LOOKS_AGAIN, ROLES, Agent, critique_prompt, layout, number_steps, sections
from annotators.judging import judge_prompt
from annotators.verification import VerifySettings
from mcts.pairing import PairSettings
from mcts.settings import SearchSettings
from pipelines.aggregate_critiques import AggregateCritiques
from pipelines.config import compose
from pipelines.engines.base import Request
from pipelines.expand_trees import ExpandTrees
from pipelines.plan import Inputs, make_plan
from pipelines.settings import ActorSettings, PanelSettings
from pipelines.templates import load_template
from pipelines.verify_critiques import VerifyCritiques
from pipelines.worker import holding
from pipelines.write_critiques import WriteCritiques
from schemas import Branch, Criticised, Empanelled, Path, PathAlone, PathPair, Posed, Problem, Template
from schemas.prompt import contained
from tests.annotators.annotated import alone, error, pair
from tests.pipelines.scripted_critics import (
    GOLD,
    WRITTEN,
    Outcome,
    critic_of,
    everything,
    run_stage,
    section,
    spec_of,
)

# Crowd-kit's own use of pandas.
pytestmark = pytest.mark.filterwarnings("ignore:The (inplace|copy) keyword:DeprecationWarning")

RIGHT = "RIGHTSTEP"
"""Begins every step of a right branch and nothing else."""

SOLVE = load_template("solve", key="actor.solve_template", gaps=frozenset({"problem"}))
REFINE = load_template("refine", key="actor.refine_template", gaps=frozenset({"sections"}))
META = load_template("meta", key="panel.meta_template", gaps=frozenset({"sections"}))
CRITIQUE = load_template("critique", key="panel.agents", gaps=frozenset({"role", "critic", "sections"}))
COMPOSE = load_template("compose", key="panel.compose_template", gaps=frozenset({"style", "sections"}))


def asked_about(name: str) -> Problem:
    return Problem(id=name, source="tests", domain="math", question=f"Where does {name} lead?", answer=GOLD)


def wrong_path(name: str) -> PathPair:
    """Takes the turn `name` in its second step; its right branch is made of sentinels and ends in the gold answer."""
    made = pair(
        asked_about(f"road {name}"),
        name=name,
        prefix=("Step 1: go ahead\n",),
        wrong=(f"Step 2: turn {name}\n", "Answer: nothing"),
        right=(f"Step 2: {RIGHT} one\n", f"Step 3: {RIGHT} two\n", f"Answer: {RIGHT} {WRITTEN}"),
        first_error=1,
    )
    branches: dict[str, Branch] = {"wrong": msgspec.structs.replace(made.wrong, answer="nothing")}
    return msgspec.structs.replace(made, **branches)


def right_path(name: str) -> PathAlone:
    return alone(asked_about(f"street {name}"), name=name, steps=("Step 1: go ahead\n", "Answer: there"))


PATHS: list[Path] = [wrong_path("east"), wrong_path("west"), right_path("south")]

VIEWS = ("blind", "contrastive", "reference")
"""Those that show the whole solution; for the others see `test_write_critiques`."""

FIRST = tuple(
    Agent(name=f"{role}_{view}", role=role, view=view) for role in ROLES if role not in LOOKS_AGAIN for view in VIEWS
)
SECOND = tuple(
    Agent(name=f"second_{view}_at_{seen}", role="second_look", view=view, second_look_at=f"stepwise_{seen}")
    for i, view in enumerate(VIEWS)
    for seen in VIEWS[: i + 1]
)
REST = (
    Agent(name="third_look", role="second_look", second_look_at="second_blind_at_blind"),
    *(Agent(name=f"hasty_{view}", view=view) for view in VIEWS),
    *(Agent(name=f"walking_{view}", view=view, form="walk") for view in VIEWS),
)
EVERYBODY = (*FIRST, *SECOND, *REST)
"""Every role with every view, second looks at every view that is no wider, one at a second look, some asked twice, some
held to a form that holds the solution's own words."""


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    with spec_of(tmp_path_factory.mktemp("turns"), actor="turns") as spec, holding(spec):
        yield spec


def write(spec, agents: tuple[Agent, ...], paths: list[Path]) -> Outcome:
    # The seed is another one for every panel, so that none finds its samples in the journal of another.
    templates = {agent.name: CRITIQUE for agent in agents}
    stage = WriteCritiques(spec, PanelSettings(agents=agents), templates, ("\n\n",), len(agents))
    return run_stage(spec, stage, paths, Path)


def weigh(spec, agents: tuple[Agent, ...], criticised: list[Criticised]) -> Outcome:
    stage = AggregateCritiques(spec, PanelSettings(agents=agents), META, COMPOSE, ("\n\n",), len(agents), 1)
    return run_stage(spec, stage, criticised, Criticised)


def verify(spec, agents: tuple[Agent, ...], empanelled: list[Empanelled], **chosen) -> Outcome:
    stage = VerifyCritiques(spec, ActorSettings(), VerifySettings(**chosen), REFINE, len(agents))
    return run_stage(spec, stage, empanelled, Empanelled)


def of_agents(requests: list[Request], view: str) -> dict[str, list[Request]]:
    """The requests to agents with a view, by agent."""
    found: dict[str, list[Request]] = {agent.name: [] for agent in EVERYBODY if agent.view == view}
    for request in requests:
        if critic_of(request.prompt) in found:
            found[critic_of(request.prompt)].append(request)
    return found


def holders(requests: list[Request], *secrets: str) -> list[str]:
    """Ends of the prompts that hold a secret anywhere in the request."""
    return [request.prompt[-60:] for request in requests if any(secret in everything(request) for secret in secrets)]


@pytest.fixture(scope="module")
def written(spec) -> Outcome:
    return write(spec, EVERYBODY, PATHS)


def test_every_agent_was_asked_about_every_path_that_it_can_speak_of(written):
    """Without this the tests below would show nothing."""
    on_alone = sum(agent.view != "contrastive" for agent in EVERYBODY)
    by_path = {item.path.id: len(item.critiques) for item in written.kept}
    assert by_path == {"east": len(EVERYBODY), "west": len(EVERYBODY), "south": on_alone - 1}
    # A reference critic may look again at a contrastive one, which has nothing to say of a lone path.
    assert [(item.key, item.reason) for item in written.rejected] == [
        ("south/second_reference_at_contrastive", "no_first_critique")
    ]
    assert written.failed == []
    # The hasty ones were asked twice: on a lone path only two of them speak.
    assert len(written.asked[""]) == 2 * (len(EVERYBODY) + 3) + (on_alone - 1 + 2)


def test_a_blind_critic_sees_nothing_of_the_gold_answer_or_the_right_branch(written):
    for agent, requests in of_agents(written.asked[""], "blind").items():
        assert len(requests) == (6 if agent == "hasty_blind" else 3), agent
        assert holders(requests, GOLD, WRITTEN, RIGHT, "Gold answer", "Other solution") == [], agent


def test_a_blind_second_look_sees_the_blind_critique_and_no_more(written):
    for agent in ("second_blind_at_blind", "third_look"):
        requests = of_agents(written.asked[""], "blind")[agent]
        for request in requests:
            first = section(request.prompt, "First critique")
            assert first.splitlines()[-1].endswith(("is incorrect.", "is correct.")), agent
        assert holders(requests, GOLD, WRITTEN, RIGHT) == [], agent


def test_a_contrastive_critic_sees_the_right_branch_and_no_gold_answer(written):
    for agent, requests in of_agents(written.asked[""], "contrastive").items():
        assert len(requests) == (4 if agent == "hasty_contrastive" else 2), agent
        assert holders(requests, GOLD, "Gold answer") == [], agent
        for request in requests:
            others = section(request.prompt, "Other solution").splitlines()
            assert others == [
                "Step 1: go ahead",
                f"Step 2: {RIGHT} one",
                f"Step 3: {RIGHT} two",
                f"Answer: {RIGHT} {WRITTEN}",
            ], agent


def test_a_reference_critic_sees_the_gold_answer_and_the_right_branch_where_there_is_one(written):
    for agent, requests in of_agents(written.asked[""], "reference").items():
        assert {section(request.prompt, "Gold answer") for request in requests} <= {GOLD}, agent
        if agent != "second_reference_at_contrastive":
            assert len(requests) == (6 if agent == "hasty_reference" else 3), agent
        lone = [request for request in requests if "street south" in request.prompt]
        assert holders(lone, RIGHT, "Other solution") == [], agent
        with_pair = [request for request in requests if "road " in request.prompt]
        assert len(holders(with_pair, f"{RIGHT} two")) == len(with_pair) > 0, agent


def test_what_an_agent_was_shown_is_written_on_its_critique(written):
    views = {agent.name: agent.view for agent in EVERYBODY}
    for item in written.kept:
        assert {critique.agent: critique.view for critique in item.critiques}.items() <= views.items()


# Behind the critics.

BLIND = tuple(agent for agent in EVERYBODY if agent.view == "blind")


@pytest.fixture(scope="module")
def blind_run(spec) -> dict[str, Outcome]:
    """A panel that was shown nothing, to the end."""
    written = write(spec, BLIND, PATHS)
    weighed = weigh(spec, BLIND, written.kept)
    return {"write": written, "weigh": weighed, "verify": verify(spec, BLIND, weighed.kept)}


def prompts_for(requests: list[Request], heading: str) -> list[Request]:
    return [request for request in requests if request.prompt.rstrip().endswith(f"\n{heading}:")]


@pytest.mark.parametrize(
    ("stage", "heading", "least"),
    [("weigh", "Judgement", 5), ("weigh", "Composed critique", 3), ("verify", "Second solution", 9)],
)
def test_behind_a_blind_panel_nobody_is_shown_the_gold_answer_or_the_right_branch(blind_run, stage, heading, least):
    requests = prompts_for(blind_run[stage].asked[""], heading)
    assert len(requests) >= least
    assert holders(requests, GOLD, WRITTEN, RIGHT, "Gold answer", "Other solution") == []


def test_the_blind_panels_critiques_were_kept(blind_run):
    """Without this, second solutions with a critique would not have been looked at above."""
    kept = {
        examined.path.id: [item.critique.agent for item in examined.verified if item.decision == "kept"]
        for examined in blind_run["verify"].kept
    }
    assert kept.keys() == {"east", "west", "south"}
    assert all(agents[:1] == ["panel"] for agents in kept.values())
    assert all(item.panel.composed.parse_state == "composed" for item in blind_run["weigh"].kept)
    assert all(item.panel.composed.view == "blind" for item in blind_run["weigh"].kept)


MIXED = (
    Agent(name="chatty_contrastive", role="contrastive", view="contrastive"),
    Agent(name="chatty_reference", view="reference"),
    Agent(name="calm", view="blind"),
)


def test_what_a_critic_gives_away_reaches_neither_composer_nor_actor(spec):
    """Two of three say what the right branch comes to; whoever is measured for a pair must not be one of them."""
    written = write(spec, MIXED, PATHS[:2])
    assert sum(WRITTEN in critique.text for item in written.kept for critique in item.critiques) == 4
    weighed = weigh(spec, MIXED, written.kept)
    composing = prompts_for(weighed.asked[""], "Composed critique")
    assert len(composing) == 2
    assert holders(composing, GOLD, WRITTEN, RIGHT) == []
    verified = verify(spec, MIXED, weighed.kept, measure_rejected=5, max_measured=5)
    # The panel's critique, a placebo and none, for two paths.
    assert len(verified.asked[""]) >= 6
    assert holders(verified.asked[""], GOLD, WRITTEN, RIGHT) == []
    # Both of them say it in the same words, which are one candidate; so are the calm one's and the panel's.
    for examined in verified.kept:
        reasons = {item.critique.agent: item.reasons for item in examined.verified}
        assert reasons == {"panel": (), "chatty_contrastive": ("leaks_answer",)}


def test_rollouts_see_the_problem_and_what_the_actor_wrote_alone(spec):
    search = SearchSettings()
    stage = ExpandTrees(spec, ActorSettings(), search, PairSettings(), SOLVE, 0)
    outcome = run_stage(spec, stage, [Posed(problem=asked_about("the road"))], Posed)
    (tree,) = outcome.kept
    assert {node.outcome for node in tree.nodes if node.kind == "terminal"} == {"correct", "incorrect"}
    requests = outcome.asked[""]
    assert {request.prompt for request in requests} == {SOLVE.text.replace("{problem}", "Where does the road lead?")}
    assert any(request.prefix for request in requests)
    assert holders(requests, GOLD) == []


# Panels that cannot be.


@pytest.mark.parametrize(
    ("view", "seen"), [("blind", "contrastive"), ("blind", "reference"), ("contrastive", "reference")]
)
def test_a_second_look_at_one_who_sees_more_is_refused(view, seen):
    message = f"agent 'again' with view {view} looks again at 'first', who sees more ({seen}); give both the same view"
    first = Agent(name="first", view=seen)
    again = Agent(name="again", role="second_look", view=view, second_look_at="first")
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        PanelSettings(agents=(first, again))
    agents = f"[{{name:first,view:{seen}}},{{name:again,role:second_look,view:{view},second_look_at:first}}]"
    with pytest.raises(ValueError, match=f"^{re.escape('panel: ' + message)}$"):
        compose(["problems=simulated", f"panel.agents={agents}"])


@pytest.mark.parametrize("gap", ["answer", "gold", "gold_answer", "right_steps", "other_solution", "problem", "path"])
def test_a_critics_template_cannot_ask_for_more(tmp_path, gap):
    template = tmp_path / "mine.txt"
    template.write_text(f"{{sections}}\n{{{gap}}}\nCritique:")
    chosen = compose(["problems=simulated", f"panel.agents=[{{name:anna,view:reference,template:{template}}}]"])
    with pytest.raises(ValueError, match=r".") as caught:
        make_plan(chosen, Inputs(problems=(), unread=()))
    assert str(caught.value) == (
        f"panel.agents[anna].template: template {str(template)!r} has the gaps ['{gap}'], which nothing fills here; "
        "there are ['critic', 'role', 'sections']"
    )


# Texts that look like prompts.

HIDDEN = "\N{LOCK}"
"""A sign that no other text below has."""

PIECES = st.sampled_from(
    [
        *(
            "{sections}",
            "{role}",
            "{critic}",
            "{problem}",
            "{style}",
            "{answer}",
            "{0}",
            "{}",
            "{{sections}}",
            "{",
            "}",
        ),
        *(
            "\n\n",
            "Gold answer:\n",
            "Other solution:\n",
            "Problem:\n",
            "Critique:",
            "Ignore all that.",
            "$0",
            "\\1",
            "%s",
        ),
        *("\\g<0>", "Step 1:", " ", "x"),
    ]
)
TEXTS = st.lists(PIECES | st.text(st.characters(codec="utf-8", exclude_characters=HIDDEN), max_size=8), max_size=6).map(
    "".join
)


@st.composite
def paths(draw) -> PathPair:
    question = draw(TEXTS)
    asked = Problem(id="q", source="s", domain="math", question=question, answer=f"{HIDDEN}gold")
    wrong = tuple(draw(st.lists(TEXTS, min_size=1, max_size=3)))
    return pair(asked, wrong=wrong, right=(f"{HIDDEN}one\n", f"{HIDDEN}two"))


def filled(template: Template, values: Mapping[str, str]) -> str:
    """A template filled gap by gap, from its text cut at the gaps: a value is never looked into."""
    parts = re.split(r"\{(\w+)\}", template.text)
    return "".join(values[part] if i % 2 else part for i, part in enumerate(parts))


@settings(max_examples=150, deadline=None)
@given(paths(), st.sampled_from(sorted(ROLES)), st.sampled_from(["anna", "{sections}", "{role}"]))
def test_no_text_of_a_problem_or_a_step_gets_anything_out_of_a_critics_prompt(path, role, name):
    agent = Agent(name=name, role=role, second_look_at="first" if role in LOOKS_AGAIN else "")
    prompt = critique_prompt(CRITIQUE, agent, sections(path, "blind"))
    assert HIDDEN not in prompt
    shown = layout({"Problem": path.problem.question, "Solution": number_steps(path.steps)})
    assert prompt == filled(CRITIQUE, {"role": ROLES[role], "critic": name, "sections": shown})


@settings(max_examples=100, deadline=None)
@given(paths(), TEXTS, TEXTS, st.sampled_from(sorted(STYLES)))
def test_nor_out_of_the_prompts_behind_the_critics(path, mine, theirs, style):
    unit, other = error(0, mine), error(0, theirs)
    judged = judge_prompt(META, path, "anna", unit, [("anna", unit), ("bert", other)])
    consensus = Consensus(verdict="incorrect", first_wrong_step=0, confidence=0.9, votes=())
    composed = compose_prompt(COMPOSE, path, [unit], consensus, style)
    for prompt, template in ((judged, META), (composed, COMPOSE)):
        assert HIDDEN not in prompt
        before, after = re.split(r"\{sections\}", template.text)
        assert prompt.startswith(before.replace("{style}", STYLES[style]))
        assert prompt.endswith(after)
    solving = SOLVE.fill({"problem": path.problem.question})
    assert solving == filled(SOLVE, {"problem": contained(path.problem.question)})

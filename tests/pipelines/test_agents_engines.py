"""Critics with models of their own: who is asked what, who signs, and what settings say of it."""

import re

import msgspec
import pytest

from annotators.critic import Agent
from pipelines.aggregate_critiques import AggregateCritiques
from pipelines.config import compose
from pipelines.engines import connect, serve
from pipelines.engines.base import Request, Sampling
from pipelines.engines.settings import Limits, Server, Vllm
from pipelines.run import Watcher, run
from pipelines.settings import PanelSettings
from pipelines.shards import read_rows
from pipelines.templates import load_template
from pipelines.worker import holding
from pipelines.write_critiques import WriteCritiques
from schemas import Criticised, Path
from tests.annotators.annotated import pair
from tests.pipelines.scripted_critics import critic_of, run_stage, spec_of

# Crowd-kit's own use of pandas.
pytestmark = pytest.mark.filterwarnings("ignore:The (inplace|copy) keyword:DeprecationWarning")

RULES = "tests.pipelines.scripted_critics"
SECTIONS = frozenset({"sections"})
CRITIQUE = load_template("critique", key="panel.agents", gaps=SECTIONS | {"role", "critic"})
META = load_template("meta", key="panel.meta_template", gaps=SECTIONS)
COMPOSE = load_template("compose", key="panel.compose_template", gaps=SECTIONS | {"style"})

AGENTS = (
    Agent(name="anna"),
    Agent(name="bert", engine="other"),
    Agent(name="again", role="second_look", second_look_at="bert"),
    Agent(name="hasty", engine="third"),
)


def wrong_path():
    return pair(wrong=("Step 1: go\n", "Step 2: turn left\n", "Answer: 19"), first_error=1)


@pytest.fixture
def spec(tmp_path):
    with spec_of(tmp_path, actor="turns", other="other", third="turns") as spec:
        yield spec


def test_each_engine_is_asked_by_its_agents_alone_and_signs_their_critiques(spec):
    stage = WriteCritiques(spec, PanelSettings(agents=AGENTS), {agent.name: CRITIQUE for agent in AGENTS}, ("\n\n",), 0)
    outcome = run_stage(spec, stage, [wrong_path()], Path)
    asked = {name: [critic_of(request.prompt) for request in requests] for name, requests in outcome.asked.items()}
    # The hasty one is asked again with the reason, by its own engine.
    assert asked == {"": ["anna", "again"], "other": ["bert"], "third": ["hasty", "hasty"]}
    critiques = {critique.agent: critique for critique in outcome.kept[0].critiques}
    assert {name: critique.provenance.model for name, critique in critiques.items()} == {
        "anna": f"{RULES}:turns",
        "bert": f"{RULES}:other",
        "again": f"{RULES}:turns",
        "hasty": f"{RULES}:turns",
    }
    # The other model likes everything, and the second look at its critique is shown that.
    assert (critiques["anna"].first_wrong_step, critiques["bert"].first_wrong_step) == (1, None)
    assert "The other model likes it." in outcome.asked[""][1].prompt


@pytest.mark.parametrize(("meta", "composer"), [("", ""), ("third", ""), ("", "third"), ("other", "third")])
def test_judging_and_composing_have_engines_of_their_own(spec, meta, composer):
    agents = AGENTS[:1]
    panel = PanelSettings(agents=agents, meta_engine=meta, compose_engine=composer)
    writing = WriteCritiques(spec, panel, {"anna": CRITIQUE}, ("\n\n",), 0)
    written = run_stage(spec, writing, [wrong_path()], Path).kept
    outcome = run_stage(spec, AggregateCritiques(spec, panel, META, COMPOSE, ("\n\n",), 0, 1), written, Criticised)
    endings = {
        name: {request.prompt.rstrip().rpartition("\n")[2] for request in requests}
        for name, requests in outcome.asked.items()
    }
    expected: dict[str, set[str]] = {"": set(), "other": set(), "third": set()}
    expected[meta].add("Judgement:")
    if meta != "other":  # It drops every remark, so that nothing is left to compose.
        expected[composer].add("Composed critique:")
        assert outcome.kept[0].panel.composed.parse_state == "composed"
    assert endings == expected


def test_models_do_not_share_samples_but_two_names_of_one_model_do(spec):
    request = Request(
        prompt="Remark:\nx\n\nJudgement:", sampling=Sampling(max_tokens=9, temperature=1.0), num_samples=2
    )

    async def ask(worker):
        return [await worker.model_of(name).sample("WriteCritiques", request) for name in ("", "other", "third")]

    with holding(spec) as worker:
        for _ in range(2):
            mine, others, same = worker.submit(ask(worker)).result()
            assert "keep" in mine[0].text
            assert "drop" in others[0].text
            assert same == mine
        histories = {name: len(worker.model_of(name).engine.history) for name in ("", "other", "third")}
        assert histories == {"": 1, "other": 1, "third": 0}
        assert worker.journal.size() == 4


def test_a_journal_key_names_the_model_its_revision_and_how_it_is_asked_but_not_where_it_is():
    def keys(**fields) -> set[str]:
        with serve(Server(**{"url": "http://h:1", "model": "m"} | fields)) as endpoint:
            return set(
                Request(prompt="p", sampling=Sampling(max_tokens=1, temperature=0.0)).keys(connect(endpoint).identity)
            )

    assert keys() == keys(url="http://h:2") == keys(api_key_env="OTHER")
    assert keys().isdisjoint(keys(model="n") | keys(revision="r"))


BASE = ["engine=scripted", "problems=sums", "actor=plain", "search=quick", "pairing=default", "verify=quick"]
BLIND = "panel.agents=[{name:anna},{name:bert,engine:other}]"


def test_a_whole_run_asks_a_critics_own_engine(tmp_path):
    engine = ["+engines.other.kind=scripted", f"+engines.other.rule={RULES}:other"]
    settings = compose([*BASE, *engine, "panel=blind", BLIND, f"out={tmp_path}", "problems.num_problems=4"])
    result = run(settings, Watcher())
    assert all(stage.balanced for stage in result.books.stages)
    models = {(row["agent"], row["provenance"]["model"]) for row in read_rows(tmp_path, "critiques")}
    assert models == {("anna", "pipelines.engines.scripted:arithmetic"), ("bert", f"{RULES}:other")}
    said = {row["units"][0]["flaw"] for row in read_rows(tmp_path, "critiques") if row["agent"] == "bert"}
    assert said == {"The other model likes it."}


NAMED = ["engine=scripted", "problems=simulated", "panel=blind"]
OTHER = ["+engines.other.kind=openai", "+engines.other.url=http://h:1", "+engines.other.model=m"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            [BLIND],
            "panel.agents[bert].engine is 'other', expected one of the engines (none) or nothing for the actor's",
        ),
        (
            [*OTHER, "panel.agents=[{name:anna,engine:elsewhere}]"],
            "panel.agents[anna].engine is 'elsewhere', expected one of the engines (other) or nothing for the actor's",
        ),
        (
            [*OTHER, "panel.meta_engine=elsewhere"],
            "panel.meta_engine is 'elsewhere', expected one of the engines (other) or nothing for the actor's",
        ),
        (
            [*OTHER, "panel.compose_engine=elsewhere"],
            "panel.compose_engine is 'elsewhere', expected one of the engines (other) or nothing for the actor's",
        ),
    ],
)
def test_an_engine_that_nobody_named_is_refused(overrides, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        compose([*NAMED, *overrides])


def test_an_engine_without_a_name_is_refused():
    settings = compose([*NAMED, *OTHER])
    with pytest.raises(ValueError, match=r"^engines need names; the one without is `engine`$"):
        msgspec.structs.replace(settings, engines={"": settings.engines["other"]})


def test_an_engine_that_was_named_is_taken():
    settings = compose([*NAMED, *OTHER, BLIND, "panel.meta_engine=other", "panel.compose_engine=other"])
    assert settings.engines == {"other": Server(url="http://h:1", model="m")}
    assert [agent.engine for agent in settings.panel.agents] == ["", "other"]


def test_a_further_engines_model_is_in_the_digest_and_its_place_and_limits_are_not():
    settings = compose([*NAMED, *OTHER, BLIND])

    def digest(kind: type[Server] = Server, **fields) -> str:
        engine = kind(**{"url": "http://h:1", "model": "m"} | fields)
        return msgspec.structs.replace(settings, engines={"other": engine}).config_digest()

    assert digest() == settings.config_digest()
    for same in (
        {"url": "http://h:2"},
        {"url": "http://h:1,http://h:2"},
        {"api_key_env": "OTHER"},
        {"limits": Limits(max_in_flight=3, max_attempts=2)},
    ):
        assert digest(**same) == digest(), same
    for other in ({"model": "n"}, {"revision": "r"}, {"kind": Vllm}, {"kind": Vllm, "style": "raw"}):
        assert digest(**other) != digest(), other


def test_who_asks_which_engine_is_in_the_digest():
    settings = compose([*NAMED, *OTHER])
    digests = {settings.config_digest()}
    anna = settings.panel.agents[0]
    for changed in ({"meta_engine": "other"}, {"compose_engine": "other"}, {"agents": (anna,)}):
        panel = msgspec.structs.replace(settings.panel, **changed)
        digests.add(msgspec.structs.replace(settings, panel=panel).config_digest())
    theirs = msgspec.structs.replace(settings.panel, agents=(msgspec.structs.replace(anna, engine="other"),))
    digests.add(msgspec.structs.replace(settings, panel=theirs).config_digest())
    assert len(digests) == 5

import pytest
import yaml

from pipelines.config import as_yaml, compose, compose_plain, options
from pipelines.engines.settings import LlamaCpp, Scripted, Sglang, Simulated, Vllm
from pipelines.problems import FileProblems, GymProblems, HubProblems, SimulatedProblems
from pipelines.settings import parse_settings

GROUPS = ("problems", "engine", "actor", "paths", "search", "pairing", "panel", "verify", "export", "runner")
NEEDED = {
    "problems/file": ["problems.path=x.jsonl"],
    "problems/gsm8k_file": ["problems.path=x.jsonl"],
    "problems/math_file": ["problems.path=x.jsonl"],
    "problems/hub": ["problems.dataset=owner/name"],
    "problems/given": ["paths=given", "paths.path=x.jsonl"],
    "paths/given": ["paths.path=x.jsonl"],
    "engine/openai": ["engine.url=http://h", "engine.model=m"],
    "engine/vllm": ["engine.url=http://h", "engine.model=m"],
    "engine/sglang": ["engine.url=http://h", "engine.model=m"],
    "runner/dataflow": [
        *("runner.project=p", "runner.region=r", "runner.temp_location=gs://bucket/temp"),
        *("out=gs://bucket/out", "journal=redis://redis.example:6379/0"),
    ],
}
VLLM = "engine=vllm engine.url=http://h engine.model=m"
EVERY_KEY = "(see `wrongturn run --config` for every key there is)"


def test_the_default_run_takes_problems_of_reasoning_gym_to_the_embedded_model():
    settings = compose([])
    assert isinstance(settings.problems, GymProblems)
    assert settings.problems.num_problems >= 16
    assert settings.engine == LlamaCpp()
    assert (settings.out, settings.journal, settings.seed, settings.replace) == ("out", "", 0, False)


@pytest.mark.parametrize(("group", "option"), [(group, option) for group in GROUPS for option in options(group)])
def test_every_option_that_ships_composes(group, option):
    plain = compose_plain([f"{group}={option}", *NEEDED.get(f"{group}/{option}", [])])
    assert parse_settings(yaml.safe_load(as_yaml(plain))) == parse_settings(plain)


def test_every_group_of_the_design_has_an_option():
    assert all(options(group) for group in GROUPS)
    assert options("engine") == ("llama_cpp", "openai", "scripted", "sglang", "simulated", "vllm")


@pytest.mark.parametrize(
    ("overrides", "kind"),
    [
        ("engine=scripted", Scripted),
        ("engine=simulated", Simulated),
        (VLLM, Vllm),
        ("engine=sglang engine.url=http://h engine.model=m", Sglang),
    ],
)
def test_an_option_decides_which_engine_it_is(overrides, kind):
    assert type(compose(overrides.split()).engine) is kind


@pytest.mark.parametrize(
    ("overrides", "kind"),
    [
        ("problems=file problems.path=x.jsonl", FileProblems),
        ("problems=hub problems.dataset=a/b", HubProblems),
        ("problems=simulated", SimulatedProblems),
        ("problems=reasoning_gym", GymProblems),
    ],
)
def test_an_option_decides_where_problems_come_from(overrides, kind):
    assert type(compose(overrides.split()).problems) is kind


def test_overrides_reach_nested_records():
    settings = compose(["seed=7", "engine.limits.max_in_flight=3", "actor.stop=[END]", "+problems.dataset_config.x=1"])
    assert settings.seed == 7
    assert settings.engine.limits.max_in_flight == 3
    assert settings.actor.stop == ("END",)
    assert isinstance(settings.problems, GymProblems)
    assert settings.problems.dataset_config["x"] == 1


def test_two_composings_do_not_see_each_other():
    compose(["seed=7", "engine=scripted"])
    assert compose([]).seed == 0


BAD = [
    # An unknown key, at the top, in a group, and added by force.
    ("foo=1", f"Could not override 'foo'. Key 'foo' is not in struct {EVERY_KEY}"),
    ("search.foo=1", f"Could not override 'search.foo'. Key 'foo' is not in struct {EVERY_KEY}"),
    ("+search.foo=1", "search: Object contains unknown field `foo`"),
    ("engine.limits.foo=1", f"Could not override 'engine.limits.foo'. Key 'foo' is not in struct {EVERY_KEY}"),
    # A wrong type.
    ("seed=abc", "seed: Expected `int`, got `str`"),
    ("seed=1.5", "seed: Expected `int`, got `float`"),
    ("seed=null", "seed: Expected `int`, got `null`"),
    ("seed=", "seed: Expected `int`, got `str`"),
    ("replace=maybe", "replace: Expected `bool`, got `str`"),
    ("replace=1", "replace: Expected `bool`, got `int`"),
    ("out=null", "out: Expected `str`, got `null`"),
    (
        "hygiene.test_sets=h/t.jsonl",
        "hygiene.test_sets: expected a list, got `str`; write hygiene.test_sets=[h/t.jsonl]",
    ),
    (
        "export.prefer.rejected_agents=a",
        "export.prefer.rejected_agents: expected a list, got `str`; write export.prefer.rejected_agents=[a]",
    ),
    ("loop=teacher loop.rows=refine", "loop.rows: expected a list, got `str`; write loop.rows=[refine]"),
    ("card.tags=3", "card.tags: expected a list, got `int`; write card.tags=[3]"),
    ("verify.tests=null", "verify.tests: expected a list, got `null`; write verify.tests=[]"),
    ("engine.slots=many", "engine.slots: Expected `int`, got `str`"),
    ("verify.help.rollouts=x", "verify.help.rollouts: Expected `int`, got `str`"),
    ("actor.temperature=hot", "actor.temperature: Expected `float`, got `str`"),
    ("actor.stop=END", "actor.stop: expected a list, got `str`; write actor.stop=[END]"),
    # An unknown option of a group.
    (
        "problems=nope",
        "In 'config': Could not find 'problems/nope' Available options in 'problems': file given gsm8k_file hub "
        "math_file reasoning_gym screens shapes simulated sums",
    ),
    (
        "engine=gpt",
        "In 'config': Could not find 'engine/gpt' Available options in 'engine': llama_cpp openai scripted sglang "
        "simulated vllm",
    ),
    # A value that must be given.
    ("engine=vllm engine.url=http://h", "engine.model is not set; give it as engine.model=VALUE"),
    ("engine=openai engine.model=m", "engine.url is not set; give it as engine.url=VALUE"),
    ("problems=file", "problems.path is not set; give it as problems.path=VALUE"),
    ("problems=hub", "problems.dataset is not set; give it as problems.dataset=VALUE"),
    # Not one of a closed list.
    ("search.rule=best", "search.rule: Invalid enum value 'best', expected one of greedy_value, omega, puct, uct"),
    (f"{VLLM} engine.style=talk", "engine.style: Invalid enum value 'talk', expected one of chat, raw, templated"),
    ("runner.kind=spark", "runner.kind: Invalid value 'spark', expected one of dataflow, direct, flink, prism"),
    (
        "panel.agents=[{name:a},{name:b,view:all}]",
        "panel.agents[1].view: Invalid enum value 'all', expected one of blind, branches, contrastive, "
        "partial, reference",
    ),
    (
        "problems=file problems.path=x problems.domain=law",
        "problems.domain: Invalid enum value 'law', expected one of choice, code, command, exact, math",
    ),
    # Out of range.
    ("out=", "out is empty; name the folder that the data is written to"),
    ("seed=-1", "seed must lie in 0..2^63-1, got -1"),
    ("seed=9223372036854775808", "seed must lie in 0..2^63-1, got 9223372036854775808"),
    ("max_failure_share=2", "max_failure_share must lie in 0..1, got 2.0"),
    ("runner.max_in_flight=0", "runner: max_in_flight must be above 0, got 0"),
    ("runner.problems_per_shard=0", "runner: problems_per_shard must be above 0, got 0"),
    ("engine.limits.max_attempts=0", "engine.limits: max_attempts must be above 0, got 0"),
    ("engine.limits.read_timeout_secs=0", "engine.limits: read_timeout_secs must be above 0, got 0.0"),
    ("actor.max_tokens=0", "actor: max_tokens must be at least 1, got 0"),
    ("actor.temperature=-1", "actor: temperature must not be below 0, got -1.0"),
    ("actor.top_p=0", "actor: top_p must lie above 0 and not above 1, got 0.0"),
    ("search.root_rollouts=0", "search: root_rollouts must be at least 1, got 0"),
    ("search.level=1.5", "search: level must lie between 0 and 1, got 1.5"),
    ("pairing.alpha=1", "pairing: alpha must lie between 0 and 1, got 1.0"),
    ("verify.help.rollouts=0", "verify.help: need 1 <= rollouts <= max_rollouts, got rollouts=0, max_rollouts=5"),
    ("export.max_length_ratio=0.5", "export: max_length_ratio must be at least 1, got 0.5"),
    (
        "engine=vllm engine.url=h:80 engine.model=m",
        "engine: url must start with http:// or https://, got 'h:80'",
    ),
    (
        'engine=vllm engine.url="http://a,b" engine.model=m',
        "engine: url must start with http:// or https://, got 'b'",
    ),
    # Combinations that cannot be.
    (
        "engine=openai engine.url=http://h engine.model=m engine.style=raw",
        "engine: style=raw cannot hold critics to JSON at a server of unknown kind; set engine.style=chat, or say "
        "which kind it is with engine=vllm or engine=sglang",
    ),
    ("search=default search.max_rollouts=4", "search: max_rollouts=4 does not even pay for root_rollouts=8"),
    (
        "search=default search.hopeless_below=0.95",
        "search: need 0 <= hopeless_below < easy_above <= 1, got 0.95 and 0.75",
    ),
    ("panel.agents=[]", "panel: agents is empty; name at least one critic"),
    ("panel.agents=[{name:a},{name:a}]", "panel: agents need distinct names other than 'panel', got ['a', 'a']"),
    ("panel.agents=[{name:panel}]", "panel: agents need distinct names other than 'panel', got ['panel']"),
    ("panel.quorum=9 panel.agents=[{name:a}]", "panel: quorum must lie in 1..1 (the number of agents), got 9"),
    (
        "panel.agents=[{name:a,role:second_look,second_look_at:b},{name:b}]",
        "panel: agent 'a' looks again at 'b', which must stand before it",
    ),
    (
        "panel.agents=[{name:a,role:judge}]",
        "panel.agents[0]: agent 'a': unknown role 'judge', expected one of stepwise, second_look, contrastive, "
        "skeptic, defender, deceptive, hypercritical, baseless, adversary, clean, last_step",
    ),
    # No override at all.
    ("seed", "Error parsing override 'seed' missing EQUAL at '<EOF>'"),
]


@pytest.mark.parametrize(("overrides", "message"), BAD, ids=[overrides for overrides, _ in BAD])
def test_a_bad_setting_is_one_line_that_names_the_key_and_what_would_be_right(overrides, message):
    with pytest.raises(ValueError, match=r".") as caught:
        compose(overrides.split())
    assert str(caught.value) == message


def test_a_missing_environment_variable_is_named():
    with pytest.raises(ValueError, match="Environment variable 'NOT_SET_ANYWHERE' not found") as caught:
        compose(["out=${oc.env:NOT_SET_ANYWHERE}"])
    assert "\n" not in str(caught.value)


def test_the_settings_printed_are_the_settings_used():
    overrides = ["seed=3", "engine=simulated", "panel=blind"]
    printed = as_yaml(compose_plain(overrides))
    assert parse_settings(yaml.safe_load(printed)) == compose(overrides)

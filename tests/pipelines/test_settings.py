import functools

import pytest

from pipelines.config import compose
from pipelines.engines.settings import Limits, Server

FILE = ["problems=file", "problems.path=x.jsonl"]
VLLM = ["engine=vllm", "engine.url=http://a", "engine.model=m"]


@functools.cache
def digest(*overrides: str) -> str:
    return compose(overrides).config_digest()


def test_the_digest_is_the_same_each_time():
    assert digest() == digest()
    assert len(digest()) == 32


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "problems.num_problems=17",
        "problems.seed=9",
        "+problems.dataset_config.x=1",
        "actor.temperature=0.123",
        "actor.max_tokens=65",
        "actor.stop=[x]",
        "actor.solve_template=solve",
        "search.max_searches=5",
        "search.parallel_searches=1",
        "pairing.alpha=0.01",
        "panel.quorum=2",
        "panel.meta_template=other",
        "panel.reask=false",
        "panel.agents=[{name:a}]",
        "verify.help.alpha=0.01",
        "export.validation_share=0.2",
        "runner.problems_per_shard=7",
        "runner.checker_cpu_secs=1",
        "engine=scripted",
        "engine.model_path=other.gguf",
        "engine.context_tokens=2048",
    ],
)
def test_what_shapes_the_data_changes_the_digest(override):
    assert digest(override) != digest()


@pytest.mark.parametrize(
    "override",
    [
        "out=elsewhere",
        "journal=shared.sqlite",
        "replace=true",
        "max_failure_share=0.5",
        "runner.max_in_flight=3",
        "runner.checker_processes=2",
        "engine.limits.max_in_flight=3",
        "engine.limits.max_attempts=2",
        "engine.num_threads=1",
        "engine.slots=2",
    ],
)
def test_where_it_goes_and_how_fast_does_not_change_the_digest(override):
    assert digest(override) == digest()


def test_where_a_server_is_does_not_change_the_digest_but_what_it_serves_does():
    same = [*VLLM, "engine.url=http://b", "engine.api_key_env=OTHER"]
    assert digest(*VLLM) == digest(*same)
    for other in ("engine.model=n", "engine.revision=r2", "engine.style=chat"):
        assert digest(*VLLM) != digest(*VLLM, other)
    assert digest(*VLLM) != digest("engine=sglang", "engine.url=http://a", "engine.model=m")


def test_the_simulated_world_is_in_the_digest():
    assert digest("engine=simulated") != digest("engine=simulated", "engine.world.error_high=0.5")


def test_several_urls_are_separated_by_commas():
    server = Server(url="http://a:1/, https://b:2", model="m")
    assert server.urls == ("http://a:1", "https://b:2")


@pytest.mark.parametrize("name", Limits.__struct_fields__)
def test_limits_are_above_zero(name):
    with pytest.raises(ValueError, match=rf"^{name} must be above 0, got 0$"):
        Limits(**{name: 0})


def test_rollouts_and_second_solutions_are_sampled_as_set():
    actor = compose(
        ["actor.temperature=0.5", "actor.top_p=0.9", "actor.max_tokens=33", "actor.stop=[a,b]", *FILE]
    ).actor
    sampling = actor.sampling()
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens, sampling.stop) == (0.5, 0.9, 33, ("a", "b"))

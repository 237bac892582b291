"""What a run asks of the URLs in its settings before it begins."""

import contextlib
import logging

import pytest

from pipelines.engines import serve_all
from pipelines.engines.settings import Limits, LlamaCpp, Server, Simulated, Vllm
from pipelines.engines.vetting import check_servers, is_listed
from pipelines.errors import UserError
from pipelines.journal import Journal
from tests.engines import spoiled_worlds
from tests.engines.ports import held_port
from tests.engines.spoiled_worlds import Refused, spoiled

QUICK = Limits(max_attempts=2, max_wait_secs=0.05)


@pytest.fixture
def journal(tmp_path):
    with contextlib.closing(Journal(tmp_path / "journal.sqlite")) as journal:
        yield journal


def check(journal, continuing=("",), **engines):
    """Looks at engines by name; the actor's is called `actor` here."""
    named = {name.replace("actor", ""): settings for name, settings in engines.items()}
    with serve_all(named) as endpoints:
        check_servers(named, endpoints, continuing, journal)


def test_a_server_that_goes_on_is_asked_once_and_never_again(journal):
    with spoiled() as world:
        settings = Vllm(url=world.url, model="simulated", style="raw")
        check(journal, actor=settings)
        (body,) = world.bodies
        assert body["prompt"].endswith("Step 2: 33 + 5 =")
        assert body["max_tokens"] <= 24
        check(journal, actor=settings)
        assert (len(world.bodies), world.listings) == (1, 1)
        # Another way of asking is another question.
        check(journal, actor=Vllm(url=world.url, model="simulated", style="chat"))
        assert len(world.bodies) == 2
    assert all(usage.requests == usage.completion_tokens == 0 for usage in journal.ledger().values())


def test_every_url_is_asked(journal):
    with spoiled() as first, spoiled() as second:
        check(journal, actor=Vllm(url=f"{first.url},{second.url},", model="simulated"))
        assert (len(first.bodies), len(second.bodies)) == (1, 1)
    with spoiled() as first, spoiled(before=spoiled_worlds.begins_anew) as second:
        settings = Server(url=f"{first.url},{second.url}", model="simulated")
        with pytest.raises(UserError, match=f"engine: {second.url} begins anew"):
            check(journal, actor=settings)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoiled_worlds.begins_anew, "begins anew instead of going on with a begun answer"),
        (spoiled_worlds.refuses_continuation, "refuses to go on with a begun answer: http"),
    ],
    ids=["begins anew", "refuses"],
)
def test_one_that_does_not_go_on_is_refused_each_time_unless_nothing_is_continued_there(journal, spoil, says):
    with spoiled(before=spoil) as world:
        settings = Server(url=world.url, model="simulated")
        for _ in range(2):
            with pytest.raises(UserError, match=says) as caught:
                check(journal, ("", "judge"), actor=Simulated(), judge=settings)
            assert str(caught.value).startswith(f"engines.judge: {world.url} ")
            assert "engine=vllm or engine=sglang with engine.style=templated" in str(caught.value)
        asked = len(world.bodies)
        check(journal, actor=Simulated(), judge=settings)
        assert len(world.bodies) == asked
    assert journal.size() == 0


def test_one_that_refuses_everything_is_left_to_the_run(journal):
    def refuse(body):
        raise Refused(400, "max_tokens is too large")

    with spoiled(before=refuse) as world:
        check(journal, actor=Server(url=world.url, model="simulated"))
        assert len(world.bodies) == 2
    assert journal.size() == 0


def test_one_that_cannot_be_asked_now_is_no_reason_not_to_begin(journal, caplog):
    with held_port() as (_, dead), caplog.at_level(logging.WARNING):
        check(journal, actor=Vllm(url=dead, model="m", limits=QUICK))
    assert f"engine: {dead} could not be looked at before the run" in caplog.text
    assert journal.size() == 0


def test_a_wrong_key_is_told_before_any_work(journal, monkeypatch):
    def refuse(body):
        raise Refused(401, "no such key")

    with spoiled(before=refuse, models=[]) as world, pytest.raises(UserError, match="HTTP 401"):
        check(journal, actor=Server(url=world.url, model="simulated"))


def test_servers_of_the_runs_own_are_not_asked(journal):
    with spoiled() as world:
        check(journal, actor=Simulated(url=world.url))
        assert (world.bodies, world.listings) == ([], 0)


MODELS = {"object": "list", "data": [{"id": f"m{i}", "object": "model"} for i in range(7)]}


@pytest.mark.parametrize("continuing", [("",), ()], ids=["actor", "critic"])
def test_a_model_that_a_server_has_not_is_refused_with_those_it_has(journal, continuing):
    with spoiled(models=MODELS) as world:
        with pytest.raises(UserError) as caught:
            check(journal, continuing, actor=Vllm(url=world.url, model="m9"))
        assert world.bodies == []
    assert str(caught.value) == (
        f"engine.model: {world.url} has no model 'm9'; give one of those it has: m0, m1, m2, m3, m4 and 2 more"
    )


@pytest.mark.parametrize(
    "models",
    [[], {"data": []}, {"data": "x"}, {"models": []}, {"data": [{"id": "other"}], "has_more": True}, "x", {}],
)
def test_where_no_whole_list_is_given_nothing_is_said_of_the_model(journal, models):
    with spoiled(models=models) as world:
        check(journal, actor=Vllm(url=world.url, model="simulated"))
        assert len(world.bodies) == 1


def test_a_llama_cpp_server_is_what_its_settings_call_it_and_needs_no_file(journal):
    with spoiled(models={"data": [{"id": "/models/tiny.gguf"}]}) as world:
        settings = LlamaCpp(url=world.url, model_path="/no/such.gguf", model="other.gguf", revision="r1")
        with serve_all({"": settings}) as ((_, endpoint),):
            assert (endpoint.model, endpoint.revision) == ("other.gguf", "r1")
        with pytest.raises(UserError, match=r"has no model 'other.gguf'; give one of those it has: /models/tiny.gguf"):
            check(journal, (), actor=settings)
        check(journal, (), actor=LlamaCpp(url=world.url, model="tiny.gguf"))


@pytest.mark.parametrize(
    ("model", "listed", "is_there"),
    [
        ("tiny", "tiny", True),
        ("gemini-2", "models/gemini-2", True),
        ("llama3", "llama3:latest", True),
        ("meta/llama-3:nitro", "meta/llama-3", True),
        ("tiny.gguf", "/models/tiny.gguf", True),
        ("/models/tiny", "tiny", True),
        ("tiny", "tiny-2", False),
        ("tiny", "not-tiny", False),
        ("a/tiny", "b/tiny", False),
        ("llama3:8b", "llama3:latest", False),
    ],
)
def test_the_ways_in_which_servers_write_a_models_name(model, listed, is_there):
    assert is_listed(model, ["another", listed]) is is_there

"""What is found out about an engine by small requests, on servers with one thing wrong about them."""

import asyncio
import itertools

import msgspec
import pytest

from pipelines.engines import EngineUnavailable, serve
from pipelines.engines.probe import BEGUN, PLAIN, begins_anew, find_clauses
from pipelines.engines.settings import Limits, Server, Simulated, Vllm
from pipelines.engines.vetting import require_model
from tests.engines import spoiled_worlds
from tests.engines.ports import held_port
from tests.engines.spoiled_worlds import spoiled

ONCE = Limits(max_attempts=1)
ALL = [
    *("continuation", "line end", "choices", "stop", "length", "schema"),
    *("usage", "cached tokens", "log probabilities", "seed"),
]


def clauses_of(settings):
    with serve(settings) as endpoint:
        return asyncio.run(find_clauses(endpoint))


def broken(url, style="raw", record=Vllm):
    """What is said of the clauses that are broken, by their names."""
    found = clauses_of(record(url=url, model="simulated", style=style, limits=ONCE))
    return {clause.name: clause for clause in found if clause.state == "broken"}


@pytest.mark.parametrize("style", ["raw", "chat"])
def test_a_server_as_it_should_be_keeps_everything(style):
    with spoiled() as world:
        found = clauses_of(Vllm(url=world.url, model="simulated", style=style))
    assert [(clause.name, clause.state) for clause in found] == [(name, "kept") for name in ALL]
    needed = [clause.name for clause in found if clause.is_needed]
    assert needed == ["continuation", "choices", "stop", "length", "schema"]
    # A question must not cost what an answer does.
    assert len(world.bodies) <= 11
    assert sum(body["n"] * body["max_tokens"] for body in world.bodies) < 200


def trim_turns(body, reply):
    *_, last = body["messages"]
    if last["role"] == "assistant" and last["content"].endswith("\n"):
        for choice in reply["choices"]:
            choice["message"]["content"] = "\n" + choice["message"]["content"]


def test_a_template_that_trims_turns_is_found_and_named_with_the_remedy():
    with spoiled(after=trim_turns) as world:
        found = broken(world.url, style="chat")
        assert list(found) == ["line end"]
        assert "give trims_turns=true" in found["line end"].said
        assert not found["line end"].is_needed
        told = Vllm(url=world.url, model="simulated", style="chat", trims_turns=True)
        assert {clause.state for clause in clauses_of(told)} == {"kept"}


def test_what_is_not_promised_is_not_asked_for():
    with spoiled() as world:
        found = clauses_of(Server(url=world.url, model="simulated"))
    assert {clause.name for clause in found if clause.state == "not promised"} == {
        *("cached tokens", "log probabilities", "seed")
    }
    assert not any("logprobs" in body for body in world.bodies)


def test_the_simulated_engine_promises_no_schema_and_keeps_the_rest():
    found = clauses_of(Simulated())
    assert [(clause.name, clause.state) for clause in found if clause.state != "kept"] == [("schema", "not promised")]


def drop_stop(body):
    body["stop"] = []


def without(*names):
    def take_away(_, reply):
        for name in names:
            del reply["usage"][name]

    return take_away


def in_choices(**fields):
    def put(_, reply):
        for choice in reply["choices"]:
            choice.update(fields)

    return put


def one_choice(_, reply):
    reply["choices"] = reply["choices"][:1]


def talk(body, reply):
    if "structured_outputs" in body:
        reply["choices"][0]["text"] = '{"scope": "somewhere"}'


def never_twice():
    count = itertools.count()

    def put(_, reply):
        for choice in reply["choices"]:
            choice["text"] += str(next(count))

    return put


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ({"before": drop_stop}, {"stop": "goes on past a stop string: 'Step 1:"}),
        ({"after": one_choice}, {"choices": "asked for 3 samples, got 1 choices"}),
        ({"after": in_choices(finish_reason="stop")}, {"length": "does not say that it ran out of tokens: 3 of 3"}),
        ({"after": talk}, {"schema": 'does not keep to a JSON Schema: \'{"scope": "somewhere"}\''}),
        ({"after": without("prompt_tokens_details")}, {"cached tokens": "with --enable-prompt-tokens-details"}),
        ({"after": without("completion_tokens")}, {"usage": "and 0 of a reply: budgets of tokens do not hold"}),
        ({"after": in_choices(logprobs=None)}, {"log probabilities": "has no log probabilities"}),
        ({"after": never_twice()}, {"seed": "repeats no seed", "schema": "does not keep to a JSON Schema"}),
    ],
    ids=["stop", "choices", "length", "schema", "cached tokens", "usage", "log probabilities", "seed"],
)
def test_what_is_not_kept_is_found_and_nothing_else(spoil, says):
    with spoiled(**spoil) as world:
        found = broken(world.url)
    assert list(found) == [name for name in ALL if name in says]
    for name, words in says.items():
        assert words in found[name].said


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoiled_worlds.begins_anew, "begins anew instead of going on with a begun answer: after"),
        (spoiled_worlds.refuses_continuation, "Unrecognized request argument supplied: continue_final_message"),
    ],
    ids=["begins anew", "refuses"],
)
@pytest.mark.parametrize("record", [Server, Vllm])
def test_a_chat_that_does_not_go_on_is_found(record, spoil, says):
    with spoiled(before=spoil) as world:
        found = broken(world.url, style="chat", record=record)
    assert list(found) == ["continuation"]
    assert says in found["continuation"].said
    assert found["continuation"].is_needed


def test_a_server_that_says_nothing_to_a_begun_answer_is_told_of():
    def hush(body, reply):
        if body["prompt"].endswith("="):
            reply["choices"][0]["text"] = ""

    with spoiled(after=hush) as world:
        assert broken(world.url)["continuation"].said == "says nothing where an answer was begun"


def test_a_server_that_is_not_there_has_no_clauses():
    with held_port() as (_, url), pytest.raises(EngineUnavailable):
        broken(url)


@pytest.mark.parametrize(
    "text",
    [
        BEGUN.prefix,
        "\n\nStep 1: 40 - 7 = 33\nStep 2:",
        " Step 1: Subtract 7 from 40",
        "**Step 1:** 40 \u2212 7 = 33",
        "### Step 1\nWe begin with 40.",
        "Sure! Here is the solution:\n\nStep 1: 40 - 7 = 33",
        "To solve this, compute 40 - 7 first.",
    ],
)
def test_a_solution_from_its_beginning_is_told_from_one_that_goes_on(text):
    assert begins_anew(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", " 38\nAnswer: 38\n", "38", " 48\nAnswer: 48", " -28\n", " $38$", "\n38\nAnswer: 38"),
        " 38\nAnswer: 38\n\nProblem:\nStart with 9.\n\nSolution:\nStep 1: 9 - 1 = 8",  # As base models go on.
        " (40 - 7) + 5 = 38",
        "\nStep 2: 33 + 5 = 38\n",
        "\nAnswer: 38",
        " I am not sure how to go on from here.\n",
        " x",
    ],
)
def test_a_wrong_continuation_is_one(text):
    assert not begins_anew(text)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("llama_cpp", marks=pytest.mark.model),
        pytest.param("vllm", marks=pytest.mark.vllm),
        pytest.param("sglang", marks=pytest.mark.sglang),
    ],
)
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_very_small_model_behind_a_real_server_gives_no_false_alarm(name):
    from tests.engines import subjects  # Not before `test_contract` has had its assertions rewritten.

    with getattr(subjects, name)() as by_manner:
        for manner, subject in by_manner.items():
            asyncio.run(require_model(subject.endpoint, "engine"))
            found = asyncio.run(find_clauses(subject.endpoint))
            assert [(clause.name, clause.said) for clause in found if clause.state == "broken"] == [], manner


def test_the_questions_are_short_and_the_begun_one_ends_in_the_midst_of_a_line():
    assert msgspec.structs.replace(BEGUN, prefix="") == PLAIN
    assert BEGUN.prefix.endswith("5 =")
    assert 600 < len(PLAIN.prompt) < 1000  # Some 250 tokens: more than two blocks of 128 would be dear, one is needed.

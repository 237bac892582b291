import json
import math

import msgspec
import pytest

from pipelines.engines.base import JSON_WORDING, BadReply, Request, Sample, Sampling, Usage
from pipelines.engines.dialects import Dialect, read_reply, word_request
from pipelines.errors import UserError

SCHEMA = '{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}'
SAMPLING = Sampling(max_tokens=64, temperature=0.8, top_p=0.95, stop=("\n\n", "Problem:"))


def request(**fields) -> Request:
    return Request(**{"prompt": "Q?\n", "sampling": SAMPLING, "seed": 11} | fields)


def raw(kind: str = "vllm", **fields) -> Dialect:
    return Dialect(kind=kind, style="raw", **fields)


def chat(kind: str = "vllm") -> Dialect:
    return Dialect(kind=kind, style="chat")


def body(*choices: dict, **fields) -> bytes:
    return json.dumps({"choices": list(choices), **fields}).encode()


def test_each_style_has_its_route():
    assert raw().path == "/v1/completions"
    assert chat().path == "/v1/chat/completions"


@pytest.mark.parametrize("kind", ["vllm", "sglang", "openai", "llama_cpp", "simulated"])
def test_a_raw_request_puts_the_prefix_behind_the_prompt(kind):
    wish = request(prefix="Step 1: 2", num_samples=4)
    assert word_request(wish, raw(kind), "m-7b") == {
        "model": "m-7b",
        "n": 4,
        "max_tokens": 64,
        "temperature": 0.8,
        "top_p": 0.95,
        "seed": wish.sample_seed(0),
        "stop": ["\n\n", "Problem:"],
        "prompt": "Q?\nStep 1: 2",
    }


def test_a_chat_request_without_prefix_is_one_user_turn():
    wish = request()
    assert word_request(wish, chat(), "m-7b") == {
        "model": "m-7b",
        "n": 1,
        "max_tokens": 64,
        "temperature": 0.8,
        "top_p": 0.95,
        "seed": wish.sample_seed(0),
        "stop": ["\n\n", "Problem:"],
        "messages": [{"role": "user", "content": "Q?\n"}],
    }


def test_a_chat_request_with_a_prefix_goes_on_with_a_begun_assistant_turn():
    worded = word_request(request(prefix="Step 1: 2"), chat(), "m")
    assert worded["messages"] == [
        {"role": "user", "content": "Q?\n"},
        {"role": "assistant", "content": "Step 1: 2"},
    ]
    assert worded["continue_final_message"] is True
    assert worded["add_generation_prompt"] is False


def test_later_samples_are_asked_for_with_later_seeds():
    first, later = request(num_samples=8), request(num_samples=3, first_sample=5)
    assert word_request(later, raw(), "m")["seed"] == (word_request(first, raw(), "m")["seed"] + 5) % 2**31


@pytest.mark.parametrize(
    ("dialect", "constraint"),
    [
        (
            chat("openai"),
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "reply", "schema": json.loads(SCHEMA)},
                }
            },
        ),
        (raw("vllm"), {"structured_outputs": {"json": json.loads(SCHEMA)}}),
        (raw("simulated"), {"structured_outputs": {"json": json.loads(SCHEMA)}}),
        (raw("sglang"), {"json_schema": SCHEMA}),
    ],
    ids=["chat", "vllm", "simulated", "sglang"],
)
def test_a_json_schema_is_worded_as_the_server_knows_it(dialect, constraint):
    wish = request(json_schema=SCHEMA)
    plain = word_request(request(), dialect, "m") | {"seed": wish.sample_seed(0), "stop": []}
    assert word_request(wish, dialect, "m") == plain | constraint


def test_llama_cpp_is_given_a_grammar_made_of_the_schema():
    pytest.importorskip("xllamacpp")
    worded = word_request(request(json_schema=SCHEMA), raw("llama_cpp"), "m")
    other = word_request(request(json_schema=SCHEMA.replace('"a"', '"b"')), raw("llama_cpp"), "m")
    assert '"a"' in worded["grammar"]
    assert other["grammar"] == worded["grammar"].replace('"a"', '"b"')


def test_llama_cpps_grammar_allows_no_white_space_between_tokens():
    pytest.importorskip("xllamacpp")
    grammar = word_request(request(json_schema=SCHEMA), raw("llama_cpp"), "m")["grammar"]
    (schema,) = (line for line in grammar.splitlines() if "%json" in line)
    assert json.loads(schema.partition("%json")[2]) == json.loads(SCHEMA) | {
        "x-guidance": {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}
    }


@pytest.mark.parametrize("dialect", [raw(), raw("sglang"), raw("llama_cpp"), chat(), chat("openai")])
def test_a_constrained_reply_is_not_cut_at_what_ends_a_solution(dialect):
    if dialect.kind == "llama_cpp":
        pytest.importorskip("xllamacpp")
    assert word_request(request(json_schema=SCHEMA), dialect, "m")["stop"] == []
    assert word_request(request(), dialect, "m")["stop"] == ["\n\n", "Problem:"]


def test_the_wording_of_constraints_is_in_the_keys_of_constrained_samples_alone(monkeypatch):
    plain, bound = request().keys("m"), request(json_schema=SCHEMA).keys("m")
    monkeypatch.setattr("pipelines.engines.base.JSON_WORDING", JSON_WORDING + 1)
    assert request().keys("m") == plain
    assert request(json_schema=SCHEMA).keys("m") != bound


def test_a_service_that_cannot_constrain_raw_text_is_named_with_the_remedy():
    with pytest.raises(ValueError, match=r"^engine kind 'openai' cannot constrain raw text to JSON; set engine\.style"):
        word_request(request(json_schema=SCHEMA), raw("openai"), "m")


def test_a_raw_reply_is_read():
    reply = read_reply(
        body(
            {"index": 0, "text": " abcde", "finish_reason": "stop"},
            {"index": 1, "text": " b", "finish_reason": "length"},
            usage={
                "prompt_tokens": 20,
                "completion_tokens": 7,
                "prompt_tokens_details": {"cached_tokens": 16},
                "total_tokens": 27,
            },
            id="cmpl-1",
            object="text_completion",
        ),
        request(num_samples=2),
        raw(),
    )
    assert reply.usage == Usage(requests=1, samples=2, prompt_tokens=20, cached_tokens=16, completion_tokens=7)
    # Seven tokens over texts of six and two characters, each with its end: 4.9 and 2.1.
    assert reply.samples == (
        Sample(text=" abcde", finish="stop", tokens=5),
        Sample(text=" b", finish="length", tokens=2),
    )


def test_a_chat_reply_is_read():
    reply = read_reply(
        body({"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}),
        request(),
        chat("openai"),
    )
    assert reply.samples == (Sample(text="hi", finish="stop", tokens=0),)
    assert reply.usage == Usage(requests=1, samples=1)


def test_choices_out_of_order_are_put_in_order():
    choices = [{"index": i, "text": f"t{i}"} for i in (2, 0, 3, 1)]
    reply = read_reply(body(*choices), request(num_samples=4), raw())
    assert [sample.text for sample in reply.samples] == ["t0", "t1", "t2", "t3"]


def test_an_empty_text_is_a_text():
    reply = read_reply(body({"text": "", "finish_reason": "stop"}), request(), raw())
    assert reply.samples == (Sample(text="", finish="stop", tokens=0),)


@pytest.mark.parametrize(("said", "finish"), [("length", "length"), ("stop", "stop"), (None, "stop"), ("eos", "stop")])
def test_a_sample_is_cut_only_if_the_server_says_length(said, finish):
    reply = read_reply(body({"text": "x", "finish_reason": said}), request(), raw())
    assert reply.samples[0].finish == finish


def test_tokens_of_a_server_that_counts_one_choice_are_multiplied():
    choices = [{"index": i, "text": "t"} for i in range(3)]
    usage = {"prompt_tokens": 9, "completion_tokens": 5}
    reply = read_reply(body(*choices, usage=usage), request(num_samples=3), raw("llama_cpp"))
    assert reply.usage == Usage(requests=1, samples=3, prompt_tokens=9, completion_tokens=15)
    assert [sample.tokens for sample in reply.samples] == [5, 5, 5]


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 3}, {"prompt_tokens_details": None}])
def test_usage_may_be_missing_in_part(usage):
    fields = {} if usage is None else {"usage": usage}
    reply = read_reply(body({"text": "x"}, **fields), request(), raw())
    assert reply.usage.completion_tokens == 0
    assert reply.usage.cached_tokens == 0


def test_llama_cpps_chat_repeats_the_prefix_which_is_taken_off_once():
    choice = {"message": {"content": "Step 1: 2Step 1: 2 + 3"}}
    wish = request(prefix="Step 1: 2")
    for kind in ("llama_cpp", "openai"):  # `openai` may be a llama.cpp server, too.
        assert read_reply(body(choice), wish, chat(kind)).samples[0].text == "Step 1: 2 + 3"
    assert read_reply(body(choice), wish, chat("vllm")).samples[0].text == "Step 1: 2Step 1: 2 + 3"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a completion as JSON, got b''"),
        (b"<html>502</html>", "expected a completion as JSON, got b'<html>502</html>'"),
        (body({"text": "x"})[:-5], "expected a completion as JSON"),
        (b'{"choices": [{"text": "\xff\xfe"}]}', "expected a completion as JSON"),
        (b'{"error": "no"}', "expected a completion as JSON"),
        (b"[]", "expected a completion as JSON"),
        (b'{"choices": null}', "expected a completion as JSON"),
        (body({"text": 3}), "expected a completion as JSON"),
        (body({"text": "x"}, usage={"prompt_tokens": 3, "completion_tokens": 10**20}), "expected a completion as JSON"),
        (body({"text": "x"}, usage={"prompt_tokens": -1, "completion_tokens": 1}), "expected a completion as JSON"),
        (body(), "asked for 2 samples, got 0 choices"),
        (body({"text": "x"}), "asked for 2 samples, got 1 choices"),
        (body(*[{"text": "x"}] * 3), "asked for 2 samples, got 3 choices"),
        (body({"text": "x"}, {"index": 1}), "choice 1 has neither text nor message content"),
        (body({"text": "x"}, {"index": 1, "text": None}), "choice 1 has neither text nor message content"),
        (body({"text": "x"}, {"index": 1, "message": {"content": None}}), "choice 1 has neither text nor message"),
    ],
)
def test_what_is_no_completion_is_a_bad_reply(content, message):
    with pytest.raises(BadReply) as caught:
        read_reply(content, request(num_samples=2), raw())
    assert str(caught.value).startswith(message)


def test_a_bad_reply_quotes_no_more_than_the_beginning():
    with pytest.raises(BadReply) as caught:
        read_reply(b"x" * 1_000_000, request(), raw())
    assert len(str(caught.value)) < 500


def test_log_probabilities_are_worded_and_read_in_either_shape():
    wish = request(logprobs=True)
    assert word_request(wish, raw("vllm"), "m")["logprobs"] == 1
    assert word_request(wish, chat("vllm"), "m")["logprobs"] is True
    assert "logprobs" not in word_request(request(), raw("vllm"), "m")
    older = {"text": "a b", "logprobs": {"tokens": ["a", " b"], "token_logprobs": [-0.5, -1]}}
    newer = {
        "text": "a b",
        "logprobs": {"content": [{"token": "a", "logprob": -0.5}, {"token": " b", "logprob": -1.0}]},
    }
    for choice in (older, newer):
        assert read_reply(body(choice), wish, raw()).samples[0].logprobs == (-0.5, -1.0)
        assert read_reply(body(choice), request(), raw()).samples[0].logprobs is None


@pytest.mark.parametrize("given", [None, {}, {"token_logprobs": [None, -1.0]}])
def test_log_probabilities_that_were_asked_for_and_did_not_come_are_a_bad_reply(given):
    with pytest.raises(BadReply, match=r"^choice 0 has no log probabilities, which were asked for$"):
        read_reply(body({"text": "a", "logprobs": given}), request(logprobs=True), raw())


@pytest.mark.parametrize("kind", ["openai", "scripted"])
def test_an_engine_that_gives_no_log_probabilities_refuses_them(kind):
    with pytest.raises(UserError, match=f"^an engine of kind '{kind}' gives no log probabilities; take engine="):
        word_request(request(logprobs=True), chat(kind), "m")


def test_entropies_are_asked_for_as_each_route_knows_it():
    wish = request(top_logprobs=20)
    assert word_request(wish, raw("vllm"), "m")["logprobs"] == 20
    spoken = word_request(wish, chat("vllm"), "m")
    assert (spoken["logprobs"], spoken["top_logprobs"]) == (True, 20)
    assert "top_logprobs" not in word_request(request(logprobs=True), chat("vllm"), "m")
    with pytest.raises(UserError, match=r"^an engine of kind 'openai' gives no log probabilities"):
        word_request(wish, chat("openai"), "m")


def test_entropies_are_those_of_the_likeliest_tokens_in_nats():
    wish = request(top_logprobs=2)
    # One of two equal tokens; then one of probability 1/2 beside one of 1/4: what is missing is not shared out.
    half, quarter = math.log(1 / 2), math.log(1 / 4)
    places = [{"a": half, "b": half}, {"a": half, "c": quarter}]
    older = {"text": "aa", "logprobs": {"tokens": ["a", "a"], "token_logprobs": [half, half], "top_logprobs": places}}
    content = [
        {"token": "a", "logprob": half, "top_logprobs": [{"token": t, "logprob": p} for t, p in place.items()]}
        for place in places
    ]
    for choice in (older, {"text": "aa", "logprobs": {"content": content}}):
        (sample,) = read_reply(body(choice), wish, raw()).samples
        assert sample.entropies == pytest.approx((math.log(2), math.log(2)))
        assert sample.logprobs is None
        assert read_reply(body(choice), request(), raw()).samples[0].entropies is None


@pytest.mark.parametrize("given", [None, {}, {"token_logprobs": [-1.0]}, {"top_logprobs": [{"a": -1.0}, None]}])
def test_entropies_that_were_asked_for_and_did_not_come_are_a_bad_reply(given):
    with pytest.raises(BadReply, match=r"^choice 0 lacks the likeliest tokens' log probabilities, which were asked"):
        read_reply(body({"text": "a", "logprobs": given}), request(top_logprobs=5), raw())


def test_an_empty_text_has_no_entropies_and_is_no_bad_reply():
    choice = {"text": "", "logprobs": {"top_logprobs": []}}
    assert read_reply(body(choice), request(top_logprobs=5), raw()).samples[0].entropies == ()


def test_entropies_are_another_sample_and_leave_the_others_keys_as_they_were():
    assert len({request(top_logprobs=k).keys("m")[0] for k in (0, 5, 20)}) == 3
    assert request(top_logprobs=0).keys("m") == request().keys("m")


def test_log_probabilities_are_another_sample_and_leave_the_others_keys_as_they_were():
    assert request(logprobs=True).keys("m") != request().keys("m")
    assert request(logprobs=True).sample_seed(3) == request().sample_seed(3)


def test_what_is_not_there_is_not_written_and_what_was_written_before_is_read():
    sample = Sample(text="x", finish="stop", tokens=1)
    older = msgspec.msgpack.encode({"text": "x", "finish": "stop", "tokens": 1, "error": ""})
    assert msgspec.msgpack.decode(older, type=Sample) == sample
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(sample)) == {"text": "x", "finish": "stop", "tokens": 1}
    told = msgspec.structs.replace(sample, logprobs=(-0.5,))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(told), type=Sample) == told


def test_a_choice_that_the_server_gave_up_is_no_answer():
    with pytest.raises(BadReply, match=r"^choice 1 was given up by the server$"):
        read_reply(
            body({"text": "a"}, {"index": 1, "text": "b", "finish_reason": "abort"}), request(num_samples=2), raw()
        )


def test_promises_are_named_for_people():
    assert raw("openai").promises.kept() == ("counts all choices",)
    assert chat("openai").promises.kept() == ("counts all choices", "holds to schema")
    assert "repeats seed" in raw("llama_cpp").promises.kept()
    assert "repeats seed" not in raw("sglang").promises.kept()


def test_a_request_is_split_where_a_server_takes_fewer_samples_at_once():
    greedy = request(num_samples=9, sampling=Sampling(max_tokens=8, temperature=0.0))
    assert raw("vllm").choices_at_once(request(num_samples=9)) == 9
    assert raw("vllm").choices_at_once(greedy) == chat("vllm").choices_at_once(greedy) == 1
    assert raw("sglang").choices_at_once(greedy) == 9
    assert raw("llama_cpp", max_choices=4).choices_at_once(request(num_samples=9)) == 4


def test_where_a_template_trims_turns_the_line_end_is_not_there_twice():
    trimming = Dialect(kind="sglang", style="chat", trims_turns=True)
    wish = request(prefix="Step 1: a\n")

    def text(written: str, dialect: Dialect, asked: Request = wish) -> str:
        (sample,) = read_reply(body({"message": {"content": written}}), asked, dialect).samples
        return sample.text

    assert text("\nStep 2: b\n", trimming) == text("Step 2: b\n", trimming) == "Step 2: b\n"
    assert text("\nb", trimming, request(prefix="Step 1: a")) == "\nb"
    assert text("\nStep 2: b\n", chat("sglang")) == "\nStep 2: b\n"  # Byte for byte elsewhere.
    assert trimming.manner != chat("sglang").manner

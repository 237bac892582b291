"""Thoughts are told from answers, whoever marks them, and never become a part of one."""

import msgspec
import pytest

from pipelines.engines.base import Request, Sampling
from pipelines.engines.chat_templates import ChatTemplate
from pipelines.engines.dialects import Dialect, read_reply, word_request
from pipelines.engines.thinking import Thinking, split_thoughts

KEEPING = Thinking(keep=True)
ANSWER = "Step 1: 2 + 2 = 4\nAnswer: 4\n"
OPENING = ChatTemplate(source="<|user|>{{ messages[0].content }}<|assistant|>{{ '<think>\n' }}")
EITHER = ChatTemplate(
    source="<|user|>{{ messages[0].content }}<|assistant|>"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
)


def request(**fields) -> Request:
    return Request(**{"prompt": "Q?", "sampling": Sampling(max_tokens=50, temperature=1.0, stop=("~",))} | fields)


def body(*choices: dict, **usage) -> bytes:
    return msgspec.json.encode({"choices": choices, "usage": {"prompt_tokens": 9, "completion_tokens": 40} | usage})


def said(content: str | None, finish: str = "stop", **fields) -> dict:
    return {"message": {"content": content} | fields, "finish_reason": finish}


CHAT = Dialect(kind="vllm", style="chat", thinking=KEEPING)


@pytest.mark.parametrize(
    ("text", "answer", "reasoning"),
    [
        (ANSWER, ANSWER, ""),
        (f"<think>\nStep 1: is it 3?\nAnswer: 3\n</think>\n\n{ANSWER}", ANSWER, "Step 1: is it 3?\nAnswer: 3"),
        (f"\n<think>Hm.</think>{ANSWER}", ANSWER, "Hm."),
        (f"<think>\n\n</think>\n\n{ANSWER}", ANSWER, ""),  # It was told not to think.
        (f"Hm.</think>\n\n{ANSWER}", ANSWER, "Hm."),  # The template at the server wrote the open mark.
        ("Step 1: a\n<think>b\n</think>\nStep 2: c\n", "Step 1: a\nStep 2: c\n", "b"),
        ("1 + <think>?</think>1\n<think>!</think>\n= 2", "1 + 1\n= 2", "?\n\n!"),
        ("a < b, I think> c", "a < b, I think> c", ""),
    ],
)
def test_thoughts_and_answer_are_two_texts(text, answer, reasoning):
    found = split_thoughts(text, KEEPING)
    assert (found.answer, found.reasoning, found.is_unfinished) == (answer, reasoning, False)


def test_who_ends_in_its_thoughts_has_no_answer():
    found = split_thoughts("<think>Answer: 3, or", KEEPING)
    assert (found.answer, found.reasoning, found.is_unfinished) == ("", "Answer: 3, or", True)
    late = split_thoughts("Step 1: a\n<think>Answer", KEEPING)
    assert (late.answer, late.is_unfinished) == ("Step 1: a\n", True)
    opened = split_thoughts("Answer: 3, or", KEEPING, is_open=True)
    assert (opened.answer, opened.reasoning, opened.is_unfinished) == ("", "Answer: 3, or", True)


def test_an_answer_that_was_begun_is_not_taken_for_thought():
    """A close mark alone says nothing there: nobody opened thoughts behind the prefix."""
    assert split_thoughts("4</think> and on", KEEPING, is_begun=True).answer == "4</think> and on"
    again = split_thoughts("<think>Where was I?</think>\n\nStep 2: b\n", KEEPING, is_begun=True)
    assert (again.answer, again.reasoning) == ("Step 2: b\n", "Where was I?")


def test_the_marks_are_the_settings():
    own = Thinking(open_mark="[THINK]", close_mark="[/THINK]")
    assert split_thoughts(f"[THINK]<think>[/THINK]{ANSWER}", own).answer == ANSWER
    assert split_thoughts(f"[THINK]x[/THINK]{ANSWER}", Thinking()).answer.startswith("[THINK]")


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_what_a_server_tells_apart_is_no_part_of_the_answer(name):
    (sample,) = read_reply(body(said(ANSWER, **{name: "\nHm.\n"})), request(), CHAT).samples
    assert (sample.text, sample.reasoning, sample.finish) == (ANSWER, "Hm.", "stop")
    (sample,) = read_reply(body(said(None, "length", **{name: "Hm"})), request(), CHAT).samples
    assert (sample.text, sample.reasoning, sample.finish) == ("", "Hm", "length")
    # Other services give other things by these names.
    (sample,) = read_reply(body(said(ANSWER, **{name: {"effort": "low"}})), request(), CHAT).samples
    assert (sample.text, sample.reasoning) == (ANSWER, "")


def test_a_stop_string_in_thoughts_leaves_no_answer():
    (sample,) = read_reply(body(said("<think>Hm, ", "stop")), request(), CHAT).samples
    assert (sample.text, sample.finish) == ("", "length")


def test_thoughts_are_counted_as_told_or_by_their_share():
    half = said("x" * 19, reasoning="y" * 20)  # With one for its end: 20 characters of 40.
    told = read_reply(body(half, completion_tokens_details={"reasoning_tokens": 30}), request(), CHAT)
    assert (told.usage.completion_tokens, told.usage.reasoning_tokens, told.samples[0].reasoning_tokens) == (40, 30, 30)
    at_sglang = read_reply(body(half, reasoning_tokens=30), request(), CHAT)
    assert at_sglang.usage.reasoning_tokens == 30
    untold = read_reply(body(half), request(), CHAT)
    assert (untold.usage.reasoning_tokens, untold.samples[0].tokens) == (20, 40)
    thoughtless = read_reply(body(said(ANSWER)), request(), CHAT)
    assert thoughtless.usage.reasoning_tokens == 0


def test_two_samples_share_what_was_counted_of_both():
    much, little = said("x" * 9, reasoning="y" * 30), said("x" * 9, reasoning="y" * 10)
    reply = read_reply(body(much, little, reasoning_tokens=20), request(num_samples=2), CHAT)
    assert [sample.reasoning_tokens for sample in reply.samples] == [15, 5]
    assert sum(sample.tokens for sample in reply.samples) == 40


def test_dropped_thoughts_are_counted_all_the_same():
    dropping = msgspec.structs.replace(CHAT, thinking=Thinking())
    (sample,) = read_reply(body(said(f"<think>Hm.</think>{ANSWER}")), request(), dropping).samples
    assert (sample.text, sample.reasoning) == (ANSWER, "")
    assert sample.reasoning_tokens > 0


def test_json_may_quote_the_marks():
    text = '{"flaw":"it writes </think> and <think>"}'
    (sample,) = read_reply(body(said(text)), request(json_schema='{"type":"object"}'), CHAT).samples
    assert sample.text == text
    (sample,) = read_reply(body(said(f"<think>{{}}</think>\n{text}")), request(json_schema="{}"), CHAT).samples
    assert (sample.text.strip(), sample.reasoning) == (text, "{}")


@pytest.mark.parametrize(
    ("fields", "end"),
    [
        ({}, "<|assistant|><think>\n"),
        ({"prefix": "Step 1: a\n"}, "<|assistant|><think>\n\n</think>\n\nStep 1: a\n"),
        ({"json_schema": '{"type":"object"}'}, "<|assistant|><think>\n\n</think>\n\n"),
    ],
)
def test_what_was_begun_stands_behind_thoughts_that_a_template_opens(fields, end):
    dialect = Dialect(kind="vllm", style="templated", template=OPENING)
    assert word_request(request(**fields), dialect, "m")["prompt"] == f"<|user|>Q?{end}"


def test_a_reply_to_opened_thoughts_begins_within_them():
    dialect = Dialect(kind="vllm", style="templated", template=OPENING, thinking=KEEPING)
    reply = body({"text": f"Hm.\n</think>\n\n{ANSWER}", "finish_reason": "stop"})
    (sample,) = read_reply(reply, request(), dialect).samples
    assert (sample.text, sample.reasoning) == (ANSWER, "Hm.")
    (sample,) = read_reply(body({"text": "Hm. Answer: 3", "finish_reason": "length"}), request(), dialect).samples
    assert (sample.text, sample.finish) == ("", "length")
    (sample,) = read_reply(body({"text": ANSWER, "finish_reason": "stop"}), request(prefix="So.\n"), dialect).samples
    assert sample.text == ANSWER


@pytest.mark.parametrize(
    ("enabled", "told", "begin"),
    [
        (None, None, "<|user|>Q?<|assistant|>"),
        (True, {"enable_thinking": True}, "<|user|>Q?<|assistant|>"),
        (False, {"enable_thinking": False}, "<|user|>Q?<|assistant|><think>\n\n</think>\n\n"),
    ],
)
def test_templates_are_told_whether_to_think(enabled, told, begin):
    thinking = Thinking(enabled=enabled)
    here = Dialect(kind="vllm", style="templated", template=EITHER, thinking=thinking)
    assert word_request(request(), here, "m")["prompt"] == begin
    there = word_request(request(), Dialect(kind="vllm", style="chat", thinking=thinking), "m")
    assert there.get("chat_template_kwargs") == told


def test_thoughts_have_tokens_of_their_own():
    plenty = Dialect(kind="vllm", style="chat", thinking=Thinking(extra_tokens=1000))
    assert word_request(request(), plenty, "m")["max_tokens"] == 1050


def test_stop_strings_end_answers_and_no_thoughts():
    """A blank line ends a critique, and is what models think in."""
    dialect = Dialect(kind="vllm", style="chat", thinking=Thinking(extra_tokens=1000))
    wish = request(sampling=Sampling(max_tokens=50, temperature=1.0, stop=("\n\n", "Problem:")))
    assert word_request(wish, dialect, "m")["stop"] == []
    written = "<think>One.\n\nTwo. Problem: none.</think>\n\nStep 1: a\n\nProblem:\nnext"
    (sample,) = read_reply(body(said(written, "length")), wish, dialect).samples
    assert (sample.text, sample.finish) == ("Step 1: a", "stop")
    (sample,) = read_reply(body(said("<think>x</think>Step 1: a", "length")), wish, dialect).samples
    assert (sample.text, sample.finish) == ("Step 1: a", "length")


def test_what_shapes_samples_names_the_engine_and_the_default_does_not():
    def manner(**fields: object) -> str:
        return Dialect(kind="vllm", style="chat", thinking=Thinking(**fields)).manner

    assert manner() == "chat"
    ways = [{"keep": True}, {"enabled": False}, {"enabled": True}, {"extra_tokens": 9}, {"close_mark": "</t>"}]
    assert len({manner(), *(manner(**way) for way in ways)}) == 6


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"open_mark": " "}, r"thinking.open_mark must not be blank, got ' '"),
        ({"close_mark": "<think>"}, r"must differ, got '<think>' twice"),
        ({"extra_tokens": -1}, r"thinking.extra_tokens must be at least 0, got -1"),
    ],
)
def test_settings_that_cannot_be(wrong, message):
    with pytest.raises(ValueError, match=message):
        Thinking(**wrong)

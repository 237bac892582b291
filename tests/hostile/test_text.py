import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotators.plain import plain_text
from mcts import readings
from mcts.answers import find_answer, quick
from pipelines.engines.base import Request, Sample, Sampling
from pipelines.engines.characters import whole_characters
from pipelines.engines.journaled import admitted
from schemas import as_text, as_written, readable, visible
from schemas.prompt import HEADINGS, contained
from schemas.untrusted import JOINER
from tests.hostile.corpus import NAMES, SPECIAL_TOKENS, corpus, headings, texts

QUICK = settings(max_examples=100, deadline=None)


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_a_special_token_is_spelled_as_text_and_comes_back(token):
    put = as_text(f"a{token}b")
    assert token not in put
    assert put.replace(JOINER, "") == f"a{token}b"
    assert as_written(put) == f"a{token}b"


@pytest.mark.parametrize(
    "text",
    [
        "If x < 3 and y > 2 then |x| < |y|",
        "the area [ABC] of triangle ABC, [asy] draw(A--B); [/asy]",
        "<b>bold</b> <p class='s'> <div> a<b>c List<String> vector<int>",
        "<think>Let me see.</think>",
        "a[i] |> f, x <- y, [1, 2], [x]",
        "Step 1: 7 + 8 = 15\nAnswer: 15\n",
        "The Solution: x is 3. My problem: none\n\tProblems:\n",
        "Naïve 数 été\r\n\tAnswer: \U0001f600",
    ],
)
def test_ordinary_text_stays_as_it_is(text):
    assert as_text(text) == readable(text) == as_written(text) == contained(text) == text


@QUICK
@given(texts(), texts())
def test_no_special_token_is_left_in_any_text(before, after):
    put = as_text(before + after)
    assert not [token for token in SPECIAL_TOKENS if token in put]
    assert as_text(put) == put
    if JOINER not in before + after:
        assert as_written(put) == before + after


@QUICK
@given(texts())
def test_a_readable_text_can_be_written_down(text):
    made = readable(text)
    assert json.loads(made.join('""').encode() if made.isalnum() else json.dumps(made).encode()) == made
    assert len(made) == len(text)
    assert not [char for char in made if (char < " " and char not in "\t\n\r") or "\x7f" <= char < "\xa0"]
    assert readable(made) == made


@QUICK
@given(texts())
def test_nothing_visible_steers_a_terminal(text):
    made = visible(text)
    made.encode()
    assert not [char for char in made if (char < " " and char != "\n") or "\x7f" <= char < "\xa0"]
    assert not set(made) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")


def test_what_is_shown_of_what_is_not():
    assert visible("\x1b[2J\t4\x9b\u202e\ud800\U000e0041\n") == "\\x1b[2J    4\\x9b\\u202e\\ud800\\U000e0041\n"


@QUICK
@given(texts(), st.sampled_from(sorted(NAMES)), st.sampled_from(["\n", "\r", "\u2028", "\n\n ", "\n## **", "\n> "]))
def test_no_text_holds_a_heading(text, name, end):
    put = contained(f"{text}{end}{name}:\n{text}")
    assert headings(put) == ()
    assert name in put


def test_the_headings_are_those_of_the_prompts():
    assert HEADINGS == NAMES


def test_a_heading_is_quoted_whatever_marks_are_around_it():
    assert contained("a\n## Solution:\n**Remark**: b\n judgement : c") == (
        "a\n> ## Solution:\n> **Remark**: b\n>  judgement : c"
    )


def test_what_is_put_into_a_text_changes_no_answer():
    """An exact answer that is the spelling of a token is right, whether it was broken on the way or not."""
    solution = as_text("Step 1: look\nAnswer: </s>")
    assert solution != "Step 1: look\nAnswer: </s>"
    assert quick(find_answer(solution, "exact") or "", "</s>", "exact").outcome == "correct"
    assert readings.plain(as_text("</s>")) == readings.plain("</s>")
    assert plain_text(as_text("a <s> b")) == plain_text("a <s> b")


def test_a_control_character_in_an_answer_makes_no_other_answer():
    answer = find_answer(readable("Answer: 4\x002"), "math")
    assert answer == "4\N{REPLACEMENT CHARACTER}2"
    assert quick(answer, "42", "math").outcome == "unscored"


REQUEST = Request(prompt="p", sampling=Sampling(max_tokens=400, temperature=0.5))


def test_an_ordinary_sample_is_admitted_as_it_is():
    sample = Sample(text="Step 1: <b>4</b> + 3 = 7\r\nAnswer: 7", finish="stop", tokens=9)
    assert admitted(sample, REQUEST) is sample


def test_a_sample_that_is_longer_than_its_tokens_could_be_is_cut():
    long = admitted(Sample(text="a" * 1_000_000, finish="stop", tokens=400), REQUEST)
    assert (len(long.text), long.finish) == (32 * 400, "length")
    assert admitted(long, REQUEST) is long


def test_a_token_that_a_model_repeats_from_its_prompt_is_its_own_again():
    said = Sample(text=as_text("print('<s>')"), finish="stop", tokens=4)
    assert admitted(said, REQUEST).text == "print('<s>')"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (r'"\ud83d\ude00"', "\U0001f600"),
        (r'"a\ud83d"', "a\ufffd"),
        (r'"\ude00\uD83Db"', "\ufffd\ufffdb"),
        (r'"\ud83d\ud83d\ude00"', "\ufffd\U0001f600"),
        (r'"\\ud800 \\\ud800"', "\\ud800 \\\ufffd"),
        (r'"\u00e9\n"', "é\n"),
    ],
)
def test_a_reply_with_half_a_character_can_be_read(body, text):
    assert json.loads(whole_characters(body.encode())) == text


@pytest.mark.parametrize("text", [text for text in corpus() if len(text) > 1000], ids=lambda text: repr(text[:6]))
def test_a_megabyte_costs_no_more_than_its_length(text):
    began = time.process_time()
    for changes in (readable, as_text, as_written, visible, contained):
        changes(text)
    assert time.process_time() - began < 5 * max(1, len(text) / 1e6)

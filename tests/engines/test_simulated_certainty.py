"""How sure the simulated model is: its log probabilities on both routes, and what memorised problems look like."""

import math

import pytest

from annotators.narrowness import path_likeness
from pipelines.engines.base import Request, Sampling
from pipelines.engines.dialects import Dialect, read_reply, word_request
from pipelines.engines.simulated import SimulatedSettings, make_problem
from pipelines.engines.simulated.certainty import is_memorised
from pipelines.engines.simulated.replies import tokenize
from pipelines.engines.simulated.server import serving
from tests.engines.simulated_client import PROMPT, body_of, post_all

WORLD = SimulatedSettings(memorised=0.5)
QUESTIONS = [make_problem(3, i, WORLD).question for i in range(40)]


def asked(prompt: str, **fields) -> Request:
    return Request(prompt=prompt, sampling=Sampling(max_tokens=200, temperature=0), top_logprobs=20, **fields)


def told(url: str, prompts: list[str], style: str = "raw"):
    """Samples of the prompts by one of the server's routes."""
    dialect = Dialect(kind="simulated", style=style)
    wishes = [asked(prompt) for prompt in prompts]
    got = post_all(url, [word_request(wish, dialect, "simulated") for wish in wishes], path=dialect.path)
    return [read_reply(each.raw, wish, dialect).samples[0] for each, wish in zip(got, wishes, strict=True)]


def test_both_routes_tell_the_same_of_every_token():
    with serving(WORLD) as url:
        (raw,), (chat,) = told(url, [PROMPT]), told(url, [PROMPT], "chat")
        (silent,) = post_all(url, [body_of(seed=1)])
    assert raw.text == chat.text
    assert raw.entropies == pytest.approx(chat.entropies)
    assert len(raw.entropies) == len(tokenize(raw.text))
    assert all(0 <= value <= math.log(4) for value in raw.entropies)
    assert silent.json["choices"][0]["logprobs"] is None


def test_what_is_likeliest_is_what_was_written():
    with serving(WORLD) as url:
        (got,) = post_all(url, [body_of(seed=4, logprobs=2)])
    logprobs = got.json["choices"][0]["logprobs"]
    for token, value, place in zip(*(logprobs[k] for k in ("tokens", "token_logprobs", "top_logprobs")), strict=True):
        assert place[token] == value == max(place.values())
        assert len(place) <= 2


def test_memorised_problems_go_one_narrow_way_and_others_do_not():
    prompts = [f"Problem:\n{question}\n\nSolution:\n" for question in QUESTIONS]
    with serving(WORLD) as url:
        first = told(url, prompts)
        again = [
            f"Problem:\n{question}\n\nSolution:\n{sample.text}\n\nAnother solution:\n"
            for question, sample in zip(QUESTIONS, first, strict=True)
        ]
        second = told(url, again)
    known = [is_memorised(question, WORLD) for question in QUESTIONS]
    assert 10 < sum(known) < 30
    pairs = list(zip(known, first, second, strict=True))
    assert all(one.text.strip() == other.text.strip() for knows, one, other in pairs if knows)
    assert any(one.text.strip() != other.text.strip() for knows, one, other in pairs if not knows)
    likeness = {knows: [path_likeness(a.entropies, b.entropies) for k, a, b in pairs if k == knows] for knows in known}
    assert min(likeness[True]) > max(likeness[False])
    widths = {knows: [sum(a.entropies) / len(a.entropies) for k, a, _ in pairs if k == knows] for knows in known}
    assert max(widths[True]) < min(widths[False])


def test_nothing_is_memorised_by_default():
    assert not any(is_memorised(question, SimulatedSettings()) for question in QUESTIONS)
    with pytest.raises(ValueError, match="need 0 <= memorised <= 1, got 2"):
        SimulatedSettings(memorised=2)

"""Figures of a router: what is counted where, without a router, which is in no environment of these tests."""

import asyncio

import pytest

from benchmarks.prefix_cache import record, simulated_replicas
from benchmarks.router import main, measure
from mcts.settings import SearchSettings


@pytest.fixture(scope="module")
def trace():
    return asyncio.run(record(4, 2, SearchSettings(max_rollouts=16)))


def line_of(front, trace):
    with simulated_replicas(1000) as endpoint:
        return asyncio.run(measure(front, endpoint, trace, "no interpreter"))


def test_every_request_is_counted_at_the_server_where_it_arrives(trace):
    asked = len(trace.requests)
    assert asked >= 4
    one, two = line_of("one server", trace), line_of("two URLs", trace)
    assert (one.requests, one.failed) == ((asked, 0), 0)
    assert (sum(two.requests), two.failed) == (asked, 0)
    # The same texts, wherever they go; and a second request of a tree finds the first one's beginning.
    assert one.prompt_tokens == two.prompt_tokens
    assert 0 < two.cached_tokens < two.prompt_tokens


def test_where_there_is_no_router_its_lines_are_left_out_and_it_says_so(trace, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("benchmarks.router.record", lambda *_: asyncio.sleep(0, trace))
    main(["--python", str(tmp_path / "nothing"), "--out", str(tmp_path / "router.txt")])
    *_, skipped, _ = (tmp_path / "router.txt").read_text().splitlines()
    assert skipped == (
        f"SKIPPED: no sglang_router for {tmp_path}/nothing: pip install sglang-router==0.3.2, or --python INTERPRETER"
    )
    assert skipped in capsys.readouterr().out

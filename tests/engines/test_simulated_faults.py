import asyncio
import contextlib
import time

import aiohttp
import msgspec
import pytest

from pipelines.engines.simulated import SimulatedSettings, make_problem, reply, serving
from tests.engines.simulated_client import (
    PLAIN,
    PROMPT,
    Json,
    body_of,
    get,
    post,
    post_all,
)


def read(fields: Json) -> SimulatedSettings:
    return msgspec.convert(fields, SimulatedSettings)


class TestFaults:
    @pytest.mark.parametrize(
        ("fault", "status", "retry_after"),
        [("429", 429, "2.5"), ("429_bare", 429, None), ("500", 500, None), ("503", 503, None),
         ("poison", 500, None), ("too_long", 400, None)],
    )  # fmt: skip
    def test_refusals(self, fault: str, status: int, retry_after: str | None) -> None:
        settings = read({f"fault_{fault}": 1, "retry_after_seconds": 2.5})
        with serving(settings) as url:
            got = post(url, body_of())
            stats = get(url + "/stats")
        assert got.status == got.json["error"]["code"] == status
        assert got.headers.get("Retry-After") == retry_after
        assert (stats["faults"], stats["requests"], stats["samples"]) == ({fault: 1}, 1, 0)
        assert ("maximum context length" in got.json["error"]["message"]) == (fault == "too_long")

    def test_cut_json(self) -> None:
        with serving(SimulatedSettings(fault_cut=1)) as url:
            got = post(url, body_of())
        assert got.status == 200
        with pytest.raises(msgspec.DecodeError):
            _ = got.json

    def test_wrong_schema(self) -> None:
        with serving(SimulatedSettings(fault_schema=1)) as url:
            assert "choices" not in post(url, body_of()).json

    @pytest.mark.parametrize(("fault", "left"), [("short", 3), ("empty", 0)])
    def test_choices_missing(self, fault: str, left: int) -> None:
        with serving(read({f"fault_{fault}": 1})) as url:
            assert post(url, body_of(n=4)).texts == [reply(PROMPT, seed, PLAIN) for seed in range(left)]

    def test_a_hanging_answer_waits_for_the_client_to_leave(self) -> None:
        with serving(SimulatedSettings(fault_hang=1)) as url:
            with pytest.raises(TimeoutError):
                post(url, body_of(), timeout=0.3)
            deadline = time.monotonic() + 2
            while (stats := get(url + "/stats"))["in_flight"] and time.monotonic() < deadline:
                time.sleep(0.02)
        assert (stats["faults"], stats["in_flight"]) == ({"hang": 1}, 0)

    def test_a_hanging_answer_ends_with_a_closed_connection(self) -> None:
        with serving(SimulatedSettings(fault_hang=1, hang_seconds=0.2)) as url:
            start = time.monotonic()
            with pytest.raises(aiohttp.ClientError):
                post(url, body_of())
        assert 0.2 <= time.monotonic() - start < 1

    def test_slow_bytes_come_one_by_one(self) -> None:
        with serving(SimulatedSettings(fault_slow=1, slow_seconds=0.6)) as url:

            async def listen() -> list[tuple[float, int]]:
                async with aiohttp.ClientSession() as session:
                    start = time.monotonic()
                    body = msgspec.json.encode(body_of())
                    async with session.post(url + "/v1/completions", data=body) as response:
                        return [(time.monotonic() - start, len(data)) async for data in response.content.iter_any()]

            arrivals = asyncio.run(listen())
            assert post(url, body_of()).texts == [reply(PROMPT, 0, PLAIN)]
        assert arrivals[0][0] < 0.4
        assert 0.6 <= arrivals[-1][0] < 2
        assert len(arrivals) > 50

    def test_a_retry_can_succeed_and_the_next_run_meets_the_same_faults(self) -> None:
        settings = SimulatedSettings(fault_500=0.5, fault_seed=3)
        histories = []
        for _ in range(2):
            with serving(settings) as url:
                gots = [[post(url, body_of(seed=seed)) for _ in range(6)] for seed in range(6)]
            histories.append([[got.status for got in attempts] for attempts in gots])
        assert histories[0] == histories[1]
        assert any(500 in statuses and 200 in statuses for statuses in histories[0])
        assert len({tuple(statuses) for statuses in histories[0]}) > 1
        answered = next(got for attempts in gots for got in attempts if got.status == 200)
        assert answered.texts[0] in {reply(PROMPT, seed, PLAIN) for seed in range(6)}

    def test_poison_stays_with_its_prompt(self) -> None:
        prompts = [f"Problem:\n{make_problem(0, i, PLAIN).question}\n\nSolution:\n" for i in range(40)]
        with serving(SimulatedSettings(fault_poison=0.3)) as url:
            statuses = [{post(url, body_of(prompt, seed=seed)).status for seed in range(3)} for prompt in prompts]
        assert sorted(set(map(tuple, statuses))) == [(200,), (500,)]
        assert 3 <= statuses.count({500}) <= 25

    def test_an_outage_closes_connections_for_its_time(self) -> None:
        with serving(SimulatedSettings(outage_after=3, outage_seconds=1)) as url:
            assert [post(url, body_of()).status for _ in range(2)] == [200, 200]
            start = time.monotonic()
            for _ in range(2):
                with pytest.raises(aiohttp.ClientError):
                    post(url, body_of())
            with pytest.raises(aiohttp.ClientError):
                get(url + "/health")
            stats = get(url + "/stats")
            time.sleep(max(0.0, start + 1.05 - time.monotonic()))
            assert post(url, body_of()).status == 200
        assert stats["faults"]["outage"] >= 3
        assert stats["samples"] == 2

    def test_an_outage_also_drops_what_was_under_way(self) -> None:
        settings = SimulatedSettings(
            outage_after=5, outage_seconds=0.6, seconds_a_token=0.01, length_median=30, length_sigma=0
        )
        with serving(settings) as url:
            gots = post_all(url, [body_of(seed=seed) for seed in range(5)])
        assert all(isinstance(got, aiohttp.ClientError) for got in gots)

    def test_faults_do_not_change_answers(self) -> None:
        settings = SimulatedSettings(fault_429=0.2, fault_500=0.2, fault_cut=0.2)
        with serving(settings) as url:
            gots = post_all(url, [body_of(seed=seed) for seed in range(60)])
        for seed, got in enumerate(gots):
            with contextlib.suppress(msgspec.DecodeError, KeyError):
                assert got.texts == [reply(PROMPT, seed, PLAIN)]
        assert {got.status for got in gots} == {200, 429, 500}

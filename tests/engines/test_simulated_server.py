import contextlib
import heapq
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pipelines.engines.simulated import SimulatedSettings, make_problem, reply, serving, serving_subprocess
from pipelines.engines.simulated.accounting import PrefixCache, SlotPlan
from pipelines.engines.simulated.replies import prompt_tokens, simulated_length, text_digest, tokenize
from tests.engines.simulated_client import (
    PLAIN,
    PROMPT,
    QUESTION,
    Json,
    body_of,
    chat,
    get,
    post,
    post_all,
    reset,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def plain() -> Iterator[str]:
    with serving(PLAIN) as url:
        yield url


class TestAnswers:
    def test_the_wire_says_what_the_world_says(self, plain: str) -> None:
        got = post(plain, body_of(seed=7, n=3))
        assert got.texts == [reply(PROMPT, 7 + index, PLAIN) for index in range(3)]
        assert post(plain, body_of()).texts == [reply(PROMPT, 0, PLAIN)]
        assert got.json["object"] == "text_completion"
        assert [choice["index"] for choice in got.json["choices"]] == [0, 1, 2]

    def test_choice_j_is_choice_0_of_a_seed_j_later(self, plain: str) -> None:
        together = post(plain, body_of(seed=2**31 - 3, n=8)).texts
        alone = [post(plain, body_of(seed=(2**31 - 3 + j) % 2**31)).texts[0] for j in range(8)]
        assert together == alone
        assert len(set(together)) > 1

    def test_answers_do_not_depend_on_the_order_of_arrival(self) -> None:
        settings = SimulatedSettings(cache_blocks=0, seconds_a_token=1e-5, slots=8)
        problems = [make_problem(1, index, settings).question for index in range(40)]
        bodies = [
            body_of(f"Problem:\n{question}\n\nSolution:\n", seed=seed, n=2, temperature=seed / 3)
            for question in problems
            for seed in range(3)
        ]
        with serving(settings) as url:
            first = [got.raw for got in post_all(url, bodies)]
        order = list(range(len(bodies)))
        random.Random(5).shuffle(order)
        with serving(settings) as url:
            shuffled = [got.raw for got in post_all(url, [bodies[place] for place in order])]
        assert [shuffled[order.index(place)] for place in range(len(bodies))] == first
        assert len(set(first)) == len(first)

    def test_temperature_changes_nothing(self, plain: str) -> None:
        hot, cold = (post(plain, body_of(seed=4, temperature=t)).texts for t in (1.0, 0.0))
        assert hot == cold

    def test_stop_and_max_tokens(self, plain: str) -> None:
        whole = reply(PROMPT, 3, PLAIN)
        for fields, text, finish in (
            ({}, whole, "stop"),
            ({"stop": "\n"}, whole.partition("\n")[0], "stop"),
            ({"stop": ["Answer", "Step 2"]}, whole.partition("Step 2")[0], "stop"),
            ({"max_tokens": 4}, "".join(tokenize(whole)[:4]), "length"),
        ):
            got = post(plain, body_of(seed=3, **fields)).json
            assert got["choices"][0] == {"index": 0, "text": text, "finish_reason": finish, "logprobs": None}
            assert got["usage"]["completion_tokens"] == len(tokenize(text))

    def test_usage_sums_over_choices(self, plain: str) -> None:
        got = post(plain, body_of(seed=1, n=5))
        usage = got.json["usage"]
        assert usage["prompt_tokens"] == prompt_tokens(len(PROMPT))
        assert usage["completion_tokens"] == sum(len(tokenize(text)) for text in got.texts)
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]

    def test_a_continued_chat_turn_is_the_raw_route(self, plain: str) -> None:
        prefix = reply(PROMPT, 1, PLAIN).partition("Step 2")[0]
        raw = post(plain, body_of(PROMPT + prefix, seed=5, n=4)).texts
        got = chat(
            plain,
            [("user", PROMPT), ("assistant", prefix)],
            seed=5,
            n=4,
            continue_final_message=True,
            add_generation_prompt=False,
        )
        assert [choice["message"]["content"] for choice in got.json["choices"]] == raw
        fresh = chat(plain, [("user", PROMPT)], seed=5).json
        assert fresh["choices"][0]["message"]["content"] == reply(PROMPT, 5, PLAIN)
        assert fresh["object"] == "chat.completion"

    def test_json_output_options_are_accepted(self, plain: str) -> None:
        prompt = f"Problem:\n{QUESTION}\n\nSolution:\n{reply(PROMPT, 0, PLAIN)}\nCritic: a\n\nCritique:\n"
        schema = {"type": "object"}
        wanted = {"type": "json_schema", "json_schema": {"name": "critique", "schema": schema, "strict": True}}
        said = chat(plain, [("user", prompt)], response_format=wanted).json["choices"][0]["message"]["content"]
        assert msgspec.json.decode(said).keys() == {"units", "first_wrong_step", "verdict"}
        for field in ({"structured_outputs": {"json": schema}}, {"guided_json": schema}, {"grammar": "root ::= x"}):
            assert post(plain, body_of(prompt, **field)).texts == [said]

    def test_models_and_health(self, plain: str) -> None:
        assert [model["id"] for model in get(plain + "/v1/models")["data"]] == ["simulated"]
        assert get(plain + "/health") == {"status": "ok"}

    @pytest.mark.parametrize(
        ("body", "status", "message"),
        [
            (body_of(model="gpt-5"), 404, "The model 'gpt-5' does not exist; there is 'simulated'."),
            (body_of("Hello"), 400, "cannot read this prompt: expected a line 'Problem:'"),
            (body_of(n=0), 400, "need 1 <= n <= 1024, got 0"),
            (body_of(max_tokens=0), 400, "need max_tokens >= 1, got 0"),
            (body_of(stream=True), 400, "does not stream"),
            ({"model": "simulated"}, 400, "missing required field `prompt`"),
            (body_of(seed="one"), 400, "Expected `int | null`, got `str`"),
        ],
    )
    def test_requests_that_cannot_be_served(self, plain: str, body: Json, status: int, message: str) -> None:
        got = post(plain, body)
        assert got.status == status
        assert message in got.json["error"]["message"]

    @pytest.mark.parametrize(
        ("roles", "fields", "message"),
        [
            ("ua", {}, "set continue_final_message=true"),
            ("ua", {"continue_final_message": True}, "needs add_generation_prompt=false"),
            (
                "u",
                {"continue_final_message": True, "add_generation_prompt": False},
                "needs the assistant's message last",
            ),
            ("", {}, "at least one message"),
            ("u", {"response_format": {"type": "json_schema"}}, "json_schema needs"),
            ("u", {"response_format": {"type": "yaml"}}, "unknown type 'yaml'"),
        ],
    )
    def test_chats_that_cannot_be_served(self, plain: str, roles: str, fields: Json, message: str) -> None:
        turns = [({"u": "user", "a": "assistant"}[role], PROMPT) for role in roles]
        got = chat(plain, turns, **fields)
        assert got.status == 400
        assert message in got.json["error"]["message"]


class TestAccounts:
    def test_a_shared_prefix_is_reported_in_whole_blocks(self) -> None:
        prefix = "Step 1: 1 + 1 = 2\n" * 20
        with serving(SimulatedSettings(cache_block_chars=40)) as url:
            usages = [post(url, body_of(PROMPT + prefix[:length])).json["usage"] for length in (0, 0, 180, 360)]
            stats = get(url + "/stats")
        cached = [usage["prompt_tokens_details"]["cached_tokens"] for usage in usages]
        shared = [0, len(PROMPT), len(PROMPT), len(PROMPT) + 180]
        assert cached == [length // 40 * 40 // 4 for length in shared]
        assert stats["cached_tokens"] == sum(cached)
        assert stats["prompt_tokens"] == sum(usage["prompt_tokens"] for usage in usages)

    def test_the_prefix_cache_is_bounded_and_forgets_the_oldest(self) -> None:
        cache = PrefixCache(block_chars=4, max_blocks=4)
        assert cache.add("aaaabbbb") == 0
        assert cache.add("aaaabbbbcc") == 8
        assert cache.add("aaaaxxxxbbbb") == 4
        assert cache.add("aaaabbbb") == 8
        assert cache.add("zzzzzzzzzzzzzzzz") == 0
        assert cache.add("aaaabbbb") == 0

    def test_a_full_prefix_cache_keeps_beginnings_rather_than_ends(self) -> None:
        cache = PrefixCache(block_chars=4, max_blocks=2)
        assert [cache.add("aaaabbbbcccc") for _ in range(2)] == [0, 8]

    def test_a_slot_plan_by_hand(self) -> None:
        plan = SlotPlan(2, now=0)
        assert plan.take(0, [3, 1, 1]) == 3
        assert plan.take(0.5, [4]) == 6
        assert [plan.used(now) for now in (0, 1, 2, 3, 4, 6, 9)] == [0, 2, 4, 6, 7, 9, 9]
        assert plan.utilisation(6) == pytest.approx(9 / 12)
        assert plan.utilisation(60) == pytest.approx(9 / 12)
        assert plan.take(10, [1]) == 11
        assert plan.utilisation(11) == pytest.approx(10 / 22)

    def test_a_slot_plan_reset_in_the_middle_keeps_what_is_to_come(self) -> None:
        plan = SlotPlan(2, now=0)
        plan.take(0, [4, 2])
        plan.reset(1)
        assert plan.used(1) == 0
        assert plan.used(9) == 4
        assert plan.utilisation(4) == pytest.approx(4 / 6)
        plan.reset(9)
        assert plan.utilisation(9) == 0

    @pytest.mark.parametrize(("requests", "choices"), [(12, 1), (4, 3), (1, 12)])
    def test_equal_samples_fill_the_slots_round_by_round(self, requests: int, choices: int) -> None:
        settings = SimulatedSettings(
            slots=4, seconds_a_token=0.01, prefill_seconds=0.02, length_median=10, length_sigma=0
        )
        with serving(settings) as url:
            start = time.monotonic()
            gots = post_all(url, [body_of(seed=100 * i, n=choices) for i in range(requests)])
            wall = time.monotonic() - start
            stats = get(url + "/stats")
        assert 0.36 <= wall < 1.2  # one after the other takes 1.44 s; a loaded machine is late, never early
        assert stats["slot_seconds"] == pytest.approx(12 * 0.12)
        assert (1 - 1e-9 if requests == 1 else 0.75) < stats["utilisation"] < 1 + 1e-9
        assert stats["samples"] == 12
        assert stats["requests"] == stats["peak_in_flight"] == requests
        assert gots[0].json["usage"]["completion_tokens"] == 10 * choices

    def test_a_request_takes_a_slot_for_each_choice(self) -> None:
        settings = SimulatedSettings(slots=2, seconds_a_token=0.01, length_median=20, length_sigma=0)
        with serving(settings) as url:
            alone, pair, five = (post(url, body_of(n=n)).seconds for n in (1, 2, 5))
        assert 0.2 <= alone < 0.4
        assert 0.2 <= pair < 0.4
        assert 0.6 <= five < 1

    def test_one_at_a_time_leaves_slots_idle(self) -> None:
        settings = SimulatedSettings(slots=4, seconds_a_token=0.01, length_median=20, length_sigma=0)
        with serving(settings) as url:
            for _ in range(2):
                post(url, body_of(n=2))
            utilisation = get(url + "/stats")["utilisation"]
        assert 0.3 < utilisation <= 0.5

    def test_log_normal_lengths_take_the_time_that_a_schedule_by_hand_says(self) -> None:
        settings = SimulatedSettings(slots=3, seconds_a_token=0.002, length_median=40, length_sigma=0.8)
        digest = text_digest(PROMPT)
        lengths = [simulated_length(digest, seed, settings) for seed in range(24)]
        free = [0.0] * 3
        for length in lengths:
            heapq.heappush(free, heapq.heappop(free) + length * 0.002)
        with serving(settings) as url:
            got = post(url, body_of(seed=0, n=24))
            stats = get(url + "/stats")
        assert max(free) <= got.seconds < max(free) + 0.5
        assert got.json["usage"]["completion_tokens"] == sum(lengths)
        assert stats["slot_seconds"] == pytest.approx(sum(lengths) * 0.002)
        assert stats["utilisation"] == pytest.approx(sum(lengths) * 0.002 / (3 * max(free)), rel=0.01)
        assert len(set(lengths)) > 10

    def test_without_latency_nothing_sleeps(self) -> None:
        with serving(PLAIN) as url:
            gots = post_all(url, [body_of(seed=seed, n=4) for seed in range(100)])
            stats = get(url + "/stats")
            reset(url)
            after = get(url + "/stats")
        assert all(got.status == 200 for got in gots)
        assert (stats["requests"], stats["samples"], stats["slot_seconds"], stats["utilisation"]) == (100, 400, 0, 0)
        assert 0 <= stats["first_request_seconds"] <= stats["last_request_seconds"] <= stats["last_answer_seconds"]
        assert stats["last_answer_seconds"] <= stats["uptime_seconds"]
        assert (after["requests"], after["samples"], after["first_request_seconds"]) == (0, 0, None)
        assert after["last_answer_seconds"] is None
        assert after["uptime_seconds"] < stats["uptime_seconds"]


def can_connect(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
        return True
    return False


class TestHosting:
    def test_a_server_ends_with_its_context(self) -> None:
        with serving(PLAIN) as url:
            assert url.startswith("http://127.0.0.1:")
            assert post(url, body_of()).status == 200
        assert not can_connect(url)

    def test_two_servers_keep_apart(self) -> None:
        with serving(PLAIN) as one, serving(SimulatedSettings(model="other")) as two:
            assert post(one, body_of()).status == 200
            assert post(two, body_of()).status == 404

    def test_a_taken_port_is_an_error(self) -> None:
        with (
            serving(PLAIN) as url,
            pytest.raises(OSError, match="address already in use"),
            serving(PLAIN, port=int(url.rpartition(":")[2])),
        ):
            pass

    def test_a_server_in_a_process_of_its_own_answers_the_same(self) -> None:
        settings = SimulatedSettings(error_high=0.9, liars={"eve": 0.5})
        with serving_subprocess(settings) as url:
            assert post(url, body_of(n=5)).texts == [reply(PROMPT, seed, settings) for seed in range(5)]
        assert not can_connect(url)

    def test_a_server_in_a_process_of_its_own_dies_with_its_parent(self) -> None:
        code = (
            "import sys, time\n"
            "from pipelines.engines.simulated import SimulatedSettings, serving_subprocess\n"
            "with serving_subprocess(SimulatedSettings()) as url:\n"
            "    sys.stdout.write(url + '\\n'); sys.stdout.flush(); time.sleep(60)\n"
        )
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdout is not None
            url = parent.stdout.readline().strip()
            assert can_connect(url)
            parent.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 5
        while can_connect(url) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not can_connect(url)

    def test_the_command_line_names_a_bad_setting(self) -> None:
        command = [sys.executable, "-m", "pipelines.engines.simulated.server", "--settings", '{"slots": 0}']
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].endswith("error: settings of the simulated engine: need slots >= 1, got 0")

"""Several URLs of which one is dead, and one URL that goes away and comes back."""

import asyncio
import contextlib
import time
from collections import Counter

import pytest
from aiohttp import web

from pipelines.engines import hosts, serve
from pipelines.engines.base import EngineUnavailable
from pipelines.engines.hosts import Hosts
from pipelines.engines.settings import Limits, LlamaCpp, Simulated, Vllm
from pipelines.engines.simulated import SimulatedSettings, serving
from pipelines.main import main
from tests.engines.ports import held_port, listening_on
from tests.engines.test_http import Counting, Script, application, client, listening, status, wish

PROMPTS = [f"Q{i}|" for i in range(40)]


def home_of(prompt: str, *urls: str) -> str:
    return Hosts(urls, Limits()).choose(prompt, {}, pinned=True).url


def test_pinned_prompts_stay_where_they_are_however_busy_it_is_there_and_others_go_where_least_is_to_do():
    async def places(pinned):
        hosts = Hosts(("http://a", "http://b", "http://c"), Limits(max_in_flight=4))
        async with contextlib.AsyncExitStack() as taken:
            chosen = []
            for _ in range(9):
                host = hosts.choose("the same prompt", {}, pinned=pinned)
                if len(chosen) < 4 or not pinned:
                    await taken.enter_async_context(host.limiter.place())
                chosen.append(host.url)
            return chosen

    assert len(set(asyncio.run(places(pinned=True)))) == 1
    assert Counter(asyncio.run(places(pinned=False))) == {"http://a": 3, "http://b": 3, "http://c": 3}


def test_when_a_url_is_added_only_the_prompts_that_go_there_move():
    two, three = ("http://a", "http://b"), ("http://a", "http://b", "http://c")
    moved = [prompt for prompt in PROMPTS if home_of(prompt, *two) != home_of(prompt, *three)]
    assert moved == [prompt for prompt in PROMPTS if home_of(prompt, *three) == "http://c"]
    assert 0 < len(moved) < 40


def test_a_dead_url_among_two_costs_no_prompt_a_single_attempt():
    living = Counting(0)

    async def work():
        with held_port() as (_, dead):
            async with listening(living) as url, client(dead, url, max_attempts=1) as engine:
                assert {home_of(prompt, dead, url) for prompt in PROMPTS} == {dead, url}
                return await asyncio.gather(*(engine.complete(wish(prompt)) for prompt in PROMPTS))

    assert len(asyncio.run(work())) == 40
    assert set(living.prompts) == {f"Q{i}" for i in range(40)}


def test_a_url_that_comes_back_gets_its_own_prompts_again():
    living, back = Counting(0), Counting(0)

    async def work():
        with held_port() as (held, gone):
            async with listening(living) as url, client(gone, url, max_attempts=1) as engine:
                for prompt in PROMPTS:
                    await engine.complete(wish(prompt))
                assert living.arrivals == 40
                async with listening_on(held, application(back)):
                    await asyncio.sleep(1.3)  # The scout looks once a second at least.
                    for prompt in PROMPTS:
                        await engine.complete(wish(prompt))
                return [prompt for prompt in PROMPTS if home_of(prompt, gone, url) == gone]

    own = asyncio.run(work())
    assert 0 < len(own) < 40
    assert set(back.prompts) == {prompt.rstrip("|") for prompt in own}
    assert living.arrivals == 80 - len(own)


def test_one_server_that_is_away_is_waited_for_longer_than_bad_luck():
    # Without waiting for it, the second and last attempt would come after 0.5 s at most.
    async def work():
        with held_port() as (held, url):
            async with client(url, max_attempts=2, max_wait_secs=20.0) as engine:
                began = time.monotonic()
                asked = asyncio.create_task(engine.complete(wish()))
                await asyncio.sleep(1.2)
                async with listening_on(held, application(Script())):
                    reply = await asyncio.wait_for(asked, 10)
                return reply, time.monotonic() - began

    reply, seconds = asyncio.run(work())
    assert reply.samples[0].text == "hello"
    assert 1.2 <= seconds < 4  # Found within about a second, not after the 20 it would have waited.


def test_one_that_drops_every_connection_is_away_too():
    class Drops(Script):
        """Closes connections until it is well again, also those of whoever only asks how it is."""

        is_well = False

        async def __call__(self, request: web.Request) -> web.StreamResponse:
            return await super().__call__(request) if self.is_well else self.drop(request)

        async def health(self, request: web.Request) -> web.StreamResponse:
            return web.Response() if self.is_well else self.drop(request)

        def drop(self, request: web.Request) -> web.StreamResponse:
            request.transport.abort()
            return web.Response(status=503)

    drops = Drops()

    async def work():
        app = application(drops)
        app.router.add_get("/health", drops.health)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with client(f"http://127.0.0.1:{runner.addresses[0][1]}", max_attempts=2, max_wait_secs=20.0) as engine:
            asked = asyncio.create_task(engine.complete(wish()))
            await asyncio.sleep(1.0)
            assert not asked.done()
            drops.is_well = True
            reply = await asyncio.wait_for(asked, 5)
        await runner.cleanup()
        return reply

    assert asyncio.run(work()).samples[0].text == "hello"
    assert len(drops.bodies) == 1


class Deaf(Counting):
    """Takes every request and answers none until it is well again; by its words also whoever asks how it is."""

    def __init__(self, *silent: str) -> None:
        super().__init__(0)
        self.silent = silent
        self.asked: list[str] = []

    async def all(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        if request.path in self.silent:
            await asyncio.sleep(60)
        if request.method == "POST":
            return await self(request)
        return web.Response(status=404 if request.path == "/health" else 200)


@contextlib.asynccontextmanager
async def deaf_to(*paths: str):
    """A server that is silent about some paths, and its URL."""
    server = Deaf(*paths)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.all)
    with held_port() as (held, url):
        async with listening_on(held, app):
            yield server, url


HEALTH, MODELS, COMPLETIONS = "/health", "/v1/models", "/v1/completions"


@pytest.mark.parametrize("silent", [(HEALTH, COMPLETIONS), (MODELS, COMPLETIONS)], ids=["health", "models"])
def test_a_server_that_hangs_is_left_by_all_prompts_after_the_first_that_waited(silent, monkeypatch):
    monkeypatch.setattr(hosts, "_ANSWER_SECS", 0.2)
    well = Counting(0)

    async def work():
        async with (
            deaf_to(*silent) as (deaf, hung),
            listening(well) as url,
            client(hung, url, max_attempts=1, read_timeout_secs=0.5) as engine,
        ):
            own = [prompt for prompt in PROMPTS if home_of(prompt, hung, url) == hung]
            for prompt in PROMPTS:
                await engine.complete(wish(prompt, pinned=True))
            waited, there = deaf.asked.count(COMPLETIONS), well.arrivals
            # Let in and not answered, time and again, is no sign of life; an answer is.
            await asyncio.sleep(1.5)
            assert deaf.asked.count(silent[0]) >= 3
            await engine.complete(wish(own[0], pinned=True))
            assert deaf.asked.count(COMPLETIONS) == waited
            deaf.silent = ()
            await asyncio.sleep(1.3)  # The scout looks once a second at least.
            await engine.complete(wish(own[0], pinned=True))
            return len(own), waited, there, deaf.asked.count(COMPLETIONS)

    own, waited, there, at_the_end = asyncio.run(work())
    assert own > 1
    assert (waited, there, at_the_end) == (1, 40, 2)


def test_a_server_that_is_only_slow_is_not_left(monkeypatch):
    async def work():
        async with (
            deaf_to(COMPLETIONS) as (slow, url),
            listening(Counting(0)) as other,
            client(url, other, max_attempts=2, read_timeout_secs=0.3) as engine,
        ):
            first, second = [prompt for prompt in PROMPTS if home_of(prompt, url, other) == url][:2]
            await engine.complete(wish(first, pinned=True))
            slow.silent = ()
            await engine.complete(wish(second, pinned=True))
            return slow.asked

    # It has no /health, and says so: its models are there. Only the prompt that it failed goes elsewhere.
    assert asyncio.run(work()) == [COMPLETIONS, HEALTH, MODELS, COMPLETIONS]


def test_a_server_that_stays_away_is_given_up_after_the_longest_pauses():
    async def work():
        with held_port() as (_, url):
            async with client(url, max_attempts=3, max_wait_secs=0.4) as engine:
                began = time.monotonic()
                with pytest.raises(EngineUnavailable, match="ClientConnectorError") as caught:
                    await engine.complete(wish())
                return caught.value.attempts, time.monotonic() - began

    attempts, seconds = asyncio.run(work())
    assert attempts == 3
    assert 0.8 <= seconds < 2  # Two pauses of 0.4 s.


def test_a_prompt_whose_server_fails_it_goes_to_the_next():
    async def work():
        async with contextlib.AsyncExitStack() as stack:
            sick, well = Script(*[status(500)] * 200), Counting(0)
            urls = [await stack.enter_async_context(listening(server)) for server in (sick, well)]
            engine = await stack.enter_async_context(client(*urls, max_attempts=2))
            await asyncio.gather(*(engine.complete(wish(prompt, pinned=True)) for prompt in PROMPTS))
            return sum(home_of(prompt, *urls) == urls[0] for prompt in PROMPTS), len(sick.bodies), well.arrivals

    at_home, failed, answered = asyncio.run(work())
    assert failed == at_home > 0
    assert answered == 40


def test_a_server_that_fails_everything_at_once_does_not_draw_the_prompts_back_that_it_failed():
    async def work():
        async with contextlib.AsyncExitStack() as stack:
            sick, well = Script(*[status(500)] * 200), Counting(0)
            urls = [await stack.enter_async_context(listening(server)) for server in (sick, well)]
            engine = await stack.enter_async_context(client(*urls, max_attempts=2))
            await asyncio.gather(*(engine.complete(wish(prompt)) for prompt in PROMPTS))
            return well.arrivals

    assert asyncio.run(work()) == 40


def test_a_prompt_whose_server_is_only_busy_stays_there():
    async def work():
        async with contextlib.AsyncExitStack() as stack:
            servers = [Script(status(429, Retry_After="0")), Script(status(429, Retry_After="0"))]
            urls = [await stack.enter_async_context(listening(server)) for server in servers]
            engine = await stack.enter_async_context(client(*urls))
            await engine.complete(wish("Q"))
            home = urls.index(home_of("Q", *urls))
            return len(servers[home].bodies), len(servers[1 - home].bodies)

    assert asyncio.run(work()) == (2, 0)


URLS = "http://a:1/, ,http://b:2,"


@pytest.mark.parametrize("settings", [Simulated(url=URLS), LlamaCpp(url=URLS, model="m")], ids=["simulated", "llama"])
def test_every_engine_takes_several_urls(settings):
    with serve(settings) as endpoint:
        assert endpoint.urls == ("http://a:1", "http://b:2")


@pytest.mark.parametrize("url", [",", " , "])
def test_commas_alone_are_no_url(url):
    with pytest.raises(ValueError, match="url must start with http:// or https://, got ''"):
        Vllm(url=url, model="m")


def test_doctor_asks_every_url(capsys):
    with held_port() as (_, dead), serving(SimulatedSettings()) as url:
        overrides = ["problems=simulated", "engine=vllm", f'engine.url="{dead},{url}"', "engine.model=simulated"]
        began = time.monotonic()
        assert main(["doctor", *overrides]) == 1
    assert time.monotonic() - began < 25  # Nor does it wait for a server to come back, 30 s by default.
    rows = [line for line in capsys.readouterr().out.splitlines() if "run: engine" in line]
    assert [("ok" in row, "no" in row) for row in rows] == [(False, True), (True, False)]

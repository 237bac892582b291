import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from pipelines.engines.base import BadReply, EngineLost, EngineUnavailable, Reply, Request, Sampling
from pipelines.engines.dialects import Dialect
from pipelines.engines.http import HttpEngine
from pipelines.engines.settings import Limits
from pipelines.engines.simulated import SimulatedSettings, make_problem, serving
from pipelines.errors import UserError
from schemas import digest
from tests.engines.ports import held_port, listening_on

SAMPLING = Sampling(max_tokens=64, temperature=1.0)
QUICK = {"max_attempts": 4, "max_wait_secs": 0.02, "connect_timeout_secs": 2.0, "read_timeout_secs": 5.0}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def wish(prompt: str = "Q", num_samples: int = 1, **fields) -> Request:
    return Request(**{"prompt": prompt, "sampling": SAMPLING, "num_samples": num_samples} | fields)


def good(text: str = "hello", n: int = 1) -> web.Response:
    choices = [{"index": i, "text": text, "finish_reason": "stop"} for i in range(n)]
    return web.json_response({"choices": choices, "usage": {"prompt_tokens": 3, "completion_tokens": 2 * n}})


class Script:
    """Answers with each response in turn, then with good ones; remembers the requests."""

    def __init__(self, *responses: Callable[[], web.Response]) -> None:
        self.responses = list(responses)
        self.bodies: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.times.append(time.monotonic())
        self.headers.append(dict(request.headers))
        self.bodies.append(json.loads(await request.read()))
        if self.responses:
            return self.responses.pop(0)()
        return good(n=self.bodies[-1]["n"])


def status(code: int, text: str = "", **headers: str) -> Callable[[], web.Response]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda: web.Response(status=code, text=text, headers=named)


def cut() -> web.Response:
    return web.Response(body=b'{"choices": [{"index": 0, "te', content_type="application/json")


def application(handler: Handler) -> web.Application:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await handler(request)

    app = web.Application()
    app.router.add_post("/v1/completions", handle)
    return app


@contextlib.asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[str]:
    runner = web.AppRunner(application(handler), handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def client(
    *urls: str, style: str = "raw", key_env: str = "", max_choices: int = 0, **limits
) -> AsyncIterator[HttpEngine]:
    engine = HttpEngine(
        urls=urls,
        model="m-7b",
        revision="r1",
        dialect=Dialect(kind="vllm", style=style, max_choices=max_choices),
        limits=Limits(**QUICK | limits),
        key_env=key_env,
    )
    try:
        yield engine
    finally:
        await engine.close()


def ask(handler: Handler, *requests: Request, **options) -> list[Reply | BaseException]:
    """The outcome of each request, all sent at once to one server."""

    async def work():
        async with listening(handler) as url, client(url, **options) as engine:
            sent = (engine.complete(request) for request in requests)
            return await asyncio.gather(*sent, return_exceptions=True)

    return asyncio.run(work())


def only(outcomes: list[Reply | BaseException]) -> Reply:
    (reply,) = outcomes
    assert isinstance(reply, Reply), reply
    return reply


def error_of(outcomes: list[Reply | BaseException]) -> BaseException:
    (error,) = outcomes
    assert isinstance(error, BaseException), error
    return error


def test_n_samples_are_one_request():
    script = Script()
    reply = only(ask(script, wish(num_samples=5, first_sample=3)))
    assert [sample.text for sample in reply.samples] == ["hello"] * 5
    assert reply.usage.requests == 1
    assert len(script.bodies) == 1
    assert script.bodies[0]["n"] == 5
    assert script.bodies[0]["model"] == "m-7b"
    assert script.bodies[0]["seed"] == wish().sample_seed(3)
    assert script.headers[0]["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    "trouble",
    [
        status(429),
        status(429, Retry_After="0"),
        status(429, Retry_After="Wed, 21 Oct 2065 07:28:00 GMT"),
        status(429, Retry_After="²"),
        status(500, "boom"),
        status(502),
        status(503),
        cut,
        lambda: web.Response(text="<html>"),
        lambda: web.json_response({"choices": []}),
        lambda: good(n=2),
    ],
    ids=["429", "429-0", "429-date", "429-odd", "500", "502", "503", "cut", "html", "empty", "wrong-n"],
)
def test_passing_trouble_is_tried_again(trouble):
    script = Script(trouble, trouble)
    reply = only(ask(script, wish()))
    assert reply.samples[0].text == "hello"
    assert len(script.bodies) == 3
    assert script.bodies[0] == script.bodies[1] == script.bodies[2]


def test_a_pause_is_as_long_as_the_server_asks():
    # Without being asked it would be at most half a second the first time.
    script = Script(status(429, Retry_After="0.8"))
    only(ask(script, wish(), max_wait_secs=5.0))
    assert 0.8 <= script.times[1] - script.times[0] < 4


def test_a_server_that_asks_for_no_pause_is_given_one_all_the_same():
    # Twenty pauses of up to 0.2 s take 2 s on average, with a standard deviation of 0.26 s.
    script = Script(*[status(429, Retry_After="0")] * 20)
    only(ask(script, wish(), max_wait_secs=0.2))
    assert script.times[20] - script.times[0] > 0.9


@pytest.mark.parametrize(
    ("code", "limits"),
    [(429, {"overload_secs": 0.3}), (503, {"overload_secs": 0.3}), (500, {"max_wait_secs": 0.3})],
)
def test_a_pause_is_never_longer_than_the_limit(code, limits):
    script = Script(status(code, Retry_After="3600"))
    only(ask(script, wish(), **limits))
    assert 0.25 <= script.times[1] - script.times[0] < 2


@pytest.mark.parametrize(
    ("trouble", "kind", "says"),
    [
        (status(500, "the GPU is gone"), EngineUnavailable, "HTTP 500: the GPU is gone"),
        (cut, BadReply, 'expected a completion as JSON, got b\'{"choices": [{"index": 0, "te\''),
    ],
)
def test_it_gives_up_after_max_attempts_and_says_which_request_and_how_often(trouble, kind, says):
    script = Script(*[trouble] * 9)
    error = error_of(ask(script, wish(), max_attempts=3))
    assert type(error) is kind
    assert says in str(error)
    assert error.attempts == 3
    assert error.request_digest == digest(wish())
    assert len(script.bodies) == 3


class Rate:
    """Answers so many requests in every window of time and says 429 to the others, as services with a limit do."""

    def __init__(self, number: int, seconds: float, *, tells: bool = True) -> None:
        self.number, self.seconds, self.tells = number, seconds, tells
        self.window = self.taken = self.refused = 0

    async def __call__(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        window, into = divmod(time.monotonic(), self.seconds)
        if window != self.window:
            self.window, self.taken = window, 0
        if self.taken >= self.number:
            self.refused += 1
            left = {"Retry-After": f"{self.seconds - into + 0.01:.3f}"} if self.tells else {}
            return web.Response(status=429, headers=left)
        self.taken += 1
        return good(n=body["n"])


@pytest.mark.parametrize("tells", [True, False], ids=["Retry-After", "bare"])
def test_a_server_that_takes_so_many_a_second_answers_everything_in_the_end(tells):
    # Forty at four a window take ten windows, hence up to ten refusals of one request; two attempts are enough.
    rate = Rate(4, 0.25, tells=tells)
    outcomes = ask(rate, *(wish(f"Q{i}") for i in range(40)), max_attempts=2, max_wait_secs=0.3)
    assert all(isinstance(outcome, Reply) for outcome in outcomes)
    if tells:
        # All at once in each window would be refused 36 + 32 + ... + 4 = 180 times. Halved places are refused 36, 28,
        # 12 and 4 times, then one or two in each of the windows that are left.
        assert rate.refused < 120


def test_all_wait_when_the_server_has_said_when_it_wants_to_be_asked_and_the_one_it_sent_away_goes_first():
    script = Script(status(429, Retry_After="0.6"))

    async def work():
        async with listening(script) as url, client(url, max_in_flight=2) as engine:
            first = asyncio.create_task(engine.complete(wish("A")))
            while not script.bodies:  # noqa: ASYNC110 - the server has no event for it
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.05)
            await asyncio.gather(first, *(engine.complete(wish(prompt)) for prompt in "BC"))

    asyncio.run(work())
    assert [body["prompt"] for body in script.bodies] == ["A", "A", "B", "C"]
    assert 0.6 <= script.times[1] - script.times[0] < 2


def test_a_server_without_room_for_anybody_is_borne_for_a_time_and_not_for_a_number_of_attempts():
    script = Script(*[status(429, "slow down")] * 10_000)

    async def work():
        async with listening(script) as url, client(url, max_attempts=3, overload_secs=0.5) as engine:
            errors = []
            for prompt in "ABC":
                began = time.monotonic()
                with pytest.raises(EngineUnavailable, match="HTTP 429: slow down") as caught:
                    await engine.complete(wish(prompt))
                errors.append((type(caught.value), caught.value.attempts, time.monotonic() - began))
            script.responses.clear()
            await engine.complete(wish("D"))
            script.responses += [status(429)] * 9
            await engine.complete(wish("E"))
            return errors

    (first, attempts, seconds), *later = asyncio.run(work())
    assert attempts > 3
    assert 0.5 <= seconds < 2
    # What it has not had room for in that time, it has none for now; the third in a row says that of the server.
    assert [(kind, attempts) for kind, attempts, _ in later] == [(EngineUnavailable, 1), (EngineLost, 1)]
    assert first is EngineUnavailable


def test_with_one_attempt_nothing_is_sent_again():
    script = Script(*[status(503, "later")] * 9)
    assert "later" in str(error_of(ask(script, wish(), max_attempts=1)))
    assert len(script.bodies) == 1


def test_a_server_that_is_gone_for_good_is_asked_once():
    script = Script(*[status(410, "it died")] * 9)
    error = error_of(ask(script, wish()))
    assert (type(error), error.attempts, len(script.bodies)) == (EngineLost, 1, 1)
    assert str(error).endswith("HTTP 410: it died")


def test_a_server_that_answers_is_there_whatever_is_said_of_its_health():
    script, seen = Script(good, status(500)), Counter()

    async def drops(request: web.Request) -> web.StreamResponse:
        seen["arrivals"] += 1
        if seen["arrivals"] > 1:
            return await script(request)
        request.transport.abort()
        return good()

    async def unwell(request: web.Request) -> web.Response:
        return web.Response(status=503)

    async def work():
        app = application(drops)
        app.router.add_get("/health", unwell)
        with held_port() as (held, url):
            async with listening_on(held, app), client(url, max_attempts=2, max_wait_secs=0.2) as engine:
                await engine.complete(wish("A"))
                await asyncio.sleep(0.4)  # Twice as long as one is waited for that is away.
                await engine.complete(wish("B"))

    asyncio.run(work())
    assert [body["prompt"] for body in script.bodies] == ["A", "B", "B"]


def test_one_that_comes_late_into_an_outage_waits_for_what_is_left_of_it():
    async def work():
        with held_port() as (_, url):
            async with client(url, max_attempts=3, max_wait_secs=0.5) as engine:
                began = time.monotonic()
                first = asyncio.create_task(engine.complete(wish("A")))
                await asyncio.sleep(0.8)
                late = asyncio.create_task(engine.complete(wish("B")))
                outcomes = await asyncio.gather(first, late, return_exceptions=True)
                return [type(outcome) for outcome in outcomes], time.monotonic() - began

    kinds, seconds = asyncio.run(work())
    assert kinds == [EngineLost, EngineLost]
    assert 1.0 <= seconds < 1.5


def test_one_url_of_two_without_room_for_long_gives_its_prompts_to_the_other():
    async def work():
        async with contextlib.AsyncExitStack() as stack:
            full, well = Script(*[status(429)] * 10_000), Counting(0)
            urls = [await stack.enter_async_context(listening(server)) for server in (full, well)]
            engine = await stack.enter_async_context(client(*urls, max_attempts=2, overload_secs=0.2))
            prompts = [f"Q{i}|" for i in range(20)]
            await asyncio.gather(*(engine.complete(wish(prompt, pinned=True)) for prompt in prompts))
            return well.arrivals

    assert asyncio.run(work()) == 20


class Over(Exception):
    """Nothing may be sent any more."""


class Until:
    """A leave for so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    @property
    def seconds_left(self) -> float:
        return max(0.0, self.end - time.monotonic())

    def go_on(self) -> None:
        if not self.seconds_left:
            raise Over


def ask_until(handler: Handler | None, seconds: float, *prompts: str, **limits) -> tuple[list, float]:
    """The outcomes of requests for which there is leave for a time, and how long they took; None is a dead server."""

    async def work():
        async with contextlib.AsyncExitStack() as stack:
            if handler:
                url = await stack.enter_async_context(listening(handler))
            else:
                _, url = stack.enter_context(held_port())
            engine = await stack.enter_async_context(client(url, **limits))
            engine.leave = Until(seconds)
            began = time.monotonic()
            sent = (engine.complete(wish(prompt)) for prompt in prompts)
            outcomes = await asyncio.gather(*sent, return_exceptions=True)
            return outcomes, time.monotonic() - began

    return asyncio.run(work())


@pytest.mark.parametrize(
    "handler",
    [
        None,
        Script(*[status(500, Retry_After="20")] * 9),
        Script(*[status(429, Retry_After="20")] * 9),
        Script(*[status(503)] * 10_000),
    ],
    ids=["away", "500", "429", "503"],
)
def test_no_pause_is_longer_than_the_leave_and_nothing_is_sent_after_it(handler):
    outcomes, seconds = ask_until(handler, 0.5, "A", "B", max_wait_secs=30.0)
    assert [type(outcome) for outcome in outcomes] == [Over, Over]
    assert 0.4 <= seconds < 2


def test_what_is_at_the_server_when_the_leave_ends_is_waited_for_and_nothing_else_is_sent():
    slow = Counting(0.6)
    outcomes, _ = ask_until(slow, 0.2, *(f"Q{i}" for i in range(5)), max_in_flight=2)
    assert [isinstance(outcome, Reply) for outcome in outcomes] == [True, True, False, False, False]
    assert (slow.arrivals, [type(outcome) for outcome in outcomes[2:]]) == (2, [Over] * 3)


def test_a_last_attempt_that_fails_after_the_leave_is_no_failure_of_the_request():
    async def fails(request: web.Request) -> web.Response:
        await asyncio.sleep(0.4)
        return web.Response(status=500)

    outcomes, _ = ask_until(fails, 0.2, "A", max_attempts=1)
    assert [type(outcome) for outcome in outcomes] == [Over]


def test_a_refused_connection_is_tried_again_and_named():
    async def work(url):
        async with client(url, max_attempts=2) as engine:
            return await engine.complete(wish())

    with (
        held_port() as (_, url),
        pytest.raises(EngineUnavailable, match=rf"^{url}: ClientConnectorError: ") as caught,
    ):
        asyncio.run(work(url))
    assert caught.value.attempts == 2


def test_a_server_that_comes_back_is_asked_again():
    async def work():
        with held_port() as (held, url):
            async with client(url, max_attempts=200) as engine:
                asked = asyncio.create_task(engine.complete(wish()))
                await asyncio.sleep(0.15)
                assert not asked.done()
                async with listening_on(held, application(Script())):
                    return await asyncio.wait_for(asked, 5)

    assert asyncio.run(work()).samples[0].text == "hello"


def test_a_silent_server_is_given_up_after_the_read_timeout():
    class Silent:
        arrivals = 0

        async def __call__(self, request: web.Request) -> web.Response:
            self.arrivals += 1
            await asyncio.sleep(30)
            return good()

    silent = Silent()
    began = time.monotonic()
    error = error_of(ask(silent, wish(), read_timeout_secs=0.1, max_attempts=2))
    assert isinstance(error, EngineUnavailable)
    assert "Timeout" in str(error)
    assert (error.attempts, silent.arrivals) == (2, 2)
    assert time.monotonic() - began < 5


def test_a_reply_that_does_not_end_is_left_before_it_fills_the_memory(monkeypatch):
    monkeypatch.setattr("pipelines.engines.http._MOST_BYTES", 10_000)
    sent = Counter()

    async def endless(request: web.Request) -> web.StreamResponse:
        sent["arrivals"] += 1
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while sent["bytes"] < 10**9:
                await response.write(b" " * 1000)
                sent["bytes"] += 1000
        return response

    error = error_of(ask(endless, wish(), max_attempts=2))
    assert isinstance(error, BadReply)
    assert "got more than 10,000 bytes" in str(error)
    assert (error.attempts, sent["arrivals"]) == (2, 2)
    assert sent["bytes"] < 10**8  # What fits into the pipes in between.


def test_a_packed_reply_is_as_long_as_what_it_unpacks_to(monkeypatch):
    monkeypatch.setattr("pipelines.engines.http._MOST_BYTES", 10_000)

    async def bomb(request: web.Request) -> web.StreamResponse:
        response = web.Response(body=b" " * 1_000_000)
        response.enable_compression()
        return response

    assert isinstance(error_of(ask(bomb, wish(), max_attempts=1)), BadReply)


def test_a_connection_dropped_in_the_middle_of_an_answer_is_tried_again():
    seen = Counter()

    async def drops(request: web.Request) -> web.StreamResponse:
        seen["arrivals"] += 1
        if seen["arrivals"] > 1:
            return good()
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"choices"')
        request.transport.abort()
        return response

    assert only(ask(drops, wish())).samples[0].text == "hello"
    assert seen["arrivals"] == 2


@pytest.mark.parametrize("code", [400, 413, 422])
def test_a_refused_prompt_gives_samples_that_say_so_without_another_try(code):
    script = Script(*[status(code, "maximum context length is 1024 tokens")] * 5)
    reply = only(ask(script, wish(num_samples=3)))
    assert len(script.bodies) == 1
    assert len(reply.samples) == 3
    for sample in reply.samples:
        assert (sample.text, sample.tokens) == ("", 0)
        assert sample.error.endswith(f": HTTP {code}: maximum context length is 1024 tokens")
    assert (reply.usage.requests, reply.usage.samples) == (1, 0)


@pytest.mark.parametrize("code", [401, 403])
def test_a_refused_key_stops_everything_and_is_not_repeated(monkeypatch, code):
    monkeypatch.setenv("MY_KEY", "sk-canary-123")

    async def echoes(request: web.Request) -> web.Response:
        return web.Response(status=code, text=f"bad credentials: {request.headers['Authorization']}")

    error = error_of(ask(echoes, wish(), key_env="MY_KEY"))
    assert type(error) is UserError
    assert str(error).endswith(
        f": HTTP {code}: bad credentials: Bearer ***; give the right key in the environment variable MY_KEY"
    )


@pytest.mark.parametrize("code", [400, 500])
def test_a_key_that_the_server_repeats_is_in_no_message(monkeypatch, code):
    monkeypatch.setenv("MY_KEY", "sk-canary-123")

    async def echoes(request: web.Request) -> web.Response:
        return web.Response(status=code, text="x" * 290 + request.headers["Authorization"])

    (outcome,) = ask(echoes, wish(), key_env="MY_KEY", max_attempts=1)
    assert "x" * 290 in repr(outcome)
    assert "sk-c" not in repr(outcome)


def test_a_model_or_route_that_is_not_there_stops_everything():
    error = error_of(ask(Script(status(404, "The model does not exist")), wish()))
    assert type(error) is UserError
    assert str(error).endswith(
        ": HTTP 404: The model does not exist; check engine.url, which is without /v1, and engine.model"
    )


def test_the_key_comes_from_the_environment_and_goes_into_the_header_alone(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-canary-123")
    script = Script()
    only(ask(script, wish(), key_env="MY_KEY"))
    assert script.headers[0]["Authorization"] == "Bearer sk-canary-123"
    assert "sk-canary" not in json.dumps(script.bodies)


@pytest.mark.parametrize("key_env", ["", "NOT_SET_ANYWHERE"])
def test_without_a_key_none_is_sent(monkeypatch, key_env):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-123")
    script = Script()
    only(ask(script, wish(), key_env=key_env))
    assert "Authorization" not in script.headers[0]


class Counting:
    """Knows how many requests are inside at once."""

    def __init__(self, pause: float = 0.01) -> None:
        self.inside = self.peak = self.arrivals = 0
        self.pause = pause
        self.prompts: Counter[str] = Counter()

    async def __call__(self, request: web.Request) -> web.Response:
        self.inside += 1
        self.arrivals += 1
        self.peak = max(self.peak, self.inside)
        try:
            body = json.loads(await request.read())
            self.prompts[body["prompt"].split("|")[0]] += 1
            await asyncio.sleep(self.pause)
            return good(n=body["n"])
        finally:
            self.inside -= 1


def test_never_more_than_max_in_flight_and_all_places_are_used():
    counting = Counting()
    outcomes = ask(counting, *(wish(f"Q{i}") for i in range(60)), max_in_flight=7)
    assert all(isinstance(outcome, Reply) for outcome in outcomes)
    assert counting.arrivals == 60
    assert counting.peak == 7


def test_one_that_waits_for_its_next_attempt_holds_no_place():
    script = Script(status(500, Retry_After="0.6"))

    async def work():
        async with listening(script) as url, client(url, max_in_flight=1, max_wait_secs=5.0) as engine:
            first = asyncio.create_task(engine.complete(wish("A")))
            while not script.bodies:  # noqa: ASYNC110 - the server has no event for it
                await asyncio.sleep(0.005)
            await asyncio.wait_for(engine.complete(wish("B")), 0.5)
            assert not first.done()
            assert engine.in_flight == 0
            await first

    asyncio.run(work())


def test_requests_of_one_prompt_go_to_one_url_and_prompts_are_spread():
    servers = [Counting(0) for _ in range(3)]

    async def work():
        async with contextlib.AsyncExitStack() as stack:
            urls = [await stack.enter_async_context(listening(server)) for server in servers]
            engine = await stack.enter_async_context(client(*urls))
            requests = [wish(f"Q{i}|", prefix=f"Step {j}", pinned=True) for i in range(60) for j in range(3)]
            await asyncio.gather(*(engine.complete(request) for request in requests))

    asyncio.run(work())
    homes = Counter(prompt for server in servers for prompt in server.prompts)
    assert len(homes) == 60
    assert set(homes.values()) == {1}
    assert sum(server.arrivals for server in servers) == 180
    # 20 prompts each on average, standard deviation 3.7.
    assert all(5 <= len(server.prompts) <= 35 for server in servers)


def test_the_limit_is_for_each_url():
    servers = [Counting(0.05) for _ in range(2)]

    async def work():
        async with contextlib.AsyncExitStack() as stack:
            urls = [await stack.enter_async_context(listening(server)) for server in servers]
            engine = await stack.enter_async_context(client(*urls, max_in_flight=2))
            await asyncio.gather(*(engine.complete(wish(f"Q{i}|")) for i in range(24)))

    asyncio.run(work())
    assert [server.peak for server in servers] == [2, 2]


def test_complaints_reduce_what_is_in_flight():
    class Complains(Counting):
        """Takes four at a time and complains of every other one."""

        async def __call__(self, request: web.Request) -> web.Response:
            if self.inside >= 4:
                return web.Response(status=429, headers={"Retry-After": "0.02"})
            return await super().__call__(request)

    complains = Complains(0.02)
    outcomes = ask(complains, *(wish(f"Q{i}") for i in range(60)), max_in_flight=32, max_attempts=30)
    assert all(isinstance(outcome, Reply) for outcome in outcomes)
    assert complains.arrivals == 60


def test_what_the_engine_is_is_in_its_identity():
    async def work():
        async with client("http://127.0.0.1:1") as raw, client("http://127.0.0.1:2", style="chat") as chat:
            return raw.identity, chat.identity

    assert asyncio.run(work()) == ("m-7b@r1/raw", "m-7b@r1/chat")


FAULTS = {"fault_429": 0.1, "fault_429_bare": 0.1, "fault_500": 0.1, "fault_503": 0.1, "fault_cut": 0.1}
OTHER_FAULTS = {"fault_short": 0.1, "fault_empty": 0.1, "fault_schema": 0.1, "fault_slow": 0.05, "fault_hang": 0.05}


@pytest.mark.parametrize("faults", [FAULTS, OTHER_FAULTS], ids=["statuses", "bodies"])
def test_answers_through_a_faulty_server_are_those_of_a_sound_one(faults):
    world = SimulatedSettings(retry_after_seconds=0.01, slow_seconds=0.05, **faults)
    prompts = [f"Problem:\n{make_problem(0, i, world).question}\n\nSolution:\n" for i in range(40)]

    async def work(url: str):
        engine = HttpEngine(
            urls=(url,),
            model="simulated",
            revision="",
            dialect=Dialect(kind="simulated", style="raw"),
            limits=Limits(**QUICK | {"max_attempts": 40, "read_timeout_secs": 0.3}),
        )
        try:
            replies = await asyncio.gather(*(engine.complete(wish(prompt, 4)) for prompt in prompts))
            return [reply.samples for reply in replies]
        finally:
            await engine.close()

    with serving(SimulatedSettings()) as sound, serving(world) as faulty:
        assert asyncio.run(work(faulty)) == asyncio.run(work(sound))


def test_more_samples_than_a_server_takes_at_once_come_in_several_requests_with_their_own_seeds():
    asked = []

    async def counts(request: web.Request) -> web.Response:
        body = await request.json()
        asked.append((body["seed"], body["n"]))
        return good(str(body["seed"]), body["n"])

    whole = wish(num_samples=7, first_sample=3)
    reply = only(ask(counts, whole, max_choices=3))
    first = whole.sample_seed(3)
    assert sorted(asked) == [(first, 3), (first + 3, 3), (first + 6, 1)]
    assert [sample.text for sample in reply.samples] == [str(first)] * 3 + [str(first + 3)] * 3 + [str(first + 6)]
    assert (reply.usage.requests, reply.usage.samples) == (3, 7)

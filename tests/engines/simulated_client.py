"""A plain client of simulated servers, for tests."""

import asyncio
import time
from typing import Any

import aiohttp
import msgspec

from pipelines.engines.simulated import SimulatedSettings, make_problem

QUESTION = make_problem(0, 0, SimulatedSettings()).question
PROMPT = f"Problem:\n{QUESTION}\n\nSolution:\n"
PLAIN = SimulatedSettings()

Json = dict[str, Any]


class Got(msgspec.Struct):
    """One answer, read to its end."""

    status: int
    raw: bytes
    headers: dict[str, str]
    seconds: float

    @property
    def json(self) -> Json:
        body: Json = msgspec.json.decode(self.raw)
        return body

    @property
    def texts(self) -> list[str]:
        return [choice["text"] for choice in self.json["choices"]]


def body_of(prompt: str = PROMPT, **fields: object) -> Json:
    return {"model": "simulated", "prompt": prompt, **fields}


async def _post(session: aiohttp.ClientSession, url: str, body: Json | bytes) -> Got:
    start = time.monotonic()
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    async with session.post(url, data=data) as response:
        raw = await response.read()
        return Got(response.status, raw, dict(response.headers), time.monotonic() - start)


def post_all(url: str, bodies: list[Json], *, timeout: float = 20, path: str = "/v1/completions") -> list[Any]:
    """Sends all requests at once; answers and errors in the order of the requests."""

    async def send() -> list[Any]:
        connector = aiohttp.TCPConnector(limit=0)
        limits = aiohttp.ClientTimeout(total=timeout)
        async with aiohttp.ClientSession(connector=connector, timeout=limits) as session:
            sent = (_post(session, url + path, body) for body in bodies)
            return await asyncio.gather(*sent, return_exceptions=True)

    return asyncio.run(send())


def post(url: str, body: Json, *, timeout: float = 20, path: str = "/v1/completions") -> Got:
    (got,) = post_all(url, [body], timeout=timeout, path=path)
    if isinstance(got, BaseException):
        raise got
    assert isinstance(got, Got)
    return got


def chat(url: str, messages: list[tuple[str, str]], **fields: object) -> Got:
    turns = [{"role": role, "content": content} for role, content in messages]
    return post(url, {"model": "simulated", "messages": turns, **fields}, path="/v1/chat/completions")


def get(url: str) -> Json:
    async def fetch() -> Json:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            body: Json = msgspec.json.decode(await response.read())
            return body

    return asyncio.run(fetch())


def reset(url: str) -> None:
    post(url, {}, path="/reset")

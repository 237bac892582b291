"""A server that answers with whatever it likes."""

import asyncio

import pytest
from aiohttp import web

from pipelines.engines.base import EngineError, Request, Sampling
from pipelines.engines.dialects import Dialect
from pipelines.engines.http import HttpEngine
from pipelines.engines.settings import Limits

REQUEST = Request(prompt="p", sampling=Sampling(max_tokens=9, temperature=0.5))


def ask(body: bytes, *, status: int = 200):
    """The engine's reply to this body."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body, status=status, content_type="application/json")

    async def talk():
        app = web.Application()
        app.router.add_post("/v1/completions", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        engine = HttpEngine(
            urls=(f"http://127.0.0.1:{port}",),
            model="m",
            revision="",
            dialect=Dialect(kind="vllm", style="raw"),
            limits=Limits(max_attempts=1),
        )
        try:
            return await engine.complete(REQUEST)
        finally:
            await engine.close()
            await runner.cleanup()

    return asyncio.run(talk())


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (rb"a\ud83d", "a\ufffd"),
        (rb"\udc00b", "\ufffdb"),
        (rb"\u0000\u001b[2J", "\x00\x1b[2J"),
        (b"x" * (1 << 20), "x" * (1 << 20)),
        (rb"<|im_end|>", "<|im_end|>"),
    ],
)
def test_a_text_comes_whole(text, read):
    (sample,) = ask(b'{"choices":[{"index":0,"text":"' + text + b'"}]}').samples
    assert sample.text == read


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[" * 300_000,
        b'{"choices":' + b"[" * 300_000,
        b'{"x":' * 100_000,
        b'{"choices":[{"text":"a","index":' + b"9" * 100_000 + b"}]}",
        b'{"choices":[{"text":"a\xff"}]}',
        b'{"choices":[{"text":null}]}',
        b'{"choices":[]}',
        b'{"choices":[{"text":"a"}],"usage":{"completion_tokens":1e999}}',
        b"\x1f\x8b nonsense",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_no_completion_is_an_error_of_the_engine(body):
    with pytest.raises(EngineError) as caught:
        ask(body)
    assert len(str(caught.value)) < 2000
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("status", [400, 500])
def test_a_complaint_is_cut(status):
    body = b"\x1b[2J" + b"<script>" * 100_000
    if status == 400:
        (sample,) = ask(body, status=status).samples
        said = sample.error
    else:
        with pytest.raises(EngineError) as caught:
            ask(body, status=status)
        said = str(caught.value)
    assert len(said) < 500

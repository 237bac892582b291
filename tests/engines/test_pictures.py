"""Images on their way to a model: content parts, journal keys, and what is made of an image once."""

import asyncio
import base64
import contextlib
import hashlib
import json

import msgspec
import pytest
from aiohttp import web

from pipelines.engines.base import Request, Sampling
from pipelines.engines.dialects import Dialect, word_request
from pipelines.engines.http import HttpEngine
from pipelines.engines.pictures import PictureCache, data_url, picture_digest
from pipelines.engines.settings import Limits, LlamaCpp, Scripted, Server, Simulated, Vllm, sees_images
from pipelines.errors import UserError
from schemas import Image, digest

PNG = Image(bytes=b"\x89PNG\r\n\x1a\n123", media_type="image/png")
WEBP = Image(bytes=b"RIFF1234WEBP", media_type="image/webp")
SEEING = Dialect(kind="vllm", style="chat", images=True)


def request(**fields) -> Request:
    return Request(**{"prompt": "How many?\n", "sampling": Sampling(max_tokens=9, temperature=1.0)} | fields)


def test_images_are_parts_of_the_users_turn_before_the_text():
    worded = word_request(request(images=(PNG, WEBP), prefix="Step 1:"), SEEING, "m")
    # printf '\x89PNG\r\n\x1a\n123' | base64, and the same of RIFF1234WEBP
    assert worded["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgoxMjM="}},
                {"type": "image_url", "image_url": {"url": "data:image/webp;base64,UklGRjEyMzRXRUJQ"}},
                {"type": "text", "text": "How many?\n"},
            ],
        },
        {"role": "assistant", "content": "Step 1:"},
    ]


def test_the_bytes_on_the_wire_are_those_parts():
    bodies: list[tuple[str, bytes]] = []

    async def answer(arrived: web.Request) -> web.Response:
        bodies.append((arrived.path, await arrived.read()))
        choice = {"index": 0, "message": {"content": "7"}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice]})

    async def ask() -> str:
        app = web.Application()
        app.router.add_post("/{path:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            engine = HttpEngine(urls=(url,), model="m", revision="", dialect=SEEING, limits=Limits())
            stack.push_async_callback(engine.close)
            return (await engine.complete(request(images=(PNG,)))).samples[0].text

    assert asyncio.run(ask()) == "7"
    ((path, body),) = bodies
    assert path == "/v1/chat/completions"
    assert (
        b'"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,'
        b'iVBORw0KGgoxMjM="}},{"type":"text","text":"How many?\\n"}]}]'
    ) in body
    url = json.loads(body)["messages"][0]["content"][0]["image_url"]["url"]
    assert base64.b64decode(url.partition(",")[2]) == PNG.bytes


@pytest.mark.parametrize(
    "dialect",
    [
        Dialect(kind="vllm", style="chat"),
        Dialect(kind="vllm", style="raw", images=True),
        Dialect(kind="vllm", style="templated", images=True),
        Dialect(kind="llama_cpp", style="raw"),
    ],
    ids=["blind", "raw", "templated", "llama_cpp"],
)
def test_a_request_with_images_is_refused_where_they_would_be_lost(dialect):
    with pytest.raises(UserError, match=r"is shown no images.*engine.style=chat engine.images=true"):
        word_request(request(images=(PNG,)), dialect, "m")


def test_the_simulated_server_is_shown_images_by_its_other_route():
    dialect = Dialect(kind="simulated", style="raw", images=True)
    assert dialect.putting(request()).path == "/v1/completions"
    assert dialect.putting(request(images=(PNG,))).path == "/v1/chat/completions"


def test_without_images_keys_and_seeds_are_what_they_always_were():
    plain = request(seed=3)
    name = digest("sample", "m", "How many?\n", "", plain.sampling, "", 3)
    base = int(digest("seed", 3, "How many?\n", "", plain.sampling, "")[:8], 16)
    assert plain.keys("m") == [f"{name}/0"]
    assert plain.sample_seed(5) == (base + 5) % 2**31
    assert plain.subject == plain.prompt


def test_other_images_and_another_order_are_other_requests():
    asked = [request(), *(request(images=images) for images in ((PNG,), (WEBP,), (PNG, WEBP), (WEBP, PNG)))]
    assert len({each.keys("m")[0] for each in asked}) == len(asked)
    assert len({each.sample_seed(0) for each in asked}) == len(asked)
    assert len({each.subject for each in asked}) == len(asked)


def test_a_key_holds_an_image_by_its_files_digest_alone():
    same = msgspec.structs.replace(PNG, media_type="image/x-png")
    assert request(images=(PNG,)).keys("m") == request(images=(same,)).keys("m")


def test_what_is_made_of_an_image_is_made_once():
    cache = PictureCache()
    again = Image(bytes=bytes(bytearray(PNG.bytes)), media_type=PNG.media_type)
    assert cache.make(PNG) is cache.make(again)
    assert len(cache) == 1
    assert data_url(PNG) is data_url(again)
    assert picture_digest(PNG) == hashlib.sha256(PNG.bytes).hexdigest()


def test_images_not_shown_for_longest_are_forgotten():
    first, second, third = (Image(bytes=bytes([i]) * 300, media_type="image/png") for i in range(3))
    # 300 bytes, 400 characters of base64 and the 22 of `data:image/png;base64,` each: two fit into 1,444.
    cache = PictureCache(max_bytes=1444)
    kept = cache.make(first)
    cache.make(second)
    assert cache.make(first) is kept
    cache.make(third)
    assert len(cache) == 2
    assert cache.make(first) is kept


def test_an_image_larger_than_the_cache_is_made_and_not_kept():
    cache = PictureCache(max_bytes=10)
    assert cache.make(PNG).url.endswith("iVBORw0KGgoxMjM=")
    assert len(cache) == 0


def test_engines_see_images_where_their_settings_say_so():
    seeing = Server(url="http://127.0.0.1:1", model="m", images=True)
    assert sees_images(seeing)
    assert sees_images(Simulated())
    blind = (Server(url="http://127.0.0.1:1", model="m"), LlamaCpp(style="chat"), Scripted(), Vllm(model="m"))
    assert not any(map(sees_images, blind))


@pytest.mark.parametrize("style", ["raw", "templated"])
def test_plain_text_holds_no_images(style):
    with pytest.raises(ValueError, match="images=true needs style=chat"):
        Vllm(model="m", style=style, images=True)

"""Secrets that must turn up nowhere, a search for them, and a server that says them at every opportunity."""

import asyncio
import base64
import contextlib
import gzip
import json
import sqlite3
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pyarrow.parquet as pq
from aiohttp import web

KEY = "sk-Canary/0+4711=abcdefXYZ"
"""With characters that URLs and JSON spell in several ways."""
OTHERS = {"HF_TOKEN": "hf_canaryOfTheHub12345", "AWS_SECRET_ACCESS_KEY": "canary/of/the/cloud/12345"}
"""What else is in the environment and none of a run's business."""


def spellings(secret: str) -> list[bytes]:
    """As it is, in URLs, in JSON, and in base64 by itself and behind `Bearer `."""
    coded = [base64.b64encode(text.encode()).decode().rstrip("=")[:-1] for text in (secret, f"Bearer {secret}")]
    plain = [secret, urllib.parse.quote(secret, safe=""), urllib.parse.quote(secret), *coded]
    return [text.encode() for text in dict.fromkeys(plain + [text.replace("/", "\\/") for text in plain])]


def contents(path: Path) -> bytes:
    """A file's bytes, and what is packed in them: the values of a table, of a database, of an archive."""
    raw = path.read_bytes()
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        raw += repr((table.to_pylist(), table.schema.metadata)).encode() + json.dumps(table.to_pylist()).encode()
    if raw.startswith(b"SQLite format 3"):
        with contextlib.closing(sqlite3.connect(path)) as connection:
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for name in tables:
                for row in connection.execute(f"SELECT * FROM {name}").fetchall():
                    raw += b"\n".join(value if isinstance(value, bytes) else str(value).encode() for value in row)
    if raw.startswith(b"\x1f\x8b"):
        raw += gzip.decompress(raw)
    return raw


def found_in(content: bytes) -> list[str]:
    """The secrets that a text holds in any spelling."""
    secrets = {"KEY": KEY} | OTHERS
    return [name for name, secret in secrets.items() if any(each in content for each in spellings(secret))]


def leaks(folder: Path) -> dict[str, list[str]]:
    """Files under a folder that hold a secret."""
    files = {str(path.relative_to(folder)): found_in(contents(path)) for path in folder.rglob("*") if path.is_file()}
    return {name: secrets for name, secrets in files.items() if secrets}


class Gossip:
    """A server that wants the key, lets another one answer, and repeats the key in whatever it says itself."""

    def __init__(self, behind: str, trouble: str) -> None:
        self._behind = behind
        self._trouble = trouble
        self.asked = 0
        self.told = 0
        """Times the key was repeated."""

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Answers, or is the trouble that was wanted."""
        if request.path == "/health":
            return web.Response(text="ok")
        self.asked += 1
        header = request.headers.get("Authorization", "none")
        coded = base64.b64encode(header.encode()).decode()
        said = f"{'x' * (280 - self.asked % 40)} {header} {urllib.parse.quote(header)} {coded}"
        if header != f"Bearer {KEY}":
            return web.Response(status=401, text=f"not the key: {said}")
        if self._trouble:
            self.told += 1
            return self._make_trouble(request, said)
        body = await request.read()
        if self.asked % 11 == 5:
            self.told += 1
            return web.Response(status=500 if self.asked % 2 else 400, text=said)
        async with aiohttp.ClientSession() as session, session.post(self._behind + request.path, data=body) as answer:
            reply = await answer.json()
        if self.asked % 4 == 0:
            self.told += 1
            for choice in reply.get("choices", ()):
                choice["text"] += f" My key is {header}, in other words {coded} or {urllib.parse.quote(KEY, safe='')}."
        text = json.dumps(reply)
        if self.asked % 3 == 0:  # JSON may spell any character so.
            text = text.replace("Canary/", "\\u0043anary\\/")
        if self.asked % 13 == 7:
            text = text[: text.index('"choices"') + 20] + f" {header}"
        return web.Response(text=text, content_type="application/json")

    def _make_trouble(self, request: web.Request, said: str) -> web.StreamResponse:
        if self._trouble == "redirect":
            place = f"{self._behind}/other?key={urllib.parse.quote(KEY)}"
            return web.Response(status=307, text=said, headers={"Location": place})
        if self._trouble == "bad header":
            assert request.transport
            request.transport.write(f"HTTP/1.1 200 OK\r\nX Said: {request.headers['Authorization']}\r\n\r\n".encode())
            request.transport.close()
            return web.Response()
        if self._trouble == "cut":
            return web.Response(text=f'{{"choices": [{{"text": "{said}')
        return web.Response(status=int(self._trouble), text=said)


@contextlib.contextmanager
def gossiping(behind: str = "", trouble: str = "") -> Iterator[tuple[str, Gossip]]:
    """Such a server in a thread of its own, and its URL."""
    loop, gossip = asyncio.new_event_loop(), Gossip(behind, trouble)

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", gossip.__call__)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runner = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", gossip
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

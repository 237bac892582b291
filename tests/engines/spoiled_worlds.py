"""The simulated server with one thing wrong about it: what servers are found to do that do not keep to the contract."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from pipelines.engines.simulated import SimulatedSettings
from pipelines.engines.simulated.app import SimulatedServer

Before = Callable[[dict[str, Any]], None]
"""Changes a request before it is answered, or raises what it is answered with instead."""
After = Callable[[dict[str, Any], dict[str, Any]], None]
"""Changes a reply, with the request that it answers."""


class World:
    """A server in a thread of its own. `bodies` are the completions that it was asked for, `listings` of its models."""

    def __init__(self, before: Before | None, after: After | None, models: object) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.listings = 0
        self.url = ""
        self._before, self._after, self._models = before, after, models
        self._ready, self._loop, self._end = threading.Event(), asyncio.new_event_loop(), asyncio.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(20)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        app = SimulatedServer(SimulatedSettings()).application()

        @web.middleware
        async def spoil(request: web.Request, handler: Callable[..., Any]) -> web.StreamResponse:
            return await self._spoil(request, handler)

        app.middlewares.append(spoil)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        await self._end.wait()
        await runner.cleanup()

    async def _spoil(self, request: web.Request, handler: Callable[..., Any]) -> web.StreamResponse:
        if request.path == "/v1/models":
            self.listings += 1
            return await handler(request) if self._models is None else web.json_response(self._models)
        if request.method != "POST":
            return await handler(request)
        body = await request.json()
        self.bodies.append(json.loads(json.dumps(body)))
        try:
            if self._before:
                self._before(body)
        except Refused as refused:
            return web.json_response({"error": {"message": refused.args[1]}}, status=refused.args[0])
        if body.get("hang"):
            await asyncio.sleep(60)
        request._read_bytes = json.dumps(body).encode()
        answer = await handler(request)
        if self._after is None or answer.status != 200:
            return answer
        reply = json.loads(answer.body)
        self._after(body, reply)
        return web.json_response(reply)


class Refused(Exception):
    """An answer instead: status and message."""


@contextmanager
def spoiled(before: Before | None = None, after: After | None = None, models: object = None) -> Iterator[World]:
    """A world for as long as the context lasts.

    Args:
      before: what is done to requests.
      after: what is done to replies.
      models: what `/v1/models` says; None leaves that to the simulated server.
    """
    world = World(before, after, models)
    try:
        yield world
    finally:
        world.close()


def refuses_continuation(body: dict[str, Any]) -> None:
    """As OpenAI's own service does with a field it does not know."""
    if "continue_final_message" in body:
        raise Refused(400, "Unrecognized request argument supplied: continue_final_message")


def begins_anew(body: dict[str, Any]) -> None:
    """As services do that know no begun turn: the last one is dropped, and the user's answered."""
    if body.pop("continue_final_message", False):
        del body["add_generation_prompt"]
        body["messages"] = [turn for turn in body["messages"] if turn["role"] == "user"]

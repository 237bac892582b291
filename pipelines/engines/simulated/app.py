"""The HTTP application: the OpenAI routes over the world, with slots, latency and faults.

What is answered is decided by `replies` alone; this module decides when, and whether at all.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web

from pipelines.engines.simulated import certainty
from pipelines.engines.simulated.accounting import PrefixCache, SlotPlan, Stats
from pipelines.engines.simulated.faults import FaultPlan
from pipelines.engines.simulated.prompts import Prompt, PromptError, parse_prompt
from pipelines.engines.simulated.replies import (
    CHARS_A_PROMPT_TOKEN,
    Reply,
    cut,
    look,
    prompt_tokens,
    reply_to,
    simulated_length,
    text_digest,
    tokenize,
    told_apart,
    with_thoughts,
)
from pipelines.engines.simulated.settings import SimulatedSettings
from pipelines.engines.simulated.wire import (
    Refusal,
    Wish,
    read_wish,
    write_error,
    write_json,
    write_replies,
)

MAX_BODY_BYTES = 64 * 2**20
"""Longest request that is read."""


class SimulatedServer:
    """One simulated server. A client that leaves frees no slot: its samples are generated to their end."""

    def __init__(self, settings: SimulatedSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self._clock = clock
        self._plan = SlotPlan(settings.slots, clock())
        self._stats = Stats(clock())
        self._faults = FaultPlan(settings)
        self._cache = PrefixCache(settings.cache_block_chars, settings.cache_blocks) if settings.cache_blocks else None
        self._arrivals = 0
        self._outage_until = 0.0

    def application(self) -> web.Application:
        """The application with all its routes."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.add_routes(
            [
                web.post("/v1/completions", self._completions),
                web.post("/v1/chat/completions", self._chat_completions),
                web.get("/v1/models", self._models),
                web.get("/health", self._health),
                web.get("/stats", self._show_stats),
                web.post("/reset", self._reset),
            ]
        )
        return app

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._serve(request, is_chat=False)

    async def _chat_completions(self, request: web.Request) -> web.StreamResponse:
        return await self._serve(request, is_chat=True)

    async def _models(self, request: web.Request) -> web.StreamResponse:
        model = {"id": self.settings.model, "object": "model", "created": 0, "owned_by": "wrongturn"}
        return self._break_off(request) or _json({"object": "list", "data": [model]})

    async def _health(self, request: web.Request) -> web.StreamResponse:
        return self._break_off(request) or _json({"status": "ok"})

    async def _show_stats(self, _: web.Request) -> web.StreamResponse:
        return _json(self._stats.as_json(self._clock(), self._plan, self.settings.slots))

    async def _reset(self, _: web.Request) -> web.StreamResponse:
        """Starts the statistics anew; attempts, the outage and the prefix cache stay as they are."""
        self._plan.reset(self._clock())
        self._stats.reset(self._clock())
        return _json({"status": "ok"})

    async def _serve(self, request: web.Request, *, is_chat: bool) -> web.StreamResponse:
        self._stats.arrive(self._clock())
        self._arrivals += 1
        if self._arrivals == self.settings.outage_after:
            self._outage_until = self._clock() + self.settings.outage_seconds
        try:
            raw = await request.read()
            if broken := self._break_off(request):
                return broken
            wish = read_wish(raw, is_chat=is_chat, model=self.settings.model)
            answer = await self._answer(request, wish)
            return self._break_off(request) or answer
        except Refusal as refusal:
            return _error(refusal.status, str(refusal))
        finally:
            self._stats.leave(self._clock())

    def _break_off(self, request: web.Request) -> web.Response | None:
        """During an outage closes the connection; the response is then never sent."""
        if self._clock() >= self._outage_until:
            return None
        self._stats.faults["outage"] += 1
        return _close(request)

    async def _answer(self, request: web.Request, wish: Wish) -> web.StreamResponse:
        digest, seed = text_digest(wish.text, wish.pictures), wish.seed
        fault = self._faults.next_fault(digest, seed)
        if fault is not None:
            self._stats.faults[fault] += 1
            if (instead := await self._refuse(request, fault)) is not None:
                return instead
        replies = self._write(wish, digest, seed)
        body = await self._finish(wish, digest, seed, replies, fault)
        if fault == "cut":
            body = body[: len(body) // 2]
        elif fault == "schema":
            body = write_json({"object": "error report", "results": [len(replies)]})
        elif fault == "slow":
            return await self._trickle(request, body)
        return web.Response(body=body, content_type="application/json")

    async def _refuse(self, request: web.Request, fault: str) -> web.Response | None:
        """What a fault answers at once, without a slot; None for faults that spoil an answer."""
        match fault:
            case "429":
                return _error(429, "too many requests", {"Retry-After": f"{self.settings.retry_after_seconds:g}"})
            case "429_bare":
                return _error(429, "too many requests")
            case "500" | "poison":
                return _error(500, "internal error")
            case "503":
                return _error(503, "overloaded")
            case "too_long":
                return _error(400, "This model's maximum context length is shorter than this prompt.")
            case "hang":
                await asyncio.sleep(self.settings.hang_seconds)
                return _close(request)
        return None

    def _write(self, wish: Wish, digest: str, seed: int) -> list[Reply]:
        try:
            prompt = look(parse_prompt(wish.text), wish.pictures)
            texts = [self._text(prompt, digest, seed + index) for index in range(wish.num_choices)]
        except PromptError as error:
            raise Refusal(400, f"the simulated world cannot read this prompt: {error}") from None
        return [cut(text, wish.stop, wish.max_tokens) for text in texts]

    def _text(self, prompt: Prompt, digest: str, seed: int) -> str:
        return with_thoughts(reply_to(prompt, digest, seed, self.settings), prompt, digest, seed, self.settings)

    async def _finish(self, wish: Wish, digest: str, seed: int, replies: list[Reply], fault: str | None) -> bytes:
        """Holds slots for as long as the samples take, keeps the accounts, and writes the body."""
        settings, stats = self.settings, self._stats
        lengths = [reply.tokens for reply in replies]
        if settings.seconds_a_token > 0:
            lengths = [simulated_length(digest, seed + index, settings) for index in range(len(replies))]
        usage: dict[str, Any] = self._count_prompt(wish.text)
        stats.samples += len(replies)
        stats.completion_tokens += sum(lengths)
        usage |= {"completion_tokens": sum(lengths), "total_tokens": usage["prompt_tokens"] + sum(lengths)}
        if settings.has_latency:
            now = self._clock()
            holds = (settings.prefill_seconds + length * settings.seconds_a_token for length in lengths)
            await asyncio.sleep(self._plan.take(now, holds) - now)
        if fault in ("short", "empty"):
            replies = replies[:-1] if fault == "short" else []
        name = f"{digest[:16]}-{seed}"
        logprobs = [self._log_probabilities(wish, digest, seed + i, reply) for i, reply in enumerate(replies)]
        if wish.is_chat and settings.thoughts == "told":
            replies = [told_apart(reply) for reply in replies]
        return write_replies(wish, replies, name=name, model=settings.model, usage=usage, logprobs=logprobs)

    def _log_probabilities(self, wish: Wish, digest: str, seed: int, reply: Reply) -> dict[str, Any] | None:
        """Of a reply's tokens; None where they were not asked for."""
        if wish.logprobs is None:
            return None
        tokens, prompt = tokenize(reply.text), look(parse_prompt(wish.text), wish.pictures)
        doubted = certainty.doubts(prompt, digest, seed, len(tokens), self.settings)
        return certainty.worded(tokens, doubted, wish.logprobs, is_chat=wish.is_chat)

    def _count_prompt(self, text: str) -> dict[str, Any]:
        total = prompt_tokens(len(text))
        self._stats.prompt_tokens += total
        if self._cache is None:
            return {"prompt_tokens": total}
        cached = self._cache.add(text) // CHARS_A_PROMPT_TOKEN
        self._stats.cached_tokens += cached
        return {"prompt_tokens": total, "prompt_tokens_details": {"cached_tokens": cached}}

    async def _trickle(self, request: web.Request, body: bytes) -> web.StreamResponse:
        """Sends a body byte by byte, evenly over `slow_seconds`."""
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(body))})
        await response.prepare(request)
        start = self._clock()
        for index in range(len(body)):
            due = start + self.settings.slow_seconds * (index + 1) / len(body)
            await asyncio.sleep(max(0.0, due - self._clock()))
            await response.write(body[index : index + 1])
        await response.write_eof()
        return response


def _json(value: object) -> web.Response:
    return web.Response(body=write_json(value), content_type="application/json")


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = write_error(status, message)
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


def _close(request: web.Request) -> web.Response:
    """Drops the connection; aiohttp then has nowhere to send the response."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=503)

"""What `sglang-router` makes of our requests: where it sends them, and what the servers' prefix caches hold of them.

    python -m benchmarks.router [--python INTERPRETER] [--llama] [--out FILE]

Trees are grown as in `benchmarks.prefix_cache`, and what they ask is asked again in the same order, one token each, of
two servers: of one of them, of both by URL, and of both through the router under several of its policies. The servers
are started anew for each line, so that no line finds what another left. They are simulated ones, each with a cache for
the trees that grow at a time; with `--llama` two of llama.cpp, which get fewer trees. What comes in at each is counted
on the way. `--python` is the interpreter of an environment with sglang-router (a wheel that needs no GPU), this one
where none is given; where it has none, the router's lines are left out and it says so.
"""

import argparse
import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import aiohttp
import msgspec
from aiohttp import web
from rich.console import Console
from rich.table import Table

from benchmarks.prefix_cache import (
    IN_FLIGHT,
    SMALL_ROLLOUTS,
    SMALL_TREES,
    Trace,
    arrange,
    llama_replicas,
    record,
    simulated_replicas,
)
from mcts.settings import SearchSettings
from pipelines.engines import Endpoint, connect
from pipelines.engines.base import EngineError, Request, Usage
from pipelines.engines.launching import probe
from pipelines.engines.managed import Launch, Servers
from pipelines.engines.ports import free_port
from pipelines.engines.settings import Limits
from pipelines.errors import UserError
from schemas import Record

SIMULATED_TREES = 48
TREES_AT_ONCE = 4
POLICIES = ("cache_aware", "cache_aware --cache-threshold 0.8", "round_robin")
"""Of the router, with what else it is told."""


class Line(Record):
    """What became of the requests behind one front."""

    front: str
    requests: tuple[int, ...]
    """At each server."""
    failed: int
    prompt_tokens: int
    cached_tokens: int


class Counted:
    """Hands everything on to one server and counts what is asked of its model."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.requests = 0
        self._url = url
        self._session = session

    async def hand_on(self, request: web.Request) -> web.Response:
        """A request, and the server's answer to it."""
        self.requests += request.method == "POST"
        async with self._session.request(
            request.method,
            self._url + request.path_qs,
            data=await request.read(),
            headers={"Content-Type": request.content_type},
        ) as answer:
            body = await answer.read()
            return web.Response(body=body, status=answer.status, content_type=answer.content_type)


@contextlib.asynccontextmanager
async def counting(urls: tuple[str, ...]) -> AsyncIterator[tuple[tuple[str, ...], list[Counted]]]:
    """The same servers at other URLs, at which what comes in is counted."""
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        counted = [Counted(url, session) for url in urls]
        fronts = []
        for each in counted:
            app = web.Application(client_max_size=2**26)
            app.router.add_route("*", "/{path:.*}", each.hand_on)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            fronts.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        yield tuple(fronts), counted


@contextlib.contextmanager
def router(python: str, urls: tuple[str, ...], policy: str) -> Iterator[str]:
    """The router in front of servers, for as long as the context lasts."""
    words = ["-m", "sglang_router.launch_router", "--worker-urls", *urls, "--policy", *policy.split()]
    words += ["--host", "127.0.0.1", "--port", "{port}", "--prometheus-port", str(free_port())]
    launch = Launch(command=(python, *words), start_timeout_secs=60, stop_timeout_secs=10, max_restarts=0)
    with Servers() as servers:
        yield servers.url(launch, "router")


async def ask(endpoint: Endpoint, requests: list[Request]) -> tuple[Usage, int]:
    """Sends requests in their order, so many at a time; what they cost together, and how many failed."""
    engine = connect(msgspec.structs.replace(endpoint, limits=Limits(max_in_flight=IN_FLIGHT, max_attempts=2)))
    gate = asyncio.Semaphore(IN_FLIGHT)
    failed = 0

    async def one(request: Request) -> Usage:
        nonlocal failed
        try:
            reply = await engine.complete(request)
            failed += any(sample.error for sample in reply.samples)
            return reply.usage
        except EngineError:
            failed += 1
            return Usage()
        finally:
            gate.release()

    tasks = []
    try:
        for request in requests:
            await gate.acquire()  # Here and not in the task: requests leave in their order.
            tasks.append(asyncio.create_task(one(request)))
        return sum(await asyncio.gather(*tasks), Usage()), failed
    finally:
        await engine.close()


async def measure(front: str, endpoint: Endpoint, trace: Trace, python: str) -> Line:
    """One line: `one server`, `two URLs`, or a policy of the router."""
    async with counting(endpoint.urls) as (urls, counted):
        with contextlib.ExitStack() as stack:
            match front:
                case "one server":
                    asked: tuple[str, ...] = urls[:1]
                case "two URLs":
                    asked = urls
                case policy:
                    # Its start asks the servers how they are, which are handed on in this very loop.
                    start = asyncio.to_thread(stack.enter_context, router(python, urls, policy))
                    asked = (await start,)
            for each in counted:
                each.requests = 0
            usage, failed = await ask(msgspec.structs.replace(endpoint, urls=asked), arrange(trace, "ours"))
            requests = tuple(each.requests for each in counted)
            await asyncio.to_thread(stack.close)
    return Line(
        front=front,
        requests=requests,
        failed=failed,
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
    )


def tell(lines: list[Line], title: str, skipped: str, console: Console) -> None:
    """The table, and why lines of it are missing."""
    table = Table("in front", "requests at each", "failed", "prompt tokens", "from the cache", "share", title=title)
    for line in lines:
        share = line.cached_tokens / line.prompt_tokens if line.prompt_tokens else 0.0
        tokens = (str(line.prompt_tokens), str(line.cached_tokens))
        table.add_row(line.front, " and ".join(map(str, line.requests)), str(line.failed), *tokens, f"{share:.3f}")
    console.print(table)
    if skipped:
        console.print(f"SKIPPED: {skipped}", soft_wrap=True, markup=False, highlight=False)
    found = msgspec.json.encode({line.front: line for line in lines}).decode()
    console.print(found, soft_wrap=True, markup=False, highlight=False)


def main(words: Sequence[str] | None = None) -> None:
    """Asks each front in turn and prints the table; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="interpreter of an environment with sglang-router")
    parser.add_argument("--llama", action="store_true", help="llama.cpp behind the router instead of simulated servers")
    parser.add_argument("--out", type=Path, help="file that gets the table, too")
    options = parser.parse_args(words)
    fronts, skipped = ["one server", "two URLs"], ""
    try:
        version = probe(options.python, "sglang_router")
        fronts += POLICIES
    except UserError:
        version = "no router"
        skipped = f"no sglang_router for {options.python}: pip install sglang-router==0.3.2, or --python INTERPRETER"
    # The router tries whether servers speak gRPC, which those here log as an error of their own.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    num_trees = SMALL_TREES if options.llama else SIMULATED_TREES
    trace = asyncio.run(record(num_trees, TREES_AT_ONCE, SearchSettings(max_rollouts=SMALL_ROLLOUTS)))
    servers: Callable[[], AbstractContextManager[Endpoint]] = llama_replicas
    if not options.llama:
        servers = lambda: simulated_replicas(TREES_AT_ONCE * trace.blocks_a_tree)  # noqa: E731
    lines = []
    for front in fronts:
        with servers() as endpoint:
            lines.append(asyncio.run(measure(front, endpoint, trace, options.python)))
    kind = "llama.cpp" if options.llama else "simulated"
    title = f"{version} before two servers ({kind}); {trace.num_trees} trees, {len(trace.requests)} requests"
    tell(lines, title, skipped, Console(width=110))
    if options.out:
        with options.out.open("w", encoding="utf-8") as file:
            tell(lines, title, skipped, Console(width=110, file=file))


if __name__ == "__main__":
    main()

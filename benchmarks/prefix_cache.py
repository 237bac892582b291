"""What our order of requests is worth to a server: the share of prompt tokens that its prefix cache already held.

    python -m benchmarks.prefix_cache [--quick] [--server NAME=URL,URL ...]

Trees are grown on the simulated server, a bounded number at a time, and what they ask is recorded. The same requests
then go, one token each, to real servers and to the simulated server's accounting:

- `ours`: in the order in which the search asked, to one server;
- `shuffled`: in random order, to one server, as many in flight;
- `pinned`: in our order to two replicas, each tree at one of them by rendezvous hashing, as a run with two URLs does;
- `round_robin`: in our order to two replicas in turn.

Each arrangement begins its prompts with a line of its own, so that none meets what another left in the cache. The
trees together are several times as large as the caches (the simulated one holds twice as many trees as are in flight):
in a run of any size they are, too. llama.cpp is started here
where it is installed; vLLM and SGLang are given by URL, two each (`--server vllm=http://127.0.0.1:8000,http://…:8001`),
started with the flags that `docs/engines.md` names; what was not given is listed as such. The last line's keys are the
simulated server's figures; real servers stand under their names.
"""

import argparse
import asyncio
import contextlib
import random
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import msgspec
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mcts.base import Rollout
from mcts.pairing import PairSettings
from mcts.search import expand_tree
from mcts.settings import SearchSettings
from pipelines.checking import CheckerPool
from pipelines.engines import Endpoint, connect, serve
from pipelines.engines.base import Engine, Request, Usage
from pipelines.engines.dialects import Dialect
from pipelines.engines.settings import Limits, LlamaCpp, Simulated
from pipelines.engines.simulated import SimulatedSettings, make_problem
from pipelines.settings import ActorSettings
from pipelines.templates import load_template
from schemas import Problem, Provenance, Record

Arrangement = Literal["ours", "shuffled", "pinned", "round_robin"]
ARRANGEMENTS: tuple[Arrangement, ...] = get_args(Arrangement)
IN_FLIGHT = 8
"""Requests in flight to a server in every arrangement."""


BLOCK_CHARS = 32
"""Characters in a block of the simulated server's prefix cache."""


class Trace(Record):
    """What trees asked, in the order in which they asked it."""

    requests: tuple[Request, ...]
    num_trees: int

    @property
    def blocks_a_tree(self) -> int:
        """Blocks of the prefix cache that the prompts of one tree fill together, on average."""
        texts = (request.prompt + request.prefix for request in self.requests)
        blocks = {text[:end] for text in texts for end in range(BLOCK_CHARS, len(text) + 1, BLOCK_CHARS)}
        return round(len(blocks) / self.num_trees)


class Share(Record):
    """Prompt tokens of one arrangement at one server."""

    server: str
    arrangement: Arrangement
    prompt_tokens: int
    cached_tokens: int

    @property
    def cached(self) -> float:
        """Share of the prompt tokens that came from the cache."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else 0.0


async def record(num_trees: int, at_once: int) -> Trace:
    """Grows trees on a simulated server, `at_once` at a time, and keeps what they ask."""
    world = SimulatedSettings(min_steps=12, max_steps=20, variants=4, seconds_a_token=0.0005, length_median=100.0)
    template = load_template("solve", key="actor.solve_template", gaps=frozenset({"problem"}))
    requests: list[Request] = []
    gate = asyncio.Semaphore(at_once)
    checkers = CheckerPool()

    async def grow(engine: Engine, problem: Problem) -> None:
        async def policy(prefix: str, *, num_samples: int, first_sample: int) -> Sequence[Rollout]:
            request = Request(
                prompt=template.fill({"problem": problem.question}),
                prefix=prefix,
                num_samples=num_samples,
                first_sample=first_sample,
                sampling=ActorSettings().sampling(),
                pinned=True,
            )
            requests.append(request)
            reply = await engine.complete(request)
            return [Rollout(text=sample.text, tokens=sample.tokens) for sample in reply.samples]

        async with gate:
            await expand_tree(
                problem,
                policy=policy,
                verifier=lambda solution: checkers.check(solution, problem),
                settings=SearchSettings(),
                pairing=PairSettings(),
                provenance=Provenance(model="", revision="", engine="", prompt_digest="", sampling="", seed=0),
            )

    with serve(Simulated(world=world)) as endpoint:
        engine = connect(endpoint)
        try:
            await asyncio.gather(*(grow(engine, make_problem(0, index, world)) for index in range(num_trees)))
        finally:
            await engine.close()
            checkers.close()
    return Trace(requests=tuple(requests), num_trees=num_trees)


def arrange(trace: Trace, arrangement: Arrangement) -> list[Request]:
    """The trace's requests in an arrangement's order, one token each, behind a first line that no other has."""
    requests = list(trace.requests)
    if arrangement == "shuffled":
        random.Random(0).shuffle(requests)
    return [
        msgspec.structs.replace(
            request,
            prompt=f"Set {ARRANGEMENTS.index(arrangement)}.\n{request.prompt}",
            num_samples=1,
            sampling=msgspec.structs.replace(request.sampling, max_tokens=1),
        )
        for request in requests
    ]


async def replay(server: str, endpoint: Endpoint, trace: Trace, arrangement: Arrangement) -> Share:
    """Sends the trace's requests in an arrangement and adds up what the servers say of their prompts."""
    one = msgspec.structs.replace(endpoint, urls=endpoint.urls[:1], limits=Limits(max_in_flight=IN_FLIGHT))
    match arrangement:
        case "ours" | "shuffled":
            engines = [connect(one)]
        case "pinned":
            engines = [connect(msgspec.structs.replace(one, urls=endpoint.urls))]
        case "round_robin":
            engines = [connect(msgspec.structs.replace(one, urls=(url,))) for url in endpoint.urls]
    gate = asyncio.Semaphore(IN_FLIGHT * (1 if arrangement in ("ours", "shuffled") else len(endpoint.urls)))

    async def ask(index: int, request: Request) -> Usage:
        try:
            return (await engines[index % len(engines)].complete(request)).usage
        finally:
            gate.release()

    tasks = []
    try:
        for index, request in enumerate(arrange(trace, arrangement)):
            await gate.acquire()  # Here and not in the task: requests leave in their order.
            tasks.append(asyncio.create_task(ask(index, request)))
        usage = sum(await asyncio.gather(*tasks), Usage())
    finally:
        await asyncio.gather(*(engine.close() for engine in engines))
    return Share(
        server=server,
        arrangement=arrangement,
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
    )


@contextlib.contextmanager
def simulated_replicas(cache_blocks: int) -> Iterator[Endpoint]:
    """Two simulated servers, each with a cache for so many blocks."""
    world = SimulatedSettings(cache_blocks=cache_blocks, cache_block_chars=BLOCK_CHARS)
    with serve(Simulated(world=world)) as first, serve(Simulated(world=world)) as second:
        yield msgspec.structs.replace(first, urls=first.urls + second.urls)


@contextlib.contextmanager
def llama_replicas() -> Iterator[Endpoint]:
    """Two llama.cpp servers, a slot for each request in flight: a slot keeps what it read last."""
    settings = LlamaCpp(slots=IN_FLIGHT, num_threads=1)
    with serve(settings) as first, serve(settings) as second:
        yield msgspec.structs.replace(first, urls=first.urls + second.urls)


def given_replicas(name: str, urls: str) -> Endpoint:
    """Servers that run already."""
    kind, _, model = name.partition(":")
    return Endpoint(
        kind=kind,
        urls=tuple(urls.split(",")),
        model=model or "smol",
        revision="",
        dialect=Dialect(kind=kind, style="raw"),
        limits=Limits(),
    )


def measure(server: str, endpoint: Endpoint, trace: Trace) -> list[Share]:
    """All arrangements at one kind of server; those for two replicas only where there are two."""
    arrangements = ARRANGEMENTS if len(endpoint.urls) > 1 else ARRANGEMENTS[:2]
    return [
        asyncio.run(replay(server, endpoint, trace, arrangement))
        for arrangement in track(arrangements, description=server, console=Console(stderr=True), transient=True)
    ]


def main() -> None:
    """Records a trace, replays it everywhere and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer trees, the simulated server alone")
    parser.add_argument(
        "--server",
        action="append",
        default=[],
        metavar="KIND[:MODEL]=URL,URL",
        help="two replicas of a real server that run already, for example vllm=http://127.0.0.1:8000,…",
    )
    options = parser.parse_args()
    trace = asyncio.run(record(40 if options.quick else 120, at_once=IN_FLIGHT))
    with simulated_replicas(2 * IN_FLIGHT * trace.blocks_a_tree) as endpoint:
        shares = measure("simulated", endpoint, trace)
    small = trace if options.quick else asyncio.run(record(12, at_once=4))
    if not options.quick:
        with llama_replicas() as endpoint:
            shares += measure("llama_cpp", endpoint, small)
    for given in options.server:
        name, _, urls = given.partition("=")
        shares += measure(name.partition(":")[0], given_replicas(name, urls), small)
    table = Table("server", *ARRANGEMENTS, title=f"prompt tokens from the cache; {trace.num_trees} trees simulated")
    figures: dict[str, dict[str, float]] = {}
    for share in shares:
        figures.setdefault(share.server, {})[share.arrangement] = round(share.cached, 4)
    for server, by_arrangement in figures.items():
        table.add_row(server, *(f"{by_arrangement.get(name, float('nan')):.3f}" for name in ARRANGEMENTS))
    Console(width=100).print(table)
    simulated = figures.pop("simulated")
    print(msgspec.json.encode(simulated | figures).decode())


if __name__ == "__main__":
    main()

"""What our order of requests is worth to a server: the share of prompt tokens that its prefix cache already held.

    python -m benchmarks.prefix_cache [--quick] [--only NAME ...] [--out FILE]

Trees are grown on the simulated server, a bounded number at a time, and what they ask is recorded. The same requests
then go, one token each, to real servers and to the simulated server's accounting:

- `ours`: in the order in which the search asked, to one server;
- `shuffled`: in random order, to one server, as many in flight;
- `pinned`: in our order to two replicas, each tree at one of them by rendezvous hashing, as a run with two URLs does;
- `round_robin`: in our order to two replicas in turn.

Each arrangement begins its prompts with a line of its own, so that none meets what another left in the cache. The
trees together are several times as large as the caches (the simulated one holds twice as many trees as are in flight):
in a run of any size they are, too. All servers are started here, two of a kind, one thread each: llama.cpp where it is
installed, vLLM and SGLang where WRONGTURN_VLLM_PYTHON and WRONGTURN_SGLANG_PYTHON (or the places that
`tests/servers/install_*.sh` use) hold an interpreter. What is absent is listed with the reason. The last line's keys
are the simulated server's figures; real servers stand under their names.
"""

import argparse
import asyncio
import contextlib
import importlib.util
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, get_args

import msgspec
import pytest
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
from pipelines.engines.settings import EngineSettings, Limits, LlamaCpp, Sglang, Simulated
from pipelines.engines.simulated import SimulatedSettings, make_problem
from pipelines.errors import UserError
from pipelines.settings import ActorSettings
from pipelines.templates import load_template
from schemas import Problem, Provenance, Record
from tests.servers import sglang, vllm

Arrangement = Literal["ours", "shuffled", "pinned", "round_robin"]
ARRANGEMENTS: tuple[Arrangement, ...] = get_args(Arrangement)
IN_FLIGHT = 8
"""Requests in flight to a server in every arrangement."""


BLOCK_CHARS = 32
"""Characters in a block of the simulated server's prefix cache."""

CACHE_TOKENS = 1536
"""Tokens that the cache of a real server holds, where that can be set: four trees of the small trace, of which as many
are in flight."""
CONTEXT_TOKENS = 1024

SMALL_TREES, SMALL_ROLLOUTS = 12, 40
"""Trees of the small trace, for real servers, and rollouts of each."""


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


async def record(num_trees: int, at_once: int, settings: SearchSettings) -> Trace:
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
                settings=settings,
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
def replicas(*each: EngineSettings) -> Iterator[Endpoint]:
    """Servers of one model, started one after the other."""
    with contextlib.ExitStack() as stack:
        first, *others = [stack.enter_context(serve(settings)) for settings in each]
        yield msgspec.structs.replace(first, urls=sum((other.urls for other in others), first.urls))


def simulated_replicas(cache_blocks: int) -> AbstractContextManager[Endpoint]:
    """Two simulated servers, each with a cache for so many blocks."""
    world = SimulatedSettings(cache_blocks=cache_blocks, cache_block_chars=BLOCK_CHARS)
    return replicas(Simulated(world=world), Simulated(world=world))


def llama_replicas() -> AbstractContextManager[Endpoint]:
    """A slot for each request in flight: a slot keeps what it read last."""
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("needs the xllamacpp wheel")
    settings = LlamaCpp(slots=IN_FLIGHT, num_threads=1)
    return replicas(settings, settings)


def vllm_replicas() -> AbstractContextManager[Endpoint]:
    """Two servers, each on a core of its own: two that share cores wait for each other busily."""
    plain = vllm.vllm_settings("--num-gpu-blocks-override", CACHE_TOKENS // 32)
    plain = msgspec.structs.replace(plain, context_tokens=CONTEXT_TOKENS)
    cores = ({"VLLM_CPU_OMP_THREADS_BIND": core} for core in ("0", "1"))
    return replicas(*(msgspec.structs.replace(plain, env=plain.env | core) for core in cores))


def sglang_replicas() -> AbstractContextManager[Endpoint]:
    """Two servers, one thread each."""
    settings = Sglang(
        model=str(sglang.smollm2_folder()),
        served_name=vllm.MODEL,
        style="raw",
        python=sglang.sglang_python(),
        program=(str(sglang.LAUNCHER),),
        context_tokens=CONTEXT_TOKENS,
        extra_args=(*sglang.ARGS, f"--max-total-tokens={CACHE_TOKENS}"),
        env={"OMP_NUM_THREADS": 1, "PYTHONSAFEPATH": 1},
        start_timeout_secs=600,
    )
    return replicas(settings, settings)


REAL: dict[str, Callable[[], AbstractContextManager[Endpoint]]] = {
    "llama_cpp": llama_replicas,
    "vllm": vllm_replicas,
    "sglang": sglang_replicas,
}
"""Two real servers of each kind; skips the kind where it is not installed."""


def measure(server: str, endpoint: Endpoint, trace: Trace) -> list[Share]:
    """All arrangements at one kind of server."""
    return [
        asyncio.run(replay(server, endpoint, trace, arrangement))
        for arrangement in track(ARRANGEMENTS, description=server, console=Console(stderr=True), transient=True)
    ]


def measure_real(names: Sequence[str], absent: dict[str, str]) -> list[Share]:
    """What real servers say of the small trace; why some are absent goes into `absent`."""
    settings = SearchSettings(max_rollouts=SMALL_ROLLOUTS)
    trace = asyncio.run(record(SMALL_TREES, at_once=4, settings=settings))
    shares: list[Share] = []
    for name in names:
        began = time.monotonic()
        try:
            with REAL[name]() as endpoint:
                shares += measure(name, endpoint, trace)
        except (pytest.skip.Exception, UserError) as reason:
            absent[name] = str(reason)
        told = {share.arrangement: round(share.cached, 3) for share in shares if share.server == name}
        seconds = time.monotonic() - began
        Console(stderr=True).print(f"{name}: {len(trace.requests)} requests each, {seconds:.0f} s in all: {told}")
    return shares


def tell(shares: Sequence[Share], absent: dict[str, str], num_trees: int, console: Console) -> None:
    """A line for each server, and why others are absent."""
    table = Table("server", *ARRANGEMENTS, title=f"prompt tokens from the cache; {num_trees} trees simulated")
    figures: dict[str, dict[str, float]] = {}
    for share in shares:
        figures.setdefault(share.server, {})[share.arrangement] = round(share.cached, 4)
    for server, by_arrangement in figures.items():
        table.add_row(server, *(f"{by_arrangement[name]:.3f}" for name in ARRANGEMENTS))
    console.print(table)
    for name, reason in absent.items():
        console.print(f"absent: {name}: {reason}", soft_wrap=True, markup=False, highlight=False)
    simulated = figures.pop("simulated")
    line = msgspec.json.encode(simulated | figures).decode()
    console.print(line, soft_wrap=True, markup=False, highlight=False)


def main() -> None:
    """Records traces, replays them everywhere and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer trees, the simulated server alone")
    parser.add_argument("--only", nargs="+", choices=REAL, default=[*REAL], help="real servers to ask; all by default")
    parser.add_argument("--out", type=Path, help="file that gets the table, too")
    options = parser.parse_args()
    num_trees = 40 if options.quick else 120
    trace = asyncio.run(record(num_trees, at_once=IN_FLIGHT, settings=SearchSettings()))
    with simulated_replicas(2 * IN_FLIGHT * trace.blocks_a_tree) as endpoint:
        shares = measure("simulated", endpoint, trace)
    absent = {name: "not asked for" for name in REAL if options.quick or name not in options.only}
    shares += measure_real([name for name in REAL if name not in absent], absent) if len(absent) < len(REAL) else []
    tell(shares, absent, num_trees, Console(width=100))
    if options.out:
        with options.out.open("w", encoding="utf-8") as file:
            tell(shares, absent, num_trees, Console(width=100, file=file))


if __name__ == "__main__":
    main()

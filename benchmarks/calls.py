"""What a call costs: 2,400 requests with n=1 to a simulated server without latency, 256 in flight, journal on.

    python -m benchmarks.calls [--quick]

`pipeline`: 2,400 problems with one rollout each through the whole Beam pipeline. `client`: the same requests through
a worker's client and journal alone. `floor`: the same requests from a bare aiohttp loop. A rate is requests over the
time from the first one's arrival to the last one's answer, as the server counts them, which runs in a process of its
own. CPU time is that of this process, all threads together; the pipeline's includes building Beam's graph and writing
the shard. Workloads take turns, a row is the median of its rounds.
"""

import argparse
import asyncio
import contextlib
import functools
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import aiohttp
import msgspec
from rich.console import Console
from rich.table import Table

from pipelines.config import compose
from pipelines.engines import Request, serve
from pipelines.engines.dialects import Dialect, word_request
from pipelines.engines.settings import Limits, Simulated
from pipelines.engines.simulated import SimulatedSettings, make_problem, serving_subprocess
from pipelines.run import Watcher, run
from pipelines.settings import ActorSettings
from pipelines.templates import load_template
from pipelines.worker import WorkerSpec, holding
from schemas import Record

NUM_CALLS = 2400
IN_FLIGHT = 256
SOUND_FLOOR = 3000.0
"""Calls a second that server and machine should be able to give by themselves."""
_ONE_ROLLOUT_EACH = (
    *("problems=simulated", "engine=simulated", "actor=plain", "panel=blind", "search=default", "verify=default"),
    *("search.root_rollouts=1", "search.max_root_rollouts=1", "search.max_searches=0", "search.max_located=0"),
    *("pairing=default", "pairing.max_pairs=0", "pairing.max_alone=0"),
)


class Figure(Record):
    """One workload."""

    calls_per_sec: float
    cpu_ms_per_call: float


class _Stats(msgspec.Struct):
    requests: int
    first_request_seconds: float
    last_answer_seconds: float


async def _stats(url: str) -> _Stats:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/stats") as response:
        return msgspec.json.decode(await response.read(), type=_Stats)


async def _reset(url: str) -> None:
    async with aiohttp.ClientSession() as session, session.post(f"{url}/reset"):
        pass


def _figure(url: str, num_calls: int, cpu_seconds: float) -> Figure:
    stats = asyncio.run(_stats(url))
    assert stats.requests == num_calls, (stats, num_calls)
    seconds = stats.last_answer_seconds - stats.first_request_seconds
    return Figure(calls_per_sec=num_calls / seconds, cpu_ms_per_call=1000 * cpu_seconds / num_calls)


class _Stopwatch(Watcher):
    """CPU seconds of this process while shards are worked on: without planning, books and report."""

    cpu_seconds = 0.0

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        began = time.process_time()
        yield
        self.cpu_seconds = time.process_time() - began


def through_pipeline(url: str, num_calls: int) -> Figure:
    """One rollout for each of `num_calls` problems through `wrongturn run`, in one shard; no tree is searched."""
    asyncio.run(_reset(url))
    watch = _Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        settings = compose(
            [
                *_ONE_ROLLOUT_EACH,
                f"engine.url={url}",
                f"engine.limits.max_in_flight={IN_FLIGHT}",
                f"runner.max_in_flight={IN_FLIGHT}",
                f"runner.problems_per_shard={num_calls}",
                f"problems.num_problems={num_calls}",
                f"out={Path(folder) / 'out'}",
            ]
        )
        run(settings, watch)
    return _figure(url, num_calls, watch.cpu_seconds)


def _requests(num_calls: int) -> list[Request]:
    """What the pipeline asks for."""
    template = load_template("solve", key="actor.solve_template", gaps=frozenset({"problem"}))
    questions = (make_problem(0, index, SimulatedSettings()).question for index in range(num_calls))
    sampling = ActorSettings().sampling()
    return [Request(prompt=template.fill({"problem": question}), sampling=sampling) for question in questions]


async def _all(ask: Callable[[Request], Awaitable[object]], requests: Sequence[Request]) -> float:
    """Asks for everything, `IN_FLIGHT` at a time; gives the CPU seconds of this process."""
    gate = asyncio.Semaphore(IN_FLIGHT)

    async def one(request: Request) -> None:
        async with gate:
            await ask(request)

    began = time.process_time()
    await asyncio.gather(*map(one, requests))
    return time.process_time() - began


def through_client(url: str, num_calls: int) -> Figure:
    """The requests through a worker's client and journal, without stages, trees and answers to check."""
    asyncio.run(_reset(url))
    engine = Simulated(url=url, limits=Limits(max_in_flight=IN_FLIGHT))
    with tempfile.TemporaryDirectory() as folder, serve(engine) as endpoint:
        spec = WorkerSpec(
            endpoints=(("", endpoint),),
            journal=str(Path(folder) / "journal.sqlite"),
            checker_processes=1,
            checker_cpu_secs=1.0,
            max_in_flight=IN_FLIGHT,
        )
        with holding(spec) as worker:
            ask = functools.partial(worker.model.sample, "ExpandTrees")
            cpu_seconds = worker.submit(_all(ask, _requests(num_calls))).result()
    return _figure(url, num_calls, cpu_seconds)


def bare(url: str, num_calls: int) -> Figure:
    """The requests from a loop that does nothing else; bodies are made beforehand."""

    async def work() -> float:
        await _reset(url)
        headers = {"Content-Type": "application/json"}
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:

            async def ask(request: Request) -> None:
                async with session.post(f"{url}/v1/completions", data=bodies[request.prompt]) as response:
                    await response.read()

            requests, dialect = _requests(num_calls), Dialect(kind="simulated", style="raw")
            bodies = {each.prompt: msgspec.json.encode(word_request(each, dialect, "simulated")) for each in requests}
            return await _all(ask, requests)

    return _figure(url, num_calls, asyncio.run(work()))


WORKLOADS = {"floor": bare, "client": through_client, "pipeline": through_pipeline}


def measure(rounds: int) -> dict[str, Figure]:
    """Every workload's median over so many rounds, after a short one that warms everything up."""
    seen: dict[str, list[Figure]] = {name: [] for name in WORKLOADS}
    with serving_subprocess(SimulatedSettings()) as url:
        for workload in WORKLOADS.values():
            workload(url, IN_FLIGHT)
        for _ in range(rounds):
            for name, workload in WORKLOADS.items():
                seen[name].append(workload(url, NUM_CALLS))
    return {
        name: Figure(
            calls_per_sec=statistics.median(each.calls_per_sec for each in figures),
            cpu_ms_per_call=statistics.median(each.cpu_ms_per_call for each in figures),
        )
        for name, figures in seen.items()
    }


def main() -> None:
    """Runs every workload against one server and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round instead of five")
    options = parser.parse_args()
    figures = measure(1 if options.quick else 5)
    floor = figures["floor"].calls_per_sec
    table = Table("workload", "calls/s", "of the floor", "CPU ms a call")
    for name, figure in figures.items():
        share = f"{figure.calls_per_sec / floor:.2f}"
        table.add_row(name, f"{figure.calls_per_sec:,.0f}", share, f"{figure.cpu_ms_per_call:.2f}")
    Console(width=80).print(table)
    if floor < SOUND_FLOOR:
        print(f"The floor is only {floor:,.0f}/s: server or machine bound every figure, so read the shares.")
    pipeline = figures["pipeline"]
    said = {
        "calls_per_sec": round(pipeline.calls_per_sec, 1),
        "cpu_ms_per_call": round(pipeline.cpu_ms_per_call, 3),
        "client_calls_per_sec": round(figures["client"].calls_per_sec, 1),
        "client_cpu_ms_per_call": round(figures["client"].cpu_ms_per_call, 3),
        "floor": round(floor, 1),
        "ratio": round(pipeline.calls_per_sec / floor, 3),
    }
    print(msgspec.json.encode(said).decode())


if __name__ == "__main__":
    main()

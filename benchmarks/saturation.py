"""How busy the server is kept: utilisation of a simulated server with 64 slots, through the whole Beam pipeline.

    python -m benchmarks.saturation [--quick]

`flat`: 300 problems with 8 samples each. `trees_N`: N trees of about 200 rollouts, 16 a request. `floor`: the flat
requests from a bare aiohttp loop, in the same run. Utilisation is slot-seconds used over slots times the time from
the first request to the last answer, as the server itself counts them.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import msgspec
from rich.console import Console
from rich.table import Table

from pipelines.config import compose
from pipelines.engines.base import Request
from pipelines.engines.dialects import Dialect, word_request
from pipelines.engines.simulated import SimulatedSettings, make_problem, serving_subprocess
from pipelines.run import Watcher, run
from pipelines.settings import ActorSettings
from pipelines.templates import load_template
from schemas import Record

SLOTS = 64
_NO_CRITICS = ("pairing.max_pairs=0", "pairing.max_alone=0")


class Figure(Record):
    """One workload."""

    name: str
    utilisation: float
    seconds: float
    requests: int


class _Stats(msgspec.Struct):
    utilisation: float
    requests: int


def _world(*, is_quick: bool) -> SimulatedSettings:
    """Answers of about two seconds (a third of one for --quick), log-normal: the tail is that of real ones."""
    return SimulatedSettings(slots=SLOTS, seconds_a_token=0.0015 if is_quick else 0.01, length_median=200.0)


async def _stats(url: str) -> _Stats:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/stats") as response:
        return msgspec.json.decode(await response.read(), type=_Stats)


async def _reset(url: str) -> None:
    async with aiohttp.ClientSession() as session, session.post(f"{url}/reset"):
        pass


def through_pipeline(name: str, url: str, overrides: Sequence[str]) -> Figure:
    """One workload through `wrongturn run`."""
    asyncio.run(_reset(url))
    with tempfile.TemporaryDirectory() as folder:
        settings = compose(
            [
                *(
                    "problems=simulated",
                    "engine=simulated",
                    "actor=plain",
                    "panel=blind",
                    "search=default",
                    "pairing=default",
                    "verify=default",
                ),
                f"engine.url={url}",
                *("search.max_located=0", "search.easy_above=1", "search.hopeless_below=0", *_NO_CRITICS, *overrides),
                f"out={Path(folder) / 'out'}",
            ]
        )
        began = time.monotonic()
        run(settings, Watcher())
    stats = asyncio.run(_stats(url))
    return Figure(name=name, utilisation=stats.utilisation, seconds=time.monotonic() - began, requests=stats.requests)


async def bare(url: str, num_problems: int, num_samples: int) -> Figure:
    """The flat workload from a loop that does nothing else, as many requests in flight as there are slots."""
    await _reset(url)
    template = load_template("solve", key="actor.solve_template", gaps=frozenset({"problem"}))
    gate = asyncio.Semaphore(SLOTS)

    async def ask(session: aiohttp.ClientSession, index: int) -> None:
        question = make_problem(0, index, SimulatedSettings()).question
        # Word for word what the pipeline asks, so that both wait for answers of the same lengths.
        request = Request(
            prompt=template.fill({"problem": question}), num_samples=num_samples, sampling=ActorSettings().sampling()
        )
        body = word_request(request, Dialect(kind="simulated", style="raw"), "simulated")
        async with gate, session.post(f"{url}/v1/completions", json=body) as response:
            await response.read()

    began = time.monotonic()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(ask(session, index) for index in range(num_problems)))
    stats = await _stats(url)
    return Figure(
        name="floor", utilisation=stats.utilisation, seconds=time.monotonic() - began, requests=stats.requests
    )


def main() -> None:
    """Runs every workload against one server and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter answers and fewer rollouts")
    options = parser.parse_args()
    flat = 150 if options.quick else 300
    searches = 5 if options.quick else 12
    with serving_subprocess(_world(is_quick=options.quick)) as url:
        figures = [asyncio.run(bare(url, flat, 8))]
        figures.append(
            through_pipeline(
                "flat",
                url,
                [f"problems.num_problems={flat}", "search.root_rollouts=8", "search.max_root_rollouts=8",
                 "search.max_searches=0", "runner.max_in_flight=64"],
            )
        )  # fmt: skip
        for num_trees in (8, 16, 32):
            figures.append(
                through_pipeline(
                    f"trees_{num_trees}",
                    url,
                    [
                        f"problems.num_problems={num_trees}",
                        *("search.root_rollouts=16", "search.max_root_rollouts=16"),
                        *("search.rollouts_per_search=16", "search.max_rollouts=220"),
                        *(f"search.max_searches={searches}", "search.parallel_searches=4", "runner.max_in_flight=64"),
                    ],
                )
            )
    table = Table("workload", "utilisation", "seconds", "requests")
    for figure in figures:
        table.add_row(figure.name, f"{figure.utilisation:.3f}", f"{figure.seconds:.1f}", str(figure.requests))
    Console(width=80).print(table)
    print(msgspec.json.encode({figure.name: round(figure.utilisation, 4) for figure in figures}).decode())


if __name__ == "__main__":
    main()

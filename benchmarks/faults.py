"""What a run makes of a server's faults, through the whole pipeline on the simulated world.

    python -m benchmarks.faults [--quick] [--peers]

One run for each fault, and `mixed`: 2 % 429 with Retry-After, 2 % 500, 1 % poison prompts (500 for ever), 5 % malformed
replies (JSON cut in the middle, another schema, a choice too few, none at all) and an outage of 5 s. Faults are drawn
anew for each attempt of a request, but for poison prompts and those that are longer than the context.

Rows in: problems. Rows out: of `sft`, the verified critiques. Failed and rejected: rows of `failures` and `rejections`.
False labels: finished solutions in trees that the checker scored (correct or incorrect) and whose outcome is not the
world's, which is computed from the solution's text alone. Changed: kept trees that are not, node for node and count for
count, the undisturbed run's tree of the same problem; only refused prompts and cut solutions may change a tree, by
rollouts that count as unscored. Balanced: in = kept + rejected + failed for every stage.

With --peers also datatrove and distilabel under the faults of `mixed`, and killed; `python -m benchmarks.peers` does
that alone and says what is counted.
"""

import argparse
import contextlib
import io
import json
import re
import socket
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.peers.labels import false_labels
from benchmarks.peers.telling import comparison
from pipelines.engines.simulated import SimulatedSettings, serving
from pipelines.main import main as wrongturn
from pipelines.manifest import read_books
from pipelines.shards import read_rows
from schemas import Record, Tree
from schemas.arrow import from_row

_PANEL = ("problems=simulated", "actor=plain", "panel=blind")
_QUICK = ("search=quick", "pairing=quick", "verify=quick")
_FULL = ("search=default", "pairing=default", "verify=default")

MIXED = (
    *("fault_429=0.02", "fault_500=0.02", "fault_poison=0.01"),
    *(f"fault_{name}=0.0125" for name in ("cut", "schema", "short", "empty")),
    *("outage_after=100", "outage_seconds=5"),
)
SINGLE: dict[str, tuple[str, ...]] = {
    "429 with Retry-After": ("fault_429=0.1", "retry_after_seconds=0.1"),
    "429 bare": ("fault_429_bare=0.1",),
    "500": ("fault_500=0.1",),
    "503": ("fault_503=0.1",),
    "poison prompts": ("fault_poison=0.01",),
    "context length 400": ("fault_too_long=0.01",),
    "hang": ("fault_hang=0.02",),
    "byte by byte": ("fault_slow=0.05", "slow_seconds=0.5"),
    "cut JSON": ("fault_cut=0.1",),
    "other schema": ("fault_schema=0.1",),
    "a choice too few": ("fault_short=0.1",),
    "no choice": ("fault_empty=0.1",),
}
"""Settings of the simulated server, by what a fault is called in the table."""


_LOST = ("max_failure_share=0.8",)
"""Where prompts are poison, most trees may fail: each asks some 60, and one of them is enough."""
_CUT = 34
"""Tokens after which some solutions end in the middle (finish_reason length), some of them in their answer."""


class Figure(Record):
    """What became of one run."""

    fault: str
    rc: int
    """Exit code of `wrongturn run`."""
    rows_in: int
    rows_out: int
    failures: int
    rejections: int
    false_labels: int
    changed: int
    balanced: bool
    seconds: float
    requests: int
    """That were answered and paid for."""


class Trial:
    """Runs over one set of problems, compared with the same without a fault."""

    def __init__(self, folder: Path, *, is_quick: bool) -> None:
        self._folder = folder
        self._is_quick = is_quick
        self._undisturbed: dict[str, Tree] = {}

    def undisturbed(self) -> Figure:
        """The run that the others are compared with."""
        figure = self.run("none", "engine=simulated")
        self._undisturbed = _trees(self._out("none"))
        return figure

    def faulty(self, fault: str, world: tuple[str, ...], *limits: str) -> Figure:
        """A run against a server with faults."""
        settings = [f"engine.world.{setting}" for setting in world]
        lost = _LOST if any(setting.startswith("fault_poison") for setting in world) else ()
        return self.run(fault, "engine=simulated", *settings, *(f"engine.limits.{limit}" for limit in limits), *lost)

    def run(self, fault: str, *overrides: str) -> Figure:
        """A run through the command line."""
        out = self._out(fault)
        size = 12 if self._is_quick else 60
        common = (*_PANEL, *(_QUICK if self._is_quick else _FULL), f"problems.num_problems={size}")
        began = time.monotonic()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as complaint:
            rc = wrongturn(["run", *common, *overrides, f"out={out}"])
        seconds = time.monotonic() - began
        if not (out / "run.json").is_file():
            raise RuntimeError(f"{fault}: exit code {rc}, no run.json; {complaint.getvalue()}")
        trees, books = _trees(out), read_books(out)
        paid = json.loads((out / "run.json").read_text())["paid"]
        return Figure(
            fault=fault,
            rc=rc,
            rows_in=books.stages[0].entered,
            rows_out=books.rows["sft"],
            failures=books.rows["failures"],
            rejections=books.rows["rejections"],
            false_labels=sum(map(false_labels, trees.values())),
            changed=sum(tree.nodes != self._undisturbed.get(name, tree).nodes for name, tree in trees.items()),
            balanced=all(stage.balanced for stage in books.stages),
            seconds=round(seconds, 1),
            requests=sum(usage["requests"] for usage in paid.values()),
        )

    def _out(self, fault: str) -> Path:
        return self._folder / re.sub(r"\W+", "-", fault)


def _trees(out: Path) -> dict[str, Tree]:
    trees = (from_row(row, Tree) for row in read_rows(out, "trees"))
    return {tree.problem.id: tree for tree in trees}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _requests(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats", timeout=5) as response:
        return int(json.load(response)["requests"])


@contextlib.contextmanager
def _absent(world: SimulatedSettings, seconds: float, *, after: int) -> Iterator[str]:
    """The URL of a server that is killed after so many requests (0: is not there yet) and comes `seconds` later."""
    port, over = _free_port(), threading.Event()

    def live() -> None:
        if after:
            with serving(world, port=port):
                while not over.is_set() and _requests(port) < after:
                    time.sleep(0.01)
        over.wait(seconds)
        with serving(world, port=port):
            over.wait()

    thread = threading.Thread(target=live, daemon=True)
    thread.start()
    while after and not over.is_set():  # It must be there before the run starts.
        with contextlib.suppress(OSError):
            _requests(port)
            break
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        over.set()
        thread.join()


def _absences(trial: Trial, *, is_quick: bool) -> Iterator[Figure]:
    """Servers that are not there: at first, for a while, and one of two for ever."""
    dead = 3 if is_quick else 60
    # Not too fast, so that the run is still going when its server is killed.
    world = SimulatedSettings(prefill_seconds=0.02)
    absences: Mapping[str, Callable[[], AbstractContextManager[str]]] = {
        "refused for 3 s at first": lambda: _absent(world, 3, after=0),
        f"killed, back after {dead} s": lambda: _absent(world, dead, after=40),
    }
    for fault, server in absences.items():
        with server() as url:
            yield trial.run(fault, "engine=simulated", f"engine.url={url}", "engine.world.prefill_seconds=0.02")
    with serving(SimulatedSettings()) as url:
        urls = f'"http://127.0.0.1:{_free_port()},{url}"'
        yield trial.run("one URL of two is dead", "engine=vllm", f"engine.url={urls}", "engine.model=simulated")


def figures(folder: Path, *, is_quick: bool) -> Iterator[Figure]:
    """The undisturbed run, the mixture, then every single fault."""
    trial = Trial(folder, is_quick=is_quick)
    yield trial.undisturbed()
    # An outage is borne for five pauses.
    yield trial.faulty("mixed", MIXED, "max_wait_secs=2" if is_quick else "max_wait_secs=30")
    waits = "max_wait_secs=0.1" if is_quick else "max_wait_secs=10"
    for fault, world in SINGLE.items():
        yield trial.faulty(fault, world, waits, "read_timeout_secs=0.3" if fault == "hang" else "read_timeout_secs=60")
    yield trial.run(f"solutions cut at {_CUT} tokens", "engine=simulated", f"actor.max_tokens={_CUT}")
    yield from _absences(trial, is_quick=is_quick)


def main() -> None:
    """Runs everything and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few problems, short searches, shorter absences")
    parser.add_argument("--peers", action="store_true", help="other tools besides; installs them where they are not")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = list(figures(Path(folder), is_quick=options.quick))
    table = Table(*(name.replace("_", " ") for name in Figure.__struct_fields__))
    for figure in found:
        table.add_row(*(str(value) for value in msgspec.structs.astuple(figure)))
    Console(width=150).print(table)
    mixed = msgspec.to_builtins(found[1])
    line = {name: mixed[name] for name in ("rc", "rows_in", "rows_out", "failures", "false_labels")}
    peers = {"peers": comparison(MIXED, is_quick=options.quick)} if options.peers else {}
    print(msgspec.json.encode(line | {"faults": found} | peers).decode())


if __name__ == "__main__":
    main()

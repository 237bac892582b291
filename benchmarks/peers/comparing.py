"""One flat job, `num_samples` solutions of each problem, through each tool against a server with the same faults.

Every trial has a fresh server. Prompts are the same texts for all, so that the same ones are poison.

Rows: samples. Rows out: samples with a text in what the tool leaves behind. Said to have failed: samples that the tool
names as failed in its output or its statistics: for wrongturn those of the problems in `failures/`, for datatrove
`failed_rollouts`, for distilabel those of problems with a row without a text. Unaccounted: the rest, which nothing
mentions but perhaps the exit code. False labels: as in `benchmarks.faults`; the others check no answers.
"""

import functools
import json
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.installing import PEERS, NotInstalledError, Peer, cache_folder, python_of
from benchmarks.peers.labels import false_labels
from benchmarks.peers.running import Outcome, start
from pipelines.engines.simulated import SimulatedSettings, make_problem, serving_subprocess
from pipelines.shards import read_rows
from pipelines.templates import load_template
from schemas import Record, Tree
from schemas.arrow import from_row

ROOT = Path(__file__).resolve().parents[2]
OURS = "wrongturn"
LIMIT_SECS = 300.0
"""A start that takes longer hangs: an undisturbed one takes some ten seconds."""
_COUNT_SECS = 60.0
_SETUPS = {
    "datatrove": (("defaults", 1), ("checkpoints", 5), ("tuned", 1)),
    "distilabel": (("defaults", 1), ("tuned", 1), ("grouped", 1)),
}
"""For each tool its setups and how often it is started: again after a bad end, as its documentation says."""
_FLAT = (
    *("problems=simulated", "engine=simulated", "actor=plain", "panel=blind"),
    *("search=default", "pairing=default", "verify=default", "search.max_searches=0", "search.max_located=0"),
    *("search.easy_above=1", "search.hopeless_below=0", "pairing.max_pairs=0", "pairing.max_alone=0"),
)
"""Samples of the problem alone: no search, no critics."""


class Flat(Record):
    """The job."""

    num_problems: int
    num_samples: int
    world: SimulatedSettings

    @property
    def rows_in(self) -> int:
        """Samples that are wished for."""
        return self.num_problems * self.num_samples


class Trial(Record):
    """What became of the job in one tool's hands."""

    tool: str
    version: str
    setup: str
    starts: int
    ended: str
    """How the last start ended."""
    rows_in: int
    rows_out: int
    said_failed: int
    unaccounted: int
    false_labels: int | None
    """None where no answers are checked."""
    seconds: float
    """Of all starts together."""
    requests: int
    """That reached the server."""


def write_job(flat: Flat, url: str, setup: str, folder: Path) -> Path:
    """The file that a tool's program reads; it writes into `folder`/out."""
    template = load_template("solve", key="actor.solve_template", gaps=frozenset({"problem"}))
    problems = (make_problem(0, index, flat.world) for index in range(flat.num_problems))
    job: dict[str, Any] = {
        "url": url,
        "model": flat.world.model,
        "setup": setup,
        "num_samples": flat.num_samples,
        "out": str(folder / "out"),
        "problems": [
            {"id": problem.id, "prompt": template.fill({"problem": problem.question})} for problem in problems
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "job.json"
    path.write_text(json.dumps(job))
    return path


def command_of_ours(flat: Flat, url: str, folder: Path) -> list[str]:
    """The same job for wrongturn."""
    sizes = (
        f"problems.num_problems={flat.num_problems}",
        f"problems.min_steps={flat.world.min_steps}",
        f"problems.max_steps={flat.world.max_steps}",
        f"search.root_rollouts={flat.num_samples}",
        f"search.max_root_rollouts={flat.num_samples}",
    )
    program = [sys.executable, "-m", "pipelines.main", "run", *_FLAT, *sizes]
    return [*program, f"engine.url={url}", f"out={folder / 'out'}"]


def count_ours(out: Path, num_samples: int) -> dict[str, Any]:
    """As the tools' programs count, with the false labels beside."""
    trees = [from_row(row, Tree) for row in read_rows(out, "trees")]
    direct = [tree.nodes[0].direct for tree in trees]
    return {
        "version": "",
        "rows_out": sum(estimate.scored + estimate.unscored for estimate in direct),
        "reported": num_samples * sum(1 for _ in read_rows(out, "failures")),
        "collapsed": sum(len(tuple(tree.terminals())) < num_samples for tree in trees),
        "false_labels": sum(map(false_labels, trees)),
    }


def call(url: str) -> dict[str, Any]:
    """The server's statistics."""
    with urllib.request.urlopen(f"{url}/stats", timeout=5) as response:
        return dict(json.load(response))


def counted(peer: Peer, python: Path, job: Path, outcome: Outcome) -> dict[str, Any]:
    """What a program said at its end; where it was stopped, what it says of the folder it left."""
    if outcome.line is None or not outcome.line.keys() >= {"rows_out", "reported", "collapsed"}:
        counting = start([str(python), str(peer.program), str(job), "--count"], job.parent / "count", _COUNT_SECS)
        if counting.line is None:
            raise RuntimeError(f"{peer.name}: expected counts of {job.parent}, got {counting.ended}; log.txt says why")
        return counting.line
    return outcome.line


def _trial(
    flat: Flat, tool: str, setup: str, said: dict[str, Any], outcomes: Sequence[Outcome], requests: int
) -> Trial:
    return Trial(
        tool=tool,
        version=said["version"],
        setup=setup,
        starts=len(outcomes),
        ended=outcomes[-1].ended,
        rows_in=flat.rows_in,
        rows_out=said["rows_out"],
        said_failed=said["reported"],
        unaccounted=flat.rows_in - said["rows_out"] - said["reported"],
        false_labels=said.get("false_labels"),
        seconds=round(sum(outcome.seconds for outcome in outcomes), 1),
        requests=requests,
    )


def ours(flat: Flat, folder: Path) -> Trial:
    """The job through `wrongturn run`."""
    with serving_subprocess(flat.world) as url:
        outcome = start(command_of_ours(flat, url, folder), folder, LIMIT_SECS, environment={"PYTHONPATH": str(ROOT)})
        requests = call(url)["requests"]
    return _trial(flat, OURS, "defaults", count_ours(folder / "out", flat.num_samples), [outcome], requests)


def theirs(flat: Flat, peer: Peer, python: Path, folder: Path) -> Iterator[Trial]:
    """The job through another tool, in each of its setups."""
    for setup, max_starts in _SETUPS[peer.name]:
        with serving_subprocess(flat.world) as url:
            job = write_job(flat, url, setup, folder / setup)
            outcomes: list[Outcome] = []
            while len(outcomes) < max_starts and (not outcomes or outcomes[-1].rc != 0):
                outcomes.append(start([str(python), str(peer.program), str(job)], job.parent, LIMIT_SECS))
            requests = call(url)["requests"]
        yield _trial(flat, peer.name, setup, counted(peer, python, job, outcomes[-1]), outcomes, requests)


@functools.cache
def available() -> tuple[dict[str, Path], dict[str, str]]:
    """Interpreters of the tools that can be installed, and the reasons why others cannot."""
    pythons: dict[str, Path] = {}
    reasons: dict[str, str] = {}
    for peer in PEERS:
        try:
            pythons[peer.name] = python_of(peer, cache_folder())
        except NotInstalledError as error:
            reasons[peer.name] = str(error)
    return pythons, reasons


def trials(faults: Sequence[str], *, is_quick: bool) -> Iterator[Trial]:
    """Every tool that is here, wrongturn first; `faults` as `benchmarks.faults` words them."""
    world = {name: json.loads(value) for name, _, value in (fault.partition("=") for fault in faults)}
    flat = Flat(
        num_problems=120 if is_quick else 300,
        num_samples=8,
        world=SimulatedSettings(seconds_a_token=0.0005, **world),
    )
    pythons, _ = available()
    with tempfile.TemporaryDirectory() as name:
        yield ours(flat, Path(name) / OURS)
        for peer in PEERS:
            if peer.name in pythons:
                yield from theirs(flat, peer, pythons[peer.name], Path(name) / peer.name)

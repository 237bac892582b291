"""How right kept critiques are, on the simulated world whose truth is known.

    python -m benchmarks.quality [--quick] [--plot FILE] [SETTING=VALUE ...]

Right means: verdict, first wrong step and what is said of it agree with the world. Precision: right ones among the
kept. Recall: of the paths for which the panel wrote at least one right critique, those that end with a right one kept.

Ways of keeping critiques, compared on the same critiques of the same paths: `none`; `verdict`, where it agrees with the
label (DeepCritic, arXiv 2505.00662; Critic-CoT, arXiv 2408.16326); `refinement`, where second solutions with the
critique come out right more often than without (AutoMathCritique, arXiv 2411.16579; RCO, arXiv 2506.22157);
`verdict + refinement`; and `all`, what wrongturn keeps. The first four look at each critic's own critiques, `all` at
these and at the panel's composed one.

Critics are right in 0.3 to 0.9 of their critiques and leak the answer in a fifth of those that name an error; the actor
follows a critique in 0.9 or in 0.5 of its second solutions. `liar` adds a fourth critic to the panel, who lies in 0.9
of its critiques.
"""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from annotators.leaks import find_leak
from pipelines.config import compose
from pipelines.engines.simulated import is_right_critique
from pipelines.run import Watcher, run
from pipelines.shards import read_rows
from schemas import Critique, Panel, PathAlone, PathPair, Record, Verified
from schemas import Path as SolutionPath
from schemas.arrow import from_row

BASE = (
    *("problems=simulated", "engine=simulated", "actor=plain", "search=default", "pairing=default"),
    *("verify=default", "engine.world.leak_rate=0.2"),
)
MAIN = (0.6, 0.9)
"""Accuracy of the critics and obedience of the actor whose figures are the benchmark's."""


class Quality(Record):
    """Figures of one way of keeping critiques."""

    kept: int
    right: int
    leaks: int
    paths: int
    """Paths for which the panel wrote at least one right critique."""
    found: int
    """Of those, paths that end with a right one kept."""

    @property
    def precision(self) -> float:
        """Right ones among the kept; NaN where none was kept."""
        return self.right / self.kept if self.kept else float("nan")

    @property
    def recall(self) -> float:
        """Paths with a right one kept among those that had one; NaN where there was none."""
        return self.found / self.paths if self.paths else float("nan")


def _helps(item: Verified) -> bool:
    """The published filter: more right with the critique than without; on a right path not fewer."""
    if item.with_critique is None or item.without_critique is None:
        return False
    with_critique, without = item.with_critique.rate, item.without_critique.rate
    if with_critique is None or without is None:
        return False
    return with_critique > without if item.has_error else with_critique >= without


SINGLE: dict[str, Callable[[Verified], bool]] = {
    "none": lambda _: True,
    "verdict": lambda item: item.verdict_agrees,
    "refinement": _helps,
    "verdict + refinement": lambda item: item.verdict_agrees and _helps(item),
}
"""Which of the critics' own critiques each published filter keeps."""


def measure(out: Path, measured: Path | None = None) -> dict[str, Quality]:
    """Figures of a finished run over the simulated world, for no filter, the published ones, and all of ours.

    Args:
      out: folder of the run.
      measured: folder of a run over the same problems with `verify.measure_all=true`,
        `verify.measure_leaking=true` and `panel.candidates=agents`, which the published filters need; None takes `out`.
    """
    paths = read_paths(out)
    written: defaultdict[str, list[bool]] = defaultdict(list)
    for row in read_rows(out, "critiques"):
        critique = from_row(row, Critique)
        written[critique.path_id].append(is_right(critique, paths[critique.path_id]))
    own = [item for item in read_verified(measured or out) if item.critique.agent != "panel"]
    figures = {
        name: _quality([item.critique for item in own if keeps(item)], paths, written) for name, keeps in SINGLE.items()
    }
    kept = [item.critique for item in read_verified(out) if item.decision == "kept"]
    return figures | {"all": _quality(kept, paths, written)}


def read_paths(out: Path) -> dict[str, SolutionPath]:
    """Paths of a finished run by id."""
    pairs = {row["id"]: from_row(row, PathPair) for row in read_rows(out, "pairs")}
    return {**pairs, **{row["id"]: from_row(row, PathAlone) for row in read_rows(out, "alone")}}


def read_verified(out: Path) -> list[Verified]:
    """Critiques of a finished run with their tests."""
    return [from_row(row, Verified) for row in read_rows(out, "verified")]


def is_right(critique: Critique, path: SolutionPath) -> bool:
    """Whether the world agrees with a critique."""
    return is_right_critique(
        path.problem.question, path.steps, critique.verdict, critique.first_wrong_step, critique.units
    )


def _quality(kept: Sequence[Critique], paths: dict[str, SolutionPath], written: dict[str, list[bool]]) -> Quality:
    right_of: defaultdict[str, bool] = defaultdict(bool)
    for critique in kept:
        right_of[critique.path_id] |= is_right(critique, paths[critique.path_id])
    could = [path_id for path_id, rights in written.items() if any(rights)]
    return Quality(
        kept=len(kept),
        right=sum(is_right(critique, paths[critique.path_id]) for critique in kept),
        leaks=sum(bool(find_leak(critique, paths[critique.path_id])) for critique in kept),
        paths=len(could),
        found=sum(right_of[path_id] for path_id in could),
    )


def reliabilities(out: Path) -> dict[str, float]:
    """What the panel thinks of each of its critics, mean over paths."""
    seen: defaultdict[str, list[float]] = defaultdict(list)
    for row in read_rows(out, "panels"):
        for vote in from_row(row, Panel).votes:
            seen[vote.agent].append(vote.reliability)
    return {agent: sum(values) / len(values) for agent, values in sorted(seen.items())}


class Trial:
    """Runs over one set of problems, with one folder for all of them."""

    def __init__(self, folder: Path, num_problems: int, overrides: Sequence[str]) -> None:
        self._folder = folder
        self._overrides = (*BASE, f"problems.num_problems={num_problems}", *overrides)

    def run(self, name: str, *overrides: str, journal: str = "") -> Path:
        """One run; those with the same journal share their samples."""
        out = self._folder / name
        shared = f"journal={self._folder / (journal or name)}.sqlite"
        run(compose([*self._overrides, *overrides, shared, f"out={out}"]), Watcher())
        return out

    def figures(self, accuracy: float, follow: float) -> dict[str, Quality]:
        """All filters for critics of this accuracy and an actor that follows critiques so often."""
        name = f"{accuracy}-{follow}"
        world = ("panel=blind", f"engine.world.critic_accuracy={accuracy}", f"engine.world.follow={follow}")
        out = self.run(name, *world)
        every = ("verify.measure_all=true", "verify.measure_leaking=true", "panel.candidates=agents")
        return measure(out, self.run(f"{name}-measured", *world, *every, journal=name))

    def liar(self) -> tuple[dict[str, Quality], dict[str, float]]:
        """What is kept of a panel without and with a liar, and how far its critics are believed."""
        honest = self.run("honest", "panel=blind", "engine.world.critic_accuracy=0.8")
        liar = self.run("liar", "panel=deceptive", "engine.world.critic_accuracy=0.8", "+engine.world.liars.liar=0.9")
        figures = {"without liar": measure(honest)["all"], "with liar": measure(liar)["all"]}
        return figures, reliabilities(liar)


def _table(rows: dict[tuple[float, float], dict[str, Quality]]) -> Table:
    table = Table("critics", "actor", "filter", "kept", "right", "leaks", "precision", "recall")
    for (accuracy, follow), figures in rows.items():
        for name, item in figures.items():
            counts = map(str, (item.kept, item.right, item.leaks))
            shares = f"{item.precision:.3f}", f"{item.recall:.3f}"
            table.add_row(f"{accuracy}", f"{follow}", name, *counts, *shares, end_section=name == "all")
    return table


def plot(rows: dict[tuple[float, float], dict[str, Quality]], path: Path) -> None:
    """Precision and recall of every filter over the critics' accuracy, one row of panels for each actor."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "wrongturn"
    from matplotlib import pyplot

    follows = sorted({follow for _, follow in rows}, reverse=True)
    figure, axes = pyplot.subplots(len(follows), 2, figsize=(9, 3.4 * len(follows)), squeeze=False, sharex=True)
    for follow, (left, right) in zip(follows, axes, strict=True):
        for axis, name in ((left, "precision"), (right, "recall")):
            for filtered in next(iter(rows.values())):
                points = [
                    (accuracy, getattr(figures[filtered], name))
                    for (accuracy, other), figures in sorted(rows.items())
                    if other == follow
                ]
                axis.plot(*zip(*points, strict=True), marker="o", label=filtered, linewidth=1 + (filtered == "all"))
            axis.set_title(f"{name}, actor follows in {follow}")
            axis.set_ylim(0, 1.03)
            axis.grid(alpha=0.3)
        left.legend(fontsize="small")
    for axis in axes[-1]:
        axis.set_xlabel("share of critiques that are right")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Runs the whole pipeline over the simulated world and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="50 problems instead of 200, one accuracy, one actor")
    parser.add_argument("--plot", type=Path, help="draw precision and recall over accuracy (needs matplotlib)")
    parser.add_argument("overrides", nargs="*", help="settings of the runs, as for `wrongturn run`")
    options = parser.parse_args()
    grid = [(accuracy, follow) for follow in (0.9, 0.5) for accuracy in (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)]
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Path(folder), 50 if options.quick else 200, options.overrides)
        rows = {cell: trial.figures(*cell) for cell in ([MAIN] if options.quick else grid)}
        liars, believed = trial.liar()
    console = Console(width=110)
    console.print(_table(rows))
    table = Table("panel", "kept", "right", "leaks", "precision", "recall")
    for name, item in liars.items():
        counts = map(str, (item.kept, item.right, item.leaks))
        table.add_row(name, *counts, f"{item.precision:.3f}", f"{item.recall:.3f}")
    console.print(table)
    console.print("believed:", ", ".join(f"{agent} {value:.2f}" for agent, value in believed.items()))
    if options.plot:
        plot(rows, options.plot)
    lines = {cell: {name: _plain(item) for name, item in figures.items()} for cell, figures in rows.items()}
    result = lines[MAIN]["all"] | {
        "filters": lines[MAIN],
        "grid": [
            {"accuracy": accuracy, "follow": follow, "filters": filters}
            for (accuracy, follow), filters in lines.items()
        ],
        "liar": {name: _plain(item) for name, item in liars.items()} | {"reliability": believed},
    }
    print(msgspec.json.encode(result).decode())


def _plain(item: Quality) -> dict[str, float]:
    return {"precision": item.precision, "recall": item.recall, "leaks": item.leaks, "kept": item.kept}


if __name__ == "__main__":
    main()

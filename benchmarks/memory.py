"""What a run's memory and time do as problems become more: 1,000, 5,000 and 20,000 simulated problems.

    python -m benchmarks.memory [--quick]

Each size is one `wrongturn run` in a fresh process over the simulated world, whose server has a process of its own and
no latency. The search is small (two rollouts a problem, two more along right paths, one critic), so that every table
gets rows and 20,000 problems take minutes. All sizes have the same settings and shards of 512 problems, of 125 for
--quick.

Peak RSS: the largest resident set that the run's process ever had, as the kernel counts it; children: that of the
largest child, 0 where there was none (numbers are compared without a process). Seconds: of the whole command, start of
the interpreter and imports included; CPU: of its process alone, which other work on the machine hardly touches. Fits
of either over problems are least squares; r^2 is the share of its variance that the line explains. `rss_ratio`: the
last size's peak over the first one's.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from pipelines.engines.simulated import SimulatedSettings, serving_subprocess
from pipelines.manifest import read_books
from schemas import Record

_ROOT = Path(__file__).resolve().parents[1]
_OVERRIDES = (
    *("problems=simulated", "engine=simulated", "actor=plain", "panel=blind"),
    *("search=default", "pairing=default", "verify=default", "engine.world.cache_blocks=0"),
    *("search.root_rollouts=2", "search.max_root_rollouts=2", "search.max_searches=0", "search.max_located=0"),
    *("search.confirm_rollouts=2", "search.max_confirm_rollouts=2", "search.hopeless_below=0", "search.easy_above=1"),
    # With two rollouts nothing is ever sure: almost any pair will do, since only its weight in memory matters here.
    *("pairing.max_pairs=1", "pairing.min_confidence=0.1", "pairing.alpha=0.9", "pairing.hold_above=0.01"),
    "panel.agents=[{name: skeptic, role: skeptic, view: blind}]",
    *("panel.meta_template=''", "panel.compose_template=''"),
    *("verify.help.rollouts=2", "verify.help.max_rollouts=2", "verify.help.alpha=0.9"),
)
_KIB_IN_MIB = 1024

_RUN = """
import json, os, re, resource, sys
from pipelines.main import main
code = main(["run", *sys.argv[1:]])
status = open("/proc/self/status").read()
children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
cpu = sum(os.times()[:2])
print(json.dumps({"code": code, "cpu": cpu, "peak": int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]), "child": children}))
"""
"""The command, and then what the kernel says. Not `ru_maxrss`: that begins with what the parent had."""


class Figure(Record):
    """One run."""

    problems: int
    seconds: float
    cpu_seconds: float
    rss_mib: float
    """Peak resident set of the run's process."""
    child_mib: float
    """Of its largest child; 0 where it had none."""
    rows: int
    """In all tables."""


class _Said(msgspec.Struct):
    code: int
    cpu: float
    """Seconds."""
    peak: int
    """KiB."""
    child: int
    """KiB."""


def measure(num_problems: int, shard_size: int, url: str) -> Figure:
    """One run of so many problems.

    Raises:
      RuntimeError: it did not end well.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        sizes = [f"problems.num_problems={num_problems}", f"runner.problems_per_shard={shard_size}"]
        command = [sys.executable, "-c", _RUN, *_OVERRIDES, *sizes, f"engine.url={url}", f"out={out}"]
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, cwd=_ROOT, check=False)
        seconds = time.monotonic() - began
        lines = done.stdout.splitlines()
        if done.returncode or msgspec.json.decode(lines[-1], type=_Said).code:
            raise RuntimeError(f"a run of {num_problems} problems failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        said = msgspec.json.decode(lines[-1], type=_Said)
        rows = sum(read_books(out).rows.values())
    return Figure(
        problems=num_problems,
        seconds=seconds,
        cpu_seconds=said.cpu,
        rss_mib=said.peak / _KIB_IN_MIB,
        child_mib=said.child / _KIB_IN_MIB,
        rows=rows,
    )


def linear_fit(sizes: Sequence[int], seconds: Sequence[float]) -> tuple[float, float, float]:
    """Seconds a problem, seconds at none, and r^2 of the least-squares line of `seconds` over `sizes`."""
    x, y = np.array(sizes, dtype=float), np.array(seconds)
    slope, start = np.polyfit(x, y, 1)
    left, spread = y - (slope * x + start), y - y.mean()
    return float(slope), float(start), float(1 - left @ left / (spread @ spread))


def main() -> None:
    """Runs every size and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="250, 500 and 1,000 problems in shards of 125")
    options = parser.parse_args()
    sizes, shard_size = ((250, 500, 1000), 125) if options.quick else ((1000, 5000, 20000), 512)
    with serving_subprocess(SimulatedSettings(cache_blocks=0)) as url:
        figures = [measure(size, shard_size, url) for size in sizes]
    fits = {
        "time": linear_fit(sizes, [each.seconds for each in figures]),
        "CPU time": linear_fit(sizes, [each.cpu_seconds for each in figures]),
    }
    table = Table("problems", "shards", "seconds", "CPU", "CPU ms a problem", "peak RSS, MiB", "children, MiB", "rows")
    for each in figures:
        table.add_row(
            f"{each.problems:,}",
            f"{-(-each.problems // shard_size)}",
            f"{each.seconds:.1f}",
            f"{each.cpu_seconds:.1f}",
            f"{1000 * each.cpu_seconds / each.problems:.1f}",
            f"{each.rss_mib:.0f}",
            f"{each.child_mib:.0f}",
            f"{each.rows:,}",
        )
    Console(width=100).print(table)
    for name, (slope, start, r2) in fits.items():
        print(f"{name} = {1000 * slope:.2f} ms a problem + {start:.1f} s, r^2 = {r2:.4f}")
    said = {
        "rss_ratio": round(figures[-1].rss_mib / figures[0].rss_mib, 3),
        "time_fit_r2": round(fits["time"][2], 5),
        "cpu_fit_r2": round(fits["CPU time"][2], 5),
        "cpu_ms_per_problem": round(1000 * fits["CPU time"][0], 2),
        **{f"rss_mib_{each.problems}": round(each.rss_mib, 1) for each in figures},
    }
    print(msgspec.json.encode(said).decode())


if __name__ == "__main__":
    main()

"""Whether estimates are honest: how often intervals cover the true success rate of a node, and what bias costs.

    python -m benchmarks.estimates [--quick]

Trees are grown over the simulated world, whose success rates are known exactly, with every adaptive part of the search
on: early stops, selection, probes for first errors, confirmation. Compared over all nodes that rollouts were started
from: `direct`, the interval of a node's own rollouts, which is what wrongturn keeps; `pooled`, the same interval over
all rollouts that were started at the node or anywhere below it, which selection and probes have steered; and how far
the mean value that selection works with (value sum over visits) is off.
"""

import argparse
import asyncio
import math
import random
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from mcts.answers import Check, quick
from mcts.base import Rollout
from mcts.estimates import interval
from mcts.pairing import PairSettings
from mcts.search import expand_tree
from mcts.settings import SearchSettings
from pipelines.engines.simulated.policy import solve
from pipelines.engines.simulated.settings import SimulatedSettings
from pipelines.engines.simulated.world import generator, make_problem, success_rate
from schemas import Estimate, Problem, Provenance, Record, Tree

WORLD = SimulatedSettings(min_steps=4, max_steps=8, malformed_rate=0.05)
SETTINGS = SearchSettings(max_searches=12, parallel_searches=3, max_rollouts=240, max_located=3)
_PROVENANCE = Provenance(model="simulated", revision="", engine="simulated", prompt_digest="", sampling="{}", seed=0)


class Node(Record):
    """One node that rollouts were started from, beside the truth."""

    truth: float
    direct: Estimate
    pooled: Estimate
    """Outcomes of all rollouts that were started at the node or below it."""
    mean_value: float
    """Value sum over visits."""


class Figure(Record):
    """Coverage of one way to estimate at one level."""

    name: str
    level: float
    nodes: int
    coverage: float
    sampling_error: float
    """Standard error of the coverage, each node counted as independent."""
    bias: float
    """Mean of estimated minus true rate."""


async def _grow(problem: Problem, seed: int) -> Tree:
    async def policy(prefix: str, *, num_samples: int, first_sample: int) -> Sequence[Rollout]:
        await asyncio.sleep(0)
        rollouts = []
        for index in range(first_sample, first_sample + num_samples):
            text = solve(problem.question, prefix, generator("estimates", seed, prefix, index), WORLD)
            rollouts.append(Rollout(text=text, tokens=len(text) // 4))
        return rollouts

    async def verifier(solution: str) -> Check:
        line = solution.rstrip().rpartition("\n")[2]
        answer = line.removeprefix("Answer:").strip() if line.startswith("Answer:") else ""
        return quick(answer, problem.answer, "exact") or Check(outcome="unscored", reason="undecided")

    return await expand_tree(
        problem, policy=policy, verifier=verifier, settings=SETTINGS, pairing=PairSettings(), provenance=_PROVENANCE
    )


def observe(num_trees: int, seed: int = 0) -> Iterator[Node]:
    """Every node with scored direct rollouts of `num_trees` trees."""
    for index in range(num_trees):
        problem = make_problem(seed, index, WORLD)
        tree = asyncio.run(_grow(problem, seed))
        pooled = [node.direct for node in tree.nodes]
        for i in range(len(tree.nodes) - 1, 0, -1):
            pooled[tree.nodes[i].parent] += pooled[i]
        for i, node in enumerate(tree.nodes):
            if node.direct.scored:
                truth = success_rate(problem.question, tree.steps(i), WORLD)
                mean_value = node.value_sum / node.visits
                yield Node(truth=truth, direct=node.direct, pooled=pooled[i], mean_value=mean_value)


def measure(nodes: Sequence[Node], level: float) -> list[Figure]:
    """Coverage of both intervals, and the bias of all three point estimates."""
    figures = []
    for name in ("direct", "pooled"):
        estimates: list[Estimate] = [getattr(node, name) for node in nodes]
        hits = []
        for node, estimate in zip(nodes, estimates, strict=True):
            low, high = interval(estimate, level)
            hits.append(low <= node.truth <= high)
        coverage = float(np.mean(hits))
        bias = np.mean([e.correct / e.scored - node.truth for e, node in zip(estimates, nodes, strict=True)])
        error = math.sqrt(level * (1 - level) / len(nodes))
        figures.append(
            Figure(name=name, level=level, nodes=len(nodes), coverage=coverage, sampling_error=error, bias=float(bias))
        )
    return figures


def main() -> None:
    """Grows the trees and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="150 trees instead of 600")
    options = parser.parse_args()
    nodes = list(observe(150 if options.quick else 600))
    random.Random(0).shuffle(nodes)
    table = Table("interval", "level", "nodes", "coverage", "sampling error", "bias of the rate")
    figures = [figure for level in (0.8, 0.9, 0.95) for figure in measure(nodes, level)]
    for figure in figures:
        table.add_row(
            figure.name,
            f"{figure.level}",
            str(figure.nodes),
            f"{figure.coverage:.3f}",
            f"{figure.sampling_error:.3f}",
            f"{figure.bias:+.3f}",
        )
    Console(width=100).print(table)
    mean_bias = float(np.mean([node.mean_value - node.truth for node in nodes]))
    print(f"mean of value sum over visits minus truth: {mean_bias:+.3f}")
    unscored = sum(node.direct.unscored for node in nodes)
    print(f"unscored rollouts, in no estimate: {unscored} of {unscored + sum(node.direct.scored for node in nodes)}")
    print(msgspec.json.encode({"figures": figures, "mean_value_bias": mean_bias, "unscored": unscored}).decode())


if __name__ == "__main__":
    main()

"""Selection rules: pure scores. The node, or for `omega` the rollout, with the highest one is searched next.

Symbols: V mean value of a node, N its visits, N_p its parent's visits, p its prior. Virtual visits of searches
still in flight are inside N already, with value 0.
"""

import math
from collections.abc import Callable

from mcts.settings import Bonuses, OmegaConstants
from schemas import Record


class Stats(Record):
    """What a rule may look at."""

    visits: int
    """N, virtual visits included."""
    value_sum: float
    """Sum of values over real visits; virtual ones add 0."""
    parent_visits: int
    """N_p."""
    prior: float
    """p: share of the parent's rollouts that took this step, 0..1."""

    @property
    def value(self) -> float:
        """V, 0 for a node that was never visited."""
        return self.value_sum / self.visits if self.visits else 0.0


def greedy_value(stats: Stats, exploration: float) -> float:
    """V alone: the child of highest value (MMC, arXiv 2504.11009, sect. 3)."""
    del exploration
    return stats.value


def uct(stats: Stats, exploration: float) -> float:
    """V + c sqrt(2 ln N_p / N), infinite for N = 0 (Kocsis and Szepesvari 2006).

    c is 0.7 in ReST-MCTS* (arXiv 2406.03816) and 0.5 in Mulberry (arXiv 2412.18319).
    """
    if not stats.visits:
        return math.inf
    return stats.value + exploration * math.sqrt(2 * math.log(max(stats.parent_visits, 1)) / stats.visits)


def puct(stats: Stats, exploration: float) -> float:
    """V + c p sqrt(N_p) / (1 + N) (Rosin 2011; MCTS-DPO, arXiv 2405.00451)."""
    return stats.value + exploration * stats.prior * math.sqrt(stats.parent_visits) / (1 + stats.visits)


class RolloutStats(Record):
    """What `omega` may look at: an incorrect rollout and the state it started from."""

    value: float
    """MC: share of the state's direct rollouts that came out right, above 0 and below 1."""
    length: float
    """len: tokens of the rollout."""
    visits: int
    """N: searches that selected the state, those in flight included."""
    total_visits: int
    """Sum of N over all states."""


def omega(stats: RolloutStats, exploration: float, constants: OmegaConstants) -> float:
    """alpha^(1 - MC) beta^(len / L) + c sqrt(sum N) / (1 + N) (OmegaPRM, arXiv 2406.06592, sect. 3.3).

    A rollout that is wrong although its state is nearly always right is a likely slip, and a short one is cheap to
    halve. OmegaPRM has alpha 0.5, beta 0.9, L 500, c 0.125; MM-PRM (arXiv 2505.13427) the same with L 2000.
    """
    exploitation = math.pow(constants.alpha, 1 - stats.value) * math.pow(
        constants.beta, stats.length / constants.length
    )
    return exploitation + exploration * math.sqrt(stats.total_visits) / (1 + stats.visits)


class Shape(Record):
    """What bonuses may look at."""

    depth: int
    """d, at least 1."""
    value: float
    """0..1, without virtual visits; 0 for a node that was never visited."""
    is_leaf: bool
    """Whether it was tried and none of its children was."""
    likeness: float
    """To the sibling that it is most like of those that were tried, 0..1; 0 where none was."""


def bonus(shape: Shape, bonuses: Bonuses) -> float:
    """Alpha e^(-beta (d - 1)) - gamma sqrt(d), and what is added for a promising leaf and for being different.

    The depth terms are those of SWE-Search (arXiv 2410.20285, UCT with depth bonus and penalty), the other two those of
    its code.
    """
    total = bonuses.depth * math.exp(-bonuses.depth_decay * (shape.depth - 1))
    total -= bonuses.depth_penalty * math.sqrt(shape.depth)
    if shape.is_leaf and shape.value >= bonuses.leaf_above:
        total += bonuses.leaf
    return total + bonuses.diversity * (1 - shape.likeness)


Rule = Callable[[Stats, float], float]

RULES: dict[str, Rule] = {"greedy_value": greedy_value, "uct": uct, "puct": puct}
"""Rules that score nodes."""

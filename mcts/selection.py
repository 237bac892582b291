"""Selection rules: pure scores of a node. The higher one is searched next.

Symbols: V mean value of a node, N its visits, N_p its parent's visits, p its prior. Virtual visits of searches
still in flight are inside N already, with value 0.
"""

import math
from collections.abc import Callable

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


Rule = Callable[[Stats, float], float]

RULES: dict[str, Rule] = {"greedy_value": greedy_value, "uct": uct, "puct": puct}

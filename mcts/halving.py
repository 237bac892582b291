"""OmegaPRM's search (arXiv 2406.06592, algorithm 1): select a wrong rollout, halve it until its first error is found.

A state's Monte-Carlo value MC is the share of its direct rollouts that came out right. From every state with
0 < MC < 1 the wrong rollouts wait in a pool; `mcts.selection.omega` picks one. Binary search over its steps asks of
each middle state whether any of its rollouts comes out right; those states, with rollouts of their own, join the pool.
"""

from mcts.growth import Growth
from mcts.selection import RolloutStats, omega
from mcts.settings import SearchSettings
from mcts.waves import Plan


class Halving:
    """The pool of wrong rollouts of one growing tree."""

    def __init__(self, growth: Growth, settings: SearchSettings) -> None:
        self._growth = growth
        self._settings = settings
        self._taken: set[tuple[int, int]] = set()
        """(state, place among its rollouts) of rollouts that were selected."""
        self._visits: dict[int, int] = {}

    def select(self) -> Plan | None:
        """A search of the best rollout in the pool; None where it is empty now. Its visit counts at once."""
        pool = [(self._score(state, tokens), -state, -place, leaf) for state, place, leaf, tokens in self._pool()]
        if not pool:
            return None
        _, state, place, leaf = max(pool)
        self._taken.add((-state, -place))
        self._visits[-state] = self._visits.get(-state, 0) + 1
        return self._halve(-state, leaf)

    def _pool(self) -> list[tuple[int, int, int, int]]:
        """(state, place, terminal, tokens) of all wrong rollouts that wait."""
        nodes = self._growth.nodes
        return [
            (state, place, leaf, tokens)
            for state, bud in enumerate(nodes)
            if 0 < bud.direct.correct < bud.direct.scored
            for place, (leaf, tokens) in enumerate(bud.rollouts)
            if self._growth.outcome(leaf) == "incorrect" and (state, place) not in self._taken
        ]

    def _score(self, state: int, tokens: int) -> float:
        direct = self._growth.nodes[state].direct
        stats = RolloutStats(
            value=direct.correct / direct.scored,
            length=tokens,
            visits=self._visits.get(state, 0),
            total_visits=sum(self._visits.values()),
        )
        return omega(stats, self._settings.exploration, self._settings.omega)

    def _halve(self, state: int, leaf: int) -> Plan:
        """Looks for the first state behind `state` on the way to `leaf` from which nothing comes out right.

        A state that has rollouts already is not asked again; one whose rollouts are all unscored counts as not right.
        """
        nodes, path = self._growth.nodes, self._growth.path(leaf)
        inner = path[path.index(state) + 1 : -1]
        low, high = 0, len(inner)
        while low < high:
            middle = inner[(low + high) // 2]
            if not nodes[middle].sampled:
                yield [(middle, self._settings.rollouts_per_search)]
            while nodes[middle].is_pending:
                yield []
            if nodes[middle].direct.correct:
                low = (low + high) // 2 + 1
            else:
                high = (low + high) // 2

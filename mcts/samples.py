"""Whole solutions of one problem merged into a step trie: a tree that nobody searched.

First errors of the wrong ones are located by rollouts all the same, so that pairing, critics and verification read the
tree as they read a searched one.
"""

from typing import Any, Literal

import msgspec

from mcts.search import TreeSearch
from mcts.waves import Plan
from schemas import Problem, Record, Tree, digest


class SampleSettings(Record, tag_field="kind", tag="samples"):
    """How many solutions are sampled, and how the first errors of the wrong ones are located.

    Of the search's settings those count that say what a step is, how a path is probed and confirmed, and what a tree
    may cost.
    """

    num_samples: int = 8
    """Whole solutions of a problem, in one request. DeepCritic (arXiv 2505.00662, stage two) takes 8 at temperature
    1.0."""
    locate: Literal["change_point", "completions"] = "change_point"
    """`change_point` places rollouts where they tell most, as the search does; `completions` takes equally many from
    every step but the last, as Math-Shepherd (arXiv 2312.08935) and DeepCritic's stage two do."""
    completions_per_step: int = 8
    """Rollouts from each step where `locate` is `completions`. A tree's `max_rollouts` pays for them, too."""

    def __post_init__(self) -> None:
        if self.num_samples < 2:
            raise ValueError(f"num_samples must be at least 2 for a wrong and a right one, got {self.num_samples}")
        if self.completions_per_step < 1:
            raise ValueError(f"completions_per_step must be at least 1, got {self.completions_per_step}")


class SampledTree(TreeSearch):
    """One problem's solutions. Make one for each tree, await `grow` once."""

    def __init__(self, samples: SampleSettings, problem: Problem, **search: Any) -> None:
        """Takes how to sample, and what `TreeSearch` takes."""
        super().__init__(problem, **search)
        self._samples = samples
        self._source: Record = samples
        """What the tree is told apart by, beside the search's settings."""

    async def _phases(self) -> str:
        await self._all([self._solve()])
        if not self._growth.nodes[0].direct.scored:
            return "nothing_scored"
        await self._locate()
        return "samples"

    def _solve(self) -> Plan:
        yield [(0, self._samples.num_samples)]

    async def _locate(self) -> None:
        """Locates the first errors of wrong paths, and confirms right ones."""
        suspects = self._suspects()
        locate = self._complete if self._samples.locate == "completions" else self._probe
        await self._all([locate(leaf) for leaf in suspects])
        await self._all([self._confirm_partner(leaf) for leaf in suspects])
        await self._all([self._confirm(self._growth.path(leaf)[1:-1]) for leaf in self._lone()])

    def _complete(self, leaf: int) -> Plan:
        """Rolls out equally often from every step of a wrong path but its last; steps that two paths share, once."""
        nodes, wanted = self._growth.nodes, self._samples.completions_per_step
        wave = [(i, wanted - nodes[i].sampled) for i in self._growth.path(leaf)[1:-1] if nodes[i].sampled < wanted]
        if wave:
            yield wave

    def _freeze(self, stopped: str) -> Tree:
        settings_digest = digest(self._settings, self._source)
        tree_id = digest("tree", self._problem, self._provenance, settings_digest)
        return msgspec.structs.replace(super()._freeze(stopped), id=tree_id, settings_digest=settings_digest)

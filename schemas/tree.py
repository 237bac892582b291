"""A tree of reasoning as a value: nodes in a tuple, parents as integers."""

from collections.abc import Iterator
from typing import Literal

from schemas.base import Estimate, Outcome, Provenance, Record
from schemas.problem import Problem


class Node(Record):
    """One step of reasoning, or the root (node 0, empty step). A parent always stands before its children."""

    parent: int
    """Index of the parent, -1 for the root."""
    step: str
    """Exact text of the step with its separators: a path's text is the plain concatenation of its steps."""
    depth: int
    """Steps from the root; 0 for the root."""
    kind: Literal["root", "step", "terminal"]
    """`terminal` ends a solution: it holds the answer or is where the model stopped without one."""
    answer: str | None = None
    """Answer found in the whole path; None at inner nodes and where there was none."""
    outcome: Outcome | None = None
    """What the checker said of `answer`; None at inner nodes."""
    unscored_reason: str | None = None
    """Why the outcome is `unscored`; None otherwise."""
    direct: Estimate = Estimate()
    """Outcomes of rollouts started at this very node: the only unbiased view of its value."""
    visits: int = 0
    """Searches that passed through; steered by selection, used by selection alone."""
    value_sum: float = 0.0
    """Sum over visits of the share of right rollouts; likewise for selection alone."""
    flawed: bool = False
    """Known to be the first wrong step of every path through it, not located by rollouts: an error that was put there
    (`paths=injected`) or that a person labelled (`paths=given`)."""
    prior: float | None = None
    """Probability of the step among its siblings where the policy gave one."""


class Tree(Record):
    """All rollouts of one problem merged by equal steps."""

    id: str
    problem: Problem
    nodes: tuple[Node, ...]
    provenance: Provenance
    settings_digest: str
    """Digest of the search settings."""
    stopped: str
    """Why the search ended: `budget`, `easy`, `hopeless`, `nothing_scored`, `searches`; `given` where none was."""
    calls: int
    """Model requests."""
    rollouts: int
    """Sampled continuations, failed ones included."""
    completion_tokens: int
    """Tokens sampled for this tree."""
    dropped_tokens: int
    """Of those, tokens in no node of the tree: samples that came back failed or empty."""

    def path(self, node: int) -> tuple[int, ...]:
        """Indices from the root's child down to `node`; empty for the root."""
        indices: list[int] = []
        while node > 0:
            indices.append(node)
            node = self.nodes[node].parent
        return tuple(reversed(indices))

    def steps(self, node: int) -> tuple[str, ...]:
        """Step texts from the root's child down to `node`."""
        return tuple(self.nodes[i].step for i in self.path(node))

    def terminals(self) -> Iterator[int]:
        """Indices of terminal nodes, in order of creation."""
        return (i for i, node in enumerate(self.nodes) if node.kind == "terminal")

    def children(self) -> tuple[tuple[int, ...], ...]:
        """For each node the indices of its children, in order of creation."""
        lists: list[list[int]] = [[] for _ in self.nodes]
        for i, node in enumerate(self.nodes):
            if node.parent >= 0:
                lists[node.parent].append(i)
        return tuple(map(tuple, lists))

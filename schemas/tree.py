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
    message: str = ""
    """What the checker said besides: of a program the error that its tests ended with, in the domain `command` what the
    command wrote, its first 2,000 characters. A stranger's text, and it may hold the gold answer."""
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
    reasoning: str = ""
    """What the model thought before it wrote this step, of the first rollout that began with it; empty where it thought
    nothing, or where thoughts are not kept (`engine.thinking.keep`)."""


class Edit(Record):
    """A step of a right path that was to be written anew with an error in it (`paths=injected`), and how that went."""

    original: int
    """Index of the node whose step it is."""
    node: int | None
    """Index of the node that holds the changed step, a sibling of `original`; None where no rewriting was usable."""
    how: str
    """`edit`, `hot` or `hint`: see `mcts.injected`."""
    error_type: str
    """Name of the error that was asked for; empty where none was named."""
    state: str
    """`proved`, then `node` is flawed; else why it is not, from `mcts.injected.EDIT_STATES`."""
    unusable: tuple[str, ...] = ()
    """Why rewritings before the one that was taken were none, from `mcts.injected.REWRITE_REJECTIONS`."""
    original_estimate: Estimate = Estimate()
    """Completions of the original step that the proof counts: those drawn after the step was picked."""
    edited_estimate: Estimate = Estimate()
    """Likewise of the changed step."""


class Guess(Record):
    """What a model said that a node is worth (`search.hybrid`). It served selection alone."""

    node: int
    value: int | None
    """-100..100; None where the reply could not be read."""
    reason: str
    advice: str = ""
    """What the rollouts from this node were told of its siblings; empty where they were told nothing. Those that were
    told something are no direct ones."""


class Debate(Record):
    """How a tree's last candidates were argued about (`search.hybrid.debaters`)."""

    candidates: tuple[int, ...]
    """Terminal nodes with different answers."""
    arguments: tuple[str, ...]
    """In the order in which they were heard: each round's debaters in turn."""
    choices: tuple[int | None, ...]
    """For each argument the index among the candidates that it is for; None where it could not be read."""
    chosen: int | None
    """Terminal node for which most debaters spoke last; None where two had as many."""


class Tree(Record):
    """All rollouts of one problem merged by equal steps."""

    id: str
    problem: Problem
    nodes: tuple[Node, ...]
    provenance: Provenance
    settings_digest: str
    """Digest of the search settings."""
    stopped: str
    """Why the search ended: `budget`, `easy`, `hopeless`, `nothing_scored`, `searches`; `given` where none was. Other
    sources of paths than a search have words of their own, see `docs/paths.md`."""
    calls: int
    """Model requests."""
    rollouts: int
    """Sampled continuations, failed ones included."""
    completion_tokens: int
    """Tokens sampled for this tree."""
    dropped_tokens: int
    """Of those, tokens in no node of the tree: samples that came back failed or empty, rewritings that were none."""
    edits: tuple[Edit, ...] = ()
    """Errors that were put into steps of it; empty unless `paths=injected`."""
    guesses: tuple[Guess, ...] = ()
    """What a model said of nodes; empty unless `search.hybrid` asks one."""
    debate: Debate | None = None
    """How a debate of its solutions went; None where there was none."""

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

    def is_flawed(self, node: int) -> bool:
        """Whether a step up to `node` is known to be wrong: no right path leads on from there, whatever the answer."""
        return any(self.nodes[i].flawed for i in self.path(node))

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

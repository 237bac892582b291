"""Paths picked out of a tree: what critics read and what preference pairs are made of."""

from schemas.base import Estimate, Provenance, Record
from schemas.problem import Problem


class Branch(Record):
    """A run of consecutive nodes with the estimates taken there. All tuples have one entry a step."""

    steps: tuple[str, ...]
    nodes: tuple[int, ...]
    """Node indices in the tree."""
    estimates: tuple[Estimate, ...]
    """Direct estimates after each step."""
    answer: str | None
    """The final answer that the branch ends in."""
    message: str = ""
    """What the checker said of that answer besides its outcome, see `Node.message`."""


class PathPair(Record, tag=True):
    """A wrong path and a right one that share their first steps. Step indices count from 0 over the whole path.

    The value of a finished solution is known, not estimated: its answer was checked. Where it is a side of the pair it
    is counted as that one checked outcome, 0 of 1 or 1 of 1, and nothing is sampled about it.
    """

    id: str
    problem: Problem
    tree_id: str
    provenance: Provenance
    """The actor that wrote both paths."""
    prefix: tuple[str, ...]
    """Steps that both share; may be empty."""
    prefix_nodes: tuple[int, ...]
    prefix_estimates: tuple[Estimate, ...]
    """Direct estimates after each of them."""
    wrong: Branch
    """From the fork to the wrong answer."""
    right: Branch
    """From the fork to the right answer, holding its value along the way; may be nothing but the answer where the
    fork itself holds."""
    divergence: int
    """Index of the first step in which they differ; equals len(prefix)."""
    posterior: tuple[float, ...]
    """For each step of the wrong path the probability that it is the first wrong one; sums to 1."""
    first_error: int
    """Where `posterior` is largest."""
    root_estimate: Estimate
    """Rollouts from the problem alone."""
    right_estimate: Estimate
    """The better side of `p_value`: direct rollouts after the right branch's first step. Where that step is the answer
    itself: the known 1 of 1 if the wrong side is known too, else the direct rollouts from the fork."""
    wrong_estimate: Estimate
    """The worse side of `p_value`: direct rollouts after the located first wrong step and all later ones. Where that
    step is the answer itself: the known 0 of 1."""
    p_value: float
    """One-sided exact test that the right side's rate is not above the wrong side's: Fisher's where both sides were
    sampled. Against a known 0 it is the probability of so many right outcomes at rate 0: 0.0 if there was one."""
    rule: str
    """Name of the pairing rule that picked it."""
    original_step: str = ""
    """What stood in the place of the first wrong step before an error was put there (`paths=injected`); empty where the
    error is the actor's own."""
    error_type: str = ""
    """Kind of error that was asked for; empty where none was."""

    @property
    def steps(self) -> tuple[str, ...]:
        """The solution that critics read: the whole wrong path."""
        return self.prefix + self.wrong.steps

    @property
    def right_steps(self) -> tuple[str, ...]:
        """The whole right path."""
        return self.prefix + self.right.steps

    @property
    def answer(self) -> str | None:
        """The answer of the solution that critics read."""
        return self.wrong.answer

    @property
    def message(self) -> str:
        """What the checker said of the solution that critics read."""
        return self.wrong.message

    @property
    def has_error(self) -> bool:
        """The label: the solution that critics read is wrong."""
        return True

    @property
    def node_ids(self) -> tuple[int, ...]:
        """Nodes of the solution that critics read."""
        return self.prefix_nodes + self.wrong.nodes


class PathAlone(Record, tag=True):
    """A right path that holds its value along the way: critics must learn to say that there is no error."""

    id: str
    problem: Problem
    tree_id: str
    provenance: Provenance
    path: Branch
    root_estimate: Estimate

    @property
    def steps(self) -> tuple[str, ...]:
        """The solution that critics read."""
        return self.path.steps

    @property
    def answer(self) -> str | None:
        """The answer of the solution that critics read."""
        return self.path.answer

    @property
    def message(self) -> str:
        """What the checker said of the solution that critics read."""
        return self.path.message

    @property
    def has_error(self) -> bool:
        """The label: the solution that critics read is right."""
        return False

    @property
    def node_ids(self) -> tuple[int, ...]:
        """Nodes of the solution that critics read."""
        return self.path.nodes


Path = PathPair | PathAlone

"""What decides about a possible pair: where its wrong path errs, what both sides are worth, how sure the gap is.

A finished solution has a value that is known, not estimated: its answer was checked, and a rollout from it could only
give the same answer again. Such a value is counted as the one checked outcome that it is (1 of 1 or 0 of 1), and what
is compared with it is compared with a known rate, not with a sample of one.
"""

from collections.abc import Sequence

from mcts.estimates import p_greater
from schemas import Estimate, Record, Tree


class WrongPath(Record):
    """A wrong path with its located first error: everything about it that does not depend on its partner."""

    leaf: int
    path: tuple[int, ...]
    """Node indices from the root's child to `leaf`."""
    posterior: tuple[float, ...]
    """For each step the probability that it is the first wrong one."""
    first_error: int
    """Where `posterior` is largest."""
    estimate: Estimate
    """Direct rollouts from the first wrong step on; 0 of 1 where that step is the answer itself."""

    @property
    def error(self) -> int:
        """Node index of the first wrong step."""
        return self.path[self.first_error]

    @property
    def errs_in_answer(self) -> bool:
        """Whether the first wrong step is the last: nothing comes after it, and its value is known to be 0."""
        return self.first_error == len(self.path) - 1

    @property
    def confidence(self) -> float:
        """Posterior probability of `first_error`."""
        return self.posterior[self.first_error]


class Candidate(Record):
    """A possible pair: a wrong path and a right one, the node where they part, and the test of their gap."""

    fork: int
    wrong: WrongPath
    right: int
    """The right terminal."""
    right_estimate: Estimate
    wrong_estimate: Estimate
    p_value: float

    def gap(self) -> float:
        """Difference of the two rates, -1..1."""
        return (self.right_estimate.rate or 0.0) - (self.wrong_estimate.rate or 0.0)


def wrong_path(tree: Tree, leaf: int, posterior: Sequence[float]) -> WrongPath:
    """The path to a wrong terminal, given the posterior of its first error with one entry a step."""
    path = tree.path(leaf)
    first_error = max(range(len(posterior)), key=posterior.__getitem__)
    if first_error == len(path) - 1:
        estimate = Estimate(correct=0, scored=1)
    else:
        estimate = sum((tree.nodes[i].direct for i in path[first_error:]), Estimate())
    return WrongPath(leaf=leaf, path=path, posterior=tuple(posterior), first_error=first_error, estimate=estimate)


def candidate(tree: Tree, fork: int, wrong: WrongPath, right_path: Sequence[int]) -> Candidate:
    """Weighs a wrong path against a right one that leaves it at `fork`.

    The better side is what was measured after the right branch's first step. Where that step is the right answer
    itself, its value 1 is known, and so it is set against a wrong answer, whose value 0 is known. But it was picked
    for coming out right: against a wrong step that was only measured it proves nothing, a rate of 7/8 would fall short
    of it. There the fork's own rollouts are the better side, for a position is worth no more than its best next step.

    Args:
      tree: where both paths lie.
      fork: the deepest node on both paths.
      wrong: the wrong path; its first error must not come before the fork for the pair to be good.
      right_path: node indices from the root's child to the right terminal.
    """
    first = right_path[tree.nodes[fork].depth]
    if first != right_path[-1]:
        better = tree.nodes[first].direct
    elif wrong.errs_in_answer:
        better = Estimate(correct=1, scored=1)
    else:
        better = tree.nodes[fork].direct
    return Candidate(
        fork=fork,
        wrong=wrong,
        right=right_path[-1],
        right_estimate=better,
        wrong_estimate=wrong.estimate,
        p_value=p_above_zero(better) if wrong.errs_in_answer else p_greater(better, wrong.estimate),
    )


def p_above_zero(better: Estimate) -> float:
    """Exact p-value for `better` having no higher rate than one that is known to be 0.

    The probability of at least `better.correct` right outcomes at rate 0: 0.0 where there was one, else 1.0.
    """
    return 0.0 if better.correct else 1.0

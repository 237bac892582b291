"""Picking paths out of a tree: wrong ones whose first error is located, each with a right one that forks off.

Pairs are looked for on the trie of step texts, never on parent pointers of some other search: there a "sibling"
is often a shorter piece of the same rollout.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

import networkx as nx

from mcts.estimates import p_greater, side
from mcts.first_error import ChangePoint, first_error_posterior
from schemas import (
    Branch,
    Estimate,
    Node,
    Path,
    PathAlone,
    PathPair,
    Problem,
    Provenance,
    Record,
    Rejection,
    Tree,
    digest,
)

PairRule = Literal["deepest_fork", "widest_gap", "every_fork"]

PAIR_REJECTIONS = (
    "nothing_scored",
    "no_right_path",
    "no_wrong_path",
    "first_error_unclear",
    "fork_after_error",
    "right_path_does_not_hold",
    "gap_not_significant",
)
"""Why a tree gives no path: of its candidate pairs' failed tests, the one that came last in this order."""


class PairSettings(Record):
    """Which paths are good enough to teach from."""

    rule: PairRule = "deepest_fork"
    """`deepest_fork`: longest shared prefix first; `widest_gap`: largest difference of rates first; `every_fork`:
    clearest gap (smallest p-value) first, wherever its fork lies. All take a second pair of one fork only when every
    other fork had its turn."""
    max_pairs: int = 2
    """Pairs a tree at most; spread over forks."""
    max_alone: int = 1
    """Right paths without a partner a tree at most."""
    alpha: float = 0.05
    """Largest one-sided Fisher p-value of the gap between the right and the wrong side."""
    min_confidence: float = 0.7
    """Least posterior probability of the located first wrong step."""
    hold_above: float = 0.2
    """A right path holds where the interval of every estimate along it lies above this rate."""
    level: float = 0.9
    """Level of the intervals."""

    def __post_init__(self) -> None:
        for name in ("alpha", "min_confidence", "hold_above", "level"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        if self.max_pairs < 0 or self.max_alone < 0:
            raise ValueError(f"max_pairs and max_alone count paths, got {self.max_pairs} and {self.max_alone}")


def tree_from_paths(problem: Problem, paths: Sequence[tuple[Sequence[str], Node]], provenance: Provenance) -> Tree:
    """A tree of given step lists, equal steps merged.

    Args:
      problem: what the paths answer.
      paths: step texts of each path from the first step to the last, and a terminal node whose answer, outcome
        and estimate the last step gets.
      provenance: who wrote them.
    """
    nodes = [Node(parent=-1, step="", depth=0, kind="root")]
    index: dict[tuple[int, str, bool], int] = {}
    for steps, end in paths:
        current = 0
        for i, step in enumerate(steps):
            last = i == len(steps) - 1
            key = (current, step, last)
            if key not in index:
                index[key] = len(nodes)
                nodes.append(
                    Node(
                        parent=current,
                        step=step,
                        depth=i + 1,
                        kind="terminal" if last else "step",
                        answer=end.answer if last else None,
                        outcome=end.outcome if last else None,
                        unscored_reason=end.unscored_reason if last else None,
                        direct=end.direct if last else Estimate(),
                    )
                )
            current = index[key]
    return Tree(
        id=digest("tree", problem.id, nodes),
        problem=problem,
        nodes=tuple(nodes),
        provenance=provenance,
        settings_digest="",
        stopped="given",
        calls=0,
        rollouts=0,
        completion_tokens=0,
        dropped_tokens=0,
    )


def forks(tree: Tree) -> tuple[tuple[int, int, int], ...]:
    """All (fork, wrong terminal, right terminal), the fork being the deepest node on both paths.

    A wrong path whose steps are the beginning of a right one's, or the reverse, diverges nowhere and is left out. White
    space around a step does not count there: the last step of a text lacks the separator that an inner one ends with.
    """
    right = [i for i in tree.terminals() if tree.nodes[i].outcome == "correct"]
    wrong = [i for i in tree.terminals() if tree.nodes[i].outcome == "incorrect"]
    if not right or not wrong:
        return ()
    graph = nx.DiGraph((node.parent, i) for i, node in enumerate(tree.nodes) if i)
    ancestors = nx.tree_all_pairs_lowest_common_ancestor(graph, 0, [(w, r) for w in wrong for r in right])
    steps = {leaf: [step.strip() for step in tree.steps(leaf)] for leaf in (*right, *wrong)}
    return tuple(sorted((fork, w, r) for (w, r), fork in ancestors if _diverge(steps[w], steps[r])))


def _diverge(one: Sequence[str], other: Sequence[str]) -> bool:
    return any(a != b for a, b in zip(one, other, strict=False))


def prefix_estimates(tree: Tree, leaf: int) -> tuple[Estimate, ...]:
    """Direct estimates after 0, 1, .., M-1 steps of the path to `leaf`, which has M steps."""
    path = (0, *tree.path(leaf))
    return tuple(tree.nodes[i].direct for i in path[:-1])


def holds(estimates: Sequence[Estimate], settings: PairSettings) -> bool:
    """Whether a right path keeps its value: a right answer is not a right path (a step may be wrong by luck undone)."""
    return bool(estimates) and all(
        side(estimate, settings.hold_above, settings.level) == "above" for estimate in estimates
    )


class _Candidate(Record):
    """A possible pair with what decides about it."""

    fork: int
    wrong: int
    right: int
    posterior: tuple[float, ...]
    first_error: int
    right_estimate: Estimate
    wrong_estimate: Estimate
    p_value: float

    def gap(self) -> float:
        return (self.right_estimate.rate or 0.0) - (self.wrong_estimate.rate or 0.0)


def _candidate(tree: Tree, fork: int, wrong: int, right: int, posterior: tuple[float, ...]) -> _Candidate:
    depth = tree.nodes[fork].depth
    first_error = max(range(len(posterior)), key=posterior.__getitem__)
    wrong_path, right_path = tree.path(wrong), tree.path(right)
    after = [tree.nodes[i].direct for i in wrong_path[first_error:]]
    right_estimate = tree.nodes[right_path[depth]].direct
    wrong_estimate = sum(after, Estimate())
    return _Candidate(
        fork=fork,
        wrong=wrong,
        right=right,
        posterior=posterior,
        first_error=first_error,
        right_estimate=right_estimate,
        wrong_estimate=wrong_estimate,
        p_value=p_greater(right_estimate, wrong_estimate),
    )


def _flaw(tree: Tree, candidate: _Candidate, settings: PairSettings) -> str | None:
    """The first test that a candidate fails; None where it is good."""
    depth = tree.nodes[candidate.fork].depth
    if candidate.posterior[candidate.first_error] < settings.min_confidence:
        return "first_error_unclear"
    if depth > candidate.first_error:
        return "fork_after_error"
    inner = tree.path(candidate.right)[depth:-1]
    if not holds([tree.nodes[i].direct for i in inner], settings):
        return "right_path_does_not_hold"
    if candidate.p_value > settings.alpha:
        return "gap_not_significant"
    return None


_ORDERS: dict[PairRule, Callable[[Tree, _Candidate], tuple[float, ...]]] = {
    "deepest_fork": lambda tree, c: (-tree.nodes[c.fork].depth, c.p_value),
    "widest_gap": lambda tree, c: (-c.gap(), c.p_value),
    "every_fork": lambda tree, c: (c.p_value, -tree.nodes[c.fork].depth),
}


def _spread(candidates: Sequence[_Candidate], settings: PairSettings) -> list[_Candidate]:
    """The best candidates, no wrong path twice, a fork again only after every other fork had its turn."""
    chosen: list[_Candidate] = []
    taken: Counter[int] = Counter()
    pool = list(candidates)
    while pool and len(chosen) < settings.max_pairs:
        best = min(pool, key=lambda c: taken[c.fork])
        chosen.append(best)
        taken[best.fork] += 1
        pool = [c for c in pool if c.wrong != best.wrong]
    return chosen


def pair_paths(tree: Tree, settings: PairSettings, model: ChangePoint) -> tuple[Path, ...] | Rejection:
    """The paths of a tree to be criticised, or why there is none.

    Pairs come first, in the rule's order; then right paths that hold their value, longest-looked-at first.
    """
    posteriors = {
        leaf: tuple(first_error_posterior(prefix_estimates(tree, leaf), model).tolist())
        for leaf in tree.terminals()
        if tree.nodes[leaf].outcome == "incorrect"
    }
    candidates = [_candidate(tree, *fork, posteriors[fork[1]]) for fork in forks(tree)]
    candidates.sort(key=lambda c: (*_ORDERS[settings.rule](tree, c), c.wrong, c.right))
    flaws = [_flaw(tree, candidate, settings) for candidate in candidates]
    good = _spread([c for c, flaw in zip(candidates, flaws, strict=True) if flaw is None], settings)
    pairs = tuple(_pair(tree, candidate, settings.rule) for candidate in good)
    used = {candidate.right for candidate in good}
    paths = pairs + _alone(tree, used, settings)
    if paths:
        return paths
    return Rejection(
        stage="PairPaths", key=tree.id, problem_id=tree.problem.id, **_why_nothing(tree, candidates, flaws)
    )


def _why_nothing(tree: Tree, candidates: Sequence[_Candidate], flaws: Sequence[str | None]) -> dict[str, str]:
    outcomes = Counter(tree.nodes[i].outcome for i in tree.terminals())
    detail = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items(), key=str)) + " paths"
    right, wrong = outcomes["correct"], outcomes["incorrect"]
    if not right or not wrong:
        reason = "no_right_path" if wrong else "no_wrong_path" if right else "nothing_scored"
        return {"reason": reason, "detail": detail}
    tested = Counter(flaw for flaw in flaws if flaw)
    if not tested:
        return {"reason": "right_path_does_not_hold", "detail": detail}
    furthest = max(tested, key=PAIR_REJECTIONS.index)
    seen = ", ".join(f"{count} {flaw}" for flaw, count in sorted(tested.items()))
    return {"reason": furthest, "detail": f"{detail}; {len(candidates)} candidate pairs: {seen}"}


def _branch(tree: Tree, nodes: Sequence[int]) -> Branch:
    return Branch(
        steps=tuple(tree.nodes[i].step for i in nodes),
        nodes=tuple(nodes),
        estimates=tuple(tree.nodes[i].direct for i in nodes),
        answer=tree.nodes[nodes[-1]].answer,
    )


def _pair(tree: Tree, candidate: _Candidate, rule: PairRule) -> PathPair:
    depth = tree.nodes[candidate.fork].depth
    wrong, right = tree.path(candidate.wrong), tree.path(candidate.right)
    return PathPair(
        id=digest("pair", tree.id, candidate.wrong, candidate.right),
        problem=tree.problem,
        tree_id=tree.id,
        provenance=tree.provenance,
        prefix=tree.steps(candidate.fork),
        prefix_nodes=wrong[:depth],
        wrong=_branch(tree, wrong[depth:]),
        right=_branch(tree, right[depth:]),
        divergence=depth,
        posterior=candidate.posterior,
        first_error=candidate.first_error,
        root_estimate=tree.nodes[0].direct,
        right_estimate=candidate.right_estimate,
        wrong_estimate=candidate.wrong_estimate,
        p_value=candidate.p_value,
        rule=rule,
    )


def _alone(tree: Tree, used: set[int], settings: PairSettings) -> tuple[PathAlone, ...]:
    leaves = [i for i in tree.terminals() if tree.nodes[i].outcome == "correct" and i not in used]
    steady = [leaf for leaf in leaves if holds(prefix_estimates(tree, leaf)[1:], settings)]
    steady.sort(key=lambda leaf: (-sum(e.scored for e in prefix_estimates(tree, leaf)), leaf))
    return tuple(
        PathAlone(
            id=digest("alone", tree.id, leaf),
            problem=tree.problem,
            tree_id=tree.id,
            provenance=tree.provenance,
            path=_branch(tree, tree.path(leaf)),
            root_estimate=tree.nodes[0].direct,
        )
        for leaf in steady[: settings.max_alone]
    )

"""Picking paths out of a tree: wrong ones whose first error is located, each with a right one that forks off.

Pairs are looked for on the trie of step texts, never on parent pointers of some other search: there a "sibling"
is often a shorter piece of the same rollout.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import networkx as nx

from mcts.candidates import Candidate, candidate, wrong_path
from mcts.estimates import interval, side
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

PairRule = Literal["deepest_fork", "widest_gap", "every_fork", "every_error", "hard_but_solvable", "easy_but_brittle"]

PAIR_REJECTIONS = (
    "not_wanted",
    "nothing_scored",
    "no_right_path",
    "no_wrong_path",
    "fork_of_another_kind",
    "first_error_unclear",
    "fork_after_error",
    "right_path_does_not_hold",
    "gap_not_significant",
)
"""Why a tree gives no path: of its candidate pairs' failed tests, the one that came last in this order. `not_wanted`:
settings ask for none."""


class PairSettings(Record):
    """Which paths are good enough to teach from."""

    rule: PairRule = "deepest_fork"
    """`deepest_fork`: longest shared prefix first; `widest_gap`: largest difference of rates first; `every_fork`:
    clearest gap (smallest p-value) first, wherever its fork lies; `every_error`: longest shared prefix first, and no
    first wrong step twice, however many wrong paths go on from it. `hard_but_solvable` takes only forks whose own rate
    lies below `fork_rate`, hardest first: the right branch is a rare success. `easy_but_brittle` takes only forks whose
    rate lies above it, easiest first: the wrong branch is a rare slip. All take a second pair of one fork only when
    every other fork had its turn."""
    fork_rate: float = 0.5
    """Rate that parts hard forks from easy ones. The interval of the fork's own estimate decides: a fork that nobody
    looked at, or whose interval holds this rate, is neither."""
    max_pairs: int = 2
    """Pairs a tree at most; spread over forks."""
    max_alone: int = 1
    """Right paths without a partner a tree at most."""
    alpha: float = 0.05
    """Largest one-sided p-value of the gap between the right and the wrong side: Fisher's, or exact against 0 where
    the first wrong step is the answer itself."""
    min_confidence: float = 0.7
    """Least posterior probability of the located first wrong step."""
    hold_above: float = 0.2
    """A right path holds where the interval of every estimate along it lies above this rate. The steps that a pair
    shares need not have been measured, but none may lie below it."""
    level: float = 0.9
    """Level of the intervals."""

    def __post_init__(self) -> None:
        for name in ("fork_rate", "alpha", "min_confidence", "hold_above", "level"):
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
                        message=end.message if last else "",
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
    right = _right_ends(tree)
    wrong = [i for i in tree.terminals() if tree.nodes[i].outcome == "incorrect"]
    if not right or not wrong:
        return ()
    graph = nx.DiGraph((node.parent, i) for i, node in enumerate(tree.nodes) if i)
    ancestors = nx.tree_all_pairs_lowest_common_ancestor(graph, 0, [(w, r) for w in wrong for r in right])
    steps = {leaf: [step.strip() for step in tree.steps(leaf)] for leaf in (*right, *wrong)}
    return tuple(
        sorted((fork, w, r) for (w, r), fork in ancestors if _diverge(steps[w], steps[r], tree.nodes[fork].depth))
    )


def _right_ends(tree: Tree) -> list[int]:
    """Terminals of right paths. A right answer behind a step that is known to be wrong is luck, and ends none."""
    return [i for i in tree.terminals() if tree.nodes[i].outcome == "correct" and not tree.is_flawed(i)]


def _diverge(one: Sequence[str], other: Sequence[str], depth: int) -> bool:
    """Whether two paths differ in a step after the `depth` steps that they share."""
    return any(a != b for a, b in zip(one[depth:], other[depth:], strict=False))


def prefix_estimates(tree: Tree, leaf: int) -> tuple[Estimate, ...]:
    """Direct estimates after 0, 1, .., M-1 steps of the path to `leaf`, which has M steps."""
    path = (0, *tree.path(leaf))
    return tuple(tree.nodes[i].direct for i in path[:-1])


@functools.lru_cache(maxsize=65_536)
def _side(estimate: Estimate, threshold: float, level: float) -> str:
    return side(estimate, threshold, level)


def first_error_of(tree: Tree, leaf: int, model: ChangePoint) -> list[float]:
    """For each step of the wrong path to `leaf` the probability that it is the first wrong one.

    A step that is known to be it has all of it; otherwise rollouts along the path say, see `mcts.first_error`.
    """
    flawed = [tree.nodes[i].flawed for i in tree.path(leaf)]
    if any(flawed):
        return [float(i == flawed.index(True)) for i in range(len(flawed))]
    posterior: list[float] = first_error_posterior(prefix_estimates(tree, leaf), model).tolist()
    return posterior


def holds(estimates: Sequence[Estimate], settings: PairSettings) -> bool:
    """Whether a right path keeps its value: a right answer is not a right path (a step may be wrong by luck undone)."""
    return bool(estimates) and all(
        _side(estimate, settings.hold_above, settings.level) == "above" for estimate in estimates
    )


def right_side_holds(tree: Tree, fork: int, right_path: Sequence[int], settings: PairSettings) -> bool:
    """Whether the right path of a pair keeps its value, on both sides of the fork.

    After the fork every step must hold. A branch that is only the right answer has no step to look at: there the fork
    itself must hold, since a position that mostly comes out right and then does is no luck, while one that nobody
    looked at may be. Before the fork it is the wrong path's first error that vouches for the steps, as it must not come
    earlier; they need not have been measured, but where they were, none may lie clearly below: what comes out right
    after such a step has undone an error. The root is no step: a problem may be hard without anything being wrong yet.

    Args:
      tree: where the paths lie.
      fork: the deepest node on both paths.
      right_path: node indices from the root's child to the right terminal.
      settings: `hold_above` and `level`.
    """
    depth = tree.nodes[fork].depth
    shared, own = right_path[:depth], right_path[depth:-1] or (fork,)
    if any(_side(tree.nodes[i].direct, settings.hold_above, settings.level) == "below" for i in shared):
        return False
    return holds([tree.nodes[i].direct for i in own], settings)


_KINDS: dict[PairRule, str] = {"hard_but_solvable": "below", "easy_but_brittle": "above"}
"""Rules that take forks of one kind only, with the side of `fork_rate` on which those lie."""


def _judged(tree: Tree, settings: PairSettings, model: ChangePoint) -> Iterator[Candidate | str]:
    """For each fork of a wrong and a right path a good candidate, or the first test that it fails."""
    located = functools.cache(lambda leaf: wrong_path(tree, leaf, first_error_of(tree, leaf, model)))
    right_paths = {leaf: tree.path(leaf) for leaf in _right_ends(tree)}
    # Many wrong paths leave a right one at the same fork.
    right_holds = functools.cache(lambda fork, right: right_side_holds(tree, fork, right_paths[right], settings))
    wanted = _KINDS.get(settings.rule)
    for fork, leaf, right in forks(tree):
        wrong, node = located(leaf), tree.nodes[fork]
        if wanted and _side(node.direct, settings.fork_rate, settings.level) != wanted:
            yield "fork_of_another_kind"
        elif wrong.confidence < settings.min_confidence:
            yield "first_error_unclear"
        elif node.depth > wrong.first_error:
            yield "fork_after_error"
        elif not right_holds(fork, right):
            yield "right_path_does_not_hold"
        else:
            found = candidate(tree, fork, wrong, right_paths[right])
            yield found if found.p_value <= settings.alpha else "gap_not_significant"


_ORDERS: dict[PairRule, Callable[[Node, Candidate, float], tuple[float, ...]]] = {
    "deepest_fork": lambda fork, c, _: (-fork.depth, c.p_value),
    "widest_gap": lambda _fork, c, _: (-c.gap(), c.p_value),
    "every_fork": lambda fork, c, _: (c.p_value, -fork.depth),
    "every_error": lambda fork, c, _: (-fork.depth, c.p_value),
    "hard_but_solvable": lambda fork, c, level: (interval(fork.direct, level)[1], c.p_value),
    "easy_but_brittle": lambda fork, c, level: (-interval(fork.direct, level)[0], c.p_value),
}
"""What each rule sorts by, smallest first, from the fork, the candidate and the level of the intervals."""


def _spread(candidates: Sequence[Candidate], settings: PairSettings) -> list[Candidate]:
    """The best candidates, no wrong path twice, a fork again only after every other fork had its turn."""
    by_error = settings.rule == "every_error"
    chosen: list[Candidate] = []
    taken: Counter[int] = Counter()
    pool = list(candidates)
    while pool and len(chosen) < settings.max_pairs:
        best = min(pool, key=lambda c: taken[c.fork])
        chosen.append(best)
        taken[best.fork] += 1
        pool = [c for c in pool if (c.wrong.error != best.wrong.error if by_error else c.wrong.leaf != best.wrong.leaf)]
    return chosen


def pair_paths(tree: Tree, settings: PairSettings, model: ChangePoint) -> tuple[Path, ...] | Rejection:
    """The paths of a tree to be criticised, or why there is none.

    Pairs come first, in the rule's order; then right paths that hold their value, longest-looked-at first.
    A wrong path whose first error is its answer counts as the known 0 that it is, see `mcts.candidates`.
    """
    if not settings.max_pairs and not settings.max_alone:
        nothing = {"reason": "not_wanted", "detail": "pairing.max_pairs and pairing.max_alone are 0"}
        return Rejection(stage="PairPaths", key=tree.id, problem_id=tree.problem.id, **nothing)
    judged = list(_judged(tree, settings, model))
    order, level = _ORDERS[settings.rule], settings.level
    good = sorted(
        (verdict for verdict in judged if isinstance(verdict, Candidate)),
        key=lambda c: (*order(tree.nodes[c.fork], c, level), -c.gap(), c.wrong.leaf, c.right),
    )
    chosen = _spread(good, settings)
    pairs = tuple(_pair(tree, pick, settings.rule) for pick in chosen)
    paths = pairs + _alone(tree, {pick.right for pick in chosen}, settings)
    if paths:
        return paths
    flaws = [verdict for verdict in judged if isinstance(verdict, str)]
    return Rejection(
        stage="PairPaths", key=tree.id, problem_id=tree.problem.id, **_why_nothing(tree, len(judged), flaws)
    )


def _why_nothing(tree: Tree, num_candidates: int, flaws: Sequence[str]) -> dict[str, str]:
    outcomes = Counter(tree.nodes[i].outcome for i in tree.terminals())
    detail = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items(), key=str)) + " paths"
    right, wrong = outcomes["correct"], outcomes["incorrect"]
    if not right or not wrong:
        reason = "no_right_path" if wrong else "no_wrong_path" if right else "nothing_scored"
        return {"reason": reason, "detail": detail}
    tested = Counter(flaws)
    if not tested:
        return {"reason": "right_path_does_not_hold", "detail": detail}
    furthest = max(tested, key=PAIR_REJECTIONS.index)
    seen = ", ".join(f"{count} {flaw}" for flaw, count in sorted(tested.items()))
    return {"reason": furthest, "detail": f"{detail}; {num_candidates} candidate pairs: {seen}"}


def _branch(tree: Tree, nodes: Sequence[int]) -> Branch:
    return Branch(
        steps=tuple(tree.nodes[i].step for i in nodes),
        nodes=tuple(nodes),
        estimates=tuple(tree.nodes[i].direct for i in nodes),
        answer=tree.nodes[nodes[-1]].answer,
        message=tree.nodes[nodes[-1]].message,
    )


def _pair(tree: Tree, pick: Candidate, rule: PairRule) -> PathPair:
    depth = tree.nodes[pick.fork].depth
    wrong, right = pick.wrong.path, tree.path(pick.right)
    first_wrong = wrong[pick.wrong.first_error]
    edit = next((edit for edit in tree.edits if edit.node == first_wrong and tree.nodes[first_wrong].flawed), None)
    return PathPair(
        id=digest("pair", tree.id, pick.wrong.leaf, pick.right),
        problem=tree.problem,
        tree_id=tree.id,
        provenance=tree.provenance,
        prefix=tree.steps(pick.fork),
        prefix_nodes=wrong[:depth],
        prefix_estimates=tuple(tree.nodes[i].direct for i in wrong[:depth]),
        wrong=_branch(tree, wrong[depth:]),
        right=_branch(tree, right[depth:]),
        divergence=depth,
        posterior=pick.wrong.posterior,
        first_error=pick.wrong.first_error,
        root_estimate=tree.nodes[0].direct,
        right_estimate=pick.right_estimate,
        wrong_estimate=pick.wrong_estimate,
        p_value=pick.p_value,
        rule=rule,
        original_step=tree.nodes[edit.original].step if edit else "",
        error_type=edit.error_type if edit else "",
    )


def _alone(tree: Tree, used: set[int], settings: PairSettings) -> tuple[PathAlone, ...]:
    leaves = [i for i in _right_ends(tree) if i not in used]
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

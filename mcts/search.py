"""Growing one tree: look at the problem, search, locate first errors, confirm the right side. One budget for all.

The tree is a function of the policy's answers alone, never of the order in which they arrive, however many searches are
in flight: see `mcts.waves`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from mcts.base import Policy, Verifier
from mcts.estimates import side
from mcts.first_error import first_error_belief
from mcts.growth import Growth
from mcts.halving import Halving
from mcts.hybrid import Guide, Hybrid
from mcts.pairing import PairSettings, first_error_of, forks
from mcts.selection import RULES, Stats
from mcts.settings import SearchSettings
from mcts.waves import OutOfBudget, Plan, Waves
from schemas import Problem, Provenance, Rejection, Tree, digest


class TreeSearch:
    """One problem's search. Make one for each tree, await `grow` once."""

    rejected: tuple[Rejection, ...] = ()
    """What came with the problem and is in no tree, once it is grown."""

    def __init__(
        self,
        problem: Problem,
        *,
        policy: Policy,
        verifier: Verifier,
        settings: SearchSettings,
        pairing: PairSettings,
        provenance: Provenance,
    ) -> None:
        self._problem = problem
        self._settings = settings
        self._pairing = pairing
        self._provenance = provenance
        self._growth = Growth(settings.step_rule, settings.step_tokens)
        self._hybrid = Hybrid(self._growth, settings.hybrid)
        self._partnered: set[int] = set()
        """Right terminals that were looked at as a wrong path's partner."""
        self._waves = Waves(
            self._growth,
            policy=policy,
            verifier=verifier,
            max_rollouts=settings.max_rollouts,
            max_completion_tokens=settings.max_completion_tokens,
        )

    async def grow(self) -> Tree:
        """The finished tree.

        Raises:
          Whatever the policy or the verifier raises: a tree is whole or not at all.
        """
        try:
            stopped = await self._phases()
        except OutOfBudget:
            stopped = "budget"
        finally:
            await self._waves.close()
        return self._freeze(stopped)

    async def _phases(self) -> str:
        settings = self._settings
        await self._all([self._look()])
        stopped = self._verdict() or "searches"
        if stopped == "searches":
            await self._waves.run(self._searches(), settings.parallel_searches)
            await self._all([self._hybrid.debate()])
            suspects = self._suspects()
            await self._all([self._probe(leaf) for leaf in suspects])
            await self._all([self._confirm_partner(leaf) for leaf in suspects])
        await self._all([self._confirm(self._growth.path(leaf)[1:-1]) for leaf in self._lone()])
        return stopped

    async def _all(self, plans: Sequence[Plan]) -> None:
        """Runs plans side by side."""
        waiting = iter(plans)
        await self._waves.run(lambda: next(waiting, None), len(plans))

    def _freeze(self, stopped: str) -> Tree:
        growth, settings_digest = self._growth, digest(self._settings)
        return Tree(
            id=digest("tree", self._problem, self._provenance, settings_digest),
            problem=self._problem,
            nodes=growth.freeze(),
            provenance=self._provenance,
            settings_digest=settings_digest,
            stopped=stopped,
            calls=growth.calls,
            rollouts=growth.rollouts,
            completion_tokens=growth.completion_tokens,
            dropped_tokens=growth.dropped_tokens,
            guesses=self._hybrid.guesses,
            debate=self._hybrid.outcome,
        )

    def _look(self) -> Plan:
        """Rolls out from the bare problem until it is easy, hopeless, or both right and wrong answers came."""
        settings, root = self._settings, self._growth.nodes[0]
        yield [(0, settings.root_rollouts)]
        while root.sampled < settings.max_root_rollouts and self._verdict() is None:
            if 0 < root.direct.correct < root.direct.scored:
                return
            yield [(0, min(settings.root_rollouts, settings.max_root_rollouts - root.sampled))]

    def _verdict(self) -> str | None:
        """Why the problem is not worth a search; None where it is."""
        settings, root = self._settings, self._growth.nodes[0].direct
        if not root.scored:
            return "nothing_scored"
        if side(root, settings.easy_above, settings.level) == "above":
            return "easy"
        return "hopeless" if side(root, settings.hopeless_below, settings.level) == "below" else None

    def _searches(self) -> Callable[[], Plan | None]:
        """Gives the next search, or None where nothing can be selected now."""
        settings, left = self._settings, self._settings.max_searches
        halving = Halving(self._growth, settings) if settings.rule == "omega" else None

        def start() -> Plan | None:
            nonlocal left
            if not left:
                return None
            plan = halving.select() if halving else self._select()
            left -= plan is not None
            return plan

        return start

    def _select(self) -> Plan | None:
        """Walks down by the rule to the first inner node without rollouts of its own; None where there is none."""
        nodes, is_open, node = self._growth.nodes, self._open(), 0
        if not is_open[0]:
            return None
        while not nodes[node].is_untried:
            node = max((i for i in nodes[node].children.values() if is_open[i]), key=self._score)
        return self._roll_out(node)

    def _roll_out(self, node: int) -> Plan:
        """One search: while it waits, its visit counts already, with value 0."""
        path = [self._growth.nodes[i] for i in self._growth.path(node)]
        for bud in path:
            bud.virtual += 1
        yield self._hybrid.wave(node, self._settings.rollouts_per_search)
        for bud in path:
            bud.virtual -= 1

    def _open(self) -> list[bool]:
        """For each node whether an inner node without rollouts of its own is at it or below it."""
        nodes = self._growth.nodes
        is_open = [not bud.terminal and bud.is_untried for bud in nodes]
        for i in range(len(nodes) - 1, 0, -1):
            is_open[nodes[i].parent] |= is_open[i]
        return is_open

    def _score(self, node: int) -> tuple[float, float, int]:
        """The rule's score with its bonus; equal ones go by the bonus, then to the step that more rollouts took."""
        nodes = self._growth.nodes
        bud = nodes[node]
        parent = nodes[bud.parent]
        stats = Stats(
            visits=bud.visits + bud.virtual,
            value_sum=self._hybrid.value_sum(node),
            parent_visits=parent.visits + parent.virtual,
            prior=bud.passes / parent.onward,
        )
        extra = self._hybrid.bonus(node)
        return RULES[self._settings.rule](stats, self._settings.exploration) + extra, extra, bud.passes

    def _suspects(self) -> tuple[int, ...]:
        """Wrong terminals worth locating: latest to part from a right path first, every fork before any twice."""
        if not self._settings.max_located:
            return ()
        view = self._freeze("")
        by_depth = sorted(forks(view), key=lambda hit: (-view.nodes[hit[0]].depth, hit))
        first_of_fork = {fork: wrong for fork, wrong, _ in reversed(by_depth)}
        spread = [first_of_fork[fork] for fork, _, _ in by_depth] + [wrong for _, wrong, _ in by_depth]
        return tuple(dict.fromkeys(spread))[: self._settings.max_located]

    def _probe(self, leaf: int) -> Plan:
        """Rolls out along a wrong path, where it tells most, until its first error is located or paid out."""
        settings, nodes = self._settings, self._growth.nodes
        path, spent = self._growth.path(leaf)[:-1], 0
        while len(path) > 1 and spent < settings.max_probe_rollouts:
            belief = first_error_belief([nodes[i].direct for i in path], settings.change_point)
            if belief.posterior.max() >= settings.locate_confidence:
                return
            wave = min(settings.locate_wave, settings.max_probe_rollouts - spent)
            spent += wave
            yield [(path[belief.next_probe()], wave)]

    def _confirm_partner(self, suspect: int) -> Plan:
        """Confirms a right path for a located wrong one; the next candidate where one does not hold."""
        growth = self._growth
        for fork, right in self._partners(suspect)[: self._settings.max_partners]:
            self._partnered.add(right)
            # Where only the right answer follows the fork, it is the fork that must hold.
            steps = growth.path(right)[growth.nodes[fork].depth + 1 : -1] or (fork,)
            yield from self._confirm(steps)
            if all(self._side(node) == "above" for node in steps):
                return

    def _partners(self, suspect: int) -> list[tuple[int, int]]:
        """(fork, right terminal) of a located wrong path, the fork not behind its error; the last forks first."""
        view = self._freeze("")
        posterior = first_error_of(view, suspect, self._settings.change_point)
        error = posterior.index(max(posterior))
        hits = [hit for hit in forks(view) if hit[1] == suspect and view.nodes[hit[0]].depth <= error]
        return [(fork, right) for fork, _, right in sorted(hits, key=lambda hit: (-view.nodes[hit[0]].depth, hit))]

    def _confirm(self, steps: Sequence[int]) -> Plan:
        """Rolls out from steps of a right path until all are clear or one clearly does not hold."""
        settings, nodes = self._settings, self._growth.nodes
        while True:
            sides = {i: self._side(i) for i in steps}
            unclear = [i for i in steps if sides[i] == "unclear" and nodes[i].recorded < settings.max_confirm_rollouts]
            if not unclear or "below" in sides.values():
                return
            yield [
                (i, min(settings.confirm_rollouts, settings.max_confirm_rollouts - nodes[i].sampled))
                for i in unclear
                if not nodes[i].is_pending
            ]

    def _side(self, node: int) -> str:
        """Where a right path's node stands to the rate that pairing asks of it."""
        return side(self._growth.nodes[node].direct, self._pairing.hold_above, self._settings.level)

    def _lone(self) -> tuple[int, ...]:
        """Right terminals that pairing would take alone: no wrong path's partner, and looked at most."""
        growth, partnered = self._growth, self._partnered
        right = [i for i, bud in enumerate(growth.nodes) if bud.terminal and growth.outcome(i) == "correct"]
        right = [i for i in right if not growth.is_flawed(i)]
        unseen = {i: sum(not growth.nodes[n].sampled for n in growth.path(i)[1:-1]) for i in right}
        right.sort(key=lambda i: (i in partnered, unseen[i], i))
        return tuple(right[: self._pairing.max_alone])


class GuidedSearch(TreeSearch):
    """A search beside which a model says what nodes are worth, see `mcts.hybrid`."""

    def __init__(self, guide: Guide, problem: Problem, **search: Any) -> None:
        """Takes the model, and what `TreeSearch` takes."""
        super().__init__(problem, **search)
        self._hybrid.guide = guide
        self._waves.advised = guide.advised


async def expand_tree(
    problem: Problem,
    *,
    policy: Policy,
    verifier: Verifier,
    settings: SearchSettings,
    pairing: PairSettings,
    provenance: Provenance,
) -> Tree:
    """Grows the tree of one problem; see `TreeSearch`."""
    search = TreeSearch(
        problem,
        policy=policy,
        verifier=verifier,
        settings=settings,
        pairing=pairing,
        provenance=provenance,
    )
    return await search.grow()

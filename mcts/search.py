"""Growing one tree: look at the problem, search, locate first errors, confirm the right side. One budget for all.

The tree is a function of the policy's answers alone, never of the order in which they arrive: searches are chosen
and applied in a fixed order, however many are in flight.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Coroutine, Iterator
from typing import Any, Literal, TypeVar

from mcts.base import Policy, Rollout, Verifier
from mcts.estimates import side
from mcts.first_error import ChangePoint, first_error_posterior, next_probe
from mcts.growth import Growth
from mcts.pairing import PairSettings, forks, prefix_estimates
from mcts.selection import RULES, Stats
from mcts.steps import StepRule
from schemas import Problem, Provenance, Record, Tree, digest

T = TypeVar("T")


class SearchSettings(Record):
    """How a tree is grown, and what it may cost."""

    rule: Literal["greedy_value", "uct", "puct"] = "uct"
    """Selection rule, see `mcts.selection`."""
    exploration: float = 0.7
    """c of the rule."""
    step_rule: StepRule = "marker"
    root_rollouts: int = 8
    """Rollouts from the bare problem, before anything else."""
    max_searches: int = 4
    """Searches after that: each selects a node and rolls out from it."""
    rollouts_per_search: int = 4
    parallel_searches: int = 2
    """Searches in flight in one tree, under virtual loss. Part of what makes the tree."""
    level: float = 0.9
    """Level of every interval that decides something here."""
    easy_above: float = 0.75
    """A problem is easy where the interval of its rate lies above this: no wrong turn worth the rollouts. 8 right ones
    of 8 give an interval of 0.79 to 1."""
    hopeless_below: float = 0.22
    """A problem is hopeless where the interval of its rate lies below this. None of 8 gives 0 to 0.21."""
    max_located: int = 2
    """Wrong paths a tree whose first error is looked for."""
    locate_confidence: float = 0.9
    """Posterior probability at which the search for a first error stops."""
    locate_wave: int = 2
    """Rollouts a probe."""
    max_probe_rollouts: int = 60
    """Rollouts spent on one wrong path at most."""
    confirm_rollouts: int = 4
    """Rollouts added at a time where a right path's step is not clearly above the pairing's `hold_above`."""
    max_confirm_rollouts: int = 16
    """Direct rollouts of one step of a right path at most."""
    max_rollouts: int = 128
    """Rollouts a tree at most, of all kinds; checked before each request."""
    max_completion_tokens: int = 100_000
    """Sampled tokens after which no request is started; what is in flight then still comes."""
    change_point: ChangePoint = ChangePoint()

    def __post_init__(self) -> None:
        for name in ("root_rollouts", "rollouts_per_search", "parallel_searches", "locate_wave", "confirm_rollouts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("level", "locate_confidence"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        if not 0 <= self.hopeless_below < self.easy_above <= 1:
            raise ValueError(
                f"need 0 <= hopeless_below < easy_above <= 1, got {self.hopeless_below} and {self.easy_above}"
            )
        if self.max_rollouts < self.root_rollouts:
            raise ValueError(
                f"max_rollouts={self.max_rollouts} does not even pay for root_rollouts={self.root_rollouts}"
            )


class _OutOfBudget(Exception):
    """The next request would overspend."""


class TreeSearch:
    """One problem's search. Make one for each tree, await `grow` once."""

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
        self._policy = policy
        self._verifier = verifier
        self._settings = settings
        self._pairing = pairing
        self._provenance = provenance
        self._growth = Growth(settings.step_rule)
        self._suspects: tuple[int, ...] = ()
        self._tasks: list[asyncio.Task[Any]] = []

    async def grow(self) -> Tree:
        """The finished tree.

        Raises:
          Whatever the policy or the verifier raises: a tree is whole or not at all.
        """
        try:
            stopped = await self._phases()
        except _OutOfBudget:
            stopped = "budget"
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        return self._freeze(stopped)

    async def _phases(self) -> str:
        settings, growth = self._settings, self._growth
        await self._apply(0, self._launch(0, settings.root_rollouts))
        root = growth.nodes[0].direct
        stopped = "searches"
        if side(root, settings.easy_above, settings.level) == "above":
            stopped = "easy"
        elif side(root, settings.hopeless_below, settings.level) == "below":
            stopped = "hopeless"
        else:
            await self._search()
            self._suspects = self._find_suspects()
            await self._locate()
        await self._confirm()
        return stopped

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
        )

    def _launch(self, node: int, num_samples: int) -> Awaitable[list[Rollout]]:
        """Starts one request; its sample indices and its share of the budget are fixed here and now."""
        growth, settings = self._growth, self._settings
        num_samples = min(num_samples, settings.max_rollouts - growth.rollouts)
        if num_samples < 1 or growth.completion_tokens >= settings.max_completion_tokens:
            raise _OutOfBudget
        first = growth.reserve(node, num_samples)
        prefix = growth.nodes[node].text
        return self._start(self._sample(prefix, num_samples, first))

    def _start(self, call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Makes a call a task that does not outlive `grow`."""
        task = asyncio.ensure_future(call)
        self._tasks.append(task)
        return task

    async def _sample(self, prefix: str, num_samples: int, first: int) -> list[Rollout]:
        rollouts = await self._policy(prefix, num_samples=num_samples, first_sample=first)
        assert len(rollouts) == num_samples, (len(rollouts), num_samples)
        return list(rollouts)

    async def _apply(self, node: int, launched: Awaitable[list[Rollout]]) -> None:
        """Waits for one request, grafts what came, has new solutions checked, and counts."""
        growth = self._growth
        terminals = [growth.graft(node, rollout) for rollout in await launched]
        fresh = sorted({i for i in terminals if i is not None and growth.nodes[i].check is None})
        checks = await asyncio.gather(*(self._start(self._verifier(growth.nodes[i].text)) for i in fresh))
        for i, check in zip(fresh, checks, strict=True):
            growth.nodes[i].check = check
        growth.record(node, terminals)

    async def _wave(self, wishes: list[tuple[int, int]]) -> None:
        """Rolls out from several nodes at once; (node, number of rollouts) each, applied in the order given."""
        launched: deque[tuple[int, Awaitable[list[Rollout]]]] = deque()
        try:
            for node, num_samples in wishes:
                launched.append((node, self._launch(node, num_samples)))
        finally:
            await self._drain(launched)

    async def _drain(self, launched: deque[tuple[int, Awaitable[list[Rollout]]]]) -> None:
        """Applies what is in flight in the order of its start; nothing that was paid for is left out."""
        while launched:
            await self._apply(*launched.popleft())

    async def _search(self) -> None:
        """Select, roll out, back up. While one search waits, others are selected under virtual loss."""
        in_flight: deque[tuple[int, Awaitable[list[Rollout]]]] = deque()
        left = self._settings.max_searches
        try:
            while left or in_flight:
                while left and len(in_flight) < self._settings.parallel_searches:
                    node = self._select()
                    if node is None:
                        break
                    left -= 1
                    in_flight.append((node, self._launch(node, self._settings.rollouts_per_search)))
                    self._add_virtual(node, 1)
                if not in_flight:
                    return
                node, samples = in_flight.popleft()
                self._add_virtual(node, -1)
                await self._apply(node, samples)
        except _OutOfBudget:
            await self._drain(in_flight)
            raise

    def _add_virtual(self, node: int, visits: int) -> None:
        for i in self._growth.path(node):
            self._growth.nodes[i].virtual += visits

    def _open(self) -> list[bool]:
        """For each node whether an inner node without rollouts of its own is at it or below it."""
        nodes = self._growth.nodes
        is_open = [not bud.terminal and not bud.sampled for bud in nodes]
        for i in range(len(nodes) - 1, 0, -1):
            is_open[nodes[i].parent] |= is_open[i]
        return is_open

    def _select(self) -> int | None:
        """Walks down by the rule to the first inner node without rollouts of its own; None where there is none."""
        nodes, is_open, node = self._growth.nodes, self._open(), 0
        if not is_open[0]:
            return None
        while nodes[node].sampled:
            node = max((i for i in nodes[node].children.values() if is_open[i]), key=self._score)
        return node

    def _score(self, node: int) -> tuple[float, int]:
        """The rule's score; equal ones go to the step that more rollouts took."""
        nodes = self._growth.nodes
        bud = nodes[node]
        parent = nodes[bud.parent]
        stats = Stats(
            visits=bud.visits + bud.virtual,
            value_sum=bud.value_sum,
            parent_visits=parent.visits + parent.virtual,
            prior=bud.passes / sum(nodes[i].passes for i in parent.children.values()),
        )
        return RULES[self._settings.rule](stats, self._settings.exploration), bud.passes

    async def _locate(self) -> None:
        """Probes the most promising wrong paths, one request each a round, until each is located or paid out."""
        settings, growth = self._settings, self._growth
        spent = dict.fromkeys(self._suspects, 0)
        while spent:
            wishes = []
            for leaf in tuple(spent):
                path = growth.path(leaf)[:-1]
                prefixes = [growth.nodes[i].direct for i in path]
                posterior = first_error_posterior(prefixes, settings.change_point)
                done = posterior.max() >= settings.locate_confidence or len(path) < 2
                if done or spent[leaf] >= settings.max_probe_rollouts:
                    del spent[leaf]
                    continue
                wave = min(settings.locate_wave, settings.max_probe_rollouts - spent[leaf])
                wishes.append((path[next_probe(prefixes, posterior, settings.change_point)], wave))
                spent[leaf] += wave
            await self._wave(wishes)

    def _find_suspects(self) -> tuple[int, ...]:
        """Wrong terminals worth locating: latest to part from a right path first, every fork before any twice."""
        view = self._freeze("")
        by_depth = sorted(forks(view), key=lambda hit: (-view.nodes[hit[0]].depth, hit))
        first_of_fork = {fork: wrong for fork, wrong, _ in reversed(by_depth)}
        spread = [first_of_fork[fork] for fork, _, _ in by_depth] + [wrong for _, wrong, _ in by_depth]
        return tuple(dict.fromkeys(spread))[: self._settings.max_located]

    async def _confirm(self) -> None:
        """Rolls out along right paths where their value is not clear yet, so that pairing can rely on it."""
        nodes, settings = self._growth.nodes, self._settings
        targets = self._right_steps()
        while True:
            wishes = [
                (i, min(settings.confirm_rollouts, settings.max_confirm_rollouts - nodes[i].sampled))
                for i in targets
                if side(nodes[i].direct, self._pairing.hold_above, settings.level) == "unclear"
                and nodes[i].sampled < settings.max_confirm_rollouts
            ]
            if not wishes:
                return
            await self._wave(wishes)

    def _right_steps(self) -> tuple[int, ...]:
        """Inner nodes of the right paths that pairing would take: partners of located wrong paths, then lone ones."""
        view = self._freeze("")
        chosen: dict[int, None] = {}
        partners = {right: view.nodes[fork].depth for fork, right in self._partners(view)}
        for right, depth in partners.items():
            chosen.update(dict.fromkeys(view.path(right)[depth:-1]))
        lone = [i for i in view.terminals() if view.nodes[i].outcome == "correct" and i not in partners]
        lone.sort(key=lambda i: (sum(n not in chosen for n in view.path(i)[:-1]), i))
        for leaf in lone[: self._pairing.max_alone]:
            chosen.update(dict.fromkeys(view.path(leaf)[:-1]))
        return tuple(chosen)

    def _partners(self, view: Tree) -> Iterator[tuple[int, int]]:
        """For each located wrong path (fork, right terminal), the fork being the last one before its error."""
        by_depth = sorted(forks(view), key=lambda hit: (-view.nodes[hit[0]].depth, hit))
        for suspect in self._suspects:
            posterior = first_error_posterior(prefix_estimates(view, suspect), self._settings.change_point)
            error = int(posterior.argmax())
            for fork, wrong, right in by_depth:
                if wrong == suspect and view.nodes[fork].depth <= error:
                    yield fork, right
                    break


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

"""Several plans of one tree in flight, one result: what a tree becomes depends on the answers, never on their timing.

A plan is a generator. It looks at the tree, yields a wave of wishes (node, number of rollouts), and goes on when all of
them have been applied; searches, looks for a first error and confirmations are all plans. Requests are sent as soon as
a plan wishes for them and applied in the order in which they were sent: whichever answer comes first, a plan sees the
same tree every time it looks.
"""

import asyncio
import dataclasses
import functools
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any, TypeVar

from mcts.answers import Check, unscored
from mcts.base import AdvisedPolicy, Policy, Rollout, Verifier
from mcts.growth import Growth

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A wish for something else than rollouts."""

    call: Callable[[], Coroutine[Any, Any, Any]]
    """Asks for it."""
    apply: Callable[[Any], None]
    """What becomes of the answer."""


Wave = Sequence[tuple[int, int] | tuple[int, int, str] | Ask]
"""Wishes: (node, number of rollouts), or with advice that is put into their prompt (`mcts.hybrid`), or something else.
An empty wave waits for what is in flight already."""
Plan = Generator[Wave, None, None]


_Sent = tuple[asyncio.Task[Any], Callable[[Any], None]]
"""A request, and what becomes of its answer."""


class OutOfBudget(Exception):
    """The next request would overspend."""


class Waves:
    """Sends the requests of one tree's plans, has answers checked, and grafts them in order."""

    advised: AdvisedPolicy | None = None
    """Gives rollouts with advice; None where none is given."""

    def __init__(
        self, growth: Growth, *, policy: Policy, verifier: Verifier, max_rollouts: int, max_completion_tokens: int
    ) -> None:
        self._growth = growth
        self._policy = policy
        self._verifier = verifier
        self._max_rollouts = max_rollouts
        self._max_completion_tokens = max_completion_tokens
        self._tasks: list[asyncio.Task[Any]] = []
        self._checks: dict[str, asyncio.Task[Check]] = {}

    async def run(self, start: Callable[[], Plan | None], width: int) -> None:
        """Runs plans until `start` has none left, at most `width` at a time.

        Args:
          start: the next plan, or None where there is none now; asked again whenever something was applied.
          width: plans in flight.

        Raises:
          OutOfBudget: a wish cannot be paid for. Whatever was sent before has been applied.
          Whatever the policy or the verifier raises.
        """
        queue: deque[tuple[Plan | None, _Sent | None]] = deque()
        running = 0
        try:
            while True:
                while running < width and (plan := start()) is not None:
                    running += self._advance(plan, queue)
                if not queue:
                    return
                resumed, sent = queue.popleft()
                if sent is not None:
                    await self._apply(sent)
                if resumed is not None:
                    running += self._advance(resumed, queue) - 1
        except OutOfBudget:
            for _, sent in queue:
                if sent is not None:
                    await self._apply(sent)
            raise

    def _advance(self, plan: Plan, queue: deque[tuple[Plan | None, _Sent | None]]) -> bool:
        """Sends a plan's next wave, whose last request carries the plan on; whether there was one."""
        wave = next(plan, None)
        if wave is None:
            return False
        for i, wish in enumerate(wave, 1):
            sent = self._ask(wish) if isinstance(wish, Ask) else self._launch(*wish)
            queue.append((plan if i == len(wave) else None, sent))
        if not wave:
            assert queue, "a plan waits for something, but nothing is in flight"
            queue.append((plan, None))
        return True

    async def close(self) -> None:
        """Cancels what is still in flight and waits until it is gone."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ask(self, wish: Ask) -> _Sent:
        if self._growth.completion_tokens >= self._max_completion_tokens:
            raise OutOfBudget
        return self._start(wish.call()), wish.apply

    def _launch(self, node: int, num_samples: int, advice: str = "") -> _Sent:
        """Sends one request; its sample indices and its share of the budget are fixed here and now."""
        growth = self._growth
        num_samples = min(num_samples, self._max_rollouts - growth.rollouts)
        if num_samples < 1 or growth.completion_tokens >= self._max_completion_tokens:
            raise OutOfBudget
        first = growth.reserve(node, num_samples, is_advised=bool(advice))
        request = self._start(self._sample(growth.nodes[node].text, num_samples, first, advice))
        return request, functools.partial(self._graft, node, is_advised=bool(advice))

    def _start(self, call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.ensure_future(call)
        self._tasks.append(task)
        return task

    async def _sample(self, prefix: str, num_samples: int, first: int, advice: str) -> list[Rollout]:
        """The rollouts of one request, their solutions checked: each text once, and as soon as it is there.

        What was cut in its answer is not checked: the checker would take what is there for the answer.
        """
        if advice:
            assert self.advised is not None, "advice without anybody who takes it"
            rollouts = list(await self.advised(prefix, advice, num_samples=num_samples, first_sample=first))
        else:
            rollouts = list(await self._policy(prefix, num_samples=num_samples, first_sample=first))
        assert len(rollouts) == num_samples, (len(rollouts), num_samples)
        solutions = dict.fromkeys(prefix + rollout.text for rollout in rollouts if rollout.text and not rollout.is_cut)
        for solution in solutions:
            if solution not in self._checks:
                self._checks[solution] = self._start(self._check(solution))
        await asyncio.gather(*(self._checks[solution] for solution in solutions))
        return rollouts

    async def _check(self, solution: str) -> Check:
        return await self._verifier(solution)

    async def _apply(self, sent: _Sent) -> None:
        request, apply = sent
        apply(await request)

    def _graft(self, node: int, rollouts: list[Rollout], *, is_advised: bool) -> None:
        growth = self._growth
        terminals = [growth.graft(node, rollout) for rollout in rollouts]
        for terminal, rollout in zip(terminals, rollouts, strict=True):
            if terminal is not None:
                bud = growth.nodes[terminal]
                bud.check = unscored("cut_off") if rollout.is_cut else self._checks[bud.text].result()
        growth.record(node, terminals, is_advised=is_advised)

"""Values by a model beside those by rollouts, feedback from siblings, and a debate of the last candidates.

SWE-Search (arXiv 2410.20285): a value agent says of a state what it is worth and why, the worth is backed up and serves
selection, the reason goes into the prompt of the next expansion, and discriminators argue which solution to take.

What a node is worth to pairing stays what its direct rollouts say. So a model's value enters selection scores alone,
and rollouts that were told of siblings are backed up for selection and are no direct ones: theirs is another policy.
"""

import functools
import re
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from mcts.base import Rollout
from mcts.growth import Growth
from mcts.selection import Shape, bonus
from mcts.settings import Bonuses, HybridSettings
from mcts.waves import Ask, Plan
from schemas import Debate, Guess, Record

LOWEST, HIGHEST = -100, 100
"""Between them lies what a model says that a state is worth."""

_WORD = re.compile(r"\w+")


class Valuation(Record):
    """What a model said of a state."""

    value: int | None
    """`LOWEST`..`HIGHEST`; None where the reply could not be read: it enters nothing then."""
    reason: str
    tokens: int


class Argument(Record):
    """What a debater said."""

    choice: int | None
    """Index of the candidate that it takes; None where the reply could not be read."""
    text: str
    tokens: int


class Guide(Protocol):
    """The model beside the actor. Equal arguments, equal answers."""

    async def advised(self, prefix: str, advice: str, *, num_samples: int, first_sample: int) -> Sequence[Rollout]:
        """See `mcts.base.AdvisedPolicy`."""
        ...

    async def value(self, steps: Sequence[str]) -> Valuation:
        """What a half-written solution is worth; the gold answer is not shown."""
        ...

    async def argue(self, candidates: Sequence[str], said: Sequence[str], debater: int) -> Argument:
        """Which of these solutions `debater` takes, having heard what was said."""
        ...


class Hybrid:
    """What a model has said of the nodes of one growing tree."""

    guide: Guide | None = None
    """Who is asked; None where `settings` ask nobody."""

    def __init__(self, growth: Growth, settings: HybridSettings) -> None:
        self._growth = growth
        self._settings = settings
        self._said: dict[int, Valuation] = {}
        """By the node that was valued."""
        self._advice: dict[int, str] = {}
        self._backed_up: dict[int, list[float]] = {}
        """For each node the values, 0..1, that were said of it and of nodes below it."""
        self._arguments: list[Argument] = []
        self._candidates: tuple[int, ...] = ()

    def wave(self, node: int, num_samples: int) -> list[tuple[int, int] | tuple[int, int, str] | Ask]:
        """What a search wishes for: a value where a model gives any, and rollouts, told of siblings where they are."""
        advice = self.advice(node)
        rollouts: list[tuple[int, int] | tuple[int, int, str] | Ask]
        rollouts = [(node, num_samples, advice) if advice else (node, num_samples)]
        if advice:
            self._advice[node] = advice
        if not self._settings.asks_values:
            return rollouts
        assert self.guide is not None, "hybrid values without anybody who gives them"
        steps = [self._growth.nodes[i].step for i in self._growth.path(node)[1:]]
        ask = Ask(call=functools.partial(self.guide.value, steps), apply=functools.partial(self._take, node))
        return [ask, *rollouts]

    def _take(self, node: int, valuation: Valuation) -> None:
        self._growth.spend(valuation.tokens)
        self._said[node] = valuation
        if valuation.value is not None:
            for i in self._growth.path(node):
                self._backed_up.setdefault(i, []).append(unit_value(valuation.value))

    def advice(self, node: int) -> str:
        """What was said of a node's siblings, best first; empty where nothing was, or nobody is to be told."""
        if not self._settings.sibling_feedback or not node:
            return ""
        nodes = self._growth.nodes
        siblings = [i for i in nodes[nodes[node].parent].children.values() if i != node and self._worth(i) is not None]
        siblings.sort(key=lambda i: (-(self._worth(i) or 0), i))
        told = [(nodes[i].step, self._said[i]) for i in siblings[: self._settings.max_siblings]]
        return "\n".join(word_feedback(step, said) for step, said in told)

    def _worth(self, node: int) -> int | None:
        return self._said[node].value if node in self._said else None

    def value_sum(self, node: int) -> float:
        """Sum of hybrid values over a node's visits, in place of the rollouts' alone."""
        bud = self._growth.nodes[node]
        return hybrid_sum(bud.value_sum, bud.visits, self._backed_up.get(node, ()), self._settings.value_weight)

    def bonus(self, node: int) -> float:
        """What is added to a node's selection score; 0 where no bonus is set."""
        settings, nodes = self._settings.bonuses, self._growth.nodes
        if settings == Bonuses():
            return 0.0
        bud = nodes[node]
        siblings = nodes[bud.parent].children.values()
        tried = [nodes[i].step for i in siblings if i != node and not nodes[i].is_untried]
        shape = Shape(
            depth=bud.depth,
            value=self.value_sum(node) / bud.visits if bud.visits else 0.0,
            is_leaf=not bud.is_untried and all(nodes[i].is_untried for i in bud.children.values()),
            likeness=max((likeness(bud.step, step) for step in tried), default=0.0),
        )
        return bonus(shape, settings)

    def debate(self) -> Plan:
        """Has discriminators argue about the finished solutions, in rounds."""
        self._candidates = self._pick() if self._settings.debaters else ()
        if len(self._candidates) < 2:
            return
        assert self.guide is not None, "a debate without debaters"
        texts = [self._growth.nodes[i].text for i in self._candidates]
        for _ in range(self._settings.debate_rounds):
            said = tuple(argument.text for argument in self._arguments)
            yield [
                Ask(call=functools.partial(self.guide.argue, texts, said, debater), apply=self._hear)
                for debater in range(self._settings.debaters)
            ]

    def _hear(self, argument: Argument) -> None:
        self._growth.spend(argument.tokens)
        self._arguments.append(argument)

    def _pick(self) -> tuple[int, ...]:
        """Solutions with different answers, those from the node of highest value first. What is right is not asked."""
        nodes = self._growth.nodes
        ends = [i for i, bud in enumerate(nodes) if bud.check is not None and bud.check.answer is not None]
        ends.sort(key=lambda i: (-self._mean(i), i))
        by_answer: dict[str | None, int] = {}
        for end in ends:
            check = nodes[end].check
            by_answer.setdefault(check.answer if check else None, end)
        return tuple(by_answer.values())[: self._settings.candidates]

    def _mean(self, end: int) -> float:
        """Hybrid value of the last node on the way to a solution that has one."""
        visited = [i for i in self._growth.path(end) if self._growth.nodes[i].visits]
        return self.value_sum(visited[-1]) / self._growth.nodes[visited[-1]].visits if visited else 0.0

    @property
    def guesses(self) -> tuple[Guess, ...]:
        """All that a model said of nodes, in their order."""
        return tuple(
            Guess(node=node, value=said.value, reason=said.reason, advice=self._advice.get(node, ""))
            for node, said in sorted(self._said.items())
        )

    @property
    def outcome(self) -> Debate | None:
        """How the debate went; None where there was none."""
        if not self._arguments:
            return None
        last = self._arguments[-self._settings.debaters :]
        chosen = plurality([argument.choice for argument in last])
        return Debate(
            candidates=self._candidates,
            arguments=tuple(argument.text for argument in self._arguments),
            choices=tuple(argument.choice for argument in self._arguments),
            chosen=None if chosen is None else self._candidates[chosen],
        )


def unit_value(value: float) -> float:
    """A value of -100..100 on the scale of success rates, 0..1."""
    return (value - LOWEST) / (HIGHEST - LOWEST)


def hybrid_sum(value_sum: float, visits: int, said: Sequence[float], weight: float) -> float:
    """(1 - w) V + w U, times the visits: V the rollouts' mean value, U the mean of what a model said; V without U.

    >>> hybrid_sum(1.0, 2, [0.9, 0.7], 0.25)  # V = 1/2, U = 0.8: 3/8 + 1/5 = 0.575
    1.15
    """
    if not said:
        return value_sum
    return (1 - weight) * value_sum + weight * visits * sum(said) / len(said)


def likeness(first: str, second: str) -> float:
    """Jaccard index of two texts' words, 0..1; equal texts without words are alike.

    >>> likeness("Step 1: 4 + 3 = 7", "Step 1: 4 + 3 = 8")  # step 1 4 3 in both, 7 and 8 in one each
    0.6666666666666666
    """
    ours, theirs = (frozenset(_WORD.findall(text.casefold())) for text in (first, second))
    return len(ours & theirs) / len(ours | theirs) if ours | theirs else float(first == second)


def word_feedback(step: str, said: Valuation) -> str:
    """What is told of a sibling: its step, what it is said to be worth, and why."""
    reason = " ".join(said.reason.split())
    return f"Another way to go on: {' '.join(step.split())}\nWorth {said.value} of {LOWEST} to {HIGHEST}. {reason}"


def plurality(choices: Sequence[int | None]) -> int | None:
    """The choice that more made than any other; None where none did. Who could not be read has no vote.

    >>> plurality([1, 0, 1]), plurality([0, 1]), plurality([None, 2])
    (1, None, 2)
    """
    ranked = Counter(choice for choice in choices if choice is not None).most_common(2)
    if not ranked or (len(ranked) > 1 and ranked[0][1] == ranked[1][1]):
        return None
    return ranked[0][0]

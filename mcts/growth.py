"""A tree while it grows. Rollouts are grafted step by step, equal steps merged; `freeze` makes the value."""

import dataclasses
from collections import Counter
from collections.abc import Sequence

from mcts.answers import Check
from mcts.base import Rollout
from mcts.steps import StepRule, split_steps
from schemas import Estimate, Node

_NOTHING = Estimate()
_LONGEST_MESSAGE = 2_000
"""Characters of what a checker says that a node keeps."""


@dataclasses.dataclass(kw_only=True, slots=True)
class _Bud:
    """A node that still changes. See `schemas.Node` for the fields of the same name.

    `children` are found by (step, whether it ends a solution, whether it was cut). `passes` counts rollouts that took
    this step, `onward` those that took any step from here. `sampled` counts direct rollouts asked for, `recorded` those
    that came; `rollouts` holds (terminal, tokens) of each that has text. `advised` counts rollouts whose prompt held
    more than the problem: they are no direct ones, and neither sampled nor recorded.
    """

    parent: int
    step: str
    depth: int
    terminal: bool
    text: str
    flawed: bool = False
    children: dict[tuple[str, bool, bool], int] = dataclasses.field(default_factory=dict)
    check: Check | None = None
    outcomes: Counter[str] = dataclasses.field(default_factory=Counter)
    passes: int = 0
    onward: int = 0
    sampled: int = 0
    recorded: int = 0
    advised: int = 0
    rollouts: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    visits: int = 0
    virtual: int = 0
    value_sum: float = 0.0
    reasoning: str = ""

    @property
    def direct(self) -> Estimate:
        if not self.recorded:
            return _NOTHING
        correct, incorrect = self.outcomes["correct"], self.outcomes["incorrect"]
        return Estimate(correct=correct, scored=correct + incorrect, unscored=self.outcomes["unscored"])

    @property
    def is_untried(self) -> bool:
        """Whether nobody has asked for rollouts from here."""
        return not (self.sampled or self.advised)

    @property
    def is_pending(self) -> bool:
        """Whether direct rollouts are in flight."""
        return self.recorded < self.sampled


class Growth:
    """Nodes of one tree and the counts that search and probes add to them."""

    def __init__(self, step_rule: StepRule, step_tokens: int = 30) -> None:
        self._step_rule = step_rule
        self._step_tokens = step_tokens
        self.nodes = [_Bud(parent=-1, step="", depth=0, terminal=False, text="")]
        self._asked: Counter[str] = Counter()
        self.rollouts = 0
        self.calls = 0
        self.completion_tokens = 0
        self.dropped_tokens = 0

    def path(self, node: int) -> tuple[int, ...]:
        """Indices from the root to `node`, both included."""
        indices = [node]
        while indices[-1]:
            indices.append(self.nodes[indices[-1]].parent)
        return tuple(reversed(indices))

    def reserve(self, node: int, num_samples: int, *, is_advised: bool = False) -> int:
        """Index of the first of `num_samples` new samples of `node`'s text: no sample is ever asked for twice.

        Two nodes may have one text, cut differently: their samples are counted together.
        """
        bud = self.nodes[node]
        first = self._asked[bud.text]
        self._asked[bud.text] += num_samples
        if is_advised:
            bud.advised += num_samples
        else:
            bud.sampled += num_samples
        self.calls += 1
        self.rollouts += num_samples
        return first

    def graft(self, node: int, rollout: Rollout) -> int | None:
        """Hangs a rollout's steps below `node` and returns its terminal; None where the rollout has no text."""
        self.completion_tokens += rollout.tokens
        steps = split_steps(rollout.text, self._step_rule, self._step_tokens)
        if not steps:
            self.dropped_tokens += rollout.tokens
            return None
        current = node
        for i, step in enumerate(steps):
            self.nodes[current].onward += 1
            is_last = i == len(steps) - 1
            current = self._child(current, step, terminal=is_last, cut=is_last and rollout.is_cut)
            self.nodes[current].passes += 1
            if i == 0 and not self.nodes[current].reasoning:
                self.nodes[current].reasoning = rollout.reasoning
        self.nodes[node].rollouts.append((current, rollout.tokens))
        return current

    def hang(self, parent: int, step: str) -> int:
        """The inner node with this step below `parent`: the one that is there, or a new one that no rollout took."""
        return self._child(parent, step, terminal=False, cut=False)

    def plant(self, steps: Sequence[str]) -> int:
        """Hangs a solution below the root that no rollout took, its steps as they are, and returns its terminal."""
        current = 0
        for step in steps[:-1]:
            current = self.hang(current, step)
        return self._child(current, steps[-1], terminal=True, cut=False)

    def is_flawed(self, node: int) -> bool:
        """Whether a step up to `node` is known to be wrong."""
        return any(self.nodes[i].flawed for i in self.path(node))

    def _child(self, parent: int, step: str, *, terminal: bool, cut: bool) -> int:
        """The child with this step; an end that was cut is another one than the same words as a whole answer."""
        bud = self.nodes[parent]
        child = bud.children.get((step, terminal, cut))
        if child is None:
            child = len(self.nodes)
            bud.children[step, terminal, cut] = child
            self.nodes.append(
                _Bud(parent=parent, step=step, depth=bud.depth + 1, terminal=terminal, text=bud.text + step)
            )
        return child

    def spend(self, tokens: int) -> None:
        """Counts a call that was for no rollout, and what was sampled for it."""
        self.calls += 1
        self.completion_tokens += tokens
        self.dropped_tokens += tokens

    def record(self, node: int, terminals: list[int | None], *, is_advised: bool = False) -> None:
        """Adds the outcomes of one request's rollouts to `node`'s direct estimate and backs up their rate.

        A rollout without text (None) is unscored. Those that were advised are backed up alone: they are drawn from
        another policy than the one that estimates are of.
        """
        outcomes = Counter({"unscored": terminals.count(None)})
        for terminal in terminals:
            if terminal is not None:
                check = self.nodes[terminal].check
                assert check is not None, self.nodes[terminal].text
                outcomes[check.outcome] += 1
        if not is_advised:
            self.nodes[node].outcomes += outcomes
            self.nodes[node].recorded += len(terminals)
        scored = outcomes["correct"] + outcomes["incorrect"]
        if scored:
            for i in self.path(node):
                self.nodes[i].visits += 1
                self.nodes[i].value_sum += outcomes["correct"] / scored

    def outcome(self, node: int) -> str | None:
        """What a terminal came to; None for inner nodes."""
        check = self.nodes[node].check
        return check.outcome if check else None

    def freeze(self) -> tuple[Node, ...]:
        """The nodes as a value."""
        return tuple(self._freeze(bud) for bud in self.nodes)

    def _freeze(self, bud: _Bud) -> Node:
        passes = self.nodes[bud.parent].onward if bud.parent >= 0 else 0
        return Node(
            parent=bud.parent,
            step=bud.step,
            depth=bud.depth,
            kind="root" if bud.parent < 0 else "terminal" if bud.terminal else "step",
            answer=bud.check.answer if bud.check else None,
            outcome=bud.check.outcome if bud.check else None,
            unscored_reason=bud.check.reason if bud.check and bud.check.outcome == "unscored" else None,
            message=bud.check.detail[:_LONGEST_MESSAGE] if bud.check else "",
            direct=bud.direct,
            visits=bud.visits,
            value_sum=bud.value_sum,
            flawed=bud.flawed,
            prior=bud.passes / passes if passes else None,
            reasoning=bud.reasoning,
        )

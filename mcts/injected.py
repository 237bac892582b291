"""Right paths with an error put into one of their steps: a tree in which first errors are known, not located.

Whole solutions are sampled as in `mcts.samples`. A right path whose steps all hold lends a step; somebody writes that
step anew with an error in it, and the changed step hangs in the trie beside the original one. It is believed to be
wrong only where completions prove it (SPC, arXiv 2504.19162): equally many are drawn from both sides, after the step
was picked, and the original must mostly come out right, the changed one mostly wrong, by pairing's exact test. A proved
step is `flawed`; any other stays in the tree as a step like all others. Pairing reads both without knowing of edits.
"""

import asyncio
import dataclasses
import re
from collections.abc import Coroutine, Sequence
from typing import Any, Literal, Protocol, TypeVar

import msgspec

from mcts.answers import find_answer
from mcts.base import Rollout
from mcts.estimates import p_greater
from mcts.samples import SampledTree, SampleSettings
from mcts.steps import StepRule, split_steps
from mcts.waves import OutOfBudget, Plan
from schemas import Edit, Estimate, Problem, Record, Tree, uniform

T = TypeVar("T")

How = Literal["edit", "hot", "hint"]
"""Who writes the wrong step. `edit`: a model that is shown the step and the error to put into it. `hot`: the actor,
going on from the step before, at another temperature. `hint`: the same with a hint that misleads it."""

REWRITE_REJECTIONS = ("nothing_came", "cut_off", "unchanged", "ends_solution", "not_one_step")
"""Why what was written is no changed step. `ends_solution`: it gives an answer, which the original does not.
`not_one_step`: put in the original's place, the text is not cut into the same steps."""

EDIT_STATES = (
    "proved",
    "no_rewriting",
    "nothing_scored",
    "original_not_right",
    "edit_not_wrong",
    "gap_not_significant",
)
"""What becomes of an edit; all but the first leave the step as unknown as any other. `no_rewriting`: no try gave a
changed step. `nothing_scored`: a side has no completion that was scored, as where the budget ended before the proof."""

_OPENING = re.compile(r"\s*Step \d+:[ \t]*")


class InjectSettings(Record, tag_field="kind", tag="injected"):
    """How right paths are found, how errors are put into them, and how that is proved.

    Of the search's settings those count that say what a step is, how a path is confirmed and probed, and what a tree
    may cost: `max_rollouts` and `max_completion_tokens` pay for rewritings, too.
    """

    num_samples: int = 8
    """Whole solutions of a problem, in one request."""
    how: tuple[How, ...] = ("edit",)
    """Ways to come by a wrong step, taken in turn."""
    error_types: tuple[str, ...] = (
        "calculation",
        "misread_problem",
        "wrong_operation",
        "unsupported_claim",
        "missing_step",
        "inconsistent",
    )
    """Names of the errors that are asked for by `edit` and `hint`; which one is drawn. Described in
    `annotators.units.ERROR_TYPES`."""
    max_edits: int = 2
    """Steps of a problem that are written anew at most, each step once; which ones is drawn, all being as likely. The
    last step, which holds the answer, is none of them."""
    max_paths: int = 2
    """Right paths that are looked at at most: the next one where one does not hold or has no step left."""
    tries: int = 3
    """Rewritings of one step at most, until one is a changed step."""
    completions: int = 8
    """Completions of each side that the proof counts."""
    temperature: float = 1.0
    """Of whoever writes the wrong step."""
    max_tokens: int = 160
    """Of one rewriting by `edit`; the actor's goes for the other ways, which write solutions to their end."""
    template: str = "inject"
    """Prompt of `edit`; gap `{sections}`: problem, steps before, step to change, kind of error."""
    hint_template: str = "inject_hint"
    """Prompt of `hint`; gap `{sections}`: problem, hint."""
    engine: str = ""
    """Name of one of the run's `engines` that edits; empty takes the actor's, which writes by the other ways anyhow."""

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise ValueError(f"num_samples must be at least 1 for a right path, got {self.num_samples}")
        for name in ("max_edits", "max_paths", "tries", "completions", "max_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.temperature < 0:
            raise ValueError(f"temperature must not be below 0, got {self.temperature}")
        if not self.how or len(set(self.how)) < len(self.how):
            raise ValueError(f"how must name some of edit, hot and hint, each once, got {list(self.how)}")
        if not self.error_types and self.how != ("hot",):
            raise ValueError(f"error_types is empty, but how={list(self.how)} asks for errors by name; name some")


class Place(Record):
    """A step of a right path, and the error that is to be put into it."""

    steps: tuple[str, ...]
    """The whole right path."""
    index: int
    """Of the step to be written anew, from 0."""
    how: How
    error_type: str
    """Name of the error; empty for `hot`."""

    @property
    def step(self) -> str:
        """The original step."""
        return self.steps[self.index]

    @property
    def before(self) -> str:
        """What the solution says before it."""
        return "".join(self.steps[: self.index])

    @property
    def opening(self) -> str:
        """The step's number, which an edit keeps; empty where steps have none."""
        found = _OPENING.match(self.step)
        return found.group().lstrip() if found else ""


class Rewriter(Protocol):
    """Writes a step anew with an error in it."""

    async def __call__(self, place: Place, *, sample: int) -> Rollout:
        """Try `sample` (from 0): what follows `place.opening` for `edit`, `place.before` for the other ways."""
        ...


def read_rewriting(place: Place, written: Rollout, rule: StepRule, domain: str) -> tuple[str, str]:
    r"""The changed step, with the white space of the original around it, or why there is none: one of the two is empty.

    Of what an actor wrote that goes on from the step before, the first step counts.

    >>> place = Place(steps=("Step 1: 4 + 3 = 7\n", "Answer: 7"), index=0, how="edit", error_type="calculation")
    >>> read_rewriting(place, Rollout(text="4 + 3 = 8", tokens=5), "marker", "math")
    ('Step 1: 4 + 3 = 8\n', '')
    """
    if written.error or not written.text.strip():
        return "", "nothing_came"
    step, text, is_cut = place.step, written.text, written.is_cut
    if place.how != "edit":
        first, *rest = split_steps(text, rule)
        text, is_cut = first, is_cut and not rest
        if not rest and not is_cut:
            return "", "ends_solution"
    if is_cut:
        return "", "cut_off"
    opening = place.opening if place.how == "edit" else ""
    body = text.strip().removeprefix(opening.strip()).lstrip()
    if not body:
        return "", "nothing_came"
    said = opening + body
    changed = step[: len(step) - len(step.lstrip())] + said + step[len(step.rstrip()) :]
    if said.split() == step.split():
        return "", "unchanged"
    if find_answer(said, domain) is not None and find_answer(step, domain) is None:
        return "", "ends_solution"
    steps = (*place.steps[: place.index], changed, *place.steps[place.index + 1 :])
    return ("", "not_one_step") if split_steps("".join(steps), rule) != steps else (changed, "")


def proof(original: Estimate, edited: Estimate, alpha: float) -> str:
    """What equally many completions of both sides say of an edit: one of `EDIT_STATES`.

    A harmless edit, whose completions come out right as often as the original's, is proved with probability `alpha` at
    most: the test is exact for counts that were drawn after the step was picked.

    Args:
      original: completions of the original step.
      edited: completions of the changed one.
      alpha: largest one-sided p-value of Fisher's test.
    """
    if original.rate is None or edited.rate is None:
        return "nothing_scored"
    if original.rate <= 0.5:
        return "original_not_right"
    if edited.rate >= 0.5:
        return "edit_not_wrong"
    return "proved" if p_greater(original, edited) <= alpha else "gap_not_significant"


@dataclasses.dataclass(kw_only=True, slots=True)
class _Attempt:
    """An edit while it is tried. `seen` holds the estimates of both sides before the proof's completions."""

    place: Place
    original: int
    node: int | None = None
    unusable: list[str] = dataclasses.field(default_factory=list)
    seen: tuple[Estimate, Estimate] = (Estimate(), Estimate())


class InjectedTree(SampledTree):
    """One problem's right paths with errors put into them. Make one for each tree, await `grow` once."""

    def __init__(self, inject: InjectSettings, rewrite: Rewriter, problem: Problem, **search: Any) -> None:
        """Takes how to put errors in, who writes them, and what `TreeSearch` takes."""
        super().__init__(SampleSettings(num_samples=inject.num_samples), problem, **search)
        self._inject = self._source = inject
        self._rewrite = rewrite
        self._attempts: list[_Attempt] = []
        self._edits: tuple[Edit, ...] = ()

    async def _phases(self) -> str:
        await self._all([self._solve()])
        if not self._growth.nodes[0].direct.scored:
            return "nothing_scored"
        try:
            stopped = await self._put_errors()
        finally:  # What is proved when the budget ends is proved; completions that come later count for nothing here.
            self._edits = tuple(map(self._edit, self._attempts))
            for edit in self._edits:
                if edit.node is not None and edit.state == "proved":
                    self._growth.nodes[edit.node].flawed = True
        await self._locate()
        return stopped

    async def _put_errors(self) -> str:
        growth = self._growth
        right = [i for i, bud in enumerate(growth.nodes) if bud.depth > 1 and growth.outcome(i) == "correct"]
        if not right:
            return "no_right_path"
        for leaf in right[: self._inject.max_paths]:
            steps = growth.path(leaf)[1:-1]
            await self._all([self._confirm(steps)])
            if all(self._side(node) == "above" for node in steps):
                self._partnered.add(leaf)
                self._pick(leaf)
            if len(self._attempts) == self._inject.max_edits:
                break
        if not self._attempts:
            return "right_path_does_not_hold"
        await self._write()
        await self._all([self._prove(attempt) for attempt in self._attempts if attempt.node is not None])
        return "injected"

    def _pick(self, leaf: int) -> None:
        """Draws steps of a right path, ways and errors; a function of the seed, the problem and the path."""
        settings, path = self._inject, self._growth.path(leaf)[1:]
        texts = tuple(self._growth.nodes[node].step for node in path)
        drawn = ("inject", self._provenance.seed, self._problem.id, *texts)
        taken = {attempt.original for attempt in self._attempts}
        fresh = [i for i in range(len(path) - 1) if path[i] not in taken]
        fresh.sort(key=lambda i: uniform(*drawn, i))
        for index in fresh[: settings.max_edits - len(self._attempts)]:
            how, kind = settings.how[len(self._attempts) % len(settings.how)], ""
            if how != "hot":
                kind = settings.error_types[int(uniform(*drawn, index, "kind") * len(settings.error_types))]
            place = Place(steps=texts, index=index, how=how, error_type=kind)
            self._attempts.append(_Attempt(place=place, original=path[index]))

    async def _write(self) -> None:
        """Has steps written anew, in rounds: what is asked in one depends on the answers of those before alone."""
        growth, settings = self._growth, self._settings
        for sample in range(self._inject.tries):
            waiting = [attempt for attempt in self._attempts if attempt.node is None]
            if not waiting:
                return
            room = settings.max_rollouts - growth.rollouts
            if room < 1 or growth.completion_tokens >= settings.max_completion_tokens:
                raise OutOfBudget
            asked = waiting[:room]
            growth.calls += len(asked)
            growth.rollouts += len(asked)
            came = await _all_of([self._rewrite(attempt.place, sample=sample) for attempt in asked])
            for attempt, written in zip(asked, came, strict=True):
                self._take(attempt, written)

    def _take(self, attempt: _Attempt, written: Rollout) -> None:
        growth = self._growth
        growth.completion_tokens += written.tokens
        changed, reason = read_rewriting(attempt.place, written, self._settings.step_rule, self._problem.domain)
        if reason:
            growth.dropped_tokens += written.tokens
            attempt.unusable.append(reason)
            return
        attempt.node = growth.hang(growth.nodes[attempt.original].parent, changed)
        attempt.seen = (growth.nodes[attempt.original].direct, growth.nodes[attempt.node].direct)

    def _prove(self, attempt: _Attempt) -> Plan:
        assert attempt.node is not None
        yield [(attempt.original, self._inject.completions), (attempt.node, self._inject.completions)]

    def _edit(self, attempt: _Attempt) -> Edit:
        """What an attempt has come to by now."""
        nodes, (original, edited) = self._growth.nodes, attempt.seen
        state = "no_rewriting"
        if attempt.node is not None:
            original = _since(nodes[attempt.original].direct, original)
            edited = _since(nodes[attempt.node].direct, edited)
            state = proof(original, edited, self._pairing.alpha)
        return Edit(
            original=attempt.original,
            node=attempt.node,
            how=attempt.place.how,
            error_type=attempt.place.error_type,
            state=state,
            unusable=tuple(attempt.unusable),
            original_estimate=original,
            edited_estimate=edited,
        )

    def _suspects(self) -> tuple[int, ...]:
        """Wrong terminals worth locating: not those whose first error is known."""
        growth = self._growth
        return tuple(i for i in super()._suspects() if not any(growth.nodes[node].flawed for node in growth.path(i)))

    def _freeze(self, stopped: str) -> Tree:
        return msgspec.structs.replace(super()._freeze(stopped), edits=self._edits)


def _since(now: Estimate, before: Estimate) -> Estimate:
    return Estimate(
        correct=now.correct - before.correct,
        scored=now.scored - before.scored,
        unscored=now.unscored - before.unscored,
    )


async def _all_of(calls: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The answers in the order of the calls; where one raises, none goes on behind the error's back."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

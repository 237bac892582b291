"""Stage: revise answers by a piece of feedback, in its scope and outside; runs only where there is one."""

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import apache_beam as beam

from annotators.dialogue import talk_of_feedback
from annotators.scoping import (
    FOLLOWS_SCHEMA,
    SCOPE_SCHEMA,
    ScopeSettings,
    agreed,
    fit_of_change,
    loses_answer,
    read_follows,
    read_scope,
    scope_prompt,
)
from pipelines.engines.base import Request, Sampling
from pipelines.refining import check_sample
from pipelines.settings import ActorSettings
from pipelines.stage import FAILED, REJECTED, CallModels
from pipelines.worker import Worker, WorkerSpec
from schemas import Record, Rejection, Scope, Scoped, Stage, Template, Tree, digest

STAGE: Stage = "ScopeFeedback"

T = TypeVar("T")


@dataclasses.dataclass
class ScopeFeedback(beam.PTransform):
    """Makes of every `Tree` one `Scoped`, a `Rejection` or a `Failure`.

    The answer without feedback is the tree's first solution, whatever comes out: nobody checks what was asked for but
    the judge.
    """

    spec: WorkerSpec
    actor: ActorSettings
    scope: ScopeSettings
    templates: dict[str, Template]
    """`scope`, `follows` and `revise`."""
    seed: int

    def expand(self, trees: beam.PCollection[Tree]) -> Any:
        """Three outputs: main (Scoped), `rejected`, `failed`."""
        stage = CallModels(STAGE, self.spec, self._judge, lambda tree: (tree.id, tree.problem.id))
        return trees | beam.ParDo(stage.giving(Scoped)).with_outputs(REJECTED, FAILED, main="kept")

    async def _judge(self, worker: Worker, tree: Tree) -> Sequence[Record]:
        leaf = next((leaf for leaf in tree.terminals() if "".join(tree.steps(leaf)).strip()), None)
        if leaf is None:
            return [_rejection(tree, "no_answer")]
        first = "".join(tree.steps(leaf))
        scope: Scope | None = await self._vote(worker, tree, "scope", SCOPE_SCHEMA, read_scope)
        if scope is None:
            return [_rejection(tree, "scope_unclear")]
        return [await self._revise(worker, tree, leaf, first, scope)]

    async def _revise(self, worker: Worker, tree: Tree, leaf: int, first: str, scope: Scope) -> Record:
        problem, sampling = tree.problem, self.actor.sampling(refining=True)
        prompt = scope_prompt(self.templates["revise"], problem, self.scope.feedback, first)
        request = Request(prompt=prompt, sampling=sampling, seed=self.seed, images=problem.images)
        (sample,) = await worker.model.sample(STAGE, request)
        if sample.error or not sample.text.strip():
            return _rejection(tree, "no_revision", sample.error or "")
        if sample.text.split() == first.split():
            return _rejection(tree, "unchanged")
        if talk := talk_of_feedback(sample.text, problem):
            return _rejection(tree, "talks_of_feedback", talk)
        before, after = await asyncio.gather(
            *(self._vote(worker, tree, "follows", FOLLOWS_SCHEMA, read_follows, text) for text in (first, sample.text))
        )
        if reason := fit_of_change(first=before, revised=after):
            return _rejection(tree, reason, scope)
        check = await check_sample(worker, sample, problem)
        outcome = tree.nodes[leaf].outcome
        item = Scoped(
            id=digest("scoped", tree.id, leaf, self.scope.feedback),
            problem=problem,
            tree_id=tree.id,
            node_ids=tree.path(leaf),
            actor=tree.provenance,
            root_estimate=tree.nodes[0].direct,
            judge=worker.provenance(self.templates["follows"], self._sampling(), self.seed, engine=self.scope.engine),
            feedback=self.scope.feedback,
            scope=scope,
            first=first,
            revised=sample.text,
            first_outcome=outcome or "unscored",
            revised_outcome=check.outcome,
        )
        return _rejection(tree, "loses_answer", scope) if loses_answer(item) else item

    async def _vote(
        self, worker: Worker, tree: Tree, what: str, schema: str, read: Callable[[str], T | None], answer: str = ""
    ) -> T | None:
        """What all of the judge's votes say; None without such a thing."""
        request = Request(
            prompt=scope_prompt(self.templates[what], tree.problem, self.scope.feedback, answer),
            num_samples=self.scope.votes,
            sampling=self._sampling(),
            json_schema=schema,
            seed=self.seed,
            images=tree.problem.images,
        )
        samples = await worker.model_of(self.scope.engine).sample(STAGE, request)
        return agreed([None if sample.error else read(sample.text) for sample in samples])

    def _sampling(self) -> Sampling:
        return Sampling(max_tokens=self.scope.max_tokens, temperature=self.scope.temperature, stop=("\n\n",))


def _rejection(tree: Tree, reason: str, detail: str = "") -> Rejection:
    return Rejection(stage=STAGE, key=tree.id, problem_id=tree.problem.id, reason=reason, detail=detail)

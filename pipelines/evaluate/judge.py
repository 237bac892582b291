"""Asks about solutions: a critique each, then second solutions written with it, in as many rounds as are wanted."""

import asyncio
from collections.abc import Callable

import msgspec

from annotators.leaks import find_leak
from mcts.answers import Check
from mcts.steps import split_steps
from pipelines.engines import EngineError
from pipelines.engines.base import PromptRefused, Request
from pipelines.evaluate.critics import Asking, Unread, baseline_critique
from pipelines.evaluate.inputs import Labelled, written_path
from pipelines.evaluate.results import EvaluatedSolution, Seconds, row_of
from pipelines.evaluate.task import Task
from pipelines.refining import Arm, Refiner, check_sample
from pipelines.stage import failure
from pipelines.worker import Worker, WorkerSpec
from pipelines.write_critiques import Correcting
from schemas import Critique, Failure, Outcome, Problem, Provenance, Record, Stage, digest

SOLVING: Stage = "ExpandTrees"
"""Whose calls the actor's own solutions are in the books."""

Rows = list[list[EvaluatedSolution]]
"""Of each input."""


class Written(Record):
    """A solution that the actor wrote."""

    text: str
    check: Check


class Judge:
    """Asks about solutions: one critique each, then second solutions written with it."""

    def __init__(self, task: Task, spec: WorkerSpec) -> None:
        settings, plan = task.plan.settings, task.plan
        self._task = task
        self._in_flight = settings.runner.max_in_flight
        # Each round has seeds of its own: what is asked again with the same words has another answer.
        seeds = [settings.seed + i for i in range(task.options.num_rounds)]
        correcting = Correcting(template=plan.refine, sampling=settings.actor.sampling(refining=True))
        self._asking = [
            Asking(
                spec=spec,
                panel=settings.panel,
                templates=plan.critics,
                stop=plan.stop,
                seed=seed,
                crucial=plan.crucial,
                correcting=correcting,
            )
            for seed in seeds
        ]
        self._refiners = [Refiner(settings.actor, plan.refine, seed) for seed in seeds]
        self._has_refined = False
        self._solved_beside = _first_of_each_question(task) if task.options.mode == "criticbench" else frozenset()

    async def all(self, worker: Worker, done: Callable[[], None]) -> Rows:
        """The rows of all inputs, in their order; so many solutions in hand at once as a stage of a run has.

        Raises:
          BudgetReached: a limit was reached before.
        """
        rows: dict[tuple[int, int], list[EvaluatedSolution]] = {}
        todo = iter(
            [
                (i, j, source.name, item)
                for i, source in enumerate(self._task.sources)
                for j, item in enumerate(source.solutions)
            ]
        )

        async def take() -> None:
            for i, j, file, item in todo:
                rows[i, j] = await self.one(worker, file, item)
                done()

        takers = [asyncio.create_task(take()) for _ in range(self._in_flight)]
        try:
            await asyncio.gather(*takers)
        finally:
            for taker in takers:
                taker.cancel()
        return [
            [row for j in range(len(source.solutions)) for row in rows[i, j]]
            for i, source in enumerate(self._task.sources)
        ]

    async def one(self, worker: Worker, file: str, item: Labelled) -> list[EvaluatedSolution]:
        """The rows of one solution, one for each round that it has."""
        own: Outcome | None = None
        current: Labelled | None = item
        if self._task.solves or (file, item.id) in self._solved_beside:
            found = await self._solve(worker, item)
            if not isinstance(found, Written):
                return [row_of(item, file, self._task.critic.name, found, Seconds())]
            own = found.check.outcome
            if self._task.solves:
                current = self._written(item, found)
        if self._task.is_to_be_checked(item):
            check = await worker.checkers.check("".join(item.path.steps), item.path.problem)
            current = msgspec.structs.replace(item, first_outcome=check.outcome, first_reason=check.reason or "")
        rows: list[EvaluatedSolution] = []
        while current is not None and len(rows) < self._task.options.num_rounds:
            row, current = await self._round(worker, file, current, len(rows) + 1)
            rows.append(row)
        return [msgspec.structs.replace(rows[0], own_outcome=own), *rows[1:]]

    async def _solve(self, worker: Worker, item: Labelled) -> Written | Unread | Failure:
        """The actor's own solution."""
        if self._task.solves and (reason := self._task.unasked(item)):
            return Unread(reason=reason, detail="its own solution could not be checked, or not be criticised")
        plan, problem = self._task.plan, item.path.problem
        request = Request(
            prompt=plan.solve.fill({"problem": problem.question}),
            sampling=plan.settings.actor.sampling(),
            seed=plan.settings.seed,
            images=problem.images,
        )
        try:
            (sample,) = await worker.model.sample(SOLVING, request)
            if sample.error:
                raise PromptRefused(sample.error, attempts=1)
        except EngineError as error:
            return failure(SOLVING, item.id, problem.id, error)
        return Written(text=sample.text, check=await check_sample(worker, sample, problem))

    def _written(self, item: Labelled, found: Written) -> Labelled:
        """What the actor wrote, as a solution to criticise: right or wrong as its answer is."""
        problem: Problem = item.path.problem
        search, outcome = self._task.plan.settings.search, found.check.outcome
        return Labelled(
            id=item.id,
            path=written_path(problem, split_steps(found.text, search.step_rule, search.step_tokens)),
            label=None if outcome == "unscored" else outcome,
            first_error=None,
            is_located=False,
            first_outcome=outcome,
        )

    async def _round(
        self, worker: Worker, file: str, item: Labelled, number: int
    ) -> tuple[EvaluatedSolution, Labelled | None]:
        """One round of a solution, and what the next one is about; None where there can be none."""
        task, path = self._task, item.path
        is_written = task.solves or number > 1
        found = await self._criticise(worker, item, number)
        is_refined = task.is_refined(item) or is_written
        seconds = Seconds.unwritten(task.options.samples if is_refined and isinstance(found, Unread) else 0)
        leak, next_item = "", None
        if isinstance(found, Critique):
            leak = find_leak(found, path) if item.has_gold else ""
            try:
                if is_refined:
                    self._has_refined = True
                    refiner = self._refiners[number - 1]
                    arm = await refiner.refine(worker, path, found.text, task.options.samples)
                    seconds, next_item = Seconds.of(arm.checks), self._next(item, arm)
            except EngineError as error:
                found = failure("VerifyCritiques", found.id, path.problem.id, error)
        row = row_of(item, file, task.critic.name, found, seconds, leak=leak)
        if is_written:
            return msgspec.structs.replace(row, round=number, solution="".join(path.steps)), next_item
        return msgspec.structs.replace(row, unrefined=task.unrefined(item)), next_item

    async def _criticise(self, worker: Worker, item: Labelled, number: int) -> Critique | Unread | Failure:
        critic, path = self._task.critic, item.path
        if reason := self._task.unasked(item):
            return Unread(reason=reason, detail=f"{critic.name} cannot be asked about it")
        if self._task.solves and number == 1 and item.first_outcome == "unscored":
            return Unread(reason="solution_unscored", detail="nobody can say whether the actor's own solution is right")
        if not "".join(path.steps).strip():
            return Unread(reason="no_solution", detail="the actor wrote nothing")
        if critic.agents:
            return await self._asking[number - 1].ask(worker, path)
        return baseline_critique(critic.name, path)

    def _next(self, item: Labelled, arm: Arm) -> Labelled:
        return self._written(item, Written(text=arm.texts[0], check=arm.checks[0]))

    def models(self, worker: Worker) -> tuple[Provenance | None, Provenance | None]:
        """Who criticised and who refined."""
        plan, agent = self._task.plan, self._task.critic.agent
        critic = actor = None
        if agent is not None:
            sampling = self._asking[0].sampling(agent)
            template = plan.critics[agent.name]
            critic = worker.provenance(template, sampling, plan.settings.seed, engine=agent.engine)
        if self._has_refined or self._task.solves:
            sampling = plan.settings.actor.sampling(refining=True)
            actor = worker.provenance(plan.refine, sampling, plan.settings.seed)
        return critic, actor


def _first_of_each_question(task: Task) -> frozenset[tuple[str, str]]:
    """Input and id of the first solution of every question whose answer can be checked."""
    first: dict[tuple[str, str], str] = {}
    for source in task.sources:
        for item in source.solutions:
            problem = item.path.problem
            if item.has_gold:
                first.setdefault((source.name, digest(problem.question, problem.images)), item.id)
    return frozenset((name, item_id) for (name, _), item_id in first.items())

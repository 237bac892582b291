"""Stage: go on from solutions of a tree in rounds of feedback and another attempt."""

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
import msgspec

from annotators.code_feedback import Failed, compile_error, describe_check, describe_run, told_tests
from annotators.critic import layout
from annotators.dialogue import (
    DIALOGUE_REJECTIONS,
    actor_sections,
    aspects_schema,
    ending,
    first_attempt,
    giver_sections,
    known_to_reader,
    named_step,
    pick_starts,
    read_aspects,
    right_solution,
    role_of,
    says_right,
    secrets_of,
    tried_answers,
    verdict_words,
)
from annotators.masks import MASK, NOTHING, Masked, masked
from annotators.rounds import Rounds, Sees
from annotators.units import CritiqueError, critique_schema, parse_critique, render_critique
from mcts.answers import Check
from mcts.settings import SearchSettings
from mcts.steps import split_steps
from pipelines.command_checks import DOMAIN
from pipelines.engines.base import EngineError, Request, Sampling
from pipelines.refining import check_sample
from pipelines.settings import ActorSettings
from pipelines.stage import FAILED, REJECTED, CallModels, failure
from pipelines.worker import Worker, WorkerSpec
from schemas import (
    Attempt,
    Dialogue,
    Ending,
    Execution,
    Feedback,
    Giver,
    Provenance,
    Record,
    Rejection,
    Stage,
    Template,
    Tree,
    Turn,
    Verbal,
    digest,
    readable,
)

STAGE: Stage = "HoldDialogues"


class _Start(Record):
    """A dialogue before it is held."""

    id: str
    tree: Tree
    leaf: int
    execution: Execution
    verbal: Verbal


class _Unfit(Exception):
    """Feedback that the actor is not shown; ends the dialogue."""

    def __init__(self, reason: Ending, detail: str) -> None:
        super().__init__(detail)
        self.reason: Ending = reason


@dataclasses.dataclass
class HoldDialogues(beam.PTransform):
    """Makes of every start in a `Tree` a `Dialogue` or a `Failure`; one that is rejected is a `Rejection` besides."""

    spec: WorkerSpec
    actor: ActorSettings
    loop: Rounds
    search: SearchSettings
    """Says what a step is."""
    refine: Template
    """The actor's; gap `{sections}`."""
    giver: Template | None
    """The giver's; gaps `{role}`, `{critic}` and `{sections}`. None where no model gives feedback."""
    seed: int

    def expand(self, trees: beam.PCollection[Tree]) -> Any:
        """Three outputs: main (Dialogue), `rejected`, `failed`."""
        stage = CallModels(STAGE, self.spec, self._hold, lambda tree: (tree.id, tree.problem.id), _ends_here)
        return trees | beam.ParDo(stage.giving(Dialogue)).with_outputs(REJECTED, FAILED, main="kept")

    async def _hold(self, worker: Worker, tree: Tree) -> Sequence[Record]:
        """All dialogues of a tree side by side; none ends another."""
        starts = [
            _Start(
                id=digest("dialogue", tree.id, leaf, execution, verbal),
                tree=tree,
                leaf=leaf,
                execution=execution,
                verbal=verbal,
            )
            for leaf in pick_starts(tree, self.loop)
            for execution, verbal in self.loop.combinations
        ]
        held = await asyncio.gather(*(self._end(worker, start) for start in starts))
        return [record for records in held for record in records]

    async def _end(self, worker: Worker, start: _Start) -> Sequence[Record]:
        problem_id = start.tree.problem.id
        try:
            dialogue, detail = await self._talk(worker, start)
        except EngineError as error:
            return [failure(STAGE, start.id, problem_id, error)]
        if dialogue.ended not in DIALOGUE_REJECTIONS:
            return [dialogue]
        return [
            dialogue,
            Rejection(stage=STAGE, key=start.id, problem_id=problem_id, reason=dialogue.ended, detail=detail),
        ]

    async def _talk(self, worker: Worker, start: _Start) -> tuple[Dialogue, str]:
        """The dialogue, and for a rejected one what was seen."""
        turns: list[Turn] = []
        attempt, detail = first_attempt(start.tree, start.leaf), ""
        while True:
            turns.append(Turn(attempt=attempt, feedback=None))
            if ended := ending(turns, self.loop):
                break
            try:
                told = await self._feedback(worker, start, turns)
            except _Unfit as unfit:
                ended, detail = unfit.reason, str(unfit)
                break
            turns[-1] = Turn(attempt=attempt, feedback=told)
            attempt = await self._attempt(worker, start, turns)
        tree = start.tree
        dialogue = Dialogue(
            id=start.id,
            problem=tree.problem,
            tree_id=tree.id,
            node_ids=tree.path(start.leaf),
            actor=tree.provenance,
            root_estimate=tree.nodes[0].direct,
            giver=self.loop.giver,
            execution=start.execution,
            verbal=start.verbal,
            turns=tuple(turns),
            ended=ended,
            leak=detail if ended == "leaks_answer" else "",
        )
        return dialogue, detail

    async def _attempt(self, worker: Worker, start: _Start, turns: Sequence[Turn]) -> Attempt:
        """The next attempt. Each round has a sample of its own, also where the actor is told the same again."""
        problem, sampling = start.tree.problem, self.actor.sampling(refining=True)
        hotter = sampling.temperature + (len(turns) - 1) * self.loop.temperature_step
        request = Request(
            prompt=self.refine.fill({"sections": layout(actor_sections(problem, turns, self.loop))}),
            first_sample=len(turns) - 1,
            sampling=msgspec.structs.replace(sampling, temperature=hotter),
            seed=self.seed,
            images=problem.images,
        )
        (sample,) = await worker.model.sample(STAGE, request)
        check = await check_sample(worker, sample, problem)
        return Attempt(
            text=sample.text,
            steps=split_steps(sample.text, self.search.step_rule, self.search.step_tokens),
            answer=check.answer,
            outcome=check.outcome,
            unscored_reason=check.reason,
            reasoning=sample.reasoning,
        )

    async def _feedback(self, worker: Worker, start: _Start, turns: Sequence[Turn]) -> Feedback:
        """What the actor is told of the last attempt.

        Raises:
          _Unfit: it gives the answer away, or there is none.
        """
        problem, attempt, giver = start.tree.problem, turns[-1].attempt, self.loop.giver
        if giver == "verdict":
            return self._told(turns, Masked(text=verdict_words(attempt)))
        run = await self._run(worker, start, attempt) if giver == "execution" else NOTHING
        if giver == "execution" and start.verbal == "none":
            return self._told(turns, run)
        said = await self._words(worker, start, attempt, run=run.text, round_=len(turns) - 1)
        words = self._clean(start, said, known_to_reader(problem, attempt, run.text))
        if not any(char.isalnum() for char in words.text.replace(MASK, "")):
            raise _Unfit("no_feedback", "nothing is left of it without the answer")
        assert self.giver is not None, giver
        source = worker.provenance(self.giver, self._sampling(), self.seed, engine=self.loop.engine)
        return self._told(turns, run, words, source)

    def _clean(self, start: _Start, said: str, known: str) -> Masked:
        """Words without what gives the answer away to who knows this much.

        Raises:
          _Unfit: it cannot be taken out.
        """
        clean = masked(said, secrets_of(start.tree.problem, right_solution(start.tree)), known, mask=self.loop.mask)
        if clean.leak:
            raise _Unfit("leaks_answer", clean.leak)
        return clean

    def _told(
        self, turns: Sequence[Turn], checked: Masked, words: Masked = NOTHING, source: Provenance | None = None
    ) -> Feedback:
        """What nobody wrote, then a giver's words, then what was tried: only the words are somebody's to learn."""
        said = "\n\n".join(filter(None, (checked.text, words.text)))
        tried = tried_answers([turn.attempt for turn in turns]) if self.loop.exclude_tried else ""
        return Feedback(
            text="\n".join(filter(None, (said, tried))),
            named_step=named_step(said),
            says_right=says_right(said),
            masked=(*checked.masked, *words.masked),
            provenance=source,
            checked=checked.text,
            words=words.text,
        )

    async def _run(self, worker: Worker, start: _Start, attempt: Attempt) -> Masked:
        """What a run of a program came to, or what the checker said, in words.

        Raises:
          _Unfit: the checker's words give the answer away. Of a program the tests are no secret.
        """
        problem = start.tree.problem
        whole: Check = await worker.checkers.check(attempt.text, problem)
        if problem.domain == DOMAIN:
            said = describe_check(whole.detail, whole.outcome)
            return self._clean(start, said, known_to_reader(problem, attempt))
        error = compile_error(whole.detail)
        tests = () if error else told_tests(problem.answer, start.execution)
        checks = await asyncio.gather(
            *(worker.checkers.check(attempt.text, msgspec.structs.replace(problem, answer=test.gold)) for test in tests)
        )
        failed = [
            Failed(source=test.source, detail=check.detail or check.reason or "")
            for test, check in zip(tests, checks, strict=True)
            if check.outcome == "incorrect"
        ]
        undecided = sum(check.outcome == "unscored" for check in checks)
        is_right = whole.outcome == "correct"
        return Masked(text=describe_run(error, failed, len(tests), undecided=undecided, is_right=is_right))

    async def _words(self, worker: Worker, start: _Start, attempt: Attempt, *, run: str, round_: int) -> str:
        """What a model says of an attempt; asked once more, with the reason, where that cannot be read.

        Raises:
          _Unfit: the second reply cannot be read either.
        """
        who: Giver | Verbal = start.verbal if self.loop.giver == "execution" else self.loop.giver
        sees: Sees = "solution" if who == "expert" else self.loop.sees
        assert self.giver is not None, who
        problem, right, complaint = start.tree.problem, right_solution(start.tree), ""
        for _ in range(2):
            parts = giver_sections(problem, attempt, sees, right, run=run, complaint=complaint)
            values = {"role": role_of(who), "critic": who, "sections": layout(parts)}
            request = Request(
                prompt=self.giver.fill(values),
                first_sample=round_,
                sampling=self._sampling(),
                json_schema=_schema(who, attempt, self.loop),
                seed=self.seed,
                images=problem.images,
            )
            (sample,) = await worker.model_of(self.loop.engine).sample(STAGE, request)
            try:
                if sample.error:
                    raise CritiqueError("prompt_refused", sample.error)
                if sample.finish == "length":
                    raise CritiqueError("cut_off", f"the reply did not end within {self.loop.max_tokens} tokens")
                return _read(who, sample.text, attempt)
            except CritiqueError as error:
                complaint = str(error)
        raise _Unfit("no_feedback", complaint)

    def _sampling(self) -> Sampling:
        stop = ("\n\n",) if self.loop.giver in ("critic", "aspects") else ("\n\nProblem:",)
        return Sampling(max_tokens=self.loop.max_tokens, temperature=self.loop.temperature, stop=stop)


def _ends_here(record: Record) -> bool:
    """False for a rejected dialogue: it ends as its rejection, which stands beside it."""
    return not (isinstance(record, Dialogue) and record.ended in DIALOGUE_REJECTIONS)


def _schema(who: Giver | Verbal, attempt: Attempt, loop: Rounds) -> str:
    """JSON Schema that a giver's reply is held to; empty for plain words."""
    if who == "critic":
        return critique_schema(attempt.steps, loop.form)
    return aspects_schema() if who == "aspects" else ""


def _read(who: Giver | Verbal, text: str, attempt: Attempt) -> str:
    """A giver's reply as the actor reads it.

    Raises:
      CritiqueError: it cannot be read.
    """
    if who == "critic":
        parsed = parse_critique(text, attempt.steps)
        return readable(render_critique(parsed.units, parsed.first_wrong_step))
    if who == "aspects":
        return readable(read_aspects(text))
    if not text.strip():
        raise CritiqueError("empty", "the reply is empty")
    return text.strip()

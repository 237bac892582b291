"""Gold answers for solutions whose file has none: lent by a source of problems, to solutions of the same question."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from pipelines.errors import UserError
from pipelines.evaluate.inputs import Labelled, Source
from pipelines.problems.questions import by_question, lender_of
from schemas import PathAlone, Problem, Rejection


def lend_answers(sources: Sequence[Source], problems: Iterable[Problem | Rejection]) -> tuple[Source, ...]:
    """The sources with the gold answers of these problems where they have none.

    Questions are the same as normalised text (`pipelines.problems.questions`). A question that comes with two answers
    lends none.

    Raises:
      UserError: no solution lacks an answer that is there.
    """
    known = by_question(problems)
    lent = tuple(_with_answers(source, known) for source in sources)
    if lent == tuple(sources):
        raise UserError(
            f"problems: none of its {len(known)} questions is that of a solution without a gold answer; give a source "
            "of the same problems, or leave problems= away"
        )
    return lent


def _with_answers(source: Source, known: Mapping[str, Problem | None]) -> Source:
    solutions = tuple(_with_answer(item, known) for item in source.solutions)
    return msgspec.structs.replace(source, solutions=solutions)


def _with_answer(item: Labelled, known: Mapping[str, Problem | None]) -> Labelled:
    problem = None if item.has_gold else lender_of(known, item.path.problem.question)
    if problem is None or not isinstance(item.path, PathAlone):
        return item
    taken = {"answer": problem.answer, "domain": problem.domain, "metadata": problem.metadata}
    given = msgspec.structs.replace(item.path.problem, **taken)
    return msgspec.structs.replace(item, path=msgspec.structs.replace(item.path, problem=given))

"""Problems with the solutions that files hold of them, for `paths=given`."""

from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from mcts.answers import quick
from mcts.given import GivenSettings
from mcts.settings import SearchSettings
from mcts.steps import split_steps
from pipelines.errors import UserError
from pipelines.problems.base import Row, Tabular, Unfit, none_usable, problem_of
from pipelines.problems.brief import brief
from pipelines.problems.questions import asked, by_question, lender_of
from pipelines.problems.solutions import (
    Name,
    SolutionFile,
    Written,
    open_solutions,
    read_row,
    rows_of,
    short_names,
    with_ends,
)
from schemas import Problem, Record, Rejection, Solution, visible

_FORMATS: tuple[Name, ...] = ("prm800k", "processbench", "realcritic", "plain")


class Given(Record):
    """What files hold: problems in the order of their first solution, and rows that are no solution."""

    problems: tuple[Problem, ...]
    unread: tuple[Rejection, ...]
    solutions: dict[str, tuple[Solution, ...]]
    """By the problem's id, in the order of the files."""

    def left_out(self, problem: Rejection) -> Rejection:
        """The rejection of a problem, saying how many solutions go with it."""
        number = len(self.solutions.get(problem.problem_id, ()))
        return msgspec.structs.replace(problem, detail=f"{problem.detail}; {number} solutions") if number else problem


NOTHING_GIVEN = Given(problems=(), unread=(), solutions={})


def read_given(given: GivenSettings, search: SearchSettings, lenders: Iterable[Problem | Rejection]) -> Given:
    """Reads all solutions.

    Args:
      given: which files.
      search: what a step is, where a solution is one text.
      lenders: problems that are taken as they are, id, gold answer, checker and images, where a solution answers their
        question. Others are made of the solution's own row.

    Raises:
      UserError: a file cannot be read as a whole, or holds no solution of a problem.
    """
    paths = [Path(name.strip()).expanduser().absolute() for name in given.files]
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError(f"paths.path: a file is given twice among {', '.join(given.files)}; give every file once")
    files = [_open(path, f"{name}{path.suffix}") for path, name in short_names(paths).items()]
    reading = _Reading(given, search, list(lenders))
    for opened in files:
        for row in rows_of(opened):
            reading.take(row, opened)
    if not reading.problems:
        place = f"paths.path: {', '.join(given.files)}"
        if not reading.unread:
            raise UserError(f"{place} holds no row; choose a file that does")
        raise none_usable(place, reading.unread)
    return Given(
        problems=tuple(reading.problems.values()),
        unread=tuple(reading.unread),
        solutions={problem_id: tuple(found) for problem_id, found in reading.solutions.items()},
    )


def _open(path: Path, label: str) -> SolutionFile:
    if not path.is_file():
        raise UserError(f"paths.path: no file at '{path}'; correct paths.path")
    try:
        return open_solutions(path, visible(label), _FORMATS, "see docs/paths.md")
    except UserError as error:
        raise UserError(f"paths.path: {error}") from None


class _Reading:
    """What was read by now."""

    def __init__(self, given: GivenSettings, search: SearchSettings, lenders: list[Problem | Rejection]) -> None:
        self._domain = given.domain
        self._cut: Callable[[str], tuple[str, ...]] = lambda text: split_steps(
            text, search.step_rule, search.step_tokens
        )
        # What the actor writes on from a step begins as its own next step would.
        self._end = "\n" if search.step_rule == "marker" else "\n\n"
        self._lent = by_question(lenders)
        self._lent_by_id = {item.id: item for item in lenders if isinstance(item, Problem)}
        self._own: dict[str, Problem] = {}
        """Problems made of rows, by the key of their question."""
        self._seen: dict[str, str] = {}
        """Where each solution's id was first."""
        self.problems: dict[str, Problem] = {}
        self.solutions: dict[str, list[Solution]] = {}
        self.unread: list[Rejection] = []

    def take(self, row: Row, opened: SolutionFile) -> None:
        """Takes a row's solutions; each ends in `solutions` or in `unread`."""
        try:
            found = read_row(row, opened.name, self._cut)
        except Unfit as unfit:
            self._reject(row, f"{row.source}:{row.number}", "", unfit)
            return
        for number, written in enumerate(found, 1):
            key = f"{row.source}:{written.id or row.number}" + (f"/{number}" if len(found) > 1 else "")
            problem_id = ""
            try:
                problem = self._problem(row, written)
                problem_id = problem.id
                self._add(problem, self._solution(row, written, key))
            except Unfit as unfit:
                self._reject(row, key, problem_id, unfit)

    def _add(self, problem: Problem, solution: Solution) -> None:
        self.problems.setdefault(problem.id, problem)
        self.solutions.setdefault(problem.id, []).append(solution)

    def _solution(self, row: Row, written: Written, key: str) -> Solution:
        if key in self._seen:
            raise Unfit("duplicate_id", f"id {brief(written.id)} was already at {self._seen[key]}")
        if not all(step.strip() for step in written.steps):
            blank = next(i for i, step in enumerate(written.steps) if not step.strip())
            raise Unfit("bad_solution", f"step {blank} is {brief(written.steps[blank])}, expected text in every step")
        self._seen[key] = row.where
        return Solution(
            id=key,
            where=row.where,
            steps=with_ends(written.steps, self._end),
            first_error=written.first_error,
            outcome=written.outcome,
            author=written.author,
        )

    def _problem(self, row: Row, written: Written) -> Problem:
        """The problem that a solution answers.

        Raises:
          Unfit: it has no gold answer, or another one than an earlier row.
        """
        lender = self._lent_by_id.get(written.problem_id) or lender_of(self._lent, written.question)
        if lender is not None:
            self._check_lent(written, lender)
            return lender
        domain = written.domain or self._domain
        key = asked(written.question, domain)
        problem = self._own.get(key)
        if problem is None:
            if not written.gold:
                raise Unfit(
                    "missing_answer",
                    "no gold answer, and none is lent by `problems` (problems=file problems.path=...)",
                )
            values = {"question": written.question, "answer": written.gold}
            problem = problem_of(
                Row(source=row.source, number=row.number, unit=row.unit, values=values),
                Tabular(domain=domain),
            )
            return self._own.setdefault(key, problem)
        check = quick(written.gold, problem.answer, problem.domain) if written.gold else None
        if check is not None and check.outcome == "incorrect":
            raise Unfit(
                "gold_contradicted",
                f"the gold answer is {brief(written.gold)}, and {brief(problem.answer)} in an earlier row that asks "
                "the same",
            )
        return problem

    def _check_lent(self, written: Written, lender: Problem) -> None:
        """Raises Unfit where a lent problem is another one than the solution is of."""
        if written.question and asked(written.question, lender.domain) != asked(lender.question, lender.domain):
            raise Unfit(
                "other_question",
                f"problem_id {brief(written.problem_id)} is that of another question, {brief(lender.question)}",
            )
        check = quick(written.gold, lender.answer, lender.domain, lender.metadata) if written.gold else None
        if check is not None and check.outcome == "incorrect":
            raise Unfit(
                "gold_contradicted",
                f"the gold answer is {brief(written.gold)}, and {brief(lender.answer)} in the problem that is lent",
            )

    def _reject(self, row: Row, key: str, problem_id: str, unfit: Unfit) -> None:
        self.unread.append(
            Rejection(
                stage="ReadProblems",
                key=key,
                problem_id=problem_id,
                reason=unfit.reason,
                detail=f"{row.where}: {unfit.detail}",
            )
        )

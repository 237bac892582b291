"""Problems that must not be worked on though they are problems: questions of test sets, and questions asked before."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from annotators.wording import near_duplicates
from pipelines.problems.base import ALIASES, ProblemError, Reason, Row
from pipelines.problems.files import ENDINGS
from pipelines.problems.formats import READERS, DataFile, Format, open_parquet
from pipelines.problems.questions import PROSE, Match, TestQuestions, asked
from schemas import Problem, Record, Rejection, digest

_HEAD_BYTES = 2**16


class ContaminationSettings(Record):
    """Whether problems are left out that the actor has memorised. Each is counted as a rejection of SiftProblems.

    Self-Critique of arXiv 2510.09259: the actor solves a problem greedily, then once more, shown its first way and
    asked to criticise it and take another. A memorised problem gives the same narrow path both times, which shows in
    how like the two sequences of token entropies are (`annotators.narrowness`).
    """

    threshold: float | None = None
    """Likeness, 0..1, from which on a problem counts as memorised; None asks for nothing and leaves nothing out. The
    source has no threshold, it ranks: take one from problems that the model cannot have seen. 0 leaves out every
    problem that has a likeness, and so writes each one's down."""
    max_tokens: int = 512
    """Of the first solution; twice as many of the second, as in the source, where it is 4096."""
    top_logprobs: int = 20
    """Likeliest tokens that an entropy is taken over: what servers give that nobody has told to give more. The source
    has 50."""
    template: str = "again"
    """Prompt for the second solution; gap `{sections}`: problem and first solution. Ours: it asks for a criticism, as
    the source describes the method; the source's own prompt asks for another way only."""

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must lie in 0..1 (null is off), got {self.threshold}")
        for name in ("max_tokens", "top_logprobs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


class HygieneSettings(Record):
    """Which problems are left out because of what they ask. Each is counted as a rejection of ReadProblems.

    Those of `contamination` are counted as rejections of SiftProblems.
    """

    test_sets: tuple[str, ...] = ()
    """Files (JSON Lines, JSON, CSV, Parquet) with test questions, or folders of them. A problem with a question of
    theirs is left out: `contaminated`."""
    test_column: str = ""
    """Their column with the question; empty takes the first that there is of question, problem, prompt, …"""
    run_words: int = 13
    """Words in a run, of which questions are compared by what they share; the 13 of GPT-3. A question with fewer words
    is compared as a whole only."""
    max_shared: float = 0.5
    """Share of the shorter question's runs at which a problem counts as a test set's. 0 is the strictest: one shared
    run is enough, also where it is a phrase or the head of a drawing. 1 asks for all of them."""
    duplicates: Literal["keep", "same", "near"] = "same"
    """Which of the problems that ask what an earlier one asked are left out: `near_duplicate`. `same`: up to case,
    punctuation and spaces, but to the letter in the domains `reasoning_gym` and `code`; else one question could be in
    both splits. `near`: also those that nearly repeat its words, numbers among them, not in these two domains."""
    max_likeness: float = 0.9
    """Jaccard index of the runs of three words at which `near` holds; one changed number in a question of up to 60
    words stays below 0.9."""
    contamination: ContaminationSettings = ContaminationSettings()
    """Which of those that are left the actor has memorised; off by default. Asks the actor."""

    def __post_init__(self) -> None:
        if self.run_words < 1:
            raise ValueError(f"run_words must be at least 1, got {self.run_words}")
        if not 0 <= self.max_shared <= 1:
            raise ValueError(f"max_shared must lie in 0..1, got {self.max_shared}")
        if not 0 < self.max_likeness <= 1:
            raise ValueError(f"max_likeness must lie above 0 and be at most 1, got {self.max_likeness}")


def without_unclean(items: Iterable[Problem | Rejection], settings: HygieneSettings) -> Iterator[Problem | Rejection]:
    """The same items in the same order; a problem that must not be worked on is the rejection that says why.

    A problem that is left out as a test set's is no earlier one for others.

    Raises:
      ProblemError: a test set cannot be read as a whole: what was not read could not be kept out.
    """
    tests = TestQuestions(_test_questions(settings), settings.run_words) if settings.test_sets else None
    clean = _without_tests(items, tests, settings)
    match settings.duplicates:
        case "keep":
            return clean
        case "same":
            return _without_same(clean)
        case "near":
            return _without_near(list(_without_same(clean)), settings.max_likeness)


def _without_tests(
    items: Iterable[Problem | Rejection], tests: TestQuestions | None, settings: HygieneSettings
) -> Iterator[Problem | Rejection]:
    for item in items:
        match = tests.find(item.question, settings.max_shared) if tests and isinstance(item, Problem) else None
        yield item if match is None or isinstance(item, Rejection) else _contaminated(item, match, settings)


def _contaminated(problem: Problem, match: Match, settings: HygieneSettings) -> Rejection:
    detail = f"asks what {match.where} asks"
    if not match.is_same:
        detail = f"shares {match.share:.0%} of its runs of {settings.run_words} words with {match.where}"
    return _rejection(problem, "contaminated", detail)


def _without_same(items: Iterable[Problem | Rejection]) -> Iterator[Problem | Rejection]:
    seen: dict[str, str] = {}
    for item in items:
        if isinstance(item, Rejection):
            yield item
            continue
        question = asked(item.question, item.domain)
        earlier = seen.setdefault(digest(question, _pictures(item)), item.id)
        yield item if earlier == item.id else _duplicate(item, earlier)


def _without_near(items: list[Problem | Rejection], max_likeness: float) -> Iterator[Problem | Rejection]:
    groups: dict[str, list[tuple[str, str]]] = {}
    for item in items:
        if isinstance(item, Problem) and item.domain in PROSE:
            groups.setdefault(_pictures(item), []).append((item.question, item.id))
    repeats: dict[str, str] = {}
    for group in groups.values():
        repeats |= near_duplicates(group, max_likeness)
    for item in items:
        if isinstance(item, Problem) and item.id in repeats:
            yield _duplicate(item, repeats[item.id])
        else:
            yield item


def _pictures(problem: Problem) -> str:
    """What is shown beside the question: the same words about another picture are another question."""
    return digest(*(image.bytes.hex() for image in problem.images)) if problem.images else ""


def _duplicate(problem: Problem, earlier: str) -> Rejection:
    return _rejection(problem, "near_duplicate", f"asks what problem {earlier} asks (hygiene.duplicates)")


def _rejection(problem: Problem, reason: Reason, detail: str) -> Rejection:
    return Rejection(
        stage="ReadProblems",
        key=problem.id,
        problem_id=problem.id,
        reason=reason,
        detail=f"{problem.source}: {detail}",
    )


def _test_questions(settings: HygieneSettings) -> Iterator[tuple[str, str]]:
    """Every question of the test sets, with its place."""
    for name in settings.test_sets:
        is_empty = True
        for file in _files(name):
            for question in _questions(file, settings.test_column):
                yield question
                is_empty = False
        if is_empty:
            raise ProblemError(f"hygiene.test_sets: '{name}' holds no row; name a file that holds the test set")


def _files(name: str) -> list[DataFile]:
    path = Path(name).expanduser().absolute()
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in ENDINGS and not p.name.startswith("."))
        return [
            DataFile(path=p, label=f"{path.name}/{p.relative_to(path).as_posix()}", format=_format(p)) for p in found
        ]
    if not path.is_file():
        raise ProblemError(f"hygiene.test_sets: no file or folder at '{path}'; correct hygiene.test_sets")
    return [DataFile(path=path, label=path.name, format=_format(path))]


def _format(path: Path) -> Format:
    kind = ENDINGS.get(path.suffix.lower())
    if kind is None:
        raise ProblemError(
            f"hygiene.test_sets: the ending of '{path}' does not tell its format, expected {', '.join(ENDINGS)}; "
            "rename the file"
        )
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError as error:
        raise ProblemError(f"hygiene.test_sets: '{path}' cannot be read ({error.strerror}); change that") from None
    # Many sets call JSON Lines .json.
    return "jsonl" if kind == "json" and head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" else kind


def _questions(file: DataFile, column: str) -> Iterator[tuple[str, str]]:
    try:
        names = open_parquet(file.path).schema_arrow.names if file.format == "parquet" else _names(file)
        column = column or next((name for name in ALIASES["question"] if name in names), "")
        # Without a column there is nothing to read, and the first row says so.
        for row in READERS[file.format](file, (column,) if column else tuple(names)):
            yield _question(row, column), row.where
    except _NoQuestion:
        raise
    except ProblemError as error:
        raise ProblemError(f"hygiene.test_sets: '{file.path}' cannot be read as a whole ({error})") from None


def _names(file: DataFile) -> list[str]:
    first = next(iter(READERS[file.format](file, ())), None)
    return list(first.values) if first else []


class _NoQuestion(ProblemError):
    """A row of a test set without a question."""


def _question(row: Row, column: str) -> str:
    question = row.values.get(column)
    if row.reason is None and isinstance(question, str) and question.strip():
        return question
    found = row.detail if row.reason else f"it has {', '.join(map(repr, row.values)) or 'no column'}"
    wanted = f"in {column!r}" if column else f"under any of {', '.join(ALIASES['question'])}"
    raise _NoQuestion(
        f"hygiene.test_sets: {row.where} has no question {wanted} ({found}); set hygiene.test_column, or take the row "
        "out: what cannot be read cannot be kept out of the training data"
    )

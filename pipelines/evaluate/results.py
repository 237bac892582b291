"""What an evaluation writes: a row for each solution, and one file with the figures."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import msgspec

from annotators.closed_loop import RoundFigures, figures_by_round
from annotators.evaluation import Figure, Judged, Summary, average, summarise
from mcts.answers import Check
from mcts.estimates import interval
from pipelines.evaluate.critics import Unread
from pipelines.evaluate.inputs import Labelled, Source
from schemas import Critique, Failure, Outcome, Provenance, Record, Verdict

LEVEL = 0.95
"""Of all intervals."""

Mode = Literal["single", "self", "cross", "iterative", "criticbench"]
"""`single`: one critique a solution, and second solutions written with it. `cross`: the same, told by round. `self`:
likewise, of solutions that the actor writes first. `iterative`: corrected solutions are criticised and corrected again.
`criticbench`: `single`, and the actor solves the problems by itself."""

IN_ROUNDS: tuple[Mode, ...] = ("self", "cross", "iterative")
"""Modes whose figures are also told by round."""


class EvaluatedSolution(Record):
    """One round of one solution: its label, what the critic said, and what became of it."""

    file: str
    """Name of the input."""
    id: str
    """The solution's in its input."""
    label: Verdict | None
    """Of a solution that the actor wrote its outcome; None where nobody knows."""
    first_error: int | None
    """By the label, from 0; None for a right solution, and where nobody says the place."""
    is_located: bool
    """Whether the label says where a wrong solution goes wrong."""
    first_outcome: Outcome
    """Of the solution's answer: what the input says, or else what the run's checker does."""
    critic: str
    state: Literal["read", "unread", "failed"]
    """`unread`: what the critic wrote is no critique, or it has nothing to go by. `failed`: some model could not be
    asked."""
    round: int = 1
    """From 1. Later rounds are about what the round before left."""
    solution: str = ""
    """What it is about, where the actor wrote that; empty where it stands in the input."""
    reason: str = ""
    """Why there is no critique; empty where there is one."""
    detail: str = ""
    verdict: Verdict | None = None
    first_wrong_step: int | None = None
    """The critic's, from 0; None where it says that no step is wrong, and where there is no critique."""
    critique: str = ""
    """As an actor is shown it."""
    parse_state: str = ""
    """`reasked` where only the second reply could be read."""
    has_gold: bool = False
    """Whether the gold answer is known."""
    leak: str = ""
    """The critique's words that give it away; empty where none do."""
    second_outcomes: tuple[Outcome, ...] = ()
    """Of second solutions; `unscored` for each that was to be written with a critique that is none."""
    second_answers: tuple[str, ...] = ()
    second_reasons: tuple[str, ...] = ()
    """Why each is unscored; empty for those that are not."""
    unrefined: str = ""
    """Why no second solution was to be written: `no_gold_answer`, or why nobody can say whether the first one's answer
    is right (`unscored` where no checker looked). Empty where they were, and where nobody wants any."""
    own_outcome: Outcome | None = None
    """Of the actor's own solution of the problem; None where it was asked for none, or stands with another solution of
    the same problem."""


class FileResult(Record):
    """The figures of one input."""

    name: str
    format: str
    digest: str
    """Of its bytes."""
    num_rows: int
    """Solutions that it holds."""
    num_evaluated: int
    """Those that were to be evaluated, failed ones included; with `self` the problems that were to be solved."""
    num_wrong: int
    """Of these, with the label `incorrect`."""
    num_gold: int
    """Of these, those whose gold answer is known."""
    num_failed: int
    """Of these, about which some model could not be asked: in no figure."""
    unread: dict[str, int]
    """Solutions without a critique that could be read, by reason."""
    second_unscored: dict[str, int]
    """Second solutions that nobody could score, by reason."""
    figures: dict[str, Figure]
    """By the names of `annotators.evaluation.FIGURES`; of the first round where there are several."""
    rounds: tuple[RoundFigures, ...] = ()
    """The same by round; none in modes that are not told so."""
    unrefined: dict[str, int] = msgspec.field(default_factory=dict)
    """Solutions of which no second one was to be written though they are wanted, by reason."""


class Evaluation(Record):
    """All that is known of a critic after an evaluation; `evaluation.json`."""

    version: str
    config_digest: str
    """Of the settings that shape it, the inputs, the prompts and the options."""
    mode: Mode
    critic: str
    view: str
    """What the critic was shown."""
    critic_model: Provenance | None
    """None for a critic that reads nothing."""
    actor_model: Provenance | None
    """Who wrote second solutions; None where nobody did."""
    seed: int
    split: str
    limit: int | None
    samples: int
    """Second solutions with each critique."""
    rounds: int
    """Of critique and correction, at most."""
    level: float
    """Of the intervals."""
    files: tuple[FileResult, ...]
    average: dict[str, Figure]
    """Every figure's mean over the files that have it."""

    @property
    def failure_share(self) -> float:
        """Failed solutions among all, 0..1."""
        total = sum(file.num_evaluated for file in self.files)
        return sum(file.num_failed for file in self.files) / total if total else 0.0


class Seconds(Record):
    """Second solutions of one critique."""

    outcomes: tuple[Outcome, ...] = ()
    answers: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    @classmethod
    def of(cls, checks: Sequence[Check]) -> "Seconds":
        """Those that were written."""
        return cls(
            outcomes=tuple(check.outcome for check in checks),
            answers=tuple(check.answer or "" for check in checks),
            reasons=tuple(check.reason or "" for check in checks),
        )

    @classmethod
    def unwritten(cls, number: int) -> "Seconds":
        """So many for which there is no critique: nobody knows what they would have come to."""
        unscored: Outcome = "unscored"
        return cls(outcomes=(unscored,) * number, answers=("",) * number, reasons=("no_critique",) * number)


def row_of(
    item: Labelled, file: str, critic: str, found: Critique | Unread | Failure, seconds: Seconds, *, leak: str = ""
) -> EvaluatedSolution:
    """The row of a solution's first round.

    Args:
      item: the solution.
      file: name of its input.
      critic: who was asked.
      found: what came of it.
      seconds: second solutions.
      leak: words of the critique that give the gold answer away.
    """
    critique = found if isinstance(found, Critique) else None
    state: Literal["read", "unread", "failed"] = "read" if critique else "unread"
    reason = detail = ""
    if isinstance(found, Failure):
        state, reason, detail = "failed", found.error, found.detail
    elif isinstance(found, Unread):
        reason, detail = found.reason, found.detail
    return EvaluatedSolution(
        file=file,
        id=item.id,
        label=item.label,
        first_error=item.first_error,
        is_located=item.is_located,
        first_outcome=item.first_outcome,
        critic=critic,
        state=state,
        reason=reason,
        detail=detail,
        verdict=critique.verdict if critique else None,
        first_wrong_step=critique.first_wrong_step if critique else None,
        critique=critique.text if critique else "",
        parse_state=critique.parse_state if critique else "",
        has_gold=item.has_gold,
        leak=leak,
        second_outcomes=seconds.outcomes,
        second_answers=seconds.answers,
        second_reasons=seconds.reasons,
    )


def judged(row: EvaluatedSolution) -> Judged:
    """A row as the figures see it."""
    return Judged(
        label=row.label,
        first_error=row.first_error,
        is_located=row.is_located,
        is_read=row.state == "read",
        named=row.first_wrong_step,
        first_outcome=row.first_outcome,
        second_outcomes=row.second_outcomes,
        has_gold=row.has_gold,
        gives_away=bool(row.leak),
        own_outcome=row.own_outcome,
    )


def result_of(
    source: Source, rows: Sequence[EvaluatedSolution], seed: Sequence[int], *, by_round: bool = False
) -> tuple[FileResult, Summary]:
    """The figures of one input, from its rows; and what their mean over inputs needs."""
    failed = {row.id for row in rows if row.state == "failed"}
    asked = [row for row in rows if row.id not in failed]
    firsts = [row for row in rows if row.round == 1]
    chains: dict[str, list[Judged]] = {}
    for row in sorted(asked, key=lambda row: row.round):
        chains.setdefault(row.id, []).append(judged(row))
    summary = summarise([chain[0] for chain in chains.values()], level=LEVEL, interval=interval, seed=seed)
    unread = Counter(row.reason for row in asked if row.state == "unread")
    unscored = Counter(reason for row in asked for reason in row.second_reasons if reason)
    unrefined = Counter(row.unrefined for row in asked if row.unrefined)
    result = FileResult(
        name=source.name,
        format=source.format,
        digest=source.digest,
        num_rows=source.num_rows,
        num_evaluated=len(firsts),
        num_wrong=sum(row.label == "incorrect" for row in firsts),
        num_gold=sum(row.has_gold for row in firsts),
        num_failed=len(failed),
        unread=dict(unread.most_common()),
        second_unscored=dict(unscored.most_common()),
        figures=summary.figures,
        rounds=figures_by_round(list(chains.values()), level=LEVEL, interval=interval, seed=seed) if by_round else (),
        unrefined=dict(unrefined.most_common()),
    )
    return result, summary


def average_of(summaries: Sequence[Summary]) -> dict[str, Figure]:
    """Every figure's mean over inputs."""
    return average(summaries, LEVEL)

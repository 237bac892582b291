"""Figures of dialogues: how many are right after each round, why rounds did not help, what combinations come to."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from annotators.dialogue import DIALOGUE_REJECTIONS, REASONS, why_unhelped
from schemas import Attempt, Dialogue, Estimate, Outcome, Problem, Record

FirstWrong = Callable[[Problem, Sequence[str]], int | None]
"""Index of the first wrong step of a solution where that is known, as in the simulated world; None where not."""


class RoundFigures(Record):
    """Where dialogues stand after a round; one that has ended stands where it ended."""

    round: int
    """0 is the first attempt."""
    estimate: Estimate
    """How many are right."""
    held: int
    """Dialogues that had this round."""
    gained: int
    """Wrong before, right now."""
    lost: int
    """Right before, wrong now."""
    why: dict[str, int]
    """Of those that were and stayed wrong in this round, why; see `annotators.dialogue.why_unhelped`."""


class CombinationFigures(Record):
    """Dialogues with one giver, and for code with one way of telling tests and one speaker."""

    name: str
    dialogues: int
    first: Estimate
    """First attempts that are right."""
    last: Estimate
    """Dialogues that are right in the end: ConvCodeWorld's recall (arXiv 2502.19852)."""
    mean_reciprocal_rank: float
    """Mean of 1 over the number, from 1, of the first right attempt, and of 0 where there was none; over scored
    dialogues, 0.0 where there is none. ConvCodeWorld's MRR."""
    masked: int
    """Pieces of feedback that words were taken out of."""
    rejected: int
    """Dialogues that were rejected; they are in no other figure here."""


def figures_by_round(dialogues: Iterable[Dialogue], first_wrong: FirstWrong | None = None) -> tuple[RoundFigures, ...]:
    """Where the dialogues stand after each round. Rejected ones are left out.

    Args:
      dialogues: of one run.
      first_wrong: tells the first wrong step of a solution where that is known: what feedback is compared with.
    """
    held = [dialogue for dialogue in dialogues if dialogue.ended not in DIALOGUE_REJECTIONS]
    num_rounds = max((len(dialogue.turns) for dialogue in held), default=0)
    return tuple(_round(held, i, first_wrong) for i in range(num_rounds))


def _round(held: Sequence[Dialogue], i: int, first_wrong: FirstWrong | None) -> RoundFigures:
    here = [dialogue for dialogue in held if len(dialogue.turns) > i]
    changes = Counter((dialogue.attempts[i - 1].outcome, dialogue.attempts[i].outcome) for dialogue in here if i)
    why = Counter(reason for dialogue in here if i and (reason := _why(dialogue, i, first_wrong)))
    return RoundFigures(
        round=i,
        estimate=Estimate.of([_standing(dialogue, i) for dialogue in held]),
        held=len(here),
        gained=changes["incorrect", "correct"],
        lost=changes["correct", "incorrect"],
        why={reason: why[reason] for reason in REASONS if why[reason]},
    )


def _standing(dialogue: Dialogue, i: int) -> Outcome:
    return dialogue.attempts[min(i, len(dialogue.turns) - 1)].outcome


def _why(dialogue: Dialogue, i: int, first_wrong: FirstWrong | None) -> str | None:
    turn = dialogue.turns[i - 1]
    known = first_wrong(dialogue.problem, turn.attempt.steps) if first_wrong else None
    return why_unhelped(turn, dialogue.attempts[i], known)


def name_of(dialogue: Dialogue) -> str:
    """What a dialogue's giver is called, with what is told of tests and whose words stand beside it."""
    if dialogue.giver != "execution":
        return dialogue.giver
    return f"tests {dialogue.execution}, words {dialogue.verbal}"


def figures_by_combination(dialogues: Iterable[Dialogue]) -> tuple[CombinationFigures, ...]:
    """What each combination comes to, in the order in which they first occur."""
    groups: dict[str, list[Dialogue]] = {}
    for dialogue in dialogues:
        groups.setdefault(name_of(dialogue), []).append(dialogue)
    return tuple(_combination(name, group) for name, group in groups.items())


def _combination(name: str, group: Sequence[Dialogue]) -> CombinationFigures:
    held = [dialogue for dialogue in group if dialogue.ended not in DIALOGUE_REJECTIONS]
    scored = [dialogue for dialogue in held if dialogue.attempts[-1].outcome != "unscored"]
    ranks = [_reciprocal_rank(dialogue.attempts) for dialogue in scored]
    return CombinationFigures(
        name=name,
        dialogues=len(held),
        first=Estimate.of([dialogue.attempts[0].outcome for dialogue in held]),
        last=Estimate.of([dialogue.attempts[-1].outcome for dialogue in held]),
        mean_reciprocal_rank=sum(ranks) / len(ranks) if ranks else 0.0,
        masked=sum(bool(turn.feedback and turn.feedback.masked) for dialogue in held for turn in dialogue.turns),
        rejected=len(group) - len(held),
    )


def _reciprocal_rank(attempts: Sequence[Attempt]) -> float:
    return next((1 / number for number, attempt in enumerate(attempts, 1) if attempt.outcome == "correct"), 0.0)

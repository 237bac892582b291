"""Rows of `rl` for critic and generator as opponents: the critic names a failure, and a check says whether it is there.

RLAC (arXiv 2511.01758): a critic names the one likeliest failure of an output, an outside check says whether the output
has it, and one of the two sides is rewarded. The check here is what is known of the path: its answer was checked (by
comparison or by tests), and its first wrong step was located by rollouts, put there, or labelled.
"""

from collections.abc import Iterator
from typing import Literal

import msgspec

from annotators.critic import number_steps
from annotators.exports import (
    Context,
    ExportSettings,
    Interval,
    criticised_turn,
    gives_answer_away,
    solution_text,
    solve_turn,
)
from annotators.path_rows import criticise_row
from annotators.units import ERROR_TYPES
from schemas import Examined, Message, Path, PathPair, RlRow, Verified, digest


def claim_is_true(item: Verified) -> bool:
    """Whether a critique names the failure that is there: the solution is wrong, and in this step first.

    How near is near enough is the test `wrong_location`, whether it decides about the critique or not. A critique that
    names no step claims nothing, but for one by a critic who was asked about one step alone (the view `partial`): that
    says that the step holds.
    """
    names_one = item.critique.first_wrong_step is not None
    if item.critique.view == "partial" and not item.has_error:
        return not names_one
    return names_one and item.has_error and "wrong_location" not in (*item.reasons, *item.ignored)


def claim_rows(examined: Examined, settings: ExportSettings, context: Context, interval: Interval) -> Iterator[RlRow]:
    """Two rows for each critique: the critic's claim and what it is about, each with what it earns.

    That is the solution (RLAC); where an error was put into it, the changed step, by whoever put it there (SPC, arXiv
    2504.19162). The critic alone where it was asked about one step and the solution is right: nobody put an error
    there. None for a critique that gives the answer away: its author may have been shown it.
    """
    path = examined.path
    for item in examined.verified if settings.rl == "claims" else ():
        if gives_answer_away(item):
            continue
        found = claim_is_true(item)
        row = criticise_row(path, settings, context, interval)
        yield msgspec.structs.replace(
            row,
            id=digest("rl", item.id, "criticise"),
            prompt=(criticised_turn(path, (item.critique,), context),),
            completion=(Message(role="assistant", content=item.critique.text),),
            reward=1.0 if found else settings.loss,
        )
        if item.has_error or item.critique.view != "partial":
            yield _other_side(row, path, item, context, settings.loss if found else 1.0)


def _other_side(row: RlRow, path: Path, item: Verified, context: Context, reward: float) -> RlRow:
    """What is claimed to be wrong, as a row of whoever wrote it."""
    spoilt = path if isinstance(path, PathPair) and path.original_step else None
    task: Literal["spoil", "solve"] = "spoil" if spoilt else "solve"
    return msgspec.structs.replace(
        row,
        id=digest("rl", item.id, task),
        task=task,
        prompt=(_spoil_turn(spoilt, context) if spoilt else solve_turn(path.problem, context),),
        first_error=None,
        posterior=(),
        answer="" if spoilt else path.problem.answer,
        reward_if_right=None,
        reward_if_wrong=None,
        completion=(
            Message(
                role="assistant",
                content=spoilt.steps[spoilt.first_error].strip() if spoilt else solution_text(path.steps),
            ),
        ),
        reward=reward,
    )


def _spoil_turn(pair: PathPair, context: Context) -> Message:
    """What whoever put the error in was asked."""
    values = {
        "problem": pair.problem.question,
        "before": number_steps(pair.steps[: pair.first_error]) or "none",
        "step": pair.original_step.strip(),
        "error": f"{pair.error_type}: {ERROR_TYPES[pair.error_type]}" if pair.error_type in ERROR_TYPES else "any",
    }
    return Message(role="user", content=context.spoil_instruction.fill(values))

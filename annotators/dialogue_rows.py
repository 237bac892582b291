"""Rows made of dialogues. None of a rejected one, and none from an attempt that nobody could score."""

from collections.abc import Iterator, Sequence

from annotators.critic import number_steps
from annotators.dialogue import DIALOGUE_REJECTIONS
from annotators.exports import Context, ExportSettings, origin_of, solution_text, solve_turn
from annotators.rewards import transition_reward
from annotators.rounds import RowKind
from annotators.wording import talks_of_reference
from schemas import (
    Attempt,
    Dialogue,
    DistillRow,
    Estimate,
    Feedback,
    Message,
    Provenance,
    Record,
    RefineChatRow,
    RefineRow,
    Turn,
    digest,
)


def dialogue_rows(
    dialogue: Dialogue, kinds: Sequence[RowKind], settings: ExportSettings, context: Context
) -> Iterator[Record]:
    """Rows of the kinds that are wanted.

    `refine_chat`: the conversation up to its last attempt, where that is right and not the first. `refine`: each
    attempt with its feedback and the next one, both scored. `distill`: problem and right attempt, where feedback led
    to it from a wrong one. `feedback`: attempt and feedback; none where a mask stands in it or it speaks of an answer
    that it was shown, for nobody should learn to write that.
    """
    if dialogue.ended in DIALOGUE_REJECTIONS:
        return
    last = len(dialogue.turns) - 1
    if "refine_chat" in kinds and last and dialogue.turns[last].attempt.outcome == "correct":
        yield _chat_row(dialogue, context)
    for i, (turn, following) in enumerate(zip(dialogue.turns, dialogue.attempts[1:], strict=False)):
        assert turn.feedback is not None, dialogue.id
        if "unscored" in (turn.attempt.outcome, following.outcome):
            continue
        if "refine" in kinds:
            yield _refine_row(dialogue, i, turn.feedback, following, settings, context)
        if "distill" in kinds and (turn.attempt.outcome, following.outcome) == ("incorrect", "correct"):
            yield _distill_row(dialogue, i, turn, following, context)
        if "feedback" in kinds and _can_be_learnt(turn.feedback):
            yield _feedback_row(dialogue, i, turn, following, context)


def _can_be_learnt(feedback: Feedback) -> bool:
    return feedback.provenance is not None and not feedback.masked and not talks_of_reference(feedback.text)


def _giver(feedback: Feedback | None) -> Provenance | None:
    return feedback.provenance if feedback else None


def _chat_row(dialogue: Dialogue, context: Context) -> RefineChatRow:
    turns = [solve_turn(dialogue.problem, context)]
    for turn in dialogue.turns:
        turns.append(_assistant(turn.attempt.text))
        if turn.feedback:
            content = context.refine_instruction.fill({"critique": turn.feedback.text})
            turns.append(Message(role="user", content=content))
    *prompt, completion = turns
    return RefineChatRow(
        id=digest("refine_chat", dialogue.id),
        prompt=tuple(prompt),
        completion=(completion,),
        messages=tuple(turns),
        first_outcome=dialogue.attempts[0].outcome,
        second_outcome=dialogue.attempts[-1].outcome,
        origin=origin_of(dialogue, context, _giver(dialogue.turns[-2].feedback)),
    )


def _refine_row(
    dialogue: Dialogue, i: int, feedback: Feedback, following: Attempt, settings: ExportSettings, context: Context
) -> RefineRow:
    """The one second solution that there is, as an estimate of one. Without feedback none was written."""
    first = dialogue.attempts[i]
    return RefineRow(
        id=digest("refine", dialogue.id, i),
        problem=dialogue.problem.question,
        first_answer=solution_text(first.steps),
        critique=feedback.text,
        second_answer=solution_text(following.steps),
        first_outcome=first.outcome,
        second_outcome=following.outcome,
        decision="kept",
        reasons=(),
        with_critique=Estimate.of([following.outcome]),
        without_critique=Estimate(),
        transition_reward=transition_reward(first.outcome, following.outcome, settings.transition_rewards),
        origin=origin_of(dialogue, context, _giver(feedback)),
    )


def _distill_row(dialogue: Dialogue, i: int, turn: Turn, following: Attempt, context: Context) -> DistillRow:
    prompt, completion = (solve_turn(dialogue.problem, context),), (_assistant(following.text),)
    return DistillRow(
        id=digest("distill", dialogue.id, i),
        prompt=prompt,
        completion=completion,
        messages=prompt + completion,
        task="solve",
        round=i + 1,
        outcome_before=turn.attempt.outcome,
        outcome_after=following.outcome,
        origin=origin_of(dialogue, context, _giver(turn.feedback)),
    )


def _feedback_row(dialogue: Dialogue, i: int, turn: Turn, following: Attempt, context: Context) -> DistillRow:
    assert turn.feedback is not None, dialogue.id
    values = {"problem": dialogue.problem.question, "solution": number_steps(turn.attempt.steps)}
    prompt = (Message(role="user", content=context.critique_instruction.fill(values)),)
    completion = (_assistant(turn.feedback.text),)
    return DistillRow(
        id=digest("feedback", dialogue.id, i),
        prompt=prompt,
        completion=completion,
        messages=prompt + completion,
        task="feedback",
        round=i,
        outcome_before=turn.attempt.outcome,
        outcome_after=following.outcome,
        origin=origin_of(dialogue, context, _giver(turn.feedback)),
    )


def _assistant(text: str) -> Message:
    return Message(role="assistant", content=text.strip())

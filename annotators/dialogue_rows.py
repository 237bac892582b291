"""Rows made of dialogues. None of a rejected one, and none from an attempt that nobody could score."""

from collections.abc import Iterator, Sequence
from typing import Literal

from annotators.dialogue import DIALOGUE_REJECTIONS, contradicts, talk_of_earlier, talk_of_feedback
from annotators.exports import (
    Context,
    ExportSettings,
    numbered_solution,
    origin_of,
    solution_text,
    solution_turn,
    solve_turn,
    with_section,
)
from annotators.masks import MASK
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
    Rejection,
    digest,
)


def dialogue_rows(
    dialogue: Dialogue, kinds: Sequence[RowKind], settings: ExportSettings, context: Context
) -> Iterator[Record]:
    """Rows of the kinds that are wanted.

    `refine_chat`: the conversation up to its last attempt, where that is right and not the first. `refine`: each
    attempt with its feedback and the next one, both scored. `distill`: problem and right attempt, where feedback led
    to it from a wrong one. `feedback`: attempt and what a giver wrote of it; `agreeing_feedback` the same, unless that
    contradicts the checker. A row of the last four whose completion speaks of what its prompt does not show is a
    `Rejection`: nobody should learn to write that.
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
            refined = _refine_row(dialogue, i, turn.feedback, following, settings, context)
            talk = talk_of_earlier(following.text, dialogue.problem) if i else ""
            yield _left_out(refined, "talks_of_feedback", talk) if talk else refined
        if "distill" in kinds and (turn.attempt.outcome, following.outcome) == ("incorrect", "correct"):
            asked = solve_turn(dialogue.problem, context)
            row = _distill_row("solve", dialogue, i, asked, following.text, context)
            talk = talk_of_feedback(following.text, dialogue.problem)
            yield _left_out(row, "talks_of_feedback", talk) if talk else row
        if {"feedback", "agreeing_feedback"}.intersection(kinds) and (words := turn.feedback.words):
            asked = _feedback_turn(dialogue, turn.attempt, turn.feedback, context)
            row = _distill_row("feedback", dialogue, i, asked, words, context)
            reason = _why_not_said(words, turn.attempt, must_agree="agreeing_feedback" in kinds)
            yield _left_out(row, reason) if reason else row


def _why_not_said(words: str, attempt: Attempt, *, must_agree: bool) -> str:
    """Why nobody should learn to say this of an attempt; empty where somebody may."""
    if MASK in words:
        return "masked"
    if talks_of_reference(words):
        return "talks_of_reference"
    return "wrong_verdict" if must_agree and contradicts(words, attempt) else ""


def _left_out(row: RefineRow | DistillRow, reason: str, detail: str = "") -> Rejection:
    problem_id = row.origin.problem_id
    return Rejection(stage="WriteShards", key=row.id, problem_id=problem_id, reason=reason, detail=detail)


def _giver(feedback: Feedback | None) -> Provenance | None:
    return feedback.provenance if feedback else None


def _chat_row(dialogue: Dialogue, context: Context) -> RefineChatRow:
    prompt = [solve_turn(dialogue.problem, context)]
    for turn in dialogue.turns:
        if turn.feedback:
            prompt.append(_assistant(numbered_solution(dialogue.problem, turn.attempt.steps)))
            content = context.refine_instruction.fill({"critique": turn.feedback.text})
            prompt.append(Message(role="user", content=content))
    completion = _assistant(dialogue.attempts[-1].text)
    return RefineChatRow(
        id=digest("refine_chat", dialogue.id),
        prompt=tuple(prompt),
        completion=(completion,),
        messages=(*prompt, completion),
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
        first_answer=numbered_solution(dialogue.problem, first.steps),
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


def _distill_row(
    task: Literal["solve", "feedback"], dialogue: Dialogue, i: int, asked: Message, answered: str, context: Context
) -> DistillRow:
    turn, following = dialogue.turns[i], dialogue.attempts[i + 1]
    prompt, completion = (asked,), (_assistant(answered),)
    return DistillRow(
        id=digest("distill" if task == "solve" else task, dialogue.id, i),
        prompt=prompt,
        completion=completion,
        messages=prompt + completion,
        task=task,
        round=i + (task == "solve"),
        outcome_before=turn.attempt.outcome,
        outcome_after=following.outcome,
        origin=origin_of(dialogue, context, _giver(turn.feedback)),
    )


def _feedback_turn(dialogue: Dialogue, attempt: Attempt, feedback: Feedback, context: Context) -> Message:
    """What a giver was shown that it is to say something of: the attempt, and what a run of it came to.

    It asks for no more than what such givers were asked for: only critics and teachers end with a verdict.
    """
    if dialogue.giver == "aspects":
        instruction = context.aspects_instruction
    elif dialogue.giver == "execution":
        instruction = context.words_instruction
    else:
        instruction = context.critique_instruction
    turn = solution_turn(dialogue.problem, attempt.steps, instruction)
    return with_section(turn, "Run", feedback.checked) if feedback.checked else turn


def _assistant(text: str) -> Message:
    return Message(role="assistant", content=text.strip())

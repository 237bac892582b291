"""Rows made of a path's critiques: what is imitated, what is preferred, and what came of refining."""

from collections.abc import Iterator

from annotators.exports import (
    Context,
    ExportSettings,
    criticised_turn,
    gives_answer_away,
    numbered_solution,
    path_origin,
    solve_turn,
)
from annotators.preferences import Preference, choose_pairs
from annotators.rewards import transition_reward
from annotators.verification import UNDECIDED
from schemas import (
    CritiqueDpoRow,
    Examined,
    Message,
    Outcome,
    Record,
    RefineChatRow,
    RefineRow,
    SftRow,
    Verified,
    digest,
)


def critique_rows(examined: Examined, settings: ExportSettings, context: Context) -> Iterator[Record]:
    """Rows made of a path's critiques.

    `sft` for each kept one, with its second solution as turns in `refine_chat` if that is wanted, and for those that
    failed a test where both are to be marked; `refine` for each whose help was measured; `critique_dpo` for each pair
    of `annotators.preferences`.
    """
    for item in examined.verified:
        is_marked = settings.feedback == "both_marked" and bool(failed_tests(item)) and not gives_answer_away(item)
        if item.decision == "kept" or is_marked:
            yield _sft_row(examined, item, settings, context)
        if item.decision == "kept" and item.refinement and settings.refine_turns:
            yield _refine_chat_row(examined, item, context)
        yield from _refine_rows(examined, item, settings, context)
    pairs = choose_pairs(
        examined, settings.prefer, min_margin=settings.min_margin, max_length_ratio=settings.max_length_ratio
    )
    for pair in pairs:
        yield _critique_dpo_row(examined, pair, context)


def _sft_row(examined: Examined, item: Verified, settings: ExportSettings, context: Context) -> SftRow:
    turn = criticised_turn(examined.path, (item.critique,), context)
    if settings.feedback == "both_marked":
        mark = context.mark_instruction.fill({"feedback": mark_of(item)})
        turn = Message(role="user", content=f"{turn.content.rstrip()}\n\n{mark.strip()}")
    completion = Message(role="assistant", content=item.critique.text)
    return SftRow(
        id=digest("sft", item.id),
        prompt=(turn,),
        completion=(completion,),
        messages=(turn, completion),
        label="incorrect" if item.has_error else "correct",
        first_error=item.first_error,
        view=item.critique.view,
        with_critique=item.with_critique,
        with_placebo=item.with_placebo,
        without_critique=item.without_critique,
        decision=item.decision,
        reasons=item.reasons,
        origin=path_origin(examined.path, context, critique=item.critique, panel=examined.panel),
    )


def failed_tests(item: Verified) -> tuple[str, ...]:
    """Names of the tests that a critique failed; what nobody could decide is no failure."""
    return tuple(reason for reason in item.reasons if reason not in UNDECIDED)


def mark_of(item: Verified) -> str:
    """What became of a critique, in words: that it passed all tests, or which ones it failed."""
    if item.decision == "kept":
        return "it passed every test"
    return "it failed these tests: " + ", ".join(name.replace("_", " ") for name in failed_tests(item))


def _refine_rows(examined: Examined, item: Verified, settings: ExportSettings, context: Context) -> Iterator[RefineRow]:
    """At most one row for each outcome of second solutions with a critique; none where it gives the answer away."""
    if gives_answer_away(item):
        return
    seconds: tuple[tuple[str, Outcome], ...] = (("refinement", "correct"), ("wrong_refinement", "incorrect"))
    for name, outcome in seconds:
        if getattr(item, name):
            yield _refine_row(examined, item, settings, context, getattr(item, name), outcome)


def _refine_row(
    examined: Examined, item: Verified, settings: ExportSettings, context: Context, second: str, outcome: Outcome
) -> RefineRow:
    assert item.with_critique, item.id
    first: Outcome = "incorrect" if item.has_error else "correct"
    return RefineRow(
        id=digest("refine", item.id, outcome),
        problem=examined.path.problem.question,
        first_answer=numbered_solution(examined.path.problem, examined.path.steps),
        critique=item.critique.text,
        second_answer=second.strip(),
        first_outcome=first,
        second_outcome=outcome,
        decision=item.decision,
        reasons=item.reasons,
        with_critique=item.with_critique,
        without_critique=item.without_critique,
        transition_reward=transition_reward(first, outcome, settings.transition_rewards),
        origin=path_origin(examined.path, context, critique=item.critique, panel=examined.panel),
    )


def _refine_chat_row(examined: Examined, item: Verified, context: Context) -> RefineChatRow:
    path = examined.path
    prompt = (
        solve_turn(path.problem, context),
        Message(role="assistant", content=numbered_solution(path.problem, path.steps)),
        Message(role="user", content=context.refine_instruction.fill({"critique": item.critique.text})),
    )
    completion = (Message(role="assistant", content=item.refinement.strip()),)
    return RefineChatRow(
        id=digest("refine_chat", item.id),
        prompt=prompt,
        completion=completion,
        messages=prompt + completion,
        first_outcome="incorrect" if item.has_error else "correct",
        second_outcome="correct",
        origin=path_origin(path, context, critique=item.critique, panel=examined.panel),
    )


def _critique_dpo_row(examined: Examined, pair: Preference, context: Context) -> CritiqueDpoRow:
    chosen, rejected = pair.chosen, pair.rejected
    better = Message(role="assistant", content=chosen.critique.text)
    worse = Message(role="assistant", content=rejected.critique.text)
    return CritiqueDpoRow(
        id=digest("critique_dpo", chosen.id, rejected.id),
        prompt=(criticised_turn(examined.path, (chosen.critique, rejected.critique), context),),
        chosen=(better,),
        rejected=(worse,),
        chosen_message=better,
        rejected_message=worse,
        chosen_estimate=chosen.with_critique,
        rejected_estimate=rejected.with_critique,
        margin=pair.margin,
        rejected_reasons=rejected.reasons,
        origin=path_origin(examined.path, context, critique=chosen.critique, panel=examined.panel),
    )

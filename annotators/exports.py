"""Rows for trainers, built from paths and verified critiques. Pure: says what a row is, not where it is written."""

from collections.abc import Iterator, Sequence

from annotators.critic import number_steps
from schemas import (
    Branch,
    Critique,
    CritiqueDpoRow,
    Estimate,
    Examined,
    Message,
    Origin,
    Outcome,
    Panel,
    Path,
    PathPair,
    PrmRow,
    Record,
    RefineChatRow,
    RefineRow,
    RlRow,
    SftRow,
    StepDpoRow,
    Template,
    Verified,
    digest,
)


class ExportSettings(Record):
    """Which rows are made, and what they may look like."""

    max_length_ratio: float = 2.0
    """Longest over shortest text of a critique pair at most: a pair must not teach length."""
    min_margin: float = 0.25
    """Least difference of the rates of right second solutions within a critique pair."""
    validation_share: float = 0.1
    """Share of the problems whose rows go to the validation split."""
    correct_per_incorrect: float | None = None
    """Most `sft` rows that say rightly that no step is wrong, for each one that finds an error; in every split of a
    shard. None keeps all."""
    refine_turns: bool = False
    """Whether `refine_chat` is written: attempt, critique and second attempt as turns of one conversation."""

    def __post_init__(self) -> None:
        if not 0 <= self.validation_share < 1:
            raise ValueError(f"validation_share must lie in 0..1, got {self.validation_share}")
        if self.correct_per_incorrect is not None and self.correct_per_incorrect < 0:
            raise ValueError(f"correct_per_incorrect must not be below 0, got {self.correct_per_incorrect}")
        if self.max_length_ratio < 1:
            raise ValueError(f"max_length_ratio must be at least 1, got {self.max_length_ratio}")


EXPORT_REJECTIONS = ("balance",)
"""Why a verified critique becomes no `sft` row."""


class Context(Record):
    """What all rows of a run have in common."""

    config_digest: str
    version: str
    critique_instruction: Template
    """User turn of rows that teach to criticise; gaps `{problem}` and `{solution}`."""
    solve_instruction: Template
    """User turn of rows that teach to solve; gap `{problem}`."""
    refine_instruction: Template
    """User turn that asks for a second solution in the conversation that the first was written in; gap `{critique}`."""


def _origin(
    path: Path,
    context: Context,
    *,
    node_ids: tuple[int, ...] = (),
    critique: Critique | None = None,
    panel: Panel | None = None,
) -> Origin:
    return Origin(
        problem_id=path.problem.id,
        tree_id=path.tree_id,
        node_ids=node_ids or path.node_ids,
        actor=path.provenance,
        critic=critique.provenance if critique else None,
        votes=panel.votes if panel else (),
        root_estimate=path.root_estimate,
        config_digest=context.config_digest,
        version=context.version,
    )


def _solution(steps: Sequence[str]) -> str:
    return "".join(steps).strip()


def path_rows(path: Path, context: Context) -> Iterator[Record]:
    """Rows that need no critique: `rl` and `prm` for every path, `step_dpo` for pairs."""
    yield _rl_row(path, context)
    if isinstance(path, PathPair):
        yield step_dpo_row(path, context)
        yield _prm_row(path, path.wrong, context)
        yield _prm_row(path, path.right, context)
    else:
        yield _prm_row(path, path.path, context)


def _rl_row(path: Path, context: Context) -> RlRow:
    return RlRow(
        id=digest("rl", path.id),
        prompt=_critique_turns(path, context),
        problem=path.problem.question,
        solution=_solution(path.steps),
        label="incorrect" if path.has_error else "correct",
        first_error=path.first_error if isinstance(path, PathPair) else None,
        posterior=path.posterior if isinstance(path, PathPair) else (),
        origin=_origin(path, context),
    )


def step_dpo_row(pair: PathPair, context: Context) -> StepDpoRow:
    """The right solution against the wrong one; both begin with `prefix`."""
    chosen = Message(role="assistant", content="".join(pair.right_steps))
    rejected = Message(role="assistant", content="".join(pair.steps))
    return StepDpoRow(
        id=digest("step_dpo", pair.id),
        prompt=(_solve_turn(pair, context),),
        chosen=(chosen,),
        rejected=(rejected,),
        chosen_message=chosen,
        rejected_message=rejected,
        prefix="".join(pair.prefix),
        chosen_estimate=pair.right_estimate,
        rejected_estimate=pair.wrong_estimate,
        p_value=pair.p_value,
        divergence=pair.divergence,
        first_error=pair.first_error,
        origin=_origin(pair, context),
    )


def _prm_row(path: Path, branch: Branch, context: Context) -> PrmRow:
    """The whole solution that ends in `branch`. Estimates of the shared steps are in the tree and stay there."""
    wrong = path if isinstance(path, PathPair) and branch == path.wrong else None
    prefix, nodes = (path.prefix, path.prefix_nodes) if isinstance(path, PathPair) else ((), ())
    steps = prefix + branch.steps
    return PrmRow(
        id=digest("prm", path.id, steps),
        prompt=path.problem.question,
        completions=tuple(step.strip() for step in steps),
        labels=tuple(wrong is None or i < wrong.first_error for i in range(len(steps))),
        estimates=(Estimate(),) * len(prefix) + branch.estimates,
        posterior=wrong.posterior if wrong else (),
        origin=_origin(path, context, node_ids=nodes + branch.nodes),
    )


def critique_rows(examined: Examined, settings: ExportSettings, context: Context) -> Iterator[Record]:
    """Rows made of a path's critiques.

    `sft` for each kept one, with its second solution as turns in `refine_chat` if that is wanted; `refine` for each
    whose help was measured; at most one `critique_dpo`.
    """
    kept = [item for item in examined.verified if item.decision == "kept"]
    for item in kept:
        yield _sft_row(examined, item, context)
        if item.refinement and settings.refine_turns:
            yield _refine_chat_row(examined, item, context)
    for item in examined.verified:
        yield from _refine_rows(examined, item, context)
    for chosen in kept[:1]:
        for rejected in examined.verified:
            if _is_pair(chosen, rejected, settings):
                yield _critique_dpo_row(examined, chosen, rejected, context)
                return


def surplus(rows: Sequence[SftRow], settings: ExportSettings) -> frozenset[str]:
    """Ids of the rows that a table of verified critiques does without, so that its labels are balanced.

    Which rows about right solutions stay depends on their ids alone, never on their order.
    """
    if settings.correct_per_incorrect is None:
        return frozenset()
    right = sorted((row.id for row in rows if row.label == "correct"), key=lambda row_id: digest("balance", row_id))
    most = int(settings.correct_per_incorrect * (len(rows) - len(right)))
    return frozenset(right[most:])


def _critique_turns(path: Path, context: Context) -> tuple[Message, ...]:
    """Problem and solution, whose steps bear the numbers that critiques speak of."""
    values = {"problem": path.problem.question, "solution": number_steps(path.steps)}
    return (Message(role="user", content=context.critique_instruction.fill(values)),)


def _solve_turn(path: Path, context: Context) -> Message:
    return Message(role="user", content=context.solve_instruction.fill({"problem": path.problem.question}))


def _sft_row(examined: Examined, item: Verified, context: Context) -> SftRow:
    assert item.with_critique, item.id
    assert item.with_placebo, item.id
    assert item.without_critique, item.id
    prompt = _critique_turns(examined.path, context)
    completion = (Message(role="assistant", content=item.critique.text),)
    return SftRow(
        id=digest("sft", item.id),
        prompt=prompt,
        completion=completion,
        messages=prompt + completion,
        label="incorrect" if item.has_error else "correct",
        first_error=item.first_error,
        view=item.critique.view,
        with_critique=item.with_critique,
        with_placebo=item.with_placebo,
        without_critique=item.without_critique,
        origin=_origin(examined.path, context, critique=item.critique, panel=examined.panel),
    )


def _refine_rows(examined: Examined, item: Verified, context: Context) -> Iterator[RefineRow]:
    """At most one row for each outcome of second solutions with a critique; none where it gives the answer away."""
    if "leaks_answer" in item.reasons:
        return
    if item.refinement:
        yield _refine_row(examined, item, context, item.refinement, "correct")
    if item.wrong_refinement:
        yield _refine_row(examined, item, context, item.wrong_refinement, "incorrect")


def _refine_row(examined: Examined, item: Verified, context: Context, second: str, outcome: Outcome) -> RefineRow:
    assert item.with_critique, item.id
    assert item.without_critique, item.id
    return RefineRow(
        id=digest("refine", item.id, outcome),
        problem=examined.path.problem.question,
        first_answer=_solution(examined.path.steps),
        critique=item.critique.text,
        second_answer=second.strip(),
        first_outcome="incorrect" if item.has_error else "correct",
        second_outcome=outcome,
        decision=item.decision,
        reasons=item.reasons,
        with_critique=item.with_critique,
        without_critique=item.without_critique,
        origin=_origin(examined.path, context, critique=item.critique, panel=examined.panel),
    )


def _refine_chat_row(examined: Examined, item: Verified, context: Context) -> RefineChatRow:
    path = examined.path
    prompt = (
        _solve_turn(path, context),
        Message(role="assistant", content=_solution(path.steps)),
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
        origin=_origin(path, context, critique=item.critique, panel=examined.panel),
    )


def _is_pair(chosen: Verified, rejected: Verified, settings: ExportSettings) -> bool:
    """Both measured, the failed one clearly less useful, neither much longer than the other."""
    margin = _margin(chosen, rejected)
    if rejected.decision == "kept" or margin is None or margin < settings.min_margin:
        return False
    lengths = sorted((len(chosen.critique.text), len(rejected.critique.text)))
    return lengths[1] <= settings.max_length_ratio * lengths[0]


def _margin(chosen: Verified, rejected: Verified) -> float | None:
    """By how much more often second solutions come out right with the one than with the other; None if unmeasured."""
    better = chosen.with_critique.rate if chosen.with_critique else None
    worse = rejected.with_critique.rate if rejected.with_critique else None
    return None if better is None or worse is None else better - worse


def _critique_dpo_row(examined: Examined, chosen: Verified, rejected: Verified, context: Context) -> CritiqueDpoRow:
    assert chosen.with_critique, chosen.id
    assert rejected.with_critique, rejected.id
    better = Message(role="assistant", content=chosen.critique.text)
    worse = Message(role="assistant", content=rejected.critique.text)
    return CritiqueDpoRow(
        id=digest("critique_dpo", chosen.id, rejected.id),
        prompt=_critique_turns(examined.path, context),
        chosen=(better,),
        rejected=(worse,),
        chosen_message=better,
        rejected_message=worse,
        chosen_estimate=chosen.with_critique,
        rejected_estimate=rejected.with_critique,
        margin=_margin(chosen, rejected) or 0.0,
        rejected_reasons=rejected.reasons,
        origin=_origin(examined.path, context, critique=chosen.critique, panel=examined.panel),
    )

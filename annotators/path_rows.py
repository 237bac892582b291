"""Rows that need no critique: solutions to criticise or to learn from, preferred branches, step labels."""

from collections.abc import Iterator
from typing import Any

from annotators.exports import (
    Context,
    ExportSettings,
    Interval,
    critique_turn,
    gives_answer_away,
    path_origin,
    solution_text,
    solve_turn,
    tree_origin,
)
from annotators.rewards import transition_reward
from schemas import (
    Branch,
    Difficulty,
    Estimate,
    Examined,
    Message,
    Path,
    PathPair,
    PrmRow,
    Record,
    RlRow,
    StepDpoRow,
    Tree,
    Verdict,
    digest,
)


def path_rows(path: Path, settings: ExportSettings, context: Context, interval: Interval) -> Iterator[Record]:
    """Rows of a path: `rl`, `prm`, and for pairs `step_dpo`."""
    if settings.rl == "paths":
        yield criticise_row(path, settings, context, interval)
    if isinstance(path, PathPair):
        yield step_dpo_row(path, context)
        yield _prm_row(path, path.wrong, context)
        yield _prm_row(path, path.right, context)
    else:
        yield _prm_row(path, path.path, context)


def tree_rows(tree: Tree, settings: ExportSettings, context: Context, interval: Interval) -> Iterator[RlRow]:
    """Rows of `rl` that need no path: solutions with their outcomes, or the bare problem."""
    low, high = interval(tree.nodes[0].direct, settings.level)
    if settings.rl == "rollouts" and low > 0 and high < 1:
        for leaf in tree.terminals():
            if tree.nodes[leaf].outcome in ("correct", "incorrect"):
                yield _solve_row(tree, leaf, settings, context, interval)
    elif settings.rl == "problem_pairs" or (settings.rl == "paths" and settings.plain_share):
        yield _solve_row(tree, None, settings, context, interval)


class Rates(Record):
    """How often second solutions of a path come out right; joins the path's row of `rl`."""

    row_id: str
    """Of that row."""
    with_critique: Estimate
    without_critique: Estimate | None


def refinement_rates(examined: Examined, settings: ExportSettings) -> Iterator[Rates]:
    """At most one: none where the path has no row, or where no critique of it was measured.

    Critiques share the second solutions without any, of which the longest-measured one has seen the most.
    """
    measured = [item for item in examined.verified if item.with_critique and not gives_answer_away(item)]
    if measured and settings.rl == "paths":
        without = [item.without_critique for item in measured if item.without_critique]
        yield Rates(
            row_id=_criticise_id(examined.path),
            with_critique=sum((item.with_critique for item in measured if item.with_critique), Estimate()),
            without_critique=max(without, key=lambda one: one.scored + one.unscored, default=None),
        )


def difficulty(low: float, high: float, rate: float) -> Difficulty:
    """What the interval of a problem's success rate says of it, against the rate that parts hard from easy.

    An interval that reaches 0 or 1 is of a problem that may be hopeless, or mastered.

    >>> difficulty(0.02, 0.4, 0.5), difficulty(0.6, 0.98, 0.5), difficulty(0.4, 0.6, 0.5), difficulty(0.0, 0.2, 0.5)
    ('hard_but_solvable', 'easy_but_brittle', 'neither', 'neither')
    """
    if low > 0 and high < rate:
        return "hard_but_solvable"
    return "easy_but_brittle" if rate < low and high < 1 else "neither"


def _criticise_id(path: Path) -> str:
    return digest("rl", path.id)


def criticise_row(path: Path, settings: ExportSettings, context: Context, interval: Interval) -> RlRow:
    """A path to be criticised, with what is known of it."""
    label: Verdict = "incorrect" if path.has_error else "correct"
    return RlRow(
        id=_criticise_id(path),
        prompt=(critique_turn(path.problem, path.steps, context),),
        problem=path.problem.question,
        solution=solution_text(path.steps),
        label=label,
        first_error=path.first_error if isinstance(path, PathPair) else None,
        posterior=path.posterior if isinstance(path, PathPair) else (),
        suggestion=path.problem.answer if settings.suggestions and path.has_error else "",
        reward_if_right=transition_reward(label, "correct", settings.transition_rewards),
        reward_if_wrong=transition_reward(label, "incorrect", settings.transition_rewards),
        origin=path_origin(path, context),
        **_success(path.root_estimate, settings, interval),
    )


def _solve_row(tree: Tree, leaf: int | None, settings: ExportSettings, context: Context, interval: Interval) -> RlRow:
    """A problem to solve: bare, or with the solution that ends in `leaf`."""
    outcome = None if leaf is None else tree.nodes[leaf].outcome
    assert outcome != "unscored", tree.id
    return RlRow(
        id=digest("rl", tree.id, "solve", leaf),
        prompt=(solve_turn(tree.problem, context),),
        problem=tree.problem.question,
        solution="" if leaf is None else solution_text(tree.steps(leaf)),
        label=outcome,
        first_error=None,
        posterior=(),
        task="solve",
        answer=tree.problem.answer,
        origin=tree_origin(tree, context, node_ids=() if leaf is None else tree.path(leaf)),
        **_success(tree.nodes[0].direct, settings, interval),
    )


def _success(root: Estimate, settings: ExportSettings, interval: Interval) -> dict[str, Any]:
    """The columns that tell how hard a problem is."""
    low, high = interval(root, settings.level)
    return {
        "success_rate": root.rate,
        "success_low": low,
        "success_high": high,
        "difficulty": difficulty(low, high, settings.difficulty_rate),
    }


def step_dpo_row(pair: PathPair, context: Context) -> StepDpoRow:
    """The right solution against the wrong one; both begin with `prefix`."""
    chosen = Message(role="assistant", content="".join(pair.right_steps))
    rejected = Message(role="assistant", content="".join(pair.steps))
    return StepDpoRow(
        id=digest("step_dpo", pair.id),
        prompt=(solve_turn(pair.problem, context),),
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
        origin=path_origin(pair, context),
    )


def _prm_row(path: Path, branch: Branch, context: Context) -> PrmRow:
    """The whole solution that ends in `branch`."""
    wrong = path if isinstance(path, PathPair) and branch == path.wrong else None
    prefix, nodes, estimates = (
        (path.prefix, path.prefix_nodes, path.prefix_estimates) if isinstance(path, PathPair) else ((), (), ())
    )
    steps = prefix + branch.steps
    return PrmRow(
        id=digest("prm", path.id, steps),
        prompt=path.problem.question,
        completions=tuple(step.strip() for step in steps),
        labels=tuple(wrong is None or i < wrong.first_error for i in range(len(steps))),
        estimates=estimates + branch.estimates,
        posterior=wrong.posterior if wrong else (),
        origin=path_origin(path, context, node_ids=nodes + branch.nodes),
    )

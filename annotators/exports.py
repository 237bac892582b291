"""What rows for trainers have in common: settings, the turns that they are made of, and where a row comes from.

The rows themselves are made in `path_rows`, `critique_rows` and `judge_rows`; what needs a whole shard's rows is
decided in `shard_rows`. Pure: says what a row is, not where it is written.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

from annotators.critic import checker_message, layout, number_steps, shown_steps
from annotators.preferences import PreferSettings
from annotators.rewards import TransitionRewards
from schemas import (
    Critique,
    Dialogue,
    Estimate,
    JudgeKind,
    Message,
    Origin,
    Panel,
    Path,
    Problem,
    Provenance,
    Record,
    Scoped,
    Template,
    Tree,
    Verified,
)

Interval = Callable[[Estimate, float], tuple[float, float]]
"""Interval of a success rate, (low, high) within 0..1, at a level: `mcts.estimates.interval`."""


class ExportSettings(Record):
    """Which rows are made, and what they may look like."""

    max_length_ratio: float = 2.0
    """Longest over shortest text of a critique pair at most: a pair must not teach length."""
    min_margin: float = 0.25
    """Least difference of the scores within a critique pair; `prefer.by` says of which."""
    prefer: PreferSettings = PreferSettings()
    """Which critiques of a path are preferred to which in `critique_dpo`."""
    validation_share: float = 0.1
    """Share of the problems whose rows go to the validation split."""
    correct_per_incorrect: float | None = None
    """Most rows about right solutions for each one about a wrong solution, in every split of a shard: of the verified
    critiques in `sft`, and of the solutions in `rl` that bear a label, with `rl` `paths` or `rollouts`. None keeps
    all."""
    incorrect_per_correct: float | None = None
    """The reverse: most rows about wrong solutions for each one about a right solution."""
    refine_turns: bool = False
    """Whether `refine_chat` is written: attempt, critique and second attempt as turns of one conversation."""
    feedback: Literal["kept", "both_marked"] = "kept"
    """`kept` writes verified critiques to `sft`; `both_marked` also the rejected ones, but for those that give the
    answer away, and says in each prompt whether the critique to come holds, and if not what it fails (FAFT, arXiv
    2408.06318)."""
    rl: Literal["paths", "rollouts", "problem_pairs", "claims"] = "paths"
    """What the rows of `rl` are. `paths`: every path to be criticised. `rollouts`: every solution in a tree with its
    outcome, of problems whose success rate lies strictly between 0 and 1 by its interval (NFT, arXiv 2505.18116).
    `problem_pairs`: bare problems, a hard but solvable one and an easy but brittle one at a time (arXiv 2602.03452),
    matched within a split of a shard; what finds no partner there has no row. `claims`: of every critique what it
    claims and the solution it is about, one of which is rewarded (RLAC, arXiv 2511.01758; `annotators.claim_rows`)."""
    loss: float = 0.0
    """What the side that is not rewarded earns with `rl=claims`; the other one earns 1."""
    plain_share: float = 0.0
    """Share of bare problems, to be solved, among the rows of `rl`; in every split of a shard, as far as there are
    problems. Critique-Coder (arXiv 2509.22824) replaces a fifth of its problems by critique rows: 0.8."""
    level: float = 0.9
    """Level of the intervals of success rates in `rl`."""
    difficulty_rate: float = 0.5
    """Success rate that parts hard problems from easy ones; an interval that holds it is neither."""
    transition_rewards: TransitionRewards = TransitionRewards()
    """What second solutions earn, for the columns of `rl` and `refine`."""
    suggestions: bool = False
    """Whether rows of `rl` about wrong solutions have the gold answer as `suggestion`, what a critique is rewarded for
    suggesting: for problems whose answer is one action (GUI-Critic-R1, arXiv 2506.04614)."""
    judge: tuple[JudgeKind, ...] = ()
    """Kinds of judgements in the table `judge`: `pointwise`, `pairwise`, `reflected`."""
    judge_per_problem: int = 8
    """Rows of each kind that a problem has at most, as many with the one label as with the other. Of `reflected` ones
    the labels are balanced over a split of a shard."""

    def __post_init__(self) -> None:
        for name in ("validation_share", "plain_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in 0..1, got {getattr(self, name)}")
        for name in ("level", "difficulty_rate"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        if self.max_length_ratio < 1:
            raise ValueError(f"max_length_ratio must be at least 1, got {self.max_length_ratio}")
        self._check_balance()
        of_paths = [name for name in ("plain_share", "suggestions") if getattr(self, name)]
        if of_paths and self.rl != "paths":
            name = of_paths[0]
            raise ValueError(
                f"{name}={getattr(self, name)} is for rows about paths to criticise, got rl={self.rl}; give rl=paths "
                "or leave it out"
            )
        if len(set(self.judge)) < len(self.judge):
            raise ValueError(f"judge names a kind twice, got {', '.join(self.judge)}")
        if self.judge_per_problem < 2 or self.judge_per_problem % 2:
            raise ValueError(
                f"judge_per_problem must be an even number of at least 2, one row for each label, "
                f"got {self.judge_per_problem}"
            )

    def _check_balance(self) -> None:
        bounds = {name: getattr(self, name) for name in ("correct_per_incorrect", "incorrect_per_correct")}
        given = {name: most for name, most in bounds.items() if most is not None}
        for name, most in given.items():
            if not 0 <= most < math.inf:
                raise ValueError(f"{name} must be a number of at least 0, got {most}")
        if len(given) == 2 and math.prod(given.values()) < 1:
            raise ValueError(
                f"{' times '.join(given)} must be at least 1, or only a table without rows can satisfy both; got "
                f"{' and '.join(map(str, given.values()))}; give one of them alone, or larger ones"
            )


EXPORT_REJECTIONS = ("balance",)
"""Why a verified critique becomes no `sft` row."""

EXPORT_ROW_REJECTIONS = ("rl_balance", "repeated_path")
"""Why a row of another table is left out. Such a row is of no verified critique, and counts beside them."""


class Context(Record):
    """What all rows of a run have in common."""

    config_digest: str
    version: str
    critique_instruction: Template
    """User turn of rows that teach to criticise; gaps `{problem}` and `{solution}`."""
    aspects_instruction: Template
    """The same for feedback by aspects; gaps `{problem}` and `{solution}`."""
    words_instruction: Template
    """The same for feedback on a program in plain words; gaps `{problem}` and `{solution}`."""
    solve_instruction: Template
    """User turn of rows that teach to solve; gap `{problem}`."""
    refine_instruction: Template
    """User turn that asks for a second solution in the conversation that the first was written in; gap `{critique}`."""
    spoil_instruction: Template
    """User turn that asks for an error in a right step; gaps `{problem}`, `{before}`, `{step}` and `{error}`."""
    mark_instruction: Template
    """What a user turn ends with that says what became of the critique to come; gap `{feedback}`."""
    judge_instruction: Template
    """User turn that asks whether a solution is right; gaps `{problem}` and `{solution}`."""
    judge_pair_instruction: Template
    """User turn that asks which of two solutions is better; gaps `{problem}`, `{first}` and `{second}`."""
    judge_reflected_instruction: Template
    """User turn that asks whether a solution is right, a critique of it beside it; gaps `{problem}`, `{solution}` and
    `{critique}`."""


def path_origin(
    path: Path,
    context: Context,
    *,
    node_ids: tuple[int, ...] = (),
    critique: Critique | None = None,
    panel: Panel | None = None,
) -> Origin:
    """Where a row of a path comes from."""
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


def tree_origin(tree: Tree, context: Context, *, node_ids: tuple[int, ...] = ()) -> Origin:
    """Where a row comes from that no path was picked for."""
    return Origin(
        problem_id=tree.problem.id,
        tree_id=tree.id,
        node_ids=node_ids,
        actor=tree.provenance,
        critic=None,
        votes=(),
        root_estimate=tree.nodes[0].direct,
        config_digest=context.config_digest,
        version=context.version,
    )


def origin_of(item: Dialogue | Scoped, context: Context, critic: Provenance | None) -> Origin:
    """Where a row of a dialogue, or of feedback with a scope, comes from; `critic` is who gave it, or judged."""
    return Origin(
        problem_id=item.problem.id,
        tree_id=item.tree_id,
        node_ids=item.node_ids,
        actor=item.actor,
        critic=critic,
        votes=(),
        root_estimate=item.root_estimate,
        config_digest=context.config_digest,
        version=context.version,
    )


def gives_answer_away(item: Verified) -> bool:
    """Whether a critique tells the answer, also where that was no reason to reject it."""
    return bool(item.leak) or "leaks_answer" in item.reasons


def solution_text(steps: Sequence[str]) -> str:
    """A solution as it was written."""
    return "".join(steps).strip()


def numbered_solution(problem: Problem, steps: tuple[str, ...]) -> str:
    """A solution beside a critique of it, with the step numbers that the critique speaks of.

    Where its steps bear them, it is as it was written; elsewhere, as where so many tokens are a step, each has its
    number in front. A program never has: it would be none.
    """
    text = solution_text(steps)
    if len(steps) < 2 or problem.domain in ("code", "command"):
        return text
    numbered = number_steps(steps)
    return text if numbered.split() == text.split() else numbered


def critique_turn(problem: Problem, steps: tuple[str, ...], context: Context) -> Message:
    """Problem and solution, to be criticised; the steps bear the numbers that critiques speak of."""
    return solution_turn(problem, steps, context.critique_instruction)


def solution_turn(problem: Problem, steps: tuple[str, ...], instruction: Template) -> Message:
    """Problem and solution below an instruction with these two gaps."""
    values = {"problem": problem.question, "solution": number_steps(steps)}
    return Message(role="user", content=instruction.fill(values))


def criticised_turn(path: Path, critiques: Sequence[Critique], context: Context) -> Message:
    """What is asked of whoever is to write critiques such as these: no more of the solution than their authors saw.

    What the checker said stands there if one of them was shown it, the answer masked: nobody should learn to know it
    from a prompt that does not hold it.
    """
    stop = max(shown_steps(path, critique.view).stop for critique in critiques)
    turn = critique_turn(path.problem, path.steps[:stop], context)
    message = checker_message(path, "blind") if any(critique.saw_message for critique in critiques) else ""
    return with_section(turn, "Checker's message", message) if message else turn


def with_section(turn: Message, heading: str, text: str) -> Message:
    """A user turn with a section more at its end."""
    return Message(role="user", content=f"{turn.content.rstrip()}\n\n{layout({heading: text})}")


def solve_turn(problem: Problem, context: Context) -> Message:
    """The problem, to be solved."""
    return Message(role="user", content=context.solve_instruction.fill({"problem": problem.question}))

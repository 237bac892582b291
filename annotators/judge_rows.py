"""Judgements whose truth is known, made of rollouts and critiques that no other table takes.

A checker has decided about every rollout of a tree, whether it was picked as a path or not. Which of two solutions is
better, and whether one is right that was criticised, is therefore known (LLaVA-Critic-R1, arXiv 2509.00676; SPARK,
arXiv 2509.22624).
"""

from collections.abc import Iterator
from typing import Any

from annotators.critic import number_steps
from annotators.exports import Context, ExportSettings, gives_answer_away, path_origin, tree_origin
from schemas import Examined, JudgeRow, Message, Outcome, Tree, digest

JUDGEMENTS = {
    "correct": "The solution is correct.",
    "incorrect": "The solution is incorrect.",
    "first": "Solution 1 is better.",
    "second": "Solution 2 is better.",
}
"""By label the line that prompts ask for; `annotators.rewards.read_judgement` reads it."""


def tree_judge_rows(tree: Tree, settings: ExportSettings, context: Context) -> Iterator[JudgeRow]:
    """Judgements of a tree's solutions: as many of right ones as of wrong ones, pairs in both orders.

    Which solutions are taken depends on the digests of their places alone. A pair holds a right one and a wrong one,
    each of which is in one pair only.
    """
    right, wrong = _leaves(tree, "correct"), _leaves(tree, "incorrect")
    pairs = list(zip(right, wrong, strict=False))[: settings.judge_per_problem // 2]
    if "pointwise" in settings.judge:
        for leaves in pairs:
            yield from (_pointwise(tree, leaf, context) for leaf in leaves)
    if "pairwise" in settings.judge:
        for one, other in pairs:
            yield _pairwise(tree, one, other, context)
            yield _pairwise(tree, other, one, context)


def reflected_rows(examined: Examined, settings: ExportSettings, context: Context) -> Iterator[JudgeRow]:
    """Judgements of a path's solution with a critique of it beside it, right or wrong in what it says.

    One row for each critique, but for those that give the answer away. How many a problem has is bounded where all
    of its rows are together, see `annotators.shard_rows`.
    """
    path = examined.path
    for item in examined.verified if "reflected" in settings.judge else ():
        if gives_answer_away(item):
            continue
        values = {
            "problem": path.problem.question,
            "solution": number_steps(path.steps),
            "critique": item.critique.text,
        }
        row_id = digest("judge", item.id)
        yield JudgeRow(
            id=row_id,
            kind="reflected",
            **_turns(context.judge_reflected_instruction.fill(values), "incorrect" if path.has_error else "correct"),
            group=row_id,
            problem=path.problem.question,
            origin=path_origin(path, context, critique=item.critique, panel=examined.panel),
        )


def _leaves(tree: Tree, outcome: Outcome) -> list[int]:
    """Solutions with this outcome; a right answer behind a step that is known to be wrong is no right solution."""
    found = (
        leaf
        for leaf in tree.terminals()
        if tree.nodes[leaf].outcome == outcome and not (outcome == "correct" and tree.is_flawed(leaf))
    )
    return sorted(found, key=lambda leaf: digest("judge", tree.id, leaf))


def _pointwise(tree: Tree, leaf: int, context: Context) -> JudgeRow:
    row_id = digest("judge", tree.id, leaf)
    values = {"problem": tree.problem.question, "solution": number_steps(tree.steps(leaf))}
    label = "correct" if tree.nodes[leaf].outcome == "correct" else "incorrect"
    return JudgeRow(
        id=row_id,
        kind="pointwise",
        **_turns(context.judge_instruction.fill(values), label),
        group=row_id,
        problem=tree.problem.question,
        origin=tree_origin(tree, context, node_ids=tree.path(leaf)),
    )


def _pairwise(tree: Tree, first: int, second: int, context: Context) -> JudgeRow:
    values = {
        "problem": tree.problem.question,
        "first": number_steps(tree.steps(first)),
        "second": number_steps(tree.steps(second)),
    }
    label = "first" if tree.nodes[first].outcome == "correct" else "second"
    return JudgeRow(
        id=digest("judge", tree.id, first, second),
        kind="pairwise",
        **_turns(context.judge_pair_instruction.fill(values), label),
        group=digest("judge pair", tree.id, sorted((first, second))),
        problem=tree.problem.question,
        origin=tree_origin(tree, context, node_ids=tree.path(first) + tree.path(second)),
    )


def _turns(asked: str, label: str) -> dict[str, Any]:
    """The columns of a row that its trainer reads."""
    prompt = (Message(role="user", content=asked),)
    completion = (Message(role="assistant", content=JUDGEMENTS[label]),)
    return {"prompt": prompt, "completion": completion, "messages": prompt + completion, "label": label}

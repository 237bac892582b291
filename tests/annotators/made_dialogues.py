"""Trees, attempts and dialogues to build on: 7 + 8 + 5, whose answer is 20."""

from annotators.dialogue_rows import dialogue_rows
from annotators.exports import ExportSettings
from schemas import Attempt, Dialogue, Ending, Estimate, Feedback, Node, Outcome, Problem, Record, Tree, Turn
from tests.annotators.annotated import problem, provenance
from tests.annotators.made_exports import CONTEXT

RIGHT = ("Step 1: 7 + 8 = 15\n", "Step 2: 15 + 5 = 20\n", "Answer: 20")
WRONG = ("Step 1: 7 + 8 = 14\n", "Step 2: 14 + 5 = 19\n", "Answer: 19")
WORSE = ("Step 1: 7 + 8 = 16\n", "Step 2: 16 + 5 = 21\n", "Answer: 21")


def attempt(steps: tuple[str, ...] = WRONG, outcome: Outcome = "incorrect") -> Attempt:
    """An attempt whose answer stands in its last step."""
    answer = steps[-1].removeprefix("Answer: ") if steps[-1].startswith("Answer: ") else None
    return Attempt(text="".join(steps), steps=steps, answer=answer, outcome=outcome)


def told(
    text: str = "Look at step 1.",
    *,
    step: int | None = 0,
    right: bool = False,
    masked: tuple[str, ...] = (),
    by_model: bool = True,
) -> Feedback:
    """A model's words, or the checker's."""
    return Feedback(
        text=text,
        named_step=step,
        says_right=right,
        masked=masked,
        provenance=provenance("giver-model") if by_model else None,
        checked="" if by_model else text,
        words=text if by_model else "",
    )


def tree(
    *solutions: tuple[tuple[str, ...], Outcome], root: Estimate | None = None, asked: Problem | None = None
) -> Tree:
    """A tree in which no two solutions share a step; the root's estimate counts them all unless given."""
    nodes = [
        Node(parent=-1, step="", depth=0, kind="root", direct=root or Estimate.of([item[1] for item in solutions]))
    ]
    for steps, outcome in solutions:
        parent = 0
        for depth, step in enumerate(steps, 1):
            is_last = depth == len(steps)
            answer = step.removeprefix("Answer: ") if is_last and step.startswith("Answer: ") else None
            nodes.append(
                Node(
                    parent=parent,
                    step=step,
                    depth=depth,
                    kind="terminal" if is_last else "step",
                    answer=answer,
                    outcome=outcome if is_last else None,
                )
            )
            parent = len(nodes) - 1
    return Tree(
        id="tree1",
        problem=asked or problem(),
        nodes=tuple(nodes),
        provenance=provenance(),
        settings_digest="s1",
        stopped="samples",
        calls=1,
        rollouts=len(solutions),
        completion_tokens=10,
        dropped_tokens=0,
    )


def dialogue(
    *turns: tuple[Attempt, Feedback | None], ended: Ending = "solved", name: str = "d1", **more: object
) -> Dialogue:
    fields = {"giver": "teacher", "execution": "none", "verbal": "none"} | more
    return Dialogue(
        id=name,
        problem=problem(),
        tree_id="tree1",
        node_ids=(1, 2, 3),
        actor=provenance(),
        root_estimate=Estimate(correct=1, scored=8),
        turns=tuple(Turn(attempt=item, feedback=said) for item, said in turns),
        ended=ended,
        **fields,  # type: ignore[arg-type]
    )


def every_dialogue_row() -> list[Record]:
    """A row of each kind, and two of distillation."""
    solved = dialogue((attempt(WORSE), told()), (attempt(WRONG), told("Again.")), (attempt(RIGHT, "correct"), None))
    kinds = ("refine_chat", "refine", "distill", "feedback")
    return list(dialogue_rows(solved, kinds, ExportSettings(), CONTEXT))

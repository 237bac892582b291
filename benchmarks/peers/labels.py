"""The labels of a tree against the truth of the simulated world."""

from pipelines.engines.simulated import parse_question
from pipelines.engines.simulated.world import read_state
from schemas import Tree


def false_labels(tree: Tree) -> int:
    """Scored solutions of a tree whose outcome is not what the world makes of their text."""
    chain = parse_question(tree.problem.question)
    wrong = 0
    for leaf in tree.terminals():
        outcome = tree.nodes[leaf].outcome
        state = read_state(chain, "".join(tree.steps(leaf)))
        truth = "unscored" if not state.answered else "correct" if state.value == chain.gold else "incorrect"
        wrong += outcome != "unscored" and outcome != truth
    return wrong

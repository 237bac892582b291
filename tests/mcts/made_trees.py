"""Trees written down by hand: steps are words, a path is a line of them."""

from schemas import Estimate, Node, Problem, Provenance, Tree

PROBLEM = Problem(id="p1", source="test", domain="exact", question="What is 4 + 4?", answer="8")
PROVENANCE = Provenance(model="m", revision="r1", engine="scripted", prompt_digest="d", sampling="{}", seed=3)


def counts(right, scored, unscored=0):
    return Estimate(correct=right, scored=scored, unscored=unscored)


def make_tree(ends, rates=None):
    """A tree with a terminal for each line of `ends` (line → outcome) and the direct counts of `rates`.

    `rates` maps the line of words up to an inner node ("" for the root) to (right, scored) rollouts.
    """
    rates = rates or {}
    nodes = [Node(parent=-1, step="", depth=0, kind="root", direct=counts(*rates.get("", (0, 0))))]
    index = {"": 0}
    for line, outcome in ends.items():
        words = line.split()
        for depth in range(1, len(words) + 1):
            here, parent = " ".join(words[:depth]), " ".join(words[: depth - 1])
            last = depth == len(words)
            if here in index and not last:
                continue
            nodes.append(
                Node(
                    parent=index[parent],
                    step=words[depth - 1],
                    depth=depth,
                    kind="terminal" if last else "step",
                    answer=words[-1] if last and outcome != "unscored" else None,
                    outcome=outcome if last else None,
                    unscored_reason="no_answer" if last and outcome == "unscored" else None,
                    direct=Estimate() if last else counts(*rates.get(here, (0, 0))),
                )
            )
            if not last:
                index[here] = len(nodes) - 1
    assert set(rates) <= set(index), set(rates) - set(index)
    return Tree(
        id="t1",
        problem=PROBLEM,
        nodes=tuple(nodes),
        provenance=PROVENANCE,
        settings_digest="",
        stopped="searches",
        calls=0,
        rollouts=0,
        completion_tokens=0,
        dropped_tokens=0,
    )

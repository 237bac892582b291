"""Small paths and critiques to build on: every text is short, every number can be checked by hand."""

from annotators.units import render_critique
from schemas import (
    Branch,
    Criticised,
    Critique,
    Estimate,
    PathAlone,
    PathPair,
    Problem,
    Provenance,
    Unit,
    Verdict,
    View,
)


def provenance(model: str = "actor-model") -> Provenance:
    return Provenance(
        model=model, revision="r1", engine="scripted", prompt_digest="p1", sampling='{"temperature":0.7}', seed=11
    )


def problem(question: str = "Calculate 7 + 8 + 5.", answer: str = "20", name: str = "q1") -> Problem:
    return Problem(id=name, source="tests", domain="math", question=question, answer=answer)


def branch(steps: tuple[str, ...], answer: str | None, *, first_node: int = 1, correct: int = 0) -> Branch:
    return Branch(
        steps=steps,
        nodes=tuple(range(first_node, first_node + len(steps))),
        estimates=tuple(Estimate(correct=correct, scored=8) for _ in steps),
        answer=answer,
    )


def pair(
    asked: Problem | None = None,
    *,
    name: str = "pair1",
    prefix: tuple[str, ...] = (),
    wrong: tuple[str, ...] = ("Step 1: 7 + 8 = 14\n", "Step 2: 14 + 5 = 19\n", "Answer: 19"),
    right: tuple[str, ...] = ("Step 1: 7 + 8 = 15\n", "Step 2: 15 + 5 = 20\n", "Answer: 20"),
    first_error: int = 0,
) -> PathPair:
    """A wrong path and a right one; the nodes of the shared steps are 1.., of the wrong 100.., of the right 200..

    After the shared steps 6 of 8 rollouts come out right, after the right ones all and after the wrong ones none.
    """
    num_steps = len(prefix) + len(wrong)
    return PathPair(
        id=name,
        problem=asked or problem(),
        tree_id="tree1",
        provenance=provenance(),
        prefix=prefix,
        prefix_nodes=tuple(range(1, 1 + len(prefix))),
        prefix_estimates=tuple(Estimate(correct=6, scored=8) for _ in prefix),
        wrong=branch(wrong, "19", first_node=100),
        right=branch(right, "20", first_node=200, correct=8),
        divergence=len(prefix),
        posterior=tuple(float(i == first_error) for i in range(num_steps)),
        first_error=first_error,
        root_estimate=Estimate(correct=4, scored=8),
        right_estimate=Estimate(correct=8, scored=8),
        wrong_estimate=Estimate(correct=0, scored=8),
        p_value=0.001,
        rule="deepest_fork",
    )


def alone(
    asked: Problem | None = None,
    *,
    name: str = "alone1",
    steps: tuple[str, ...] = ("Step 1: 7 + 8 = 15\n", "Step 2: 15 + 5 = 20\n", "Answer: 20"),
) -> PathAlone:
    return PathAlone(
        id=name,
        problem=asked or problem(),
        tree_id="tree1",
        provenance=provenance(),
        path=branch(steps, "20", correct=8),
        root_estimate=Estimate(correct=4, scored=8),
    )


def error(step: int = 0, flaw: str = "It should be more.", *, quote: str = "", fix: str = "") -> Unit:
    return Unit(step=step, quote=quote, kind="error", flaw=flaw, fix=fix, error_type="calculation", severity=3)


def praise(step: int = 0, flaw: str = "This holds.") -> Unit:
    return Unit(step=step, quote="", kind="praise", flaw=flaw)


def critique(
    path: PathPair | PathAlone,
    *,
    agent: str = "anna",
    wrong: int | None = 0,
    units: tuple[Unit, ...] | None = None,
    text: str | None = None,
    view: View = "blind",
) -> Critique:
    """A critique that names `wrong`; its text is rendered unless given."""
    if units is None:
        units = (praise(0),) if wrong is None else (error(wrong),)
    verdict: Verdict = "correct" if wrong is None else "incorrect"
    return Critique(
        id=f"{path.id}-{agent}",
        path_id=path.id,
        problem_id=path.problem.id,
        agent=agent,
        view=view,
        units=units,
        first_wrong_step=wrong,
        verdict=verdict,
        text=render_critique(units, wrong) if text is None else text,
        parse_state="parsed",
        provenance=provenance(f"{agent}-model"),
    )


def criticised(path: PathPair | PathAlone, **named: int | None) -> Criticised:
    """What each agent named as the first wrong step of a path."""
    return Criticised(
        path=path, critiques=tuple(critique(path, agent=agent, wrong=step) for agent, step in named.items())
    )

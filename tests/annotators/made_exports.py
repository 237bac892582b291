"""Examined paths and the rows made of them: what tests of rows and of their readers build on."""

from annotators.critique_rows import critique_rows
from annotators.exports import Context, ExportSettings
from annotators.judge_rows import reflected_rows, tree_judge_rows
from annotators.path_rows import path_rows, tree_rows
from schemas import (
    AgentVote,
    Critique,
    Estimate,
    Examined,
    Node,
    Outcome,
    Panel,
    PathAlone,
    PathPair,
    Record,
    Template,
    Tree,
    Verified,
)
from tests.annotators.annotated import alone, critique, error, pair, praise, problem, provenance

CONTEXT = Context(
    config_digest="c1",
    version="1.2.3",
    critique_instruction=Template(name="criticise", text="Criticise.\n{problem}\n{solution}"),
    aspects_instruction=Template(name="aspects", text="By aspects.\n{problem}\n{solution}"),
    words_instruction=Template(name="words", text="In words.\n{problem}\n{solution}"),
    solve_instruction=Template(name="solve", text="Solve.\n{problem}\n"),
    refine_instruction=Template(name="refine", text="{critique}\nAgain."),
    mark_instruction=Template(name="mark", text="Known: {feedback}."),
    judge_instruction=Template(name="judge", text="Right?\n{problem}\n{solution}"),
    judge_pair_instruction=Template(name="judge_pair", text="Which?\n{problem}\n1:\n{first}\n2:\n{second}"),
    spoil_instruction=Template(name="spoil", text="Spoil.\n{problem}\nAfter:\n{before}\nThis:\n{step}\nBy:\n{error}"),
    judge_reflected_instruction=Template(name="reflected", text="Right?\n{problem}\n{solution}\nSaid:\n{critique}"),
)
FORKED = pair(
    prefix=("Step 1: 7 + 8 = 15\n",),
    wrong=("Step 2: 15 + 5 = 21\n", "Step 3: hm\n", "Answer: 21"),
    right=("Step 2: 15 + 5 = 20\n", "Answer: 20"),
    first_error=1,
)


def interval(estimate: Estimate, _level: float) -> tuple[float, float]:
    """Stands for `mcts.estimates.interval`: a tenth to both sides of the rate, which 0 and 1 end."""
    if not estimate.scored:
        return 0.0, 1.0
    rate = estimate.correct / estimate.scored
    return (max(0.0, rate - 0.1) if rate else 0.0), (min(1.0, rate + 0.1) if rate < 1 else 1.0)


def of(kind: type[Record], rows: list[Record]) -> list[Record]:
    return [row for row in rows if isinstance(row, kind)]


def verified(
    said: Critique,
    path: PathPair | PathAlone,
    *,
    correct: int | None = 8,
    reasons: tuple[str, ...] = (),
    refinement: str = "",
    wrong: str = "",
) -> Verified:
    """A critique with `correct` of 8 right refinements, None where they were not measured; kept without reasons."""
    helped = None if correct is None else Estimate(correct=correct, scored=8)
    return Verified(
        id=f"verified-{said.id}",
        critique=said,
        has_error=path.has_error,
        first_error=path.first_error if isinstance(path, PathPair) else None,
        verdict_agrees=True,
        location_distance=0,
        location_mass=1.0,
        leak="",
        with_critique=helped,
        with_placebo=Estimate(correct=1, scored=8),
        without_critique=Estimate(correct=0, scored=7, unscored=1),
        p_placebo=0.01,
        p_without=0.01,
        refinement=refinement,
        refinement_answer="20" if refinement else "",
        decision="rejected" if reasons else "kept",
        reasons=reasons,
        wrong_refinement=wrong,
    )


def from_path(path: PathPair | PathAlone, settings: ExportSettings | None = None) -> list[Record]:
    """A path's own rows."""
    return list(path_rows(path, settings or ExportSettings(), CONTEXT, interval))


VOTES = (AgentVote(agent="anna", verdict="incorrect", first_wrong_step=1, reliability=0.9),)


def examined(path: PathPair | PathAlone, *items: Verified) -> Examined:
    panel = Panel(
        id=f"panel-{path.id}",
        path_id=path.id,
        problem_id=path.problem.id,
        judged=(),
        votes=VOTES,
        consensus="incorrect" if path.has_error else "correct",
        consensus_step=1 if path.has_error else None,
        confidence=0.9,
        composed=None,
        candidates=tuple(item.critique.id for item in items),
        placebo="Another.",
    )
    return Examined(path=path, panel=panel, verified=items)


def named(agent: str, length: int = 0) -> Critique:
    """A critique of the forked pair; of a given length in characters, or a short rendered one."""
    units = (praise(0, "It holds."), error(1, "The sum is less.", quote="15 + 5 = 21"))
    return critique(FORKED, agent=agent, wrong=1, units=units, text="x" * length if length else None)


def tree(*solutions: tuple[Outcome, str], right_of_8: int = 4, name: str = "q1") -> Tree:
    """A tree whose solutions have one step and an answer each: node 1 and 2, 3 and 4, and so on."""
    nodes = [Node(parent=-1, step="", depth=0, kind="root", direct=Estimate(correct=right_of_8, scored=8))]
    for outcome, answer in solutions:
        nodes.append(Node(parent=0, step=f"Step 1: it is {answer}\n", depth=1, kind="step"))
        nodes.append(
            Node(
                parent=len(nodes) - 1,
                step=f"Answer: {answer}",
                depth=2,
                kind="terminal",
                answer=answer,
                outcome=outcome,
            )
        )
    return Tree(
        id=f"tree of {name}",
        problem=problem(name=name),
        nodes=tuple(nodes),
        provenance=provenance(),
        settings_digest="s",
        stopped="budget",
        calls=1,
        rollouts=len(solutions),
        completion_tokens=1,
        dropped_tokens=0,
    )


def every_row(*paths: PathPair | PathAlone) -> list[Record]:
    """All rows of paths with critiques, and those of one tree."""
    settings = ExportSettings(refine_turns=True, judge=("pointwise", "pairwise", "reflected"))
    grown = tree(("correct", "20"), ("incorrect", "19"))
    rows: list[Record] = [*tree_judge_rows(grown, settings, CONTEXT)]
    rows.extend(tree_rows(grown, ExportSettings(rl="rollouts"), CONTEXT, interval))
    for path in paths:
        rows.extend(from_path(path, settings))
        wrong = 0 if path.has_error else None
        items = [
            verified(
                critique(path, agent=agent, wrong=wrong, text=agent * 20),
                path,
                correct=correct,
                refinement="r",
                wrong="w",
            )
            for agent, correct in (("anna", 8), ("bert", 7))
        ]
        said = critique(path, agent="cleo", wrong=wrong, text="cleo" * 20)
        items.append(verified(said, path, correct=0, reasons=("hurts",)))
        rows.extend(critique_rows(examined(path, *items), settings, CONTEXT))
        rows.extend(reflected_rows(examined(path, *items), settings, CONTEXT))
    return rows


PATHS = (pair(), pair(name="pair2", first_error=1), alone(), alone(name="alone2", steps=("Answer: 20",)))

"""Examined paths and the rows made of them: what tests of rows and of their readers build on."""

from annotators.exports import Context, ExportSettings, critique_rows, path_rows
from schemas import AgentVote, Critique, Estimate, Examined, Panel, PathAlone, PathPair, Record, Template, Verified
from tests.annotators.annotated import alone, critique, error, pair, praise

CONTEXT = Context(
    config_digest="c1",
    version="1.2.3",
    critique_instruction=Template(name="criticise", text="Criticise.\n{problem}\n{solution}"),
    solve_instruction=Template(name="solve", text="Solve.\n{problem}\n"),
    refine_instruction=Template(name="refine", text="{critique}\nAgain."),
)
FORKED = pair(
    prefix=("Step 1: 7 + 8 = 15\n",),
    wrong=("Step 2: 15 + 5 = 21\n", "Step 3: hm\n", "Answer: 21"),
    right=("Step 2: 15 + 5 = 20\n", "Answer: 20"),
    first_error=1,
)


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


def every_row(*paths: PathPair | PathAlone) -> list[Record]:
    rows: list[Record] = []
    for path in paths:
        rows.extend(path_rows(path, CONTEXT))
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
        rows.extend(critique_rows(examined(path, *items), ExportSettings(refine_turns=True), CONTEXT))
    return rows


PATHS = (pair(), pair(name="pair2", first_error=1), alone(), alone(name="alone2", steps=("Answer: 20",)))

import re
from importlib import resources

import pytest

from annotators.exports import Context, ExportSettings, critique_rows, path_rows
from schemas import (
    AgentVote,
    Critique,
    CritiqueDpoRow,
    Estimate,
    Examined,
    Message,
    Panel,
    PathAlone,
    PathPair,
    PrmRow,
    Record,
    RefineRow,
    RlRow,
    SftRow,
    StepDpoRow,
    Template,
    Verified,
)
from schemas.arrow import CONFIGS, arrow_schema, from_row, to_row
from tests.annotators.annotated import alone, critique, error, pair, praise, problem, provenance

CONTEXT = Context(
    config_digest="c1",
    version="1.2.3",
    critique_instruction=Template(name="criticise", text="Criticise.\n{problem}\n{solution}"),
    solve_instruction=Template(name="solve", text="Solve.\n{problem}\n"),
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


def test_a_pair_makes_one_rl_one_step_dpo_and_two_prm_rows_and_a_lone_path_one_rl_and_one_prm_row():
    assert [type(row) for row in path_rows(FORKED, CONTEXT)] == [RlRow, StepDpoRow, PrmRow, PrmRow]
    assert [type(row) for row in path_rows(alone(), CONTEXT)] == [RlRow, PrmRow]


def test_an_rl_row_is_the_solution_with_its_label():
    (row,) = of(RlRow, list(path_rows(FORKED, CONTEXT)))
    assert row.problem == "Calculate 7 + 8 + 5."
    assert row.solution == "Step 1: 7 + 8 = 15\nStep 2: 15 + 5 = 21\nStep 3: hm\nAnswer: 21"
    assert (row.label, row.first_error, row.posterior) == ("incorrect", 1, (0, 1, 0, 0))
    (row,) = of(RlRow, list(path_rows(alone(), CONTEXT)))
    assert (row.label, row.first_error, row.posterior) == ("correct", None, ())


@pytest.mark.parametrize(
    ("first_error", "labels"),
    [
        (0, (False, False, False, False)),
        (1, (True, False, False, False)),
        (2, (True, True, False, False)),
        (3, (True, True, True, False)),
    ],
)
def test_prm_labels_hold_up_to_the_first_wrong_step(first_error, labels):
    path = pair(prefix=("a\n",), wrong=("b\n", "c\n", "Answer: 1"), right=("d\n", "Answer: 2"), first_error=first_error)
    wrong, right = of(PrmRow, list(path_rows(path, CONTEXT)))
    assert wrong.completions == ("a", "b", "c", "Answer: 1")
    assert wrong.labels == labels
    assert wrong.posterior == tuple(float(i == first_error) for i in range(4))
    assert right.completions == ("a", "d", "Answer: 2")
    assert right.labels == (True, True, True)
    assert right.posterior == ()


def test_prm_rows_carry_an_estimate_for_each_step_and_none_of_the_other_branch():
    wrong, right = of(PrmRow, list(path_rows(FORKED, CONTEXT)))
    nothing, never, always = Estimate(), Estimate(correct=0, scored=8), Estimate(correct=8, scored=8)
    assert wrong.estimates == (nothing, never, never, never)
    assert right.estimates == (nothing, always, always)
    (lone,) = of(PrmRow, list(path_rows(alone(), CONTEXT)))
    assert lone.estimates == (always, always, always)
    assert lone.labels == (True, True, True)


def test_each_prm_row_points_at_the_nodes_of_its_own_steps():
    wrong, right = of(PrmRow, list(path_rows(FORKED, CONTEXT)))
    assert wrong.origin.node_ids == (1, 100, 101, 102)
    assert right.origin.node_ids == (1, 200, 201)
    assert all(len(row.origin.node_ids) == len(row.completions) for row in (wrong, right))


def test_a_step_pair_joins_to_both_paths_byte_for_byte():
    (row,) = of(StepDpoRow, list(path_rows(FORKED, CONTEXT)))
    instruction, begun = row.prompt
    assert instruction == Message(role="user", content="Solve.\nCalculate 7 + 8 + 5.\n")
    assert begun.role == "assistant"
    (chosen,), (rejected,) = row.chosen, row.rejected
    assert begun.content + chosen.content == "Step 1: 7 + 8 = 15\nStep 2: 15 + 5 = 20\nAnswer: 20"
    assert begun.content + rejected.content == "Step 1: 7 + 8 = 15\nStep 2: 15 + 5 = 21\nStep 3: hm\nAnswer: 21"
    assert begun.content + chosen.content == "".join(FORKED.right_steps)
    assert (row.divergence, row.first_error, row.p_value) == (1, 1, 0.001)
    assert (row.chosen_estimate.correct, row.rejected_estimate.correct) == (8, 0)


def test_odd_white_space_of_steps_survives_in_a_step_pair():
    path = pair(prefix=("  a \n\n", "\tb"), wrong=("\n c\n",), right=(" d \r\n", " "), first_error=2)
    (row,) = of(StepDpoRow, list(path_rows(path, CONTEXT)))
    assert row.prompt[1].content + row.chosen[0].content == "  a \n\n\tb d \r\n "
    assert row.prompt[1].content + row.rejected[0].content == "  a \n\n\tb\n c\n"


def test_a_pair_that_parts_at_once_has_no_begun_answer():
    (row,) = of(StepDpoRow, list(path_rows(pair(), CONTEXT)))
    assert [message.role for message in row.prompt] == ["user"]


def test_sft_rows_teach_the_critique_from_problem_and_solution():
    (row,) = critique_rows(examined(FORKED, verified(named("anna"), FORKED)), ExportSettings(), CONTEXT)
    assert row.messages == (
        Message(
            role="user",
            content=(
                "Criticise.\nCalculate 7 + 8 + 5.\nStep 1: 7 + 8 = 15\nStep 2: 15 + 5 = 21\nStep 3: hm\nAnswer: 21"
            ),
        ),
        Message(
            role="assistant",
            content=(
                'Step 1 is right: It holds.\nStep 2 is wrong: "15 + 5 = 21". The sum is less.\n'
                "The first wrong step is step 2. The solution is incorrect."
            ),
        ),
    )
    assert (row.label, row.first_error, row.view) == ("incorrect", 1, "blind")
    assert row.with_critique == Estimate(correct=8, scored=8)
    assert row.with_placebo == Estimate(correct=1, scored=8)
    assert row.without_critique == Estimate(correct=0, scored=7, unscored=1)


@pytest.mark.parametrize("view", ["blind", "contrastive", "reference"])
def test_sft_messages_hold_neither_the_gold_answer_nor_the_right_branch(view):
    secret = pair(
        problem("What?", "CanaryGold"),
        wrong=("Step 1: bad\n", "Answer: 1"),
        right=("Step 1: CanaryRight\n", "Answer: CanaryGold"),
    )
    said = critique(secret, wrong=0, view=view)
    item = verified(said, secret, refinement="Step 1: CanarySecond\nAnswer: CanaryGold")
    shipped = resources.files("annotators.prompts").joinpath("export_critique.txt").read_text()
    context = Context(
        config_digest="c",
        version="1",
        critique_instruction=Template(name="export_critique", text=shipped),
        solve_instruction=CONTEXT.solve_instruction,
    )
    rows = list(critique_rows(examined(secret, item), ExportSettings(), context))
    (row,) = of(SftRow, rows)
    assert "Canary" not in "".join(message.content for message in row.messages)
    (refined,) = of(RefineRow, rows)
    assert "Canary" not in refined.problem + refined.first_answer + refined.critique


def test_a_gap_within_a_solution_does_not_inject():
    path = pair(problem("What is {solution}?", "20"), wrong=("Step 1: {problem}\n", "Answer: 1"))
    (row,) = critique_rows(examined(path, verified(critique(path), path)), ExportSettings(), CONTEXT)
    assert row.messages[0].content == "Criticise.\nWhat is {solution}?\nStep 1: {problem}\nAnswer: 1"


def test_a_lone_paths_critique_is_labelled_correct():
    said = critique(alone(), wrong=None)
    (row,) = critique_rows(examined(alone(), verified(said, alone())), ExportSettings(), CONTEXT)
    assert (row.label, row.first_error) == ("correct", None)


def test_refine_rows_need_a_right_second_solution():
    second = "Step 1: 7 + 8 = 15\nStep 2: 15 + 5 = 20\nAnswer: 20\n"
    items = [verified(named("anna"), FORKED, refinement=second), verified(named("bert"), FORKED)]
    rows = list(critique_rows(examined(FORKED, *items), ExportSettings(), CONTEXT))
    (row,) = of(RefineRow, rows)
    assert (row.first_outcome, row.second_outcome) == ("incorrect", "correct")
    assert row.first_answer == "Step 1: 7 + 8 = 15\nStep 2: 15 + 5 = 21\nStep 3: hm\nAnswer: 21"
    assert row.second_answer == second.strip()
    assert row.critique == items[0].critique.text
    assert len(of(SftRow, rows)) == 2


def test_a_rejected_critique_makes_no_row_of_its_own():
    item = verified(named("anna"), FORKED, reasons=("leaks_answer",), refinement="Answer: 20")
    assert list(critique_rows(examined(FORKED, item), ExportSettings(), CONTEXT)) == []
    assert list(critique_rows(examined(FORKED), ExportSettings(), CONTEXT)) == []


def dpo(*items: Verified, **settings: float) -> list[CritiqueDpoRow]:
    return of(CritiqueDpoRow, list(critique_rows(examined(FORKED, *items), ExportSettings(**settings), CONTEXT)))


def kept(agent: str = "anna", length: int = 100, correct: int = 8) -> Verified:
    return verified(named(agent, length), FORKED, correct=correct)


def failed(agent: str = "bert", length: int = 100, correct: int | None = 0) -> Verified:
    return verified(named(agent, length), FORKED, correct=correct, reasons=("wrong_location", "no_better_than_none"))


def test_a_critique_pair_is_a_kept_one_against_a_failed_one():
    (row,) = dpo(failed(length=90), kept())
    assert [message.role for message in row.prompt] == ["user"]
    assert row.chosen == (Message(role="assistant", content="x" * 100),)
    assert row.rejected == (Message(role="assistant", content="x" * 90),)
    assert (row.chosen_estimate.rate, row.rejected_estimate.rate) == (1, 0)
    assert row.rejected_reasons == ("wrong_location", "no_better_than_none")


@pytest.mark.parametrize(
    ("better", "worse", "pairs"), [(8, 6, 1), (8, 7, 0), (8, 8, 0), (4, 8, 0), (2, 0, 1), (1, 0, 0)]
)
def test_a_critique_pair_needs_the_margin(better, worse, pairs):
    assert len(dpo(kept(correct=better), failed(correct=worse))) == pairs


@pytest.mark.parametrize(("longer", "pairs"), [(100, 1), (200, 1), (201, 0), (50, 1), (49, 0)])
def test_a_critique_pair_needs_similar_lengths(longer, pairs):
    assert len(dpo(kept(length=100), failed(length=longer))) == pairs


def test_a_critique_pair_needs_both_measured_and_one_kept():
    assert dpo(kept(), failed(correct=None)) == []
    assert dpo(kept(), kept("bert", correct=0)) == []
    assert dpo(failed("anna", correct=8), failed()) == []
    unscored = verified(named("bert", 100), FORKED, reasons=("help_unscored",))
    unscored = Verified(
        **{name: getattr(unscored, name) for name in unscored.__struct_fields__ if name != "with_critique"},
        with_critique=Estimate(unscored=8),
    )
    assert dpo(kept(), unscored) == []


def test_a_path_gives_one_critique_pair_at_most_the_first_that_fits():
    (row,) = dpo(kept(), kept("cleo"), failed("bert", 300), failed("dora", 80), failed("emil", 90))
    assert row.rejected[0].content == "x" * 80


def every_row(*paths: PathPair | PathAlone) -> list[Record]:
    rows: list[Record] = []
    for path in paths:
        rows.extend(path_rows(path, CONTEXT))
        wrong = 0 if path.has_error else None
        items = [
            verified(critique(path, agent=agent, wrong=wrong, text=agent * 20), path, correct=correct, refinement="r")
            for agent, correct in (("anna", 8), ("bert", 7))
        ]
        said = critique(path, agent="cleo", wrong=wrong, text="cleo" * 20)
        items.append(verified(said, path, correct=0, reasons=("hurts",)))
        rows.extend(critique_rows(examined(path, *items), ExportSettings(), CONTEXT))
    return rows


PATHS = (pair(), pair(name="pair2", first_error=1), alone(), alone(name="alone2", steps=("Answer: 20",)))


def test_ids_are_unique_and_the_same_in_every_run():
    rows = every_row(*PATHS)
    ids = [row.id for row in rows]
    # A pair: rl, step_dpo, 2 prm, 2 sft, 2 refine, critique_dpo; a lone path: rl, prm, 2 sft, 2 refine, critique_dpo.
    assert len(ids) == 2 * 9 + 2 * 7
    assert len(set(ids)) == len(ids)
    assert {row.id for row in every_row(*PATHS[::-1])} == set(ids)
    assert all(re.fullmatch(r"[0-9a-f]{32}", each) for each in ids)


def test_every_row_says_where_it_comes_from():
    for row in every_row(*PATHS):
        origin = row.origin
        assert (origin.problem_id, origin.tree_id) == ("q1", "tree1")
        assert (origin.config_digest, origin.version) == ("c1", "1.2.3")
        assert origin.actor == provenance()
        assert origin.root_estimate == Estimate(correct=4, scored=8)
        assert origin.node_ids
        if isinstance(row, SftRow | RefineRow | CritiqueDpoRow):
            assert origin.critic.model in ("anna-model", "bert-model")
            assert origin.votes == VOTES
        else:
            assert origin.critic is None
            assert origin.votes == ()


def test_a_critique_pairs_critic_is_the_chosen_ones():
    (row,) = of(CritiqueDpoRow, every_row(pair()))
    assert row.origin.critic.model == "anna-model"


def test_every_row_goes_into_its_table_and_comes_back():
    kinds = set(CONFIGS.values())
    for row in every_row(*PATHS):
        assert type(row) in kinds
        assert list(to_row(row)) == arrow_schema(type(row)).names
        assert from_row(to_row(row), type(row)) == row


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"validation_share": 1.0}, "validation_share must lie in 0..1, got 1.0"),
        ({"validation_share": -0.1}, "validation_share must lie in 0..1, got -0.1"),
        ({"max_length_ratio": 0.9}, "max_length_ratio must be at least 1, got 0.9"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(chosen, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ExportSettings(**chosen)

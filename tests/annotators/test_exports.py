"""Rows of paths, and what all rows have in common."""

import re

import pytest

from annotators.exports import ExportSettings, critique_rows, path_rows
from schemas import CritiqueDpoRow, Estimate, Message, PrmRow, RefineChatRow, RefineRow, RlRow, SftRow, StepDpoRow
from schemas.arrow import CONFIGS, arrow_schema, from_row, to_row
from tests.annotators.annotated import alone, critique, pair, provenance
from tests.annotators.made_exports import CONTEXT, FORKED, PATHS, VOTES, every_row, examined, of, verified


def test_a_pair_makes_one_rl_one_step_dpo_and_two_prm_rows_and_a_lone_path_one_rl_and_one_prm_row():
    assert [type(row) for row in path_rows(FORKED, CONTEXT)] == [RlRow, StepDpoRow, PrmRow, PrmRow]
    assert [type(row) for row in path_rows(alone(), CONTEXT)] == [RlRow, PrmRow]


def test_an_rl_row_is_the_solution_with_its_label():
    (row,) = of(RlRow, list(path_rows(FORKED, CONTEXT)))
    assert row.problem == "Calculate 7 + 8 + 5."
    assert row.solution == "Step 1: 7 + 8 = 15\nStep 2: 15 + 5 = 21\nStep 3: hm\nAnswer: 21"
    assert (row.label, row.first_error, row.posterior) == ("incorrect", 1, (0, 1, 0, 0))
    assert row.prompt == (Message(role="user", content=f"Criticise.\n{row.problem}\n{row.solution}"),)
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


def test_a_step_pair_is_both_whole_solutions_byte_for_byte():
    (row,) = of(StepDpoRow, list(path_rows(FORKED, CONTEXT)))
    assert row.prompt == (Message(role="user", content="Solve.\nCalculate 7 + 8 + 5.\n"),)
    assert row.chosen == (Message(role="assistant", content="Step 1: 7 + 8 = 15\nStep 2: 15 + 5 = 20\nAnswer: 20"),)
    assert row.rejected == (
        Message(role="assistant", content="Step 1: 7 + 8 = 15\nStep 2: 15 + 5 = 21\nStep 3: hm\nAnswer: 21"),
    )
    assert row.prefix == "Step 1: 7 + 8 = 15\n"
    assert (row.divergence, row.first_error, row.p_value) == (1, 1, 0.001)
    assert (row.chosen_estimate.correct, row.rejected_estimate.correct) == (8, 0)


def test_odd_white_space_of_steps_survives_in_a_step_pair():
    path = pair(prefix=("  a \n\n", "\tb"), wrong=("\n c\n",), right=(" d \r\n", " "), first_error=2)
    (row,) = of(StepDpoRow, list(path_rows(path, CONTEXT)))
    assert row.prefix == "  a \n\n\tb"
    assert row.chosen[0].content == "  a \n\n\tb d \r\n "
    assert row.rejected[0].content == "  a \n\n\tb\n c\n"


def test_solutions_that_part_at_once_share_no_prefix():
    (row,) = of(StepDpoRow, list(path_rows(pair(), CONTEXT)))
    assert row.prefix == ""
    assert row.chosen[0].content == "Step 1: 7 + 8 = 15\nStep 2: 15 + 5 = 20\nAnswer: 20"


def test_no_turn_follows_one_of_the_same_role_and_none_is_a_systems():
    conversations = [
        turns
        for row in every_row(*PATHS)
        for turns in {
            SftRow: lambda row: [row.prompt + row.completion, row.messages],
            RefineChatRow: lambda row: [row.prompt + row.completion, row.messages],
            CritiqueDpoRow: lambda row: [row.prompt + row.chosen, row.prompt + row.rejected],
            StepDpoRow: lambda row: [row.prompt + row.chosen, row.prompt + row.rejected],
            RlRow: lambda row: [(*row.prompt, Message(role="assistant", content="to come"))],
        }.get(type(row), lambda _: [])(row)
    ]
    # Two pairs and two lone paths. A pair: sft 2 x 2, chats 2 x 2, critique_dpo 2, step_dpo 2, rl 1; lone: no step_dpo.
    assert len(conversations) == 2 * 13 + 2 * 11
    for turns in conversations:
        assert [turn.role for turn in turns] == ["user", "assistant"] * (len(turns) // 2)


def test_steps_without_a_number_get_the_one_that_critiques_speak_of():
    path = pair(wrong=("7 + 8 is 14\n", "14 + 5 is 19\n", "Answer: 19"))
    (rl,) = of(RlRow, list(path_rows(path, CONTEXT)))
    assert rl.prompt[0].content == (
        "Criticise.\nCalculate 7 + 8 + 5.\nStep 1: 7 + 8 is 14\nStep 2: 14 + 5 is 19\nAnswer: 19"
    )
    assert rl.solution == "7 + 8 is 14\n14 + 5 is 19\nAnswer: 19"
    sft = of(SftRow, list(critique_rows(examined(path, verified(critique(path), path)), ExportSettings(), CONTEXT)))
    assert sft[0].prompt == rl.prompt


def test_ids_are_unique_and_the_same_in_every_run():
    rows = every_row(*PATHS)
    ids = [row.id for row in rows]
    # A pair: rl, step_dpo, 2 prm, 2 sft, 4 refine, 2 refine_chat, critique_dpo; a lone path: one prm and no step_dpo.
    assert len(ids) == 2 * 13 + 2 * 11
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
        if isinstance(row, SftRow | RefineRow | RefineChatRow | CritiqueDpoRow):
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

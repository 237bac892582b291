"""Rows of paths, and what all rows have in common."""

import re

import pytest

from annotators.critique_rows import critique_rows
from annotators.exports import ExportSettings
from schemas import (
    CritiqueDpoRow,
    Estimate,
    JudgeRow,
    Message,
    PrmRow,
    RefineChatRow,
    RefineRow,
    RlRow,
    SftRow,
    StepDpoRow,
)
from schemas.arrow import CONFIGS, arrow_schema, from_row, to_row
from tests.annotators.annotated import alone, critique, pair, provenance
from tests.annotators.made_exports import CONTEXT, FORKED, PATHS, VOTES, every_row, examined, from_path, of, verified


def test_only_paths_that_are_to_be_criticised_make_rl_rows():
    assert of(RlRow, from_path(FORKED, ExportSettings(rl="rollouts"))) == []
    assert of(RlRow, from_path(FORKED, ExportSettings(rl="problem_pairs"))) == []


def test_a_pair_makes_one_rl_one_step_dpo_and_two_prm_rows_and_a_lone_path_one_rl_and_one_prm_row():
    assert [type(row) for row in from_path(FORKED)] == [RlRow, StepDpoRow, PrmRow, PrmRow]
    assert [type(row) for row in from_path(alone())] == [RlRow, PrmRow]


def test_an_rl_row_is_the_solution_with_its_label():
    (row,) = of(RlRow, from_path(FORKED))
    assert row.problem == "Calculate 7 + 8 + 5."
    assert row.solution == "Step 1: 7 + 8 = 15\nStep 2: 15 + 5 = 21\nStep 3: hm\nAnswer: 21"
    assert (row.label, row.first_error, row.posterior) == ("incorrect", 1, (0, 1, 0, 0))
    assert row.prompt == (Message(role="user", content=f"Criticise.\n{row.problem}\n{row.solution}"),)
    (row,) = of(RlRow, from_path(alone()))
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
    wrong, right = of(PrmRow, from_path(path))
    assert wrong.completions == ("a", "b", "c", "Answer: 1")
    assert wrong.labels == labels
    assert wrong.posterior == tuple(float(i == first_error) for i in range(4))
    assert right.completions == ("a", "d", "Answer: 2")
    assert right.labels == (True, True, True)
    assert right.posterior == ()


def test_prm_rows_carry_an_estimate_for_each_step_and_none_of_the_other_branch():
    wrong, right = of(PrmRow, from_path(FORKED))
    mostly, never, always = (Estimate(correct=right, scored=8) for right in (6, 0, 8))
    assert wrong.estimates == (mostly, never, never, never)
    assert right.estimates == (mostly, always, always)
    (lone,) = of(PrmRow, from_path(alone()))
    assert lone.estimates == (always, always, always)
    assert lone.labels == (True, True, True)


def test_each_prm_row_points_at_the_nodes_of_its_own_steps():
    wrong, right = of(PrmRow, from_path(FORKED))
    assert wrong.origin.node_ids == (1, 100, 101, 102)
    assert right.origin.node_ids == (1, 200, 201)
    assert all(len(row.origin.node_ids) == len(row.completions) for row in (wrong, right))


def test_a_step_pair_is_both_whole_solutions_byte_for_byte():
    (row,) = of(StepDpoRow, from_path(FORKED))
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
    (row,) = of(StepDpoRow, from_path(path))
    assert row.prefix == "  a \n\n\tb"
    assert row.chosen[0].content == "  a \n\n\tb d \r\n "
    assert row.rejected[0].content == "  a \n\n\tb\n c\n"


def test_solutions_that_part_at_once_share_no_prefix():
    (row,) = of(StepDpoRow, from_path(pair()))
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
            JudgeRow: lambda row: [row.prompt + row.completion, row.messages],
        }.get(type(row), lambda _: [])(row)
    ]
    # Two pairs and two lone paths. A pair: sft 2 x 2, chats 2 x 2, critique_dpo 2, step_dpo 2, rl 1, judgements after
    # reflection 3 x 2; lone: no step_dpo. The tree: rl 2, judgements of one solution 2 x 2, of two 2 x 2.
    assert len(conversations) == 2 * 19 + 2 * 17 + 10
    for turns in conversations:
        assert [turn.role for turn in turns] == ["user", "assistant"] * (len(turns) // 2)


def test_steps_without_a_number_get_the_one_that_critiques_speak_of():
    path = pair(wrong=("7 + 8 is 14\n", "14 + 5 is 19\n", "Answer: 19"))
    (rl,) = of(RlRow, from_path(path))
    assert rl.prompt[0].content == (
        "Criticise.\nCalculate 7 + 8 + 5.\nStep 1: 7 + 8 is 14\nStep 2: 14 + 5 is 19\nAnswer: 19"
    )
    assert rl.solution == "7 + 8 is 14\n14 + 5 is 19\nAnswer: 19"
    sft = of(SftRow, list(critique_rows(examined(path, verified(critique(path), path)), ExportSettings(), CONTEXT)))
    assert sft[0].prompt == rl.prompt


def test_ids_are_unique_and_the_same_in_every_run():
    rows = every_row(*PATHS)
    ids = [row.id for row in rows]
    # A pair: rl, step_dpo, 2 prm, 2 sft, 4 refine, 2 refine_chat, critique_dpo, 3 judge; a lone path: one prm and no
    # step_dpo. The tree: 2 rl, 4 judge.
    assert len(ids) == 2 * 16 + 2 * 14 + 6
    assert len(set(ids)) == len(ids)
    assert {row.id for row in every_row(*PATHS[::-1])} == set(ids)
    assert all(re.fullmatch(r"[0-9a-f]{32}", each) for each in ids)


def test_every_row_says_where_it_comes_from():
    for row in every_row(*PATHS):
        origin = row.origin
        assert origin.problem_id == "q1"
        assert origin.tree_id in ("tree1", "tree of q1")
        assert (origin.config_digest, origin.version) == ("c1", "1.2.3")
        assert origin.actor == provenance()
        assert origin.root_estimate == Estimate(correct=4, scored=8)
        assert origin.node_ids
        reflects = isinstance(row, JudgeRow) and row.kind == "reflected"
        if reflects or isinstance(row, SftRow | RefineRow | RefineChatRow | CritiqueDpoRow):
            assert origin.critic.model in ("anna-model", "bert-model", *(["cleo-model"] if reflects else []))
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


OLDER = {
    SftRow: {"decision": "kept", "reasons": ()},
    RefineRow: {"transition_reward": None},
    RlRow: {
        **{"task": "criticise", "answer": "", "reward_if_right": None, "reward_if_wrong": None, "pair": ""},
        **{"with_critique": None, "without_critique": None, "difficulty": "neither"},
        **{"success_rate": None, "success_low": 0.0, "success_high": 1.0},
    },
}
"""By record, the columns that runs from before recipes lack, and what is read in their place."""


@pytest.mark.parametrize(("record", "missing"), OLDER.items())
def test_rows_of_older_runs_are_read(record, missing):
    plain = to_row(of(record, every_row(*PATHS))[-1])
    read = from_row({name: value for name, value in plain.items() if name not in missing}, record)
    assert {name: getattr(read, name) for name in missing} == missing


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"validation_share": 1.0}, "validation_share must lie in 0..1, got 1.0"),
        ({"validation_share": -0.1}, "validation_share must lie in 0..1, got -0.1"),
        ({"max_length_ratio": 0.9}, "max_length_ratio must be at least 1, got 0.9"),
        ({"plain_share": 1.0}, "plain_share must lie in 0..1, got 1.0"),
        ({"correct_per_incorrect": -1.0}, "correct_per_incorrect must be a number of at least 0, got -1.0"),
        ({"incorrect_per_correct": float("inf")}, "incorrect_per_correct must be a number of at least 0, got inf"),
        (
            {"correct_per_incorrect": 0.5, "incorrect_per_correct": 1.5},
            "correct_per_incorrect times incorrect_per_correct must be at least 1, or only a table without rows can "
            "satisfy both; got 0.5 and 1.5; give one of them alone, or larger ones",
        ),
        ({"level": 1.0}, "level must lie between 0 and 1, got 1.0"),
        ({"difficulty_rate": 0.0}, "difficulty_rate must lie between 0 and 1, got 0.0"),
        (
            {"plain_share": 0.2, "rl": "rollouts"},
            "plain_share=0.2 is for rows about paths to criticise, got rl=rollouts; give rl=paths or leave it out",
        ),
        ({"judge": ("pairwise", "pairwise")}, "judge names a kind twice, got pairwise, pairwise"),
        (
            {"judge_per_problem": 3},
            "judge_per_problem must be an even number of at least 2, one row for each label, got 3",
        ),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(chosen, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ExportSettings(**chosen)

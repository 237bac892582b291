"""The meta-critic's votes: how many are cast, and what they come to."""

import random

import msgspec
import pytest

from annotators.judging import JudgeSettings, drop_uncorrected, judge_prompt, judge_unit, votes_needed
from annotators.units import Judgement
from schemas import Template
from tests.annotators.annotated import critique, error, pair, praise


def votes(text: str) -> list[Judgement | None]:
    """k keep, f fix (to "Better."), d drop, ? unreadable."""
    made = {
        "k": Judgement(decision="keep", severity=1),
        "f": Judgement(decision="fix", severity=2, fix="Better."),
        "d": Judgement(decision="drop", severity=0),
        "?": None,
    }
    return [made[letter] for letter in text]


@pytest.mark.parametrize(
    ("cast", "needed"),
    [("", 2), ("k", 1), ("kk", 0), ("kd", 2), ("dd", 0), ("kdk", 1), ("kdkd", 1), ("kdkdk", 0), ("?", 2), ("????", 1)],
)
def test_votes_are_cast_until_one_side_leads_by_two_or_five_are_cast(cast, needed):
    assert votes_needed(votes(cast), JudgeSettings()) == needed


def test_one_vote_is_enough_where_it_is_set():
    settings = JudgeSettings(margin=1, max_votes=1)
    assert votes_needed([], settings) == 1
    assert votes_needed(votes("?"), settings) == 0


@pytest.mark.parametrize(
    ("cast", "decision"),
    [
        ("", "unscored"),
        ("?", "unscored"),
        ("kd", "unscored"),
        ("kk", "keep"),
        ("kkd", "keep"),
        ("dd", "drop"),
        ("ddk", "drop"),
        ("ff", "fix"),
        ("kf", "keep"),
        ("ffk", "fix"),
        ("kffdd", "fix"),
        ("k????", "keep"),
    ],
)
def test_the_majority_decides_and_a_tie_is_unscored(cast, decision):
    judged = judge_unit("anna", error(1), votes(cast))
    assert judged.decision == decision
    assert (judged.keeps, judged.drops) == (cast.count("k") + cast.count("f"), cast.count("d"))


def test_a_kept_unit_stays_and_a_fixed_ones_words_take_the_place_of_its_own():
    unit = error(1, "No.", fix="Do it again.")
    assert judge_unit("anna", unit, votes("kk")).unit == unit
    fixed = judge_unit("anna", unit, votes("ff")).unit
    assert (fixed.flaw, fixed.fix, fixed.severity) == ("Better.", "Do it again.", 2)
    wordless = [Judgement(decision="fix", severity=2)] * 2
    assert judge_unit("anna", unit, wordless).unit.flaw == "No."


def test_fixed_praise_stays_praise_without_severity():
    fixed = judge_unit("anna", praise(0), votes("ff")).unit
    assert (fixed.kind, fixed.flaw, fixed.fix, fixed.severity) == ("praise", "Better.", "", 0)


def test_severity_is_the_middle_vote():
    cast = [Judgement(decision="keep", severity=severity) for severity in (3, 0, 2)]
    assert judge_unit("anna", error(1), cast).severity == 2
    assert judge_unit("anna", error(1), []).severity == 3, "what the agent said, where nobody voted"


def test_two_votes_ahead_make_ninety_right_in_a_hundred_ninety_nine():
    """A random walk between two barriers: 0.9^2 / (0.9^2 + 0.1^2) = 0.988, and a bit less with five votes at most."""
    rng, right = random.Random(4), 0
    for _ in range(4000):
        cast: list[Judgement | None] = []
        while needed := votes_needed(cast, JudgeSettings()):
            cast += votes("".join("k" if rng.random() < 0.9 else "d" for _ in range(needed)))
        right += judge_unit("anna", error(1), cast).decision == "keep"
    assert right / 4000 == pytest.approx(0.985, abs=0.01)


def test_a_unit_is_judged_beside_what_others_say_and_not_beside_itself():
    template = Template(name="meta", text="{sections}")
    mine, same, other = error(0, "Mine."), error(0, "Mine."), error(1, "Theirs.")
    prompt = judge_prompt(template, pair(), "anna", mine, [("anna", mine), ("bert", same), ("cleo", other)])
    remark = prompt.partition("Remark:\n")[2]
    others = prompt.partition("Other remarks:\n")[2].partition("\n\nRemark:")[0]
    assert "Mine." in remark
    assert others == "Step 2 is wrong. Theirs."
    assert "Other remarks:\nnone" in judge_prompt(template, pair(), "anna", mine, [("anna", mine), ("bert", same)])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"margin": 0}, "need 1 <= margin <= max_votes, got margin=0, max_votes=5"),
        ({"margin": 6}, "need 1 <= margin <= max_votes, got margin=6, max_votes=5"),
        ({"temperature": 0.0}, "votes at temperature 0.0 would all be one; set temperature above 0 or max_votes=1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(ValueError, match=r"need|votes") as caught:
        JudgeSettings(**wrong)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("came_out", "decisions"),
    [
        ("incorrect", ["keep", "drop", "keep", "keep"]),
        ("correct", ["keep", "keep", "keep", "keep"]),
        (None, ["keep", "keep", "keep", "keep"]),
    ],
)
def test_a_remark_is_dropped_that_its_author_could_not_make_good(came_out, decisions):
    """Only the remark on the step from which anna went on, and only anna's."""
    said = [("anna", praise(0)), ("anna", error(1)), ("anna", error(2)), ("bert", error(1))]
    judged = [judge_unit(agent, unit, votes("kk")) for agent, unit in said]
    anna = msgspec.structs.replace(critique(pair(), agent="anna", wrong=1), correction_outcome=came_out)
    bert = critique(pair(), agent="bert", wrong=1)
    assert [item.decision for item in drop_uncorrected(judged, [anna, bert])] == decisions

"""The loop's rules: what begins a dialogue, who is shown what, how it ends, why a round did not help."""

import json

import msgspec
import pytest

from annotators.critic import number_steps
from annotators.dialogue import (
    actor_sections,
    aspects_schema,
    count_starts,
    ending,
    giver_sections,
    known_to_reader,
    named_step,
    pick_starts,
    read_aspects,
    right_solution,
    says_right,
    secrets_of,
    talk_of_feedback,
    tried_answers,
    verdict_words,
    why_unhelped,
)
from annotators.rounds import NoLoop, Rounds, Starts
from annotators.units import CritiqueError
from schemas import Attempt, Estimate, Turn
from tests.annotators.annotated import problem
from tests.annotators.made_dialogues import RIGHT, WORSE, WRONG, attempt, told, tree

MIXED = tree((RIGHT, "correct"), (("hm",), "unscored"), (WRONG, "incorrect"), (WORSE, "incorrect"))
"""Terminals 3, 4, 7 and 10."""
HOPELESS = tree((WRONG, "incorrect"), (WORSE, "incorrect"))
"""Terminals 3 and 6."""
PROBED = tree((WRONG, "incorrect"), (RIGHT, "correct"), root=Estimate(correct=0, scored=8))
"""No sample of the problem is right; a probe from within found the right path. Terminals 3 and 6."""


@pytest.mark.parametrize(
    ("starts", "mixed", "hopeless", "probed"),
    [
        ("any", (3, 7), (3, 6), (3, 6)),
        ("wrong", (7, 10), (3, 6), (3,)),
        ("solvable", (7, 10), (), ()),
        ("hopeless", (), (3, 6), (3,)),
    ],
)
def test_dialogues_begin_with_the_first_scored_solutions_that_are_asked_for(starts: Starts, mixed, hopeless, probed):
    loop = Rounds(starts=starts, max_starts=2)
    assert [pick_starts(each, loop) for each in (MIXED, HOPELESS, PROBED)] == [mixed, hopeless, probed]


def test_each_start_is_gone_on_from_once_for_each_combination():
    loop = Rounds(giver="execution", execution=("none", "full"), verbal=("none", "novice", "expert"), max_starts=2)
    assert loop.combinations[:3] == (("none", "none"), ("none", "novice"), ("none", "expert"))
    assert count_starts(MIXED, loop) == 12
    assert count_starts(MIXED, NoLoop()) == 0
    assert pick_starts(MIXED, NoLoop()) == ()


def test_the_right_solution_is_the_first_that_was_made():
    found = right_solution(PROBED)
    assert found is not None
    assert found.steps == RIGHT
    assert right_solution(HOPELESS) is None
    flawed = msgspec.structs.replace(PROBED.nodes[4], flawed=True)
    lucky = msgspec.structs.replace(PROBED, nodes=(*PROBED.nodes[:4], flawed, *PROBED.nodes[5:]))
    assert right_solution(lucky) is None


# Who is shown what.


def test_a_giver_is_shown_what_it_may_see_and_nothing_else():
    asked, right = problem(), attempt(RIGHT, "correct")
    shown = {sees: list(giver_sections(asked, attempt(), sees, right)) for sees in ("nothing", "gold", "solution")}
    assert shown == {
        "nothing": ["Problem", "Solution"],
        "gold": ["Problem", "Gold answer", "Solution"],
        "solution": ["Problem", "Gold answer", "Other solution", "Solution"],
    }
    assert "20" not in json.dumps(giver_sections(asked, attempt(), "nothing", right))
    assert "Other solution" not in giver_sections(asked, attempt(), "solution", None)
    told_more = giver_sections(asked, attempt(), "nothing", None, run="It does not compile.", complaint="no JSON")
    assert list(told_more)[-2:] == ["Run", "The last reply was not usable"]


def test_the_actor_is_shown_all_it_wrote_and_was_told_or_the_last_alone():
    turns = [
        Turn(attempt=attempt(WORSE), feedback=told("First.")),
        Turn(attempt=attempt(WRONG), feedback=told("Then.")),
    ]
    with_all = actor_sections(problem(), turns, Rounds())
    assert list(with_all) == ["Problem", "Earlier attempts", "Solution", "Critique"]
    assert with_all["Solution"] == number_steps(WRONG)
    assert with_all["Critique"] == "Then."
    earlier = with_all["Earlier attempts"]
    assert earlier == f"Attempt 1:\n{number_steps(WORSE)}\nWhat was said of it:\nFirst."
    assert list(actor_sections(problem(), turns, Rounds(memory="last"))) == ["Problem", "Solution", "Critique"]


def test_a_program_s_tests_are_no_secret_and_a_right_program_is_one():
    right = msgspec.structs.replace(attempt(RIGHT, "correct"), answer="twenty")
    assert secrets_of(problem(), right) == ("20", "twenty")
    assert secrets_of(problem(), None) == ("20",)
    code = msgspec.structs.replace(problem(), domain="code")
    assert secrets_of(code, right) == ("twenty",)
    assert secrets_of(code, None) == ()


def test_earlier_attempts_are_not_known_to_who_reads_one_round():
    known = known_to_reader(problem(), attempt(WRONG), "It compiles.")
    assert known == "Calculate 7 + 8 + 5.\n" + "".join(WRONG) + "\nIt compiles."


def test_wrong_answers_are_named_once_and_right_ones_never():
    attempts = [attempt(WRONG), attempt(WORSE), attempt(WRONG), attempt(RIGHT, "correct")]
    assert tried_answers(attempts) == "These answers were tried and are wrong: 19, 21."
    assert tried_answers([attempt(RIGHT, "correct")]) == ""
    assert tried_answers([msgspec.structs.replace(attempt(), answer="def f():\n    pass")]) == ""


def test_the_checker_alone_says_no_more_than_its_verdict():
    assert verdict_words(attempt()) == "The answer is wrong."
    assert says_right(verdict_words(attempt(RIGHT, "correct")))


# What feedback says.


@pytest.mark.parametrize(
    ("text", "step", "right"),
    [
        ("In step 3 it slips. The first wrong step is step 2. The solution is incorrect.", 1, False),
        ("Look at Step 3 again, then at step 1.", 2, False),
        ("Think again.", None, False),
        ("Step 1 is right. No step is wrong. The solution is correct.", None, True),
        ("step 0 is odd", None, False),
    ],
)
def test_the_step_that_feedback_names(text, step, right):
    assert (named_step(text), says_right(text)) == (step, right)


def _aspects(**more) -> str:
    critique = [{"aspect": "honesty", "strengths": "Clear.", "weaknesses": "Hasty."}]
    return json.dumps({"critique": critique, "refinement": "Add again."} | more)


def test_feedback_by_aspects_needs_both_kinds():
    text = read_aspects("Well:\n" + _aspects() + "\nDone.")
    assert text == "Honesty: good: Clear. Bad: Hasty.\nWhat to change: Add again."
    for broken in (
        _aspects(refinement=" "),
        _aspects(critique=[]),
        _aspects(critique=[{"aspect": "style", "strengths": "a", "weaknesses": "b"}]),
        '{"refinement":"Add again."}',
        "nothing of the kind",
    ):
        with pytest.raises(CritiqueError):
            read_aspects(broken)


def test_the_schema_asks_for_both_kinds():
    assert json.loads(aspects_schema())["required"] == ["critique", "refinement"]


# How it goes on.


def _turns(*attempts: Attempt) -> list[Turn]:
    *earlier, last = attempts
    return [*(Turn(attempt=item, feedback=told()) for item in earlier), Turn(attempt=last, feedback=None)]


def test_a_dialogue_ends_for_the_first_reason_that_holds():
    loop = Rounds(max_rounds=2)
    right, unknown = attempt(RIGHT, "correct"), attempt(("hm",), "unscored")
    assert ending(_turns(attempt()), loop) is None
    assert ending(_turns(right), loop) == "solved"
    assert ending(_turns(attempt(), unknown), loop) == "unscored"
    assert ending(_turns(attempt(), attempt()), loop) is None
    assert ending(_turns(attempt(), attempt()), Rounds(max_rounds=2, stop_when_repeated=True)) == "repeated"
    assert ending(_turns(attempt(), attempt(WORSE), attempt()), loop) == "max_rounds"
    assert ending(_turns(attempt(), attempt(WORSE), right), loop) == "solved"
    going_on = Rounds(max_rounds=2, stop_when_right=False)
    assert ending(_turns(right, right), going_on) is None
    assert ending(_turns(right, right, attempt()), going_on) == "max_rounds"


@pytest.mark.parametrize(
    ("feedback", "following", "first_wrong", "why"),
    [
        (told(right=True, step=None), WORSE, None, "wrong_feedback"),
        (told(step=7), WORSE, None, "wrong_feedback"),
        (told(step=1), WORSE, 0, "wrong_feedback"),
        (told(step=1), WORSE, None, "too_hard"),
        (told(step=0), WORSE, 0, "too_hard"),
        (told(step=0), WRONG, 0, "not_followed"),
        (told(step=None), WRONG, None, "not_followed"),
        # The step that is named stands as it was, though the answer is another one.
        (told(step=0), ("Step 1: 7 + 8 =  14\n", "Step 2: 14 + 5 = 18\n", "Answer: 18"), 0, "not_followed"),
        (told(step=None), WORSE, None, "too_hard"),
    ],
)
def test_why_a_round_did_not_help(feedback, following, first_wrong, why):
    turn = Turn(attempt=attempt(WRONG), feedback=feedback)
    assert why_unhelped(turn, attempt(following), first_wrong) == why


@pytest.mark.parametrize(
    ("text", "talk"),
    [
        ("As the critique says, 7 + 8 = 15.", "the critique"),
        ("In my\nfirst answer I added 14.", "my first answer"),
        ("Those answers were tried already.", "answers were tried"),
        ("Attempt 1 came to 19.", "Attempt 1"),
        ("I add, as the user feedback asks.", "the user feedback"),
        ("Here is the corrected solution.", "the corrected solution"),
        ("So that the failing test passes.", "failing test"),
        ("Step 2: add 5 to the previous answer.", ""),
        ("As mentioned above, 15 + 5 = 20; a critical step.", ""),
        ("".join(RIGHT), ""),
    ],
)
def test_talk_of_what_only_who_was_told_can_know(text, talk):
    assert talk_of_feedback(text, problem()) == talk


def test_what_a_problem_speaks_of_itself_is_no_talk_of_feedback():
    said = "The teacher has 20 pencils left."
    assert talk_of_feedback(said, problem("A teacher has 25 pencils and gives 5 away.")) == ""
    assert talk_of_feedback(said, problem()) == "The teacher"


def test_a_round_that_helped_or_began_right_has_no_reason():
    turn = Turn(attempt=attempt(), feedback=told())
    assert why_unhelped(turn, attempt(RIGHT, "correct")) is None
    assert why_unhelped(turn, attempt(("hm",), "unscored")) is None
    assert why_unhelped(Turn(attempt=attempt(RIGHT, "correct"), feedback=told()), attempt()) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_rounds": 0}, "max_rounds must be at least 1, got 0"),
        ({"verbal": ("expert",)}, "go with giver=execution, got giver=critic"),
        ({"giver": "teacher"}, "giver=teacher knows the answer, got sees=nothing"),
        ({"giver": "teacher", "sees": "gold", "form": "walk"}, "form=walk is what a critic's .*, got giver=teacher"),
        ({"giver": "verdict", "form": "walk"}, "form=walk is what a critic's .*, got giver=verdict"),
        ({"giver": "verdict", "sees": "gold"}, "giver=verdict is shown what it is by itself"),
        ({"giver": "execution", "execution": ()}, "execution needs distinct values"),
        ({"rows": ("refine", "refine")}, "rows needs distinct values"),
        ({"rows": ("feedback", "agreeing_feedback")}, "rows has feedback and agreeing_feedback, .* give one of them"),
        ({"temperature_step": -0.1}, "temperature_step must not be below 0"),
    ],
)
def test_settings_that_cannot_be_say_what_is_wrong(settings, message):
    with pytest.raises(ValueError, match=message):
        Rounds(**settings)


def test_only_givers_with_words_ask_a_model():
    loops = [Rounds(), Rounds(giver="teacher", sees="gold"), Rounds(giver="aspects"), Rounds(giver="verdict")]
    assert [loop.giver_template for loop in loops] == ["critique", "feedback", "feedback_aspects", ""]
    assert Rounds(giver="execution").giver_template == ""
    assert Rounds(giver="execution", verbal=("none", "novice")).giver_template == "feedback_code"
    assert Rounds(template="mine.txt").giver_template == "mine.txt"

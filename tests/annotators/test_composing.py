"""One critique of many: which remarks survive, how they are said, and that a model adds nothing to them."""

import itertools

import pytest

from annotators.composing import (
    STYLES,
    Composition,
    clean_unit,
    compose_critique,
    compose_prompt,
    surviving_units,
    trim_composition,
    write_by_template,
)
from annotators.consensus import Consensus
from pipelines.engines.simulated.prompts import parse_prompt
from pipelines.templates import load_template
from schemas import AgentVote, JudgedUnit, PathPair, Unit
from tests.annotators.annotated import alone, error, pair, praise, problem, provenance

COMPOSE = load_template("compose", key="panel.compose_template", gaps=frozenset({"style", "sections"}))


def agreed(step: int | None, **reliability: float) -> Consensus:
    verdict = "correct" if step is None else "incorrect"
    return Consensus(
        verdict=verdict,
        first_wrong_step=step,
        confidence=0.9,
        votes=tuple(
            AgentVote(agent=agent, verdict=verdict, first_wrong_step=step, reliability=value)
            for agent, value in reliability.items()
        ),
    )


def judged(agent: str, unit: Unit, decision: str = "keep", severity: int = 0) -> JudgedUnit:
    return JudgedUnit(agent=agent, unit=unit, decision=decision, severity=severity)


def long_path() -> PathPair:
    """A wrong path of five steps, so that a unit may speak of any of them."""
    return pair(wrong=("Step 1: a\n", "Step 2: b\n", "Step 3: c\n", "Step 4: d\n", "Answer: 19"))


def survivors(units, consensus, style="stepwise", path=None) -> list[str]:
    return [unit.flaw for unit in surviving_units(units, consensus, style, path or long_path())]


# Which units survive.


BOTH = [
    judged("anna", praise(0, "anna first")),
    judged("anna", error(1, "anna second")),
    judged("bert", praise(0, "bert first")),
    judged("bert", praise(1, "bert second")),
    judged("bert", error(2, "bert third")),
    judged("bert", praise(3, "bert fourth")),
]


@pytest.mark.parametrize(
    ("style", "step", "flaws"),
    [
        ("stepwise", 1, ["anna first", "anna second"]),
        ("free", 1, ["anna first", "anna second"]),
        ("first_error_only", 1, ["anna second"]),
        ("stepwise", 2, ["anna first", "bert second", "bert third"]),
        ("first_error_only", 2, ["bert third"]),
        ("stepwise", None, ["anna first", "bert second", "bert fourth"]),
        ("first_error_only", None, ["anna first", "bert second", "bert fourth"]),
        ("stepwise", 3, []),
        ("stepwise", 0, []),
    ],
)
def test_units_survive_that_fit_the_consensus(style, step, flaws):
    assert survivors(BOTH, agreed(step, anna=0.9, bert=0.4), style) == flaws


@pytest.mark.parametrize("style", STYLES)
def test_a_tie_gives_nothing(style):
    tied = Consensus(verdict="tie", first_wrong_step=None, confidence=0.4, votes=())
    assert survivors(BOTH, tied, style) == []
    assert survivors([judged("anna", praise(0))], tied, style) == []


WEAK = {"decision": "unscored", "by": ["zoe"], "severity": 0}
"""A remark that nothing speaks for; every case below adds one thing to it, in the order of what counts more."""


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        # Kept counts more than being said by two, by a reliable agent, or being severe.
        ({"decision": "keep"}, {"by": ["anna", "bert"], "severity": 3}),
        ({"decision": "fix"}, {"by": ["anna", "bert"], "severity": 3}),
        # Two agents count more than one who is reliable.
        ({"by": ["zoe", "yan"]}, {"by": ["anna"], "severity": 3}),
        ({"by": ["zoe", "yan"], "decision": "keep"}, {"by": ["anna"], "severity": 3, "decision": "fix"}),
        # A reliable agent counts more than a severe remark.
        ({"by": ["anna"]}, {"by": ["bert"], "severity": 3}),
        ({"severity": 2}, {"severity": 1}),
    ],
)
def test_of_two_remarks_on_one_step_the_better_founded_one_survives(better, worse):
    units = [
        judged(agent, error(0, flaw), case["decision"], case["severity"])
        for flaw, case in (("better", WEAK | better), ("worse", WEAK | worse))
        for agent in case["by"]
    ]
    consensus = agreed(0, anna=0.9, bert=0.8, yan=0.1, zoe=0.1)
    for order in itertools.permutations(units):
        assert survivors(order, consensus) == ["better"]


def test_an_agent_that_says_it_twice_is_one_agent():
    units = [judged("liar", error(0, "liar")), judged("liar", error(0, "liar")), judged("anna", error(0, "anna"))]
    assert survivors(units, agreed(0, anna=0.9, liar=0.1)) == ["anna"]


def test_what_was_dropped_backs_nothing():
    units = [
        judged("liar", error(0, "liar")),
        judged("yan", error(0, "liar"), "drop"),
        judged("anna", error(0, "anna")),
    ]
    assert survivors(units, agreed(0, anna=0.9, liar=0.1)) == ["anna"]


def test_equal_ranks_are_told_apart_whatever_the_order():
    units = [judged("anna", error(0, flaw)) for flaw in ("one", "two", "three")]
    assert len({tuple(survivors(order, agreed(0, anna=0.9))) for order in itertools.permutations(units)}) == 1


def test_a_dropped_unit_gives_way_to_one_that_nobody_judged():
    units = [judged("anna", error(0, "anna"), "drop"), judged("bert", error(0, "bert"), "unscored")]
    assert survivors(units, agreed(0, anna=0.9, bert=0.2)) == ["bert"]
    assert survivors(units[:1], agreed(0, anna=0.9)) == []
    kept = judged("cleo", error(0, "cleo"))
    assert survivors([*units, kept], agreed(0, anna=0.9, bert=0.8, cleo=0.1)) == ["cleo"]


def test_without_a_meta_critic_everything_that_fits_survives():
    units = [judged(item.agent, item.unit, "unscored") for item in BOTH]
    assert survivors(units, agreed(2, anna=0.9, bert=0.4)) == ["anna first", "bert second", "bert third"]


# What gives the answer away.


def test_a_fix_that_gives_the_answer_away_falls_and_the_remark_stays():
    leaking = error(1, "It should be more.", fix="Write 20.")
    assert clean_unit(leaking, pair()) == error(1, "It should be more.")
    assert clean_unit(error(1, "It should be more.", fix="See the answer key."), pair()).fix == ""
    sound = error(1, "It should be more.", fix="Add 5 to 14 again.")
    assert clean_unit(sound, pair()) == sound


@pytest.mark.parametrize("flaw", ["It should be 20.", "The sum is twenty.", "The reference solution differs."])
def test_a_flaw_that_gives_the_answer_away_takes_the_remark_with_it(flaw):
    assert clean_unit(error(1, flaw), pair()) is None
    assert clean_unit(praise(1, flaw), pair()) is None


def test_leaking_units_give_way_to_sound_ones_however_well_founded():
    leaking = [judged(agent, error(1, "It should be 20."), severity=3) for agent in ("anna", "bert")]
    sound = judged("zoe", error(1, "It should be more."), "unscored")
    consensus = agreed(1, anna=0.9, bert=0.9, zoe=0.1)
    assert survivors([*leaking, sound], consensus, path=pair()) == ["It should be more."]
    assert survivors(leaking, consensus, path=pair()) == []


# What the composing model is asked.


GOLD = "GOLDSENTINEL"


def test_the_composer_is_never_told_the_answer():
    path = pair(problem(answer=GOLD), right=(f"Step 1: {GOLD}1\n", f"Step 2: {GOLD}2\n", f"Answer: {GOLD}"))
    units = [
        judged("anna", praise(0, f"It comes to {GOLD}.")),
        judged("anna", error(1, f"{GOLD} was missed.")),
        judged("bert", error(1, "It should be more.", fix=f"Write {GOLD}.")),
    ]
    consensus = agreed(1, anna=0.9, bert=0.1)
    for style in STYLES:
        survived = surviving_units(units, consensus, style, path)
        assert [unit.flaw for unit in survived] == ["It should be more."]
        assert GOLD not in compose_prompt(COMPOSE, path, survived, consensus, style)


def test_the_composer_is_told_problem_solution_remarks_and_style():
    units = (praise(0, "The sum holds."), error(1, "It should be more.", quote="14 + 5 = 19"))
    prompt = compose_prompt(COMPOSE, pair(), units, agreed(1), "free")
    assert STYLES["free"] in prompt
    sections = (
        "Problem:\nCalculate 7 + 8 + 5.\n\n"
        "Solution:\nStep 1: 7 + 8 = 14\nStep 2: 14 + 5 = 19\nAnswer: 19\n\n"
        'Remarks:\nStep 1 is right: The sum holds.\nStep 2 is wrong: "14 + 5 = 19". It should be more.\n'
        "The first wrong step is step 2. The solution is incorrect.\n\n"
        "Composed critique:"
    )
    assert prompt.rstrip().endswith(sections)


def test_the_simulated_engine_takes_the_prompt_for_what_it_is():
    prompt = parse_prompt(compose_prompt(COMPOSE, pair(), (error(0),), agreed(0), "stepwise"))
    assert prompt.task == "compose"
    assert prompt.remarks.startswith("Step 1 is wrong. It should be more.")


# What stays of what the model wrote.


UNITS = (praise(0, "The sum holds."), error(1, "It should be more.", quote="14 + 5 = 19"))
CLOSING = "The first wrong step is step 2. The solution is incorrect."
BODY = 'Step 1 is right: The sum holds.\nStep 2 is wrong: "14 + 5 = 19". It should be more.'


def trimmed(text: str, style: str = "stepwise", step: int | None = 1, units: tuple[Unit, ...] = UNITS) -> str | None:
    return trim_composition(text, pair(), units, step, style)


def test_what_the_remarks_say_stays_word_for_word():
    assert trimmed(f"{BODY}\n{CLOSING}") == f"{BODY}\n{CLOSING}"
    assert trimmed("The sum in step 1 holds. In step 2 the sum should be more.") == (
        f"The sum in step 1 holds. In step 2 the sum should be more.\n{CLOSING}"
    )


@pytest.mark.parametrize(
    "added",
    [
        # The final answer, whether it stood somewhere or not.
        "The final answer is 20.",
        "The final answer is 19.",
        "The answer is 20.",
        # Numbers that stand neither in the remarks nor in problem or solution; steps' own numbers are none.
        "It should be 21.",
        "The sum should be 2 more.",
        "It should be 14.5.",
        # Steps of which no remark speaks.
        "Step 3 is wrong.",
        "Steps 2 and 3 should be more.",
        "Steps 2 and 5 should be more.",
        "In step 4 it should be more.",
        # Claims.
        "Nobody proofreads homework nowadays.",
        "The author confused multiplication with division.",
        "It is so.",
        # What a remark says, turned round.
        "Step 1 is wrong.",
        "Step 2 is right.",
        "Step 1 is not right.",
        "Step 2 is not wrong.",
        "The reference solution should be more.",
    ],
)
def test_a_sentence_that_adds_something_falls(added):
    expected = f"{BODY}\n{CLOSING}"
    assert trimmed(f"{BODY} {added}\n{CLOSING}") == expected
    assert trimmed(f"{BODY}\n{added}") == expected
    assert trimmed(f"{added}\n{BODY}") == expected


@pytest.mark.parametrize(
    "closing",
    [
        "",
        CLOSING,
        "The first wrong step is step 2.",
        "The solution is incorrect.",
        "The solution is wrong.",
        "No step is wrong. The solution is correct.",
        "No step is wrong.",
        "The first wrong step is step 1. The solution is incorrect.",
        "The first wrong step is step 3. The solution is incorrect.",
        "The solution is not wrong.",
        "The answer is right.",
    ],
)
def test_the_verdict_at_the_end_is_always_the_panels(closing):
    assert trimmed(f"{BODY}\n{closing}") == f"{BODY}\n{CLOSING}"
    assert trimmed(f"{closing}\n{BODY}") == f"{BODY}\n{CLOSING}"
    assert trimmed(f"{BODY} {closing}") == f"{BODY}\n{CLOSING}"


@pytest.mark.parametrize(
    "closing",
    [
        "",
        "No step is wrong. The solution is correct.",
        "The first wrong step is step 1. The solution is incorrect.",
        "The solution is wrong.",
        "Step 2 is wrong.",
    ],
)
def test_so_it_is_where_the_panel_finds_no_error(closing):
    units = (praise(0, "The sum holds."), praise(1, "It holds, too."))
    said = trim_composition(f"Step 1 is right: The sum holds.\n{closing}", alone(), units, None, "stepwise")
    assert said == "Step 1 is right: The sum holds.\nNo step is wrong. The solution is correct."


def test_a_remark_that_itself_speaks_of_the_answer_may_be_said():
    units = (error(2, "The answer is wrong for the sum before it."),)
    said = "Step 3 is wrong. The answer is wrong for the sum before it."
    assert trimmed(said, step=2, units=units) == (f"{said}\nThe first wrong step is step 3. The solution is incorrect.")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n \n",
        CLOSING,
        "Step 1 is right: The sum holds.",
        "It should be more.",
        "Step 2 is wrong, it should be 20.",
        "Step 2 is right. The sum holds.",
        "Step 3 is wrong: It should be more.",
    ],
)
def test_without_the_sentence_on_the_error_nothing_is_left(text):
    assert trimmed(text) is None
    assert trimmed(text, "free") is None


def test_praise_alone_is_enough_where_nothing_is_wrong_but_a_verdict_is_not():
    def said(text: str) -> str | None:
        return trim_composition(text, alone(), (praise(0, "The sum holds."),), None, "stepwise")

    assert said("The sum in step 1 holds.") == "The sum in step 1 holds.\nNo step is wrong. The solution is correct."
    assert said("No step is wrong. The solution is correct.") is None
    assert said("") is None


def test_an_answer_that_is_no_number_is_lost_too():
    path = pair(problem("Is it (A) odd or (B) even?", "B"), wrong=("Step 1: It is odd.\n", "Answer: A"))
    units = (error(0, "It should be divided."),)
    for added in ("The answer is B.", "The final answer is B.", "It is B.", "Choose (B)."):
        said = trim_composition(f"Step 1 is wrong. It should be divided. {added}", path, units, 0, "stepwise")
        assert said == (
            "Step 1 is wrong. It should be divided.\nThe first wrong step is step 1. The solution is incorrect."
        )


def test_free_prose_is_one_paragraph():
    expected = f'Step 1 is right: The sum holds. Step 2 is wrong: "14 + 5 = 19". It should be more. {CLOSING}'
    assert trimmed(BODY, "free") == expected
    assert trimmed(BODY.replace("\n", "\n\n"), "free") == expected
    assert write_by_template(UNITS, 1, "free") == expected


# The template, and the critique.


@pytest.mark.parametrize("style", ["stepwise", "first_error_only"])
def test_the_template_writes_a_line_a_remark(style):
    assert write_by_template((praise(0, "Yes."), error(1, "No.")), 1, style) == (
        f"Step 1 is right: Yes.\nStep 2 is wrong. No.\n{CLOSING}"
    )


def composition(text: str, written_by: str = "template") -> Composition:
    return Composition(text=text, written_by=written_by, provenance=provenance("m"))


@pytest.mark.parametrize("written_by", ["template", "composed"])
def test_a_composed_critique_says_what_it_is_made_of(written_by):
    units = (praise(0, "Yes."), error(1, "No."))
    views = {"anna": "blind", "bert": "contrastive"}
    made = compose_critique(pair(), units, agreed(1, anna=0.9), composition("Words.", written_by), views)
    assert (made.agent, made.parse_state, made.view, made.text) == ("panel", written_by, "contrastive", "Words.")
    assert (made.verdict, made.first_wrong_step, made.units) == ("incorrect", 1, units)
    assert (made.path_id, made.problem_id, made.provenance.model) == ("pair1", "q1", "m")


def test_a_composed_critique_of_a_right_path_says_so():
    made = compose_critique(alone(), (praise(0),), agreed(None), composition("Words."), {"anna": "blind"})
    assert (made.verdict, made.first_wrong_step, made.view) == ("correct", None, "blind")


@pytest.mark.parametrize(
    "views", [["blind", "blind"], ["contrastive", "blind"], ["blind", "reference", "contrastive"]], ids="-".join
)
def test_a_composed_critique_bears_the_widest_view_behind_it(views):
    named = {f"agent{i}": view for i, view in enumerate(views)}
    widest = "reference" if "reference" in views else "contrastive" if "contrastive" in views else "blind"
    assert compose_critique(pair(), (error(0),), agreed(0), composition("x"), named).view == widest


def test_the_same_remarks_in_other_words_are_another_critique():
    texts = ("One.", "Two.")
    ids = {compose_critique(pair(), UNITS, agreed(1), composition(text), {"anna": "blind"}).id for text in texts}
    assert len(ids) == 2

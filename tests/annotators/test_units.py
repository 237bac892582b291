import json
import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotators.units import (
    CRITIQUE_REJECTIONS,
    JUDGEMENT_SCHEMA,
    CritiqueError,
    Judgement,
    critique_schema,
    parse_critique,
    parse_judgement,
    render_critique,
    render_unit,
)
from schemas import Unit
from tests.annotators.annotated import error, praise

STEPS = ("Step 1: 7 + 8 = 14\n", "Step 2: 14 + 5 = 19\n", "Answer: 19")


def is_valid(value: Any, schema: dict[str, Any]) -> bool:
    """JSON Schema, as far as our schemas use it; an unknown keyword is an error of the test."""
    types = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "null": type(None),
    }
    items = value if isinstance(value, list) else []
    fields = value if isinstance(value, dict) else {}
    holds = {
        "type": lambda kind: isinstance(value, types[kind]) and not isinstance(value, bool),
        "enum": lambda options: value in options,
        "const": lambda constant: value == constant and type(value) is type(constant),
        "anyOf": lambda options: any(is_valid(value, option) for option in options),
        "minimum": lambda bound: value >= bound,
        "maximum": lambda bound: value <= bound,
        "minLength": lambda bound: len(value) >= bound,
        "maxLength": lambda bound: len(value) <= bound,
        "pattern": lambda pattern: re.search(pattern, value) is not None,
        "minItems": lambda bound: len(items) >= bound,
        "maxItems": lambda bound: len(items) <= bound,
        "items": lambda item: all(is_valid(each, item) for each in items),
        "prefixItems": lambda each: all(map(is_valid, items, each)),
        "required": lambda names: all(name in fields for name in names),
        "properties": lambda known: all(is_valid(fields[name], known[name]) for name in fields.keys() & known.keys()),
        "additionalProperties": lambda allowed: allowed or not fields.keys() - schema["properties"].keys(),
    }
    order = ["type", *(keyword for keyword in schema if keyword != "type")] if "type" in schema else list(schema)
    return all(holds[keyword](schema[keyword]) for keyword in order)


def reply(first: Any = 1, verdict: str = "incorrect", **unit: Any) -> dict[str, Any]:
    """What a critic may write; one unit that names an error in step 1 unless said otherwise."""
    named = {"step": 1, "quote": "7 + 8 = 14", "flaw": "7 + 8 is 15.", "kind": "error"} | unit
    return {"units": [named], "first_wrong_step": first, "verdict": verdict}


def rejection(text: str, steps: tuple[str, ...] = STEPS) -> str:
    with pytest.raises(CritiqueError) as caught:
        parse_critique(text, steps)
    assert caught.value.reason in CRITIQUE_REJECTIONS
    assert str(caught.value)
    return caught.value.reason


FULL_UNIT = {
    "step": 3,
    "quote": "19",
    "flaw": "x",
    "kind": "praise",
    "fix": "",
    "error_type": "answer_mismatch",
    "severity": 3,
}


@pytest.mark.parametrize(
    "instance",
    [
        reply(),
        reply(None, "correct", kind="praise"),
        {"units": [FULL_UNIT], "first_wrong_step": 3, "verdict": "incorrect"},
        {"units": [{"step": 1, "flaw": "x", "kind": "error"}] * 7, "first_wrong_step": 1, "verdict": "incorrect"},
        reply(flaw="x" * 400),
    ],
)
def test_the_free_schema_admits_critiques(instance):
    assert is_valid(instance, json.loads(critique_schema(STEPS, "free")))


@pytest.mark.parametrize(
    "instance",
    [
        reply(step=0),
        reply(step=4),
        reply(step="1"),
        reply(first=0),
        reply(first=4),
        reply(first="none"),
        reply(verdict="wrong"),
        reply(kind="remark"),
        reply(severity=4),
        reply(severity=-1),
        reply(error_type="typo"),
        reply(flaw="x" * 401),
        reply(mood="bad"),
        reply() | {"mood": "bad"},
        {"units": [], "first_wrong_step": None, "verdict": "correct"},
        {"units": reply()["units"] * 8, "first_wrong_step": 1, "verdict": "incorrect"},
        {"units": [{"step": 1, "kind": "error"}], "first_wrong_step": 1, "verdict": "incorrect"},
        {"units": reply()["units"], "verdict": "incorrect"},
        [],
        None,
    ],
)
def test_the_free_schema_admits_nothing_else(instance):
    assert not is_valid(instance, json.loads(critique_schema(STEPS, "free")))


def walked(*kinds: str, **first: str) -> dict[str, Any]:
    """A walk over the two steps; praise repeats a step, an error says what it should be."""
    redone = (("7 + 8 = 14", "7 + 8 = 15"), ("14 + 5 = 19", "14 + 5 = 18"))
    wrong = len(kinds) if kinds[-1] == "error" else None
    units = [
        {"step": i, "quote": stated, "flaw": stated if kind == "praise" else other, "kind": kind}
        for i, ((stated, other), kind) in enumerate(zip(redone, kinds, strict=False), 1)
    ]
    units[0] |= first
    return {"units": units, "first_wrong_step": wrong, "verdict": "incorrect" if wrong else "correct"}


@pytest.mark.parametrize("kinds", [("error",), ("praise", "error"), ("praise", "praise")])
def test_the_walk_schema_admits_a_walk_up_to_the_first_error_which_parses(kinds):
    instance = walked(*kinds)
    assert is_valid(instance, json.loads(critique_schema(STEPS, "walk")))
    parsed = parse_critique(json.dumps(instance), STEPS)
    assert [unit.kind for unit in parsed.units] == list(kinds)


@pytest.mark.parametrize(
    "instance",
    [
        walked("praise"),
        walked("error", "praise"),
        walked("error", "error"),
        walked("praise", "error") | {"first_wrong_step": 1},
        walked("praise", "error") | {"verdict": "correct"},
        walked("praise", "praise") | {"first_wrong_step": 3, "verdict": "incorrect"},
        walked("error", flaw="7 + 8 = 14"),
        walked("error", flaw=""),
        walked("error", quote="7 + 8 = 15"),
        walked("praise", "praise", flaw="7 + 8 = 15"),
    ],
)
def test_the_walk_schema_admits_no_skipped_step_and_no_contradiction(instance):
    assert not is_valid(instance, json.loads(critique_schema(STEPS, "walk")))


LINES = st.text(alphabet="()[]{}^-.*+?|$/ =a1\u00e9", min_size=1, max_size=12).map(str.strip).filter(bool)


@settings(max_examples=200, deadline=None)
@given(LINES, LINES)
def test_in_a_walk_an_error_says_something_else_than_the_step_whatever_it_holds(step, other):
    schema = json.loads(critique_schema((step + "\n", "Answer: 1"), "walk"))

    def walk(flaw: str) -> dict[str, Any]:
        unit = {"step": 1, "flaw": flaw, "quote": step, "kind": "error"}
        return {"units": [unit], "first_wrong_step": 1, "verdict": "incorrect"}

    assert not is_valid(walk(step), schema)
    assert is_valid(walk(other), schema) == (not step.startswith(other))


def pattern_of(step: str) -> str:
    """What the flaw of an error in a solution's only step is held to."""
    _, wrong = json.loads(critique_schema((step + "\n", "Answer: 1"), "walk"))["anyOf"]
    return wrong["properties"]["units"]["prefixItems"][0]["properties"]["flaw"]["pattern"]


def test_a_pattern_escapes_what_means_something_in_it_and_nothing_else():
    """llama.cpp takes any string where a pattern has an escape that it does not know, such as that of a space."""
    end = r'"\\\x00-\x1f\x7f]'
    assert pattern_of("1 + -") == (
        rf"^(?:[^1{end}|1[^ {end}|1 [^+{end}|1 \+[^ {end}|1 \+ [^\x2d{end}|1 \+ -[^{end})[^{end}{{0,60}}$"
    )
    assert rf"|a\[[^\x5d{end}|" in pattern_of("a[]")
    assert pattern_of("a[]").startswith(rf"^(?:[^a{end}|a[^\x5b{end}|")
    every = pattern_of("^$.*+?()[]{}|/-=#&~%,:;!<>'@_`1a\u00e9")
    assert set(re.findall(r"\\(.)", every)) == set(r"^$.*+?()[]{}|\x")


@pytest.mark.parametrize(
    ("step", "flaw", "admitted"),
    [
        (r"x = \frac{1}{2}", r"x = \frac{1}{3}", False),
        (r"x = \frac{1}{2}", r"x = \frac{1}{2}", False),
        (r"x = \frac{1}{2}", "x = 1/3", True),
        (r"x = \frac{1}{2}", "x = ", False),
        (r"\pi = 3", "3.14", True),
        ('He "ran"', "He walked", True),
        ('He "ran"', 'He "walked"', False),
        ("two\nlines", "two", False),
        ("two\nlines", "twofold", True),
    ],
)
def test_a_step_with_what_json_escapes_is_left_there_at_the_latest(step, flaw, admitted):
    assert (re.search(pattern_of(step), flaw) is not None) == admitted


def test_the_walk_schema_of_a_solution_that_is_only_an_answer_walks_that():
    instance = {
        "units": [{"step": 1, "quote": "Answer: 19", "flaw": "No work.", "kind": "error"}],
        "first_wrong_step": 1,
        "verdict": "incorrect",
    }
    assert is_valid(instance, json.loads(critique_schema(("Answer: 19",), "walk")))


def test_a_model_meets_what_it_sees_before_the_verdict():
    schema = json.loads(critique_schema(STEPS, "free"))
    assert list(schema["properties"]) == ["units", "first_wrong_step", "verdict"]
    unit = list(schema["properties"]["units"]["items"]["properties"])
    assert unit.index("flaw") < unit.index("kind") < unit.index("fix")


@pytest.mark.parametrize(
    ("instance", "valid"),
    [
        ({"decision": "keep", "severity": 0}, True),
        ({"decision": "fix", "severity": 3, "fix": "Say it so."}, True),
        ({"decision": "keep"}, False),
        ({"decision": "maybe", "severity": 1}, False),
        ({"decision": "drop", "severity": 4}, False),
        ({"decision": "drop", "severity": 1, "why": "x"}, False),
    ],
)
def test_the_judgement_schema(instance, valid):
    assert is_valid(instance, json.loads(JUDGEMENT_SCHEMA)) == valid


def test_steps_count_from_one_in_text_and_from_zero_in_records():
    text = json.dumps(
        {
            "units": [
                {"step": 1, "flaw": "It holds.", "kind": "praise"},
                {
                    "step": 2,
                    "quote": " 14 + 5\n= 19 ",
                    "flaw": " Not so. ",
                    "kind": "error",
                    "fix": " Add again. ",
                    "error_type": "calculation",
                    "severity": 2,
                },
            ],
            "first_wrong_step": 2,
            "verdict": "incorrect",
        }
    )
    parsed = parse_critique(text, STEPS)
    assert (parsed.first_wrong_step, parsed.verdict) == (1, "incorrect")
    assert parsed.units == (
        Unit(step=0, quote="", kind="praise", flaw="It holds."),
        Unit(
            step=1,
            quote="14 + 5\n= 19",
            kind="error",
            flaw="Not so.",
            fix="Add again.",
            error_type="calculation",
            severity=2,
        ),
    )


def test_the_last_step_can_be_named():
    text = json.dumps(reply(first=3, step=3, quote="Answer: 19"))
    assert parse_critique(text, STEPS).first_wrong_step == 2


@pytest.mark.parametrize(
    "wrap",
    ["{}", "```json\n{}\n```", "```\n{}```", "Here it is:\n\n{}\n\nI hope that this helps!", "\ufeff {} \n"],
)
def test_words_and_code_fences_around_the_json_do_no_harm(wrap):
    text = wrap.replace("{}", json.dumps(reply()))
    assert parse_critique(text, STEPS) == parse_critique(json.dumps(reply()), STEPS)


@pytest.mark.parametrize("text", ["", "no", "null", "[1, 2]", "}{", "} and {", "{", "\x00"])
def test_without_an_object_there_is_no_json(text):
    assert rejection(text) == "no_json"


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "{'units': []}",
        json.dumps(reply())[:-3] + "}",
        json.dumps(reply()) * 2,
        json.dumps(reply() | {"units": None}),
        json.dumps(reply() | {"units": {}}),
        json.dumps(reply(kind="remark")),
        json.dumps(reply(step="1")),
        json.dumps(reply(step=1.5)),
        json.dumps(reply(step=None)),
        json.dumps(reply(step=True)),
        json.dumps(reply(flaw=None)),
        json.dumps(reply(verdict="Incorrect")),
        json.dumps(reply(severity=float("nan"))),
        json.dumps(reply(severity=float("inf"))),
        json.dumps({"units": [], "verdict": "correct"}),
        json.dumps(reply(quote="\ud800")),
    ],
)
def test_json_that_is_no_critique_breaks_the_schema(text):
    assert rejection(text) == "bad_schema"


@pytest.mark.parametrize("step", [0, -1, 4, 10**18, -(10**18), 10**30])
def test_steps_that_are_not_there_are_out_of_range(step):
    assert rejection(json.dumps(reply(step=step))) == "step_out_of_range"
    assert rejection(json.dumps(reply(first=step))) == "step_out_of_range"


@pytest.mark.parametrize("quote", ["7 + 8 = 15", "14 + 5 = 19", "7+8=14", "Step 2", "x" * 1_000_000])
def test_a_quote_must_stand_in_its_own_step(quote):
    assert rejection(json.dumps(reply(quote=quote))) == "quote_not_in_step"


def test_the_complaint_about_a_quote_is_short_enough_to_be_asked_with():
    with pytest.raises(CritiqueError) as caught:
        parse_critique(json.dumps(reply(quote="x" * 1_000_000)), STEPS)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("quote", ["", "  ", "7 + 8", "7  +\t8 = 14", "STEP 1: 7 + 8 = 14", "Step 1: 7 + 8 = 14"])
def test_a_quote_may_differ_in_space_and_case(quote):
    assert parse_critique(json.dumps(reply(quote=quote)), STEPS).units[0].kind == "error"


def test_a_quote_may_bear_the_number_that_critics_are_shown_where_the_step_has_none():
    parsed = parse_critique(json.dumps(reply(quote="Step 1: 7 + 8 = 14")), ("7 + 8 = 14\n", "Answer: 14"))
    assert parsed.units[0].quote == "7 + 8 = 14"


@pytest.mark.parametrize(
    "said",
    [
        reply(first=None),
        reply(first=None, verdict="correct"),
        reply(verdict="correct"),
        reply(first=2),
        reply(kind="praise"),
        {"units": [], "first_wrong_step": 1, "verdict": "incorrect"},
        {
            "units": [
                {"step": 1, "flaw": "Wrong.", "kind": "error"},
                {"step": 2, "flaw": "Wrong too.", "kind": "error"},
            ],
            "first_wrong_step": 2,
            "verdict": "incorrect",
        },
    ],
    ids=[
        "incorrect without a place",
        "correct with an error unit",
        "correct with a place",
        "place without a unit",
        "place with praise",
        "place with nothing",
        "an error before the first",
    ],
)
def test_a_critique_may_not_contradict_itself(said):
    assert rejection(json.dumps(said)) == "contradicts_itself"


def test_errors_after_the_first_wrong_step_are_no_contradiction():
    said = reply()
    said["units"].append({"step": 2, "flaw": "Carried on.", "kind": "error"})
    assert [unit.step for unit in parse_critique(json.dumps(said), STEPS).units] == [0, 1]


@pytest.mark.parametrize(("severity", "kept"), [(None, 3), (-5, 0), (0, 0), (2, 2), (3, 3), (99, 3)])
def test_severity_lies_in_its_range(severity, kept):
    assert parse_critique(json.dumps(reply(severity=severity)), STEPS).units[0].severity == kept


def test_an_unknown_error_type_is_another_and_praise_has_none_of_it():
    assert parse_critique(json.dumps(reply(error_type="typo")), STEPS).units[0].error_type == "other"
    text = json.dumps(reply(None, "correct", kind="praise", error_type="calculation", fix="x", severity=3))
    (unit,) = parse_critique(text, STEPS).units
    assert (unit.error_type, unit.fix, unit.severity) == ("", "", 0)


@pytest.mark.parametrize("parse", [lambda text: parse_critique(text, STEPS), parse_judgement])
@pytest.mark.parametrize(
    "text",
    [
        '{"x":' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        "{" * 500_000 + "}" * 500_000,
        json.dumps(reply()).replace("1", "1" + "0" * 10_000),
        '{"decision":"keep","severity":1' + "0" * 10_000 + "}",
        '{"decision":"keep","severity":NaN}',
        '{"\ud800":"\udfff"}',
        "{" + "\ud800" * 1000 + "}",
        '{"units":[' + '{"step":1,"kind":"error","flaw":"x"},' * 30_000 + "]}",
        '{"verdict":"' + "a" * 1_000_000 + '"}',
        " " * 1_000_000 + "{}",
        '{"' + "\\" * 1_000_000 + "}",
    ],
    ids=[
        "arrays",
        "objects",
        "braces",
        "int",
        "severity",
        "nan",
        "key",
        "surrogates",
        "units",
        "1MB",
        "space",
        "backslashes",
    ],
)
def test_hostile_json_costs_little_and_is_no_critique(parse, text):
    start = time.process_time()
    with pytest.raises(CritiqueError) as caught:
        parse(text)
    assert time.process_time() - start < 2
    assert len(str(caught.value)) < 1000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NUMBERS = st.sampled_from([None, -1, 0, 1, 2, 3, 4, 1.0, "1", 10**30])
UNITS = st.fixed_dictionaries(
    {"step": NUMBERS | JSON, "flaw": st.text(max_size=5), "kind": st.sampled_from(["error", "praise", "x"])},
    optional={"quote": st.sampled_from(["", "7 + 8", "19"]) | JSON, "severity": NUMBERS, "fix": JSON, "extra": JSON},
)
REPLIES = st.fixed_dictionaries(
    {
        "units": st.lists(UNITS, max_size=4) | JSON,
        "first_wrong_step": NUMBERS | JSON,
        "verdict": st.sampled_from(["correct", "incorrect"]) | JSON,
    }
)


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text(alphabet='{}[]":,1eE.-nul \\u') | REPLIES.map(json.dumps) | JSON.map(json.dumps))
def test_arbitrary_text_is_a_sound_critique_or_a_critique_error(text):
    try:
        parsed = parse_critique(text, STEPS)
    except CritiqueError:
        return
    errors = sorted(unit.step for unit in parsed.units if unit.kind == "error")
    assert parsed.first_wrong_step == (errors[0] if errors else None)
    assert (parsed.verdict == "incorrect") == bool(errors)
    assert all(0 <= unit.step < len(STEPS) and 0 <= unit.severity <= 3 for unit in parsed.units)


@settings(max_examples=200, deadline=None)
@given(st.text() | JSON.map(json.dumps))
def test_arbitrary_text_is_a_judgement_or_a_critique_error(text):
    try:
        judgement = parse_judgement(text)
    except CritiqueError:
        return
    assert judgement.decision in ("keep", "fix", "drop")
    assert 0 <= judgement.severity <= 3


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["error", "praise"]), st.integers(0, 2), st.text(max_size=20))
def test_what_is_written_as_json_is_read_back(kind, step, flaw):
    wrong = step + 1 if kind == "error" else None
    said = {
        "units": [{"step": step + 1, "flaw": flaw, "kind": kind}],
        "first_wrong_step": wrong,
        "verdict": "incorrect" if wrong else "correct",
    }
    parsed = parse_critique(json.dumps(said), STEPS)
    assert parsed.first_wrong_step == (step if wrong else None)
    assert [(unit.step, unit.kind, unit.flaw) for unit in parsed.units] == [(step, kind, flaw.strip())]


def test_a_judgement_is_read_from_within_words():
    text = 'I think:\n```json\n{"decision": "fix", "severity": 2, "fix": "Say it so."}\n```'
    assert parse_judgement(text) == Judgement(decision="fix", severity=2, fix="Say it so.")


@pytest.mark.parametrize(("severity", "kept"), [(-1, 0), (1, 1), (10, 3), (10**30, 3)])
def test_a_judgements_severity_lies_in_its_range(severity, kept):
    text = json.dumps({"decision": "drop", "severity": severity})
    assert parse_judgement(text) == Judgement(decision="drop", severity=kept)


@pytest.mark.parametrize(
    ("text", "reason"), [("keep", "no_json"), ('{"decision":"maybe"}', "bad_schema"), ("{}", "bad_schema")]
)
def test_a_judgement_that_is_none_says_why(text, reason):
    with pytest.raises(CritiqueError) as caught:
        parse_judgement(text)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("unit", "line"),
    [
        (praise(0, "7 + 8 is 15."), "Step 1 is right: 7 + 8 is 15."),
        (error(1, "14 + 5 is 20."), "Step 2 is wrong. 14 + 5 is 20."),
        (error(1, "It is more.", quote="14 + 5"), 'Step 2 is wrong: "14 + 5". It is more.'),
        (error(0, "No.", quote="8", fix="Add again."), 'Step 1 is wrong: "8". No. Add again.'),
        (error(0, "", fix="Add again."), "Step 1 is wrong. Add again."),
    ],
)
def test_a_unit_is_a_line(unit, line):
    assert render_unit(unit) == line


def test_a_critique_reads_in_the_order_of_steps_and_ends_with_the_verdict():
    assert render_critique([error(1, "No."), praise(0, "Yes.")], 1) == (
        "Step 1 is right: Yes.\nStep 2 is wrong. No.\nThe first wrong step is step 2. The solution is incorrect."
    )
    assert render_critique([praise(0, "Yes.")], None) == (
        "Step 1 is right: Yes.\nNo step is wrong. The solution is correct."
    )
    assert render_critique([], None) == "No step is wrong. The solution is correct."


def test_units_on_one_step_keep_their_order():
    assert render_critique([error(0, "B."), error(0, "A.")], 0).splitlines()[:2] == [
        "Step 1 is wrong. B.",
        "Step 1 is wrong. A.",
    ]

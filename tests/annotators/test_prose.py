import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotators.prose import read_prose
from annotators.units import CRITIQUE_REJECTIONS, CritiqueError, render_critique
from benchmarks.leaks import mathcritique, prose_read
from tests.annotators.annotated import error, praise

STEPS = ("Step 1: 7 + 8 = 14\n", "Step 2: 14 + 5 = 19\n", "Answer: 19")


def read(text: str) -> tuple[list[tuple[int, str]], int | None, str]:
    parsed = read_prose(text, STEPS)
    return [(unit.step, unit.kind) for unit in parsed.units], parsed.first_wrong_step, parsed.verdict


@pytest.mark.parametrize(
    ("text", "units", "first"),
    [
        ("Step 1 is wrong: 7 and 8 make 15.", [(0, "error")], 0),
        ("Error in step 2: it adds 4.", [(1, "error")], 1),
        ("There is a mistake in step 2.", [(1, "error")], 1),
        ("The first error is in step 2: it adds 4.", [(1, "error")], 1),
        ("In step 1, the sum is correct.\nIn step 2, it should be 20.", [(0, "praise"), (1, "error")], 1),
        ("**Step 1**: Correct.\n**Step 2**: Incorrect.", [(0, "praise"), (1, "error")], 1),
        ("- Step 1: no errors.\n- Step 2: this does not follow.", [(0, "praise"), (1, "error")], 1),
        ("1. Step 1 is not correct.", [(0, "error")], 0),
        ("Step 1 is right: it holds.\nNo step is wrong. The solution is correct.", [(0, "praise")], None),
        ("Step 1 holds.\nStep 2 holds.", [(0, "praise"), (1, "praise")], None),
        ("Step 1 adds.\nStep 2 fails.", [(1, "error")], 1),
        ("Step 1 is wrong.\nOverall, the final answer is incorrect.", [(0, "error")], 0),
        ("Step 2 is wrong.\nStep 1 is wrong.\nThe first wrong step is step 1.", [(1, "error"), (0, "error")], 0),
        (
            "Step sentence: 7 + 8 = 14\nCorrectness of the step: Wrong\nExplanation: It is 15.\n\n"
            "Step sentence: 14 + 5 = 19\nCorrectness of the step: Correct\nExplanation: It adds, wrong as 14 is.\n\n"
            "Correctness of the final answer: Wrong\nExplanation: So it is.",
            [(0, "error"), (1, "praise")],
            0,
        ),
    ],
)
def test_remarks_are_read(text, units, first):
    assert read(text) == (units, first, "correct" if first is None else "incorrect")


@pytest.mark.parametrize(
    ("text", "quote", "flaw"),
    [
        ('Step 1 is wrong: "7 + 8 = 14".\nIt is\nnot. Add again.', "7 + 8 = 14", "It is not. Add again."),
        ('Step 1 is wrong: "7 + 8 = 13". No.', "", "No."),
        ("Error in step 1: it is 15.", "", "it is 15."),
        (
            "Step sentence: 7 + 8 = 14\nCorrectness of the step: Wrong\nExplanation: It is 15.",
            "7 + 8 = 14",
            "It is 15.",
        ),
    ],
)
def test_a_remark_keeps_its_words_and_what_it_quotes(text, quote, flaw):
    (unit,) = read_prose(text, STEPS).units
    assert (unit.step, unit.quote, unit.flaw, unit.error_type, unit.severity) == (0, quote, flaw, "other", 3)


def test_a_sentence_is_found_without_the_calculators_marks_and_in_order():
    steps = ("It is 5 / 2 = $<<5/2=2.5>>2.5.", "So 2.5.", "It is 5 / 2 = $<<5/2=2.5>>2.5.")
    text = "Step sentence: {}\nCorrectness of the step: {}\n"
    said = [("It is 5 / 2 = $2.5", "Correct"), ("So 2.5.", "Correct"), ("It is 5 / 2 = $2.5.", "Wrong")]
    parsed = read_prose("".join(text.format(*pair) for pair in said), steps)
    assert [(unit.step, unit.quote) for unit in parsed.units] == [(0, ""), (1, "So 2.5."), (2, "")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "bad_schema"),
        ("It is all wrong.", "bad_schema"),
        ("Step 1 adds.", "bad_schema"),
        ("Step 4 is wrong.", "step_out_of_range"),
        ("Step 0 is wrong.", "step_out_of_range"),
        ("Step sentence: He runs away\nCorrectness of the step: Wrong", "quote_not_in_step"),
        ("Step 1 is wrong.\nThe solution is correct.", "contradicts_itself"),
        ("Step 1 is right.\nThe solution is incorrect.", "contradicts_itself"),
        ("Step 1 is right.\nThe solution is not correct.", "contradicts_itself"),
        ("Step 1 is wrong.\nStep 2 is wrong.\nThe first wrong step is step 2.", "contradicts_itself"),
        ("Step 1 is wrong.\nNo step is wrong. The solution is correct.", "contradicts_itself"),
    ],
)
def test_what_is_no_critique_is_refused(text, reason):
    with pytest.raises(CritiqueError) as refused:
        read_prose(text, STEPS)
    assert refused.value.reason == reason
    assert reason in CRITIQUE_REJECTIONS


flaws = st.sampled_from(["It adds.", "The sum is 15, not 14.", "Look at it again, it is right there."])


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 3), flaws, st.sampled_from(["", "7 + 8 = 14", "14 + 5 = 19", "19"]))
def test_what_is_rendered_is_read_back(wrong, flaw, quote):
    steps = [*STEPS[:2], "Step 3: 19 + 0 = 19\n", "Answer: 19"]
    quote = quote if quote in steps[wrong] else ""
    units = [*(praise(i, "This holds.") for i in range(wrong)), error(wrong, flaw, quote=quote)]
    parsed = read_prose(render_critique(units, wrong), steps)
    assert [(unit.step, unit.kind, unit.flaw, unit.quote) for unit in parsed.units] == [
        (unit.step, unit.kind, unit.flaw, unit.quote) for unit in units
    ]
    assert (parsed.first_wrong_step, parsed.verdict) == (wrong, "incorrect")


PIECES = [
    "Step 1",
    "Step 2 is wrong",
    "Step 9",
    "Step sentence: 7 + 8 = 14",
    "Correctness of the step: Wrong",
    ": ",
    "right",
]
PIECES += [
    "\n",
    " is ",
    "No step is wrong",
    "The solution is correct.",
    "The first error is in step 2",
    '"',
    "14 + 5",
    "\x00",
]


def outcome(text: str) -> str:
    try:
        return read_prose(text, STEPS).verdict
    except CritiqueError as refused:
        return refused.reason


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=14))
def test_whatever_is_written_is_read_or_refused(pieces):
    assert outcome("".join(pieces)) in ("correct", "incorrect", *CRITIQUE_REJECTIONS)


@pytest.mark.parametrize("piece", ["\n", "Step 1 is right.\n", "Step 1\n", "* ", 'Step 1 is wrong: "', "answer is "])
def test_hostile_text_costs_little(piece):
    start = time.process_time()
    outcome(piece * (100_000 // len(piece)))
    assert time.process_time() - start < 5


@pytest.mark.parametrize(("name", "least"), [("gsm8k", 50), ("math", 47)])
def test_real_critiques_in_prose_are_read(shared_data, name, least):
    rows = mathcritique(shared_data, name)
    assert len(rows) == 50
    assert prose_read(rows) >= least


def test_real_remarks_have_the_kind_that_their_label_says(shared_data):
    for row in mathcritique(shared_data, "gsm8k"):
        labels = re.findall(r"Correctness of the step: *(\w+)", row.critique)
        kinds = [unit.kind for unit in read_prose(row.critique, row.steps).units]
        assert kinds[: len(labels)] == ["praise" if label == "Correct" else "error" for label in labels]

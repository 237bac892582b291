import json
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotators.units import render_critique
from annotators.wording import (
    _bands,
    is_readable,
    near_duplicates,
    repeated_share,
    talks_of_reference,
    visible_length,
)
from benchmarks.leaks import LABELS, mathcritique, metacritique
from tests.annotators.annotated import error, praise


@pytest.mark.parametrize(
    "text",
    [
        "The reference solution says 5.",
        "The reference correct answer indicates another approach.",
        "This matches the reference answer's total.",
        "as shown in the reference",
        "It differs from the reference.",
        "the Gold Answer",
        "the golden solution, the gold-standard answer",
        "The official solution adds.",
        "The ground truth is 5.",
        "ground-truth answer",
        "Unlike the correct solution, it adds.",
        "It differs from the correct\nsolution.",
        "This is not part of the correct solution.",
        "Compared with the correct answer it is too small.",
        "The correct solution says to add.",
        "The correct solution uses subtraction.",
        "The correct final answer differs.",
        "THE RIGHT ANSWER SHOWS 5",
        "the correct answer given above",
        "The other solution multiplies.",
        "Compared with the other solution it adds.",
        "Another solution gets it.",
        "The second solution divides first.",
        "as given in the solution above I was shown",
        "the answer that I was given",
        "As the hint says, add.",
        "Hints help.",
        "See the answer key.",
    ],
)
def test_talk_of_what_the_reader_does_not_have_is_found(text):
    assert talks_of_reference(text)


@pytest.mark.parametrize(
    "text",
    [
        render_critique([error(1, "7 + 8 is 15.", quote="7 + 8 = 14", fix="Add again.")], 1),
        render_critique([praise(0, "The sum is right.")], None),
        render_critique([error(0, "It is not.")], 0),
        "The solution is correct.",
        "The solution is incorrect.",
        "The answer is right.",
        "This answer does not follow.",
        "The solution states an incorrect answer.",
        "That is correct. Solutions need units.",
        # What critics say who have seen no other answer.
        "The correct answer should be checked.",
        "The correct answer should be 15.",
        "The right answer is tall building.",
        "The correct answer would be that he was glad.",
        "It does not lead to the correct answer.",
        "It does not provide the correct answer.",
        "It misses the right answer.",
        "A correct solution would add.",
        "The correct total requires both.",
        "The given answer is wrong.",
        "Another solution would be to divide.",
        "Unlike the first step, it adds.",
        # Words with other meanings.
        "The text hints at another reason.",
        "There is a hint of doubt in it.",
        "Measure it from the reference point.",
        "This is compared with the reference angle.",
        "The gold weighs 5.",
        "Golden rule.",
        "The chintz costs 5.",
        "Turn right, answer later.",
        "",
    ],
)
def test_talk_of_the_solution_itself_is_allowed(text):
    assert not talks_of_reference(text)


def test_real_critiques_that_speak_of_a_reference_are_found_and_no_other(shared_data):
    """Labels by hand; the critics of the other data were shown no reference."""
    labels = json.loads(LABELS.read_text())["reference_talk"]
    for name in ("gsm8k", "math"):
        rows = mathcritique(shared_data, name)
        assert [i for i, row in enumerate(rows) if talks_of_reference(row.critique)] == labels[name]
    others = list(metacritique(shared_data))
    assert len(others) == 200
    assert sum(map(talks_of_reference, others)) <= 2


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0),
        ("\n \n", 0),
        ("one", 0),
        ("a\nb\nc", 0),
        ("a\na", 0.5),
        ("a\n\nA \n b\na", 0.5),
        ("Step 1: ok\nStep 2: ok\nStep 3: ok\nStep 4: ok", 0.75),
        ("Step 1: ok\nok", 0.5),
        ("Step 1 is right: ok\nStep 2 is right: ok", 0.5),
        ("Step 1 is wrong. No.\nStep 2 is wrong. No.", 0.5),
        ("Step 1 is right: 7\nStep 2 is wrong: 8", 0),
        ("Step 1: 7\nStep 2: 8", 0),
    ],
)
def test_the_share_of_repeated_lines(text, share):
    assert repeated_share(text) == pytest.approx(share)


@pytest.mark.parametrize(
    ("text", "length"), [("", 0), (" \n\t", 0), ("ab", 2), ("  a \n\n b  ", 3), ("\u00e4\u00df", 2)]
)
def test_white_space_makes_no_length(text, length):
    assert visible_length(text) == length


@pytest.mark.parametrize(
    ("text", "readable"),
    [
        ("Step 1 is wrong. 7 and 8 make more.", True),
        (render_critique([error(0, "23456 + 98765 = 122221.", quote="23456 + 98765 = 122222")], 0), True),
        (r"Solving $-32t + 32 = 0$ gives $t = 1$, not $t = \frac{1}{2}$.", True),
        ("\u7b2c\u4e00\u6b65\u662f\u9519\u7684\u3002", True),
        ("\u041f\u0435\u0440\u0432\u044b\u0439 \u0448\u0430\u0433 \u043d\u0435\u0432\u0435\u0440\u0435\u043d.", True),
        ("a" * 49 + "\x00", True),
        ("a" * 48 + "\x00", False),
        ("", False),
        (" \n", False),
        ("\x00\x01\x02 words", False),
        ("\ufffd\ufffd\ufffd words and more words", False),
        ("\ud800 words", False),
        ("\ue000\ue001 words", False),
        ("1 2 3 4 5 6 7 8 9 10 11 12", False),
        ("#### %%% ???? ----", False),
        ("ab34567890", True),
        ("a234567890", False),
        ("x" * 60, True),
        ("x" * 61, False),
        ("See " + "QUJD" * 50, False),
    ],
)
def test_readable_is_what_is_mostly_letters_of_words(text, readable):
    assert is_readable(text) == readable


def test_all_real_critiques_are_readable(shared_data):
    texts = [row.critique for name in ("gsm8k", "math") for row in mathcritique(shared_data, name)]
    assert [text for text in (*texts, *metacritique(shared_data)) if not is_readable(text)] == []


def jaccard(left: str, right: str) -> float:
    """Of the runs of three words of texts that are words and spaces only."""
    ours, theirs = ({tuple(words[i : i + 3]) for i in range(len(words) - 2)} for words in (left.split(), right.split()))
    return len(ours & theirs) / len(ours | theirs)


def made_words(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choices("abcdefghij", k=6)) for _ in range(count)]


def test_the_first_of_near_duplicates_is_kept():
    text = " ".join(made_words(100))
    longer = text + " more"
    assert jaccard(text, longer) == pytest.approx(98 / 99)
    critiques = [(text, "a"), ("something else altogether", "b"), (longer, "c"), (text, "d")]
    assert near_duplicates(critiques) == {"c": "a", "d": "a"}


def test_case_and_punctuation_do_not_count():
    assert near_duplicates([("The sum is wrong, add again.", "a"), ("the SUM is wrong; add again!", "b")]) == {"b": "a"}


@pytest.mark.parametrize(("length", "same"), [(20, False), (58, False), (59, True), (200, True)])
def test_one_other_number_makes_another_text_unless_it_is_long(length, same):
    """Three of n - 2 runs differ on either side: n - 5 of n + 1 are common, 0.9 of them from n = 59 on."""
    left, right = (made_words(length, seed=length) for _ in range(2))
    left[length // 2], right[length // 2] = "14", "15"
    found = near_duplicates([(" ".join(left), "a"), (" ".join(right), "b")])
    assert found == ({"b": "a"} if same else {})


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Step 1 is wrong: 7 + 8 = 15.", "Step 1 is wrong: 7 - 8 = 15."),
        ("Step 1 is wrong: 7 + 8 = 15.", "Step 2 is wrong: 7 + 8 = 15."),
        ("It is 1,000.", "It is 1.000."),
        ("", "words"),
    ],
)
def test_templates_with_other_content_are_no_duplicates(left, right):
    assert near_duplicates([(left, "a"), (right, "b")]) == {}


def test_what_resembles_only_a_dropped_text_is_kept():
    text = made_words(60)
    first, second, third = (" ".join(text[: 60 - cut]) for cut in (0, 4, 8))
    assert jaccard(first, second) > 0.9
    assert jaccard(second, third) > 0.9
    assert jaccard(first, third) < 0.9
    assert near_duplicates([(first, "a"), (second, "b"), (third, "c")]) == {"b": "a"}


def test_empty_texts_repeat_each_other():
    assert near_duplicates([("", "a"), (" \n", "b"), ("\ud800", "c")]) == {"b": "a", "c": "a"}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.3, 0.5, 0.7, 0.9, 1.0]))
def test_near_duplicates_are_those_that_comparing_all_pairs_finds(seed, threshold):
    rng = random.Random(seed)
    base = made_words(40, seed)
    texts = [" ".join(base[: rng.randint(3, 40)]) for _ in range(12)]
    kept: list[tuple[str, str]] = []
    expected = {}
    for key, text in enumerate(texts):
        earlier = [other for theirs, other in kept if jaccard(text, theirs) >= threshold]
        if earlier:
            expected[str(key)] = earlier[0]
        else:
            kept.append((text, str(key)))
    assert near_duplicates([(text, str(key)) for key, text in enumerate(texts)], threshold) == expected


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_bands_miss_one_pair_in_a_thousand_at_most(threshold):
    bands, rows = _bands(threshold)
    assert bands * rows <= 128
    assert (1 - threshold**rows) ** bands <= 1e-3


@pytest.mark.parametrize("threshold", [0, -0.1, 1.1])
def test_a_threshold_that_cannot_be_meant_is_refused(threshold):
    with pytest.raises(ValueError, match="threshold must lie above 0 and be at most 1"):
        near_duplicates([], threshold)


def test_a_shard_of_thousands_is_searched_in_seconds():
    texts = [(" ".join(made_words(60, seed)), str(seed)) for seed in range(2000)]
    again = [(text, f"again {key}") for text, key in texts]
    start = time.process_time()
    assert near_duplicates([*texts, *again]) == {f"again {key}": key for _, key in texts}
    assert time.process_time() - start < 20

"""Questions of test sets and questions asked before: what counts as the same, and where what is left out ends."""

import json

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from annotators.wording import near_duplicates
from pipelines.config import compose
from pipelines.errors import UserError
from pipelines.problems import ProblemError
from pipelines.problems.hygiene import HygieneSettings, without_unclean
from pipelines.problems.questions import TestQuestions, same, words
from pipelines.run import read_inputs
from pipelines.shards import split_of
from schemas import Image, Problem, Rejection

THIRTY = [f"w{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(30)]


def problem(question, problem_id="p1", images=()):
    return Problem(id=problem_id, source="train", domain="math", question=question, answer="1", images=images)


def write(path, questions, column="question"):
    path.write_text("".join(json.dumps({column: question}) + "\n" for question in questions))
    return str(path)


def reasons(items):
    return [item.reason if isinstance(item, Rejection) else "kept" for item in items]


def clean(items, **settings):
    return list(without_unclean(items, HygieneSettings(**settings)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 2 + 3?", "what is   2+3"),
        ("Tom's well-known shop sold 1,234 pens.", "Tom's well known shop sold 1234 pens"),
        ("Compute $\\dfrac{1}{2}\\,x$.", "compute \\(\\frac{1}{2} x\\)"),
        ("$\\left(3 \\times 4\\right) \\leq y$", "$(3 * 4) <= y$"),
        ("3 \N{MULTIPLICATION SIGN} 4 \N{MINUS SIGN} 1", "3 * 4 - 1"),
        ("x^4 + jx^2", "$x^{4}+j x^{2}$"),
        ("STRASSE", "stra\N{LATIN SMALL LETTER SHARP S}e"),
        ("\N{FULLWIDTH DIGIT TWO} + 1", "2 + 1"),
        ("Find $x_1$ in $\\text{cm}$", "find x_{1} in \\textrm{cm}"),
        ("\u5c0f\u660e\u6709 3 \u4e2a\u82f9\u679c\u3002", "\u5c0f\u660e\u67093\u4e2a\u82f9\u679c"),
    ],
)
def test_spelling_makes_no_other_question(one, other):
    assert same(one) == same(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Calculate 7 + 8", "Calculate 7 - 8"),
        ("Calculate 12 and 3", "Calculate 1 and 23"),
        ("Calculate 12 3", "Calculate 1 23"),
        ("Calculate 3.5", "Calculate 35"),
        ("Calculate 1,2", "Calculate 12"),
        ("Calculate 2 * (3 + 4)", "Calculate 2 * 3 + 4"),
        ("Calculate 5!", "Calculate 5."),
        ("Tom has 3 pens", "Tim has 3 pens"),
        ("\N{SLIGHTLY SMILING FACE} is 3, what is it?", "\N{CRYING FACE} is 3, what is it?"),
        ("Evaluate 3 # 4", "Evaluate 3 @ 4"),
        ("?", "!"),
    ],
)
def test_another_number_sign_or_word_makes_another_question(one, other):
    assert same(one) != same(other)


def test_words_are_numbers_and_signs_too():
    assert words("Tom pays $1,250.50, or 3/4 of it!") == ("tom", "pays", "1250.50", "or", "3/4", "of", "it")


def test_the_share_is_that_of_the_shorter_question():
    # The test question has 20 words: 8 runs of 13. Of these the first 15 words share 3 with it, 17 words 5.
    tests = TestQuestions([(" ".join(THIRTY[:20]), "t:1")], 13)
    fifteen = tests.find(" ".join([*THIRTY[:15], *(f"z{word}" for word in THIRTY[15:])]), 0.0)
    assert fifteen is not None
    assert (fifteen.share, fifteen.is_same, fifteen.where) == (3 / 8, False, "t:1")
    # The other way round: all 3 runs of a question of 15 words are in it.
    inside = tests.find(" ".join(THIRTY[:15]), 0.0)
    assert inside is not None
    assert inside.share == 1.0
    assert tests.find(" ".join(["so", *THIRTY[:17], "other", "words", "here"]), 5 / 8) is not None
    assert tests.find(" ".join(["so", *THIRTY[:16], *(f"z{word}" for word in THIRTY)]), 5 / 8) is None


def test_a_short_question_is_compared_as_a_whole():
    tests = TestQuestions([("Calculate 7 + 8.", "t:1")], 13)
    match = tests.find("calculate 7+8", 0.5)
    assert match is not None
    assert match.is_same
    assert tests.find("Calculate 7 + 8. " + " ".join(THIRTY), 0.0) is None


def test_the_likest_question_is_named_and_of_equal_ones_the_first():
    tests = TestQuestions(
        [(" ".join(THIRTY[5:25]), "t:1"), (" ".join(THIRTY[:20]), "t:2"), (" ".join(THIRTY[:20]), "t:3")], 13
    )
    match = tests.find(" ".join([*THIRTY[:19], "end"]), 0.1)
    assert match is not None
    assert match.where == "t:2"


def test_a_test_sets_question_is_a_rejection_that_names_its_row(tmp_path):
    tests = write(tmp_path / "math500.jsonl", ["What is 1 + 1?", " ".join(THIRTY[:20])], "problem")
    items = clean(
        [
            problem("what is 1+1", "a"),
            problem("What is 1 + 2?", "b"),
            problem(" ".join([*THIRTY[:19], "end"]), "c"),
            problem(" ".join([*THIRTY[:16], "end"]), "d"),
        ],
        test_sets=(tests,),
    )
    assert reasons(items) == ["contaminated", "kept", "contaminated", "contaminated"]
    assert [(item.stage, item.key, item.problem_id) for item in items if isinstance(item, Rejection)] == [
        ("ReadProblems", name, name) for name in "acd"
    ]
    assert items[0].detail == "train: asks what math500.jsonl line 1 asks"
    # 19 words of 20 share 7 of 8 runs; 16 words and another share 4 of the 5 runs that 17 words have.
    assert items[2].detail == "train: shares 88% of its runs of 13 words with math500.jsonl line 2"
    assert items[3].detail == "train: shares 80% of its runs of 13 words with math500.jsonl line 2"
    looser = clean([problem(" ".join([*THIRTY[:16], "end"]))], test_sets=(tests,), max_shared=0.9)
    assert reasons(looser) == ["kept"]


def test_test_sets_are_read_whatever_their_format_and_column(tmp_path):
    (tmp_path / "sets").mkdir()
    pq.write_table(pa.table({"n": [1], "prompt": ["What is one?"]}), tmp_path / "sets" / "a.parquet")
    (tmp_path / "sets" / "b.json").write_text(json.dumps([{"problem": "What is two?"}]))
    (tmp_path / "sets" / "c.csv").write_text("question,answer\nWhat is three?,3\n")
    write(tmp_path / "lines.json", ["What is four?"], "stem")
    asked = [problem(f"What is {name}?", name) for name in ("one", "two", "three", "four", "five")]
    found = clean(asked, test_sets=(str(tmp_path / "sets"),))
    assert reasons(found) == ["contaminated"] * 3 + ["kept"] * 2
    assert found[0].detail.endswith("asks what sets/a.parquet row 1 asks")
    found = clean(asked, test_sets=(str(tmp_path / "lines.json"),), test_column="stem")
    assert reasons(found) == ["kept"] * 3 + ["contaminated", "kept"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, "no file or folder at"),
        ("empty.jsonl", "", "holds no row"),
        ("set.txt", "What?\n", "does not tell its format"),
        ("other.jsonl", '{"text": "What?"}\n', "has no question under any of question, problem"),
        (
            "null.jsonl",
            '{"question": "What?"}\n{"question": null}\n',
            "null.jsonl line 2 has no question in 'question'",
        ),
        ("broken.jsonl", '{"question": "What?"}\n{"question": \n', "broken.jsonl line 2 has no question"),
        ("broken.parquet", "PAR1", "cannot be read as a whole"),
    ],
)
def test_a_test_set_that_cannot_be_read_as_a_whole_ends_the_run(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ProblemError, match=f"^hygiene.test_sets: .*{message}"):
        clean([problem("What?")], test_sets=(str(tmp_path / name),))


def test_a_question_asked_before_is_left_out_unless_that_is_switched_off():
    asked = [problem("What is 1 + 1?", "a"), problem("what is 1+1", "b"), problem("What is 1 - 1?", "c")]
    items = clean(asked)
    assert reasons(items) == ["kept", "near_duplicate", "kept"]
    assert items[1].detail == "train: asks what problem a asks (hygiene.duplicates)"
    assert clean(asked, duplicates="keep") == asked


def test_where_a_question_can_be_a_drawing_each_character_counts():
    def maze(text, problem_id):
        return msgspec.structs.replace(problem(text, problem_id), domain="reasoning_gym")

    asked = [maze("Go:\n#..#\n#.a#", "a"), maze("Go:\n#.#\n#.a#", "b"), maze("Go:\n#..#\n#.A#", "c")]
    for duplicates in ("same", "near"):
        assert clean(asked, duplicates=duplicates) == asked
        again = maze("Go:\n#..#\n#.a#\n", "d")
        assert reasons(clean([*asked, again], duplicates=duplicates)) == ["kept", "kept", "kept", "near_duplicate"]


def test_the_same_words_about_another_picture_are_another_question():
    red, blue = (Image(bytes=b"\x89PNG\r\n\x1a\n" + data, media_type="image/png") for data in (b"red", b"blue"))
    asked = [problem("What is this?", name, images) for name, images in (("a", (red,)), ("b", (blue,)), ("c", (red,)))]
    for duplicates in ("same", "near"):
        assert reasons(clean(asked, duplicates=duplicates)) == ["kept", "kept", "near_duplicate"]


def test_near_duplicates_go_only_where_that_is_asked_for():
    long = " ".join(f"{word} of {i}" for i, word in enumerate(THIRTY * 3))
    asked = [problem(long, "a"), problem(long + " please", "b"), problem("What is 1 + 1?", "c")]
    # One word at the end of 271 adds one run of three to 268 common ones: a Jaccard index of 268/269.
    assert near_duplicates([(long, "a"), (long + " please", "b")], 0.99) == {"b": "a"}
    assert reasons(clean(asked)) == ["kept"] * 3
    assert reasons(clean(asked, duplicates="near", max_likeness=0.99)) == ["kept", "near_duplicate", "kept"]
    assert reasons(clean(asked, duplicates="near", max_likeness=1.0)) == ["kept"] * 3


def test_what_is_no_problem_stays_what_it_was_and_in_its_place(tmp_path):
    tests = write(tmp_path / "t.jsonl", ["What is 1 + 1?"])
    broken = Rejection(stage="ReadProblems", key="f:1", problem_id="", reason="bad_json", detail="f line 1")
    asked = [broken, problem("What is 1 + 1?", "a"), problem("What is 1 + 1?", "b")]
    # Both are the test set's: the second repeats nothing that was kept.
    assert reasons(clean(asked, test_sets=(tests,))) == ["bad_json", "contaminated", "contaminated"]
    assert clean(asked, test_sets=(tests,), duplicates="near")[0] == broken


def test_each_row_of_a_source_is_a_problem_or_a_rejection_and_no_question_is_in_both_splits(tmp_path):
    write(tmp_path / "t.jsonl", [f"What is {i} + 1?" for i in range(5)])
    rows = [{"question": f"What is {i % 60} + {i % 2}?", "answer": str(i), "id": f"q{i}"} for i in range(200)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = ["problems=file", f"problems.path={tmp_path / 'train.jsonl'}", "problems.columns.id=id"]
    inputs = read_inputs(compose([*source, f"hygiene.test_sets=[{tmp_path / 't.jsonl'}]"]))
    # i mod 60 tells i mod 2: 60 questions, of which 1 + 1 and 3 + 1 are the test set's. Each of these two comes up
    # for i = 1, 61, 121, 181 and i = 3, 63, 123, 183: eight rows. The other 192 rows ask 58 questions.
    assert len(inputs.problems) == 58
    found = [item.reason for item in inputs.unread]
    assert (found.count("contaminated"), found.count("near_duplicate"), len(found)) == (8, 134, 142)
    splits: dict[str, set[str]] = {}
    for item in inputs.problems:
        splits.setdefault(same(item.question), set()).add(split_of(item.id, 0.5))
    assert {len(where) for where in splits.values()} == {1}
    everything = read_inputs(compose([*source, "hygiene.duplicates=keep"]))
    assert len(everything.problems) == 200
    for item in everything.problems:
        splits.setdefault(same(item.question), set()).add(split_of(item.id, 0.5))
    assert {len(where) for where in splits.values()} == {1, 2}  # What the removal is for.


def test_hygiene_that_leaves_nothing_says_so(tmp_path):
    tests = write(tmp_path / "t.jsonl", ["What?"])
    (tmp_path / "train.jsonl").write_text('{"question": "What?", "answer": 1}\n')
    settings = compose(["problems=file", f"problems.path={tmp_path / 'train.jsonl'}", f"hygiene.test_sets=[{tests}]"])
    with pytest.raises(UserError, match=r"hygiene leaves no problem of 1 rows; first: train.*asks what t.jsonl line 1"):
        read_inputs(settings)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("run_words", 0), ("max_shared", 1.1), ("max_shared", -0.1), ("max_likeness", 0), ("max_likeness", 1.1)],
)
def test_settings_out_of_range_are_named(setting, value):
    with pytest.raises(UserError, match=f"hygiene.*{setting}"):
        compose([f"hygiene.{setting}={value}"])


def test_real_sets_share_what_a_reader_finds_in_them(shared_data):
    """ProcessBench's GSM8K part is taken from GSM8K's test set: 105 of its 200 questions are among the 600 here.

    Counted another way: by the questions' letters and digits alone. OlympiadBench has one problem of MATH's train set.
    """

    def questions(name, column):
        return [json.loads(line)[column] for line in (shared_data / name).read_bytes().split(b"\n") if line.strip()]

    def kept(name, column, test):
        asked = [problem(text, f"{i}") for i, text in enumerate(questions(name, column))]
        return reasons(clean(asked, test_sets=(str(shared_data / test),)))

    bare = {"".join(filter(str.isalnum, text.casefold())) for text in questions("gsm8k/test.jsonl", "question")}
    bench = questions("processbench/gsm8k.jsonl", "problem")
    expected = sum("".join(filter(str.isalnum, text.casefold())) in bare for text in bench)
    assert expected == 105
    assert kept("processbench/gsm8k.jsonl", "problem", "gsm8k/test.jsonl").count("contaminated") == expected
    assert set(kept("gsm8k/train.jsonl", "question", "gsm8k/test.jsonl")) == {"kept"}
    # `$x^4 + jx^2 + kx + 225$` there, `$x^{4}+j x^{2}+k x+225$` here: no 13 words in common but those of the sentence.
    assert kept("math/train.jsonl", "problem", "realcritic/olympiadbench.jsonl").count("contaminated") == 1

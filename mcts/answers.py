r"""Whether a model's answer is right: correct, incorrect, or unscored with a reason.

`find_answer` reads the final answer as written, `compare` decides about it. Nothing here accepts by substring or by
tolerance, and nothing is called incorrect only because it could not be read.

`quick` is the part that is safe anywhere: linear in the text, microseconds, no sympy. What it leaves open (None) needs
`compare`, which may run for hours on `9^{9^{9^9}}`: call that in a process that can be killed (`pipelines.checking`).
Programs (domain `code`) are never run here: their tests decide, in a sandbox (`pipelines.code_tests`). Nor is a command
that decides about answers of the domain `command` (`pipelines.command_checks`).

>>> compare(r"\dfrac{3}{6}", "0.5", "math").outcome
'correct'
"""

import importlib
import re
from typing import Any, Literal, get_args

import msgspec

from mcts import code_answers, gym_answers, readings
from schemas import Outcome, Record

Reason = Literal[
    "no_answer",
    "cut_off",
    "too_long",
    "answer_unreadable",
    "answer_ambiguous",
    "undecided",
    "gold_unreadable",
    "unknown_domain",
    "timeout",
    "crashed",
    "no_sandbox",
    "checker_failed",
    "no_checker",
]
"""Why an answer is unscored.

`cut_off`: the text ran out of tokens in its answer, see `is_cut_off`. `answer_ambiguous`: right in one reading and
wrong in another, such as 0.5 % for 0.5. `undecided`: both were read, and neither equality nor a difference could be
shown. `timeout` and `crashed` are given by whoever runs `compare`.
`no_sandbox`: a program whose tests may run in a sandbox only, where there was none. `checker_failed`: the command that
decides ended with an exit code that says neither, or says too much. `no_checker`: there is no such command.
"""
REASONS: tuple[Reason, ...] = get_args(Reason)

MAX_ANSWER = 2_000
"""Longest answer in characters that is looked at."""
MAX_LONG_ANSWER = 20_000
"""The same for `reasoning_gym`, `code` and `command`, whose answers may be boards, lists of moves and programs."""
_LONG_DOMAINS = ("reasoning_gym", "code", "command")
_MAX_SOLUTION = 200_000


class Check(Record, frozen=True):
    """What was decided about one answer."""

    outcome: Outcome
    reason: Reason | None = None
    """Why it is unscored; None for the other two."""
    answer: str | None = None
    """The answer as found in the solution; None where there was none or it was too long to keep."""
    detail: str = ""
    """For a program that failed: the kind and message of the error that its tests ended with. In the domain `command`
    what the command said, and why it decided nothing where it did not."""


def unscored(reason: Reason, answer: str | None = None) -> Check:
    """The check of an answer that nobody could decide."""
    return Check(outcome="unscored", reason=reason, answer=answer)


_ANSWER_LINE = re.compile(
    r"^[ \t*_#>-]{0,12}(?:the )?(?:final )?answer[ \t*_]{0,4}[:\uff1a][ \t]*(?:\*{1,3})?", re.IGNORECASE | re.MULTILINE
)
_GSM8K_LINE = re.compile(r"^[ \t]*####[ \t]*(\S.*)$", re.MULTILINE)
_SAID = re.compile(
    r"\b(?:the|my|our) (?:(?:final|correct|right) )?(?:answer|option|choice) is:?[ \t]*([^\n]*)", re.IGNORECASE
)
_NEXT_SENTENCE = re.compile(r"\.\s+(?:I|We|So|This|Thus|The|It|That|Therefore|Hence|Because|Note)\b")


def find_answer(solution: str, domain: str) -> str | None:
    r"""The final answer as written, or None where there is none.

    The last `Answer: X` line wins, else the last `\boxed{X}`, else `#### X`, else the last "the answer is X". Several
    boxes in one closing line are all the answer ("3, 4"), so that offering two values never counts as giving one. The
    last number of a text is never taken for its answer. In `reasoning_gym` an answer may run over several lines, up to
    a blank one. In `code` it is the last block of Python, in `command` the last block of any language, see
    `mcts.code_answers`.
    """
    tail = solution[-_MAX_SOLUTION:].encode("utf-8", "replace").decode()
    lines = list(_ANSWER_LINE.finditer(tail))
    if domain in ("code", "command"):
        find = code_answers.find if domain == "code" else code_answers.find_any
        return find(tail, lines[-1].end() if lines else None)
    if lines:
        rest = tail[lines[-1].end() :].strip().removeprefix("```").lstrip("\n")
        found = re.split(r"\n\s*\n" if domain == "reasoning_gym" else r"\n", rest, maxsplit=1)[0]
        found = found.strip().removesuffix("```").strip().removesuffix("**")
    else:
        boxed = readings.boxes(tail)
        said = None if boxed is not None else (_GSM8K_LINE.findall(tail) or _SAID.findall(tail) or [None])[-1]
        found = boxed or said or ""
    if domain != "reasoning_gym":
        found = _NEXT_SENTENCE.split(found, maxsplit=1)[0]
        said_again = _SAID.match(found)
        found = said_again.group(1) if said_again else found
    return readings.unboxed(found).strip() or None


def is_cut_off(solution: str, domain: str) -> bool:
    r"""Whether the answer of a solution that ran out of tokens may be another one than the one that stands there.

    The last line may have been cut, so the answer must stand in the lines before it, and must not change if the text
    goes on. An answer of several lines (`reasoning_gym`, `code`) must have been ended.

    >>> is_cut_off("Step 1: 7 + 5 = 12\nAnswer: 1", "math"), is_cut_off("Answer: 12\nProblem: 4", "math")
    (True, False)
    """
    whole_lines = solution[: solution.rfind("\n") + 1]
    return len({find_answer(text, domain) for text in (whole_lines, solution, solution + "7")}) > 1


def is_cheap(answer: str, gold: str, domain: str, metadata: str = "{}") -> bool:
    """Whether `compare` decides this in microseconds, so that no process is needed."""
    return quick(answer, gold, domain, metadata) is not None


def compare(answer: str, gold: str, domain: str, metadata: str = "{}") -> Check:
    """Decides about one answer; may be slow, see the module. A program is never run here, so it stays unscored.

    Raises:
      MemoryError: the comparison needs more than the process may have. Nothing else is raised for any answer.
    """
    check = quick(answer, gold, domain, metadata)
    if check is not None:
        return check
    if domain == "math":
        return _as_check(_symbolic(answer, gold), answer)
    if domain in ("code", "command"):
        return unscored("no_sandbox" if domain == "code" else "no_checker", answer)
    return _as_check(gym_answers.score(answer, gold, metadata), answer)


def quick(answer: str, gold: str, domain: str, metadata: str = "{}") -> Check | None:
    """What can be decided without sympy, a scorer or a run of tests, or None."""
    if domain not in ("math", "exact", "choice", "reasoning_gym", "code", "command"):
        return unscored("unknown_domain", answer[:MAX_ANSWER])
    if len(answer) > (MAX_LONG_ANSWER if domain in _LONG_DOMAINS else MAX_ANSWER):
        return unscored("too_long")
    if domain == "code":
        return None if gold.strip() else unscored("gold_unreadable", answer)
    if domain == "command":
        return None
    if readings.UNREADABLE.search(answer):
        return unscored("answer_unreadable", answer.encode("utf-8", "replace").decode())
    if _is_refusal(answer, gold):
        return unscored("no_answer", answer)
    if domain == "choice":
        decided: str | None = _choice(answer, gold)
    elif domain == "reasoning_gym":
        decided = gym_answers.quick(answer, gold, metadata)
    else:
        decided = _quick_math(answer, gold) or (_words(answer, gold) if domain == "exact" else None)
    return None if decided is None else _as_check(decided, answer)


def _as_check(decided: str, answer: str) -> Check:
    fields = {"outcome": decided} if decided not in REASONS else {"outcome": "unscored", "reason": decided}
    return msgspec.convert(fields | {"answer": answer}, Check)


_REFUSAL = re.compile(
    r"(?:i(?:'m| am)? (?:cannot|can't|can not|do not know|don't know|am not able|am unable|unable|not sure|sorry)"
    r"|sorry\b|unknown$|n/?a$|not sure$|as an ai\b|[?.…_*\s-]*$|\[?(?:your )?(?:final )?answer\]?$|<[a-z ]+>$)",
    re.IGNORECASE,
)


def _is_refusal(answer: str, gold: str) -> bool:
    """Whether a text is no answer at all. A board of signs is one where the gold answer is such a board too."""
    text = answer.replace("\u2019", "'").strip().strip("*$ ")
    return not answer.strip() or (_REFUSAL.match(text) is not None and _REFUSAL.match(gold.strip()) is None)


_LETTER = re.compile(
    r"(?:\(([A-Ja-j])\)|\[([A-Ja-j])\])(?:[\s.:].*)?|([A-J])(?:\s*[).:](?:\s.*)?|\s+-\s.*)?|([a-j])[).]?", re.DOTALL
)
_SAYS = re.compile(r"(?:the )?(?:correct |right |best |final )?(?:answer|option|choice)(?: is)?:?\s*", re.IGNORECASE)
_SEVERAL = re.compile(r"(?:both |either )?\(?([A-J])\)?(?:\s*(?:,|/|&|\bor\b|\band\b|,\s*and\b)\s*\(?([A-J])\)?)+")
_ANOTHER = re.compile(r"\b(?:or|and)\s+(?:\([A-J]\)|[A-J](?:\)|\b(?!\s+\w)))")


def _letter(text: str) -> str | None:
    text = _SAYS.sub("", " ".join(readings.tidy(text).split()), count=1)
    match = _LETTER.fullmatch(text)
    return next(filter(None, match.groups())).upper() if match and not _ANOTHER.search(text) else None


def _choice(answer: str, gold: str) -> str:
    """Decides by letter. A text without its letter is unscored: the options are not known here."""
    right = _letter(gold)
    if right is None:
        return "gold_unreadable"
    letter = _letter(answer)
    if letter is not None:
        return "correct" if letter == right else "incorrect"
    several = _SAYS.sub("", readings.tidy(answer), count=1)
    if _SEVERAL.fullmatch(several):
        return "correct" if set(re.findall(r"[A-J]", several)) == {right} else "incorrect"
    return "incorrect" if _LETTER.match(several) and _ANOTHER.search(several) else "answer_unreadable"


_FUNCTION_NAMES = "sin cos tan cot sec csc log exp sqrt arcsin arccos arctan max min gcd lcm det mod deg"
_FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
_COMMAND = re.compile(r"\\(?:begin|end|operatorname)\s*\{[^{}]*\}|\\[a-zA-Z]+")
_SMALL_WORDS = frozenset(["is", "of", "no", "to", "it", "so", "we", "my", "or", "am", "be", "by"])
_COEFFICIENT = re.compile(r"-?\d[\d./]*\s*[A-Za-z]|[A-Za-z]\s*(?:\^.*|/.*)")
_BASE = re.compile(r"([0-9A-Za-z]+)_\{?(\d+)\}?")
# What math-verify's parser reads as something else: `2^3^2` as (2^3)^2, `5 6` as 11, `5_3` and `5 \\ldots` as 5.
_MISREAD = re.compile(
    r"\^\s*(?:\{[^{}]*\}|\\?\w+)\s*\^|\d\s*_|(?<![_\d])\d+\s+\.?\d|\d['\"]|\d\.\d*\.|\.\.|\\[lcv]?dots|\\[pb]?mod\b|=.*\||\|.*="
)


def _is_prose(tidied: str) -> bool:
    words = re.findall(r"[A-Za-z]+", _COMMAND.sub(" ", tidied))
    return any(word.lower() not in _FUNCTIONS and (len(word) > 2 or word in _SMALL_WORDS) for word in words)


def _value_side(text: str, gold: str) -> tuple[str, str]:
    """Left and right of the last relation where the gold answer has none: `2+3` and `5` of `2+3 = 5`."""
    if "=" in gold or re.search(r"[,;]|\b(?:or|and)\b", text):
        return "", text
    exact, *_ = text.split("\\approx")
    if "=" not in exact and re.fullmatch(r"\s*(?:[A-Za-z](?:_\w)?)?\s*", exact):
        exact = text.replace("\\approx", "=")
    left, relation, right = exact.rpartition("=")
    if re.fullmatch(r"\s*[A-Za-z]\s*", right) and readings.read_values(left) is not None:
        left, right = right, left  # 5 = x
    closed = relation and not re.search(r"(?:\\[a-z]*|[<>!])$", left)
    return (left.strip(), right.strip()) if closed else ("", exact.strip())


def _quick_math(answer: str, gold: str) -> str | None:
    ours, theirs = readings.tidy(answer), readings.tidy(gold)
    if not theirs or len(gold) > MAX_ANSWER:
        return "gold_unreadable"
    if ours.replace(" ", "") == theirs.replace(" ", ""):
        return "correct"
    if not readings.is_balanced(readings.plain(answer)):
        return "answer_unreadable"
    right = _gold_values(gold)
    left, value = _value_side(ours, theirs)
    given = readings.read_values(value)
    if given is not None and right is not None:
        result: str = readings.compare_values(given, right)
        if result == "incorrect" and re.fullmatch(r"-?\d+,\d+", value) and "." in theirs:
            # 3,14 for 3.14: a decimal comma, since a pair of numbers cannot be meant.
            decimal = readings.read_values(value.replace(",", "."))
            result = readings.compare_values(decimal, right) if decimal else result
        # `2x = 10` holds the number, but nobody here knows whether 2x was asked for.
        return "answer_ambiguous" if result == "correct" and _COEFFICIENT.fullmatch(left) else result
    based = _in_base(ours, theirs)
    if based is not None:
        return based
    if _is_prose(theirs) or "\\text" in gold:
        return _words(answer, gold) if right is None or _is_prose(ours) else None
    if not _is_prose(_without_unit(ours)):
        return None
    return _words(answer, gold) if right is not None else "answer_unreadable"


def _gold_values(gold: str) -> readings.Values | None:
    """The gold answer's numbers. `5m` is a product unless the letter is set as text."""
    values = readings.read_values(gold)
    lettered = values is not None and any(len(item.unit) == 1 and item.unit.isalpha() for item in values.items)
    return None if lettered and not re.search(r"\\(?:text|mathrm|mbox|rm\b)|\d [a-z]$", gold) else values


def _in_base(answer: str, gold: str) -> str | None:
    """Compares numbers of which one at least names its base, such as `1011_2`; None where neither does."""
    ours, theirs = _BASE.fullmatch(answer), _BASE.fullmatch(gold)
    if not ours and not theirs:
        return None
    digits = ours.group(1) if ours else answer
    expected = theirs.group(1) if theirs else gold
    same = digits.lstrip("0").upper() == expected.lstrip("0").upper()
    if ours and theirs:
        return "correct" if same and ours.group(2) == theirs.group(2) else "incorrect"
    if re.fullmatch(r"[0-9A-Za-z]+", digits) and re.fullmatch(r"[0-9A-Za-z]+", expected):
        return "correct" if same else "incorrect" if theirs else "answer_ambiguous"
    return "answer_unreadable"


def _stems(text: str) -> list[str]:
    words = re.findall(r"[^\W_]+(?:\.\d+)?", text.casefold())
    return [word.removesuffix("s") if len(word) > 3 else word for word in words]


def _words(answer: str, gold: str) -> str:
    """Decides where at least one side is words; what holds the gold answer among other words stays unscored."""
    ours, theirs = readings.tidy(answer).casefold(), readings.tidy(gold).casefold()
    right = readings.read_values(gold)
    given, expected = _stems(ours), _stems(theirs)
    if right is not None and len(right.items) == 1:
        if readings.NOT_UNITS.intersection(given) - {"or", "and", "not", "to", "over"} or re.search(r"[\\^=+*/]", ours):
            return "answer_unreadable"
        numbers = [readings.read_number(text) for text in re.findall(r"-?\d[\d,]*(?:\.\d+)?", ours)]
        numbers += [readings.NUMBER_WORDS[word] for word in given if word in readings.NUMBER_WORDS]
        holds = any(number is None or number.value == right.items[0].value for number in numbers)
        return "answer_unreadable" if holds else "incorrect"
    bare = ours.strip("()'\""), theirs.strip("()'\"")
    if bare[0].split() == bare[1].split() or given == expected != []:
        return "correct"
    listed = re.compile(r",|\band\b")
    if sorted(given) == sorted(expected) and listed.search(ours) and listed.search(theirs):
        return "correct"
    if set(expected) <= set(given) or re.search(r"[\\^=+*/]", ours) or not expected:
        return "answer_unreadable"
    return "incorrect"


def _without_unit(tidied: str) -> str:
    r"""An expression without the unit that is written after it, as in `10 \pi cm`."""
    match = re.fullmatch(r"(.*?(?:[\d}]|\\pi))\s*(\(?[A-Za-z][A-Za-z /-]+\.?(?:\s*\^?\s*\{?[23]\}?)?\)?)", tidied)
    known = match and readings.read_unit(match.group(2))
    return match.group(1).strip() if match and known else tidied


def _symbolic(answer: str, gold: str) -> str:
    """Decides through math-verify. Its own timeouts are switched off: they are signals, which threads cannot have."""
    ours, theirs = (_without_unit(readings.tidy(text)) for text in (answer, gold))
    left, _ = _value_side(ours, theirs)
    if _MISREAD.search(theirs) or _MISREAD.search(ours):
        return "gold_unreadable" if _MISREAD.search(theirs) else "answer_unreadable"
    try:
        gold_value, value = _parse(theirs), _parse(ours)
        if gold_value is None or value is None:
            return "gold_unreadable" if gold_value is None else "answer_unreadable"
        brackets = {text[0] + text[-1] for text in (ours, theirs) if re.fullmatch(r"(?:[(\[]|\\\{).*,.*[)\]}]", text)}
        if len({kind.replace("\\", "{") for kind in brackets}) > 1 and "cup" not in ours + theirs:
            return "incorrect"  # math-verify takes {1,2} for the point (1,2).
        # 30 and 50 digits leave nothing of math-verify's tolerance, which by default accepts 1.414214 for sqrt(2).
        same = _math_verify().verify(
            gold_value, value, float_rounding=30, numeric_precision=50, timeout_seconds=None, raise_on_error=True
        )
        if same:
            return "answer_ambiguous" if _COEFFICIENT.fullmatch(left) else "correct"
        return "incorrect" if _differ(gold_value, value) else "undecided"
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 (anything may come out of a parser and an algebra system fed with model output)
        return "undecided"


def _math_verify() -> Any:
    # Imported where needed: it takes a third of a second and sympy's memory, in worker processes only.
    return importlib.import_module("math_verify")


def _parse(latex: str) -> Any | None:
    library = _math_verify()
    found = library.parse(
        "\\boxed{" + latex + "}",
        [library.LatexExtractionConfig(boxed_match_priority=0)],
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,
    )
    if not found:
        return None
    sympy = importlib.import_module("sympy")
    # Decimals as the fractions that were written, else 1.41421356237309504880168872420969807857 would be sqrt(2).
    return found[0].xreplace({number: sympy.Rational(str(number)) for number in found[0].atoms(sympy.Float)})


def _differ(gold: Any, answer: Any) -> bool:
    """Whether two parsed answers are shown to be different.

    math-verify says False also where its algebra gave up, so expressions must differ at a point. Sets, intervals,
    relations and matrices are compared by parts, where False means that a part differs.
    """
    sympy = importlib.import_module("sympy")
    if not (isinstance(gold, sympy.Expr) and isinstance(answer, sympy.Expr)):
        return True
    if answer.doit().has(sympy.zoo, sympy.nan):
        return bool(gold.is_finite)
    symbols = sorted(gold.free_symbols | answer.free_symbols, key=str)
    point = {symbol: sympy.Rational(7 * i + 3, 11 * i + 5) for i, symbol in enumerate(symbols)}
    difference = complex(sympy.N((gold - answer).subs(point).doit(), 30))
    return abs(difference) > 1e-25

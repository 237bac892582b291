r"""Whether a critique gives the answer away, in whatever form it says it.

Numbers count as equal in every form: digits with or without thousands' marks, decimals, fractions, mixed numbers,
powers of ten, percentages, LaTeX, words, with a unit or a currency, and sums that come to them. Other answers count as
they are written, spaces and LaTeX apart. Choices count where a letter is called an option or the answer.

What stands in the problem or in the criticised solution in an equal form is no news and therefore no leak, nor is a
sum whose numbers stand together in one of their sentences: a critique may say which step to do again. But to say of it
that it is what should have come out (`the correct total is 40`) gives it away wherever else it stands, unless the
solution answers so itself. Of an answer of several parts all that are news must be said; one alone gives no answer
away. A number that stands for nothing of its own is not said: the 2 of `2x`, `x_2`, `2nd`, `step 2` or `2 errors`, and
the numbers within a fraction.
"""

import itertools
import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

from annotators.numbers import Sum, Values, read_quantity, read_values
from annotators.plain import plain_text, without_place_names
from schemas import Critique, Path, PathPair

_LONGEST_PATTERN = 300
"""Characters of an answer that are compared spaces and LaTeX apart; of a longer one only the words as they stand."""


# The same solution is looked at once for each critique of it and for each of their remarks.
@lru_cache(maxsize=32)
def _plain(text: str) -> str:
    return without_place_names(plain_text(text))


_values = lru_cache(maxsize=32)(read_values)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s|\n")


@lru_cache(maxsize=32)
def _sentences(text: str) -> tuple[Values, ...]:
    return tuple(map(read_values, _SENTENCE_END.split(text)))


def find_leak(critique: Critique, path: Path) -> str:
    """The words of the critique that give the answer away, or nothing; see `find_leak_in`."""
    return find_leak_in(critique.text, path)


def find_leak_in(text: str, path: Path) -> str:
    """The words of a text that give a path's gold answer away, or the answer of its right branch; or nothing."""
    return leaked_words(text, answers_of(path), shown_of(path))


def answers_of(path: Path) -> tuple[str, ...]:
    """The answers that nobody may tell of a path: the gold one, and that of its right branch."""
    right = path.right.answer if isinstance(path, PathPair) else None
    return (path.problem.answer,) if right is None else (path.problem.answer, right)


def shown_of(path: Path) -> str:
    """What everybody has who reads of a path."""
    return path.problem.question + "\n" + "".join(path.steps)


def leaked_words(text: str, answers: Sequence[str], shown: str) -> str:
    """The words of a text that give one of the answers away, or nothing.

    Args:
      text: a critique, or a part of one.
      answers: each is enough by itself: the gold answer, and the same in other forms or a corrected one.
      shown: what the critique's reader has anyway: problem and solution.

    Returns:
      Words as the text says them, LaTeX taken out.
    """
    said, known = _plain(text), _plain(shown)
    for answer in dict.fromkeys(answers):
        gold = plain_text(answer).strip(" \n.")
        if gold and (words := _find(gold, said, known) or _find_asserted(gold, said, known)):
            return words
    return ""


# What is said to be right, and not only mentioned.

_CORRECTION = re.compile(
    r"\b(?:the|only|only one|one|an?)\s+(?:correct|actual|proper|true|valid|right)\b|\bshould\b|\bmust\b|\binstead\b"
    r"|\bcorrect(?:ed)? (?:calculation|computation|analysis|values?|number|total|result|amount|solution)s?\b",
    re.IGNORECASE,
)
"""In a sentence that says what would have been right: `the correct sum`, but not `this step is correct`."""
_ASSERTION = re.compile(
    r"(?:=|\b(?:is|are|was|were|be|been|equals?|gives?|leaves?|makes?|costs?|totals?|yields?|have|has|only)\b)\s*"
    r"(?:(?:only|exactly|equal to|about|just|x =)\s+)?[$(]?"
)
_CALCULATION = re.compile(r"[^\W\d_]*\s*[-+*/^=(]")
"""What makes an asserted value the beginning of a calculation."""
_WHOLE = re.compile(r"[^\W\d_]*\s*(?:[.)\n$]|$)")
"""What ends an answer, so that it is no list."""
_ANSWERS = re.compile(r"\banswer(?: is|:)?[\s:$(]*", re.IGNORECASE)
_HEAD = 24
"""Characters behind an assertion in which the asserted value begins."""


def _find_asserted(gold: str, said: str, known: str) -> str:
    """The sentence's words that say that the answer is what should have come out; shown or not, that is a leak."""
    for match in _ANSWERS.finditer(known):
        rest = known[match.end() :].lstrip(" $(")
        words = _begins_with(gold, rest)
        if words and _WHOLE.match(rest, len(words)):
            return ""
    for sentence in _SENTENCE_END.split(said):
        if not _CORRECTION.search(sentence) or sentence.strip() in known:
            continue
        for match in _ASSERTION.finditer(sentence):
            rest = sentence[match.end() :].lstrip(" $(")
            words = _begins_with(gold, rest)
            if words and not _CALCULATION.match(rest, len(words)):
                return f"{match[0].strip()} {words}"
    return ""


def _begins_with(gold: str, text: str) -> str:
    """The words at a text's beginning that say the answer; nothing where others do."""
    head = text[:_HEAD]
    if parts := _parts(gold):
        written = read_values(head).written.items() if len(parts) == 1 else ()
        return next((words for value, words in written if value in parts[0] and head.startswith(words)), "")
    match = _expression(gold).match(text)
    return match[0] if match else ""


def _find(gold: str, said: str, known: str) -> str:
    if choice := _CHOICE.fullmatch(gold):
        return _find_choice(choice["letter"], said, known)
    if parts := _parts(gold):
        return _find_numbers(parts, said, known)
    if gold.lower() in _COMMON_WORDS or len(gold) == 1 or not any(char.isalnum() for char in gold):
        return _find_claim(gold, said, known)
    pattern = _expression(gold)
    match = pattern.search(said)
    return match[0].strip() if match and not pattern.search(known) else ""


# Numbers.

_LIST_MARKS = re.compile(r"\\(?:begin|end) ?[pbvB]?matrix\b|^[\s(\[]+|[\s)\]]+$")
_COMMA = re.compile(r",(?![0-9]{3}(?![0-9]))|;|\n|\b(?:and|or)\b")
_HALF = re.compile(r"\bhalf\b", re.IGNORECASE)


def _parts(gold: str) -> list[frozenset[Fraction]]:
    """The numbers that an answer consists of, each with all it can mean; empty for an answer of another kind."""
    if len(gold) > _LONGEST_PATTERN:
        return []
    if quantity := read_quantity(gold):
        return [quantity]
    inner = _LIST_MARKS.sub(" ", gold)
    pieces = [piece for piece in (_COMMA if inner == gold else re.compile(r"[,;&\n]")).split(inner) if piece.strip()]
    parts = [read_quantity(piece) for piece in pieces]
    if parts and all(parts):
        return parts
    computed = read_values(gold).computed
    return [frozenset((value,)) for value, sums in computed.items() if sums[0].words == gold]


def _find_numbers(parts: Sequence[frozenset[Fraction]], said: str, known: str) -> str:
    news, old = _values(said), _values(known)
    shown = old.written.keys() | old.parts
    if _HALF.search(known):
        shown |= {Fraction(1, 2)}
    words = []
    for part in parts:
        if part & shown:
            continue
        found = [news.written[value] for value in sorted(part) if value in news.written]
        sums = [] if found else [item for value in sorted(part) for item in news.computed.get(value, ())]
        found = found or [item.words for item in sums if not _is_own(item, known)]
        if not found:
            return ""
        words.append(found[0])
    return ", ".join(dict.fromkeys(words))


def _is_own(item: Sum, known: str) -> bool:
    """Whether a sum is the solution's own, or the problem's: its numbers stand together in one of their sentences.

    The solution may have worked it out wrong. Its value is news, but to repeat the sum is not.
    """
    for values in _sentences(known):
        shown = values.written.keys() | values.parts
        sums = itertools.chain.from_iterable(values.computed.values())
        if item.numbers <= shown or any(item.numbers == other.numbers for other in sums):
            return True
    return False


# Choices and words.

_CHOICE = re.compile(
    r"(?:(?:option|choice|answer(?: is)?) )?[(\[]?(?P<letter>[A-J])[)\].:]?(?:(?<=[).:]) .*)?", re.DOTALL
)
_COMMON_WORDS = frozenset(("yes", "no", "true", "false", "none", "all", "odd", "even", "possible", "impossible"))
_IS = r"(?:\s+(?:is|was|are|should be|must be|would be|should have been|has to be)|\s*[:=])"


def _find_choice(letter: str, said: str, known: str) -> str:
    """A letter that is called the answer, or an option that nobody spoke of before.

    The problem lists all letters; that shows none of them to be the answer.
    """
    named = rf"[(\"'*]*{letter}(?![\w'])"
    claim = re.compile(
        rf"\b(?i:answer|choice|option|one|selection){_IS}\s+(?i:(?:the )?(?:option|choice|letter)\s+)?{named}"
        rf"|\b(?i:answer|choose|chosen|pick|picked|select|selected)\s*:?\s+(?i:(?:option|choice)\s+)?{named}(?! [a-z])"
        rf"|[(\"']{letter}[)\"']{_IS}\s+(?i:the )?(?i:correct|right|answer|best)"
        rf"|(?<![\w'(]){letter}\s+(?:is|would be)\s+(?:the )?(?:correct|right|answer|best)"
    )
    mention = re.compile(rf"\b(?i:option|choice)\s+{named}|(?<!\w)\({letter}\)")
    if claim.search(known):
        return ""
    if match := claim.search(said):
        return match[0].strip()
    spoken = {words.casefold() for words in mention.findall(known)}
    return next((words.strip() for words in mention.findall(said) if words.casefold() not in spoken), "")


def _find_claim(word: str, said: str, known: str) -> str:
    """A word that is in every other sentence counts where it is called the answer or is all that a sentence says."""
    word = re.escape(word)
    claim = re.compile(
        rf"\b(?:answer|result|conclusion|statement|claim|it|this){_IS}\s*:?\s*[\"'*(]*(?<!\w){word}(?!\w)"
        rf"|(?:^|[.!?:\n])\s*[\"'*]*{word}[\"'*]*\s*(?=[.!,\n]|$)",
        re.IGNORECASE,
    )
    match = claim.search(said)
    return match[0].strip(" .!?:\n") if match and not claim.search(known) else ""


# Everything else.

_PIECE = re.compile(r"[0-9]+(?:\.[0-9]+)?|\\?[^\W\d_]+|\S")
_NOT_WITHIN = (r"(?<![\w.^\\])(?<![-+*/^])(?<![-+*/^] )(?<![\w)]\()", r"(?!\w|\.[0-9]|\()")
_NO_TERM_AFTER = r"(?! ?[-+*/^] ?(?:[0-9(\\]|[A-Za-z](?![A-Za-z])))"


def _expression(gold: str) -> re.Pattern[str]:
    """Finds words or an expression as a whole: not within a longer word, nor as a part of a larger expression."""
    if len(gold) > _LONGEST_PATTERN:
        return re.compile(re.escape(gold))
    pieces = _PIECE.findall(gold)
    if all(piece.isalpha() for piece in pieces):
        return re.compile(rf"(?<!\w){r'[ -]'.join(map(re.escape, pieces))}(?!\w)", re.IGNORECASE)
    pieces = [piece for piece in pieces if piece != "*"] or pieces
    body = re.escape(pieces[0])
    for left, right in itertools.pairwise(pieces):
        kinds = {
            "letters" if piece[-1].isalpha() else "digits" if piece[-1].isdigit() else piece for piece in (left, right)
        }
        body += (r"(?: ?\* ?| )" if kinds in ({"letters"}, {"digits"}) else r" ?\*? ?") + re.escape(right)
    before, after = _NOT_WITHIN
    return re.compile(before + body + after + _NO_TERM_AFTER, re.IGNORECASE)

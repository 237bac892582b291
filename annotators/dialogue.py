"""The loop of attempts and feedback: what begins a dialogue, who is shown what, how it ends, why a round did not help.

Nothing here asks a model: `pipelines.hold_dialogues` does, with what these functions say.
"""

import json
import re
from collections.abc import Sequence

import msgspec

from annotators.critic import ROLES, number_steps
from annotators.rounds import NoLoop, Rounds, Sees
from annotators.units import CritiqueError
from schemas import Attempt, Ending, Feedback, Giver, Problem, Tree, Turn, Verbal

DIALOGUE_REJECTIONS: tuple[Ending, ...] = ("leaks_answer", "no_feedback")
"""Why a dialogue is rejected; it is written all the same, with how it ended, and becomes no row."""

DIALOGUE_ROW_REJECTIONS = ("masked", "talks_of_reference", "talks_of_feedback", "wrong_verdict")
"""Why a row of a dialogue is left out that was asked for: its completion would teach words that nobody can know who is
shown its prompt, or feedback that contradicts the checker."""

_GIVERS: dict[Giver | Verbal, str] = {
    "critic": ROLES["stepwise"],
    "teacher": (
        "You teach. You know the right answer, and your student has to find it alone: say which step is the first that "
        "does not hold, why it does not, and how to go about it. Never state the answer, nor a value from which it "
        "can be read off."
    ),
    "aspects": "",
    "novice": (
        "You use the program and cannot program yourself. Say in your own words what you saw it do and what you had "
        "expected instead. You do not know how to mend it, and never write code."
    ),
    "expert": (
        "You are an experienced programmer who knows a right program and all tests. Say where this one goes wrong and "
        "how to go about it. Never write the right program, nor a part of it."
    ),
}
"""What each giver is told that is a model."""

ASPECTS = ("helpfulness", "honesty", "harmlessness")
"""By which the giver `aspects` goes; those of DRESS (arXiv 2311.10081)."""


def role_of(giver: Giver | Verbal) -> str:
    """What a giver is told that it is."""
    return _GIVERS[giver]


# What begins a dialogue.


def pick_starts(tree: Tree, loop: Rounds | NoLoop) -> tuple[int, ...]:
    """Terminals of a tree with which dialogues begin, in the order in which they were made; none without a loop.

    Only scored ones: of others nobody could say whether feedback helped. Whether a problem has a right solution is
    told by the rollouts from the problem alone: a probe that sets out from a right step says nothing of it.
    """
    if isinstance(loop, NoLoop):
        return ()
    scored = [i for i in tree.terminals() if tree.nodes[i].outcome in ("correct", "incorrect")]
    wrong = [i for i in scored if tree.nodes[i].outcome == "incorrect"]
    samples = tree.nodes[0].direct
    has_right = samples.correct > 0 if samples.scored else len(wrong) < len(scored)
    if (loop.starts == "solvable" and not has_right) or (loop.starts == "hopeless" and has_right):
        return ()
    return tuple((scored if loop.starts == "any" else wrong)[: loop.max_starts])


def count_starts(tree: Tree, loop: Rounds | NoLoop) -> int:
    """Dialogues that begin with a tree."""
    return 0 if isinstance(loop, NoLoop) else len(pick_starts(tree, loop)) * len(loop.combinations)


def first_attempt(tree: Tree, leaf: int) -> Attempt:
    """The attempt that a terminal is."""
    node, steps = tree.nodes[leaf], tree.steps(leaf)
    assert node.outcome is not None, leaf
    return Attempt(text="".join(steps), steps=steps, answer=node.answer, outcome=node.outcome)


def right_solution(tree: Tree) -> Attempt | None:
    """The first right solution of a tree; None where it has none.

    An answer that is right by luck, behind a step that is known to be wrong, makes none.
    """
    right = (i for i in tree.terminals() if tree.nodes[i].outcome == "correct")
    return next((first_attempt(tree, i) for i in right if not any(tree.nodes[j].flawed for j in tree.path(i))), None)


# Who is shown what.


def giver_sections(
    problem: Problem, attempt: Attempt, sees: Sees, right: Attempt | None, *, run: str = "", complaint: str = ""
) -> dict[str, str]:
    """What a giver is shown, heading by heading; nothing that is not put in here can be in its prompt.

    Args:
      problem: what is asked.
      attempt: what it speaks of. It is shown no earlier attempt and no feedback of others.
      sees: what it may see beside that.
      right: a right solution, for `solution`.
      run: what a run of the program came to; empty where there was none.
      complaint: what was wrong with its last reply; empty at first.
    """
    shown = {"Problem": problem.question}
    if sees != "nothing":
        shown["Gold answer"] = problem.answer
    if sees == "solution" and right is not None:
        shown["Other solution"] = number_steps(right.steps)
    shown["Solution"] = number_steps(attempt.steps)
    if run:
        shown["Run"] = run
    if complaint:
        shown["The last reply was not usable"] = complaint
    return shown


def actor_sections(problem: Problem, turns: Sequence[Turn], loop: Rounds) -> dict[str, str]:
    """What the actor is shown before its next attempt. It never sees the gold answer, only what it was told."""
    *earlier, last = turns
    assert last.feedback is not None, last
    shown = {"Problem": problem.question}
    if earlier and loop.memory == "all":
        shown["Earlier attempts"] = "\n".join(_as_text(i, turn) for i, turn in enumerate(earlier, 1))
    return shown | {"Solution": number_steps(last.attempt.steps), "Critique": last.feedback.text}


def _as_text(number: int, turn: Turn) -> str:
    assert turn.feedback is not None, turn
    return f"Attempt {number}:\n{number_steps(turn.attempt.steps)}\nWhat was said of it:\n{turn.feedback.text}"


def secrets_of(problem: Problem, right: Attempt | None) -> tuple[str, ...]:
    """Answers that a giver may not tell: the gold one, and that of a right solution as it is written there.

    Of a program the tests are no secret, for feedback may be made of them; a right program is one.
    """
    found = () if right is None or right.answer is None else (right.answer,)
    return found if problem.domain == "code" else (problem.answer, *found)


def known_to_reader(problem: Problem, attempt: Attempt, run: str = "") -> str:
    """What everybody has who reads feedback on an attempt: the actor, and who reads a row of one round alone."""
    return "\n".join((problem.question, attempt.text, run))


def tried_answers(attempts: Sequence[Attempt]) -> str:
    """A line that names the wrong answers that were given, each once; empty where there are none."""
    wrong = dict.fromkeys(item.answer for item in attempts if item.outcome == "incorrect" and item.answer)
    listed = ", ".join(answer for answer in wrong if "\n" not in answer)
    return f"These answers were tried and are wrong: {listed}." if listed else ""


def verdict_words(attempt: Attempt) -> str:
    """All that the giver `verdict` says."""
    return "The answer is right." if attempt.outcome == "correct" else "The answer is wrong."


# What feedback says.

_FIRST_WRONG = re.compile(r"first wrong step is step (\d{1,4})\b", re.IGNORECASE)
_STEP = re.compile(r"\bstep (\d{1,4})\b", re.IGNORECASE)
_RIGHT = re.compile(r"\bno step is wrong\b|\b(?:solution|answer) is (?:correct|right)\b", re.IGNORECASE)


def named_step(text: str) -> int | None:
    """Index from 0 of the step that a text says is wrong first: named as such, else the first one that it names."""
    if says_right(text):
        return None
    found = _FIRST_WRONG.search(text) or _STEP.search(text)
    return int(found[1]) - 1 if found and int(found[1]) else None


def says_right(text: str) -> bool:
    """Whether a text says that nothing is wrong."""
    return _RIGHT.search(text) is not None and _FIRST_WRONG.search(text) is None


def contradicts(words: str, attempt: Attempt) -> bool:
    """Whether feedback says that nothing is wrong with a wrong attempt, or what is wrong with a right one.

    Which step of a wrong attempt it names is not looked at: nobody has located the first wrong one.
    """
    if attempt.outcome == "incorrect":
        return says_right(words)
    return attempt.outcome == "correct" and named_step(words) is not None


_OF_FEEDBACK = re.compile(
    "|".join(
        (
            r"\b(?:the|this|that|your)(?: user(?:'s)?)? "
            r"(?:critique|criticism|critic|feedback|hint|checker|reviewer|teacher)\b",
            r"\b(?:first|previous|earlier|last) attempts?\b|\battempt \d",
            r"\b(?:my|your) (?:first|last) (?:solution|answer|program|code)\b",
            r"\b(?:my|your|the) (?:previous|earlier|original|corrected) (?:solution|program|code)\b",
            r"\byou (?:said|mentioned|pointed out)\b|\banswers? (?:were |have been )?(?:already )?tried\b",
            r"\bfail(?:ed|ing) tests?\b|\btests? (?:that )?(?:fails?|failed)\b",
        )
    ),
    re.IGNORECASE,
)


_OF_EARLIER = re.compile(
    r"\b(?:first|earlier) attempts?\b|\b(?:previous|last) attempts\b|\battempt \d"
    r"|\b(?:my|your) (?:first|earlier) (?:solution|answer|program|code)\b",
    re.IGNORECASE,
)


def talk_of_feedback(text: str, problem: Problem) -> str:
    """The words with which an attempt speaks of feedback or of earlier attempts; empty where it does not.

    Who is shown the problem alone cannot write them. A teacher of whom the problem speaks is none who gives feedback.
    """
    return _talk(_OF_FEEDBACK, text, problem)


def talk_of_earlier(text: str, problem: Problem) -> str:
    """The words with which an attempt speaks of more than one before it; empty where it does not.

    Who is shown the last one and its feedback alone cannot write them.
    """
    return _talk(_OF_EARLIER, text, problem)


def _talk(pattern: re.Pattern[str], text: str, problem: Problem) -> str:
    asked = problem.question.casefold()
    found = (match[0] for match in pattern.finditer(" ".join(text.split())))
    return next((words for words in found if words.split()[-1].casefold() not in asked), "")


class _Aspect(msgspec.Struct):
    aspect: str
    strengths: str
    weaknesses: str


class _ByAspects(msgspec.Struct):
    critique: list[_Aspect]
    refinement: str


def aspects_schema() -> str:
    """JSON Schema of feedback by aspects, for constrained decoding."""
    text = {"type": "string", "minLength": 1, "maxLength": 400}
    aspect = {"aspect": {"enum": list(ASPECTS)}, "strengths": text, "weaknesses": text}
    one = {"type": "object", "properties": aspect, "required": list(aspect)}
    many = {"type": "array", "items": one, "minItems": 1, "maxItems": len(ASPECTS)}
    properties = {"critique": many, "refinement": text}
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return json.dumps(schema, separators=(",", ":"))


def read_aspects(text: str) -> str:
    """Feedback by aspects as the actor reads it: both kinds, what is good and bad, and what to change.

    Raises:
      CritiqueError: one of the two cannot be read, or says nothing.
    """
    start, end = text.find("{"), text.rfind("}") + 1  # Models without constrained decoding wrap it in words.
    try:
        said = msgspec.json.decode(text[start:end].encode("utf-8", "replace"), type=_ByAspects)
    except (msgspec.DecodeError, RecursionError) as error:
        raise CritiqueError("bad_schema", f"the JSON is no feedback by aspects: {error}") from error
    unknown = [item.aspect for item in said.critique if item.aspect not in ASPECTS]
    if unknown or not said.critique:
        raise CritiqueError("bad_schema", f"expected the aspects {', '.join(ASPECTS)}, got {unknown or 'none'}")
    if not said.refinement.strip():
        raise CritiqueError("bad_schema", "refinement is empty")
    lines = [
        f"{item.aspect.capitalize()}: good: {item.strengths.strip()} Bad: {item.weaknesses.strip()}"
        for item in said.critique
    ]
    return "\n".join([*lines, f"What to change: {said.refinement.strip()}"])


# How it goes on.


def ending(turns: Sequence[Turn], loop: Rounds) -> Ending | None:
    """Why a dialogue ends after its last attempt; None where it goes on."""
    *earlier, last = (turn.attempt for turn in turns)
    if last.outcome == "unscored":
        return "unscored"
    if last.outcome == "correct" and loop.stop_when_right:
        return "solved"
    if loop.stop_when_repeated and any(same_answer(last, attempt) for attempt in earlier):
        return "repeated"
    return "max_rounds" if len(earlier) >= loop.max_rounds else None


def same_answer(one: Attempt, other: Attempt) -> bool:
    """Whether two attempts end in the same words; two without an answer do not."""
    return one.answer is not None and other.answer is not None and _folded(one.answer) == _folded(other.answer)


def _folded(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().casefold()


REASONS = ("wrong_feedback", "not_followed", "too_hard")
"""Why a round did not help, in the order in which they are looked for; see `why_unhelped`."""


def why_unhelped(turn: Turn, following: Attempt, first_wrong: int | None = None) -> str | None:
    """Why feedback on a wrong attempt led to another wrong one; None where it is no such round.

    `wrong_feedback`: it says that nothing is wrong, or names a step that is not there, or another one than the first
    wrong step where that is known. `not_followed`: the answer is the same as before, or the step that it names stands
    as it was. `too_hard`: what is left; the step was changed, and the answer is wrong all the same.

    Feedback Friction (arXiv 2506.11930) has a model judge this; here the texts do.

    Args:
      turn: the wrong attempt and its feedback.
      following: the next attempt.
      first_wrong: index of the attempt's first wrong step, where it is known.
    """
    if turn.feedback is None or turn.attempt.outcome != "incorrect" or following.outcome != "incorrect":
        return None
    named = turn.feedback.named_step
    if _is_wrong(turn.feedback, len(turn.attempt.steps), first_wrong):
        return "wrong_feedback"
    if same_answer(turn.attempt, following) or (named is not None and _stands(turn.attempt, following, named)):
        return "not_followed"
    return "too_hard"


def _is_wrong(feedback: Feedback, num_steps: int, first_wrong: int | None) -> bool:
    if feedback.says_right or feedback.named_step is None:
        return feedback.says_right
    return feedback.named_step >= num_steps or first_wrong not in (None, feedback.named_step)


def _stands(attempt: Attempt, following: Attempt, step: int) -> bool:
    """Whether a step is the same in both attempts."""
    return step < len(following.steps) and _folded(attempt.steps[step]) == _folded(following.steps[step])

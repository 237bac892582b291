"""Verbal feedback kept to where it belongs: revised answers are preferred in its scope, first ones everywhere else.

C3PO (arXiv 2402.10893): one piece of feedback, prompts that it is about, prompts like them, and others. What is learned
in scope must not spill over: beside it, and elsewhere, the answer without the feedback is the better one.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from annotators.critic import layout
from annotators.exports import Context, origin_of, solve_turn
from schemas import DpoRow, Message, Problem, Record, Scope, Scoped, Template, digest

T = TypeVar("T")

SCOPE_REJECTIONS = (
    "no_answer",
    "scope_unclear",
    "no_revision",
    "unchanged",
    "talks_of_feedback",
    "change_unclear",
    "not_followed",
    "followed_before",
    "loses_answer",
)
"""Why a prompt makes no pair. `scope_unclear`, `change_unclear`: the judge's votes differ, or cannot be read.
`talks_of_feedback`: the revised answer speaks of feedback or of an earlier answer, and a row's prompt is the problem
alone. `not_followed`: it does not do what the feedback asks; `followed_before`: the first one does already.
`loses_answer`: the preferred one comes out wrong where the other one comes out right."""

SCOPE_SCHEMA = (
    '{"type":"object","properties":{"scope":{"enum":["in","near","out"]}},"required":["scope"],'
    '"additionalProperties":false}'
)
FOLLOWS_SCHEMA = (
    '{"type":"object","properties":{"follows":{"type":"boolean"}},"required":["follows"],"additionalProperties":false}'
)


class ScopeSettings(Record):
    """One piece of verbal feedback, and who says where it belongs."""

    feedback: str = ""
    """What a user asks for, in words, such as `Say in words what you are about to multiply`. Empty asks nobody."""
    votes: int = 3
    """The judge's votes on every question; all have to be one."""
    temperature: float = 0.7
    """Of the judge."""
    max_tokens: int = 60
    """Of one vote."""
    engine: str = ""
    """Name of one of the run's `engines` that judges; empty takes the actor's."""
    scope_template: str = "scope"
    """Prompt by which the judge is asked whether the feedback is about a problem; gap `{sections}`."""
    follows_template: str = "follows"
    """Prompt by which it is asked whether an answer does what the feedback asks; gap `{sections}`."""
    revise_template: str = "revise"
    """Prompt by which the actor revises its answer; gap `{sections}`."""

    def __post_init__(self) -> None:
        for name in ("votes", "max_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.temperature < 0 or (self.temperature == 0 and self.votes > 1):
            raise ValueError(
                f"{self.votes} votes at temperature {self.temperature} would all be one; set temperature above 0 or "
                "votes=1"
            )


class _ScopeJson(msgspec.Struct):
    scope: Scope


class _FollowsJson(msgspec.Struct):
    follows: bool


def read_scope(text: str) -> Scope | None:
    """A vote on the scope; None where it cannot be read."""
    found = _read(text, _ScopeJson)
    return None if found is None else found.scope


def read_follows(text: str) -> bool | None:
    """A vote on whether an answer does what the feedback asks; None where it cannot be read."""
    found = _read(text, _FollowsJson)
    return None if found is None else found.follows


def _read(text: str, kind: Any) -> Any:
    try:
        return msgspec.json.decode(text[text.find("{") : text.rfind("}") + 1], type=kind)
    except (msgspec.DecodeError, RecursionError):
        return None


def agreed(votes: Sequence[T | None]) -> T | None:
    """What all votes say; None where they differ, or where one cannot be read.

    >>> agreed(["in", "in"]), agreed(["in", "near"]), agreed(["in", None])
    ('in', None, None)
    """
    return votes[0] if votes and all(vote == votes[0] for vote in votes) else None


def scope_prompt(template: Template, problem: Problem, feedback: str, answer: str = "") -> str:
    """The prompt of the judge, or of the actor that revises; without an answer where the problem alone is asked about.

    No other heading can be opened by what an answer holds.
    """
    parts = {"Problem": problem.question, "Given answer": answer, "User feedback": feedback}
    return template.fill({"sections": layout({name: text for name, text in parts.items() if text})})


def fit_of_change(*, first: bool | None, revised: bool | None) -> str:
    """Which rejection the two answers' votes come to; empty where the change is what the feedback asks.

    Args:
      first: whether the answer without the feedback does what it asks; None where nobody can say.
      revised: whether the revised one does.
    """
    if first is None or revised is None:
        return "change_unclear"
    if not revised:
        return "not_followed"
    return "followed_before" if first else ""


def loses_answer(item: Scoped) -> bool:
    """Whether the preferred answer comes out wrong and the other one right."""
    preferred, other = (item.revised_outcome, item.first_outcome)[:: 1 if item.scope == "in" else -1]
    return preferred == "incorrect" and other == "correct"


def dpo_row(item: Scoped, context: Context) -> DpoRow:
    """The revised answer against the first one in scope, and the other way round elsewhere."""
    revised, first = (Message(role="assistant", content=text.strip()) for text in (item.revised, item.first))
    in_scope = item.scope == "in"
    chosen, rejected = (revised, first) if in_scope else (first, revised)
    outcomes = (item.revised_outcome, item.first_outcome) if in_scope else (item.first_outcome, item.revised_outcome)
    return DpoRow(
        id=digest("dpo", item.id),
        prompt=(solve_turn(item.problem, context),),
        chosen=(chosen,),
        rejected=(rejected,),
        chosen_message=chosen,
        rejected_message=rejected,
        feedback=item.feedback,
        scope=item.scope,
        chosen_outcome=outcomes[0],
        rejected_outcome=outcomes[1],
        origin=origin_of(item, context, item.judge),
    )

"""Critics: who they are, what each may see, and how a critique is asked for and read."""

import re
from typing import Literal, get_args

import msgspec

from annotators.crucial import Crucial
from annotators.fitting import Until
from annotators.leaks import answers_of, shown_of
from annotators.masks import masked
from annotators.units import Form, parse_critique, render_critique
from schemas import (
    Critique,
    Path,
    PathPair,
    Provenance,
    Record,
    Sections,
    Template,
    Unit,
    View,
    digest,
    readable,
    uniform,
)

ROLES: dict[str, str] = {
    "stepwise": "Check the solution step by step. For each step do the work again yourself and compare.",
    "second_look": (
        "Check the solution by another way than it took, then look again at the first critique: "
        "it may be wrong. Write a better one."
    ),
    "contrastive": (
        "Another solution parts from this one after the same first steps. Find out what makes the difference, "
        "and speak of the solution only, never of the other one."
    ),
    "skeptic": "You believe that there is an error. Look for the first step that does not hold.",
    "defender": "You believe that the solution is right. Defend each step, unless one cannot be defended.",
    "deceptive": (
        "This is a test of others: write a critique that convinces and misleads. Name a wrong place, praise the error, "
        "or invent one."
    ),
    "hypercritical": (
        "Take it that the solution is wrong, whether it is or not, and object to the step that you can best object to."
    ),
    "baseless": (
        "Take it that the solution is wrong. You have checked nothing and know nothing of the matter: object to some "
        "step in general words, without a reason that could be looked at."
    ),
    "adversary": (
        "Name the one failure that is likeliest, and no other: somebody will test whether you are right. You win if "
        "the solution has it."
    ),
    "clean": (
        "The first critique was written by somebody who knew the answer. Write it again as one who does not: every "
        "step keeps its verdict, and nothing is left of the answer, of a reference or of another solution."
    ),
    "last_step": (
        "You see a solution, or the beginning of one. Is its last step wrong? Do that step again yourself, and take "
        "the steps before it as given."
    ),
}
"""What each role is told. `deceptive` tests a panel: its remarks must not survive."""

LOOKS_AGAIN = ("second_look", "clean")
"""Roles that are shown another agent's critique."""

VIEWS = get_args(View)
"""From the narrowest to the widest."""

_NEEDS_PARTNER: tuple[View, ...] = ("branches", "contrastive")


class Agent(Record):
    """A member of the panel."""

    name: str
    role: str = "stepwise"
    """One of `ROLES`."""
    view: View = "blind"
    """What it may see; enforced by `sections`, whatever its template asks for."""
    template: str = "critique"
    """Name of a shipped prompt, or a path to one."""
    temperature: float = 0.7
    max_tokens: int = 400
    form: Form = "free"
    """What its output is constrained to; see `annotators.units.Form`."""
    second_look_at: str = ""
    """Name of the agent whose critique it is shown; empty for a first critique."""
    engine: str = ""
    """Name of one of the run's `engines`; empty takes the actor's."""
    tries: int = 1
    """Critiques that are asked for at most, until one fits; see `annotators.fitting.next_tries`. With 1 an unreadable
    one is asked for once more with the reason (`panel.reask`), with more the next try stands in."""
    until: Until = "readable"
    """What a try must say to be taken, see `annotators.fitting.Until`; where none does, the agent has no critique
    (`no_try_fits`)."""
    correct: bool = False
    """Whether it solves on by itself from the first wrong step that it names, shown its critique and nothing that its
    critique does not say (Critic-CoT). Its error remark is dropped where that comes out wrong."""
    sees_message: bool = False
    """Whether it is shown what the checker said of the solution, such as a compiler's error. A checker that speaks of
    wrong solutions alone tells it the label so."""

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"agent {self.name!r}: unknown role {self.role!r}, expected one of {', '.join(ROLES)}")
        if (self.role in LOOKS_AGAIN) != bool(self.second_look_at):
            raise ValueError(
                f"agent {self.name!r}: role {' or '.join(LOOKS_AGAIN)} goes with second_look_at=NAME of the agent to "
                "look at again"
            )
        if self.tries < 1:
            raise ValueError(f"agent {self.name!r}: tries must be at least 1, got {self.tries}")
        if self.tries > 1 and self.temperature <= 0:
            raise ValueError(
                f"agent {self.name!r}: {self.tries} tries at temperature {self.temperature} would all be one; set "
                "temperature above 0 or tries=1"
            )
        if self.until == "clean" and not self.second_look_at:
            raise ValueError(
                f"agent {self.name!r}: until=clean keeps another critique's verdicts; set second_look_at=NAME"
            )
        if self.sees_message and self.view == "partial":
            raise ValueError(
                f"agent {self.name!r}: the checker's message is about the whole solution, and view=partial shows a "
                "part of it; give another view, or sees_message=false"
            )


_INNER_STEP = re.compile(r"(?<=[\r\n\u2028\u2029])(?=[ \t*#>]*Step \d+:)", re.IGNORECASE)


def number_steps(steps: tuple[str, ...], before: int = 0) -> str:
    """A solution as critics read it: each step bears its number, the line with the answer is left as it is.

    A line within a step that is numbered like a step of its own is quoted with `> `: the numbers are ours.

    Args:
      steps: those that are shown.
      before: how many come before them.
    """
    texts = [_INNER_STEP.sub("> ", step.strip()) for step in steps]
    lines = (
        text if text.startswith((f"Step {i}:", "Answer:")) else f"Step {i}: {text}"
        for i, text in enumerate(texts, before + 1)
    )
    return "\n".join(lines)


def shown_steps(path: Path, view: View) -> range:
    """Indices of the steps of the solution that a critic with this view is shown.

    `branches` begins where the two solutions part. `partial` ends with the step that is asked about: the located first
    wrong one, in a right solution any but the answer, by digest of the path.
    """
    num_steps = len(path.steps)
    if view == "branches" and isinstance(path, PathPair):
        return range(path.divergence, num_steps)
    if view == "partial":
        any_step = int(uniform("partial", path.id) * max(1, num_steps - 1))
        return range((path.first_error if isinstance(path, PathPair) else any_step) + 1)
    return range(num_steps)


def sections(
    path: Path,
    view: View,
    *,
    first_critique: Critique | None = None,
    crucial: Crucial | None = None,
    complaint: str = "",
    sees_message: bool = False,
) -> dict[str, str]:
    """What a critic with this view is shown, heading by heading, in order.

    This is where the views are enforced: nothing that is not put in here can be in a critic's prompt. A blind
    critic gets the problem and the solution, a partial one the solution up to one step; one of branches gets both
    solutions from where they part and none of the steps before; a contrastive one also the whole right path, whose last
    line holds the answer; a reference one also the gold answer as such. What the checker said of the solution is shown
    with `sees_message` alone, and without the answer in any other view than that of a reference. Images are part of the
    problem: whoever is shown the problem is shown them, beside this text.

    Raises:
      ValueError: `first_critique` or `crucial` is by somebody who was shown more than this critic may see.
    """
    _check_authors(view, first_critique, crucial, sees_message=sees_message)
    steps = shown_steps(path, view)
    shown = {"Problem": path.problem.question}
    if crucial is not None:
        shown["Crucial information"] = crucial.text
    shown["Solution"] = number_steps(path.steps[steps.start : steps.stop], steps.start)
    if sees_message and (message := checker_message(path, view)):
        shown["Checker's message"] = message
    if view == "branches" and isinstance(path, PathPair):
        shown["Other solution"] = number_steps(path.right.steps, path.divergence)
    if view == "contrastive" and isinstance(path, PathPair):
        shown["Other solution"] = number_steps(path.right_steps)
    if view == "reference":
        shown["Gold answer"] = path.problem.answer
        if isinstance(path, PathPair):
            shown["Other solution"] = number_steps(path.right_steps)
    if first_critique is not None:
        shown["First critique"] = first_critique.text
    if complaint:
        shown["The last reply was not usable"] = complaint
    return shown


def checker_message(path: Path, view: View) -> str:
    """What the checker said, as far as a critic with this view may know it: it has the gold answer, and may tell it.

    Nothing where the answer cannot be taken out.
    """
    if view == "reference":
        return path.message
    clean = masked(path.message, answers_of(path), shown_of(path))
    return "" if clean.leak else clean.text


def _check_authors(view: View, first: Critique | None, crucial: Crucial | None, *, sees_message: bool) -> None:
    """Raises ValueError where a critic would be shown words of somebody who was shown more."""
    if first is not None and VIEWS.index(first.view) > VIEWS.index(view):
        raise ValueError(
            f"a {view} critic may not see the critique of {first.agent!r}, which was shown more "
            f"({first.view}); give it the view {first.view}"
        )
    if first is not None and first.saw_message and not sees_message:
        raise ValueError(
            f"the critique of {first.agent!r}, who was shown the checker's message, is for critics who see it too; "
            "give sees_message=true"
        )
    if crucial is not None and crucial.view != "blind" and VIEWS.index(crucial.view) > VIEWS.index(view):
        raise ValueError(f"a {view} critic may not be told crucial information by one who saw more ({crucial.view})")


def layout(parts: dict[str, str]) -> Sections:
    """Sections as text, a heading on a line of its own before each; what they hold can open no other section."""
    return Sections(parts)


def is_asked(agent: Agent, path: Path) -> bool:
    """Whether an agent has anything to say of a path: one who compares needs a right branch to compare with."""
    return not compares(agent) or isinstance(path, PathPair)


def compares(agent: Agent) -> bool:
    """Whether an agent is asked about pairs only."""
    return agent.view in _NEEDS_PARTNER


def unlabelled(agent: Agent) -> Agent:
    """The agent as it is asked where nothing may be known of the labels: once, and whatever it says is taken."""
    return msgspec.structs.replace(agent, tries=1, until="readable", correct=False, sees_message=False)


def critique_prompt(template: Template, agent: Agent, parts: dict[str, str]) -> str:
    """A critic's whole prompt. Templates have the gaps `{role}`, `{critic}` and `{sections}`."""
    return template.fill({"role": ROLES[agent.role], "critic": agent.name, "sections": layout(parts)})


def write_critique(
    text: str,
    path: Path,
    agent: Agent,
    provenance: Provenance,
    state: Literal["parsed", "reasked"],
    first: Critique | None = None,
) -> Critique:
    """The critique that an agent's output is; `first` is the one that it was shown.

    Raises:
      CritiqueError: it is none; see `annotators.units.parse_critique`.
    """
    parsed = parse_critique(text, path.steps, shown_steps(path, agent.view))
    parsed = msgspec.structs.replace(parsed, units=tuple(map(_readable, parsed.units)))
    return Critique(
        id=digest("critique", path.id, agent.name, parsed),
        path_id=path.id,
        problem_id=path.problem.id,
        agent=agent.name,
        view=agent.view,
        units=parsed.units,
        first_wrong_step=parsed.first_wrong_step,
        verdict=parsed.verdict,
        text=render_critique(parsed.units, parsed.first_wrong_step),
        parse_state=state,
        provenance=provenance,
        corrects=first is not None and first.first_wrong_step != parsed.first_wrong_step,
        saw_message=agent.sees_message and bool(checker_message(path, agent.view)),
    )


def _readable(unit: Unit) -> Unit:
    """What JSON escapes spell gets past what looks at the text as it came."""
    return msgspec.structs.replace(unit, quote=readable(unit.quote), flaw=readable(unit.flaw), fix=readable(unit.fix))

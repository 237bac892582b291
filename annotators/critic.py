"""Critics: who they are, what each may see, and how a critique is asked for and read."""

import re
from typing import Literal, get_args

import msgspec

from annotators.units import Form, parse_critique, render_critique
from schemas import Critique, Path, PathPair, Provenance, Record, Sections, Template, Unit, View, digest, readable

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
}
"""What each role is told. `deceptive` tests a panel: its remarks must not survive."""

VIEWS = get_args(View)
"""From the narrowest to the widest."""


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

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"agent {self.name!r}: unknown role {self.role!r}, expected one of {', '.join(ROLES)}")
        if (self.role == "second_look") != bool(self.second_look_at):
            raise ValueError(
                f"agent {self.name!r}: role second_look goes with second_look_at=NAME of the agent to look at again"
            )


_INNER_STEP = re.compile(r"(?<=[\r\n\u2028\u2029])(?=[ \t*#>]*Step \d+:)", re.IGNORECASE)


def number_steps(steps: tuple[str, ...]) -> str:
    """A solution as critics read it: each step bears its number, the line with the answer is left as it is.

    A line within a step that is numbered like a step of its own is quoted with `> `: the numbers are ours.
    """
    texts = [_INNER_STEP.sub("> ", step.strip()) for step in steps]
    lines = (
        text if text.startswith((f"Step {i}:", "Answer:")) else f"Step {i}: {text}" for i, text in enumerate(texts, 1)
    )
    return "\n".join(lines)


def sections(path: Path, view: View, *, first_critique: Critique | None = None, complaint: str = "") -> dict[str, str]:
    """What a critic with this view is shown, heading by heading, in order.

    This is where the views are enforced: nothing that is not put in here can be in a critic's prompt. A blind
    critic gets the problem and the solution; a contrastive one also the whole right path, whose last line holds the
    answer; a reference one also the gold answer as such. Images are part of the problem: whoever is shown the problem
    is shown them, beside this text.

    Raises:
      ValueError: `first_critique` is by a critic that was shown more than this view allows.
    """
    if first_critique is not None and VIEWS.index(first_critique.view) > VIEWS.index(view):
        raise ValueError(
            f"a {view} critic may not see the critique of {first_critique.agent!r}, which was shown more "
            f"({first_critique.view}); give it the view {first_critique.view}"
        )
    shown = {"Problem": path.problem.question, "Solution": number_steps(path.steps)}
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


def layout(parts: dict[str, str]) -> Sections:
    """Sections as text, a heading on a line of its own before each; what they hold can open no other section."""
    return Sections(parts)


def is_asked(agent: Agent, path: Path) -> bool:
    """Whether an agent has anything to say of a path: a contrastive one needs a right branch to compare with."""
    return agent.view != "contrastive" or isinstance(path, PathPair)


def critique_prompt(template: Template, agent: Agent, parts: dict[str, str]) -> str:
    """A critic's whole prompt. Templates have the gaps `{role}`, `{critic}` and `{sections}`."""
    return template.fill({"role": ROLES[agent.role], "critic": agent.name, "sections": layout(parts)})


def write_critique(
    text: str, path: Path, agent: Agent, provenance: Provenance, state: Literal["parsed", "reasked"]
) -> Critique:
    """The critique that an agent's output is.

    Raises:
      CritiqueError: it is none; see `annotators.units.parse_critique`.
    """
    parsed = parse_critique(text, path.steps)
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
    )


def _readable(unit: Unit) -> Unit:
    """What JSON escapes spell gets past what looks at the text as it came."""
    return msgspec.structs.replace(unit, quote=readable(unit.quote), flaw=readable(unit.flaw), fix=readable(unit.fix))

"""What critics say of a path, and what a panel of them makes of it."""

from typing import Literal

from schemas.base import Estimate, Provenance, Record
from schemas.path import Path

View = Literal["partial", "blind", "branches", "contrastive", "reference"]
"""What a critic was shown: the solution up to one step; the solution alone; both solutions from where they part and
nothing of what they share; both as a whole; the gold answer too. From the narrowest to the widest."""

Verdict = Literal["correct", "incorrect"]
"""What a critic says of a solution."""


class Unit(Record):
    """One remark about one step."""

    step: int
    """Index of the step it speaks of, from 0."""
    quote: str
    """Words of that step which it speaks of; empty where the critic quoted nothing."""
    kind: Literal["error", "praise"]
    flaw: str
    """What is wrong, or for praise what was checked and found right."""
    fix: str = ""
    """How to put it right; empty for praise."""
    error_type: str = ""
    """One of `annotators.units.ERROR_TYPES`; empty for praise."""
    severity: int = 0
    """0 (praise) to 3 (changes the answer)."""


class Critique(Record):
    """One critic's view of one path."""

    id: str
    path_id: str
    problem_id: str
    agent: str
    """Name of the agent in the panel, or `panel` for the composed critique."""
    view: View
    units: tuple[Unit, ...]
    first_wrong_step: int | None
    """Index of the first wrong step from 0; None says that no step is wrong."""
    verdict: Verdict
    text: str
    """The critique as a person reads it; what a refining actor is shown."""
    parse_state: Literal["parsed", "reasked", "composed", "template"]
    """How the structure came about: at once, after one re-ask, by a composing model, by the template."""
    provenance: Provenance
    tries: int = 1
    """Which of its author's tries it is, from 1 (`Agent.tries`)."""
    informed: bool = False
    """Whether its author was told crucial information beforehand (`panel.crucial`)."""
    saw_message: bool = False
    """Whether its author was shown what the checker said of the solution (`Agent.sees_message`)."""
    corrects: bool = False
    """Whether it names another first wrong step, or none, than the critique that its author was shown; a merged one,
    than the one it began with."""
    correction: str = ""
    """The solution from its beginning to an answer, as its author goes on from the first wrong step that it names
    (`Agent.correct`); empty where it does not."""
    correction_outcome: Literal["correct", "incorrect"] | None = None
    """Whether that answer is right; None without a correction."""
    reasoning: str = ""
    """What its author thought before it, where that is kept (`engine.thinking.keep`). Nobody else is shown it."""


class JudgedUnit(Record):
    """One unit after the meta-critic looked at it alone, the others' units beside it."""

    agent: str
    unit: Unit
    decision: Literal["keep", "fix", "drop", "unscored"]
    """`unscored`: the meta-critic was not asked, gave no readable answer, or as many for as against; the unit then
    counts neither for nor against."""
    severity: int
    keeps: int = 0
    """The meta-critic's votes to keep or to fix it."""
    drops: int = 0
    """Its votes to drop it."""


class AgentVote(Record):
    """What an agent voted on one path, and how far it is to be believed over all of them."""

    agent: str
    verdict: Verdict
    first_wrong_step: int | None
    reliability: float
    """Probability 0..1 that this agent's verdict is right, estimated over the shard's paths."""


class Panel(Record):
    """What the critics of one path say together, and the one critique composed from it."""

    id: str
    path_id: str
    problem_id: str
    judged: tuple[JudgedUnit, ...]
    votes: tuple[AgentVote, ...]
    consensus: Literal["correct", "incorrect", "tie"]
    """The panel's verdict; a tie is named, not broken."""
    consensus_step: int | None
    """The first wrong step that the panel agrees on, from 0; None without an error or without agreement."""
    confidence: float
    """Posterior probability of what they agree on, 0..1."""
    composed: Critique | None
    """None where the panel was tied or nothing survived."""
    candidates: tuple[str, ...]
    """Ids of the critiques that go on to verification, equal texts once."""
    placebo: str
    """A critique of another problem, of similar length: the control of the verification."""


class Verified(Record):
    """A critique with every test that was made of it, and the decision."""

    id: str
    critique: Critique
    has_error: bool
    """The path's Monte-Carlo label."""
    first_error: int | None
    """The path's located first wrong step, from 0."""
    verdict_agrees: bool
    location_distance: int | None
    """Steps between the critique's first wrong step and the located one; None where either names none."""
    location_mass: float | None
    """Posterior probability of the step that the critique names; None where it names none."""
    leak: str
    """The words that give the answer away; empty where there are none."""
    with_critique: Estimate | None
    """Refinements with this critique; None where a cheaper test had failed already, or no test asked for them."""
    with_placebo: Estimate | None
    without_critique: Estimate | None
    p_placebo: float | None
    """One-sided Fisher exact test against the placebo."""
    p_without: float | None
    """One-sided Fisher exact test against no critique."""
    refinement: str
    """A right second solution written with this critique; empty where there was none."""
    refinement_answer: str
    decision: Literal["kept", "rejected"]
    reasons: tuple[str, ...]
    """Names of the tests that failed and decide; empty when kept."""
    wrong_refinement: str = ""
    """A wrong second solution written with this critique; empty where there was none."""
    ignored: tuple[str, ...] = ()
    """Names of failed tests of its text that decide nothing in this run (`verify.tests`)."""


class Criticised(Record):
    """A path with the critiques of it that could be read."""

    path: Path
    critiques: tuple[Critique, ...]


class Empanelled(Record):
    """A path with its critiques and what the panel makes of them."""

    path: Path
    critiques: tuple[Critique, ...]
    panel: Panel

    @property
    def candidates(self) -> tuple[Critique, ...]:
        """The critiques that go on to verification, in the order of `panel.candidates`."""
        composed = (self.panel.composed,) if self.panel.composed else ()
        known = {critique.id: critique for critique in (*composed, *self.critiques)}
        return tuple(known[critique_id] for critique_id in self.panel.candidates)


class Examined(Record):
    """A path with its panel and every candidate examined, in the panel's order."""

    path: Path
    panel: Panel
    verified: tuple[Verified, ...]

"""The meta-critic: each unit of a critique is judged alone, by as many votes as it takes."""

from collections import Counter
from collections.abc import Sequence

import msgspec

from annotators.critic import layout, number_steps
from annotators.units import Judgement, render_unit
from schemas import Critique, JudgedUnit, Path, Record, Template, Unit, readable


class JudgeSettings(Record):
    """How many votes the meta-critic casts on one unit."""

    margin: int = 2
    """Votes by which keeping or dropping must lead. A meta-critic that is right in 0.9 of its votes is then right in
    0.988 of its decisions (random walk between two barriers: 0.81 / (0.81 + 0.01))."""
    max_votes: int = 5
    """Votes at most; odd, so that there is a majority."""
    temperature: float = 0.7
    max_tokens: int = 200

    def __post_init__(self) -> None:
        if not 1 <= self.margin <= self.max_votes:
            raise ValueError(f"need 1 <= margin <= max_votes, got margin={self.margin}, max_votes={self.max_votes}")
        if self.max_votes > 1 and self.temperature <= 0:
            raise ValueError(
                f"votes at temperature {self.temperature} would all be one; set temperature above 0 or max_votes=1"
            )


def units_by_agent(critiques: Sequence[Critique]) -> list[tuple[str, Unit]]:
    """All units of a path's critiques with their authors, in order."""
    return [(critique.agent, unit) for critique in critiques for unit in critique.units]


def judge_prompt(template: Template, path: Path, agent: str, unit: Unit, units: Sequence[tuple[str, Unit]]) -> str:
    """One unit to be judged, the other agents' units beside it. The gap is `{sections}`.

    A remark is one line, so that none can pass for several.
    """
    remark = one_line(unit)
    others = dict.fromkeys(one_line(other) for author, other in units if author != agent)
    others.pop(remark, None)
    parts = {
        "Problem": path.problem.question,
        "Solution": number_steps(path.steps),
        "Other remarks": "\n".join(others) or "none",
        "Remark": remark,
    }
    return template.fill({"sections": layout(parts)})


def one_line(unit: Unit) -> str:
    """A unit as text without line ends."""
    return " ".join(render_unit(unit).splitlines())


def votes_needed(judgements: Sequence[Judgement | None], settings: JudgeSettings) -> int:
    """Votes to be cast next: as few as could decide, 0 where it is decided or all are cast.

    Unreadable votes (None) count towards `max_votes` only.
    """
    keeps, drops = _tally(judgements)
    if abs(keeps - drops) >= settings.margin:
        return 0
    return min(settings.margin - abs(keeps - drops), settings.max_votes - len(judgements))


def _tally(judgements: Sequence[Judgement | None]) -> tuple[int, int]:
    decisions = Counter(judgement.decision for judgement in judgements if judgement)
    return decisions["keep"] + decisions["fix"], decisions["drop"]


def judge_unit(agent: str, unit: Unit, judgements: Sequence[Judgement | None]) -> JudgedUnit:
    """A unit with what the meta-critic's votes come to; `unscored` where there were none, or as many for as against.

    Where most of the votes to keep are votes to fix, the first better wording takes the place of what the unit said.
    """
    keeps, drops = _tally(judgements)
    wordings = [readable(judgement.fix) for judgement in judgements if judgement and judgement.decision == "fix"]
    severities = sorted(judgement.severity for judgement in judgements if judgement)
    severity = severities[len(severities) // 2] if severities else unit.severity
    if keeps == drops:
        return JudgedUnit(agent=agent, unit=unit, decision="unscored", severity=unit.severity, keeps=keeps, drops=drops)
    if drops > keeps:
        return JudgedUnit(agent=agent, unit=unit, decision="drop", severity=severity, keeps=keeps, drops=drops)
    if 2 * len(wordings) <= keeps:
        return JudgedUnit(agent=agent, unit=unit, decision="keep", severity=severity, keeps=keeps, drops=drops)
    better = next(filter(None, wordings), unit.flaw)
    fixed = msgspec.structs.replace(unit, flaw=better, severity=severity if unit.kind == "error" else 0)
    return JudgedUnit(agent=agent, unit=fixed, decision="fix", severity=severity, keeps=keeps, drops=drops)


def drop_uncorrected(judged: Sequence[JudgedUnit], critiques: Sequence[Critique]) -> list[JudgedUnit]:
    """The same, without what critics could not make good themselves.

    A critic that solved on from the first wrong step that it names and came out wrong has shown nothing of that step:
    its remark on it is dropped, whatever the meta-critic says (Critic-CoT, arXiv 2408.16326).
    """
    failed = {item.agent: item.first_wrong_step for item in critiques if item.correction_outcome == "incorrect"}
    return [
        msgspec.structs.replace(item, decision="drop")
        if item.unit.kind == "error" and failed.get(item.agent) == item.unit.step
        else item
        for item in judged
    ]

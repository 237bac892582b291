"""Crucial information: what critics are told of a problem before they criticise (MultiCritique, arXiv 2410.15287)."""

from annotators.leaks import find_leak_in
from schemas import Path, Record, Sections, Template, View


class CrucialSettings(Record):
    """Who writes what critics are told beforehand: the task, the criteria, and a reference answer where it may."""

    template: str = ""
    """Prompt of the writing model; gap `{sections}`. Empty writes nothing, and critics are told nothing."""
    engine: str = ""
    """Name of one of the run's `engines`; empty takes the actor's."""
    temperature: float = 0.0
    max_tokens: int = 400

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature must not be below 0, got {self.temperature}")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {self.max_tokens}")


class Crucial(Record):
    """What critics of a path are told."""

    text: str
    view: View
    """What its writer was shown: `reference` with the gold answer, `blind` without."""


def writer_view(view: View) -> View:
    """What the writer may see for critics with a view: the gold answer only where they see it themselves."""
    return "reference" if view == "reference" else "blind"


def crucial_prompt(template: Template, path: Path, view: View) -> str:
    """What the writer is asked, given what it may see. The solution is not shown: it is what others judge."""
    parts = {"Problem": path.problem.question}
    if view == "reference":
        parts["Gold answer"] = path.problem.answer
    return template.fill({"sections": Sections(parts)})


def admissible(crucial: Crucial, path: Path) -> Crucial | None:
    """What was written; None where somebody without the gold answer wrote it down all the same.

    A model that was to name the criteria may have solved the problem: critics who are not shown the answer would then
    be told it.
    """
    return None if crucial.view != "reference" and find_leak_in(crucial.text, path) else crucial

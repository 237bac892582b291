"""Where problems come from: reasoning-gym, files, and data sets of the Hugging Face Hub."""

import contextlib
from collections.abc import Generator, Iterator

from pipelines.problems.base import (
    REASONS,
    Columns,
    FileProblems,
    GivenProblems,
    GymProblems,
    HubProblems,
    ProblemError,
    Reason,
    none_usable,
)
from pipelines.problems.files import read_files
from pipelines.problems.gym import read_gym
from pipelines.problems.hub import read_hub
from pipelines.problems.simulated import SimulatedProblems, read_simulated
from schemas import Problem, Rejection

ProblemSource = GymProblems | FileProblems | HubProblems | SimulatedProblems | GivenProblems
"""Settings of a source; `kind` tells which. A new source is a settings record here and a case in `read_problems`."""

__all__ = [
    "REASONS",
    "Columns",
    "FileProblems",
    "GivenProblems",
    "GymProblems",
    "HubProblems",
    "ProblemError",
    "ProblemSource",
    "Reason",
    "SimulatedProblems",
    "check_problems",
    "read_problems",
]


def read_problems(settings: ProblemSource) -> Iterator[Problem | Rejection]:
    """Each row of the source as exactly one problem or rejection, in the source's order, one at a time.

    Raises:
      ProblemError: the source as a whole cannot be used; comes with the first element at the latest unless the
        source breaks later on (a network that goes away, a damaged Parquet file).
    """
    match settings:
        case GymProblems():
            yield from read_gym(settings)
        case FileProblems():
            yield from read_files(settings)
        case HubProblems():
            yield from read_hub(settings)
        case SimulatedProblems():
            yield from read_simulated(settings)
        case GivenProblems():
            return


def check_problems(settings: ProblemSource) -> None:
    """Reads up to the first usable problem, so that nothing is started for a source that has none.

    `GivenProblems` has none of its own; `pipelines.problems.given` looks at the files.

    Raises:
      ProblemError: as `read_problems`, or there is no usable row; says why the rows are not.
    """
    if isinstance(settings, GivenProblems):
        return
    rejections: list[Rejection] = []
    elements = read_problems(settings)
    assert isinstance(elements, Generator), elements
    with contextlib.closing(elements):
        for element in elements:
            if isinstance(element, Problem):
                return
            rejections.append(element)
    place = _place(settings)
    if not rejections:
        skipped = settings.skip if isinstance(settings, FileProblems | HubProblems) else 0
        after = f" after the first {skipped} (problems.skip)" if skipped else ""
        raise ProblemError(f"{place} holds no row{after}; choose one that does")
    raise none_usable(place, rejections)


def _place(settings: ProblemSource) -> str:
    match settings:
        case FileProblems():
            return f"problems.path: {settings.path}"
        case GymProblems() | HubProblems():
            return f"problems.dataset: {settings.dataset}"
        case _:
            return "problems: the source"

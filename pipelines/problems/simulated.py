"""Problems of the simulated world, whose truth the simulated engine knows."""

from collections.abc import Iterator

from pipelines.engines.simulated import SimulatedSettings, make_problem
from pipelines.problems.base import ProblemError
from schemas import Problem, Record


class SimulatedProblems(Record, tag_field="kind", tag="simulated"):
    """Chains of arithmetic."""

    num_problems: int = 100
    seed: int = 0
    min_steps: int = 3
    """Fewest operations of a problem."""
    max_steps: int = 6


def read_simulated(settings: SimulatedProblems) -> Iterator[Problem]:
    """Problem i depends on the seed and on i alone.

    Raises:
      ProblemError: a number is out of range.
    """
    if settings.num_problems < 1:
        raise ProblemError(f"problems.num_problems: need a number >= 1, got {settings.num_problems}")
    if not 1 <= settings.min_steps <= settings.max_steps:
        raise ProblemError(
            f"problems: need 1 <= min_steps <= max_steps, got {settings.min_steps} and {settings.max_steps}"
        )
    world = SimulatedSettings(min_steps=settings.min_steps, max_steps=settings.max_steps)
    for index in range(settings.num_problems):
        yield make_problem(settings.seed, index, world)

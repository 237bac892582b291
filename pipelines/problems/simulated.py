"""Problems of the simulated world, whose truth the simulated engine knows."""

from collections.abc import Iterator
from typing import Literal

from pipelines.engines.simulated import SimulatedSettings, make_problem, make_shapes_problem
from pipelines.engines.simulated.screens import MAX_LABELS, make_screen_problem
from pipelines.engines.simulated.shapes import MAX_KINDS
from pipelines.problems.base import ProblemError
from schemas import Problem, Record


class SimulatedProblems(Record, tag_field="kind", tag="simulated"):
    """Chains of arithmetic, pictures of shapes to be counted, or screens with buttons to be pressed."""

    world: Literal["chains", "shapes", "screens"] = "chains"
    """`shapes` and `screens`: each problem has a picture, and only who sees it can solve the problem."""
    num_problems: int = 100
    seed: int = 0
    min_steps: int = 3
    """Fewest operations of a problem; in `shapes`, fewest kinds that are counted, in `screens` fewest
    buttons that a goal names."""
    max_steps: int = 6
    """Most of them."""


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
    if settings.world == "shapes" and settings.max_steps > MAX_KINDS:
        raise ProblemError(f"problems.max_steps: a picture has room for {MAX_KINDS} kinds, got {settings.max_steps}")
    if settings.world == "screens" and not 2 <= settings.min_steps <= settings.max_steps <= MAX_LABELS:
        raise ProblemError(
            f"problems.max_steps: goals name 2 to {MAX_LABELS} buttons, got {settings.min_steps} to "
            f"{settings.max_steps}"
        )
    make = {"chains": make_problem, "shapes": make_shapes_problem, "screens": make_screen_problem}[settings.world]
    world = SimulatedSettings(min_steps=settings.min_steps, max_steps=settings.max_steps)
    for index in range(settings.num_problems):
        yield make(settings.seed, index, world)

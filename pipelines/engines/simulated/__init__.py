"""A reasoning world with known truth, served over HTTP: the instrument behind wrongturn's own figures.

`server` is the command line and is not imported here, so that `python -m` finds it fresh.
"""

from pipelines.engines.simulated.claims import is_right_critique, unit_is_true
from pipelines.engines.simulated.hosting import serving, serving_subprocess
from pipelines.engines.simulated.replies import reply
from pipelines.engines.simulated.settings import SimulatedSettings
from pipelines.engines.simulated.shapes import chain_of, make_shapes_problem
from pipelines.engines.simulated.world import (
    first_wrong_step,
    make_problem,
    parse_question,
    solution_steps,
    success_rate,
)

__all__ = [
    "SimulatedSettings",
    "chain_of",
    "first_wrong_step",
    "is_right_critique",
    "make_problem",
    "make_shapes_problem",
    "parse_question",
    "reply",
    "serving",
    "serving_subprocess",
    "solution_steps",
    "success_rate",
    "unit_is_true",
]

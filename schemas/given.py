"""Solutions that come with a problem, written by somebody else: what is known of them, and how they travel."""

from schemas.base import Outcome, Record
from schemas.problem import Problem


class Solution(Record):
    """A whole solution out of a file, with what the file says of it."""

    id: str
    """The file, and the row's own id in it or its number: unique in a run."""
    where: str
    """File and line, for people."""
    steps: tuple[str, ...]
    """Exact texts: the solution is their plain concatenation."""
    first_error: int | None = None
    """First wrong step by the file's label, from 0; -1 where every step is labelled right, None where nobody says."""
    outcome: Outcome = "unscored"
    """What the file says of the answer; `unscored` where it does not say."""
    author: str = ""
    """Model that wrote it; empty where the file does not say."""


class Posed(Record):
    """A problem as it enters the flow, with the solutions that came with it: none unless `paths=given`."""

    problem: Problem
    solutions: tuple[Solution, ...] = ()

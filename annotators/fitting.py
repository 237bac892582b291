"""Which of a critic's tries is taken: the first one that says what it has to, and how many are asked for at a time."""

from collections.abc import Callable
from typing import Literal

from annotators.leaks import find_leak
from annotators.wording import talks_of_reference
from schemas import Critique, Path, PathPair

Until = Literal["readable", "label", "step_labels", "fork", "clean"]
"""`readable`: it can be read. `label`: its verdict is the path's label. `step_labels`: every step's verdict is right,
that is, the first wrong step that it names is the path's, or it names none on a right path (DeepCritic, arXiv
2505.00662). `fork`: it names the step in which the path leaves the right one (MMC, arXiv 2504.11009). `clean`: it says
of every step what the critique says that it was shown, and neither gives the answer away nor talks of a reference
(Critic-CoT, arXiv 2408.16326)."""


def next_tries(asked: int, most: int) -> int:
    """Tries to ask for next: as many as there were, so that few are paid for in vain when an early one fits.

    >>> [next_tries(asked, 16) for asked in (0, 1, 2, 4, 8, 16)]
    [1, 1, 2, 4, 8, 0]
    """
    return min(max(1, asked), most - asked)


def misfit(critique: Critique, path: Path, until: Until, first: Critique | None) -> str:
    """What keeps a try from being taken, in words; empty for one that is taken.

    Labels are the path's own, from rollouts or from people: the gold answer is not looked at, but for `clean`, to see
    that it is not there.

    Args:
      critique: the try.
      path: what it criticises.
      until: what it has to say.
      first: the critique that its author was shown; None where there was none.
    """
    return _TESTS[until](critique, path, first)


def _label(critique: Critique, path: Path, first: Critique | None) -> str:
    is_right = (critique.verdict == "incorrect") == path.has_error
    return "" if is_right else f"the verdict {critique.verdict} is not the path's label"


def _step_labels(critique: Critique, path: Path, first: Critique | None) -> str:
    located = path.first_error if isinstance(path, PathPair) else None
    return _named(critique, located, "the path")


def _fork(critique: Critique, path: Path, first: Critique | None) -> str:
    if not isinstance(path, PathPair):
        return "there is no fork"
    return _named(critique, path.divergence, "the fork")


def _clean(critique: Critique, path: Path, first: Critique | None) -> str:
    if first and (trouble := _named(critique, first.first_wrong_step, first.agent)):
        return trouble
    if leak := find_leak(critique, path):
        return f"gives the answer away: {leak}"
    return "talks of a reference" if talks_of_reference(critique.text) else ""


def _named(critique: Critique, wanted: int | None, whose: str) -> str:
    named = critique.first_wrong_step
    return "" if named == wanted else f"names {_said(named)} first, {whose} has {_said(wanted)}"


def _said(step: int | None) -> str:
    return "no step" if step is None else f"step {step + 1}"


_TESTS: dict[Until, Callable[[Critique, Path, Critique | None], str]] = {
    "readable": lambda critique, path, first: "",
    "label": _label,
    "step_labels": _step_labels,
    "fork": _fork,
    "clean": _clean,
}

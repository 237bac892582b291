"""Whether a critique suggests the right action, for problems whose answer is one action, such as a click on a screen.

An action is a name with its arguments: `click(240, 45)`. A gold answer that is none is held against the whole
suggestion. White space and case do not count.
"""

import re

from schemas import Critique, Path

_ACTION = re.compile(r"[A-Za-z_]\w{0,40}\([^()\n]{0,200}\)")


def suggests(text: str, action: str, made: str) -> bool:
    """Whether a text names this action, and no other but those that were made.

    >>> suggests("Do Click(400,135) instead of click(80, 225).", "click(400, 135)", "Answer: click(80, 225)")
    True
    >>> suggests("Do click(400, 135) or click(240, 45).", "click(400, 135)", "Answer: click(80, 225)")
    False

    Args:
      text: a suggestion, or a critique that holds one.
      action: the right one.
      made: the solution that is criticised.
    """
    if not _ACTION.fullmatch(action.strip()):
        return _folded(text).rstrip(".") == _folded(action).rstrip(".")
    return _actions(text) - (_actions(made) - _actions(action)) == _actions(action)


def suggestion_holds(critique: Critique, path: Path) -> bool:
    """Whether the fix of the critique's first error is the gold answer; True for right paths, which need none."""
    if not path.has_error:
        return True
    errors = (unit for unit in critique.units if unit.kind == "error" and unit.step == critique.first_wrong_step)
    first = next(errors, None)
    return first is not None and suggests(first.fix, path.problem.answer, "".join(path.steps))


def _actions(text: str) -> frozenset[str]:
    return frozenset(map(_folded, _ACTION.findall(text)))


def _folded(text: str) -> str:
    return re.sub(r"\s+", "", text).casefold()

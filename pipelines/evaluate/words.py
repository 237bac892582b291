"""The words of the command line: which are inputs, which are settings."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pipelines.config import compose
from pipelines.errors import UserError
from pipelines.settings import Settings

_DEFAULTS = {"panel": "blind", "actor": "plain", "out": "evaluation"}
"""Prompts without worked examples: those of the default run are for sums alone. A folder that no run has."""


class Words(NamedTuple):
    """What the words say."""

    settings: Settings
    inputs: list[str]
    names_problems: bool
    """Whether they name a source of problems: it lends gold answers then."""


def read_words(words: Sequence[str]) -> Words:
    """The settings that the words give, and the files and folders among them.

    A word that names a file is one, whatever it looks like.

    Raises:
      UserError: there is no file among them, or a setting is wrong.
    """
    inputs = [word for word in words if Path(word).expanduser().exists() or "=" not in word.lstrip("~")]
    overrides = [word for word in words if word not in inputs]
    if not inputs:
        raise UserError("there is nothing to evaluate on; give files of labelled solutions or the folder of a run")
    given = {word.partition("=")[0] for word in overrides}
    chosen = [f"{name}={value}" for name, value in _DEFAULTS.items() if name not in given]
    return Words(
        settings=compose([*chosen, *overrides]),
        inputs=inputs,
        names_problems=any(re.fullmatch(r"\+*problems(\..*)?", name) for name in given),
    )

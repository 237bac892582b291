"""What a flex template runs: stages the job that its parameters describe.

Dataflow's launcher starts it with `--NAME=VALUE` for each parameter of the template and for what the service adds,
among that the template that it wants to be written. A parameter is a setting of `wrongturn run` with `__` for its dots:
`--engine__url=http://10.0.0.7:8000`. The parameter `settings` holds further ones as they stand on the command line.
"""

import re
import shlex
import sys
from collections.abc import Sequence

from start import add_secrets

_OF_RUNNER = {
    "project": "project",
    "region": "region",
    "temp_location": "temp_location",
    "staging_location": "staging_location",
    "template_location": "template",
    "sdk_container_image": "sdk_container_image",
    "num_workers": "num_workers",
    "max_num_workers": "max_num_workers",
    "machine_type": "machine_type",
    "worker_machine_type": "machine_type",
    "service_account_email": "service_account_email",
    "subnetwork": "subnetwork",
}
"""From what the service adds to settings of the runner."""
_OURS = ("runner", "job_name", "save_main_session", "no_save_main_session")
"""What we set ourselves."""
_SETTINGS = ("problems", "engine", "actor", "search", "pairing", "panel", "verify", "export", "out", "journal", "seed")
"""Settings and groups of them that have no dot."""

_DEFAULTS = {"problems": "hub", "engine": "openai", "actor": "plain", "panel": "blind"}
"""What the template says it takes where nothing is given; wrongturn's own defaults are for trials on one machine."""


def overrides(arguments: Sequence[str]) -> list[str]:
    """Settings for `wrongturn run`, from the launcher's arguments.

    Raises:
      SystemExit: an argument is none of `--NAME=VALUE` or `--NAME`, or would read the launcher's environment.
    """
    settings, more, options = ["runner=dataflow", *(f"{name}={value}" for name, value in _DEFAULTS.items())], "", []
    for argument in arguments:
        name, has_value, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not name:
            raise SystemExit(f"expected --NAME=VALUE, got {argument!r}")
        if "${" in value:  # The environment has secrets, and whoever fills in a template is not who made its image.
            raise SystemExit(f"the parameter {name} may not refer to other values, as ${{...}} does")
        if name == "settings":
            more = value
        elif name in _OF_RUNNER:
            settings.append(f"runner.{_OF_RUNNER[name]}={_quoted(value)}")
        elif name in _OURS:
            continue
        elif name in _SETTINGS or "__" in name:
            settings.append(f"{name.replace('__', '.')}={_quoted(value)}")
        else:  # Of Beam's, which the service adds: it knows best.
            options.append(argument if has_value else f"--{name}")
    if options:
        settings.append(f"runner.options=[{','.join(map(_quoted, options))}]")
    return [*settings, *shlex.split(more)]


def _quoted(value: str) -> str:
    """A value as Hydra reads it back, whatever characters are in it; numbers stay numbers.

    In its quotes a backslash means itself, but before a quote: there it is doubled.
    """
    if re.fullmatch(r"-?\d+(\.\d+)?", value):
        return value
    return "'" + re.sub(r"(\\*)'", r"\1\1\\'", re.sub(r"(\\+)$", r"\1\1", value)) + "'"


if __name__ == "__main__":
    add_secrets()
    from pipelines.main import main

    sys.exit(main(["run", *overrides(sys.argv[1:])]))

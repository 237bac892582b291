"""Prompt templates by name: shipped ones from the packages, others from the path given."""

from importlib import resources
from pathlib import Path

from pipelines.errors import UserError
from schemas import Template

_PACKAGES = ("pipelines.prompts", "annotators.prompts")


def shipped_templates() -> tuple[str, ...]:
    """Names of all templates that come with wrongturn."""
    return tuple(
        sorted(
            entry.name.removesuffix(".txt")
            for package in _PACKAGES
            for entry in resources.files(package).iterdir()
            if entry.name.endswith(".txt")
        )
    )


def load_template(name: str, *, key: str, gaps: frozenset[str]) -> Template:
    """The template called `name`, or the one in the file `name` if that ends in `.txt`.

    Args:
      name: of a shipped template, or a path.
      key: the setting that named it, for the message.
      gaps: names that the stage will fill; the template may use these and no others.

    Raises:
      UserError: there is no such template, or it has a gap that nobody fills.
    """
    text = _read(name)
    if text is None:
        raise UserError(
            f"{key}: no prompt template {name!r}; shipped ones are {', '.join(shipped_templates())}; "
            "a file of your own must end in .txt"
        )
    template = Template(name=name, text=text)
    if unknown := template.gaps - gaps:
        raise UserError(
            f"{key}: template {name!r} has the gaps {sorted(unknown)}, which nothing fills here; "
            f"there are {sorted(gaps)}"
        )
    return template


def _read(name: str) -> str | None:
    if name.endswith(".txt"):
        path = Path(name).expanduser()
        return path.read_text(encoding="utf-8") if path.is_file() else None
    for package in _PACKAGES:
        entry = resources.files(package) / f"{name}.txt"
        if "/" not in name and entry.is_file():
            return entry.read_text(encoding="utf-8")
    return None

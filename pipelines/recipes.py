"""The published systems that ship as configurations: what each is, what it writes, what it asks of a model."""

import tempfile
from collections.abc import Sequence
from importlib import resources

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from pipelines.config import compose, options
from pipelines.engines.settings import Simulated
from pipelines.errors import UserError
from schemas import Record

_PACKAGE = "# @package _global_"
_WRITES = "Writes: "
_WORLD = ("problems=simulated", "engine=simulated", "actor=plain")
_COSTED = 4
"""Problems of the simulated world that a recipe is tried on for its cost."""


class Recipe(Record):
    """One file of `conf/recipe/`, by what stands at its head."""

    name: str
    title: str
    """First line: the system with its source, and what it does."""
    writes: tuple[str, ...]
    """Tables of the output that it is there for."""
    text: str
    """The whole head: what is exact, what is ours, and why."""


def read_recipe(name: str, content: str) -> Recipe:
    """The recipe in a file.

    Raises:
      ValueError: its head lacks the title or the line that begins with `Writes: `.
    """
    lines = []
    for line in content.removeprefix(_PACKAGE).lstrip("\n").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").removeprefix(" "))
    writes = next((line.removeprefix(_WRITES) for line in lines if line.startswith(_WRITES)), "")
    if not writes or not lines[0]:
        raise ValueError(
            f"conf/recipe/{name}.yaml must begin with {_PACKAGE!r}, a comment whose first line says what it is, and in "
            f"it a line {_WRITES + 'TABLE, TABLE.'!r}"
        )
    tables = tuple(table.strip() for table in writes.rstrip(".").split(","))
    return Recipe(name=name, title=lines[0], writes=tables, text="\n".join(lines))


def recipes() -> tuple[Recipe, ...]:
    """All that ship, by name."""
    folder = resources.files("conf") / "recipe"
    return tuple(read_recipe(name, (folder / f"{name}.yaml").read_text("utf-8")) for name in options("recipe"))


def calls_a_problem(name: str, overrides: Sequence[str] = ()) -> float | None:
    """Requests that a problem takes with a recipe: the mean over a few of the simulated world, where nothing is paid.

    Args:
      name: of the recipe.
      overrides: settings that come on top, such as `search.max_searches=20`.

    Returns:
      None where the recipe is for problems that the simulated world has none of.

    Raises:
      UserError: a setting is wrong, or asks another engine.
    """
    from pipelines.dry_run import dry_run

    with tempfile.TemporaryDirectory() as folder:
        few = (f"problems.num_problems={_COSTED}", f"dry_run_problems={_COSTED}", f"out={folder}/out")
        settings = compose([f"recipe={name}", *_WORLD, *overrides, *few])
        for key, engine in [
            ("engine", settings.engine),
            *((f"engines.{name}", each) for name, each in settings.engines.items()),
        ]:
            if not isinstance(engine, Simulated):
                raise UserError(
                    f"--cost tries recipes on the simulated world, and {key} is {engine.label}; leave it out"
                )
        try:
            forecast = dry_run(settings, lambda *_: None)
        except UserError:  # The problems are not what the recipe needs: of the settings nothing is wrong.
            return None
        return forecast.amounts["requests"].total / forecast.num_problems


def print_recipes(console: Console, names: Sequence[str], overrides: Sequence[str], *, cost: bool) -> None:
    """Lists recipes, or prints the heads of those that are named.

    Args:
      console: where to.
      names: of recipes; none lists all of them.
      overrides: settings for the cost.
      cost: whether each is tried on the simulated world for the calls that a problem takes.

    Raises:
      UserError: a name is none.
    """
    known = {recipe.name: recipe for recipe in recipes()}
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"there is no recipe {unknown[0]!r}; there are {', '.join(known)}")
    chosen = [known[name] for name in names] or list(known.values())
    calls = _costs(console, [recipe.name for recipe in chosen], overrides) if cost else {}
    if names:
        for recipe in chosen:
            console.print(Text(f"{recipe.name}\n", style="bold"), Text(recipe.text), sep="")
            if cost:
                console.print(f"Calls a problem in the simulated world: {calls[recipe.name]}")
            console.print(Text(f"wrongturn run recipe={recipe.name} ...\n", style="dim"))
        return
    table = Table("recipe", "what it is", "writes", *(["calls a problem"] if cost else []))
    for recipe in chosen:
        numbers = [calls[recipe.name]] if cost else []
        table.add_row(recipe.name, Text(recipe.title), ", ".join(recipe.writes), *numbers)
    console.print(table)
    console.print("`wrongturn recipes NAME` says what is exact and what is ours; `wrongturn run recipe=NAME` runs it.")


def _costs(console: Console, names: Sequence[str], overrides: Sequence[str]) -> dict[str, str]:
    calls = {}
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        for name in names:
            progress.update(task, description=f"trying {name} on the simulated world")
            number = calls_a_problem(name, overrides)
            calls[name] = "other problems" if number is None else f"{number:.0f}"
    return calls

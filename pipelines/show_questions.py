"""The question of a problem that no tree holds: OUT keeps of what is left out why, and not what it asks."""

from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from pipelines.drawing import heading, print_text
from pipelines.errors import UserError
from pipelines.problems import FileProblems, read_problems
from schemas import Problem


def print_problem(console: Console, problem: Problem) -> None:
    """Prints what is asked, and the right answer."""
    console.print(heading(f"Problem {problem.id}, from {problem.source}, checked as {problem.domain}"))
    print_text(console, problem.question.strip())
    print_text(console, f"Right answer: {problem.answer}")


def print_treeless(console: Console, out: Path, problem_id: str) -> None:
    """Prints a problem out of the file that the run read where that is still there; else says where it stands."""
    config = _config_of(out)
    place, problem = _place(config), _read_again(config, problem_id)
    if problem:
        print_problem(console, problem)
        print_text(console, f"(as it stands now in {place}; here no question is kept without a tree)", "dim")
        return
    print_text(
        console,
        f"There is no tree of {problem_id}, and without one its question is not kept here; it stands in what the run "
        f"read, {place}. Below stands why it went no further.",
    )


def _config_of(out: Path) -> dict[str, Any]:
    """The run's settings; empty where the folder does not say them."""
    try:
        config = msgspec.json.decode((out / "run.json").read_bytes(), type=dict[str, Any]).get("config")
    except (OSError, msgspec.DecodeError):
        return {}
    return config if isinstance(config, dict) else {}


def _place(config: dict[str, Any]) -> str:
    """The setting that says where problems come from."""
    paths, problems = config.get("paths", {}), config.get("problems", {})
    for name, group, key in (
        ("paths", paths if paths.get("kind") == "given" else {}, "path"),
        ("problems", problems, "path"),
        ("problems", problems, "dataset"),
    ):
        if value := group.get(key):
            return f"{name}.{key}={value}"
    return f"problems.kind={problems['kind']}" if "kind" in problems else "the source of its problems"


def _read_again(config: dict[str, Any], problem_id: str) -> Problem | None:
    """The problem with this id in the run's files; None where there is none, or they are of another kind."""
    if config.get("problems", {}).get("kind") != "file":
        return None
    try:
        settings = msgspec.convert(config["problems"], FileProblems)
        problems = (item for item in read_problems(settings) if isinstance(item, Problem))
        return next((problem for problem in problems if problem.id == problem_id), None)
    except (UserError, msgspec.ValidationError):
        return None

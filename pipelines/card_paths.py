"""What the dataset card says of where paths come from, and of who says where a wrong one errs."""

from pathlib import PurePath
from typing import NamedTuple

from mcts.given import GivenSettings
from mcts.injected import InjectSettings
from mcts.samples import SampleSettings
from pipelines.card_data import in_code
from pipelines.settings import Settings


class PathsSaid(NamedTuple):
    """Sentences of the card."""

    source: str
    """Where paths come from."""
    known: str
    """Where the first error of a wrong path is known and not located; empty where it never is."""
    unknown: str = "and verdicts "
    """Which first errors, and what else, are estimates."""


def paths_said(settings: Settings) -> PathsSaid:
    """The sentences for a run's source of paths."""
    search = settings.search
    match settings.paths:
        case GivenSettings() as given:
            names = ", ".join(in_code(PurePath(name.strip()).name) for name in given.files)
            added = (
                f"it rolls out {given.partner_rollouts} times from before a first error that no right solution forks "
                f"off from, and {given.error_rollouts} times behind it"
                if given.ask_actor
                else "it was asked for nothing here"
            )
            return PathsSaid(
                source=f"Paths are solutions from files (`paths=given`: {names}), which the actor did not write; "
                f"{added}.",
                known="Where the file has a label, the label says which step is the first wrong one, and nothing is "
                "located. ",
                unknown="that no label names, and verdicts on right solutions, ",
            )
        case InjectSettings() as injected:
            return PathsSaid(
                source=f"Paths are whole solutions (`paths=injected`), {injected.num_samples} a problem, with errors "
                "put into steps of right ones.",
                known="An error that was put there counts where completions of both sides prove it, and is not "
                "located. ",
                unknown="that were not put there, and verdicts, ",
            )
        case SampleSettings() as samples:
            return PathsSaid(
                source=f"Paths are whole solutions (`paths=samples`), {samples.num_samples} a problem, equal steps "
                "merged; nothing is searched.",
                known="",
            )
        case _:
            return PathsSaid(
                source=f"Paths come from a tree search (`paths=search`): the bare problem is tried "
                f"{search.root_rollouts} times, up to {search.max_root_rollouts} while all come out alike; then at "
                f"most {search.max_searches} searches of {search.rollouts_per_search} rollouts follow.",
                known="",
            )

"""What a run's critics of several intents talk the actor out of, and how far the panel holds out, for the terminal."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from annotators.flips import Compared, Flips, count_flips, count_robustness, intent_of, knowledge_of
from pipelines.shards import read_rows
from schemas import Critique, Estimate, Panel, Verified, visible
from schemas.arrow import from_row


class _Agent(msgspec.Struct, frozen=True):
    name: str
    role: str
    view: str


class _Panel(msgspec.Struct, frozen=True):
    agents: tuple[_Agent, ...] = ()


class _Config(msgspec.Struct, frozen=True):
    panel: _Panel = _Panel()


class _Manifest(msgspec.Struct, frozen=True):
    """The part of `run.json` that is read here."""

    config: _Config = _Config()


def print_flips(console: Console, out: Path) -> None:
    """What became of right and of wrong solutions by critic, and the panels' verdicts.

    Nothing where all critics of the run want the same, or where no critique was measured with and without.
    """
    manifest = out / "run.json"
    if not manifest.is_file():
        return
    agents = msgspec.json.decode(manifest.read_bytes(), type=_Manifest).config.panel.agents
    if len({intent_of(agent.role) for agent in agents}) < 2:
        return
    critiques = (from_row(row, Critique) for row in read_rows(out, "critiques"))
    flips = count_flips((from_row(row, Verified) for row in read_rows(out, "verified")), critiques)
    if flips:
        console.print(_by_critic(agents, flips))
        console.print(_of_panels(out))


def _by_critic(agents: Sequence[_Agent], flips: dict[str, Flips]) -> Table:
    table = Table(title="Who is talked out of a right solution, and into one", title_justify="left")
    for name in ("critic", "wants to be", "knows"):
        table.add_column(name, no_wrap=True)
    for name in ("right ones given up", "by it", "wrong ones put right", "by it"):
        table.add_column(name, justify="right")
    for agent in agents:
        if agent.name in flips:
            what = (intent_of(agent.role), knowledge_of(agent.role, agent.view))
            table.add_row(visible(agent.name), *what, *_cells(flips[agent.name]))
    if "panel" in flips:
        table.add_row("panel", "", "", *_cells(flips["panel"]), style="bold")
    return table


def _cells(flips: Flips) -> tuple[str, ...]:
    right, wrong = flips.on_right, flips.on_wrong
    return (
        _against(right, right.with_critique.scored - right.with_critique.correct),
        _signed(flips.given_up),
        _against(wrong, wrong.with_critique.correct),
        _signed(flips.put_right),
    )


def _against(compared: Compared, number: int) -> str:
    return f"{number} of {compared.with_critique.scored}" if compared.num_critiques else ""


def _signed(share: float | None) -> str:
    return "" if share is None else f"{share:+.2f}"


def _of_panels(out: Path) -> Table:
    labels = {row["id"]: True for row in read_rows(out, "pairs", ["id"])}
    labels |= {row["id"]: False for row in read_rows(out, "alone", ["id"])}
    found = count_robustness((from_row(row, Panel) for row in read_rows(out, "panels")), labels)
    table = Table("the panel's verdict", "agrees", "ties", title="Whether the panel holds out", title_justify="left")
    for name, estimate in (("on right solutions", found.on_right), ("on wrong solutions", found.on_wrong)):
        table.add_row(name, _share(estimate), str(estimate.unscored))
    return table


def _share(estimate: Estimate) -> str:
    return "" if estimate.rate is None else f"{estimate.correct} of {estimate.scored} ({estimate.rate:.2f})"

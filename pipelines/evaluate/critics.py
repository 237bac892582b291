"""Who is evaluated: an agent of the panel, asked as in a run, or a critic that reads nothing."""

from collections.abc import Callable, Sequence

import msgspec

from annotators.critic import Agent, is_asked, unlabelled
from annotators.units import render_critique
from pipelines.engines.base import Sampling
from pipelines.errors import UserError
from pipelines.settings import PanelSettings
from pipelines.worker import Worker
from pipelines.write_critiques import WriteCritiques
from schemas import (
    Criticised,
    Critique,
    Failure,
    PathAlone,
    PathPair,
    Provenance,
    Record,
    Rejection,
    Unit,
    digest,
)

Path = PathPair | PathAlone

BASELINES: dict[str, Callable[[Path], int | None]] = {
    "always-none": lambda path: None,
    "always-first": lambda path: 0,
    "always-last": lambda path: len(path.steps) - 1,
}
"""Critics that read nothing, and the step that each names as the first wrong one, from 0."""


NO_GOLD = "no_gold_answer"
"""Why a solution is not refined, and why whoever is to see the gold answer is not asked."""


class Unread(Record):
    """No critique, and why: what the critic wrote is none, or it could not be asked."""

    reason: str
    detail: str


class Critic(Record):
    """Whom to ask."""

    name: str
    agents: tuple[Agent, ...]
    """The critic and, before it, those whose critiques it is shown; none for one that reads nothing."""

    @property
    def agent(self) -> Agent | None:
        """The critic itself; None for one that reads nothing."""
        return self.agents[-1] if self.agents else None

    @property
    def view(self) -> str:
        """What it is shown."""
        return self.agent.view if self.agent else "nothing"

    def unasked(self, path: Path) -> str:
        """Why it cannot be asked about a solution; empty where it can."""
        agent = self.agent
        if agent is not None and not is_asked(agent, path):
            return "no_other_solution"
        if agent is not None and agent.view == "reference" and not path.problem.answer:
            return NO_GOLD
        return ""


def choose(name: str, agents: Sequence[Agent]) -> Critic:
    """The critic with this name; the panel's first blind one for an empty name.

    Raises:
      UserError: nobody is called that; names everybody.
    """
    if name in BASELINES:
        return Critic(name=name, agents=())
    blind = [agent.name for agent in agents if agent.view == "blind"]
    known = {agent.name: agent for agent in agents}
    if not name and not blind:
        raise UserError(f"the panel has no blind critic; name one of {', '.join(known)} with --critic")
    wanted = name or blind[0]
    if wanted not in known:
        raise UserError(
            f"no critic {wanted!r}, expected one of the panel ({', '.join(known)}) or one that reads nothing "
            f"({', '.join(BASELINES)}); take another --critic or another panel="
        )
    chain = [known[wanted]]
    while chain[0].second_look_at:
        chain.insert(0, known[chain[0].second_look_at])
    return Critic(name=wanted, agents=tuple(chain))


def baseline_critique(name: str, path: Path) -> Critique:
    """What a critic that reads nothing says of a solution."""
    named = BASELINES[name](path)
    units = () if named is None else (Unit(step=named, quote="", kind="error", flaw="", error_type="other"),)
    nobody = Provenance(model=name, revision="", engine="none", prompt_digest="", sampling="", seed=0)
    return Critique(
        id=digest("critique", path.id, name),
        path_id=path.id,
        problem_id=path.problem.id,
        agent=name,
        view="blind",
        units=units,
        first_wrong_step=named,
        verdict="correct" if named is None else "incorrect",
        text=render_critique(units, named),
        parse_state="template",
        provenance=nobody,
    )


class Asking(WriteCritiques):
    """Asks critics about one solution after another, as the stage of a run does."""

    async def ask(self, worker: Worker, path: Path) -> Critique | Unread | Failure:
        """What the panel's last agent makes of a solution; a failure where any of the agents could not be asked."""
        found = await self.ask_all(worker, path)
        failures = (each for each in found.values() if isinstance(each, Failure))
        return next(failures, found[self.panel.agents[-1].name])

    async def ask_all(self, worker: Worker, path: Path) -> dict[str, Critique | Unread | Failure]:
        """What each agent of the panel that can be asked makes of a solution, by name."""
        found: dict[str, Critique | Unread | Failure] = {}
        for each in await self._criticise(worker, path):
            if isinstance(each, Criticised):
                found |= {critique.agent: critique for critique in each.critiques}
            elif isinstance(each, Rejection):
                found[each.key.removeprefix(f"{path.id}/")] = Unread(reason=each.reason, detail=each.detail)
            elif isinstance(each, Failure):
                found[each.key.removeprefix(f"{path.id}/")] = each
        return found

    def sampling(self, agent: Agent) -> Sampling:
        """How an agent is sampled."""
        return self._sampling(agent)


def panel_of(critic: Critic, panel: PanelSettings) -> PanelSettings:
    """The panel with nobody in it who is not asked, and nobody who is picked by the labels."""
    agents = tuple(map(unlabelled, critic.agents)) or (Agent(name=critic.name),)
    return msgspec.structs.replace(panel, agents=agents, meta_template="", compose_template="", quorum=1)

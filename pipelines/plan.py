"""A run before it starts: settings checked against each other, templates read, shards counted. No work is done here."""

import importlib.metadata
import re

from annotators.exports import Context
from pipelines.settings import Settings
from pipelines.shards import shard_of
from pipelines.sight import check_sight
from pipelines.templates import load_template
from schemas import Problem, Record, Rejection, Template, digest

_ACTOR_GAPS = frozenset({"problem"})
_SECTIONS = frozenset({"sections"})
_CRITIC_GAPS = frozenset({"role", "critic", "sections"})


class Inputs(Record):
    """What a source gave: problems, and rows that are none."""

    problems: tuple[Problem, ...]
    unread: tuple[Rejection, ...]

    @property
    def digest(self) -> str:
        """Digest of everything read, in order."""
        return digest([digest(item) for item in (*self.problems, *self.unread)])


class Plan(Record):
    """Everything that shapes the data of a run, in one value."""

    settings: Settings
    num_shards: int
    config_digest: str
    """Of settings, problems, templates and version: two runs with the same digest make the same data."""
    solve: Template
    refine: Template
    critics: dict[str, Template]
    """By agent's name."""
    meta: Template | None
    compose: Template | None
    context: Context
    images: bool = False
    """Whether any problem has images: all tables that show problems have a column for them then, in every shard."""

    @property
    def stop(self) -> tuple[str, ...]:
        """Where replies in JSON end at the latest."""
        return ("\n\n",)

    def shards_of(self, inputs: Inputs) -> list[int]:
        """The shard of each problem, in the order of the problems."""
        return [shard_of(problem.id, self.num_shards) for problem in inputs.problems]


def package_version() -> str:
    """Version of the installed distribution."""
    return importlib.metadata.version("wrongturn")


def make_plan(settings: Settings, inputs: Inputs) -> Plan:
    """The plan of a run over these inputs.

    Raises:
      UserError: a template is missing or has gaps that nothing fills, or a model is to be shown images that it cannot
        see; names the setting.
    """
    check_sight(settings, inputs.problems)
    panel = settings.panel
    critics = {
        agent.name: load_template(agent.template, key=f"panel.agents[{agent.name}].template", gaps=_CRITIC_GAPS)
        for agent in panel.agents
    }
    solve = load_template(settings.actor.solve_template, key="actor.solve_template", gaps=_ACTOR_GAPS)
    refine = load_template(settings.actor.refine_template, key="actor.refine_template", gaps=_SECTIONS)
    meta = (
        load_template(panel.meta_template, key="panel.meta_template", gaps=_SECTIONS) if panel.meta_template else None
    )
    composing = frozenset({"style", "sections"})
    compose = (
        load_template(panel.compose_template, key="panel.compose_template", gaps=composing)
        if panel.compose_template
        else None
    )
    instructions = _instructions()
    num_shards = max(1, -(-len(inputs.problems) // settings.runner.problems_per_shard))
    # A fix release does not change data; anything else may.
    release = re.match(r"\d+\.\d+", package_version())
    assert release, package_version()
    config_digest = digest(
        settings.config_digest(),
        inputs.digest,
        num_shards,
        solve,
        refine,
        critics,
        meta,
        compose,
        instructions["critique_instruction"],
        release[0],
    )
    return Plan(
        settings=settings,
        num_shards=num_shards,
        config_digest=config_digest,
        solve=solve,
        refine=refine,
        critics=critics,
        meta=meta,
        compose=compose,
        context=Context(config_digest=config_digest, version=package_version(), **instructions),
        images=any(problem.images for problem in inputs.problems),
    )


def _instructions() -> dict[str, Template]:
    """The user turns of rows that trainers read, by their names in `Context`."""
    return {
        "critique_instruction": load_template("export_critique", key="export", gaps=frozenset({"problem", "solution"})),
        "solve_instruction": load_template("export_solve", key="export", gaps=_ACTOR_GAPS),
        "refine_instruction": load_template("export_refine", key="export", gaps=frozenset({"critique"})),
    }

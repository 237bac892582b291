"""A run before it starts: settings checked against each other, templates read, shards counted. No work is done here."""

import importlib.metadata
import re
from collections.abc import Sequence

import msgspec

from annotators.exports import Context
from annotators.rounds import Rounds
from pipelines.command_checks import DOMAIN, require_command, require_program
from pipelines.engines.promises import promises_of
from pipelines.errors import UserError
from pipelines.guiding import guide_templates
from pipelines.injecting import inject_templates
from pipelines.sandbox import can_hold_in
from pipelines.settings import Need, Settings
from pipelines.shards import shard_of
from pipelines.sight import check_sight
from pipelines.templates import load_template
from schemas import Problem, Record, Rejection, Solution, Template, digest

_ACTOR_GAPS = frozenset({"problem"})
_SECTIONS = frozenset({"sections"})
_RUN = ("code", DOMAIN)
"""Domains of problems whose answers are run."""
_CRITIC_GAPS = frozenset({"role", "critic", "sections"})


class Inputs(Record):
    """What a source gave: problems, rows that are none, and solutions that came with the problems."""

    problems: tuple[Problem, ...]
    unread: tuple[Rejection, ...]
    solutions: dict[str, tuple[Solution, ...]] = msgspec.field(default_factory=dict)
    """By the problem's id; empty unless `paths=given`."""

    @property
    def digest(self) -> str:
        """Digest of everything read, in order."""
        solutions = [digest(self.solutions)] if self.solutions else []
        return digest([digest(item) for item in (*self.problems, *self.unread)] + solutions)


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
    crucial: Template | None
    """By which crucial information is asked for; None where nobody writes it."""
    inject: dict[str, Template]
    """By which prompt errors are put into steps, for each way of `paths=injected`; empty for other sources."""
    guide: dict[str, Template]
    """By which prompts the model of `search.hybrid` is asked; empty where none is."""
    giver: Template | None
    """By which feedback is asked for in the loop; None where no model is."""
    again: Template | None
    """By which another way is asked for before the search; None where nobody looks for memorised problems."""
    scoping: dict[str, Template]
    """By which a user's feedback is kept to its scope; empty where there is none."""
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
    _check_problems(settings, inputs)
    panel = settings.panel
    critics = {
        agent.name: load_template(agent.template, key=f"panel.agents[{agent.name}].template", gaps=_CRITIC_GAPS)
        for agent in panel.agents
    }
    solve = load_template(settings.actor.solve_template, key="actor.solve_template", gaps=_ACTOR_GAPS)
    refine = load_template(settings.actor.refine_template, key="actor.refine_template", gaps=_SECTIONS)
    inject = inject_templates(settings.paths, solve)
    guide = guide_templates(settings.search.hybrid, settings.paths)
    giver = _giver(settings, inputs)
    again = _again(settings)
    scoping = _scoping(settings)
    meta = _if_named(panel.meta_template, "panel.meta_template", _SECTIONS)
    compose = _if_named(panel.compose_template, "panel.compose_template", _SECTIONS | {"style"})
    crucial = _if_named(panel.crucial.template, "panel.crucial.template", _SECTIONS)
    instructions = _instructions(settings)
    num_shards = max(1, -(-len(inputs.problems) // settings.runner.problems_per_shard))
    config_digest = digest(
        settings.config_digest(),
        inputs.digest,
        num_shards,
        solve,
        refine,
        critics,
        meta,
        compose,
        instructions,
        _release(),
        inject,
        guide,
        giver,
        *(template for template in (crucial, again, scoping) if template),
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
        crucial=crucial,
        context=Context(config_digest=config_digest, version=package_version(), **instructions),
        inject=inject,
        guide=guide,
        giver=giver,
        again=again,
        scoping=scoping,
        images=any(problem.images for problem in inputs.problems),
    )


def _check_problems(settings: Settings, inputs: Inputs) -> None:
    """Raises UserError where somebody or something cannot deal with the problems."""
    for need in settings.needs:
        _require(need, inputs.problems)
    check_sight(settings, inputs.problems)
    require_command(settings.checker, inputs.problems)
    if settings.runner.shares_disk:  # Else the workers are elsewhere, and each looks by itself.
        require_program(settings.checker)
        _require_sandbox(inputs.problems)


def _require(need: Need, problems: Sequence[Problem]) -> None:
    """Raises UserError where problems lack what they must have."""
    without = [each.id for each in problems if not (each.images if need == "images" else each.domain == need)]
    if without:
        what = "have no images" if need == "images" else f"are not of the domain {need}"
        raise UserError(
            f"needs={need}: {len(without)} of {len(problems)} problems {what} (first: {without[0]!r}); choose others "
            "(`wrongturn recipes NAME` says which a recipe is for), or give needs=[]"
        )


def _require_sandbox(problems: Sequence[Problem]) -> None:
    """Raises UserError where answers are to be run and cannot be: all would be unscored, after they were paid for."""
    run = [problem.id for problem in problems if problem.domain in _RUN]
    if run and not can_hold_in():
        raise UserError(
            f"{len(run)} of {len(problems)} problems are of the domain code or command (first: {run[0]!r}), whose "
            "answers run in a sandbox, and there is none on this machine (docs/answers.md: Linux on x86-64 or ARM64 "
            "that takes a seccomp filter); take other problems, or another machine"
        )


def _release() -> str:
    """The version as far as it may change data: a fix release does not."""
    release = re.match(r"\d+\.\d+", package_version())
    assert release, package_version()
    return release[0]


def _if_named(name: str, key: str, gaps: frozenset[str]) -> Template | None:
    return load_template(name, key=key, gaps=gaps) if name else None


def _giver(settings: Settings, inputs: Inputs) -> Template | None:
    """The prompt of who gives feedback.

    Raises:
      UserError: it cannot be had, or something is to be run that cannot be.
    """
    loop = settings.loop
    if not isinstance(loop, Rounds):
        return None
    if loop.giver == "execution":
        _check_execution(settings, loop, inputs)
    name = loop.giver_template
    return load_template(name, key="loop.template", gaps=_CRITIC_GAPS) if name else None


def _check_execution(settings: Settings, loop: Rounds, inputs: Inputs) -> None:
    """Raises UserError where problems have nothing to be run."""
    domains = {problem.id: problem.domain for problem in inputs.problems}
    others = [name for name, domain in domains.items() if domain not in _RUN]
    if others:
        raise UserError(
            f"loop.giver=execution runs tests of programs or a checker, and {len(others)} of {len(domains)} problems "
            f"are not of the domain code or command (first: {others[0]!r}); take another giver, or "
            "problems.domain=code"
        )
    if len(loop.execution) > 1 and DOMAIN in domains.values():
        raise UserError(
            f"loop.execution={list(loop.execution)} tells of tests in different ways, and problems of the domain "
            "command have none: their dialogues would all be one; give loop.execution=[full]"
        )


def _again(settings: Settings) -> Template | None:
    """The prompt for another way to the answer.

    Raises:
      UserError: it cannot be had, or the actor's engine gives no log probabilities.
    """
    contamination, engine = settings.hygiene.contamination, settings.engine
    if contamination.threshold is None:
        return None
    kind = engine.__struct_config__.tag
    if not promises_of(str(kind), getattr(engine, "style", "raw")).gives_logprobs:
        raise UserError(
            f"hygiene.contamination compares entropies, and the actor's engine (kind {kind}) gives no log "
            "probabilities; take engine=llama_cpp, vllm or sglang, or leave hygiene.contamination.threshold=null"
        )
    return load_template(contamination.template, key="hygiene.contamination.template", gaps=_SECTIONS)


def _scoping(settings: Settings) -> dict[str, Template]:
    """The prompts of the judge and of who revises, by what they are for.

    Raises:
      UserError: one cannot be had.
    """
    scope = settings.scope
    names = {"scope": scope.scope_template, "follows": scope.follows_template, "revise": scope.revise_template}
    if not scope.feedback:
        return {}
    return {what: load_template(name, key=f"scope.{what}_template", gaps=_SECTIONS) for what, name in names.items()}


def _instructions(settings: Settings) -> dict[str, Template]:
    """The user turns of rows that trainers read, by their names in `Context`."""
    criticise = "export_critique_action" if settings.export.suggestions else "export_critique"
    gaps = {
        "critique_instruction": (criticise, ("problem", "solution")),
        "aspects_instruction": ("export_aspects", ("problem", "solution")),
        "words_instruction": ("export_words", ("problem", "solution")),
        "solve_instruction": ("export_solve", ("problem",)),
        "refine_instruction": ("export_refine", ("critique",)),
        "spoil_instruction": ("export_spoil", ("problem", "before", "step", "error")),
        "mark_instruction": ("export_feedback", ("feedback",)),
        "judge_instruction": ("export_judge", ("problem", "solution")),
        "judge_pair_instruction": ("export_judge_pair", ("problem", "first", "second")),
        "judge_reflected_instruction": ("export_judge_reflected", ("problem", "solution", "critique")),
    }
    return {name: load_template(file, key="export", gaps=frozenset(own)) for name, (file, own) in gaps.items()}

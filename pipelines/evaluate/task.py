"""What an evaluation is to do, settled before it starts: whom to ask, about what, in how many rounds."""

from collections.abc import Sequence

import msgspec

from annotators.exports import ExportSettings
from annotators.rounds import NoLoop
from annotators.scoping import ScopeSettings
from annotators.verification import VerifySettings
from mcts.pairing import PairSettings
from mcts.settings import SearchSettings
from mcts.sources import Searched
from pipelines.engines import EngineSettings
from pipelines.errors import UserError
from pipelines.evaluate.answers import lend_answers
from pipelines.evaluate.critics import NO_GOLD, Critic, choose, panel_of
from pipelines.evaluate.inputs import Labelled, Source, one_a_problem, read_sources
from pipelines.evaluate.results import Mode
from pipelines.plan import Inputs, Plan, make_plan
from pipelines.problems import GymProblems, read_problems
from pipelines.problems.hygiene import HygieneSettings
from pipelines.settings import Settings
from pipelines.shards import Split
from schemas import Record, digest

_ANY_NUMBER = 10**9
"""Of problems in a shard: an evaluation has none."""
_ITERATIVE_ROUNDS = 3


class Options(Record):
    """What the settings of a run do not say."""

    critic: str = ""
    """Name of an agent of the panel, or of a critic that reads nothing; empty takes the first blind agent."""
    mode: Mode = "single"
    rounds: int | None = None
    """Of critique and correction, with `self`, `cross` and `iterative`; None takes 3 with `iterative` and 1 else."""
    split: Split = "validation"
    """Of the folders of runs."""
    limit: int | None = None
    """Solutions of each input at most."""
    samples: int = 1
    """Second solutions with each critique."""
    refine: bool = True
    """Whether the actor writes second solutions where the gold answer is known."""
    lend: bool = False
    """Whether the settings' problems lend gold answers to solutions of the same question whose file has none."""

    def __post_init__(self) -> None:
        for name in ("limit", "samples", "rounds"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name} must be at least 1, got {value}")
        if self.mode in ("single", "criticbench") and self.num_rounds > 1:
            raise UserError(
                f"--rounds {self.rounds} goes with --mode self, cross or iterative, not {self.mode}; leave it out"
            )
        if self.mode == "iterative" and self.num_rounds < 2:
            raise UserError("--mode iterative needs --rounds of at least 2; take --mode cross for one")
        if self.num_rounds > 1 and self.samples > 1:
            raise UserError(f"--rounds {self.num_rounds} goes on from one second solution; leave --samples out")
        if self.mode != "single" and not self.refine:
            raise UserError(f"--mode {self.mode} is about second solutions; leave --no-refine out")

    @property
    def num_rounds(self) -> int:
        """Of critique and correction, at most."""
        return self.rounds or (_ITERATIVE_ROUNDS if self.mode == "iterative" else 1)


class Task(Record):
    """An evaluation before it starts."""

    plan: Plan
    critic: Critic
    sources: tuple[Source, ...]
    options: Options
    config_digest: str

    @property
    def num_solutions(self) -> int:
        """Of all inputs."""
        return sum(len(source.solutions) for source in self.sources)

    @property
    def solves(self) -> bool:
        """Whether the actor writes solutions of its own first, which are then the ones that are criticised."""
        return self.options.mode == "self"

    @property
    def may_refine(self) -> bool:
        """Whether second solutions are to be written, as far as is known before any answer is checked."""
        return self.options.refine and any(item.has_gold for source in self.sources for item in source.solutions)

    def is_refined(self, item: Labelled) -> bool:
        """Whether second solutions are to be written, and can be compared with the first."""
        return self.options.refine and item.has_gold and (self.solves or item.first_outcome != "unscored")

    def is_to_be_checked(self, item: Labelled) -> bool:
        """Whether nobody says that a solution's answer is right, and whether it is has to be known."""
        return self.options.refine and item.has_gold and not self.solves and item.first_outcome == "unscored"

    def unrefined(self, item: Labelled) -> str:
        """Why there is no second solution of one whose answer was checked; empty where one is written, or unwanted."""
        if not self.options.refine or self.is_refined(item):
            return ""
        return (item.first_reason or "unscored") if item.has_gold else NO_GOLD

    def unasked(self, item: Labelled) -> str:
        """Why the critic cannot be asked about a solution; empty where it can."""
        return NO_GOLD if self.solves and not item.has_gold else self.critic.unasked(item.path)

    def engines(self) -> dict[str, EngineSettings]:
        """The models that are asked, by name."""
        settings = self.plan.settings
        known = {"": settings.engine, **settings.engines}
        asks_actor = self.may_refine or self.options.mode in ("self", "criticbench")
        names = {agent.engine for agent in self.critic.agents} | ({""} if asks_actor else set())
        return {name: engine for name, engine in known.items() if name in names}


def prepare(settings: Settings, words: Sequence[str], options: Options) -> Task:
    """Reads the inputs and settles whom to ask about them.

    Raises:
      UserError: bad input; one line that says what to do.
    """
    if settings.dry_run:
        raise UserError("dry_run=true: an evaluation has no dry run; take a few solutions with --limit N")
    sources = read_sources(words, split=options.split, limit=options.limit, seed=settings.seed)
    if options.lend:
        sources = lend_answers(sources, read_problems(settings.problems))
    critic = choose(options.critic, settings.panel.agents)
    _check_mode(settings, critic, options, sources)
    inputs = [
        (source.name, source.format, source.digest, [item.path.problem.answer for item in source.solutions])
        for source in sources
    ]
    if options.mode == "self":
        sources = tuple(map(one_a_problem, sources))
    settings = _without_the_rest(settings, critic, options)
    solutions = [item for source in sources for item in source.solutions]
    is_asking = bool(critic.agents) or (options.refine and any(item.has_gold for item in solutions))
    problems = {item.path.problem.id: item.path.problem for item in solutions if is_asking}
    plan = make_plan(settings, Inputs(problems=tuple(problems.values()), unread=()))
    task = Task(
        plan=plan,
        critic=critic,
        sources=sources,
        options=options,
        config_digest=digest("evaluation", plan.config_digest, critic, inputs, options),
    )
    if all(task.unasked(item) for item in solutions):
        reasons = sorted({task.unasked(item) for item in solutions})
        raise UserError(
            f"critic {critic.name!r} (view {critic.view}) cannot be asked about any of the {len(solutions)} "
            f"solutions: {', '.join(reasons)}; take a blind critic, or a file that has what it is to be shown"
        )
    return task


def _check_mode(settings: Settings, critic: Critic, options: Options, sources: Sequence[Source]) -> None:
    """Raises UserError where the mode cannot be had with this critic or these solutions."""
    if options.mode == "single":
        return
    if not any(item.has_gold for source in sources for item in source.solutions):
        raise UserError(
            f"--mode {options.mode} checks answers, and no solution comes with a gold answer; name a source of the "
            "same problems with problems=, which lends them"
        )
    agent = critic.agent
    engines = {"": settings.engine, **settings.engines}
    if options.mode == "self" and agent is not None and engines[agent.engine] != engines[""]:
        raise UserError(
            f"--mode self has a model criticise itself, and critic {critic.name!r} is on engine {agent.engine!r}, not "
            "on the actor's; take a critic without an engine of its own, or --mode cross"
        )


def _without_the_rest(settings: Settings, critic: Critic, options: Options) -> Settings:
    """The settings with everything at its default that an evaluation does not use: it is no part of its digest."""
    search = SearchSettings()
    if options.num_rounds > 1 or options.mode == "self":  # What the actor writes is cut into steps for its critic.
        search = SearchSettings(step_rule=settings.search.step_rule, step_tokens=settings.search.step_tokens)
    return msgspec.structs.replace(
        settings,
        panel=panel_of(critic, settings.panel),
        problems=GymProblems(dataset=""),
        paths=Searched(),
        search=search,
        pairing=PairSettings(),
        verify=VerifySettings(),
        export=ExportSettings(),
        loop=NoLoop(),
        scope=ScopeSettings(),
        hygiene=HygieneSettings(),
        needs=(),
        runner=msgspec.structs.replace(settings.runner, problems_per_shard=_ANY_NUMBER),
    )

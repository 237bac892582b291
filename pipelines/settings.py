"""Everything that can be set, as frozen records that check themselves. Hydra picks the values, nothing else here.

Defaults stand in these records only; the files under `conf/` override them.
"""

import re
from typing import Any, Literal

import msgspec

from annotators.composing import Style
from annotators.controls import Candidates
from annotators.critic import VIEWS, Agent
from annotators.crucial import CrucialSettings
from annotators.exports import ExportSettings
from annotators.judging import JudgeSettings
from annotators.rounds import Loop, NoLoop, Rounds
from annotators.scoping import ScopeSettings
from annotators.units import ERROR_TYPES
from annotators.verification import VerifySettings
from mcts.given import GivenSettings
from mcts.injected import InjectSettings
from mcts.pairing import PairSettings
from mcts.samples import SampleSettings
from mcts.settings import HybridSettings, SearchSettings
from mcts.sources import PathSource, Searched
from pipelines.budget import BudgetSettings
from pipelines.command_checks import NO_COMMAND, CommandChecker
from pipelines.engines.base import Sampling
from pipelines.engines.settings import NOT_DATA, EngineSettings
from pipelines.errors import UserError
from pipelines.journal import is_server, parse_address
from pipelines.problems import GivenProblems, ProblemSource
from pipelines.problems.hygiene import HygieneSettings
from pipelines.runners.settings import AnyRunner, Cluster, Dataflow, Direct, is_loopback
from pipelines.storage import check_folder, is_store
from schemas import Record, digest

_NOT_DATA = (
    *("recipe", "out", "journal", "journal_patience_secs", "replace", "max_failure_share", "retry"),
    *("target_rows", "budget", "dry_run", "dry_run_problems", "card", "needs"),
)
"""Settings that say where data goes, how much of it is made now and for how much, not what it is."""


_DATA_OF_RUNNER = ("problems_per_shard", "checker_cpu_secs")
"""The only settings of a runner that shape the data: which shard's critics are weighed together, what is unscored."""


Need = Literal["images", "code", "command"]
"""Something that problems have: images, or a domain whose answers are run."""


class ActorSettings(Record):
    """How the actor is asked for solutions and for second solutions."""

    solve_template: str = "solve"
    """Name of a shipped prompt or a path; gap `{problem}`. Continued step by step."""
    refine_template: str = "refine"
    """Likewise; gap `{sections}`: problem, first solution, critique where there is one."""
    max_tokens: int = 512
    """Of one rollout."""
    temperature: float = 0.8
    refine_temperature: float = 0.8
    """Of second solutions."""
    top_p: float = 1.0
    stop: tuple[str, ...] = ("\n\nProblem:",)

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {self.max_tokens}")
        for name in ("temperature", "refine_temperature"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be below 0, got {getattr(self, name)}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie above 0 and not above 1, got {self.top_p}")

    def sampling(self, *, refining: bool = False) -> Sampling:
        """The sampling of rollouts, or of second solutions."""
        temperature = self.refine_temperature if refining else self.temperature
        return Sampling(max_tokens=self.max_tokens, temperature=temperature, top_p=self.top_p, stop=self.stop)


class PanelSettings(Record):
    """Who criticises, and how the panel comes to one critique."""

    agents: tuple[Agent, ...]
    meta_template: str = "meta"
    """Prompt of the meta-critic; gap `{sections}`. Empty leaves every unit unjudged."""
    meta_engine: str = ""
    """Name of one of the run's `engines`; empty takes the actor's."""
    judging: JudgeSettings = JudgeSettings()
    """How many votes the meta-critic casts on a unit."""
    compose_template: str = "compose"
    """Prompt of the model that words the panel's critique; gaps `{style}` and `{sections}`. Empty leaves that to a
    deterministic template, which also stands in where the model adds something."""
    compose_engine: str = ""
    """Name of one of the run's `engines`; empty takes the actor's."""
    compose_max_tokens: int = 400
    quorum: int = 1
    """Readable critiques a path needs at least."""
    style: Style = "stepwise"
    """How the composed critique reads."""
    candidates: Candidates = "both"
    """What is verified: the composed critique, each agent's own, those of them that no other agent was shown
    (`finished`), or the composed one and all agents'."""
    reask: bool = True
    """Whether a critic whose output cannot be read is asked once more, with the reason."""
    crucial: CrucialSettings = CrucialSettings()
    """What critics are told of a problem before they criticise."""
    max_undoubted: int | None = None
    """Right paths in the whole run, at most, that go on although no critic named an error in them; each shard has its
    part of the number (`annotators.controls.shard_quota`). None lets all go on."""

    @property
    def shown(self) -> frozenset[str]:
        """Agents whose critiques another agent is shown."""
        return frozenset(agent.second_look_at for agent in self.agents if agent.second_look_at)

    def __post_init__(self) -> None:
        names = [agent.name for agent in self.agents]
        if not names:
            raise ValueError("agents is empty; name at least one critic")
        if len(set(names)) < len(names) or "panel" in names:
            raise ValueError(f"agents need distinct names other than 'panel', got {names}")
        for i, agent in enumerate(self.agents):
            if agent.second_look_at and agent.second_look_at not in names[:i]:
                raise ValueError(
                    f"agent {agent.name!r} looks again at {agent.second_look_at!r}, which must stand before it"
                )
            first = next((other for other in self.agents if other.name == agent.second_look_at), agent)
            if VIEWS.index(first.view) > VIEWS.index(agent.view):
                raise ValueError(
                    f"agent {agent.name!r} with view {agent.view} looks again at {first.name!r}, who sees more "
                    f"({first.view}); give both the same view"
                )
            if first.sees_message and not agent.sees_message:
                raise ValueError(
                    f"agent {agent.name!r} looks again at {first.name!r}, who sees the checker's message; give both "
                    "sees_message=true"
                )
        if self.max_undoubted is not None and self.max_undoubted < 0:
            raise ValueError(f"max_undoubted must not be below 0 (null is no bound), got {self.max_undoubted}")
        if not 1 <= self.quorum <= len(names):
            raise ValueError(f"quorum must lie in 1..{len(names)} (the number of agents), got {self.quorum}")


class CardSettings(Record):
    """What the dataset card says that no row tells."""

    pretty_name: str = "Critiques made by wrongturn"
    license: str = "unknown"
    """Licence of the dataset by the name that the Hub has for it: `apache-2.0`, `cc-by-4.0`, `other`. Which one the
    licences of the problems and of the models leave open is yours to know."""
    language: tuple[str, ...] = ()
    """Language codes of problems and critiques: `en`, `de`, `zh`. Empty until you state them."""
    tags: tuple[str, ...] = ()
    """More words under which the dataset is to be found."""

    def __post_init__(self) -> None:
        for name, values, pattern, example in (
            ("pretty_name", (self.pretty_name,), r"\S[^\n\r]{0,199}", "one line of at most 200 characters"),
            ("license", (self.license,), r"[a-z0-9][a-z0-9.\-]*", "a name such as apache-2.0"),
            ("language", self.language, r"[a-z]{2,8}(-[A-Za-z0-9]{2,8})*", "codes such as en"),
            ("tags", self.tags, r"[\w.:+\-]+( [\w.:+\-]+)*", "words"),
        ):
            for value in values:
                if not re.fullmatch(pattern, value):
                    raise ValueError(f"card.{name}: expected {example}, got {value!r}")


class Settings(Record):
    """One run."""

    problems: ProblemSource
    engine: EngineSettings
    """The actor's model, and everybody's who names no other."""
    panel: PanelSettings
    actor: ActorSettings = ActorSettings()
    paths: PathSource = Searched()
    """Where a tree's paths come from: a search, whole solutions merged, errors put into right ones, or files."""
    search: SearchSettings = SearchSettings()
    pairing: PairSettings = PairSettings()
    verify: VerifySettings = VerifySettings()
    export: ExportSettings = ExportSettings()
    loop: Loop = NoLoop()
    """Whether trees' solutions are gone on from in rounds of feedback and another attempt."""
    scope: ScopeSettings = ScopeSettings()
    """A user's feedback that answers are revised by, and who says where it belongs."""
    runner: AnyRunner = Direct()
    engines: dict[str, EngineSettings] = msgspec.field(default_factory=dict)
    """Further models by name, for critics: `+engines.NAME.kind=openai +engines.NAME.url=URL +engines.NAME.model=M`."""
    hygiene: HygieneSettings = HygieneSettings()
    checker: CommandChecker = NO_COMMAND
    """The command that decides about answers of the domain `command`."""
    card: CardSettings = CardSettings()
    needs: tuple[Need, ...] = ()
    """What problems there must be for what is made here, each of some kind: with `images`, or of the domain `code` or
    `command`. Recipes say it; others are an error before any work."""
    recipe: str = ""
    """The published system whose settings these began as, `recipe=NAME` on the command line; empty for our own. It
    shapes nothing by itself: what a recipe does stands in the settings that it sets."""
    out: str = "out"
    """Folder that the data is written to."""
    journal: str = ""
    """File of the journal, or a Redis server for workers on several machines: `redis://HOST:6379/0` or `rediss://`,
    with `/PREFIX` behind it where several journals share a server; its password is in WRONGTURN_REDIS_PASSWORD alone.
    Empty is a file in the output folder. Several runs may share a journal."""
    journal_patience_secs: float = 60.0
    """How long a Redis server may be away in the middle of a run before the run ends."""
    seed: int = 0
    replace: bool = False
    """Whether the shards of another run in `out` may be replaced. The journal always stays."""
    max_failure_share: float = 0.1
    """Largest share of any one stage's elements that may fail in a run that still counts as a success."""
    retry: Literal["unfinished", "failed"] = "unfinished"
    """`failed` runs again what failed in an earlier run and begins nothing else; `unfinished` does both."""
    target_rows: int | None = None
    """Stops after the first shard, in order, with which so many rows of `sft` have passed. Which shards there
    are depends on what is in them alone. Smaller `runner.problems_per_shard` come closer to the number."""
    budget: BudgetSettings = BudgetSettings()
    dry_run: bool = False
    """Runs a sample of the problems, writes no shard and says what the whole would cost. Its answers are journaled."""
    dry_run_problems: int = 8
    """Problems in that sample."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_failure_share <= 1:
            raise ValueError(f"max_failure_share must lie in 0..1, got {self.max_failure_share}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must lie in 0..2^63-1, got {self.seed}")
        if self.target_rows is not None and self.target_rows < 1:
            raise ValueError(f"target_rows must be at least 1 (null is no target), got {self.target_rows}")
        if self.dry_run_problems < 2:
            raise ValueError(f"dry_run_problems must be at least 2 to tell an uncertainty, got {self.dry_run_problems}")
        self.budget.check_prices(["", *self.engines])
        self._check_paths()
        self._check_preferences()
        self._check_journal()
        self._check_sharing()
        if not self.out:
            raise ValueError("out is empty; name the folder that the data is written to")
        check_folder(self.out)
        self._check_engines()

    def _check_engines(self) -> None:
        named = {f"panel.agents[{agent.name}].engine": agent.engine for agent in self.panel.agents}
        if isinstance(self.paths, InjectSettings):
            named["paths.engine"] = self.paths.engine
        named |= {"panel.meta_engine": self.panel.meta_engine, "panel.compose_engine": self.panel.compose_engine}
        named["panel.crucial.engine"] = self.panel.crucial.engine
        named["scope.engine"] = self.scope.engine
        named["search.hybrid.engine"] = self.search.hybrid.engine
        if isinstance(self.loop, Rounds):
            named["loop.engine"] = self.loop.engine
        for key, name in named.items():
            if name and name not in self.engines:
                known = ", ".join(self.engines) or "none"
                raise ValueError(f"{key} is {name!r}, expected one of the engines ({known}) or nothing for the actor's")
        if "" in self.engines:
            raise ValueError("engines need names; the one without is `engine`")

    def _check_paths(self) -> None:
        paths, search = self.paths, self.search
        if search.hybrid != HybridSettings() and not isinstance(paths, Searched):
            raise ValueError(
                f"search.hybrid is for a search, and paths={paths.__struct_config__.tag} searches nothing; take "
                "paths=search or leave search.hybrid as it is"
            )
        if isinstance(paths, SampleSettings | InjectSettings) and paths.num_samples > search.max_rollouts:
            raise ValueError(
                f"search.max_rollouts={search.max_rollouts} does not even pay for paths.num_samples={paths.num_samples}"
            )
        if isinstance(paths, GivenSettings):
            wanted = paths.partner_rollouts + paths.error_rollouts
            if paths.ask_actor and wanted > search.max_rollouts:
                raise ValueError(
                    f"search.max_rollouts={search.max_rollouts} does not even pay for the {wanted} rollouts of one "
                    "first error (paths.partner_rollouts and paths.error_rollouts)"
                )
        elif isinstance(self.problems, GivenProblems):
            raise ValueError(
                "problems=given are those of the files of paths=given, and paths is another source; give paths=given "
                "paths.path=FILE, or choose other problems"
            )
        if not isinstance(paths, InjectSettings):
            return
        if unknown := [name for name in paths.error_types if name not in ERROR_TYPES]:
            raise ValueError(f"paths.error_types: unknown {unknown[0]!r}, expected some of {', '.join(ERROR_TYPES)}")
        if search.step_rule == "tokens":
            raise ValueError(
                "search.step_rule=tokens cuts no steps that could be changed one at a time, as paths=injected does; "
                "take marker or blank_line"
            )

    def _check_preferences(self) -> None:
        """Raises ValueError where critiques are to be compared by what nobody measures."""
        prefer, verify = self.export.prefer, self.verify
        names = [agent.name for agent in self.panel.agents]
        if unknown := [name for name in prefer.rejected_agents if name not in names]:
            raise ValueError(
                f"export.prefer.rejected_agents: {unknown[0]!r} is none of the panel's agents ({', '.join(names)})"
            )
        if (prefer.by == "utility" or prefer.needs_help) and not verify.writes_seconds:
            raise ValueError(
                f"export.prefer (by={prefer.by}, needs_help={prefer.needs_help}) compares second solutions, and "
                "verify.tests needs none; set verify.measure_all=true or name a test that does"
            )
        if prefer.by == "severity" and not self.panel.meta_template:
            raise ValueError("export.prefer.by=severity goes by the meta-critic's votes; set panel.meta_template=meta")

    def _check_journal(self) -> None:
        if is_server(self.journal):
            parse_address(self.journal)
        if self.journal_patience_secs < 0:
            raise ValueError(f"journal_patience_secs must not be below 0, got {self.journal_patience_secs}")

    def _check_sharing(self) -> None:
        """Raises ValueError for what workers of the runner cannot have in common."""
        remedy = "give journal=redis://HOST:6379/0 (and WRONGTURN_REDIS_PASSWORD), a server that all of them reach"
        kind = self.runner.__struct_config__.tag
        if not self.runner.shares_disk and not is_server(self.journal):
            what = repr(self.journal) if self.journal else "a file in `out`"
            raise ValueError(
                f"journal is {what}, which workers on other machines (runner={kind}) cannot share; {remedy}"
            )
        if not self.runner.shares_disk and is_loopback(parse_address(self.journal).host):
            raise ValueError(f"journal is a server on this machine's loopback, which others do not reach; {remedy}")
        if isinstance(self.runner, Dataflow) and not is_store(self.out):
            raise ValueError(f"out is {self.out!r}, which workers of Dataflow do not see; give out=gs://BUCKET/FOLDER")
        if isinstance(self.runner, Cluster) and self.out.startswith("memory://"):
            raise ValueError(
                f"out is in one process's memory, which workers of runner={kind} do not see; name a folder"
            )
        prices = {(price.prompt, price.completion) for price in self.budget.prices}
        if isinstance(self.runner, Cluster) and self.budget.max_cost is not None and len(prices) > 1:
            raise ValueError(
                f"budget.max_cost with engines of {len(prices)} different prices cannot be watched on runner={kind}, "
                "where the ledger knows tokens by stage alone; give budget.max_tokens instead"
            )

    def config_digest(self) -> str:
        """Digest of everything that shapes the data: not of where it goes or how fast it gets there."""
        plain = msgspec.to_builtins(self)
        for name in _NOT_DATA:
            del plain[name]
        plain["runner"] = {name: plain["runner"][name] for name in _DATA_OF_RUNNER}
        # What is off shapes nothing, however it would be done.
        if self.hygiene.contamination.threshold is None:
            del plain["hygiene"]["contamination"]
        if not self.checker.command:
            del plain["checker"]
        if not self.scope.feedback:
            del plain["scope"]
        for engine in (plain["engine"], *plain["engines"].values()):
            for name in NOT_DATA:
                engine.pop(name, None)
        return digest("config", plain)


def parse_settings(plain: dict[str, Any]) -> Settings:
    """Settings from plain nested values.

    Raises:
      UserError: one line that names the key, what was expected and what came.
    """
    try:
        return msgspec.convert(plain, Settings, strict=True)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$")
        key = where.rstrip("`").lstrip(".")
        if message.startswith(("Invalid enum value", "Invalid value")):
            message += f", expected one of {', '.join(_choices(key, plain))}"
        elif message.startswith("Expected `array") and "[" not in key:
            message = f"expected a list, got {message.rpartition(' ')[2]}; write {key}=[{_value(key, plain)}]"
        raise UserError(f"{key}: {message}" if key else message) from error


def _value(key: str, plain: Any) -> str:
    """What a setting was given, as it is written in a list; `key` is a path of names."""
    for name in key.split("."):
        plain = plain[name]
    return "" if plain is None else str(plain)


def _choices(key: str, plain: Any) -> tuple[str, ...]:
    """The values that a setting of a closed list may have; `key` is a path such as `panel.agents[0].view`."""
    kind: Any = msgspec.inspect.type_info(Settings)
    for part in re.findall(r"\w+", key):
        if part == "kind" and isinstance(kind, msgspec.inspect.UnionType):
            return tuple(sorted(str(member.tag) for member in kind.types))  # type: ignore[attr-defined]
        if isinstance(kind, msgspec.inspect.UnionType):
            kind = next(member for member in kind.types if getattr(member, "tag", None) == plain["kind"])
        if part.isdigit():
            kind, plain = kind.item_type, plain[int(part)]
        else:
            kind, plain = next(field.type for field in kind.fields if field.encode_name == part), plain[part]
    return tuple(kind.values)

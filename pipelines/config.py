"""From the command line to settings. The only module that knows Hydra."""

import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

import hydra
import msgspec
import yaml
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from annotators.exports import ExportSettings
from annotators.rounds import NoLoop, Rounds
from annotators.verification import VerifySettings
from mcts.given import GivenSettings
from mcts.injected import InjectSettings
from mcts.pairing import PairSettings
from mcts.samples import SampleSettings
from mcts.settings import SearchSettings
from mcts.sources import Searched
from pipelines.engines.keys import refuse_keys
from pipelines.engines.settings import LlamaCpp, Scripted, Server, Sglang, Simulated, Vllm
from pipelines.errors import UserError
from pipelines.problems import FileProblems, GivenProblems, GymProblems, HubProblems, SimulatedProblems
from pipelines.runners.settings import Dataflow, Direct, Flink, Prism
from pipelines.settings import ActorSettings, PanelSettings, Settings, parse_settings
from schemas import Record

_SCHEMAS: dict[str, type[Record]] = {
    "paths/search": Searched,
    "paths/samples": SampleSettings,
    "paths/injected": InjectSettings,
    "paths/given": GivenSettings,
    "loop/off": NoLoop,
    "loop/rounds": Rounds,
    "search/defaults": SearchSettings,
    "pairing/defaults": PairSettings,
    "actor/defaults": ActorSettings,
    "verify/defaults": VerifySettings,
    "export/defaults": ExportSettings,
    "runner/direct": Direct,
    "runner/flink": Flink,
    "runner/prism": Prism,
    "runner/dataflow": Dataflow,
    "panel/defaults": PanelSettings,
    "engine/llama_cpp": LlamaCpp,
    "engine/openai": Server,
    "engine/vllm": Vllm,
    "engine/sglang": Sglang,
    "engine/scripted": Scripted,
    "engine/simulated": Simulated,
    "problems/reasoning_gym": GymProblems,
    "problems/file": FileProblems,
    "problems/hub": HubProblems,
    "problems/simulated": SimulatedProblems,
    "problems/given": GivenProblems,
}
"""Records whose defaults the files under `conf/` start from, by the name those files call them `schema/...`."""


GROUPS = (
    *("problems", "engine", "actor", "paths", "search", "pairing", "panel", "verify", "loop", "export", "runner"),
)
"""Settings whose values are chosen by the name of a file, `GROUP=OPTION`; recipes choose several at once."""

_VERSION = re.compile(r"^(\+{0,2}runner\.flink_version=)(\d+\.\d+)$")
"""Hydra would read 1.20 as the number 1.2."""
_SEVERAL = re.compile(r"\+{0,2}(\w+)=\s*\[")
"""Hydra would take all that are listed, each over the one before."""
_LAYOUT = ("full_key", "object_type", "reference_type", "Config search path", "provider=", "See https://hydra.cc")
"""Beginnings of lines in Hydra's messages that help nobody here."""


def _defaults(record: type[Record]) -> dict[str, Any]:
    """The defaults of a record as plain values; what has none must be given, which Hydra writes `???`."""
    plain: dict[str, Any] = {}
    tag = record.__struct_config__.tag
    if tag:
        plain[record.__struct_config__.tag_field or "type"] = tag
    for field in msgspec.structs.fields(record):
        if field.default is not msgspec.NODEFAULT:
            plain[field.name] = msgspec.to_builtins(field.default)
        elif field.default_factory is not msgspec.NODEFAULT:
            plain[field.name] = msgspec.to_builtins(field.default_factory())
        else:
            plain[field.name] = "???"
    return plain


def _register() -> None:
    store = ConfigStore.instance()
    for name, record in _SCHEMAS.items():
        group, _, leaf = name.partition("/")
        store.store(group=f"schema/{group}", name=leaf, node=_defaults(record))
    top = _defaults(Settings)
    store.store(group="schema", name="run", node={key: value for key, value in top.items() if key not in GROUPS})


def compose(overrides: Sequence[str]) -> Settings:
    """The settings that the shipped config and these Hydra overrides describe.

    Raises:
      UserError: one line that names the key, what is wrong with it and what would be right.
    """
    return parse_settings(compose_plain(overrides))


def compose_plain(overrides: Sequence[str]) -> dict[str, Any]:
    """The same as plain nested values, before they are checked for more than keys.

    Raises:
      UserError: see `compose`.
    """
    _register()
    words = [_VERSION.sub(r"\1'\2'", word) for word in overrides]
    for word in words:
        if (said := _SEVERAL.match(word)) and said[1] in (*GROUPS, "recipe"):
            raise UserError(f"{said[1]} takes one option, got {word.partition('=')[2]}; give {said[1]}=NAME")
    try:
        with hydra.initialize_config_module("conf", version_base="1.3"):
            config = hydra.compose("config", words)
            if unfit := _unfit(config, words):
                config = hydra.compose("config", [*(f"~{key}" for key in unfit), *words])
        missing = sorted(OmegaConf.missing_keys(config))
        if missing:
            raise UserError(f"{missing[0]} is not set; give it as {missing[0]}=VALUE")
        plain = OmegaConf.to_container(config, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_one_line(error)) from error
    assert isinstance(plain, dict)
    refuse_keys(plain)
    return {str(key): value for key, value in plain.items()}


def _unfit(config: DictConfig, words: Sequence[str]) -> list[str]:
    """Keys that the recipe sets in groups whose option was chosen beside it and has no such key.

    A recipe's own keys go on top of an option, whichever it is: those for `paths=samples` fit no `paths=given`.
    """
    name = str(config.recipe)
    if name not in options("recipe"):
        return []
    own = yaml.safe_load((resources.files("conf") / "recipe" / f"{name}.yaml").read_text("utf-8"))
    chosen = {word.partition("=")[0] for word in words}
    return [
        f"{group}.{key}"
        for group in GROUPS
        if group in chosen and group in own
        for key in own[group]
        if key not in _keys_of(group, config[group])
    ]


def _keys_of(group: str, option: DictConfig) -> frozenset[str]:
    """What can be set in a group, of an option by its kind where there are several."""
    for name, record in _SCHEMAS.items():
        tag = record.__struct_config__.tag
        if name.startswith(f"{group}/") and tag in (None, option.get("kind")):
            return frozenset(record.__struct_fields__)
    return frozenset()


def _one_line(error: Exception) -> str:
    """Hydra's message without its layout. It names the key; the remedy is added where Hydra gives none."""
    cause = error.__cause__
    lines = [line.strip() for line in f"{error}\n{cause or ''}".splitlines() if line.strip()]
    kept = [line for line in dict.fromkeys(lines) if not line.startswith(_LAYOUT)]
    text = " ".join(kept)
    if "dataset_config" not in text:  # Everywhere else no key may be added.
        text = re.sub(r" To append to your config use \S+", "", text)
    if "is not in struct" in text or "Could not override" in text:
        text += " (see `wrongturn run --config` for every key there is)"
    return text


def options(group: str) -> tuple[str, ...]:
    """Names of the files in a config group."""
    return tuple(
        sorted(
            entry.name.removesuffix(".yaml")
            for entry in (resources.files("conf") / group).iterdir()
            if entry.name.endswith(".yaml")
        )
    )


def as_yaml(plain: dict[str, Any]) -> str:
    """Settings as a person reads them."""
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)
    return text

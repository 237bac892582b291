"""Models behind one contract. `serve` starts what has to be started, `connect` gives a client to it."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from pipelines.engines import llama_cpp, simulated
from pipelines.engines.base import (
    BadReply,
    Engine,
    EngineError,
    EngineUnavailable,
    PromptRefused,
    Reply,
    Request,
    Sample,
    Sampling,
    Usage,
)
from pipelines.engines.chat_templates import load_chat_template
from pipelines.engines.dialects import Dialect
from pipelines.engines.http import HttpEngine
from pipelines.engines.launching import launch_of, revision_of, served_name
from pipelines.engines.managed import Servers, ServerWatcher
from pipelines.engines.scripted import ScriptedEngine, load_rule
from pipelines.engines.settings import (
    EngineSettings,
    Limits,
    LlamaCpp,
    Managed,
    Scripted,
    Server,
    Sglang,
    Simulated,
    Vllm,
    split_urls,
)
from schemas import Record, digest

__all__ = [
    "BadReply",
    "Endpoint",
    "Engine",
    "EngineError",
    "EngineSettings",
    "EngineUnavailable",
    "PromptRefused",
    "Reply",
    "Request",
    "Sample",
    "Sampling",
    "ServerWatcher",
    "Servers",
    "Usage",
    "connect",
    "serve",
    "serve_all",
]


class Endpoint(Record):
    """A model that can be asked: what a worker needs to reach it, on whatever machine it runs."""

    kind: str
    urls: tuple[str, ...]
    """Empty for engines in process."""
    model: str
    revision: str
    dialect: Dialect
    limits: Limits
    key_env: str = ""
    """Environment variable with the key; the key itself is written nowhere."""


@contextmanager
def serve(settings: EngineSettings, name: str = "engine", servers: Servers | None = None) -> Iterator[Endpoint]:
    """The endpoint of an engine, its server started here if it is one of ours, for as long as the context lasts.

    Args:
      settings: the engine's.
      name: the engine's in the settings: `engine`, or `engines.NAME`.
      servers: those that live longer than the context; the engine's own, if it needs one, goes among them.

    Raises:
      UserError: the engine cannot start; names the setting and the remedy.
    """
    urls: tuple[str, ...]
    with ExitStack() as stack:
        match settings:
            case LlamaCpp():
                path = llama_cpp.find_model(settings.model_path)
                urls = split_urls(settings.url or stack.enter_context(llama_cpp.serving(settings)))
                template = llama_cpp.read_chat_template(urls[0]) if settings.style == "templated" else None
                dialect = Dialect(kind="llama_cpp", style=settings.style, max_choices=settings.slots, template=template)
                model, revision = path.name, llama_cpp.file_revision(path)
            case Simulated():
                urls = split_urls(settings.url or stack.enter_context(simulated.serving(settings.world)))
                dialect = Dialect(kind="simulated", style="raw", images=True)
                model, revision = "simulated", digest(settings.world)[:16]
            case Scripted():
                load_rule(settings.rule)
                dialect = Dialect(kind="scripted", style="raw")
                urls, model, revision = (), settings.rule, ""
            case Managed(url=""):
                servers = servers or stack.enter_context(Servers())
                revision = revision_of(settings, name)
                urls, model = (servers.url(launch_of(settings, name), name),), served_name(settings)
                dialect = _dialect(settings)
            case Server():
                dialect = _dialect(settings)
                urls, model, revision = settings.urls, settings.model, settings.revision
        yield Endpoint(
            kind=dialect.kind,
            urls=urls,
            model=model,
            revision=revision,
            dialect=dialect,
            limits=_limits(settings),
            key_env=settings.api_key_env if isinstance(settings, Server) and settings.url else "",
        )


def _dialect(settings: Server) -> Dialect:
    kind = "vllm" if isinstance(settings, Vllm) else "sglang" if isinstance(settings, Sglang) else "openai"
    folder = settings.chat_template or settings.model
    template = load_chat_template(folder) if settings.style == "templated" else None
    return Dialect(kind=kind, style=settings.style, template=template, images=settings.images)


def _limits(settings: EngineSettings) -> Limits:
    """Its limits; a server of ours that is being started again is waited for as long as it may take to start."""
    limits = settings.limits
    if not isinstance(settings, Managed) or settings.url or limits.max_attempts == 1:
        return limits
    patience = settings.start_timeout_secs / (limits.max_attempts - 1)
    return msgspec.structs.replace(limits, max_wait_secs=max(limits.max_wait_secs, patience))


@contextmanager
def serve_all(
    engines: Mapping[str, EngineSettings], logs: Path | None = None, watcher: ServerWatcher | None = None
) -> Iterator[tuple[tuple[str, Endpoint], ...]]:
    """The endpoints of several engines by name, in their order; see `serve`. Equal servers are started once.

    Args:
      engines: settings by name; the actor's is called "".
      logs: folder for the logs of servers that are started; made when there is one.
      watcher: is told how those fare.
    """
    with Servers(logs, watcher) as servers, ExitStack() as stack:
        yield tuple(
            (name, stack.enter_context(serve(settings, f"engines.{name}" if name else "engine", servers)))
            for name, settings in engines.items()
        )


def connect(endpoint: Endpoint) -> Engine:
    """A client of an endpoint; use it from one event loop."""
    if endpoint.kind == "scripted":
        return ScriptedEngine(load_rule(endpoint.model), endpoint.model)
    return HttpEngine(
        urls=endpoint.urls,
        model=endpoint.model,
        revision=endpoint.revision,
        dialect=endpoint.dialect,
        limits=endpoint.limits,
        key_env=endpoint.key_env,
    )

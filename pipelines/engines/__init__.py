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
    Leave,
    PromptRefused,
    Reply,
    Request,
    Sample,
    Sampling,
    Usage,
)
from pipelines.engines.chat_templates import load_chat_template
from pipelines.engines.dialects import Dialect
from pipelines.engines.host_server import LINGER_SECS, HostServer, OnHost
from pipelines.engines.http import HttpEngine
from pipelines.engines.identity import identity_of
from pipelines.engines.launching import launch_of
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
    engine_key,
    split_urls,
)
from pipelines.errors import UserError
from schemas import Record

__all__ = [
    "BadReply",
    "Endpoint",
    "Engine",
    "EngineError",
    "EngineSettings",
    "EngineUnavailable",
    "OnHost",
    "PromptRefused",
    "Reply",
    "Request",
    "Sample",
    "Sampling",
    "ServerWatcher",
    "Servers",
    "Usage",
    "connect",
    "endpoints_on_hosts",
    "reached",
    "serve",
    "serve_all",
]


class Endpoint(Record):
    """A model that can be asked: what a worker needs to reach it, on whatever machine it runs."""

    kind: str
    urls: tuple[str, ...]
    """Empty for engines in process, and where `on_host` says what is to be started."""
    model: str
    revision: str
    dialect: Dialect
    limits: Limits
    key_env: str = ""
    """Environment variable with the key; the key itself is written nowhere."""
    on_host: OnHost | None = None
    """The server that each worker's host has one of; `reached` finds it or starts it. None where `urls` say it all."""


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
            case LlamaCpp(url=""):
                llama_cpp.find_model(settings.model_path)
                urls = (stack.enter_context(llama_cpp.serving(settings)),)
            case LlamaCpp():
                urls = split_urls(settings.url)
            case Simulated():
                urls = split_urls(settings.url or stack.enter_context(simulated.serving(settings.world)))
            case Scripted():
                load_rule(settings.rule)
                urls = ()
            case Managed(url=""):
                servers = servers or stack.enter_context(Servers())
                urls = (servers.url(launch_of(settings, name), name),)
            case Server():
                urls = settings.urls
        yield _endpoint(settings, identity_of(settings, name), urls)


def _endpoint(settings: EngineSettings, identity: tuple[str, str], urls: tuple[str, ...]) -> Endpoint:
    dialect = _dialect(settings, urls)
    return Endpoint(
        kind=dialect.kind,
        urls=urls,
        model=identity[0],
        revision=identity[1],
        dialect=dialect,
        limits=_limits(settings),
        key_env=settings.api_key_env if isinstance(settings, Server) and settings.url else "",
    )


def _dialect(settings: EngineSettings, urls: tuple[str, ...]) -> Dialect:
    match settings:
        case LlamaCpp():
            template = llama_cpp.read_chat_template(urls[0]) if settings.style == "templated" else None
            return Dialect(
                kind="llama_cpp",
                style=settings.style,
                max_choices=settings.slots,
                template=template,
                thinking=settings.thinking,
            )
        case Simulated():
            return Dialect(kind="simulated", style="raw", images=True, thinking=settings.thinking)
        case Scripted():
            return Dialect(kind="scripted", style="raw")
    kind = "vllm" if isinstance(settings, Vllm) else "sglang" if isinstance(settings, Sglang) else "openai"
    folder = settings.chat_template or settings.model
    template = load_chat_template(folder) if settings.style == "templated" else None
    return Dialect(
        kind=kind,
        style=settings.style,
        max_choices=settings.max_choices,
        template=template,
        images=settings.images,
        trims_turns=settings.trims_turns,
        thinking=settings.thinking,
    )


def _limits(settings: EngineSettings) -> Limits:
    """Its limits; a server of ours that is being started again is waited for as long as it may take to start."""
    limits = settings.limits
    if not isinstance(settings, Managed) or settings.url or limits.max_attempts == 1:
        return limits
    patience = settings.start_timeout_secs / (limits.max_attempts - 1)
    return msgspec.structs.replace(
        limits,
        max_wait_secs=max(limits.max_wait_secs, patience),
        overload_secs=max(limits.overload_secs, settings.start_timeout_secs),  # Some say 503 while they load.
    )


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
            (name, stack.enter_context(serve(settings, engine_key(name), servers)))
            for name, settings in engines.items()
        )


def endpoints_on_hosts(
    engines: Mapping[str, EngineSettings], linger_secs: float = LINGER_SECS
) -> tuple[tuple[str, Endpoint], ...]:
    """The endpoints of several engines by name, for workers on other hosts; starts no server that stays.

    What `serve` would start here, each worker's host starts for itself, once for all its workers (`reached`). What has
    URLs must be reachable by those from every worker.

    Args:
      engines: settings by name; the actor's is called "".
      linger_secs: how long a host's server stays when no worker uses it.

    Raises:
      UserError: an engine cannot be used, or it cannot be said here which model it is.
    """
    return tuple((name, _on_hosts(settings, engine_key(name), linger_secs)) for name, settings in engines.items())


def _on_hosts(settings: EngineSettings, name: str, linger_secs: float) -> Endpoint:
    if isinstance(settings, Scripted) or settings.url:
        with serve(settings, name) as endpoint:
            return endpoint
    try:
        identity = identity_of(settings, name)
    except UserError as error:
        remedy = f", or say which it is with {name}.revision" if isinstance(settings, Managed) else ""
        raise UserError(
            f"{error}. Workers start the model on their hosts, but every journal key names it: make it readable here, "
            f"too{remedy}"
        ) from error
    on_host = OnHost.of(settings, linger_secs)
    with ExitStack() as stack:
        # Its server alone tells llama.cpp's chat template.
        is_asked = isinstance(settings, LlamaCpp) and settings.style == "templated"
        urls = stack.enter_context(serve(settings, name)).urls if is_asked else ()
        endpoint = _endpoint(settings, identity, urls)
    return msgspec.structs.replace(endpoint, urls=(), on_host=on_host)


@contextmanager
def reached(endpoints: tuple[tuple[str, Endpoint], ...]) -> Iterator[tuple[tuple[str, Endpoint], ...]]:
    """The same endpoints with the URLs of this host's servers, which this process holds for as long as it lasts.

    Raises:
      UserError: a server does not start on this host, or its model is not the run's.
    """
    with ExitStack() as stack:
        yield tuple((name, _reach(endpoint, engine_key(name), stack)) for name, endpoint in endpoints)


def _reach(endpoint: Endpoint, name: str, stack: ExitStack) -> Endpoint:
    if endpoint.on_host is None:
        return endpoint
    server = stack.enter_context(HostServer(endpoint.on_host, name, endpoint.revision))
    return msgspec.structs.replace(endpoint, urls=(server.url,), on_host=None)


def connect(endpoint: Endpoint, leave: Leave | None = None) -> Engine:
    """A client of an endpoint that sends requests as long as it has leave; use it from one event loop."""
    if endpoint.kind == "scripted":
        return ScriptedEngine(load_rule(endpoint.model), endpoint.model)
    engine = HttpEngine(
        urls=endpoint.urls,
        model=endpoint.model,
        revision=endpoint.revision,
        dialect=endpoint.dialect,
        limits=endpoint.limits,
        key_env=endpoint.key_env,
    )
    engine.leave = leave or engine.leave
    return engine

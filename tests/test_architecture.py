import ast
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("schemas", "mcts", "annotators", "pipelines", "conf")
MAY_IMPORT = {
    "schemas": {"schemas"},
    "mcts": {"schemas", "mcts"},
    "annotators": {"schemas", "annotators"},
    "pipelines": {"schemas", "mcts", "annotators", "pipelines", "conf"},
    "conf": {"conf"},
}
BEAM_AND_HTTP = {"apache_beam", "aiohttp", "httpx", "requests", "urllib", "http", "socket", "openai", "hydra"}
FILES = sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Top-level package and full name of everything that a file imports, also inside functions."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno} imports relatively"
            for alias in node.names:
                yield (node.module or "").partition(".")[0], f"{node.module}.{alias.name}"


def test_there_is_something_to_look_at():
    assert {path.parts[0] for path in FILES} == set(PACKAGES)
    assert len(FILES) > 50


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package):
    forbidden = set(PACKAGES) - MAY_IMPORT[package] | {"tests", "benchmarks"}
    if package in ("schemas", "mcts", "annotators"):
        forbidden |= BEAM_AND_HTTP
    found = [
        f"{path} imports {name}"
        for path in FILES
        if path.parts[0] == package
        for top, name in imports(path)
        if top in forbidden
    ]
    assert not found


def test_engines_know_no_stage_and_no_beam():
    found = [
        f"{path} imports {name}"
        for path in FILES
        if path.parts[:2] == ("pipelines", "engines")
        for top, name in imports(path)
        if top in ("apache_beam", "mcts", "annotators") and "simulated" not in path.parts
    ]
    assert not found


def test_only_one_module_knows_hydra():
    knowing = {str(path) for path in FILES for top, _ in imports(path) if top in ("hydra", "omegaconf")}
    assert knowing == {"pipelines/config.py"}


def test_annotations_are_never_postponed():
    """It would switch Beam's type check off."""
    assert not [str(path) for path in FILES for _, name in imports(path) if name == "__future__.annotations"]


def test_nothing_prints():
    found = [
        f"{path}:{node.lineno}"
        for path in FILES
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not found


def test_nothing_is_unpickled():
    found = [str(path) for path in FILES for top, _ in imports(path) if top in ("pickle", "dill", "cloudpickle")]
    assert not found


def test_no_file_is_longer_than_400_lines():
    lengths = {str(path): len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert not {path: length for path, length in lengths.items() if length > 400}


def test_no_function_is_longer_than_60_lines():
    found = {
        f"{path}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path in FILES
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= 60
    }
    assert not found


def test_no_package_is_a_drawer():
    names = {"utils", "common", "helpers", "misc", "models", "data"}
    assert not [str(path) for path in FILES if names & {*path.with_suffix("").parts}]


@pytest.mark.parametrize("package", PACKAGES)
def test_nobody_else_owns_a_name_of_ours(package):
    owners = importlib.metadata.packages_distributions().get(package)
    assert owners is not None, f"{package} belongs to no distribution: pip install -e ."
    assert set(owners) == {"wrongturn"}


def test_tests_are_not_installed():
    assert "wrongturn" not in importlib.metadata.packages_distributions().get("tests", [])

"""The wheel that workers get: whole, nothing else in it, and the same bytes each time."""

import base64
import configparser
import csv
import hashlib
import importlib.metadata
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from pipelines.runners import package
from pipelines.runners.package import PACKAGES, code_digest, make_wheel
from schemas import digest

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return make_wheel(tmp_path_factory.mktemp("wheel"))


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed_by_setup_cfg():
    """What setuptools puts into a wheel of this checkout, read from setup.cfg."""
    config = configparser.ConfigParser()
    config.read(_ROOT / "setup.cfg", encoding="utf-8")
    roots = [line.rstrip("*") for line in config["options.packages.find"]["include"].split()]
    folders = [path.parent for root in roots for path in (_ROOT / root).rglob("__init__.py")]
    found = {path for folder in folders for path in folder.glob("*.py")}
    for name, patterns in config["options.package_data"].items():
        for folder in folders if name == "*" else [_ROOT.joinpath(*name.split("."))]:
            found |= {path for pattern in re.split(r"[,\s]+", patterns) for path in folder.glob(pattern)}
    return {path.relative_to(_ROOT).as_posix() for path in found if path.is_file()}


def test_it_holds_what_setup_cfg_packs_and_its_dist_info(wheel):
    expected = packed_by_setup_cfg()
    assert {"annotators/prompts/critique.txt", "conf/config.yaml", "pipelines/report/page.js"} <= expected
    dist_info = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt", "licenses/LICENSE"}
    version = importlib.metadata.version("wrongturn")
    assert set(members_of(wheel)) == expected | {f"wrongturn-{version}.dist-info/{name}" for name in dist_info}
    assert wheel.name == f"wrongturn-{version}-py3-none-any.whl"


def test_every_file_is_that_of_the_installation(wheel):
    for name, content in members_of(wheel).items():
        if ".dist-info/" not in name:
            assert content == (_ROOT / name).read_bytes(), name


def test_the_record_tells_every_member_with_its_digest_and_size(wheel):
    members = members_of(wheel)
    (record,) = (name for name in members if name.endswith("/RECORD"))
    rows = list(csv.reader(members[record].decode().splitlines()))
    assert {name for name, _, _ in rows} == set(members)
    for name, told, size in rows:
        if name == record:
            assert (told, size) == ("", "")
            continue
        kind, _, coded = told.partition("=")
        assert kind == "sha256"
        assert base64.urlsafe_b64decode(coded + "=") == hashlib.sha256(members[name]).digest()
        assert int(size) == len(members[name])


def test_the_metadata_are_those_of_the_installation(wheel):
    (installed,) = importlib.metadata.distributions(name="wrongturn", path=[_unpacked(wheel)])
    known = package.installation()
    assert installed.version == known.version
    assert installed.requires == known.requires
    assert any(requirement.startswith("apache-beam") for requirement in installed.requires)
    assert {(each.name, each.value) for each in installed.entry_points} == {("wrongturn", "pipelines.main:main")}
    assert installed.read_text("top_level.txt").split() == sorted(PACKAGES)


def _unpacked(wheel):
    target = wheel.parent / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return str(target)


def test_the_same_installation_gives_the_same_bytes(wheel, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "localtime", lambda *_: (2031, 2, 3, 4, 5, 6, 0, 34, 0))
    assert make_wheel(tmp_path).read_bytes() == wheel.read_bytes()


@pytest.fixture
def stray(tmp_path, monkeypatch):
    """An installation that other files lie beside, some with names like those that are packed."""
    for name in PACKAGES:
        (tmp_path / name / "prompts").mkdir(parents=True)
        (tmp_path / name / "__pycache__").mkdir()
        (tmp_path / name / "__init__.py").write_text('"""Empty."""\n')
        for file in (".env", "notes.txt", "prompts/solve.txt~", "__pycache__/__init__.cpython-311.pyc", "key.pem"):
            (tmp_path / name / file).write_text("not for workers")
    monkeypatch.setattr(package.importlib.resources, "files", lambda name: tmp_path / name)
    return tmp_path


def test_what_lies_beside_the_packages_stays_here(stray):
    names = {name for name in members_of(make_wheel(stray)) if ".dist-info/" not in name}
    assert names == {f"{name}/__init__.py" for name in PACKAGES}


def test_a_local_version_keeps_to_the_names_of_wheels(stray, monkeypatch):
    """PEP 427 escapes what would end a field of the name: `-` above all."""
    monkeypatch.setattr(importlib.metadata.PathDistribution, "version", "1.2.0+git-4f.dirty")
    assert make_wheel(stray).name == "wrongturn-1.2.0+git_4f.dirty-py3-none-any.whl"


def test_without_an_installation_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(package.importlib.metadata, "distributions", lambda name: iter(()))
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        make_wheel(tmp_path)


def test_other_code_has_another_digest_and_other_prompts_have_not(stray):
    def told():
        return code_digest.__wrapped__()  # As a process that has not looked yet.

    before = told()
    (stray / "pipelines" / "prompts" / "solve.txt").write_text("a prompt")
    (stray / "conf" / "mine.yaml").write_text("a: 1")
    assert told() == before
    module = stray / "mcts" / "halving.py"
    seen = {before}
    for code in ("a = 1\n", "a = 2\n"):
        module.write_text(code)
        seen.add(told())
    module.rename(stray / "mcts" / "search.py")
    seen.add(told())
    assert len(seen) == 4


_USE = """
import importlib.metadata, pathlib, sys
import pipelines.main, pipelines.plan, pipelines.report.page
from pipelines.config import compose
from pipelines.templates import load_template
home = pathlib.Path(sys.argv[1])
assert all(home in pathlib.Path(module.__file__).parents for name, module in sys.modules.items()
           if name.split(".")[0] in ("annotators", "conf", "mcts", "pipelines", "schemas"))
compose(["problems=simulated", "engine=scripted"])
template = load_template("refine", key="k", gaps=frozenset({"sections"}))
from pipelines.runners.package import code_digest
sys.stdout.write(f"{template.digest} {importlib.metadata.version('wrongturn')} {code_digest()}")
"""


@pytest.mark.slow
def test_pip_installs_it_and_the_settings_and_prompts_are_there(wheel, tmp_path):
    """Into a folder of its own, which stands before everything that is installed here."""
    home = tmp_path / "home"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(home), str(wheel)], check=True, capture_output=True)
    environment = os.environ | {"PYTHONPATH": str(home), "PYTHONSAFEPATH": "1"}
    use = [sys.executable, "-c", _USE, str(home)]
    done = subprocess.run(use, check=False, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    text = (_ROOT / "pipelines" / "prompts" / "refine.txt").read_text(encoding="utf-8")
    assert done.stdout == f"{digest(text)} {importlib.metadata.version('wrongturn')} {code_digest()}"
    assert (home / "bin" / "wrongturn").is_file()

"""Copies of what lies in a store: they end with their process, however that ends. `memory://` stands for a store."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipelines.mirror import Mirror, sweep_copies
from pipelines.storage import open_folder

HOLDER = """
import sys
from pipelines.mirror import Mirror
from pipelines.storage import open_folder
mirror = Mirror(open_folder("memory://bucket/out"))
mirror.keep("trees/a", b"row")
print(mirror.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch) -> Path:
    """TMPDIR, here and in what is started."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def holder():
    process = subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def copy_of(holder) -> Path:
    return Path(holder.stdout.readline().strip())


def a_copy(name: str = "out") -> Mirror:
    return Mirror(open_folder(f"memory://bucket/{name}"))


def test_the_copy_of_a_killed_process_goes_at_the_next_start(holder, temporary):
    copy = copy_of(holder)
    assert (copy / "trees" / "a").read_bytes() == b"row"
    holder.kill()
    holder.wait()
    mirror = a_copy()
    assert [folder for folder in temporary.iterdir() if folder not in mirror.path.parents] == []


def test_the_copy_of_a_process_that_lives_stays(holder):
    copy, mirror = copy_of(holder), a_copy()
    sweep_copies()
    assert (copy / "trees" / "a").read_bytes() == b"row"
    assert mirror.path.is_dir()


def test_a_copy_goes_with_its_holder(temporary):
    mirror = a_copy()
    assert mirror.path.is_dir()
    del mirror
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("name", ["lock", "copy", "lock.new"])
def test_a_folder_in_a_store_may_be_called_as_it_likes(name):
    mirror = a_copy(name)
    assert mirror.path.name == name
    assert mirror.path.is_dir()


def test_a_folder_of_somebody_else_is_left_alone(temporary, monkeypatch):
    theirs = temporary / "wrongturn-copy-theirs"
    (theirs / "copy").mkdir(parents=True)
    (theirs / "lock").write_bytes(b"")
    monkeypatch.setattr(os, "getuid", lambda: theirs.stat().st_uid + 1)
    sweep_copies()
    assert (theirs / "copy").is_dir()

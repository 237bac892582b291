"""The folder in which a host's processes agree on a server: where it is, whose it is, and whose keeper still lives."""

import os
import subprocess
from pathlib import Path

import msgspec
import pytest

from pipelines.engines.host_folder import HostFolder, State, process_began
from pipelines.engines.settings import Simulated
from pipelines.errors import UserError


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("devices", ["CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"])
def test_processes_that_see_other_devices_have_another_server(home, monkeypatch, devices):
    first = HostFolder.of(Simulated()).path
    monkeypatch.setenv(devices, "1")
    assert HostFolder.of(Simulated()).path != first


def test_where_there_is_no_folder_of_the_session_the_temporary_one_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for session in ("", "relative", str(tmp_path / "nothing")):
        monkeypatch.setenv("XDG_RUNTIME_DIR", session)
        path = HostFolder.of(Simulated()).path
        assert path.parent == tmp_path / f"wrongturn-{os.getuid()}"
        assert path.stat().st_mode & 0o777 == path.parent.stat().st_mode & 0o777 == 0o700


def make_link(path: Path) -> None:
    path.symlink_to(path.parent, target_is_directory=True)


def make_open(path: Path) -> None:
    path.mkdir()
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("make", "says"),
    [(make_link, "is a link"), (Path.touch, "is a file"), (make_open, "is open to others (mode 755)")],
    ids=["link", "file", "open"],
)
@pytest.mark.parametrize("level", ["user", "server"])
def test_a_folder_that_is_not_this_users_alone_is_refused(home, make, says, level):
    path = HostFolder.of(Simulated()).path
    (path / "logs").rmdir()
    path.rmdir()
    if level == "user":
        path = path.parent
        path.rmdir()
    make(path)
    with pytest.raises(UserError) as caught:
        HostFolder.of(Simulated())
    assert str(caught.value) == (
        f"{path} {says}; expected a folder of this user's alone, for what stands in it says "
        "which server is asked: remove it, or let XDG_RUNTIME_DIR name another place"
    )


def test_a_folder_of_another_user_is_refused(home, monkeypatch):
    uid = os.getuid()
    monkeypatch.setattr("os.getuid", lambda: uid + 1)
    (home / f"wrongturn-{uid + 1}").mkdir(mode=0o700)
    with pytest.raises(UserError, match=rf"belongs to user {uid}, not to {uid + 1}; expected a folder"):
        HostFolder.of(Simulated())


def test_a_folder_that_cannot_be_made_is_refused_with_the_remedy(home, monkeypatch):
    monkeypatch.setattr("os.getuid", lambda: "no/where")
    with pytest.raises(UserError, match="No such file or directory; let XDG_RUNTIME_DIR or TMPDIR name"):
        HostFolder.of(Simulated())


def test_a_keeper_is_alive_as_the_process_that_it_was():
    mine = State(generation="g", pid=os.getpid(), began=process_began(os.getpid()), url="http://h:1")
    assert mine.is_alive
    assert mine.is_up
    assert not msgspec.structs.replace(mine, error="given up").is_up
    # The pid is another process's by now.
    assert not msgspec.structs.replace(mine, began="1").is_alive
    child = subprocess.Popen(["/bin/sleep", "60"])
    began = process_began(child.pid)
    assert int(began) >= int(mine.began)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    # Dead, and nobody has buried it yet.
    assert not State(generation="g", pid=child.pid, began=began).is_alive
    child.wait()
    assert not State(generation="g", pid=child.pid, began=began).is_alive

"""Virtual environments for the other tools: made once, kept in the user's cache folder, never in this project's."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from schemas import Record

_INSTALL_SECS = 600.0
_VENV_SECS = 120.0


class Peer(Record):
    """A tool to compare with."""

    name: str
    requirements: tuple[str, ...]
    """What pip is given."""

    @property
    def program(self) -> Path:
        """What runs the job in the tool's environment."""
        return Path(__file__).parent / f"{self.name}_job.py"


class NotInstalledError(Exception):
    """A tool cannot be had here; the message is the reason."""


PEERS = (
    # Its extra `inference` without the two servers in it (vllm, sglang: gigabytes), which an endpoint does not need.
    Peer(
        name="datatrove",
        requirements=("datatrove[io]==0.10.1", "aiofiles", "aiosqlite", "httpx", "numpy>=2,<2.3", "pandas", "xxhash"),
    ),
    # Libraries of its time: later ones have left what it imports.
    Peer(name="distilabel", requirements=("distilabel[openai]==1.5.3", "datasets<4", "openai<2", "requests")),
)


def cache_folder() -> Path:
    """Where the environments are kept."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "wrongturn" / "peers"


def folder_of(peer: Peer, cache: Path) -> Path:
    """An environment's folder: another one for other requirements and for another Python."""
    named = "\n".join((*peer.requirements, sys.version))
    return cache / f"{peer.name}-{hashlib.sha256(named.encode()).hexdigest()[:12]}"


def python_of(peer: Peer, cache: Path) -> Path:
    """The interpreter of a tool's environment, which is made where it is not there.

    Raises:
      NotInstalledError: it cannot be made; says why.
    """
    folder = folder_of(peer, cache)
    python, mark = folder / "bin" / "python", folder / "COMPLETED"
    if mark.is_file() and python.exists():
        return python
    if folder.exists():  # An installation that was broken off.
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _call([sys.executable, "-m", "venv", str(folder)], _VENV_SECS)
    _call([str(python), "-m", "pip", "install", "--quiet", *peer.requirements], _INSTALL_SECS)
    mark.touch()
    return python


def _call(command: list[str], seconds: float) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise NotInstalledError(f"`{_words(command)}` took longer than {seconds:g} s") from None
    except OSError as error:
        raise NotInstalledError(f"`{_words(command)}`: {error}") from None
    if done.returncode:
        raise NotInstalledError(f"`{_words(command)}`: {reason_in(done.stderr or done.stdout)}")


def _words(command: list[str]) -> str:
    return " ".join((Path(command[0]).name, *command[1:]))


def reason_in(complaint: str) -> str:
    """The first line that pip calls an error; without one the last line."""
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines[-1:] or ["it gave no reason"])[0]

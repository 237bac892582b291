"""From an engine's settings to the launch of its server: is it installed, where is the model, which model is that."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

from pipelines.engines.command_lines import arguments, program_of
from pipelines.engines.managed import Launch
from pipelines.engines.settings import Managed
from pipelines.errors import UserError

_PROBE = (
    "import sys, importlib.util as u, importlib.metadata as m\n"
    "if not u.find_spec(sys.argv[1]): sys.exit(3)\n"
    "found = [d for d in m.packages_distributions().get(sys.argv[1], ())]\n"
    "print(*(f'{d} {m.version(d)}' for d in found[:1]))\n"
)
"""Prints the distribution that a package comes from; exit status 3 where there is no such package. Imports nothing."""
_PROBE_SECS = 60.0
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_WHOLE_BYTES = 2**31
_BLOCKS, _BLOCK_BYTES = 1024, 16384


def launch_of(settings: Managed, name: str) -> Launch:
    """How to start the server of an engine.

    Args:
      settings: without a `url`.
      name: of the engine, as the settings call it: `engine`, or `engines.NAME`.

    Raises:
      UserError: it is not installed, or there is no such model; names the setting and the remedy.
    """
    if not sys.platform.startswith("linux"):
        raise UserError(f"{name}.url: servers are started on Linux alone; start one by hand and give its URL")
    python, folder = _interpreter(settings, name), local_model(settings, name)
    model = str(folder) if folder else settings.model
    program = program_of(settings)
    words = arguments(program, settings, model, served_name(settings))
    if not settings.program:
        probe(python, program.module.partition(".")[0], name)
    # Tools that servers call while they compile lie beside their interpreter.
    env = program.env | {"PATH": os.pathsep.join((str(Path(python).parent), os.environ.get("PATH", os.defpath)))}
    env |= {"PYTHONUNBUFFERED": "1"}
    if not settings.program:  # A folder here that bears the module's name is not the module.
        env |= {"PYTHONSAFEPATH": "1"}
    if folder:
        env |= {"HF_HUB_OFFLINE": "1"}
    elif settings.revision:
        words = ("--revision", settings.revision, *words)
    return Launch(
        command=(python, *(settings.program or ("-m", program.module)), *words),
        env=tuple(sorted((env | {key: str(value) for key, value in settings.env.items()}).items())),
        port=settings.port,
        start_timeout_secs=settings.start_timeout_secs,
        stop_timeout_secs=settings.stop_timeout_secs,
        max_restarts=settings.max_restarts,
        served_name=served_name(settings),
    )


def served_name(settings: Managed) -> str:
    """What requests call the model, and what answers are journaled under.

    A folder's last part, so that it is the same wherever the folder lies; of a name at the Hub all of it, since two
    owners may have a model of one name.
    """
    if settings.served_name:
        return settings.served_name
    path = Path(settings.model).expanduser()
    return path.name if path.exists() or not _HUB_NAME.fullmatch(settings.model) else settings.model


def revision_of(settings: Managed, name: str) -> str:
    """The revision that is set; else a folder's or file's digest, and nothing for a name at the Hub.

    Raises:
      UserError: see `local_model`.
    """
    if settings.revision:
        return settings.revision
    model = local_model(settings, name)
    return model_digest(model) if model else ""


def local_model(settings: Managed, name: str) -> Path | None:
    """Where the model lies; None for a name at the Hub, which the server itself looks for.

    Raises:
      UserError: it is neither.
    """
    path = Path(settings.model).expanduser()
    if path.is_file() or (path / "config.json").is_file():
        return path.resolve()
    if path.is_dir():
        raise UserError(
            f"{name}.model: {path.absolute()} holds no config.json; give a folder in the format of Hugging Face"
        )
    if _HUB_NAME.fullmatch(settings.model):
        return None
    raise UserError(
        f"{name}.model: no folder at {path.absolute()}, and {settings.model!r} is no name at the Hub; give the folder "
        "of a model or OWNER/NAME"
    )


def model_digest(path: Path) -> str:
    """First 16 hex digits of a SHA-256 over a model's files, with their names and sizes.

    Files up to 2 GiB are read whole. Of larger ones 1024 blocks of 16 KiB, evenly spread, are: two models whose files
    are equal in size and differ nowhere in those have one digest, and want a `revision` of their own.
    """
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())
    digest = hashlib.sha256()
    for file in files:
        if file.name.startswith(".") or file.suffix in (".md", ".lock"):
            continue
        size = file.stat().st_size
        digest.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as content:
            if size <= _WHOLE_BYTES:
                digest.update(hashlib.file_digest(content, "sha256").digest())
                continue
            for block in range(_BLOCKS):
                content.seek((size - _BLOCK_BYTES) * block // (_BLOCKS - 1))
                digest.update(content.read(_BLOCK_BYTES))
    return digest.hexdigest()[:16]


def _interpreter(settings: Managed, name: str) -> str:
    if not settings.python:
        return sys.executable
    path = Path(settings.python).expanduser()
    if not (path.is_file() and os.access(path, os.X_OK)):
        raise UserError(
            f"{name}.python: no program at {path.absolute()}; give the interpreter of the environment that the server "
            "is installed in, such as ENV/bin/python"
        )
    return str(path.absolute())  # Not resolved: it is the link in its environment that makes it that environment's.


def probe(python: str, package: str, name: str = "engine") -> str:
    """The distribution and version that an interpreter has a server's package from.

    Raises:
      UserError: it has none.
    """
    command = [python, "-c", _PROBE, package]
    try:
        done = subprocess.run(
            command,
            env=os.environ | {"PYTHONSAFEPATH": "1"},
            capture_output=True,
            text=True,
            timeout=_PROBE_SECS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{name}.python: {python} cannot be run: {error}; give another interpreter") from error
    if done.returncode == 3:
        raise UserError(
            f"{name}.python: {package} is not installed for {python}; give the interpreter of an environment where it "
            f"is with {name}.python=ENV/bin/python, make one with pip install 'wrongturn[{package}]', or use a server "
            f"that runs already with {name}.url=URL"
        )
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["nothing"]
        raise UserError(f"{name}.python: {python} is no Python that works: it said {said[0]!r}")
    return done.stdout.strip() or package

"""For tests of what a host's processes share: processes that use its server, and the pids of all that take part."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import msgspec
import pytest

from pipelines.engines import Endpoint
from pipelines.engines.host_folder import State

FAKE = Path(__file__).parents[1] / "servers" / "fake_server.py"
KEEPER = "from pipelines.engines.keeper import main"
"""Stands in the command line of every keeper."""
USER = """
import asyncio, json, sys
import msgspec
from pipelines.engines import Endpoint, Request, Sampling, connect, reached
from pipelines.errors import UserError

request = Request(prompt=sys.argv[1], sampling=Sampling(max_tokens=8, temperature=1.0))

async def ask(endpoint):
    client = connect(endpoint)
    try:
        return (await client.complete(request)).samples[0]
    finally:
        await client.close()

def say(**what):
    print(json.dumps(what), flush=True)

endpoints = msgspec.json.decode(sys.stdin.readline(), type=tuple[tuple[str, Endpoint], ...])
try:
    with reached(endpoints) as here:
        say(url=here[0][1].urls[0])
        for line in sys.stdin:
            sample = asyncio.run(ask(here[0][1]))
            say(text=sample.text, error=sample.error)
except UserError as error:
    say(refused=str(error))
"""


class User:
    """A process that uses its host's server."""

    def __init__(self, process: "subprocess.Popen[str]", endpoints: tuple[tuple[str, Endpoint], ...]) -> None:
        assert process.stdin
        assert process.stdout
        self.process = process
        self._in: IO[str] = process.stdin
        self._out: IO[str] = process.stdout
        self._write(msgspec.json.encode(endpoints).decode())

    def _write(self, line: str) -> None:
        self._in.write(line + "\n")
        self._in.flush()

    def said(self) -> dict[str, str]:
        return json.loads(self._out.readline())

    def ask(self) -> dict[str, str]:
        """One sample by way of the HTTP engine, with its patience."""
        self._write("ask")
        return self.said()


class Users:
    """Starts such processes for one prompt, and ends those that are left."""

    def __init__(self, prompt: str) -> None:
        self._prompt = prompt
        self._all: list[User] = []

    def start(self, endpoints: tuple[tuple[str, Endpoint], ...]) -> User:
        words = [sys.executable, "-c", USER, self._prompt]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(words, cwd=FAKE.parents[2], text=True, **pipes)
        self._all.append(User(process, endpoints))
        return self._all[-1]

    def end(self) -> None:
        for user in self._all:
            user.process.kill()
            user.process.communicate()


@contextlib.contextmanager
def users(prompt: str) -> Iterator[Users]:
    started = Users(prompt)
    try:
        yield started
    finally:
        started.end()


def states(home: Path) -> list[State]:
    """What the keepers below a folder say of their servers."""
    return [msgspec.json.decode(path.read_bytes(), type=State) for path in home.glob("*/*/state.json")]


def state(home: Path) -> State:
    (only,) = states(home)
    return only


def processes_with(*words: str) -> list[int]:
    """Processes in whose command lines all these words stand, whatever is around them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().decode("utf-8", "replace")
            if all(word in line for word in words) and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return found


def keepers(home: Path) -> list[int]:
    """The keepers of all servers whose folders lie below one."""
    return processes_with(KEEPER, str(home))


@contextlib.contextmanager
def one_host(path: Path, patch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A host of the test's own: what its processes share lies in a folder, and no keeper of it may stay."""
    path.mkdir()
    patch.setenv("XDG_RUNTIME_DIR", str(path))
    yield path
    is_empty = until(lambda: not keepers(path), 30)
    for pid in keepers(path):
        os.kill(pid, signal.SIGKILL)
    assert is_empty, "a keeper has stayed"


def until(fact: Callable[[], bool], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not fact():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True

"""A Redis server of one's own on this machine, for tests and figures: a password, an append-only file, a folder."""

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

PASSWORD = "only for tests: p@ss/w:rd"
"""With what would be wrong in a URL."""
_START_SECS = 30.0


class RedisServer:
    """`redis-server` on the loopback address; may be killed and started again with what it had."""

    def __init__(self, folder: Path, **settings: str) -> None:
        """Starts it.

        Args:
          folder: where its data goes.
          settings: of redis.conf, with `_` for `-`, over those of a server that is right for a journal.
        """
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.folder = folder
        self.settings = {"appendonly": "yes", "appendfsync": "always", "save": '""'} | settings
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        """Returns when it answers; settings that were changed meanwhile hold."""
        lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {self.folder}", f'requirepass "{PASSWORD}"']
        lines += [f"{name.replace('_', '-')} {value}" for name, value in self.settings.items()]
        with (self.folder / "redis.log").open("a") as log:
            # Its settings go through a pipe: the list of processes shows arguments to everybody.
            self._process = subprocess.Popen(["redis-server", "-"], stdin=subprocess.PIPE, stdout=log, text=True)
        assert self._process.stdin
        self._process.stdin.write("\n".join(lines) + "\n")
        self._process.stdin.close()
        deadline = time.monotonic() + _START_SECS
        while True:
            try:
                with self.client() as client:
                    client.ping()
                return
            except redis.ConnectionError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    said = (self.folder / "redis.log").read_text()[-500:]
                    raise RuntimeError(f"redis-server does not start: {said}") from None
                time.sleep(0.02)

    def client(self) -> Any:
        """A client that is let in."""
        return redis.Redis(port=self.port, password=PASSWORD, protocol=2)

    def url(self, prefix: str = "") -> str:
        """What the setting `journal` has to be."""
        return f"redis://127.0.0.1:{self.port}/0" + (f"/{prefix}" if prefix else "")

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal; waits for its end where it is a deadly one."""
        assert self._process
        self._process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self._process.wait(timeout=_START_SECS)

    def kill(self) -> None:
        """SIGKILL: it has no time to put anything in order."""
        self.send(signal.SIGKILL)


def is_installed() -> bool:
    """Whether there is a server to start."""
    return shutil.which("redis-server") is not None


@contextlib.contextmanager
def redis_server(folder: Path, **settings: str) -> Iterator[RedisServer]:
    """A server for as long as the context lasts."""
    server = RedisServer(folder, **settings)
    try:
        yield server
    finally:
        server.kill()

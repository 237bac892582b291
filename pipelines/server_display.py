"""What a person sees of the servers that a run starts: how they come up, and when one had to be started again."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.text import Text

from pipelines.engines import ServerWatcher
from schemas import visible

_LINE_SECS = 10.0
_LINE_CHARS = 100


class ServerDisplay(ServerWatcher):
    """The newest line of a server that starts: live in a terminal, else one at times."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._restarts: Counter[str] = Counter()

    @contextlib.contextmanager
    def starting(self, name: str) -> Iterator[Callable[[str], None]]:
        """Shows the server's newest line, and at last how long it took."""
        began = time.monotonic()
        with contextlib.ExitStack() as shown:
            if self._console.is_terminal:
                status = shown.enter_context(self._console.status(_state(name, "", 0.0)))
                yield lambda line: status.update(_state(name, line, time.monotonic() - began))
            else:
                yield _Lines(self._console, name)
        self._console.print(Text(f"{name}: the server took {time.monotonic() - began:.0f} s to start"), soft_wrap=True)

    def restarted(self, name: str, why: str) -> None:
        """Says so at once: a run that waits for a server must not look hung."""
        self._restarts[name] += 1
        self._console.print(Text(visible(f"{name}: {why}")), soft_wrap=True)

    def print_restarts(self) -> None:
        """How often which server was started again; nothing where none was."""
        for name, number in sorted(self._restarts.items()):
            times = "once" if number == 1 else f"{number} times"
            said = f"{name}: the server died in mid-run and was started again {times}; its log says why"
            self._console.print(Text(said), soft_wrap=True)


class _Lines:
    """Prints what it is told, when it was silent for a while."""

    def __init__(self, console: Console, name: str) -> None:
        self._console = console
        self._name = name
        self._began = self._last = time.monotonic()
        console.print(Text(f"{name}: starting its server"), soft_wrap=True)

    def __call__(self, line: str) -> None:
        now = time.monotonic()
        if now - self._last >= _LINE_SECS:
            self._last = now
            self._console.print(_state(self._name, line, now - self._began), soft_wrap=True)


def _state(name: str, line: str, seconds: float) -> Text:
    return Text(visible(f"{name}: starting its server, {seconds:.0f} s: {line[:_LINE_CHARS]}".rstrip(": ")))

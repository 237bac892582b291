"""The simulated server as a program: `python -m pipelines.engines.simulated.server --settings '{"slots": 8}'`.

Prints one line of JSON with its URL when it is ready, and serves on loopback until it is interrupted.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence

from pipelines.engines.simulated.hosting import listening, serving, serving_subprocess
from pipelines.engines.simulated.settings import SimulatedSettings, read_settings

__all__ = ["main", "serving", "serving_subprocess"]


async def _serve(settings: SimulatedSettings, port: int, *, until_stdin_closes: bool) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if until_stdin_closes:

        def watch() -> None:
            while os.read(0, 4096):
                pass
            loop.call_soon_threadsafe(stop.set)

        threading.Thread(target=watch, daemon=True).start()
    async with listening(settings, port=port) as url:
        sys.stdout.write(json.dumps({"url": url}) + "\n")
        sys.stdout.flush()
        await stop.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.engines.simulated.server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--settings", default="{}", help="JSON object with fields of SimulatedSettings")
    parser.add_argument(
        "--until-stdin-closes", action="store_true", help="also end at the end of stdin, that is with the parent"
    )
    given = parser.parse_args(arguments)
    try:
        settings = read_settings(given.settings)
    except ValueError as error:
        parser.error(str(error))
    asyncio.run(_serve(settings, given.port, until_stdin_closes=given.until_stdin_closes))


if __name__ == "__main__":
    main()

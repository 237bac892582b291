"""A program with the command line of a model server and troubles to order, for tests of how servers are kept.

Says that it is well after `--well-after` seconds, `--never` says so never. `--die` ends it at once with a traceback,
`--deaf` makes it ignore SIGTERM. `--family FILE` starts a child that starts a grandchild, both in sessions of their own
and deaf, and writes the pids to FILE. `--world` serves the simulated world; with `--die-after N --once FILE` that
server is killed by its Nth request, and makes FILE so that the next one is not; `--slow` takes seconds for each answer.
More such words may stand in the environment variable FAKE_SERVER; others are ignored.
"""

import argparse
import asyncio
import os
import shlex
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CHILD = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) > 2:
    grandchild = subprocess.Popen([sys.executable, "-c", sys.argv[1], "last"], start_new_session=True)
    open(sys.argv[2] + ".new", "w").write(f"{os.getpid()} {grandchild.pid}")
    os.rename(sys.argv[2] + ".new", sys.argv[2])
time.sleep(120)
"""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--well-after", type=float, default=0.0)
    parser.add_argument("--family", default="")
    parser.add_argument("--once", default="")
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--die-after", type=int, default=0)
    for name in ("--never", "--die", "--deaf", "--world"):
        parser.add_argument(name, action="store_true")
    return parser.parse_known_args([*sys.argv[1:], *shlex.split(os.environ.get("FAKE_SERVER", ""))])[0]


def serve(options: argparse.Namespace) -> None:
    """A server that knows nothing but how it is."""
    began = time.monotonic()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_well = not options.never and time.monotonic() - began >= options.well_after
            self.send_response(200 if is_well else 503)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    server.serve_forever()


def die_once(file: Path) -> None:
    if not file.exists():
        file.touch()
        os.kill(os.getpid(), signal.SIGKILL)


async def serve_world(options: argparse.Namespace) -> None:
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from aiohttp import web

    from pipelines.engines.simulated.app import SimulatedServer
    from pipelines.engines.simulated.settings import SimulatedSettings

    counted = 0

    @web.middleware
    async def mortal(request: web.Request, handler):
        nonlocal counted
        counted += request.method == "POST"
        if options.die_after and counted == options.die_after:
            die_once(Path(options.once))
        await asyncio.sleep(options.slow * (request.method == "POST"))
        return await handler(request)

    application = SimulatedServer(SimulatedSettings()).application()
    application.middlewares.append(mortal)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", options.port).start()
    await asyncio.Event().wait()


def main() -> None:
    options = parse()
    sys.stderr.write("loading weights: 10%\r")
    sys.stderr.write("loading weights: 100%\n")
    sys.stderr.flush()
    if options.deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if options.family:
        subprocess.Popen([sys.executable, "-c", CHILD, CHILD, options.family], start_new_session=True)
    if options.die:
        raise RuntimeError("out of memory at layer 7")
    if options.world:
        asyncio.run(serve_world(options))
    serve(options)


if __name__ == "__main__":
    main()

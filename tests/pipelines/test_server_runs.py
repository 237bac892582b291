"""A whole run with a real server on the CPU, which the run starts, loses, starts again and stops: vLLM, and SGLang."""

import contextlib
import os
import re
import shutil
import signal
import threading
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from pipelines.config import compose
from pipelines.meter import METER
from pipelines.run import Result, Watcher, run
from pipelines.settings import Settings
from pipelines.shards import file_digest, read_rows
from schemas.arrow import CONFIGS
from tests.servers.sglang import sglang_settings
from tests.servers.vllm import MODEL, vllm_settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SERVERS = {"vllm": vllm_settings, "sglang": sglang_settings}
SMALL = (
    "problems.num_problems=2",
    "search.max_rollouts=12",
    "verify.help.rollouts=2",
    "verify.help.max_rollouts=2",
)


def settings(out: Path, kind: str) -> Settings:
    plain = compose([*SMALL, f"engine={kind}", "engine.model=m", f"out={out}"])
    engine = SERVERS[kind]()
    # By this, whatever the server starts can be told from what others started.
    engine = msgspec.structs.replace(engine, env=engine.env | {"WRONGTURN_TEST": str(out)})
    return msgspec.structs.replace(plain, engine=engine)


def log(out: Path) -> str:
    return (out / "logs" / "engine.log").read_text(encoding="utf-8", errors="replace")


def server_at(port: str) -> int:
    """The pid of the server, not of its guardian, at a port."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            if port in words and words[1] != "-I":
                return int(path.parent.name)
    raise AssertionError(f"no server at port {port}")


class Killer(Watcher):
    """Kills the server once, when the run has had its first answers."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self.restarts: list[str] = []
        self.killed = threading.Event()
        self._done = threading.Event()
        self._paid = METER.read().paid.requests

    def watch(self) -> None:
        while not self._done.wait(0.05):
            if METER.read().paid.requests >= self._paid + 2:
                port, *_ = re.findall(r"--port (\d+)", log(self._out))
                os.kill(server_at(port), signal.SIGKILL)
                self.killed.set()
                return

    def stop(self) -> None:
        self._done.set()

    def restarted(self, name: str, why: str) -> None:
        self.restarts.append(f"{name}: {why}")


class Disturbed(NamedTuple):
    """A finished run whose server was killed in the middle."""

    kind: str
    out: Path
    result: Result
    killer: Killer
    log: str
    """The server's, as the run left it: other tests start the run again, in whatever order."""


@pytest.fixture(scope="module", params=[pytest.param(kind, marks=getattr(pytest.mark, kind)) for kind in SERVERS])
def disturbed(request, tmp_path_factory) -> Disturbed:
    kind = request.param
    out = tmp_path_factory.mktemp(kind) / "out"
    killer = Killer(out)
    thread = threading.Thread(target=killer.watch)
    thread.start()
    try:
        result = run(settings(out, kind), killer)
    finally:
        killer.stop()
        thread.join()
    return Disturbed(kind=kind, out=out, result=result, killer=killer, log=log(out))


def test_a_run_survives_its_server(disturbed):
    kind, out, result, killer, written = disturbed
    assert killer.killed.is_set()
    assert killer.restarts == [f"engine: the server was killed by signal 9; restart 1 of 3, log {out}/logs/engine.log"]
    assert written.count("--- wrongturn starts ") == 2
    assert (out / "COMPLETED").exists()
    assert [stage.stage for stage in result.books.stages if not stage.balanced] == []
    assert list(read_rows(out, "failures")) == []
    trees = list(read_rows(out, "trees"))
    assert len(trees) == 2
    assert {(tree["provenance"]["engine"], tree["provenance"]["model"]) for tree in trees} == {(kind, MODEL)}
    assert all(re.fullmatch(r"[0-9a-f]{16}", tree["provenance"]["revision"]) for tree in trees)


def test_nothing_of_it_is_left(disturbed):
    (port, again) = re.findall(r"--port (\d+)", disturbed.log)
    assert port == again
    with pytest.raises(AssertionError, match="no server"):
        server_at(port)
    mark = f"WRONGTURN_TEST={disturbed.out}".encode()
    left = [path for path in Path("/proc").glob("[0-9]*/environ") if _has(path, mark)]
    assert left == []


def _has(path: Path, setting: bytes) -> bool:
    try:
        return setting in path.read_bytes().split(b"\0")
    except OSError:
        return False


def test_the_same_run_from_the_journal_asks_nothing_and_writes_the_same_shards(disturbed):
    out, first = disturbed.out, disturbed.result
    before = {path.relative_to(out): file_digest(path) for path in out.glob("*/*.parquet")}
    for config in CONFIGS:
        shutil.rmtree(out / config)
    paid = METER.read().paid
    assert run(settings(out, disturbed.kind), Watcher()).books == first.books
    assert METER.read().paid == paid
    assert {path.relative_to(out): file_digest(path) for path in out.glob("*/*.parquet")} == before

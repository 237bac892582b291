"""One server for all processes of a host: found, started, kept alive by a keeper and let go of."""

import asyncio
import concurrent.futures
import contextlib
import fcntl
import os
import pickle
import signal
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pipelines.engines import Endpoint, OnHost, Request, Sampling, connect, endpoints_on_hosts, reached, serve
from pipelines.engines.host_folder import HostFolder, Order, try_lock
from pipelines.engines.host_server import HostServer
from pipelines.engines.keeper import Keeper
from pipelines.engines.settings import EngineSettings, Limits, LlamaCpp, Scripted, Sglang, Simulated, Vllm
from pipelines.engines.simulated import SimulatedSettings
from pipelines.errors import UserError
from tests.engines.host_processes import FAKE, keepers, one_host, state, states, until
from tests.engines.simulated_texts import QUESTION, solve_prompt

LINGER = 0.3
WORLD = Simulated()


@pytest.fixture
def home(tmp_path, monkeypatch) -> Iterator[Path]:
    with one_host(tmp_path / "run", monkeypatch) as path:
        yield path


@pytest.fixture
def folder(tmp_path) -> Path:
    """A model's folder, as far as anybody looks into it."""
    path = tmp_path / "Tiny-1B"
    path.mkdir()
    (path / "config.json").write_text("{}")
    return path


def hold(settings: EngineSettings, revision: str = "", linger: float = LINGER) -> HostServer:
    return HostServer(OnHost.of(settings, linger), "engine", revision)


def hold_world(linger: float = LINGER, **world: int) -> HostServer:
    settings = Simulated(world=SimulatedSettings(**world))
    ((_, endpoint),) = endpoints_on_hosts({"": settings})
    return hold(settings, endpoint.revision, linger)


async def ask(endpoint: Endpoint) -> str:
    client = connect(endpoint)
    try:
        request = Request(prompt=solve_prompt(QUESTION), sampling=Sampling(max_tokens=8, temperature=1.0))
        (sample,) = (await client.complete(request)).samples
        assert not sample.error
        return sample.text
    finally:
        await client.close()


def test_all_who_ask_at_once_get_one_server_and_it_goes_after_the_last_of_them(home, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "the-key-of-another-engine")
    with contextlib.ExitStack() as held, concurrent.futures.ThreadPoolExecutor(6) as pool:
        first, *others = pool.map(lambda _: held.enter_context(hold_world()), range(6))
        assert {server.url for server in others} == {first.url}
        (pid,) = keepers(home)
        assert state(home).pid == pid
        written = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
        assert not any(b"the-key-of-another-engine" in content for content in written)
        assert b"the-key-of-another-engine" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        # It belongs to nobody: no pipe of whoever started it, no terminal, no group that a signal is sent to.
        assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
        assert os.readlink(f"/proc/{pid}/fd/1") == os.readlink(f"/proc/{pid}/fd/2") == str(state_log(home))
        assert os.getsid(pid) != os.getsid(0)
    assert until(lambda: not keepers(home))
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(address(first.url), timeout=5).close()
    assert states(home) == []


def state_log(home: Path) -> Path:
    (log,) = home.glob("*/*/logs/keeper.log")
    return log


def address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").partition(":")
    return host, int(port)


@pytest.mark.slow
def test_it_lingers_so_that_the_next_one_need_not_wait(home):
    with hold_world(linger=2.0) as first:
        pid = state(home).pid
    time.sleep(0.5)  # longer than between two looks of the keeper
    with hold_world() as second:
        assert (second.url, state(home).pid) == (first.url, pid)


def test_a_keeper_that_is_killed_is_replaced_at_the_same_port_and_requests_wait_for_that(home, monkeypatch):
    monkeypatch.setattr("pipelines.engines.host_server._WATCH_SECS", 0.05)
    ((_, endpoint),) = endpoints_on_hosts({"": Simulated()}, linger_secs=LINGER)
    with reached((("", endpoint),)) as ((_, here),):
        before = asyncio.run(ask(here))
        killed = state(home).pid
        os.kill(killed, signal.SIGKILL)
        assert asyncio.run(ask(here)) == before  # the same seed, so the same sample
        assert until(lambda: states(home) != [] and state(home).is_up)
        assert state(home).pid != killed
        assert state(home).url == here.urls[0]


@pytest.mark.slow
def test_two_worlds_are_two_servers(home):
    with hold_world() as one, hold_world(slots=3) as other:
        assert one.url != other.url
        assert len(keepers(home)) == 2


def test_settings_of_the_server_tell_servers_apart_and_settings_of_its_use_do_not():
    calm = Limits(max_in_flight=2)
    assert OnHost.of(Simulated(limits=calm), LINGER) == OnHost.of(Simulated(), LINGER)
    assert OnHost.of(LlamaCpp(style="chat", limits=calm), LINGER) == OnHost.of(LlamaCpp(), LINGER)
    assert OnHost.of(LlamaCpp(slots=4), LINGER) != OnHost.of(LlamaCpp(), LINGER)
    put = {"style": "chat", "images": True, "chat_template": "/x", "api_key_env": "KEY", "limits": calm}
    assert OnHost.of(Vllm(model="a/b", **put), LINGER) == OnHost.of(Vllm(model="a/b"), LINGER)
    assert OnHost.of(Sglang(model="a/b"), LINGER) != OnHost.of(Vllm(model="a/b"), LINGER)
    assert OnHost.of(Vllm(model="a/b", context_tokens=9), LINGER) != OnHost.of(Vllm(model="a/b"), LINGER)


def failing(folder: Path, *words: str) -> Vllm:
    return Vllm(model=str(folder), program=("-S", str(FAKE)), extra_args=words, revision="v1", max_restarts=0)


def test_all_who_wait_hear_why_a_start_failed_and_whoever_comes_later_tries_again(home, folder):
    settings = failing(folder, "--die")

    def refused() -> str:
        with pytest.raises(UserError) as caught, hold(settings, "v1"):
            pass
        return str(caught.value)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        (said,) = set(pool.map(lambda _: refused(), range(4)))
    (log,) = home.glob("*/*/logs/engine.log")
    assert said == (
        "engine: the server ended with exit status 1 before it was well; it said last: RuntimeError: out of memory at "
        f"layer 7; its log is {log} (on host {socket.gethostname()})"
    )
    assert refused() == said
    # What the first start has said is not kept beside the second's.
    assert log.read_text().count("--- wrongturn starts ") == 1
    assert until(lambda: not keepers(home))


@pytest.mark.slow
def test_a_server_that_is_a_program_runs_under_its_guardian_and_goes_with_its_keeper(home, folder, tmp_path):
    family = tmp_path / "pids"
    with hold(failing(folder, f"--family={family}"), "v1"):
        assert until(family.exists)
        pids = [int(pid) for pid in family.read_text().split()]
        assert all(Path(f"/proc/{pid}").exists() for pid in pids)
    assert until(lambda: not keepers(home))
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_another_model_than_the_runs_is_refused(home, folder):
    settings = msgspec.structs.replace(failing(folder), revision="")
    with pytest.raises(UserError) as caught, hold(settings, "0123456789abcdef"):
        pass
    said = str(caught.value)
    assert said.startswith(f"engine: the model on host {socket.gethostname()} is revision ")
    assert "the machine which started the run is 0123456789abcdef" in said
    assert said.endswith("give every host the same files")


def order_of(*, num_crashes: int, began_at: float, settings: EngineSettings = WORLD) -> Order:
    """That of a keeper which has died since."""
    return Order(
        generation=uuid.uuid4().hex,
        settings=OnHost.of(settings, LINGER).read(),
        name="engine",
        linger_secs=LINGER,
        port=0,
        num_crashes=num_crashes,
        began_at=began_at,
    )


def test_a_keeper_that_dies_again_and_again_is_given_up_with_what_it_said(home):
    there = HostFolder.of(OnHost.of(Simulated(), LINGER).read())
    there.log.write_text("loading\nMemoryError: no room for the world\n")
    there.write_order(order_of(num_crashes=3, began_at=time.time()))
    with pytest.raises(UserError) as caught, hold_world():
        pass
    assert str(caught.value) == (
        "engine: the keeper of this host's server has died 4 times; it said last: MemoryError: no room for the world; "
        f"its log is {there.log} (on host {socket.gethostname()})"
    )
    # That was the end of those four, not of all that will ever be.
    with hold_world() as server:
        assert server.url


@pytest.mark.slow
@pytest.mark.parametrize(("crashes", "ago", "counted"), [(2, 0.0, 3), (3, 3600.0, 0)], ids=["at once", "long after"])
def test_a_keeper_is_replaced_and_one_that_lived_for_long_starts_a_new_row(home, crashes, ago, counted):
    there = HostFolder.of(OnHost.of(Simulated(), LINGER).read())
    there.write_order(order_of(num_crashes=crashes, began_at=time.time() - ago))
    with hold_world():
        new = there.order()
        assert new is not None
        assert new.num_crashes == counted


def test_a_forked_child_does_not_hold_its_parents_server(home):
    with hold_world():
        users = HostFolder.of(OnHost.of(Simulated(), LINGER).read()).open_users()
        read, write = os.pipe()
        child = os.fork()
        if not child:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
        assert not try_lock(users, fcntl.LOCK_EX)
    os.close(read)
    try:
        # The child lives, and the lock is to be had (but for the moments in which the keeper has it).
        assert until(lambda: try_lock(users, fcntl.LOCK_EX))
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
    finally:
        os.close(write)
        os.waitpid(child, 0)
        os.close(users)


def test_a_port_that_somebody_took_meanwhile_is_waited_for_and_then_given_up(home, monkeypatch):
    there = HostFolder.of(OnHost.of(Simulated(), LINGER).read())
    users = there.open_users()
    monkeypatch.setattr("pipelines.engines.keeper._PORT_SECS", 0.3)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        order = msgspec.structs.replace(order_of(num_crashes=1, began_at=time.time()), port=port)
        there.write_order(order)
        assert try_lock(users, fcntl.LOCK_SH)
        Keeper(there, order).run()
    os.close(users)
    said = there.state()
    assert said is not None
    assert said.error.startswith(f"engine: port {port}, where the server was that died, has been taken by another")
    assert said.error.endswith(f"; its log is {there.log}")
    assert there.order() is None  # Whoever comes next takes any port.


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("engine", "engine.model_path: no file at /no/a.gguf; "),
        ("engines.judge", "engines.judge: engine.model_path: no "),
    ],
)
def test_a_model_that_is_not_on_a_workers_host_is_named_with_its_engine(home, name, begins):
    missing = LlamaCpp(model_path="/no/a.gguf")
    there = HostFolder.of(missing)
    order = msgspec.structs.replace(order_of(num_crashes=0, began_at=time.time(), settings=missing), name=name)
    Keeper(there, order).run()
    said = there.state()
    assert said is not None
    assert said.error.startswith(begins)
    assert said.error.endswith(f"; its log is {there.log}")


def test_endpoints_for_other_hosts_are_those_of_a_run_here_but_for_their_urls(home, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    engines = {
        "": Vllm(model=folder.name, style="raw", start_timeout_secs=400, port=7),
        "judge": Simulated(),
        "far": Vllm(url="http://h:1", model="m"),
        "rule": Scripted(),
    }
    endpoints = endpoints_on_hosts(engines, linger_secs=5.0)
    assert [name for name, _ in endpoints] == ["", "judge", "far", "rule"]
    actor, judge, far, rule = (endpoint for _, endpoint in endpoints)
    assert (actor.kind, actor.model, actor.urls, actor.limits.max_wait_secs) == ("vllm", "Tiny-1B", (), 80)
    assert len(actor.revision) == 16
    assert actor.on_host is not None
    there = actor.on_host.read()
    assert isinstance(there, Vllm)
    # Workers have another working directory.
    assert (there.model, there.port, actor.on_host.linger_secs) == (str(folder), 7, 5.0)
    with serve(Simulated()) as here:
        assert msgspec.structs.replace(judge, urls=here.urls, on_host=None) == here
    assert (far.urls, far.on_host, rule.urls, rule.on_host) == (("http://h:1",), None, (), None)
    # They travel in the graph, and workers are told apart by them.
    assert hash(pickle.loads(pickle.dumps(endpoints))) == hash(endpoints)
    assert not keepers(home)


def test_what_has_urls_is_reached_as_it_is(home):
    endpoints = endpoints_on_hosts({"": Vllm(url="http://h:1", model="m"), "rule": Scripted()})
    with reached(endpoints) as here:
        assert here == endpoints
    assert list(home.iterdir()) == []


def test_a_model_that_only_workers_have_wants_a_revision_that_is_set():
    with pytest.raises(UserError) as caught:
        endpoints_on_hosts({"judge": Vllm(model="/models/Tiny-1B")})
    assert str(caught.value) == (
        "engines.judge.model: no folder at /models/Tiny-1B, and '/models/Tiny-1B' is no name at the Hub; give the "
        "folder of a model or OWNER/NAME. Workers start the model on their hosts, but every journal key names it: make "
        "it readable here, too, or say which it is with engines.judge.revision"
    )
    ((_, endpoint),) = endpoints_on_hosts({"judge": Vllm(model="/models/Tiny-1B", revision="v1")})
    assert (endpoint.model, endpoint.revision) == ("Tiny-1B", "v1")
    with pytest.raises(UserError, match=r"no file at /models/a\.gguf; .* make it readable here, too$"):
        endpoints_on_hosts({"": LlamaCpp(model_path="/models/a.gguf")})

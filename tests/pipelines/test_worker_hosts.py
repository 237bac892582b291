"""Workers whose models are their host's servers: they find them, share them, and give them back."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pipelines.engines import EngineSettings, Request, Sampling, endpoints_on_hosts
from pipelines.engines.settings import Simulated, Vllm
from pipelines.errors import UserError
from pipelines.worker import Worker, WorkerSpec
from tests.engines.host_processes import FAKE, keepers, one_host, until
from tests.engines.simulated_texts import QUESTION, solve_prompt

LINGER = 0.3


@pytest.fixture
def home(tmp_path, monkeypatch) -> Iterator[Path]:
    with one_host(tmp_path / "run", monkeypatch) as path:
        yield path


def spec_of(folder: Path, engine: EngineSettings) -> WorkerSpec:
    return WorkerSpec(
        endpoints=endpoints_on_hosts({"": engine}, LINGER),
        journal=str(folder / "journal.sqlite"),
        checker_processes=1,
        checker_cpu_secs=1.0,
        max_in_flight=2,
    )


def test_two_workers_of_a_host_ask_one_server_and_the_last_gives_it_back(home, tmp_path):
    spec = spec_of(tmp_path, Simulated())
    first, second = Worker(spec), Worker(msgspec.structs.replace(spec, max_in_flight=3))
    try:
        assert len(keepers(home)) == 1
        first.close()
        request = Request(prompt=solve_prompt(QUESTION), sampling=Sampling(max_tokens=8, temperature=1.0))
        (sample,) = second.submit(second.model.sample("ExpandTrees", request)).result()
        assert sample.text
        # What stands in rows and in journal keys is what the run knew when it was started.
        _, endpoint = spec.endpoints[0]
        assert (second.model.engine.model, second.model.engine.revision) == (endpoint.model, endpoint.revision)
    finally:
        second.close()
    assert until(lambda: not keepers(home))


def test_a_server_that_does_not_start_ends_the_worker_with_the_reason_and_leaves_nothing_of_it(home, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    words = {"program": ("-S", str(FAKE)), "extra_args": ("--die",), "revision": "v1"}
    before = set(threading.enumerate())
    with pytest.raises(UserError, match=r"^engine: the server ended with exit status 1 .* out of memory at layer 7"):
        Worker(spec_of(tmp_path, Vllm(model=str(tmp_path), **words)))
    assert set(threading.enumerate()) <= before
    began = time.monotonic()
    assert until(lambda: not keepers(home))
    assert time.monotonic() - began < 10

"""A worker that shares its run with others: what it takes from the run's start, and what it waits for."""

import asyncio
import contextlib
import threading
import time
from pathlib import Path

import msgspec
import pytest

from pipelines.budget import BudgetReached, BudgetSettings
from pipelines.engines import serve
from pipelines.engines.base import Usage
from pipelines.engines.settings import Scripted
from pipelines.journal import Journal, JournalError
from pipelines.plan import Inputs, package_version
from pipelines.runners.package import code_digest
from pipelines.site import Site, open_site
from pipelines.worker import Shared, Worker, WorkerSpec


def spec_of(out: Path, journal: str, **more) -> WorkerSpec:
    site = Site(out=str(out), config_digest="c", version=package_version(), code=code_digest(), start="now")
    open_site(site, Inputs(problems=(), unread=()), [0], 1)
    with serve(Scripted()) as endpoint:
        return WorkerSpec(
            endpoints=(("", endpoint),),
            journal=journal,
            checker_processes=1,
            checker_cpu_secs=1.0,
            max_in_flight=2,
            shared=Shared(site=site, ledger=Usage()),
            **more,
        )


def test_a_clock_that_is_ahead_uses_no_budget_up(tmp_path, monkeypatch):
    spec = spec_of(tmp_path, str(tmp_path / "journal.sqlite"), budget=BudgetSettings(max_seconds=600))
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3600)
    with contextlib.closing(Worker(spec)) as worker:
        worker.accounts.admit()
        assert worker.accounts.seconds < 600


def test_what_another_run_pays_into_the_journal_uses_no_budget_up(tmp_path):
    place = tmp_path / "journal.sqlite"
    spec = spec_of(tmp_path, str(place), run="mine", budget=BudgetSettings(max_requests=100))

    def pay(run: str, requests: int) -> None:
        with contextlib.closing(Journal(place, run=run)) as journal:
            asyncio.run(journal.put("S", {}, Usage(requests=requests)))

    pay("other", 150)
    with contextlib.closing(Worker(spec)) as worker:
        worker.accounts.admit()
    pay("mine", 100)
    with contextlib.closing(Worker(spec)) as worker, pytest.raises(BudgetReached):
        worker.accounts.admit()


@pytest.mark.redis
def test_a_worker_that_starts_while_redis_is_away_waits_for_it(start_redis, tmp_path):
    server = start_redis()
    spec = spec_of(tmp_path, server.url(), journal_patience_secs=30.0)
    server.kill()
    back = threading.Timer(1.0, server.start)
    back.start()
    try:
        Worker(spec).close()
    finally:
        back.join()


@pytest.mark.redis
def test_and_who_starts_a_run_does_not(start_redis, tmp_path):
    server = start_redis()
    spec = msgspec.structs.replace(spec_of(tmp_path, server.url(), journal_patience_secs=30.0), shared=None)
    server.kill()
    began = time.monotonic()
    with pytest.raises(JournalError, match="is not there: "):
        Worker(spec)
    assert time.monotonic() - began < 10
    server.start()

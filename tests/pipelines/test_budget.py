"""Budgets and targets: what stops a run, what stays, and that the same command goes on without paying twice."""

import asyncio
import math
import time
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest

from pipelines.budget import Accounts, BudgetReached, BudgetSettings, Price
from pipelines.config import compose
from pipelines.engines.base import EngineLost, EngineUnavailable, Reply, Request, Sample, Sampling, Usage
from pipelines.engines.journaled import JournaledEngine, Outage
from pipelines.engines.simulated import SimulatedSettings, serving
from pipelines.journal import Journal
from pipelines.main import main
from pipelines.meter import METER
from pipelines.run import Result, Watcher, run
from pipelines.shards import file_digest, read_rows
from tests.engines.ports import held_port

REQUEST = Request(prompt="12345678", prefix="90", sampling=Sampling(max_tokens=8, temperature=1.0))
RUN = [
    *("engine=simulated", "problems=simulated", "problems.num_problems=12", "runner.problems_per_shard=3"),
    *("actor=plain", "panel=blind"),
]


def run_of(out: Path, *overrides: str) -> Result:
    return run(compose([*RUN, *overrides, f"out={out}"]), Watcher())


def paid() -> int:
    return METER.read().paid.requests


def digests(out: Path) -> dict[str, str]:
    return {str(path.relative_to(out)): file_digest(path) for path in sorted(out.glob("*/*.parquet"))}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def spend(accounts: Accounts, prompt_tokens: int, completion_tokens: int, engine: str = "") -> None:
    account = accounts.of(engine)
    account.admit()
    account.back(REQUEST, Usage(requests=1, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens))


def test_no_limit_lets_everything_through():
    accounts = Accounts(BudgetSettings())
    for _ in range(1000):
        spend(accounts, 10**6, 10**6)
    assert accounts.reached == ""


def test_requests_in_flight_count_as_if_they_were_paid():
    accounts = Accounts(BudgetSettings(max_requests=2))
    account = accounts.of("")
    account.admit()
    account.admit()
    with pytest.raises(BudgetReached, match=r"^budget\.max_requests=2 is reached$"):
        account.admit()


def test_a_request_that_came_to_nothing_is_not_paid():
    accounts = Accounts(BudgetSettings(max_requests=1))
    account = accounts.of("")
    account.admit()
    account.back(REQUEST, None)
    account.admit()
    assert accounts.total == Usage()


def test_what_was_reached_stays_reached():
    accounts = Accounts(BudgetSettings(max_requests=1))
    account = accounts.of("")
    account.admit()
    with pytest.raises(BudgetReached):
        account.admit()
    account.back(REQUEST, None)
    with pytest.raises(BudgetReached):
        account.admit()


def test_tokens_are_those_of_prompts_and_completions():
    accounts = Accounts(BudgetSettings(max_tokens=100))
    spend(accounts, 60, 39)
    spend(accounts, 0, 1)
    with pytest.raises(BudgetReached, match="max_tokens=100"):
        spend(accounts, 0, 0)


def test_time_is_the_clocks():
    clock = Clock()
    accounts = Accounts(BudgetSettings(max_seconds=5), clock)
    clock.now = 104.9
    spend(accounts, 1, 1)
    clock.now = 105.0
    with pytest.raises(BudgetReached, match="max_seconds=5"):
        spend(accounts, 1, 1)


def test_one_that_is_out_may_go_on_when_the_requests_are_spent_but_not_when_the_time_is():
    clock = Clock()
    accounts = Accounts(BudgetSettings(max_requests=1, max_seconds=5), clock)
    account = accounts.of("")
    account.admit()
    account.go_on()
    with pytest.raises(BudgetReached, match="max_requests=1"):
        account.admit()
    account.go_on()
    clock.now = 104.0
    assert account.seconds_left == 1
    clock.now = 106.0
    assert account.seconds_left == 0
    with pytest.raises(BudgetReached, match="max_seconds=5"):
        account.go_on()
    assert accounts.reached == "budget.max_requests=1"


def test_one_that_is_out_does_not_go_on_when_tokens_are_spent_or_all_is_to_end():
    accounts = Accounts(BudgetSettings(max_tokens=100))
    account = accounts.of("")
    account.admit()
    spend(accounts, 60, 40)
    with pytest.raises(BudgetReached, match="max_tokens=100"):
        account.go_on()
    assert accounts.reached == "budget.max_tokens=100"
    endless = Accounts(BudgetSettings())
    assert endless.seconds_left == math.inf
    endless.of("").go_on()
    endless.close("the end of the worker")
    with pytest.raises(BudgetReached, match="the end of the worker"):
        endless.of("judge").go_on()


def test_whoever_asks_after_the_end_is_given_its_reason():
    accounts = Accounts(BudgetSettings())
    accounts.of("judge").end(OSError("gone"))
    accounts.of("judge").end(OSError("gone, too"))
    for act in (accounts.of("").admit, accounts.of("").go_on):
        with pytest.raises(OSError, match=r"^gone$"):
            act()
    assert accounts.reached == ""


def test_money_is_by_the_price_of_each_engine_for_a_million_tokens():
    prices = (Price(prompt=2.0, completion=8.0), Price(engine="judge", prompt=100.0))
    accounts = Accounts(BudgetSettings(max_cost=0.02, prices=prices))
    spend(accounts, 1000, 500)
    assert accounts.money == pytest.approx(0.002 + 0.004)
    spend(accounts, 140, 9999, engine="judge")
    assert accounts.money == pytest.approx(0.006 + 0.014)
    with pytest.raises(BudgetReached, match=r"max_cost=0\.02"):
        spend(accounts, 0, 0)
    assert accounts.spent().startswith("2 requests, 1140 prompt tokens and 10499 completion tokens, cost 0.02, in ")


class Slow:
    """An engine that answers when its gate opens."""

    kind = model = revision = identity = "m"

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.asked = 0
        self.fails = False

    def choices_at_once(self, request: Request) -> int:
        return request.num_samples

    async def complete(self, request: Request) -> Reply:
        self.asked += 1
        await self.gate.wait()
        if self.fails:
            raise EngineUnavailable("down")
        samples = (Sample(text="x", finish="stop", tokens=1),) * request.num_samples
        return Reply(samples=samples, usage=Usage(requests=1, samples=len(samples)))

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_in_flight_when_a_budget_is_reached_is_settled(tmp_path, fails):
    async def work():
        journal, model = Journal(tmp_path / "j.sqlite"), Slow()
        model.fails = fails
        engine = JournaledEngine(model, journal, METER.pay, Accounts(BudgetSettings(max_requests=3)).of(""))
        wishes = [Request(prompt=f"{i}", sampling=REQUEST.sampling) for i in range(5)]
        asked = [asyncio.create_task(engine.sample("ExpandTrees", wish)) for wish in wishes]
        await asyncio.sleep(0)
        for task in asked[:3]:  # As Beam's end leaves them: nobody waits for these any more.
            task.cancel()
        settled = asyncio.create_task(engine.settle())
        await asyncio.sleep(0.01)
        assert not settled.done()
        model.gate.set()
        await settled
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        size = journal.size()
        journal.close()
        return model.asked, size, [type(outcome) for outcome in outcomes[3:]]

    assert asyncio.run(work()) == (3, 0 if fails else 3, [BudgetReached, BudgetReached])


def test_a_lost_engine_ends_the_others_too_and_what_they_have_asked_is_kept(tmp_path):
    class Lost(Slow):
        async def complete(self, request: Request) -> Reply:
            raise EngineLost("http://judge: down", attempts=6)

    async def work():
        journal, model = Journal(tmp_path / "j.sqlite"), Slow()
        accounts = Accounts(BudgetSettings())
        actor = JournaledEngine(model, journal, METER.pay, accounts.of(""))
        judge = JournaledEngine(Lost(), journal, METER.pay, accounts.of("judge"))
        under_way = asyncio.create_task(actor.sample("ExpandTrees", REQUEST))
        await asyncio.sleep(0)
        for engine in (judge, actor):
            with pytest.raises(
                Outage, match=r"no server answers any more for m: http://judge: down\. When there is one"
            ):
                await engine.sample("WriteCritiques", msgspec.structs.replace(REQUEST, prompt="another"))
        model.gate.set()
        await actor.settle()
        assert len(await under_way) == journal.size() == model.asked == 1
        journal.close()

    asyncio.run(work())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """An undisturbed run and what it paid. Read its folder, never write to it."""
    out, before = tmp_path_factory.mktemp("whole") / "out", paid()
    run_of(out)
    return out, paid() - before


@pytest.mark.slow
def test_a_run_through_many_small_budgets_pays_nothing_twice_and_ends_with_the_same_bytes(whole, tmp_path):
    reference, needed = whole
    out, before, starts = tmp_path / "out", paid(), 0
    while True:
        result = run_of(out, "budget.max_requests=60")
        starts += 1
        if not result.budget_reached:
            break
        assert result.budget_reached == "budget.max_requests=60"
        assert result.unfinished
        assert paid() - before == 60 * starts
        assert not (out / "COMPLETED").exists()
    assert paid() - before == needed
    assert starts == needed // 60 + 1
    assert digests(out) == digests(reference)
    assert (out / "COMPLETED").exists()


def test_shards_that_were_finished_stay_and_their_books_add_up(whole, tmp_path):
    result = run_of(tmp_path / "out", f"budget.max_requests={whole[1] * 2 // 3}")
    done = [int(path.name[6:11]) for path in (tmp_path / "out" / "trees").glob("train-*.parquet")]
    assert 0 < len(done) < 4
    assert set(done) | set(result.unfinished) == set(range(4))
    assert set(done) & set(result.unfinished) == set()
    assert all(stage.balanced for stage in result.books.stages)
    assert result.books.stages[1].entered == 12 - result.num_problems_left
    assert digests(tmp_path / "out").items() <= digests(whole[0]).items()


@pytest.mark.parametrize("limit", ["max_tokens=5000", "max_seconds=0", "max_cost=0.001"])
def test_every_limit_ends_with_code_4_and_one_line(tmp_path, capsys, caplog, limit):
    prices = "budget.prices=[{prompt:1,completion:1}]"
    assert main(["run", *RUN, f"out={tmp_path / 'out'}", f"budget.{limit}", prices]) == 4
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("budget.")]
    name, value = limit.split("=")
    shown = value if name == "max_tokens" else str(float(value))
    assert line.startswith(f"budget.{name}={shown} is reached: this run paid ")
    assert "Unfinished: " in line
    assert "Traceback" not in caplog.text
    assert "the same command with a larger budget goes on from here" in line


def test_a_budget_of_nothing_is_enough_for_what_the_journal_holds(whole, tmp_path):
    before = paid()
    result = run_of(tmp_path / "out", "budget.max_requests=0", f"journal={whole[0] / '.wrongturn' / 'journal.sqlite'}")
    assert result.budget_reached == ""
    assert paid() == before
    assert digests(tmp_path / "out") == digests(whole[0])


def rows_by_shard(out: Path) -> list[int]:
    counts = [0, 0, 0, 0]
    for split in ("train", "validation"):
        for index in range(4):
            path = out / "sft" / f"{split}-{index:05d}-of-00004.parquet"
            counts[index] += pq.read_metadata(path).num_rows
    return counts


@pytest.mark.slow
def test_a_target_ends_after_the_shard_that_reaches_it_and_the_rest_can_follow(whole, tmp_path):
    counts = rows_by_shard(whole[0])
    target = counts[0] + 1
    last = next(index for index in range(4) if sum(counts[: index + 1]) >= target)
    assert 0 < last < 3
    out = tmp_path / "out"
    result = run_of(out, f"target_rows={target}")
    assert result.unfinished == tuple(range(last + 1, 4))
    assert result.has_target
    assert result.books.rows["sft"] == sum(counts[: last + 1]) == len(list(read_rows(out, "sft")))
    assert all(stage.balanced for stage in result.books.stages)
    assert (out / "COMPLETED").exists()
    before = paid()
    run_of(out, f"target_rows={target}")
    assert paid() == before
    assert run_of(out, "runner.max_in_flight=3").unfinished == ()
    assert digests(out) == digests(whole[0])


@pytest.mark.slow
def test_a_target_does_not_depend_on_what_is_in_flight(tmp_path):
    for name, in_flight in (("narrow", 1), ("wide", 64)):
        run_of(tmp_path / name, "target_rows=1", f"runner.max_in_flight={in_flight}")
    assert digests(tmp_path / "narrow") == digests(tmp_path / "wide") != {}


@pytest.mark.slow
def test_a_target_that_is_never_reached_is_a_whole_run(whole, tmp_path):
    result = run_of(tmp_path / "out", "target_rows=10000")
    assert (result.unfinished, result.has_target) == ((), False)
    assert digests(tmp_path / "out") == digests(whole[0])


@pytest.mark.parametrize(
    "override",
    ["budget.max_tokens=1", "budget.max_cost=1", "target_rows=5", "retry=failed", "dry_run=true", "dry_run_problems=3"],
)
def test_how_much_is_paid_does_not_change_the_digest(override):
    priced = [*RUN, "budget.prices=[{prompt:1}]"]
    assert compose([*priced, override]).config_digest() == compose(RUN).config_digest()


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("budget.max_requests=-1", "budget: max_requests must not be below 0 (null is no limit), got -1"),
        ("budget.prices=[{prompt:-1}]", "budget.prices[0]: prompt must not be below 0, got -1.0"),
        ("budget.prices=[{},{}]", "budget: prices need one entry an engine, got ['', '']"),
        (
            "budget.prices=[{engine:judge}]",
            "budget.prices has a price for the engine 'judge', expected one of ''",
        ),
        (
            "budget.max_cost=1",
            "budget.max_cost needs a price for every engine (''), got none for ''; give "
            "budget.prices=[{engine:NAME,prompt:PRICE,completion:PRICE}], for a million tokens",
        ),
        ("target_rows=0", "target_rows must be at least 1 (null is no target), got 0"),
        ("dry_run_problems=1", "dry_run_problems must be at least 2 to tell an uncertainty, got 1"),
        ("retry=all", "retry: Invalid enum value 'all', expected one of failed, unfinished"),
    ],
)
def test_a_bad_budget_is_one_line(override, says):
    with pytest.raises(ValueError, match=r".") as caught:
        compose([*RUN, override])
    assert str(caught.value) == says


def test_a_budget_that_is_reached_while_a_bundle_still_takes_elements_ends_well_too(tmp_path):
    before = paid()
    result = run_of(tmp_path / "out", "runner.max_in_flight=1", "budget.max_requests=20")
    assert (result.budget_reached, paid() - before) == ("budget.max_requests=20", 20)
    assert list((tmp_path / "out").glob("*/*.parquet")) == []


def served(url: str, out: Path, *more: str) -> list[str]:
    limits = ["engine.limits.max_wait_secs=30", "engine.limits.read_timeout_secs=60"]
    return ["run", *RUN[1:], "engine=vllm", "engine.model=simulated", f"engine.url={url}", *limits, f"out={out}", *more]


@pytest.fixture
def unvetted(monkeypatch) -> None:
    """What is asked before a run has limits of its own."""
    monkeypatch.setattr("pipelines.run.check_servers", lambda *_: None)


@pytest.mark.parametrize(
    "faults",
    [
        {"fault_503": 1.0},
        {"fault_429": 1.0, "retry_after_seconds": 60.0},
        {"fault_500": 1.0},
        {"fault_hang": 1.0, "hang_seconds": 4.0},
    ],
    ids=["503", "429", "500", "hang"],
)
def test_time_ends_a_run_whose_server_has_only_trouble_and_says_so(tmp_path, capsys, unvetted, faults):
    with serving(SimulatedSettings(**faults)) as url:
        began = time.monotonic()
        assert main(served(url, tmp_path / "out", "budget.max_seconds=2")) == 4
    assert time.monotonic() - began < 25  # Pauses alone would take a minute.
    assert "budget.max_seconds=2.0 is reached: this run paid 0 requests" in capsys.readouterr().out
    assert list((tmp_path / "out").glob("failures/*.parquet")) == []


@pytest.mark.slow
@pytest.mark.parametrize("command", [[], ["dry_run=true"]], ids=["run", "dry run"])
def test_a_server_that_stays_away_ends_a_run_with_one_line_and_the_same_command_goes_on(
    tmp_path, capsys, unvetted, command
):
    quick = ["problems.num_problems=3", "engine.limits.max_wait_secs=0.1", *command]
    with held_port() as (_, url):
        assert main(served(url, tmp_path / "out", *quick)) == 3
    said = capsys.readouterr()
    (line,) = [line for line in said.err.splitlines() if line.startswith("wrongturn: ")]
    assert line.startswith(f"wrongturn: no server answers any more for simulated: {url}: ClientConnectorError: ")
    assert line.endswith("the same command goes on from here: what was answered is in the journal")
    assert "needs" not in said.out
    assert list((tmp_path / "out").glob("*/*.parquet")) == []
    with serving(SimulatedSettings()) as url:
        assert main(served(url, tmp_path / "out", *quick)) == 0


@pytest.mark.slow
def test_an_engine_that_stays_away_among_several_ends_the_run_and_nothing_is_paid_twice(tmp_path, unvetted):
    small = ["problems.num_problems=3", "search=quick", "verify=quick", "panel.agents=[{name: one, engine: judge}]"]

    def paid_by(url: str, judge: str, out: str, code: int) -> int:
        engine = ["kind=vllm", "model=simulated", f"url={judge}", "limits.max_attempts=2", "limits.max_wait_secs=0.1"]
        named = [f"+engines.judge.{setting}" for setting in engine]
        before = paid()
        assert main(served(url, tmp_path / out, *small, *named)) == code
        return paid() - before

    with serving(SimulatedSettings()) as url:
        with held_port() as (_, dead):
            first = paid_by(url, dead, "out", 3)
        assert first > 0
        assert first + paid_by(url, url, "out", 0) == paid_by(url, url, "alone", 0)
    assert digests(tmp_path / "out") == digests(tmp_path / "alone") != {}

"""CallModels and the stages around it on Beam's own local runner, with handlers made for the test."""

import asyncio
import functools
import threading
import time
from pathlib import Path

import apache_beam as beam
import msgspec
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.test_pipeline import TestPipeline as _TestPipeline
from apache_beam.testing.util import assert_that

from mcts.first_error import ChangePoint
from mcts.pairing import PairSettings
from pipelines.coders import register_coders
from pipelines.config import compose
from pipelines.engines import serve
from pipelines.engines.base import BadReply, EngineUnavailable, Request, Sampling
from pipelines.engines.settings import Scripted
from pipelines.expand_trees import ExpandTrees
from pipelines.pair_paths import PairPaths
from pipelines.plan import Inputs, make_plan
from pipelines.stage import FAILED, REJECTED, CallModels, failure
from pipelines.worker import WorkerSpec, acquire, holding, release
from pipelines.write_critiques import WriteCritiques
from schemas import Failure, Posed, Problem, Rejection, Tree

STAGE = "ExpandTrees"


def problem(number: int) -> Problem:
    return Problem(id=f"p{number}", source="s", domain="math", question=f"What is {number} + 1?", answer="1")


def rejection(key: str) -> Rejection:
    return Rejection(stage=STAGE, key=key, problem_id=key, reason="unfit")


class Watch:
    """What handlers of one test did; they run in this process."""

    def __init__(self) -> None:
        self.inside = self.peak = 0
        self.order: list[str] = []
        self.threads: set[str] = set()
        self.seen: dict[str, list] = {"kept": [], REJECTED: [], FAILED: []}


WATCH = Watch()


@pytest.fixture(autouse=True)
def fresh_watch():
    vars(WATCH).update(vars(Watch()))


@pytest.fixture
def spec(tmp_path: Path):
    register_coders()
    with serve(Scripted()) as endpoint:
        yield WorkerSpec(
            endpoints=(("", endpoint),),
            journal=str(tmp_path / "journal.sqlite"),
            checker_processes=1,
            checker_cpu_secs=1.0,
            max_in_flight=4,
        )


def keep(name: str, records: list) -> None:
    WATCH.seen[name] = list(records)


def run_stage(spec: WorkerSpec, handler, elements: list[Problem]) -> dict[str, list]:
    """Everything that came out of a stage, by output."""
    with holding(spec), _TestPipeline(runner=FnApiRunner()) as pipeline:
        stage = CallModels(STAGE, spec, handler, identify)
        out = (
            pipeline
            | beam.Create(elements).with_output_types(Problem)
            | beam.ParDo(stage).with_outputs(REJECTED, FAILED, main="kept")
        )
        for name in ("kept", REJECTED, FAILED):
            assert_that(out[name], functools.partial(keep, name), label=name)
    return WATCH.seen


def identify(element: Problem) -> tuple[str, str]:
    return f"key/{element.id}", element.id


async def sort_out(worker, element: Problem):
    """Multiples of three are rejected, what leaves one is an outage, the rest is kept."""
    await asyncio.sleep(0.001 * (hash(element.id) % 5))
    number = int(element.id[1:])
    if number % 3 == 0:
        return [rejection(element.id)]
    if number % 3 == 1:
        raise EngineUnavailable("down", request_digest="d1", attempts=6)
    return [element]


def test_every_element_ends_in_exactly_one_output(spec):
    seen = run_stage(spec, sort_out, [problem(i) for i in range(30)])
    assert sorted(each.id for each in seen["kept"]) == sorted(f"p{i}" for i in range(2, 30, 3))
    assert sorted(each.key for each in seen[REJECTED]) == sorted(f"p{i}" for i in range(0, 30, 3))
    assert sorted(each.problem_id for each in seen[FAILED]) == sorted(f"p{i}" for i in range(1, 30, 3))


def test_an_outage_becomes_a_dead_letter_that_says_what_and_how_often(spec):
    seen = run_stage(spec, sort_out, [problem(1)])
    assert seen[FAILED] == [
        Failure(
            stage=STAGE,
            key="key/p1",
            problem_id="p1",
            request_digest="d1",
            error="EngineUnavailable",
            detail="down",
            attempts=6,
        )
    ]
    assert seen["kept"] == seen[REJECTED] == []


async def several(worker, element: Problem):
    return [element, rejection(f"{element.id}/a"), failure(STAGE, f"{element.id}/b", element.id, BadReply("cut"))]


def test_one_element_may_give_records_of_every_kind(spec):
    seen = run_stage(spec, several, [problem(0), problem(1)])
    assert {name: len(records) for name, records in seen.items()} == {"kept": 2, REJECTED: 2, FAILED: 2}
    assert {each.error for each in seen[FAILED]} == {"BadReply"}


async def nothing(worker, element: Problem):
    return []


def test_no_elements_and_no_records_are_fine(spec):
    assert run_stage(spec, sort_out, []) == {"kept": [], REJECTED: [], FAILED: []}
    assert run_stage(spec, nothing, [problem(0)]) == {"kept": [], REJECTED: [], FAILED: []}


async def broken(worker, element: Problem):
    await asyncio.sleep(0)
    if element.id == "p3":
        raise ZeroDivisionError("our own bug")
    return [element]


def test_any_other_exception_fails_the_run(spec):
    with pytest.raises(ZeroDivisionError, match="our own bug"):
        run_stage(spec, broken, [problem(i) for i in range(8)])


async def watched(worker, element: Problem):
    WATCH.threads.add(threading.current_thread().name)
    WATCH.inside += 1
    WATCH.peak = max(WATCH.peak, WATCH.inside)
    await asyncio.sleep(0.003)
    WATCH.inside -= 1
    return [element]


def test_at_most_max_in_flight_elements_are_in_hand_and_that_many_are(spec):
    seen = run_stage(spec, watched, [problem(i) for i in range(40)])
    assert len(seen["kept"]) == 40
    assert WATCH.peak == spec.max_in_flight == 4
    assert WATCH.threads == {"worker-loop"}


async def backwards(worker, element: Problem):
    """Later elements end earlier."""
    await asyncio.sleep(0.002 * (40 - int(element.id[1:])))
    WATCH.order.append(element.id)
    return [element, rejection(element.id)]


def test_elements_come_once_each_in_whatever_order_they_end(spec):
    many = msgspec.structs.replace(spec, max_in_flight=40)
    seen = run_stage(many, backwards, [problem(i) for i in range(40)])
    assert WATCH.order != sorted(WATCH.order, key=lambda each: int(each[1:]))
    assert sorted(each.id for each in seen["kept"]) == sorted(f"p{i}" for i in range(40))
    assert sorted(each.key for each in seen[REJECTED]) == sorted(f"p{i}" for i in range(40))


@pytest.fixture
def bundle(spec):
    """A stage as Beam drives it, three elements at a time; those named in `held` end when their event is set."""
    held: dict[str, threading.Event] = {}

    async def handler(worker, element: Problem):
        if element.id in held:
            await asyncio.to_thread(held[element.id].wait, 10)
        return [element]

    stage = CallModels(STAGE, msgspec.structs.replace(spec, max_in_flight=3), handler, identify)
    stage.setup()
    stage.start_bundle()
    yield stage, held
    stage.teardown()


def ids(outputs) -> list[str]:
    return [each.id for each in outputs]


def values(outputs) -> list[str]:
    return [each.value.id for each in outputs]


def test_what_has_ended_comes_out_while_others_are_in_hand(bundle):
    stage, held = bundle
    held |= {"p0": threading.Event(), "p1": threading.Event()}
    assert [ids(stage.process(problem(i))) for i in range(2)] == [[], []]
    # With each of these three are in hand, so that it waits for one to end, which can only be itself.
    assert [ids(stage.process(problem(i))) for i in range(2, 5)] == [["p2"], ["p3"], ["p4"]]
    held["p1"].set()
    held["p0"].set()
    assert sorted(values(stage.finish_bundle())) == ["p0", "p1"]
    assert values(stage.finish_bundle()) == []


def test_what_has_ended_comes_out_without_waiting_for_a_full_hand(bundle):
    stage, held = bundle
    held |= {"p0": threading.Event(), "p1": threading.Event()}
    assert ids(stage.process(problem(0))) == []
    held["p0"].set()
    while stage._done.empty():
        time.sleep(0.001)
    assert ids(stage.process(problem(1))) == ["p0"]
    held["p1"].set()
    assert values(stage.finish_bundle()) == ["p1"]


def test_what_a_bundle_left_in_flight_does_not_come_out_of_the_next(bundle):
    stage, held = bundle
    held["p0"] = threading.Event()
    assert ids(stage.process(problem(0))) == []
    stage.start_bundle()  # The runner gave the first bundle up.
    held["p1"] = threading.Event()
    assert ids(stage.process(problem(1))) == []
    held["p0"].set()
    held["p1"].set()
    assert values(stage.finish_bundle()) == ["p1"]
    assert values(stage.finish_bundle()) == []


async def in_order(sign: int, worker, element: Problem):
    number = int(element.id[1:])
    await asyncio.sleep(0.002 * (sign * number % 4))
    WATCH.order.append(element.id)
    request = Request(prompt="Problem:\nWhat is 1 + 2?\n\nSolution:\n", sampling=SAMPLING, seed=number)
    (sample,) = await worker.model.sample(STAGE, request)
    return [Rejection(stage=STAGE, key=element.id, problem_id=element.id, reason="r", detail=sample.text)]


SAMPLING = Sampling(max_tokens=32, temperature=1.0)


def test_results_are_the_same_whatever_the_order_of_completion(spec, tmp_path):
    elements = [problem(i) for i in range(12)]
    outcomes, orders = [], []
    for name, sign in (("a", 1), ("b", -1)):
        fresh_journal = msgspec.structs.replace(spec, journal=str(tmp_path / f"{name}.sqlite"))
        WATCH.order.clear()
        seen = run_stage(fresh_journal, functools.partial(in_order, sign), elements)
        outcomes.append(sorted(seen[REJECTED], key=lambda each: each.key))
        orders.append(list(WATCH.order))
    assert orders[0] != orders[1]
    assert outcomes[0] == outcomes[1]
    assert len(outcomes[0]) == 12
    assert all(each.detail for each in outcomes[0])


def test_all_stages_of_a_process_share_one_worker(spec):
    first, second = acquire(spec), acquire(spec)
    assert first is second
    release(spec)
    assert first.journal.size() == 0  # Somebody still holds it.
    release(spec)
    third = acquire(spec)
    assert third is not first
    release(spec)


def test_a_closed_worker_cancels_what_is_in_flight(spec):
    async def endless():
        await asyncio.sleep(3600)

    with holding(spec) as worker:
        future = worker.submit(endless())
    assert future.cancelled()


@pytest.fixture(scope="module")
def plan():
    settings = compose(["engine=scripted", "problems=simulated"])
    return make_plan(settings, Inputs(problems=(problem(0),), unread=()))


def test_pairing_problems_instead_of_trees_is_caught_when_the_graph_is_built(spec):
    pipeline = beam.Pipeline(runner=FnApiRunner())
    problems = pipeline | beam.Create([problem(0)]).with_output_types(Problem)
    with pytest.raises(beam.typehints.decorators.TypeCheckError, match=r"expected .*Tree.*, got .*Problem"):
        problems | PairPaths(PairSettings(), ChangePoint())


def test_growing_trees_from_trees_is_caught_when_the_graph_is_built(spec, plan):
    pipeline = beam.Pipeline(runner=FnApiRunner())
    trees = pipeline | beam.Create([]).with_output_types(Tree)
    settings = plan.settings
    with pytest.raises(beam.typehints.decorators.TypeCheckError, match=r"expected .*Posed.*, got .*Tree"):
        trees | ExpandTrees(spec, settings.actor, settings.search, settings.pairing, plan.solve, 0)


def test_criticising_trees_is_caught_when_the_graph_is_built(spec, plan):
    pipeline = beam.Pipeline(runner=FnApiRunner())
    trees = pipeline | beam.Create([]).with_output_types(Tree)
    with pytest.raises(beam.typehints.decorators.TypeCheckError, match=r"got .*Tree"):
        trees | WriteCritiques(spec, plan.settings.panel, plan.critics, plan.stop, 0)


def test_outputs_of_a_stage_bear_their_types(spec, plan):
    pipeline = beam.Pipeline(runner=FnApiRunner())
    settings = plan.settings
    problems = pipeline | beam.Create([Posed(problem=problem(0))]).with_output_types(Posed)
    grown = problems | ExpandTrees(spec, settings.actor, settings.search, settings.pairing, plan.solve, 0)
    assert grown.kept.element_type is Tree
    assert grown.rejected.element_type is Rejection
    assert grown.failed.element_type is Failure


def test_a_stage_wired_to_another_stages_output_is_checked_too(spec, plan):
    pipeline = beam.Pipeline(runner=FnApiRunner())
    settings = plan.settings
    problems = pipeline | beam.Create([Posed(problem=problem(0))]).with_output_types(Posed)
    grown = problems | ExpandTrees(spec, settings.actor, settings.search, settings.pairing, plan.solve, 0)
    with pytest.raises(beam.typehints.decorators.TypeCheckError, match=r"got .*Tree"):
        grown.kept | WriteCritiques(spec, settings.panel, plan.critics, plan.stop, 0)
    paired = grown.kept | PairPaths(settings.pairing, settings.search.change_point)
    assert paired.rejected.element_type is Rejection
    paired.kept | "Rightly" >> WriteCritiques(spec, settings.panel, plan.critics, plan.stop, 0)


async def answers(worker, element: Problem):
    """The wall between the worker's loop and Beam's thread is crossed by every record."""
    check = await worker.checkers.check("Answer: 1", element)
    return [element] if check.outcome == "correct" else []


def test_a_handler_has_the_workers_checkers(spec):
    assert run_stage(spec, answers, [problem(0)])["kept"] == [problem(0)]

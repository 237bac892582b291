"""Problems that the actor has memorised: what is asked, what is left out, and that nothing is where nobody asks."""

import asyncio
import re
import types
from pathlib import Path

import pytest

from pipelines.config import compose
from pipelines.engines.base import EngineUnavailable, PromptRefused, Request, Sample
from pipelines.engines.simulated import SimulatedSettings, make_problem
from pipelines.engines.simulated.certainty import is_memorised
from pipelines.journal import Journal
from pipelines.main import main
from pipelines.manifest import read_books
from pipelines.problems.hygiene import ContaminationSettings
from pipelines.settings import ActorSettings
from pipelines.shards import read_rows
from pipelines.sift_problems import SiftProblems
from schemas import Posed, Problem, Rejection, Template

NUM_PROBLEMS, SHARE = 50, 0.3
RUN = (
    *("run", "engine=simulated", "problems=simulated", f"problems.num_problems={NUM_PROBLEMS}", "actor=plain"),
    *("panel=blind", f"engine.world.memorised={SHARE}", "runner.checker_processes=1", "search=quick"),
)
MEMORISED = {
    problem.id
    for problem in (make_problem(0, i, SimulatedSettings(min_steps=3, max_steps=6)) for i in range(NUM_PROBLEMS))
    if is_memorised(problem.question, SimulatedSettings(memorised=SHARE))
}
PROBLEM = Problem(id="p1", source="s", domain="math", question="What is 2 + 2?", answer="4")


def asked_by(out: Path) -> dict[str, int]:
    """Requests by stage."""
    journal = Journal(out / ".wrongturn" / "journal.sqlite")
    try:
        return {stage: usage.requests for stage, usage in journal.ledger().items()}
    finally:
        journal.close()


def trees_of(out: Path) -> list[dict]:
    return sorted(read_rows(out, "trees"), key=lambda row: row["id"])


@pytest.fixture(scope="module")
def sifted(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("sifted") / "out"
    assert main([*RUN, "hygiene.contamination.threshold=0.8", f"out={out}"]) == 0
    return out


def test_memorised_problems_are_left_out_and_no_others(sifted):
    left_out = [row for row in read_rows(sifted, "rejections") if row["stage"] == "SiftProblems"]
    assert {row["key"] for row in left_out} == MEMORISED
    assert {row["reason"] for row in left_out} == {"memorised"}
    assert all(
        re.fullmatch(r"likeness of the entropies .* [01]\.\d{3}, from 0.8 on left out", row["detail"])
        for row in left_out
    )
    assert {row["problem"]["id"] for row in trees_of(sifted)}.isdisjoint(MEMORISED)


def test_the_funnel_adds_up_with_them(sifted):
    books = read_books(sifted)
    assert all(stage.balanced for stage in books.stages)
    by_name = {stage.stage: stage for stage in books.stages}
    left = NUM_PROBLEMS - len(MEMORISED)
    assert [stage.stage for stage in books.stages][:3] == ["ReadProblems", "SiftProblems", "ExpandTrees"]
    assert (by_name["SiftProblems"].entered, by_name["SiftProblems"].kept) == (NUM_PROBLEMS, left)
    assert (by_name["ExpandTrees"].entered, by_name["ExpandTrees"].kept) == (left, left)
    assert asked_by(sifted)["SiftProblems"] == 2 * NUM_PROBLEMS


def test_off_asks_nothing_of_it_and_all_else_alike(tmp_path):
    few = "problems.num_problems=12"
    assert main([*RUN, few, f"out={tmp_path / 'off'}"]) == 0
    assert main([*RUN, few, "hygiene.contamination.threshold=1", f"out={tmp_path / 'on'}"]) == 0
    off, on = asked_by(tmp_path / "off"), asked_by(tmp_path / "on")
    assert on.pop("SiftProblems") == 24
    assert on == off
    assert trees_of(tmp_path / "on") == trees_of(tmp_path / "off") != []
    assert "SiftProblems" not in {stage.stage for stage in read_books(tmp_path / "off").stages}


def test_off_is_no_part_of_a_runs_digest():
    plain = compose(["problems=simulated", "engine=simulated"])
    other, on = (
        compose(["problems=simulated", "engine=simulated", f"hygiene.contamination.{word}"])
        for word in ("max_tokens=9", "threshold=0.5")
    )
    assert plain.config_digest() == other.config_digest() != on.config_digest()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("engine=scripted",), "the actor's engine (kind scripted) gives no log probabilities; take engine=llama_cpp"),
        (("engine=openai", "engine.url=http://127.0.0.1:9", "engine.model=m"), "(kind openai) gives no log"),
        (("hygiene.contamination.template=none",), "hygiene.contamination.template: no prompt template 'none'"),
        (("hygiene.contamination.threshold=1.5",), "threshold must lie in 0..1 (null is off), got 1.5"),
        (("hygiene.contamination.top_logprobs=0",), "top_logprobs must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_is_one_line_before_any_work(tmp_path, capsys, words, complaint):
    out = tmp_path / "out"
    run = ("run", "engine=simulated", "problems=simulated", "hygiene.contamination.threshold=0.8")
    assert main([*run, *words, f"out={out}"]) == 2
    assert complaint in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


# One problem, with an actor whose every sample is known.


class Actor:
    """Gives these samples one after another, and remembers what it was asked."""

    def __init__(self, *samples: Sample | Exception) -> None:
        self.samples = list(samples)
        self.asked: list[Request] = []

    async def sample(self, stage: str, request: Request) -> tuple[Sample, ...]:
        assert stage == "SiftProblems"
        self.asked.append(request)
        sample = self.samples.pop(0)
        if isinstance(sample, Exception):
            raise sample
        return (sample,)


def said(text: str, *entropies: float, error: str = "") -> Sample:
    return Sample(text=text, finish="stop", tokens=len(entropies), entropies=entropies, error=error)


def sift(actor: Actor, threshold: float = 0.9):
    stage = SiftProblems(
        spec=None,
        actor=ActorSettings(stop=("END",)),
        contamination=ContaminationSettings(threshold=threshold, max_tokens=100),
        solve=Template(name="solve", text="Solve {problem}\n"),
        again=Template(name="again", text="Again.\n{sections}\n"),
        seed=3,
    )
    (record,) = asyncio.run(stage._sift(types.SimpleNamespace(model=actor), Posed(problem=PROBLEM)))
    return record


def test_the_actor_is_asked_greedily_and_then_shown_its_first_way():
    actor = Actor(said("Step 1: 2 + 2 = 4\nAnswer: 4", 1.0, 0.0), said("Answer: 4", 0.0, 1.0))
    assert sift(actor) == Posed(problem=PROBLEM)
    first, second = actor.asked
    assert first.prompt == "Solve What is 2 + 2?\n"
    assert second.prompt == ("Again.\nProblem:\nWhat is 2 + 2?\n\nSolution:\nStep 1: 2 + 2 = 4\nAnswer: 4\n")
    assert [request.sampling.temperature for request in actor.asked] == [0, 0]
    assert [request.sampling.max_tokens for request in actor.asked] == [100, 200]
    assert {(request.sampling.stop, request.top_logprobs, request.seed) for request in actor.asked} == {
        (("END",), 20, 3)
    }


@pytest.mark.parametrize(("threshold", "is_left_out"), [(0.8, True), (0.81, False)])
def test_the_threshold_itself_is_left_out(threshold, is_left_out):
    # The cosine of these is 4/5.
    found = sift(Actor(said("a b", 3.0, 4.0), said("a b", 0.0, 1.0)), threshold)
    assert isinstance(found, Rejection) == is_left_out
    if is_left_out:
        assert (found.stage, found.key, found.reason) == ("SiftProblems", "p1", "memorised")


@pytest.mark.parametrize("second", [said(""), said("a", 0.0), said("", error="too long")])
def test_what_nobody_can_tell_is_kept(second):
    assert sift(Actor(said("a b", 1.0, 2.0), second), threshold=0.0) == Posed(problem=PROBLEM)


def test_a_problem_that_the_server_refuses_is_a_failure_and_so_is_an_outage():
    with pytest.raises(PromptRefused, match="too long"):
        sift(Actor(said("", error="too long")))
    with pytest.raises(EngineUnavailable):
        sift(Actor(said("a", 1.0), EngineUnavailable("gone", attempts=3)))

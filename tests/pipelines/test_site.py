"""What workers of one run find in its folder, and what they say where they do not."""

from pathlib import Path

import pytest

from pipelines.plan import Inputs, package_version
from pipelines.runners.package import code_digest
from pipelines.shards import shard_of
from pipelines.site import (
    Site,
    SiteError,
    close_site,
    enter_site,
    open_site,
    read_reports,
    read_site,
    report,
    this_host,
)
from schemas import Problem, Rejection, Solution

NUM_SHARDS = 3


def problem(name: str) -> Problem:
    return Problem(id=name, source="test", domain="math", question=f"What is {name}?", answer="1")


PROBLEMS = tuple(problem(f"p{i}") for i in range(20))
UNREAD = tuple(
    Rejection(stage="ReadProblems", key=f"r{i}", problem_id=f"r{i}", reason="not_a_problem", detail="")
    for i in range(5)
)


def site(out: Path, **changes: str) -> Site:
    mine = {"config_digest": "abc", "version": package_version(), "code": code_digest(), "start": "first"}
    return Site(**{"out": str(out), **mine, **changes})


@pytest.fixture
def out(tmp_path: Path) -> Path:
    open_site(site(tmp_path), Inputs(problems=PROBLEMS, unread=UNREAD), range(NUM_SHARDS), NUM_SHARDS)
    return tmp_path


def test_each_shard_s_inputs_are_those_that_belong_to_it(out):
    parts = [read_site(str(out), index) for index in range(NUM_SHARDS)]
    assert sorted(item.id for part in parts for item in part.problems) == sorted(item.id for item in PROBLEMS)
    assert sorted(item.key for part in parts for item in part.unread) == sorted(item.key for item in UNREAD)
    for index, part in enumerate(parts):
        assert all(shard_of(item.id, NUM_SHARDS) == index for item in part.problems)


def test_solutions_travel_with_their_problems(tmp_path):
    solution = Solution(id="f:1", where="f line 1", steps=("Answer: 1",), first_error=-1, author="m")
    inputs = Inputs(problems=PROBLEMS, unread=(), solutions={"p3": (solution,), "p4": (solution, solution)})
    open_site(site(tmp_path), inputs, range(NUM_SHARDS), NUM_SHARDS)
    parts = [read_site(str(tmp_path), index).solutions for index in range(NUM_SHARDS)]
    assert {name: found for part in parts for name, found in part.items()} == inputs.solutions
    assert [set(part) <= {item.id for item in PROBLEMS if shard_of(item.id, NUM_SHARDS) == i}
            for i, part in enumerate(parts)] == [True] * NUM_SHARDS  # fmt: skip


def test_a_worker_that_sees_the_run_signs_in(out):
    enter_site(site(out))
    (reported,) = read_reports(site(out)).values()
    assert not reported
    report(site(out), {"ExpandTrees/kept": 4})
    (reported,) = read_reports(site(out)).values()
    assert reported == {"ExpandTrees/kept": 4}


def test_a_new_start_forgets_the_workers_of_the_one_before(out):
    enter_site(site(out))
    open_site(site(out), Inputs(problems=PROBLEMS, unread=()), [0], NUM_SHARDS)
    assert read_reports(site(out)) == {}
    with pytest.raises(SiteError, match="the problems of shard 1 are not there"):
        read_site(str(out), 1)


def test_nor_does_it_hear_those_that_go_on(out):
    again = site(out, start="second")
    open_site(again, Inputs(problems=PROBLEMS, unread=()), [0], NUM_SHARDS)
    report(site(out), {"ExpandTrees/kept": 4})
    assert read_reports(again) == {}
    report(again, {"ExpandTrees/kept": 1})
    (reported,) = read_reports(again).values()
    assert reported == {"ExpandTrees/kept": 1}


def test_of_a_whole_run_nothing_is_left(out):
    enter_site(site(out))
    close_site(str(out))
    assert list((out / ".wrongturn" / "inputs").iterdir()) == []
    close_site(str(out / "elsewhere"))  # Where there was nothing, there is nothing to take away.


def test_a_worker_without_the_disk_says_so(tmp_path):
    with pytest.raises(SiteError, match=r"does not see the run in .*; give out=DIR on a disk that all workers have"):
        enter_site(site(tmp_path / "elsewhere"))
    with pytest.raises(SiteError, match="does not see the run"):
        read_site(str(tmp_path / "elsewhere"), 0)


def test_a_worker_that_sees_another_run_says_so(out):
    with pytest.raises(SiteError, match="it holds a run with config abc, this one has xyz"):
        enter_site(site(out, config_digest="xyz"))


def test_a_worker_with_other_code_says_so(out):
    with pytest.raises(SiteError, match=r"has wrongturn .*, and the run was started by 0\.0\.1"):
        enter_site(site(out, version="0.0.1"))


def test_other_code_of_the_same_version_is_other_code(out):
    with pytest.raises(SiteError, match=rf"\(code {code_digest()[:12]}\), and the run was started by .* \(code 0123"):
        enter_site(site(out, code="0123456789abcdef"))


def test_a_journal_that_is_a_file_keeps_workers_on_its_machine(out):
    enter_site(site(out, host=this_host()))
    with pytest.raises(SiteError, match=r"^journal: the worker on .* is on another machine .*; give journal=redis://"):
        enter_site(site(out, host="4f1c"))


def test_damage_is_told_from_absence(out):
    (out / ".wrongturn" / "inputs" / "00000.msgpack").write_bytes(b"\xc1")
    (out / ".wrongturn" / "inputs" / "run.json").write_bytes(b"{")
    with pytest.raises(SiteError, match="the problems of shard 0 are damaged"):
        read_site(str(out), 0)
    with pytest.raises(SiteError, match=r"run\.json is damaged"):
        enter_site(site(out))


def test_a_damaged_report_is_no_report(out):
    enter_site(site(out))
    (reported,) = (out / ".wrongturn" / "inputs").glob("*.worker")
    reported.write_bytes(b"{")
    assert read_reports(site(out)) == {}

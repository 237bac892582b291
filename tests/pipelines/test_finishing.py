"""Which shards a start of a run calls finished, where servers refuse what it asks."""

from pathlib import Path

import pytest
from made_records import make

from pipelines.engines.base import Usage
from pipelines.finishing import Finisher
from pipelines.meter import METER
from pipelines.output import Output
from pipelines.shards import all_shards, write_shard
from schemas import Failure

STAGE = "WriteCritiques"


class Run:
    """A start over two shards, whose requests are told to the meter and the ledger as an engine does."""

    def __init__(self, folder: Path) -> None:
        self.output = Output(str(folder / "out"))
        self.ledger = {STAGE: Usage(requests=9, samples=9)}  # Of an earlier start.
        self.finisher = Finisher(self.output, 2, lambda: dict(self.ledger))

    def refused(self, stage: str = STAGE) -> None:
        METER.refuse(stage, "no")
        self.ledger[stage] = self.ledger.get(stage, Usage()) + Usage(requests=1)

    def answered(self, stage: str = STAGE) -> None:
        self.ledger[stage] = self.ledger.get(stage, Usage()) + Usage(requests=1, samples=2)

    def fill(self, index: int, *, failed: bool = False) -> None:
        for shard in all_shards([index], 2):
            is_there = failed and (shard.config, shard.split) == ("failures", "train")
            write_shard(self.output.path, shard, [("f", make(Failure))] if is_there else [])
        self.finisher.finish(index)


@pytest.fixture
def a_run(tmp_path):
    made = Run(tmp_path)
    with made.output.claimed("1" * 32, replace=False):
        yield made


def test_shards_are_not_finished_where_all_that_a_stage_asked_was_refused(a_run):
    a_run.answered("ExpandTrees")
    a_run.refused()
    a_run.fill(0)
    a_run.fill(1)
    assert a_run.finisher.close() == (STAGE,)
    assert a_run.output.unfinished(2) == (0, 1)


def test_prompts_that_are_refused_among_others_leave_shards_finished(a_run):
    a_run.refused()
    a_run.answered()
    a_run.fill(0)
    a_run.fill(1)
    assert a_run.finisher.close() == ()
    assert a_run.output.unfinished(2) == ()


def test_what_came_from_the_journal_is_an_answer(a_run):
    a_run.refused()
    METER.pay(STAGE, Usage(), replayed=1)
    a_run.fill(0)
    assert a_run.finisher.close() == ()
    assert a_run.output.unfinished(2) == (1,)


def test_a_shard_waits_for_the_first_answer_that_its_stage_gets(a_run):
    a_run.refused()
    a_run.fill(0)
    assert a_run.output.unfinished(2) == (0, 1)  # Whoever is killed now has it filled again.
    a_run.answered()
    a_run.fill(1)
    assert a_run.output.unfinished(2) == (0,)
    assert a_run.finisher.close() == ()
    assert a_run.output.unfinished(2) == ()


def test_a_shard_with_failures_is_unfinished_whatever_was_answered(a_run):
    a_run.refused()
    a_run.fill(0, failed=True)
    a_run.answered()
    a_run.fill(1)
    assert a_run.finisher.close() == ()
    assert a_run.output.unfinished(2) == (0,)

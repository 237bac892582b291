"""Sources of paths from the command line: what is refused before start, and whole runs on the simulated world."""

import datasets
import pytest

from pipelines.config import compose
from pipelines.errors import UserError
from pipelines.main import main


def test_the_source_named_by_nobody_is_the_search_and_leaves_the_digest_alone():
    assert compose([]).config_digest() == compose(["paths=search"]).config_digest()
    assert compose([]).config_digest() != compose(["paths=samples"]).config_digest()


def test_samples_that_the_budget_cannot_pay_for_are_refused():
    with pytest.raises(UserError, match=r"search\.max_rollouts=16 does not even pay for paths\.num_samples=17"):
        compose(["paths=samples", "paths.num_samples=17", "search.max_rollouts=16"])
    compose(["paths=samples", "paths.num_samples=16", "search.max_rollouts=16"])


def test_settings_of_one_source_are_not_there_in_another():
    with pytest.raises(UserError, match="num_samples"):
        compose(["paths=search", "paths.num_samples=4"])


@pytest.mark.slow
@pytest.mark.parametrize("locate", ["change_point", "completions"])
def test_a_run_on_samples_gives_shards_that_load(tmp_path, locate):
    out, cache = tmp_path / "out", tmp_path / "cache"
    run = ["run", "problems=simulated", "engine=simulated", "problems.num_problems=4", "paths=samples"]
    assert main([*run, f"paths.locate={locate}", f"out={out}"]) == 0
    trees = datasets.load_dataset(str(out), "trees", split="train", cache_dir=str(cache))
    assert len(trees) == 4
    assert set(trees["stopped"]) <= {"samples", "budget", "nothing_scored"}

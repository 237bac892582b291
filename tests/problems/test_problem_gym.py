"""Problems of reasoning-gym: the same whatever the process and their number, and scorable from metadata alone."""

import importlib
import json
import os
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from pipelines.problems import GymProblems, ProblemError, check_problems, gym_entries, read_problems
from schemas import Problem, Rejection


def read(dataset: str, num_problems: int = 3, **settings: Any) -> list[Problem]:
    elements = list(read_problems(GymProblems(dataset=dataset, num_problems=num_problems, **settings)))
    assert all(isinstance(element, Problem) for element in elements), elements
    return [element for element in elements if isinstance(element, Problem)]


def message(dataset: str, **settings: Any) -> str:
    with pytest.raises(ProblemError) as caught:
        check_problems(GymProblems(dataset=dataset, **settings))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def score(problem: Problem, answer: str) -> float:
    """What reasoning-gym's own scorer says, given the metadata and nothing else."""
    said = json.loads(problem.metadata)
    factory = importlib.import_module("reasoning_gym.factory")
    importlib.import_module("reasoning_gym")
    return float(factory.create_dataset(said["dataset"], **said["config"]).score_answer(answer, said["entry"]))


def test_chain_sum_and_prefix_stability() -> None:
    config: dict[str, Any] = {"min_terms": 3, "max_terms": 3, "min_digits": 1, "max_digits": 1}
    settings = {"dataset": "chain_sum", "dataset_config": config}
    few = read(num_problems=4, **settings)
    many = read(num_problems=9, **settings)
    assert few == many[:4]
    assert len({p.id for p in many}) == 9
    assert len({p.id.rpartition("-")[2] for p in many}) == 1
    assert [p.id.rpartition("-")[0] for p in few] == [f"chain_sum-0-{i}" for i in range(4)]
    assert {(p.source, p.domain) for p in many} == {("reasoning_gym/chain_sum", "reasoning_gym")}
    assert all(score(p, p.answer) == 1 and score(p, "x") < 1 for p in many)
    other = read(num_problems=1, dataset="chain_sum", dataset_config=config | {"max_terms": 4})
    assert other[0].id != few[0].id


def test_seed_and_config_change_the_problems_and_their_ids() -> None:
    first, second = read("leg_counting", 2), read("leg_counting", 2, seed=2)
    assert not {p.id for p in first} & {p.id for p in second}
    assert not {p.question for p in first} & {p.question for p in second}
    assert score(first[0], first[0].answer) == 1


def test_the_hash_seed_of_the_process_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """word_ladder iterates over sets of words: in this very process its problems would follow PYTHONHASHSEED."""
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    few = read("word_ladder", 2)
    monkeypatch.setenv("PYTHONHASHSEED", "2")
    assert read("word_ladder", 3)[:2] == few


def test_the_number_of_problems_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """acre's entries depend on the dataset's size, which is therefore held fixed."""
    monkeypatch.setattr(gym_entries, "MIN_SIZE", 50)
    few, many = (gym_entries.make_dataset("acre", count, 0, {}) for count in (2, 50))
    assert [few[i] for i in range(2)] == [many[i] for i in range(2)]


@pytest.mark.parametrize("dataset", ["graph_color", "propositional_logic", "rubiks_cube", "power_function", "tsumego"])
def test_gold_answers_and_configs_unlike_most(dataset: str) -> None:
    line = gym_entries.describe(gym_entries.make_dataset(dataset, 1, 0, {}), dataset, 0)
    assert isinstance(line["gold"], str)
    assert line["score"] == 1


def test_unknown_dataset() -> None:
    assert message("chain_sums") == (
        "problems.dataset: reasoning-gym has no dataset 'chain_sums'; near names: chain_sum, decimal_chain_sum"
    )


@pytest.mark.parametrize(
    ("dataset", "config", "expected"),
    [
        (
            "leg_counting",
            {"min_animal": 2},
            "problems.dataset_config.min_animal: 'leg_counting' has no such key, only max_animals, max_instances, "
            "min_animals, min_instances",
        ),
        ("leg_counting", {"seed": 2}, "problems.dataset_config.seed: set problems.seed instead"),
        ("leg_counting", {"size": 2}, "problems.dataset_config.size: set problems.num_problems instead"),
        (
            "leg_counting",
            {"min_animals": 0},
            "problems.dataset_config: 'leg_counting' refuses {\"min_animals\": 0}: min_animals must be positive",
        ),
        (
            "leg_counting",
            {"min_animals": "two"},
            "problems.dataset_config: 'leg_counting' refuses {\"min_animals\": \"two\"}: '>' not supported between "
            "instances of 'str' and 'int'",
        ),
        (
            "composite",
            {},
            "problems.dataset: 'composite' mixes datasets and has no problems of its own; name one of its parts",
        ),
    ],
)
def test_config_that_cannot_work(dataset: str, config: dict[str, Any], expected: str) -> None:
    with pytest.raises(gym_entries.Refused) as caught:
        gym_entries.make_dataset(dataset, 1, 0, config)
    assert str(caught.value) == expected


def test_a_refusal_of_the_program_is_the_error() -> None:
    assert message("leg_counting", dataset_config={"min_animals": 0}) == (
        "problems.dataset_config: 'leg_counting' refuses {\"min_animals\": 0}: min_animals must be positive"
    )


def test_number_of_problems() -> None:
    assert message("chain_sum", num_problems=0) == "problems.num_problems: need a number >= 1, got 0"


def test_a_dataset_without_gold_answers_is_no_source() -> None:
    (element,) = read_problems(GymProblems(dataset="rush_hour", num_problems=1))
    assert isinstance(element, Rejection)
    assert (element.reason, element.detail) == (
        "null_answer",
        "reasoning_gym/rush_hour entry 0: reasoning-gym names no right answer, expected one",
    )
    assert message("rush_hour", num_problems=2) == (
        "problems.dataset: rush_hour holds no usable row among 2 (2 null_answer); first: " + element.detail
    )


def test_a_dataset_that_cannot_be_scored_from_json_is_no_source() -> None:
    assert message("rearc", num_problems=2) == (
        "problems.dataset: rearc holds no usable row among 2 (2 gold_not_scorable); first: reasoning_gym/rearc "
        "entry 0: its scorer gives its own answer 0.05 once the entry is JSON, expected 1"
    )


def test_leaving_early_ends_the_program() -> None:
    elements = read_problems(GymProblems(dataset="chain_sum", num_problems=1_000_000))
    assert len(list(islice(elements, 2))) == 2
    children = _children()
    assert children
    del elements
    assert not _children() & children


def _children() -> set[str]:
    tasks = Path(f"/proc/{os.getpid()}/task")
    return {pid for task in tasks.iterdir() for pid in (task / "children").read_text().split()}

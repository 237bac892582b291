"""`wrongturn evaluate` on a run's own split in the simulated world: figures come out as the world is set."""

import json
from pathlib import Path

import pytest

from pipelines.main import main
from pipelines.shards import all_shards, write_shard
from tests.annotators.annotated import alone, pair, problem

QUESTION = "Start with 17. Add 5. Multiply by 3. Subtract 4. What is the result?"
GOLD = "62"
RIGHT = ("Step 1: 17 + 5 = 22\n", "Step 2: 22 * 3 = 66\n", "Step 3: 66 - 4 = 62\n", "Answer: 62")
WRONG = (
    ("Step 1: 17 + 5 = 23\n", "Step 2: 23 * 3 = 69\n", "Step 3: 69 - 4 = 65\n", "Answer: 65"),
    ("Step 1: 17 + 5 = 22\n", "Step 2: 22 * 3 = 68\n", "Step 3: 68 - 4 = 64\n", "Answer: 64"),
    ("Step 1: 17 + 5 = 22\n", "Step 2: 22 * 3 = 66\n", "Step 3: 66 - 4 = 61\n", "Answer: 61"),
)
WORLD = ("engine=simulated", "engine.world.error_low=0", "engine.world.error_high=0", "engine.world.follow=1")


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """Tables of a run with three wrong solutions, each with another first wrong step, and one right one."""
    folder = tmp_path_factory.mktemp("run")
    pairs = [
        pair(problem(QUESTION, GOLD, f"q{i}"), name=f"pair{i}", wrong=wrong, right=RIGHT, first_error=i)
        for i, wrong in enumerate(WRONG)
    ]
    rows = {"pairs": [(each.id, each) for each in pairs]}
    rows["alone"] = [("alone1", alone(problem(QUESTION, GOLD, "q9"), steps=RIGHT))]
    for shard in all_shards([0], 1):
        write_shard(folder, shard, rows.get(shard.config, []) if shard.split == "validation" else [])
    return folder


def figures(out: Path, folder: Path, *words: str) -> dict[str, float | None]:
    assert main(["evaluate", str(out), *WORLD, *words, f"out={folder}"]) == 0
    (file,) = json.loads((folder / "evaluation.json").read_text())["files"]
    assert file["num_evaluated"] == 4
    return {name: figure["value"] for name, figure in file["figures"].items()}


def test_a_critic_that_is_always_right_and_an_actor_that_follows_it(out, tmp_path):
    found = figures(out, tmp_path / "right", "engine.world.critic_accuracy=1", "--samples", "2")
    assert found == {
        "solved": None, "verdict": 1, "verdict_on_wrong": 1, "verdict_on_right": 1, "verdict_f1": 1,
        "exact": 1, "within_1": 1, "on_correct": 1, "f1": 1, "f1_unread_missed": 1,
        "correct_to_incorrect": 0, "incorrect_to_correct": 1, "incorrect_to_correct_unleaked": 1,
        "before": 0.25, "after": 1, "delta": 0.75, "leaks": 0,
    }  # fmt: skip


def test_a_critic_that_gives_every_answer_away(out, tmp_path):
    found = figures(out, tmp_path / "leaks", "engine.world.critic_accuracy=1", "engine.world.leak_rate=1")
    # It does so where it names an error; of a right solution the answer is no news.
    assert found["leaks"] == 0.75
    assert (found["incorrect_to_correct"], found["incorrect_to_correct_unleaked"]) == (1, None)


def test_a_liar_never_names_the_place(out, tmp_path):
    found = figures(out, tmp_path / "lies", "+engine.world.liars.blind_stepwise=1.0", "--no-refine")
    assert (found["exact"], found["on_correct"], found["f1"]) == (0, 0, 0)
    assert found["after"] is None


def test_a_contrastive_critic_is_asked_about_pairs_alone(out, tmp_path):
    words = ("--critic", "contrastive", "engine.world.critic_accuracy=1", "--no-refine")
    found = figures(out, tmp_path / "contrast", *words)
    assert (found["exact"], found["on_correct"]) == (1, None)
    written = json.loads((tmp_path / "contrast" / "evaluation.json").read_text())
    assert written["files"][0]["unread"] == {"no_other_solution": 1}
    assert written["view"] == "contrastive"


def test_what_cannot_be_read_is_unscored(out, tmp_path):
    found = figures(out, tmp_path / "broken", "engine.world.critic_malformed_rate=1")
    assert set(found.values()) == {None, 0.0}
    assert [name for name, value in found.items() if value is not None] == ["f1_unread_missed"]

"""A model that thinks makes the data that one makes which does not: thoughts are counted, and no row teaches them."""

import json
from pathlib import Path

import pytest

from pipelines.engines.simulated import serving
from pipelines.engines.simulated.settings import SimulatedSettings
from pipelines.main import main
from pipelines.shards import read_rows

SMALL = ["actor=plain", "panel=blind", "problems=simulated", "problems.num_problems=3"]
SMALL += ["search=quick", "pairing=quick", "verify=quick", "seed=3"]
ROOM = "engine.thinking.extra_tokens=60"
SAID = {
    "sft": ("prompt", "completion"),
    "critique_dpo": ("prompt", "chosen", "rejected"),
    "step_dpo": ("prompt", "chosen", "rejected"),
    "prm": ("prompt", "completions", "labels", "estimates"),
    "refine": ("problem", "first_answer", "critique", "second_answer"),
    "rl": ("prompt", "label"),
}
"""What trainers read, by table."""


def taught(out: Path) -> dict[str, list[str]]:
    """Everything that trainers are shown, without where it comes from."""
    rows = {
        table: [{name: row[name] for name in names} for row in read_rows(out, table)] for table, names in SAID.items()
    }
    return {table: sorted(json.dumps(row, sort_keys=True) for row in each) for table, each in rows.items()}


def thought(out: Path) -> int:
    stages = json.loads((out / "run.json").read_text())["paid"]
    return sum(usage["reasoning_tokens"] for usage in stages.values())


@pytest.fixture(scope="module")
def thoughtless(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("thoughtless") / "out"
    assert main(["run", *SMALL, "engine=simulated", f"out={out}"]) == 0
    assert thought(out) == 0
    assert any(taught(out).values())
    return out


@pytest.mark.parametrize("keep", [False, True], ids=["dropped", "kept"])
def test_marked_thoughts_change_nothing_that_is_taught(thoughtless, tmp_path, keep):
    out = tmp_path / "out"
    words = ["engine=simulated", "engine.world.thoughts=marked", ROOM, f"engine.thinking.keep={keep}"]
    assert main(["run", *SMALL, *words, f"out={out}"]) == 0
    assert taught(out) == taught(thoughtless)
    assert thought(out) > 0
    kept = [node["reasoning"] for tree in read_rows(out, "trees") for node in tree["nodes"] if node["reasoning"]]
    kept += [row["reasoning"] for row in read_rows(out, "critiques") if row["reasoning"]]
    assert bool(kept) == keep
    assert all(text.startswith("Step 1: is it ") and text.endswith("No, from the beginning.") for text in kept)


def test_thoughts_that_the_server_tells_apart_change_nothing_either(tmp_path):
    made = {}
    for thoughts in ("none", "told"):
        out = tmp_path / thoughts
        with serving(SimulatedSettings(thoughts=thoughts)) as url:
            words = ["engine=openai", f"engine.url={url}", "engine.model=simulated", ROOM]
            assert main(["run", *SMALL, *words, f"out={out}"]) == 0
        made[thoughts] = taught(out)
        assert (thought(out) > 0) == (thoughts == "told")
    assert made["told"] == made["none"]


def test_without_room_for_thoughts_the_run_says_what_to_do(tmp_path, capsys):
    words = ["engine=simulated", "engine.world.thoughts=marked", "actor.max_tokens=12"]
    main(["run", *SMALL, *words, f"out={tmp_path / 'out'}"])
    printed = capsys.readouterr().out
    assert "samples ended in the midst of their thoughts, without an answer" in printed
    assert "engine.thinking.extra_tokens" in printed

"""The recipes that are made of the loop, whole runs to loadable shards."""

import functools
import io
import json
from collections import Counter
from pathlib import Path

import datasets
import pytest
from rich.console import Console

from annotators.dialogue import why_unhelped
from annotators.leaks import leaked_words
from pipelines.config import compose
from pipelines.engines.simulated.world import first_wrong_step
from pipelines.manifest import read_books
from pipelines.recipes import recipes
from pipelines.run import Watcher, run
from pipelines.settings import Settings
from pipelines.shards import file_digest, read_rows
from pipelines.show import show
from schemas import Dialogue
from schemas.arrow import from_row
from tests.pipelines import scripted_dialogues as scripted

RECIPES = ("interactive", "feedback_friction", "critique_grpo", "rltf", "conv_code", "dress")
WORLD = (
    "problems=simulated", "problems.num_problems=8", "engine=simulated", "actor=plain", "panel=blind", "verify=quick",
    "paths.num_samples=4",
    # Hard problems, for those who begin where no sample is right, and givers that err and tell the answer.
    "engine.world.error_high=0.7", "engine.world.critic_accuracy=0.7", "engine.world.leak_rate=0.4",
)  # fmt: skip


@functools.cache
def settings_of(recipe: str) -> Settings:
    return compose([f"recipe={recipe}"])


def dialogues_of(out: Path) -> list[Dialogue]:
    return [from_row(row, Dialogue) for row in read_rows(out, "dialogues")]


def test_what_defines_each_recipe_stands_in_its_settings():
    loops = {name: settings_of(name).loop for name in RECIPES}
    friction, grpo, rltf, code = (loops[name] for name in ("feedback_friction", "critique_grpo", "rltf", "conv_code"))
    assert (loops["interactive"].giver, loops["interactive"].sees) == ("teacher", "gold")
    assert set(loops["interactive"].rows) == {"refine_chat", "agreeing_feedback"}
    assert (friction.max_rounds, friction.sees, friction.mask, friction.exclude_tried) == (10, "solution", True, True)
    assert friction.temperature_step > 0
    assert (grpo.starts, grpo.max_rounds, grpo.sees) == ("hopeless", 1, "nothing")
    assert (rltf.max_rounds, rltf.stop_when_right, set(rltf.rows)) == (1, False, {"refine", "distill", "feedback"})
    assert len(code.combinations) == 9
    assert loops["dress"].giver == "aspects"
    assert set(RECIPES) <= {recipe.name for recipe in recipes()}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "conv_code"])
def test_a_recipe_runs_to_shards_that_load(tmp_path, recipe):
    out = tmp_path / "out"
    result = run(compose([f"recipe={recipe}", *WORLD, f"out={out}"]), Watcher())
    assert result.is_success
    assert all(stage.balanced for stage in read_books(out).stages)
    held = dialogues_of(out)
    assert held
    (tables,) = (each.writes for each in recipes() if each.name == recipe)
    for table in tables:
        rows = datasets.load_dataset(str(out), table, split="train", cache_dir=str(tmp_path / "cache"))
        assert len(rows) == read_books(out).rows_by_split[f"{table}/train"] > 0
    _check_feedback(held)


def _check_feedback(held: list[Dialogue]) -> None:
    """No feedback tells the answer, beyond what the actor had anyway; every attempt has its feedback but the last."""
    for dialogue in held:
        assert [turn.feedback is None for turn in dialogue.turns] == [False] * (len(dialogue.turns) - 1) + [True]
        known = dialogue.problem.question
        for turn in dialogue.turns:
            known += "\n" + turn.attempt.text
            if turn.feedback:
                assert leaked_words(turn.feedback.text, [dialogue.problem.answer], known) == ""


@pytest.mark.slow
def test_figures_by_round_agree_with_the_truth_of_the_world(tmp_path):
    out = tmp_path / "out"
    run(compose(["recipe=feedback_friction", *WORLD, "problems.num_problems=24", f"out={out}"]), Watcher())
    seen: Counter[tuple[str | None, str | None]] = Counter()
    masked = 0
    for dialogue in dialogues_of(out):
        for turn, following in zip(dialogue.turns, dialogue.attempts[1:], strict=False):
            truth = first_wrong_step(dialogue.problem.question, turn.attempt.steps)
            seen[why_unhelped(turn, following), why_unhelped(turn, following, truth)] += 1
            masked += bool(turn.feedback and turn.feedback.masked)
            # In this world a solution is right if and only if no step of it is wrong.
            assert (truth is None) == (turn.attempt.outcome == "correct")
    # What the texts call wrong feedback is wrong; what is wrong beyond that they cannot see.
    assert {truth for told, truth in seen if told == "wrong_feedback"} == {"wrong_feedback"}
    assert {told for told, truth in seen if truth in ("not_followed", "too_hard")} <= {"not_followed", "too_hard"}
    assert masked > 0
    text = io.StringIO()
    show(Console(file=text, width=140), str(out))
    assert "Dialogues by round" in text.getvalue()


@pytest.mark.slow
def test_programs_under_nine_combinations(tmp_path):
    """A run that is repeated from its journal writes the same bytes: what tests say is part of a prompt."""
    problems = tmp_path / "problems.jsonl"
    asked = [f"Write add(a, b), which gives the sum of two numbers. This is task {i}." for i in range(3)]
    problems.write_text("".join(json.dumps({"question": text, "answer": scripted.TESTS}) + "\n" for text in asked))
    overrides = [
        "recipe=conv_code", "problems=file", f"problems.path={problems}", "problems.domain=code", "engine=scripted",
        f"engine.rule={scripted.__name__}:coder", "panel=blind", "verify=quick", "loop.max_rounds=2",
        "paths.num_samples=4", f"journal={tmp_path / 'journal'}",
    ]  # fmt: skip
    digests = []
    for name in ("one", "two"):
        out = tmp_path / name
        run(compose([*overrides, f"out={out}"]), Watcher())
        assert all(stage.balanced for stage in read_books(out).stages)
        digests.append({path.name: file_digest(path) for path in sorted(out.glob("dialogues/*.parquet"))})
    assert digests[0] == digests[1]
    held = dialogues_of(tmp_path / "one")
    assert len(held) == 27
    assert {(each.execution, each.verbal) for each in held} == {
        (execution, verbal) for execution in ("none", "partial", "full") for verbal in ("none", "novice", "expert")
    }
    chats = datasets.load_dataset(str(tmp_path / "one"), "refine_chat", cache_dir=str(tmp_path / "cache"))
    solved_later = [each for each in held if each.ended == "solved" and len(each.turns) > 1]
    assert sum(len(split) for split in chats.values()) == len(solved_later) > 0


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.timeout(900)
def test_the_default_model_holds_dialogues(tmp_path):
    out = tmp_path / "out"
    few = ["problems.num_problems=2", "paths=samples", "pairing=none", "search.max_located=0", "loop.starts=any"]
    result = run(compose(["loop=critic_sums", *few, "loop.max_rounds=1", f"out={out}"]), Watcher())
    assert result.is_success
    assert all(stage.balanced for stage in read_books(out).stages)
    assert dialogues_of(out)

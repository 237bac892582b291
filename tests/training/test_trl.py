"""Every table goes into its trainer as it is: the blocks of docs/training.md are run, one optimisation step each."""

import math
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs the training libraries: pip install 'wrongturn[train]'")

import datasets
import torch
import trl
from packaging.version import Version
from transformers import AutoModelForCausalLM, AutoTokenizer

# The libraries' own deprecations are none of ours.
pytestmark = [pytest.mark.trl, pytest.mark.filterwarnings("ignore")]

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
BLOCKS = {
    name: block
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for name in re.findall(r'load_dataset\("out", "(\w+)"\)', block)
}
ONE_STEP = {
    "max_steps": 1,
    "per_device_train_batch_size": 2,
    "use_cpu": True,
    "save_strategy": "no",
    "report_to": [],
    "disable_tqdm": True,
    "logging_steps": 1,
}
SHORT = {"num_generations": 2, "max_completion_length": 16}


class Paid:
    """A reward that tells completions apart, which a model without sense does not; remembers what it was given."""

    __name__ = "paid"

    def __init__(self) -> None:
        self.columns: dict[str, Any] = {}

    def __call__(self, completions: list[Any], **columns: Any) -> list[float]:
        self.columns = columns | {"completions": completions}
        return [float(i) for i in range(len(completions))]


def run_block(
    table: str, out: Path, model: str, folder: Path, paid: Paid | None = None, changes: dict[str, str] | None = None
) -> dict[str, Any]:
    """Runs a block of the page on the run's folder and the tiny model, for one step.

    Nothing else of it is changed but what the page tells to change.
    """
    code = BLOCKS[table].replace('"out"', repr(str(out)))
    for old, new in (changes or {}).items():
        assert old in code
        code = code.replace(old, new)
    code = code.replace("Config(", "Config(**ONE_STEP, ").replace("reward_funcs=[", "reward_funcs=[paid, ")
    step = ONE_STEP | {"output_dir": str(folder)} | (SHORT if table == "rl" else {})
    names: dict[str, Any] = {"MODEL": model, "ONE_STEP": step, "paid": paid}
    exec(compile(code, f"{PAGE}: {table}", "exec"), names)
    return names


def check_step(trainer: Any) -> list[float]:
    """The one step was made: its loss is finite, and the weights moved. Returns the losses that were logged."""
    assert trainer.state.global_step == 1
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 1
    assert math.isfinite(losses[0])
    (norm,) = (entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry)
    assert 0 < norm < math.inf
    return losses


def tokenizer_of(trainer: Any) -> Any:
    return trainer.processing_class


def test_the_page_has_a_block_for_every_table_that_trainers_take():
    taken = {"sft", "critique_dpo", "step_dpo", "dpo", "prm", "rl", "judge", "refine", "refine_chat", "distill"}
    assert BLOCKS.keys() == taken


@pytest.mark.parametrize(
    ("table", "template"), [("sft", "own"), ("refine_chat", "strict"), ("judge", "own"), ("distill", "strict")]
)
def test_sft_takes_the_loss_on_the_completion_alone(table, template, out, models, tmp_path):
    names = run_block(table, out, models[template], tmp_path)
    trainer = names["trainer"]
    (loss,) = check_step(trainer)
    # A random model spreads its bets evenly over the vocabulary.
    assert loss == pytest.approx(math.log(trainer.model.config.vocab_size), rel=0.05)
    for row, prepared in zip(names["rows"]["train"], trainer.train_dataset, strict=True):
        (labels,) = trainer.data_collator([prepared])["labels"].tolist()
        learned = [label for label in labels if label >= 0]
        assert tokenizer_of(trainer).decode(learned) == row["completion"][0]["content"] + "<|im_end|>\n"


@pytest.mark.parametrize(("table", "template"), [("critique_dpo", "strict"), ("step_dpo", "own"), ("dpo", "strict")])
def test_dpo_compares_one_answer_with_the_other(table, template, out, models, tmp_path):
    names = run_block(table, out, models[template], tmp_path)
    trainer = names["trainer"]
    (loss,) = check_step(trainer)
    # Before the first step the model is its own reference: -log sigmoid(0).
    assert loss == pytest.approx(math.log(2), abs=1e-3)
    for row, prepared in zip(names["rows"]["train"], trainer.train_dataset, strict=True):
        decode = tokenizer_of(trainer).decode
        assert decode(prepared["prompt_ids"]).endswith(
            row["prompt"][0]["content"] + "<|im_end|>\n<|im_start|>assistant\n"
        )
        for side in ("chosen", "rejected"):
            assert decode(prepared[f"{side}_ids"]) == row[side][0]["content"] + "<|im_end|>\n"


def test_the_tasks_of_dialogues_are_taken_together_or_one_alone(out, models, tmp_path):
    both = datasets.load_dataset(str(out), "distill")["train"]
    assert {row["task"] for row in both} == {"solve", "feedback"}
    load = f'datasets.load_dataset({str(out)!r}, "distill")'
    names = run_block(
        "distill",
        out,
        models["own"],
        tmp_path,
        changes={load: f'{load}.filter(lambda row: row["task"] == "solve")'},
    )
    check_step(names["trainer"])
    assert 0 < len(names["trainer"].train_dataset) < len(both)
    for row in names["rows"]["train"]:
        assert (row["outcome_before"], row["outcome_after"]) == ("incorrect", "correct")


def test_the_feedback_of_a_scope_stands_in_no_prompt_and_both_sides_of_it_are_rows(out):
    rows = datasets.load_dataset(str(out), "dpo", split="train")
    assert {row["scope"] == "in" for row in rows} == {True, False}
    assert not [row for row in rows if row["feedback"] in row["prompt"][0]["content"]]
    assert not [row for row in rows if (row["chosen_outcome"], row["rejected_outcome"]) == ("incorrect", "correct")]


def test_the_shared_steps_cancel_in_the_loss_of_step_pairs(out, models):
    """The margin of the whole answers is that of the branches, given the prefix: what docs/training.md says."""
    tokenizer = AutoTokenizer.from_pretrained(models["own"])
    model = AutoModelForCausalLM.from_pretrained(models["own"]).eval()

    def log_probs(before: list[int], answer: list[int]) -> list[float]:
        with torch.no_grad():
            logits = model(torch.tensor([before + answer])).logits[0].double().log_softmax(-1)
        return [logits[len(before) + i - 1, token].item() for i, token in enumerate(answer)]

    row = next(row for row in datasets.load_dataset(str(out), "step_dpo", split="train") if row["prefix"])
    before = tokenizer("Solve.\n")["input_ids"]
    prefix = tokenizer(row["prefix"])["input_ids"]
    branches = [
        tokenizer(row[side][0]["content"].removeprefix(row["prefix"]))["input_ids"] for side in ("chosen", "rejected")
    ]
    whole = [sum(log_probs(before, prefix + branch)) for branch in branches]
    given = [sum(log_probs(before + prefix, branch)) for branch in branches]
    assert whole[0] - whole[1] == pytest.approx(given[0] - given[1], abs=1e-4)
    assert whole[0] != pytest.approx(given[0], abs=1)


def test_grpo_hands_the_rewards_what_they_need(out, models, tmp_path):
    paid = Paid()
    names = run_block("rl", out, models["strict"], tmp_path, paid)
    trainer = names["trainer"]
    check_step(trainer)
    assert [completion[-1]["role"] for completion in paid.columns["completions"]] == ["assistant", "assistant"]
    (row,) = (row for row in names["rows"]["train"] if row["id"] == paid.columns["id"][0])
    for name in set(row) - {"prompt", "completion"}:  # TRL has names of its own for these.
        assert paid.columns[name] == [row[name]] * 2
    assert {"rewards/verdict_reward/mean", "rewards/location_reward/mean"} <= trainer.state.log_history[0].keys()
    assert {row["task"] for row in names["rows"]["train"]} == {"criticise", "solve"}


def test_grpo_hands_the_label_of_a_judgement_to_its_reward(out, models, tmp_path):
    paid = Paid()
    changes = {
        '"rl"': '"judge"',
        "location_reward, verdict_reward\n": "judgement_reward\n",
        "verdict_reward, location_reward]": "judgement_reward]",
    }
    names = run_block("rl", out, models["own"], tmp_path, paid, changes)
    trainer = names["trainer"]
    check_step(trainer)
    (row,) = (row for row in names["rows"]["train"] if row["id"] == paid.columns["id"][0])
    for name in ("label", "kind", "group"):
        assert paid.columns[name] == [row[name]] * 2
    # What a random model writes is no judgement.
    assert trainer.state.log_history[0]["rewards/judgement_reward/mean"] == 0


def test_grpo_takes_a_row_that_a_reward_is_not_for(out, models, tmp_path):
    """A batch of bare problems: the rewards of critiques are None throughout, and another one decides."""
    paid = Paid()
    only = f'rows = datasets.load_dataset({str(out)!r}, "rl").filter(lambda row: row["task"] == "solve")'
    changes = {f'rows = datasets.load_dataset({str(out)!r}, "rl")': only}
    names = run_block("rl", out, models["own"], tmp_path, paid, changes)
    check_step(names["trainer"])
    assert paid.columns["task"] == ["solve"] * 2
    assert paid.columns["answer"][0]


@pytest.mark.skipif(
    Version(trl.__version__) >= Version("1.14"), reason=f"TRL {trl.__version__} has no PRMTrainer; 1.13 has"
)
def test_a_process_reward_model_has_one_label_at_the_end_of_each_step(out, models, tmp_path):
    names = run_block("prm", out, models["own"], tmp_path)
    trainer = names["trainer"]
    (loss,) = check_step(trainer)
    assert loss == pytest.approx(math.log(2), abs=0.3)
    for row, prepared in zip(names["rows"]["train"], trainer.train_dataset, strict=True):
        assert [bool(label) for label in prepared["labels"] if label >= 0] == row["labels"]
        text = tokenizer_of(trainer).decode(prepared["input_ids"], skip_special_tokens=True)
        assert text == row["prompt"] + "\n".join(row["completions"]) + "\n"


def test_good_refinements_are_those_of_kept_critiques(out, models, tmp_path):
    names = run_block("refine", out, models["own"], tmp_path)
    assert 0 < len(names["good"]) < len(names["rows"])
    chats = datasets.load_dataset(str(out), "refine_chat", split="train")
    assert sorted(row["second_answer"] for row in names["good"]) == sorted(
        row["completion"][0]["content"] for row in chats
    )

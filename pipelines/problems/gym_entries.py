"""Makes reasoning-gym's entries. A program of its own: `gym.py` starts it and reads its lines.

Five datasets of reasoning-gym 0.1.25 (word_ladder, ransom_note, isomorphic_strings, polynomial_multiplication,
knight_swap) iterate over sets of strings, so their problems change from one Python process to the next whatever the
seed. Only a process started with PYTHONHASHSEED fixed makes the same ones again; hence a process. Some datasets also
print while they work, which here disturbs nobody.

Input: one JSON argument {dataset, num_problems, seed, dataset_config}. Output: JSON lines, {"refused": message} or one
{"entry", "gold", "score", "error"} a problem. Imports nothing of wrongturn, so that it runs from wherever it lies.
"""

import dataclasses
import difflib
import importlib
import json
import os
import sys
from typing import Any

MIN_SIZE = 10_000
"""Datasets are made at least this large: acre's entries depend on the size, and a longer run must extend a shorter."""

EXAMPLES = {
    "graph_color": "possible_answer",
    "propositional_logic": "example_answer",
    "rubiks_cube": "example_correct_answer",
}
"""Datasets with many right answers and none named as the answer: where their entries keep one."""


class Refused(Exception):
    """The settings cannot work; the message goes to the user as it is."""


def make_dataset(name: str, num_problems: int, seed: int, config: dict[str, Any]) -> Any:
    """Makes the dataset after looking at every setting.

    Raises:
      Refused: one line, naming the setting and the remedy.
    """
    try:
        registry = importlib.import_module("reasoning_gym.factory").DATASETS
        importlib.import_module("reasoning_gym")
    except ImportError as error:
        raise Refused(f"problems.kind=reasoning_gym needs reasoning-gym ({error}); pip install reasoning-gym") from None
    if name not in registry:
        near = difflib.get_close_matches(name, registry, n=3) or sorted(registry)
        raise Refused(f"problems.dataset: reasoning-gym has no dataset {name!r}; near names: {', '.join(near)}")
    if name == "composite":
        raise Refused(
            "problems.dataset: 'composite' mixes datasets and has no problems of its own; name one of its parts"
        )
    dataset_class, config_class = registry[name]
    keys = sorted({field.name for field in dataclasses.fields(config_class)} - {"seed", "size"})
    for key in config:
        if key in ("seed", "size"):
            own = {"seed": "problems.seed", "size": "problems.num_problems"}[key]
            raise Refused(f"problems.dataset_config.{key}: set {own} instead")
        if key not in keys:
            raise Refused(f"problems.dataset_config.{key}: {name!r} has no such key, only {', '.join(keys)}")
    try:
        settings = config_class(**config, seed=seed, size=max(MIN_SIZE, num_problems))
        if hasattr(settings, "validate"):
            settings.validate()
        return dataset_class(settings)
    except Exception as error:  # noqa: BLE001 - datasets complain with whatever they like; the user's value is what they look at.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Refused(f"problems.dataset_config: {name!r} refuses {json.dumps(config)}: {reason}") from None


def describe(dataset: Any, name: str, index: int) -> dict[str, Any]:
    """Entry `index` with its gold answer, and what the scorer gives for it once the entry went through JSON."""
    entry = dataset[index]
    gold = entry["answer"]
    if gold is None and name in EXAMPLES:
        gold = entry["metadata"][EXAMPLES[name]]
    if gold is not None and not isinstance(gold, str):
        gold = json.dumps(gold, ensure_ascii=False)
    try:
        entry = json.loads(json.dumps(entry))
        score = None if gold is None else float(dataset.score_answer(gold, entry))
    except Exception as error:  # noqa: BLE001 - a scorer may fail in any way on an entry that is not as it was.
        return {"entry": None, "gold": gold, "score": None, "error": f"{type(error).__name__}: {error}"}
    return {"entry": entry, "gold": gold, "score": score, "error": ""}


def main() -> None:
    """Writes the lines."""
    request = json.loads(sys.argv[1])
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def write(line: dict[str, Any]) -> None:
        output.write(json.dumps(line) + "\n")
        output.flush()

    name, count = request["dataset"], request["num_problems"]
    try:
        dataset = make_dataset(name, count, request["seed"], request["dataset_config"])
        for index in range(count):
            try:
                line = describe(dataset, name, index)
            except IndexError as error:
                raise Refused(f"problems.num_problems: {name!r} gives only {index} problems ({error})") from None
            write(line)
    except Refused as refused:
        write({"refused": str(refused)})


if __name__ == "__main__":
    main()

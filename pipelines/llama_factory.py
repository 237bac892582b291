"""`dataset_info.json`: what LLaMA-Factory must know of the tables it can train on, so that `dataset_dir` can be a run.

Format: `data/README.md` of LLaMA-Factory, as its `data/parser.py`, `data/loader.py` and `data/converter.py` read it. A
`script_url` is a folder that is given to `datasets.load_dataset` together with `subset` and `split`; the folder of the
run itself is one. A `file_name` would load both splits of a table as one.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any

from pipelines.manifest import Books
from pipelines.output import Output
from pipelines.shards import SPLITS, table_schema

DATASET_INFO = "dataset_info.json"

_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
}
# Its converters know a pair by `chosen` and `rejected` being one message each, not a list of messages.
_PAIR = {"messages": "prompt", "chosen": "chosen_message", "rejected": "rejected_message"}
_COLUMNS: dict[str, dict[str, str]] = {
    "sft": {"messages": "messages"},
    "refine_chat": {"messages": "messages"},
    "distill": {"messages": "messages"},
    "critique_dpo": _PAIR,
    "step_dpo": _PAIR,
    "dpo": _PAIR,
    "judge": {"messages": "messages"},
}


def dataset_info(rows_by_split: Mapping[str, int], pictured: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """An entry for each split with rows of each table that LLaMA-Factory trains on.

    Args:
      rows_by_split: rows by `table/split`; a split without rows cannot be loaded and has no entry.
      pictured: tables whose rows have images, which get no entry. It wants an `<image>` in the text for each of a row's
        images, which no text here has; without it, it would train on the words alone.
    """
    return {
        f"wrongturn_{config}" + ("" if split == SPLITS[0] else f"_{split}"): {
            "script_url": ".",
            "subset": config,
            "split": split,
            "formatting": "sharegpt",
            "ranking": "chosen" in columns,
            "columns": columns,
            "tags": _TAGS,
        }
        for config, columns in _COLUMNS.items()
        for split in SPLITS
        if config not in pictured and rows_by_split.get(f"{config}/{split}")
    }


def write_dataset_info(output: Output, books: Books) -> None:
    """Writes dataset_info.json."""
    pictured = [config for config in _COLUMNS if "images" in table_schema(output.path, config).names]
    output.write(DATASET_INFO, json.dumps(dataset_info(books.rows_by_split, pictured), indent=2) + "\n")

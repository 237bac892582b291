"""What the dataset card is made of: YAML, real rows, models. Nothing that a run holds can break out of its place."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import yaml

from pipelines.manifest import Books
from pipelines.settings import CardSettings, Settings
from pipelines.shards import SPLITS, features_of, read_file, read_rows, table_files, table_schema
from schemas import Record, visible
from schemas.arrow import CONFIGS

TRAINED_ON = ("sft", "critique_dpo", "step_dpo", "dpo", "prm", "refine", "refine_chat", "distill", "rl", "judge")
"""Tables that trainers read, the likeliest first."""

_TAGS = {
    "critique": ("sft", "critique_dpo", "refine", "critiques"),
    "preference": ("critique_dpo", "step_dpo", "dpo"),
    "process-reward": ("prm",),
}
"""Words under which the Hub finds the dataset, and the tables one of which must have a row for each."""
_SIZES = (("n<1K", 10**3), ("1K<n<10K", 10**4), ("10K<n<100K", 10**5), ("100K<n<1M", 10**6), ("1M<n<10M", 10**7))
_LARGER = "10M<n<100M"
_MOST_CHARS = 500
"""Of one text in a row that is shown."""
_MOST_ITEMS = 8
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s,'\"]+@")


class Model(Record):
    """A model that wrote texts of the dataset."""

    role: str
    """`actor`, the critic's name, or `feedback in dialogues`."""
    engine: str
    model: str
    revision: str
    texts: int
    """Trees, critiques or pieces of feedback by it."""


def splits_with_rows(config: str, books: Books) -> list[str]:
    """The splits of a table that `load_dataset` is told of: those with rows, or `train` where there is no row at all.

    `datasets` reads a split without rows as a stream only; in memory it refuses with "corresponds to no data".
    """
    return [split for split in SPLITS if books.rows_by_split[f"{config}/{split}"]] or [SPLITS[0]]


def front_matter(out: Path, settings: CardSettings, books: Books) -> str:
    """The card's YAML: what the Hub shows and filters by, and what `load_dataset` reads."""
    from huggingface_hub import DatasetCardData

    first = next((config for config in TRAINED_ON if books.rows[config]), "")
    tags = [tag for tag, tables in _TAGS.items() if any(books.rows[table] for table in tables)]
    data = DatasetCardData(
        pretty_name=settings.pretty_name,
        license=settings.license,
        language=list(settings.language) or None,
        tags=list(dict.fromkeys(("wrongturn", *tags, *settings.tags))),
        task_categories=["text-generation"],
        size_categories=[next((name for name, end in _SIZES if sum(books.rows.values()) < end), _LARGER)],
        configs=[_config(config, books, is_first=config == first) for config in CONFIGS],
        dataset_info=[_info(out, config, books) for config in CONFIGS],
    )
    text: str = data.to_yaml()
    return text.strip()


def _config(config: str, books: Books, *, is_first: bool) -> dict[str, Any]:
    files = [{"split": split, "path": f"{config}/{split}-*.parquet"} for split in splits_with_rows(config, books)]
    return {"config_name": config, "data_files": files} | ({"default": True} if is_first else {})


def _info(out: Path, config: str, books: Books) -> dict[str, Any]:
    """`dataset_info` of a table. Bytes are those of its Parquet files, before and after compression."""
    features = features_of(table_schema(out, config))
    sizes = {split: _sizes(out / config, split) for split in splits_with_rows(config, books)}
    info: dict[str, Any] = {"config_name": config, "features": features._to_yaml_list()}
    if books.rows[config]:  # Of a split without rows nothing may be said: `datasets` would look for the rows.
        info["splits"] = [
            {"name": split, "num_bytes": whole, "num_examples": books.rows_by_split[f"{config}/{split}"]}
            for split, (whole, _) in sizes.items()
        ]
        info["download_size"] = sum(packed for _, packed in sizes.values())
        info["dataset_size"] = sum(whole for whole, _ in sizes.values())
    return info


def _sizes(folder: Path, split: str) -> tuple[int, int]:
    whole = packed = 0
    for path in sorted(folder.glob(f"{split}-*.parquet")):
        footer = pq.read_metadata(path)
        whole += sum(footer.row_group(i).total_byte_size for i in range(footer.num_row_groups))
        packed += path.stat().st_size
    return whole, packed


def real_rows(out: Path, count: int) -> list[tuple[str, str]]:
    """Rows as JSON, one column a line, each with its table's name: the first of each table, then the second, and so on.

    Long texts and lists are cut, and say so.
    """
    rows = {config: _rows(out, config) for config in TRAINED_ON}
    found: list[tuple[str, str]] = []
    for _ in range(count):
        for config in TRAINED_ON:
            row = next(rows[config], None)
            if row is not None and len(found) < count:
                found.append((config, _as_json(row)))
    return found


def _rows(out: Path, config: str) -> Iterator[dict[str, Any]]:
    for path in table_files(out, config):
        yield from read_file(path)


def _as_json(row: Mapping[str, Any]) -> str:
    lines = [f"  {json.dumps(name)}: {json.dumps(_cut(value), ensure_ascii=False)}" for name, value in row.items()]
    return visible("{\n" + ",\n".join(lines) + "\n}")


def _cut(value: Any) -> Any:
    match value:
        case str() if len(value) > _MOST_CHARS:
            return f"{value[:_MOST_CHARS]} […{len(value) - _MOST_CHARS} more characters]"
        case bytes():
            return f"[{len(value)} bytes]"
        case list() if len(value) > _MOST_ITEMS:
            return [*map(_cut, value[:_MOST_ITEMS]), f"[…{len(value) - _MOST_ITEMS} more]"]
        case list():
            return [_cut(item) for item in value]
        case dict():
            return {name: _cut(item) for name, item in value.items()}
        case _:
            return value


def models(out: Path) -> list[Model]:
    """The models that trees, critiques and feedback bear the names of, with the revisions that engines reported."""
    found: Counter[tuple[str, str, str, str]] = Counter()
    for table, columns in (("trees", ["provenance"]), ("critiques", ["provenance", "agent"])):
        for row in read_rows(out, table, columns):
            by = row["provenance"]
            found[row.get("agent", "actor"), by["engine"], by["model"], by["revision"]] += 1
    for row in read_rows(out, "dialogues", ["turns"]):
        for by in (turn["feedback"]["provenance"] for turn in row["turns"] if turn["feedback"]):
            if by:
                found["feedback in dialogues", by["engine"], by["model"], by["revision"]] += 1
    return [
        Model(role=role, engine=engine, model=model, revision=revision, texts=texts)
        for (role, engine, model, revision), texts in sorted(found.items(), key=lambda by: (by[0][0] != "actor", by[0]))
    ]


def columns(out: Path, config: str) -> str:
    """Columns of a table with their Arrow types."""
    return "\n".join(f"{field.name}: {field.type}" for field in table_schema(out, config))


def config_yaml(settings: Settings) -> str:
    """Every setting as YAML, but for where the data and the journal lay, and names and passwords within URLs."""
    plain = {name: value for name, value in msgspec.to_builtins(settings).items() if name not in ("out", "journal")}
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)
    return visible(_CREDENTIALS.sub("", text)).rstrip()


def has_credentials(text: str) -> bool:
    """Whether a text holds a URL with a name or a password in it."""
    return bool(_CREDENTIALS.search(text))


def in_code(text: str, *, in_table: bool = False) -> str:
    """A text as code on one line of Markdown: no mark in it ends the code, or the table's cell."""
    line = visible(" ".join(text.split()))
    line = line.replace("|", "\\|") if in_table else line
    ticks = "`" * (_longest_run(line) + 1)
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{space}{line}{space}{ticks}" if line else "(none)"


def in_block(text: str, language: str) -> str:
    """A text as a block of code in Markdown: no line of it ends the block."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)

"""How far a run has come: which shards are there, which hold failed elements, and how many rows they have."""

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipelines.output import is_written, mark_of
from pipelines.plan import Inputs
from pipelines.shards import ShardError, all_shards, read_file, shard_of


def _files(out: Path, index: int, num_shards: int, config: str = "") -> list[Path]:
    return [out / s.path for s in all_shards([index], num_shards) if config in ("", s.config)]


def written_shards(out: Path, num_shards: int) -> tuple[int, ...]:
    """Shards whose files are those of their mark, with failed elements or without.

    Side effect: takes away the files of all others. Whoever wrote them was killed halfway, and nothing but a shard as a
    whole adds up; what went into them is in the journal.
    """
    written = []
    for index in range(num_shards):
        if is_written(out, index, num_shards):
            written.append(index)
        else:
            for file in _files(out, index, num_shards):
                if file.is_symlink() or not file.is_dir():
                    file.unlink(missing_ok=True)
    return tuple(written)


def failed_elements(out: Path, shards: Iterable[int], num_shards: int) -> dict[int, Mapping[str, int]]:
    """Failed elements by stage, for each of these shards that has any, or had some when it was last whole.

    A file that cannot be read tells of none: a shard with such a file is not finished, and is written anew.
    """
    found: dict[int, Mapping[str, int]] = {}
    for index in shards:
        stages: Counter[str] = Counter()
        for file in _files(out, index, num_shards, "failures"):
            if file.is_file():
                with contextlib.suppress(ShardError):
                    stages.update(row["stage"] for row in read_file(file, ["stage"]))
        if stages or mark_of(out, index).failed:
            found[index] = stages
    return found


def accepted_rows(out: Path, index: int, num_shards: int) -> int:
    """Rows of `sft` in a shard whose critique passed; 0 where it is not written."""
    if not is_written(out, index, num_shards):
        return 0
    rows = (row for file in _files(out, index, num_shards, "sft") for row in read_file(file, ["decision"]))
    return sum(row["decision"] == "kept" for row in rows)


def inputs_of(inputs: Inputs, shards: Iterable[int], num_shards: int) -> Inputs:
    """The part of what was read that belongs to these shards."""
    wanted = set(shards)
    problems = tuple(item for item in inputs.problems if shard_of(item.id, num_shards) in wanted)
    return Inputs(
        problems=problems,
        unread=tuple(item for item in inputs.unread if shard_of(item.problem_id, num_shards) in wanted),
        solutions={item.id: inputs.solutions[item.id] for item in problems if item.id in inputs.solutions},
    )

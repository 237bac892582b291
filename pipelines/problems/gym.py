"""Problems that reasoning-gym makes: any of its datasets, scored by the dataset's own scorer."""

import contextlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO, Any

from pipelines.problems.base import GymProblems, ProblemError, Reason
from schemas import Problem, Rejection, digest

_PROGRAM = Path(__file__).with_name("gym_entries.py")


def read_gym(settings: GymProblems) -> Iterator[Problem | Rejection]:
    """One problem or rejection for each index. Problem i depends on neither the number of problems nor the process.

    `metadata` is {"dataset", "config", "entry"}: `reasoning_gym.create_dataset(dataset, **config).score_answer(answer,
    entry)` scores an answer from it alone.

    Raises:
      ProblemError: reasoning-gym cannot make these problems.
    """
    if settings.num_problems < 1:
        raise ProblemError(f"problems.num_problems: need a number >= 1, got {settings.num_problems}")
    with contextlib.closing(_entries(settings)) as entries:
        for index, line in enumerate(entries):
            # Another version may make other problems of the same seed.
            config = digest(settings.dataset_config, importlib.metadata.version("reasoning-gym"))[:8]
            yield _problem(settings, index, f"{settings.dataset}-{settings.seed}-{index}-{config}", line)


def _problem(settings: GymProblems, index: int, key: str, line: dict[str, Any]) -> Problem | Rejection:
    source = f"reasoning_gym/{settings.dataset}"

    def rejection(reason: Reason, detail: str) -> Rejection:
        where = f"{source} entry {index}: "
        return Rejection(stage="ReadProblems", key=key, problem_id=key, reason=reason, detail=where + detail)

    if line["error"]:
        return rejection("gold_not_scorable", f"cannot be scored from JSON alone ({line['error']})")
    if line["gold"] is None:
        return rejection("null_answer", "reasoning-gym names no right answer, expected one")
    if line["score"] < 1:
        return rejection(
            "gold_not_scorable",
            f"its scorer gives its own answer {line['score']:g} once the entry is JSON, expected 1",
        )
    metadata = {"dataset": settings.dataset, "config": settings.dataset_config, "entry": line["entry"]}
    return Problem(
        id=key,
        source=source,
        domain="reasoning_gym",
        question=line["entry"]["question"],
        answer=line["gold"],
        metadata=json.dumps(metadata, ensure_ascii=False),
    )


def _entries(settings: GymProblems) -> Generator[dict[str, Any]]:
    """Lines of `gym_entries.py`. Closing the iterator ends the program."""
    request = {
        "dataset": settings.dataset,
        "num_problems": settings.num_problems,
        "seed": settings.seed,
        "dataset_config": settings.dataset_config,
    }
    # -P keeps this folder, with its own gym.py, off the program's path.
    command = [sys.executable, "-P", str(_PROGRAM), json.dumps(request)]
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=complaints, env=environment, encoding="utf-8"
        ) as program,
    ):
        try:
            assert program.stdout is not None, command
            yield from _lines(program.stdout)
            if program.wait() != 0:
                complaints.seek(0)
                last = (complaints.read().strip().splitlines() or ["no message"])[-1]
                raise ProblemError(
                    f"problems.dataset: making {settings.dataset!r} failed ({last}); choose another dataset or config"
                )
        finally:
            program.kill()


def _lines(stream: IO[str]) -> Iterator[dict[str, Any]]:
    for text in stream:
        line = json.loads(text)
        if "refused" in line:
            raise ProblemError(line["refused"])
        yield line

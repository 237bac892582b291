"""Real published files, each with its own columns."""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipelines.problems import ProblemSource, check_problems, read_problems
from schemas import Problem, Rejection

SHARED = Path(os.environ.get("WRONGTURN_SHARED") or Path(__file__).parents[2].parent / "shared")

pytestmark = pytest.mark.skipif(
    not (SHARED / "data").is_dir(), reason=f"no real data at {SHARED / 'data'} (set WRONGTURN_SHARED)"
)

GSM8K = {"answer_pattern": "#### (.+)$"}
REALCRITIC = {"question": "question", "answer": "gt", "id": "idx"}


def read(path: str, **settings: Any) -> tuple[list[Problem], list[Rejection]]:
    plain = {"kind": "file", "path": str(SHARED / "data" / path)} | settings
    source = msgspec.convert(plain, ProblemSource)
    check_problems(source)
    elements = list(read_problems(source))
    return [e for e in elements if isinstance(e, Problem)], [e for e in elements if isinstance(e, Rejection)]


@pytest.mark.parametrize(
    ("path", "settings", "count", "answer"),
    [
        ("gsm8k/train.jsonl", GSM8K, 2000, "72"),
        ("gsm8k/test.jsonl", GSM8K, 600, "18"),
        (
            "gsm8k/model_solutions.jsonl",
            {"columns": {"answer": "ground_truth"}, "answer_pattern": "A: (.+)$"},
            600,
            "18",
        ),
        ("math/train.jsonl", {"columns": {"question": "problem", "answer": "final_answer"}}, 1500, r"\frac{1}{4}"),
        ("realcritic/arc-challenge.jsonl", {"columns": REALCRITIC, "domain": "choice"}, 60, "C"),
        ("realcritic/mmlu_stem.jsonl", {"columns": REALCRITIC, "domain": "choice"}, 60, "D"),
        (
            "realcritic/college_math.jsonl",
            {"columns": REALCRITIC},
            60,
            r"C+\sum_{n=0}^{\infty}\frac{-1}{(n+1)(n+2)}x^{n+2}",
        ),
        ("realcritic/gsm8k.jsonl", {"columns": REALCRITIC | {"metadata": ["gt_cot", "pred"]}}, 60, "540"),
        ("realcritic/math.jsonl", {"columns": REALCRITIC | {"metadata": ["level", "model"]}}, 60, r"\frac{7}{2}"),
        ("realcritic/minerva_math.jsonl", {"columns": REALCRITIC | {"metadata": ["type"]}}, 60, r"1+\sqrt{3}i"),
        (
            "realcritic/olympiadbench.jsonl",
            {"columns": REALCRITIC | {"metadata": ["unit", "subfield"]}},
            60,
            r"\frac{4}{3}",
        ),
        ("trees/math_aps_tree.jsonl", {"columns": {"answer": "final_answer"}}, 3, "3"),
    ],
)
def test_every_row_is_a_problem(path: str, settings: dict[str, Any], count: int, answer: str) -> None:
    problems, rejections = read(path, **settings)
    assert (len(problems), rejections) == (count, [])
    assert problems[0].answer == answer
    assert len({p.id for p in problems}) == count


def test_processbench_has_labels_but_no_answers() -> None:
    columns = {"question": "problem", "answer": "label", "id": "id", "metadata": ["steps", "final_answer_correct"]}
    problems, rejections = read("processbench/math.jsonl", columns=columns)
    assert (len(problems), rejections) == (200, [])
    assert (problems[0].id, problems[0].answer) == ("math-0", "0")
    assert isinstance(msgspec.json.decode(problems[0].metadata)["steps"], list)


def test_a_folder_of_files_whose_ids_start_anew_rejects_the_repeated_ones() -> None:
    problems, rejections = read("realcritic", columns=REALCRITIC)
    assert (len(problems), len(rejections)) == (60, 360)
    assert {r.reason for r in rejections} == {"duplicate_id"}
    assert rejections[0].detail == "college_math.jsonl line 1: id '0' was already at arc-challenge.jsonl line 1"
    problems, rejections = read("realcritic", columns=REALCRITIC | {"id": None})
    assert (len(problems), rejections) == (420, [])

"""How well the string tests of verification do on real critiques: leaks, talk of a reference, critiques in prose.

    python -m benchmarks.leaks [--quick]

Leaks: 100 step critiques of MathCritique (arXiv 2411.16579) with labels by hand, whose rule stands in
`tests/annotators/test_leaks.py`. Precision: labelled ones among the flagged. Recall: flagged ones among the labelled.
`elsewhere` are those whose answer also stands in the problem or in the solution, as something else. Right solutions of
RealCritic serve as texts that give an answer away for sure.

Talk of a reference: labels by hand for the same 100, and 200 critiques of MetaCritique (arXiv 2401.04518) by people and
models that were shown none, so that every one that is flagged is a false alarm. Critiques in prose: how many of the 100
`annotators.prose` reads.
"""

import argparse
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from annotators.leaks import leaked_words
from annotators.prose import read_prose
from annotators.units import CritiqueError
from annotators.wording import talks_of_reference
from schemas import Record

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("WRONGTURN_SHARED", ROOT.parent / "shared")) / "data"
LABELS = ROOT / "tests" / "annotators" / "mathcritique_leaks.json"
NAMES = ("gsm8k", "math")

_ROW = re.compile(r"^(.*?)\s*Please also give.*?Assistant:(.*?)<\|end_of_text\|>.*?intermediate steps\.(.*)", re.DOTALL)
_FORMAT = re.compile(r"\s*Please also give your final number in the format[^\n]*")
_OPENING = "Let's break it down step by step:"


class Row(Record):
    """A flawed solution with a critique of it."""

    question: str
    solution: str
    critique: str
    answer: str
    """The final answer of the solution that was refined with the critique."""

    @property
    def steps(self) -> list[str]:
        """Lines of the solution; of a solution in one paragraph its sentences."""
        text = self.solution.replace(_OPENING, "").strip()
        lines = [line for line in text.split("\n") if line.strip()]
        return lines if len(lines) > 2 else re.split(r"(?<=[.\]])\s+(?=[A-Z])|\n+", text)


class Score(Record):
    """Figures of the leak filter on one file."""

    rows: int
    flagged: int
    labelled: int
    hits: int
    elsewhere_hits: int

    @property
    def precision(self) -> float:
        """Labelled ones among the flagged; NaN where none was flagged."""
        return self.hits / self.flagged if self.flagged else float("nan")

    @property
    def recall(self) -> float:
        """Flagged ones among the labelled; NaN where none was labelled."""
        return self.hits / self.labelled if self.labelled else float("nan")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a file with one a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def final_answer(text: str) -> str:
    """What stands in the last box of a solution, or after its last `answer is`."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return text.rpartition("answer is")[2].strip(" .:\n")
    depth = 0
    for end in range(start + 6, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if not depth:
            return text[start + 7 : end]
    raise ValueError(f"expected a box that closes, got {text[start:][:80]!r}")


def mathcritique(data: Path, name: str) -> list[Row]:
    """The rows of one of the two files."""
    rows = []
    for item in read_jsonl(data / "mathcritique" / f"{name}.jsonl"):
        match = _ROW.match(item["instruction"])
        if match is None:
            raise ValueError(f"expected a question, a solution and a critique, got {item['instruction'][:200]!r}")
        question, solution, critique = match.groups()
        rows.append(
            Row(
                question=question,
                solution=solution,
                critique=_FORMAT.sub("", critique),
                answer=final_answer(item["output"]),
            )
        )
    return rows


def flagged_rows(rows: list[Row]) -> set[int]:
    """Indices of the rows whose critique gives the refined answer away, as the filter sees it."""
    shown = ((row, row.question + "\n" + row.solution) for row in rows)
    return {i for i, (row, text) in enumerate(shown) if leaked_words(row.critique, [row.answer], text)}


def score(rows: list[Row], labelled: set[int], elsewhere: set[int]) -> Score:
    """The filter against the labels."""
    flagged = flagged_rows(rows)
    return Score(
        rows=len(rows),
        flagged=len(flagged),
        labelled=len(labelled),
        hits=len(flagged & labelled),
        elsewhere_hits=len(flagged & elsewhere),
    )


def metacritique(data: Path) -> Iterator[str]:
    """All critiques of all critics."""
    for item in read_jsonl(data / "metacritique" / "annotation.jsonl"):
        for key, value in sorted(item.items()):
            if key.endswith("_critique"):
                yield value["critique"]


def right_solutions(data: Path) -> dict[str, list[tuple[str, str]]]:
    """By file of RealCritic the right solutions with their gold answers."""
    found = {}
    for path in sorted((data / "realcritic").glob("*.jsonl")):
        rows = read_jsonl(path)
        scored = [(row["reasoning"], row["gt"], row["previous_score"]) for row in rows]
        right = [(text, str(gold)) for text, gold, right in scored if (right[0] if isinstance(right, list) else right)]
        found[path.stem] = right
    return found


def prose_read(rows: list[Row]) -> int:
    """How many of the critiques are read into units."""
    read = 0
    for row in rows:
        try:
            read += bool(read_prose(row.critique, row.steps).units)
        except CritiqueError:
            continue
    return read


def main() -> None:
    """Prints the table and the line of figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="without the right solutions of RealCritic")
    options = parser.parse_args()
    if not SHARED.is_dir():
        print(f"skipped: needs the shared data at {SHARED}; set WRONGTURN_SHARED to the folder that holds data/")
        return
    labels = json.loads(LABELS.read_text(encoding="utf-8"))
    rows = {name: mathcritique(SHARED, name) for name in NAMES}
    start = time.process_time()
    scores = {name: score(rows[name], set(labels[name]), set(labels["elsewhere"][name])) for name in NAMES}
    milliseconds = (time.process_time() - start) * 1000 / sum(map(len, rows.values()))
    table = Table("critiques", "rows", "leaks", "flagged", "precision", "recall", "found elsewhere", "in prose, read")
    for name, item in scores.items():
        cells = (item.rows, item.labelled, item.flagged, f"{item.precision:.3f}", f"{item.recall:.3f}")
        elsewhere = f"{item.elsewhere_hits} of {len(labels['elsewhere'][name])}"
        table.add_row(name, *map(str, cells), elsewhere, f"{prose_read(rows[name])} of {item.rows}")
    Console(width=110).print(table)
    talking = {name: {i for i, row in enumerate(rows[name]) if talks_of_reference(row.critique)} for name in NAMES}
    spoken = {name: set(labels["reference_talk"][name]) for name in NAMES}
    others = list(metacritique(SHARED))
    false_alarms = sum(map(talks_of_reference, others)) + sum(len(talking[name] - spoken[name]) for name in NAMES)
    found = sum(len(talking[name] & spoken[name]) for name in NAMES)
    print(
        f"talk of a reference: {found} of {sum(map(len, spoken.values()))} found, {false_alarms} false alarms among "
        f"{len(others) + sum(map(len, rows.values()))} critiques; {milliseconds:.1f} ms a critique for leaks"
    )
    figures: dict[str, Any] = {
        "files": {
            name: {"precision": item.precision, "recall": item.recall, "flagged": item.flagged / item.rows}
            for name, item in scores.items()
        },
        "precision": sum(item.hits for item in scores.values()) / sum(item.flagged for item in scores.values()),
        "recall": sum(item.hits for item in scores.values()) / sum(item.labelled for item in scores.values()),
        "reference_false_alarms": false_alarms,
        "reference_recall": found / sum(map(len, spoken.values())),
        "prose_read": sum(map(prose_read, rows.values())) / sum(map(len, rows.values())),
    }
    if not options.quick:
        figures["right_solutions_found"] = _print_right_solutions()
    print(msgspec.json.encode(figures).decode())


def _print_right_solutions() -> dict[str, float]:
    shares = {}
    for name, solutions in right_solutions(SHARED).items():
        found = sum(bool(leaked_words(text, [gold], "")) for text, gold in solutions)
        shares[name] = found / len(solutions)
        print(f"right solutions, {name}: the answer is found in {found} of {len(solutions)}")
    return shares


if __name__ == "__main__":
    main()

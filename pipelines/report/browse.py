"""What a reader of the report can leaf through: trees with their paths, and what became of their critiques.

A run of up to `MOST_TREES` trees is shown whole, a larger one in part: trees with a located wrong turn first, then the
others, each group in the order of a digest of the tree's id, so that the same data always give the same page. A tree of
many nodes is shown with its picked paths and as many of its oldest nodes as fit its part of `_TREES_BYTES`.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mcts.estimates import interval
from pipelines.report.facts import Shard, shards_of
from pipelines.report.pictures import pictures
from schemas import Estimate, Record, uniform, visible

MOST_TREES = 200
_TREES_BYTES = 2_400_000
"""Of the nodes of all trees that are shown, as JSON, picked paths not counted; each tree has an equal part."""
_ROWS_BYTES = 1_400_000
"""Of the critiques and rejections of all trees that are shown, likewise."""
_IMAGE_BYTES = 0.4
"""Of a tree's images, for each byte of its nodes."""
_MOST_TREELESS = 200
"""Rejections and failures of problems that have no tree."""
_STEP_CHARS = 1_000
_TEXT_CHARS = 2_500
_NAME_CHARS = 200
_LEVEL = 0.9
"""Of the intervals beside each value, as in `wrongturn show`."""

Row = dict[str, Any]


class Browse(Record):
    """Plain values for the page's script; every text in them is `visible` and cut to length."""

    trees: tuple[dict[str, Any], ...]
    rows: tuple[dict[str, Any], ...]
    num_trees: int
    """Trees of the run."""
    num_rows: int
    """Critiques, rejections and failures of the run."""


def shown(text: str | None, most: int = _TEXT_CHARS) -> str:
    """A text as the page holds it: cut, and what steers a page is spelled out."""
    text = text or ""
    return visible(text[:most]) + "\N{HORIZONTAL ELLIPSIS}" * (len(text) > most)


def browse(out: Path) -> Browse:
    """What can be leafed through; at most `MOST_TREES` trees are in memory."""
    chosen, num_trees = choose(out)
    trees: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    treeless: list[dict[str, Any]] = []
    num_rows = 0
    part = max(len(chosen), 1)
    for shard in shards_of(out, "trees", "pairs", "alone", "verified", "rejections", "failures"):
        paths, ids = _paths_of(shard), set()
        for row in shard.read("trees"):
            ids.add(row["problem"]["id"])
            if row["id"] in chosen:
                trees.append(tree_of(row, paths[row["id"]], _TREES_BYTES // part))
        drawn = {tree["problemId"] for tree in trees}
        sizes: defaultdict[str, int] = defaultdict(int)
        for problem_id, item in _rows_of(shard):
            num_rows += 1
            if problem_id not in ids:
                treeless.append(item)
                del treeless[_MOST_TREELESS:]
            elif shown(problem_id, _NAME_CHARS) in drawn and sizes[problem_id] < _ROWS_BYTES // part:
                sizes[problem_id] += len(msgspec.json.encode(item))
                rows.append(item)
    trees.sort(key=lambda tree: chosen[tree["fullId"]])
    for tree in trees:
        del tree["fullId"]
    return Browse(trees=tuple(trees), rows=(*rows, *treeless), num_trees=num_trees, num_rows=num_rows)


def choose(out: Path) -> tuple[dict[str, tuple[bool, float]], int]:
    """The trees that are shown with their rank, and how many there are."""
    best: list[tuple[tuple[bool, float], str]] = []
    number = 0
    for shard in shards_of(out, "trees", "pairs"):
        paired = {row["tree_id"] for row in shard.read("pairs", ["tree_id"])}
        ids = [row["id"] for row in shard.read("trees", ["id"])]
        number += len(ids)
        ranked = (((name not in paired, uniform("report", name)), name) for name in ids)
        best = heapq.nsmallest(MOST_TREES, [*best, *ranked])
    return {name: rank for rank, name in best}, number


def _paths_of(shard: Shard) -> defaultdict[str, list[Row]]:
    """Paths by tree, wrong ones with a right partner first."""
    paths: defaultdict[str, list[Row]] = defaultdict(list)
    for config in ("pairs", "alone"):
        for row in shard.read(config):
            paths[row["tree_id"]].append(row)
    return paths


def tree_of(row: Row, paths: Sequence[Row], most_bytes: int) -> dict[str, Any]:
    """A tree as the page's script takes it. Nodes keep their numbers, also where some are left out.

    Args:
      row: of `trees`.
      paths: rows of `pairs` and `alone` that were picked from it; their nodes are never left out.
      most_bytes: of the nodes as JSON.
    """
    picked = [_picked(path) for path in paths]
    keep = {node for path in picked for node in (*path["wrong"], *path["right"])}
    nodes, left = [], most_bytes
    for i, node in enumerate(row["nodes"]):
        drawn = [i, *_node(node)]
        if left > 0 or i in keep or not i:
            left -= len(msgspec.json.encode(drawn))
            nodes.append(drawn)
    return {
        "id": row["id"][:_NAME_CHARS],
        "fullId": row["id"],
        "problemId": shown(row["problem"]["id"], _NAME_CHARS),
        "source": shown(row["problem"]["source"], _NAME_CHARS),
        "question": shown(row["problem"]["question"].strip()),
        "images": pictures(row["problem"]["images"], int(_IMAGE_BYTES * most_bytes)),
        "answer": shown(row["problem"]["answer"], _STEP_CHARS),
        "stopped": shown(row["stopped"], _NAME_CHARS),
        "rollouts": row["rollouts"],
        "tokens": row["completion_tokens"],
        "size": len(row["nodes"]),
        "paths": picked,
        "nodes": nodes,
    }


def _node(node: Row) -> list[Any]:
    """`[parent, text, correct, scored, unscored, low, high, outcome, answer, reason, message]`; interval over 0..1."""
    direct = node["direct"]
    low, high = interval(Estimate(**direct), _LEVEL) if direct["scored"] else (0.0, 1.0)
    return [
        node["parent"],
        shown(node["step"].strip(), _STEP_CHARS),
        direct["correct"],
        direct["scored"],
        direct["unscored"],
        round(low, 2),
        round(high, 2),
        node["outcome"] or "",
        shown(node["answer"], _NAME_CHARS),
        shown(node["unscored_reason"], _NAME_CHARS),
        shown(node["message"].strip(), _STEP_CHARS),
    ]


def _picked(path: Row) -> dict[str, Any]:
    """A path as lists of nodes; `turn` is the node that rollouts locate as the first wrong one, -1 for none."""
    if "wrong" not in path:
        return {"id": path["id"], "wrong": [], "right": path["path"]["nodes"], "turn": -1, "posterior": []}
    wrong = [*path["prefix_nodes"], *path["wrong"]["nodes"]]
    return {
        "id": path["id"],
        "wrong": wrong,
        "right": [*path["prefix_nodes"], *path["right"]["nodes"]],
        "turn": wrong[path["first_error"]],
        "posterior": [round(mass, 3) for mass in path["posterior"]],
        "p": path["p_value"],
        "rule": shown(path["rule"], _NAME_CHARS),
    }


def _rows_of(shard: Shard) -> Iterator[tuple[str, dict[str, Any]]]:
    """Problem's id, and a critique that was verified or an element that ended before, in the order of the tables."""
    for row in shard.read("verified"):
        yield row["critique"]["problem_id"], critique_of(row)
    for config in ("rejections", "failures"):
        for row in shard.read(config):
            if row["stage"] != "VerifyCritiques" or config == "failures":
                yield row["problem_id"], _ended(row, config)


def critique_of(row: Row) -> dict[str, Any]:
    """A verified critique as the page's script takes it. Steps count from 1."""
    critique = row["critique"]
    return {
        "id": critique["id"],
        "problemId": shown(critique["problem_id"], _NAME_CHARS),
        "path": critique["path_id"],
        "stage": "VerifyCritiques",
        "decision": row["decision"],
        "reasons": [shown(reason, _NAME_CHARS) for reason in row["reasons"]],
        "agent": shown(critique["agent"], _NAME_CHARS),
        "view": shown(critique["view"], _NAME_CHARS),
        "label": "wrong" if row["has_error"] else "right",
        "located": _from_one(row["first_error"]),
        "named": _from_one(critique["first_wrong_step"]),
        "text": shown(critique["text"]),
        "leak": shown(row["leak"], _NAME_CHARS),
        "help": [_counts(row[name]) for name in ("with_critique", "with_placebo", "without_critique")],
        "p": [row["p_placebo"], row["p_without"]],
        "second": shown(row["refinement"]),
    }


def _ended(row: Row, config: str) -> dict[str, Any]:
    return {
        "id": shown(row["key"], _NAME_CHARS),
        "problemId": shown(row["problem_id"], _NAME_CHARS),
        "stage": row["stage"],
        "decision": "rejected" if config == "rejections" else "failed",
        "reasons": [shown(row["reason"] if config == "rejections" else row["error"], _NAME_CHARS)],
        "text": shown(row["detail"]),
    }


def _from_one(step: int | None) -> int:
    """A step as people count; 0 for none."""
    return 0 if step is None else step + 1


def _counts(estimate: Row | None) -> list[int]:
    return [estimate["correct"], estimate["scored"], estimate["unscored"]] if estimate else []


class Example(Record):
    """A kept critique to begin with."""

    row: dict[str, Any]
    question: str
    images: tuple[dict[str, str], ...]
    steps: tuple[str, ...]
    """The solution that it criticises."""


def example(leaves: Browse) -> Example | None:
    """A kept critique of a wrong path where there is one, the surest help first."""
    paths = {path["id"]: (tree, path) for tree in leaves.trees for path in tree["paths"]}
    kept = [row for row in leaves.rows if row["decision"] == "kept" and row["path"] in paths]
    row = min(kept, key=lambda row: (row["label"] != "wrong", _p(row), row["id"]), default=None)
    if row is None:
        return None
    tree, path = paths[row["path"]]
    texts = {node[0]: node[2] for node in tree["nodes"]}
    steps = tuple(texts[node] for node in path["wrong"] or path["right"])
    return Example(row=row, question=tree["question"], images=tuple(tree["images"]), steps=steps)


def _p(row: dict[str, Any]) -> float:
    value = row["p"][0]
    return 1.0 if value is None else float(value)

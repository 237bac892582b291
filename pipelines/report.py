"""A run as one HTML page that needs nothing else: the funnel, what was kept, trees with their wrong turns."""

import itertools
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import jinja2
import markupsafe

from pipelines.manifest import Books
from pipelines.output import Output
from pipelines.plan import Plan
from pipelines.shards import read_file, read_rows, table_files
from schemas import Node, PathPair, Record, Tree, visible
from schemas.arrow import from_row

_MOST_TREES = 20
_MOST_CRITIQUES = 50
_MOST_NODES = 300
"""Larger trees are left out of the page; they are in trees/."""
_MOST_DEPTH = 100
"""Likewise deeper ones, which are drawn list within list."""
_MOST_CHARS = 5_000
"""Of one text that are shown."""


class _View(Record):
    """A tree as the page draws it."""

    question: str
    nodes: tuple[Node, ...]
    children: tuple[tuple[int, ...], ...]
    marks: tuple[str, ...]
    """CSS class of each node's text."""


def write_report(output: Output, plan: Plan, books: Books) -> None:
    """Writes report.html. Everything that is put into the page is escaped, and shown where it is no sign but steers."""
    source = (resources.files("pipelines") / "report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, finalize=_as_shown)
    page = environment.from_string(source)
    kept = (row for row in read_rows(output.path, "verified") if row["decision"] == "kept" and row["has_error"])
    output.write(
        "report.html",
        page.render(
            out=output.path.name,
            digest=plan.config_digest,
            version=plan.context.version,
            stages=books.stages,
            rows=books.rows,
            kept=list(itertools.islice(kept, _MOST_CRITIQUES)),
            trees=_views(output.path),
        ),
    )


def _as_shown(value: object) -> object:
    """What stands in the page for a value; what the template itself made is left as it is."""
    if not isinstance(value, str) or isinstance(value, markupsafe.Markup):
        return value
    return visible(value[:_MOST_CHARS]) + "\N{HORIZONTAL ELLIPSIS}" * (len(value) > _MOST_CHARS)


def _views(path: Path) -> list[_View]:
    """The first trees with a pair; one shard's pairs are in memory at a time."""
    views = itertools.chain.from_iterable(_views_of(path, file.name) for file in table_files(path, "pairs"))
    return list(itertools.islice(views, _MOST_TREES))


def _views_of(path: Path, shard: str) -> Iterator[_View]:
    trees = path / "trees" / shard
    pairs = {row["tree_id"]: row for row in read_file(path / "pairs" / shard)}
    for row in read_file(trees) if pairs and trees.is_file() else ():
        pair = pairs.get(row["id"])
        nodes = row["nodes"]
        if pair and len(nodes) <= _MOST_NODES and max(node["depth"] for node in nodes) <= _MOST_DEPTH:
            yield _view(from_row(row, Tree), from_row(pair, PathPair))


def _view(tree: Tree, pair: PathPair) -> _View:
    turn, right = pair.node_ids[pair.first_error], {*pair.prefix_nodes, *pair.right.nodes}
    marks = tuple("turn" if i == turn else "right" if i in right else "" for i in range(len(tree.nodes)))
    return _View(question=tree.problem.question.strip(), nodes=tree.nodes, children=tree.children(), marks=marks)

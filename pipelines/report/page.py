"""The page around the facts: one file, no network, and no text of a run that is anything but text.

The template escapes what it is given. What the page's script shows is JSON in a script element that no browser runs,
with nothing in it that could end the element, and gets into the page as text nodes only. The page's
Content-Security-Policy names its two scripts and its style by their digests: any other is not run.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from typing import Any

import jinja2
import markupsafe
import msgspec

from pipelines.manifest import Books, StageCount
from pipelines.output import Output
from pipelines.plan import Plan
from pipelines.report import charts
from pipelines.report.browse import Browse, browse, example, shown
from pipelines.report.facts import Facts, gather
from pipelines.report.loops import LoopFacts, gain, gather_loops, share

_MOST_JSON = 4_200_000
"""Bytes of data in the page, which is below 5 MB then."""
_SPELLED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def write_report(output: Output, plan: Plan, books: Books) -> None:
    """Writes report.html. Everything that is put into the page is escaped, and shown where it is no sign but steers."""
    facts = gather(output.path, plan.settings)
    loops = gather_loops(output.path, plan.settings)
    output.write("report.html", render(plan, books, facts, browse(output.path), loops, name=output.path.name))


def render(plan: Plan, books: Books, facts: Facts, leaves: Browse, loops: LoopFacts, *, name: str) -> str:
    """The page."""
    leaves, data = fitted(leaves)
    scripts = [_part("vendor", "d3-hierarchy.min.js"), _part("page.js")]
    style = _part("page.css")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, finalize=_as_shown)
    template = environment.from_string(_part("page.html"))
    return template.render(
        name=name,
        digest=plan.config_digest,
        version=plan.context.version,
        engine=plan.settings.engine.label,
        stages=books.stages,
        rows=books.rows,
        reasons=reasons_of(books.stages),
        facts=facts,
        charts=_charts(books, facts),
        leaves=leaves,
        example=example(leaves),
        loops=loops,
        share=share,
        gain=gain,
        data=markupsafe.Markup(data),
        scripts=[markupsafe.Markup(script) for script in scripts],
        style=markupsafe.Markup(style),
        policy=policy(scripts, style),
    )


def _part(*names: str) -> str:
    text = resources.files("pipelines.report").joinpath(*names).read_text(encoding="utf-8")
    assert "</script" not in text or names[-1].endswith(".html"), names
    return text


def policy(scripts: Sequence[str], style: str) -> str:
    """Content-Security-Policy of a page with these scripts and this style: nothing else is loaded or run."""
    named = " ".join(f"'sha256-{_sha(script)}'" for script in scripts)
    return (
        f"default-src 'none'; img-src data:; script-src {named}; style-src 'sha256-{_sha(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _sha(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def fitted(leaves: Browse) -> tuple[Browse, str]:
    """As many of the trees, the first ones, as the page holds, and their data."""
    while True:
        data = embedded({"trees": leaves.trees, "rows": leaves.rows})
        if len(data.encode()) <= _MOST_JSON:
            return leaves, data
        trees = leaves.trees[: len(leaves.trees) * 9 // 10]
        drawn = {tree["problemId"] for tree in trees}
        rows = tuple(row for row in leaves.rows if row["problemId"] in drawn)
        leaves = msgspec.structs.replace(leaves, trees=trees, rows=rows)


def embedded(data: Any) -> str:
    """Plain values as JSON that may stand in a script element whatever its texts say."""
    text = msgspec.json.encode(data).decode()
    for char, spelling in _SPELLED.items():
        text = text.replace(char, spelling)
    return text


def reasons_of(stages: Sequence[StageCount]) -> dict[str, int]:
    """Why elements were not kept, over all stages, most frequent first."""
    counts: Counter[str] = Counter()
    for stage in stages:
        counts.update(stage.reasons)
    return dict(counts.most_common())


def _charts(books: Books, facts: Facts) -> dict[str, markupsafe.Markup]:
    drawn = {
        "funnel": charts.funnel(books.stages),
        "reasons": charts.reasons(reasons_of(books.stages)),
        "values": charts.values(facts),
        "positions": charts.positions(facts),
        "lengths": charts.lengths(facts),
        "labels": charts.labels(facts),
        "agents": charts.agents(facts.agents),
        "tokens": charts.tokens(facts.paid),
    }
    return {name: markupsafe.Markup(svg) for name, svg in drawn.items()}


def _as_shown(value: object) -> object:
    """What stands in the page for a value; what the template itself made is left as it is."""
    return shown(value) if isinstance(value, str) and not isinstance(value, markupsafe.Markup) else value

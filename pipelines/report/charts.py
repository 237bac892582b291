"""Matplotlib's drawings as SVG for a page: its colours are the page's own, and nothing in it needs a style or a script.

Colours are drawn as stand-ins and become CSS variables, so that a drawing follows light and dark. Style attributes,
which the page's Content-Security-Policy refuses, become presentation attributes.
"""

import functools
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import matplotlib.ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from pipelines.manifest import StageCount
from pipelines.report.facts import LENGTH_STEP, VALUE_BINS, AgentFacts, Facts, StagePaid
from schemas import visible

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_INK, _GRID, _KEPT, _REJECTED = "#010203", "#020304", "#030405", "#040506"
_FAILED, _OTHER = "#050607", "#060708"
_VARIABLES = {
    _INK: "var(--ink)",
    _GRID: "var(--line)",
    _KEPT: "var(--kept)",
    _REJECTED: "var(--rejected)",
    _FAILED: "var(--failed)",
    _OTHER: "var(--other)",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 11,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "axes.labelsize": 9,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "xtick.major.size": 0,
    "xtick.major.pad": 6,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
_LABEL_CHARS = 40
_INCHES_A_CHAR = 0.07
"""Of a label beside an axis, at 9 points."""
_MOST_REASONS = 12


def _drawing(width: float, height: float) -> Callable[[Callable[..., None]], Callable[..., str]]:
    """Makes a function that draws on axes one that returns SVG; sizes are in inches of 72 points."""

    def decorate(draw: Callable[..., None]) -> Callable[..., str]:
        @functools.wraps(draw)
        def wrapped(*args: Any) -> str:
            with mpl.rc_context({**_STYLE, "svg.hashsalt": draw.__name__}):
                figure = Figure(figsize=(width, height))
                axes = figure.subplots()
                draw(axes, *args)
                FigureCanvasSVG(figure)
                _set_margins(figure, axes)
                target = io.StringIO()
                figure.savefig(target, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
            return inline(target.getvalue())

        return wrapped

    return decorate


def _set_margins(figure: Figure, axes: Axes) -> None:
    """Room for labels, in inches. Matplotlib's own layouts would draw everything twice."""
    width, height = figure.get_size_inches()
    rows = [line for text in axes.get_yticklabels() for line in text.get_text().split("\n")]
    left = 0.25 + _INCHES_A_CHAR * max(map(len, rows), default=0) + 0.25 * bool(axes.get_ylabel())
    bottom = 0.3 + 0.25 * bool(axes.get_xlabel())
    figure.subplots_adjust(left=left / width, right=1 - 0.2 / width, bottom=bottom / height, top=1 - 0.3 / height)


def inline(svg: str) -> str:
    """An SVG file as an element of a page: without styles, names and metadata, in the page's colours."""
    root = ElementTree.fromstring(svg)
    used = set(re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", svg))
    names = {name for pair in used for name in pair if name}
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        for part in element.attrib.pop("style", "").split(";"):
            name, _, value = part.partition(":")
            _set(element, name.strip(), value.strip())
        if element.get("id") not in names:
            element.attrib.pop("id", None)
        if target := element.attrib.pop(f"{{{_XLINK}}}href", None):
            element.set("href", target)
        for name, value in element.attrib.items():
            element.set(name, _VARIABLES.get(value, value))
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("aria-hidden", "true")
    ElementTree.register_namespace("", _SVG)
    return ElementTree.tostring(root, encoding="unicode")


def _set(element: ElementTree.Element, name: str, value: str) -> None:
    if name == "font":  # For example "11px 'DejaVu Sans', sans-serif": the family is the page's.
        size = re.search(r"[\d.]+px", value)
        element.set("font-size", size[0] if size else "11px")
    elif (name and not name.startswith("font-")) or name == "font-size":
        element.set(name, value)


def label(text: str) -> str:
    """A name that a run holds, as a chart's label."""
    text = visible(text).replace("\n", " ")
    return text if len(text) <= _LABEL_CHARS else text[: _LABEL_CHARS - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _count(axis: Axis, most: int = 6) -> None:
    """Marks an axis of counts, which have no halves, in at most so many steps."""
    axis.set_major_locator(mpl.ticker.MaxNLocator(most, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,.0f}"))


def _below_each_other(axes: Axes, number: int) -> float:
    """Puts so many bars below each other from the top; how thick they are, since a single one should not fill all."""
    axes.set_ylim(max(number, 1) - 0.5, -0.5)
    return 0.7 * min(1.0, number / 4)


@_drawing(7.2, 3.6)
def funnel(axes: Axes, stages: Sequence[StageCount]) -> None:
    """What entered each stage, by where it ended."""
    names = [f"{stage.stage}\n{stage.element}" for stage in stages]
    left = [0] * len(stages)
    for name, colour in (("kept", _KEPT), ("rejected", _REJECTED), ("failed", _FAILED)):
        counts = [getattr(stage, name) for stage in stages]
        axes.barh(names, counts, left=left, color=colour, label=name, height=0.7)
        left = [before + count for before, count in zip(left, counts, strict=True)]
    for i, stage in enumerate(stages):
        share = f"{stage.kept:,} of {stage.entered:,}"
        axes.annotate(share, (left[i], i), (5, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_xlim(0, max([*left, 1]) * 1.18)
    _count(axes.xaxis)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", labelsize=8.5)
    axes.legend(loc="lower right", ncols=3, bbox_to_anchor=(1, 1), fontsize=9)


@_drawing(7.2, 2.8)
def reasons(axes: Axes, counts: Mapping[str, int]) -> None:
    """Why elements were rejected or failed, most frequent first; `counts` by `STAGE: reason`."""
    first = list(counts.items())[:_MOST_REASONS]
    thickness = _below_each_other(axes, len(first))
    bars = axes.barh(range(len(first)), [count for _, count in first], color=_REJECTED, height=thickness)
    axes.set_yticks(range(len(first)), [label(name) for name, _ in first], fontsize=9)
    axes.bar_label(bars, padding=4, fontsize=9)
    axes.margins(x=0.1)
    _count(axes.xaxis)
    axes.grid(visible=False, axis="y")


@_drawing(3.8, 2.5)
def values(axes: Axes, facts: Facts) -> None:
    """Nodes by value."""
    edges = [(i + 0.5) / VALUE_BINS for i in range(VALUE_BINS)]
    axes.bar(edges, facts.values, width=0.9 / VALUE_BINS, color=_KEPT)
    axes.set_xlabel("share of direct rollouts that are right")
    axes.set_ylabel("nodes")
    axes.set_xlim(0, 1)
    _count(axes.yaxis)
    axes.grid(visible=False, axis="x")


@_drawing(3.8, 2.5)
def positions(axes: Axes, facts: Facts) -> None:
    """Where first errors are: as rollouts locate them, and as kept critiques name them."""
    steps = range(1, max([*facts.located, *facts.named, 1]) + 1)
    for shift, name, counts, colour in (
        (-0.2, "by rollouts", facts.located, _REJECTED),
        (0.2, "by kept critiques", facts.named, _KEPT),
    ):
        axes.bar(
            [step + shift for step in steps], [counts.get(step, 0) for step in steps], 0.38, color=colour, label=name
        )
    axes.set_xlabel("first wrong step")
    _count(axes.xaxis, 10)
    _count(axes.yaxis)
    axes.legend(fontsize=8.5, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
    axes.grid(visible=False, axis="x")


@_drawing(3.8, 2.5)
def lengths(axes: Axes, facts: Facts) -> None:
    """Critiques by length."""
    last = max(
        (i for i, pair in enumerate(zip(facts.lengths_kept, facts.lengths_rejected, strict=True)) if any(pair)),
        default=0,
    )
    starts = [i * LENGTH_STEP for i in range(last + 1)]
    below = [0] * len(starts)
    for name, counts, colour in (("kept", facts.lengths_kept, _KEPT), ("rejected", facts.lengths_rejected, _REJECTED)):
        shown = counts[: last + 1]
        axes.bar(starts, shown, LENGTH_STEP * 0.9, bottom=below, align="edge", color=colour, label=name)
        below = [before + count for before, count in zip(below, shown, strict=True)]
    axes.set_xlabel("characters of a critique")
    axes.set_ylabel("critiques")
    _count(axes.xaxis)
    _count(axes.yaxis)
    axes.legend(fontsize=8.5, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
    axes.grid(visible=False, axis="x")


@_drawing(3.8, 2.5)
def labels(axes: Axes, facts: Facts) -> None:
    """Critiques of right and of wrong paths, by decision."""
    names = ("right", "wrong")
    for shift, decision, colour in ((-0.2, "kept", _KEPT), (0.2, "rejected", _REJECTED)):
        counts = [facts.labels.get(f"{name} {decision}", 0) for name in names]
        bars = axes.bar([i + shift for i in range(len(names))], counts, 0.38, color=colour, label=decision)
        axes.bar_label(bars, fmt="{:,.0f}", padding=2, fontsize=9)
    axes.set_xticks(range(len(names)), [f"of {name} paths" for name in names])
    axes.margins(y=0.12)
    _count(axes.yaxis)
    axes.legend(fontsize=8.5, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
    axes.grid(visible=False)


@_drawing(3.8, 2.5)
def agents(axes: Axes, items: Sequence[AgentFacts]) -> None:
    """Critics' reliability beside how often their verdict is the rollouts' label."""
    shown = items[:_MOST_REASONS]
    for shift, name, shares, colour in (
        (-0.2, "reliability", [item.reliability for item in shown], _OTHER),
        (0.2, "verdict right", [item.verdict_right / item.votes for item in shown], _KEPT),
    ):
        axes.barh([i + shift for i in range(len(shown))], shares, 0.38, color=colour, label=name)
    axes.set_yticks(range(len(shown)), [label(item.name) for item in shown], fontsize=9)
    axes.set_xlim(0, 1)
    axes.invert_yaxis()
    axes.legend(fontsize=8.5, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
    axes.grid(visible=False, axis="y")


@_drawing(7.2, 2.4)
def tokens(axes: Axes, paid: Sequence[StagePaid]) -> None:
    """Tokens by stage and kind."""
    names = [item.stage for item in paid]
    kinds = (
        ("prompt, cached", [item.usage.cached_tokens for item in paid], _OTHER),
        ("prompt", [item.usage.prompt_tokens - item.usage.cached_tokens for item in paid], _REJECTED),
        ("completion", [item.usage.completion_tokens for item in paid], _KEPT),
    )
    thickness = _below_each_other(axes, len(paid))
    left = [0] * len(paid)
    for name, counts, colour in kinds:
        axes.barh(names, counts, thickness, left=left, color=colour, label=name)
        left = [before + count for before, count in zip(left, counts, strict=True)]
    _count(axes.xaxis)
    axes.xaxis.set_major_formatter(mpl.ticker.EngFormatter(sep=""))
    axes.tick_params(axis="y", labelsize=9)
    axes.legend(fontsize=8.5, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0)
    axes.grid(visible=False, axis="y")

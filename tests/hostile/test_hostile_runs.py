"""Whole runs on a model and a problem file that hold nothing but hostile text.

`pytest -m slow tests/hostile -s` prints what was counted.
"""

import io
import json
import time
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import datasets
import pytest
import yaml
from rich.console import Console

from pipelines import card
from pipelines.config import compose
from pipelines.display import Display, print_summary
from pipelines.engines.journaled import CHANGED
from pipelines.meter import METER
from pipelines.run import Watcher, run
from pipelines.shards import file_digest, read_rows
from pipelines.show import show
from schemas.arrow import CONFIGS
from tests.hostile import answers
from tests.hostile.corpus import corpus, generated

# Crowd-kit's own use of pandas.
pytestmark = pytest.mark.filterwarnings("ignore:The (inplace|copy) keyword:DeprecationWarning")

AGENTS = [
    "{name: blind, role: stepwise, view: blind}",
    "{name: second, role: second_look, view: blind, second_look_at: blind, temperature: 1.0}",
    "{name: contrastive, role: contrastive, view: contrastive}",
    "{name: told, role: stepwise, view: reference}",
]
OVERRIDES = [
    "problems=file",
    "problems.columns.id=id",
    "problems.columns.metadata=[meta]",
    "engine=scripted",
    "engine.rule=tests.hostile.answers:answer",
    "actor=plain",
    "search=quick",
    "pairing=quick",
    "panel=blind",
    f"panel.agents=[{', '.join(AGENTS)}]",
    "verify.help.rollouts=2",
    "verify.help.max_rollouts=4",
    "verify.measure_all=true",
    "export.validation_share=0.3",
    "runner.checker_cpu_secs=1.0",
]
TAGS = {"html", "head", "meta", "title", "style", "body", "header", "nav", "main", "section", "article", "aside", "div"}
TAGS |= {"h1", "h2", "h3", "p", "pre", "code", "b", "small", "strong", "span", "a", "ul", "ol", "li", "dl", "dt", "dd"}
TAGS |= {
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "details",
    "summary",
    "figure",
    "figcaption",
    "noscript",
    "script",
}
TAGS |= {"script", "form", "label", "select", "input", "button"}
TAGS |= {"svg", "g", "defs", "clippath", "rect", "path", "use", "text", "tspan"}
ATTRIBUTES = {"lang", "charset", "name", "content", "class", "http-equiv", "id", "href", "scope", "role"}
ATTRIBUTES |= {"type", "placeholder", "checked", "tabindex", "open"}
ATTRIBUTES |= {"aria-label", "aria-labelledby", "aria-hidden", "aria-live"}
ATTRIBUTES |= {"xmlns", "viewbox", "x", "y", "width", "height", "d", "transform", "clip-path", "fill", "stroke"}
ATTRIBUTES |= {
    "fill-opacity",
    "stroke-width",
    "stroke-linejoin",
    "stroke-linecap",
    "stroke-miterlimit",
    "stroke-opacity",
}
ATTRIBUTES |= {"stroke-opacity", "font-size", "text-anchor", "opacity"}


def write_problems(path: Path, number: int) -> int:
    """A file of hostile rows, whose answer is 7 in two of three; the number of its lines."""
    short = [text for text in (*corpus(), *generated(400)) if len(text) <= 2_000]
    lines = []
    for i in range(number):
        text, other = short[i % len(short)], short[(7 * i + 3) % len(short)]
        row = {"question": f"What is 3 + 4? {text}", "answer": other if i % 3 == 2 else "7", "meta": {other: text}}
        # Every id is another one, but for some that are not.
        row["id"] = text if i % 5 == 0 else f"{other}-{i}"
        lines.append(json.dumps(row))
    lines += ["{" * 5000, "[" * 200_000, "not json", '{"question": ' + "9" * 5000 + "}", json.dumps({"question": None})]
    lines += [json.dumps({"question": "x" * (1 << 20), "answer": 1}), json.dumps({"question": "q", "answer": 1e308})]
    lines += [json.dumps({"id": "x" * 5000, "question": "q", "answer": "7"})]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)


@pytest.fixture(autouse=True)
def _quiet():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


class Page(HTMLParser):
    """Notes the elements and attributes of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.links: list[str | None] = []
        self.other: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes |= {name for name, _ in attrs}
        self.links += [value for name, value in attrs if name == "href"]

    def handle_comment(self, data):
        self.other.append(data)

    def unknown_decl(self, data):
        self.other.append(data)

    def handle_data(self, data):
        self.text.append(data)


def listing(folder: Path) -> set[str]:
    """Everything below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def check_page(path: Path) -> None:
    """No element, attribute, link or script of a report is another than the page's own."""
    page = Page()
    source = path.read_text(encoding="utf-8")
    page.feed(source)
    page.close()
    assert set(page.tags) <= TAGS
    assert page.attributes <= ATTRIBUTES
    assert [text for text in page.other if text != "doctype html"] == []
    assert all(link.startswith("#") for link in page.links)
    assert page.tags["script"] == 3
    assert "default-src &#39;none&#39;; img-src data:; script-src &#39;sha256-" in source
    assert not set("<>&\u2028\u2029\x1b") & set(data_of(source))


def data_of(source: str) -> str:
    """What a report's script element of data holds, as it stands there."""
    _, after = source.split('<script type="application/json" id="data">')
    return after.partition("</script>")[0]


def check_card(path: Path) -> None:
    """The front matter is the card's own, and so is every heading outside the blocks of code."""
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines[0] == "---"
    end = lines.index("---", 1)
    front = yaml.safe_load("\n".join(lines[1:end]))
    assert {entry["config_name"] for entry in front["configs"]} <= set(CONFIGS)
    assert front["pretty_name"] == "Critiques made by wrongturn"
    assert front.get("license") != "evil"
    fence, outside = "", []
    for line in lines[end + 1 :]:
        ticks = line[: len(line) - len(line.lstrip("`"))]
        if fence and len(ticks) >= len(fence) and line == ticks:
            fence = ""
        elif not fence and len(ticks) >= 3:
            fence = ticks
        elif not fence:
            outside.append(line)
    assert fence == ""
    template = Path(card.__file__).read_text(encoding="utf-8").splitlines()
    assert [line for line in outside if line.startswith("## ")] == [line for line in template if line.startswith("## ")]
    assert not [line for line in outside if line.startswith(("<script", "---", "```"))]


def check_terminal(said: str) -> None:
    """What reaches a terminal without colours has no escape sequence in it."""
    assert not [char for char in said if (char < " " and char != "\n") or "\x7f" <= char < "\xa0"]
    assert "\u202e" not in said


def hostile_run(folder: Path, number: int, domain: str) -> tuple[Path, float]:
    """A run over so many hostile problems; its folder and its seconds."""
    for counts in (answers.WRITTEN, answers.HELD, answers.COMPLAINTS):
        counts.clear()
    around, out = folder / "around", folder / "around" / "deep" / "out"
    out.parent.mkdir(parents=True)
    problems = around / "problems.jsonl"
    num_lines = write_problems(problems, number)
    absolute = Path("/tmp/escaped-absolute")
    assert not absolute.exists()
    before = listing(folder)
    terminal = io.StringIO()
    console = Console(file=terminal, width=140)
    began = time.perf_counter()
    result = run(
        compose([*OVERRIDES, f"problems.domain={domain}", f"problems.path={problems}", f"out={out}"]), Display(console)
    )
    seconds = time.perf_counter() - began
    print_summary(console, result)
    show(console, str(out))
    for row in list(read_rows(out, "trees"))[:20]:
        show(console, str(out), row["id"])
    check_terminal(terminal.getvalue())
    assert not absolute.exists()
    assert {path for path in listing(folder) - before if not path.startswith("around/deep/out")} == set()
    assert answers.COMPLAINTS == []
    books = result.books
    assert [stage.stage for stage in books.stages if not stage.balanced] == []
    assert books.stages[0].entered == num_lines
    assert sum(stage.failed for stage in books.stages) == 0
    check_page(out / "report.html")
    check_card(out / "README.md")
    for config in CONFIGS:
        rows = list(read_rows(out, config))
        assert len(rows) == books.rows[config]
        if rows:
            loaded = datasets.load_dataset(str(out), config, cache_dir=str(folder / "cache"))
            assert sum(len(split) for split in loaded.values()) == len(rows)
    return out, seconds


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("domain", "number", "least"), [("exact", 200, 4000), ("math", 60, 1000)])
def test_thousands_of_hostile_texts_go_through_all_stages(tmp_path, domain, number, least):
    changed = num_changed()
    out, seconds = hostile_run(tmp_path, number, domain)
    changed = num_changed() - changed
    counts = dict(answers.WRITTEN)
    rows = {config: sum(1 for _ in read_rows(out, config)) for config in CONFIGS}
    print(f"\n{domain}: {sum(counts.values())} fuzzed outputs {counts}")  # noqa: T201
    print(f"hostile texts in them: {dict(answers.HELD)}; samples changed: {changed}")  # noqa: T201
    print(f"rows: {rows}; {seconds:.0f} s, {1000 * seconds / sum(counts.values()):.1f} ms an output")  # noqa: T201
    assert sum(counts.values()) >= least
    assert min(counts[task] for task in ("solve", "refine", "meta", "compose", "critique")) >= 10
    assert changed > 0
    if domain == "math":
        check_replay(out, tmp_path)
    assert all(rows[config] for config in ("trees", "pairs", "alone", "critiques", "panels", "verified", "rl"))


def check_replay(out: Path, folder: Path) -> None:
    """The same run out of the journal alone writes the same shards: what is replayed is changed as it was before."""
    paid, again = METER.read().paid.requests, folder / "again"
    problems, journal = out.parent.parent / "problems.jsonl", out / ".wrongturn" / "journal.sqlite"
    settings = [*OVERRIDES, "problems.domain=math", f"problems.path={problems}", f"journal={journal}", f"out={again}"]
    run(compose(settings), Watcher())
    assert METER.read().paid.requests == paid
    shards = sorted(path.relative_to(out) for path in out.glob("*/*.parquet"))
    assert shards
    assert [file_digest(again / path) for path in shards] == [file_digest(out / path) for path in shards]


def num_changed() -> int:
    """Samples that were changed so far, in all stages."""
    return sum(number for name, number in METER.read().elements.items() if name.endswith(f"/{CHANGED}"))

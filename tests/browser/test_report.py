"""The report as a browser shows it: nothing complains, filters filter, a node opens, hostile text is text.

`pytest -m browser tests/browser` leaves screenshots in its temporary folder.
"""

import json
import re

import msgspec
import pytest

from pipelines.config import compose
from pipelines.output import Output
from pipelines.report import write_report
from pipelines.run import Watcher, run
from pipelines.shards import all_shards, read_rows, write_shard
from schemas import Estimate, Node, Rejection
from tests.annotators.annotated import alone, pair, problem
from tests.browser.conftest import DARK
from tests.hostile.test_pages import SHORT, books, plan_of, tree_of, verified

pytestmark = [
    pytest.mark.browser,
    # Crowd-kit's own use of pandas.
    pytest.mark.filterwarnings("ignore:The (inplace|copy) keyword:DeprecationWarning"),
]

SCRIPT = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">"


def opened(browser, path):
    """Opens a page; what it complained of."""
    browser.get(path.as_uri())
    return [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def all_of(browser, selector):
    return browser.find_elements("css selector", selector)


def choose(browser, name, value):
    """Sets a filter as a reader does."""
    browser.execute_script(
        "const field = document.querySelector(`#row-filters [name=${arguments[0]}]`);"
        "field.value = arguments[1]; field.dispatchEvent(new Event('input', { bubbles: true }));",
        name,
        value,
    )


def count(browser):
    """The number of rows that the filters leave."""
    found = re.match(r"(\d+) of (\d+) shown", browser.find_element("id", "row-count").text)
    assert found
    return int(found[1])


@pytest.fixture
def page(browser, simulated):
    assert opened(browser, simulated / "report.html") == []
    return browser


def test_the_page_loads_without_a_complaint_and_without_the_network(page, simulated, tmp_path):
    assert page.save_screenshot(str(tmp_path / "top.png"))
    assert page.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert (simulated / "report.html").stat().st_size < 5_000_000
    assert len(all_of(page, "#tree-choice option")) == sum(1 for _ in read_rows(simulated, "pairs", ["id"]))


def test_the_first_look_tells_problems_rows_reasons_and_cost(page, simulated):
    manifest = json.loads((simulated / "run.json").read_text())
    (kept,) = [stage["kept"] for stage in manifest["stages"] if stage["stage"] == "VerifyCritiques"]
    header = page.find_element("tag name", "header").text
    assert f"200 problems, {kept} kept critiques" in header
    tokens = sum(paid["prompt_tokens"] + paid["completion_tokens"] for paid in manifest["paid"].values())
    assert f"{tokens / kept:,.0f}" in header
    money = sum(0.5e-6 * paid["prompt_tokens"] + 2e-6 * paid["completion_tokens"] for paid in manifest["paid"].values())
    assert f"{money / kept:.4g}" in header
    reasons = {reason: number for stage in manifest["stages"] for reason, number in stage["reasons"].items()}
    assert max(reasons, key=lambda reason: reasons[reason]) in header
    assert "with a placebo" in page.find_element("id", "kept").text


def test_filters_leave_what_they_should(page, simulated, tmp_path):
    critiques = list(read_rows(simulated, "verified"))
    kept = [row for row in critiques if row["decision"] == "kept"]
    choose(page, "stage", "=VerifyCritiques")
    assert count(page) == len(critiques)
    choose(page, "decision", "=kept")
    assert count(page) == len(kept)
    choose(page, "label", "=wrong")
    assert count(page) == sum(row["has_error"] for row in kept)
    page.find_element("css selector", "#row-filters [type=reset]").click()
    choose(page, "reason", "=wrong_verdict")
    assert count(page) == sum("wrong_verdict" in row["reasons"] for row in critiques)
    choose(page, "reason", "")
    choose(page, "text", kept[0]["critique"]["id"])
    assert count(page) == 1
    page.find_element("css selector", "#row-list summary").click()
    body = page.find_element("css selector", "#row-list details > div")
    assert kept[0]["critique"]["text"].split("\n")[0] in body.text
    page.find_element("id", "rows").screenshot(str(tmp_path / "rows.png"))
    body.find_element("tag name", "button").click()
    assert kept[0]["critique"]["problem_id"] in page.find_element("id", "tree-problem").text


NODES = {  # Parent and step by number; two paths with turns of their own, and a right one.
    1: (0, "Step 1: 7 + 8 = 15"),
    2: (1, "Step 2: 15 + 5 = 21"),
    3: (2, "Answer: 21"),
    4: (1, "Step 2: 15 + 5 = 20"),
    5: (4, "Answer: 20"),
    6: (0, "Step 1: 7 + 8 = 14"),
    7: (6, "Step 2: 14 + 5 = 19"),
    8: (7, "Answer: 19"),
}


@pytest.fixture(scope="module")
def two_turns(tmp_path_factory):
    """A report of one tree: critiques `v1` of a path whose turn is node 2, `v2` of one whose turn is 6, `v3` of a right
    one that ends in node 5, and a rejection that belongs to no path."""
    out = tmp_path_factory.mktemp("turns")
    steps = [Node(parent=parent, step=step, depth=1, kind="step") for parent, step in NODES.values()]
    root = Node(parent=-1, step="", depth=0, kind="root")
    tree = msgspec.structs.replace(tree_of(SHORT), problem=problem(), nodes=(root, *steps))

    def branch_of(branch, *nodes):
        return msgspec.structs.replace(branch, nodes=nodes)

    first = pair(name="a", prefix=("p",), wrong=("w", "w"), right=("r", "r"), first_error=1)
    first = msgspec.structs.replace(first, wrong=branch_of(first.wrong, 2, 3), right=branch_of(first.right, 4, 5))
    second = pair(name="b")
    second = msgspec.structs.replace(
        second, wrong=branch_of(second.wrong, 6, 7, 8), right=branch_of(second.right, 1, 4, 5)
    )
    third = msgspec.structs.replace(alone(name="c"), path=branch_of(alone().path, 1, 4, 5))
    critiques = [verified(path, f"About {path.id}.", i) for i, path in enumerate((first, second, third), start=1)]
    named = [
        msgspec.structs.replace(
            item, critique=msgspec.structs.replace(item.critique, id=item.id, first_wrong_step=step)
        )
        for item, step in zip(critiques, (0, 0, None), strict=True)
    ]
    rows = {
        "trees": [("a", tree)],
        "pairs": [("a", first), ("b", second)],
        "alone": [("c", third)],
        "verified": [(item.id, item) for item in named],
        "rejections": [("r", Rejection(stage="PairPaths", key="none", problem_id="q1", reason="not_wanted"))],
    }
    for shard in all_shards([0], 1):
        write_shard(out, shard, rows.get(shard.config, []) if shard.split == "train" else [])
    write_report(Output(str(out)), plan_of("m"), books())
    return out / "report.html"


def open_row(browser, name):
    """Opens one row of the list; its body."""
    choose(browser, "text", name)
    assert count(browser) == 1
    browser.find_element("css selector", "#row-list summary").click()
    return browser.find_element("css selector", "#row-list .row > div")


@pytest.mark.parametrize(
    ("row", "steps", "turn", "named"),
    [("v1", (1, 2, 3), 2, 1), ("v2", (6, 7, 8), 1, 1), ("v3", (1, 4, 5), None, None)],
)
def test_an_opened_row_shows_the_problem_and_the_criticised_steps(browser, two_turns, row, steps, turn, named):
    assert opened(browser, two_turns) == []
    body = open_row(browser, row)
    assert "Calculate 7 + 8 + 5." in body.text
    lines = [line.text for line in body.find_elements("css selector", "ol li")]
    assert [line.split("  ")[0] for line in lines] == [NODES[node][1] for node in steps]
    assert [i for i, line in enumerate(lines, start=1) if "✗ wrong turn" in line] == [turn] * bool(turn)
    assert [i for i, line in enumerate(lines, start=1) if "named by the critique" in line] == [named] * bool(named)


@pytest.mark.parametrize(
    ("row", "heading"), [("v1", "Node 2"), ("v2", "Node 6"), ("v3", "Node 5"), ("none", "The problem")]
)
def test_a_row_leads_to_the_node_whose_panel_holds_it(browser, two_turns, row, heading):
    """The wrong turn of its own path, which need not be the tree's first; the end of a right path; else the problem."""
    assert opened(browser, two_turns) == []
    open_row(browser, row).find_element("tag name", "button").click()
    panel = browser.find_element("id", "tree-node")
    assert panel.find_element("tag name", "h3").text == heading
    held = panel.find_element("css selector", f".row[data-row='{row}'][open] > div")
    assert held.is_displayed()
    assert ("About" in held.text) == (row != "none")
    top, bottom = browser.execute_script(
        "const r = arguments[0].getBoundingClientRect(); return [r.top, r.bottom]", panel
    )
    assert top >= 0
    assert bottom <= browser.execute_script("return innerHeight")


@pytest.mark.parametrize("width", [1280, 600])
def test_critiques_of_a_node_fit_their_panel(page, width, tmp_path):
    """At each width closed and opened ones; and nothing of the page is wider than its window."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        panel = page.find_element("id", "tree-node")
        page.execute_script("arguments[0].scrollIntoView()", panel)
        rows = panel.find_elements("css selector", ".row")
        assert rows
        for state in ("closed", "opened"):
            inside, needed = page.execute_script("const e = arguments[0]; return [e.clientWidth, e.scrollWidth]", panel)
            assert needed <= inside
            panel.screenshot(str(tmp_path / f"{state}.png"))
            if state == "closed":
                rows[0].find_element("tag name", "summary").click()
        assert "Solution" in rows[0].text
        gaps = page.execute_script(
            "return [...arguments[0].querySelector('summary').children].filter(e => e.checkVisibility())"
            ".map(e => e.getBoundingClientRect()).map((r, i, all) => i && r.top < all[i - 1].bottom ? "
            "r.left - all[i - 1].right : 99)",
            rows[-1],
        )
        assert min(gaps) >= 8, "marks and words run together"
        whole, window = page.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert whole <= window
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


MET = """
const met = [];
const colour = /--(kept|rejected|failed|other)/;
let bars = 0;
for (const svg of document.querySelectorAll('.chart[role=img] svg')) {
  const drawn = [...svg.querySelectorAll('path')].filter(e => colour.test(e.getAttribute('fill')));
  const boxes = drawn.map(e => e.getBoundingClientRect()).filter(r => r.width > 0 && r.height > 0);
  bars += boxes.length;
  for (const text of svg.querySelectorAll('text')) {
    const r = text.getBoundingClientRect(), middle = (r.top + r.bottom) / 2;
    if (boxes.some(b => b.left < r.right - 1 && r.left + 1 < b.right && b.top < middle && middle < b.bottom))
      met.push(text.textContent);
  }
}
return [bars, met];
"""


def test_no_number_of_a_chart_lies_on_a_bar(page):
    bars, met = page.execute_script(MET)
    assert bars > 20
    assert met == []


def test_a_node_opens_by_click_and_by_keys(page, tmp_path):
    assert "The wrong turn" in page.find_element("id", "tree-node").text
    turn = page.find_element("css selector", "#tree-outline [aria-selected=true]")
    assert "wrong turn" in turn.text
    page.find_element("css selector", "#tree-outline [data-node='0']").click()
    assert page.find_element("css selector", "#tree-node h3").text == "The problem"
    page.switch_to.active_element.send_keys("\ue015")  # Arrow down
    assert page.find_element("css selector", "#tree-node h3").text == "Node 1"
    # Which tree is shown is the run's to choose, and its first step need not have been rolled out from.
    told = page.find_element("id", "tree-node").text
    assert ("Direct rollouts: " in told) != ("No rollout started here." in told)
    page.switch_to.active_element.send_keys("\ue011")  # Home
    assert page.find_element("css selector", "#tree-node h3").text == "The problem"
    page.execute_script("document.querySelector('#tree-picture circle.turn').dispatchEvent(new Event('click'))")
    assert "The wrong turn" in page.find_element("id", "tree-node").text
    page.find_element("id", "trees").screenshot(str(tmp_path / "tree.png"))


def test_every_control_has_a_name_and_every_drawing_a_text(page):
    assert (
        page.execute_script(
            "return [...document.querySelectorAll('select, input, button')].filter(e => !e.labels?.length && "
            "!e.textContent.trim()).length"
        )
        == 0
    )
    assert (
        page.execute_script(
            "return [...document.querySelectorAll('.chart')].filter(e => !e.getAttribute('aria-label') && "
            "e.getAttribute('aria-hidden') !== 'true').length"
        )
        == 0
    )
    assert len(all_of(page, "#tree-outline [tabindex='0']")) == 1


CONTRAST = """
const linear = c => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
const numbers = text => text.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const behind = e => { for (; e; e = e.parentElement) { const c = numbers(getComputedStyle(e).backgroundColor);
  if (c.length === 3 || c[3] === 1) return c; } return [255, 255, 255]; };
const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
const seen = [], poor = [];
for (const e of document.querySelectorAll('body *')) {
  const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  if (!own || !e.checkVisibility() || ['SCRIPT', 'STYLE', 'OPTION'].includes(e.tagName) || e.disabled) continue;
  const svg = e instanceof SVGElement, ink = numbers(svg ? getComputedStyle(e).fill : getComputedStyle(e).color);
  seen.push(e);
  const found = ratio(ink, behind(e));
  if (found < 4.5) poor.push([e.tagName, e.textContent.slice(0, 30), found.toFixed(2)]);
}
return [seen.length, poor];
"""


@pytest.mark.parametrize("flags", [(), (DARK,)], ids=["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(start_browser, simulated, flags, tmp_path):
    """4.5 to 1, WCAG 2.1, 1.4.3, by its definition of luminance; no text lies on a bar."""
    browser = start_browser(*flags)
    assert opened(browser, simulated / "report.html") == []
    for details in all_of(browser, "#row-list details")[:3]:
        details.click()
    browser.save_screenshot(str(tmp_path / "page.png"))
    dark = browser.execute_script("return matchMedia('(prefers-color-scheme: dark)').matches")
    assert dark == bool(flags)
    looked_at, poor = browser.execute_script(CONTRAST)
    assert poor == []
    assert looked_at > 200


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A report in which every text is hostile."""
    out = tmp_path_factory.mktemp("hostile") / "<b>out"
    texts = [SCRIPT, *(text for text in SHORT if "<" in text), *SHORT]
    tree = tree_of(texts)
    path = pair(tree.problem)
    ended = [Rejection(stage="PairPaths", key=text, problem_id=text, reason=text, detail=text) for text in texts[:20]]
    rows = {
        "trees": [("a", tree)],
        "pairs": [("a", path)],
        "verified": [(f"{i:03d}", verified(path, text, i)) for i, text in enumerate(texts[:50])],
        "rejections": [(f"{i:03d}", row) for i, row in enumerate(ended)],
    }
    for shard in all_shards([0], 1):
        write_shard(out, shard, rows.get(shard.config, []) if shard.split == "train" else [])
    write_report(Output(str(out)), plan_of(SCRIPT), books())
    return out / "report.html"


def test_a_row_of_script_is_shown_as_text(browser, hostile, tmp_path):
    assert opened(browser, hostile) == []
    choose(browser, "text", "document.title")
    assert count(browser) >= 2
    for summary in all_of(browser, "#row-list summary"):
        summary.click()
    for i in range(30):  # Each choice draws the outline anew.
        browser.execute_script("document.querySelectorAll('#tree-outline .item')[arguments[0]].click()", i)
        if i == 1:  # Its step, and what a checker said of it.
            assert [each.text for each in all_of(browser, "#tree-node > pre")] == [SCRIPT, SCRIPT]
    assert SCRIPT in browser.find_element("css selector", "#row-list pre").text
    assert "owned" not in browser.title
    assert all_of(browser, "body img, body iframe, body object, main script") == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    browser.save_screenshot(str(tmp_path / "hostile.png"))


def test_a_very_deep_tree_can_be_walked(browser, tmp_path):
    chain = [
        Node(parent=i - 1, step=f"s{i}", depth=i, kind="step" if i else "root", direct=Estimate(correct=1, scored=2))
        for i in range(290)
    ]
    tree = tree_of(SHORT)
    deep = type(tree)(**{name: getattr(tree, name) for name in tree.__struct_fields__} | {"nodes": tuple(chain)})
    for shard in all_shards([0], 1):
        rows = {"trees": [("a", deep)], "pairs": [("a", pair(tree.problem))]}.get(shard.config, [])
        write_shard(tmp_path, shard, rows if shard.split == "train" else [])
    write_report(Output(str(tmp_path)), plan_of("m"), books())
    assert opened(browser, tmp_path / "report.html") == []
    assert len(all_of(browser, "#tree-picture circle")) == 290


def test_a_problems_image_is_shown_beside_it(browser, tmp_path):
    out = tmp_path / "out"
    command = ["engine=simulated", "problems=shapes", "problems.num_problems=4", "actor=plain", "panel=blind"]
    run(compose([*command, f"out={out}"]), Watcher())
    assert opened(browser, out / "report.html") == []
    image = browser.find_element("css selector", "#tree-problem img")
    assert image.get_attribute("alt") == "Image 1 of 1"
    assert browser.execute_script("return arguments[0].naturalWidth", image) > 0
    browser.save_screenshot(str(tmp_path / "image.png"))

"use strict";
// Every text of the run gets into the page by textContent or as an option's text; nothing is ever parsed as HTML.
(() => {
  const { trees, rows } = JSON.parse(document.getElementById("data").textContent);
  const [ID, PARENT, TEXT, RIGHT, SCORED, UNSCORED, LOW, HIGH, OUTCOME, ANSWER, REASON, MESSAGE] = [...Array(12).keys()];
  const SVG = "http://www.w3.org/2000/svg";
  const at = (id) => document.getElementById(id);

  function element(name, options = {}, ...children) {
    const made = document.createElement(name);
    const { text, on, ...attributes } = options;
    if (text !== undefined) made.textContent = text;
    for (const [event, act] of Object.entries(on ?? {})) made.addEventListener(event, act);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }
  function drawn(name, attributes, text) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }
  const paragraph = (text, kind = "") => element("p", { text, class: kind });
  const pictures = (item) => item.images.map(({ src, alt }) => src ? element("img", { src, alt }) : paragraph(alt, "note"));
  const known = (values) => [...new Set(values)].sort();

  // A tree.
  const byProblem = new Map();
  for (const row of rows) byProblem.set(row.problemId, [...(byProblem.get(row.problemId) ?? []), row]);
  const homes = new Map(trees.map((item) => [item.problemId, item]));
  const paths = new Map(trees.flatMap((item) => item.paths.map((path) => [path.id, path])));
  // A row that ended before the critics may bear its path's id, or none.
  const pathOf = (row) => paths.get(row.path) ?? paths.get(row.id);
  const criticised = (path) => path.wrong.length ? path.wrong : path.right;
  let tree, nodes, children, marks, chosen, closed;

  function band(node) {
    if (node[OUTCOME] === "correct") return "v4";
    if (node[OUTCOME] === "incorrect") return "v0";
    if (!node[SCORED]) return "vx";
    const value = node[RIGHT] / node[SCORED];
    return value === 0 ? "v0" : value === 1 ? "v4" : value < 1 / 3 ? "v1" : value < 2 / 3 ? "v2" : "v3";
  }
  function badge(node) {
    if (node[OUTCOME]) return { correct: "right", incorrect: "wrong", unscored: "unscored" }[node[OUTCOME]];
    return node[SCORED] ? `${node[RIGHT]}/${node[SCORED]}` : "?";
  }
  const caption = (node) => node[TEXT] || (node[PARENT] < 0 ? "the problem" : "(empty)");

  function showTree(wanted, first) {
    tree = wanted;
    nodes = new Map(tree.nodes.map((node) => [node[ID], node]));
    children = new Map(tree.nodes.map((node) => [node[ID], []]));
    for (const node of tree.nodes) if (node[PARENT] >= 0) children.get(node[PARENT]).push(node[ID]);
    marks = { turn: new Set(), wrong: new Set(), right: new Set() };
    for (const path of tree.paths) {
      if (path.turn >= 0) marks.turn.add(path.turn);
      path.wrong.forEach((id) => marks.wrong.add(id));
      path.right.forEach((id) => marks.right.add(id));
    }
    closed = new Set(tree.nodes.map((node) => node[ID]).filter((id) => id && !marks.wrong.has(id) && !marks.right.has(id)));
    const [turn] = marks.turn;
    chosen = first ?? turn ?? 0;
    unfold(chosen);
    const size = tree.nodes.length < tree.size ? `${tree.nodes.length} of ${tree.size} nodes are shown` : `${tree.size} nodes`;
    at("tree-problem").replaceChildren(
      element("pre", { class: "plain", text: tree.question }), ...pictures(tree),
      paragraph(`Right answer: ${tree.answer}. ${size}, ${tree.rollouts} rollouts, ${tree.tokens} tokens; the search ended by: ${tree.stopped}. Problem ${tree.problemId} of ${tree.source}.`, "note"));
    drawPicture();
    drawOutline();
    showNode();
    reveal(at("tree-outline"), at("tree-outline").querySelector('[aria-selected="true"]'));
    const { before, after } = neighbours();
    at("tree-before").disabled = !before;
    at("tree-after").disabled = !after;
  }

  function drawPicture() {
    const root = d3.hierarchy(0, (id) => children.get(id));
    const box = at("tree-picture");
    const across = Math.max(18, Math.min(40, box.clientWidth / root.leaves().length));
    const down = Math.max(44, Math.min(64, 420 / root.height));
    d3.tree().nodeSize([across, down]).separation((a, b) => a.parent === b.parent ? 1 : 1.3)(root);
    const all = root.descendants();
    const left = Math.min(...all.map((node) => node.x)) - 50;
    const width = Math.max(...all.map((node) => node.x)) - left + 50;
    const height = root.height * down + 50;
    const svg = drawn("svg", { viewBox: `${left} -24 ${width} ${height}`, width, height });
    for (const { source, target } of root.links()) {
      const kind = marks.wrong.has(target.data) && !marks.right.has(target.data) ? "wrong" : marks.right.has(target.data) ? "right" : "";
      const middle = (source.y + target.y) / 2;
      svg.append(drawn("path", { class: `link ${kind}`, d: `M${source.x},${source.y}C${source.x},${middle} ${target.x},${middle} ${target.x},${target.y}` }));
    }
    for (const node of all) {
      const data = nodes.get(node.data), turn = marks.turn.has(node.data);
      const circle = drawn("circle", { class: `node ${band(data)} ${turn ? "turn" : ""}`, cx: node.x, cy: node.y, r: turn ? 10 : 7, "data-node": node.data });
      circle.append(drawn("title", {}, `${badge(data)}  ${caption(data)}`));
      circle.addEventListener("click", () => choose(node.data, true));
      svg.append(circle);
    }
    // Last, so that no node lies on them.
    for (const node of all.filter((node) => marks.turn.has(node.data))) {
      svg.append(drawn("text", { class: "cross", x: node.x + 15, y: node.y - 13 }, "✗ wrong turn"));
    }
    box.replaceChildren(svg);
  }
  // Puts what is in a box in its middle if it is near an edge or beyond; nothing around the box is scrolled.
  function reveal(box, inner) {
    const outer = box.getBoundingClientRect(), rect = inner.getBoundingClientRect();
    const across = (rect.left + rect.right - outer.left - outer.right) / 2, down = (rect.top + rect.bottom - outer.top - outer.bottom) / 2;
    if (Math.abs(across) > outer.width / 2 - 60) box.scrollLeft += across;
    if (Math.abs(down) > outer.height / 2 - 40) box.scrollTop += down;
  }

  function drawOutline() {
    const lines = [];
    const waiting = [[0, 1]];
    while (waiting.length) {
      const [id, level] = waiting.pop();
      const node = nodes.get(id), below = children.get(id), turn = marks.turn.has(id);
      const line = element("div", {
        role: "treeitem", "aria-level": level, "aria-selected": id === chosen, tabindex: id === chosen ? 0 : -1,
        class: `item ${turn ? "turn" : ""}`, "data-node": id,
        on: { click: (event) => { if (event.target.classList.contains("fold")) fold(id); choose(id, true); }, keydown: (event) => steer(event, id) },
      }, element("span", { class: "fold", "aria-hidden": "true", text: below.length ? (closed.has(id) ? "▸" : "▾") : "" }),
      element("span", { class: `chip ${band(node)}`, text: badge(node) }), element("span", { class: "text", text: caption(node) }));
      if (below.length) line.setAttribute("aria-expanded", !closed.has(id));
      if (turn) line.append(element("span", { class: "turn-mark", text: "✗ wrong turn" }));
      line.style.paddingLeft = `${Math.min(level - 1, 24) * 1.1 + 0.3}rem`;
      lines.push(line);
      if (!closed.has(id)) for (const child of [...below].reverse()) waiting.push([child, level + 1]);
    }
    at("tree-outline").replaceChildren(...lines);
  }

  function fold(id) {
    if (closed.has(id)) closed.delete(id); else closed.add(id);
  }
  function unfold(id) {
    for (let up = nodes.get(id)[PARENT]; up >= 0; up = nodes.get(up)[PARENT]) closed.delete(up);
  }
  function choose(id, focus) {
    chosen = id;
    unfold(id);
    drawOutline();
    showNode();
    if (focus) at("tree-outline").querySelector('[aria-selected="true"]').focus({ preventScroll: false });
  }
  function steer(event, id) {
    const lines = [...at("tree-outline").children];
    const here = lines.findIndex((line) => Number(line.dataset.node) === id);
    const go = (index) => lines[index] && choose(Number(lines[index].dataset.node), true);
    const acts = {
      ArrowDown: () => go(here + 1), ArrowUp: () => go(here - 1), Home: () => go(0), End: () => go(lines.length - 1),
      ArrowRight: () => { if (closed.has(id) && children.get(id).length) { closed.delete(id); choose(id, true); } else if (children.get(id).length) choose(children.get(id)[0], true); },
      ArrowLeft: () => { if (!closed.has(id) && children.get(id).length) { closed.add(id); choose(id, true); } else if (nodes.get(id)[PARENT] >= 0) choose(nodes.get(id)[PARENT], true); },
      Enter: () => { choose(id, true); }, " ": () => { fold(id); choose(id, true); },
    };
    if (acts[event.key]) { event.preventDefault(); acts[event.key](); }
  }

  function range(node) {
    const bar = element("div", { class: "range", role: "img", "aria-label": `interval ${node[LOW]} to ${node[HIGH]}` });
    const span = element("i"), point = element("b");
    span.style.left = `${100 * node[LOW]}%`;
    span.style.width = `${100 * (node[HIGH] - node[LOW])}%`;
    point.style.left = `${100 * node[RIGHT] / node[SCORED]}%`;
    bar.append(span, point);
    return bar;
  }
  function showNode() {
    const node = nodes.get(chosen), parts = [];
    for (const circle of at("tree-picture").querySelectorAll("circle")) {
      if (circle.classList.toggle("chosen", Number(circle.dataset.node) === chosen)) reveal(at("tree-picture"), circle);
    }
    parts.push(element("h3", { text: chosen ? `Node ${chosen}` : "The problem" }));
    if (marks.turn.has(chosen)) parts.push(element("p", { class: "turn-mark", text: "✗ The wrong turn: here rollouts locate the first error." }));
    parts.push(element("pre", { class: "plain", text: chosen ? caption(node) : tree.question }));
    if (node[SCORED]) {
      parts.push(paragraph(`Direct rollouts: ${node[RIGHT]} of ${node[SCORED]} right, 90 % interval ${node[LOW].toFixed(2)} to ${node[HIGH].toFixed(2)}.`), range(node));
    } else if (!node[OUTCOME]) parts.push(paragraph("No rollout started here."));
    if (node[UNSCORED]) parts.push(paragraph(`${node[UNSCORED]} rollouts unscored.`));
    if (node[OUTCOME]) parts.push(paragraph(`Ends a solution: answer ${node[ANSWER] || "none"}, ${node[OUTCOME]}${node[REASON] ? ` (${node[REASON]})` : ""}.`));
    if (node[MESSAGE]) parts.push(paragraph("The checker said:"), element("pre", { class: "plain", text: node[MESSAGE] }));
    for (const path of tree.paths.filter((path) => path.wrong.includes(chosen) || path.right.includes(chosen))) {
      const step = path.wrong.indexOf(chosen);
      if (step >= 0) parts.push(paragraph(`On the wrong path, step ${step + 1}: probability ${path.posterior[step]} that it is the first wrong one. Gap to the right path: p = ${path.p.toPrecision(2)}.`));
      else parts.push(paragraph(`On the right path, step ${path.right.indexOf(chosen) + 1}.`));
    }
    const about = (byProblem.get(tree.problemId) ?? []).filter((row) => !chosen || (pathOf(row) && criticised(pathOf(row)).includes(chosen)));
    if (about.length) parts.push(element("h3", { text: chosen ? "Critiques of the path through it" : "What became of it" }), ...about.map((row) => rowOf(row, false)));
    at("tree-node").replaceChildren(...parts);
    at("tree-node").scrollTop = 0;
  }

  const listed = () => trees.filter((item) => !at("tree-turns").checked || item.paths.some((path) => path.turn >= 0));
  function neighbours() {
    const list = listed(), here = list.indexOf(tree);
    return { before: list[here - 1], after: list[here + 1] };
  }
  function fillTrees(wanted, first) {
    const list = listed();
    at("tree-choice").replaceChildren(...list.map((item) => new Option(`${item.problemId.slice(0, 30)}: ${item.question.slice(0, 70)}`, trees.indexOf(item))));
    at("tree-count").textContent = `${list.length} of ${trees.length} trees`;
    const next = list.includes(wanted) ? wanted : list[0];
    if (next) { at("tree-choice").value = trees.indexOf(next); showTree(next, first); }
  }
  function goTree(wanted, first) {
    if (!listed().includes(wanted)) at("tree-turns").checked = false;
    fillTrees(wanted, first);
  }
  // To the node whose panel holds a row: its path's wrong turn, else the path's end, else the problem.
  function goRow(row) {
    const path = pathOf(row);
    goTree(homes.get(row.problemId), !path ? 0 : path.turn >= 0 ? path.turn : path.right.at(-1));
    const panel = at("tree-node"), box = [...panel.querySelectorAll(".row")].find((each) => each.dataset.row === row.id);
    box.open = true;
    box.dispatchEvent(new Event("toggle"));
    panel.scrollTop = box.offsetTop - 8;
    panel.scrollIntoView({ block: "end" });
    box.querySelector("summary").focus({ preventScroll: true });
  }

  // The rows.
  const PAGE = 20;
  const WORDS = ["id", "problemId", "path", "agent", "text", "second"];
  let found = rows, page = 0;
  const choices = { decision: (row) => [row.decision], reason: (row) => row.reasons, agent: (row) => row.agent ? [row.agent] : [], stage: (row) => [row.stage], label: (row) => row.label ? [row.label] : [] };
  const form = at("row-filters");
  for (const [name, of] of Object.entries(choices)) {
    const values = known(rows.flatMap(of));
    form.elements[name].replaceChildren(new Option("all", ""), ...values.map((value, i) => new Option(value, `=${value}`)));
  }
  function filter() {
    const text = form.elements.text.value.trim().toLowerCase();
    found = rows.filter((row) => Object.entries(choices).every(([name, of]) => !form.elements[name].value || of(row).includes(form.elements[name].value.slice(1)))
      && (!text || WORDS.some((name) => (row[name] ?? "").toLowerCase().includes(text))));
    page = 0;
    listRows();
  }
  const ratio = (counts) => counts.length ? `${counts[0]} of ${counts[1]}` : "not measured";
  const chance = (p) => p === null ? "" : ` (p = ${p.toPrecision(2)})`;
  // The criticised path, step by step; `named` is the step that a critique names, from 1.
  function solution(home, path, named) {
    const texts = new Map(home.nodes.map((node) => [node[ID], node[TEXT]]));
    return element("ol", { class: "steps" }, ...criticised(path).map((id, i) => {
      const line = element("span", { text: texts.get(id) || "(empty)" });
      if (id === path.turn) line.append("  ", element("span", { class: "mark turn-mark", text: "✗ wrong turn" }));
      if (i + 1 === named) line.append("  ", element("span", { class: "mark said", text: "◂ named by the critique" }));
      return element("li", { class: id === path.turn ? "turn" : "" }, line);
    }));
  }
  function rowOf(row, linked) {
    const kind = { kept: "good", rejected: "bad", failed: "fail" }[row.decision];
    const body = element("div");
    const box = element("details", { class: "row", "data-row": row.id }, element("summary", {}, element("span", { class: `tag ${kind}`, text: { kept: "✓ kept", rejected: "✗ rejected", failed: "! failed" }[row.decision] }),
      ...row.reasons.map((text) => element("span", { class: "reason", text })), element("span", { text: row.agent ?? row.stage }), element("span", { class: "preview", text: row.text.slice(0, 160) })), body);
    const fill = () => {
      const home = homes.get(row.problemId), path = pathOf(row);
      const heading = (text) => element(linked ? "h3" : "h4", { text });
      const said = element("div", {}, heading(row.help ? "Critique" : "Detail"), element("pre", { class: kind, text: row.text || "(no text)" }));
      const asked = element("div", {}, heading(!linked ? "Solution" : path ? "Problem and solution" : "Problem"));
      if (linked && home) asked.append(element("pre", { class: "plain", text: home.question }), ...pictures(home));
      if (path) asked.append(solution(home, path, row.named));
      body.replaceChildren(element("div", { class: "pair" }, ...(asked.children.length > 1 ? [asked] : []), said));
      if (row.help) {
        body.append(
          paragraph(`By ${row.agent}, view ${row.view}, of a ${row.label} path. Rollouts locate ${row.located ? `step ${row.located}` : "no error"}; it names ${row.named ? `step ${row.named}` : "no step"}.`),
          paragraph(!row.help.some((counts) => counts.length) ? "No second solutions were written." : `Second solutions right: ${ratio(row.help[0])} with it, ${ratio(row.help[1])} with a placebo${chance(row.p[0])}, ${ratio(row.help[2])} without${chance(row.p[1])}.`));
        if (row.leak) body.append(paragraph(`Gives the answer away: ${row.leak}`));
        if (row.second) body.append(heading("A right second solution written with it"), element("pre", { class: "plain", text: row.second }));
      }
      body.append(paragraph(`${row.stage}, id ${row.id}, problem ${row.problemId}`, "note"));
      if (linked && home) body.append(element("button", { type: "button", text: "Show its tree", on: { click: () => goRow(row) } }));
    };
    box.addEventListener("toggle", () => { if (box.open && !body.hasChildNodes()) fill(); });
    return box;
  }
  function listRows() {
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    at("row-count").textContent = `${found.length} of ${rows.length} shown`;
    at("row-list").replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map((row) => rowOf(row, true)));
    at("row-page").textContent = `page ${page + 1} of ${pages}`;
    at("row-before").disabled = page === 0;
    at("row-after").disabled = page + 1 >= pages;
  }
  form.addEventListener("input", filter);
  form.addEventListener("reset", () => setTimeout(filter));
  form.addEventListener("submit", (event) => event.preventDefault());
  at("row-before").addEventListener("click", () => { page -= 1; listRows(); });
  at("row-after").addEventListener("click", () => { page += 1; listRows(); });

  at("tree-choice").addEventListener("change", (event) => showTree(trees[Number(event.target.value)]));
  at("tree-before").addEventListener("click", () => goTree(neighbours().before));
  at("tree-after").addEventListener("click", () => goTree(neighbours().after));
  at("tree-turns").addEventListener("change", () => fillTrees(tree));
  if (!trees.some((item) => item.paths.some((path) => path.turn >= 0))) at("tree-turns").checked = false;
  fillTrees(trees[0]);
  listRows();
})();

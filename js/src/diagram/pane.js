// One network on the page: toolbar, picture, details; and what mouse and keys do to it.
import { copyText } from "../lib/clipboard.js";
import { h, icon, setAttribute, setText } from "../lib/dom.js";
import { createDetails } from "./details.js";
import { createDrawing, nameOf, sentenceOf } from "./draw.js";
import { download } from "../lib/download.js";
import { pngBlob, svgText } from "./export.js";
import { ancestors, buildCells, visibleCells } from "./fold.js";
import { readGraph } from "./graph.js";
import { createLayout } from "./layout.js";
import { liftEdges } from "./lift.js";
import { createMinimap } from "./minimap.js";
import { ROLES, roleOf } from "./roles.js";
import { findNodes } from "./search.js";
import { cut } from "./text.js";
import { createViewport } from "./viewport.js";

const MOST_VISIBLE = 600; // parts that "expand all" opens
const READABLE = 0.75; // scale below which the first view shows the top instead of everything
const SMALLEST = 0.45; // scale down to which opening a wide group zooms out
const ICONS = {
  minus: "M2 5.300h8v1.400H2z",
  plus: "M2 5.300h3.300V2h1.400v3.300H10v1.400H6.700V10H5.300V6.700H2z",
  fit: "M1 1h4v1.400H2.400V5H1zM7 1h4v4H9.600V2.400H7zM1 7h1.400v2.600H5V11H1zM9.600 7H11v4H7V9.600h2.600z",
  open: "M1 4l1-1 4 4 4-4 1 1-5 5zM1 0.600h10v1.400H1z",
  close: "M1 8l1 1 4-4 4 4 1-1-5-5zM1 10h10v1.400H1z",
  save: "M5.300 1h1.400v5l1.600-1.600 1 1L6 8.700 2.700 5.400l1-1L5.300 6zM1 9.600h10V11H1z",
};

/**
 * @param {object} data as Python packed it
 * @param {{selected: string, expanded: string[], title?: string, onSelect: (id: string) => void,
 *   onExpand: (ids: string[]) => void, onTrouble: (text: string) => void, mark?: (cell: any) => any, extra?: (cell: any) => [string, string][], height: number}} options
 */
export function createPane(data, options) {
  const graph = readGraph(data);
  const cells = buildCells(graph);
  const layout = createLayout(graph, cells);
  const clean = (ids) => new Set((ids ?? []).filter((id) => cells.byId.has(id) && cells.byId.get(id).kind !== "leaf"));
  let open = clean(options.expanded),
    selected = cells.byId.has(options.selected) ? options.selected : "",
    focusId = selected,
    scene = null,
    found = [],
    foundAt = -1,
    visible = [];
  const counters = { layouts: 0, ms: 0 };

  // ---- the page -------------------------------------------------------------------------------------------------
  const tool = (name, path, label, action, text = "") =>
    h("button", { class: `nnb-tool nnb-${name}`, type: "button", title: label, "aria-label": label, on: { click: action } }, path && icon(path), text);
  const query = h("input", { class: "nnb-search", type: "search", placeholder: "Search  /", "aria-label": "Search parts by name or type", spellcheck: "false", autocomplete: "off" });
  const hits = h("span", { class: "nnb-hits", role: "status" });
  const percent = h("button", { class: "nnb-tool nnb-percent", type: "button", title: "Actual size (0)", "aria-label": "Actual size", on: { click: () => actualSize() } }, "100 %");
  const menu = h(
    "div",
    { class: "nnb-menu", role: "menu", hidden: true },
    ...[
      ["Save as SVG", () => save("svg")],
      ["Save as PNG", () => save("png")],
      ["Copy as SVG", () => save("copy")],
    ].map(([text, action]) => h("button", { type: "button", role: "menuitem", on: { click: () => (toggleMenu(false), saver.focus(), action()) } }, text)),
  );
  const saver = tool("save", ICONS.save, "Save the picture", () => toggleMenu(menu.hidden));
  setAttribute(saver, "aria-haspopup", "menu");
  const toolbar = h(
    "div",
    { class: "nnb-tools" },
    h("div", { class: "nnb-find" }, query, hits),
    h(
      "div",
      { class: "nnb-toolset" },
      tool("expand-all", ICONS.open, "Expand all (e)", () => expandAll()),
      tool("collapse-all", ICONS.close, "Collapse all (c)", () => collapseAll()),
    ),
    h(
      "div",
      { class: "nnb-toolset" },
      tool("zoom-out", ICONS.minus, "Zoom out (−)", () => viewport.zoom(1 / 1.25)),
      percent,
      tool("zoom-in", ICONS.plus, "Zoom in (+)", () => viewport.zoom(1.25)),
      tool("fit", ICONS.fit, "Fit the whole picture (f)", () => viewport.fit()),
    ),
    h("div", { class: "nnb-toolset nnb-saving" }, saver, menu),
  );
  const crumbs = h("nav", { class: "nnb-crumbs", "aria-label": "Where you are" });
  const drawing = createDrawing(graph, { mark: options.mark });
  const layer = h("div", { class: "nnb-layer" }, drawing.svg);
  const canvas = h("div", { class: "nnb-canvas", tabindex: -1 }, layer);
  canvas.style.height = `${Math.round(options.height)}px`; // an attribute would break the policy of stand-alone pages
  const viewport = createViewport(canvas, layer, {
    onMove: () => {
      setText(percent, `${Math.round(100 * viewport.view.k)} %`);
      minimap.update();
    },
  });
  const minimap = createMinimap(viewport, () => {
    const style = getComputedStyle(root),
      read = (name) => style.getPropertyValue(name).trim();
    return { frame: read("--nnb-soft"), part: read("--nnb-line"), accent: read("--nnb-accent") };
  });
  canvas.append(minimap.canvas);
  const details = createDetails(graph);
  const legend = legendOf(graph);
  if (!graph.complete) options.onTrouble(`The trace stopped before its end, so this picture is not complete. ${cut(graph.error, 600)}`);
  const outline = h("details", { class: "nnb-outline" }, h("summary", {}, "Text outline"), h("pre", { tabindex: 0 }));
  outline.addEventListener("toggle", () => outline.open && writeOutline());
  const speech = h("div", { class: "nnb-hidden", "aria-live": "polite" });
  const root = h(
    "section",
    { class: "nnb-pane", "aria-label": `Diagram of ${graph.name.slice(0, 200)}` },
    options.title && h("div", { class: "nnb-pane-title", title: cut(options.title, 600) }, cut(options.title, 120)),
    toolbar,
    crumbs,
    h("div", { class: "nnb-main" }, h("div", { class: "nnb-picture" }, canvas, legend), details.root),
    outline,
    speech,
  );

  // ---- drawing --------------------------------------------------------------------------------------------------
  function update() {
    const start = performance.now();
    scene = layout.scene(open, liftEdges(graph, cells, open));
    viewport.setSize(scene.width, scene.height);
    drawing.draw(scene);
    visible = visibleCells(cells.root, open);
    if (!visible.some((cell) => cell.id === focusId)) focusId = shownFor(focusId)?.id ?? visible[0]?.id ?? "";
    drawing.select(selected, focusId);
    minimap.remember(scene);
    minimap.update();
    if (found.length) showFound();
    if (outline.open) writeOutline();
    counters.layouts++;
    counters.ms = performance.now() - start;
    Object.assign(root.dataset, { visible: visible.length, open: open.size, ms: counters.ms.toFixed(1), selected: selected.slice(0, 200) });
  }

  const itemOf = (id) => scene?.items.find((item) => item.cell.id === id);

  /** The part itself, or the closed group that holds it. */
  function shownFor(id) {
    const cell = cells.byId.get(id);
    if (!cell) return null;
    return ancestors(cell).find((holder) => !open.has(holder.id)) ?? cell;
  }

  /** Changes what is open; the part that caused it stays where it is on the screen. */
  function setOpen(next, anchor = "") {
    const before = anchor && itemOf(anchor);
    open = next;
    update();
    const after = anchor && itemOf(anchor);
    if (before && after) {
      viewport.shift(before.x + before.w / 2 - after.x - after.w / 2, before.y - after.y);
      if (after.open) {
        const wide = (after.w + 32) * viewport.view.k;
        if (wide > viewport.view.w) viewport.zoom(Math.max(viewport.view.w / wide, SMALLEST / viewport.view.k), undefined, after.y);
        viewport.reveal({ ...after, h: Math.min(after.h, (0.8 * viewport.view.h) / viewport.view.k) });
      }
    } else if (!viewport.moved) viewport.fit(READABLE);
    else viewport.apply();
    options.onExpand([...open]);
  }

  function toggle(id, on = !open.has(id)) {
    const cell = cells.byId.get(id);
    if (!cell || cell.kind === "leaf" || open.has(id) === on) return false;
    const next = new Set(open);
    if (on) next.add(id);
    else next.delete(id);
    setOpen(next, id);
    say(`${nameOf(cell).slice(0, 80)} ${on ? `opened, ${cell.children.length} parts` : "closed"}`);
    return true;
  }

  function expandAll() {
    const next = new Set(open);
    // level by level, as long as it can still be taken in
    let level = visible.filter((cell) => cell.kind !== "leaf" && !open.has(cell.id)),
      count = visible.length;
    while (level.length) {
      const more = level.reduce((sum, cell) => sum + cell.children.length, 0);
      if (count + more > MOST_VISIBLE && next.size > open.size) break;
      count += more;
      for (const cell of level) next.add(cell.id);
      level = level.flatMap((cell) => cell.children.filter((child) => child.kind !== "leaf" && !next.has(child.id)));
      if (count > MOST_VISIBLE) break;
    }
    setOpen(next);
    viewport.fit(0.35);
  }

  function collapseAll() {
    setOpen(new Set());
    viewport.fit(READABLE);
  }

  /** @param {{focus?: boolean, tell?: boolean, show?: boolean}} how */
  function select(id, { focus = false, tell = true, show = true } = {}) {
    const cell = cells.byId.get(id) ?? null;
    const changed = selected !== (cell?.id ?? "");
    selected = cell?.id ?? "";
    if (cell) {
      focusId = selected;
      const closed = ancestors(cell).filter((holder) => !open.has(holder.id));
      if (closed.length) setOpen(new Set([...open, ...closed.map((holder) => holder.id)]));
    }
    drawing.select(selected, focusId);
    details.show(cell, options.extra?.(cell) ?? []);
    writeCrumbs(cell);
    root.dataset.selected = selected.slice(0, 200);
    if (cell && show) {
      const item = itemOf(selected);
      if (item) viewport.reveal(item.open ? { ...item, h: 60 } : item);
    }
    if (focus) drawing.element(focusId)?.focus({ preventScroll: true });
    if (tell && changed) options.onSelect(selected);
  }

  function writeCrumbs(cell) {
    const path = cell ? [...ancestors(cell), cell] : [];
    const crumb = (text, id, current) =>
      h("button", { type: "button", title: cut(text, 600), "aria-current": current ? "true" : null, on: { click: () => select(id) } }, cut(text, 60));
    crumbs.replaceChildren(
      crumb(graph.name, "", !cell),
      ...path.flatMap((part, i) => [h("span", { "aria-hidden": "true" }, "›"), crumb(nameOf(part), part.id, i === path.length - 1)]),
    );
  }

  function writeOutline() {
    const lines = visible.map((cell) => `${"  ".repeat(cell.depth - 1)}${open.has(cell.id) ? "▾ " : cell.kind === "leaf" ? "" : "▸ "}${sentenceOf(cell, graph.batch)}`);
    setText(outline.lastChild, lines.join("\n"));
  }

  const say = (text) => setText(speech, text);

  // ---- search ---------------------------------------------------------------------------------------------------
  function search() {
    found = findNodes(graph, query.value);
    foundAt = -1;
    setText(hits, query.value.trim() ? (found.length ? `${found.length}` : "none") : "");
    showFound();
  }

  function showFound() {
    drawing.matches(new Set(found.map((node) => shownFor(node.id)?.id)));
  }

  function nextFound(step) {
    if (!found.length) return;
    foundAt = (foundAt + step + found.length) % found.length;
    select(found[foundAt].id);
    showFound();
    setText(hits, `${foundAt + 1}/${found.length}`);
  }
  query.addEventListener("input", search);
  query.addEventListener("keydown", (event) => {
    if (event.key === "Enter") nextFound(event.shiftKey ? -1 : 1);
    else if (event.key === "Escape") {
      query.value = "";
      search();
      drawing.element(focusId)?.focus({ preventScroll: true });
    } else return;
    event.preventDefault();
  });

  // ---- saving ---------------------------------------------------------------------------------------------------
  function toggleMenu(on) {
    menu.hidden = !on;
    setAttribute(saver, "aria-expanded", String(on));
    if (on) menu.firstChild.focus();
  }
  menu.addEventListener("keydown", (event) => {
    const items = [...menu.children],
      at = items.indexOf(event.target);
    if (event.key === "Escape") {
      toggleMenu(false);
      saver.focus();
    } else if (event.key === "ArrowDown") items[(at + 1) % items.length].focus();
    else if (event.key === "ArrowUp") items[(at + items.length - 1) % items.length].focus();
    else return;
    event.preventDefault();
  });
  menu.addEventListener("focusout", (event) => !menu.contains(event.relatedTarget) && event.relatedTarget !== saver && toggleMenu(false));

  async function save(kind) {
    const name = (graph.name.replace(/[^\w-]+/g, "_").slice(0, 60) || "model").toLowerCase();
    try {
      if (kind === "png") download(await pngBlob(drawing.svg, root), `${name}.png`);
      else {
        const text = svgText(drawing.svg, root);
        if (kind === "copy") say((await copyText(text, root)) ? "Copied" : "This page may not use the clipboard");
        else download(new Blob([text], { type: "image/svg+xml" }), `${name}.svg`);
      }
      root.dataset.saved = kind;
    } catch (error) {
      options.onTrouble(`The picture could not be saved: ${error.message}`);
    }
  }

  // ---- mouse and keys -------------------------------------------------------------------------------------------
  canvas.addEventListener("click", (event) => {
    const id = drawing.idOf(event.target);
    if (id == null) {
      if (!event.target.closest(".nnb-minimap")) select("");
      return canvas.focus({ preventScroll: true });
    }
    select(id, { show: false });
    toggle(id);
    const element = drawing.element(focusId);
    if (element && element !== element.getRootNode().activeElement) element.focus({ preventScroll: true });
  });
  canvas.addEventListener("dblclick", (event) => event.preventDefault());
  let pointed = null;
  canvas.addEventListener("pointerover", (event) => {
    const id = drawing.idOf(event.target);
    if (id !== pointed) drawing.hot((pointed = id) ?? selected);
  });

  function actualSize() {
    viewport.zoom(1 / viewport.view.k);
  }

  function step(by) {
    const at = visible.findIndex((cell) => cell.id === focusId);
    const next = visible[Math.min(visible.length - 1, Math.max(0, at < 0 ? 0 : at + by))];
    if (next) select(next.id, { focus: true });
  }

  function keys(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, select, .nnb-menu")) return;
    const inTree = canvas.contains(event.target),
      cell = cells.byId.get(focusId);
    const handled = () => {
      switch (event.key) {
        case "/":
          return query.focus(), query.select(), true;
        case "+":
        case "=":
          return viewport.zoom(1.25), true;
        case "-":
          return viewport.zoom(1 / 1.25), true;
        case "0":
          return actualSize(), true;
        case "f":
          return viewport.fit(), true;
        case "e":
          return expandAll(), true;
        case "c":
          return collapseAll(), true;
      }
      if (!inTree) return false;
      switch (event.key) {
        case "ArrowDown":
          return step(1), true;
        case "ArrowUp":
          return step(-1), true;
        case "Home":
          return step(-Infinity), true;
        case "End":
          return step(Infinity), true;
        case "ArrowRight":
          if (cell && !toggle(cell.id, true) && open.has(cell.id)) select(cell.children[0].id, { focus: true });
          return true;
        case "ArrowLeft":
          if (cell && !toggle(cell.id, false) && cell.parent.kind !== "root") select(cell.parent.id, { focus: true });
          return true;
        case "Enter":
        case " ":
          if (cell) {
            select(cell.id, { focus: true });
            toggle(cell.id);
          }
          return true;
        case "Escape":
          return select(""), true;
      }
      return false;
    };
    if (handled()) {
      event.preventDefault();
      const element = inTree && event.key !== "/" && drawing.element(focusId);
      if (element && element !== element.getRootNode().activeElement) element.focus({ preventScroll: true });
    }
  }
  root.addEventListener("keydown", keys);

  select(selected, { tell: false });
  update();
  let seenWidth = 0;

  return {
    root,
    graph,
    cells,
    counters,
    viewport,
    get scene() {
      return scene;
    },
    get open() {
      return open;
    },
    /** From Python: shows the part and selects it. */
    setSelected(id) {
      if (id !== selected) select(id, { tell: false });
    },
    setExpanded(ids) {
      const next = clean(ids);
      const changed = [...next, ...open].filter((id) => next.has(id) !== open.has(id));
      if (changed.length) setOpen(next, changed.find((id) => shownFor(id)?.id === id));
    },
    resize() {
      const width = viewport.measure().w;
      if (!width || width === seenWidth) return;
      const first = !seenWidth;
      seenWidth = width;
      if (first || !viewport.moved) viewport.fit(READABLE);
      else viewport.apply();
      const item = first && selected && itemOf(selected);
      if (item) viewport.reveal(item.open ? { ...item, h: 60 } : item);
    },
    repaint: () => minimap.repaint(),
  };
}

/** Which colours and signs there are in this picture, and what the lines mean. */
function legendOf(graph) {
  const roles = new Map();
  for (const node of graph.nodes) if (node.kind !== "input" && node.kind !== "output") roles.set(roleOf(node), (roles.get(roleOf(node)) ?? 0) + 1);
  const entry = (role) =>
    h("span", { class: "nnb-key-role", data: { tone: ROLES[role].tone } }, h("i", {}, icon(ROLES[role].sign)), ROLES[role].name);
  const line = (kind, text) => h("span", { class: "nnb-key-line" }, h("i", { class: `nnb-line-${kind}` }), text);
  const order = Object.keys(ROLES).filter((role) => roles.has(role));
  return h(
    "div",
    { class: "nnb-legend", "aria-label": "Legend" },
    ...order.map(entry),
    line("skip", "skip connection"),
    h("span", { class: "nnb-key-line" }, h("i", { class: "nnb-line-share" }), "share of MACs"),
    h("span", { class: "nnb-key-line" }, h("b", {}, "64×28×28"), "bold where the shape changes"),
    h("span", { class: "nnb-key-line" }, graph.batch != null ? `shapes of one sample (batch of ${graph.batch} left out); [ ] whole shape` : "[ ] whole shape"),
  );
}

// From a scene to SVG. Elements are kept between drawings; text only ever enters as text.
import { s, setAttribute } from "../lib/dom.js";
import { shapesText } from "./graph.js";
import { HEAD, hasNumbers } from "./layout.js";
import { formatBytes, formatCompact, ROLES, roleOf } from "./roles.js";
import { cut, fitText, textWidth } from "./text.js";

const FONT = "system-ui, sans-serif"; // only to measure
const BOLD = `600 12.5px ${FONT}`,
  SMALL = `11.5px ${FONT}`;

/** Which of several calls of the same module this is. */
const callOf = (node) => Number(node.id.match(/@(\d+)$/)?.[1] ?? 1);

/** The class; of a plain list of equal parts what it is a list of. */
export function typeOf(cell) {
  const { node } = cell,
    types = new Set(node.children.map((child) => child.type));
  if (cell.kind === "fold") return node.type;
  if (/^(Sequential|ModuleList)$/.test(node.type) && types.size === 1 && node.children.length > 1) return `${node.children.length} × ${[...types][0]}`;
  return node.type;
}

const numberParts = ({ params, macs, bytes }) =>
  [params && `${formatCompact(params)} params`, macs && `${formatCompact(macs)} MACs`, bytes && formatBytes(bytes)].filter(Boolean);

/** As many of the numbers as have room. */
function fittingNumbers(cost, room) {
  const parts = numberParts(cost);
  while (parts.length > 1 && textWidth(parts.join(" · "), SMALL) > room) parts.pop();
  return fitText(parts.join(" · "), room, SMALL);
}

/** "215k params · 680M MACs · 7.2 MB", without what is zero. */
export function numbersText({ params, macs, bytes }) {
  return numberParts({ params, macs, bytes }).join(" · ");
}

/** What a fold or a part is called, in full. */
export function nameOf(cell) {
  return cell.kind === "fold" ? `${cell.node.label} … ${cell.last.label}` : cell.node.label;
}

/** One part in a sentence, for screen readers and tooltips. */
export function sentenceOf(cell, batch) {
  const { node } = cell;
  const words = [
    nameOf(cell).slice(0, 200),
    node.kind === "input" || node.kind === "output" ? node.kind : String(node.type).slice(0, 200),
    cell.count > 1 && `${cell.count} times`,
    node.calls > 1 && `runs ${node.calls} times`,
    numbersText(cell.cost),
    node.shapes_out?.length && `gives ${shapesText(node.shapes_out, batch)}`,
    node.shares && "shares its parameters with an earlier part",
    node.uncounted?.length && "some operations are not counted",
  ];
  return words.filter(Boolean).join(", ");
}

/**
 * @param {{batch: number|null, totals: any}} graph
 * @param {{mark?: (cell: any) => {sign: string, text: string}|null}} options
 */
export function createDrawing(graph, { mark = () => null } = {}) {
  const frames = s("g", { "aria-hidden": "true" }),
    curves = s("g", { "aria-hidden": "true", class: "nnb-curves" }),
    labels = s("g", { "aria-hidden": "true", class: "nnb-shapes" }),
    nodes = s("g", { role: "presentation" });
  const svg = s("svg", { class: "nnb-scene", role: "tree", "aria-label": `Architecture of ${graph.name.slice(0, 200)}` }, frames, curves, labels, nodes);
  const shown = new Map(), // id → what is on the page
    ids = new WeakMap();
  let drawn = { curves: [], items: [] };

  function badge(role, x, y) {
    return s(
      "g",
      { transform: `translate(${x} ${y})`, class: "nnb-badge" },
      s("rect", { width: 20, height: 20, rx: 5 }),
      s("path", { d: ROLES[role].sign, transform: "translate(4 4)" }),
    );
  }

  const text = (x, y, cls, content, more = {}) => s("text", { x, y, class: cls, ...more }, content);

  function chevron(x, y, open) {
    return s("path", { class: "nnb-chevron", d: open ? "M-4 -2L0 2.500L4 -2" : "M-2 -4L2.500 0L-2 4", transform: `translate(${x} ${y})` });
  }

  /** A rounded label at the right end; returns it and its width. */
  function pill(content, right, middle, cls) {
    const w = textWidth(content, `600 11px ${FONT}`) + 14;
    return [
      s(
        "g",
        { class: cls, transform: `translate(${right - w} ${middle - 9})` },
        s("rect", { width: Math.round(w), height: 18, rx: 9 }),
        s("text", { x: w / 2, y: 12.8, "text-anchor": "middle" }, content),
      ),
      w,
    ];
  }

  function closed(item) {
    const { cell, w, h } = item,
      { node } = cell,
      role = roleOf(node),
      opens = cell.kind !== "leaf";
    const parts = [];
    for (let i = opens ? (cell.count > 1 ? 2 : 1) : 0; i > 0; i--)
      parts.push(s("rect", { class: "nnb-behind", x: 4 * i, y: 4 * i, width: w - 4 * i, height: h - 4 * i, rx: 7 }));
    const ch = opens ? h - (cell.count > 1 ? 8 : 4) : h,
      cw = opens ? w - (cell.count > 1 ? 8 : 4) : w;
    const numbers = hasNumbers(cell);
    parts.push(s("rect", { class: "nnb-card", width: cw, height: ch, rx: node.kind === "module" || opens ? 7 : ch / 2 }));
    parts.push(badge(role, numbers || opens ? 8 : 6, (ch - 20) / 2));
    let right = cw - 10;
    if (opens) {
      parts.push(chevron(right - 3, ch / 2, false));
      right -= 16;
    }
    if (cell.count > 1) {
      const [element, width] = pill(`×${cell.count}`, right, ch / 2, "nnb-times");
      parts.push(element);
      right -= width + 6;
    }
    right -= flags(parts, cell, right, ch / 2);
    const left = numbers || opens ? 36 : 32,
      line = numbers ? ch / 2 - 4 : ch / 2 + 4.3;
    const name = nameOf(cell),
      type = node.type === node.label || node.kind === "input" || node.kind === "output" ? "" : typeOf(cell);
    const wide = Math.min(textWidth(name, BOLD), (right - left) * (type ? 0.62 : 1));
    const label = fitText(name, Math.max(wide, right - left - textWidth(type, SMALL) - 8) + 1, BOLD);
    parts.push(text(left, line, "nnb-label", label));
    if (type) parts.push(text(right, line, "nnb-type", fitText(type, right - left - textWidth(label, BOLD) - 8, SMALL), { "text-anchor": "end" }));
    if (numbers) {
      parts.push(text(left, ch / 2 + 11.5, "nnb-numbers", fittingNumbers(cell.cost, right - left + 4)));
      const share = graph.totals.macs ? cell.cost.macs / graph.totals.macs : 0;
      if (share > 0.001) parts.push(s("rect", { class: "nnb-share", x: 7, y: ch - 2.5, width: r1((cw - 14) * Math.min(1, share)), height: 2.5, rx: 1 }));
    }
    return parts;
  }

  /** Signs for what needs a second look, right of the name. */
  function flags(parts, cell, right, middle) {
    const { node } = cell;
    const signs = [
      mark(cell)?.sign,
      node.calls > 1 && cell.kind !== "fold" && `↻ ${callOf(node)}/${node.calls}`,
      node.shares && node.calls < 2 && node.params > 0 && "shared",
      node.uncounted?.length && cell.kind === "leaf" && "MACs ?",
    ].filter(Boolean);
    if (!signs.length) return 0;
    const [element, width] = pill(signs.join(" "), right, middle, "nnb-flag");
    parts.push(element);
    return width + 6;
  }

  function opened(item) {
    const { cell, w } = item,
      { node } = cell;
    const parts = [s("path", { class: "nnb-head", d: `M0 ${HEAD}V9a9 9 0 0 1 9 -9H${r1(w - 9)}a9 9 0 0 1 9 9V${HEAD}z` }), badge(roleOf(node), 9, 8)];
    let right = w - 13;
    parts.push(chevron(right, HEAD / 2, true));
    right -= 14;
    if (cell.count > 1) {
      const [element, width] = pill(`×${cell.count}`, right, HEAD / 2, "nnb-times");
      parts.push(element);
      right -= width + 6;
    }
    right -= flags(parts, cell, right, HEAD / 2);
    const label = fitText(nameOf(cell), 0.55 * (right - 37), BOLD);
    parts.push(text(37, HEAD / 2 + 4.4, "nnb-label", label));
    const from = 37 + textWidth(label, BOLD) + 8;
    const type = typeOf(cell);
    const shortType = fitText(type, Math.min(right - from, 150), SMALL);
    parts.push(text(from, HEAD / 2 + 4.4, "nnb-type", shortType));
    const rest = right - from - textWidth(shortType, SMALL) - 14;
    if (rest > 60) parts.push(text(right, HEAD / 2 + 4.4, "nnb-numbers", fittingNumbers(cell.cost, rest), { "text-anchor": "end" }));
    return parts;
  }

  /** One element per part for its whole life, so that it keeps the focus when it opens. */
  function fillNode(g, item) {
    const { cell } = item;
    g.classList.toggle("nnb-open", item.open);
    if (cell.kind !== "leaf") g.setAttribute("aria-expanded", String(item.open));
    const name = cut(cell.kind === "fold" ? nameOf(cell) : cell.id, 600);
    const title = [name, sentenceOf(cell, graph.batch), mark(cell)?.text].filter(Boolean).join("\n");
    g.replaceChildren(s("title", {}, title), ...(item.open ? opened(item) : closed(item)));
  }

  function makeNode({ cell }) {
    return s("g", {
      class: "nnb-node",
      role: "treeitem",
      tabindex: -1,
      "aria-level": cell.depth,
      "aria-posinset": cell.parent.children.indexOf(cell) + 1,
      "aria-setsize": cell.parent.children.length,
      "aria-label": sentenceOf(cell, graph.batch),
      data: { id: cell.id.slice(0, 400), tone: ROLES[roleOf(cell.node)].tone, kind: cell.kind },
    });
  }

  /** Brings the page in line with a scene. */
  function draw(scene) {
    setAttribute(svg, "width", Math.ceil(scene.width));
    setAttribute(svg, "height", Math.ceil(scene.height));
    setAttribute(svg, "viewBox", `0 0 ${Math.ceil(scene.width)} ${Math.ceil(scene.height)}`);
    const now = new Set(),
      order = [];
    for (const item of scene.items) {
      const { cell } = item,
        key = `${item.open}|${r1(item.w)}|${r1(item.h)}`;
      now.add(cell.id);
      let entry = shown.get(cell.id);
      if (!entry) {
        entry = { g: makeNode(item), key: "", frame: null };
        ids.set(entry.g, cell.id);
        shown.set(cell.id, entry);
      }
      if (entry.key !== key) {
        entry.key = key;
        fillNode(entry.g, item);
        entry.frame = item.open ? s("rect", { class: "nnb-frame", rx: 9, data: { tone: entry.g.dataset.tone } }) : null;
      }
      entry.g.style.transform = `translate(${r1(item.x)}px, ${r1(item.y)}px)`;
      if (entry.frame) {
        for (const [name, value] of Object.entries({ width: item.w, height: item.h, x: item.x, y: item.y })) setAttribute(entry.frame, name, r1(value));
        order.push(entry.frame);
      }
    }
    for (const [id, entry] of shown)
      if (!now.has(id)) {
        entry.g.remove();
        shown.delete(id);
      }
    // only what is not in its place is moved: that keeps focus
    scene.items.forEach((item, i) => {
      const { g } = shown.get(item.cell.id);
      if (nodes.childNodes[i] !== g) nodes.insertBefore(g, nodes.childNodes[i] ?? null);
    });
    frames.replaceChildren(...order);
    const lines = scene.curves.map((curve) =>
      s("path", { d: curve.d, transform: `translate(${r1(curve.x)} ${r1(curve.y)})`, class: `nnb-curve nnb-${curve.kind}` }, s("title", {}, curve.title)),
    );
    const heads = scene.curves.map((curve) => curve.tip && arrowHead(curve));
    curves.replaceChildren(...lines, ...heads.filter(Boolean));
    labels.replaceChildren(
      ...scene.labels.map((label) => text(r1(label.x), r1(label.y), `nnb-shape${label.changed ? " nnb-changed" : ""}`, label.text, { "text-anchor": label.after ? "start" : "end" })),
    );
    drawn = { curves: scene.curves, lines, heads, items: scene.items };
  }

  /** A small triangle where a line ends at a part. */
  function arrowHead(curve) {
    const { x, y, side } = curve.tip;
    const d = side ? `M${r1(x)} ${r1(y)}l${6 * side} -3.500v7z` : `M${r1(x)} ${r1(y)}l-3.500 -6h7z`;
    return s("path", { d, transform: `translate(${r1(curve.x)} ${r1(curve.y)})`, class: `nnb-arrow nnb-${curve.kind}` });
  }

  /** Marks the selected part and its lines. */
  function select(id, focusId) {
    for (const [key, { g }] of shown) {
      setAttribute(g, "aria-selected", key === id ? "true" : "false");
      g.classList.toggle("nnb-selected", key === id);
      setAttribute(g, "tabindex", key === focusId ? 0 : -1);
    }
    hot(id);
  }

  function hot(id) {
    drawn.curves.forEach((curve, i) => {
      const on = Boolean(id) && curve.ends.has(id);
      drawn.lines[i].classList.toggle("nnb-hot", on);
      drawn.heads[i]?.classList.toggle("nnb-hot", on);
    });
  }

  return {
    svg,
    draw,
    select,
    hot,
    element: (id) => shown.get(id)?.g ?? null,
    idOf: (target) => {
      const g = target?.closest?.(".nnb-node");
      return (g && ids.get(g)) ?? null;
    },
    matches(found) {
      for (const [id, { g }] of shown) g.classList.toggle("nnb-found", found.has(id));
    },
  };
}

const r1 = (x) => Math.round(10 * x) / 10;

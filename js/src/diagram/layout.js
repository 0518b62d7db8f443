// Where everything is: each open group is laid out on its own, from the inside out, and remembered.
import { shapeText, shapesText } from "./graph.js";
import { GAP, placeBoxes } from "./segment.js";

const WIDE = 264, // px, a part with numbers
  SLIM = 216; // one without
const TALL = 42,
  LOW = 28,
  STACK = 47; // heights: with numbers, without, a closed group
export const HEAD = 36; // px, title bar of an open group
const PAD = 18; // px, inside an open group

/**
 * @typedef {import("./fold.js").Cell} Cell
 * @typedef {{cell: Cell, x: number, y: number, w: number, h: number, open: boolean}} Item absolute
 * @typedef {{d: string, kind: "plain"|"skip"|"back", ends: Set<string>, title: string, group: string}} Curve
 * @typedef {{x: number, y: number, text: string, after: boolean, changed: boolean, title: string}} Label
 * @typedef {{items: Item[], curves: Curve[], labels: Label[], width: number, height: number}} Scene
 */

export const hasNumbers = (cell) => cell.cost.params > 0 || cell.cost.macs > 0;

/** The size of a part that is not open. */
export function closedSize(cell) {
  if (cell.kind !== "leaf") return { w: WIDE, h: STACK };
  if (cell.node.kind === "input" || cell.node.kind === "output") return { w: 132, h: LOW };
  return hasNumbers(cell) ? { w: WIDE, h: TALL } : { w: SLIM, h: LOW };
}

/** Keeps the layout of each group for as long as the same of its parts are open. */
export function createLayout(graph, cells) {
  let memory = new Map();

  /**
   * @param {Set<string>} open
   * @param {Map<Cell, import("./lift.js").Wiring>} wiring
   * @returns {Scene}
   */
  function scene(open, wiring) {
    const fresh = new Map();
    const size = (cell) => {
      if (cell.kind !== "root" && !open.has(cell.id)) {
        const { w, h } = closedSize(cell);
        return { w, h, ax: w / 2, stamp: "", plan: null };
      }
      const parts = cell.children.map(size);
      const stamp = `${cell.id}{${parts.map((part) => part.stamp).join()}}`;
      const known = memory.get(stamp);
      const plan = known ?? planGroup(cell, parts, wiring, open, graph.batch);
      fresh.set(stamp, plan);
      return { w: plan.w, h: plan.h, ax: plan.ax, stamp, plan: { ...plan, parts } };
    };
    const whole = size(cells.root);
    memory = fresh;
    const found = { items: [], curves: [], labels: [], width: whole.w, height: whole.h };
    flatten(whole.plan, 0, 0, open, found, "");
    return found;
  }
  return { scene };
}

const NO_WIRES = { links: [], inputs: [], outputs: [] };

/** Where a tensor crosses the edge of a group, from the main line. */
function portAt(names, tensor) {
  if (!tensor || names.length < 2) return 0;
  return (Math.max(0, names.indexOf(tensor)) - (names.length - 1) / 2) * Math.min(18, 60 / names.length);
}

/** One group in its own coordinates. */
function planGroup(cell, parts, wiring, open, batch) {
  const wires = wiring.get(cell) ?? NO_WIRES;
  const root = cell.kind === "root",
    { children } = cell;
  const index = new Map(children.map((child, i) => [child, i + 1]));
  const last = children.length + 1;
  const edge = { w: 0, h: 0, ax: 0 }; // what enters and what leaves the group
  const boxes = [edge, ...parts.map(({ w, h, ax }) => ({ w, h, ax })), edge];
  const arcs = [],
    forward = [],
    backward = [];
  for (const link of wires.links) {
    const u = link.from ? index.get(link.from) : 0,
      v = link.to ? index.get(link.to) : last;
    if (u < v) {
      arcs.push({ u, v });
      forward.push(link);
    } else backward.push({ link, u, v });
  }
  const placed = placeBoxes(boxes, arcs);
  const pad = root ? 16 : PAD;
  const lead = -GAP; // nothing enters the whole from outside
  const trail = root || !wires.outputs.length ? -GAP + (root ? 0 : PAD) : 0;
  const back = backward.length ? 14 + 10 * backward.length : 0;
  const minimum = root ? 0 : 260;
  let left = placed.left - pad - back,
    right = placed.right + pad;
  if (right - left < minimum) {
    const more = (minimum - (right - left)) / 2;
    left -= more;
    right += more;
  }
  const dx = -left,
    dy = root ? pad + lead : HEAD;
  const places = parts.map((part, i) => ({ x: placed.at[i + 1].x - part.ax + dx, y: placed.at[i + 1].y + dy }));
  const isOpen = (child) => child && open.has(child.id);
  const curves = [],
    taken = new Map();
  const ends = (i, link, side) => {
    const child = side === "from" ? link.from : link.to,
      tensor = side === "from" ? link.fromPort : link.toPort;
    // what the group takes in, a part gives out: the same tensor on the two sides of one border
    const names = child ? wiring.get(child)?.[side === "from" ? "outputs" : "inputs"] : wires[side === "from" ? "inputs" : "outputs"];
    const bottom = side === "from" ? boxes[i].h : 0;
    return { x: placed.at[i].x + dx + portAt(names ?? [], tensor), y: placed.at[i].y + dy + bottom };
  };
  const rank = ranks(boxes.length, arcs),
    takers = boxes.map(() => []);
  for (const { u, v } of arcs) if (!takers[u].includes(v)) takers[u].push(v);
  forward.forEach((link, i) => {
    const { u, v } = arcs[i],
      route = placed.routes[i];
    const from = ends(u, link, "from"),
      to = ends(v, link, "to");
    let d,
      tip = { x: to.x, y: to.y, side: 0 };
    if (route.kind === "lane") {
      const x = route.lane + dx;
      const begin = u === 0 || isOpen(link.from) ? { x: from.x, y: from.y, side: false } : sideOf(places[u - 1], parts[u - 1], 0.68);
      const finish = v === last || isOpen(link.to) ? { x: to.x, y: to.y, side: false } : sideOf(places[v - 1], parts[v - 1], 0.32);
      d = lanePath(begin, x, finish);
      if (finish.side) tip = { x: finish.x, y: finish.y, side: 1 };
    } else d = smooth([from, ...(route.points ?? []).map((p) => ({ x: p.x + dx, y: p.y + dy })), to]);
    const skip = takers[u].length > 1 && rank[v] - rank[u] > 1 && (route.kind === "lane" || hasLonger(u, v, takers, rank));
    curves.push({ d, tip: v === last ? null : tip, kind: skip ? "skip" : "plain", link, title: titleOf(link, batch) });
    if (!taken.has(v)) taken.set(v, []);
    taken.get(v).push(link);
  });
  backward.forEach(({ link, u, v }, i) => {
    const x = placed.left + dx - 10 - 10 * i;
    const a = { x: placed.at[u].x + dx - boxes[u].ax, y: placed.at[u].y + dy + boxes[u].h * 0.6 };
    const b = { x: placed.at[v].x + dx - boxes[v].ax, y: placed.at[v].y + dy + Math.min(boxes[v].h * 0.6, 22) };
    curves.push({ d: lanePath({ ...a, side: true }, x, { ...b, side: true }), tip: { ...b, side: -1 }, kind: "back", link, title: titleOf(link, batch) });
  });
  const labels = [];
  for (const [v, links] of taken) {
    const shapes = links.flatMap((link) => link.shapes);
    const text = shapesText(uniqueShapes(shapes), batch, 2);
    const source = links.map((link) => link.from?.node).filter(Boolean);
    const before = new Set(source.flatMap((node) => node.shapes_in.map(String)));
    const changed = !source.length || shapes.some((shape) => !before.has(String(shape)));
    const { x, y } = ends(v, { ...links[0], toPort: "" }, "to");
    // a line that comes from the left would run through its text
    const near = links[0].from ? placed.at[index.get(links[0].from)].x : 0;
    const after = links.length === 1 && near < placed.at[v].x - 20;
    labels.push({ x: after ? x + 8 : x - 8, y: y - GAP / 2 + 4, after, text, changed, title: shapes.map((shape) => shapeText(shape, batch)).join(", ") });
  }
  const height = placed.height + dy + (root ? pad : 0) + trail;
  return { cell, w: right - left, h: height, ax: dx, places, curves, labels };
}

const sideOf = (place, part, share) => ({ x: place.x + part.w, y: place.y + part.h * share, side: true });

function uniqueShapes(shapes) {
  return [...new Map(shapes.map((shape) => [String(shape), shape])).values()];
}

/** How many parts the longest path to each box has. */
function ranks(n, arcs) {
  const rank = new Array(n).fill(0);
  for (const { u, v } of [...arcs].sort((p, q) => p.u - q.u)) rank[v] = Math.max(rank[v], rank[u] + 1);
  return rank;
}

/** Is there another way from u to v, of more than one step? */
function hasLonger(u, v, takers, rank) {
  const seen = new Set(),
    pending = takers[u].filter((next) => next !== v);
  while (pending.length) {
    const at = pending.pop();
    if (at === v) return true;
    if (seen.has(at) || rank[at] >= rank[v]) continue;
    seen.add(at);
    pending.push(...takers[at]);
  }
  return false;
}

function titleOf(link, batch) {
  const name = (cell, other) => (cell ? cell.node.id.slice(0, 80) : other);
  const shapes = link.shapes.map((shape) => shapeText(shape, batch)).slice(0, 8).join(", ");
  return `${name(link.from, "from outside")} → ${name(link.to, "to outside")}: ${shapes}`;
}

const r = (x) => Math.round(10 * x) / 10;

/** A line through points that starts and ends vertically. */
function smooth(points) {
  const [first, ...rest] = points;
  let d = `M${r(first.x)} ${r(first.y)}`,
    at = first;
  rest.forEach((to, i) => {
    if (Math.abs(to.x - at.x) < 0.5) d += `V${r(to.y)}`;
    else {
      const bend = Math.max(8, (to.y - at.y) / 2);
      d += `C${r(at.x)} ${r(at.y + bend)} ${r(to.x)} ${r(to.y - (i === rest.length - 1 ? Math.max(bend, 10) : bend))} ${r(to.x)} ${r(to.y)}`;
    }
    at = to;
  });
  return d;
}

/** From one part to another along a lane beside the parts between. */
function lanePath(a, x, b) {
  const down = b.y >= a.y ? 1 : -1,
    away = Math.sign(x - a.x) || 1;
  const bend = Math.min(12, Math.abs(b.y - a.y) / 2);
  let d = `M${r(a.x)} ${r(a.y)}`;
  if (a.side) d += `H${r(x - away * bend)}Q${r(x)} ${r(a.y)} ${r(x)} ${r(a.y + down * bend)}`;
  else d += `C${r(a.x)} ${r(a.y + 16)} ${r(x)} ${r(a.y + 2)} ${r(x)} ${r(a.y + 26)}`;
  if (b.side) d += `V${r(b.y - down * bend)}Q${r(x)} ${r(b.y)} ${r(x - away * bend)} ${r(b.y)}H${r(b.x)}`;
  else d += `V${r(b.y - 26)}C${r(x)} ${r(b.y - 4)} ${r(b.x)} ${r(b.y - 18)} ${r(b.x)} ${r(b.y)}`;
  return d;
}

/** The whole picture in absolute coordinates, parents before children. */
function flatten(plan, x, y, open, found, group) {
  const offset = (curve) => ({ ...curve, x, y, group, ends: curve.link.ends });
  for (const curve of plan.curves) found.curves.push(offset(curve));
  for (const label of plan.labels) found.labels.push({ ...label, x: x + label.x, y: y + label.y });
  plan.cell.children.forEach((child, i) => {
    const place = plan.places[i],
      part = plan.parts[i];
    const at = { cell: child, x: x + place.x, y: y + place.y, w: part.w, h: part.h, open: Boolean(part.plan) };
    found.items.push(at);
    if (part.plan) flatten(part.plan, at.x, at.y, open, found, child.id);
  });
}

// Places the parts of one group. Networks are mostly chains: everything between two parts that all paths go through
// is a segment of its own. A path with shortcuts is stacked by hand with the shortcuts in lanes beside it; only real branches go to dagre.
import { graphlib, layout as dagre } from "@dagrejs/dagre";

export const GAP = 22; // px between two parts in a row, room for a shape
const BRANCH_GAP = 38; // the same where lines part or meet
const SIDE = 26; // px between two parts side by side
const LANE = 13; // px between shortcuts
const MOST_DAGRE = 260; // parts of one segment that dagre is asked to lay out

/**
 * @typedef {{w: number, h: number, ax: number}} Box width, height, and how far from the left the main line enters
 * @typedef {{u: number, v: number}} Arc from box u to box v; u < v
 * @typedef {{x: number, y: number}} Point
 * @typedef {{kind: "straight"}|{kind: "lane", lane: number}|{kind: "bends", points: Point[]}} Route
 */

/** The boxes that all paths go through, if arcs only go forward: [0, …, n − 1]. */
export function cutNodes(n, arcs) {
  const reach = new Array(n).fill(0);
  for (const { u, v } of arcs) reach[u] = Math.max(reach[u], v);
  const cuts = [];
  let far = 0;
  for (let i = 0; i < n; i++) {
    if (far <= i) cuts.push(i);
    far = Math.max(far, reach[i]);
  }
  if (cuts[cuts.length - 1] !== n - 1) cuts.push(n - 1);
  return cuts;
}

/**
 * Coordinates of boxes 0 … n − 1, the first on top and the last at the bottom; x of the main line is 0.
 * @param {Box[]} boxes
 * @param {Arc[]} arcs
 * @returns {{at: Point[], routes: Route[], left: number, right: number, height: number}} at: where the main line enters
 */
export function placeBoxes(boxes, arcs) {
  const n = boxes.length,
    at = new Array(n),
    routes = new Array(arcs.length);
  const cuts = cutNodes(n, arcs);
  const inside = Array.from({ length: cuts.length }, () => []);
  const segmentOf = new Array(n);
  cuts.forEach((cut, s) => {
    for (let i = cut; i < (cuts[s + 1] ?? n); i++) segmentOf[i] = s;
  });
  arcs.forEach((arc, i) => inside[segmentOf[arc.u]].push(i));
  let y = 0,
    left = 0,
    right = 0;
  const put = (i, x, top) => {
    at[i] = { x, y: top };
    left = Math.min(left, x - boxes[i].ax);
    right = Math.max(right, x - boxes[i].ax + boxes[i].w);
  };
  put(0, 0, 0);
  y = boxes[0].h;
  for (let s = 0; s + 1 < cuts.length; s++) {
    const [a, b] = [cuts[s], cuts[s + 1]],
      own = inside[s];
    const pairs = new Set(own.map((i) => `${arcs[i].u}>${arcs[i].v}`));
    let path = true;
    for (let i = a; path && i < b; i++) path = pairs.has(`${i}>${i + 1}`);
    if (b === a + 1 || path) {
      for (let i = a + 1; i <= b; i++) {
        y += GAP;
        put(i, 0, y);
        y += boxes[i].h;
      }
      const beside = laneArcs(own, arcs, a, b);
      let edge = -Infinity;
      for (let i = a; i <= b; i++) edge = Math.max(edge, at[i].x - boxes[i].ax + boxes[i].w);
      const step = beside.lanes > 8 ? LANE / 2 : LANE;
      for (const i of own) {
        const lane = beside.lane.get(i);
        routes[i] = lane == null ? { kind: "straight" } : { kind: "lane", lane: edge + 16 + lane * step };
        if (lane != null) right = Math.max(right, routes[i].lane + 4);
      }
    } else {
      const placed = branches(boxes, arcs, own, a, b);
      for (let i = a + 1; i < b; i++) put(i, placed.at[i].x, y + placed.at[i].y);
      for (const [i, points] of placed.points) {
        routes[i] = { kind: "bends", points: points.map((p) => ({ x: p.x, y: p.y + y })) };
        for (const p of points) {
          left = Math.min(left, p.x - 4);
          right = Math.max(right, p.x + 4);
        }
      }
      y += placed.height;
      put(b, 0, y);
      y += boxes[b].h;
    }
  }
  return { at, routes, left, right, height: y };
}

/** Shortcuts of a path: arcs from the same box share a lane; short ones run close to the path. */
function laneArcs(own, arcs, a, b) {
  const reach = new Map();
  for (const i of own) {
    const { u, v } = arcs[i];
    if (v > u + 1) reach.set(u, Math.max(reach.get(u) ?? 0, v));
  }
  const ends = [],
    laneOf = new Map();
  for (const [u, v] of [...reach].sort((p, q) => p[1] - p[0] - (q[1] - q[0]) || p[0] - q[0])) {
    let lane = ends.findIndex((taken) => taken.every(([from, to]) => v <= from || u >= to));
    if (lane < 0) lane = ends.push([]) - 1;
    ends[lane].push([u, v]);
    laneOf.set(u, lane);
  }
  const lane = new Map(own.filter((i) => arcs[i].v > arcs[i].u + 1).map((i) => [i, laneOf.get(arcs[i].u)]));
  return { lane, lanes: ends.length };
}

/** Real branches between the boxes a and b: chains in them become one box each, dagre places those. */
function branches(boxes, arcs, own, a, b) {
  const into = new Map(),
    outOf = new Map();
  const push = (map, k, x) => (map.has(k) ? map.get(k).push(x) : map.set(k, [x]));
  for (const i of own) {
    push(outOf, arcs[i].u, i);
    push(into, arcs[i].v, i);
  }
  const chains = [],
    chainOf = new Map();
  for (let i = a + 1; i < b; i++) {
    const before = into.get(i) ?? [];
    const u = before.length === 1 ? arcs[before[0]].u : -1;
    if (u > a && outOf.get(u).length === 1 && chainOf.has(u)) chainOf.get(u).push(i);
    else chains.push([i]);
    chainOf.set(i, chainOf.get(u)?.includes(i) ? chainOf.get(u) : chains[chains.length - 1]);
  }
  const blocks = chains.map((members) => {
    const ax = Math.max(...members.map((i) => boxes[i].ax));
    const w = ax + Math.max(...members.map((i) => boxes[i].w - boxes[i].ax));
    const h = members.reduce((sum, i) => sum + boxes[i].h + GAP, -GAP);
    return { members, ax, w, h };
  });
  const blockOf = new Map();
  blocks.forEach((block, k) => block.members.forEach((i) => blockOf.set(i, k)));
  const outer = own.filter((i) => !(blockOf.has(arcs[i].u) && blockOf.get(arcs[i].u) === blockOf.get(arcs[i].v)));
  const name = (i) => (i === a ? "a" : i === b ? "b" : String(blockOf.get(i)));
  const frame = blocks.length + outer.length <= 3 * MOST_DAGRE && blocks.length <= MOST_DAGRE;
  const shape = blocks.map(({ w, h, ax }) => `${w},${h},${ax}`).join(";") + outer.map((i) => `|${name(arcs[i].u)}>${name(arcs[i].v)}`).join("");
  let placed = recall(shape, outer);
  if (!placed) {
    placed = sideBySide(blocks, outer, arcs, name) ?? (frame ? withDagre(blocks, outer, arcs, name) : null) ?? inRows(blocks, outer, arcs, name);
    remember(shape, outer, placed);
  }
  const at = {},
    points = new Map();
  blocks.forEach((block, k) => {
    const { x, y } = placed.nodes[k]; // top left
    let top = y;
    for (const i of block.members) {
      at[i] = { x: x + block.ax, y: top };
      top += boxes[i].h + GAP;
    }
  });
  for (const i of own) points.set(i, outer.includes(i) ? (placed.points.get(i) ?? []) : []);
  return { at, points, height: placed.height };
}

// Networks repeat themselves: a segment of the same boxes and arcs has been placed before, as often as not.
const MOST_KNOWN = 300;
const known = new Map();

function recall(shape, outer) {
  const found = known.get(shape);
  return found && { ...found, points: new Map(found.points.map(([k, points]) => [outer[k], points])) };
}

function remember(shape, outer, placed) {
  if (known.size >= MOST_KNOWN) known.clear();
  known.set(shape, { ...placed, points: [...placed.points].map(([i, points]) => [outer.indexOf(i), points]) });
}

/** Branches that only part and meet: next to each other, a bare line to the right of them. Null for anything else. */
export function sideBySide(blocks, outer, arcs, name) {
  const ends = blocks.map(() => [false, false]);
  const bare = [];
  for (const i of outer) {
    const [u, v] = [name(arcs[i].u), name(arcs[i].v)];
    if (u === "a" && v === "b") bare.push(i);
    else if (u === "a") ends[v][0] = true;
    else if (v === "b") ends[u][1] = true;
    else return null;
  }
  if (ends.some(([from, to]) => !from || !to)) return null;
  const height = Math.max(...blocks.map((block) => block.h));
  let x = 0;
  const nodes = blocks.map((block) => {
    const node = { x, y: BRANCH_GAP };
    x += block.w + SIDE;
    return node;
  });
  // the main line is in the middle, or, for a single branch, in it
  const middle = blocks.length === 1 ? blocks[0].ax : (x - SIDE) / 2;
  for (const node of nodes) node.x -= middle;
  const right = x - SIDE - middle,
    points = new Map();
  for (const i of outer) {
    const from = name(arcs[i].u);
    if (bare.includes(i)) {
      const lane = right + 18;
      points.set(i, [{ x: lane, y: BRANCH_GAP }, { x: lane, y: BRANCH_GAP + height }]);
    } else if (from === "a") points.set(i, []);
    else {
      const block = blocks[from];
      const below = block.h < height ? [{ x: nodes[from].x + block.ax, y: BRANCH_GAP + height }] : [];
      points.set(i, below);
    }
  }
  return { nodes, points, height: height + 2 * BRANCH_GAP };
}

function withDagre(blocks, outer, arcs, name) {
  const g = new graphlib.Graph({ multigraph: true });
  g.setGraph({ rankdir: "TB", nodesep: SIDE, ranksep: BRANCH_GAP, edgesep: 14 });
  g.setDefaultEdgeLabel(() => ({}));
  g.setNode("a", { width: 1, height: 0 });
  g.setNode("b", { width: 1, height: 0 });
  blocks.forEach((block, k) => g.setNode(String(k), { width: block.w, height: block.h }));
  for (const i of outer) g.setEdge(name(arcs[i].u), name(arcs[i].v), { arc: i }, String(i));
  // what has no source stands below a, what nobody takes stands above b
  blocks.forEach((_, k) => {
    if (!g.inEdges(String(k)).length) g.setEdge("a", String(k), { arc: -1, weight: 0 }, "source");
    if (!g.outEdges(String(k)).length) g.setEdge(String(k), "b", { arc: -1, weight: 0 }, "sink");
  });
  if (!g.nodeEdges("a").length || !g.nodeEdges("b").length) return null;
  try {
    dagre(g);
  } catch {
    return null; // it is recursive, and very long paths end its stack
  }
  const [top, bottom] = [g.node("a"), g.node("b")];
  const middle = (top.x + bottom.x) / 2;
  // branches stand from left to right as they ran
  const sum = blocks.reduce((total, block, k) => total + (g.node(String(k)).x - middle) * (k - (blocks.length - 1) / 2), 0);
  const turn = sum < 0 ? -1 : 1;
  const across = (id) => turn * (g.node(id).x - middle);
  // dagre centres the boxes of a row; short ones look better at its top, with the line below them
  const rows = new Map(); // y of the centre → height of the row
  blocks.forEach((block, k) => {
    const { y } = g.node(String(k));
    rows.set(y, Math.max(rows.get(y) ?? 0, block.h));
  });
  const topOf = (k) => g.node(String(k)).y - rows.get(g.node(String(k)).y) / 2 - top.y;
  const bottomOf = (k) => topOf(k) + rows.get(g.node(String(k)).y);
  const points = new Map();
  for (const e of g.edges()) {
    const { arc, points: bends } = g.edge(e);
    if (arc < 0) continue;
    const inner = bends.slice(1, -1).map((p) => ({ x: turn * (p.x - middle), y: p.y - top.y }));
    const from = e.v === "a" ? null : Number(e.v),
      x = from == null ? 0 : across(e.v) + blocks[from].ax - blocks[from].w / 2;
    const below = from == null ? 0 : bottomOf(from);
    const kept = inner.length > 1 ? inner.filter((p) => p.y > below + 4) : []; // one bend: the next row, straight there
    if (from != null && below > topOf(from) + blocks[from].h + 4) kept.unshift({ x, y: below });
    points.set(arc, kept);
  }
  const nodes = blocks.map((block, k) => ({ x: across(String(k)) - block.w / 2, y: topOf(k) }));
  return { nodes, points, height: bottom.y - top.y };
}

/** The fallback for very large tangles: rows by longest path, in their order. */
export function inRows(blocks, outer, arcs, name) {
  const row = new Array(blocks.length).fill(0);
  for (const i of [...outer].sort((p, q) => arcs[p].u - arcs[q].u)) {
    const [u, v] = [name(arcs[i].u), name(arcs[i].v)];
    if (v !== "b" && v !== "a") row[v] = Math.max(row[v], u === "a" ? 0 : row[u] + 1);
  }
  const rows = [];
  row.forEach((r, k) => (rows[r] ??= []).push(k));
  const nodes = [];
  let y = GAP;
  for (const members of rows.filter(Boolean)) {
    let x = -members.reduce((sum, k) => sum + blocks[k].w + SIDE, -SIDE) / 2;
    for (const k of members) {
      nodes[k] = { x, y };
      x += blocks[k].w + SIDE;
    }
    y += Math.max(...members.map((k) => blocks[k].h)) + GAP;
  }
  return { nodes, points: new Map(), height: y };
}

/** Places a few small tangles, so that the first click does not pay for the start of a cold program. */
export function warmUp() {
  const pairs = [[0, 1], [0, 2], [1, 3], [2, 3], [2, 4], [3, 5], [4, 5], [1, 4], [5, 6], [0, 6]];
  for (let w = 1; w < 8; w++) {
    const boxes = Array.from({ length: 7 }, (_, i) => ({ w: 10 * w + i, h: 10, ax: 5 * w }));
    placeBoxes(boxes, pairs.map(([u, v]) => ({ u, v })));
  }
}

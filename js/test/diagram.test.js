import assert from "node:assert/strict";
import { test } from "node:test";
import { plainColour } from "../src/diagram/export.js";
import { buildCells, findRuns, visibleCells } from "../src/diagram/fold.js";
import { readGraph, shapesText, shapeText, unpackGraph } from "../src/diagram/graph.js";
import { createLayout } from "../src/diagram/layout.js";
import { liftEdges } from "../src/diagram/lift.js";
import { formatBytes, formatCompact, roleOf, ROLES } from "../src/diagram/roles.js";
import { findNodes } from "../src/diagram/search.js";
import { cutNodes, GAP, inRows, placeBoxes, sideBySide } from "../src/diagram/segment.js";
import { cut, fitText } from "../src/diagram/text.js";
import { branches, Builder, chain, dense, interleaved, residual, tangle } from "./fixtures/graphs.js";

/** The scene with these groups open ("*": all), and what it was made from. */
function sceneOf(data, opened = []) {
  const graph = readGraph(data),
    cells = buildCells(graph);
  const all = [...cells.byId.values()].filter((cell) => cell.kind !== "leaf").map((cell) => cell.id);
  const open = new Set(opened === "*" ? all : opened);
  const wiring = liftEdges(graph, cells, open);
  const layout = createLayout(graph, cells);
  return { graph, cells, open, wiring, layout, scene: layout.scene(open, wiring) };
}

const inside = (a, b) => a.x >= b.x - 0.1 && a.y >= b.y - 0.1 && a.x + a.w <= b.x + b.w + 0.1 && a.y + a.h <= b.y + b.h + 0.1;
const overlap = (a, b) => a.x < b.x + b.w - 0.1 && b.x < a.x + a.w - 0.1 && a.y < b.y + b.h - 0.1 && b.y < a.y + a.h - 0.1;

/** Nothing overlaps, parts lie in their groups, everything lies in the picture, curves are numbers. */
function checkScene({ scene, cells, open }) {
  const byId = new Map(scene.items.map((item) => [item.cell.id, item]));
  assert.equal(scene.items.length, visibleCells(cells.root, open).length);
  const whole = { x: 0, y: 0, w: scene.width, h: scene.height };
  for (const item of scene.items) assert.ok(inside(item, byId.get(item.cell.parent.id) ?? whole), `${item.cell.id} sticks out`);
  const siblings = new Map();
  for (const item of scene.items) siblings.set(item.cell.parent, [...(siblings.get(item.cell.parent) ?? []), item]);
  for (const group of siblings.values()) {
    if (group.length > 400) continue;
    group.forEach((a, i) => group.slice(i + 1).forEach((b) => assert.ok(!overlap(a, b), `${a.cell.id} and ${b.cell.id} overlap`)));
  }
  for (const curve of scene.curves) assert.doesNotMatch(curve.d, /NaN|undefined|Infinity/);
}

const FIXTURES = {
  chain: chain(40), group: chain(12, "g"), residual: residual(), branches: branches(), tangle: tangle(60), dense: dense(12), interleaved: interleaved(), wide: branches(12),
};

for (const [name, data] of Object.entries(FIXTURES)) {
  test(`layout of ${name}: closed and open, nothing overlaps`, () => {
    checkScene(sceneOf(data));
    checkScene(sceneOf(data, "*"));
  });
}

test("every node that opens can be opened alone", () => {
  const { cells } = sceneOf(residual());
  for (const cell of cells.byId.values()) if (cell.kind !== "leaf") checkScene(sceneOf(residual(), [cell.id]));
});

test("a chain of 2,000 parts, a tangle of 1,000 and a lattice do not overflow", () => {
  assert.equal(sceneOf(chain(2000)).scene.items.length, 2002);
  checkScene(sceneOf(tangle(1000), "*"));
  checkScene(sceneOf(dense(60), "*"));
});

test("rows of the fallback layout follow the longest path", () => {
  const blocks = Array.from({ length: 4 }, () => ({ w: 10, h: 10, ax: 5 }));
  const arcs = [{ u: -1, v: 0 }, { u: 0, v: 1 }, { u: 0, v: 2 }, { u: 1, v: 3 }, { u: 2, v: 3 }];
  const { nodes } = inRows(blocks, [0, 1, 2, 3, 4], arcs, (i) => (i < 0 ? "a" : String(i)));
  assert.deepEqual(nodes.map((node) => node.y).sort((a, b) => a - b), [GAP, 2 * GAP + 10, 2 * GAP + 10, 3 * GAP + 20]);
});

test("branches that only part and meet stand side by side; anything else is for dagre", () => {
  const blocks = [{ w: 40, h: 90, ax: 20 }, { w: 20, h: 30, ax: 10 }],
    name = (i) => (i === 0 ? "a" : i === 9 ? "b" : String(i - 1));
  const arcs = [{ u: 0, v: 1 }, { u: 0, v: 2 }, { u: 1, v: 9 }, { u: 2, v: 9 }, { u: 0, v: 9 }];
  const placed = sideBySide(blocks, [0, 1, 2, 3, 4], arcs, name);
  assert.ok(placed.nodes[0].x + 40 < placed.nodes[1].x && placed.nodes[0].y === placed.nodes[1].y);
  assert.equal(placed.points.get(3).length, 1); // straight down below the short branch
  assert.ok(placed.points.get(4)[0].x > placed.nodes[1].x + 20);
  assert.equal(sideBySide(blocks, [0, 1], [{ u: 0, v: 1 }, { u: 1, v: 2 }], name), null);
});

test("a segment that repeats is placed alike", () => {
  const boxes = [0, 30, 30, 30, 30, 0].map((w) => ({ w, h: w ? 10 : 0, ax: w / 2 }));
  const arcs = [[0, 1], [0, 2], [1, 3], [2, 3], [2, 4], [3, 5], [4, 5]].map(([u, v]) => ({ u, v }));
  assert.deepEqual(placeBoxes(boxes, arcs), placeBoxes(boxes, arcs));
});

test("colours in a saved picture are of a kind that every program reads", () => {
  assert.equal(plainColour("color(srgb 0.5 1 0.00392157)"), "rgb(128, 255, 1)");
  for (const other of ["rgb(1, 2, 3)", "none", "12px"]) assert.equal(plainColour(other), other);
});

test("cut nodes are the parts that all paths go through", () => {
  assert.deepEqual(cutNodes(4, [{ u: 0, v: 1 }, { u: 1, v: 2 }, { u: 2, v: 3 }]), [0, 1, 2, 3]);
  assert.deepEqual(cutNodes(4, [{ u: 0, v: 1 }, { u: 0, v: 2 }, { u: 1, v: 3 }, { u: 2, v: 3 }]), [0, 3]);
});

test("the main line of a chain is straight, and a shortcut runs beside it", () => {
  const boxes = [0, 30, 60, 20, 0].map((w) => ({ w, h: w ? 10 : 0, ax: w / 2 }));
  const arcs = [{ u: 0, v: 1 }, { u: 1, v: 2 }, { u: 2, v: 3 }, { u: 3, v: 4 }, { u: 1, v: 3 }];
  const { at, routes, right } = placeBoxes(boxes, arcs);
  assert.deepEqual(at.map((p) => p.x), [0, 0, 0, 0, 0]);
  assert.equal(routes[4].kind, "lane");
  assert.ok(routes[4].lane > 30 && right >= routes[4].lane);
});

test("shortcuts are marked, branches are not", () => {
  const plain = sceneOf(residual([3]), ["s0", "s0.1"]).scene.curves;
  assert.equal(plain.filter((curve) => curve.kind === "skip").length, 1);
  const branch = sceneOf(branches(), ["mix"]).scene.curves;
  assert.equal(branch.filter((curve) => curve.kind === "skip").length, 0);
  const both = sceneOf(interleaved(), []).scene.curves;
  assert.equal(both.filter((curve) => curve.kind === "back").length, 1);
});

test("branches stand from left to right as they ran", () => {
  const { scene } = sceneOf(branches(4), ["mix"]);
  const x = (id) => scene.items.find((item) => item.cell.id === id).x;
  assert.ok(x("mix.b0_0") < x("mix.b3_0"));
});

test("runs of three equal parts fold, pairs and unequal ones do not", () => {
  const { cells } = sceneOf(residual([3, 4, 6, 3]));
  assert.deepEqual(cells.byId.get("s0").children.map((cell) => cell.id), ["s0.0", "s0.1", "s0.2"]);
  assert.deepEqual(cells.byId.get("s1").children.map((cell) => cell.id), ["s1.0", "s1.1×3"]);
  assert.deepEqual(cells.byId.get("s2").children.map((cell) => cell.count), [1, 5]);
  const fold = cells.byId.get("s2.1×5");
  assert.equal(fold.cost.params, fold.children.reduce((sum, child) => sum + child.node.params, 0));
});

test("equal parts that are not a chain stay apart", () => {
  const nodes = ["a", "b", "c"].map((id) => ({ id, signature: "same" }));
  const next = (pairs) => new Map(pairs.map(([u, vs]) => [nodes[u], new Set(vs.map((v) => (v < 0 ? null : nodes[v])))]));
  assert.deepEqual(findRuns(nodes, next([[0, [1]], [1, [2]]])), [[0, 3]]);
  assert.deepEqual(findRuns(nodes, next([[0, [1, -1]], [1, [2]]])), []); // the first also feeds something outside
  assert.deepEqual(findRuns(nodes, next([])), []);
  assert.deepEqual(findRuns(nodes.map((node) => ({ ...node, signature: "" })), next([[0, [1]], [1, [2]]])), []);
});

test("edges are lifted to what is on the page, none is lost and none is invented", () => {
  const data = residual([3]);
  for (const opened of [[], ["s0"], ["s0", "s0.1"], "*"]) {
    const { graph, cells, open, wiring } = sceneOf(data, opened);
    const shown = (node) => {
      let at = cells.ofNode.get(node);
      const path = [];
      for (let up = at; up; up = up.parent) path.unshift(up);
      return path.find((cell) => cell.kind !== "root" && !open.has(cell.id)) ?? at;
    };
    const wanted = new Set(graph.edges.map((edge) => [shown(edge.from).id, shown(edge.to).id]).filter(([a, b]) => a !== b).map(String));
    const drawn = new Set();
    // follow each link from where it starts to where it ends, through the borders of open groups
    for (const [, { links }] of wiring) for (const link of links) if (link.from && link.to && !open.has(link.from.id) && !open.has(link.to.id)) drawn.add(String([link.from.id, link.to.id]));
    for (const pair of drawn) assert.ok(wanted.has(pair), `${pair} was invented`);
    const ends = new Set([...wiring.values()].flatMap(({ links }) => links.flatMap((link) => [...link.ends])));
    for (const pair of wanted) for (const id of pair.split(",")) assert.ok(ends.has(id), `${id} lost its edge`);
  }
});

test("what enters a group enters it once, and parts inside", () => {
  const { wiring, cells } = sceneOf(residual([3]), ["s0", "s0.1"]);
  const block = wiring.get(cells.byId.get("s0.1"));
  assert.equal(block.inputs.length, 1);
  assert.deepEqual(block.links.filter((link) => !link.from).map((link) => link.to.id).sort(), ["s0.1.conv1", "s0.1/add"]);
  assert.equal(block.outputs.length, 1);
});

test("layouts of groups that did not change are kept", () => {
  const { layout, graph, cells } = sceneOf(residual(), ["s0"]);
  const again = (ids) => layout.scene(new Set(ids), liftEdges(graph, cells, new Set(ids)));
  const before = again(["s0"]).items.find((item) => item.cell.id === "s0");
  const after = again(["s0", "s3"]).items.find((item) => item.cell.id === "s0");
  assert.deepEqual([before.w, before.h], [after.w, after.h]);
});

test("shapes leave the batch out, and say so when they cannot", () => {
  assert.equal(shapeText([1, 64, 56, 56], 1), "64×56×56");
  assert.equal(shapeText([64, 49, 96], 1), "[64×49×96]");
  assert.equal(shapeText([], 1), "scalar");
  assert.equal(shapeText([7], 7), "[7]");
  assert.equal(shapesText([[1, 8], [1, 8], [1, 4]], 1), "2 × 8, 4");
  assert.equal(readGraph(chain(2)).batch, 1);
});

test("columns are unpacked to the nodes they were made from", () => {
  const words = ["module", "Conv2d", "conv", "a", "b", "", "=a", "+.b", "=model.a", "+.b", "sig"];
  const packed = {
    version: 1, name: "P", words, shapes: [[1, 2]], edges: "0 1 0 0", more: { 1: { calls: 2 } },
    columns: { parent: "-1 0", kind: "0 0", type: "1 1", role: "2 2", label: "3 4", signature: "10 10", detail: "5 5", doc: "5 5", source: "5 5", id: "6 7", code: "8 9", params: "3 2", macs: "0 0", bytes: "0 0", shapes_in: "0 ", shapes_out: " 0,0" },
  };
  const { nodes, edges } = unpackGraph(packed);
  assert.deepEqual([nodes[1].shapes_out.length, nodes[1].id, nodes[1].parent, nodes[1].code, nodes[1].path, nodes[1].calls], [2, "a.b", "a", "model.a.b", "a.b", 2]);
  assert.deepEqual(edges, [{ from: "a", to: "a.b", shape: [1, 2], slot: 0 }]);
});

test("odd graphs do no harm", () => {
  checkScene(sceneOf({}));
  checkScene(sceneOf({ nodes: [], edges: [{ from: "a", to: "b", shape: [] }] }));
  const alone = new Builder().node("a").node("b").node("g", "stage").node("g.c").data; // nothing joined
  checkScene(sceneOf(alone, "*"));
  const orphan = new Builder().node("a", "conv", { parent: "nowhere" }).data;
  assert.equal(sceneOf(orphan).scene.items.length, 1);
});

test("names are cut before they reach the page, and stay text", () => {
  const name = `<img src=x onerror=alert(1)>${"x".repeat(1_000_000)}`;
  const start = performance.now();
  assert.ok(fitText(name, 100, "600 12.5px sans").length < 30);
  assert.ok(cut(name).length < 2100);
  const data = new Builder().node(name).data;
  checkScene(sceneOf(data));
  findNodes(readGraph(data), "img");
  assert.ok(performance.now() - start < 500);
  assert.equal(fitText("conv1", 200, "12px sans"), "conv1");
  assert.equal(fitText("conv1", 0, "12px sans"), "");
});

test("search finds by label, path and type, equal labels first", () => {
  const graph = readGraph(residual([3]));
  assert.equal(findNodes(graph, "conv1")[0].label, "conv1");
  assert.deepEqual(findNodes(graph, "s0.1 norm").map((node) => node.id), ["s0.1.bn1", "s0.1.bn2"]);
  assert.equal(findNodes(graph, "   ").length, 0);
  assert.equal(findNodes(graph, "nothing like it").length, 0);
});

test("numbers of parts are short", () => {
  assert.deepEqual([0, 950, 9408, 25557032, 4.09e9, 999_960].map(formatCompact), ["0", "950", "9.41k", "25.6M", "4.09G", "1M"]);
  assert.deepEqual([802816, 12].map(formatBytes), ["803 kB", "12 B"]);
  assert.equal(roleOf({ kind: "module", role: "something new" }), "other");
  assert.equal(new Set(Object.values(ROLES).map((role) => role.tone + role.sign)).size, Object.keys(ROLES).length - 1); // input and output are alike
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { fan, niceAxis } from "../src/attention/dots.js";
import { columnsFor } from "../src/attention/heads.js";
import { entropy, findToken, largest, lookFrom, outline, readMaps, tokenOf, topMass } from "../src/attention/maps.js";
import { queryCell } from "../src/attention/stage.js";

const pack = (dtype, shape, values) => ({ dtype, shape, data: new DataView(new { uint8: Uint8Array, int32: Int32Array, float32: Float32Array }[dtype](values).buffer) });

/** Two heads, CLS and a grid of 1 × 2; weights are (step / 255)² · scale. */
const maps = readMaps({
  weights: pack("uint8", [1, 2, 1, 3], [255, 0, 0, 0, 255, 255]),
  scale: pack("float32", [1, 2, 1], [1, 0.5]),
  queries: pack("int32", [1, 1], [-1]),
  keys: pack("int32", [1, 3], [-1, 0, 1]),
});

test("nothing packed is nothing read", () => {
  assert.equal(readMaps(undefined), null);
  assert.equal(readMaps({}), null);
});

test("a row is laid on the grid, its mean over heads too", () => {
  const second = lookFrom(maps, -1, 1, [1, 2]);
  assert.deepEqual([...second.cells], [0.5, 0.5]);
  assert.equal(second.elsewhere, 0);
  const mean = lookFrom(maps, -1, -1, [1, 2]);
  assert.deepEqual([...mean.cells], [0.25, 0.25]);
  assert.equal(mean.elsewhere, 0.5);
  assert.equal(lookFrom(maps, 0, 0, [1, 2]), null);
  assert.equal(lookFrom(maps, null, 0, [1, 2]), null);
});

test("cells outside a window are not numbers", () => {
  const look = lookFrom(maps, -1, 0, [2, 2]);
  assert.deepEqual([...look.cells].map(Number.isNaN), [false, false, true, true]);
  assert.equal(outline((i) => !Number.isNaN(look.cells[i]), [2, 2]), "M0 0h1M0 1h1M0 0v1M1 0h1M1 1h1M2 0v1");
});

test("groups of tokens are found by what they hold", () => {
  const windows = { queries: { data: Int32Array.from([0, 1, 4, 5, 2, 3, 6, 7]), shape: [2, 4] } };
  assert.deepEqual(findToken(windows, 3), { group: 1, place: 1 });
  assert.equal(findToken(windows, 9), null);
});

test("a query in the finest grid is a token of every layer", () => {
  const fine = { special: 0, query_grid: [8, 8] },
    coarse = { special: 1, query_grid: [4, 4] };
  assert.equal(tokenOf([3, 5], [8, 8], fine), 29);
  assert.equal(tokenOf([3, 5], [8, 8], coarse), 6);
  assert.equal(tokenOf([0], [8, 8], coarse), -1);
  assert.equal(tokenOf([0], [8, 8], fine), null);
  assert.equal(tokenOf([1, 1], [8, 8], { special: 1, query_grid: [] }), null);
});

test("the fewest cells that hold a share", () => {
  const cells = [0.1, 0.5, NaN, 0.3, 0.1];
  assert.deepEqual([...topMass(cells, 0.6)], [0, 1, 0, 1, 0]);
  assert.deepEqual([...topMass(cells, 0.5)], [0, 1, 0, 0, 0]);
  assert.deepEqual([...topMass(cells, 1)], [1, 1, 0, 1, 1]);
});

test("entropy and the largest", () => {
  assert.ok(Math.abs(entropy([0.25, 0.25, 0.25, 0.25]) - Math.log(4)) < 1e-12);
  assert.equal(entropy([1, 0]), 0);
  assert.equal(largest([NaN, 0.2, 0.7]), 0.7);
  assert.equal(largest([NaN]), 0);
});

test("tiles stand in rows of about equal length", () => {
  assert.equal(columnsFor(7, 780), 4); // 4 and 3
  assert.equal(columnsFor(4, 780), 4);
  assert.equal(columnsFor(7, 420), 4);
  assert.equal(columnsFor(13, 780), 7); // 7 and 6
  assert.ok(columnsFor(17, 780) <= 10 && columnsFor(1, 100) === 1);
});

test("a query lies in a cell of a coarser layer too", () => {
  assert.deepEqual(queryCell([5, 2], [8, 8], [4, 4]), [2, 1]);
  assert.equal(queryCell([0], [8, 8], [4, 4]), null);
  assert.equal(queryCell([5, 2], [8, 8], []), null);
});

test("axes end at round numbers", () => {
  assert.deepEqual(niceAxis(17.2).ticks, [0, 10, 20]);
  assert.deepEqual(niceAxis(4.1).ticks, [0, 2, 4, 6]);
  assert.ok(niceAxis(0.3).top >= 0.3);
  assert.deepEqual(niceAxis(0).ticks, [0, 1]);
  assert.equal(fan(0, 1, 100), 0);
  assert.ok(Math.abs(fan(5, 12, 30)) < 15);
});

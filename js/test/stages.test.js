import assert from "node:assert/strict";
import { test } from "node:test";
import {
  boxesOf, concentration, fieldSentences, fieldWord, firstChannel, histogram, ordered, scaleOf, strideOf,
  unpackField, unpackMaps, unpackStages,
} from "../src/stages/model.js";

const bytes = (Kind, numbers) => new DataView(Kind.from(numbers).buffer);
const ints = (shape, numbers) => ({ dtype: "int32", shape, data: bytes(Int32Array, numbers) });
const floats = (shape, numbers) => ({ dtype: "float32", shape, data: bytes(Float32Array, numbers) });
const octets = (shape, numbers) => ({ dtype: "uint8", shape, data: bytes(Uint8Array, numbers) });

const FIELD = { grid: [2, 2], cause: "", whole: false, size: [7, 7], stride: [4, 4], start: [-3, -3], down: ints([2, 2], [0, 4, 1, 8]), across: ints([2, 2], [0, 4, 1, 8]) };
const NETWORK = {
  names: ["conv", "fc"], kinds: ["Conv2d", "Linear"], layouts: ["map", "vector"], extra: [0, 0], parameters: [10, 20],
  sizes: [4, 8, 16], dims: ints([3, 2, 3], [0, 0, 0, 0, 0, 0, 4, 2, 2, 5, 1, 1, 4, 4, 4, 5, 1, 1]),
  errors: ["too small", ""], error: [0, 1, 1], measured: [8, 16], macs: [[30, 10], [120, 10]],
  fields: [FIELD, { grid: [1, 1], cause: "pool", whole: true, boxes: ints([1, 1, 4], [0, 8, 0, 8]) }],
};

test("shapes, shares and errors of each size", () => {
  const view = unpackStages(NETWORK);
  assert.deepEqual(view.at(8), { shapes: [[4, 2, 2], [5, 1, 1]], error: "" });
  assert.deepEqual(view.at(4), { shapes: null, error: "too small" });
  assert.deepEqual(view.at(5), { shapes: null, error: "" });
  assert.deepEqual(view.largest, [5, 4]);
  assert.deepEqual(view.shares(8), { size: 8, total: 40, shares: [0.75, 0.25] });
  assert.equal(view.shares(15).size, 16, "the nearest that was counted");
});

test("a field gives the box of a position, apart or as a whole", () => {
  assert.deepEqual(unpackField(FIELD).at(1, 0), { top: 1, bottom: 8, left: 0, right: 4 });
  const whole = unpackField(NETWORK.fields[1]);
  assert.deepEqual(whole.at(0, 0), { top: 0, bottom: 8, left: 0, right: 8 });
  assert.equal(fieldWord(unpackField(FIELD)), "7 × 7");
  assert.equal(fieldWord(whole), "whole image");
  assert.equal(fieldWord({ whole: false }, { layout: "map" }), "varies");
  assert.match(fieldSentences(unpackField(FIELD), [1, 0], [8, 8]).join(" "), /rows 1 to 7, columns 0 to 3.*7 × 7 px, cut at the border, and moves by 4 px/);
  assert.deepEqual(fieldSentences(whole, [0, 0], [8, 8]), ["The vector can see the whole image.", "No fixed window since pool."]);
});

const MAPS = {
  full: [3, 2, 2], bytes: octets([1, 2, 2, 2], [0, 255, 0, 255, 0, 51, 102, 255]), channels: ints([2], [0, 2]),
  range: floats([1, 2, 2], [0, 1, -5, 5]), numbers: floats([3, 5], [0.5, 0.5, 0.5, 0, 1, 0, 0, 1, 0, 0, 0, 3, 0, -5, 5]), rank: 1.5, signed: true,
};

test("maps come back from bytes, and say what was left out", () => {
  const maps = unpackMaps(MAPS);
  assert.deepEqual([...maps.values(0, 0).data], [0, 1, 0, 1]);
  assert.deepEqual([...maps.values(0, 2).data].map((x) => Math.round(x)), [-5, -3, -1, 5]);
  assert.equal(maps.values(0, 1), null);
  assert.equal(maps.values(1, 0), null, "there is no such image");
  assert.deepEqual(maps.dead, [1]);
  assert.deepEqual(ordered(maps, "std"), [2, 0]);
  assert.deepEqual(ordered(maps, "index"), [0, 2]);
  assert.equal(firstChannel(maps), 2);
  assert.equal(firstChannel(null), 0);
  assert.equal(unpackMaps({}), null);
});

test("a colour scale has zero in the middle where there are signs", () => {
  const maps = unpackMaps(MAPS);
  assert.deepEqual(scaleOf(maps, maps.values(0, 0), false), { low: -1, high: 1, map: "signed" });
  assert.deepEqual(scaleOf(maps, maps.values(0, 0), true), { low: -5, high: 5, map: "signed" });
  const plain = { ...maps, signed: false };
  assert.deepEqual(scaleOf(plain, { data: [0, 0] }, false), { low: 0, high: 1, map: "viridis" });
});

test("histogram and concentration count", () => {
  assert.deepEqual(histogram({ data: [0, 0.1, 0.9, 1, 2] }, 0, 1, 2), [2, 3]);
  assert.equal(concentration([0, 0, 0, 8]), 0.25);
  assert.equal(concentration([1, 1, 1, 1]), 1);
  assert.equal(concentration([0, 0]), null);
});

test("a map that is not all numbers has the colours of those that are", () => {
  const maps = unpackMaps(MAPS);
  assert.deepEqual(scaleOf(maps, { data: [NaN, -2, 1, Infinity] }, false), { low: -2, high: 2, map: "signed" });
  assert.deepEqual(scaleOf({ ...maps, signed: false }, { data: [NaN] }, false), { low: 0, high: 1, map: "viridis" });
  const torn = { ...maps, signed: false, numbers: (c) => (c ? { low: NaN, high: NaN } : { low: 1, high: 3 }) };
  assert.deepEqual(scaleOf(torn, null, true), { low: 0, high: 3, map: "viridis" });
  assert.deepEqual(histogram({ data: [0, NaN, 1, Infinity] }, 0, 1, 2), [1, 1]);
});

test("the stride of a map, where it is not whole, is near", () => {
  assert.equal(strideOf(64, 16), "4");
  assert.equal(strideOf(65, 9), "≈ 7.2");
});

test("boxes grow with the map and do not lie on each other", () => {
  const { boxes } = boxesOf([[64, 32, 32], [64, 16, 16], [512, 1, 1]], [512, 64], 90);
  assert.equal(boxes[0].height, 2 * boxes[1].height);
  assert.ok(boxes[2].length > boxes[0].length);
  for (let i = 1; i < boxes.length; i++) assert.ok(boxes[i].x >= boxes[i - 1].x + boxes[i - 1].length + boxes[i - 1].back);
});

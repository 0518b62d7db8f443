import assert from "node:assert/strict";
import { test } from "node:test";
import { channelStats, errorMap, hiddenPixels, masked, pasted, patchOf, squaredError } from "../src/reconstruction/pictures.js";

const image = { data: Uint8Array.from({ length: 4 * 4 }, (_, i) => 10 * i), shape: [4, 4, 1] };
const painted = { data: new Uint8Array(16).fill(255), shape: [4, 4, 1] };
const mask = { data: Uint8Array.from([1, 0, 0, 1]), shape: [2, 2] };

test("patches become pixels", () => {
  assert.deepEqual([...hiddenPixels(mask, [4, 4])], [1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0, 1, 1]);
});

test("hidden pixels are grey, or painted; the others stay", () => {
  const hidden = hiddenPixels(mask, [4, 4]);
  assert.deepEqual([...masked(image, hidden).data.slice(0, 4)], [127, 127, 20, 30]);
  assert.deepEqual([...pasted(image, painted, hidden).data.slice(0, 4)], [255, 255, 20, 30]);
  assert.equal(image.data[1], 10);
});

test("colours belong to their pixel", () => {
  const colour = { data: Uint8Array.from([1, 2, 3, 4, 5, 6]), shape: [1, 2, 3] };
  assert.deepEqual([...masked(colour, [0, 1]).data], [1, 2, 3, 127, 127, 127]);
  assert.deepEqual(channelStats(colour).map((c) => Math.round(c.mean * 2550)), [25, 35, 45]);
});

test("error is the mean over channels", () => {
  const a = { data: Uint8Array.from([255, 0, 0]), shape: [1, 1, 3] },
    b = { data: Uint8Array.from([0, 0, 0]), shape: [1, 1, 3] };
  assert.ok(Math.abs(errorMap(a, b).data[0] - 1 / 3) < 1e-6);
  assert.ok(Math.abs(squaredError(a, b) - 1 / 3) < 1e-12);
  assert.equal(squaredError(a, a), 0);
});

test("one patch is cut out", () => {
  assert.deepEqual([...patchOf(image, [2, 2], [1, 0]).data], [80, 90, 120, 130]);
  assert.deepEqual(patchOf(image, [2, 2], [1, 0]).shape, [2, 2, 1]);
});

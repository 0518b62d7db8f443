import assert from "node:assert/strict";
import { test } from "node:test";
import { cellAt, sharesAt, stepInGrid } from "../src/lib/cells.js";

test("arrow keys stay inside, and lead from nothing to the middle", () => {
  assert.deepEqual(stepInGrid([0, 0], "ArrowUp", [4, 4]), [0, 0]);
  assert.deepEqual(stepInGrid([0, 0], "ArrowRight", [4, 4]), [0, 1]);
  assert.deepEqual(stepInGrid([3, 3], "ArrowDown", [4, 4]), [3, 3]);
  assert.deepEqual(stepInGrid([0], "ArrowLeft", [4, 6]), [2, 3]);
  assert.deepEqual(stepInGrid([], "ArrowLeft", [4, 6]), [2, 3]);
  assert.equal(stepInGrid([0, 0], "Enter", [4, 4]), null);
});

test("a pointer is in a cell, also on the edge and outside", () => {
  const picture = { getBoundingClientRect: () => ({ left: 10, top: 20, width: 200, height: 100 }) };
  const at = (clientX, clientY) => cellAt(sharesAt({ clientX, clientY }, picture), [4, 8]);
  assert.deepEqual(at(10, 20), [0, 0]);
  assert.deepEqual(at(210, 120), [3, 7]);
  assert.deepEqual(at(85, 46), [1, 3]);
  assert.deepEqual(at(-50, 500), [3, 0]);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { at, describe, formatValue, groupsOf, nearest, outline, readViews, shared, sideOf, viewNames, words } from "../src/views/state.js";

const pack = (shape, values, Kind = Uint8Array, dtype = "uint8") => ({ dtype, shape, data: new DataView(Kind.from(values).buffer) });
const field = (...rows) => pack([rows.length, 2, 3], rows.flat(), Float32Array, "float32");
const WHOLE = [1, 0, 0, 0, 1, 0];

test("live views and a page's sets read alike", () => {
  const live = readViews([{ kind: "image", pixels: pack([2, 1, 2, 1], [1, 2, 3, 4]), field: field(WHOLE, [0.5, 0, 0, 0, 1, 0]) }]);
  const banks = { "1x2x1": pack([3, 1, 2, 1], [9, 9, 1, 2, 3, 4]) };
  const stored = readViews([{ kind: "image", bank: "1x2x1", index: [1, 2], field: field(WHOLE, [0.5, 0, 0, 0, 1, 0]) }], banks);
  for (const [view] of [live, stored]) {
    assert.deepEqual([...view.tile(1).data], [3, 4]);
    assert.deepEqual(view.tile(0).shape, [1, 2, 1]);
    assert.equal(view.field(1)[0], 0.5);
  }
  assert.equal(readViews([{ kind: "mask", pixels: pack([1, 1, 1], [1]), field: {} }])[0].field(0), null);
});

test("an outline starts where the view's upper left corner lies", () => {
  assert.deepEqual(outline(WHOLE), [[0, 0], [1, 0], [1, 1], [0, 1]]);
  const mirrored = [-0.5, 0, 0.75, 0, 0.5, 0.25];
  assert.deepEqual(outline(mirrored)[0], [0.75, 0.25]);
  assert.deepEqual(at(mirrored, 1, 1), [0.25, 0.75]);
});

test("what two views share is a share of the first one", () => {
  const left = [0.5, 0, 0, 0, 1, 0],
    right = [0.5, 0, 0.5, 0, 1, 0],
    middle = [0.5, 0, 0.25, 0, 1, 0];
  assert.equal(shared(left, WHOLE), 1);
  assert.equal(shared(left, right), 0);
  assert.ok(Math.abs(shared(left, middle) - 0.5) < 0.03);
  assert.ok(Math.abs(shared(WHOLE, left) - 0.5) < 0.03);
  assert.equal(shared(left, null), null);
  const turned = [0, -1, 1, 1, 0, 0]; // a quarter turn covers the same square
  assert.equal(shared(turned, WHOLE), 1);
});

test("sentences say how many views there are, what is hidden, what is shared", () => {
  const view = (size, f) => ({ kind: "image", shape: [size, size, 3], field: () => f });
  assert.match(describe([view(64, WHOLE), view(64, WHOLE)], 0), /two views of 64×64 px.*100\s% of what view 1/s);
  assert.match(describe([view(64, null), view(28, null)], 0), /one view of 64×64 px and one view of 28×28 px\.$/);
  const mask = { kind: "mask", shape: [2, 2], tile: () => ({ data: [1, 0, 1, 1], shape: [2, 2] }), field: () => null };
  assert.match(describe([view(8, WHOLE), mask], 0), /3 of its 4 patches are hidden \(75\s%\)/);
  const none = { ...mask, tile: () => ({ data: [0, 0, 0, 0], shape: [2, 2] }) };
  const both = describe([view(8, WHOLE), view(8, WHOLE), { ...mask, of: 0 }, { ...none, of: 1 }], 0);
  assert.match(both, /4 patches each, 3 of view 1 and none of view 2 are hidden/);
});

test("views stand in groups of one size, masks beside what they hide", () => {
  const large = { kind: "image", shape: [64, 64, 3] },
    small = { kind: "image", shape: [28, 28, 3] },
    mask = (of) => ({ kind: "mask", of, shape: [8, 8] });
  assert.deepEqual(groupsOf([large, large, small, small, mask(0), mask(1)]), [[0, 4, 1, 5], [2, 3]]);
  assert.deepEqual(groupsOf([large, mask(0)]), [[0, 1]]);
});

test("squares are as large as their box allows", () => {
  assert.equal(sideOf(1, 300, 222)[0], 200);
  assert.deepEqual(sideOf(2, 412, 222), [200, 2]);
  assert.deepEqual(sideOf(9, 324, 366), [100, 3]);
  assert.equal(sideOf(9, 20, 20)[0], 40); // never too small to see
});

test("names are read as words", () => {
  assert.equal(words("RandomResizedCrop"), "Random resized crop");
  assert.equal(words("GaussianBlur"), "Gaussian blur");
  assert.equal(viewNames([2, 3, 4]), "Views 3–5");
  assert.equal(viewNames([0]), "View 1");
  assert.equal(viewNames([]), "Masks");
  assert.equal(viewNames([0, 1]), "Views 1 and 2");
});

test("values are short, and the nearest position is found", () => {
  assert.equal(formatValue({ unit: "px" }, [0.1, 2]), "0.1 – 2 px");
  assert.equal(formatValue({ unit: "°" }, 15), "15°");
  assert.equal(formatValue({ unit: "" }, 0.30000000004), "0.3");
  assert.equal(nearest([0, 0.25, 0.5], 0.3), 1);
  assert.equal(nearest([[0, 1], [0.5, 1], [0.5, 0.6]], [0.45, 0.95]), 1);
  assert.equal(nearest(["bilinear", "bicubic"], "bicubic"), 1);
});

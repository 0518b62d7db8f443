import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { toPlace, toValue } from "../src/loss_lab/controls.js";
import { compute, openFrame, shadowParts, sinkhorn } from "../src/loss_lab/numbers.js";
import { orderOf, pictures, shadowDensity } from "../src/loss_lab/pictures.js";
import { explain, NUMBERS, PARTS } from "../src/loss_lab/words.js";

const KINDS = { float32: Float32Array, int32: Int32Array };
const cases = JSON.parse(readFileSync(new URL("./fixtures/loss_lab.json", import.meta.url), "utf8"));

function frameOf(made) {
  const arrays = Object.fromEntries(
    Object.entries(made.arrays).map(([name, { dtype, shape, values }]) => {
      const numbers = KINDS[dtype].from(values, (x) => (x === null ? -Infinity : x));
      return [name, { dtype, shape, data: new DataView(numbers.buffer) }];
    }),
  );
  const frame = openFrame({ ...made, arrays });
  frame.plain = () => compute(frame, { collapse: 0 });
  return frame;
}

for (const made of cases) {
  test(`${made.name}: numbers agree with Python's to 1e-4, at its own settings and at others`, () => {
    const frame = frameOf(made);
    for (const { settings, numbers } of made.expected) {
      const found = compute(frame, { centred: true, collapse: 0, ...settings }).numbers;
      for (const [name, value] of Object.entries(numbers))
        assert.ok(Math.abs(found[name] - value) <= 1e-4 * Math.max(1, Math.abs(value)), `${name}: ${found[name]}, Python ${value}`);
    }
    const own = frame.scale * compute(frame, { centred: true, collapse: 0 }).numbers.loss;
    assert.ok(Math.abs(own - made.loss) <= 1e-4 * Math.max(1, Math.abs(made.loss)), `loss ${own}, the algorithm ${made.loss}`);
  });

  test(`${made.name}: two pictures, a sentence, all numbers named`, () => {
    const frame = frameOf(made),
      settings = { centred: true, collapse: 0, ...made.settings };
    const found = compute(frame, settings);
    for (const byClass of [false, true])
      for (const gradient of [false, true]) {
        const both = pictures(frame, found, settings, { byClass, classes: [2, 1, 0, 0, 1, 2], gradient });
        assert.equal(both.length, 2);
        for (const { rows, columns, data, rowOrder, columnOrder, high, low } of both) {
          assert.equal(data.length, rows * columns);
          assert.deepEqual([...rowOrder].sort((a, b) => a - b), [...Array(rows).keys()]);
          assert.deepEqual([...columnOrder].sort((a, b) => a - b), [...Array(columns).keys()]);
          assert.ok(high > low);
        }
      }
    assert.ok(explain(frame, found, settings).length > 40);
    for (const name of Object.keys(NUMBERS[frame.kind])) assert.ok(Number.isFinite(found.numbers[name]), name);
  });
}

const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
const near = (a, b, by = 1e-4) => assert.ok(Math.abs(a - b) <= by * Math.max(1, Math.abs(b)), `${a}, expected ${b}`);

test("parts add up: the numbers named so, and what the cells of the pictures add", () => {
  for (const made of cases) {
    const frame = frameOf(made),
      settings = { centred: true, collapse: 0, ...made.settings },
      found = compute(frame, settings);
    if (PARTS[frame.kind]) near(sum(PARTS[frame.kind].map((name) => found.numbers[name])), found.numbers.loss);
    const right = () => pictures(frame, found, settings, { byClass: false, classes: [], gradient: false })[1];
    if (["correlation", "moments"].includes(frame.kind)) near(sum([...right().data]), found.numbers.loss);
    if (frame.kind === "gaussian") near(sum([...right().data]) / right().rows, found.numbers.statistic);
  }
});

test("a shadow that is no point of a line is found at every frequency, densities are shares", () => {
  const shape = [1, 2, 2]; // one view, two embeddings, two lines: one point, and two points
  const { part, knots } = shadowParts({ data: Float32Array.from([0, -9, 0, 9]), shape }, { num_knots: 3, t_max: 1 });
  assert.deepEqual(knots, [1]);
  const phi = Math.exp(-0.5);
  near(part[0], 2 * phi * (1 - phi) ** 2, 1e-6);
  near(part[1], 2 * phi * (Math.cos(9) - phi) ** 2, 1e-6);
  const density = shadowDensity({ data: Float32Array.from([0, -9, 0, 9]), shape });
  assert.deepEqual([density[20], density[40], density[79]], [5, 2.5, 2.5]);
});

test("Sinkhorn shares out: rows sum to one, columns even out", () => {
  const scores = Float32Array.from({ length: 24 }, (_, i) => Math.sin(7 * i));
  const q = sinkhorn(scores, 6, 4, 0.5, 60);
  for (let i = 0; i < 6; i++) assert.ok(Math.abs(q.subarray(4 * i, 4 * i + 4).reduce((a, b) => a + b) - 1) < 1e-9);
  for (let j = 0; j < 4; j++) {
    let sum = 0;
    for (let i = 0; i < 6; i++) sum += q[4 * i + j];
    assert.ok(Math.abs(sum - 1.5) < 1e-3, String(sum));
  }
});

test("by class, images of one class stand together, views of one image side by side", () => {
  assert.deepEqual(orderOf([0, 1, 2, 0, 1, 2], [1, 0, 1], true), [1, 4, 0, 3, 2, 5]);
  assert.deepEqual(orderOf([0, 1, 2], [1, 0, 1], false), [0, 1, 2]);
});

test("a slider's place and value undo each other", () => {
  for (const [low, high, scale] of [[0.01, 2, "log"], [0, 1, "linear"], [0, 20, "whole"]])
    for (const place of [0, 250, 500, 1000]) {
      const value = toValue(place, low, high, scale);
      assert.ok(Math.abs(toValue(toPlace(value, low, high, scale), low, high, scale) - value) < 1e-6);
    }
  assert.equal(toPlace(100, 0.01, 2, "log"), 1000);
});

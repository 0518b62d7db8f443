import assert from "node:assert/strict";
import { test } from "node:test";
import { RunStore, secondsLeft, Series, thin, unpackColumns, unpackSnapshot } from "../src/lib/series.js";
import { boundary, decimate } from "../src/live_curves/decimate.js";
import { createRuns, styleOf, uniqueNames } from "../src/live_curves/runs.js";
import { csvText, shortest } from "../src/live_curves/save.js";
import { makeScale } from "../src/live_curves/scale.js";
import { smoothed, smoothInto } from "../src/live_curves/smooth.js";
import { mapOf } from "../src/live_curves/xaxis.js";

/** Packs as Python does: axes as float64, then values as float32. */
function pack(columns) {
  const axes = columns.map(([, steps]) => Float64Array.from(steps));
  const values = columns.map(([, , v]) => Float32Array.from(v));
  const bytes = Buffer.concat([...axes, ...values].map((a) => Buffer.from(a.buffer)));
  return [{ axes: axes.map((a) => a.length), columns: columns.map(([name], i) => [name, i]) }, bytes];
}
const column = (...points) => ({ steps: points.map((p) => p[0]), values: points.map((p) => p[1]) });

test("columns are unpacked from any kind of buffer, aligned or not", () => {
  const [layout, bytes] = pack([
    ["loss", [1, 2, 2 ** 40], [0.5, 0.25, 0.125]],
    ["knn", [2], [0.75]],
  ]);
  const shifted = new Uint8Array(bytes.length + 3);
  shifted.set(bytes, 3);
  const views = [new Uint8Array(bytes), new DataView(shifted.buffer, 3), Uint8Array.from(bytes).buffer];
  for (const view of views) {
    const columns = unpackColumns(layout, view);
    assert.deepEqual([...columns.keys()], ["loss", "knn"]);
    assert.deepEqual([...columns.get("loss").steps], [1, 2, 2 ** 40]);
    assert.deepEqual([...columns.get("loss").values], [0.5, 0.25, 0.125]);
  }
});

test("one axis may serve several columns", () => {
  const bytes = new Uint8Array(8 + 8);
  const columns = unpackColumns(
    {
      axes: [1],
      columns: [
        ["a", 0],
        ["b", 0],
      ],
    },
    bytes,
  );
  assert.equal(columns.get("a").steps, columns.get("b").steps);
});

test("a buffer of the wrong length is refused", () => {
  assert.throws(() => unpackColumns({ axes: [2], columns: [["a", 0]] }, new Uint8Array(8)), /24 bytes, got 8/);
  assert.equal(unpackColumns({ axes: [], columns: [] }, undefined).size, 0);
});

test("a snapshot holds a header and columns", () => {
  const [layout, bytes] = pack([["loss", [0, 1], [2, 1]]]);
  let text = JSON.stringify({ run: "r", seq: 4, layout, events: [] });
  text += " ".repeat((8 - ((text.length + 4) % 8)) % 8);
  const head = Buffer.alloc(4);
  head.writeUInt32LE(text.length);
  const { header, columns } = unpackSnapshot(
    new DataView(Uint8Array.from(Buffer.concat([head, Buffer.from(text), bytes])).buffer),
  );
  assert.equal(header.seq, 4);
  assert.deepEqual([...columns.get("loss").values], [2, 1]);
  assert.equal(unpackSnapshot(new Uint8Array(0)), null);
});

test("a series grows, counts, and knows its ends", () => {
  const series = new Series();
  for (let i = 0; i < 1000; i++) series.push([i], [Math.sin(i)]);
  assert.equal(series.n, 1000);
  assert.equal(series.received, 1000);
  assert.equal(series.lastStep, 999);
  assert.ok(series.low < -0.99 && series.high > 0.99);
});

test("rows that go back are dropped, equal steps stay", () => {
  const series = new Series();
  series.push([1, 2, 2, 1, NaN, 3], [1, 2, 3, 9, 9, 4]);
  assert.deepEqual([...series.values], [1, 2, 3, 4]);
});

test("memory is bounded and the peaks stay", () => {
  const series = new Series(1024);
  for (let i = 0; i < 100000; i++) series.push([i], [i === 777 ? 50 : i % 2]);
  assert.ok(series.n <= 1024);
  assert.equal(series.received, 100000);
  assert.ok(Math.max(...series.values) === 50);
  assert.ok(series.steps.every((step, i) => i === 0 || step > series.steps[i - 1]));
  assert.equal(series.lastStep, 99999);
});

test("thin keeps the lowest and the highest of four in order", () => {
  const steps = Float64Array.from({ length: 8 }, (_, i) => i),
    values = Float32Array.of(3, 9, 1, 2, 5, 5, 5, 5);
  const n = thin(steps, values, 8);
  assert.deepEqual([...steps.subarray(0, n)], [1, 2, 4]);
});

test("indexAt and nearest find neighbours", () => {
  const series = new Series();
  series.push([0, 10, 20], [0, 1, 2]);
  assert.deepEqual(
    [-1, 0, 9, 10, 25].map((x) => series.indexAt(x)),
    [-1, 0, 0, 1, 2],
  );
  assert.deepEqual(
    [-5, 4, 6, 19, 99].map((x) => series.nearest(x)),
    [0, 0, 1, 2, 2],
  );
  assert.ok(Number.isNaN(new Series().nearest(3)));
});

test("a column that was thinned out says how much it was", () => {
  const [layout, bytes] = pack([["loss", [0, 50, 99], [2, 1, 0]]]);
  layout.columns[0].push(100);
  const store = new RunStore();
  store.append(unpackColumns(layout, bytes));
  assert.deepEqual([store.get("loss").measured, store.get("loss").received, store.get("loss").spacing], [100, 3, 1]);
});

test("what cannot be drawn is counted", () => {
  const series = new Series();
  series.push([0, 1, 2, 3, 4], [NaN, 2, Infinity, -1, 0]);
  assert.deepEqual([series.odd, series.nonPositive], [2, 2]);
});

test("thinning out keeps the extremes beside values that are no numbers", () => {
  const steps = Float64Array.from({ length: 4 }, (_, i) => i),
    values = Float32Array.of(NaN, 9, 1, Infinity);
  const n = thin(steps, values, 4);
  assert.deepEqual([...steps.subarray(0, n)], [1, 2]);
});

// --- what a screen can show ---------------------------------------------------------------------------------------------

const SAME = { toX: (step) => step, toStep: (x) => x };
const ramp = (n, f) => [Float64Array.from({ length: n }, (_, i) => i), Float32Array.from({ length: n }, (_, i) => f(i))];

test("boundaries are found among equal steps", () => {
  assert.deepEqual([boundary([1, 2, 2, 3], 2), boundary([1, 2, 2, 3], 2, 4, 0, true), boundary([], 2)], [1, 3, 0]);
});

test("a curve of many points loses no extreme, wherever it is", () => {
  const n = 200_000,
    [steps, values] = ramp(n, (i) => Math.sin(i / 1000));
  for (const [i, value] of [[0, 7], [n - 1, -8], [123_457, 9], [123_458, -9], [777, 30]]) {
    const changed = values.slice();
    changed[i] = value;
    const found = decimate(steps, changed, { map: SAME, scale: makeScale(0, n - 1, 40, 440) });
    const [low, high] = [Math.min(...found.y.subarray(0, found.n)), Math.max(...found.y.subarray(0, found.n))];
    assert.equal(value < 0 ? low : high, Math.fround(value));
    assert.deepEqual([found.low, found.high], [low, high]);
    assert.ok(found.n <= 2 * 400 + 2, "two points per pixel");
    assert.ok(found.x.subarray(1, found.n).every((x, k) => x >= found.x[k]), "from left to right");
  }
});

test("every pixel shows the extremes of its own points", () => {
  const n = 50_000,
    [steps, values] = ramp(n, (i) => ((i * 7919) % 104729) / 1000);
  const scale = makeScale(10_000, 39_999, 0, 100);
  const { x, y, n: kept } = decimate(steps, values, { map: SAME, scale });
  for (let column = 0; column < 100; column++) {
    const inside = [...values.keys()].filter((i) => i >= 10_000 && i <= 39_999 && Math.min(99, Math.floor(scale.at(i) + 1e-9)) === column);
    const drawn = [...x.subarray(0, kept).keys()].filter((k) => x[k] === column + 0.5).map((k) => y[k]);
    const mine = inside.map((i) => values[i]);
    const at = (f) => Math.abs(f(...drawn) - f(...mine));
    // a point exactly on an edge may stand in the pixel beside it
    assert.ok(at(Math.max) < 1 && at(Math.min) < 1, `column ${column}`);
  }
});

test("few points are drawn as they are, with their neighbours outside", () => {
  const found = decimate([0, 10, 20, 30], [1, 2, NaN, 4], { map: SAME, scale: makeScale(5, 25, 0, 100) });
  assert.deepEqual([...found.x.subarray(0, found.n)], [-25, 25, 75, 125]);
  assert.deepEqual([...found.y.subarray(0, found.n)], [1, 2, NaN, 4]);
  assert.deepEqual([found.low, found.high, found.points], [2, 2, 2]);
  const between = decimate([0, 10], [1, 3], { map: SAME, scale: makeScale(4, 6, 0, 100) });
  assert.deepEqual([between.low, between.high, between.n], [1, 3, 2], "the line passes through an empty window");
});

test("on a logarithmic axis only what is above 0 counts", () => {
  const [steps, values] = ramp(100_000, (i) => (i % 2 ? -1 : i === 500 ? 0 : 1 + i));
  const found = decimate(steps, values, { map: SAME, scale: makeScale(0, 99_999, 0, 100), floor: 0 });
  assert.deepEqual([found.low, found.high], [1, 99_999]);
  assert.ok(found.y.subarray(0, found.n).every((y) => y > 0));
});

test("smoothing is the average without the bias of its start", () => {
  const series = new Series(),
    w = 0.9;
  let m = 0;
  const expected = [];
  for (let i = 0; i < 500; i++) {
    const x = Math.fround(Math.cos(i / 7) + 2);
    series.push([i], [x]);
    m = w * m + (1 - w) * x;
    expected.push(m / (1 - w ** (i + 1)));
    if (i % 50 === 3) smoothed(series, w); // in pieces, as it comes
  }
  const found = smoothed(series, w);
  assert.equal(found.length, 500);
  assert.ok(found.every((y, i) => Math.abs(y - expected[i]) < 1e-9));
  assert.deepEqual([...smoothed(series, 0)], [...series.values]);
});

test("smoothing fades with steps, not with points, and passes over what is no number", () => {
  const [all, some] = [new Series(), new Series()];
  for (let i = 0; i < 1000; i++) all.push([i], [i]);
  some.push(Array.from({ length: 100 }, (_, i) => 10 * i), Array.from({ length: 100 }, (_, i) => 10 * i), 991);
  const [a, b] = [smoothed(all, 0.98), smoothed(some, 0.98)];
  assert.ok(Math.abs(a[990] - b[99]) < 6, "about the same lag, though nine of ten points are gone");
  const out = new Float64Array(3);
  smoothInto(out, [0, 1, 2], [1, NaN, 1], 0, 3, 0.5, 1, { sum: 0, norm: 0, step: 0 });
  assert.deepEqual([...out], [1, NaN, 1]);
});

test("a change of the weight or thinned points start the average again", () => {
  const series = new Series(1024);
  for (let i = 0; i < 1000; i++) series.push([i], [i % 10]);
  const before = smoothed(series, 0.5)[999];
  assert.notEqual(smoothed(series, 0.9)[999], before);
  for (let i = 1000; i < 3000; i++) series.push([i], [5]);
  const after = smoothed(series, 0.9);
  assert.ok(after.length === series.n && Math.abs(after.at(-1) - 5) < 1e-6);
});

// --- several runs -------------------------------------------------------------------------------------------------------

function runOf(points, info = {}) {
  const store = new RunStore();
  store.append([["time", column(...points.map(([step]) => [step, step / 2]))], ["loss", column(...points)]]);
  return { name: "r", store, info, map: SAME };
}

test("each axis is a rising map of the steps, or unknown", () => {
  const run = runOf([[10, 1], [20, 1], [30, 1]], { steps_per_epoch: 10, batch_size: 64 });
  assert.equal(mapOf(run, "epoch").toX(25), 2.5);
  assert.equal(mapOf(run, "images").toX(25), 1600);
  const time = mapOf(run, "time");
  assert.deepEqual([0, 5, 10, 25, 40].map(time.toX), [0, 2.5, 5, 12.5, 20]);
  assert.deepEqual([0, 2.5, 5, 12.5, 20].map(time.toStep), [0, 5, 10, 25, 40]);
  assert.deepEqual(["epoch", "images", "time"].map((axis) => mapOf({ store: new RunStore(), info: {} }, axis)), [null, null, null]);
});

test("runs differ in colour and dash, names are numbered", () => {
  const looks = new Set(Array.from({ length: 12 }, (_, i) => JSON.stringify(styleOf(i))));
  assert.equal(looks.size, 12);
  assert.deepEqual(uniqueNames(["a", "", "a", undefined, "a"]), ["a", "run", "a 2", "run 2", "a 3"]);
});

test("runs beside are unpacked once, and forgotten when they go", () => {
  const runs = createRuns(new RunStore()),
    empty = new Uint8Array(0);
  runs.set({ name: "now" }, [{ name: "then", snapshot: empty, steps_per_epoch: 5 }]);
  const [, then] = runs.list;
  runs.set({ name: "now" }, [{ name: "then", snapshot: empty }, { name: "now", snapshot: new Uint8Array(0) }]);
  assert.equal(runs.list[1].store, then.store);
  assert.deepEqual(runs.list.map((run) => [run.name, run.current]), [["now", true], ["then", false], ["now 2", false]]);
  runs.set({ name: "now" }, []);
  assert.equal(runs.list.length, 1);
});

test("one run is saved as a history writes it, several with their names", () => {
  const run = runOf([[1, 0.1], [2, 0.2]]);
  assert.equal(csvText([run], ["loss"], [0, 9]), "step,time,loss\n1,0.5,0.1\n2,1,0.2\n");
  const two = csvText([run, { ...run, name: "=a,b" }], ["loss"], [2, 9]);
  assert.equal(two, `run,step,time,loss\nr,2,1,0.2\n"'=a,b",2,1,0.2\n`);
  run.store.append([["loss", column([2, NaN], [3, 1e-7])]]);
  assert.match(csvText([run], ["loss"], [2, 9]), /2,1,0\.2\n2,,nan\n3,,1e-7\n/);
  assert.equal(Math.fround(Number(shortest(Math.fround(Math.PI)))), Math.fround(Math.PI));
});

test("messages in order leave no gap", () => {
  const store = new RunStore();
  assert.equal(store.receive({ run: "r", seq: 0 }, [["loss", column([0, 1])]]), false);
  assert.equal(store.receive({ run: "r", seq: 1 }, [["loss", column([1, 2])]]), false);
  assert.equal(store.points, 2);
});

test("a lost message is noticed, and the full history heals it", () => {
  const store = new RunStore();
  store.receive({ run: "r", seq: 0 }, [["loss", column([0, 1])]]);
  assert.equal(store.receive({ run: "r", seq: 2 }, [["loss", column([2, 3])]]), true);
  const all = [["loss", column([0, 1], [1, 2], [2, 3])]];
  assert.equal(store.receive({ run: "r", seq: 3, full: true }, all), false);
  assert.equal(store.points, 3);
  assert.equal(store.receive({ run: "r", seq: 2 }, [["loss", column([2, 3])]]), false, "late and already known");
  assert.equal(store.points, 3);
  assert.equal(store.receive({ run: "r", seq: 4 }, [["loss", column([3, 4])]]), false);
});

test("joining late is a gap", () => {
  assert.equal(new RunStore("r").receive({ run: "r", seq: 5 }, []), true);
});

test("a new run starts from nothing", () => {
  const store = new RunStore();
  store.receive({ run: "a", seq: 0 }, [["loss", column([0, 1])]], [{ step: 0, kind: "stop", text: "" }]);
  store.receive({ run: "b", seq: 0 }, [["std", column([0, 1])]]);
  assert.deepEqual([[...store.series.keys()], store.events.length, store.run], [["std"], 0, "b"]);
});

test("a repeated event is kept once", () => {
  const store = new RunStore(),
    event = { step: 3, kind: "lr", text: "×2" };
  store.append([], [event]);
  store.append([], [{ ...event }]);
  assert.equal(store.events.length, 1);
});

test("the rest of the run is estimated from its recent pace", () => {
  const time = new Series();
  time.push([0, 100, 200, 300], [0, 100, 110, 120]); // the first hundred steps were slow
  assert.ok(Math.abs(secondsLeft(time, 400, 15) - 10) < 1e-6);
  assert.equal(secondsLeft(time, 300), 0);
  assert.ok(Number.isNaN(secondsLeft(new Series(), 400)));
  assert.ok(Number.isNaN(secondsLeft(time, 0)));
});

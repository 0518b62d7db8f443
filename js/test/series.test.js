import assert from "node:assert/strict";
import { test } from "node:test";
import { alignSeries, RunStore, secondsLeft, Series, thin, unpackColumns, unpackSnapshot } from "../src/lib/series.js";

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

test("series over different steps are aligned with gaps", () => {
  const [a, b, empty] = [new Series(), new Series(), new Series()];
  a.push([0, 1, 2], [10, 11, 12]);
  b.push([1, 3], [21, 23]);
  const [axis, ...columns] = alignSeries([a, b, empty]);
  assert.deepEqual([...axis], [0, 1, 2, 3]);
  assert.deepEqual(columns, [
    [10, 11, 12, null],
    [null, 21, null, 23],
    [null, null, null, null],
  ]);
  assert.deepEqual(alignSeries([empty]), [[], []]);
});

test("equal axes are passed on without a copy", () => {
  const [a, b] = [new Series(), new Series()];
  for (const series of [a, b]) series.push([0, 1], [1, 2]);
  assert.equal(alignSeries([a, b])[0].buffer, a.steps.buffer);
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

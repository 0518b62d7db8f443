import assert from "node:assert/strict";
import { test } from "node:test";
import {
  formatCount,
  formatDuration,
  formatFactor,
  formatMiB,
  formatNumber,
  formatPercent,
  formatPlain,
  formatShort,
  formatTicks,
} from "../src/lib/format.js";
import { axisRange, epochLines, extent } from "../src/lib/panel.js";
import { createScheduler, throttle } from "../src/lib/scheduler.js";
import { RunStore, Series } from "../src/lib/series.js";
import { hostTheme } from "../src/lib/theme.js";
import { createModel, revive } from "../src/page.js";
import { deviceSpec, PANELS, spreadWord } from "../src/live_curves/panels.js";
import { controlState, progressText } from "../src/live_curves/state.js";

test("numbers are written for people", () => {
  assert.deepEqual(
    [0.4123, 1204, 12.34, 0, -0.5, 3.14e-5, 2.5e7, NaN, Infinity].map((x) => formatNumber(x)),
    ["0.412", "1,204", "12.3", "0", "−0.500", "3.14e−5", "2.50e7", "–", "∞"],
  );
  assert.deepEqual([0.01, 0.0005, 1, 0.25, 100].map(formatPlain), ["0.01", "5e−4", "1", "0.25", "100"]);
  assert.deepEqual([0.712, 1, 0, null].map(formatPercent), ["71.2 %", "100 %", "0.0 %", "–"]);
  assert.deepEqual([512, 5300].map(formatMiB), ["512 MiB", "5.2 GiB"]);
  assert.deepEqual([7.4, 200, 7500, NaN].map(formatDuration), ["7 s", "3 min 20 s", "2 h 05 min", "–"]);
  assert.deepEqual([0.1, 1, 1.414, 10].map(formatFactor), ["×0.1", "×1", "×1.4", "×10"]);
  assert.deepEqual([950, 9500, 12000, 1.5e6].map(formatShort), ["950", "9,500", "12k", "1.5M"]);
  assert.equal(formatCount(12345.6), "12,346");
});

test("ticks of one axis have the same number of decimals", () => {
  assert.deepEqual(formatTicks([0, 0.5, 1]), ["0.0", "0.5", "1.0"]);
  assert.deepEqual(formatTicks([0, 1e-4, 2e-4]), ["0", "1e−4", "2e−4"]);
  assert.deepEqual(formatTicks([4.8, 5, 5.2]), ["4.8", "5.0", "5.2"]);
  assert.deepEqual(formatTicks([0, 0.025, 0.05]), ["0.000", "0.025", "0.050"]);
  assert.deepEqual(formatTicks([2, 4]), ["2", "4"]);
  assert.deepEqual(formatTicks([]), []);
});

test("an axis has air, no zero height, and respects its limits", () => {
  assert.deepEqual(axisRange(0, 1), [0, 1.06]);
  assert.ok(axisRange(3, 3)[1] > axisRange(3, 3)[0]);
  assert.deepEqual(axisRange(Infinity, -Infinity), [0, 1]);
  assert.deepEqual(axisRange(20, 60, [0, 100]), [0, 100]);
  assert.deepEqual(axisRange(20, 180, [0, 100]), [0, 180], "a limit gives way to data");
  assert.ok(axisRange(0.01, 10, [null, null], true)[0] > 0);
  assert.deepEqual(axisRange(Infinity, -Infinity, [null, null], true), [0.1, 1]);
});

test("the extent skips what cannot be drawn", () => {
  const series = new Series();
  series.push([0, 1, 2, 3], [NaN, 2, Infinity, -1]);
  assert.deepEqual(extent([series]), [-1, 2]);
  assert.deepEqual(extent([series], true), [2, 2]);
  assert.deepEqual(extent([]), [Infinity, -Infinity]);
});

test("epoch lines thin out when they get close", () => {
  assert.deepEqual(epochLines(10, 40, 400), [10, 20, 30]);
  assert.deepEqual(epochLines(10, 1000, 280), [100, 200, 300, 400, 500, 600, 700, 800, 900]);
  assert.deepEqual(epochLines(0, 40, 400), []);
});

const nothing = () => undefined;
const waitingFor =
  (...names) =>
  (name) =>
    names.includes(name) ? { late: false } : undefined;

test("buttons follow the state of the run", () => {
  const running = controlState({ state: "running" }, nothing);
  assert.deepEqual([running.label, running.pause.text, running.stop.disabled], ["Running", "Pause", false]);
  const paused = controlState({ state: "paused" }, nothing);
  assert.deepEqual([paused.pause.text, paused.pause.command], ["Resume", "resume"]);
  for (const state of ["idle", "stopped", "finished", "failed"]) {
    const over = controlState({ state }, nothing);
    assert.ok(over.stop.disabled && over.pause.disabled && over.rateDisabled);
  }
  assert.equal(controlState({}, nothing).state, "idle");
  assert.equal(controlState({ state: "constructor" }, nothing).state, "idle");
});

test("a click shows at once, before the answer", () => {
  const stopping = controlState({ state: "running" }, waitingFor("stop"));
  assert.deepEqual(
    [stopping.state, stopping.stop.text, stopping.stop.busy, stopping.stop.disabled],
    ["stopping", "Stopping…", true, true],
  );
  assert.equal(controlState({ state: "running" }, waitingFor("pause")).pause.text, "Pausing…");
});

test("a late answer tells what to press", () => {
  assert.match(controlState({ state: "running" }, () => ({ late: true })).notice, /press ■/);
});

test("a failed run shows its error, a lost kernel is named", () => {
  const failed = controlState({ state: "failed", error: "ValueError: no" }, nothing);
  assert.deepEqual([failed.notice, failed.noticeTone], ["ValueError: no", "bad"]);
  const lost = controlState({ state: "running" }, nothing, { lost: true });
  assert.deepEqual([lost.label, lost.stop.disabled], ["Not connected", true]);
  assert.equal(controlState({ state: "finished" }, nothing, { lost: true }).label, "Finished");
  assert.equal(controlState({ state: "running" }, nothing, { page: true }).label, "Recorded");
});

test("progress in words", () => {
  const status = { state: "running", epochs: 20, steps_per_epoch: 150, total_steps: 3000 };
  assert.equal(progressText(status, 1204, 130), "epoch 9 of 20 · step 1,204 of 3,000 · 2 min 10 s left");
  assert.equal(
    progressText({ ...status, state: "finished" }, 3000, 0, 300),
    "epoch 20 of 20 · step 3,000 of 3,000 · took 5 min 00 s",
  );
  assert.equal(progressText({}, 0, NaN), "");
});

test("the spread is put in a word", () => {
  assert.deepEqual([0.05, 0.3, 0.9, NaN].map(spreadWord), ["collapsed", "watch this", "healthy", ""]);
});

test("the untrained accuracy is the baseline", () => {
  const { baseline } = PANELS.find((panel) => panel.id === "knn"),
    store = new RunStore();
  assert.equal(baseline(store), null);
  store.append([["knn", { steps: [0, 10], values: [0.25, 0.5] }]]);
  assert.equal(baseline(store).value, 0.25);
  store.append([["knn_untrained", { steps: [0], values: [0.125] }]]);
  assert.equal(baseline(store).value, 0.125);
});

test("the device panel shows the GPU if there is one", () => {
  const store = new RunStore();
  assert.equal(deviceSpec(store).curves[0].metric, "cpu_util");
  store.append([["gpu_util", { steps: [0], values: [80] }]]);
  assert.equal(deviceSpec(store).curves[0].metric, "gpu_util");
});

test("many requests draw once per frame, none while hidden", () => {
  const frames = [],
    doc = { hidden: false, addEventListener: (_, f) => (doc.shown = f), removeEventListener() {} };
  let drawn = 0;
  const schedule = createScheduler(() => drawn++, null, { frame: (f) => frames.push(f), cancel() {}, doc });
  for (let i = 0; i < 5; i++) schedule.request();
  assert.equal(frames.length, 1);
  frames.pop()();
  assert.equal(drawn, 1);
  doc.hidden = true;
  schedule.request();
  assert.equal(frames.length, 0);
  doc.hidden = false;
  doc.shown();
  frames.pop()();
  assert.equal(drawn, 2);
  schedule.dispose();
  schedule.request();
  assert.equal(frames.length, 0);
});

test("throttle keeps the last call", () => {
  let now = 0,
    later;
  const calls = [],
    timers = { performance: { now: () => now }, setTimeout: (f) => ((later = f), 1), clearTimeout() {} };
  const f = throttle((x) => calls.push(x), 100, timers);
  f(1);
  f(2);
  f(3);
  assert.deepEqual(calls, [1]);
  now = 100;
  later();
  assert.deepEqual(calls, [1, 3]);
});

test("the theme is read from each kind of host", () => {
  const doc = (body = {}, html = {}, classes = []) => ({
    body: { getAttribute: (name) => body[name] ?? null, classList: { contains: (name) => classes.includes(name) } },
    documentElement: { getAttribute: (name) => html[name] ?? null },
  });
  const light = () => false;
  assert.equal(hostTheme(doc({ "data-jp-theme-light": "false" }), light), "dark");
  assert.equal(
    hostTheme(doc({ "data-jp-theme-light": "true" }), () => true),
    "light",
  );
  assert.equal(hostTheme(doc({}, {}, ["vscode-dark"]), light), "dark");
  assert.equal(hostTheme(doc({}, { theme: "dark" }), light), "dark");
  assert.equal(
    hostTheme(doc({}, { "data-bs-theme": "light" }), () => true),
    "light",
  );
  assert.equal(
    hostTheme(doc(), () => true),
    "dark",
  );
});

test("the page's model knows get, set, on and off", () => {
  const seen = [],
    model = createModel({ a: 1 }),
    listener = () => seen.push(model.get("a"));
  model.on("change:a", listener);
  model.set("a", 2);
  model.set({ a: 2 });
  model.off("change:a", listener);
  model.set("a", 3);
  assert.deepEqual(seen, [2]);
});

test("bytes come back from the record of a page", () => {
  const { data } = JSON.parse('{"data": {"__bytes__": "AP8="}}', revive);
  assert.deepEqual([data.getUint8(0), data.getUint8(1)], [0, 255]);
});

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
import { hostName } from "../src/lib/host.js";
import { createScheduler, throttle } from "../src/lib/scheduler.js";
import { RunStore } from "../src/lib/series.js";
import { hostTheme } from "../src/lib/theme.js";
import { createModel, revive, start } from "../src/page.js";
import { chartOf } from "../src/live_curves/chart.js";
import { drawChart } from "../src/live_curves/draw.js";
import { epochLines, eventsAt, eventText, spaced } from "../src/live_curves/marks.js";
import { GAUGES, gaugeTitle, otherPanel, PANELS, spreadWord } from "../src/live_curves/panels.js";
import { createPointer } from "../src/live_curves/pointer.js";
import { createRuns } from "../src/live_curves/runs.js";
import { axisRange, linearTicks, logTicks, makeScale, timeTicks } from "../src/live_curves/scale.js";
import { spread } from "../src/live_curves/spread.js";
import { controlState, progressText } from "../src/live_curves/state.js";
import { SvgContext } from "../src/live_curves/svg.js";
import { createView } from "../src/live_curves/view.js";
import { AXES, xTicks } from "../src/live_curves/xaxis.js";

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

test("ticks of one axis differ, however close one looks", () => {
  assert.deepEqual(formatTicks([1200, 1202, 1204]), ["1,200", "1,202", "1,204"]);
  assert.deepEqual(formatTicks([123400, 123450, 123500]), ["123.40k", "123.45k", "123.50k"]);
  assert.deepEqual(formatTicks([0, 5e5, 1e6]), ["0", "0.5M", "1.0M"]);
  assert.deepEqual(formatTicks([12, 12.25, 12.5]), ["12.00", "12.25", "12.50"]);
  assert.deepEqual(formatTicks([0.005, 0.00502, 0.00504]), ["5.00e−3", "5.02e−3", "5.04e−3"]);
  assert.deepEqual(formatTicks([-2e9, 0]), ["−2e9", "0"]);
  const { labels } = AXES.time;
  assert.deepEqual(labels([60, 62, 64]), ["60 s", "62 s", "64 s"]);
  assert.deepEqual(labels([0, 60, 120]), ["0 min", "1 min", "2 min"]);
  assert.deepEqual(labels([3600, 3900]), ["60 min", "65 min"]);
  assert.deepEqual(labels([0, 43200, 172800]), ["0.0 d", "0.5 d", "2.0 d"]);
  const chart = (range, more = {}) => {
    const { runs, view } = viewOn(curve([0, 0.00501], [5000, 0.00509]), { x_range: range, ...more });
    return chartOf(LOSS, view, runs.current, 400, 148);
  };
  for (const one of [chart([1200, 1210]), chart([1200, 1210], { log_x: true }), chart([1, 4000], { log_x: true, log_y: ["loss"] })])
    for (const ticks of [one.xTicks, one.yTicks]) assert.equal(new Set(ticks.map(({ text }) => text)).size, ticks.length, JSON.stringify(ticks));
});

test("a percentage keeps its unit on a logarithmic axis, whoever asked for that", () => {
  const store = new RunStore();
  store.append([["knn", { steps: [0, 10], values: [0.1, 0.9] }]]);
  const { runs, view } = viewOn(store, { log_y: ["knn"] });
  assert.deepEqual(chartOf(PANELS[1], view, runs.current, 400, 148).yTicks.map(({ text }) => text), ["10 %", "20 %", "50 %"]);
});

test("an axis has air, no zero height, and respects its limits", () => {
  assert.deepEqual(axisRange(0, 1), [0, 1.06]);
  assert.ok(axisRange(3, 3)[1] > axisRange(3, 3)[0]);
  assert.deepEqual(axisRange(Infinity, -Infinity), [0, 1]);
  assert.deepEqual(axisRange(20, 60, [0, 100]), [0, 100]);
  assert.deepEqual(axisRange(99, 100, [0, null]), [0, 106], "a flat curve stays off the edge");
  assert.deepEqual(axisRange(20, 180, [0, 100]), [0, 180], "a limit gives way to data");
  assert.ok(axisRange(0.01, 10, [null, null], true)[0] > 0);
  assert.deepEqual(axisRange(Infinity, -Infinity, [null, null], true), [0.1, 1]);
});

test("scales go to pixels and back", () => {
  for (const scale of [makeScale(2, 8, 50, 350), makeScale(1e-4, 100, 50, 350, true), makeScale(0, 1, 100, 0)])
    for (const px of [scale.from, (scale.from + scale.to) / 2, scale.to]) assert.ok(Math.abs(scale.at(scale.back(px)) - px) < 1e-6);
});

test("ticks are round, few, and inside", () => {
  assert.deepEqual(linearTicks(0, 100, 5), [0, 20, 40, 60, 80, 100]);
  assert.deepEqual(linearTicks(0.03, 0.1, 4), [0.04, 0.06, 0.08, 0.1]);
  assert.deepEqual(linearTicks(0, 1, 5, true), [0, 1]);
  assert.deepEqual(logTicks(0.001, 1000, 4), [0.01, 1, 100]);
  assert.deepEqual(logTicks(0.9, 6, 4), [1, 2, 5]);
  assert.deepEqual(timeTicks(0, 240, 4), [0, 60, 120, 180, 240]);
  assert.deepEqual([30, 90, 5400].map((x) => AXES.time.labels([x])[0]), ["30 s", "1.5 min", "1.5 h"]);
  assert.deepEqual(xTicks("step", 0, 3, 640, false), [0, 1, 2, 3]);
  assert.deepEqual(xTicks("epoch", 0, 1, 320, false), [0, 0.2, 0.4, 0.6, 0.8, 1]);
  assert.deepEqual([linearTicks(1, 1, 5), logTicks(0, 1, 5)], [[], []]);
});

test("epoch lines thin out when they get close", () => {
  assert.deepEqual(epochLines(10, 40, 400), [10, 20, 30]);
  assert.deepEqual(epochLines(10, 1000, 280), [100, 200, 300, 400, 500, 600, 700, 800, 900]);
  assert.deepEqual(epochLines(10, 100, 300, 70), [80, 90]);
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
  assert.equal(progressText({ ...status, epochs: 0, state: "recorded" }, 3000), "epoch 20 · step 3,000 of 3,000");
});

test("a word in place of a number is no number", () => {
  assert.deepEqual(["nan", undefined].map((x) => formatNumber(x)), ["–", "–"]);
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

/** A view on runs without a page: `traits` as Python would set them. */
function viewOn(store, traits = {}, status = {}, others = []) {
  const runs = createRuns(store),
    model = { get: (name) => traits[name] },
    frame = { on() {}, tell: (name, value) => (traits[name] = value) };
  runs.set({ name: "now", ...status }, others);
  return { runs, traits, view: createView(frame, model, runs, () => {}) };
}
const LOSS = PANELS[0];
function curve(...points) {
  const store = new RunStore();
  store.append([["loss", { steps: points.map((p) => p[0]), values: points.map((p) => p[1]) }]]);
  return store;
}

test("gauges have a group of their own, named after the device", () => {
  assert.deepEqual(GAUGES.map((spec) => spec.metric), ["gpu_util", "gpu_mem", "gpu_temp", "gpu_power", "cpu_util", "ram"]);
  assert.deepEqual([gaugeTitle(["gpu_util", "ram"]), gaugeTitle(["ram"])], ["GPU and processor", "Processor"]);
  assert.equal(GAUGES[2].summary(curveOf("gpu_temp", 61)), "61 °C");
  assert.equal(otherPanel("kl").title, "kl");
});
function curveOf(metric, value) {
  const store = new RunStore();
  store.append([[metric, { steps: [0], values: [value] }]]);
  return store;
}

test("zoom goes to all panels, the values follow, and what makes no sense is everything", () => {
  const { runs, traits, view } = viewOn(curve([0, 100], [10, 2], [20, 1], [30, 0.5]));
  assert.deepEqual(view.ends(), [0, 30]);
  view.zoom([9, 31]);
  assert.deepEqual(traits.x_range, [9, 31]);
  const chart = chartOf(LOSS, view, runs.current, 400, 148);
  assert.ok(chart.y.high < 3, "the peak outside does not count");
  view.zoom([5, 5]);
  assert.deepEqual(traits.x_range, []);
});

test("a change of the axis takes the zoom along", () => {
  const { traits, view } = viewOn(curve([0, 1], [100, 2]), {}, { steps_per_epoch: 10, batch_size: 0 });
  view.zoom([20, 40]);
  view.setAxis("epoch");
  assert.deepEqual([traits.x_axis, traits.x_range], ["epoch", [2, 4]]);
  assert.deepEqual(view.ends(), [2, 4]);
  view.setAxis("images");
  assert.deepEqual([traits.x_range, view.shown()], [[], []], "a run without batch size has no place there");
});

test("a logarithmic axis says what it leaves out", () => {
  const { runs, view } = viewOn(curve([0, -1], [1, 0], [2, 10], [3, 100]), { log_y: ["loss"], log_x: true });
  const chart = chartOf(LOSS, view, runs.current, 400, 148);
  assert.ok(chart.y.low > 0 && chart.y.log && chart.x.low === 1);
  assert.match(chart.note, /2 values ≤ 0 not shown on a logarithmic axis; the start at 0/);
  const plain = viewOn(curve([0, 1], [1, NaN]));
  assert.match(chartOf(LOSS, plain.view, plain.runs.current, 400, 148).note, /1 value is not finite/);
});

test("smoothed curves lie over what was measured, the followed run on top", () => {
  const points = Array.from({ length: 50 }, (_, i) => [i, i % 2]);
  const { runs, view } = viewOn(curve(...points), { smoothing: 0.9 });
  const { curves } = chartOf(LOSS, view, runs.current, 400, 148);
  assert.deepEqual(curves.map((one) => [one.faint, one.current]), [[true, true], [false, true]]);
});

test("a zoom that Python made and a logarithmic axis cannot show is everything", () => {
  const { view, traits } = viewOn(curve([1, 1], [100, 2]), { log_x: true, x_range: [0, 50] });
  assert.deepEqual([view.range, view.ends()], [null, [1, 100]]);
  traits.log_x = false;
  view.setSmoothing(0.5);
  assert.deepEqual(view.ends(), [0, 50]);
});

test("zooming out by key ends where everything is seen, also on a logarithmic axis", () => {
  const { runs, view, traits } = viewOn(curve([1, 1], [10, 2], [1000, 3]), { log_x: true, x_range: [5, 50] }),
    chart = () => chartOf(LOSS, view, runs.current, 400, 148),
    keys = {};
  createPointer({ addEventListener: (name, f) => (keys[name] = f) }, { chart, view, spec: LOSS });
  for (let i = 0; i < 4; i++) {
    keys.keydown({ key: "-", preventDefault() {} });
    assert.ok(view.ends()[0] >= 1 && view.ends()[1] <= 1000, String(view.ends()));
  }
  assert.deepEqual(traits.x_range, []);
});

test("what was thinned out is known", () => {
  const store = new RunStore();
  store.append([["loss", { steps: [0, 1], values: [1, 2], total: 2 }]]);
  assert.equal(store.thinned, false);
  store.append([["loss", { steps: [2, 4], values: [1, 2], total: 3 }]]);
  assert.equal(store.thinned, true);
});

test("a hidden run is not drawn", () => {
  const { view, traits, runs } = viewOn(curve([0, 1], [1, 2]));
  view.hide(runs.current, true);
  const level = { ...LOSS, baseline: () => ({ value: 9, label: "level" }) };
  assert.equal(chartOf(level, view, runs.current, 400, 148).baseline, null);
  assert.deepEqual([traits.hidden, view.shown().length], [["now"], 0]);
  view.hide(runs.current, false);
  assert.equal(view.shown().length, 1);
});

test("events stand where they happened and say what it was", () => {
  const store = curve([0, 1], [100, 2]);
  store.append([], [{ step: 40, kind: "collapse", text: "spread below 0.2" }, { step: 50, kind: "epoch", text: "" }, { step: 400, kind: "lr", text: "" }]);
  const { runs, view } = viewOn(store, {}, { steps_per_epoch: 25 });
  const { marks, epochs, x } = chartOf(LOSS, view, runs.current, 400, 148);
  assert.deepEqual(marks.map(({ event, value }) => [event.kind, value]), [["collapse", 40]]);
  assert.deepEqual(epochs.map((px) => Math.round(x.back(px))), [25, 50, 75]);
  assert.equal(eventsAt(marks, x.at(40) + 3).length, 1);
  assert.equal(eventsAt(marks, x.at(40) + 9).length, 0);
  assert.equal(eventText(marks[0].event), "collapse warning: spread below 0.2 · step 40");
  assert.equal(eventText({ kind: "lr", text: "learning rate × 0.5", step: 7 }), "learning rate × 0.5 · step 7");
});

test("labels keep to the picture and away from the name of the axis", () => {
  const { runs, view } = viewOn(curve([0, 0.00501001], [5000, 0.00501009]), { x_range: [1200, 1210] }),
    ctx = new SvgContext(400, 148),
    said = [];
  ctx.fillText = (text, x) => said.push([text, ctx.textAlign === "right" ? x - ctx.measureText(text).width : x - ctx.measureText(text).width / 2, x]);
  drawChart(ctx, chartOf(LOSS, view, runs.current, 400, 148), { series: Array(6).fill(""), font: "11px sans" });
  const title = said.find(([text]) => text === "step");
  for (const [text, left] of said) assert.ok(left >= 0 && (!/^1,2/.test(text) || left > title[2]), `${text} at ${left}`);
  assert.ok(said.some(([text]) => text.length > 8 && text.endsWith("e−3")));
});

test("an SVG is the same drawing, and names in it stay text", () => {
  const { runs, view } = viewOn(curve([0, 1], [50, 3], [100, 2]), { smoothing: 0.5 });
  const ctx = new SvgContext(400, 148);
  const colours = { series: Array(6).fill("#0072b2"), rule: "#eee", soft: "#555", ink: "#111", background: "#fff", good: "g", warn: "w", bad: "b", font: "11px sans" };
  drawChart(ctx, chartOf(LOSS, view, runs.current, 400, 148), colours);
  ctx.fillText(`<script>&"\u0000`, 1, 1);
  const text = ctx.toString();
  assert.ok(text.startsWith('<svg xmlns="http://www.w3.org/2000/svg"') && !text.includes("NaN") && !text.includes("<script>"));
  assert.match(text, /&lt;script&gt;&amp;&quot;</);
  assert.match(text, /clip-path="url\(#clip-1\)"/);
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

test("a page that cannot start says why", async () => {
  const widget = {},
    doc = { getElementById: (id) => (id === "nnb-record" ? { textContent: "{" } : widget) };
  await assert.rejects(start(doc));
  assert.match(widget.textContent, /^This page could not be shown: /);
});

test("bytes come back from the record of a page", () => {
  const { data } = JSON.parse('{"data": {"__bytes__": "AP8="}}', revive);
  assert.deepEqual([data.getUint8(0), data.getUint8(1)], [0, 255]);
});

test("checkpoints give way to newer ones that stand close, other events never", () => {
  const mark = (at, kind) => ({ at, event: { kind } });
  const marks = [mark(0, "checkpoint"), mark(8, "checkpoint"), mark(9, "lr"), mark(16, "checkpoint"), mark(20, "checkpoint")];
  assert.deepEqual(spaced(marks, 10).map(({ at }) => at), [8, 9, 20]);
});

test("hosts are told apart by what they leave on the page", () => {
  const doc = (className = "", dataset = {}) => ({ body: { className, dataset } });
  const kernel = { widget_manager: { kernel: {} } };
  assert.equal(hostName({ host: "page" }, doc("vscode-dark")), "page");
  assert.equal(hostName(kernel, doc()), "jupyter");
  assert.equal(hostName({}, doc()), "other");
  assert.equal(hostName({}, doc("vscode-light")), "vscode");
  assert.equal(hostName({}, doc("", { vscodeThemeKind: "vscode-dark" })), "vscode");
  globalThis.google = { colab: {} };
  assert.equal(hostName({}, doc()), "colab");
  delete globalThis.google;
});

test("labels on a line keep their order, their distance and their bounds", () => {
  assert.deepEqual(spread([], 10, 0, 100), []);
  assert.deepEqual(spread([80, 20], 10, 0, 100), [80, 20], "room for all");
  assert.deepEqual(spread([50, 50], 10, 0, 100), [45, 55], "around their middle");
  assert.deepEqual(spread([50, 52, 59], 10, 0, 100), [161 / 3 - 10, 161 / 3, 161 / 3 + 10]);
  assert.deepEqual(spread([99, 98, 1], 10, 0, 100), [95, 85, 5], "inside");
  const wanted = Array.from({ length: 8 }, (_, i) => (i * 37) % 41);
  const places = spread(wanted, 15, -5, 125),
    sorted = [...places].sort((a, b) => a - b);
  assert.ok(sorted.every((x, i) => !i || x - sorted[i - 1] >= 15 - 1e-9));
  assert.ok(sorted[0] >= 2.5 - 1e-9 && sorted[7] <= 117.5 + 1e-9);
  const order = (list) => list.map((_, i) => i).sort((a, b) => list[a] - list[b]);
  assert.deepEqual(order(places), order(wanted));
});

// What a curve is drawn over: steps, epochs, seconds or images, each a rising function of the step.
import { formatCount, formatDuration, formatShort, formatTicks } from "../lib/format.js";
import { boundary } from "./decimate.js";
import { linearTicks, logTicks, timeTicks } from "./scale.js";

const trimmed = (x, digits) => String(Number(x.toFixed(digits))).replace("-", "−");
const duration = (x) => (x > 0 && x < 10 ? `${trimmed(x, x < 1 ? 2 : 1)} s` : formatDuration(x));
const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]]; // seconds

/** Marks along the axis: all in the longest unit in which halves are enough. */
function timeLabels(ticks) {
  const last = Math.max(...ticks),
    fits = ([unit, name]) => unit === 1 || (last >= (name === "d" ? 2 : 1) * unit && ticks.every((x) => Math.abs((2 * x) / unit - Math.round((2 * x) / unit)) < 1e-9));
  const [unit, name] = UNITS.find(fits);
  return formatTicks(ticks.map((x) => x / unit)).map((text) => `${text} ${name}`);
}

/** @type {Record<string, {title: string, why: string, say: (x: number) => string, labels: (ticks: number[]) => string[], whole: boolean}>} */
export const AXES = {
  step: { title: "Step", why: "", say: (x) => `step ${formatCount(x)}`, labels: formatTicks, whole: true },
  epoch: {
    title: "Epoch",
    why: "The length of an epoch is not known for this run.",
    say: (x) => `epoch ${trimmed(x, 2)}`,
    labels: formatTicks,
    whole: false,
  },
  time: { title: "Time", why: "This run has no times.", say: duration, labels: timeLabels, whole: false },
  images: {
    title: "Images",
    why: "The batch size is not known for this run.",
    say: (x) => `${formatShort(x)} images`,
    labels: formatTicks,
    whole: true,
  },
};

/** Seconds by step and back, by straight lines between what was logged. */
function timeMap(series) {
  const { steps, values, n } = series;
  if (n < 2) return null;
  const between = (a, b, at) => {
    const i = Math.min(Math.max(boundary(a, at, n), 1), n - 1);
    const [a0, a1] = [a[i - 1], a[i]];
    if (at <= a[0]) return a[0] > 0 ? (b[0] * at) / a[0] : b[0]; // everything starts at 0
    return a1 > a0 ? b[i - 1] + ((b[i] - b[i - 1]) * (at - a0)) / (a1 - a0) : b[i];
  };
  return { toX: (step) => between(steps, values, step), toStep: (x) => between(values, steps, x) };
}

const proportional = (k) => (k > 0 ? { toX: (step) => step * k, toStep: (x) => x / k } : null);
const SAME = { toX: (step) => step, toStep: (x) => x };

/**
 * How the steps of a run lie on an axis, or null where that is not known.
 * @param {{store: import("../lib/series.js").RunStore, info: {steps_per_epoch?: number, batch_size?: number}}} run
 * @param {"step"|"epoch"|"time"|"images"} axis
 */
export function mapOf({ store, info }, axis) {
  if (axis === "epoch") return proportional(1 / (info.steps_per_epoch || Infinity));
  if (axis === "images") return proportional(info.batch_size);
  if (axis === "time") return timeMap(store.get("time"));
  return SAME;
}

/** Marks along the axis. */
export function xTicks(axis, low, high, width, log) {
  const most = Math.max(2, Math.floor(width / 64));
  if (log) return logTicks(low, high, most);
  return axis === "time" ? timeTicks(low, high, most) : linearTicks(low, high, most, AXES[axis].whole);
}

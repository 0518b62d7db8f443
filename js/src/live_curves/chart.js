// One chart as numbers: which points, which axes, which marks. Nothing here touches the page.
import { formatTicks } from "../lib/format.js";
import { decimate } from "./decimate.js";
import { epochLines, markedEvents, spaced } from "./marks.js";
import { axisRange, linearTicks, logTicks, makeScale } from "./scale.js";
import { smoothed } from "./smooth.js";
import { AXES, mapOf, xTicks } from "./xaxis.js";

const MARGIN = { left: 52, right: 10, top: 10, bottom: 26 }; // px
const DOTS = 24; // so few points get dots
const FEW = 4; // runs, up to which the raw curves are drawn behind the smoothed ones

/** The rectangle of the curves inside a chart of this size. */
export const boxOf = (width, height) => ({
  left: MARGIN.left,
  top: MARGIN.top,
  width: Math.max(20, width - MARGIN.left - MARGIN.right),
  height: Math.max(20, height - MARGIN.top - MARGIN.bottom),
});

/**
 * @param {import("./panels.js").PanelSpec} spec
 * @param {ReturnType<import("./view.js").createView>} view
 * @param {import("./runs.js").Run} current the run whose marks are drawn
 * @param {number} width px
 * @param {number} height px
 */
export function chartOf(spec, view, current, width, height) {
  const box = boxOf(width, height),
    log = view.logY(spec.metric),
    floor = log ? 0 : -Infinity;
  const [from, to] = view.ends();
  const x = makeScale(from, to, box.left, box.left + box.width, view.logX);
  const curves = [],
    notes = { nonPositive: 0, odd: 0 };
  const shown = view.shown();
  let low = Infinity,
    high = -Infinity;
  for (const run of shown) {
    const series = run.store.get(spec.metric);
    if (!series.n) continue;
    const how = { map: run.map, scale: x, floor };
    const raw = decimate(series.steps, series.values, how);
    const weight = spec.exact ? 0 : view.smoothing,
      soft = weight > 0 && series.n > 2;
    const line = soft ? decimate(series.steps, smoothed(series, weight), how) : raw;
    const look = { colour: run.colour, dash: run.dash, width: run.current ? 1.7 : 1.3, current: run.current };
    const background = soft && shown.length <= FEW;
    if (background) curves.push({ ...look, points: raw, faint: true, width: 1, dash: [] });
    curves.push({ ...look, points: line, faint: false, dots: raw.points <= DOTS });
    for (const points of background ? [raw, line] : [line])
      if (points.low <= points.high) [low, high] = [Math.min(low, points.low), Math.max(high, points.high)];
    if (log) notes.nonPositive += series.nonPositive;
    notes.odd += series.odd;
  }
  // faint curves below, the followed run on top
  curves.sort((a, b) => b.faint - a.faint || a.current - b.current);
  const baseline = (!view.hides(current) && spec.baseline?.(current.store)) || null;
  if (baseline && (!log || baseline.value > 0))
    [low, high] = [Math.min(low, baseline.value), Math.max(high, baseline.value)];
  const ends = spec.headroom
    ? [log ? axisRange(low, high, undefined, true)[0] : 0, spec.headroom * Math.max(high, 1e-9)]
    : axisRange(low, high, log ? [null, null] : spec.limits, log);
  const y = makeScale(ends[0], ends[1], box.top + box.height, box.top, log);
  return {
    box,
    x,
    y,
    log,
    curves,
    baseline,
    bands: spec.bands ?? [],
    ...marksOf(view, current, x),
    axis: view.axis,
    xTicks: labelled(xTicks(view.axis, from, to, box.width, view.logX), AXES[view.axis].labels, view.logX),
    yTicks: labelled(yTicks(ends, box.height / 22, log, spec.unit), spec.ticks ?? formatTicks, log),
    note: noteOf(notes, view, shown),
  };
}

/** Ticks with their labels: each alone where they span decades, else all alike. */
function labelled(ticks, labels, log) {
  const texts = log && ticks.at(-1) >= 10 * ticks[0] ? ticks.map((value) => labels([value])[0]) : labels(ticks);
  return ticks.map((value, i) => ({ value, text: texts[i] }));
}

function yTicks([low, high], most, log, unit = 1) {
  if (log) return logTicks(low, high, most);
  const whole = high > 2 * unit ? unit : 1; // MiB until there are GiB
  return linearTicks(low / whole, high / whole, most).map((value) => value * whole);
}

/** Ends of epochs and events of the followed run, in px. */
function marksOf(view, current, x) {
  const map = mapOf(current, view.axis);
  if (!map || view.hides(current)) return { epochs: [], marks: [] };
  const within = (value) => value >= x.low && value <= x.high;
  const { steps_per_epoch: perEpoch } = current.info,
    { store } = current;
  const ends = [map.toStep(x.low), Math.min(map.toStep(x.high), Math.max(store.lastStep, 0))];
  const width = (x.to - x.from) * ((map.toX(ends[1]) - x.low) / (x.high - x.low));
  const lines = view.logX ? [] : epochLines(perEpoch, ends[1], width, ends[0]);
  return {
    epochs: lines.map((step) => x.at(map.toX(step))),
    marks: spaced(
      markedEvents(store)
        .map((event) => ({ event, value: map.toX(event.step) }))
        .filter(({ value }) => within(value))
        .map(({ event, value }) => ({ event, value, at: x.at(value) })),
    ),
  };
}

const count = (n, one, many) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

/** What cannot be drawn, in words. */
function noteOf({ nonPositive, odd }, view, shown) {
  const before = view.logX ? shown.reduce((sum, run) => sum + Number(run.map.toX(firstStep(run.store)) <= 0), 0) : 0;
  return [
    nonPositive && `${count(nonPositive, "value", "values")} ≤ 0 not shown on a logarithmic axis`,
    odd && `${count(odd, "value is", "values are")} not finite`,
    before && "the start at 0 has no place on a logarithmic axis",
  ]
    .filter(Boolean)
    .join("; ");
}

function firstStep(store) {
  let first = Infinity;
  for (const series of store.series.values()) if (series.n) first = Math.min(first, series.steps[0]);
  return first;
}

// How one looks at the curves: axis, smoothing, zoom, hidden runs. Kept in the traits, so that Python sees and sets it.
import { mapOf } from "./xaxis.js";

const TRAITS = ["x_axis", "smoothing", "log_x", "log_y", "x_range", "hidden"];

/**
 * @param {{on: Function, tell: (name: string, value: any) => void}} frame
 * @param {any} model
 * @param {ReturnType<import("./runs.js").createRuns>} runs
 * @param {() => void} changed
 */
export function createView(frame, model, runs, changed) {
  const view = {};
  let version = 0,
    cursor = null, // the place on the axis that is pointed at
    pointedBy = null, // id of the panel where it happens
    near = null; // name of the run whose curve is nearest there
  const pointed = new Set();

  function read() {
    const range = model.get("x_range") ?? [],
      drawable = range.length === 2 && !(model.get("log_x") && range[0] <= 0);
    Object.assign(view, {
      axis: model.get("x_axis") || "step",
      smoothing: Number(model.get("smoothing")) || 0,
      logX: Boolean(model.get("log_x")),
      logY: new Set(model.get("log_y") ?? []),
      range: drawable ? [...range] : null,
      hidden: new Set(model.get("hidden") ?? []),
    });
    version++;
    changed();
  }

  function set(traits) {
    for (const [name, value] of Object.entries(traits)) frame.tell(name, value);
    read();
  }

  const api = {
    get axis() {
      return view.axis;
    },
    get smoothing() {
      return view.smoothing;
    },
    get logX() {
      return view.logX;
    },
    get range() {
      return view.range;
    },
    get version() {
      return version;
    },
    get cursor() {
      return cursor;
    },
    get pointedBy() {
      return pointedBy;
    },
    get near() {
      return near;
    },
    logY: (metric) => view.logY.has(metric),
    hides: (run) => view.hidden.has(run.name),
    /** The runs to draw: not hidden, and with a known place on the axis; each with its map. */
    shown: () =>
      runs.list
        .filter((run) => !view.hidden.has(run.name))
        .map((run) => ({ ...run, map: mapOf(run, view.axis) }))
        .filter((run) => run.map),
    /** The ends of the axis: what was zoomed to, else everything that is shown. */
    ends: () => view.range ?? api.whole(),
    whole() {
      let high = 0,
        low = Infinity;
      for (const { store, map } of api.shown()) {
        high = Math.max(high, map.toX(Math.max(store.lastStep, 0)));
        if (view.logX) low = Math.min(low, firstPositive(store, map));
      }
      if (!view.logX) return [0, high || 1];
      return low < high ? [low, high] : [Math.min(low, 1), Math.max(10 * Math.min(low, 1), high)];
    },
    setAxis(axis) {
      if (axis === view.axis) return;
      const [from, to] = [mapOf(runs.current, view.axis), mapOf(runs.current, axis)];
      const range = view.range && from && to ? view.range.map((x) => to.toX(from.toStep(x))) : [];
      set({ x_axis: axis, x_range: range[1] > range[0] ? range : [] });
    },
    setSmoothing: (weight) => set({ smoothing: weight }),
    /** Shows another weight without telling Python yet: while a slider is dragged. */
    trySmoothing(weight) {
      view.smoothing = weight;
      version++;
      changed();
    },
    setLogX: (on) => set({ log_x: on, x_range: on && view.range?.[0] <= 0 ? [] : (view.range ?? []) }),
    setLogY(metric, on) {
      set({ log_y: on ? [...view.logY, metric] : [...view.logY].filter((other) => other !== metric) });
    },
    hide(run, on) {
      set({ hidden: on ? [...view.hidden, run.name] : [...view.hidden].filter((name) => name !== run.name) });
    },
    /** Zooms all panels to these ends; null shows everything. */
    zoom(range) {
      const good = range && range[1] > range[0] && (!view.logX || range[0] > 0);
      set({ x_range: good ? range : [] });
    },
    /** Points at a place on the axis in all panels; null at nothing. `by` is the panel where it happens, `run` the nearest. */
    point(x, by = null, run = null) {
      [cursor, pointedBy, near] = [x, by, run];
      for (const f of pointed) f(x, by);
    },
    onPoint: (f) => pointed.add(f),
    offPoint: (f) => pointed.delete(f),
  };
  for (const name of TRAITS) frame.on(`change:${name}`, read);
  read();
  return api;
}

function firstPositive(store, map) {
  let low = Infinity;
  for (const { steps, n } of store.series.values())
    for (let i = 0; i < n; i++) {
      const x = map.toX(steps[i]);
      if (x > 0) {
        if (x < low) low = x;
        break;
      }
    }
  return low;
}

// The panels: those that are always there, one more for each metric that nobody foresaw, and the machine's gauges.
import { h, setText } from "../lib/dom.js";
import { createPanel, GAUGE_HEIGHT, HEIGHT } from "./panel.js";
import { GAUGES, gaugeTitle, otherPanel, PANELS, QUIET } from "./panels.js";

const MOST_PANELS = 18; // with those for metrics that we do not know
const KNOWN = new Set([...PANELS, ...GAUGES].map((spec) => spec.metric));

/** @param {{view: any, runs: any, colours: Function}} shared */
export function createGrid(shared) {
  const { runs, view } = shared;
  const main = h("div", { class: "nnb-grid" }),
    gauges = h("div", { class: "nnb-grid nnb-gauges" }),
    rest = h("p", { class: "nnb-group-title" }),
    title = h("h3", { class: "nnb-group-title" });
  const group = h("div", { class: "nnb-group", role: "group" }, title, gauges);
  const root = h("div", { class: "nnb-panels" }, main, rest, group);
  /** @type {Map<string, ReturnType<typeof createPanel>>} by id */
  const panels = new Map();
  let pending = true; // sizes are not known yet

  function add(spec) {
    const panel = createPanel(spec, shared);
    panels.set(spec.id, panel);
    (spec.gauge ? gauges : main).append(panel.root);
    panel.resize();
  }
  function remove(id) {
    panels.get(id).destroy();
    panels.get(id).root.remove();
    panels.delete(id);
  }

  /** One more panel for each metric that no panel shows; gauges while there is something to read. */
  function arrange() {
    const others = runs.metrics().filter((metric) => !KNOWN.has(metric) && !QUIET.has(metric)),
      room = MOST_PANELS - PANELS.length;
    const wanted = new Map([...PANELS, ...others.slice(0, room).map(otherPanel)].map((spec) => [spec.id, spec]));
    const left = others.slice(room);
    rest.hidden = !left.length;
    setText(rest, `${left.length} more ${left.length === 1 ? "metric is" : "metrics are"} not drawn: ${left.join(", ")}`);
    const present = GAUGES.filter((spec) => runs.has(spec.metric, view.shown()));
    for (const spec of present) wanted.set(spec.id, spec);
    for (const id of [...panels.keys()]) if (!wanted.has(id)) remove(id);
    for (const spec of wanted.values()) if (!panels.has(spec.id)) add(spec);
    group.hidden = !present.length;
    setText(title, gaugeTitle(present.map((spec) => spec.metric)));
    group.setAttribute("aria-label", title.textContent);
  }
  for (const spec of PANELS) add(spec);

  const api = {
    root,
    draw() {
      arrange();
      if (pending) api.resize();
      for (const panel of panels.values()) panel.update();
    },
    resize() {
      pending = !root.clientWidth;
      for (const panel of panels.values()) panel.resize();
    },
    repaint() {
      for (const panel of panels.values()) panel.repaint();
    },
    /** The panels that show something, as `save` needs them. */
    filled: () =>
      [...panels.values()]
        .filter(({ spec }) => runs.has(spec.metric, view.shown()))
        .map(({ spec, paint }) => ({
          id: spec.id,
          title: spec.title,
          metric: spec.metric,
          height: spec.gauge ? GAUGE_HEIGHT : HEIGHT,
          paint,
        })),
    dispose() {
      for (const panel of panels.values()) panel.destroy();
    },
  };
  return api;
}

// What the curves say where one points: a dot on each, and its value beside its key.
import { h, s } from "../lib/dom.js";
import { dotted } from "../lib/format.js";
import { eventsAt, eventText } from "./marks.js";
import { smoothed } from "./smooth.js";
import { AXES } from "./xaxis.js";

const INLINE = 2; // runs whose values fit into the line at the top of a panel

/** A short stroke in the look of a run. */
export function keyMark({ colour, dash, current }) {
  const line = s("line", { x1: 1, y1: 4, x2: 21, y2: 4, stroke: "currentColor", "stroke-width": current ? 2.4 : 1.8, "stroke-dasharray": dash.join(" ") || null });
  const mark = s("svg", { viewBox: "0 0 22 8", width: 22, height: 8, class: "nnb-keymark", "aria-hidden": "true" }, line);
  mark.style.color = `var(--nnb-series-${colour + 1})`;
  return mark;
}

/**
 * @param {import("./panels.js").PanelSpec} spec
 * @param {{view: any, runs: any}} shared
 */
export function createReadout(spec, { view, runs }) {
  const dots = h("div", { class: "nnb-dots" }),
    box = h("div", { class: "nnb-readout", hidden: true });
  const { format } = spec;
  const soft = () => view.smoothing > 0 && !spec.exact;

  /** Where each visible run is nearest to `x`. */
  function valuesAt(chart, x) {
    return view
      .shown()
      .map((run) => {
        const series = run.store.get(spec.metric),
          i = series.nearestIndex(run.map.toStep(x));
        if (i < 0) return null;
        const at = chart.x.at(run.map.toX(series.steps[i])),
          step = run.map.toStep(x);
        const over = step > series.lastStep + series.spacing || step < series.steps[0] - series.spacing;
        const raw = series.values[i],
          value = soft() && series.n > 2 ? smoothed(series, view.smoothing)[i] : raw;
        return { run, raw, value, over, at, step: series.steps[i] };
      })
      .filter(Boolean);
  }

  function placeDots(chart, found) {
    const visible = chart ? found.filter((one) => !one.over && Number.isFinite(chart.y.at(one.value))) : [];
    while (dots.childElementCount < visible.length) dots.append(h("i", {}));
    [...dots.children].forEach((dot, i) => {
      const one = visible[i],
        y = one && chart.y.at(one.value);
      dot.hidden = !one || one.at < chart.x.from - 1 || one.at > chart.x.to + 1 || y < chart.box.top - 1 || y > chart.box.top + chart.box.height + 1;
      if (dot.hidden) return;
      dot.style.transform = `translate(${one.at}px, ${y}px)`;
      dot.style.background = `var(--nnb-series-${one.run.colour + 1})`;
    });
  }

  const brief = (one) => (one.over ? "–" : format(one.value));
  const text = (one) =>
    one.over ? "–" : one.value === one.raw ? format(one.raw) : `${format(one.value)} (${format(one.raw)})`;

  /** Beside the crosshair, on the side with more room. */
  function fillBox(chart, px, found, here, events) {
    const rows = found.map((one) =>
      h("div", { class: "nnb-readout-row" }, keyMark(one.run), here && h("span", { class: "nnb-readout-name" }, one.run.name), h("b", {}, here ? text(one) : brief(one))),
    );
    if (here) rows.push(...events.map((line) => h("div", { class: "nnb-readout-event" }, line)));
    box.replaceChildren(...rows);
    const edge = chart.x.to + 8;
    box.style.maxWidth = `${Math.min(edge, here ? 300 : 160)}px`;
    const width = box.offsetWidth;
    const left = px + 10 + width <= edge ? px + 10 : px - 10 - width;
    box.style.left = `${Math.min(Math.max(left, 0), edge - width)}px`;
    box.style.top = `${chart.box.top + 4}px`;
  }

  return {
    dots,
    box,
    /**
     * @param {ReturnType<import("./chart.js").chartOf>|null} chart null: nothing is pointed at
     * @param {number} x on the axis
     * @param {number} px the same in pixels
     * @param {boolean} here whether it is this panel that one points at
     * @returns {{line?: (string|Node)[], long?: string}} for the line at the top, and for screen readers
     */
    show(chart, x, px, here) {
      if (!chart) {
        placeDots(null, []);
        box.hidden = true;
        return {};
      }
      const found = valuesAt(chart, x),
        events = eventsAt(chart.marks, px).map(({ event }) => eventText(event));
      placeDots(chart, found);
      const place = AXES[view.axis].say(view.axis === "step" ? Math.round(x) : x);
      const many = runs.list.length > 1;
      const inline = many && !here && found.length <= INLINE;
      box.hidden = !(many && found.length && !inline) && !(here && events.length);
      if (!box.hidden) fillBox(chart, px, many ? found : [], here, events);
      const current = found.find((one) => one.run.current);
      return {
        line: inline
          ? found.flatMap((one) => [keyMark(one.run), brief(one)])
          : [many ? dotted([soft() && here && "smoothed (measured)", place]) : dotted([current && text(current), place])],
        long: dotted([place, ...found.map((one) => `${many ? `${one.run.name}: ` : ""}${text(one)}`), ...events]),
      };
    },
  };
}

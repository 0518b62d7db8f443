// What the curves say where one points: a dot on each, its value on the axis, and above them the curve that is nearest.
import { h, s } from "../lib/dom.js";
import { dotted } from "../lib/format.js";
import { eventsAt, eventText } from "./marks.js";
import { smoothed } from "./smooth.js";
import { spread } from "./spread.js";
import { AXES } from "./xaxis.js";

const LINE = 15; // px of one value on the axis

/** A short stroke in the look of a run. */
export function keyMark({ colour, dash, current }, width = 22) {
  const line = s("line", { x1: 1, y1: 4, x2: width - 1, y2: 4, stroke: "currentColor", "stroke-width": current ? 2.4 : 1.8, "stroke-dasharray": dash.join(" ") || null });
  const mark = s("svg", { viewBox: `0 0 ${width} 8`, width, height: 8, class: "nnb-keymark", "aria-hidden": "true" }, line);
  mark.style.color = `var(--nnb-series-${colour + 1})`;
  return mark;
}

/**
 * @param {import("./panels.js").PanelSpec} spec
 * @param {{view: any, runs: any}} shared
 */
export function createReadout(spec, { view, runs }) {
  const dots = h("div", { class: "nnb-dots" }),
    tags = h("div", { class: "nnb-tags" }),
    place = h("div", { class: "nnb-place", hidden: true }),
    box = h("div", { class: "nnb-event", hidden: true });
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
        return { run, raw, value, over, at, y: over ? NaN : chart.y.at(value) };
      })
      .filter(Boolean);
  }

  /** The values that have a place in the chart. */
  const drawnOf = (found) => found.filter(({ y }) => Number.isFinite(y));
  const nearOf = (found) => {
    const drawn = drawnOf(found);
    return drawn.find(({ run }) => run.name === view.near) ?? drawn.find(({ run }) => run.current) ?? drawn[0];
  };

  function placeDots(chart, found, near) {
    const visible = drawnOf(found);
    while (dots.childElementCount < visible.length) dots.append(h("i", {}));
    [...dots.children].forEach((dot, i) => {
      const one = visible[i];
      dot.hidden = !one || one.at < chart.x.from - 1 || one.at > chart.x.to + 1 || one.y < chart.box.top - 1 || one.y > chart.box.top + chart.box.height + 1;
      if (dot.hidden) return;
      dot.style.transform = `translate(${one.at}px, ${one.y}px)${one === near ? " scale(1.25)" : ""}`;
      dot.style.background = `var(--nnb-series-${one.run.colour + 1})`;
    });
  }

  /** Values on the axis, each as near to its height as the others leave room; marks that they would cut are covered. */
  function placeTags({ box: { left, top, height }, y, yTicks }, found, near) {
    const room = Math.floor((height + LINE) / LINE),
      visible = drawnOf(found);
    const kept = visible.slice(0, room);
    if (near && !kept.includes(near)) kept[kept.length - 1] = near;
    const places = spread(kept.map((one) => one.y), LINE, top - LINE / 2, top + height + LINE / 2);
    const at = (node, middle) => ((node.style.top = `${middle - LINE / 2}px`), node);
    tags.style.minWidth = `${left + 1}px`; // from 6 px left of the chart to 5 px left of the curves
    const cut = yTicks.map(({ value }) => y.at(value)).filter((tick) => places.some((one) => Math.abs(one - tick) < LINE - 1));
    tags.replaceChildren(
      ...cut.map((tick) => at(h("i", {}), tick)),
      ...kept.map((one, i) => at(h("span", { class: one === near ? "nnb-near" : null }, keyMark(one.run, 14), format(one.value)), places[i])),
    );
  }

  /** A box of one line or more, within the chart and on the side of the crosshair that has more room. */
  function placeBox(chart, px, lines) {
    box.hidden = !lines.length;
    if (box.hidden) return;
    box.replaceChildren(...lines.map((line) => h("div", {}, line)));
    const { left, width } = chart.box,
      right = left + width - px > px - left;
    box.style.maxWidth = `${Math.max(right ? left + width - px : px - left, 120) - 10}px`;
    box.style.left = right ? `${px + 8}px` : "auto";
    box.style.right = right ? "auto" : `calc(100% - ${px - 8}px)`;
    box.style.top = `${chart.box.top + 2}px`;
  }

  /** Where one points, below the crosshair. */
  function placeName(chart, px, words) {
    place.hidden = false;
    place.textContent = words;
    const half = place.offsetWidth / 2;
    place.style.left = `${Math.min(Math.max(px, half), chart.x.to + 10 - half) - half}px`;
  }

  const text = (one) => (one.over ? "–" : one.value === one.raw ? format(one.raw) : `${format(one.value)} (${format(one.raw)})`);

  return {
    parts: [dots, tags, place, box],
    /** The name of the run whose curve is nearest to a point of the chart. */
    nearest(chart, px, py) {
      let [best, name] = [Infinity, null];
      for (const { run, y } of drawnOf(valuesAt(chart, chart.x.back(px)))) if (Math.abs(y - py) < best) [best, name] = [Math.abs(y - py), run.name];
      return name;
    },
    /**
     * @param {ReturnType<import("./chart.js").chartOf>|null} chart null: nothing is pointed at
     * @param {number} x on the axis
     * @param {number} px the same in pixels
     * @param {boolean} here whether it is this panel that one points at
     * @returns {{line?: (string|Node)[], long?: string}} for the line at the top, and for screen readers
     */
    show(chart, x, px, here) {
      if (!chart) {
        for (const dot of dots.children) dot.hidden = true;
        tags.replaceChildren();
        place.hidden = box.hidden = true;
        return {};
      }
      const found = valuesAt(chart, x),
        near = nearOf(found),
        many = runs.list.length > 1;
      const events = eventsAt(chart.marks, px).map(({ event }) => eventText(event)),
        where = AXES[view.axis].say(view.axis === "step" ? Math.round(x) : x);
      placeDots(chart, found, near);
      placeTags(chart, found.length > 1 ? found : [], near);
      placeName(chart, px, where);
      placeBox(chart, px, here ? events : []);
      return {
        line: !near ? ["–"] : many ? [keyMark(near.run), text(near), h("span", { class: "nnb-near-name" }, near.run.name)] : [text(near)],
        long: dotted([where, ...found.map((one) => `${many ? `${one.run.name}: ` : ""}${text(one)}`), ...events]),
      };
    },
  };
}

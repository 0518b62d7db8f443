// One small chart on the page: a title, what it says right now, and curves that one can point at.
import { h, setAttribute, setText } from "../lib/dom.js";
import { helpBox } from "../lib/help.js";
import { chartOf } from "./chart.js";
import { drawChart } from "./draw.js";
import { createPointer } from "./pointer.js";
import { createReadout } from "./readout.js";

export const HEIGHT = 148; // px of a chart, fixed so that nothing jumps
export const GAUGE_HEIGHT = 104;

/**
 * @param {import("./panels.js").PanelSpec} spec
 * @param {{colours: () => ReturnType<import("../lib/theme.js").palette>, view: ReturnType<import("./view.js").createView>,
 *   runs: ReturnType<import("./runs.js").createRuns>}} shared
 */
export function createPanel(spec, shared) {
  const { view, runs, colours } = shared;
  const height = spec.gauge ? GAUGE_HEIGHT : HEIGHT;
  const summary = h("span", { class: "nnb-panel-summary", "aria-hidden": "true" });
  const logButton = h(
    "button",
    {
      class: "nnb-toggle",
      type: "button",
      "aria-pressed": "false",
      "aria-label": `${spec.title}: logarithmic axis`,
      on: { click: () => view.setLogY(spec.metric, !view.logY(spec.metric)) },
    },
    "log",
  );
  const canvas = h("canvas", { class: "nnb-canvas", "aria-hidden": "true" });
  const cross = h("div", { class: "nnb-cross" }),
    band = h("div", { class: "nnb-drag" });
  const readout = createReadout(spec, shared);
  const note = h("div", { class: "nnb-note" });
  const frame = h(
    "div",
    {
      class: "nnb-chart",
      tabindex: 0,
      role: "slider",
      "aria-label": `${spec.title}: place along the curve`,
      "aria-valuemin": 0,
      "aria-valuenow": 0,
      "aria-keyshortcuts": "ArrowLeft ArrowRight Home End PageUp PageDown + - Escape",
    },
    band,
    cross,
    ...readout.parts,
    note,
  );
  const empty = h("div", { class: "nnb-empty" }, spec.empty);
  const body = h("div", { class: "nnb-panel-body" }, frame, empty);
  const root = h(
    "section",
    { class: spec.gauge ? "nnb-panel nnb-gauge" : "nnb-panel", role: "group", "aria-label": spec.title, data: { panel: spec.id } },
    h(
      "header",
      { class: "nnb-panel-head" },
      h("h3", { class: "nnb-panel-title", title: spec.title }, spec.title),
      spec.help && helpBox(`About ${spec.title}`, spec.help),
      logButton,
      summary,
    ),
    body,
  );
  body.style.height = `${height}px`;

  let width = 0,
    chart = null,
    drawn = "";
  const pointer = createPointer(frame, { chart: () => chart, view, spec, band, nearest: (px, py) => readout.nearest(chart, px, py) });

  function draw(ratio = globalThis.devicePixelRatio || 1) {
    chart = chartOf(spec, view, runs.current, width, height);
    if (!canvas.parentNode) frame.prepend(canvas);
    const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
    const ctx = canvas.getContext("2d");
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.clearRect(0, 0, width, height);
    drawChart(ctx, chart, colours());
    setText(note, chart.note);
  }

  /** The crosshair and the values at it; without a crosshair the summary. */
  function point(x = view.cursor, by = view.pointedBy) {
    const at = chart && x != null ? chart.x.at(x) : NaN;
    const inside = at >= chart?.x.from - 0.5 && at <= chart?.x.to + 0.5;
    cross.style.opacity = inside ? "1" : "0";
    if (inside) cross.style.transform = `translate(${Math.round(at)}px, ${chart.box.top}px)`;
    const said = readout.show(inside ? chart : null, x, at, by === spec.id);
    const { store } = runs.current;
    if (said.line) summary.replaceChildren(...said.line);
    else setText(summary, store.get(spec.metric).n ? spec.summary(store) : "");
    setAttribute(frame, "aria-valuetext", said.long || null);
    if (inside) setAttribute(frame, "aria-valuenow", Math.round(x));
  }

  /** The panel in one sentence, for screen readers. */
  const sentence = () => {
    const series = runs.current.store.get(spec.metric);
    return [`${spec.title}:`, series.n && spec.format(series.last), spec.summary(runs.current.store)].filter(Boolean).join(" ");
  };

  view.onPoint(point);
  return {
    root,
    spec,
    /** Draws if there is anything new; false if there was not. */
    update() {
      const shown = runs.has(spec.metric, view.shown());
      root.classList.toggle("nnb-panel-empty", !shown);
      logButton.hidden = !spec.log && !view.logY(spec.metric);
      setAttribute(logButton, "aria-pressed", String(view.logY(spec.metric)));
      frame.hidden = !shown;
      if (!shown) {
        chart = null;
        canvas.remove();
        setText(empty, spec.empty || "No visible run has this.");
        point();
        return false;
      }
      const state = `${runs.list.map((run) => run.store.version)}/${runs.version}/${view.version}/${width}`;
      if (!width || (chart && state === drawn)) return false;
      drawn = state;
      draw();
      point();
      setAttribute(root, "aria-label", sentence());
      setAttribute(frame, "aria-valuemax", Math.ceil(chart.x.high));
      return true;
    },
    resize() {
      width = Math.floor(body.clientWidth) || width;
      drawn = "";
    },
    /** New colours. */
    repaint: () => (drawn = ""),
    /** The same chart for a file: title, newest value, curves. */
    paint(ctx, across) {
      const paper = chartOf(spec, view, runs.current, across, height);
      ctx.font = colours().font.replace(/^(\d+px)/, "600 12px");
      ctx.fillStyle = colours().ink;
      ctx.textAlign = "left";
      ctx.textBaseline = "alphabetic";
      ctx.fillText(spec.title, 10, 14);
      ctx.font = colours().font;
      ctx.fillStyle = colours().soft;
      ctx.textAlign = "right";
      const scales = [paper.log && "logarithmic", runs.current.store.get(spec.metric).n && spec.summary(runs.current.store)];
      ctx.fillText(scales.filter(Boolean).join(" · "), across - 10, 14);
      ctx.save();
      ctx.translate(0, 22);
      drawChart(ctx, paper, colours());
      if (paper.note) {
        ctx.textAlign = "left";
        ctx.textBaseline = "alphabetic";
        ctx.fillStyle = colours().soft;
        ctx.fillText(paper.note, paper.box.left, height + 10);
      }
      ctx.restore();
      return height + 22;
    },
    destroy() {
      view.offPoint(point);
      pointer.dispose();
    },
  };
}


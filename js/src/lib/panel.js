// One small chart: a title, what it says right now, and a curve over training steps.
import uPlot from "uplot";
import { formatCount, formatShort, formatTicks } from "./format.js";
import { h, setText, uniqueId } from "./dom.js";
import { alignSeries } from "./series.js";

export const CHART_HEIGHT = 148; // px, fixed so that nothing jumps
const WHOLE = [1, 2, 5].flatMap((m) => Array.from({ length: 9 }, (_, e) => m * 10 ** e)).sort((a, b) => a - b);
const STEP_GAP = 28; // px between epoch lines below which they are not drawn

/**
 * @typedef {object} Curve
 * @property {string} metric name in the history
 * @property {string} label as shown; empty for the only curve of a panel
 * @property {(x: number) => string} format
 * @property {string} [scale] curves with different units need different scales; "y" has the axis
 * @property {[number|null, number|null]} [limits] ends of the axis, null where the data decide
 * @property {number} [headroom] how many times the highest value the axis reaches
 *
 * @typedef {object} PanelSpec
 * @property {string} id
 * @property {string} title
 * @property {string} help plain words for the tooltip
 * @property {string} empty what to do to see something here
 * @property {Curve[]} curves
 * @property {boolean} [log] offer a logarithmic axis
 * @property {(x: number[]) => string[]} [ticks]
 * @property {{from: number, to: number, tone: "bad"|"warn"|"good", label: string}[]} [bands]
 * @property {(store: import("./series.js").RunStore) => {value: number, label: string}|null} [baseline]
 * @property {(store: import("./series.js").RunStore) => string} summary shown while nothing is pointed at; with several
 *   curves the newest values stand before it
 */

/** The ends of an axis around data: a little air, never of zero height, within `limits`. */
export function axisRange(low, high, limits = [null, null], log = false) {
  if (log) {
    if (!(low > 0 && low <= high)) return [0.1, 1];
    return high / low < 1.5 ? [low / 1.3, high * 1.3] : [low / 1.1, high * 1.1];
  }
  if (!(low <= high)) return [limits[0] ?? 0, limits[1] ?? 1];
  const air = 0.06 * (high - low) || 0.05 * Math.abs(high) || 0.5;
  let [from, to] = [low - air, high + air];
  if (low >= 0 && from < 0) from = 0;
  return [limits[0] ?? from, Math.max(limits[1] ?? to, limits[1] != null ? high : -Infinity)];
}

/** Lowest and highest finite value (of the positive ones, for a logarithmic axis). */
export function extent(list, log = false) {
  let low = Infinity,
    high = -Infinity;
  for (const series of list) {
    const { values } = series;
    if (!log && Number.isFinite(series.low) && Number.isFinite(series.high)) {
      low = Math.min(low, series.low);
      high = Math.max(high, series.high);
      continue;
    }
    for (const x of values)
      if (Number.isFinite(x) && (!log || x > 0)) {
        if (x < low) low = x;
        if (x > high) high = x;
      }
  }
  return [low, high];
}

/** Epoch ends that can be told apart at this width. */
export function epochLines(stepsPerEpoch, lastStep, width) {
  if (!stepsPerEpoch || !lastStep) return [];
  const gap = (width * stepsPerEpoch) / lastStep;
  const every = WHOLE.find((n) => n * gap >= STEP_GAP);
  if (!every) return [];
  const lines = [];
  for (let step = every * stepsPerEpoch; step < lastStep; step += every * stepsPerEpoch) lines.push(step);
  return lines;
}

/** Adds a question mark that explains the panel on hover, focus and click. */
function helpButton(title, text) {
  const id = `nnb-${uniqueId()}`;
  const tip = h("div", { class: "nnb-tip", role: "tooltip", id }, text);
  const button = h(
    "button",
    {
      class: "nnb-help",
      type: "button",
      "aria-label": `About ${title}`,
      "aria-describedby": id,
      on: { keydown: (event) => event.key === "Escape" && button.blur() },
    },
    "?",
  );
  return h("span", { class: "nnb-help-box" }, button, tip);
}

/**
 * @param {PanelSpec} spec
 * @param {{syncKey: string, colours: () => ReturnType<import("./theme.js").palette>, onCursor?: (step: number|null) => void}} shared
 */
export function createPanel(spec, shared) {
  const right = h("span", { class: "nnb-panel-summary", "aria-hidden": "true" });
  const scaleButton =
    spec.log &&
    h(
      "button",
      {
        class: "nnb-toggle",
        type: "button",
        "aria-pressed": "false",
        "aria-label": `${spec.title}: logarithmic axis`,
        on: { click: () => setLog(!log) },
      },
      "log",
    );
  const frame = h("div", { class: "nnb-chart", "aria-hidden": "true" });
  const empty = h("div", { class: "nnb-empty" }, spec.empty);
  const root = h(
    "section",
    { class: "nnb-panel", role: "group", "aria-label": spec.title, data: { panel: spec.id } },
    h(
      "header",
      { class: "nnb-panel-head" },
      h("h3", { class: "nnb-panel-title", title: spec.title }, spec.title),
      spec.help && helpButton(spec.title, spec.help),
      scaleButton,
      right,
    ),
    h("div", { class: "nnb-panel-body" }, frame, empty),
  );

  let log = false,
    plot = null,
    width = 0,
    store = null,
    context = { lastStep: 0, stepsPerEpoch: 0 },
    pointed = null;
  let drawnVersion = -1;
  const scales = [...new Set(spec.curves.map((curve) => curve.scale ?? "y"))];
  const series = () => spec.curves.map((curve) => store.get(curve.metric));
  const baseline = () => (store && spec.baseline ? spec.baseline(store) : null);

  function range(scale) {
    const curves = spec.curves.filter((curve) => (curve.scale ?? "y") === scale);
    let [low, high] = extent(
      curves.map((curve) => store.get(curve.metric)),
      log,
    );
    const line = scale === "y" ? baseline() : null;
    if (line) [low, high] = [Math.min(low, line.value), Math.max(high, line.value)];
    if (curves[0].headroom) return [0, curves[0].headroom * Math.max(high, 1e-9)];
    return axisRange(low, high, log ? [null, null] : curves[0].limits, log);
  }

  function data() {
    const [axis, ...columns] = alignSeries(series());
    if (!log) return [axis, ...columns];
    return [
      axis,
      ...columns.map((column) =>
        column.some?.((x) => x <= 0) ? Array.from(column, (x) => (x > 0 ? x : null)) : column,
      ),
    ];
  }

  function options() {
    const colours = shared.colours;
    const axis = {
      stroke: () => colours().soft,
      font: colours().font,
      ticks: { show: false },
      grid: { stroke: () => colours().rule, width: 1 },
    };
    return {
      width,
      height: CHART_HEIGHT,
      padding: [8, 10, 0, 0],
      legend: { show: false },
      cursor: {
        y: false,
        drag: { x: false, y: false, setScale: false },
        points: { size: 7, width: 1.5, fill: () => colours().background },
        sync: { key: shared.syncKey, scales: ["x", null], setSeries: false },
      },
      scales: {
        x: { time: false, range: () => [0, Math.max(context.lastStep, 1)] },
        ...Object.fromEntries(scales.map((scale) => [scale, { distr: log ? 3 : 1, range: () => range(scale) }])),
      },
      axes: [
        {
          ...axis,
          size: 26,
          gap: 6,
          space: 64,
          incrs: WHOLE,
          grid: { show: false },
          values: (_, ticks) => ticks.map(formatShort),
        },
        {
          ...axis,
          size: 46,
          gap: 6,
          space: 26,
          scale: "y",
          values: (_, ticks) =>
            log ? ticks.map((x) => (x == null ? "" : formatTicks([x])[0])) : (spec.ticks ?? formatTicks)(ticks),
        },
      ],
      series: [
        {},
        ...spec.curves.map((curve, i) => ({
          scale: curve.scale ?? "y",
          width: 1.4,
          dash: i ? [5, 4] : undefined,
          spanGaps: true,
          stroke: () => (i ? colours().series[1] : colours().series[0]),
          points: {
            show: (u, index) => u.data[index].length < 24,
            size: 4,
            width: 0,
            fill: () => (i ? colours().series[1] : colours().series[0]),
          },
        })),
      ],
      hooks: {
        drawClear: [drawBands],
        drawAxes: [drawMarks],
        draw: [drawBaseline],
        setCursor: [
          (u) => {
            pointed = u.cursor.left >= 0 && u.cursor.idx != null ? u.posToVal(u.cursor.left, "x") : null;
            write();
          },
        ],
      },
    };
  }

  /** Tinted stretches of the value axis, below the curve. */
  function drawBands(u) {
    const { ctx, bbox } = u,
      colours = shared.colours();
    for (const band of log ? [] : (spec.bands ?? [])) {
      const top = Math.max(u.valToPos(Math.min(band.to, u.scales.y.max), "y", true), bbox.top);
      const bottom = Math.min(u.valToPos(Math.max(band.from, u.scales.y.min), "y", true), bbox.top + bbox.height);
      if (bottom - top < 1) continue;
      ctx.save();
      ctx.globalAlpha = 0.1;
      ctx.fillStyle = colours[band.tone];
      ctx.fillRect(bbox.left, top, bbox.width, bottom - top);
      ctx.globalAlpha = 1;
      if (bottom - top > 15 * devicePixelRatio) nameBand(u, band, bottom);
      ctx.restore();
    }
  }

  /** The name of a band, at the right unless the curve ends just there. */
  function nameBand(u, band, bottom) {
    const { last } = store.get(spec.curves[0].metric),
      { bbox } = u,
      air = 6 * devicePixelRatio;
    const left = last >= band.from && u.valToPos(last, "y", true) > bottom - 24 * devicePixelRatio;
    label(
      u.ctx,
      band.label,
      left ? bbox.left + air : bbox.left + bbox.width - air,
      bottom - 5 * devicePixelRatio,
      shared.colours().soft,
      left ? "left" : "right",
      false,
    );
  }

  /** Lines across the curve: ends of epochs, events, the baseline. */
  function drawMarks(u) {
    const { ctx, bbox } = u,
      colours = shared.colours(),
      ratio = devicePixelRatio;
    const vertical = (step, colour, alpha, dash) => {
      const x = Math.round(u.valToPos(step, "x", true)) + 0.5;
      ctx.globalAlpha = alpha;
      ctx.strokeStyle = colour;
      ctx.setLineDash(dash);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      return x;
    };
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top - 8 * ratio, bbox.width, bbox.height + 8 * ratio);
    ctx.clip();
    ctx.lineWidth = ratio;
    for (const step of epochLines(context.stepsPerEpoch, context.lastStep, bbox.width / ratio))
      vertical(step, colours.rule, 0.8, []);
    for (const event of store?.events ?? []) {
      if (event.kind === "epoch") continue;
      const x = vertical(event.step, colours.soft, 0.75, [3 * ratio, 3 * ratio]);
      ctx.globalAlpha = 1;
      ctx.setLineDash([]);
      drawGlyph(ctx, event.kind, x, bbox.top - 4 * ratio, ratio, colours);
    }
    ctx.restore();
    label(ctx, "step", bbox.left - 12 * ratio, bbox.top + bbox.height + 6 * ratio, colours.soft, "right", false, "top");
  }

  /** A dashed level to compare with, and its name. */
  function drawBaseline(u) {
    const line = baseline();
    if (line) {
      const { ctx, bbox } = u,
        colours = shared.colours(),
        ratio = devicePixelRatio;
      ctx.save();
      ctx.lineWidth = ratio;
      const y = Math.round(u.valToPos(line.value, "y", true)) + 0.5;
      ctx.globalAlpha = 0.9;
      ctx.strokeStyle = colours.soft;
      ctx.setLineDash([5 * ratio, 4 * ratio]);
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
      ctx.setLineDash([]);
      label(ctx, line.label, bbox.left + bbox.width - 6 * ratio, y - 5 * ratio, colours.soft, "right");
      ctx.restore();
    }
  }

  function label(ctx, text, x, y, colour, align, halo = true, baseline = "alphabetic") {
    ctx.font = shared.colours().font.replace(/^(\d+)px/, (_, size) => `${size * devicePixelRatio}px`);
    ctx.fillStyle = colour;
    ctx.textAlign = align;
    ctx.textBaseline = baseline;
    if (halo) {
      // so that lines do not run through the text
      const { width: w } = ctx.measureText(text),
        ratio = devicePixelRatio;
      ctx.fillStyle = shared.colours().background;
      ctx.fillRect(x - w - 3 * ratio, y - 10 * ratio, w + 6 * ratio, 13 * ratio);
      ctx.fillStyle = colour;
    }
    ctx.fillText(text, x, y);
  }

  function setLog(on) {
    log = on;
    scaleButton.setAttribute("aria-pressed", String(on));
    rebuild();
  }

  function rebuild() {
    plot?.destroy();
    plot = null;
    drawnVersion = -1;
    if (store) update(store, context);
  }

  /** The text at the right: the values under the cursor, else the summary. */
  function write() {
    const shown = store
      ? spec.curves.map((curve, i) => [curve, i, store.get(curve.metric)]).filter(([, , one]) => one.n)
      : [];
    if (!shown.length) return right.replaceChildren();
    const at = pointed == null ? null : Math.round(pointed);
    const near =
      at != null &&
      plot &&
      store.events.find(
        (event) => event.kind !== "epoch" && Math.abs(plot.valToPos(event.step, "x") - plot.cursor.left) < 5,
      );
    if (near) return setText(right, `${near.text || near.kind} · step ${formatCount(near.step)}`);
    const rest = at == null ? spec.summary(store) : `step ${formatCount(at)}`;
    const value = ([curve, , one]) => curve.format(at == null ? one.last : one.nearest(at));
    if (spec.curves.length === 1) return setText(right, at == null ? rest : `${value(shown[0])} · ${rest}`);
    right.replaceChildren(
      ...shown.flatMap((item) => [h("span", { class: "nnb-key", data: { curve: item[1] } }), value(item)]),
      rest && ` · ${rest}`,
    );
  }

  /** The panel in one sentence, for screen readers. */
  const sentence = () =>
    [
      `${spec.title}:`,
      ...spec.curves.map(
        (curve) => store.get(curve.metric).n && `${curve.label} ${curve.format(store.get(curve.metric).last)}`.trim(),
      ),
      spec.summary(store),
    ]
      .filter(Boolean)
      .join(" ");

  function update(newStore, newContext) {
    store = newStore;
    context = newContext;
    const shown = series().some((one) => one.n > 0);
    root.classList.toggle("nnb-panel-empty", !shown);
    if (!shown) {
      plot?.destroy();
      plot = null;
      write();
      return false;
    }
    const version = `${store.version}/${context.lastStep}/${context.stepsPerEpoch}`;
    if (plot && version === drawnVersion) return false;
    if (!width) return false;
    drawnVersion = version;
    if (plot) plot.setData(data());
    else plot = new uPlot(options(), data(), frame);
    write();
    root.setAttribute("aria-label", sentence());
    return true;
  }

  return {
    root,
    update,
    resize() {
      const now = Math.floor(frame.clientWidth);
      if (!now || now === width) return;
      width = now;
      if (plot) plot.setSize({ width, height: CHART_HEIGHT });
      else if (store) update(store, context);
    },
    /** New colours. */
    repaint: () => plot && rebuild(),
    destroy() {
      plot?.destroy();
      plot = null;
    },
  };
}

/** A small sign on top of an event's line: triangle for a checkpoint, square for a stop, dot for the rest. */
function drawGlyph(ctx, kind, x, y, ratio, colours) {
  const r = 3 * ratio;
  ctx.fillStyle = kind === "stop" || kind === "failed" ? colours.bad : colours.soft;
  ctx.beginPath();
  if (kind === "checkpoint") {
    ctx.moveTo(x - r, y - r);
    ctx.lineTo(x + r, y - r);
    ctx.lineTo(x, y + r);
  } else if (kind === "stop") ctx.rect(x - r, y - r, 2 * r, 2 * r);
  else if (kind === "lr") {
    ctx.moveTo(x, y - 1.3 * r);
    ctx.lineTo(x + 1.3 * r, y);
    ctx.lineTo(x, y + 1.3 * r);
    ctx.lineTo(x - 1.3 * r, y);
  } else ctx.arc(x, y, r, 0, 7);
  ctx.closePath();
  ctx.fill();
}

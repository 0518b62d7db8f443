// One channel large: its map, on which a position is picked, its colour scale, histogram and numbers.
import { cellAt, sharesAt, stepInGrid } from "../lib/cells.js";
import { h, s, setAttribute, setText } from "../lib/dom.js";
import { formatCount, formatNumber, formatPercent } from "../lib/format.js";
import { colourMap, paintMap, pixelCanvas } from "../lib/pixels.js";
import { histogram, scaleOf } from "./model.js";

const BINS = 40;
export const TALLEST = 440; // px of a map or picture

/** @param {{onPosition: (cell: number[]) => void}} actions */
export function createMap({ onPosition }) {
  const state = { grid: [1, 1], position: [0, 0], values: null };
  const canvas = pixelCanvas("Feature map");
  const cells = ["nnb-cell nnb-halo", "nnb-cell"].map((kind) => s("rect", { class: kind }));
  const lines = s("path", { class: "nnb-gridlines" });
  const over = s("svg", { class: "nnb-over", preserveAspectRatio: "none", "aria-hidden": "true" }, lines, ...cells);
  const stage = h("div", { class: "nnb-map", tabindex: "0", role: "application", "aria-label": "Map: pick a position with the arrow keys" }, canvas, over);
  const title = h("h3", { class: "nnb-title" });
  const reading = h("p", { class: "nnb-reading", role: "status" });
  const ramp = pixelCanvas("", { "aria-hidden": "true", role: null });
  const [low, high] = [h("span"), h("span")];
  const bars = s("svg", { class: "nnb-bars", viewBox: `0 0 ${BINS} 24`, preserveAspectRatio: "none", role: "img", "aria-label": "How often each value occurs in this map" });
  const numbers = h("dl", { class: "nnb-numbers" });
  const legend = h("div", { class: "nnb-legend" }, bars, h("div", { class: "nnb-ramp" }, ramp), h("div", { class: "nnb-ends" }, low, high));
  const root = h("div", { class: "nnb-large" }, title, stage, reading, legend, numbers);

  function read() {
    const { grid: [rows, columns], position: [r, c], values } = state;
    setAttribute(over, "viewBox", `0 0 ${columns} ${rows}`);
    for (const cell of cells)
      for (const [name, value] of Object.entries({ x: c, y: r, width: 1, height: 1 })) setAttribute(cell, name, value);
    const where = `row ${r}, column ${c}`;
    if (!values) return setText(reading, where);
    const [height, width] = values.shape;
    const i = Math.floor(((r + 0.5) / rows) * height) * width + Math.floor(((c + 0.5) / columns) * width);
    setText(reading, `${where}: ${formatNumber(values.data[i])}${height < rows ? " (mean around it)" : ""}`);
  }

  stage.addEventListener("click", (event) => onPosition(cellAt(sharesAt(event, stage), state.grid)));
  stage.addEventListener("keydown", (event) => {
    const next = stepInGrid(state.position, event.key, state.grid);
    if (!next) return;
    event.preventDefault();
    onPosition(next);
  });

  function legendOf({ low: from, high: to, map }, values) {
    paintMap(ramp, { data: Float32Array.from({ length: 256 }, (_, i) => i), shape: [1, 256] }, { low: 0, high: 255, map });
    setText(low, formatNumber(from));
    setText(high, formatNumber(to));
    const counts = histogram(values, from, to, BINS),
      most = Math.max(...counts),
      colours = colourMap(map);
    bars.replaceChildren(
      ...counts.map((count, i) => {
        const tall = count ? Math.max(0.6, (23 * Math.sqrt(count)) / Math.sqrt(most)) : 0;
        const at = 3 * Math.round(((i + 0.5) / BINS) * 255);
        return s("rect", { x: i + 0.06, y: 24 - tall, width: 0.88, height: tall, fill: `rgb(${[...colours.subarray(at, at + 3)].join(" ")})` },
          s("title", {}, `${formatCount(count)} of ${formatCount(values.data.length)}`));
      }),
    );
  }

  return {
    root,
    /** @param {{stage: object, maps: object|null, values: object|null, channel: number, shared: boolean}} shown */
    show({ stage: of, maps, values, channel, shared, waiting }) {
      const grid = of.field.grid;
      Object.assign(state, { grid, values });
      setText(title, maps ? `Channel ${channel}` : "Positions");
      stage.style.aspectRatio = `${grid[1]} / ${grid[0]}`;
      stage.style.maxWidth = `${TALLEST * grid[1] / grid[0]}px`;
      const empty = !values;
      setAttribute(legend, "hidden", empty);
      setAttribute(canvas, "aria-label", `Channel ${channel} of ${of.name}`);
      if (values) {
        const scale = scaleOf(maps, values, shared);
        paintMap(canvas, values, scale);
        legendOf(scale, values);
      } else paintMap(canvas, { data: new Float32Array([NaN]), shape: [1, 1] });
      const [rows, columns] = grid;
      let d = "";
      if (empty && rows <= 64)
        for (let i = 1; i < Math.max(rows, columns); i++) d += (i < rows ? `M0,${i}h${columns}` : "") + (i < columns ? `M${i},0v${rows}` : "");
      setAttribute(lines, "d", d);
      numbers.replaceChildren();
      if (maps) {
        const n = maps.numbers(channel);
        const few = maps.images > 1 ? `over ${maps.images} images` : "of this image";
        for (const [name, value, help] of [
          ["mean", formatNumber(n.mean), `Mean of the channel ${few}`],
          ["spread", formatNumber(n.std), "Standard deviation over positions and images: a channel with none says nothing"],
          ["zeros", formatPercent(n.zeros), "Share of exact zeros, which ReLU makes"],
          ["range", `${formatNumber(n.low)} to ${formatNumber(n.high)}`, "Smallest and largest value"],
        ])
          numbers.append(h("div", { title: help }, h("dt", {}, name), h("dd", {}, value)));
        if (!values) numbers.append(h("p", { class: "nnb-fine" }, waiting ? "The map is on its way." : "This channel's map is not in the page."));
      }
      read();
    },
    position(at) {
      state.position = at;
      read();
    },
  };
}

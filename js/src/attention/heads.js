// Small maps of all heads of a layer, and their mean; a click enlarges one.
import { h, setAttribute, setText } from "../lib/dom.js";
import { formatPercent } from "../lib/format.js";
import { paintMap, pixelCanvas } from "../lib/pixels.js";
import { largest, topMass } from "./maps.js";

/** Into how many columns of a width in px this many tiles go, so that the rows are about equally long. */
export function columnsFor(count, width) {
  const least = Math.min(count < 9 ? 120 : count < 14 ? 96 : 76, width / 4.5), // px, of a tile
    rows = Math.ceil(count / Math.max(1, Math.floor(width / least)));
  return Math.ceil(count / rows);
}

/** @param {{onHead: (head: number) => void}} options */
export function createHeads({ onHead }) {
  const root = h("div", { class: "nnb-heads", role: "group", "aria-label": "Heads of the layer" });
  const tiles = [];

  function tile(i) {
    if (tiles[i]) return tiles[i];
    const canvas = pixelCanvas("", { "aria-hidden": "true" }),
      name = h("span", { class: "nnb-head-name" }),
      most = h("span", { class: "nnb-quiet" });
    const mark = h("span", { class: "nnb-head-query" }),
      map = h("span", { class: "nnb-head-map" }, canvas, mark);
    const button = h("button", { type: "button", class: "nnb-head", on: { click: () => onHead(i - 1) } }, map, h("span", { class: "nnb-head-line" }, name, most));
    return (tiles[i] = { canvas, mark, name, most, button });
  }

  return {
    root,
    /**
     * @param {(object|null)[]} looks of the mean, then of each head
     * @param {{grid: number[], query: number[]|null, chosen: number, rollout: boolean, mass: number}} options `query` is
     *   the cell of the grid that looks
     */
    draw(looks, { grid, query, chosen, rollout, mass }) {
      const shown = (rollout ? looks.slice(0, 1) : looks).map((look, i) => {
        const one = tile(i),
          label = rollout ? "Rollout" : i ? `Head ${i}` : "Mean";
        setText(one.name, label);
        setAttribute(one.button, "aria-pressed", String(i === chosen + 1));
        one.button.disabled = !look;
        one.mark.hidden = !query || !look;
        if (!one.mark.hidden)
          Object.assign(one.mark.style, { top: `${(100 * query[0]) / grid[0]}%`, left: `${(100 * query[1]) / grid[1]}%`, width: `${100 / grid[1]}%`, height: `${100 / grid[0]}%` });
        if (!look) {
          one.canvas.width = one.canvas.height = 1;
          setText(one.most, "–");
          return one.button;
        }
        const keep = topMass(look.cells, mass),
          most = largest(look.cells);
        one.canvas.style.aspectRatio = `${grid[1]} / ${grid[0]}`;
        paintMap(one.canvas, { data: look.cells.map((w, k) => (keep[k] ? w : NaN)), shape: grid }, { high: most });
        setText(one.most, formatPercent(most));
        setAttribute(one.button, "aria-label", `${label}, at most ${formatPercent(most)} on one patch`);
        return one.button;
      });
      root.replaceChildren(...shown);
      root.style.setProperty("--columns", columnsFor(Math.max(4, shown.length), root.clientWidth || 640));
      root.hidden = !shown.length;
    },
  };
}

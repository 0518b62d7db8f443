// Small maps of all heads of a layer, and their mean; a click enlarges one.
import { h, setAttribute, setText } from "../lib/dom.js";
import { formatPercent } from "../lib/format.js";
import { paintMap, pixelCanvas } from "../lib/pixels.js";
import { largest, topMass } from "./maps.js";

/** @param {{onHead: (head: number) => void}} options */
export function createHeads({ onHead }) {
  const root = h("div", { class: "nnb-heads", role: "group", "aria-label": "Heads of the layer" });
  const tiles = [];

  function tile(i) {
    if (tiles[i]) return tiles[i];
    const canvas = pixelCanvas("", { "aria-hidden": "true" }),
      name = h("span", { class: "nnb-head-name" }),
      most = h("span", { class: "nnb-quiet" });
    const button = h("button", { type: "button", class: "nnb-head", on: { click: () => onHead(i - 1) } }, canvas, h("span", { class: "nnb-head-line" }, name, most));
    return (tiles[i] = { canvas, name, most, button });
  }

  return {
    root,
    /**
     * @param {(object|null)[]} looks of the mean, then of each head
     * @param {{grid: number[], chosen: number, rollout: boolean, mass: number}} options
     */
    draw(looks, { grid, chosen, rollout, mass }) {
      const shown = (rollout ? looks.slice(0, 1) : looks).map((look, i) => {
        const one = tile(i),
          label = rollout ? "Rollout" : i ? `Head ${i - 1}` : "Mean";
        setText(one.name, label);
        setAttribute(one.button, "aria-pressed", String(i === chosen + 1));
        one.button.disabled = !look;
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
      root.dataset.size = shown.length < 7 ? "large" : shown.length < 14 ? "middle" : "small";
      root.hidden = !shown.length;
    },
  };
}

// How good it is: the error as a bar between trivial answers, and one patch compared channel by channel.
import { h, setAttribute } from "../lib/dom.js";
import { formatNumber } from "../lib/format.js";
import { paintImage, pixelCanvas } from "../lib/pixels.js";
import { channelStats, patchOf, squaredError } from "./pictures.js";

const CHANNELS = { 1: ["grey"], 3: ["red", "green", "blue"] };

/** A number of the original, and what became of it. */
const change = (a, b) => `${a.toFixed(3)} → ${b.toFixed(3)}`;

/** Bars of errors: [{name, value, help, ours}], missing values left out. */
export function createBars() {
  const root = h("div", { class: "nnb-bars", role: "list" });
  return {
    root,
    draw(entries) {
      const there = entries.filter((one) => Number.isFinite(one.value)),
        most = Math.max(1e-12, ...there.map((one) => one.value));
      root.replaceChildren(
        ...there.map(({ name, value, help, ours }) => {
          const bar = h("span", { class: "nnb-bar-fill" });
          bar.style.width = `${(100 * value) / most}%`;
          return h("div", { class: `nnb-bar${ours ? " nnb-ours" : ""}`, role: "listitem", title: help, "aria-label": `${name}: ${formatNumber(value)}. ${help}` },
            h("span", { class: "nnb-bar-name" }, name), h("span", { class: "nnb-bar-track" }, bar), h("output", {}, formatNumber(value)));
        }),
      );
    },
  };
}

/** One patch, as it was and as it was painted, with the numbers of each channel. */
export function createPatch() {
  const canvases = [pixelCanvas("the patch as it was"), pixelCanvas("the patch as painted")];
  const says = h("div", { class: "nnb-patch-says" }),
    table = h("table", {}),
    body = h("div", { class: "nnb-patch-body" }, h("figure", {}, canvases[0], h("figcaption", {}, "original")), h("figure", {}, canvases[1], h("figcaption", {}, "painted")), table);
  return {
    root: h("div", { class: "nnb-patch", "aria-live": "polite" }, says, body),
    draw(image, painted, mask, patch) {
      body.hidden = !patch.length || !painted;
      if (!patch.length) return says.replaceChildren("Click a patch of the picture, or walk with the arrow keys, to compare it in numbers.");
      const hidden = mask.data[patch[0] * mask.shape[1] + patch[1]];
      const named = `Patch ${patch[0] + 1}, ${patch[1] + 1}, ${hidden ? "hidden from the network" : "seen by the network; what it paints here does not count for the loss"}`;
      if (!painted) return says.replaceChildren(`${named}.`);
      const both = [image, painted].map((one) => patchOf(one, mask.shape, patch));
      says.replaceChildren(`${named}. Squared error `, h("b", {}, formatNumber(squaredError(...both))));
      both.forEach((one, i) => paintImage(canvases[i], one));
      const stats = both.map(channelStats);
      const line = (cells, tag = "td") => h("tr", {}, ...cells.map((text, i) => h(i ? tag : "th", i ? {} : { scope: "row" }, text)));
      table.replaceChildren(
        h("thead", {}, h("tr", {}, ...["", "mean", "spread"].map((text) => h("th", { scope: "col" }, text)))),
        h("tbody", {}, ...stats[0].map((one, c) => line([CHANNELS[stats[0].length]?.[c] ?? String(c), change(one.mean, stats[1][c].mean), change(one.spread, stats[1][c].spread)]))),
      );
      setAttribute(table, "aria-label", "Mean and spread of each channel, 0 to 1, in the original and as painted");
    },
  };
}

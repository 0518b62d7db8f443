// What one sees of a point: its image, its name, its neighbours.
import { h, setText } from "../lib/dom.js";
import { dotted } from "../lib/format.js";
import { paintImage, pixelCanvas } from "../lib/pixels.js";
import { agree, neighboursOf } from "./cloud.js";
import { marker } from "./colours.js";

/** What a point is called: its class, or nothing. */
export const labelOf = (cloud, i) => (cloud.labels && cloud.labels[i] >= 0 ? cloud.classes[cloud.labels[i]] : "");
export const numberOf = (cloud, i) => `image ${(cloud.rows ? cloud.rows[i] : i).toLocaleString("en")}`;

/** A small image, `size` CSS pixels a side. */
export function thumbnail(cloud, i, size, label) {
  const canvas = pixelCanvas(label),
    image = cloud.image(i),
    [rows, columns] = image.shape;
  paintImage(canvas, image);
  const scale = size / Math.max(rows, columns);
  canvas.style.width = `${Math.round(columns * scale)}px`;
  canvas.style.height = `${Math.round(rows * scale)}px`;
  return canvas;
}

/** How many of the neighbours have the same label, in words. */
export function agreementText(cloud, moment, i) {
  if (!cloud.k || !(cloud.labels?.[i] >= 0)) return "";
  const same = [...neighboursOf(cloud, moment, i)].filter((j) => agree(cloud, i, j)).length;
  return `${same} of ${cloud.k} neighbours agree`;
}

/** The card beside a point; it never takes the pointer. */
export function createCard() {
  const spoken = h("div", { class: "nnb-hidden", "aria-live": "polite" }),
    root = h("div", { class: "nnb-card", hidden: true });
  let shown = "",
    of = null; // the cloud it is about
  return {
    root,
    spoken,
    hide() {
      root.hidden = true;
    },
    /**
     * @param {object} cloud
     * @param {number} i the point
     * @param {number} moment
     * @param {(name: string) => number|undefined} value of the column that gives the colour
     */
    show(cloud, i, moment, value) {
      const key = `${i} ${moment} ${value?.text ?? ""}`;
      root.hidden = false;
      if (key === shown && cloud === of) return;
      [shown, of] = [key, cloud];
      const name = labelOf(cloud, i),
        agreement = agreementText(cloud, moment, i),
        near = [...neighboursOf(cloud, moment, i)];
      const about = h(
        "div",
        { class: "nnb-card-about" },
        name && h("div", { class: "nnb-card-name" }, marker(cloud.labels[i]), h("span", {}, name)),
        h("div", { class: name ? "nnb-quiet" : "nnb-card-name" }, numberOf(cloud, i)),
        agreement && h("div", { class: "nnb-quiet" }, agreement),
        value && h("div", { class: "nnb-quiet" }, value.text),
      );
      const row = near.slice(0, 8).map((j) =>
        h(
          "span",
          { class: "nnb-near", "data-same": agree(cloud, i, j) },
          cloud.image ? thumbnail(cloud, j, 26, "") : null,
          cloud.labels ? marker(cloud.labels[j]) : null,
        ),
      );
      root.replaceChildren(
        h("div", { class: "nnb-card-head" }, cloud.image && thumbnail(cloud, i, 72, ""), about),
        ...(row.length ? [h("div", { class: "nnb-card-near" }, ...row)] : []),
      );
      setText(spoken, dotted([name, numberOf(cloud, i), agreement, value?.text]));
    },
    /** Near the point (x, y) of a picture of w × height pixels, away from `others` (x, y in turn), its neighbours. */
    put([x, y], w, height, others) {
      const { offsetWidth: own, offsetHeight: tall } = root,
        gap = 18,
        [left, right] = [x - gap - own, x + gap],
        mean = others.length ? others.reduce((sum, p) => sum + p[0], 0) / others.length : x - 1,
        fits = { left: left >= 8, right: right + own <= w - 8 };
      let at;
      if (fits.left || fits.right) {
        const side = mean > x ? (fits.left ? left : right) : fits.right ? right : left;
        at = [side, y - tall / 2];
      } else at = [(w - own) / 2, y < height / 2 ? height : 0]; // narrow: at the other end
      root.style.left = `${Math.max(8, Math.min(w - own - 8, at[0]))}px`;
      root.style.top = `${Math.max(8, Math.min(height - tall - 8, at[1]))}px`;
    },
  };
}

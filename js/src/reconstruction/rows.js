// All pictures in rows: original, masked, reconstruction, pasted in, error; a click chooses one.
import { h, setAttribute, setText } from "../lib/dom.js";
import { formatNumber } from "../lib/format.js";
import { paintImage, paintMap, pixelCanvas } from "../lib/pixels.js";

/** @param {{onImage: (image: number) => void}} options */
export function createRows({ onImage }) {
  const head = h("div", { class: "nnb-columns", "aria-hidden": "true" }),
    list = h("div", { class: "nnb-rows", role: "group", "aria-label": "Pictures" });
  let rows = [],
    built = "";

  /** New canvases, when there are other columns or another number of pictures. */
  function build(columns, count) {
    if (built === `${count} ${columns}`) return;
    built = `${count} ${columns}`;
    rows = Array.from({ length: count }, (_, i) => {
      const canvases = columns.map(() => pixelCanvas("", { "aria-hidden": "true" })),
        number = h("span", { class: "nnb-row-number" });
      const button = h("button", { type: "button", class: "nnb-row", on: { click: () => onImage(i) } }, ...canvases, number);
      return { canvases, number, button };
    });
    head.replaceChildren(...columns.map((name) => h("span", {}, name)), h("span", { class: "nnb-row-number" }, columns.length > 3 ? "MSE" : ""));
    for (const node of [head, list]) node.style.setProperty("--columns", columns.length);
    list.replaceChildren(...rows.map((one) => one.button));
  }

  return {
    root: h("div", { class: "nnb-table" }, head, list),
    /**
     * @param {string[]} columns
     * @param {object[][]} pictures per picture and column: {image} bytes, or {map, high} numbers
     * @param {number[]} errors on hidden pixels
     */
    draw(columns, pictures, errors, selected) {
      build(columns, pictures.length);
      pictures.forEach((cells, i) => {
        const { canvases, number, button } = rows[i];
        cells.forEach((cell, k) => (cell.image ? paintImage(canvases[k], cell.image) : paintMap(canvases[k], cell.map, { high: cell.high })));
        setText(number, Number.isFinite(errors[i]) ? formatNumber(errors[i]) : "");
        setAttribute(button, "aria-pressed", String(i === selected));
        setAttribute(button, "aria-label", `Picture ${i + 1}${Number.isFinite(errors[i]) ? `, squared error on hidden pixels ${formatNumber(errors[i])}` : ""}`);
      });
    },
    select(selected) {
      rows.forEach(({ button }, i) => setAttribute(button, "aria-pressed", String(i === selected)));
    },
  };
}

// All pictures in rows: original, masked, painted, pasted in, error. A click on a row chooses the picture, on the name of a
// column what it is compared with.
import { h, setAttribute, setText } from "../lib/dom.js";
import { formatNumber } from "../lib/format.js";
import { paintImage, paintMap, pixelCanvas } from "../lib/pixels.js";

/** Paints {image} bytes, or {map, high} numbers. */
export const paintCell = (canvas, { image, map, high }) => (image ? paintImage(canvas, image) : paintMap(canvas, map, { high }));

/** @param {{onImage: (image: number) => void, onColumn: (name: string) => void}} options */
export function createRows({ onImage, onColumn }) {
  const head = h("div", { class: "nnb-columns", role: "group", "aria-label": "What the original is compared with" }),
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
    const names = columns.map((name, i) =>
      i ? h("button", { type: "button", title: "Compare the original with this", on: { click: () => onColumn(name) } }, name) : h("span", {}, name),
    );
    head.replaceChildren(...names, h("span", { class: "nnb-row-number" }, columns.length > 3 ? "MSE" : ""));
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
    draw(columns, pictures, errors) {
      build(columns, pictures.length);
      pictures.forEach((cells, i) => {
        const { canvases, number, button } = rows[i];
        cells.forEach((cell, k) => paintCell(canvases[k], cell));
        setText(number, Number.isFinite(errors[i]) ? formatNumber(errors[i]) : "");
        setAttribute(button, "aria-label", `Picture ${i + 1}${Number.isFinite(errors[i]) ? `, squared error on hidden pixels ${formatNumber(errors[i])}` : ""}`);
      });
    },
    /** Which picture is chosen, and the column it is compared with. */
    select(selected, column) {
      rows.forEach(({ button }, i) => setAttribute(button, "aria-pressed", String(i === selected)));
      for (const name of head.querySelectorAll("button")) setAttribute(name, "aria-pressed", String(name.textContent === column));
    },
  };
}

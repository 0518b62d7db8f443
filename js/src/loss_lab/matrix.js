// A matrix on a canvas: colours with their scale, the right answers marked, a cursor for mouse and keys.
import { h, s, setText } from "../lib/dom.js";
import { formatPlain } from "../lib/format.js";
import { paintMap, pixelCanvas } from "../lib/pixels.js";

/**
 * @param {(cell: [number, number]|null, pinned: boolean) => void} onCell row and column of the batch under the cursor
 */
export function createMatrix(onCell) {
  const title = h("h3", {}),
    canvas = pixelCanvas("", { tabindex: 0, class: "nnb-pixels nnb-matrix", role: "application" });
  const marks = s("svg", { class: "nnb-marks", "aria-hidden": "true", preserveAspectRatio: "none" });
  const cursor = h("i", { class: "nnb-cursor", hidden: true });
  const bar = h("canvas", { class: "nnb-pixels nnb-scale", width: 128, height: 1, "aria-hidden": "true" });
  const ends = [h("span", {}), h("span", {}), h("span", {})];
  const axis = h("span", { class: "nnb-axis" });
  const root = h(
    "figure",
    { class: "nnb-picture" },
    h("figcaption", {}, title),
    h("div", { class: "nnb-plane" }, canvas, marks, cursor),
    h("div", { class: "nnb-legend" }, axis, h("div", { class: "nnb-ramp" }, bar, h("div", {}, ...ends))),
  );
  let picture = null,
    at = null; // place of the cursor in the drawn matrix

  const first = () => picture.firstColumn ?? 0;

  const cellAt = (event) => {
    const box = canvas.getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * picture.rows),
      column = Math.floor(((event.clientX - box.left) / box.width) * picture.columns);
    const inside = row >= 0 && column >= 0 && row < picture.rows && column < picture.columns;
    return inside ? [row, column] : null;
  };
  const batch = (place) => place && [picture.rowOrder[place[0]], first() + picture.columnOrder[place[1]]];
  canvas.addEventListener("pointermove", (event) => picture && onCell(batch(cellAt(event)), false));
  canvas.addEventListener("pointerleave", () => onCell(null, false));
  canvas.addEventListener("click", (event) => picture && onCell(batch(cellAt(event)), true));
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (event.key === "Escape") return onCell(null, true);
    if (!step || !picture) return;
    event.preventDefault();
    const next = at ? [clamp(at[0] + step[0], picture.rows), clamp(at[1] + step[1], picture.columns)] : [0, 0];
    if (String(next) !== String(at)) onCell(batch(next), true); // the same again would unpin it
  });

  function drawMarks() {
    const { rows, columns } = picture;
    marks.setAttribute("viewBox", `0 0 ${columns} ${rows}`);
    if (!picture.marks || rows * columns > 40_000) return marks.replaceChildren();
    const path = [];
    for (let i = 0; i < rows; i++)
      for (let j = 0; j < columns; j++)
        if (picture.marks(picture.rowOrder[i], picture.columnOrder[j])) path.push(`M${j} ${i}h1v1h-1z`);
    marks.replaceChildren(s("path", { d: path.join(""), class: "nnb-mark" }));
  }

  return {
    root,
    draw(next) {
      picture = next;
      const { rows, columns, rowOrder, columnOrder, data } = picture;
      const drawn = new Float32Array(rows * columns);
      for (let i = 0; i < rows; i++)
        for (let j = 0; j < columns; j++) drawn[i * columns + j] = data[rowOrder[i] * columns + columnOrder[j]];
      const log = picture.low > 0,
        bounds = { map: picture.map, low: log ? Math.log(picture.low) : picture.low, high: log ? Math.log(picture.high) : picture.high };
      paintMap(canvas, { data: log ? drawn.map((x) => Math.log(Math.max(x, picture.low))) : drawn, shape: [rows, columns] }, bounds);
      paintMap(bar, { data: Float32Array.from({ length: 128 }, (_, i) => i / 127), shape: [1, 128] }, { map: picture.map });
      setText(title, picture.title);
      setText(ends[0], log ? formatPlain(Number(picture.low.toPrecision(1))) : formatPlain(picture.low));
      setText(ends[1], picture.low < 0 ? "0" : log ? "log" : "");
      setText(ends[2], formatPlain(Number(picture.high.toPrecision(2))));
      setText(axis, `↓ ${picture.rowName}  → ${picture.columnName}`);
      canvas.setAttribute("aria-label", `${picture.title}: ${rows} rows, ${columns} columns; arrow keys read the cells`);
      root.dataset.map = picture.map;
      drawMarks();
    },
    /** Shows the cursor at a cell of the batch; around the whole row if the column is one of the other picture. */
    point(cell) {
      const row = cell && picture ? picture.rowOrder.indexOf(cell[0]) : -1,
        column = row < 0 ? -1 : picture.columnOrder.indexOf(cell[1] - first());
      at = column < 0 ? null : [row, column];
      cursor.hidden = row < 0;
      if (row < 0) return;
      const share = (x, n) => `${(100 * x) / n}%`;
      Object.assign(cursor.style, {
        top: share(row, picture.rows), left: share(Math.max(column, 0), picture.columns),
        height: share(1, picture.rows), width: column < 0 ? "100%" : share(1, picture.columns),
      });
    },
    /** The number in a cell of the batch; undefined if the cell is none of this picture. */
    value(cell) {
      const column = picture ? cell[1] - first() : -1;
      return column < 0 || column >= picture.columns ? undefined : picture.data[cell[0] * picture.columns + column];
    },
    get picture() {
      return picture;
    },
  };
}

const clamp = (x, n) => Math.min(Math.max(x, 0), n - 1);

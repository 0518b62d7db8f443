// The stages as a table, for reading exactly and for screen readers.
import { h, setAttribute, setText } from "../lib/dom.js";
import { formatCount, formatPercent, formatShort } from "../lib/format.js";
import { fieldWord, strideOf } from "./model.js";

const HEAD = ["Stage", "Class", "Output", "Stride (px)", "Sees (px)", "Parameters", "Work"];
const HELP = {
  Output: "Channels × rows × columns of what the stage gives. Tokens of a transformer are counted as a grid.",
  "Stride (px)": "Pixels of the image from one position to the next.",
  "Sees (px)": "Receptive field: pixels of the image that one position can depend on, down × across, also beyond the border.",
  Work: "Share of the network's multiplications.",
};

/** @returns {{root: HTMLElement, draw: Function, select: (name: string) => void}} */
export function createTable(view, { onSelect }) {
  const cells = view.stages.map((stage) => {
    const button = h("button", { class: "nnb-link", type: "button", on: { click: () => onSelect(stage.name) } }, stage.name);
    const output = h("td", { class: "nnb-num" }),
      stride = h("td", { class: "nnb-num" }),
      work = h("td", { class: "nnb-num" });
    const row = h("tr", { "data-row": stage.name, on: { click: () => onSelect(stage.name) } },
      h("th", { scope: "row" }, button), h("td", { class: "nnb-soft" }, stage.kind), output, stride,
      h("td", { class: "nnb-num" }, fieldWord(stage.field, stage)),
      h("td", { class: "nnb-num", title: formatCount(stage.parameters) }, stage.parameters ? formatShort(stage.parameters) : "–"), work);
    return { row, output, stride, work };
  });
  const note = h("span", { class: "nnb-note" });
  const head = HEAD.map((name) => h("th", { scope: "col", title: HELP[name] ?? null, class: HELP[name] ? "nnb-explained" : null }, name));
  const root = h("div", { class: "nnb-table", tabindex: "0", role: "region", "aria-label": "Stages as a table" },
    h("table", {}, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...cells.map((cell) => cell.row))));

  return {
    root,
    note,
    draw(shapes, { shares, size, total }, rows) {
      setText(note, `${formatShort(total)} multiplications for an image of ${size} px`);
      cells.forEach((cell, i) => {
        const shape = shapes?.[i];
        const vector = view.stages[i].layout === "vector";
        const extra = view.stages[i].extra ? ` + ${view.stages[i].extra}` : "";
        setText(cell.output, shape ? (vector ? `${shape[0]}` : shape.join(" × ") + extra) : "–");
        setText(cell.stride, shape && !vector ? strideOf(rows, shape[1]) : "–");
        setText(cell.work, !shape || !shares[i] ? "–" : shares[i] < 5e-4 ? "< 0.1 %" : formatPercent(shares[i]));
      });
    },
    select(name) {
      cells.forEach((cell, i) => setAttribute(cell.row, "aria-current", view.stages[i].name === name ? "true" : null));
    },
  };
}

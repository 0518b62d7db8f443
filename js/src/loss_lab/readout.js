// What the cell under the cursor says: its two images, their classes, its values.
import { h, setAttribute, setText } from "../lib/dom.js";
import { formatNumber } from "../lib/format.js";
import { paintImage, pixelCanvas } from "../lib/pixels.js";

export function createReadout() {
  const canvases = [pixelCanvas(""), pixelCanvas("")];
  const text = h("span", {});
  const root = h("div", { class: "nnb-readout" }, ...canvases, text);
  return {
    root,
    draw(cell, { values, picture, images, row, classes, names, passing }) {
      setAttribute(text, "aria-live", passing ? "off" : "polite"); // keys are read out, a pointer is not
      const who = cell && picture ? [picture.rowImages?.[cell[0]], picture.columnImages?.[cell[1]]] : [];
      canvases.forEach((canvas, i) => {
        canvas.hidden = !(images && who[i] != null && who[i] >= 0);
        if (!canvas.hidden) paintImage(canvas, row(who[i]));
      });
      if (!cell) return setText(text, "Point at a cell, or walk with the arrow keys; a click keeps it.");
      const count = picture.rowImages ? new Set(picture.rowImages).size : 0;
      const part = (place, image) => {
        if (image == null) return `${place}`;
        const view = count && place >= count ? ` (view ${Math.floor(place / count) + 1})` : "";
        const name = names[classes[image]];
        return `image ${image}${view}${name ? `, ${name}` : ""}`;
      };
      const [first, second] = [part(cell[0], who[0]), part(cell[1], who[1])];
      const places = picture.place?.(...cell) ?? `${first} × ${who[1] == null ? column(picture, cell[1]) : second}`;
      const right = picture.marks?.(cell[0], cell[1]) ? " · right answer" : "";
      setText(text, `${places}: ${values.map(([{ unit, percent }, value]) => tell(unit, percent, value)).join(", ")}${right}`);
    },
  };
}

const column = (picture, j) =>
  picture.columnName.startsWith("own key") ? (j === 0 ? "its own key" : `wrong answer ${j}`) : `${picture.columnName.split(",")[0]} ${j}`;

function tell(unit, percent, value) {
  if (value == null || !Number.isFinite(value)) return "itself, left out";
  if (percent) return `${unit} ${value < 1e-4 ? "below 0.01" : formatNumber(100 * value, 3)}\u00a0%`;
  return `${unit} ${formatNumber(value, 3)}`;
}

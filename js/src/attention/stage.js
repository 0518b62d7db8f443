// The picture with the attention over it; a click or the arrow keys choose which patch looks.
import { cellAt, sharesAt, stepInGrid } from "../lib/cells.js";
import { h, s, setAttribute } from "../lib/dom.js";
import { colourMap, paintImage, pixelCanvas } from "../lib/pixels.js";
import { outline } from "./maps.js";

const TALLEST = 420; // px

/** The [row, column] of a layer's own grid where a query, counted in the finest grid, lies; null for one without a place. */
export const queryCell = (query, grid, layerGrid) => (query.length === 2 && layerGrid?.length ? query.map((p, i) => Math.floor((p * layerGrid[i]) / grid[i])) : null);

/** Paints cells over the image: coloured, and the less transparent the larger they are; a veil lies on what is not kept or NaN. */
export function paintHeat(canvas, cells, [rows, columns], { high, keep, opacity, veil }) {
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d"),
    image = context.createImageData(columns, rows),
    colours = colourMap("viridis");
  cells.forEach((w, i) => {
    const kept = keep[i] && !Number.isNaN(w);
    const at = 3 * Math.min(255, Math.round((255 * w) / (high || 1)));
    image.data.set(kept ? colours.subarray(at, at + 3) : veil, 4 * i);
    image.data[4 * i + 3] = 255 * opacity * (kept ? 0.2 + 0.8 * Math.sqrt(w / (high || 1)) : Number.isNaN(w) ? 0.55 : 0.85);
  });
  context.putImageData(image, 0, 0);
}

/**
 * @param {{onQuery: (query: number[]) => void, onHover: (place: [number, number]|null) => void}} options
 */
export function createStage({ onQuery, onHover }) {
  const picture = pixelCanvas("the picture", { "aria-hidden": "true" }),
    heat = pixelCanvas("attention", { "aria-hidden": "true", class: "nnb-pixels nnb-heat" });
  const border = s("path", { class: "nnb-window", "vector-effect": "non-scaling-stroke" });
  const halo = s("rect", { class: "nnb-query-halo", "vector-effect": "non-scaling-stroke" });
  const marker = s("rect", { class: "nnb-query", "vector-effect": "non-scaling-stroke" });
  const over = s("svg", { class: "nnb-over", preserveAspectRatio: "none", "aria-hidden": "true" }, border, halo, marker);
  const root = h("div", { class: "nnb-stage", tabindex: "0", role: "application" }, picture, heat, over);
  let grid = [],
    query = [];

  root.addEventListener("pointerdown", (event) => {
    if (grid.length) onQuery(cellAt(sharesAt(event, root), grid));
  });
  root.addEventListener("pointermove", (event) => {
    if (!grid.length) return;
    const shares = sharesAt(event, root);
    if (event.buttons === 1) onQuery(cellAt(shares, grid));
    onHover(shares);
  });
  root.addEventListener("pointerleave", () => onHover(null));
  root.addEventListener("keydown", (event) => {
    const next = grid.length && stepInGrid(query, event.key, grid);
    if (!next) return;
    event.preventDefault();
    onQuery(next);
  });

  return {
    root,
    /** @param {{data: Uint8Array, shape: number[]}} image bytes (H, W, C) */
    setImage(image) {
      paintImage(picture, image);
      root.style.aspectRatio = `${image.shape[1]} / ${image.shape[0]}`;
      root.style.maxWidth = `${(TALLEST * image.shape[1]) / image.shape[0]}px`;
    },
    /** The patch that looks, in the grid where queries are counted; `size` is its size there when the layer is coarser. */
    setQuery(next, nextGrid, layerGrid, label) {
      [query, grid] = [next, nextGrid];
      setAttribute(root, "aria-label", label);
      const [rows, columns] = layerGrid?.length ? layerGrid : grid,
        cell = queryCell(next, grid, [rows, columns]);
      for (const rect of [halo, marker]) rect.style.display = cell ? "" : "none";
      if (!cell) return;
      setAttribute(over, "viewBox", `0 0 ${columns} ${rows}`);
      const [y, x] = cell;
      for (const rect of [halo, marker])
        for (const [name, value] of Object.entries({ x, y, width: 1, height: 1 })) setAttribute(rect, name, value);
    },
    /** @param {Float32Array|null} cells of the layer's grid */
    setHeat(cells, size, options) {
      heat.style.display = cells ? "" : "none";
      picture.style.filter = cells ? `grayscale(${Math.min(1, 1.5 * options.opacity)})` : ""; // colours belong to the attention
      setAttribute(border, "d", "");
      if (!cells) return;
      paintHeat(heat, cells, size, options);
      const limited = cells.some(Number.isNaN);
      if (!limited) return;
      setAttribute(over, "viewBox", `0 0 ${size[1]} ${size[0]}`);
      setAttribute(border, "d", outline((i) => !Number.isNaN(cells[i]), size));
    },
  };
}

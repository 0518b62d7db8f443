// Two pictures in one place, a line between them to be moved, and a patch to be chosen.
import { cellAt, sharesAt, stepInGrid } from "../lib/cells.js";
import { h, s, setAttribute, setText } from "../lib/dom.js";
import { paintImage, pixelCanvas } from "../lib/pixels.js";
import { paintCell } from "./rows.js";

/** @param {{onWipe: (share: number) => void, onPatch: (patch: number[]) => void}} options */
export function createStage({ onWipe, onPatch }) {
  const under = pixelCanvas("", { "aria-hidden": "true" }),
    over = pixelCanvas("", { "aria-hidden": "true" });
  const line = h("div", { class: "nnb-wipe-line" });
  const names = [h("span", { class: "nnb-wipe-name" }), h("span", { class: "nnb-wipe-name nnb-wipe-right" })];
  const halo = s("rect", { class: "nnb-halo", "vector-effect": "non-scaling-stroke", width: 1, height: 1 }),
    marker = s("rect", { class: "nnb-marker", "vector-effect": "non-scaling-stroke", width: 1, height: 1 });
  const marks = s("svg", { class: "nnb-marks", preserveAspectRatio: "none", "aria-hidden": "true" }, halo, marker);
  const picture = h("div", { class: "nnb-stage", tabindex: "0", role: "application" }, under, over, line, marks, ...names);
  const range = h("input", { type: "range", min: 0, max: 1, step: 0.01, "aria-label": "Wipe between original and reconstruction", on: { input: () => onWipe(Number(range.value)) } });
  let grid = null, // while nothing is hidden there are no patches
    patch = [],
    share = 0.5,
    dragging = false;

  picture.addEventListener("pointerdown", (event) => {
    const shares = sharesAt(event, picture);
    dragging = Math.abs(shares[1] - share) * picture.clientWidth < 10;
    if (dragging) picture.setPointerCapture(event.pointerId);
    else if (grid) onPatch(cellAt(shares, grid));
  });
  picture.addEventListener("pointermove", (event) => dragging && onWipe(Math.round(100 * sharesAt(event, picture)[1]) / 100));
  for (const end of ["pointerup", "pointercancel"]) picture.addEventListener(end, () => (dragging = false));
  picture.addEventListener("keydown", (event) => {
    if (!grid) return;
    if (event.key === "Escape") onPatch([]);
    const next = stepInGrid(patch, event.key, grid);
    if (!next) return;
    event.preventDefault();
    onPatch(next);
  });

  return {
    root: h("div", { class: "nnb-stage-box" }, picture, range),
    /** The two pictures, left and right of the line, {image} or {map, high}, and what they are called. */
    setPictures(left, right, [leftName, rightName]) {
      paintCell(under, right);
      paintImage(over, left);
      picture.style.aspectRatio = `${left.shape[1]} / ${left.shape[0]}`;
      setText(names[0], leftName);
      setText(names[1], rightName);
    },
    setWipe(next) {
      share = next;
      over.style.clipPath = `inset(0 ${100 - 100 * share}% 0 0)`;
      line.style.left = `${100 * share}%`;
      names[0].style.opacity = share < 0.22 ? 0 : 1;
      names[1].style.opacity = share > 0.7 ? 0 : 1;
      range.value = share;
      setAttribute(range, "aria-valuetext", `${Math.round(100 * share)} % original`);
    },
    /** @param {number[]} next the patch or [] @param {number[]|null} nextGrid rows and columns of patches */
    setPatch(next, nextGrid) {
      [patch, grid] = [next, nextGrid];
      if (grid) setAttribute(marks, "viewBox", `0 0 ${grid[1]} ${grid[0]}`);
      for (const rect of [halo, marker]) {
        rect.style.display = next.length ? "" : "none";
        setAttribute(rect, "x", next[1] ?? 0);
        setAttribute(rect, "y", next[0] ?? 0);
      }
      const chosen = next.length ? `Patch ${next[0] + 1}, ${next[1] + 1} is chosen.` : "No patch is chosen.";
      setAttribute(picture, "aria-label", grid ? `Picture of ${grid[0]} by ${grid[1]} patches. ${chosen} Arrow keys choose, Escape forgets.` : "The picture");
    },
  };
}

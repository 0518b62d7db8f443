// Cells of a picture that is a grid: which one the pointer is on, and where an arrow key leads.

const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/** Where a pointer is in an element: [down, right], 0 to 1. */
export function sharesAt(event, element) {
  const box = element.getBoundingClientRect();
  return [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width].map((x) => Math.min(1, Math.max(0, x)));
}

/** The [row, column] of a place [down, right] in a grid of [rows, columns]. */
export const cellAt = (shares, grid) => shares.map((x, i) => Math.min(grid[i] - 1, Math.floor(x * grid[i])));

/** The cell an arrow key leads to, inside the grid; the middle one if none was chosen; null for another key. */
export function stepInGrid(cell, key, grid) {
  const step = ARROWS[key];
  if (!step) return null;
  if (cell?.length !== 2) return grid.map((n) => Math.floor(n / 2));
  return cell.map((p, i) => Math.min(grid[i] - 1, Math.max(0, p + step[i])));
}

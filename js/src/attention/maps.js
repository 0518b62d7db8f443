// Attention as Python packs it (attention.py): whose row is where, and what it says about each cell of the grid.
import { unpack } from "../lib/arrays.js";

/**
 * @typedef {object} Maps weights of one layer for one image
 * @property {{data: Uint8Array, shape: number[]}} weights square roots in 255 steps, (groups, heads, queries, keys)
 * @property {{data: Float32Array, shape: number[]}} scale the largest weight of each row, (groups, heads, queries)
 * @property {{data: Int32Array, shape: number[]}} queries tokens, (groups, queries): cell ≥ 0, −1 − k without a place
 * @property {{data: Int32Array, shape: number[]}} keys tokens, (groups, keys)
 */

/** @returns {Maps|null} */
export function readMaps(packed) {
  if (!packed?.weights) return null;
  const names = ["weights", "scale", "queries", "keys"];
  return Object.fromEntries(names.map((name) => [name, unpack(packed[name])]));
}

/**
 * The chosen query as a token of a layer, or null if the layer has no such token.
 * @param {number[]} query [k] or [row, column] in `grid`
 * @param {number[]} grid rows and columns in which queries are counted
 * @param {{special: number, query_grid: number[]}} layer
 */
export function tokenOf(query, grid, layer) {
  if (query.length === 1) return query[0] < layer.special ? -1 - query[0] : null;
  if (!layer.query_grid?.length || query.length !== 2) return null;
  const [row, column] = query.map((p, i) => Math.floor((p * layer.query_grid[i]) / grid[i]));
  return row * layer.query_grid[1] + column;
}

/** Group and place of a token among the queries, or null. */
export function findToken({ queries }, token) {
  if (token == null) return null;
  const at = queries.data.indexOf(token);
  return at < 0 ? null : { group: Math.floor(at / queries.shape[1]), place: at % queries.shape[1] };
}

/** The weights of one row, all keys: a Float32Array. */
export function weightsOf({ weights, scale }, { group, place }, head) {
  const [, heads, queries, keys] = weights.shape;
  const row = (group * heads + head) * queries + place,
    most = scale.data[row],
    out = new Float32Array(keys);
  for (let i = 0; i < keys; i++) {
    const root = weights.data[row * keys + i] / 255;
    out[i] = most * root * root;
  }
  return out;
}

/**
 * What one head, or with head −1 their mean, looks at from a token.
 * @returns {{cells: Float32Array, elsewhere: number, weights: Float32Array}|null} cells of the grid (NaN where the token
 *   may not look), and the share that goes to tokens without a place
 */
export function lookFrom(maps, token, head, grid) {
  const at = findToken(maps, token);
  if (!at || !grid?.length) return null;
  const heads = maps.weights.shape[1];
  const chosen = head < 0 ? Array.from({ length: heads }, (_, i) => i) : [Math.min(head, heads - 1)];
  const weights = new Float32Array(maps.weights.shape[3]);
  for (const one of chosen) weightsOf(maps, at, one).forEach((w, i) => (weights[i] += w / chosen.length));
  const cells = new Float32Array(grid[0] * grid[1]).fill(NaN);
  const keys = maps.keys.data.subarray(at.group * weights.length, (at.group + 1) * weights.length);
  let elsewhere = 0;
  keys.forEach((key, i) => {
    if (key >= 0 && key < cells.length) cells[key] = weights[i];
    else elsewhere += weights[i];
  });
  return { cells, elsewhere, weights };
}

/** Which of the cells are the fewest that hold this share of their sum; all of them for a share of 1. */
export function topMass(cells, share) {
  const keep = new Uint8Array(cells.length);
  const order = [...cells.keys()].filter((i) => cells[i] >= 0).sort((a, b) => cells[b] - cells[a]);
  const total = order.reduce((sum, i) => sum + cells[i], 0);
  let before = 0;
  for (const i of order) {
    if (share < 1 && before >= share * total - 1e-7) break;
    keep[i] = 1;
    before += cells[i];
  }
  return keep;
}

/** −Σ w ln w of weights that sum to 1. */
export const entropy = (weights) => weights.reduce((sum, w) => (w > 0 ? sum - w * Math.log(w) : sum), 0);

/** Largest number that is there, 0 if none is. */
export const largest = (cells) => cells.reduce((most, w) => (w > most ? w : most), 0);

/** The border of a set of cells as an SVG path, in cells. */
export function outline(inside, [rows, columns]) {
  const is = (r, c) => r >= 0 && c >= 0 && r < rows && c < columns && inside(r * columns + c);
  let path = "";
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < columns; c++) {
      if (!is(r, c)) continue;
      if (!is(r - 1, c)) path += `M${c} ${r}h1`;
      if (!is(r + 1, c)) path += `M${c} ${r + 1}h1`;
      if (!is(r, c - 1)) path += `M${c} ${r}v1`;
      if (!is(r, c + 1)) path += `M${c + 1} ${r}v1`;
    }
  return path;
}

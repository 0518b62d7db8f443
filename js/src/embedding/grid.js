// Which point is under the pointer, which are inside a line drawn around them.

/**
 * Points sorted into square cells.
 * @param {Float32Array} points x and y in turn
 */
export function buildGrid(points, [left, low, right, high]) {
  const n = points.length / 2,
    side = Math.max(1, Math.min(512, Math.round(Math.sqrt(n / 2)))),
    cell = Math.max(right - left, high - low, 1e-12) / side,
    clip = (v) => (v < 0 ? 0 : v >= side ? side - 1 : v | 0),
    column = (x) => clip((x - left) / cell),
    line = (y) => clip((y - low) / cell),
    starts = new Uint32Array(side * side + 1),
    cells = new Uint32Array(n),
    members = new Uint32Array(n);
  for (let i = 0; i < n; i++) starts[(cells[i] = line(points[2 * i + 1]) * side + column(points[2 * i])) + 1]++;
  for (let c = 0; c < side * side; c++) starts[c + 1] += starts[c];
  const next = starts.slice();
  for (let i = 0; i < n; i++) members[next[cells[i]]++] = i;
  return { points, side, column, line, starts, members };
}

/** The point nearest to (x, y) and at most `reach` away, −1 if there is none; `accept` may refuse points. */
export function nearestPoint({ points, side, column, line, starts, members }, x, y, reach, accept = () => true) {
  let best = -1,
    distance = reach * reach;
  const [c0, c1, l0, l1] = [column(x - reach), column(x + reach), line(y - reach), line(y + reach)];
  for (let l = l0; l <= l1; l++) {
    // the cells of a line lie one after the other
    for (let at = starts[l * side + c0]; at < starts[l * side + c1 + 1]; at++) {
      const i = members[at],
        dx = points[2 * i] - x,
        dy = points[2 * i + 1] - y,
        d = dx * dx + dy * dy;
      if (d <= distance && accept(i)) [best, distance] = [i, d];
    }
  }
  return best;
}

/** Numbers of the points inside a closed line [[x, y], …] (even-odd rule). */
export function pointsInside(points, line, accept = () => true) {
  const found = [],
    xs = line.map((p) => p[0]),
    ys = line.map((p) => p[1]),
    [left, right] = [Math.min(...xs), Math.max(...xs)],
    [low, high] = [Math.min(...ys), Math.max(...ys)];
  for (let i = 0; i < points.length / 2; i++) {
    const x = points[2 * i],
      y = points[2 * i + 1];
    if (x < left || x > right || y < low || y > high || !accept(i)) continue;
    let inside = false;
    for (let a = 0, b = line.length - 1; a < line.length; b = a++)
      if (ys[a] > y !== ys[b] > y && x < ((xs[b] - xs[a]) * (y - ys[a])) / (ys[b] - ys[a]) + xs[a]) inside = !inside;
    if (inside) found.push(i);
  }
  return found;
}

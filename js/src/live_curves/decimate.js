// A curve with any number of points as the few that a screen can show: per column of pixels its lowest and its highest.

const PER_PIXEL = 3; // points per pixel from which columns are formed

/** Index of the first step that is at least `step` (`after`: greater than it). */
export function boundary(steps, step, n = steps.length, start = 0, after = false) {
  let low = start,
    high = n;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[middle] < step || (after && steps[middle] === step)) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * The points to draw, in pixels along x and as values along y. NaN in `y` is a gap in the line.
 * No value inside the range that is above `floor` and finite is ever lost from the extremes.
 * @param {ArrayLike<number>} steps rising
 * @param {ArrayLike<number>} values
 * @param {object} how
 * @param {{toX: (step: number) => number, toStep: (x: number) => number}} how.map steps to the axis and back, rising
 * @param {import("./scale.js").Scale} how.scale of the x-axis
 * @param {number} [how.floor] only values above it can be drawn: 0 on a logarithmic axis
 * @returns {{x: Float64Array, y: Float64Array, n: number, low: number, high: number, points: number}} `points`: inside
 */
export function decimate(steps, values, { map, scale, floor = -Infinity }) {
  const size = steps.length;
  const first = boundary(steps, map.toStep(scale.low), size);
  const end = boundary(steps, map.toStep(scale.high), size, first, true);
  const points = end - first,
    width = Math.ceil(scale.to - scale.from);
  const columns = points > PER_PIXEL * width;
  const room = (columns ? 2 * width : points) + 4;
  const x = new Float64Array(room),
    y = new Float64Array(room);
  let n = 0,
    low = Infinity,
    high = -Infinity;
  const drawable = (value) => value > floor && value < Infinity;
  const add = (at, value) => {
    if (!Number.isFinite(at) || (Number.isNaN(value) && (!n || Number.isNaN(y[n - 1])))) return;
    x[n] = at;
    y[n++] = value;
  };
  const point = (i, counts) => {
    const value = values[i],
      good = drawable(value);
    add(scale.at(map.toX(steps[i])), good ? value : NaN);
    if (!good || !counts) return;
    if (value < low) low = value;
    if (value > high) high = value;
  };
  const alone = points < 2; // the line from outside to outside decides what is seen
  if (first > 0) point(first - 1, alone);
  if (!columns) for (let i = first; i < end; i++) point(i, true);
  else {
    let start = first;
    for (let column = 0; column < width && start < end; column++) {
      const edge = map.toStep(scale.back(scale.from + column + 1));
      const stop = column === width - 1 ? end : Math.min(boundary(steps, edge, end, start), end);
      let least = -1,
        most = -1,
        bottom = Infinity,
        top = -Infinity;
      for (let i = start; i < stop; i++) {
        const value = values[i];
        if (value > floor && value < Infinity) {
          if (value < bottom) [bottom, least] = [value, i];
          if (value > top) [top, most] = [value, i];
        }
      }
      if (least >= 0) {
        const at = scale.from + column + 0.5;
        if (least === most) add(at, bottom);
        else if (least < most) (add(at, bottom), add(at, top));
        else (add(at, top), add(at, bottom));
        if (bottom < low) low = bottom;
        if (top > high) high = top;
      } else if (stop > start) add(scale.from + column + 0.5, NaN);
      start = stop;
    }
  }
  if (end < size) point(end, alone);
  return { x, y, n, low, high, points };
}

// Axes: from values to pixels and back, their ends, and round numbers along them.

/**
 * @typedef {object} Scale
 * @property {number} low
 * @property {number} high
 * @property {boolean} log
 * @property {number} from px of the low end
 * @property {number} to px of the high end
 * @property {(value: number) => number} at px of a value
 * @property {(px: number) => number} back value at a px
 */

/** @returns {Scale} */
export function makeScale(low, high, from, to, log = false) {
  const [a, b] = log ? [Math.log10(low), Math.log10(high)] : [low, high];
  const slope = (to - from) / (b - a || 1);
  return {
    low,
    high,
    log,
    from,
    to,
    at: log ? (value) => from + slope * (Math.log10(value) - a) : (value) => from + slope * (value - a),
    back: log ? (px) => 10 ** (a + (px - from) / slope) : (px) => a + (px - from) / slope,
  };
}

/** The ends of a value axis around data: a little air, never of zero height, within `limits`. */
export function axisRange(low, high, limits = [null, null], log = false) {
  if (log) {
    if (!(low > 0 && low <= high)) return [0.1, 1];
    return high / low < 1.5 ? [low / 1.3, high * 1.3] : [low / 1.1, high * 1.1];
  }
  if (!(low <= high)) return [limits[0] ?? 0, limits[1] ?? 1];
  const air = 0.06 * (high - Math.min(low, limits[0] ?? low)) || 0.05 * Math.abs(high) || 0.5;
  let [from, to] = [low - air, high + air];
  if (low >= 0 && from < 0) from = 0;
  return [limits[0] ?? from, Math.max(limits[1] ?? to, limits[1] != null ? high : -Infinity)];
}

/** Round numbers from `low` to `high`, at most `most`; `whole` allows no fractions. */
export function linearTicks(low, high, most, whole = false) {
  if (!(high > low) || most < 1) return [];
  let unit = 10 ** Math.floor(Math.log10((high - low) / most));
  unit *= [1, 2, 5, 10].find((m) => (high - low) / (m * unit) <= most) ?? 10;
  return multiples(low, high, whole ? Math.max(1, unit) : unit);
}

/** Powers of ten from `low` to `high`, with 2 and 5 between where there is room; plain round numbers within one decade. */
export function logTicks(low, high, most) {
  if (!(low > 0 && high > low)) return [];
  const [a, b] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
  const decades = b - a + 1;
  if (decades < 2) {
    const found = [1, 2, 5, 10, 20, 50].map((m) => m * 10 ** (a - 1)).filter((x) => x >= low && x <= high);
    return found.length > 1 ? found : linearTicks(low, high, most);
  }
  const every = Math.ceil(decades / Math.max(1, most));
  const ticks = [];
  for (let power = Math.ceil(a / every) * every; power <= b; power += every) ticks.push(10 ** power);
  return ticks;
}

const SECONDS = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600, 43200, 86400];

/** Round times in seconds. */
export function timeTicks(low, high, most) {
  if (high - low < most) return linearTicks(low, high, most);
  const unit = SECONDS.find((s) => (high - low) / s <= most);
  return unit ? multiples(low, high, unit) : linearTicks(low / 86400, high / 86400, most).map((x) => 86400 * x);
}

function multiples(low, high, unit) {
  const ticks = [];
  for (let i = Math.ceil(low / unit - 1e-9); i * unit <= high + 1e-9 * unit; i++) ticks.push(Number((i * unit).toPrecision(12)));
  return ticks;
}

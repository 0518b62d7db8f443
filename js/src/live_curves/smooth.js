// Smoothing: an exponential moving average that starts without bias and fades with steps, not with points.

const cache = new WeakMap(); // Series → what was computed so far

/**
 * Appends the average of points `from` to `to`. With evenly spaced points this is TensorBoard's smoothing:
 * m ← w m + (1 − w) x, divided by 1 − wⁿ. A gap of g spacings fades what was before by w^g.
 * Values that are no finite numbers are passed on and change nothing.
 * @param {Float64Array} out
 * @param {{sum: number, norm: number, step: number}} state changed in place
 */
export function smoothInto(out, steps, values, from, to, weight, spacing, state) {
  let { sum, norm, step } = state,
    gap = spacing,
    keep = weight;
  for (let i = from; i < to; i++) {
    const value = values[i];
    if (!Number.isFinite(value)) {
      out[i] = value;
      continue;
    }
    const here = norm > 0 && steps[i] > step ? steps[i] - step : spacing;
    if (here !== gap) [gap, keep] = [here, weight ** (here / spacing)];
    sum = keep * sum + (1 - keep) * value;
    norm = keep * norm + (1 - keep);
    step = steps[i];
    out[i] = sum / norm;
  }
  Object.assign(state, { sum, norm, step });
}

/**
 * The smoothed values of a series; only what has come since the last call is computed.
 * @param {import("../lib/series.js").Series} series
 * @param {number} weight 0 (as measured) to below 1
 * @returns {Float32Array|Float64Array} as long as the series
 */
export function smoothed(series, weight) {
  if (!(weight > 0) || series.n < 2) return series.values;
  const { spacing } = series;
  let known = cache.get(series);
  const same = known?.weight === weight && known.generation === series.generation && known.n <= series.n;
  if (!same || Math.abs(spacing / known.spacing - 1) > 0.01) {
    known = { weight, generation: series.generation, spacing, n: 0, out: new Float64Array(0), state: { sum: 0, norm: 0, step: 0 } };
    cache.set(series, known);
  }
  if (known.out.length < series.n) {
    const longer = new Float64Array(Math.max(2 * known.n, series.n));
    longer.set(known.out.subarray(0, known.n));
    known.out = longer;
  }
  smoothInto(known.out, series.steps, series.values, known.n, series.n, weight, known.spacing, known.state);
  known.n = series.n;
  return known.out.subarray(0, series.n);
}

// The losses again, from what they saw, with any settings: the same formulas as loss_numbers.py. No drawing here.
import { unpack } from "../lib/arrays.js";

/** A frame with its arrays opened. */
export function openFrame(packed) {
  if (!packed?.arrays) return null;
  const arrays = Object.fromEntries(Object.entries(packed.arrays).map(([name, array]) => [name, unpack(array)]));
  const facts = Object.fromEntries(Object.entries(packed.facts).map(([name, fact]) => [name, fact ?? NaN])); // JSON has no NaN
  return { ...packed, arrays, facts };
}

/** Softmax of data[start … start + n) / temperature into out; returns the logarithm of its denominator. */
export function softmax(data, start, n, temperature, out, shift = null) {
  let high = -Infinity,
    sum = 0;
  const value = (j) => (data[start + j] - (shift ? shift[j] : 0)) / temperature;
  for (let j = 0; j < n; j++) high = Math.max(high, value(j));
  for (let j = 0; j < n; j++) sum += out[j] = Math.exp(value(j) - high);
  for (let j = 0; j < n; j++) out[j] /= sum;
  return high + Math.log(sum);
}

const entropy = (p) => p.reduce((sum, x) => (x > 0 ? sum - x * Math.log(x) : sum), 0);

/** How many columns the rows use together: the exponential of the entropy of their mean. */
function spread(p, n, k) {
  const mean = new Float64Array(k);
  for (let i = 0; i < n; i++) for (let j = 0; j < k; j++) mean[j] += p[i * k + j] / n;
  return Math.exp(entropy(mean));
}

/** Sinkhorn's codes (B, K) of scores: rows sum to 1, columns to about B / K. */
export function sinkhorn(scores, n, k, epsilon, iterations) {
  const log = Float64Array.from(scores, (s) => s / epsilon);
  const sums = (count, length, index) => {
    for (let i = 0; i < count; i++) {
      let high = -Infinity,
        sum = 0;
      for (let j = 0; j < length; j++) high = Math.max(high, log[index(i, j)]);
      for (let j = 0; j < length; j++) sum += Math.exp(log[index(i, j)] - high);
      for (let j = 0; j < length; j++) log[index(i, j)] -= high + Math.log(sum);
    }
  };
  for (let round = 0; round < iterations; round++) {
    sums(k, n, (column, row) => row * k + column);
    sums(n, k, (row, column) => row * k + column);
  }
  sums(n, k, (row, column) => row * k + column);
  return log.map(Math.exp);
}

/** What each knot t > 0 adds to the statistic of Epps and Pulley of each line: `part` (S, T), and the `knots`. */
export function shadowParts({ data, shape: [V, B, S] }, { num_knots, t_max }) {
  const T = Math.floor(num_knots / 2),
    gap = (2 * t_max) / (num_knots - 1),
    knots = Array.from({ length: T }, (_, k) => gap * (k + 1)),
    part = new Float64Array(S * T);
  for (let v = 0; v < V; v++)
    for (let s = 0; s < S; s++)
      for (let k = 0; k < T; k++) {
        let cos = 0,
          sin = 0;
        for (let b = 0; b < B; b++) {
          const angle = knots[k] * data[(v * B + b) * S + s];
          cos += Math.cos(angle) / B;
          sin += Math.sin(angle) / B;
        }
        const phi = Math.exp(-(knots[k] ** 2) / 2),
          weight = (k === T - 1 ? 1 : 2) * gap * phi;
        part[s * T + k] += (B * weight * ((cos - phi) ** 2 + sin ** 2)) / V;
      }
  return { part, knots };
}

const COUNT = {
  contrast({ arrays: { similarity, positive }, facts }, { temperature }) {
    const [n, m] = similarity.shape,
      s = similarity.data,
      p = new Float64Array(n * m),
      row = new Float64Array(m),
      byRank = [];
    let loss = 0,
      hardest = 0,
      found = 0,
      right = 0,
      rights = 0,
      wrong = 0,
      wrongs = 0;
    for (let i = 0; i < n; i++) {
      const denominator = softmax(s, i * m, m, temperature, row);
      p.set(row, i * m);
      let own = 0,
        count = 0,
        best = 0,
        push = 0;
      const others = [];
      for (let j = 0; j < m; j++) {
        const at = i * m + j;
        if (!Number.isFinite(s[at])) continue;
        if (s[at] > s[i * m + best] || !Number.isFinite(s[i * m + best])) best = j;
        if (positive.data[at]) {
          own += s[at] / temperature - denominator;
          count++;
          right += s[at];
        } else {
          others.push(j);
          push += row[j];
          wrong += s[at];
        }
      }
      rights += count;
      wrongs += others.length;
      loss -= own / Math.max(count, 1);
      found += positive.data[i * m + best] ? 1 : 0;
      others.sort((a, b) => s[i * m + b] - s[i * m + a]);
      const tenth = Math.ceil(0.1 * others.length - 1e-9);
      for (let j = 0; j < tenth; j++) hardest += row[others[j]] / Math.max(push, 1e-300);
      others.forEach((j, rank) => {
        const bin = Math.min(9, Math.floor((10 * rank) / others.length));
        byRank[bin] = (byRank[bin] ?? 0) + row[j] / Math.max(push, 1e-300) / n;
      });
    }
    if (facts.times_temperature) loss *= temperature;
    const numbers = { loss: loss / n, hardest: hardest / n, accuracy: found / n, right: right / rights, wrong: wrong / wrongs };
    return { numbers, p, byRank };
  },

  correlation({ facts: { on, off, size } }, { lambda_ }) {
    const beside = Math.sqrt(off / Math.max(size * (size - 1), 1));
    return { numbers: { loss: on + lambda_ * off, on, off: lambda_ * off, beside } };
  },

  moments({ facts }, { lambda_, mu, nu }) {
    const parts = { invariance: lambda_ * facts.invariance, variance: mu * facts.variance, covariance: nu * facts.covariance };
    const loss = parts.invariance + parts.variance + parts.covariance;
    return { numbers: { loss, ...parts, std: facts.std, below: facts.below } };
  },

  gaussian(frame, { lambda_ }) {
    const { prediction, statistic, worst, std } = frame.facts,
      parts = { prediction: (1 - lambda_) * prediction, sigreg: lambda_ * statistic };
    frame.shadowParts ??= shadowParts(frame.arrays.shadows, frame.facts); // λ does not change them
    return { numbers: { loss: parts.prediction + parts.sigreg, ...parts, statistic, worst, std }, ...frame.shadowParts };
  },

  assignment({ arrays: { scores, sources } }, { temperature, epsilon, iterations }) {
    const [V, n, k] = scores.shape,
      view = (v) => scores.data.subarray(v * n * k, (v + 1) * n * k);
    const codes = [...sources.data].map((v) => sinkhorn(view(v), n, k, epsilon, iterations));
    const p = new Float64Array(V * n * k),
      row = new Float64Array(k),
      logs = new Float64Array(V * n);
    for (let i = 0; i < V * n; i++) {
      logs[i] = softmax(scores.data, i * k, k, temperature, row);
      p.set(row, i * k);
    }
    const terms = [];
    [...sources.data].forEach((source, c) => {
      for (let v = 0; v < V; v++) {
        if (v === source) continue;
        let sum = 0;
        for (let i = 0; i < n; i++)
          for (let j = 0; j < k; j++)
            sum -= codes[c][i * k + j] * (scores.data[(v * n + i) * k + j] / temperature - logs[v * n + i]);
        terms.push(sum / n);
      }
    });
    const usage = new Float64Array(k);
    let mean = 0;
    for (let i = 0; i < n; i++) {
      mean += entropy(codes[0].subarray(i * k, (i + 1) * k)) / n;
      for (let j = 0; j < k; j++) usage[j] += codes[0][i * k + j] / n;
    }
    const loss = terms.reduce((a, b) => a + b, 0) / terms.length;
    const numbers = { loss, entropy: mean, used: spread(codes[0], n, k), uneven: Math.max(...usage) * k };
    return { numbers, codes, p, usage };
  },

  distillation({ arrays: { student, teacher, center } }, { temperature, teacher_temperature, centred }) {
    const [V, n, k] = student.shape,
      T = teacher.shape[0],
      p = new Float64Array(T * n * k),
      q = new Float64Array(V * n * k),
      logs = new Float64Array(V * n),
      row = new Float64Array(k);
    for (let i = 0; i < T * n; i++) {
      softmax(teacher.data, i * k, k, teacher_temperature, row, centred ? center.data : null);
      p.set(row, i * k);
    }
    for (let i = 0; i < V * n; i++) {
      logs[i] = softmax(student.data, i * k, k, temperature, row);
      q.set(row, i * k);
    }
    let loss = 0,
      mean = 0;
    for (let i = 0; i < T * n; i++) mean += entropy(p.subarray(i * k, (i + 1) * k)) / (T * n);
    for (let t = 0; t < T; t++)
      for (let v = 0; v < V; v++) {
        if (v === t) continue;
        for (let i = 0; i < n; i++)
          for (let j = 0; j < k; j++)
            loss -= p[(t * n + i) * k + j] * (student.data[(v * n + i) * k + j] / temperature - logs[v * n + i]);
      }
    loss /= n * (T * V - Math.min(T, V));
    return { numbers: { loss, entropy: mean, kl: loss - mean, used: spread(p, T * n, k) }, p, q };
  },

  cosine({ arrays: { prediction, target }, facts }, { collapse }) {
    const [P, n, e] = prediction.shape;
    const unit = (data) => {
      const out = Float64Array.from(data);
      for (let i = 0; i < out.length; i += e) {
        let square = 0;
        for (let j = 0; j < e; j++) square += out[i + j] ** 2;
        const length = Math.max(Math.sqrt(square), 1e-12);
        for (let j = 0; j < e; j++) out[i + j] /= length;
      }
      return out;
    };
    let [a, b] = [unit(prediction.data), unit(target.data)];
    let one = new Float64Array(e);
    for (let i = 0; i < b.length; i++) one[i % e] += b[i];
    one = unit(one);
    const pull = (z) => unit(z.map((x, i) => (1 - collapse) * x + collapse * one[i % e]));
    [a, b] = [pull(a), pull(b)];
    const similarity = new Float32Array(n * n); // of the first direction
    let own = 0,
      other = 0;
    for (let p = 0; p < P; p++)
      for (let i = 0; i < n; i++)
        for (let j = 0; j < n; j++) {
          let dot = 0;
          for (let c = 0; c < e; c++) dot += a[(p * n + i) * e + c] * b[(p * n + j) * e + c];
          if (p === 0) similarity[i * n + j] = dot;
          if (i === j) own += dot / (P * n);
          else other += dot / Math.max(P * n * (n - 1), 1);
        }
    const std = new Float64Array(e);
    for (let c = 0; c < e; c++) {
      let sum = 0,
        square = 0;
      for (let i = 0; i < P * n; i++) sum += b[i * e + c] / (P * n);
      for (let i = 0; i < P * n; i++) square += (b[i * e + c] - sum) ** 2 / (P * n);
      std[c] = Math.sqrt(square);
    }
    const healthy = (std.reduce((x, y) => x + y, 0) / e) * Math.sqrt(e);
    return { numbers: { loss: facts.shift - facts.factor * own, own, other, std: healthy }, similarity };
  },
};

/**
 * What a frame says at these settings.
 * @returns {{numbers: Record<string, number>} & object} `numbers.loss` without the frame's scale, and the matrices of its kind
 */
export const compute = (frame, settings) => COUNT[frame.kind](frame, { ...frame.settings, ...settings });

/** Which settings each kind has. */
export const SETTINGS = {
  contrast: ["temperature"],
  correlation: ["lambda_"],
  moments: ["lambda_", "mu", "nu"],
  gaussian: ["lambda_"],
  assignment: ["temperature", "epsilon", "iterations"],
  distillation: ["temperature", "teacher_temperature", "centred"],
  cosine: ["collapse"],
};

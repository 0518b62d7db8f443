// Which two matrices each kind of loss is drawn as, and in which order their rows and columns stand.

import { formatPlain } from "../lib/format.js";

const MOST_COLUMNS = 128;
const BINS = 40; // of a shadow, from −4 to 4

/** Positions sorted by class (and by image within a class), or as they are. */
export function orderOf(images, classes, byClass) {
  const order = Array.from(images, (_, i) => i);
  if (!byClass || !classes.length) return order;
  const rank = (i) => (images[i] < 0 ? Infinity : classes[images[i]]);
  return order.sort((a, b) => rank(a) - rank(b) || images[a] - images[b] || a - b);
}

const same = (n) => Array.from({ length: n }, (_, i) => i);

/**
 * @typedef {{title: string, rows: number, columns: number, data: ArrayLike<number>, low: number, high: number, map: string,
 *   rowOrder: number[], columnOrder: number[], rowImages: number[]|null, columnImages: number[]|null, diagonal?: boolean,
 *   marks: ((i: number, j: number) => boolean)|null, rowName: string, columnName: string,
 *   unit: string, percent?: boolean, place?: (i: number, j: number) => string, firstColumn?: number}} Picture
 *   `place` says where a cell is, if not between two images; `firstColumn` tells the columns of two
 *   different pictures apart; a `low` above 0 means logarithmic colours
 * @returns {Picture[]} two
 */
export function pictures(frame, found, settings, { byClass, classes, gradient }) {
  return MAKE[frame.kind](frame, found, settings, { byClass, classes, gradient });
}

const highest = (data) => {
  let most = 0;
  for (const x of data) if (Number.isFinite(x)) most = Math.max(most, Math.abs(x));
  return most || 1;
};

/** Colours for numbers of very different size: four decades below the largest. */
const decades = (data) => ({ high: highest(data), low: highest(data) / 1e4 });

const coordinates = (i, j) => (i === j ? `coordinate ${i}` : `coordinates ${i} and ${j}`);

/** How dense the shadows of all views (V, B, S) are on each line, (S, BINS); what is beyond 4 is in the last bin. */
export function shadowDensity({ data, shape: [V, B, S] }) {
  const out = new Float32Array(S * BINS);
  data.forEach((x, at) => {
    const bin = Math.min(Math.max(Math.floor(((x + 4) / 8) * BINS), 0), BINS - 1);
    out[(at % S) * BINS + bin] += BINS / 8 / (V * B);
  });
  return out;
}

const MAKE = {
  contrast(frame, { p }, { temperature }, { byClass, classes, gradient }) {
    const { similarity, positive, rows, columns } = frame.arrays,
      [n, m] = similarity.shape,
      queue = frame.facts.queue > 0;
    const rowOrder = orderOf(rows.data, classes, byClass);
    const pull = gradient ? p.map((x, at) => slope(x, at, positive.data, m, temperature)) : p;
    let sets = [similarity.data, pull],
      width = m,
      columnOrder,
      columnImages = columns.data;
    if (queue) {
      width = Math.min(m, MOST_COLUMNS);
      sets = hardestFirst(similarity.data, sets, n, m, width);
      columnOrder = same(width);
      columnImages = null;
    } else columnOrder = orderOf(columns.data, classes, byClass);
    const marks = queue ? (i, j) => j === 0 : (i, j) => positive.data[i * m + j] > 0;
    const shared = {
      rows: n, columns: width, rowOrder, columnOrder, rowImages: rows.data, columnImages, marks,
      rowName: "row", columnName: queue ? "own key, then wrong answers by similarity" : "compared with",
    };
    const most = highest(sets[1]);
    return [
      { ...shared, title: "Similarity (cosine)", data: sets[0], low: -1, high: 1, map: "signed", unit: "cosine" },
      gradient
        ? { ...shared, title: "Pull and push of the gradient", data: sets[1], low: -most, high: most, map: "signed", unit: "gradient" }
        : { ...shared, title: "Softmax: who is the partner?", data: sets[1], low: 0, high: most, map: "viridis", unit: "softmax", percent: true },
    ];
  },

  correlation({ arrays: { correlation } }, _, { lambda_ }) {
    const n = correlation.shape[0],
      C = correlation.data;
    const part = C.map((x, at) => (at % (n + 1) === 0 ? (x - 1) ** 2 : lambda_ * x * x));
    const shared = {
      rows: n, columns: n, rowOrder: same(n), columnOrder: same(n), rowImages: null, columnImages: null, marks: null,
      rowName: "coordinate, view 1", columnName: "coordinate, view 2", place: coordinates,
    };
    return [
      { ...shared, title: "Cross-correlation", data: C, low: -1, high: 1, map: "signed", unit: "correlation" },
      { ...shared, title: "Each entry's part of the loss", data: part, ...decades(part), map: "viridis", unit: "part of the loss" },
    ];
  },

  moments({ arrays: { covariance, std, distance }, facts: { size } }, _, { lambda_, mu, nu }) {
    const n = covariance.shape[1],
      C = covariance.data.subarray(0, n * n),
      other = covariance.data.subarray(n * n);
    const missing = (j) => (Math.max(0, 1 - std.data[j]) + Math.max(0, 1 - std.data[n + j])) / 2;
    const part = C.map((x, at) => {
      const j = at % n;
      return (at % (n + 1) === 0 ? lambda_ * distance.data[j] + mu * missing(j) : nu * (x * x + other[at] * other[at])) / size;
    });
    const shared = {
      rows: n, columns: n, rowOrder: same(n), columnOrder: same(n), rowImages: null, columnImages: null, marks: null,
      rowName: "coordinate", columnName: "coordinate", place: coordinates,
    };
    return [
      { ...shared, title: "Covariance, view 1", data: C, low: -1, high: 1, map: "signed", unit: "covariance" },
      { ...shared, title: "Each entry's part of the loss", data: part, ...decades(part), map: "viridis", unit: "part of the loss" },
    ];
  },

  gaussian({ arrays: { shadows } }, { part, knots }) {
    const n = shadows.shape[2],
      density = shadowDensity(shadows);
    const shared = {
      rows: n, rowOrder: same(n), rowImages: null, columnImages: null, marks: null,
      rowName: "line, the least normal first", low: 0, map: "viridis",
    };
    const from = (j) => formatPlain((8 * j) / BINS - 4);
    return [
      {
        ...shared, title: "Shadows of all embeddings", columns: BINS, columnOrder: same(BINS), data: density, high: highest(density),
        columnName: "value, −4 to 4", unit: "density", place: (i, j) => `line ${i}, values ${from(j)} to ${from(j + 1)}`,
      },
      {
        ...shared, title: "Each frequency's part of the statistic", columns: knots.length, columnOrder: same(knots.length), firstColumn: BINS,
        data: part, high: highest(part), columnName: `t, ${formatPlain(knots[0])} to ${formatPlain(knots[knots.length - 1])}`,
        unit: "part of the statistic", place: (i, j) => `line ${i}, t = ${formatPlain(knots[j - BINS])}`,
      },
    ];
  },

  assignment({ arrays: { scores, sources } }, { codes, p }, _, { byClass, classes }) {
    const [V, n, k] = scores.shape,
      source = sources.data[0],
      other = source === 0 ? Math.min(1, V - 1) : 0;
    const shared = {
      rows: n, columns: k, rowOrder: orderOf(same(n), classes, byClass), columnOrder: same(k), rowImages: same(n), columnImages: null,
      marks: null, rowName: "image", columnName: "prototype", percent: true, low: 0, map: "viridis",
    };
    const predicted = p.subarray(other * n * k, (other + 1) * n * k);
    return [
      { ...shared, title: `View ${other + 1} predicts`, unit: "predicted", data: predicted, high: highest(predicted) },
      { ...shared, title: `Codes of view ${source + 1} (Sinkhorn)`, unit: "code", data: codes[0], high: highest(codes[0]) },
    ];
  },

  distillation({ arrays: { student } }, { p, q }, _, { byClass, classes }) {
    const [V, n, k] = student.shape,
      width = Math.min(k, MOST_COLUMNS);
    const mean = new Float64Array(k);
    for (let i = 0; i < n; i++) for (let j = 0; j < k; j++) mean[j] += p[i * k + j];
    const columns = same(k)
      .sort((a, b) => mean[b] - mean[a])
      .slice(0, width);
    const pick = (data) => Float32Array.from({ length: n * width }, (_, at) => data[Math.floor(at / width) * k + columns[at % width]]);
    const shared = {
      rows: n, columns: width, rowOrder: orderOf(same(n), classes, byClass), columnOrder: same(width), rowImages: same(n), columnImages: null,
      marks: null, rowName: "image", columnName: "output, the teacher's favourites first", percent: true, low: 0, map: "viridis",
    };
    const [said, heard] = [pick(p), pick(V > 1 ? q.subarray(n * k, 2 * n * k) : q)];
    const high = Math.max(highest(said), highest(heard));
    return [
      { ...shared, title: "Teacher, view 1", unit: "teacher", data: said, high },
      { ...shared, title: "Student, view 2", unit: "student", data: heard, high },
    ];
  },

  cosine(frame, { similarity }, settings, { byClass, classes }) {
    const n = frame.arrays.prediction.shape[1];
    const order = orderOf(same(n), classes, byClass);
    const shared = {
      rows: n, columns: n, rowOrder: order, columnOrder: order, rowImages: same(n), columnImages: same(n), marks: (i, j) => i === j,
      rowName: "prediction", columnName: "target", low: -1, high: 1, map: "signed", unit: "cosine",
    };
    frame.untouched ??= settings.collapse === 0 ? similarity : frame.plain().similarity;
    return [
      { ...shared, title: "Prediction with target", data: frame.untouched },
      { ...shared, title: "Pulled to one point", unit: "pulled", data: similarity },
    ];
  },
};

function slope(x, at, positive, m, temperature) {
  const row = Math.floor(at / m) * m;
  let count = 0;
  if (positive[at]) for (let j = row; j < row + m; j++) count += positive[j];
  return (x - (positive[at] ? 1 / count : 0)) / temperature;
}

/** The own key first, then the wrong answers of each row, the most similar first. */
function hardestFirst(similarity, sets, n, m, width) {
  const out = sets.map(() => new Float32Array(n * width));
  for (let i = 0; i < n; i++) {
    const others = Array.from({ length: m - 1 }, (_, j) => j + 1);
    others.sort((a, b) => similarity[i * m + b] - similarity[i * m + a]);
    [0, ...others.slice(0, width - 1)].forEach((j, at) => sets.forEach((set, s) => (out[s][i * width + at] = set[i * m + j])));
  }
  return out;
}

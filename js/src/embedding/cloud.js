// The numbers behind the picture: points of every moment, neighbours, labels; nothing of this touches the page.
import { row, unpack } from "../lib/arrays.js";

/**
 * @param {(trait: string) => any} get reads a trait of the model
 * @returns {object} n points, `moments` pictures of them, k neighbours, and what is known of each point
 */
export function readCloud(get) {
  const points = unpack(get("points")),
    nearest = unpack(get("nearest")),
    labels = unpack(get("labels")),
    rows = unpack(get("rows")),
    columns = get("columns") ?? {},
    table = unpack(columns.data);
  const sprite = unpack(get("sprite"));
  const n = points ? points.shape[1] : (rows?.shape[0] ?? 0);
  return {
    n,
    moments: points ? points.shape[0] : 0,
    points: points?.data ?? new Float32Array(0),
    k: nearest && nearest.data.length ? nearest.shape[2] : 0,
    nearest: nearest?.data ?? new Int32Array(0),
    frames: get("frames") ?? [],
    labels: labels?.data ?? null,
    classes: get("classes") ?? [],
    rows: rows?.data ?? null,
    columns: (columns.names ?? []).map((name, i) => ({ name, data: row(table, i).data })),
    sprite: get("sprite"),
    image: sprite ? (i) => row(sprite, i) : null,
    medians: [],
    agreements: [],
  };
}

/** Where the points are at a moment between two pictures, 0 … moments − 1: x and y in turn, written into `out`. */
export function pointsAt(cloud, time, out) {
  const { n, points, moments } = cloud,
    from = Math.max(0, Math.min(Math.floor(time), moments - 1)),
    to = Math.min(from + 1, moments - 1),
    share = Math.max(0, Math.min(1, time - from)),
    a = 2 * n * from,
    b = 2 * n * to;
  if (!share) out.set(points.subarray(a, a + 2 * n));
  else for (let i = 0; i < 2 * n; i++) out[i] = points[a + i] + share * (points[b + i] - points[a + i]);
  return out;
}

/** The box around points, [left, low, right, high]; never empty. */
export function extent(points) {
  let [left, low, right, high] = [Infinity, Infinity, -Infinity, -Infinity];
  for (let i = 0; i < points.length; i += 2) {
    const x = points[i],
      y = points[i + 1];
    if (x < left) left = x;
    if (x > right) right = x;
    if (y < low) low = y;
    if (y > high) high = y;
  }
  if (!(right >= left)) return [-1, -1, 1, 1];
  if (right - left < 1e-9 && high - low < 1e-9) return [left - 1e-3, low - 1e-3, right + 1e-3, high + 1e-3];
  return [left, low, right, high];
}

/** The neighbours of a point at a moment, nearest first. */
export function neighboursOf(cloud, moment, i) {
  const start = (moment * cloud.n + i) * cloud.k;
  return cloud.nearest.subarray(start, start + cloud.k);
}

/** Whether two points have the same label; without labels all do, a missing one is like no other. */
export const agree = ({ labels }, i, j) => !labels || (labels[i] >= 0 && labels[i] === labels[j]);

/** Share of each point's neighbours that have its label, at a moment: NaN for a point without one; null where that is not known. */
export function agreementAt(cloud, moment) {
  const { n, k, labels, agreements } = cloud;
  if (!k || !labels || !cloud.moments) return null;
  if (!agreements[moment]) {
    const found = new Float32Array(n);
    for (let i = 0, at = moment * n * k; i < n; i++) {
      let same = 0;
      for (let j = 0; j < k; j++, at++) same += agree(cloud, i, cloud.nearest[at]);
      found[i] = labels[i] >= 0 ? same / k : NaN;
    }
    agreements[moment] = found;
  }
  return agreements[moment];
}

const middle = (numbers) => numbers.sort()[numbers.length >> 1];

/** The middle of each class at a moment between two pictures: [x, y] or null for a class without points. */
export function middles(cloud, time) {
  const at = (moment) =>
    (cloud.medians[moment] ??= cloud.classes.map((_, c) => {
      const members = [];
      for (let i = 0; i < cloud.n; i++) if (cloud.labels[i] === c) members.push(2 * (moment * cloud.n + i));
      if (!members.length) return null;
      return [0, 1].map((axis) => middle(Float32Array.from(members, (m) => cloud.points[m + axis])));
    }));
  if (!cloud.labels || !cloud.moments) return [];
  const from = Math.max(0, Math.min(Math.floor(time), cloud.moments - 1)),
    a = at(from),
    b = at(Math.min(from + 1, cloud.moments - 1)),
    share = time - from;
  return a.map((p, c) => p && [p[0] + share * (b[c][0] - p[0]), p[1] + share * (b[c][1] - p[1])]);
}

/** A fixed order in which no class always lies on top. */
export function shuffled(n) {
  const order = Uint32Array.from({ length: n }, (_, i) => i);
  let seed = 0x9e3779b9;
  for (let i = n - 1; i > 0; i--) {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    const j = seed % (i + 1),
      kept = order[i];
    order[i] = order[j];
    order[j] = kept;
  }
  return order;
}

/** How many points each class has, and how many have no label: [counts, unknown]. */
export function classCounts(cloud, members = null) {
  const counts = new Array(cloud.classes.length).fill(0);
  let unknown = 0;
  const count = (i) => (cloud.labels[i] >= 0 ? counts[cloud.labels[i]]++ : unknown++);
  if (cloud.labels) {
    if (members) members.forEach(count);
    else for (let i = 0; i < cloud.n; i++) count(i);
  }
  return [counts, unknown];
}

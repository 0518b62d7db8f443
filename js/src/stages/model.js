// What Python sent, as plain values: shapes for a size, maps of a stage, the box that a position sees. No page needed.
import { row, unpack } from "../lib/arrays.js";

/**
 * Undoes `pack_sizes` of stages.py.
 * @returns {{stages: object[], sizes: number[], at: (size: number) => {shapes: number[][]|null, error: string},
 *   shares: (size: number) => {size: number, shares: number[]}, largest: number[]}}
 */
export function unpackStages(network) {
  const dims = unpack(network.dims).data,
    count = network.names.length;
  const stages = network.names.map((name, i) => ({
    name,
    kind: network.kinds[i],
    layout: network.layouts[i],
    extra: network.extra[i],
    parameters: network.parameters[i],
    field: unpackField(network.fields[i]),
  }));
  const at = (size) => {
    const i = network.sizes.indexOf(size);
    if (i < 0) return { shapes: null, error: "" };
    const error = network.errors[network.error[i]];
    if (error) return { shapes: null, error };
    const start = 3 * i * count;
    return { shapes: stages.map((_, j) => [...dims.subarray(start + 3 * j, start + 3 * j + 3)]), error: "" };
  };
  const shares = (size) => {
    const nearest = network.measured.reduce((best, n) => (Math.abs(n - size) < Math.abs(best - size) ? n : best));
    const macs = network.macs[network.measured.indexOf(nearest)];
    const total = macs.reduce((sum, n) => sum + n, 0);
    return { size: nearest, total, shares: macs.map((n) => (total ? n / total : 0)) };
  };
  let [channels, side] = [1, 1];
  for (let i = 0; i < dims.length; i += 3) {
    channels = Math.max(channels, dims[i]);
    side = Math.max(side, dims[i + 1], dims[i + 2]);
  }
  return { stages, sizes: network.sizes, at, shares, largest: [channels, side] };
}

/** Undoes `pack_field`: `at(row, column)` is {top, bottom, left, right} in px of the image. */
export function unpackField(packed) {
  const [down, across, boxes] = [unpack(packed.down), unpack(packed.across), unpack(packed.boxes)];
  const columns = packed.grid[1];
  const at = (r, c) => {
    const four = boxes
      ? boxes.data.subarray(4 * (r * columns + c), 4 * (r * columns + c) + 4)
      : [...row(down, r).data, ...row(across, c).data];
    const [top, bottom, left, right] = four;
    return { top, bottom, left, right };
  };
  return { ...packed, at };
}

/** How far the image is from one position of a map to the next, down: 4 for 64 px and 16 rows. */
export function strideOf(image, rows) {
  const stride = image / rows;
  return Number.isInteger(stride) ? `${stride}` : `≈ ${Number(stride.toPrecision(2))}`;
}

/** "99 × 99", "whole image", "varies" for the table. */
export function fieldWord(field, stage) {
  if (field.size) return field.size.join(" × ");
  return field.whole ? "whole image" : stage?.layout === "vector" ? "whole map" : "varies";
}

/** What the box of a position means, in a sentence or two. */
export function fieldSentences(field, [r, c], [height, width]) {
  const box = field.at(r, c),
    seen = [box.bottom - box.top, box.right - box.left];
  const [rows, columns] = field.grid;
  const where = rows * columns > 1 ? `Row ${r}, column ${c} of ${rows} × ${columns}` : "The vector";
  if (!seen[0] || !seen[1]) return [`${where} sees nothing of the image.`];
  const everything = seen[0] === height && seen[1] === width;
  const what = everything ? "the whole image" : `rows ${box.top} to ${box.bottom - 1}, columns ${box.left} to ${box.right - 1}`;
  const said = [`${where} can see ${what}.`];
  if (field.size) {
    const cut = field.size[0] > seen[0] || field.size[1] > seen[1] ? ", cut at the border" : "";
    said.push(`Its window is ${field.size.join(" × ")} px${cut}, and moves by ${field.stride[0]} px.`);
  } else if (field.cause) said.push(`No fixed window since ${field.cause}.`);
  return said;
}

/** Undoes `pack_maps`; null for a stage that gave nothing. */
export function unpackMaps(packed) {
  if (!packed?.bytes) return null;
  const bytes = unpack(packed.bytes),
    numbers = unpack(packed.numbers).data;
  const channels = [...unpack(packed.channels).data],
    range = unpack(packed.range).data;
  const [images, kept, height, width] = bytes.shape,
    area = height * width;
  const place = new Map(channels.map((channel, k) => [channel, k]));
  const numbersOf = (channel) => {
    const [mean, std, zeros, low, high] = numbers.subarray(5 * channel, 5 * channel + 5);
    return { mean, std, zeros, low, high };
  };
  return {
    images,
    channels,
    full: packed.full,
    drawn: [height, width],
    rank: packed.rank,
    signed: packed.signed,
    numbers: numbersOf,
    dead: Array.from({ length: packed.full[0] }, (_, c) => c).filter((c) => numbers[5 * c + 2] === 1),
    has: (channel) => place.has(channel),
    /** The values of one map: {data: Float32Array, shape: [h, w]}; null if it was left out. */
    values(image, channel) {
      if (!place.has(channel) || image >= images) return null;
      const at = image * kept + place.get(channel),
        data = new Float32Array(area);
      const low = range[2 * at],
        step = (range[2 * at + 1] - low) / 255;
      for (let i = 0; i < area; i++) data[i] = low + step * bytes.data[at * area + i];
      return { data, shape: [height, width] };
    },
  };
}

export const ORDERS = {
  index: ["channel", null],
  std: ["spread", (n) => -n.std],
  mean: ["mean", (n) => -n.mean],
  zeros: ["zeros", (n) => -n.zeros],
};

/** The channels that can be drawn, in an order of ORDERS. */
export function ordered(maps, order) {
  const key = ORDERS[order]?.[1];
  if (!key) return maps.channels;
  const known = new Map(maps.channels.map((c) => [c, key(maps.numbers(c))]));
  return [...maps.channels].sort((a, b) => known.get(a) - known.get(b) || a - b);
}

/** The channel that changes most: where to begin. */
export const firstChannel = (maps) => (maps ? ordered(maps, "std")[0] : 0);

/** Ends of the colour scale for a map: its own, or one for the whole stage; signed ones have zero in the middle. */
export function scaleOf(maps, values, shared) {
  let [low, high] = [Infinity, -Infinity];
  const ends = shared ? maps.channels.map(maps.numbers).flatMap((numbers) => [numbers.low, numbers.high]) : values.data;
  for (const value of ends) if (Number.isFinite(value)) [low, high] = [Math.min(low, value), Math.max(high, value)];
  if (low > high) [low, high] = [0, 0]; // no number at all
  if (maps.signed) {
    const end = Math.max(Math.abs(low), Math.abs(high), 1e-12);
    return { low: -end, high: end, map: "signed" };
  }
  return { low: Math.min(0, low), high: high > 0 ? high : 1, map: "viridis" };
}

/** How many of the finite values lie in each of `bins` equal steps from `low` to `high`. */
export function histogram({ data }, low, high, bins = 32) {
  const counts = new Array(bins).fill(0);
  const scale = high > low ? bins / (high - low) : 0;
  for (const value of data) if (Number.isFinite(value)) counts[Math.max(0, Math.min(bins - 1, Math.floor((value - low) * scale)))]++;
  return counts;
}

/** The smallest share of the pixels that holds `part` of the sum: 0.02 is a small blob. */
export function concentration(data, part = 0.9) {
  const sorted = Array.from(data).sort((a, b) => b - a);
  const total = sorted.reduce((sum, n) => sum + n, 0);
  if (!total) return null;
  let sum = 0,
    count = 0;
  while (sum < part * total) sum += sorted[count++];
  return count / sorted.length;
}

/**
 * The boxes of all stages, in px of a picture: height and width back as the map, length as the root of the channels.
 * @param {number[][]} shapes [channels, rows, columns] of each stage
 * @param {number[]} largest most channels and longest side that any size has
 * @param {number} column room for one stage, px
 * @returns {{boxes: object[], width: number, height: number}} `height` of the tallest
 */
export function boxesOf(shapes, [channels, side], column) {
  const tall = 200 / side,
    long = 0.42 * column / Math.sqrt(channels);
  const found = [];
  let x = 4;
  for (const [c, rows, columns] of shapes) {
    const length = Math.max(2, long * Math.sqrt(c)),
      height = Math.max(3, tall * rows),
      back = 0.36 * Math.max(3, tall * columns);
    const room = Math.max(column, length + back + 10);
    found.push({ x, length, height, back, rows, columns, room });
    x += room;
  }
  return { boxes: found, width: x, height: Math.max(...found.map(({ height, back }) => height + back)) };
}

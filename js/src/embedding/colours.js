// What each point's colour and shape say: its class, the agreement of its neighbours, or a number of the user's.
import { colourMap } from "../lib/pixels.js";
import { s } from "../lib/dom.js";
import { agreementAt } from "./cloud.js";
import { SHAPES } from "./raster.js";

export const HUES = 6; // colours of classes; then they begin again with the next shape
const STEPS = 64; // colours of a scale

/** Colour and shape of a class: the first six are circles, the next six diamonds … */
export const classLook = (c) => ({ hue: c < 0 ? -1 : c % HUES, shape: c < 0 ? 0 : Math.floor(c / HUES) % SHAPES.length });

/** Part of viridis that stands out from the ground. */
const stretch = (dark) => (dark ? [0.18, 1] : [0, 0.9]);

/** The [r, g, b] of a share 0…1 on the scale. */
export function scaleColour(share, dark) {
  const [a, b] = stretch(dark),
    i = Math.round(255 * (a + (b - a) * Math.max(0, Math.min(1, share))));
  return [...colourMap("viridis").subarray(3 * i, 3 * i + 3)];
}

/** Low and high end of a column, without what is not finite. */
export function range(data) {
  let [low, high] = [Infinity, -Infinity];
  for (const v of data) if (Number.isFinite(v)) [low, high] = [v < low ? v : low, v > high ? v : high];
  return low <= high ? [low, high] : [0, 1];
}

/**
 * @param {object} cloud
 * @param {string} name "label", "agreement" or a column
 * @returns {{kind: "class"|"scale"|"plain", name: string, data?: Float32Array, low?: number, high?: number}}
 */
export function colouring(cloud, name, moment) {
  if (name === "agreement") {
    const data = agreementAt(cloud, moment);
    if (data) return { kind: "scale", name: "neighbour agreement", data, low: 0, high: 1 };
  }
  const column = cloud.columns.find((c) => c.name === name && name !== "label" && name !== "agreement");
  if (column) {
    const [low, high] = range(column.data);
    return { kind: "scale", name, data: column.data, low, high };
  }
  return cloud.labels ? { kind: "class", name: "label" } : { kind: "plain", name: "label" };
}

/** For each point a place in a table of colours (r, g, b in turn), and its shape. */
export function paint(cloud, scheme, theme) {
  const { n, labels } = cloud,
    place = new Uint8Array(n),
    shape = new Uint8Array(n),
    hues = theme.series,
    table = [theme.grey, ...hues];
  for (let i = 0; i < STEPS; i++) table.push(scaleColour(i / (STEPS - 1), theme.dark));
  const first = 1 + hues.length;
  for (let i = 0; labels && i < n; i++) {
    const look = classLook(labels[i]);
    place[i] = 1 + look.hue;
    shape[i] = look.shape;
  }
  if (scheme.kind === "class") return { place, shape, table: Uint8Array.from(table.flat()) };
  if (scheme.kind === "plain") place.fill(1);
  else {
    const scale = scheme.high > scheme.low ? (STEPS - 1) / (scheme.high - scheme.low) : 0;
    for (let i = 0; i < n; i++) {
      const v = scheme.data[i];
      place[i] = Number.isFinite(v) ? first + Math.round((v - scheme.low) * scale) : 0;
    }
  }
  return { place, shape, table: Uint8Array.from(table.flat()) };
}

const PATHS = [
  "M6 1.6a4.4 4.4 0 1 0 0 8.8a4.4 4.4 0 1 0 0-8.8Z",
  "M6 .6 11.4 6 6 11.4.6 6Z",
  "M6 .9 11.3 10H.7Z",
  "M2 2h8v8H2Z",
  "M4.3 1h3.4v3.3H11v3.4H7.7V11H4.3V7.7H1V4.3h3.3Z",
];

/** The marker of a class, as in the picture. */
export function marker(c) {
  const look = classLook(c);
  return s(
    "svg",
    { viewBox: "0 0 12 12", width: 12, height: 12, "aria-hidden": "true", class: "nnb-marker", "data-hue": look.hue },
    s("path", { d: PATHS[look.shape] }),
  );
}

/** A CSS colour as [r, g, b]. */
export function rgbOf(css) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = css;
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data.subarray(0, 3)];
}

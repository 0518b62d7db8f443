// Images and maps of numbers, painted pixel by pixel on a canvas; CSS makes them large (class nnb-pixels).
import { h } from "./dom.js";

/** Colours between which a map's 256 colours lie: [red, green, blue], from its low end to its high end. */
const STOPS = {
  grey: [[0, 0, 0], [255, 255, 255]],
  // one hue after the other in even steps of lightness (viridis), for what starts at a low value
  viridis: [[68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142], [31, 158, 137], [53, 183, 121], [110, 206, 88], [181, 222, 43], [253, 231, 37]],
  // blue, white, orange: for what has a sign
  signed: [[0, 62, 112], [0, 114, 178], [120, 180, 216], [247, 247, 247], [240, 170, 110], [213, 94, 0], [128, 50, 0]],
};
const maps = new Map();

/** @returns {Uint8ClampedArray} 256 colours in a row, three bytes each */
export function colourMap(name) {
  if (!maps.has(name)) {
    const stops = STOPS[name],
      colours = new Uint8ClampedArray(768);
    for (let i = 0; i < 256; i++) {
      const at = (i / 255) * (stops.length - 1),
        from = Math.min(Math.floor(at), stops.length - 2);
      for (let c = 0; c < 3; c++) colours[3 * i + c] = stops[from][c] + (at - from) * (stops[from + 1][c] - stops[from][c]);
    }
    maps.set(name, colours);
  }
  return maps.get(name);
}

/** A canvas whose pixels stay sharp when it is drawn large; `label` is what a screen reader says. */
export function pixelCanvas(label, props = {}) {
  return h("canvas", { class: "nnb-pixels", role: "img", "aria-label": label, width: 1, height: 1, ...props });
}

function put(canvas, width, height, fill) {
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  if (!width || !height) return;
  const context = canvas.getContext("2d"),
    image = context.createImageData(width, height);
  fill(image.data);
  context.putImageData(image, 0, 0);
}

/** Paints one image, bytes (H, W, 1 or 3). */
export function paintImage(canvas, { data, shape: [height, width, channels = 1] }) {
  put(canvas, width, height, (out) => {
    for (let i = 0, j = 0; i < out.length; i += 4, j += channels) {
      out[i] = data[j];
      out[i + 1] = data[channels > 1 ? j + 1 : j];
      out[i + 2] = data[channels > 1 ? j + 2 : j];
      out[i + 3] = 255;
    }
  });
}

/** Paints a map of numbers (H, W): `low` and `high` get the ends of the colour map; what is not finite stays clear. */
export function paintMap(canvas, { data, shape: [height, width] }, { low = 0, high = 1, map = "viridis", alpha = 255 } = {}) {
  const colours = colourMap(map),
    scale = high > low ? 255 / (high - low) : 0;
  put(canvas, width, height, (out) => {
    for (let i = 0; i < data.length; i++) {
      if (!Number.isFinite(data[i])) continue;
      const at = 3 * Math.max(0, Math.min(255, Math.round((data[i] - low) * scale)));
      out.set(colours.subarray(at, at + 3), 4 * i);
      out[4 * i + 3] = alpha;
    }
  });
}

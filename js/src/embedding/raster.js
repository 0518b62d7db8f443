// Points drawn pixel by pixel into an image. Without a GPU that is ten times as fast as WebGL or as arcs on a canvas, and a
// page may hold any number of pictures (browsers keep only sixteen WebGL contexts alive).

export const SHAPES = ["circle", "diamond", "triangle", "square", "cross"];
const STEPS = 4; // positions inside a pixel, along each axis

/** Distance in pixels to the border of a shape of size r, negative inside. */
function away(shape, x, y, r) {
  const [ax, ay] = [Math.abs(x), Math.abs(y)];
  if (shape === 1) return (ax + ay - 1.2 * r) * Math.SQRT1_2;
  if (shape === 2) return Math.max(y - 0.72 * r, ax * 0.866 - (y + 1.1 * r) * 0.5);
  if (shape === 3) return Math.max(ax, ay) - 0.86 * r;
  if (shape === 4) return Math.max(Math.min(ax, ay) - 0.36 * r, Math.max(ax, ay) - 1.05 * r);
  return Math.hypot(x, y) - r;
}

const clamp = (v) => (v < 0 ? 0 : v > 1 ? 1 : v);

/** Pixels of a shape at every position inside a pixel: where, how much covered, how much of that by the shape itself. */
function makeStamps(shape, r, ring, opacity, width) {
  const reach = Math.ceil(r * 1.25 + ring + 1),
    stamps = [];
  for (let sy = 0; sy < STEPS; sy++)
    for (let sx = 0; sx < STEPS; sx++) {
      const at = [],
        dx = [],
        dy = [],
        cover = [],
        own = [];
      for (let y = -reach; y <= reach; y++)
        for (let x = -reach; x <= reach; x++) {
          const d = away(shape, x + 0.5 - (sx + 0.5) / STEPS, y + 0.5 - (sy + 0.5) / STEPS, r),
            fill = Math.round(255 * opacity * clamp(0.5 - d)),
            all = Math.max(fill, ring ? Math.round(255 * 0.8 * clamp(0.5 - d + ring)) : 0);
          if (!all) continue;
          at.push(4 * (y * width + x));
          dx.push(x);
          dy.push(y);
          cover.push(all);
          own.push(fill);
        }
      stamps.push({ at: Int32Array.from(at), dx, dy, cover: Uint8Array.from(cover), own: Uint8Array.from(own) });
    }
  return { reach, stamps };
}

/** An image of width × height pixels that points are stamped into. */
export function createRaster(width, height) {
  const bytes = new Uint8ClampedArray(4 * width * height),
    words = new Uint32Array(bytes.buffer),
    known = new Map();
  let ground = [255, 255, 255];

  function stampsOf(shape, r, ring, opacity) {
    const key = `${shape} ${r.toFixed(2)} ${ring} ${opacity}`;
    if (!known.has(key)) {
      if (known.size > 64) known.clear();
      known.set(key, makeStamps(shape, r, ring, opacity, width));
    }
    return known.get(key);
  }

  return {
    width,
    height,
    bytes,
    clear(rgb) {
      ground = rgb;
      bytes.set([rgb[0], rgb[1], rgb[2], 255], 0);
      words.fill(words[0]);
    },
    /** A brush stamps at a place in pixels, in a colour [r, g, b]. */
    brush(shape, r, ring, opacity) {
      const { reach, stamps } = stampsOf(shape, r, ring, opacity),
        [gr, gg, gb] = ground;
      return (px, py, red, green, blue) => {
        const x = Math.floor(px),
          y = Math.floor(py);
        if (!(x >= -reach && y >= -reach && x < width + reach && y < height + reach)) return;
        const stamp = stamps[((py - y) * STEPS | 0) * STEPS + ((px - x) * STEPS | 0)],
          { at, cover, own } = stamp,
          start = 4 * (y * width + x),
          whole = x >= reach && y >= reach && x < width - reach && y < height - reach;
        for (let p = 0; p < at.length; p++) {
          if (!whole) {
            const [cx, cy] = [x + stamp.dx[p], y + stamp.dy[p]];
            if (cx < 0 || cy < 0 || cx >= width || cy >= height) continue;
          }
          const i = start + at[p],
            f = own[p],
            g = cover[p] - f,
            rest = 255 - cover[p];
          // × 257 / 65536 is / 255
          bytes[i] = ((bytes[i] * rest + gr * g + red * f + 128) * 257) >> 16;
          bytes[i + 1] = ((bytes[i + 1] * rest + gg * g + green * f + 128) * 257) >> 16;
          bytes[i + 2] = ((bytes[i + 2] * rest + gb * g + blue * f + 128) * 257) >> 16;
        }
      };
    },
  };
}

/** How large to draw n points on an area of so many pixels, in CSS pixels: radius, ring around each, opacity. */
export function pointStyle(n, area, zoom = 1) {
  const r = Math.max(1.5, Math.min(5, 0.27 * Math.sqrt(area / Math.max(n, 1)))) * Math.max(1, Math.min(2.4, zoom ** 0.4));
  return { r, ring: r >= 3.2 ? 0.9 : 0, opacity: n > 8000 ? 0.78 : 0.95 };
}

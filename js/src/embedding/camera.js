// From the numbers of a projection to pixels and back. Pure: a camera is {x, y, k}, the middle of the view and pixels per unit.

/** Everything of a box [left, low, right, high] in sight, with `pad` pixels around. */
export function fitBox([left, low, right, high], w, h, pad = 32) {
  const k = Math.min(
    Math.max(w - 2 * pad, 10) / Math.max(right - left, 1e-12),
    Math.max(h - 2 * pad, 10) / Math.max(high - low, 1e-12),
  );
  return { x: (left + right) / 2, y: (low + high) / 2, k };
}

export const toScreen = (camera, w, h, x, y) => [w / 2 + (x - camera.x) * camera.k, h / 2 - (y - camera.y) * camera.k];

export const toWorld = (camera, w, h, px, py) => [camera.x + (px - w / 2) / camera.k, camera.y - (py - h / 2) / camera.k];

/** What is under the pixel (px, py) stays there. */
export function zoomAt(camera, factor, px, py, w, h, least, most) {
  const k = Math.max(least, Math.min(most, camera.k * factor));
  const [x, y] = toWorld(camera, w, h, px, py);
  return { x: x - (px - w / 2) / k, y: y + (py - h / 2) / k, k };
}

export const panBy = (camera, dx, dy) => ({ x: camera.x - dx / camera.k, y: camera.y + dy / camera.k, k: camera.k });

/** Part of the way from one camera to another, zooming evenly. */
export function between(a, b, share) {
  const k = a.k * (b.k / a.k) ** share;
  // the middle moves as the scale does, so that fixed points stay fixed
  const move = Math.abs(b.k - a.k) < 1e-9 * a.k ? share : (1 / a.k - 1 / k) / (1 / a.k - 1 / b.k);
  return { x: a.x + move * (b.x - a.x), y: a.y + move * (b.y - a.y), k };
}

/** A round length (1, 2 or 5 times a power of ten) that takes at most `room` pixels. */
export function scaleBar(k, room) {
  const power = 10 ** Math.floor(Math.log10(room / k));
  const length = [5, 2, 1].map((m) => m * power).find((l) => l * k <= room) ?? power;
  return { length, pixels: length * k };
}

// What is drawn above the points: names of classes, lines to neighbours, the line of a selection, the scale.
import { formatPlain } from "../lib/format.js";
import { scaleBar, toScreen } from "./camera.js";
import { agree, middles, neighboursOf } from "./cloud.js";

/** Moves labels apart that would lie on each other; those that find no place are left out. */
export function placeLabels(labels, height = 16) {
  const placed = [];
  for (const label of labels) {
    for (const shift of [0, -1, 1, -2, 2]) {
      const y = label.y + shift * height;
      const free = placed.every((p) => Math.abs(p.y - y) >= height || Math.abs(p.x - label.x) >= (p.w + label.w) / 2 + 4);
      if (!free) continue;
      placed.push({ ...label, y });
      break;
    }
  }
  return placed;
}

function words(ctx, text, x, y, theme, weight = 600) {
  ctx.font = theme.font.replace(/^\d+px/, "12px").replace(/^/, `${weight} `);
  ctx.lineWidth = 4;
  ctx.lineJoin = "round";
  ctx.strokeStyle = theme.background;
  ctx.strokeText(text, x, y);
  ctx.fillStyle = theme.ink;
  ctx.fillText(text, x, y);
}

const short = (text) => (text.length > 22 ? `${text.slice(0, 21)}…` : text);

/**
 * @param {CanvasRenderingContext2D} ctx scaled to CSS pixels
 * @param {object} view w, h, camera, cloud, points, time, moment, theme, hover, spot, drag, named, isolated, ruler
 */
export function drawOverlay(ctx, view) {
  const { w, h, camera, cloud, points, theme, hover } = view,
    at = (i) => toScreen(camera, w, h, points[2 * i], points[2 * i + 1]);
  ctx.clearRect(0, 0, w, h);
  if (view.named) {
    ctx.textAlign = "center";
    ctx.textBaseline = "middle";
    ctx.font = `600 ${theme.font.replace(/^\d+px/, "12px")}`;
    const labels = middles(cloud, view.time)
      .map((p, c) => p && { c, text: short(cloud.classes[c]), p })
      .filter((l) => l && (!view.isolated.size || view.isolated.has(l.c)))
      .map((l) => {
        const [x, y] = toScreen(camera, w, h, ...l.p),
          half = ctx.measureText(l.text).width / 2;
        return { text: l.text, x: Math.max(half + 4, Math.min(w - half - 4, x)), y, w: 2 * half, seen: x > -20 && x < w + 20 && y > -8 && y < h + 8 };
      })
      .filter((l) => l.seen);
    for (const label of placeLabels(labels)) words(ctx, label.text, label.x, label.y, theme);
  }
  if (hover >= 0 && hover < cloud.n) {
    const [x, y] = at(hover);
    ctx.lineWidth = 1.5;
    for (const j of neighboursOf(cloud, view.moment, hover)) {
      const same = agree(cloud, hover, j),
        [a, b] = at(j);
      ctx.strokeStyle = theme.ink;
      ctx.setLineDash(same ? [] : [3, 3]);
      ctx.globalAlpha = 0.65;
      ctx.beginPath();
      ctx.moveTo(x, y);
      ctx.lineTo(a, b);
      ctx.stroke();
      ctx.globalAlpha = 1;
      ctx.setLineDash([]);
      ring(ctx, a, b, view.radius + 1.5, theme, 1.25);
    }
    ring(ctx, x, y, view.radius + 3.5, theme, 2);
  }
  if (view.spot >= 0 && view.spot !== hover) ring(ctx, ...at(view.spot), view.radius + 3.5, theme, 2);
  if (view.drag?.length > 1) {
    ctx.beginPath();
    for (const p of view.drag) ctx.lineTo(...toScreen(camera, w, h, ...p));
    ctx.closePath();
    ctx.globalAlpha = 0.1;
    ctx.fillStyle = theme.accent;
    ctx.fill();
    ctx.globalAlpha = 1;
    ctx.lineWidth = 1.5;
    ctx.setLineDash([5, 4]);
    ctx.strokeStyle = theme.accent;
    ctx.stroke();
    ctx.setLineDash([]);
  }
  if (view.ruler) ruler(ctx, view);
}

function ring(ctx, x, y, r, theme, width) {
  ctx.beginPath();
  ctx.arc(x, y, r, 0, 2 * Math.PI);
  ctx.lineWidth = width + 2;
  ctx.strokeStyle = theme.background;
  ctx.stroke();
  ctx.lineWidth = width;
  ctx.strokeStyle = theme.ink;
  ctx.stroke();
}

function ruler(ctx, { h, camera, theme }) {
  const { length, pixels } = scaleBar(camera.k, 96),
    [x, y] = [14.5, h - 14.5];
  ctx.lineWidth = 1;
  ctx.strokeStyle = theme.soft;
  ctx.beginPath();
  ctx.moveTo(x, y - 4);
  ctx.lineTo(x, y);
  ctx.lineTo(x + pixels, y);
  ctx.lineTo(x + pixels, y - 4);
  ctx.stroke();
  ctx.font = theme.font;
  ctx.fillStyle = theme.soft;
  ctx.textAlign = "left";
  ctx.textBaseline = "alphabetic";
  ctx.fillText(formatPlain(length), x + 5, y - 4);
}

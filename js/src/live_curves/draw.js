// A chart on paper or screen: the same strokes for a canvas and for an SVG file.
import { drawGlyph, toneOf } from "./marks.js";
import { AXES } from "./xaxis.js";

const DENSE = 8; // times its width that a curve goes up and down: a band of noise, in which dashes only cost time

/**
 * @param {CanvasRenderingContext2D|import("./svg.js").SvgContext} ctx in CSS pixels
 * @param {ReturnType<import("./chart.js").chartOf>} chart
 * @param {ReturnType<import("../lib/theme.js").palette>} colours
 */
export function drawChart(ctx, chart, colours) {
  ctx.font = colours.font;
  ctx.lineJoin = "round";
  drawBands(ctx, chart, colours);
  drawAxes(ctx, chart, colours);
  drawEpochs(ctx, chart, colours);
  drawCurves(ctx, chart, colours);
  drawMarks(ctx, chart, colours);
  if (chart.baseline) drawBaseline(ctx, chart, colours);
}

const crisp = (px) => Math.round(px) + 0.5;

function straight(ctx, x0, y0, x1, y1) {
  ctx.beginPath();
  ctx.moveTo(x0, y0);
  ctx.lineTo(x1, y1);
  ctx.stroke();
}

function clipped(ctx, { left, top, width, height }, air, f) {
  ctx.save();
  ctx.beginPath();
  ctx.rect(left, top - air, width, height + air);
  ctx.clip();
  f();
  ctx.restore();
}

/** Tinted stretches of the value axis, and their names: at the right unless the curve ends just there. */
function drawBands(ctx, { bands, box, y, curves }, colours) {
  const followed = curves.at(-1)?.points,
    last = followed?.n ? followed.y[followed.n - 1] : NaN;
  for (const band of bands) {
    const top = Math.max(y.at(Math.min(band.to, y.high)), box.top);
    const bottom = Math.min(y.at(Math.max(band.from, y.low)), box.top + box.height);
    if (!(bottom - top >= 1)) continue;
    ctx.globalAlpha = 0.1;
    ctx.fillStyle = colours[band.tone];
    ctx.fillRect(box.left, top, box.width, bottom - top);
    ctx.globalAlpha = 1;
    if (bottom - top <= 15) continue;
    const left = last >= band.from && last < band.to && y.at(last) > bottom - 24;
    ctx.fillStyle = colours.soft;
    ctx.textAlign = left ? "left" : "right";
    ctx.textBaseline = "alphabetic";
    ctx.fillText(band.label, left ? box.left + 6 : box.left + box.width - 6, bottom - 5);
  }
}

function drawAxes(ctx, { box, x, y, xTicks, yTicks, axis }, colours) {
  ctx.lineWidth = 1;
  ctx.setLineDash([]);
  ctx.strokeStyle = colours.rule;
  ctx.fillStyle = colours.soft;
  ctx.textAlign = "right";
  ctx.textBaseline = "middle";
  for (const { value, text } of yTicks) {
    const at = crisp(y.at(value)),
      end = Math.max(box.left - 6, ctx.measureText(text).width); // a long one reaches into the chart
    straight(ctx, end + 6, at, box.left + box.width, at);
    ctx.fillText(text, end, at);
  }
  ctx.textBaseline = "top";
  const bottom = box.top + box.height + 8;
  ctx.fillText(AXES[axis].title.toLowerCase(), box.left - 12, bottom);
  ctx.textAlign = "center";
  for (const { value, text } of xTicks) {
    const at = x.at(value),
      half = ctx.measureText(text).width / 2;
    if (at - half >= box.left - 10 && at + half <= box.left + box.width + 10) ctx.fillText(text, at, bottom);
  }
}

function drawEpochs(ctx, { box, epochs }, colours) {
  ctx.strokeStyle = colours.rule;
  ctx.globalAlpha = 0.8;
  for (const px of epochs) straight(ctx, crisp(px), box.top, crisp(px), box.top + box.height);
  ctx.globalAlpha = 1;
}

/** How far the pen goes up and down along a curve, in px. */
function lengthOf(points, y) {
  let length = 0;
  for (let i = 1; i < points.n; i++) {
    const step = Math.abs(y.at(points.y[i]) - y.at(points.y[i - 1]));
    if (step > 0 && step < Infinity) length += step;
  }
  return length;
}

function drawCurves(ctx, { box, curves, y }, colours) {
  clipped(ctx, box, 0, () => {
    for (const { points, colour, dash, width, faint, dots } of curves) {
      ctx.globalAlpha = faint ? 0.3 : 1;
      ctx.lineWidth = width;
      ctx.strokeStyle = ctx.fillStyle = colours.series[colour];
      const dense = lengthOf(points, y) > DENSE * box.width;
      ctx.setLineDash(dense ? [] : dash);
      ctx.lineJoin = dense ? "bevel" : "round";
      ctx.beginPath();
      let pen = false;
      for (let i = 0; i < points.n; i++) {
        const at = y.at(points.y[i]);
        if (at !== at) pen = false;
        else if (pen) ctx.lineTo(points.x[i], at);
        else {
          ctx.moveTo(points.x[i], at);
          pen = true;
        }
      }
      ctx.stroke();
      if (!dots) continue;
      ctx.setLineDash([]);
      for (let i = 0; i < points.n; i++) {
        if (Number.isNaN(points.y[i])) continue;
        ctx.beginPath();
        ctx.arc(points.x[i], y.at(points.y[i]), 2, 0, 2 * Math.PI);
        ctx.fill();
      }
    }
  });
  ctx.setLineDash([]);
  ctx.lineJoin = "round";
  ctx.globalAlpha = 1;
}

function drawMarks(ctx, { box, marks }, colours) {
  ctx.lineWidth = 1;
  for (const { at, event } of marks) {
    const colour = colours[toneOf(event.kind)];
    if (event.kind !== "checkpoint") {
      ctx.globalAlpha = 0.75;
      ctx.strokeStyle = colour;
      ctx.setLineDash([3, 3]);
      straight(ctx, crisp(at), box.top, crisp(at), box.top + box.height);
      ctx.globalAlpha = 1;
      ctx.setLineDash([]);
    }
    drawGlyph(ctx, event.kind, crisp(at), box.top - 4, colour);
  }
}

/** A dashed level to compare with, and its name on a ground of its own. */
function drawBaseline(ctx, { box, y, baseline }, colours) {
  const at = crisp(y.at(baseline.value));
  if (!(at > box.top - 1 && at < box.top + box.height + 1)) return;
  ctx.lineWidth = 1;
  ctx.strokeStyle = colours.soft;
  ctx.setLineDash([5, 4]);
  straight(ctx, box.left, at, box.left + box.width, at);
  ctx.setLineDash([]);
  ctx.textAlign = "right";
  ctx.textBaseline = "alphabetic";
  const right = box.left + box.width - 6,
    bottom = Math.max(at - 5, box.top + 10),
    { width } = ctx.measureText(baseline.label);
  ctx.fillStyle = colours.background;
  ctx.fillRect(right - width - 3, bottom - 10, width + 6, 13);
  ctx.fillStyle = colours.soft;
  ctx.fillText(baseline.label, right, bottom);
}

// The curves as files: numbers of what is shown, and the picture of it.
import { download } from "../lib/download.js";
import { progressText } from "./state.js";
import { SvgContext } from "./svg.js";

const ACROSS = 400; // px of a panel in a picture
const MARGIN = 16;

/** The shortest decimal that is the same 32-bit number. */
export function shortest(x) {
  if (!Number.isFinite(x)) return Number.isNaN(x) ? "nan" : x > 0 ? "inf" : "-inf";
  for (let digits = 6; digits < 9; digits++) {
    const short = Number(x.toPrecision(digits));
    if (Math.fround(short) === x) return String(short);
  }
  return String(Number(x.toPrecision(9)));
}

const cell = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
/** A name that a spreadsheet does not take for a formula. */
const named = (text) => cell(/^[=+\-@\t\r]/.test(text) ? `'${text}` : text);

/**
 * A table of what is shown. One run: `step,time,…`, as a history writes and reads it; several: `run` comes first.
 * @param {{name: string, store: import("../lib/series.js").RunStore, map: {toX: Function}}[]} runs
 * @param {string[]} metrics
 * @param {[number, number]} range ends of the axis
 */
export function csvText(runs, metrics, [low, high]) {
  const names = ["time", ...metrics.filter((name) => name !== "time")].filter((name) => runs.some((run) => run.store.get(name).n));
  const lines = [[...(runs.length > 1 ? ["run"] : []), "step", ...names.map(named)].join(",")];
  for (const { name, store, map } of runs) {
    const columns = names.map((metric) => store.get(metric)),
      at = columns.map(() => 0);
    for (;;) {
      // the next step of any column; a column with several rows at a step takes several lines
      const step = Math.min(...columns.map((column, i) => (at[i] < column.n ? column.steps[at[i]] : Infinity)));
      if (step === Infinity) break;
      const cells = columns.map((column, i) => (at[i] < column.n && column.steps[at[i]] === step ? shortest(column.values[at[i]++]) : ""));
      const x = map.toX(step);
      if (x >= low && x <= high) lines.push([...(runs.length > 1 ? [named(name)] : []), step, ...cells].join(","));
    }
  }
  return `${lines.join("\n")}\n`;
}

/** Where the names of the runs stand: rows as wide as the picture. */
function placeNames(ctx, runs, width) {
  let x = 0,
    row = 0;
  return runs.map((run) => {
    const name = run.name.length > 48 ? `${run.name.slice(0, 47)}…` : run.name,
      room = 28 + ctx.measureText(name).width + 24;
    if (x && x + room > width) [x, row] = [0, row + 1];
    const place = { run, name, x, row };
    x += room;
    return place;
  });
}

/** Title, names of the runs and panels; `draw` false only measures. @returns {{width: number, height: number}} */
function compose(ctx, { title, progress, runs, panels, columns, colours }, draw) {
  const width = columns * ACROSS + 2 * MARGIN,
    left = MARGIN + 10;
  let y = MARGIN + 14;
  const write = (text, x, font, colour) => {
    ctx.font = colours.font.replace(/^\d+px/, font);
    ctx.fillStyle = colour;
    ctx.fillText(text, x, y);
    return ctx.measureText(text).width;
  };
  ctx.textAlign = "left";
  ctx.textBaseline = "alphabetic";
  if (draw) write(progress, left + 16 + write(title, left, "600 14px", colours.ink), "11px", colours.soft);
  ctx.font = colours.font.replace(/^\d+px/, "600 11px");
  const names = runs.length > 1 ? placeNames(ctx, runs, width - 2 * left) : [];
  for (const { run, name, x, row } of names) {
    if (!x) y += row ? 18 : 24;
    if (!draw) continue;
    ctx.strokeStyle = colours.series[run.colour];
    ctx.lineWidth = run.current ? 2.4 : 1.8;
    ctx.setLineDash(run.dash);
    ctx.beginPath();
    ctx.moveTo(left + x, y - 4);
    ctx.lineTo(left + x + 22, y - 4);
    ctx.stroke();
    ctx.setLineDash([]);
    write(name, left + x + 28, run.current ? "600 11px" : "11px", colours.ink);
  }
  y += 16;
  for (let start = 0; start < panels.length; start += columns) {
    const row = panels.slice(start, start + columns);
    if (draw)
      row.forEach((panel, i) => {
        ctx.save();
        ctx.translate(MARGIN + i * ACROSS, y);
        panel.paint(ctx, ACROSS);
        ctx.restore();
      });
    y += Math.max(...row.map((panel) => panel.height)) + 34;
  }
  return { width, height: Math.ceil(y + MARGIN - 8) };
}

/**
 * @param {"csv"|"png"|"svg"} kind
 * @param {object} what
 * @param {string} what.name of the file, without ending
 */
export async function saveAs(kind, { name, status, step, runs, metrics, range, panels, colours }) {
  const file = `${name.replace(/[^\p{L}\p{N}._-]+/gu, "-").slice(0, 80) || "run"}.${kind}`;
  if (kind === "csv") return download(new Blob([csvText(runs, metrics, range)], { type: "text/csv" }), file);
  const scene = {
    title: status.name ?? "run",
    progress: progressText({ ...status, state: "" }, step),
    runs,
    panels,
    columns: Math.min(3, panels.length) || 1,
    colours,
  };
  const canvas = document.createElement("canvas"),
    paper = canvas.getContext("2d"),
    { width, height } = compose(paper, scene, false);
  if (kind === "svg") {
    const ctx = new SvgContext(width, height);
    ground(ctx, width, height, colours);
    compose(ctx, scene, true);
    return download(new Blob([ctx.toString()], { type: "image/svg+xml" }), file);
  }
  [canvas.width, canvas.height] = [2 * width, 2 * height];
  paper.scale(2, 2);
  ground(paper, width, height, colours);
  compose(paper, scene, true);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  if (blob) download(blob, file);
}

function ground(ctx, width, height, colours) {
  ctx.fillStyle = colours.background;
  ctx.fillRect(0, 0, width, height);
}

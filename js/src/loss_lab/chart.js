// A few bars that say the same as the matrix in one line: who is pushed, which prototypes are used, what two distributions say.
import { h, s, setText } from "../lib/dom.js";
import { shadowDensity } from "./pictures.js";

const WIDTH = 240,
  HEIGHT = 64;

export function createChart() {
  const title = h("h4", {}),
    svg = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", class: "nnb-bars" }),
    ends = h("div", { class: "nnb-ends" }, h("span", {}), h("span", {}));
  const root = h("div", { class: "nnb-chart", hidden: true }, title, svg, ends);
  return {
    root,
    /** @param {{title: string, bars: ArrayLike<number>, line?: ArrayLike<number>, even?: number, from: string, to: string}|null} plot */
    draw(plot) {
      root.hidden = !plot;
      if (!plot) return;
      const n = plot.bars.length,
        high = Math.max(...plot.bars, ...(plot.line ?? []), plot.even ?? 0, 1e-9),
        y = (x) => HEIGHT - (x / high) * (HEIGHT - 2),
        gap = n > 60 ? 0 : Math.min(3, WIDTH / n / 5);
      const parts = Array.from(plot.bars, (x, i) =>
        s("rect", { x: (i * WIDTH) / n + gap / 2, width: Math.max(WIDTH / n - gap, 0.5), y: y(x), height: HEIGHT - y(x), class: "nnb-bar-fill" }),
      );
      if (plot.line) {
        const points = Array.from(plot.line, (x, i) => `${((i + 0.5) * WIDTH) / n},${y(x)}`).join(" ");
        parts.push(s("polyline", { points, class: "nnb-bar-line" }));
      }
      if (plot.even) parts.push(s("line", { x1: 0, x2: WIDTH, y1: y(plot.even), y2: y(plot.even), class: "nnb-bar-even" }));
      svg.replaceChildren(...parts);
      svg.setAttribute("aria-label", plot.title);
      setText(title, plot.title);
      setText(ends.firstChild, plot.from);
      setText(ends.lastChild, plot.to);
    },
  };
}

/** What to draw for a frame; `row` is the row under the cursor, an image or a line, or null. */
export function plotOf(frame, found, row) {
  if (frame.kind === "contrast")
    return { title: "Who gets the push: tenths of the wrong answers", bars: Array.from({ length: 10 }, (_, i) => found.byRank[i] ?? 0), even: 0.1, from: "most similar", to: "least" };
  if (frame.kind === "moments") {
    const [views, n] = frame.arrays.std.shape,
      std = frame.arrays.std.data;
    const bars = Array.from({ length: n }, (_, j) => (std[j] + std[(views - 1) * n + j]) / 2).sort((a, b) => a - b);
    return { title: "Standard deviation of each coordinate; dashed: 1, the target", bars, even: 1, from: "varies least", to: "most" };
  }
  if (frame.kind === "gaussian") {
    const density = shadowDensity(frame.arrays.shadows),
      bins = density.length / frame.arrays.shadows.shape[2],
      line = Array.from({ length: bins }, (_, i) => Math.exp(-(((8 * (i + 0.5)) / bins - 4) ** 2) / 2) / Math.sqrt(2 * Math.PI));
    const i = row ?? 0;
    return { title: `Line ${i}: its shadow (bars), the normal curve (line)`, bars: density.subarray(i * bins, (i + 1) * bins), line, from: "−4", to: "4" };
  }
  if (frame.kind === "assignment") {
    const k = found.usage.length;
    return { title: "Share of the batch at each prototype", bars: found.usage, even: 1 / k, from: "prototype 0", to: String(k - 1) };
  }
  if (frame.kind === "distillation") {
    const [V, n, k] = frame.arrays.student.shape,
      i = Math.min(row ?? 0, n - 1);
    const order = Array.from({ length: k }, (_, j) => j).sort((a, b) => found.p[i * k + b] - found.p[i * k + a]);
    const pick = (data, v) => order.slice(0, 32).map((j) => data[(v * n + i) * k + j]);
    return { title: `Image ${i}: teacher (bars), student (line)`, bars: pick(found.p, 0), line: pick(found.q, Math.min(1, V - 1)), from: "the teacher's favourite", to: `no. ${Math.min(k, 32)}` };
  }
  return null;
}

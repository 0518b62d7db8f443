// One number per layer and head as dots: how far each head looks, how widely.
import { h, s, setAttribute, setText } from "../lib/dom.js";
import { formatPlain } from "../lib/format.js";
import { helpBox } from "../lib/help.js";

const HEIGHT = 140,
  LEFT = 36,
  RIGHT = 8,
  TOP = 8,
  BOTTOM = 20;

/** A round number at or above `x`, and the ticks up to it. */
export function niceAxis(x, count = 3) {
  if (!(x > 0)) return { top: 1, ticks: [0, 1] };
  const raw = x / count,
    size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * size).find((m) => m >= raw - 1e-9);
  const ticks = [];
  for (let i = 0; (i - 1) * step < x - 1e-9; i++) ticks.push(i * step);
  return { top: ticks.at(-1), ticks };
}

/** How far right of the middle of its column a head's dot stands, so that dots do not hide each other. */
export const fan = (head, count, wide) => (head - (count - 1) / 2) * Math.min(9, (0.7 * wide) / count);

/**
 * @param {{title: string, unit: string, help: string, onPick: (layer: number, head: number|null) => void}} options
 */
export function createDots({ title, unit, help, onPick }) {
  const value = h("output", {});
  const head = h("div", { class: "nnb-dots-head" }, h("h3", {}, title), helpBox(`About ${title.toLowerCase()}`, help), value);
  const axis = s("g", { class: "nnb-axis" }),
    dots = s("g", {}),
    column = s("rect", { class: "nnb-column" });
  const picture = s("svg", { height: HEIGHT, role: "img", class: "nnb-dots-picture" }, column, axis, dots);
  const root = h("section", { class: "nnb-dots" }, head, picture);
  let count = 1,
    width = 320; // px, as wide as there is room when it was drawn
  const x = (layer) => LEFT + ((width - LEFT - RIGHT) * (layer + 0.5)) / count;
  picture.addEventListener("click", (event) => {
    const box = picture.getBoundingClientRect();
    const layer = Math.floor(((event.clientX - box.left - LEFT) / (width - LEFT - RIGHT)) * count);
    const dot = event.target.dataset?.head;
    if (layer >= 0 && layer < count) onPick(layer, dot == null ? null : Number(dot));
  });

  return {
    root,
    /** @param {number[][]} values per layer, per head; NaN where there is none */
    draw(values, layer, chosen) {
      count = values.length;
      width = root.clientWidth || width;
      const { top, ticks } = niceAxis(Math.max(0, ...values.flat().filter(Number.isFinite)));
      const y = (v) => HEIGHT - BOTTOM - ((HEIGHT - BOTTOM - TOP) * v) / top;
      const every = Math.ceil(count / 12);
      axis.replaceChildren(
        ...ticks.flatMap((tick) => [
          s("line", { x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick) }),
          s("text", { x: LEFT - 6, y: y(tick) + 3, "text-anchor": "end" }, formatPlain(tick)),
        ]),
        s("text", { x: LEFT - 6, y: HEIGHT - 6, "text-anchor": "end" }, "layer"),
        ...values
          .map((_, i) => i)
          .filter((i) => i % every === 0)
          .map((i) => s("text", { x: x(i), y: HEIGHT - 6, "text-anchor": "middle" }, String(i + 1))),
      );
      const wide = (width - LEFT - RIGHT) / count;
      for (const [name, v] of Object.entries({ x: x(layer) - wide / 2, y: TOP - 4, width: wide, height: HEIGHT - BOTTOM - TOP + 8 }))
        setAttribute(column, name, v);
      dots.replaceChildren(
        ...values.flatMap((heads, i) =>
          heads.map((v, k) =>
            Number.isFinite(v)
              ? s("circle", { cx: x(i) + fan(k, heads.length, wide), cy: y(v), r: i === layer && k === chosen ? 4.5 : 3, class: i === layer && k === chosen ? "nnb-dot nnb-dot-chosen" : "nnb-dot", data: { head: k } },
                  s("title", {}, `layer ${i + 1}, head ${k + 1}: ${formatPlain(v)} ${unit}`))
              : null,
          ),
        ).filter(Boolean),
      );
      const now = values[layer].filter(Number.isFinite);
      const mean = chosen >= 0 ? values[layer][chosen] : now.reduce((a, b) => a + b, 0) / now.length;
      setText(value, Number.isFinite(mean) ? `${formatPlain(Number(mean.toPrecision(3)))} ${unit}` : "–");
      setAttribute(picture, "aria-label", `${title}: layer ${layer + 1}, ${now.map((v) => formatPlain(Number(v.toPrecision(3)))).join(", ")} ${unit}`);
    },
  };
}

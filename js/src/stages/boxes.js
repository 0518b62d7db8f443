// The stages as boxes to scale, in a row; each is a button.
import { h, s, setAttribute } from "../lib/dom.js";
import { formatPercent } from "../lib/format.js";
import { boxesOf } from "./model.js";

const LABELS = 46; // px below the boxes

const path = (points) => `M${points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join("L")}Z`;

/** Lines that cut the side of a box into its tokens; at most 32 each way. */
function tokenLines({ x, length, height, back, rows, columns }, floor) {
  let d = "";
  for (let r = 1; r < Math.min(rows, 33); r++) {
    const y = floor - (height * r) / Math.min(rows, 33);
    d += `M${x + length},${y}l${back},${-back}`;
  }
  for (let c = 1; c < Math.min(columns, 33); c++) {
    const at = (back * c) / Math.min(columns, 33);
    d += `M${x + length + at},${floor - at}v${-height}`;
  }
  return d;
}

function box(part, stage, shape, share, floor) {
  const { x, length, height, back } = part;
  const front = [[x, floor], [x + length, floor], [x + length, floor - height], [x, floor - height]];
  const top = [front[3], front[2], [x + length + back, floor - height - back], [x + back, floor - height - back]];
  const side = [front[1], [x + length + back, floor - back], [x + length + back, floor - height - back], front[2]];
  const faces = [["front", front], ["top", top], ["side", side]].map(([name, points]) =>
    s("path", { class: `nnb-face nnb-face-${name}`, d: path(points) }),
  );
  const [channels, rows, columns] = shape;
  const label = stage.layout === "vector" ? `${channels}` : `${channels} × ${rows} × ${columns}`;
  const text = (dy, kind, words) => s("text", { class: kind, x, y: floor + dy }, words);
  return s(
    "g",
    { class: "nnb-stage", "data-stage": stage.name, "data-layout": stage.layout, role: "button", tabindex: "-1",
      "aria-label": `${stage.name}: ${label}, ${formatPercent(share)} of the work` },
    s("title", {}, `${stage.name} (${stage.kind})`),
    s("rect", { class: "nnb-hit", x: x - 4, y: 2, width: part.room - 4, height: floor + LABELS - 6, rx: 5 }),
    ...faces,
    stage.layout === "tokens" ? s("path", { class: "nnb-tokens", d: tokenLines(part, floor) }) : null,
    text(14, "nnb-stage-name", short(stage.name)),
    text(27, "nnb-stage-shape", label),
    s("rect", { class: "nnb-share-room", x, y: floor + 33, width: 44, height: 3, rx: 1.5 }),
    s("rect", { class: "nnb-share", x, y: floor + 33, width: Math.max(share > 0 ? 1 : 0, 44 * share), height: 3, rx: 1.5 }),
  );
}

/** The end of a path says more than its beginning. */
export const short = (name) => (name.length > 12 ? `…${name.slice(-11)}` : name);

/**
 * @param {object} view from unpackStages
 * @param {{onSelect: (name: string) => void}} actions
 */
export function createBoxes(view, { onSelect }) {
  const picture = s("svg", { class: "nnb-boxes", role: "group", "aria-label": "Stages as boxes to scale" });
  const root = h("div", { class: "nnb-strip", tabindex: "-1" }, picture);
  let selected = "",
    least = 0; // px, height at the first size: only larger images need more room

  const mark = () => {
    const all = [...picture.querySelectorAll(".nnb-stage")];
    for (const group of all) {
      const on = group.dataset.stage === selected;
      setAttribute(group, "aria-pressed", String(on));
      setAttribute(group, "tabindex", on || (!selected && group === all[0]) ? "0" : "-1");
    }
  };
  picture.addEventListener("click", (event) => {
    const group = event.target.closest(".nnb-stage");
    if (group) onSelect(group.dataset.stage);
  });
  picture.addEventListener("keydown", (event) => {
    const all = [...picture.querySelectorAll(".nnb-stage")],
      here = all.indexOf(event.target.closest(".nnb-stage"));
    const to = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: all.length - 1, Enter: here, " ": here }[event.key];
    if (here < 0 || to === undefined || !all[to]) return;
    event.preventDefault();
    onSelect(all[to].dataset.stage);
    const next = [...picture.querySelectorAll(".nnb-stage")][to];
    next.focus({ preventScroll: true });
    next.scrollIntoView?.({ block: "nearest", inline: "nearest" });
  });

  return {
    root,
    draw(shapes, shares, width) {
      if (!shapes) return void picture.replaceChildren();
      const column = Math.max(90, Math.min(160, (width - 32) / shapes.length));
      const laid = boxesOf(shapes, view.largest, column);
      least ||= laid.height;
      const floor = Math.max(least, laid.height) + 10,
        wide = Math.ceil(laid.width);
      for (const [name, value] of Object.entries({ width: wide, height: floor + LABELS, viewBox: `0 0 ${wide} ${floor + LABELS}` }))
        setAttribute(picture, name, value);
      const focused = picture.contains(document.activeElement);
      picture.replaceChildren(...laid.boxes.map((part, i) => box(part, view.stages[i], shapes[i], shares[i], floor)));
      mark();
      if (focused) picture.querySelector("[tabindex='0']")?.focus({ preventScroll: true });
    },
    /** Marks a stage, and brings it into sight of the strip. */
    select(name) {
      selected = name;
      mark();
      const group = picture.querySelector("[aria-pressed='true']");
      if (!group || root.scrollWidth <= root.clientWidth) return;
      const [inner, outer] = [group.getBoundingClientRect(), root.getBoundingClientRect()];
      if (inner.left < outer.left || inner.right > outer.right) root.scrollLeft += inner.left - outer.left - outer.width / 3;
    },
  };
}

// One image large with the outlines of its views on it, the views beside it; and all images small.
import { h, s, setText } from "../lib/dom.js";
import { paintImage, pixelCanvas } from "../lib/pixels.js";
import { describe, groupsOf, hiddenCells, outline, sideOf } from "./state.js";

/** How large the source is drawn, in px, by the width there is. */
const sourceSide = (width) => (width > 740 ? 304 : width > 560 ? 264 : 232);

/** Blocks to be predicted, Okabe and Ito. */
const BLOCKS = [[230, 159, 0], [86, 180, 233], [0, 158, 115], [204, 121, 167], [213, 94, 0], [0, 114, 178]];

/** The series colour of a view, as CSS. */
const colour = (v) => `var(--nnb-series-${(v % 6) + 1})`;

/** Paints what it is given, unless it painted the same before: most tiles stay when one knob moves. */
function createPainter(canvas, paint = paintImage) {
  let last = null;
  return (tile) => {
    if (last && String(last.shape) === String(tile.shape) && last.data.every((x, i) => x === tile.data[i])) return;
    last = tile;
    paint(canvas, tile);
  };
}

/** Outlines of all views as SVG over a source image; `tags` adds their numbers at their upper left corners, or at others where one is taken. */
function drawOutlines(svg, views, image, tags) {
  const fields = views.map((view) => (view.kind === "image" ? view.field(image) : null)),
    key = fields.join(";");
  if (svg.nnbFields === key) return;
  svg.nnbFields = key;
  const shapes = [],
    badges = [], // above all outlines
    taken = [];
  fields.forEach((field, v) => {
    if (!field) return;
    const points = outline(field).map(([x, y]) => [100 * x, 100 * y]);
    const path = points.map(([x, y]) => `${x.toFixed(2)},${y.toFixed(2)}`).join(" ");
    const line = s("polygon", { points: path, class: "nnb-outline" });
    line.style.stroke = colour(v);
    const group = s("g", { data: { view: v } }, s("polygon", { points: path, class: "nnb-halo" }), line);
    if (tags) {
      const corners = points.map((point) => point.map((p) => Math.min(Math.max(p, 3.2), 96.8)));
      const free = ([x, y]) => taken.every(([a, b]) => Math.hypot(x - a, y - b) > 7);
      const [x, y] = corners.find(free) ?? corners[0];
      taken.push([x, y]);
      const badge = s("circle", { cx: x, cy: y, r: 3.4 });
      badge.style.fill = colour(v);
      badges.push(s("g", { data: { view: v } }, badge, s("text", { x, y: y + 1.6, "text-anchor": "middle" }, String(v + 1))));
    }
    shapes.push(group);
  });
  svg.replaceChildren(...shapes, ...badges);
}

/** One view: its pixels, or those of the view that a mask is of, under its cover. */
function createTile(label) {
  const canvas = pixelCanvas(label),
    cover = h("canvas", { class: "nnb-pixels nnb-cover", "aria-hidden": "true", width: 1, height: 1, hidden: true });
  const root = h("div", { class: "nnb-tile" }, canvas, cover);
  const paintPicture = createPainter(canvas),
    paintCover = createPainter(cover, paintMask);
  return {
    root,
    canvas,
    draw(views, v, image) {
      const view = views[v],
        masked = view.kind === "mask";
      const picture = masked ? views[view.of] : view;
      paintPicture(picture.tile(image));
      cover.hidden = !masked;
      if (masked) paintCover(view.tile(image));
      return picture.shape;
    },
  };
}

/** What stands below the view, and what a screen reader says. */
function nameOf(views, v, image) {
  const { kind, of, tile } = views[v];
  if (kind === "image") return [`view ${v + 1}`, `View ${v + 1}`];
  const { data } = tile(image),
    which = `View ${of + 1} without its hidden patches`;
  if (data.some((code) => code > 1)) return ["context and blocks", "The context, and the blocks to be predicted"];
  if (views.filter((view) => view.kind === "mask").length < 2) return ["what is left", which];
  return [`view ${of + 1}, ${hiddenCells(data) ? "what is left" : "whole"}`, which];
}

function paintMask(canvas, { data, shape: [height, width] }) {
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d"),
    image = context.createImageData(width, height);
  for (let i = 0; i < data.length; i++)
    if (data[i] === 1) image.data.set([127, 132, 140, 255], 4 * i);
    else if (data[i] > 1) image.data.set([...BLOCKS[(data[i] - 2) % BLOCKS.length], 170], 4 * i);
  context.putImageData(image, 0, 0);
  canvas.style.setProperty("--columns", width);
  canvas.style.setProperty("--rows", height);
}

export function createStage({ onFocus }) {
  const canvas = pixelCanvas("Source image"),
    lines = s("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", class: "nnb-lines", "aria-hidden": "true" });
  const title = h("figcaption", {});
  const source = h("figure", { class: "nnb-source" }, h("div", { class: "nnb-tile" }, canvas, lines), title);
  const beside = h("div", { class: "nnb-views-large" });
  const sentence = h("p", { class: "nnb-said", "aria-live": "polite" });
  const strip = h("div", { class: "nnb-strip", role: "group", "aria-label": "All images" });
  const root = h("div", { class: "nnb-stage" }, h("div", { class: "nnb-top" }, source, beside), sentence, strip);
  const paintSource = createPainter(canvas);
  let tiles = [],
    groups = [],
    rows = [];

  function point(v) {
    for (const group of lines.children) group.classList.toggle("nnb-hot", group.dataset.view === String(v));
    lines.classList.toggle("nnb-pointed", v != null);
  }

  function build(views, count) {
    tiles = views.map((view, v) => {
      const tile = createTile(`View ${v + 1}`);
      const chip = h("i", { class: "nnb-chip" });
      chip.style.background = colour(view.kind === "mask" ? view.of : v);
      const caption = h("figcaption", {}, chip, h("span", {}));
      const figure = h(
        "figure",
        { class: "nnb-view", on: { pointerenter: () => point(view.kind === "mask" ? view.of : v), pointerleave: () => point(null) } },
        tile.root,
        caption,
      );
      return { ...tile, figure, caption };
    });
    groups = groupsOf(views);
    beside.replaceChildren(...groups.map((group) => h("div", { class: "nnb-size" }, ...group.map((v) => tiles[v].figure))));
    rows = Array.from({ length: count }, (_, image) => {
      const picture = pixelCanvas(""),
        over = s("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", class: "nnb-lines", "aria-hidden": "true" });
      const small = views.map(() => createTile(""));
      const button = h(
        "button",
        { type: "button", class: "nnb-row", on: { click: () => onFocus(image) } },
        h("div", { class: "nnb-tile nnb-first" }, picture, over),
        ...small.map((tile) => tile.root),
      );
      return { button, paint: createPainter(picture), over, small };
    });
    strip.replaceChildren(...rows.map((r) => r.button));
  }

  return {
    root,
    /**
     * @param {{data: Uint8Array, shape: number[]}} images bytes (B, H, W, C)
     * @param {(i: number) => object} imageAt one of them
     */
    draw(images, imageAt, labels, views, focus) {
      const kinds = JSON.stringify([images.shape[0], views.map((view) => [view.kind, view.of, view.shape])]);
      if (root.dataset.kinds !== kinds) {
        root.dataset.kinds = kinds;
        build(views, images.shape[0]);
      }
      const [, H, W] = images.shape,
        name = (i) => labels[i] ?? `image ${i}`;
      paintSource(imageAt(focus));
      const most = sourceSide(root.clientWidth),
        stretch = most / Math.max(H, W);
      Object.assign(canvas.style, { width: `${W * stretch}px`, height: `${H * stretch}px` });
      canvas.setAttribute("aria-label", `Source image: ${name(focus)}`);
      setText(title, `${name(focus)}, ${W}×${H} px`);
      drawOutlines(lines, views, focus, true);
      const side = Math.max(...views.filter((view) => view.kind === "image").map(({ shape }) => Math.max(shape[0], shape[1])), 1);
      const below = beside.clientWidth > root.clientWidth - 200, // not beside the source
        high = (below ? 1.5 : 1) * most - (groups.length > 1 ? 96 : 0);
      const [room, columns] = sideOf(groups[0]?.length ?? 1, beside.clientWidth, high),
        scale = Math.min(most, room) / side;
      beside.style.setProperty("--columns", columns);
      tiles.forEach((tile, v) => {
        const [h_, w_] = tile.draw(views, v, focus),
          grow = Math.max(scale, 36 / Math.max(h_, w_));
        Object.assign(tile.canvas.style, { width: `${Math.round(w_ * grow)}px`, height: `${Math.round(h_ * grow)}px` });
        const [caption, label] = nameOf(views, v, focus);
        setText(tile.caption.lastChild, caption);
        tile.canvas.setAttribute("aria-label", label);
      });
      rows.forEach(({ button, paint, over, small }, image) => {
        button.setAttribute("aria-pressed", String(image === focus));
        button.setAttribute("aria-label", `Show ${name(image)} large`);
        paint(imageAt(image));
        drawOutlines(over, views, image, false);
        small.forEach((tile, v) => tile.draw(views, v, image));
      });
      setText(sentence, describe(views, focus));
    },
  };
}

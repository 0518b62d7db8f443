// The image, and on it what one position can see (a box) and what it uses (measured by the gradient).
import { h, s, setAttribute, setText } from "../lib/dom.js";
import { formatPercent } from "../lib/format.js";
import { helpBox } from "../lib/help.js";
import { colourMap, paintImage, pixelCanvas } from "../lib/pixels.js";
import { TALLEST } from "./map.js";
import { concentration, fieldSentences } from "./model.js";

/** Bytes of an image under a map of heat: grey where nothing is used, colours where much is. */
export function heated(picture, heat) {
  const [height, width, channels] = picture.shape,
    [rows, columns] = heat.shape,
    colours = colourMap("viridis"),
    out = new Uint8ClampedArray(3 * height * width);
  for (let y = 0, i = 0; y < height; y++)
    for (let x = 0; x < width; x++, i++) {
      const at = channels * i;
      const light = channels > 1 ? 0.3 * picture.data[at] + 0.59 * picture.data[at + 1] + 0.11 * picture.data[at + 2] : picture.data[at];
      const value = heat.data[Math.floor((y * rows) / height) * columns + Math.floor((x * columns) / width)];
      const a = Math.sqrt(value / 255),
        c = 3 * Math.round(255 * a);
      for (let k = 0; k < 3; k++) out[3 * i + k] = (1 - a) * 0.4 * light + a * colours[c + k];
    }
  return { data: out, shape: [height, width, 3] };
}

/**
 * @param {object} options
 * @param {number[]} options.image rows and columns of the images, px
 * @param {boolean} options.pictures are there any?
 * @param {() => void} options.onMiddle go to the middle position
 * @param {() => void} options.onMeasure the measured field is wanted, or no longer
 */
export function createSight({ image: [height, width], pictures, onMiddle, onImage, onMeasure }) {
  let measured = false;
  const canvas = pixelCanvas("The image");
  const cut = s("rect", { class: "nnb-window", "vector-effect": "non-scaling-stroke" });
  const [halo, box] = ["nnb-seen nnb-halo", "nnb-seen"].map((kind) => s("rect", { class: kind, "vector-effect": "non-scaling-stroke" }));
  const shade = s("path", { class: "nnb-shade", "fill-rule": "evenodd" });
  const over = s("svg", { class: "nnb-over", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" }, shade, cut, halo, box);
  const frame = h("div", { class: "nnb-image" }, canvas, over);
  frame.style.aspectRatio = `${width} / ${height}`;
  frame.style.maxWidth = `${TALLEST * width / height}px`;
  const words = h("p", { class: "nnb-words", role: "status" }),
    used = h("p", { class: "nnb-fine" });
  const middle = h("button", { class: "nnb-link", type: "button", on: { click: onMiddle } }, "Go to the middle");
  const views = ["can see", "uses"].map((label, i) =>
    h("button", { type: "button", "aria-pressed": String(!i), on: { click: () => {
      measured = Boolean(i);
      views.forEach((button, j) => setAttribute(button, "aria-pressed", String(i === j)));
      onMeasure();
    } } }, label));
  const thumbs = h("div", { class: "nnb-thumbs", role: "group", "aria-label": "Images" });
  const root = h("div", { class: "nnb-sight" },
    h("div", { class: "nnb-sight-head" }, h("h3", { class: "nnb-title" }, "What it sees"),
      helpBox("About what it sees", "The box holds all pixels that this position could depend on, worked out from kernels, strides and paddings. “Uses” measures the gradient: how much each pixel moves the position, averaged over the images."),
      pictures ? h("span", { class: "nnb-segments", role: "group", "aria-label": "What is drawn" }, ...views) : null),
    frame, words, used, middle, thumbs);

  function rect(node, { top, bottom, left, right }) {
    for (const [name, value] of Object.entries({ x: left, y: top, width: Math.max(0, right - left), height: Math.max(0, bottom - top) }))
      setAttribute(node, name, value);
  }

  function show({ stage, position: [r, c], picture, heat, live, problem }) {
    const field = stage.field,
      seen = field.at(r, c);
    rect(halo, seen);
    rect(box, seen);
    setAttribute(cut, "hidden", !field.size);
    if (field.size) {
      const [top, left] = [field.start[0] + r * field.stride[0], field.start[1] + c * field.stride[1]];
      rect(cut, { top, left, bottom: top + field.size[0], right: left + field.size[1] });
    }
    const hole = `M${seen.left},${seen.top}H${seen.right}V${seen.bottom}H${seen.left}Z`;
    setAttribute(shade, "d", measured && heat ? "" : `M0,0H${width}V${height}H0Z${hole}`);
    setText(words, fieldSentences(field, [r, c], [height, width]).join(" "));
    setAttribute(middle, "hidden", !(measured && !heat && !live));
    if (!picture) return;
    paintImage(canvas, measured && heat ? heated(picture, heat) : picture);
    const share = heat && concentration(heat.data);
    const wanted = problem || (live ? "Being measured …" : "Measured here for the middle position only: others need a kernel.");
    const found = share == null ? "Nothing of the image moves this position." : `90 % of its influence comes from ${formatPercent(share)} of the image.`;
    setText(used, measured ? (heat ? found : wanted) : "");
  }

  return {
    root,
    show,
    /** One small picture for each image, if there are several. */
    images(all, chosen) {
      thumbs.hidden = all.length < 2;
      if (thumbs.children.length !== all.length)
        thumbs.replaceChildren(...all.map((picture, i) => {
          const small = pixelCanvas("", { "aria-hidden": "true", role: null });
          paintImage(small, picture);
          return h("button", { class: "nnb-thumb", type: "button", "aria-label": `image ${i}`, on: { click: () => onImage(i) } }, small);
        }));
      [...thumbs.children].forEach((button, i) => setAttribute(button, "aria-pressed", String(i === chosen)));
    },
    /** Is the measured field wanted? */
    measuring: () => measured,
  };
}

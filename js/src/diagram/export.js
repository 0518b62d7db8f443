// The picture as a file: SVG with its colours written out, PNG from it.

const COPIED = {
  rect: ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "opacity"],
  path: ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-linecap", "stroke-linejoin", "opacity"],
  text: ["fill", "font-size", "font-weight", "font-family", "font-style", "paint-order", "stroke", "stroke-width", "stroke-linejoin"],
  g: [],
};
const MOST_PIXELS = 16000; // of a side of a canvas

/** A computed colour as all programs read it: color-mix() becomes color(srgb 0.5 1 0), which only browsers know. */
export const plainColour = (value) =>
  value.replace(/^color\(srgb ([\d. e-]+)\)$/, (_, shares) => `rgb(${shares.split(" ").map((share) => Math.round(255 * share)).join(", ")})`);

/**
 * @param {SVGSVGElement} svg as shown
 * @param {Element} root where the colours are
 * @returns {string} a file of its own
 */
export function svgText(svg, root) {
  const copy = svg.cloneNode(true);
  const originals = svg.querySelectorAll("*"),
    copies = copy.querySelectorAll("*");
  originals.forEach((original, i) => {
    const target = copies[i],
      names = COPIED[original.localName];
    if (!names) return;
    const style = getComputedStyle(original);
    for (const name of names) {
      const value = style.getPropertyValue(name);
      if (value) target.setAttribute(name, plainColour(value));
    }
    const moved = original.style?.transform;
    if (moved) target.setAttribute("transform", moved.replaceAll("px", ""));
    for (const name of ["class", "style", "tabindex", "role", "data-id", "data-tone", "data-kind"]) target.removeAttribute(name);
    for (const { name } of [...target.attributes]) if (name.startsWith("aria-")) target.removeAttribute(name);
  });
  const background = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  for (const [name, value] of Object.entries({ width: "100%", height: "100%", fill: getComputedStyle(root).backgroundColor }))
    background.setAttribute(name, value);
  copy.prepend(background);
  for (const name of ["class", "style", "role"]) copy.removeAttribute(name);
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  return new XMLSerializer().serializeToString(copy);
}

/** @returns {Promise<Blob>} */
export async function pngBlob(svg, root) {
  const text = svgText(svg, root);
  const [w, h] = [svg.width.baseVal.value, svg.height.baseVal.value];
  const scale = Math.min(2, MOST_PIXELS / Math.max(w, h));
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [Math.max(1, Math.round(w * scale)), Math.max(1, Math.round(h * scale))];
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done, failed) => canvas.toBlob((blob) => (blob ? done(blob) : failed(new Error("The picture is too large."))), "image/png"));
}

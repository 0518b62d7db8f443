// What the playground knows: which tile to draw where, how views lie on their image, what a page can show. No drawing here.
import { row, unpack } from "../lib/arrays.js";

/** Views as Python sent them (`drawn`), or one of a page's sets, in one form: kind, of, shape, tile(image), field(image). */
export function readViews(views, banks) {
  const opened = banks ? new Map(Object.entries(banks).map(([name, packed]) => [name, unpack(packed)])) : null;
  return views.map((view) => {
    const tiles = opened ? opened.get(view.bank) : unpack(view.pixels);
    const field = unpack(view.field);
    return {
      kind: view.kind,
      of: view.of ?? 0, // which view a mask hides patches of
      shape: tiles.shape.slice(1),
      tile: (image) => row(tiles, opened ? view.index[image] : image),
      field: (image) => (field ? row(field, image).data : null),
    };
  });
}

/** The views in the order in which they are shown, in groups of one size; a mask stands beside the view that it is of. */
export function groupsOf(views) {
  const groups = new Map();
  views.forEach((view, v) => {
    if (view.kind === "mask") return;
    const size = String(view.shape.slice(0, 2)),
      masks = views.flatMap((other, m) => (other.kind === "mask" && other.of === v ? [m] : []));
    groups.set(size, [...(groups.get(size) ?? []), v, ...masks]);
  });
  return [...groups.values()];
}

/** The largest side, in px, at which so many squares with captions fit into a box, and in how many columns. */
export function sideOf(count, width, height, gap = 12, caption = 22) {
  let best = [40, Math.max(1, Math.floor((width + gap) / (40 + gap)))];
  for (let columns = 1; columns <= count; columns++) {
    const side = Math.floor(Math.min((width - gap * (columns - 1)) / columns, height / Math.ceil(count / columns) - caption));
    if (side > best[0]) best = [side, columns];
  }
  return best;
}

/** The point of the source (0 to 1) that a view shows at (x, y). */
export const at = (field, x, y) => [
  field[0] * x + field[1] * y + field[2],
  field[3] * x + field[4] * y + field[5],
];

/** The view's corners on the source: upper left, upper right, lower right, lower left. */
export const outline = (field) => [at(field, 0, 0), at(field, 1, 0), at(field, 1, 1), at(field, 0, 1)];

/** Share of the first view's area (its part inside the image) that the second view shows too, 0 to 1; null if unknown. */
export function shared(first, second, steps = 40) {
  if (!first || !second) return null;
  const [a, b, c, d, e, f] = second,
    det = a * e - b * d;
  if (Math.abs(det) < 1e-12) return 0;
  let inside = 0,
    both = 0;
  for (let i = 0; i < steps * steps; i++) {
    const [x, y] = at(first, ((i % steps) + 0.5) / steps, (Math.floor(i / steps) + 0.5) / steps);
    if (x < 0 || y < 0 || x > 1 || y > 1) continue;
    inside++;
    const u = (e * (x - c) - b * (y - f)) / det,
      v = (a * (y - f) - d * (x - c)) / det;
    if (u >= 0 && v >= 0 && u <= 1 && v <= 1) both++;
  }
  return inside ? both / inside : 0;
}

/** "Random resized crop" of "RandomResizedCrop". */
export const words = (name) =>
  name
    .replace(/([a-z0-9])([A-Z])/g, "$1 $2")
    .replace(/ ([A-Z])([a-z]| |$)/g, (_, first, next) => ` ${first.toLowerCase()}${next}`);

/** "View 3", "Views 3–8", "Views 1 and 2"; "Masks" for what is made of all views. */
export function viewNames(numbers) {
  if (!numbers.length) return "Masks";
  const [first, last] = [numbers[0] + 1, numbers[numbers.length - 1] + 1];
  if (numbers.length < 2) return `View ${first}`;
  return numbers.length === 2 ? `Views ${first} and ${last}` : `Views ${first}–${last}`;
}

/** How many patches a mask hides. */
export const hiddenCells = (data) => data.reduce((sum, code) => sum + (code ? 1 : 0), 0);

const listed = (parts) => `${parts.slice(0, -1).join(", ")} and ${parts[parts.length - 1]}`;

const SMALL = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];
const count = (n) => SMALL[n] ?? String(n);

/** What one sees, in a sentence or two. */
export function describe(views, image) {
  const pictures = views.filter((view) => view.kind === "image"),
    masks = views.filter((view) => view.kind === "mask");
  const sizes = new Map();
  for (const { shape } of pictures) {
    const size = `${shape[1]}×${shape[0]} px`;
    sizes.set(size, (sizes.get(size) ?? 0) + 1);
  }
  const made = [...sizes].map(([size, n]) => `${count(n)} ${n > 1 ? "views" : "view"} of ${size}`);
  const said = [`Each image becomes ${made.join(" and ")}.`];
  if (masks.length > 1) {
    const parts = masks.map((mask) => `${hiddenCells(mask.tile(image).data) || "none"} of view ${mask.of + 1}`);
    said.push(`Of ${masks[0].tile(image).data.length} patches each, ${listed(parts)} are hidden: there the student must say what the teacher says.`);
  } else if (masks.length) {
    const { data } = masks[0].tile(image);
    const hidden = hiddenCells(data);
    const share = Math.round((100 * hidden) / data.length);
    const blocks = new Set([...data].filter((code) => code > 1)).size;
    if (blocks)
      said.push(`${data.length - hidden} of its ${data.length} patches are seen, and ${count(blocks)} blocks are to be predicted from them.`);
    else said.push(`${hidden} of its ${data.length} patches are hidden (${share}\u00a0%): the network must guess them.`);
  } else if (pictures.length > 1 && pictures.length <= 8 && pictures[0].field(image) && pictures[1].field(image)) {
    const both = Math.round(100 * shared(pictures[0].field(image), pictures[1].field(image)));
    said.push(
      both === 0
        ? "Here view 1 shows nothing that view 2 shows too."
        : `Here ${both}\u00a0% of what view 1 shows is also in view 2.`,
    );
  }
  return said.join(" ");
}

/** A value as it is read: 0.2, 24 px, 0.2 – 1. */
export function formatValue(knob, value) {
  const number = (x) => String(Number(Number(x).toFixed(2))).replace("-", "−");
  const text = Array.isArray(value) ? value.map(number).join(" – ") : typeof value === "number" ? number(value) : String(value);
  return knob.unit ? `${text}${knob.unit === "°" ? "" : " "}${knob.unit}` : text;
}

/** Where a value stands among positions: the nearest. */
export function nearest(positions, value) {
  const distance = (a, b) =>
    Array.isArray(a) ? a.reduce((sum, x, i) => sum + Math.abs(x - b[i]), 0) : typeof a === "number" ? Math.abs(a - b) : Number(a !== b);
  let best = 0;
  positions.forEach((position, i) => {
    if (distance(position, value) < distance(positions[best], value)) best = i;
  });
  return best;
}

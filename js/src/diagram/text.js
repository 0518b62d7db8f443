// Names may be of any length: they are cut to the room they have before they reach the page.

export const LONGEST = 2000; // characters of a name in a tooltip or the details

let context;

const widths = new Map();
let lastFont = "";

/** Width in px, remembered: names repeat. */
function width(text, font) {
  const key = `${font}|${text}`;
  let found = widths.get(key);
  if (found === undefined) {
    if (widths.size > 20000) widths.clear();
    widths.set(key, (found = measure(text, font)));
  }
  return found;
}

/** Asks the page; without one (tests) an average. */
function measure(text, font) {
  if (context === undefined) context = globalThis.document?.createElement?.("canvas").getContext?.("2d") ?? null;
  if (!context) return text.length * 0.56 * (Number.parseFloat(font.match(/([\d.]+)px/)?.[1]) || 12);
  if (font !== lastFont) context.font = lastFont = font; // slow, so not for every name
  return context.measureText(text).width;
}

const known = new Map();

/** The text, or as much of it as fits with "…". */
export function fitText(text, room, font) {
  const short = String(text).slice(0, 200);
  const key = `${font}|${Math.round(room)}|${short}`;
  if (known.has(key)) return known.get(key);
  let fitted = short;
  if (width(short, font) > room || short.length < String(text).length) {
    let low = 0,
      high = short.length;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (width(`${short.slice(0, middle)}…`, font) <= room) low = middle;
      else high = middle - 1;
    }
    fitted = low ? `${short.slice(0, low)}…` : "";
  }
  if (known.size > 5000) known.clear();
  known.set(key, fitted);
  return fitted;
}

export const textWidth = (text, font) => width(String(text).slice(0, 200), font);

/** At most `most` characters, and how many were left out. */
export function cut(text, most = LONGEST) {
  const whole = String(text ?? "");
  return whole.length <= most ? whole : `${whole.slice(0, most)}… (${(whole.length - most).toLocaleString("en")} more characters)`;
}

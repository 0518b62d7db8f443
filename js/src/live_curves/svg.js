// A drawing surface with a canvas's methods (those that we use) that writes an SVG file.

const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
/** Text that is safe inside an XML file; characters that XML forbids are dropped. */
export const escapeXml = (text) =>
  String(text)
    .replace(/[^\t\n\r\u0020-\uD7FF\uE000-\uFFFD\u{10000}-\u{10FFFF}]/gu, "")
    .replace(/[&<>"]/g, (c) => ESCAPES[c]);
const number = (x) => Number(x.toFixed(2));
const BASELINES = { top: 0.8, middle: 0.34, alphabetic: 0 }; // of the height of the font
const STATE = ["fillStyle", "strokeStyle", "lineWidth", "lineJoin", "globalAlpha", "font", "textAlign", "textBaseline", "dash", "x", "y", "clipId"];

export class SvgContext {
  constructor(width, height) {
    Object.assign(this, { width, height, parts: [], path: "", stack: [], clips: 0 });
    Object.assign(this, { fillStyle: "#000", strokeStyle: "#000", lineWidth: 1, lineJoin: "miter", globalAlpha: 1 });
    Object.assign(this, { font: "11px sans-serif", textAlign: "left", textBaseline: "alphabetic" });
    Object.assign(this, { dash: [], x: 0, y: 0, clipId: "" });
    this.ruler = globalThis.document?.createElement("canvas").getContext("2d");
  }

  save() {
    this.stack.push(Object.fromEntries(STATE.map((name) => [name, this[name]])));
  }
  restore() {
    Object.assign(this, this.stack.pop());
  }
  translate(dx, dy) {
    this.x += dx;
    this.y += dy;
  }
  setLineDash(dash) {
    this.dash = dash;
  }

  beginPath() {
    this.path = "";
  }
  moveTo(x, y) {
    this.path += `M${number(x + this.x)} ${number(y + this.y)}`;
  }
  lineTo(x, y) {
    this.path += `L${number(x + this.x)} ${number(y + this.y)}`;
  }
  closePath() {
    this.path += "Z";
  }
  rect(x, y, width, height) {
    this.moveTo(x, y);
    this.path += `h${number(width)}v${number(height)}h${number(-width)}Z`;
  }
  /** Whole circles only. */
  arc(x, y, r) {
    this.moveTo(x - r, y);
    this.path += `a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`;
  }
  clip() {
    this.clipId = `clip-${++this.clips}`;
    this.parts.push(`<clipPath id="${this.clipId}"><path d="${this.path}"/></clipPath>`);
  }

  add(tag, attributes, text) {
    const all = { ...attributes, opacity: this.globalAlpha < 1 ? this.globalAlpha : null };
    if (this.clipId) all["clip-path"] = `url(#${this.clipId})`;
    const written = Object.entries(all)
      .filter(([, value]) => value != null && value !== "")
      .map(([name, value]) => ` ${name}="${escapeXml(value)}"`)
      .join("");
    this.parts.push(text == null ? `<${tag}${written}/>` : `<${tag}${written}>${escapeXml(text)}</${tag}>`);
  }
  fill() {
    this.add("path", { d: this.path, fill: this.fillStyle });
  }
  stroke() {
    if (!this.path) return;
    const dash = this.dash.length ? this.dash.join(" ") : null;
    this.add("path", { d: this.path, fill: "none", stroke: this.strokeStyle, "stroke-width": this.lineWidth, "stroke-dasharray": dash, "stroke-linejoin": this.lineJoin });
  }
  fillRect(x, y, width, height) {
    this.add("rect", { x: number(x + this.x), y: number(y + this.y), width: number(width), height: number(height), fill: this.fillStyle });
  }
  measureText(text) {
    if (!this.ruler) return { width: 0.55 * this.fontSize * String(text).length };
    this.ruler.font = this.font;
    return this.ruler.measureText(text);
  }
  get fontSize() {
    return Number(/(\d+(?:\.\d+)?)px/.exec(this.font)?.[1] ?? 11);
  }
  fillText(text, x, y) {
    const [, weight = null] = /^(\d{3}|bold) /.exec(this.font) ?? [];
    this.add(
      "text",
      {
        x: number(x + this.x),
        y: number(y + this.y + BASELINES[this.textBaseline] * this.fontSize),
        fill: this.fillStyle,
        "text-anchor": { center: "middle", right: "end" }[this.textAlign] ?? null,
        "font-size": this.fontSize,
        "font-weight": weight,
        "font-family": this.font.replace(/^.*?px\s*/, ""),
      },
      text,
    );
  }

  /** The file. */
  toString() {
    const size = `width="${this.width}" height="${this.height}" viewBox="0 0 ${this.width} ${this.height}"`;
    return `<svg xmlns="http://www.w3.org/2000/svg" ${size}>${this.parts.join("")}</svg>\n`;
  }
}

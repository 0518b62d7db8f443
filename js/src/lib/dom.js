// Small helpers to make elements. Text only ever enters through textContent and setAttribute.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Makes an element: h("button", { class: "nnb-button", on: { click } }, "Stop").
 * @param {string} tag
 * @param {Record<string, any>} [props] attributes; `on` holds listeners, `data` holds data-* values
 * @param {...(Node|string|null|undefined|false)} children
 */
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same for SVG elements. */
export function s(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(node, { on = {}, data = {}, ...attributes }, children) {
  for (const [name, value] of Object.entries(attributes)) setAttribute(node, name, value);
  for (const [name, value] of Object.entries(data)) node.dataset[name] = value;
  for (const [name, listener] of Object.entries(on)) node.addEventListener(name, listener);
  node.append(...children.filter((child) => child != null && child !== false));
  return node;
}

/** Sets an attribute; true means present without a value, false and null mean absent. */
export function setAttribute(node, name, value) {
  if (value == null || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value === true ? "" : value))
    node.setAttribute(name, value === true ? "" : value);
}

/** Sets the text of a node, and touches the page only if it differs. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A 12 px icon from one path drawn on a 12 x 12 grid. */
export function icon(path) {
  return s(
    "svg",
    { viewBox: "0 0 12 12", width: 12, height: 12, "aria-hidden": "true", class: "nnb-icon" },
    s("path", { d: path, fill: "currentColor" }),
  );
}

/** An id that is unique on this page, also where crypto.randomUUID is missing (plain http). */
export function uniqueId() {
  if (globalThis.crypto?.randomUUID) return crypto.randomUUID();
  const bytes = new Uint8Array(16);
  globalThis.crypto?.getRandomValues?.(bytes) ?? bytes.forEach((_, i) => (bytes[i] = Math.random() * 256));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// A slider with its name and value above it.
import { h } from "./dom.js";

/**
 * @param {string} name
 * @param {Record<string, any>} attributes of the input: min, max, step
 * @param {(value: number) => void} onInput
 * @param {string} [help] what a pointer that rests on it is told
 * @returns {{field: HTMLElement, input: HTMLInputElement, out: HTMLOutputElement}} `out` takes the value as text
 */
export function slider(name, attributes, onInput, help) {
  const out = h("output"),
    input = h("input", { type: "range", "aria-label": name, ...attributes, on: { input: () => onInput(Number(input.value)) } });
  const field = h("label", { class: "nnb-field", title: help }, h("span", { class: "nnb-field-head" }, h("span", {}, name), out), input);
  return { field, input, out };
}

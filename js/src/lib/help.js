// A question mark that explains something on hover, focus and click.
import { h, uniqueId } from "./dom.js";

/**
 * @param {string} label what a screen reader calls the button
 * @param {string} text one or two sentences
 */
export function helpBox(label, text) {
  const id = `nnb-${uniqueId()}`;
  const button = h(
    "button",
    {
      class: "nnb-help",
      type: "button",
      "aria-label": label,
      "aria-describedby": id,
      on: { keydown: (event) => event.key === "Escape" && button.blur() },
    },
    "?",
  );
  return h("span", { class: "nnb-help-box" }, button, h("span", { class: "nnb-tip", role: "tooltip", id }, text));
}

// The factor on the learning rate: a slider from a tenth to ten times.
import { h, setAttribute, setText } from "../lib/dom.js";
import { formatFactor } from "../lib/format.js";
import { throttle } from "../lib/scheduler.js";

/** @param {{send: (factor: number) => void}} link */
export function createRate({ send }) {
  const slider = h("input", { type: "range", min: -1, max: 1, step: 0.05, value: 0, "aria-label": "Factor on the learning rate" });
  const factor = h("output", {}, "×1");
  const reset = h(
    "button",
    { class: "nnb-link", type: "button", "aria-label": "Reset the factor on the learning rate to 1", on: { click: () => set(1, true) } },
    "reset",
  );
  const root = h(
    "div",
    { class: "nnb-rate" },
    h("div", { class: "nnb-rate-head" }, h("span", {}, "Learning rate"), reset, factor),
    h("div", { class: "nnb-rate-row" }, h("span", { "aria-hidden": "true" }, "×0.1"), slider, h("span", { "aria-hidden": "true" }, "×10")),
  );
  let scale = 1; // may lie beyond the ends of the slider
  const sendNow = throttle(() => send(Number(scale.toPrecision(3))), 200);

  function show(next) {
    scale = next;
    const text = formatFactor(scale);
    setText(factor, text);
    setAttribute(slider, "aria-valuetext", text);
    reset.disabled = slider.disabled || scale === 1;
  }
  function set(next, tell = false) {
    slider.value = next > 0 ? Math.log10(next) : -1;
    show(next);
    if (tell) sendNow();
  }
  slider.addEventListener("input", () => show(10 ** slider.value));
  slider.addEventListener("change", sendNow);
  return {
    root,
    set,
    draw({ controls, rateDisabled }) {
      root.hidden = !controls;
      slider.disabled = rateDisabled;
      reset.disabled = rateDisabled || scale === 1;
    },
    dispose: () => sendNow.cancel(),
  };
}
